//! `brevet demo`: the broker's main job, shown on the real daemon.
//!
//! The director here starts the daemon, a resource server and each agent as processes of their own. They hold only
//! what `brevet dev` wrote for them and do real calls over mTLS; the director passes commands and reads answers. A
//! step that does not hold ends the demo. What is measured is measured at the resource server, where an ending has
//! to take effect.

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
use std::path::{Path, PathBuf};

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

/// Shows every step, and says whether all of them held.
///
/// # Errors
/// If the demo could not be shown at all, or nobody reads what it writes.
pub fn run(options: &Options) -> Result<bool, Problem> {
    let mut folder = Folder::new(options.dir.clone())?;
    let report = Report::new(options.format);
    let runtime = Runtime::new()?;
    let outcome = runtime.block_on(async {
        let told_to_stop = told_to_stop()?;
        tokio::select! {
            outcome = show(folder.path(), report, options.once) => outcome,
            () = told_to_stop => Ok(options.once.then_some(false)),
        }
    });
    // The processes are gone with the future that held them, so the folder is nobody's any more.
    let held = match &outcome {
        Ok(None) => true,
        Ok(Some(held)) => *held,
        Err(_) => false,
    };
    if !held {
        folder.keep();
        eprintln!("brevet: what the processes wrote is in {}", folder.path().display());
    }
    outcome.map(|_| held)
}

/// The steps, and what comes after them: whether they all held, or none to say that the demo was ended by hand.
async fn show(dir: &Path, mut report: Report, once: bool) -> Result<Option<bool>, Problem> {
    if !Story::tell(dir, &mut report).await? {
        return Ok(Some(false));
    }
    if !once {
        let _daemon = Daemon::start(dir).await?;
        report.what_next(dir)?;
        // Until the signal that the caller waits for.
        return std::future::pending().await;
    }
    Ok(Some(true))
}

/// Completes at SIGTERM or SIGINT.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
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
