use std::time::Duration;

use brevet_core::digest::{CertificateDigest, Thumbprint};
use brevet_core::id::{LeaseKey, RootTaskId, TaskId};
use brevet_core::name::{AudienceName, KeyId};
use brevet_core::revision::Revision;
use proptest::prelude::*;

use super::*;
use crate::fixture::{any_jwt_svid_terms, id, jwt_svid_of, jwt_svid_terms, own, spiffe_id, svid_terms};
use crate::{jws, jwt_svid};

fn recorded(terms: &Terms) -> Recorded {
    Recorded::durable(terms.clone().into(), Revision(42))
}

/// A JWT-SVID as the writer makes it, but for the signature, which is not looked at here.
fn written(terms: &Terms) -> String {
    let Content::JwtSvid(svid) = &terms.content else { panic!("of another form") };
    let input = jwt_svid::signing_input(&jws::header(&terms.key_id, jwt_svid::TYPE), terms, svid).unwrap();
    format!("{}.{}", *input, URL_SAFE_NO_PAD.encode([0; 64]))
}

fn judge(token: &str, terms: &Terms) -> Result<(), Mismatch> {
    product(token, &recorded(terms), &own())
}

/// The terms with one thing changed, for each thing that is signed.
fn mutations(terms: &Terms) -> Vec<(&'static str, Terms)> {
    let edited = |edit: &dyn Fn(&mut Terms)| {
        let mut terms = terms.clone();
        edit(&mut terms);
        terms
    };
    let (second, millisecond) = (Duration::from_secs(1), Duration::from_millis(1));
    let agent = || TaskSvidId::write(&spiffe_id("other"), &[id(1)], &own()).unwrap();
    vec![
        ("task root", edited(&|t| t.id.task = TaskId::root_of(RootTaskId(id(0xee))))),
        ("task node", edited(&|t| t.id.task = TaskId::child_of(t.id.task.root(), id(0xee)).unwrap())),
        ("lease", edited(&|t| t.id.key = LeaseKey(id(0xee)))),
        ("key id", edited(&|t| t.key_id = KeyId::parse("other").unwrap())),
        ("iat + 1 s", edited(&|t| t.issued_at = t.issued_at.after(second))),
        ("iat + 1 ms", edited(&|t| t.issued_at = t.issued_at.after(millisecond))),
        ("exp + 1 s", edited(&|t| t.end = t.end.after(second))),
        ("exp + 1 ms", edited(&|t| t.end = t.end.after(millisecond))),
        ("holder", edited(&|t| t.holder = Thumbprint::of(&[b"other"]))),
        ("subject", edited(&|t| jwt_svid_of(t).spiffe_id = agent())),
        ("audience", edited(&|t| jwt_svid_of(t).audience = AudienceName::parse("other").unwrap())),
        (
            "certificate",
            edited(&|t| {
                let svid = jwt_svid_of(t);
                svid.certificate = svid.certificate.is_none().then(|| CertificateDigest::of(&[b"other"]));
            }),
        ),
        ("one step more", edited(&|t| jwt_svid_of(t).path.insert(1, id(0xee)))),
        (
            "one step less",
            edited(&|t| jwt_svid_of(t).path = jwt_svid_of(t).path.split_last().unwrap().1.to_vec()),
        ),
        ("order of steps", edited(&|t| jwt_svid_of(t).path.reverse())),
    ]
}

proptest! {
    #[test]
    fn k3_what_was_written_passes_and_no_other_terms_do(terms in any_jwt_svid_terms()) {
        let token = written(&terms);
        prop_assert_eq!(judge(&token, &terms), Ok(()));
        for (what, other) in mutations(&terms) {
            prop_assert!(other == terms || judge(&token, &other).is_err(), "{}", what);
        }
        prop_assert_eq!(product(&token, &recorded(&terms), &"other.example".parse().unwrap()), Err("sub"));
    }
}

#[test]
fn k3_every_mutation_changes_terms_that_have_everything() {
    let terms = jwt_svid_terms(&KeyId::parse("kid").unwrap());
    let token = written(&terms);
    for (what, other) in mutations(&terms) {
        assert_ne!(other, terms, "{what}");
        assert!(judge(&token, &other).is_err(), "{what}");
    }
    let of_another_form = svid_terms(&KeyId::parse("kid").unwrap());
    assert_eq!(judge(&token, &of_another_form), Err("form"));
    assert_eq!(judge(&token, &crate::fixture::terms(&KeyId::parse("kid").unwrap())), Err("form"));
}

#[test]
fn jw_02_k3_a_jwt_svid_with_anything_else_in_it_is_refused() {
    let terms = jwt_svid_terms(&KeyId::parse("kid").unwrap());
    let token = written(&terms);
    let parts: Vec<String> = token
        .split('.')
        .take(2)
        .map(|part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    let [header, claims] = parts.as_slice() else { panic!() };
    let with = |header: &str, claims: &str, signature: &[u8]| {
        [header.as_bytes(), claims.as_bytes(), signature].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    };
    assert_eq!(judge(&with(header, claims, &[0; 64]), &terms), Ok(()));
    for (from, to) in [
        ("ES256", "none"),
        ("ES256", "ES384"),
        ("JWT", "at+jwt"),
        ("JWT", "JOSE"),
        ("{", r#"{"crit":["b64"],"#),
        ("{", r#"{"jku":"https://x.example","#),
        ("{", r#"{"alg":"ES256","#),
        (r#""kid":"kid","#, ""),
    ] {
        assert!(header.contains(from), "{from}");
        let header = header.replacen(from, to, 1);
        assert!(judge(&with(&header, claims, &[0; 64]), &terms).is_err(), "{header}");
    }
    for (from, to) in [
        ("{", r#"{"iss":"https://brevet.example","#),
        ("{", r#"{"scope":"all","#),
        ("{", r#"{"rev":42,"#),
        ("{", r#"{"aud":"https://legacy.example","#),
        (r#""aud":"https://legacy.example""#, r#""aud":["https://legacy.example"]"#),
        (r#""aud":"https://legacy.example""#, r#""aud":["https://legacy.example","x"]"#),
        ("/agent/b/", "/agent/a/"),
        ("broker.example", "other.example"),
        (r#""task":["#, r#""task":["00000000000000000000000000","#),
        (r#""iat":1800000000"#, r#""iat":1800000000.0"#),
        (r#""exp":1800000300"#, r#""exp":"1800000300""#),
        (r#""exp":1800000300,"#, ""),
        (r#""jkt""#, r#""kid":"x","jkt""#),
        (r#""jkt""#, r#""jwk":{},"jkt""#),
    ] {
        assert!(claims.contains(from), "{from} is not in {claims}");
        let claims = claims.replacen(from, to, 1);
        assert!(judge(&with(header, &claims, &[0; 64]), &terms).is_err(), "{claims}");
    }
    for token in [
        with(header, claims, &[0; 63]),
        with(header, claims, b""),
        format!("{token}."),
        format!("{token}="),
        String::new(),
    ] {
        assert!(judge(&token, &terms).is_err(), "{token}");
    }
}
