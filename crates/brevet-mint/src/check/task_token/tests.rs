use std::time::Duration;

use brevet_core::digest::{CertificateDigest, PolicyDigest, Thumbprint};
use brevet_core::id::{LeaseKey, RootTaskId, TaskId};
use brevet_core::name::{ActionName, ArgumentName, AudienceName, KeyId};
use brevet_core::revision::Revision;
use brevet_core::scope::Scope;
use proptest::prelude::*;

use super::*;
use crate::fixture::{any_terms, id, spiffe_id, terms, token_of};
use crate::{jws, task_token};

const REVISION: Revision = Revision(42);

fn recorded(terms: &Terms) -> Recorded {
    Recorded::durable(terms.clone().into(), REVISION)
}

/// A token as the writer makes it, but for the signature, which is not looked at here.
fn written(terms: &Terms) -> String {
    let Content::TaskToken(token) = &terms.content else { panic!("an svid") };
    let input =
        task_token::signing_input(&jws::header(&terms.key_id, task_token::TYPE), &recorded(terms), token)
            .unwrap();
    format!("{}.{}", *input, URL_SAFE_NO_PAD.encode([0; 64]))
}

fn edited(terms: &Terms, edit: impl FnOnce(&mut Terms)) -> Terms {
    let mut terms = terms.clone();
    edit(&mut terms);
    terms
}

fn with_token(terms: &Terms, edit: impl FnOnce(&mut TaskToken)) -> Terms {
    edited(terms, |terms| edit(token_of(terms)))
}

fn with_permission(terms: &Terms, edit: impl Fn(&Permission) -> Permission) -> Terms {
    with_token(terms, |token| {
        let mut permissions = token.scope.permissions().to_vec();
        permissions[0] = edit(&permissions[0]);
        token.scope = Scope::new(permissions).unwrap();
    })
}

/// The terms with one thing changed, for each thing.
fn mutations(terms: &Terms) -> Vec<(&'static str, Terms)> {
    let other = spiffe_id("other");
    let second = Duration::from_secs(1);
    let millisecond = Duration::from_millis(1);
    let permission = |actions: &BTreeSet<_>, resource: &str, constraints: &_, audience: &_| {
        Permission::new(
            AudienceName::parse(audience).unwrap(),
            resource.parse().unwrap(),
            actions.clone(),
            std::collections::BTreeMap::clone(constraints),
        )
        .unwrap()
    };
    vec![
        ("task root", edited(terms, |t| t.id.task = TaskId::root_of(RootTaskId(id(0xee))))),
        ("task node", edited(terms, |t| t.id.task = TaskId::child_of(t.id.task.root(), id(0xee)).unwrap())),
        ("lease", edited(terms, |t| t.id.key = LeaseKey(id(0xee)))),
        ("key id", edited(terms, |t| t.key_id = KeyId::parse("other").unwrap())),
        ("iat + 1 s", edited(terms, |t| t.issued_at = t.issued_at.after(second))),
        ("iat + 1 ms", edited(terms, |t| t.issued_at = t.issued_at.after(millisecond))),
        ("exp + 1 s", edited(terms, |t| t.end = t.end.after(second))),
        ("exp + 1 ms", edited(terms, |t| t.end = t.end.after(millisecond))),
        ("holder", edited(terms, |t| t.holder = Thumbprint::of(&[b"other"]))),
        ("policy", edited(terms, |t| t.policy = PolicyDigest::of(&[b"other"]))),
        ("issuer", with_token(terms, |t| t.issuer.push('x'))),
        ("subject", with_token(terms, |t| t.subject = other.clone())),
        ("one actor more", with_token(terms, |t| t.actors.push(other.clone()))),
        ("one actor less", with_token(terms, |t| drop(t.actors.pop()))),
        ("first actor", with_token(terms, |t| t.actors[0] = other.clone())),
        ("last actor", with_token(terms, |t| *t.actors.last_mut().unwrap() = other.clone())),
        ("order of actors", with_token(terms, |t| t.actors.reverse())),
        ("audience", with_token(terms, |t| t.audience = AudienceName::parse("other").unwrap())),
        (
            "one permission less",
            with_token(terms, |t| {
                t.scope = Scope::new(t.scope.permissions().iter().skip(1).cloned()).unwrap()
            }),
        ),
        (
            "a permission's audience",
            with_permission(terms, |p| {
                permission(p.actions(), p.resource().as_str(), p.constraints(), "other")
            }),
        ),
        (
            "a permission's resource",
            with_permission(terms, |p| {
                permission(p.actions(), "other/**", p.constraints(), p.audience().as_str())
            }),
        ),
        (
            "one action more",
            with_permission(terms, |p| {
                let mut actions = p.actions().clone();
                actions.insert(ActionName::parse("an-action-more").unwrap());
                permission(&actions, p.resource().as_str(), p.constraints(), p.audience().as_str())
            }),
        ),
        (
            "one constraint more",
            with_permission(terms, |p| {
                let mut constraints = p.constraints().clone();
                constraints
                    .insert(ArgumentName::parse("an-argument").unwrap(), Constraint::Prefix("x".into()));
                permission(p.actions(), p.resource().as_str(), &constraints, p.audience().as_str())
            }),
        ),
        (
            "other bounds",
            with_permission(terms, |p| {
                let mut constraints = p.constraints().clone();
                constraints.values_mut().for_each(|bound| *bound = Constraint::Prefix("other".into()));
                permission(p.actions(), p.resource().as_str(), &constraints, p.audience().as_str())
            }),
        ),
        (
            "certificate",
            with_token(terms, |t| {
                t.certificate = t.certificate.is_none().then(|| CertificateDigest::of(&[b"other"]));
            }),
        ),
        ("one step more", with_token(terms, |t| t.path.insert(1, id(0xee)))),
        ("one step less", with_token(terms, |t| t.path.truncate(t.path.len() - 1))),
        ("order of steps", with_token(terms, |t| t.path.reverse())),
    ]
}

proptest! {
    #[test]
    fn k3_what_was_written_passes_and_no_other_terms_do(terms in any_terms()) {
        let token = written(&terms);
        prop_assert_eq!(product(&token, &recorded(&terms)), Ok(()));
        prop_assert!(product(&token, &Recorded::durable(terms.clone().into(), REVISION.next())).is_err());
        for (what, other) in mutations(&terms) {
            prop_assert!(other == terms || product(&token, &recorded(&other)).is_err(), "{}", what);
        }
    }
}

#[test]
fn k3_every_mutation_changes_terms_that_have_everything() {
    let terms = terms(&KeyId::parse("kid").unwrap());
    for (what, other) in mutations(&terms) {
        assert_ne!(other, terms, "{what}");
        assert!(product(&written(&terms), &recorded(&other)).is_err(), "{what}");
    }
}

#[test]
fn k3_a_token_with_anything_else_in_it_is_refused() {
    let terms = terms(&KeyId::parse("kid").unwrap());
    let token = written(&terms);
    let (header, rest) = token.split_once('.').unwrap();
    let (claims, _) = rest.split_once('.').unwrap();
    let text = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let token_with = |header: &str, claims: &str, signature: &[u8]| {
        [header.as_bytes(), claims.as_bytes(), signature].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    };
    let (header, claims) = (text(header), text(claims));
    let judge = |token: &str| product(token, &recorded(&terms));
    assert_eq!(judge(&token_with(&header, &claims, &[0; 64])), Ok(()));

    for (from, to) in
        [("ES256", "none"), ("at+jwt", "JWT"), ("{", r#"{"crit":["b64"],"#), ("{", r#"{"alg":"ES256","#)]
    {
        let header = header.replacen(from, to, 1);
        assert!(judge(&token_with(&header, &claims, &[0; 64])).is_err(), "{header}");
    }
    for (from, to) in [
        ("{", r#"{"scope":"all","#),
        ("{", r#"{"status":null,"#),
        ("{", r#"{"iss":"https://brevet.example","#),
        (r#""aud":"files""#, r#""aud":["files"]"#),
        (r#""aud":"files""#, r#""aud":["files","other"]"#),
        ("ai_agent", "service"),
        (r#""iss":"https://brevet.example""#, r#""iss":"https://other.example""#),
        (r#""sub":"spiffe://td.example/user/alice""#, r#""sub":"spiffe://td.example/user/mallory""#),
        (r#""client_id":"spiffe://td.example/agent/b""#, r#""client_id":"spiffe://td.example/agent/a""#),
        (r#""rev":42"#, r#""rev":43"#),
        (r#""task":["#, r#""task":["00000000000000000000000000","#),
        (r#""type":"brevet""#, r#""type":"other""#),
        (r#""type":"brevet""#, r#""type":"brevet","privileges":["admin"]"#),
        (r#""locations":["files"]"#, r#""locations":["files","other"]"#),
        (r#""locations":["files"]"#, r#""locations":[]"#),
        (r#""max":10"#, r#""max":10,"min":null"#),
        (r#""max":10"#, r#""max":11"#),
        (
            r#""limit":{"between":{"max":10}}"#,
            r#""limit":{"between":{"max":10}},"limit":{"between":{"max":10}}"#,
        ),
        (r#""iat":1800000000"#, r#""iat":1800000000.0"#),
        (r#""exp":1800000300"#, r#""exp":"1800000300""#),
        (r#""jkt""#, r#""kid":"x","jkt""#),
    ] {
        assert!(claims.contains(from), "{from} is not in {claims}");
        let claims = claims.replacen(from, to, 1);
        assert!(judge(&token_with(&header, &claims, &[0; 64])).is_err(), "{claims}");
    }
    for token in [
        token_with(&header, &claims, &[0; 63]),
        token_with(&header, &claims, b""),
        format!("{token}."),
        format!("{token}="),
        String::new(),
    ] {
        assert!(judge(&token).is_err(), "{token}");
    }
}
