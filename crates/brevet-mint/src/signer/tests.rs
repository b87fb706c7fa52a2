use std::task::{Context, Poll, Waker};
use std::time::Duration;

use brevet_core::name::AudienceName;
use brevet_core::revision::Revision;
use brevet_core::scope::Scope;
use brevet_core::time::Timestamp;
use proptest::prelude::*;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};

use super::*;
use crate::fixture::{ISSUER, any_terms, authority, scope, terms, token_of};

mod jwt_svid;
mod x509_svid;

const REVISION: Revision = Revision(42);

fn signer() -> LocalSigner {
    let rng = SystemRandom::new();
    let (tokens, jwt_svids) = (SigningKey::ephemeral(&rng).unwrap(), SigningKey::ephemeral(&rng).unwrap());
    LocalSigner::new(tokens, ISSUER.into(), jwt_svids, authority().into(), rng)
}

fn token_terms(signer: &LocalSigner) -> Terms {
    terms(signer.key_id(Profile::TaskToken))
}

fn token(credential: &Credential) -> &str {
    let Product::TaskToken(token) = credential.product() else { panic!("{credential:?}") };
    token
}

/// A local signer is never pending.
fn sign(signer: &dyn Signer, terms: Terms) -> Result<Credential, SignError> {
    let mut signing = signer.sign(Recorded::durable(terms.into(), REVISION));
    match signing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("pending"),
    }
}

fn verify(signer: &LocalSigner, token: &str) {
    let (input, signature) = token.rsplit_once('.').unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, signer.key().public_point())
        .verify(input.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
        .unwrap();
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_task_token_has_exactly_these_claims() {
    let signer = signer();
    let credential = sign(&signer, token_terms(&signer)).unwrap();
    assert_eq!(credential.recorded().revision(), REVISION);
    let token = token(&credential);
    verify(&signer, token);
    assert_eq!(
        part(token, 0),
        json!({"alg": "ES256", "kid": signer.key_id(Profile::TaskToken).as_str(), "typ": "at+jwt"})
    );
    let digest = |byte: u8| URL_SAFE_NO_PAD.encode([byte; 32]);
    let id = |n| crate::fixture::id(n).to_string();
    let expected = json!({
        "iss": ISSUER,
        "sub": "spiffe://td.example/user/alice",
        "act": {
            "iss": ISSUER, "sub": "spiffe://td.example/agent/b", "sub_profile": "ai_agent",
            "act": {"iss": ISSUER, "sub": "spiffe://td.example/agent/a", "sub_profile": "ai_agent"},
        },
        "client_id": "spiffe://td.example/agent/b",
        "aud": "files",
        "iat": 1_800_000_000,
        "exp": 1_800_000_300,
        "jti": id(3),
        "authorization_details": [
            {
                "type": "brevet", "locations": ["files"], "identifier": "a/**", "actions": ["list", "read"],
                "constraints": {"kind": {"one_of": [1, "x\"y"]}, "limit": {"between": {"max": 10}}},
            },
            {"type": "brevet", "locations": ["files"], "identifier": "b", "actions": ["write"]},
        ],
        "cnf": {"jkt": digest(4), "x5t#S256": digest(6)},
        "task": [id(1), id(2)],
        "rev": 42,
        "pol": digest(5),
    });
    assert_eq!(part(token, 1), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn terms_of_this_signer_are_signed_verifiably(mut terms in any_terms()) {
        let signer = signer();
        terms.key_id = signer.key_id(Profile::TaskToken).clone();
        token_of(&mut terms).issuer = ISSUER.into();
        let credential = sign(&signer, terms).unwrap();
        verify(&signer, token(&credential));
    }
}

#[test]
fn k3_a_life_is_at_most_an_hour_and_never_nothing() {
    let signer = signer();
    let with_end = |end: Timestamp| {
        let mut terms = token_terms(&signer);
        terms.end = end;
        sign(&signer, terms).map(drop)
    };
    let issued_at = token_terms(&signer).issued_at;
    assert_eq!(with_end(issued_at.after(Duration::from_secs(3600))), Ok(()));
    assert_eq!(with_end(issued_at.after(Duration::from_secs(1))), Ok(()));
    for end in [
        issued_at.after(Duration::from_secs(3601)),
        issued_at.after(Duration::from_millis(3_600_001)),
        issued_at.after(Duration::from_millis(1_500)),
        issued_at,
        Timestamp::from_millis(issued_at.millis() - 1000),
        Timestamp::EPOCH,
    ] {
        assert_eq!(with_end(end), Err(SignError::Lifetime), "{end}");
    }
    let mut terms = token_terms(&signer);
    terms.issued_at = terms.issued_at.after(Duration::from_millis(1));
    assert_eq!(sign(&signer, terms).map(drop), Err(SignError::Lifetime));
}

#[test]
fn k3_what_belongs_to_another_signer_or_to_no_audience_is_not_signed() {
    let signer = signer();
    let judge = |edit: &dyn Fn(&mut Terms)| {
        let mut terms = token_terms(&signer);
        edit(&mut terms);
        sign(&signer, terms).map(drop)
    };
    assert_eq!(judge(&|_| ()), Ok(()));
    assert_eq!(judge(&|terms| terms.key_id = KeyId::parse("other").unwrap()), Err(SignError::KeyId));
    assert_eq!(judge(&|terms| token_of(terms).issuer.push('/')), Err(SignError::Issuer));
    assert_eq!(judge(&|terms| token_of(terms).issuer.clear()), Err(SignError::Issuer));
    assert_eq!(judge(&|terms| token_of(terms).scope = Scope::default()), Err(SignError::Audience));
    assert_eq!(
        judge(&|terms| token_of(terms).audience = AudienceName::parse("other").unwrap()),
        Err(SignError::Audience)
    );
    let foreign = r#"[{"audience":"files","resource":"a","actions":["r"]},
                      {"audience":"other","resource":"a","actions":["r"]}]"#;
    assert_eq!(judge(&|terms| token_of(terms).scope = scope(foreign)), Err(SignError::Audience));
    assert_eq!(judge(&|terms| token_of(terms).actors.clear()), Err(SignError::Agent));
    // Terms that contradict themselves pass no bound of the signer's, but the product is compared with the lease.
    assert_eq!(
        judge(&|terms| token_of(terms).path.reverse()),
        Err(SignError::ProductMismatch { field: "task" })
    );
    assert_eq!(
        judge(&|terms| token_of(terms).path.clear()),
        Err(SignError::ProductMismatch { field: "task" })
    );
}

#[test]
fn l12_neither_token_nor_key_is_ever_shown() {
    let signer = signer();
    let credential = sign(&signer, token_terms(&signer)).unwrap();
    let lease = credential.recorded().terms().id;
    assert_eq!(format!("{credential:?}"), format!("Credential {{ lease: {lease:?}, .. }}"));
    assert_eq!(format!("{:?}", credential.product()), "TaskToken(..)");
    let shown = format!("{signer:?}");
    assert!(shown.contains(&format!("key: SigningKey {{ kid: {:?}, .. }}", signer.key().kid())), "{shown}");
}

#[test]
fn l9_the_same_terms_are_signed_again_with_the_same_claims() {
    let signer = signer();
    let again = |_| sign(&signer, token_terms(&signer)).unwrap();
    let [one, two] = [0, 1].map(again);
    assert_eq!(part(token(&one), 0), part(token(&two), 0));
    assert_eq!(part(token(&one), 1), part(token(&two), 1));
}
