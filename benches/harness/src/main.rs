//! Measures the daemon against the least that does the unavoidable work.
//!
//! Machines differ and are busy, so every figure is a ratio of two sides that were measured in turns in one run, and
//! the unit is the server's CPU time for one operation, which a busy machine disturbs less than time on the wall.
//! The daemon, the floor server, the load generator and the journal alone are processes of their own; this program is
//! all of them, by hidden commands, so that one build and one command are enough.

mod audit;
mod cpu;
mod edge;
mod floor;
mod load;
mod machine;
mod oracle;
mod process;
mod records;
mod report;
mod requests;
mod rounds;
mod world;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::rounds::Subjects;

/// Whatever went wrong: a run that is not whole gives no figures.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures the daemon against the least that does the unavoidable work.
#[derive(Debug, Parser)]
#[command(name = "brevet-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Durable, audited, policy-checked, key-bound task tokens: B1, B5, B7.
    Mint(Settings),
    /// Durable, audited, policy-checked X.509-SVIDs: B2.
    Svid(Settings),
    /// Introspection of tokens: B3.
    Introspect(Settings),
    /// The journal's share: B6.
    Journal(Settings),
    /// Everything.
    All(Settings),
    /// Overload and floods: B19 and B20.
    Edge(edge::EdgeSettings),
    /// Whether the time of a refusal tells what exists: attack 68.
    Oracle(oracle::OracleSettings),
    /// Who asks for too much, as a process of its own.
    #[command(hide = true)]
    Rush(Place),
    /// Who wants to harm, as a process of its own.
    #[command(hide = true)]
    Flood(Place),
    /// The floor server, as a process of its own.
    #[command(hide = true)]
    Floor(Place),
    /// The load generator, as a process of its own.
    #[command(hide = true)]
    Load(Place),
    /// The journal alone, as a process of its own.
    #[command(hide = true)]
    Records(Place),
}

#[derive(Debug, Args)]
struct Place {
    /// The folder of the run.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// How much is measured.
#[derive(Debug, Clone, Args)]
struct Settings {
    /// Print JSON on standard output, and the table on standard error.
    #[arg(long)]
    json: bool,
    /// Rounds; each gives one ratio.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(5..))]
    rounds: u32,
    /// Calls of each kind in a round, with 64 in flight.
    #[arg(long, default_value_t = 8_000, value_parser = clap::value_parser!(u64).range(64..))]
    calls: u64,
    /// Calls of each kind in a round, with one in flight.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(16..))]
    single_calls: u64,
    /// Connections that the calls are spread over.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    connections: u32,
    /// Where the run's own folder is made; it should be on the disk that a daemon would use. The default is where
    /// this program is.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    // The daemon under measurement is the program's own command line, in a process of its own.
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new(process::DAEMON)) {
        return brevet::cli::main();
    }
    let outcome = match Arguments::parse().command {
        Command::Mint(settings) => measure(&settings, Subjects { mint: true, ..Subjects::default() }),
        Command::Svid(settings) => measure(&settings, Subjects { svid: true, ..Subjects::default() }),
        Command::Introspect(settings) => {
            measure(&settings, Subjects { introspect: true, ..Subjects::default() })
        }
        Command::Journal(settings) => measure(&settings, Subjects { journal: true, ..Subjects::default() }),
        Command::All(settings) => {
            measure(&settings, Subjects { mint: true, svid: true, introspect: true, journal: true })
        }
        Command::Edge(settings) => edge::run(&settings),
        Command::Oracle(settings) => oracle::run(&settings),
        Command::Rush(place) => edge::rush(&place.dir),
        Command::Flood(place) => edge::flood(&place.dir),
        Command::Floor(place) => floor::serve(&place.dir),
        Command::Load(place) => load::generate(&place.dir),
        Command::Records(place) => records::write(&place.dir),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("brevet-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure(settings: &Settings, subjects: Subjects) -> Result<(), Failure> {
    let report = rounds::run(settings, subjects)?;
    if settings.json {
        eprint!("{report}");
        println!("{}", report.to_json()?);
    } else {
        print!("{report}");
    }
    Ok(())
}
