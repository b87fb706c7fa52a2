//! Project Wycheproof's vectors, where a copy of them is at hand: `BREVET_VECTORS` names the folder that its folder
//! `wycheproof` is in. Without it the tests say that they were not run.

use std::io::Write;
use std::path::PathBuf;

use crate::jwk_set::JwkSet;
use crate::jws::{HeaderProfile, Jws, KeyReference, TokenType};
use crate::key::PublicKey;
use serde_json::{Value, json};

/// The groups of cases of a file; none if there are no vectors here.
fn groups(file: &str) -> Option<Vec<Value>> {
    let Some(folder) = std::env::var_os("BREVET_VECTORS") else {
        // Straight to the stream, because what a passing test prints is not shown.
        writeln!(std::io::stderr(), "not run: BREVET_VECTORS is not set").unwrap();
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
    for file in ["ecdsa_secp256r1_sha256_p1363_test.json", "ecdsa_secp384r1_sha384_p1363_test.json"] {
        let Some(groups) = groups(file) else { return };
        for group in groups {
            let key = PublicKey::from_spki(&bytes(&group["publicKeyDer"])).unwrap();
            for case in group["tests"].as_array().unwrap() {
                let verdict = key.verifies(&bytes(&case["msg"]), &bytes(&case["sig"]));
                assert_eq!(verdict, case["result"] == "valid", "{file} {}", case["tcId"]);
            }
        }
    }
}

/// The vectors cover keys that are not accepted here, so only under a P-256 key is a valid token required to pass.
#[test]
fn no_token_passes_that_wycheproof_refuses() {
    let profile = HeaderProfile { token_type: TokenType::Any, key: KeyReference::Kid };
    let Some(groups) = groups("json_web_signature_test.json") else { return };
    for group in groups {
        let keys = JwkSet::parse(json!({"keys": [group["public"]]}).to_string().as_bytes());
        let accepted_key = keys.as_ref().is_ok_and(|keys| keys.keys().next().is_some());
        for case in group["tests"].as_array().unwrap() {
            let passes = keys.as_ref().is_ok_and(|keys| {
                let token = case["jws"].as_str().unwrap_or_default();
                Jws::parse(token, profile).and_then(|jws| jws.verify_with(keys)).is_ok()
            });
            assert_eq!(
                passes,
                accepted_key && case["result"] == "valid",
                "{} {}",
                case["tcId"],
                case["comment"]
            );
        }
    }
}
