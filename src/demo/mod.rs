//! `brevet demo`: the broker's main job, shown on the real daemon.
//!
//! The director here starts the daemon, a resource server, agents, an orchestrator and an operator as processes of
//! their own. They hold only what `brevet dev` wrote for them and do real calls over mTLS; the director passes
//! commands and reads answers. A step that does not hold ends the demo. What is measured is measured at the resource
//! server, where an ending has to take effect.

mod actor;
mod audit;
mod folder;
mod identity;
mod message;
mod process;
mod report;
mod resource_server;
mod story;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

pub use self::actor::run as actor;
pub use self::report::Format;
pub use self::resource_server::run as resource_server;

use self::folder::Folder;
use self::process::Daemon;
use self::report::Report;
use self::story::Story;

/// Whatever went wrong: the demo tells people, and no program acts on it.
pub type Problem = Box<dyn Error + Send + Sync>;

/// The audiences of the throw-away configuration.
const FILES: &str = "https://files.dev.example";
const STATUS: &str = "https://status.dev.example";
const LEDGER: &str = "https://ledger.dev.example";
const METRICS: &str = "https://metrics.dev.example";

/// How the demo is shown.
#[derive(Debug, Clone)]
pub struct Options {
    /// End after the last step instead of staying up.
    pub once: bool,
    /// How the steps are written.
    pub format: Format,
    /// The folder to use and to leave behind; none for a new one that is removed at the end.
    pub dir: Option<PathBuf>,
}

/// How a demo ended.
enum Ended {
    /// Every step held.
    Held,
    /// One did not.
    Failed,
    /// It was told to stop before the last step.
    Interrupted,
}

/// Shows every step, and says whether all of them held.
///
/// # Errors
/// If the demo could not be shown at all, or nobody reads what it writes.
pub fn run(options: &Options) -> Result<bool, Problem> {
    let mut folder = Folder::new(options.dir.clone())?;
    let runtime = Runtime::new()?;
    // Every process is gone with the future that held it, so that the folder is nobody's afterwards.
    let ended = runtime.block_on(show(folder.path(), &Report::new(options.format), options.once));
    if let Err(_) | Ok(Ended::Failed) = ended {
        folder.keep();
        // Whom nothing can be told any more still gets the exit code.
        let _told =
            writeln!(io::stderr(), "brevet: what the processes wrote is in {}", folder.path().display());
    }
    Ok(matches!(ended?, Ended::Held))
}

/// The steps, and what comes after them.
async fn show(dir: &Path, report: &Report, once: bool) -> Result<Ended, Problem> {
    let mut told_to_stop = pin!(told_to_stop()?);
    let held = tokio::select! {
        held = Story::tell(dir, report) => held?,
        () = &mut told_to_stop => return Ok(Ended::Interrupted),
    };
    if !held {
        return Ok(Ended::Failed);
    }
    if !once {
        let daemon = Daemon::start(dir).await?;
        report.what_next(dir)?;
        told_to_stop.await;
        daemon.stop().await?;
    }
    Ok(Ended::Held)
}

/// Completes at SIGTERM or SIGINT.
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A problem with all of its causes.
fn causes(problem: &(dyn Error + 'static)) -> String {
    let mut text = problem.to_string();
    let mut cause = problem.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
