//! The JWT-SVID of a task as the broker that minted it knows it again, to say whether it lives.
//!
//! What is read here proves nothing of who shows it: it is an answer for whoever was shown it, and no identity of a
//! caller (invariant T8).

use brevet_core::id::{Id, LeaseId, LeaseKey, RootTaskId, TaskId};
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::task_svid::TaskSvidId;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::json;
use crate::jwk_set::JwkSet;
use crate::jws::{HeaderProfile, Jws, JwsError, KeyReference, TokenType};

/// The headers that the broker writes: those of a JWT-SVID (JWT-SVID §2), each in one spelling.
pub const PROFILE: HeaderProfile =
    HeaderProfile { token_type: TokenType::Exactly("JWT"), key: KeyReference::Kid, unread: &[] };

/// Why a token is no JWT-SVID that the broker made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TaskJwtSvidError {
    /// It is not signed by one of the keys.
    #[error("not signed by a key of jwt-svids")]
    Jws(#[from] JwsError),
    /// Its claims are not those of a JWT-SVID for a task of this trust domain.
    #[error("the claims are not those of a task's jwt-svid")]
    Claims,
}

/// The claims that name the lease. What the others say stands in its terms.
#[derive(Deserialize)]
struct Claims {
    sub: SpiffeId,
    jti: LeaseKey,
    task: Vec<Id>,
}

/// The lease of a JWT-SVID that the broker of the trust domain `own` signed with one of `keys`, for whatever audience and
/// time: for the broker alone, whose ledger knows both better.
///
/// # Errors
/// [`TaskJwtSvidError`] names the first check that failed.
pub fn authenticate(token: &str, keys: &JwkSet, own: &TrustDomain) -> Result<LeaseId, TaskJwtSvidError> {
    let payload = Jws::parse(token, PROFILE)?.verify_with(keys)?;
    let members = json::parse_object(&payload).map_err(|_| TaskJwtSvidError::Claims)?;
    let claims: Claims =
        serde_json::from_value(Value::Object(members)).map_err(|_| TaskJwtSvidError::Claims)?;
    let named = TaskSvidId::parse(&claims.sub, own).filter(|named| named.path() == claims.task);
    let task = named.and_then(|named| task_of(named.path())).ok_or(TaskJwtSvidError::Claims)?;
    Ok(LeaseId { task, key: claims.jti })
}

fn task_of(path: &[Id]) -> Option<TaskId> {
    match path {
        [root] => Some(TaskId::root_of(RootTaskId(*root))),
        [root, .., node] => TaskId::child_of(RootTaskId(*root), *node).ok(),
        [] => None,
    }
}

#[cfg(test)]
mod tests;
