//! Writes a task token: RFC 9068 claims with RFC 9396 authorization details, in JWS compact serialization.
//!
//! Each part is written once, into a buffer of its final size: on the path of every mint, and so that no copy of a
//! token is left behind by a buffer that grew.

use std::collections::{BTreeMap, BTreeSet};

use brevet_core::digest::{CertificateDigest, PolicyDigest, Thumbprint};
use brevet_core::id::{Id, LeaseKey};
use brevet_core::name::{ActionName, ArgumentName};
use brevet_core::proof::Recorded;
use brevet_core::revision::Revision;
use brevet_core::scope::{Constraint, Permission};
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::terms::{TaskToken, Terms};
use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::jws;

/// Claims without long constraints fit in this many bytes.
const CLAIMS_CAPACITY: usize = 1536;

/// The `typ` of its header.
pub(crate) const TYPE: &str = "at+jwt";

/// What is signed.
pub(crate) fn signing_input(
    header: &str,
    recorded: &Recorded,
    token: &TaskToken,
) -> serde_json::Result<Zeroizing<String>> {
    let mut claims = Vec::with_capacity(CLAIMS_CAPACITY);
    serde_json::to_writer(&mut claims, &Claims::of(recorded, token))?;
    Ok(jws::signing_input(header, &claims))
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    act: Actor<'a>,
    client_id: Option<&'a str>,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: LeaseKey,
    authorization_details: Details<'a>,
    cnf: Confirmation,
    task: &'a [Id],
    rev: Revision,
    pol: PolicyDigest,
}

impl<'a> Claims<'a> {
    fn of(recorded: &'a Recorded, token: &'a TaskToken) -> Self {
        let Terms { id, key_id: _, issued_at, end, holder, policy, content: _ } = recorded.terms();
        let TaskToken { issuer, subject, actors, audience, scope, certificate, path } = token;
        Self {
            iss: issuer,
            sub: subject.as_str(),
            act: Actor { issuer, actors },
            client_id: actors.first().map(SpiffeId::as_str),
            aud: audience.as_str(),
            iat: issued_at.seconds(),
            exp: end.seconds(),
            jti: id.key,
            authorization_details: Details(scope.permissions()),
            cnf: Confirmation { jkt: *holder, certificate: *certificate },
            task: path,
            rev: recorded.revision(),
            pol: *policy,
        }
    }
}

/// The first actor, with those behind it nested in its `act` (RFC 8693 §4.1).
struct Actor<'a> {
    issuer: &'a str,
    actors: &'a [SpiffeId],
}

impl Serialize for Actor<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((agent, behind)) = self.actors.split_first() else {
            return Err(serde::ser::Error::custom("no actor"));
        };
        let mut actor = serializer.serialize_struct("act", 3 + usize::from(!behind.is_empty()))?;
        actor.serialize_field("iss", self.issuer)?;
        actor.serialize_field("sub", agent.as_str())?;
        actor.serialize_field("sub_profile", "ai_agent")?;
        if !behind.is_empty() {
            actor.serialize_field("act", &Self { issuer: self.issuer, actors: behind })?;
        }
        actor.end()
    }
}

/// One authorization detail for each permission (RFC 9396 §2).
struct Details<'a>(&'a [Permission]);

impl Serialize for Details<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut details = serializer.serialize_seq(Some(self.0.len()))?;
        for permission in self.0 {
            details.serialize_element(&Detail {
                kind: "brevet",
                locations: [permission.audience().as_str()],
                identifier: permission.resource().as_str(),
                actions: permission.actions(),
                constraints: permission.constraints(),
            })?;
        }
        details.end()
    }
}

#[derive(Serialize)]
struct Detail<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    locations: [&'a str; 1],
    identifier: &'a str,
    #[serde(serialize_with = "action_names")]
    actions: &'a BTreeSet<ActionName>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    constraints: &'a BTreeMap<ArgumentName, Constraint>,
}

/// The names as they are: the derived form of a name would copy each.
fn action_names<S: Serializer>(names: &BTreeSet<ActionName>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(ActionName::as_str))
}

/// What the holder must prove (RFC 7800; RFC 9449 §6.1, RFC 8705 §3.1).
#[derive(Serialize)]
struct Confirmation {
    jkt: Thumbprint,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateDigest>,
}
