use brevet_core::time::Timestamp;
use brevet_identity::jwk_set::JwkSet;
use brevet_identity::oidc::Issuer;
use brevet_testkit::x509::Key;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use super::*;
use crate::broker::sample::Sample;
use crate::config::OidcConfig;
use crate::dev;
use crate::discovery::tests::{document, metadata, server};

/// The keys of an issuer that are in force.
fn keys(broker: &Broker, issuer: &str) -> JwkSet {
    broker.table.in_force().configuration.trust.issuer(issuer).unwrap().keys().clone()
}

/// Has the issuer trusted, of which no key is known yet.
async fn trust_issuer(broker: &Broker, issuer: &OidcConfig) {
    let OidcConfig { issuer, trust_domain, subjects, .. } = issuer.clone();
    let issuer = Issuer::new(issuer, trust_domain, JwkSet::default(), &subjects).unwrap();
    let before = broker.table.in_force().configuration.clone();
    let trust = before.trust.as_ref().clone().with_issuers([issuer]).unwrap();
    broker.configure(Configuration { trust: Arc::new(trust), ..before }).await.unwrap();
}

/// Nothing but time takes them away: the issuer is gone, and the files are refused all along.
#[tokio::test]
async fn i4_discovered_keys_that_are_too_old_verify_nothing_whatever_files_are_refused() {
    let mut jwk = Value::Object(Key::p256().jwk());
    jwk["kid"] = json!("k");
    let published = json!({"keys": [jwk]}).to_string();
    let url = server(vec![metadata(), document(&published)]);

    let folder = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let made =
        dev::make(folder.path(), any, any, Timestamp::from_seconds(1_800_000_000), &SystemRandom::new());
    let path = made.unwrap().config;
    let mut text: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    text["grpc"].as_table_mut().unwrap().insert("client_certificate".to_owned(), "optional".into());
    text.extend(toml::toml! {
        bearers = { keys_refresh_seconds = 10, keys_age_seconds_max = 60 }
        oidc = [{ issuer = "", trust_domain = "people.example", subjects = { robot = "/robot" } }]
    });
    text["oidc"][0]["issuer"] = url.clone().into();
    fs::write(&path, toml::to_string(&text).unwrap()).unwrap();
    let config = Config::load(&path).unwrap();

    let Sample { broker, time, .. } = Sample::with(1, 8).await;
    let busy = Sample::with(1, 8).await;
    let before = broker.table.in_force().configuration.clone();
    for broker in [&broker, &busy.broker] {
        trust_issuer(broker, &config.oidc[0]).await;
    }
    busy.journal.seal();

    let mut reloader = Reloader::new(&path, &config);
    fs::write(folder.path().join("policies/broken.cedar"), "permit (").unwrap();
    let found = JwkSet::parse(published.as_bytes()).unwrap();
    for _ in 0..500 {
        reloader.look(true, &busy.broker).await;
        if reloader.discovered().keys(&config.oidc[0]) == found {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(keys(&busy.broker, &url) == JwkSet::default(), "they are in force without a record");
    reloader.look(true, &broker).await;
    assert!(
        keys(&broker, &url) == found,
        "what could not be put in force is tried again, whatever the files say"
    );

    time.elapse(Duration::from_secs(60));
    reloader.look(true, &broker).await;
    assert!(keys(&broker, &url) == found, "they are as old as they may be");
    time.elapse(Duration::from_millis(1));
    reloader.look(true, &broker).await;
    assert!(keys(&broker, &url) == JwkSet::default(), "they are too old");
    let after = &broker.table.in_force().configuration;
    assert_eq!(after.policies.digest(), before.policies.digest(), "a refused policy is in force");
    assert_eq!(after.registry.digest(), before.registry.digest());
}
