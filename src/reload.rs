//! Live reload: what people write in files takes effect without a restart, as a whole or not at all.
//!
//! The bytes of the configuration, of every policy and of every bundle are hashed every few seconds, and at SIGHUP.
//! When they have changed they are read anew; what is refused is logged, and what was in force stays in force.
//! Keys of issuers that are found by discovery are no file's to hold up: whatever the files say, what is in force has those
//! that are to be used now, and no others.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use brevet_core::fact::{ConfigurationPart, Fact, ReasonCode};
use brevet_core::sabotage;
use ring::digest::{Context, SHA256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::broker::{Broker, TENANT_CHANGED};
use crate::config::Config;
use crate::configuration::Configuration;
use crate::discovery::{Discovered, Discovery};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Notices that files have changed.
#[derive(Debug)]
pub struct Reloader {
    files: Files,
    seen: Option<Digest>,
    discovery: Discovery,
    discovered: Arc<Discovered>,
}

/// The files that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    configuration: PathBuf,
    policy_directory: PathBuf,
    trust: Vec<PathBuf>,
}

type Digest = Vec<u8>;

/// Why a reload came to nothing.
enum ReloadError {
    /// What the files say is refused; they have to change before it is tried again.
    Refused(Refused),
    /// It could not be put in force now, and is tried again.
    Later(String),
}

/// What is refused, why, and the same for people.
struct Refused {
    part: ConfigurationPart,
    reason: &'static str,
    problem: String,
}

impl Reloader {
    /// Begins with the files as they are now. To be called before they are read, or a change in between is missed.
    #[must_use]
    pub fn new(path: &Path, config: &Config) -> Self {
        let files = Files::of(path, config);
        let discovery = Discovery::new(config);
        Self { seen: Some(files.digest()), files, discovery, discovered: Arc::default() }
    }

    /// The keys that were discovered.
    #[must_use]
    pub fn discovered(&self) -> &Discovered {
        &self.discovered
    }

    /// Puts in force what was discovered, and the files, read again, if they have changed or somebody asks for it.
    async fn look(&mut self, asked: bool, broker: &Broker) {
        let reasons = self.discovery.look(&self.discovered, broker.clock.now().judge);
        reasons.into_iter().for_each(|reason| refused(broker, ConfigurationPart::Trust, reason));
        match self.renew_keys(broker).await {
            Ok(true) => info!("other keys of issuers are in force than before"),
            Ok(false) => {}
            Err(problem) => warn!(problem, "other keys of issuers are not in force yet"),
        }
        let digest = self.files.digest();
        if self.seen.as_ref() == Some(&digest) && !asked {
            return;
        }
        self.seen = Some(digest);
        match self.reload(broker).await {
            Ok(true) => info!("the changed configuration is in force"),
            Ok(false) => {
                info!("nothing that is in force changed; listeners and limits are read at the start")
            }
            Err(ReloadError::Refused(Refused { part, reason, problem })) => {
                warn!(problem, "the changed configuration is refused; the old one stays in force");
                refused(broker, part, reason);
            }
            Err(ReloadError::Later(problem)) => {
                warn!(problem, "the changed configuration is not in force yet");
                self.seen = None;
            }
        }
    }

    /// Puts the keys that are to be used now in force with what is in force already. Answers whether any of them is new, or
    /// gone. What could not be done is done by the next look, for it compares anew.
    async fn renew_keys(&self, broker: &Broker) -> Result<bool, String> {
        // INVARIANT: no file is read here, for one that is refused would keep a key in force that its issuer withdrew.
        let held_up =
            sabotage::on("files_hold_up_keys") && read(&self.files.configuration, &self.discovered).is_err();
        let in_force = broker.table.in_force().configuration.clone();
        match in_force.with_keys(self.discovery.keys(&self.discovered)).filter(|_| !held_up) {
            Some(renewed) => broker.configure(renewed).await.map_err(|refusal| refusal.text),
            None => Ok(false),
        }
    }

    /// Puts registry, policies and trust in force. Answers whether any of them is new.
    async fn reload(&mut self, broker: &Broker) -> Result<bool, ReloadError> {
        let path = self.files.configuration.clone();
        let discovered = Arc::clone(&self.discovered);
        let read = tokio::task::spawn_blocking(move || read(&path, &discovered)).await;
        let (config, configuration) =
            read.map_err(|problem| ReloadError::Later(problem.to_string()))?.map_err(ReloadError::Refused)?;
        // What was minted under the old names must not become a stranger's under the new ones.
        if config.trust_domain != *broker.table.in_force().configuration.trust.own()
            || config.issuer != broker.issuer
        {
            let problem = "trust_domain and issuer are read at the start".to_owned();
            let (part, reason) = (ConfigurationPart::File, "identity_changed");
            return Err(ReloadError::Refused(Refused { part, reason, problem }));
        }
        if !broker.keeps_tenants(&configuration.registry) {
            let problem = TENANT_CHANGED.to_owned();
            let (part, reason) = (ConfigurationPart::Registry, "tenant_changed");
            return Err(ReloadError::Refused(Refused { part, reason, problem }));
        }
        let changed = broker.configure(configuration).await;
        let changed = changed.map_err(|refusal| ReloadError::Later(refusal.text))?;
        self.discovery.follow(&config);
        let files = Files::of(&self.files.configuration, &config);
        if files != self.files {
            self.seen = Some(files.digest());
            self.files = files;
        }
        Ok(changed)
    }
}

fn read(path: &Path, discovered: &Discovered) -> Result<(Config, Configuration), Refused> {
    let config = Config::load(path).map_err(|problem| Refused {
        part: ConfigurationPart::File,
        reason: "configuration_invalid",
        problem: problem.to_string(),
    })?;
    let configuration = Configuration::load(&config, discovered).map_err(|problem| {
        let (part, reason) = problem.reason();
        Refused { part, reason, problem: problem.to_string() }
    })?;
    Ok((config, configuration))
}

/// Puts on record what was refused. A journal that is too busy for it leaves it to the log.
fn refused(broker: &Broker, part: ConfigurationPart, reason: &'static str) {
    let fact = Fact::ConfigurationRefused { part, reason: ReasonCode::of(reason) };
    if let Err(problem) = broker.note(&fact) {
        warn!(%problem, reason, "the refusal could not be recorded");
    }
}

impl Files {
    fn of(path: &Path, config: &Config) -> Self {
        Self {
            configuration: path.to_owned(),
            policy_directory: config.policy_directory.clone(),
            trust: config.trust_files().cloned().collect(),
        }
    }

    fn digest(&self) -> Digest {
        let mut policies: Vec<PathBuf> = fs::read_dir(&self.policy_directory)
            .map(|entries| {
                entries.flatten().map(|entry| entry.path()).filter(|path| is_policy(path)).collect()
            })
            .unwrap_or_default();
        policies.sort();
        let mut context = Context::new(&SHA256);
        for path in [&self.configuration].into_iter().chain(&policies).chain(&self.trust) {
            // To open a FIFO would wait for ever. What is no file is refused by whoever reads it.
            let content = if path.is_file() { fs::read(path).unwrap_or_default() } else { Vec::new() };
            context.update(path.as_os_str().as_encoded_bytes());
            context.update(&[0]);
            context.update(&content.len().to_be_bytes());
            context.update(&content);
        }
        context.finish().as_ref().to_vec()
    }
}

/// What the policy loader reads. Anything else in the directory is none of ours: to open a FIFO would wait for ever.
fn is_policy(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "cedar") && path.is_file()
}

/// The hangups that ask for a reload. Once this was called, a SIGHUP no longer ends the process.
#[must_use]
pub fn hangups() -> Option<Signal> {
    signal(SignalKind::hangup()).ok()
}

/// Looks at the files for as long as the daemon lives.
pub async fn run(mut reloader: Reloader, mut hangups: Option<Signal>, broker: Arc<Broker>) -> Infallible {
    loop {
        let asked = match &mut hangups {
            Some(hangups) => tokio::select! {
                () = broker.clock.sleep(INTERVAL) => false,
                _ = hangups.recv() => true,
            },
            None => {
                broker.clock.sleep(INTERVAL).await;
                false
            }
        };
        reloader.look(asked, &broker).await;
    }
}

#[cfg(test)]
mod tests;
