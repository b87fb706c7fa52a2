//! Trust: reads the bundles and keys that the configuration names into one immutable snapshot.

use std::io;
use std::path::{Path, PathBuf};

use brevet_core::spiffe_id::TrustDomain;
use brevet_identity::jwk_set::{Ignored, InvalidJwkSet, JwkSet};
use brevet_identity::oidc::{InvalidIssuer, Issuer};
use brevet_identity::trust::{Bundle, CallerTrust, InvalidBundle, InvalidTrust};
use thiserror::Error;
use tracing::warn;

use crate::config::{Config, OidcConfig};
use crate::discovery::Discovered;

/// Why a snapshot was not taken; the one before stays in force.
#[derive(Debug, Error)]
pub enum TrustError {
    /// A bundle could not be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A bundle is refused.
    #[error("the bundle {path} of {trust_domain} is refused: {problem}")]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Its trust domain.
        trust_domain: TrustDomain,
        /// Why.
        problem: InvalidBundle,
    },
    /// The keys of an issuer are refused.
    #[error("the keys {path} are refused: {problem}")]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: InvalidJwkSet,
    },
    /// What an issuer's subjects are is refused.
    #[error("the subjects of {issuer} are refused: {problem}")]
    Issuer {
        /// The issuer.
        issuer: String,
        /// Why.
        problem: InvalidIssuer,
    },
    /// The bundles do not fit together.
    #[error(transparent)]
    Trust(#[from] InvalidTrust),
}

impl TrustError {
    /// A stable name for the audit.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Io { .. } => "file_unreadable",
            Self::Bundle { problem, .. } => problem.reason(),
            Self::Keys { problem, .. } => problem.reason(),
            Self::Issuer { .. } => "subjects_refused",
            Self::Trust(_) => "trust_inconsistent",
        }
    }
}

/// Reads every bundle and every set of keys that the configuration names; what it leaves to be found is `discovered`.
///
/// # Errors
/// [`TrustError`] for the first that is refused.
pub fn load(config: &Config, discovered: &Discovered) -> Result<CallerTrust, TrustError> {
    let bundles = config
        .trust
        .iter()
        .map(|trust| Ok((trust.trust_domain.clone(), read(&trust.trust_domain, &trust.bundle)?)))
        .collect::<Result<Vec<_>, TrustError>>()?;
    let issuers =
        config.oidc.iter().map(|oidc| issuer(oidc, discovered)).collect::<Result<Vec<_>, TrustError>>()?;
    Ok(CallerTrust::new(config.trust_domain.clone(), bundles)?.with_issuers(issuers)?)
}

fn issuer(oidc: &OidcConfig, discovered: &Discovered) -> Result<Issuer, TrustError> {
    let keys = match &oidc.jwks {
        Some(path) => {
            let text = std::fs::read(path).map_err(|source| TrustError::Io { path: path.clone(), source })?;
            let keys =
                JwkSet::parse(&text).map_err(|problem| TrustError::Keys { path: path.clone(), problem })?;
            tell(path, keys.ignored());
            keys
        }
        None => discovered.keys(oidc),
    };
    let issuer = Issuer::new(oidc.issuer.clone(), oidc.trust_domain.clone(), keys, &oidc.subjects);
    issuer.map_err(|problem| TrustError::Issuer { issuer: oidc.issuer.clone(), problem })
}

/// A bundle is a JSON document if it begins as one, and PEM otherwise.
fn read(trust_domain: &TrustDomain, path: &Path) -> Result<Bundle, TrustError> {
    let text = std::fs::read(path).map_err(|source| TrustError::Io { path: path.to_owned(), source })?;
    let json = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let bundle = if json { Bundle::from_spiffe_json(&text) } else { Bundle::from_pem(&text) };
    let bundle = bundle.map_err(|problem| TrustError::Bundle {
        path: path.to_owned(),
        trust_domain: trust_domain.clone(),
        problem,
    })?;
    tell(path, bundle.ignored());
    Ok(bundle)
}

/// Says what of a file is left out: whoever wrote it may think that it verifies.
fn tell(path: &Path, ignored: &[(usize, Ignored)]) {
    for (element, why) in ignored {
        warn!(path = %path.display(), element, reason = why.reason(), "a key is left out");
    }
}
