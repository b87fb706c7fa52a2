//! What the daemon's owner writes: the configuration file and the policies.

use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

use brevet::config::Config;
use brevet_policy::{LoadError, Policies, Problem};
use tempfile::TempDir;

/// Where the file is written that is read.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

fn load(text: &str) -> Option<Config> {
    // Each thread has a file of its own: tests run beside each other.
    let path = FOLDER.path().join(format!("{:?}.toml", std::thread::current().id()));
    fs::write(&path, text).unwrap();
    Config::load(&path).ok()
}

/// A configuration file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Some(config) = load(text) else { return };
    config.registry().expect("it was checked");
    let table: toml::Table = text.parse().expect("what was accepted is TOML");
    let again = load(&table.to_string()).expect("the same keys in other words");
    assert_eq!(format!("{config:?}"), format!("{again:?}"));
    // Nobody outside of this machine reads what is said without TLS, and no lease outlives an hour.
    assert!(config.http.listen.ip().is_loopback());
    assert!(config.limits.lease_lifetime_max().as_secs() <= 3_600);
}

/// A file of policies.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let file = |name: &str| (name.to_owned(), text.to_owned());
    let Ok(policies) = Policies::from_sources(&BTreeMap::from([file("a.cedar")])) else { return };
    let again = Policies::from_sources(&BTreeMap::from([file("a.cedar")])).expect("it was loaded once");
    assert_eq!(policies.digest(), again.digest());
    let elsewhere = Policies::from_sources(&BTreeMap::from([file("b.cedar")])).expect("it was loaded once");
    assert_ne!(policies.digest(), elsewhere.digest(), "a file's name is part of what is in force");
    // Every policy has an id of its own, so it can't stand in two files.
    match Policies::from_sources(&BTreeMap::from([file("a.cedar"), file("b.cedar")])) {
        Ok(_) => assert!(!text.contains("@id"), "two policies of one name"),
        Err(LoadError::Policy { problem: Problem::DuplicateId { .. }, file, .. }) => {
            assert_eq!(file, "b.cedar")
        }
        Err(other) => panic!("refused for another reason: {other}"),
    }
}
