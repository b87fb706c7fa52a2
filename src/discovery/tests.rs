use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::fetch::{FetchError, Reach, client, get, is_local};
use super::*;

const WITHIN: Duration = Duration::from_secs(5);

fn source(issuer: &str, jwks_hosts: &[&str]) -> Source {
    let jwks_hosts = jwks_hosts.iter().map(|name| HostName::parse(name).unwrap()).collect();
    Source { issuer: issuer.to_owned(), ca: None, jwks_hosts }
}

async fn keys_of(issuer: &str, within: Duration) -> Result<JwkSet, FetchError> {
    fetch::keys_of(&source(issuer, &[]), within).await
}

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
    assert_eq!(keys_of(&issuer, WITHIN).await.unwrap(), JwkSet::default());
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
        let problem = keys_of(&server(answers), WITHIN).await.unwrap_err();
        assert!(expected(&problem), "{index}: {problem}");
    }
    for url in ["http://issuer.example", "ftp://127.0.0.1", "https://user@127.0.0.1", "nonsense"] {
        let problem = keys_of(url, WITHIN).await.unwrap_err();
        assert!(matches!(problem, FetchError::Url), "{url}: {problem}");
    }
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    assert!(matches!(keys_of(&issuer, Duration::ZERO).await, Err(FetchError::Late)));
}

#[test]
fn old_keys_do_not_verify_for_ever_nor_those_that_were_found_in_another_way() {
    let discovered = Discovered::default();
    let at = Timestamp::from_seconds;
    let keys = JwkSet::parse(br#"{"keys":[]}"#).unwrap();
    let (a, b) = (source("a", &[]), source("b", &["keys.example"]));
    assert!(discovered.keep(a.clone(), keys.clone(), at(10)));
    assert!(!discovered.keep(a.clone(), keys.clone(), at(20)), "the same keys as before");
    assert!(discovered.keep(b.clone(), keys, at(30)));
    let kept = |sources: &[Source], oldest| {
        discovered.drop_all_but(sources, at(oldest));
        discovered.found().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(kept(&[a.clone(), b.clone()], 20), [a.clone(), b.clone()]);
    assert_eq!(kept(&[a, b.clone()], 21), [b]);
    assert!(kept(&[source("b", &[])], 21).is_empty());
}

#[test]
fn this_machine_has_several_names() {
    let is_local = |host: &str| HostName::parse(host).is_ok_and(|host| is_local(&host));
    for host in ["127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"] {
        assert!(is_local(host), "{host}");
    }
    for host in ["localhost", "LocalHost", "keys.localhost"] {
        assert!(is_local(host), "{host}");
    }
    for host in ["issuer.example", "localhost.example", "128.0.0.1", "[2001:db8::1]", ""] {
        assert!(!is_local(host), "{host}");
    }
}

/// Not even where the owner names such a host, for a name may be meant for another machine.
#[tokio::test]
async fn i5_an_issuer_elsewhere_leads_to_nothing_that_listens_here() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let hosts = ["localhost", "keys.localhost", "127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0"];
    let reach = Reach::of(&source("https://issuer.example", &hosts)).unwrap();
    let tls = client(None).unwrap();
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0", "keys.localhost"] {
        let url = format!("https://{host}:{port}/keys");
        let problem = tokio::time::timeout(WITHIN, get(&url, &reach, &tls))
            .await
            .expect("no one is waited for")
            .unwrap_err();
        assert!(matches!(problem, FetchError::Url), "{host}: {problem}");
        assert!(listener.accept().is_err(), "{host} was connected to");
    }
}

#[tokio::test]
async fn i5_keys_are_at_the_issuer_s_own_host_or_one_that_is_named() {
    let keys = || document(r#"{"keys":[]}"#);
    let elsewhere = server(vec![keys()]).replace("127.0.0.1", "LocalHost");
    let leads = |to: &str| metadata().replace("ISSUER/keys", &format!("{to}/keys"));
    let problem = keys_of(&server(vec![leads(&elsewhere)]), WITHIN).await.unwrap_err();
    let FetchError::Host(host) = &problem else { panic!("{problem}") };
    assert_eq!(host.as_str(), "localhost");
    let issuer = source(&server(vec![leads(&elsewhere)]), &["LOCALHOST"]);
    assert_eq!(fetch::keys_of(&issuer, WITHIN).await.unwrap(), JwkSet::default());
    // Its own host's other ports are its own, and nothing is like a host's name but that name.
    let other_port = server(vec![keys()]);
    assert!(keys_of(&server(vec![leads(&other_port)]), WITHIN).await.is_ok());
    let tls = client(None).unwrap();
    let reach = Reach::of(&source("https://issuer.example", &["keys.example"])).unwrap();
    for host in ["www.issuer.example", "example", "keys.example.com", "xkeys.example", "192.0.2.1"] {
        let problem = get(&format!("https://{host}/keys"), &reach, &tls).await.unwrap_err();
        assert!(matches!(problem, FetchError::Host(_)), "{host}: {problem}");
    }
}
