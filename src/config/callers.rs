//! Who may call, and by what that is proven.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use brevet_core::spiffe_id::TrustDomain;
use brevet_identity::bearer;
use serde::Deserialize;

use super::{Config, ConfigError, HostName, count, defaults, is_issuer, seconds};
use crate::remembered::RememberedLimits;

/// Whether the gRPC listener asks every client for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// Yes: every caller has an X.509-SVID.
    #[default]
    Required,
    /// No: callers may show a token instead.
    Optional,
}

/// A trust domain whose workloads may call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustConfig {
    /// Its name.
    pub trust_domain: TrustDomain,
    /// The file with its bundle: a SPIFFE bundle document, or certificates in PEM.
    pub bundle: PathBuf,
}

/// An issuer of tokens that are no SVIDs: an OpenID provider, or a cluster of Kubernetes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The trust domain that its workloads have here, which is no one else's.
    pub trust_domain: TrustDomain,
    /// The file with its JWK Set. Without one the set is found by discovery (OpenID Connect Discovery §4).
    #[serde(default)]
    pub jwks: Option<PathBuf>,
    /// The file with the certificates, in PEM, by which discovery trusts the issuer's server; without one those of the
    /// system.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The hosts besides the issuer's own at which discovery may find its keys.
    #[serde(default)]
    pub jwks_hosts: Vec<HostName>,
    /// Which of its subjects are workloads: the `sub`, and the path of the SPIFFE ID.
    pub subjects: BTreeMap<String, String>,
}

/// What is asked of tokens that callers show.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BearerConfig {
    /// Seconds since a token was issued, at most 300.
    pub age_seconds_max: NonZeroU32,
    /// Seconds that an issuer's clock may be from this one, at most 5.
    pub leeway_seconds: u32,
    /// Seconds from a token's issue to its end.
    pub lifetime_seconds_max: NonZeroU32,
    /// Tokens of one tenant that are remembered with the key they are bound to, as long as they could be shown.
    pub bound_per_tenant_max: NonZeroU32,
    /// As many of one workload.
    pub bound_per_caller_max: NonZeroU32,
    /// Seconds between two looks at an issuer's keys that are found by discovery.
    pub keys_refresh_seconds: NonZeroU32,
    /// Seconds that discovered keys are used while no newer ones can be had.
    pub keys_age_seconds_max: NonZeroU32,
    /// Seconds that one look may take.
    pub keys_fetch_seconds_max: NonZeroU32,
}

impl Default for BearerConfig {
    fn default() -> Self {
        Self {
            age_seconds_max: defaults::small(60),
            leeway_seconds: 0,
            lifetime_seconds_max: defaults::small(3_600),
            bound_per_tenant_max: defaults::small(100_000),
            bound_per_caller_max: defaults::small(1_000),
            keys_refresh_seconds: defaults::small(300),
            keys_age_seconds_max: defaults::small(86_400),
            keys_fetch_seconds_max: defaults::small(10),
        }
    }
}

impl BearerConfig {
    /// How far a token's times may be from the broker's.
    #[must_use]
    pub fn limits(&self) -> bearer::Limits {
        bearer::Limits {
            leeway: Duration::from_secs(self.leeway_seconds.into()),
            age_max: seconds(self.age_seconds_max),
            lifetime_max: seconds(self.lifetime_seconds_max),
        }
    }

    /// How many bound tokens are remembered.
    #[must_use]
    pub fn bound(&self) -> RememberedLimits {
        RememberedLimits {
            per_tenant: count(self.bound_per_tenant_max),
            per_owner: count(self.bound_per_caller_max),
        }
    }
}

/// What of this does not fit together.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::from([&config.trust_domain]);
    let named = config.trust.iter().map(|trust| &trust.trust_domain);
    let mut named = named.chain(config.oidc.iter().map(|oidc| &oidc.trust_domain));
    if let Some(twice) = named.find(|name| !seen.insert(name)) {
        return Err(ConfigError::DuplicateTrustDomain(twice.clone()));
    }
    let mut issuers = BTreeSet::from([config.issuer.as_str()]);
    let rules = [
        (config.bearers.limits().leeway <= bearer::LEEWAY_MAX, "bearers.leeway_seconds is above 5"),
        (config.bearers.limits().age_max <= bearer::AGE_MAX, "bearers.age_seconds_max is above 300"),
        (
            config.oidc.iter().all(|oidc| is_issuer(&oidc.issuer)),
            "oidc.issuer is not an https URL without a slash at its end",
        ),
        (
            config.oidc.iter().all(|oidc| issuers.insert(&oidc.issuer)),
            "oidc.issuer is the broker's own or stands twice",
        ),
        (
            config.oidc.is_empty() || config.grpc.client_certificate == ClientCertificate::Optional,
            "oidc needs grpc.client_certificate = \"optional\": nobody could show a token",
        ),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, problem)) => Err(ConfigError::Inconsistent(problem)),
        None => Ok(()),
    }
}
