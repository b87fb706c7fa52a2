//! `brevet verify`: the suites of the test kit against the built program, and the format that docs/verify.md describes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use brevet_testkit::jose;
use brevet_testkit::suite::{self, Expected};
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
