//! The folder of a run: a throw-away trust domain with the starter policies and as many others as make a hundred.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use brevet::clock::Clock;
use brevet::dev;
use brevet_client::dpop::HolderKey;
use brevet_client::{Broker, Endpoints, Identity, ServerTrust, Settings, connect};
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;
use ring::rand::SystemRandom;
use tempfile::TempDir;

use crate::Failure;

/// Who asks for credentials.
pub(crate) const AGENT: &str = "agent-a";
/// The agent's SPIFFE ID.
pub(crate) const AGENT_ID: &str = "spiffe://workloads.dev.example/agent/a";
/// Who opens tasks.
pub(crate) const ORCHESTRATOR: &str = "orchestrator";
/// Who introspects.
pub(crate) const ENFORCER: &str = "resource-server";
/// Who the floor server is.
pub(crate) const FLOOR: &str = "resource-server";
/// The floor server's SPIFFE ID.
const FLOOR_ID: &str = "spiffe://workloads.dev.example/resource-server";
/// What credentials are for.
pub(crate) const AUDIENCE: &str = "https://files.dev.example";

/// No connection ends during a run, or its successor's handshake would be measured.
pub(crate) const CONNECTION_AGE: Duration = Duration::from_secs(86_400);

/// Policies loaded, the starter ones among them.
pub(crate) const POLICIES: usize = 100;

/// A folder of the run's own, in this one or beside the program, that is gone when this is dropped.
pub(crate) fn folder(parent: Option<&Path>) -> Result<TempDir, Failure> {
    let program = std::env::current_exe()?;
    let parent = parent.or_else(|| program.parent()).ok_or("no folder")?;
    Ok(tempfile::Builder::new().prefix("brevet-bench-").tempdir_in(parent)?)
}

/// Fills the folder.
pub(crate) fn make(dir: &Path) -> Result<(), Failure> {
    let now = Clock::system(Timestamp::EPOCH, Duration::ZERO)?.now().issue;
    let any = "127.0.0.1:0".parse()?;
    let made = dev::make(dir, any, any, now, &SystemRandom::new())?;
    let policies = dir.join("policies");
    let mut starter = 0;
    for file in fs::read_dir(&policies)? {
        starter += fs::read_to_string(file?.path())?.matches("@id(").count();
    }
    fs::write(policies.join("others.cedar"), others(POLICIES.saturating_sub(starter))?)?;
    let mut config: toml::Table = fs::read_to_string(&made.config)?.parse()?;
    let grpc = config.get_mut("grpc").and_then(toml::Value::as_table_mut).ok_or("no section grpc")?;
    grpc.insert("connection_age_seconds_max".to_owned(), i64::try_from(CONNECTION_AGE.as_secs())?.into());
    fs::write(&made.config, toml::to_string(&config)?)?;
    // One identity stands for many callers.
    limit(dir, &[("calls_per_second_per_caller_max", 1_000_000), ("calls_burst_per_caller_max", 1_000_000)])
}

/// Sets limits in the configuration of a run.
pub(crate) fn limit(dir: &Path, values: &[(&str, i64)]) -> Result<(), Failure> {
    let path = dir.join("brevet.toml");
    let mut config: toml::Table = fs::read_to_string(&path)?.parse()?;
    let limits = config.entry("limits").or_insert_with(|| toml::Table::new().into());
    let limits = limits.as_table_mut().ok_or("no section limits")?;
    limits.extend(values.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
    Ok(fs::write(path, toml::to_string(&config)?)?)
}

/// Policies of other audiences and task types than those of the run.
fn others(count: usize) -> Result<String, Failure> {
    let mut text = String::new();
    for number in 0..count {
        let (action, resource, condition) = if number % 4 == 0 {
            ("CreateTask", format!("Brevet::TaskType::\"other-{number}\""), "context.task.depth <= 3")
        } else {
            let audience = format!("Brevet::Audience::\"https://other-{number}.dev.example\"");
            ("IssueCredential", audience, "context.credential.profile == \"task_token\"")
        };
        writeln!(
            text,
            "@id(\"other-{number}\")\n\
             permit (principal, action == Brevet::Action::\"{action}\", resource == {resource})\n\
             when {{ principal.path like \"/agent/*\" && {condition} }};"
        )?;
    }
    Ok(text)
}

/// The thumbprint of the agent's key, which holds what it is issued.
pub(crate) fn holder(dir: &Path) -> Result<String, Failure> {
    let key = HolderKey::from_pem(&fs::read(dir.join(format!("{AGENT}.key")))?)?;
    Ok(key.thumbprint().to_string())
}

/// Connects to the daemon.
pub(crate) async fn connect_to_daemon(dir: &Path, name: &str) -> Result<Broker, Failure> {
    let endpoints = Endpoints::read(dir)?;
    let files = endpoints.identity(name)?;
    let identity = Identity::load(&files.cert, &files.key)?;
    let trust = ServerTrust::load(&files.bundle, endpoints.server_spiffe_id.clone())?;
    Ok(connect(&endpoints.grpc, &identity, &trust, &Settings::default()).await?)
}

/// Connects to the floor server.
pub(crate) async fn connect_to_floor(dir: &Path, url: &str) -> Result<Broker, Failure> {
    let identity = Identity::load(&dir.join(format!("{AGENT}.pem")), &dir.join(format!("{AGENT}.key")))?;
    let server: SpiffeId = FLOOR_ID.parse()?;
    let trust = ServerTrust::load(&dir.join("workloads.pem"), server)?;
    Ok(connect(url, &identity, &trust, &Settings::default()).await?)
}
