//! The test kit's tokens, proofs and key sets, which are made for any verifier, shown to the running daemon.

use std::fs;

use brevet_api::v1;
use brevet_testkit::jose::{self, Case};
use serde_json::Value;
use tonic::Code;

use crate::shown::{assert_recorded, showing, with_proof};
use crate::tokens::{AGENT, ISSUER, Tokens, send};
use crate::world::{World, eventually, next_second, replace};

/// What a token leaves to the other headers of a call.
const HEADERS_BYTES: usize = 14 * 1024;

fn text<'a>(case: &'a Case, name: &str) -> &'a str {
    case.body[name].as_str().unwrap()
}

/// They are made for a moment that has passed: what is good in everything else has expired, and what is wrong in its times
/// is left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tokens_of_the_suite_are_refused_for_the_reason_that_their_maker_gives() {
    let all = jose::cases();
    let cases: Vec<&Case> =
        all.iter().filter(|case| case.kind == "jwt-svid" && !case.by_the_letter).collect();
    // Most are judged by the same bundles; the few that have others are for `brevet verify` alone.
    let bundles = &cases[0].body["bundles"];
    let world = World::with(|config, folder| {
        config.insert("issuer".to_owned(), jose::AUDIENCE.into());
        config["grpc"].as_table_mut().unwrap().insert("client_certificate".to_owned(), "optional".into());
        let limits = toml::toml! { strangers_recorded_per_minute_max = 1000000 };
        config.insert("limits".to_owned(), limits.into());
        for (trust_domain, bundle) in bundles.as_object().unwrap() {
            fs::write(folder.join(format!("{trust_domain}.json")), bundle.to_string()).unwrap();
            let mut row = toml::Table::new();
            row.insert("trust_domain".to_owned(), trust_domain.as_str().into());
            row.insert("bundle".to_owned(), format!("{trust_domain}.json").into());
            config["trust"].as_array_mut().unwrap().push(row.into());
        }
    });
    let tokens = Tokens::over(world);
    next_second().await;
    let stranger = tokens.client(None, "", &tokens.holder).await;
    let mut expected = Vec::new();
    for case in cases.into_iter().filter(|case| case.body["bundles"] == *bundles) {
        let recorded = match case.expected {
            Ok(()) => "expired",
            // It is looked at after the times.
            Err(_) if case.id.ends_with("/jti-number") => "expired",
            Err("time_invalid" | "token_too_old" | "expired" | "cnf_mismatch") => continue,
            Err(reason) => reason,
        };
        // What is in no header, or in none that is read, is shown to nobody.
        let token = text(case, "token");
        if token.bytes().any(|byte| byte.is_ascii_control()) || token.len() > HEADERS_BYTES {
            continue;
        }
        println!("{}", case.id);
        let recorded = if token.is_ascii() { recorded } else { "ambiguous_credentials" };
        send(&stranger, with_proof(&tokens, token), recorded).await;
        expected.push((case.id.clone(), recorded));
    }
    assert!(expected.len() >= 100, "{}", expected.len());
    drop(stranger);
    assert_recorded(&expected, &tokens.world.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn proofs_of_the_suite_are_refused_for_the_reason_that_their_maker_gives() {
    let tokens = Tokens::start();
    next_second().await;
    let stranger = tokens.client(None, "", &tokens.holder).await;
    let mut expected = Vec::new();
    for case in jose::cases().iter().filter(|case| case.kind == "dpop") {
        let recorded = match case.expected {
            // They are made for another URL, which is looked at before their time.
            Ok(()) => "dpop_htu",
            Err("dpop_iat" | "dpop_jti" | "dpop_ath" | "dpop_nonce" | "dpop_jkt") => continue,
            Err(reason) => reason,
        };
        println!("{}", case.id);
        let token = tokens.svid(&Tokens::claims(AGENT));
        let proof = text(case, "proof");
        send(&stranger, showing(&token, proof), recorded).await;
        expected.push((case.id.clone(), recorded));
    }
    assert!(expected.len() >= 30, "{}", expected.len());
    drop(stranger);
    assert_recorded(&expected, &tokens.world.stop());
}

/// Key sets that are refused as a whole.
fn hostile_sets() -> Vec<(String, Value)> {
    let refused = jose::cases().into_iter().filter(|case| case.kind == "jwks" && case.expected.is_err());
    refused.map(|mut case| (case.id.clone(), case.body.remove("jwks").unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hostile_set_of_keys_is_refused_and_the_old_one_stays_in_force() {
    let tokens = Tokens::start();
    next_second().await;
    let sets = hostile_sets();
    assert!(sets.len() >= 15, "{}", sets.len());
    let file = tokens.world.path("issuer.json");
    let good = fs::read_to_string(&file).unwrap();
    for (number, (id, set)) in sets.into_iter().enumerate() {
        println!("{id}");
        let refusals = || tokens.world.log().matches("is refused; the old one stays in force").count();
        let before = refusals();
        replace(&file, &set.to_string());
        tokens.world.daemon.hang_up();
        eventually("the set is refused", || async { refusals() > before }).await;
        let mut robot = Tokens::claims("robot");
        robot["iss"] = ISSUER.into();
        let robot_id = crate::tokens::ROBOT;
        let client = tokens.client(Some(robot_id), &tokens.token(&robot), &tokens.holder).await;
        client.create(tokens.create(robot_id, &format!("r{number}"), v1::Sensitivity::Low)).await.ok();
    }
    // A key that is taken away verifies nothing any more.
    replace(&file, &good.replace("\"k\"", "\"l\""));
    tokens.world.daemon.hang_up();
    eventually("the key is gone", || async {
        tokens.world.log().contains("changed configuration is in force")
    })
    .await;
    let mut robot = Tokens::claims("robot");
    robot["iss"] = ISSUER.into();
    let client = tokens.client(None, &tokens.token(&robot), &tokens.holder).await;
    let answer = client.create(tokens.create(crate::tokens::ROBOT, "late", v1::Sensitivity::Low)).await;
    answer.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", "kid_unknown");
    drop(client);
    tokens.world.finish();
}
