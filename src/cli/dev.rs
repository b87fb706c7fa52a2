//! `brevet dev`: a throw-away trust domain with a daemon in it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use brevet_client::endpoints::{BearerFiles, ENDPOINTS_FILE, Endpoints, IdentityFiles};
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::time::Timestamp;
use clap::Args;
use ring::rand::SystemRandom;

use super::exit::Failure;
use super::{Exit, complain, secret, serve};
use crate::app::App;
use crate::clock::Clock;
use crate::config::Config;
use crate::dev::{BEARERS, BROKER, FUNCTIONS, IDENTITIES, WORKLOADS, jwt_svid, make};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The folder; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where the gRPC listener is to be; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    grpc: SocketAddr,
    /// Where the HTTP listener is to be; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    http: SocketAddr,
}

#[derive(Debug, Args)]
pub(super) struct TokenArguments {
    /// The folder that `brevet dev` wrote.
    #[arg(long, value_name = "DIR", env = "BREVET_DIR")]
    dir: PathBuf,
    /// The name of an identity without a certificate in that folder.
    #[arg(long = "as", value_name = "NAME", env = "BREVET_AS")]
    name: String,
}

/// Puts a new token where its workload reads it, as the Workload API of a SPIFFE implementation would.
pub(super) fn token(arguments: &TokenArguments) -> Exit {
    let TokenArguments { dir, name } = arguments;
    let put = || -> Result<(), Failure> {
        let config = Config::load(&dir.join("brevet.toml"))?;
        let endpoints = Endpoints::read(dir)?;
        let bearer = endpoints.bearer(name)?;
        let now = Clock::system(Timestamp::EPOCH, Duration::ZERO)?.now().issue;
        let token = jwt_svid(dir, &bearer.spiffe_id, &config.issuer, now, &SystemRandom::new())?;
        secret::write(&bearer.token, &token)
    };
    put().map_or_else(|failure| failure.report(), |()| Exit::Ok)
}

pub(super) fn run(arguments: Arguments) -> Exit {
    let Arguments { dir, grpc, http } = arguments;
    let now = match Clock::system(Timestamp::EPOCH, Duration::ZERO) {
        Ok(clock) => clock.now().issue,
        Err(problem) => {
            complain(&problem);
            return Exit::Error;
        }
    };
    let made = free(grpc).and_then(|grpc| Ok((grpc, free(http)?)));
    let made = made
        .map_err(|problem| Box::new(problem) as Box<dyn std::error::Error>)
        .and_then(|(grpc, http)| Ok(make(&dir, grpc, http, now, &SystemRandom::new())?));
    // What an earlier run left would say that the daemon listens before it does.
    let stale = std::fs::remove_file(dir.join(ENDPOINTS_FILE));
    let made = match stale {
        Err(problem) if problem.kind() != std::io::ErrorKind::NotFound => Err(problem.into()),
        _ => made,
    };
    match made {
        Ok(made) => serve::serve(&made.config, |app| announce(&dir, app)),
        Err(problem) => {
            complain(&*problem);
            Exit::Error
        }
    }
}

/// The address with a port that is free now, so that the configuration names it and a restart listens there again.
fn free(address: SocketAddr) -> std::io::Result<SocketAddr> {
    if address.port() == 0 { TcpListener::bind(address)?.local_addr() } else { Ok(address) }
}

/// A path as the folder's own file may say it.
fn within(dir: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(dir).unwrap_or(path).to_owned()
}

/// Writes `endpoints.json`, whose presence says that the daemon listens.
fn announce(dir: &Path, app: &App) -> Result<(), Box<dyn std::error::Error>> {
    let broker: TrustDomain = BROKER.parse()?;
    let workloads: TrustDomain = WORKLOADS.parse()?;
    let mut identities = BTreeMap::new();
    for (name, path) in IDENTITIES {
        let files = IdentityFiles {
            cert: format!("{name}.pem").into(),
            key: format!("{name}.key").into(),
            bundle: "state/ca.pem".into(),
            spiffe_id: SpiffeId::new(&workloads, path)?,
        };
        identities.insert(name.to_owned(), files);
    }
    let functions: TrustDomain = FUNCTIONS.parse()?;
    let mut bearers = BTreeMap::new();
    for (name, path) in BEARERS {
        let files = BearerFiles {
            token: format!("{name}.token").into(),
            key: format!("{name}.key").into(),
            bundle: "state/ca.pem".into(),
            spiffe_id: SpiffeId::new(&functions, path)?,
        };
        bearers.insert(name.to_owned(), files);
    }
    let endpoints = Endpoints {
        grpc: format!("https://{}", app.grpc_address()?),
        http: format!("http://{}", app.http_address()?),
        root_socket: Some(within(dir, app.root_socket())),
        server_spiffe_id: SpiffeId::new(&broker, "/brevet")?,
        trust_domain: broker,
        identities,
        bearers,
    };
    endpoints.write(dir)?;
    Ok(())
}
