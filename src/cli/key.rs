//! `brevet key`: the public halves of the broker's signing keys, for auditors and verifiers.

use std::path::{Path, PathBuf};

use brevet_mint::jwks;
use brevet_mint::key::{Bookmarks, Checkpoints, JwtSvids, SigningKey, TaskTokens};
use clap::{Args, Subcommand, ValueEnum};
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use thiserror::Error;

use super::Exit;
use super::exit::Failure;
use super::output;
use crate::app::{BOOKMARK_KEY_FILE, CHECKPOINT_KEY_FILE, JWT_SVID_KEY_FILE, TASK_TOKEN_KEY_FILE};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the public keys of checkpoints, task tokens, JWT-SVIDs and bookmarks. The daemon may run meanwhile; no key is
    /// made.
    Show {
        /// The daemon's configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// All of them in JSON, or the checkpoints' key alone in PEM.
        #[arg(short = 'o', long = "output", value_enum, value_name = "FORM", default_value = "json")]
        output: Form,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// The checkpoints' key in PEM with its id, and the JWK Sets of task tokens, JWT-SVIDs and bookmarks.
    Json,
    /// The checkpoints' key, as `brevet audit verify` takes it.
    Pem,
}

/// A key that is not there yet.
#[derive(Debug, Error)]
#[error("there is no key at {0}: the daemon makes it at its first start")]
struct NoKey(PathBuf);

pub(super) fn run(arguments: Arguments) -> Exit {
    let Command::Show { config, output } = arguments.command;
    show(&config, output).map_or_else(|failure| failure.report(), |()| Exit::Ok)
}

fn show(config: &Path, form: Form) -> Result<(), Failure> {
    let directory = Config::load(config)?.state_directory;
    let checkpoints: SigningKey<Checkpoints> = load(directory.join(CHECKPOINT_KEY_FILE))?;
    if let Form::Pem = form {
        return output::text(&checkpoints.public_pem());
    }
    let task_tokens: SigningKey<TaskTokens> = load(directory.join(TASK_TOKEN_KEY_FILE))?;
    let published: Value = serde_json::from_str(&jwks::task_tokens([task_tokens.public_jwk()]))?;
    let jwt_svids: SigningKey<JwtSvids> = load(directory.join(JWT_SVID_KEY_FILE))?;
    let jwt_svids: Value = serde_json::from_str(&jwks::jwt_svids([jwt_svids.public_jwk()]))?;
    let bookmarks: SigningKey<Bookmarks> = load(directory.join(BOOKMARK_KEY_FILE))?;
    let bookmarks: Value = serde_json::from_str(&jwks::bookmarks([bookmarks.public_jwk()]))?;
    output::json(&json!({
        "checkpoints": { "kid": checkpoints.kid().as_str(), "pem": checkpoints.public_pem() },
        "task_tokens": published,
        "jwt_svids": jwt_svids,
        "bookmarks": bookmarks,
    }))
}

fn load<Purpose>(path: PathBuf) -> Result<SigningKey<Purpose>, Failure> {
    Ok(SigningKey::load(&path, &SystemRandom::new())?.ok_or(NoKey(path))?)
}
