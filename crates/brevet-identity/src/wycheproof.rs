//! Project Wycheproof's vectors, where a copy of them is at hand: `BREVET_VECTORS` names the folder that its folder
//! `wycheproof` is in. Without it the tests say that they were not run.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::jwk_set::{InvalidJwkSet, JwkSet};
use crate::jws::{HeaderProfile, Jws, JwsError, KeyReference, TokenType};
use crate::key::{Algorithm, PublicKey};

/// The groups of cases of a file; none if there are no vectors here.
fn groups(file: &str) -> Option<Vec<Value>> {
    let Some(folder) = std::env::var_os("BREVET_VECTORS") else {
        say("not run: BREVET_VECTORS is not set");
        return None;
    };
    let text = std::fs::read(PathBuf::from(folder).join("wycheproof").join(file)).unwrap();
    let mut suite: Value = serde_json::from_slice(&text).unwrap();
    Some(serde_json::from_value(suite["testGroups"].take()).unwrap())
}

fn bytes(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn signatures_are_judged_as_wycheproof_judges_them() {
    for (file, algorithm) in [
        ("ecdsa_secp256r1_sha256_p1363_test.json", Algorithm::Es256),
        ("ecdsa_secp384r1_sha384_p1363_test.json", Algorithm::Es384),
        ("rsa_signature_2048_sha256_test.json", Algorithm::Rs256),
        ("rsa_signature_4096_sha256_test.json", Algorithm::Rs256),
    ] {
        let Some(groups) = groups(file) else { return };
        let (mut valid, mut refused_keys) = (0, 0);
        for group in groups {
            let der = group.get("publicKeyDer").or(group.get("publicKeyAsn")).unwrap();
            let key = PublicKey::from_spki(&bytes(der));
            for case in group["tests"].as_array().unwrap() {
                let expected = case["result"] == "valid";
                let Ok(key) = &key else {
                    refused_keys += usize::from(expected);
                    continue;
                };
                let verdict = key.verifies(algorithm, &bytes(&case["msg"]), &bytes(&case["sig"]));
                // What is merely acceptable may go either way; it is legacy encoding, and ring refuses it.
                assert_eq!(verdict, expected, "{file} {} {}", case["tcId"], case["comment"]);
                valid += usize::from(verdict);
            }
        }
        say(&format!(
            "{file}: {valid} valid signatures verified, {refused_keys} more under keys that are not taken"
        ));
    }
}

/// A valid token may be refused for its algorithm or its key, since not all of them are taken here, and for nothing else.
#[test]
fn tokens_are_judged_as_wycheproof_judges_them() {
    let profile = HeaderProfile { token_type: TokenType::Any, key: KeyReference::Kid, unread: &[] };
    let Some(groups) = groups("json_web_signature_test.json") else { return };
    let (mut accepted, mut refused) = (0, BTreeMap::<&str, usize>::new());
    for group in groups {
        // A symmetric key is given as the private one alone.
        let key = group.get("public").filter(|key| key.get("kty").is_some()).unwrap_or(&group["private"]);
        let keys = JwkSet::parse(json!({"keys": [key]}).to_string().as_bytes());
        for case in group["tests"].as_array().unwrap() {
            let token = case["jws"].as_str().unwrap_or_default();
            // Keys are loaded before any token comes, so a set that is refused is the first reason.
            let verdict = keys.as_ref().map_err(InvalidJwkSet::reason).and_then(|keys| {
                Jws::parse(token, profile).and_then(|jws| jws.verify_with(keys)).map_err(JwsError::reason)
            });
            match (case["result"] == "valid", verdict) {
                (true, Ok(_)) => accepted += 1,
                (true, Err(reason @ ("alg_forbidden" | "key_unacceptable" | "alg_key_mismatch"))) => {
                    *refused.entry(reason).or_default() += 1;
                }
                (false, Err(_)) => {}
                (expected, verdict) => {
                    panic!("{} {}: {expected}, but {verdict:?}", case["tcId"], case["comment"])
                }
            }
        }
    }
    say(&format!(
        "json_web_signature_test.json: {accepted} valid tokens accepted, valid ones refused: {refused:?}"
    ));
    assert!(accepted >= 30, "only {accepted} valid tokens were accepted");
}

/// Straight to the stream, because what a passing test prints is not shown.
fn say(line: &str) {
    let mut stream = std::io::stderr();
    writeln!(stream, "{line}").unwrap();
}
