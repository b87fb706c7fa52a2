use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::fetch::{FetchError, is_local, keys_of};
use super::*;

const WITHIN: Duration = Duration::from_secs(5);

/// Answers each connection with the next of these, `ISSUER` being its own URL, and yields that URL.
pub(crate) fn server(answers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let own = issuer.clone();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let _request = stream.read(&mut [0; 4_096]).unwrap();
            let _whoever_listens = stream.write_all(answer.replace("ISSUER", &own).as_bytes());
        }
    });
    issuer
}

pub(crate) fn document(body: &str) -> String {
    // The name of the issuer is as long as its URL, which is not known here.
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}")
}

pub(crate) fn metadata() -> String {
    document(r#"{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}"#)
}

#[tokio::test]
async fn the_keys_are_those_that_the_issuer_s_metadata_name() {
    let issuer = server(vec![metadata(), document(r#"{"keys":[]}"#)]);
    assert_eq!(keys_of(&issuer, None, WITHIN).await.unwrap(), JwkSet::default());
}

#[tokio::test]
async fn nothing_else_is_taken_and_nothing_is_followed() {
    let redirect = "HTTP/1.1 301 Moved\r\nlocation: ISSUER/elsewhere\r\ncontent-length: 0\r\n\r\n";
    let long = document(&format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(300_000)));
    let other = metadata().replace("\"ISSUER\",", "\"https://other.example\",");
    let leads_away = metadata().replace("ISSUER/keys", "http://keys.example/keys");
    let private = document(r#"{"keys":[{"kty":"oct","kid":"a","k":"AA"}]}"#);
    type Expected = fn(&FetchError) -> bool;
    let cases: Vec<(Vec<String>, Expected)> = vec![
        (vec![redirect.to_owned()], |e| matches!(e, FetchError::Status(_))),
        (vec![metadata(), redirect.to_owned()], |e| matches!(e, FetchError::Status(_))),
        (vec![document("not json")], |e| matches!(e, FetchError::Metadata)),
        (vec![document("{}")], |e| matches!(e, FetchError::Metadata)),
        (vec![other], |e| matches!(e, FetchError::Metadata)),
        (vec![leads_away], |e| matches!(e, FetchError::Url)),
        (vec![metadata(), long], |e| matches!(e, FetchError::Body)),
        (vec![metadata(), private], |e| matches!(e, FetchError::Keys(_))),
        (vec![metadata(), String::new()], |e| matches!(e, FetchError::Http(_))),
    ];
    for (index, (answers, expected)) in cases.into_iter().enumerate() {
        let problem = keys_of(&server(answers), None, WITHIN).await.unwrap_err();
        assert!(expected(&problem), "{index}: {problem}");
    }
    for url in ["http://issuer.example", "ftp://127.0.0.1", "https://user@127.0.0.1", "nonsense"] {
        let problem = keys_of(url, None, WITHIN).await.unwrap_err();
        assert!(matches!(problem, FetchError::Url), "{url}: {problem}");
    }
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    assert!(matches!(keys_of(&issuer, None, Duration::ZERO).await, Err(FetchError::Late)));
}

#[test]
fn old_keys_do_not_verify_for_ever_nor_those_that_were_found_in_another_way() {
    let discovered = Discovered::default();
    let at = Timestamp::from_seconds;
    let keys = JwkSet::parse(br#"{"keys":[]}"#).unwrap();
    let source =
        |issuer: &str, ca: Option<&str>| Source { issuer: issuer.to_owned(), ca: ca.map(PathBuf::from) };
    let (a, b) = (source("a", None), source("b", Some("ca.pem")));
    assert!(discovered.keep(a.clone(), keys.clone(), at(10)));
    assert!(!discovered.keep(a.clone(), keys.clone(), at(20)), "the same keys as before");
    assert!(discovered.keep(b.clone(), keys, at(30)));
    let kept = |sources: &[Source], oldest| {
        discovered.drop_all_but(sources, at(oldest));
        discovered.found().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(kept(&[a.clone(), b.clone()], 20), [a.clone(), b.clone()]);
    assert_eq!(kept(&[a, b.clone()], 21), [b]);
    assert!(kept(&[source("b", None)], 21).is_empty());
}

#[test]
fn this_machine_has_several_names() {
    for host in ["localhost", "127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"] {
        assert!(is_local(host), "{host}");
    }
    for host in ["issuer.example", "localhost.example", "128.0.0.1", "[2001:db8::1]", ""] {
        assert!(!is_local(host), "{host}");
    }
}
