//! Logging to standard error. The log is for operating the daemon; the record of what it did is the journal.

use std::backtrace::Backtrace;
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt};

/// The environment variable whose filter stands above the configured one.
pub const FILTER_VARIABLE: &str = "BREVET_LOG";

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter can't be parsed.
    #[error("the log filter is not valid")]
    Filter(#[from] ParseError),
    /// There is one already.
    #[error("logging is set up already")]
    Twice(#[from] TryInitError),
}

/// Sets up logging for the process and makes a panic end it. `filter` is a level or a list of directives such as
/// `info,brevet::net=debug`; `BREVET_LOG` overrides it.
///
/// # Errors
/// If the filter is not valid or logging was set up before.
pub fn init(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let overriding = std::env::var(FILTER_VARIABLE).ok();
    let filter = EnvFilter::builder().parse(overriding.as_deref().unwrap_or(filter))?;
    let lines = fmt::layer().with_writer(io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            lines.with_ansi(colours).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(filter).with_filter(filter_fn(may_be_written));
    tracing_subscriber::registry().with(lines).try_init()?;
    std::panic::set_hook(Box::new(end));
    Ok(())
}

/// The libraries below write headers, frames and handshake messages at their lower levels, and those carry
/// credentials (L12). No filter can ask for them.
fn may_be_written(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("brevet") || *metadata.level() <= LevelFilter::INFO
}

/// A panic is a defect, and state that a defect left half changed must not answer anyone.
fn end(panic: &PanicHookInfo<'_>) {
    // A formatted message may hold what it was formatted from; a literal can't.
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(formatted)");
    let location = panic.location().map(tracing::field::display);
    tracing::error!(message, location, backtrace = %Backtrace::capture(), "panic");
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of [`a_child_panics`] as the test harness knows it.
    const CHILD: &str = "telemetry::tests::a_child_panics";

    /// Runs in a process of its own, that it ends.
    #[test]
    #[ignore = "the child of the tests below"]
    fn a_child_panics() {
        init("trace", LogFormat::Json).unwrap();
        tracing::trace!(target: "brevet::test", "ours");
        tracing::trace!(target: "h2::codec", "authorization: secret");
        let secret = std::hint::black_box("secret");
        panic!("{secret}");
    }

    fn child() -> std::process::Output {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", CHILD, "--ignored", "--nocapture", "--test-threads=1"])
            .env_remove(FILTER_VARIABLE)
            .output()
            .unwrap()
    }

    #[test]
    fn r3_a_panic_is_logged_and_ends_the_process() {
        use std::os::unix::process::ExitStatusExt;
        let output = child();
        assert_eq!(output.status.signal(), Some(nix::libc::SIGABRT));
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains("telemetry.rs"), "{log}");
    }

    #[test]
    fn l12_neither_libraries_nor_panics_write_secrets() {
        let log = String::from_utf8(child().stderr).unwrap();
        assert!(log.contains("\"ours\""), "{log}");
        assert!(!log.contains("secret"), "{log}");
    }

    #[test]
    fn an_invalid_filter_is_refused() {
        assert!(matches!(init("brevet=loud", LogFormat::Text), Err(TelemetryError::Filter(_))));
    }
}
