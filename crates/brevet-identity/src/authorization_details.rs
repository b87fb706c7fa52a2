//! A scope as `authorization_details` (RFC 9396): the one place that says how the two correspond.
//!
//! Each permission is one object: `type` is `brevet`, `locations` the one audience, `identifier` the resource
//! pattern (RFC 9396 §2.2), `actions` the actions, and `constraints`, left out when empty, maps an argument's name
//! to its constraint.

use std::collections::{BTreeMap, BTreeSet};

use brevet_core::name::{ActionName, ArgumentName, AudienceName};
use brevet_core::scope::{Constraint, InvalidScope, Permission, ResourcePattern, Scope};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// The value of `type`.
pub const DETAIL_TYPE: &str = "brevet";

/// Why a value is not the `authorization_details` of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidDetails {
    /// It is not an array of objects with exactly the members named above.
    #[error("the authorization details are malformed")]
    Malformed,
    /// A permission is not valid.
    #[error("the authorization details are not a valid scope")]
    Scope(#[from] InvalidScope),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail {
    #[serde(rename = "type")]
    detail_type: DetailType,
    locations: [AudienceName; 1],
    identifier: ResourcePattern,
    actions: BTreeSet<ActionName>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    constraints: BTreeMap<ArgumentName, Constraint>,
}

#[derive(Serialize, Deserialize)]
enum DetailType {
    #[serde(rename = "brevet")]
    Brevet,
}

/// Writes a scope.
#[must_use]
pub fn to_json(scope: &Scope) -> Value {
    let detail = |permission: &Permission| Detail {
        detail_type: DetailType::Brevet,
        locations: [permission.audience().clone()],
        identifier: permission.resource().clone(),
        actions: permission.actions().clone(),
        constraints: permission.constraints().clone(),
    };
    let details: Vec<Detail> = scope.permissions().iter().map(detail).collect();
    // Names, patterns and constraints always have a JSON form; null, which no reader takes, would stand for none.
    serde_json::to_value(details).unwrap_or_default()
}

/// Reads a scope. The caller has read the JSON with [`crate::json`], so no member occurs twice.
///
/// # Errors
/// [`InvalidDetails`] if it is not exactly in the form above.
pub fn from_json(details: Value) -> Result<Scope, InvalidDetails> {
    let details: Vec<Detail> = serde_json::from_value(details).map_err(|_| InvalidDetails::Malformed)?;
    let permissions = details.into_iter().map(|detail| {
        let [audience] = detail.locations;
        Permission::new(audience, detail.identifier, detail.actions, detail.constraints)
    });
    Ok(Scope::new(permissions.collect::<Result<Vec<_>, _>>()?)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn detail() -> Value {
        json!({
            "type": "brevet",
            "locations": ["https://files.example"],
            "identifier": "team/reports/**",
            "actions": ["list", "read"],
            "constraints": {"limit": {"between": {"max": 10}}, "kind": {"one_of": [1, "a"]}, "name": {"prefix": "q"}},
        })
    }

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        let mut plain = detail();
        plain.as_object_mut().unwrap().remove("constraints");
        plain["identifier"] = json!("team/x");
        for details in [json!([]), json!([detail()]), json!([plain, detail()])] {
            let scope = from_json(details.clone()).unwrap();
            assert_eq!(from_json(to_json(&scope)).unwrap(), scope);
            assert_eq!(to_json(&scope).as_array().unwrap().len(), details.as_array().unwrap().len());
        }
        assert_eq!(to_json(&from_json(json!([detail()])).unwrap()), json!([detail()]));
    }

    #[test]
    fn anything_else_is_refused() {
        for (name, value) in [
            ("type", json!("other")),
            ("type", json!(null)),
            ("locations", json!([])),
            ("locations", json!(["https://a.example", "https://b.example"])),
            ("locations", json!("https://a.example")),
            ("locations", json!(["https://A.example"])),
            ("identifier", json!("*")),
            ("identifier", json!("a/../b")),
            ("identifier", json!("")),
            ("actions", json!([])),
            ("actions", json!(["*"])),
            ("actions", json!("read")),
            ("constraints", json!({"limit": {}})),
            ("constraints", json!({"limit": {"between": {}}})),
            ("constraints", json!({"limit": {"one_of": []}})),
            ("constraints", json!({"limit": {"regex": "."}})),
            ("constraints", json!({"limit": {"between": {"max": 1.5}}})),
            ("constraints", json!({"a b": {"prefix": "x"}})),
            ("datatypes", json!([])),
            ("privileges", json!(["admin"])),
        ] {
            let mut bad = detail();
            bad[name] = value;
            assert!(from_json(json!([bad])).is_err(), "{bad}");
        }
        for missing in ["type", "locations", "identifier", "actions"] {
            let mut bad = detail();
            bad.as_object_mut().unwrap().remove(missing);
            assert!(from_json(json!([bad])).is_err(), "{missing}");
        }
        assert!(from_json(json!({})).is_err());
        assert!(from_json(json!(null)).is_err());
        assert!(from_json(json!(vec![detail(); 65])).is_ok(), "repetition means nothing");
    }
}
