//! Writes a JWT-SVID (JWT-SVID §2 and §3) in JWS compact serialization.
//!
//! Its header has the three members that the standard knows and no other. Its `typ` is `JWT` and a task token's is
//! `at+jwt`, and they are signed by different keys: neither is ever taken for the other. What is private to Brevet is
//! in the claims, where stock verifiers pass over it.

use brevet_core::digest::{CertificateDigest, Thumbprint};
use brevet_core::id::{Id, LeaseKey};
use brevet_core::terms::{JwtSvid, Terms};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::jws;

/// The `typ` of its header.
pub(crate) const TYPE: &str = "JWT";

/// What is signed.
pub(crate) fn signing_input(
    header: &str,
    terms: &Terms,
    svid: &JwtSvid,
) -> serde_json::Result<Zeroizing<String>> {
    Ok(jws::signing_input(header, &serde_json::to_vec(&Claims::of(terms, svid))?))
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: LeaseKey,
    cnf: Confirmation,
    task: &'a [Id],
}

/// The holder's key (RFC 7800; RFC 9449 §6.1, RFC 8705 §3.1), for verifiers that ask for its proof.
#[derive(Serialize)]
struct Confirmation {
    jkt: Thumbprint,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateDigest>,
}

impl<'a> Claims<'a> {
    fn of(terms: &'a Terms, svid: &'a JwtSvid) -> Self {
        let Terms { id, key_id: _, issued_at, end, holder, policy: _, content: _ } = terms;
        let JwtSvid { spiffe_id, audience, certificate, path } = svid;
        Self {
            sub: spiffe_id.as_str(),
            aud: audience.as_str(),
            iat: issued_at.seconds(),
            exp: end.seconds(),
            jti: id.key,
            cnf: Confirmation { jkt: *holder, certificate: *certificate },
            task: path,
        }
    }
}
