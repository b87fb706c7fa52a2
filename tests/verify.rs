//! `brevet verify`: the suites of the test kit against the built program, and the format that docs/verify.md describes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brevet_identity::key::PublicKey;
use brevet_testkit::jose;
use brevet_testkit::suite::{self, Expected};
use brevet_testkit::x509::{Key, der, name};
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData,
};
use serde_json::{Value, json};

/// Sends the lines to the program and reads its answers. It must end with success whatever the verdicts.
fn verify(arguments: &[&str], lines: Vec<u8>) -> Vec<Value> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_brevet"))
        .arg("verify")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = program.stdin.take().unwrap();
    // Whoever writes all before it reads anything waits for ever once both pipes are full.
    let writer = thread::spawn(move || input.write_all(&lines));
    let output = program.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lines(cases: impl IntoIterator<Item = String>) -> Vec<u8> {
    cases.into_iter().flat_map(|case| (case + "\n").into_bytes()).collect()
}

/// What an answer says: accepted, or why not.
fn verdict(answer: &Value) -> Result<(), String> {
    match (answer["accept"].as_bool().unwrap(), answer.get("reason")) {
        (true, None) => Ok(()),
        (false, Some(reason)) => Err(reason.as_str().unwrap().to_owned()),
        (_, _) => panic!("neither accepted nor refused: {answer}"),
    }
}

/// Straight to the stream, because what a passing test prints is not shown.
fn say(line: &str) {
    let mut stream = std::io::stderr();
    writeln!(stream, "{line}").unwrap();
}

#[test]
fn i1_every_token_proof_and_key_set_gets_the_verdict_that_its_maker_asks_for() {
    let mut groups = BTreeMap::<_, Vec<jose::Case>>::new();
    for case in jose::cases() {
        groups.entry((case.kind, case.by_the_letter)).or_default().push(case);
    }
    assert!(groups.values().map(Vec::len).sum::<usize>() >= 600, "the suite has lost cases");
    let mut wrong = Vec::new();
    for ((kind, by_the_letter), cases) in groups {
        let profile = if by_the_letter { "spec" } else { "strict" };
        let answers = verify(&[kind, "--profile", profile], lines(cases.iter().map(jose::Case::to_json)));
        assert_eq!(answers.len(), cases.len());
        let accepted = cases.iter().filter(|case| case.expected.is_ok()).count();
        say(&format!("{kind} ({profile}): {accepted} to accept, {} to refuse", cases.len() - accepted));
        for (case, answer) in cases.iter().zip(&answers) {
            assert_eq!(answer["id"], case.id);
            if verdict(answer) != case.expected.map_err(str::to_owned) {
                wrong.push(format!("{answer}, expected {:?}", case.expected));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn i2_every_chain_gets_the_verdict_that_its_maker_asks_for() {
    let cases = suite::x509_svids();
    let answers = verify(&["x509-svid"], lines(cases.iter().map(suite::Case::to_json)));
    assert_eq!(answers.len(), cases.len());
    let mut wrong = Vec::new();
    for (case, answer) in cases.iter().zip(&answers) {
        assert_eq!(answer["id"], case.id);
        let right = match &case.expected {
            Expected::Accept { spiffe_id } => answer["accept"] == true && answer["spiffe_id"] == *spiffe_id,
            Expected::Refuse { reason } => answer["accept"] == false && answer["reason"] == *reason,
        };
        if !right {
            wrong.push(format!("{answer}, expected {:?}", case.expected));
        }
    }
    say(&format!("x509-svid: {} cases", cases.len()));
    assert!(cases.len() >= 1_000, "the suite has lost cases");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A request for one key, said to be signed in one way: its parts, each of which can be another.
#[derive(Clone)]
struct CertificationRequest {
    spki: Vec<u8>,
    attributes: Vec<u8>,
    algorithm: Vec<u8>,
}

impl CertificationRequest {
    fn of(key: &Key) -> Self {
        Self { spki: key.spki(), attributes: vec![], algorithm: key.signature_algorithm() }
    }

    fn info(&self) -> Vec<u8> {
        let attributes = der::tlv(0xa0, &self.attributes);
        der::seq(&[der::tlv(2, &[0]), name("nobody"), self.spki.clone(), attributes])
    }

    fn with_signature(&self, signature: &[u8]) -> Vec<u8> {
        der::seq(&[self.info(), self.algorithm.clone(), der::bits(signature)])
    }

    fn sign(&self, key: &Key) -> Vec<u8> {
        self.with_signature(&key.sign(&self.info()))
    }
}

/// A request, and the key that it is for.
struct Made {
    request: Vec<u8>,
    spki: Vec<u8>,
}

/// What another tool makes, with names that it asks for.
fn made_elsewhere(algorithm: &'static rcgen::SignatureAlgorithm, names: &[&str]) -> Made {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let request = CertificateParams::new(names).unwrap().serialize_request(&key).unwrap();
    Made { request: request.der().to_vec(), spki: key.subject_public_key_info() }
}

/// Requests to accept, and whether attributes are passed over in each.
fn requests_to_accept() -> Vec<(&'static str, Made, bool)> {
    let (p256, p384) = (Key::p256(), Key::p384());
    let plain = |key: &Key| Made { request: CertificationRequest::of(key).sign(key), spki: key.spki() };
    let of_size = |size: usize| {
        let attributes = der::tlv(4, &vec![0; size]);
        CertificationRequest { attributes, ..CertificationRequest::of(&p256) }.sign(&p256)
    };
    let longest = (7_900..8_192).map(of_size).rfind(|request| request.len() <= 8_192).unwrap();
    vec![
        ("P-256", plain(&p256), false),
        ("P-384", plain(&p384), false),
        ("P-256 of rcgen", made_elsewhere(&PKCS_ECDSA_P256_SHA256, &[]), false),
        ("P-384 of rcgen", made_elsewhere(&PKCS_ECDSA_P384_SHA384, &[]), false),
        ("P-256 that asks for a name", made_elsewhere(&PKCS_ECDSA_P256_SHA256, &["a.example"]), true),
        ("the longest", Made { request: longest, spki: p256.spki() }, true),
    ]
}

/// Requests to refuse, with the reason that docs/verify.md has for it.
fn requests_to_refuse() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let (key, other, rsa) = (Key::p256(), Key::p256(), Key::rsa());
    let plain = CertificationRequest::of(&key);
    let good = plain.sign(&key);
    let with_key = |spki| CertificationRequest { spki, ..plain.clone() }.sign(&key);
    let by = |algorithm| CertificationRequest { algorithm, ..plain.clone() }.sign(&key);
    let ecdsa_with = |hash: u8| der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, hash]);
    let weak_rsa = der::rsa_spki(&[&[0, 0x80][..], &[1; 127]].concat(), &[1, 0, 1]);
    let secp256k1 = der::ec_spki(der::oid(&[0x2b, 0x81, 4, 0, 10]), &[&[4][..], &[1; 64]].concat());
    let mut off_the_curve = key.spki();
    *off_the_curve.last_mut().unwrap() ^= 1;
    let mut compressed = key.spki();
    *compressed.get_mut(26).unwrap() = 2;
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let attributes = der::tlv(4, &[0; 8_192]);
    let long = CertificationRequest { attributes, ..plain.clone() }.sign(&key);
    let nested = (0..40).fold(vec![], |inner, _| der::tlv(0x31, &inner));
    let deep = CertificationRequest { attributes: nested, ..plain.clone() }.sign(&key);
    let certificate = suite::x509_svids().swap_remove(0).chain.swap_remove(0);
    vec![
        ("empty", vec![], "csr_malformed"),
        ("an empty sequence", der::seq(&[]), "csr_malformed"),
        ("text", b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(), "csr_malformed"),
        ("a certificate", certificate, "csr_malformed"),
        ("a private key", key.pkcs8().unwrap().to_vec(), "csr_malformed"),
        ("a public key", key.spki(), "csr_malformed"),
        ("half of it", good.split_at(good.len() / 2).0.to_vec(), "csr_malformed"),
        ("a byte short", good.split_last().unwrap().1.to_vec(), "csr_malformed"),
        ("a byte more", [&good[..], &[0]].concat(), "csr_malformed"),
        ("twice", good.repeat(2), "csr_malformed"),
        ("attributes without end", deep, "csr_malformed"),
        ("too long", long, "csr_size"),
        ("bytes without end", vec![0x30; 1 << 19], "csr_size"),
        ("RSA of 2,048 bits", CertificationRequest::of(&rsa).sign(&rsa), "csr_key"),
        ("RSA of 1,024 bits", with_key(weak_rsa), "csr_key"),
        ("Ed25519 of rcgen", made_elsewhere(&PKCS_ED25519, &[]).request, "csr_key"),
        ("secp256k1", with_key(secp256k1), "csr_key"),
        ("a compressed point", with_key(compressed), "csr_key"),
        ("SHA-1", by(der::seq(&[ecdsa_with(1)])), "csr_alg"),
        ("SHA-512", by(der::seq(&[ecdsa_with(4)])), "csr_alg"),
        ("of an RSA key", by(rsa.signature_algorithm()), "csr_alg"),
        ("another digest than it was", by(der::seq(&[ecdsa_with(3)])), "csr_signature"),
        ("one bit of the signature", flipped, "csr_signature"),
        ("signed by another key", plain.sign(&other), "csr_signature"),
        ("the key of another", with_key(other.spki()), "csr_signature"),
        ("a point off the curve", with_key(off_the_curve), "csr_signature"),
        ("no bit of a signature", plain.with_signature(&[]), "csr_signature"),
        ("two zeros", plain.with_signature(&[0x30, 6, 2, 1, 0, 2, 1, 0]), "csr_signature"),
    ]
}

#[test]
fn i1_every_certification_request_gets_the_verdict_that_is_documented() {
    let (accepted, refused) = (requests_to_accept(), requests_to_refuse());
    let case = |id: &str, request: &[u8]| json!({"id": id, "csr": STANDARD.encode(request)}).to_string();
    let mut cases: Vec<String> = accepted.iter().map(|(id, made, _)| case(id, &made.request)).collect();
    cases.extend(refused.iter().map(|(id, request, _)| case(id, request)));
    // What is no base64 is no request either, and what is no text is no case.
    cases.push(json!({"id": "not base64", "csr": "MII*"}).to_string());
    cases.push(json!({"id": "a number", "csr": 7}).to_string());
    let answers = verify(&["csr"], lines(cases));
    assert_eq!(answers.len(), accepted.len() + refused.len() + 2);
    let (first, rest) = answers.split_at(accepted.len());
    for ((id, made, ignored), answer) in accepted.iter().zip(first) {
        assert_eq!((&answer["id"], verdict(answer)), (&json!(id), Ok(())));
        assert_eq!(answer["ignored_attributes"], *ignored, "{id}");
        let thumbprint = PublicKey::from_spki(&made.spki).unwrap().thumbprint();
        assert_eq!(answer["key"], thumbprint.to_string(), "{id}");
    }
    let more = [("not base64", "csr_malformed"), ("a number", "case_malformed")];
    let expected = refused.iter().map(|(id, _, reason)| (*id, *reason)).chain(more);
    for ((id, reason), answer) in expected.zip(rest) {
        assert_eq!((&answer["id"], verdict(answer)), (&json!(id), Err(reason.to_owned())));
    }
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verify.md")).unwrap();
    let row = documented.lines().find(|line| line.starts_with("| certification requests |")).unwrap();
    for reason in row.split('`').skip(1).step_by(2) {
        assert!(refused.iter().any(|(_, _, tried)| *tried == reason), "nothing is refused as {reason}");
    }
}

#[test]
fn a_line_that_is_no_case_is_told_and_the_next_is_judged() {
    let token = jose::cases().into_iter().find(|case| case.kind == "jws" && case.expected.is_ok()).unwrap();
    let mut input = Vec::new();
    for line in [
        &b"not json"[..],
        b"[]",
        b"{}",
        br#"{"id":7,"token":1,"jwks":{}}"#,
        br#"{"id":"a","token":"a.b.c"}"#,
        b"\xff\xfe",
        b"",
        b"   ",
        &[b'x'; 3 << 20],
        token.to_json().as_bytes(),
    ] {
        input.extend_from_slice(line);
        input.push(b'\n');
    }
    // The last line needs no end.
    input.extend_from_slice(br#"{"id":["last"]"#);
    let answers = verify(&["jws"], input);
    let ids: Vec<_> = answers.iter().map(|answer| answer["id"].clone()).collect();
    let none = Value::Null;
    let expected = [&none, &none, &none, &json!(7), &json!("a"), &none, &none, &json!(token.id), &none]
        .map(Clone::clone);
    assert_eq!(ids, expected);
    for (answer, id) in answers.iter().zip(&ids) {
        let expected = if *id == token.id { Ok(()) } else { Err("case_malformed".to_owned()) };
        assert_eq!(verdict(answer), expected, "{answer}");
    }
}

#[test]
fn two_bundles_for_one_trust_domain_are_no_trust() {
    let token =
        jose::cases().into_iter().find(|case| case.kind == "jwt-svid" && case.expected.is_ok()).unwrap();
    let bundle = token.body["bundles"]["td.example"].to_string();
    let twice =
        token.to_json().replacen("\"bundles\":{", &format!("\"bundles\":{{\"td.example\":{bundle},"), 1);
    let answers = verify(&["jwt-svid"], lines([token.to_json(), twice]));
    assert_eq!(verdict(&answers[0]), Ok(()));
    assert_eq!(verdict(&answers[1]), Err("bundle_duplicate".to_owned()));
}

/// docs/verify.md shows a case and its answer for each kind, in blocks that follow each other.
#[test]
fn the_examples_of_the_documentation_are_answered_as_it_says() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verify.md")).unwrap();
    let mut kind = None;
    let mut case: Option<Value> = None;
    let mut tried = 0;
    for block in document.split("```").collect::<Vec<_>>().chunks(2) {
        if let Some(heading) = block[0].lines().rev().find_map(|line| line.strip_prefix("## `")) {
            kind = heading.split('`').next();
        }
        let Some(example) = block.get(1).and_then(|block| block.strip_prefix("json\n")) else { continue };
        let example: Value = serde_json::from_str(example).unwrap();
        match case.take() {
            None => case = Some(example),
            Some(given) => {
                let answers = verify(&[kind.unwrap()], lines([given.to_string()]));
                assert_eq!(answers, [example], "{kind:?}");
                tried += 1;
            }
        }
    }
    assert_eq!((case, tried), (None, 7), "one example of each kind");
}
