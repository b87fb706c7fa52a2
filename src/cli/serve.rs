//! `brevet serve`: the daemon.

use std::future::Future;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, complain};
use crate::app::{self, App};
use crate::config::Config;
use crate::telemetry::{self, LogFormat};
use crate::threads::Threads;

pub(super) fn run(config: &Path, check: bool) -> Exit {
    if check {
        return match app::check(config) {
            Ok(()) => Exit::Ok,
            Err(problem) => {
                complain(&problem);
                Exit::Error
            }
        };
    }
    serve(config, |_| Ok(()))
}

/// Runs the daemon with a configuration until it is told to stop; `listening` is called when the sockets are bound.
pub(super) fn serve(
    config: &Path,
    listening: impl FnOnce(&App) -> Result<(), Box<dyn std::error::Error>>,
) -> Exit {
    let outcome = start(config, listening);
    match outcome {
        Ok(()) => Exit::Ok,
        Err(problem) => {
            complain(&*problem);
            Exit::Error
        }
    }
}

fn start(
    config: &Path,
    listening: impl FnOnce(&App) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let log = Config::load(config)?.log;
    telemetry::init(&log.filter, if log.json { LogFormat::Json } else { LogFormat::Text })?;
    let threads = Threads::start()?;
    threads.everybody.block_on(async {
        let shutdown = told_to_stop()?;
        let app = App::build(config, threads.handles()).await?;
        listening(&app)?;
        app.run(shutdown).await?;
        Ok(())
    })
}

/// Completes at SIGTERM or SIGINT.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
