//! Discovery: the keys of issuers that publish them (OpenID Connect Discovery §4).
//!
//! They are fetched outside of every request, now and then. What cannot be had now is used as it was for a while, and
//! then no token of that issuer is taken any more. A set that is refused changes nothing. Keys count only as long as the
//! configuration looks for them in the way in which they were found.

mod fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brevet_core::time::Timestamp;
use brevet_identity::jwk_set::JwkSet;
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::fetch::FetchError;
use crate::config::{BearerConfig, Config, HostName, OidcConfig};

/// What was found, and in which way.
#[derive(Debug, Default)]
pub struct Discovered(Mutex<BTreeMap<Source, Found>>);

#[derive(Debug)]
struct Found {
    keys: JwkSet,
    at: Timestamp,
}

impl Discovered {
    /// The keys of an issuer: none as long as none were found.
    #[must_use]
    pub fn keys(&self, issuer: &OidcConfig) -> JwkSet {
        self.of(&Source::of(issuer))
    }

    fn of(&self, source: &Source) -> JwkSet {
        self.found().get(source).map(|found| found.keys.clone()).unwrap_or_default()
    }

    /// Keeps what was found now. Answers whether it is something else than before.
    fn keep(&self, source: Source, keys: JwkSet, at: Timestamp) -> bool {
        let before = self.found().insert(source, Found { keys: keys.clone(), at });
        before.is_none_or(|before| before.keys != keys)
    }

    /// Drops what is too old, and what is looked for no more.
    fn drop_all_but(&self, sources: &[Source], oldest: Timestamp) {
        self.found().retain(|source, found| found.at >= oldest && sources.contains(source));
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<Source, Found>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An issuer whose keys are found by discovery, and the way in which they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    issuer: String,
    ca: Option<PathBuf>,
    jwks_hosts: BTreeSet<HostName>,
}

impl Source {
    fn of(issuer: &OidcConfig) -> Self {
        Self {
            issuer: issuer.issuer.clone(),
            ca: issuer.ca.clone(),
            jwks_hosts: issuer.jwks_hosts.iter().cloned().collect(),
        }
    }
}

/// Looks for keys in the background.
#[derive(Debug)]
pub struct Discovery {
    sources: Vec<Source>,
    refresh: Duration,
    age_max: Duration,
    fetch_max: Duration,
    due: Timestamp,
    looking: JoinSet<(Source, Result<JwkSet, FetchError>)>,
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

    /// Begins a look if it is time, and takes what an earlier one found. Waits for nothing. Answers why keys that were found
    /// are refused.
    pub fn look(&mut self, discovered: &Discovered, now: Timestamp) -> Vec<&'static str> {
        let mut refused = Vec::new();
        while let Some(Ok((source, outcome))) = self.looking.try_join_next() {
            let issuer = source.issuer.clone();
            match outcome {
                Ok(keys) => {
                    if discovered.keep(source, keys, now) {
                        info!(issuer, "the issuer has other keys than before");
                    }
                }
                Err(problem) => {
                    refused.extend(problem.refusal());
                    warn!(issuer, %problem, "the issuer's keys could not be had; those from before stay in use");
                }
            }
        }
        if self.due <= now && self.looking.is_empty() {
            self.due = now.after(self.refresh);
            for source in self.sources.clone() {
                let within = self.fetch_max;
                self.looking.spawn(async move {
                    let keys = fetch::keys_of(&source, within).await;
                    (source, keys)
                });
            }
        }
        // INVARIANT: old keys do not verify for ever, whatever keeps newer ones away.
        let oldest = Timestamp::from_millis(
            now.millis().saturating_sub(u64::try_from(self.age_max.as_millis()).unwrap_or(u64::MAX)),
        );
        discovered.drop_all_but(&self.sources, oldest);
        refused
    }

    /// The keys that are to be used now, by issuer: of each whose keys are looked for, and possibly none.
    pub fn keys(&self, discovered: &Discovered) -> impl Iterator<Item = (String, JwkSet)> {
        self.sources.iter().map(|source| (source.issuer.clone(), discovered.of(source)))
    }
}

fn sources(config: &Config) -> Vec<Source> {
    config.oidc.iter().filter(|oidc| oidc.jwks.is_none()).map(Source::of).collect()
}

#[cfg(test)]
pub(crate) mod tests;
