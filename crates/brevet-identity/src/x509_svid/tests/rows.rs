//! The rows of `docs/spiffe-conformance.md` that a chain is judged by, one by one.

use super::*;

fn refused(w: &World, reason: &str, chains: &[(&str, Vec<Vec<u8>>)]) {
    for (what, chain) in chains {
        assert_eq!(w.judge(chain).map(|_| ()), Err(reason), "{what}");
    }
}

#[test]
fn x5_02_a_leaf_has_exactly_one_uri() {
    let w = world();
    let with = |names: &[Vec<u8>]| w.with(|s| s.names = alternative_names(names));
    assert!(w.judge(&with(&[dns("a.example"), uri(ID), dns("b.example")])).is_ok());
    refused(
        &w,
        "san_count",
        &[
            ("none", w.with(|s| s.names.clear())),
            ("no uri", with(&[dns("a.example")])),
            ("two", with(&[uri(ID), uri("spiffe://td.example/agent/b")])),
            ("the same twice", with(&[uri(ID), uri(ID)])),
            ("another scheme beside", with(&[uri(ID), uri("https://td.example/")])),
            ("another scheme before", with(&[uri("https://td.example/"), uri(ID)])),
        ],
    );
}

#[test]
fn x5_06_a_signing_certificate_is_nobodys_identity() {
    let w = world();
    let named = |id: &str| {
        let mut chain = w.over(|s| s.names = alternative_names(&[uri(id)]));
        chain.remove(0);
        chain
    };
    refused(
        &w,
        "svid_profile",
        &[
            ("an authority", vec![w.home.certificate.clone()]),
            ("an intermediate", named("spiffe://td.example")),
            ("with the id of a workload", named(ID)),
            ("with its authority", [named(ID), vec![w.home.certificate.clone()]].concat()),
        ],
    );
    // Nor does one that has the id of a workload sign another's.
    let below = w.over(|s| s.names = alternative_names(&[uri("spiffe://td.example/ca")]));
    refused(&w, "svid_profile", &[("below a workload", below)]);
}

#[test]
fn x5_13_a_path_leads_to_the_bundle_of_the_svids_own_trust_domain() {
    let w = world();
    assert!(w.judge(&w.over(|_| {})).is_ok());
    let foreign_root = vec![w.other.svid(&w.key, ID)];
    let foreign_id = w.with_id("spiffe://other.example/a");
    let unknown = w.with_id("spiffe://unknown.example/a");
    let chains = [("foreign root", foreign_root), ("foreign id", foreign_id), ("no bundle", unknown)];
    refused(&w, "id_not_authoritative", &chains);
    let stranger = vec![Root::new("home root").svid(&w.key, ID)];
    refused(&w, "chain_invalid", &[("stranger", stranger), ("self-signed", vec![w.leaf().sign(&w.key)])]);
}

#[test]
fn x5_14_a_leaf_that_is_an_authority_is_refused() {
    let w = world();
    let with = |constraints: Vec<u8>| w.with(|s| s.basic_constraints = constraints);
    assert!(w.judge(&with(basic_constraints(false, None))).is_ok());
    assert!(w.judge(&with(vec![])).is_ok());
    let chains = [
        ("authority", with(basic_constraints(true, None))),
        ("of length 0", with(basic_constraints(true, Some(0)))),
    ];
    refused(&w, "svid_profile", &chains);
}

#[test]
fn x5_15_a_leaf_that_may_sign_certificates_or_revocation_lists_is_refused() {
    let w = world();
    let with = |bits| w.with(|s| s.key_usage = key_usage(true, bits));
    assert!(w.judge(&with(0x80)).is_ok());
    refused(&w, "svid_profile", &[("certificates", with(0x84)), ("lists", with(0x82)), ("both", with(0x86))]);
}

#[test]
fn x5_16_a_leaf_with_another_scheme_is_refused() {
    let w = world();
    let chains = ["https://td.example/a", "SPIFFE://td.example/a", "spiffes://td.example/a", "urn:a", ""]
        .map(|id| (id, w.with_id(id)));
    refused(&w, "id_invalid", &chains);
}

#[test]
fn x5_17_a_leaf_without_a_path_is_refused() {
    let w = world();
    let chains = ["spiffe://td.example", "spiffe://td.example/"].map(|id| (id, w.with_id(id)));
    refused(&w, "id_invalid", &chains);
}

#[test]
fn bu_06_an_empty_bundle_makes_every_svid_of_its_trust_domain_invalid() {
    let w = world();
    let unusable = br#"{"keys":[{"kty":"EC","use":"wit-svid"},{"kty":"PQC","use":"x509-svid"}]}"#;
    for text in [&br#"{"keys":[]}"#[..], unusable] {
        let empty = Bundle::from_spiffe_json(text).unwrap();
        let bundles =
            [(trust_domain("td.example"), empty), (trust_domain("other.example"), bundle(&w.other))];
        let trust = CallerTrust::new(trust_domain("b"), bundles).unwrap();
        let verdict = |chain: &[Vec<u8>]| verify_chain(chain, &trust, NOW).unwrap_err();
        assert_eq!(verdict(&[w.leaf().sign(&w.home.key)]), X509SvidError::Chain);
        assert_eq!(verdict(&w.over(|_| {})), X509SvidError::Chain);
        assert_eq!(verdict(&[w.other.svid(&w.key, ID)]), X509SvidError::NotAuthoritative);
    }
}

#[test]
fn id_20_nothing_but_a_certificate_is_an_x509_svid() {
    let w = world();
    let token = b"eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJzcGlmZmU6Ly90ZC5leGFtcGxlL2EifQ.AA";
    let pem = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let request = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap());
    refused(
        &w,
        "malformed",
        &[
            ("a token", vec![token.to_vec()]),
            ("pem", vec![pem.to_vec()]),
            ("a raw public key", vec![w.key.spki()]),
            ("a certification request", vec![request.unwrap().der().to_vec()]),
            ("nothing", vec![]),
        ],
    );
}

#[test]
fn id_21_what_else_a_foreign_authority_asserts_decides_nothing() {
    let w = world();
    let plain = w.judge(&[w.leaf().sign(&w.home.key)]).unwrap();
    for (what, chain) in [
        ("a subject", w.with(|s| s.subject = name("operator"))),
        ("names", w.with(|s| s.names = alternative_names(&[dns("broker.example"), uri(ID)]))),
        ("policies", w.with(|s| s.other_extensions = extension(&[0x55, 0x1d, 32], false, &der::seq(&[])))),
        ("an extension", w.with(|s| s.other_extensions = extension(&[0x2a, 3], false, b"\x0c\x05admin"))),
    ] {
        let caller = w.judge(&chain).unwrap();
        assert_eq!(caller.spiffe_id(), plain.spiffe_id(), "{what}");
        assert_eq!((caller.key(), caller.valid_until()), (plain.key(), plain.valid_until()), "{what}");
    }
}
