//! The command line. Each command parses, does one thing and answers with an exit code that says what came of it.

mod dev;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was done.
    Ok = 0,
    /// It failed.
    Error = 1,
    /// The command line was wrong.
    Usage = 2,
    /// Policy or registration said no.
    Denied = 3,
    /// The caller is not known.
    Unauthenticated = 4,
    /// There is no such object.
    NotFound = 7,
    /// The broker cannot do it now.
    Unavailable = 8,
    /// A lock forbids it.
    Locked = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

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
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
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
    };
    exit.into()
}

/// Tells the person at the terminal why a command failed, with every cause.
fn complain(problem: &dyn std::error::Error) {
    eprintln!("brevet: {}", causes(problem));
}

fn causes(problem: &dyn std::error::Error) -> String {
    let mut text = problem.to_string();
    let mut cause = problem.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
