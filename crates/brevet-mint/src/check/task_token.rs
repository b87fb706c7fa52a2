//! Reads a token back and compares it with the terms.
//!
//! The claims are declared a second time, strictly, and names, ids and digests are parsed from their text.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::iter::successors;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::id::Id;
use brevet_core::proof::Recorded;
use brevet_core::scope::{Constraint, Permission, Value};
use brevet_core::terms::{Content, TaskToken, Terms};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use super::{Mismatch, same};

/// Compares a token with the terms it was to be made of.
pub(crate) fn product(token: &str, recorded: &Recorded) -> Result<(), Mismatch> {
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("parts");
    };
    let decode = |part: &str, name: Mismatch| URL_SAFE_NO_PAD.decode(part).map_err(|_| name);
    same("signature", decode(signature, "signature")?.len() == 64)?;
    compare_header(&decode(header, "header")?, recorded.terms())?;
    let claims = decode(claims, "claims")?;
    let claims: Claims<'_> = serde_json::from_slice(&claims).map_err(|_| "claims")?;
    compare_claims(&claims, recorded)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims<'a> {
    #[serde(borrow)]
    iss: Cow<'a, str>,
    sub: &'a str,
    #[serde(borrow)]
    act: Act<'a>,
    client_id: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
    #[serde(borrow)]
    authorization_details: Vec<Detail<'a>>,
    #[serde(borrow)]
    cnf: Cnf<'a>,
    #[serde(borrow)]
    task: Vec<&'a str>,
    rev: u64,
    pol: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Act<'a> {
    #[serde(borrow)]
    iss: Cow<'a, str>,
    sub: &'a str,
    sub_profile: &'a str,
    #[serde(default, borrow, deserialize_with = "present")]
    act: Option<Box<Act<'a>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cnf<'a> {
    jkt: &'a str,
    #[serde(rename = "x5t#S256", default, borrow, deserialize_with = "present")]
    x5t: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    locations: Vec<&'a str>,
    identifier: &'a str,
    #[serde(borrow)]
    actions: Vec<&'a str>,
    #[serde(default, borrow)]
    constraints: Members<'a, Bound>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Bound {
    OneOf(Vec<Scalar>),
    Between(Range),
    Prefix(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    #[serde(default, deserialize_with = "present")]
    min: Option<i64>,
    #[serde(default, deserialize_with = "present")]
    max: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Integer(i64),
    Text(String),
}

/// What may be absent is absent or there; a `null` is neither.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// The members of a JSON object in the order they were written, repetitions included.
struct Members<'a, V>(Vec<(&'a str, V)>);

impl<V> Default for Members<'_, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de: 'a, 'a, V: Deserialize<'de>> Deserialize<'de> for Members<'a, V> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<'a, V>(PhantomData<(&'a str, V)>);
        impl<'de: 'a, 'a, V: Deserialize<'de>> Visitor<'de> for Object<'a, V> {
            type Value = Members<'a, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

fn compare_header(header: &[u8], terms: &Terms) -> Result<(), Mismatch> {
    let Header { alg, kid, typ } = serde_json::from_slice(header).map_err(|_| "header")?;
    same("alg", alg == "ES256")?;
    same("typ", typ == "at+jwt")?;
    same("kid", kid == terms.key_id.as_str())
}

// INVARIANT: both sides are taken apart completely, so that a new claim or term does not compile uncompared.
fn compare_claims(claims: &Claims<'_>, recorded: &Recorded) -> Result<(), Mismatch> {
    let Terms { id, key_id: _, issued_at, end, holder, policy, content } = recorded.terms();
    let Content::TaskToken(token) = content else { return Err("form") };
    let TaskToken { issuer, subject, actors, audience, scope, certificate, path } = token;
    let Claims {
        iss,
        sub,
        act,
        client_id,
        aud,
        iat,
        exp,
        jti,
        authorization_details,
        cnf: Cnf { jkt, x5t },
        task,
        rev,
        pol,
    } = claims;

    same("iss", iss == issuer)?;
    same("sub", *sub == subject.as_str())?;
    let chain = successors(Some(act), |act| act.act.as_deref());
    same("act", chain.clone().count() == actors.len())?;
    for (act, actor) in chain.zip(actors) {
        let Act { iss, sub, sub_profile, act: _ } = act;
        same("act", iss == issuer && *sub == actor.as_str() && *sub_profile == "ai_agent")?;
    }
    same("client_id", actors.first().is_some_and(|agent| *client_id == agent.as_str()))?;
    same("aud", *aud == audience.as_str())?;
    // In milliseconds: an `exp` that was rounded is not the end that the journal holds.
    same("iat", iat.checked_mul(1000) == Some(issued_at.millis()))?;
    same("exp", exp.checked_mul(1000) == Some(end.millis()))?;
    same("jti", jti.parse() == Ok(id.key))?;
    same("authorization_details", authorization_details.len() == scope.permissions().len())?;
    for (detail, permission) in authorization_details.iter().zip(scope.permissions()) {
        same("authorization_details", detail_is(detail, permission, aud))?;
    }
    same("cnf.jkt", jkt.parse() == Ok(*holder))?;
    same("cnf.x5t#S256", x5t.map(str::parse).transpose() == Ok(*certificate))?;
    same("task", task.iter().map(|id| id.parse::<Id>()).eq(path.iter().map(|id| Ok(*id))))?;
    same("task", path.first() == Some(&id.task.root().0) && path.last() == Some(&id.task.node()))?;
    same("rev", *rev == recorded.revision().0)?;
    same("pol", pol.parse() == Ok(*policy))
}

fn detail_is(detail: &Detail<'_>, permission: &Permission, audience: &str) -> bool {
    let Detail { r#type, locations, identifier, actions, constraints } = detail;
    *r#type == "brevet"
        && permission.audience().as_str() == audience
        && locations.as_slice() == [audience]
        && *identifier == permission.resource().as_str()
        && actions.iter().copied().eq(permission.actions().iter().map(|action| action.as_str()))
        && constraints.0.len() == permission.constraints().len()
        && constraints.0.iter().zip(permission.constraints()).all(
            |((name, bound), (argument, constraint))| {
                *name == argument.as_str() && bound_is(bound, constraint)
            },
        )
}

fn bound_is(bound: &Bound, constraint: &Constraint) -> bool {
    match (bound, constraint) {
        (Bound::OneOf(written), Constraint::OneOf(set)) => set_is(written, set),
        (Bound::Between(Range { min, max }), Constraint::Between { min: least, max: most }) => {
            min == least && max == most
        }
        (Bound::Prefix(written), Constraint::Prefix(prefix)) => written == prefix,
        (Bound::OneOf(_) | Bound::Between(_) | Bound::Prefix(_), _) => false,
    }
}

fn set_is(written: &[Scalar], set: &BTreeSet<Value>) -> bool {
    written.len() == set.len()
        && written.iter().zip(set).all(|(scalar, value)| match (scalar, value) {
            (Scalar::Integer(written), Value::Integer(number)) => written == number,
            (Scalar::Text(written), Value::Text(text)) => written == text,
            (Scalar::Integer(_) | Scalar::Text(_), _) => false,
        })
}

#[cfg(test)]
mod tests;
