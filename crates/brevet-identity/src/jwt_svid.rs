//! JWT-SVIDs (SPIFFE JWT-SVID): a workload's identity as a signed token.
//!
//! Who signs for a workload follows from its name: the keys of its own trust domain's bundle and no others. The token's
//! header has `alg`, `kid` and `typ` and nothing else.

use std::collections::BTreeMap;

use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::time::Timestamp;
use serde_json::Value;

use crate::bearer::{self, Bearer, BearerError, Rules};
use crate::jwk_set::JwkSet;
use crate::jws::{HeaderProfile, Jws, KeyReference, TokenType};

/// The JWT authorities of each trust domain (SPIFFE Federation §4.2: never merged).
pub type JwtBundles = BTreeMap<TrustDomain, JwkSet>;

/// The headers of a JWT-SVID (JWT-SVID §2). By the letter of the standard it needs no `kid`; see [`Rules::Specification`].
pub const PROFILE: HeaderProfile =
    HeaderProfile { token_type: TokenType::AbsentOr(&["JWT", "JOSE"]), key: KeyReference::Kid, unread: &[] };

/// A workload that a token proves, as far as a bearer's token can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSvid {
    /// `sub`.
    pub spiffe_id: SpiffeId,
    /// The other claims.
    pub bearer: Bearer,
}

/// Verifies a token for one audience at `now`. What is of the trust domain `own`, if that is given, is refused whoever
/// signed it.
///
/// # Errors
/// [`BearerError`] names the first check that failed.
pub fn verify(
    token: &str,
    bundles: &JwtBundles,
    own: Option<&TrustDomain>,
    audience: &str,
    now: Timestamp,
    rules: Rules,
) -> Result<JwtSvid, BearerError> {
    // 1. Its form and header.
    let key = match rules {
        Rules::Strict(_) => KeyReference::Kid,
        Rules::Specification => KeyReference::KidOrNone,
    };
    let jws = Jws::parse(token, HeaderProfile { key, ..PROFILE })?;
    // 2. Whose it claims to be, by which the keys are chosen.
    let claims = bearer::claims(jws.unverified_payload())?;
    let spiffe_id: SpiffeId = claims
        .get("sub")
        .and_then(Value::as_str)
        .and_then(|sub| sub.parse().ok())
        .ok_or(BearerError::Subject)?;
    if spiffe_id.path().is_empty() {
        return Err(BearerError::Subject);
    }
    let trust_domain = spiffe_id.trust_domain();
    if own == Some(&trust_domain) {
        return Err(BearerError::OwnCredential);
    }
    // 3. The signature, by the authorities of its own trust domain.
    let verdict =
        bundles.get(&trust_domain).ok_or(BearerError::Subject).and_then(|keys| Ok(jws.check(keys)?));
    if let Err(error) = verdict {
        // What another trust domain's authority signed is told from what nobody known did.
        let mut others = bundles.iter().filter(|(name, _)| **name != trust_domain);
        let foreign = others.any(|(_, keys)| jws.check(keys).is_ok());
        return Err(if foreign { BearerError::Subject } else { error });
    }
    // 4. The other claims.
    Ok(JwtSvid { spiffe_id, bearer: bearer::judge(&claims, audience, now, rules)? })
}

#[cfg(test)]
mod tests;
