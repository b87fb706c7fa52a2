//! The command line. Each command parses, does one thing and answers with an exit code that says what came of it.

mod audit;
mod connection;
mod credential;
mod demo;
mod dev;
mod exit;
mod holder;
mod key;
mod lease;
mod lock;
mod output;
mod secret;
mod selector;
mod serve;
mod task;
mod verify;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use brevet_core::name::{InvalidName, RequestId};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

pub use exit::Exit;
use exit::complain;

use crate::hardening::harden;

/// A just-in-time credential broker for AI agents.
#[derive(Debug, Parser)]
#[command(name = "brevet", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon.
    Serve {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Check the configuration and everything it names, and change nothing.
        #[arg(long)]
        check: bool,
    },
    /// Make a throw-away trust domain in a folder and run the daemon in it.
    Dev(dev::Arguments),
    /// Give a workload of that trust domain that has no certificate a token of a minute, as its Workload API would.
    DevToken(dev::TokenArguments),
    /// Show the broker's main job: a daemon, agents and a resource server as processes of their own.
    Demo(demo::Arguments),
    /// A process of the demo: an agent, an orchestrator or an operator.
    #[command(hide = true)]
    DemoActor(demo::ActorArguments),
    /// A process of the demo: the resource server.
    #[command(hide = true)]
    DemoResourceServer(demo::ResourceServerArguments),
    /// Open tasks, delegate them, read them and end them.
    Task(task::Arguments),
    /// Issue credentials, renew and return them, and ask whether they live.
    Credential(credential::Arguments),
    /// Pull the emergency stop and lift it.
    Lock(lock::Arguments),
    /// Show what has been issued, and end it.
    Lease(lease::Arguments),
    /// Show the public halves of the broker's signing keys.
    Key(key::Arguments),
    /// Read, follow and verify the audit log.
    Audit(audit::Arguments),
    /// Judge test cases from standard input as the broker judges callers, tokens and keys.
    Verify(verify::Arguments),
    /// Print the completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    if let Err(problem) = harden() {
        complain(&problem);
        return Exit::Error.into();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // What cannot be printed was not asked for by anyone who listens.
            let _printed = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    let exit = match arguments.command {
        Command::Serve { config, check } => serve::run(&config, check),
        Command::Dev(arguments) => dev::run(arguments),
        Command::DevToken(arguments) => dev::token(&arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::DemoActor(arguments) => demo::actor(&arguments),
        Command::DemoResourceServer(arguments) => demo::resource_server(&arguments),
        Command::Task(arguments) => task::run(arguments),
        Command::Credential(arguments) => credential::run(arguments),
        Command::Lock(arguments) => lock::run(arguments),
        Command::Lease(arguments) => lease::run(arguments),
        Command::Key(arguments) => key::run(arguments),
        Command::Audit(arguments) => audit::run(arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Completions { shell } => completions(shell),
    };
    exit.into()
}

fn completions(shell: Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "brevet", &mut script);
    output::text(&String::from_utf8_lossy(&script)).map_or_else(|failure| failure.report(), |()| Exit::Ok)
}

/// A request without a name cannot be repeated, so it is not made.
#[derive(Debug, Error)]
enum NoRequestId {
    #[error("no randomness from the system")]
    Randomness,
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// A name for a request, or for a proof, that no other one has.
fn request_id() -> Result<RequestId, NoRequestId> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRequestId::Randomness)?;
    Ok(RequestId::parse(&format!("{:032x}", u128::from_be_bytes(bytes)))?)
}
