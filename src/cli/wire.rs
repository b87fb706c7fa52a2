//! Between the words of the command line and the messages of the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

use brevet_api::v1;
use brevet_core::name::{ActionName, ArgumentName, AudienceName, InvalidName};
use brevet_core::scope::{Constraint, InvalidScope, Permission, Scope, Value};
use brevet_core::time::Timestamp;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use thiserror::Error;

use super::exit::{Failure, Usage};

/// The words for the values of an enumeration of the wire.
pub(super) struct Words<T: 'static>(&'static [(&'static str, T)]);

pub(super) const SENSITIVITIES: Words<v1::Sensitivity> = Words(&[
    ("low", v1::Sensitivity::Low),
    ("moderate", v1::Sensitivity::Moderate),
    ("high", v1::Sensitivity::High),
    ("critical", v1::Sensitivity::Critical),
]);

pub(super) const PROMPT_ORIGINS: Words<v1::PromptOrigin> = Words(&[
    ("system", v1::PromptOrigin::System),
    ("user", v1::PromptOrigin::User),
    ("retrieved", v1::PromptOrigin::Retrieved),
    ("tool_output", v1::PromptOrigin::ToolOutput),
    ("untrusted", v1::PromptOrigin::Untrusted),
]);

pub(super) const STATES: Words<v1::task::State> = Words(&[
    ("active", v1::task::State::Active),
    ("completed", v1::task::State::Completed),
    ("failed", v1::task::State::Failed),
    ("cancelled", v1::task::State::Cancelled),
    ("revoked", v1::task::State::Revoked),
    ("expired", v1::task::State::Expired),
]);

pub(super) const LEASE_STATES: Words<v1::lease::State> = Words(&[
    ("active", v1::lease::State::Active),
    ("expired", v1::lease::State::Expired),
    ("revoked", v1::lease::State::Revoked),
    ("undelivered", v1::lease::State::Undelivered),
]);

pub(super) const PROFILES: Words<v1::Profile> = Words(&[
    ("task_token", v1::Profile::TaskToken),
    ("x509_svid", v1::Profile::X509Svid),
    ("jwt_svid", v1::Profile::JwtSvid),
]);

/// A word that names no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a known value")]
struct UnknownWord;

impl<T: Copy + Into<i32> + Send + Sync> Words<T> {
    /// Takes one of the words from the command line.
    pub(super) fn parser(self) -> impl TypedValueParser<Value = T> {
        let words = self.0;
        PossibleValuesParser::new(words.iter().map(|(word, _)| *word)).try_map(move |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or(UnknownWord)
        })
    }

    /// The word for a value; none for what is unspecified, or newer than this program.
    pub(super) fn word(&self, wire: i32) -> Option<&'static str> {
        self.0.iter().find(|(_, value)| (*value).into() == wire).map(|(word, _)| *word)
    }
}

/// RFC 3339 in UTC; empty if there is none.
pub(super) fn time(wire: Option<&prost_types::Timestamp>) -> String {
    wire.map(|wire| {
        let millis = i64::from(wire.nanos) / 1_000_000 + wire.seconds.saturating_mul(1_000);
        Timestamp::from_millis(u64::try_from(millis).unwrap_or(0)).to_string()
    })
    .unwrap_or_default()
}

/// So many whole seconds; what is more than the wire can say is the most it can.
pub(super) fn seconds(seconds: u64) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}

/// A scope on the command line.
#[derive(Debug, Args)]
pub(super) struct ScopeOptions {
    /// One permission; may be repeated.
    #[arg(long, value_name = "AUDIENCE RESOURCE ACTION[,ACTION…]", value_parser = permission)]
    permit: Vec<Permission>,
    /// Permissions as a JSON array, or the file that holds it; needed for constraints on arguments.
    #[arg(long, value_name = "FILE|JSON")]
    scope: Option<String>,
}

impl ScopeOptions {
    /// Everything that was said, as one scope.
    pub(super) fn read(&self) -> Result<Scope, Failure> {
        let mut permissions = self.permit.clone();
        if let Some(text) = &self.scope {
            permissions.extend_from_slice(from_json(text)?.permissions());
        }
        Ok(Scope::new(permissions)?)
    }
}

/// A scope that cannot be read.
#[derive(Debug, Error)]
enum ScopeError {
    #[error("cannot read the scope {0}")]
    Io(String, #[source] io::Error),
    #[error("not a scope")]
    Content(#[source] serde_json::Error),
}

fn from_json(text: &str) -> Result<Scope, ScopeError> {
    let inline = text.trim_start().starts_with('[');
    let json = if inline {
        text.to_owned()
    } else {
        fs::read_to_string(Path::new(text)).map_err(|source| ScopeError::Io(text.to_owned(), source))?
    };
    serde_json::from_str(&json).map_err(ScopeError::Content)
}

/// Why a text is not a permission.
#[derive(Debug, Error)]
enum PermissionError {
    #[error("expected an audience, a resource and actions, with a space between")]
    Parts,
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Scope(#[from] InvalidScope),
}

fn permission(text: &str) -> Result<Permission, PermissionError> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [audience, resource, actions] = parts[..] else { return Err(PermissionError::Parts) };
    let actions = actions.split(',').map(ActionName::parse).collect::<Result<BTreeSet<_>, _>>()?;
    Ok(Permission::new(AudienceName::parse(audience)?, resource.parse()?, actions, BTreeMap::new())?)
}

/// The one audience that a scope is for.
pub(super) fn audience(scope: &Scope) -> Result<&AudienceName, Usage> {
    let audiences: Vec<_> = scope.audiences().into_iter().collect();
    match audiences[..] {
        [audience] => Ok(audience),
        _ => Err(Usage("a credential is for one audience: name it with --permit or --scope")),
    }
}

/// A scope as the wire has it.
pub(super) fn permissions(scope: &Scope) -> Vec<v1::Permission> {
    let wire = |permission: &Permission| v1::Permission {
        audience: permission.audience().to_string(),
        resource: permission.resource().to_string(),
        actions: permission.actions().iter().map(ToString::to_string).collect(),
        constraints: permission
            .constraints()
            .iter()
            .map(|(argument, wanted)| {
                (argument.to_string(), v1::Constraint { kind: Some(constraint(wanted)) })
            })
            .collect(),
    };
    scope.permissions().iter().map(wire).collect()
}

fn constraint(constraint: &Constraint) -> v1::constraint::Kind {
    use v1::constraint::{Between, Kind, OneOf};
    let value = |value: &Value| v1::Value {
        kind: Some(match value {
            Value::Text(text) => v1::value::Kind::Text(text.clone()),
            Value::Integer(integer) => v1::value::Kind::Integer(*integer),
        }),
    };
    match constraint {
        Constraint::OneOf(set) => Kind::OneOf(OneOf { values: set.iter().map(value).collect() }),
        Constraint::Between { min, max } => Kind::Between(Between { min: *min, max: *max }),
        Constraint::Prefix(prefix) => Kind::Prefix(prefix.clone()),
    }
}

/// An answer that does not fit its shape: it says more than this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the broker's answer is not understood")]
pub(super) struct NotUnderstood;

/// The scope that an answer names. What is not known in it is an error: left out, it would look wider than it is.
pub(super) fn scope(wire: Vec<v1::Permission>) -> Result<Scope, NotUnderstood> {
    let permissions = wire.into_iter().map(|wire| understood(wire).ok_or(NotUnderstood));
    Scope::new(permissions.collect::<Result<Vec<_>, _>>()?).map_err(|_| NotUnderstood)
}

fn understood(wire: v1::Permission) -> Option<Permission> {
    let actions = wire.actions.iter().map(|action| ActionName::parse(action).ok()).collect::<Option<_>>()?;
    let constraints = wire
        .constraints
        .into_iter()
        .map(|(argument, wire)| Some((ArgumentName::parse(&argument).ok()?, understood_constraint(wire)?)))
        .collect::<Option<_>>()?;
    Permission::new(
        AudienceName::parse(&wire.audience).ok()?,
        wire.resource.parse().ok()?,
        actions,
        constraints,
    )
    .ok()
}

fn understood_constraint(wire: v1::Constraint) -> Option<Constraint> {
    use v1::constraint::Kind;
    let value = |wire: v1::Value| match wire.kind? {
        v1::value::Kind::Text(text) => Some(Value::Text(text)),
        v1::value::Kind::Integer(integer) => Some(Value::Integer(integer)),
    };
    Some(match wire.kind? {
        Kind::OneOf(set) => Constraint::OneOf(set.values.into_iter().map(value).collect::<Option<_>>()?),
        Kind::Between(range) => Constraint::Between { min: range.min, max: range.max },
        Kind::Prefix(prefix) => Constraint::Prefix(prefix),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_is_three_words() {
        let read = permission("https://files.example reports/** read,write").unwrap();
        let json =
            r#"[{"audience":"https://files.example","resource":"reports/**","actions":["read","write"]}]"#;
        assert_eq!(from_json(json).unwrap().permissions(), [read]);
        for bad in ["", "a b", "a b c d", "A b c", "a b/../c d", "a b c,", "a b **"] {
            assert!(permission(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scope_comes_back_from_the_wire_as_it_went() {
        let json = r#"[{"audience":"a","resource":"b/**","actions":["c"],"constraints":
            {"x":{"one_of":["t",3]},"y":{"between":{"min":1}},"z":{"prefix":"p"}}}]"#;
        let sent = from_json(json).unwrap();
        assert_eq!(scope(permissions(&sent)), Ok(sent.clone()));
        let mut newer = permissions(&sent);
        newer[0].constraints.get_mut("y").unwrap().kind = None;
        assert_eq!(scope(newer), Err(NotUnderstood));
    }

    #[test]
    fn every_value_of_the_wire_but_the_unspecified_has_a_word() {
        for state in 1..8 {
            assert_eq!(STATES.word(state).is_some(), v1::task::State::try_from(state).is_ok());
        }
        assert!((1..5).all(|value| LEASE_STATES.word(value).is_some()));
        assert!((1..4).all(|value| PROFILES.word(value).is_some()));
        assert!((1..5).all(|value| SENSITIVITIES.word(value).is_some()));
        assert!((1..6).all(|value| PROMPT_ORIGINS.word(value).is_some()));
        assert_eq!((SENSITIVITIES.word(0), STATES.word(0)), (None, None));
    }

    #[test]
    fn times_are_rfc_3339() {
        let wire = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 };
        assert_eq!(time(Some(&wire)), "2023-11-14T22:13:20.005Z");
        assert_eq!(time(None), "");
    }
}
