//! Discovery: the keys of issuers that publish them (OpenID Connect Discovery §4).
//!
//! They are fetched outside of every request, now and then. What cannot be had now is used as it was for a while, and
//! then no token of that issuer is taken any more. A set that is refused changes nothing.

mod fetch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use brevet_core::time::Timestamp;
use brevet_identity::jwk_set::JwkSet;
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::fetch::FetchError;
use crate::config::{BearerConfig, Config};

/// What was found, by issuer.
#[derive(Debug, Default)]
pub struct Discovered(Mutex<BTreeMap<String, Found>>);

#[derive(Debug)]
struct Found {
    keys: JwkSet,
    at: Timestamp,
}

impl Discovered {
    /// The keys of an issuer: none as long as none were found.
    #[must_use]
    pub fn keys(&self, issuer: &str) -> JwkSet {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(issuer).map(|found| found.keys.clone()).unwrap_or_default()
    }

    /// Keeps what was found now. Answers whether it is something else than before.
    fn keep(&self, issuer: &str, keys: JwkSet, at: Timestamp) -> bool {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = found.insert(issuer.to_owned(), Found { keys: keys.clone(), at });
        before.is_none_or(|before| before.keys != keys)
    }

    /// Drops what is too old. Answers whether anything was.
    fn drop_before(&self, oldest: Timestamp) -> bool {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = found.len();
        found.retain(|_, found| found.at >= oldest);
        found.len() < count
    }
}

/// An issuer whose keys are found by discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    issuer: String,
    ca: Option<PathBuf>,
}

/// Looks for keys in the background.
#[derive(Debug)]
pub struct Discovery {
    sources: Vec<Source>,
    refresh: Duration,
    age_max: Duration,
    fetch_max: Duration,
    due: Timestamp,
    looking: JoinSet<(String, Result<JwkSet, FetchError>)>,
}

impl Discovery {
    /// Looks for the keys that a configuration leaves to be found.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let BearerConfig { keys_refresh_seconds, keys_age_seconds_max, keys_fetch_seconds_max, .. } =
            config.bearers;
        let seconds = |count: std::num::NonZeroU32| Duration::from_secs(count.get().into());
        Self {
            sources: sources(config),
            refresh: seconds(keys_refresh_seconds),
            age_max: seconds(keys_age_seconds_max),
            fetch_max: seconds(keys_fetch_seconds_max),
            due: Timestamp::EPOCH,
            looking: JoinSet::new(),
        }
    }

    /// Goes on with what a changed configuration leaves to be found.
    pub fn follow(&mut self, config: &Config) {
        let sources = sources(config);
        if sources != self.sources {
            self.sources = sources;
            self.due = Timestamp::EPOCH;
        }
    }

    /// Begins a look if it is time, and takes what an earlier one found. Answers whether other keys are to be used than
    /// before. Waits for nothing.
    pub fn look(&mut self, discovered: &Discovered, now: Timestamp) -> bool {
        let mut changed = false;
        while let Some(Ok((issuer, outcome))) = self.looking.try_join_next() {
            match outcome {
                Ok(keys) => {
                    if discovered.keep(&issuer, keys, now) {
                        info!(issuer, "the issuer has other keys than before");
                        changed = true;
                    }
                }
                Err(problem) => {
                    warn!(issuer, %problem, "the issuer's keys could not be had; those from before are used for now");
                }
            }
        }
        if self.due <= now && self.looking.is_empty() {
            self.due = now.after(self.refresh);
            for Source { issuer, ca } in self.sources.clone() {
                let within = self.fetch_max;
                self.looking.spawn(async move {
                    let keys = fetch::keys_of(&issuer, ca.as_deref(), within).await;
                    (issuer, keys)
                });
            }
        }
        // INVARIANT: old keys do not verify for ever, whatever keeps newer ones away.
        let oldest = Timestamp::from_millis(
            now.millis().saturating_sub(u64::try_from(self.age_max.as_millis()).unwrap_or(u64::MAX)),
        );
        discovered.drop_before(oldest) || changed
    }
}

fn sources(config: &Config) -> Vec<Source> {
    let found = config.oidc.iter().filter(|oidc| oidc.jwks.is_none());
    found.map(|oidc| Source { issuer: oidc.issuer.clone(), ca: oidc.ca.clone() }).collect()
}

#[cfg(test)]
mod tests;
