//! Configuration: one TOML file, in which an unknown key is an error and every limit says its unit in its name.
//!
//! Paths are relative to the file's directory. An environment variable `BREVET__SECTION__KEY` overrides the key
//! `section.key`; its value is read as TOML, or else taken as a string.

mod callers;
mod host_name;
mod limits;
mod listeners;

use std::num::{NonZeroU32, NonZeroU64};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brevet_core::registry::{
    Agent, Audience, InvalidRegistry, Operator, Orchestrator, Registry, RegistrySource, Tenant,
};
use brevet_core::sabotage;
use brevet_core::spiffe_id::TrustDomain;
use brevet_core::terms::LIFETIME_MAX;
use brevet_mint::ca::is_dns_name;
use serde::Deserialize;
use thiserror::Error;

pub use self::callers::{BearerConfig, ClientCertificate, OidcConfig, TrustConfig};
pub use self::host_name::{HostName, InvalidHostName};
pub use self::limits::{Limits, RateLimit, RetryDelays};
pub use self::listeners::{CallLimits, GrpcConfig, HttpConfig};
use crate::net::NetLimits;

/// The prefix of environment variables that override a key.
pub const ENVIRONMENT_PREFIX: &str = "BREVET__";

/// The name of the local root socket, in the state directory unless the configuration says otherwise.
const ROOT_SOCKET: &str = "root@brevet.sock";

/// A retry looks for its task on each day on which it may have been opened, so those are bounded.
const MONTH_SECONDS: u64 = 30 * 86_400;

/// Whoever is asked back later than that is kept out.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The largest window there is (RFC 9113 section 6.9.1).
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Anybody on this machine could change it.
    #[error("{0} may be written by everybody")]
    Exposed(PathBuf),
    /// The file is not TOML, or has a key that does not exist or a value of the wrong kind.
    #[error("{path} is not a configuration: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// An environment variable overrides a key that cannot be there.
    #[error("the environment variable {0} does not name a configuration key")]
    Override(String),
    /// A value does not fit another.
    #[error("{0}")]
    Inconsistent(&'static str),
    /// The same trust domain stands twice.
    #[error("the trust domain {0} stands twice")]
    DuplicateTrustDomain(TrustDomain),
    /// The registry tables do not fit each other.
    #[error("the registry is not consistent: {0}")]
    Registry(#[from] InvalidRegistry),
}

/// The configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The broker's own trust domain, which no caller may be of.
    pub trust_domain: TrustDomain,
    /// The issuer of task tokens: an https URL, or http on this machine.
    pub issuer: String,
    /// Where the journal and the keys are kept.
    pub state_directory: PathBuf,
    /// Where the policies are.
    pub policy_directory: PathBuf,
    /// The gRPC listener.
    pub grpc: GrpcConfig,
    /// The HTTP listener.
    pub http: HttpConfig,
    /// The local root socket.
    #[serde(default)]
    pub local: LocalConfig,
    /// Logging.
    #[serde(default)]
    pub log: LogConfig,
    /// Limits of tasks and leases.
    #[serde(default)]
    pub limits: Limits,
    /// The journal.
    #[serde(default)]
    pub journal: JournalConfig,
    /// The clock.
    #[serde(default)]
    pub clock: ClockConfig,
    /// Tokens that callers show.
    #[serde(default)]
    pub bearers: BearerConfig,
    /// The trust domains whose workloads may call.
    #[serde(default)]
    pub trust: Vec<TrustConfig>,
    /// The issuers of tokens that are no SVIDs.
    #[serde(default)]
    pub oidc: Vec<OidcConfig>,
    /// Registry: tenants.
    #[serde(default)]
    tenants: Vec<Tenant>,
    /// Registry: audiences.
    #[serde(default)]
    audiences: Vec<Audience>,
    /// Registry: agents.
    #[serde(default)]
    agents: Vec<Agent>,
    /// Registry: orchestrators.
    #[serde(default)]
    orchestrators: Vec<Orchestrator>,
    /// Registry: operators.
    #[serde(default)]
    operators: Vec<Operator>,
}

/// The local root socket.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalConfig {
    /// Where it is. Some gRPC clients can speak on it only if its name has an `@`.
    root_socket: Option<PathBuf>,
    /// Connections at once: a person or two.
    connections_max: NonZeroU32,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self { root_socket: None, connections_max: defaults::small(16) }
    }
}

/// Logging.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A level, or directives as `info,brevet::net=debug`.
    pub filter: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), json: false }
    }
}

/// The journal.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Bytes of free space below which nothing is minted, so that endings and locks can still be recorded.
    pub reserve_bytes: u64,
    /// Microseconds that a commit waits, at most, for those who were answered by the one before: more of them share one
    /// `fdatasync`. Zero: never.
    pub commit_window_micros_max: u32,
    /// Records between two signed checkpoints.
    pub checkpoint_records: NonZeroU64,
    /// Records behind the last snapshot above which a start keeps another, so that the next start is quick.
    pub snapshot_records: NonZeroU64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            reserve_bytes: 64 * 1024 * 1024,
            commit_window_micros_max: 4_000,
            checkpoint_records: defaults::nonzero(10_000),
            snapshot_records: defaults::nonzero(10_000),
        }
    }
}

/// The clock.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockConfig {
    /// Seconds that the wall clock and the counted time may differ before nothing is minted.
    pub tolerance_seconds: NonZeroU32,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self { tolerance_seconds: defaults::small(5) }
    }
}

mod defaults {
    use std::num::{NonZeroU32, NonZeroU64};

    pub(super) const fn nonzero(value: u64) -> NonZeroU64 {
        match NonZeroU64::new(value) {
            Some(value) => value,
            None => NonZeroU64::MIN,
        }
    }

    pub(super) const fn small(value: u32) -> NonZeroU32 {
        match NonZeroU32::new(value) {
            Some(value) => value,
            None => NonZeroU32::MIN,
        }
    }
}

fn seconds(value: NonZeroU32) -> Duration {
    Duration::from_secs(value.get().into())
}

fn count(value: NonZeroU32) -> usize {
    usize::try_from(value.get()).unwrap_or(usize::MAX)
}

/// Where a file is wrong and how, without the line, the value and a key that there is not: what was written there by
/// mistake may be secret (invariant U5).
fn told(error: &toml::de::Error, text: &str) -> String {
    let message = error.message();
    // The words of serde and of toml that repeat a value; what they expect stands behind it.
    let quoting = ["invalid type", "invalid value", "unknown variant", "unknown field"];
    let message =
        match (quoting.iter().find(|kind| message.starts_with(**kind)), message.rsplit_once(", expected ")) {
            _ if sabotage::on("files_are_quoted") => return error.to_string(),
            (Some(kind), Some((_, expected))) => format!("{kind}, expected {expected}"),
            (Some(kind), None) => (*kind).to_owned(),
            (None, _) => message.to_owned(),
        };
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => format!("line {}: {message}", before.matches('\n').count().saturating_add(1)),
        None => message,
    }
}

impl Config {
    /// Reads a configuration file, with the environment's overrides.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong and where.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
        if is_exposed(path) {
            return Err(ConfigError::Exposed(path.to_owned()));
        }
        let overrides = std::env::vars().filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX));
        Self::parse(path, &text, overrides)
    }

    fn parse(
        path: &Path,
        text: &str,
        overrides: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let malformed = |error: toml::de::Error| ConfigError::Malformed {
            path: path.to_owned(),
            message: told(&error, text),
        };
        let mut table: toml::Table = text.parse().map_err(malformed)?;
        let mut overridden = false;
        for (name, value) in overrides {
            put(&mut table, &name, &value).ok_or_else(|| ConfigError::Override(name.clone()))?;
            overridden = true;
        }
        // Read from the text where it can be, so that an error names its line.
        let mut config: Self =
            if overridden { Self::deserialize(table) } else { toml::from_str(text) }.map_err(malformed)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let paths = [&mut config.state_directory, &mut config.policy_directory];
        let bundles = config.trust.iter_mut().map(|trust| &mut trust.bundle);
        let issuers = config.oidc.iter_mut().flat_map(|oidc| oidc.jwks.iter_mut().chain(&mut oidc.ca));
        let trust = bundles.chain(issuers);
        for path in paths.into_iter().chain(trust).chain(&mut config.local.root_socket) {
            *path = base.join(&path);
        }
        config.local.root_socket = Some(config.root_socket());
        config.check()?;
        Ok(config)
    }

    /// Where the local root socket is.
    #[must_use]
    pub fn root_socket(&self) -> PathBuf {
        self.local.root_socket.clone().unwrap_or_else(|| self.state_directory.join(ROOT_SOCKET))
    }

    /// The files by which callers are trusted.
    pub fn trust_files(&self) -> impl Iterator<Item = &PathBuf> {
        let bundles = self.trust.iter().map(|trust| &trust.bundle);
        bundles.chain(self.oidc.iter().flat_map(|oidc| oidc.jwks.iter().chain(&oidc.ca)))
    }

    /// How many connections there may be on all listeners.
    #[must_use]
    pub fn connections_max(&self) -> u64 {
        let listeners = [self.grpc.connections_max, self.http.connections_max, self.local.connections_max];
        listeners.iter().map(|max| u64::from(max.get())).sum()
    }

    /// The limits of the local root socket.
    #[must_use]
    pub fn root_limits(&self) -> NetLimits {
        let connections_max = count(self.local.connections_max);
        NetLimits {
            connections_max,
            connections_per_peer_max: connections_max,
            connections_per_network_max: connections_max,
            ..self.grpc.limits()
        }
    }

    /// The registry tables, checked as a whole.
    ///
    /// # Errors
    /// [`InvalidRegistry`].
    pub fn registry(&self) -> Result<Registry, InvalidRegistry> {
        Registry::new(RegistrySource {
            tenants: self.tenants.clone(),
            audiences: self.audiences.clone(),
            agents: self.agents.clone(),
            orchestrators: self.orchestrators.clone(),
            operators: self.operators.clone(),
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let (limits, grpc) = (&self.limits, &self.grpc);
        let retry = limits.retry_delays();
        let rules = [
            (
                limits.lease_lifetime_seconds_default <= limits.lease_lifetime_seconds_max,
                "limits.lease_lifetime_seconds_default is above limits.lease_lifetime_seconds_max",
            ),
            (
                limits.lease_lifetime_seconds_max.get() <= LIFETIME_MAX.as_secs(),
                "limits.lease_lifetime_seconds_max is above 3600",
            ),
            (
                limits.task_lifetime_seconds_default <= limits.task_lifetime_seconds_max,
                "limits.task_lifetime_seconds_default is above limits.task_lifetime_seconds_max",
            ),
            (
                limits.task_lifetime_seconds_max.get() <= MONTH_SECONDS,
                "limits.task_lifetime_seconds_max is above 30 days",
            ),
            (limits.ended_kept_seconds.get() <= MONTH_SECONDS, "limits.ended_kept_seconds is above 30 days"),
            // The times that are given out would all be the same.
            (
                retry.min + retry.apart <= retry.max,
                "limits.retry_delay_millis_max leaves no room behind limits.retry_delay_millis_min",
            ),
            (retry.max <= RETRY_MAX, "limits.retry_delay_millis_max is above 60000"),
            // Fewer keep out honest chains, and more are no bound.
            (
                (16_384..=1_048_576).contains(&grpc.handshake_bytes_max.get()),
                "grpc.handshake_bytes_max is not between 16384 and 1048576",
            ),
            (
                u64::from(grpc.handshake_stage_millis_max.get())
                    <= u64::from(grpc.handshake_seconds_max.get()) * 1_000,
                "grpc.handshake_stage_millis_max is above grpc.handshake_seconds_max",
            ),
            (
                grpc.strangers_message_bytes_max <= grpc.message_bytes_max,
                "grpc.strangers_message_bytes_max is above grpc.message_bytes_max",
            ),
            (
                grpc.stream_window_bytes.get() <= WINDOW_BYTES_MAX,
                "grpc.stream_window_bytes is above 2147483647",
            ),
            (
                grpc.connection_window_bytes.get() <= WINDOW_BYTES_MAX,
                "grpc.connection_window_bytes is above 2147483647",
            ),
            // There is room for all of them from the first byte on.
            (self.http.header_fields_max.get() <= 1_000, "http.header_fields_max is above 1000"),
            (grpc.dns_names.iter().all(|name| is_dns_name(name)), "grpc.dns_names has what is no DNS name"),
            (self.http.listen.ip().is_loopback(), "http.listen is not a loopback address"),
            (
                grpc.url.as_deref().is_none_or(is_issuer),
                "grpc.url is not an https URL without a slash at its end",
            ),
            (
                grpc.url.is_some() || !grpc.listen.ip().is_unspecified(),
                "grpc.url must say how clients reach an address that stands for all",
            ),
            (
                is_issuer(&self.issuer),
                "issuer is not an https URL, or an http URL of this machine, without a slash at its end",
            ),
        ];
        if let Some((_, problem)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(ConfigError::Inconsistent(problem));
        }
        callers::check(self)?;
        self.registry()?;
        Ok(())
    }
}

/// Whether everybody may write a file or directory. What is not there is refused by whoever reads it.
pub(crate) fn is_exposed(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.mode() & 0o002 != 0)
}

/// RFC 8414 §2: a URL with scheme https and neither query nor fragment. Plain http is for this machine alone.
fn is_issuer(text: &str) -> bool {
    let Ok(url) = text.parse::<http::Uri>() else { return false };
    let local = matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let scheme = url.scheme_str() == Some("https") || (url.scheme_str() == Some("http") && local);
    scheme && url.query().is_none() && !text.contains('#') && !text.ends_with('/')
}

/// Sets the key that a variable's name spells.
fn put(table: &mut toml::Table, name: &str, value: &str) -> Option<()> {
    let path = name.strip_prefix(ENVIRONMENT_PREFIX)?.to_lowercase();
    let (sections, key) = path.rsplit_once("__").map_or((None, path.as_str()), |(s, k)| (Some(s), k));
    let mut table = table;
    for section in sections.into_iter().flat_map(|sections| sections.split("__")) {
        let entry = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = entry.as_table_mut()?;
    }
    if key.is_empty() {
        return None;
    }
    let parsed = format!("value = {value}").parse::<toml::Table>().ok();
    let value = parsed
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    table.insert(key.to_owned(), value);
    Some(())
}

#[cfg(test)]
mod tests;
