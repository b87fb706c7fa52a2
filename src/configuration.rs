//! What people configure and the journal names by digest, read as a whole or not at all.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use brevet_core::control::Control;
use brevet_core::fact::ConfigurationPart;
use brevet_core::registry::{InvalidRegistry, Registry};
use brevet_identity::jwk_set::JwkSet;
use brevet_identity::trust::CallerTrust;
use brevet_policy::{LoadError, Policies};
use thiserror::Error;

use crate::config::{Config, is_exposed};
use crate::discovery::Discovered;
use crate::trust::{self, TrustError};

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigurationError {
    /// The registry tables do not fit each other.
    #[error("the registry is not consistent: {0}")]
    Registry(#[from] InvalidRegistry),
    /// The policies are refused.
    #[error("the policies are refused: {0}")]
    Policies(#[from] LoadError),
    /// A bundle is refused.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Anybody on this machine could say what is permitted, or whose word is taken.
    #[error("{0} may be written by everybody")]
    Exposed(PathBuf),
    /// Whoever reads it might wait for ever.
    #[error("{0} is no regular file")]
    Irregular(PathBuf),
}

impl ConfigurationError {
    /// Which part is refused, and a stable name of why, for the audit.
    #[must_use]
    pub const fn reason(&self) -> (ConfigurationPart, &'static str) {
        match self {
            Self::Registry(_) => (ConfigurationPart::Registry, "registry_inconsistent"),
            Self::Policies(_) => (ConfigurationPart::Policies, "policies_refused"),
            Self::Trust(problem) => (ConfigurationPart::Trust, problem.reason()),
            Self::Exposed(_) => (ConfigurationPart::File, "file_exposed"),
            Self::Irregular(_) => (ConfigurationPart::File, "file_irregular"),
        }
    }
}

/// Who exists, what is permitted, and whose word is taken.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Who exists, and what each may be.
    pub registry: Arc<Registry>,
    /// What is permitted.
    pub policies: Arc<Policies>,
    /// What callers are verified by.
    pub trust: Arc<CallerTrust>,
}

impl Configuration {
    /// Reads everything that a configuration file names, with the keys that were discovered.
    ///
    /// # Errors
    /// [`ConfigurationError`] for the first thing that is refused.
    pub fn load(config: &Config, discovered: &Discovered) -> Result<Self, ConfigurationError> {
        let policies = fs::read_dir(&config.policy_directory).into_iter().flatten().flatten();
        let mut files = policies
            .map(|entry| entry.path())
            .chain([config.policy_directory.clone()])
            .chain(config.trust_files().cloned());
        if let Some(exposed) = files.find(|file| is_exposed(file)) {
            return Err(ConfigurationError::Exposed(exposed));
        }
        if let Some(irregular) = config.trust_files().find(|file| file.exists() && !file.is_file()) {
            return Err(ConfigurationError::Irregular(irregular.clone()));
        }
        Ok(Self {
            registry: Arc::new(config.registry()?),
            policies: Arc::new(Policies::load(&config.policy_directory)?),
            trust: Arc::new(trust::load(config, discovered)?),
        })
    }

    /// The same with these keys of issuers, by URL, and no others of those; no file is read. `None` if nothing differs.
    #[must_use]
    pub fn with_keys(&self, keys: impl IntoIterator<Item = (String, JwkSet)>) -> Option<Self> {
        let trust = self.trust.with_keys(keys)?;
        Some(Self { trust: Arc::new(trust), ..self.clone() })
    }

    /// Whether the journal names just this.
    #[must_use]
    pub fn is_named_by(&self, control: &Control) -> bool {
        control.registry() == Some(self.registry.digest())
            && control.policy() == Some(self.policies.digest())
            && control.trust() == Some(self.trust.digest())
    }
}
