//! `brevet audit`: reads the audit log of a running broker, and verifies a stopped one's.

mod events;
mod verify;

use clap::{Args, Subcommand};

use super::Exit;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List records of a running broker.
    List(Box<events::List>),
    /// Follow the records of a running broker as they become durable.
    Tail(Box<events::Tail>),
    /// Verify every record, checkpoint and snapshot of a stopped store or of a copy.
    ///
    /// It says up to which revision a key vouches for every record. Without an earlier report nothing shows that the
    /// store was not cut back to an earlier checkpoint.
    Verify(verify::Verify),
}

pub(super) fn run(arguments: Arguments) -> Exit {
    match arguments.command {
        Command::List(list) => list.run(),
        Command::Tail(tail) => tail.run(),
        Command::Verify(verify) => verify.run().map_or_else(|failure| failure.report(), |()| Exit::Ok),
    }
}
