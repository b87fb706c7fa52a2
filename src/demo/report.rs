//! What the person at the terminal, or the program behind the pipe, sees of the demo.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use brevet_client::endpoints::Endpoints;
use serde::Serialize;

use super::{FILES, Problem, causes};

/// How steps are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    Table,
    /// One JSON object a line: `step`, `ok`, `detail` and `ms`.
    Json,
}

/// What a step showed.
pub(super) struct Shown<T = ()> {
    /// What later steps need of it.
    pub(super) value: T,
    /// What held, in words.
    pub(super) detail: String,
    /// What the resource server measured, in milliseconds, where the step is about its time.
    pub(super) ms: Option<f64>,
}

impl<T> Shown<T> {
    pub(super) fn new(value: T, detail: impl Into<String>) -> Self {
        Self { value, detail: detail.into(), ms: None }
    }

    pub(super) fn within(self, micros: u64) -> Self {
        // Microseconds of a demo are far below what a float holds exactly.
        Self { ms: u32::try_from(micros).ok().map(|micros| f64::from(micros) / 1000.0), ..self }
    }
}

/// Why the demo goes no further.
pub(super) enum Halt {
    /// A step did not hold, and was reported.
    Failed,
    /// Nobody reads the report.
    Unread(io::Error),
}

/// The report of one demo.
#[derive(Debug)]
pub(super) struct Report {
    format: Format,
    colours: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    step: &'a str,
    ok: bool,
    detail: &'a str,
    ms: Option<f64>,
}

impl Report {
    pub(super) fn new(format: Format) -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { format, colours }
    }

    /// Reports a step and hands on what it yielded.
    pub(super) fn step<T>(&self, step: &str, outcome: Result<Shown<T>, Problem>) -> Result<T, Halt> {
        let (value, detail, ms) = match outcome {
            Ok(Shown { value, detail, ms }) => (Some(value), detail, ms),
            Err(problem) => (None, causes(&*problem), None),
        };
        self.line(&Line { step, ok: value.is_some(), detail: &detail, ms }).map_err(Halt::Unread)?;
        value.ok_or(Halt::Failed)
    }

    fn line(&self, line: &Line<'_>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Json => writeln!(out, "{}", serde_json::to_string(line)?),
            Format::Table => {
                let (colour, verdict) = if line.ok { ("\x1b[32m", "ok    ") } else { ("\x1b[31m", "FAILED") };
                let (on, off) = if self.colours { (colour, "\x1b[0m") } else { ("", "") };
                let ms = line.ms.map_or_else(String::new, |ms| format!("{ms:.1} ms"));
                writeln!(out, "{on}{verdict}{off}  {:<24}{ms:>10}  {}", line.step, line.detail)
            }
        }
    }

    /// The last line.
    pub(super) fn close(&self, line: &str) -> io::Result<()> {
        match self.format {
            // The last step's object has it.
            Format::Json => Ok(()),
            Format::Table => writeln!(io::stdout(), "\n{line}"),
        }
    }

    /// What to try with the daemon that stays up.
    pub(super) fn what_next(&self, dir: &Path) -> Result<(), Problem> {
        let endpoints = Endpoints::read(dir)?;
        let agent = &endpoints.identity("agent-a")?.spiffe_id;
        let (dir, http) = (dir.display(), &endpoints.http);
        let text = format!(
            r#"
The daemon stays up until Ctrl-C. Try, in another terminal:
  export BREVET_DIR={dir}
  TASK=$(brevet task create --as orchestrator --agent {agent} --type report --purpose demo --sensitivity-max moderate --prompt-origin user --permit "{FILES} reports/** read" --claim-file $BREVET_DIR/claim -o name)
  brevet credential issue --as agent-a $TASK --claim-file $BREVET_DIR/claim --permit "{FILES} reports/q3/figures read" --token-file $BREVET_DIR/token
  brevet credential introspect --as resource-server --token-file $BREVET_DIR/token
  LOCK=$(brevet lock create --as operator --agent {agent} --message "under investigation" -o name)
  brevet credential introspect --as resource-server --token-file $BREVET_DIR/token
  brevet lock lift --as operator $LOCK
  brevet task list --as orchestrator
  brevet lease list --as operator
  brevet audit list --as operator --type denied

What there is to see:
  {dir}/endpoints.json             where everything is, and as whom
  {dir}/policies/guards.cedar      change a policy: it is in force within seconds
  {dir}/daemon.log
  {http}/oauth/jwks, {http}/revocation/jwks, {http}/spiffe/bundle, {http}/metrics"#
        );
        match self.format {
            // Standard output is the other program's.
            Format::Json => writeln!(io::stderr(), "{text}")?,
            Format::Table => writeln!(io::stdout(), "{text}")?,
        }
        Ok(())
    }
}
