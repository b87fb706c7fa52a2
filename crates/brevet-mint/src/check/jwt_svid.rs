//! Reads a JWT-SVID back and compares it with the terms.
//!
//! Header and claims are declared a second time, strictly: each member is there once and there is no other.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::id::Id;
use brevet_core::proof::Recorded;
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::task_svid::TaskSvidId;
use brevet_core::terms::{Content, JwtSvid, Terms};
use serde::Deserialize;

use super::{Mismatch, same};

/// Compares a JWT-SVID with the terms it was to be made of, and its subject with the trust domain that it is to be of.
pub(crate) fn product(token: &str, recorded: &Recorded, own: &TrustDomain) -> Result<(), Mismatch> {
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("parts");
    };
    let decode = |part: &str, name: Mismatch| URL_SAFE_NO_PAD.decode(part).map_err(|_| name);
    same("signature", decode(signature, "signature")?.len() == 64)?;
    let header = decode(header, "header")?;
    let Header { alg, kid, typ } = serde_json::from_slice(&header).map_err(|_| "header")?;
    same("alg", alg == "ES256")?;
    same("typ", typ == "JWT")?;
    same("kid", kid == recorded.terms().key_id.as_str())?;
    let claims = decode(claims, "claims")?;
    let claims: Claims<'_> = serde_json::from_slice(&claims).map_err(|_| "claims")?;
    compare_claims(&claims, recorded.terms(), own)
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
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
    #[serde(borrow)]
    cnf: Cnf<'a>,
    #[serde(borrow)]
    task: Vec<&'a str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cnf<'a> {
    jkt: &'a str,
    #[serde(rename = "x5t#S256", default, borrow, deserialize_with = "present")]
    x5t: Option<&'a str>,
}

/// What may be absent is absent or there; a `null` is neither.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de str>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

// INVARIANT: both sides are taken apart completely, so that a new claim or term does not compile uncompared. A JWT-SVID
// says nothing of policies.
fn compare_claims(claims: &Claims<'_>, terms: &Terms, own: &TrustDomain) -> Result<(), Mismatch> {
    let Terms { id, key_id: _, issued_at, end, holder, policy: _, content } = terms;
    let Content::JwtSvid(JwtSvid { spiffe_id, audience, certificate, path }) = content else {
        return Err("form");
    };
    let Claims { sub, aud, iat, exp, jti, cnf: Cnf { jkt, x5t }, task } = claims;

    same("sub", *sub == spiffe_id.as_str())?;
    same("aud", *aud == audience.as_str())?;
    // In milliseconds: an `exp` that was rounded is not the end that the journal holds.
    same("iat", iat.checked_mul(1000) == Some(issued_at.millis()))?;
    same("exp", exp.checked_mul(1000) == Some(end.millis()))?;
    same("jti", jti.parse() == Ok(id.key))?;
    same("cnf.jkt", jkt.parse() == Ok(*holder))?;
    same("cnf.x5t#S256", x5t.map(str::parse).transpose() == Ok(*certificate))?;
    same("task", task.iter().map(|id| id.parse::<Id>()).eq(path.iter().map(|id| Ok(*id))))?;

    // The name is the task's, by the same path, and the task the lease's.
    let named = sub.parse::<SpiffeId>().ok().and_then(|id| TaskSvidId::parse(&id, own)).ok_or("sub")?;
    same("sub", named.path() == path)?;
    same("task", path.first() == Some(&id.task.root().0) && path.last() == Some(&id.task.node()))
}

#[cfg(test)]
mod tests;
