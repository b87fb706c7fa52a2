//! What is signed as a JWT-SVID, and what is not.

use super::*;
use crate::fixture::{any_jwt_svid_terms, id, jwt_svid_of, jwt_svid_terms, own, spiffe_id};

fn terms_of(signer: &LocalSigner) -> Terms {
    jwt_svid_terms(signer.key_id(Profile::JwtSvid))
}

fn signed(signer: &LocalSigner, terms: Terms) -> Result<String, SignError> {
    match sign(signer, terms)?.into_product() {
        Product::JwtSvid(token) => Ok(token.to_string()),
        other => panic!("{other:?}"),
    }
}

fn verify_by(key: &[u8], token: &str) -> bool {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(input.as_bytes(), &signature).is_ok()
}

#[test]
fn jw_01_jw_02_jw_03_jw_05_jw_06_it_is_a_compact_jws_with_three_headers() {
    let signer = signer();
    let token = signed(&signer, terms_of(&signer)).unwrap();
    assert_eq!(token.split('.').count(), 3);
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    assert!(token.bytes().all(is_base64url), "{token}");
    assert!(verify_by(signer.jwt_svid_key.public_point(), &token));
    let kid = signer.key_id(Profile::JwtSvid).as_str();
    assert_eq!(part(&token, 0), json!({"alg": "ES256", "kid": kid, "typ": "JWT"}));
}

#[test]
fn jw_07_jw_08_jw_10_it_has_exactly_these_claims() {
    let signer = signer();
    let digest = |byte: u8| URL_SAFE_NO_PAD.encode([byte; 32]);
    let sub = format!("spiffe://broker.example/agent/td.example/agent/b/task/{}/{}", id(1), id(2));
    let mut expected = json!({
        "sub": sub,
        "aud": "https://legacy.example",
        "iat": 1_800_000_000,
        "exp": 1_800_000_300,
        "jti": id(3).to_string(),
        "cnf": {"jkt": digest(4), "x5t#S256": digest(6)},
        "task": [id(1).to_string(), id(2).to_string()],
    });
    assert_eq!(part(&signed(&signer, terms_of(&signer)).unwrap(), 1), expected);
    let mut without_certificate = terms_of(&signer);
    jwt_svid_of(&mut without_certificate).certificate = None;
    expected["cnf"] = json!({"jkt": digest(4)});
    assert_eq!(part(&signed(&signer, without_certificate).unwrap(), 1), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn terms_of_this_trust_domain_are_signed_verifiably(mut terms in any_jwt_svid_terms()) {
        let signer = signer();
        terms.key_id = signer.key_id(Profile::JwtSvid).clone();
        prop_assert!(verify_by(signer.jwt_svid_key.public_point(), &signed(&signer, terms).unwrap()));
    }
}

#[test]
fn no_key_signs_for_the_other_form() {
    let signer = signer();
    let [of_tokens, of_jwt_svids] =
        [Profile::TaskToken, Profile::JwtSvid].map(|profile| signer.key_id(profile).clone());
    assert_ne!(of_tokens, of_jwt_svids);
    let judge = |terms: Terms| sign(&signer, terms).map(drop);
    assert_eq!(judge(jwt_svid_terms(&of_tokens)), Err(SignError::KeyId));
    assert_eq!(judge(terms(&of_jwt_svids)), Err(SignError::KeyId));
    assert_eq!(judge(jwt_svid_terms(signer.key_id(Profile::X509Svid))), Err(SignError::KeyId));
    let svid = signed(&signer, terms_of(&signer)).unwrap();
    assert!(!verify_by(signer.key().public_point(), &svid));
    let task_token = sign(&signer, token_terms(&signer)).unwrap();
    assert!(!verify_by(signer.jwt_svid_key.public_point(), token(&task_token)));
}

#[test]
fn k3_what_belongs_to_another_trust_domain_or_task_is_not_signed() {
    let signer = signer();
    let judge = |edit: &dyn Fn(&mut Terms)| {
        let mut terms = terms_of(&signer);
        edit(&mut terms);
        signed(&signer, terms).map(drop)
    };
    assert_eq!(judge(&|_| ()), Ok(()));
    let life =
        |seconds| move |terms: &mut Terms| terms.end = terms.issued_at.after(Duration::from_secs(seconds));
    assert_eq!(judge(&life(3600)), Ok(()));
    assert_eq!(judge(&life(3601)), Err(SignError::Lifetime));
    assert_eq!(judge(&life(0)), Err(SignError::Lifetime));
    let task = format!("task/{}/{}", id(1), id(2));
    for other in [
        spiffe_id("agent/b"),
        format!("spiffe://td.example/agent/td.example/agent/b/{task}").parse().unwrap(),
        format!("spiffe://broker.example/agent/broker.example/agent/b/{task}").parse().unwrap(),
        "spiffe://broker.example/brevet".parse().unwrap(),
        "spiffe://broker.example".parse().unwrap(),
    ] {
        let named = |terms: &mut Terms| jwt_svid_of(terms).spiffe_id = other.clone();
        assert_eq!(judge(&named), Err(SignError::SpiffeId), "{other}");
    }
    // Terms that contradict themselves pass no bound of the signer's, but the product is compared with the lease.
    let mismatch = |field| Err(SignError::ProductMismatch { field });
    assert_eq!(judge(&|terms| jwt_svid_of(terms).path.reverse()), mismatch("sub"));
    assert_eq!(judge(&|terms| jwt_svid_of(terms).path.clear()), mismatch("sub"));
    let of_another_task = |terms: &mut Terms| {
        let path = vec![id(1), id(9)];
        let named = TaskSvidId::write(&spiffe_id("agent/b"), &path, &own());
        jwt_svid_of(terms).spiffe_id = named.unwrap();
        jwt_svid_of(terms).path = path;
    };
    assert_eq!(judge(&of_another_task), mismatch("task"));
}

#[test]
fn l9_the_same_terms_are_signed_again_with_the_same_claims() {
    let signer = signer();
    let [one, two] = [0, 1].map(|_| signed(&signer, terms_of(&signer)).unwrap());
    assert_eq!((part(&one, 0), part(&one, 1)), (part(&two, 0), part(&two, 1)));
}

#[test]
fn l12_no_jwt_svid_is_shown() {
    let signer = signer();
    let credential = sign(&signer, terms_of(&signer)).unwrap();
    let lease = credential.recorded().terms().id;
    assert_eq!(format!("{credential:?}"), format!("Credential {{ lease: {lease:?}, .. }}"));
    assert_eq!(format!("{:?}", credential.product()), "JwtSvid(..)");
    let shown = format!("jwt_svid_key: SigningKey {{ kid: {:?}, .. }}", signer.key_id(Profile::JwtSvid));
    assert!(format!("{signer:?}").contains(&shown));
}
