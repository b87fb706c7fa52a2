//! `brevet demo`, and the processes that it is made of.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Exit, complain};
use crate::demo::{self, Format, Options, Problem};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// End after the last step instead of staying up.
    #[arg(long)]
    once: bool,
    /// How the steps are written.
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Output::Table)]
    output: Output,
    /// The folder to use and to leave behind; a new one, removed at the end, if none is given.
    #[arg(long, value_name = "DIR", hide = true)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// A table for people.
    Table,
    /// One JSON object a step: `step`, `ok`, `detail`, `ms`.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct ActorArguments {
    /// The folder of the demo.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The identity to act under.
    #[arg(long = "as", value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
pub(super) struct ResourceServerArguments {
    /// The folder of the demo.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn run(arguments: Arguments) -> Exit {
    let Arguments { once, output, dir } = arguments;
    let format = match output {
        Output::Table => Format::Table,
        Output::Json => Format::Json,
    };
    match demo::run(&Options { once, format, dir }) {
        Ok(true) => Exit::Ok,
        Ok(false) => Exit::Error,
        Err(problem) => failed(&problem),
    }
}

pub(super) fn actor(arguments: &ActorArguments) -> Exit {
    demo::actor(&arguments.dir, &arguments.name).map_or_else(|problem| failed(&problem), |()| Exit::Ok)
}

pub(super) fn resource_server(arguments: &ResourceServerArguments) -> Exit {
    demo::resource_server(&arguments.dir).map_or_else(|problem| failed(&problem), |()| Exit::Ok)
}

fn failed(problem: &Problem) -> Exit {
    complain(&**problem);
    Exit::Error
}
