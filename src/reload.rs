//! Live reload: what people write in files takes effect without a restart, as a whole or not at all.
//!
//! The bytes of the configuration, of every policy and of every bundle are hashed every few seconds, and at SIGHUP.
//! When they have changed they are read anew; what is refused is logged, and what was in force stays in force.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::broker::Broker;
use crate::config::Config;
use crate::configuration::Configuration;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Notices that files have changed.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    policy_directory: PathBuf,
    bundles: Vec<PathBuf>,
    seen: Option<Vec<u8>>,
}

impl Reloader {
    /// Begins with the files as they are now.
    #[must_use]
    pub fn new(path: &Path, config: &Config) -> Self {
        let mut reloader = Self {
            path: path.to_owned(),
            policy_directory: config.policy_directory.clone(),
            bundles: config.trust.iter().map(|trust| trust.bundle.clone()).collect(),
            seen: None,
        };
        reloader.seen = Some(reloader.digest());
        reloader
    }

    /// Whether the files have changed since the last time this was asked.
    fn has_changed(&mut self) -> bool {
        let now = Some(self.digest());
        let changed = now != self.seen;
        self.seen = now;
        changed
    }

    fn digest(&self) -> Vec<u8> {
        let mut policies: Vec<PathBuf> = fs::read_dir(&self.policy_directory)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        policies.sort();
        let mut context = Context::new(&SHA256);
        for path in [&self.path].into_iter().chain(&policies).chain(&self.bundles) {
            let content = fs::read(path).unwrap_or_default();
            context.update(path.as_os_str().as_encoded_bytes());
            context.update(&[0]);
            context.update(&content.len().to_be_bytes());
            context.update(&content);
        }
        context.finish().as_ref().to_vec()
    }
}

/// The hangups that ask for a look at the files. Once this was called, a SIGHUP no longer ends the process.
#[must_use]
pub fn hangups() -> Option<Signal> {
    signal(SignalKind::hangup()).ok()
}

/// Looks at the files for as long as the daemon lives.
pub async fn run(mut reloader: Reloader, mut hangups: Option<Signal>, broker: Arc<Broker>) -> Infallible {
    loop {
        match &mut hangups {
            Some(hangups) => {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    _ = hangups.recv() => {}
                }
            }
            None => tokio::time::sleep(INTERVAL).await,
        }
        if reloader.has_changed() {
            match reload(&mut reloader, &broker).await {
                Ok(()) => info!("configuration reloaded"),
                Err(problem) => {
                    warn!(problem, "the changed configuration is refused; the old one stays in force")
                }
            }
        }
    }
}

/// Puts registry, policies and trust in force. Listeners and limits keep what they were started with.
async fn reload(reloader: &mut Reloader, broker: &Broker) -> Result<(), String> {
    let config = Config::load(&reloader.path).map_err(|problem| problem.to_string())?;
    let configuration = Configuration::load(&config).map_err(|problem| problem.to_string())?;
    broker.configure(configuration).await.map_err(|refusal| refusal.text)?;
    let seen = reloader.seen.take();
    *reloader = Reloader::new(&reloader.path.clone(), &config);
    // What changed while this was reading is seen the next time.
    reloader.seen = seen.or(reloader.seen.take());
    Ok(())
}
