//! Terms and permits for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use brevet_core::digest::{CertificateDigest, PolicyDigest, Thumbprint};
use brevet_core::id::{Id, LeaseId, LeaseKey, RootTaskId, TaskId};
use brevet_core::name::{ActionName, ArgumentName, AudienceName, KeyId};
use brevet_core::public_key::PublicKey;
use brevet_core::scope::{Constraint, Permission, Scope, Value};
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::task_svid::TaskSvidId;
use brevet_core::terms::{Content, JwtSvid, TaskToken, Terms, X509Svid};
use brevet_core::time::Timestamp;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use ring::rand::SystemRandom;

use crate::ca::CaKey;
use crate::key::Point;

pub(crate) const ISSUER: &str = "https://brevet.example";

pub(crate) fn own() -> TrustDomain {
    "broker.example".parse().unwrap()
}

/// The authority of [`own`], which lives for a year from when the terms were drawn up.
pub(crate) fn authority() -> CaKey {
    let year = Duration::from_secs(365 * 86_400);
    CaKey::ephemeral(&own(), Timestamp::from_seconds(1_800_000_000), year, &SystemRandom::new()).unwrap()
}

/// A key on P-256 or P-384 by its form. Whether its point is on the curve is for others to say.
pub(crate) fn public_key(p384: bool, byte: u8) -> PublicKey {
    let (prefix, length) = if p384 {
        (&b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00\x04"[..], 96)
    } else {
        (&b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04"[..], 64)
    };
    PublicKey::from_der(&[prefix, &vec![byte; length]].concat()).unwrap()
}

pub(crate) fn thumbprint(key: &PublicKey) -> Thumbprint {
    Point::of_spki(key.as_der()).unwrap().0.thumbprint()
}

pub(crate) fn id(n: u8) -> Id {
    Id::from_bytes([n; 16])
}

pub(crate) fn spiffe_id(path: &str) -> SpiffeId {
    format!("spiffe://td.example/{path}").parse().unwrap()
}

pub(crate) fn scope(json: &str) -> Scope {
    serde_json::from_str(json).unwrap()
}

/// The terms of a credential for a delegated task, with every optional part.
pub(crate) fn terms(key_id: &KeyId) -> Terms {
    Terms {
        id: LeaseId { task: TaskId::child_of(RootTaskId(id(1)), id(2)).unwrap(), key: LeaseKey(id(3)) },
        key_id: key_id.clone(),
        issued_at: Timestamp::from_seconds(1_800_000_000),
        end: Timestamp::from_seconds(1_800_000_300),
        holder: Thumbprint::from_bytes([4; 32]),
        policy: PolicyDigest::from_bytes([5; 32]),
        content: Content::TaskToken(TaskToken {
            issuer: ISSUER.into(),
            subject: spiffe_id("user/alice"),
            actors: vec![spiffe_id("agent/b"), spiffe_id("agent/a")],
            audience: AudienceName::parse("files").unwrap(),
            scope: scope(
                r#"[{"audience":"files","resource":"a/**","actions":["read","list"],
                     "constraints":{"limit":{"between":{"max":10}},"kind":{"one_of":[1,"x\"y"]}}},
                    {"audience":"files","resource":"b","actions":["write"]}]"#,
            ),
            certificate: Some(CertificateDigest::from_bytes([6; 32])),
            path: vec![id(1), id(2)],
        }),
    }
}

pub(crate) fn token_of(terms: &mut Terms) -> &mut TaskToken {
    let Content::TaskToken(token) = &mut terms.content else { panic!("an svid") };
    token
}

/// The terms of an X.509-SVID for the same task.
pub(crate) fn svid_terms(key_id: &KeyId) -> Terms {
    let public_key = public_key(false, 7);
    let spiffe_id = TaskSvidId::write(&spiffe_id("agent/b"), &[id(1), id(2)], &own()).unwrap();
    Terms {
        holder: thumbprint(&public_key),
        content: Content::X509Svid(X509Svid { spiffe_id, public_key }),
        ..terms(key_id)
    }
}

pub(crate) fn svid_of(terms: &mut Terms) -> &mut X509Svid {
    let Content::X509Svid(svid) = &mut terms.content else { panic!("a token") };
    svid
}

/// The terms of a JWT-SVID for the same task, with every optional part.
pub(crate) fn jwt_svid_terms(key_id: &KeyId) -> Terms {
    let path = vec![id(1), id(2)];
    let content = JwtSvid {
        spiffe_id: TaskSvidId::write(&spiffe_id("agent/b"), &path, &own()).unwrap(),
        audience: AudienceName::parse("https://legacy.example").unwrap(),
        certificate: Some(CertificateDigest::from_bytes([6; 32])),
        path,
    };
    Terms { content: Content::JwtSvid(content), ..terms(key_id) }
}

pub(crate) fn jwt_svid_of(terms: &mut Terms) -> &mut JwtSvid {
    let Content::JwtSvid(svid) = &mut terms.content else { panic!("of another form") };
    svid
}

fn any_id() -> impl Strategy<Value = Id> {
    any::<[u8; 16]>().prop_map(Id::from_bytes)
}

fn any_spiffe_id() -> impl Strategy<Value = SpiffeId> {
    "spiffe://[a-z0-9]{1,8}\\.example/([A-Za-z0-9_-]{1,9}/){0,3}[A-Za-z0-9._-]{0,9}x"
        .prop_map(|text| text.parse().unwrap())
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![any::<i64>().prop_map(Value::Integer), any_text().prop_map(Value::Text)]
}

fn any_text() -> impl Strategy<Value = String> {
    "[ -~\u{e4}\u{2028}\u{202e}\u{1f600}]{1,20}"
}

fn any_constraint() -> impl Strategy<Value = Constraint> {
    prop_oneof![
        btree_set(any_value(), 1..4).prop_map(Constraint::OneOf),
        (option::of(any::<i64>()), any::<i64>())
            .prop_map(|(min, max)| Constraint::Between { min: min.map(|min| min.min(max)), max: Some(max) }),
        any::<i64>().prop_map(|min| Constraint::Between { min: Some(min), max: None }),
        any_text().prop_map(Constraint::Prefix),
    ]
}

fn any_permission(audience: AudienceName) -> impl Strategy<Value = Permission> {
    let action = "[A-Za-z0-9._-]{1,12}".prop_map(|text| ActionName::parse(&text).unwrap());
    let argument = "[A-Za-z0-9._-]{1,12}".prop_map(|text| ArgumentName::parse(&text).unwrap());
    let resource = "[A-Za-z0-9_-]{1,8}(/[A-Za-z0-9_-]{1,8}){0,3}(/\\*\\*)?";
    (resource, btree_set(action, 1..4), btree_map(argument, any_constraint(), 0..3)).prop_map(
        move |(resource, actions, constraints): (String, BTreeSet<_>, BTreeMap<_, _>)| {
            Permission::new(audience.clone(), resource.parse().unwrap(), actions, constraints).unwrap()
        },
    )
}

fn any_scope() -> impl Strategy<Value = (AudienceName, Scope)> {
    "[a-z0-9._:/-]{1,40}".prop_flat_map(|text| {
        let audience = AudienceName::parse(&text).unwrap();
        vec(any_permission(audience.clone()), 1..4)
            .prop_map(move |permissions| (audience.clone(), Scope::new(permissions).unwrap()))
    })
}

/// A root and up to three nodes below it, with an agent for each.
fn any_path() -> impl Strategy<Value = (Vec<Id>, Vec<SpiffeId>)> {
    btree_set(any_id(), 1..5).prop_flat_map(|ids| {
        let path: Vec<Id> = ids.into_iter().collect();
        let length = path.len();
        (Just(path), vec(any_spiffe_id(), length))
    })
}

prop_compose! {
    /// Terms of every token that a planner could draw up.
    pub(crate) fn any_terms()(
        (path, actors) in any_path(),
        (audience, scope) in any_scope(),
        subject in any_spiffe_id(),
        issuer in "https://[a-z.]{1,20}/[ -~\u{e4}]{0,10}",
        key_id in "[A-Za-z0-9_-]{43}",
        (key, holder, policy) in (any_id(), any::<[u8; 32]>(), any::<[u8; 32]>()),
        certificate in option::of(any::<[u8; 32]>()),
        issued_at in 0_u64..253_402_297_199,
        lifetime in 1_u64..=3600,
    ) -> Terms {
        let root = RootTaskId(path[0]);
        let task = TaskId::child_of(root, path[path.len() - 1]).unwrap_or_else(|_| TaskId::root_of(root));
        Terms {
            id: LeaseId { task, key: LeaseKey(key) },
            key_id: KeyId::parse(&key_id).unwrap(),
            issued_at: Timestamp::from_seconds(issued_at),
            end: Timestamp::from_seconds(issued_at + lifetime),
            holder: Thumbprint::from_bytes(holder),
            policy: PolicyDigest::from_bytes(policy),
            content: Content::TaskToken(TaskToken {
                issuer,
                subject,
                actors,
                audience,
                scope,
                certificate: certificate.map(CertificateDigest::from_bytes),
                path,
            }),
        }
    }
}

prop_compose! {
    /// Terms of every X.509-SVID that a planner could draw up under an authority that never ends.
    pub(crate) fn any_svid_terms()(
        mut terms in any_terms(),
        agent in any_spiffe_id(),
        p384 in any::<bool>(),
        byte in 0_u8..0xee,
    ) -> Terms {
        let public_key = public_key(p384, byte);
        let path = std::mem::take(&mut token_of(&mut terms).path);
        terms.holder = thumbprint(&public_key);
        let spiffe_id = TaskSvidId::write(&agent, &path, &own()).unwrap();
        terms.content = Content::X509Svid(X509Svid { spiffe_id, public_key });
        terms
    }
}

prop_compose! {
    /// Terms of every JWT-SVID that a planner could draw up.
    pub(crate) fn any_jwt_svid_terms()(mut terms in any_terms(), agent in any_spiffe_id()) -> Terms {
        let TaskToken { audience, certificate, path, .. } = token_of(&mut terms).clone();
        let spiffe_id = TaskSvidId::write(&agent, &path, &own()).unwrap();
        terms.content = Content::JwtSvid(JwtSvid { spiffe_id, audience, certificate, path });
        terms
    }
}
