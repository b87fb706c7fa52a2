use serde_json::json;

use super::*;
use crate::key::{InvalidKey, PublicKey};
use crate::test_certificates::*;
use crate::test_keys::{TestKey, jwk_set};
use brevet_testkit::x509::der;

fn element(root: &Root) -> Value {
    let mut jwk = public(&root.key).to_jwk();
    jwk.insert("use".into(), json!("x509-svid"));
    jwk.insert("x5c".into(), json!([STANDARD.encode(&root.certificate)]));
    Value::Object(jwk)
}

fn parse(keys: &[Value]) -> Result<Bundle, InvalidBundle> {
    Bundle::from_spiffe_json(json!({ "keys": keys }).to_string().as_bytes())
}

#[test]
fn bu_02_bu_03_a_bundle_needs_nothing_but_its_keys_and_its_sequence_has_64_bits() {
    let (a, b) = (Root::new("a"), Root::new("b"));
    let text = json!({
        "keys": [element(&a), element(&b)],
        "spiffe_sequence": u64::MAX,
        "spiffe_refresh_hint": 300,
        "unknown": {},
    });
    let bundle = Bundle::from_spiffe_json(text.to_string().as_bytes()).unwrap();
    assert_eq!(bundle.authorities().collect::<Vec<_>>(), [&a.certificate, &b.certificate]);
    assert_eq!(bundle.sequence(), Some(u64::MAX));
    assert_eq!(bundle.refresh_hint(), Some(Duration::from_secs(300)));
    assert_eq!(bundle.ignored(), []);
    let plain = parse(&[]).unwrap();
    assert_eq!((plain.authorities().count(), plain.sequence(), plain.refresh_hint()), (0, None, None));
}

#[test]
fn bu_05_bu_08_x5_21_an_element_that_is_no_x509_authority_is_left_out() {
    let (good, ignored) = (Root::new("good"), Root::new("ignored"));
    let with = |name: &str, value: Value| {
        let mut element = element(&ignored);
        element[name] = value;
        element
    };
    let without = |name: &str| {
        let mut element = element(&ignored);
        element.as_object_mut().unwrap().remove(name);
        element
    };
    for other in [
        with("use", json!("jwt-svid")),
        with("use", json!("X509-SVID")),
        with("use", json!("wit-svid")),
        with("use", json!(1)),
        without("use"),
        with("kty", json!("PQC")),
        without("kty"),
        with("x5c", json!([])),
        without("x5c"),
    ] {
        let bundle = parse(&[other.clone(), element(&good)]).unwrap();
        assert_eq!(bundle.authorities().collect::<Vec<_>>(), [&good.certificate], "{other}");
        let ignored: Vec<usize> = bundle.ignored().iter().map(|(index, _)| *index).collect();
        assert_eq!(ignored, [0], "{other}");
    }
}

#[test]
fn x5_22_only_the_first_certificate_of_an_element_counts() {
    let (first, second) = (Root::new("first"), Root::new("second"));
    let mut several = element(&first);
    several["x5c"] = json!([STANDARD.encode(&first.certificate), STANDARD.encode(&second.certificate), 7]);
    several["kid"] = json!("k");
    assert_eq!(parse(&[several]).unwrap().authorities().collect::<Vec<_>>(), [&first.certificate]);
}

#[test]
fn a_bundle_that_is_not_sound_is_refused_whole() {
    let root = Root::new("root");
    let good = element(&root);
    let with = |name: &str, value: Value| {
        let mut element = good.clone();
        element[name] = value;
        parse(&[good.clone(), element]).unwrap_err()
    };
    assert_eq!(with("x5c", json!("AA")), InvalidBundle::X5c(1));
    assert_eq!(with("x5c", json!([1])), InvalidBundle::X5c(1));
    assert_eq!(with("x5c", json!(["A"])), InvalidBundle::X5c(1));
    assert_eq!(with("x5c", json!(["AA=="])), InvalidBundle::Authority(1, X509SvidError::Malformed));
    assert_eq!(with("x", public(&Key::p256()).to_jwk()["x"].clone()), InvalidBundle::KeyMismatch(1));
    assert_eq!(with("kty", json!("RSA")), InvalidBundle::KeyMismatch(1));
    assert_eq!(with("d", json!("AA")), InvalidBundle::JwkSet(InvalidJwkSet::NotPublic(1)));
    assert_eq!(with("kty", json!("oct")), InvalidBundle::JwkSet(InvalidJwkSet::NotPublic(1)));
    let text = |text: &str| Bundle::from_spiffe_json(text.as_bytes()).unwrap_err();
    assert!(matches!(text(r#"{"keys":[],"keys":[]}"#), InvalidBundle::JwkSet(InvalidJwkSet::Json(_))));
    assert_eq!(text("{}"), InvalidBundle::JwkSet(InvalidJwkSet::Malformed));
    assert_eq!(text(r#"{"keys":[],"spiffe_sequence":"1"}"#), InvalidBundle::Parameter("spiffe_sequence"));
    assert_eq!(text(r#"{"keys":[],"spiffe_sequence":-1}"#), InvalidBundle::Parameter("spiffe_sequence"));
    assert_eq!(
        text(r#"{"keys":[],"spiffe_refresh_hint":1.5}"#),
        InvalidBundle::Parameter("spiffe_refresh_hint")
    );
    let many = vec![good.clone(); BUNDLE_KEYS_MAX + 1];
    assert_eq!(parse(&many).unwrap_err(), InvalidBundle::JwkSet(InvalidJwkSet::TooLarge));
}

/// Brevet reads the bundle of one trust domain from one file, and the map of several is none.
#[test]
fn bu_10_bu_11_a_map_of_bundles_is_no_bundle() {
    let root = Root::new("root");
    let one = json!({ "keys": [element(&root)], "spiffe_refresh_hint": 1 });
    let map = json!({ "trust_domains": { "td.example": one } }).to_string();
    let malformed = InvalidBundle::JwkSet(InvalidJwkSet::Malformed);
    assert_eq!(Bundle::from_spiffe_json(map.as_bytes()).unwrap_err(), malformed);
    // A member twice is refused wherever it stands: no parser here keeps the last of two.
    for twice in [
        r#"{"trust_domains":{"td.example":{"keys":[]},"td.example":{"keys":[]}}}"#,
        r#"{"keys":[{"kty":"EC","kty":"RSA"}]}"#,
        r#"{"keys":[],"spiffe_sequence":1,"spiffe_sequence":2}"#,
    ] {
        let refused = Bundle::from_spiffe_json(twice.as_bytes()).unwrap_err();
        assert!(matches!(refused, InvalidBundle::JwkSet(InvalidJwkSet::Json(_))), "{twice}: {refused}");
    }
    // And for one trust domain there is one bundle.
    let twice = [(trust_domain("td.example"), bundle(&root)), (trust_domain("td.example"), bundle(&root))];
    assert_eq!(Bundles::new(twice).unwrap_err(), InvalidTrust::Duplicate(trust_domain("td.example")));
}

#[test]
fn a_certificate_that_is_no_sound_authority_is_refused() {
    let key = Key::p256();
    let refused = |change: &dyn Fn(&mut Spec)| {
        let mut spec = Spec::authority("root", "root", &key);
        change(&mut spec);
        let InvalidBundle::Authority(0, error) = Bundle::from_certificates(&[spec.sign(&key)]).unwrap_err()
        else {
            panic!("another error");
        };
        error
    };
    let profile = |change: &dyn Fn(&mut Spec)| refused(change).reason() == "svid_profile";
    assert!(profile(&|s| s.basic_constraints = basic_constraints(false, None)));
    assert!(profile(&|s| s.basic_constraints = vec![]));
    assert!(profile(&|s| s.key_usage = key_usage(true, 0x80)));
    assert!(profile(&|s| s.key_usage = vec![]));
    assert!(profile(&|s| s.names = alternative_names(&[uri("spiffe://td.example/a")])));
    assert!(profile(&|s| s.other_extensions = extension(&[0x2a, 3], true, &[5, 0])));
    let rsa = |bytes: usize, e: &[u8]| der::rsa_spki(&[&[0, 0x80][..], &vec![1; bytes - 1]].concat(), e);
    assert_eq!(refused(&|s| s.spki = rsa(128, &[1, 0, 1])), X509SvidError::Key(InvalidKey::RsaModulus));
    assert_eq!(refused(&|s| s.spki = rsa(256, &[3])), X509SvidError::Key(InvalidKey::RsaExponent));
    assert_eq!(refused(&|s| s.serial = vec![0]), X509SvidError::Malformed);
    // An expired authority is part of the bundle all the same: it is refused when it is used.
    let expired = Spec { not_after: utc("260531235959Z"), ..Spec::authority("root", "root", &key) };
    assert_eq!(Bundle::from_certificates(&[expired.sign(&key)]).unwrap().authorities().count(), 1);
}

#[test]
fn pem_holds_certificates_and_no_key() {
    let (a, b) = (Root::new("a"), Root::new("b"));
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    };
    let both = pem("CERTIFICATE", &a.certificate) + "# comment\n" + &pem("CERTIFICATE", &b.certificate);
    let bundle = Bundle::from_pem(both.as_bytes()).unwrap();
    assert_eq!(bundle.authorities().collect::<Vec<_>>(), [&a.certificate, &b.certificate]);
    for bad in [
        String::new(),
        "x".into(),
        both.clone() + &pem("PRIVATE KEY", a.key.pkcs8().unwrap()),
        both.clone() + &pem("EC PRIVATE KEY", a.key.pkcs8().unwrap()),
        both.clone() + "-----BEGIN CERTIFICATE-----\nAA",
        both.replacen("MII", "M!I", 1),
    ] {
        assert_eq!(Bundle::from_pem(bad.as_bytes()).unwrap_err(), InvalidBundle::Pem, "{bad}");
    }
    let leaf = a.svid(&b.key, "spiffe://td.example/a");
    let mixed = both + &pem("CERTIFICATE", &leaf);
    assert!(matches!(Bundle::from_pem(mixed.as_bytes()), Err(InvalidBundle::Authority(2, _))));
    assert_eq!(Bundle::from_pem(&vec![b'x'; BUNDLE_BYTES_MAX + 1]).unwrap_err(), InvalidBundle::TooLarge);
}

#[test]
fn t8_the_brokers_own_trust_domain_is_never_trusted_for_callers() {
    let (root, own) = (Root::new("root"), trust_domain("broker.example"));
    let bundles = [(trust_domain("td.example"), bundle(&root)), (own.clone(), bundle(&root))];
    assert_eq!(CallerTrust::new(own.clone(), bundles.clone()).unwrap_err(), InvalidTrust::OwnTrustDomain);
    assert!(ServerTrust::new(bundles).is_ok());
    let twice =
        [(trust_domain("td.example"), bundle(&root)), (trust_domain("td.example"), Bundle::default())];
    let duplicate = InvalidTrust::Duplicate(trust_domain("td.example"));
    assert_eq!(CallerTrust::new(own, twice.clone()).unwrap_err(), duplicate);
    assert_eq!(ServerTrust::new(twice).unwrap_err(), duplicate);
}

#[test]
fn an_rsa_authority_of_sufficient_size_is_accepted() {
    let key = Key::p256();
    let modulus = [&[0, 0x80][..], &[1; 255]].concat();
    let spec = Spec { spki: der::rsa_spki(&modulus, &[1, 0, 1]), ..Spec::authority("root", "root", &key) };
    let certificate = spec.sign(&key);
    let mut jwk = PublicKey::from_spki(&spec.spki).unwrap().to_jwk();
    jwk.insert("use".into(), json!("x509-svid"));
    jwk.insert("x5c".into(), json!([STANDARD.encode(&certificate)]));
    assert_eq!(parse(&[Value::Object(jwk)]).unwrap().authorities().collect::<Vec<_>>(), [&certificate]);
}

#[test]
fn i4_an_issuer_with_other_keys_has_none_of_those_from_before() {
    let keys = |kid: &str| jwk_set(&[(kid, &TestKey::p256())]);
    let issuer = |name: &str| {
        let subjects = [("robot".to_owned(), "/robot".to_owned())].into();
        Issuer::new(format!("https://{name}"), trust_domain(name), keys("k"), &subjects).unwrap()
    };
    let (one, two) = (issuer("one.example"), issuer("two.example"));
    let trust = CallerTrust::new(trust_domain("broker.example"), []).unwrap();
    let trust = trust.with_issuers([one.clone(), two.clone()]).unwrap();
    let named = |name: &str, keys: &JwkSet| (format!("https://{name}"), keys.clone());
    assert!(trust.with_keys([]).is_none());
    assert!(trust.with_keys([named("one.example", one.keys())]).is_none(), "it has these keys already");
    assert!(trust.with_keys([named("three.example", &keys("k"))]).is_none(), "it is not trusted");

    let other = keys("k");
    let changed = [named("one.example", &other), named("two.example", two.keys())];
    let changed = trust.with_keys(changed).unwrap();
    assert_eq!(changed.issuer("https://one.example"), Some(&one.clone().with_keys(other)));
    assert_eq!(changed.issuer("https://two.example"), Some(&two));
    assert_ne!(changed.digest(), trust.digest());
    let restored = changed.with_keys([named("one.example", one.keys())]).unwrap();
    assert_eq!(restored.digest(), trust.digest());
    let none = trust.with_keys([named("one.example", &JwkSet::default())]).unwrap();
    assert_eq!(none.issuer("https://one.example").unwrap().keys(), &JwkSet::default());
}
