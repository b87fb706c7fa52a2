//! The processes of the demo. None outlives its handle.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use brevet_client::endpoints::ENDPOINTS_FILE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use super::Problem;

/// How long any process may take to start, to answer or to stop.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How often it is looked whether the daemon listens.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the daemon logs, and what it logs when a changed configuration is in force.
const DAEMON_LOG: &str = "daemon.log";
const IN_FORCE: &str = "the changed configuration is in force";

/// How often, and how many times, it is looked whether a killed process is gone.
const GONE_EVERY: Duration = Duration::from_millis(1);
const GONE_TRIES_MAX: u32 = 5_000;

/// This program with other arguments. A terminal's Ctrl-C reaches the director alone, which ends the rest; what a
/// process has to say besides its answers goes to a file of its own.
fn program(dir: &Path, name: &str, arguments: &[&str]) -> Result<Command, Problem> {
    let log = File::options().create(true).append(true).open(dir.join(format!("{name}.log")))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).arg("--dir").arg(dir).stderr(log).kill_on_drop(true).process_group(0);
    Ok(command)
}

/// What this program, run once, writes to standard output.
pub(super) async fn output<'a>(
    command: impl IntoIterator<Item = &'a OsStr>,
    arguments: impl IntoIterator<Item = &'a OsStr>,
) -> Result<Vec<u8>, Problem> {
    let mut program = Command::new(std::env::current_exe()?);
    program.args(command).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = within(|| "a command did not end".to_owned(), async { Ok(program.output().await?) }).await?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into())
    }
}

async fn within<T>(
    what: impl FnOnce() -> String,
    wait: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    timeout(ANSWER_MAX, wait).await.map_err(|_| format!("{} within {ANSWER_MAX:?}", what()))?
}

/// A child that is gone when its handle is dropped: killed, and waited for.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.0.start_kill();
        for _ in 0..GONE_TRIES_MAX {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(GONE_EVERY);
        }
    }
}

/// A process that speaks a JSON object a line.
pub(super) struct Process {
    name: String,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    child: Owned,
}

impl Process {
    pub(super) fn start(dir: &Path, name: &str, arguments: &[&str]) -> Result<Self, Problem> {
        let mut child =
            program(dir, name, arguments)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a process without pipes".into());
        };
        Ok(Self { name: name.to_owned(), input, lines: BufReader::new(output).lines(), child: Owned(child) })
    }

    /// Kills it in the middle of whatever it does.
    pub(super) async fn kill(mut self) -> Result<(), Problem> {
        Ok(self.child.0.kill().await?)
    }

    pub(super) async fn tell(&mut self, message: &impl Serialize) -> Result<(), Problem> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(self.input.write_all(&line).await?)
    }

    pub(super) async fn hear<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        let Self { name, lines, .. } = self;
        within(|| format!("{name} did not answer"), async {
            let line = lines.next_line().await?.ok_or_else(|| format!("{name} has ended, see {name}.log"))?;
            Ok(serde_json::from_str(&line)?)
        })
        .await
    }
}

/// The daemon.
pub(super) struct Daemon {
    child: Owned,
}

impl Daemon {
    /// Starts it in a folder, new or used, and returns when it listens.
    pub(super) async fn start(dir: &Path) -> Result<Self, Problem> {
        let endpoints: PathBuf = dir.join(ENDPOINTS_FILE);
        // Its presence will say that this daemon listens, not the one before.
        if endpoints.exists() {
            fs::remove_file(&endpoints)?;
        }
        let mut daemon = program(dir, "daemon", &["dev"])?;
        let mut child = Owned(daemon.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        within(|| "the daemon did not listen".to_owned(), async {
            while !endpoints.exists() {
                if let Some(status) = child.0.try_wait()? {
                    return Err(format!("the daemon did not start ({status}), see daemon.log").into());
                }
                sleep(LOOK_EVERY).await;
            }
            Ok(())
        })
        .await?;
        Ok(Self { child })
    }

    /// Kills it in the middle of whatever it does.
    pub(super) async fn kill(mut self) -> Result<(), Problem> {
        Ok(self.child.0.kill().await?)
    }

    /// Tells it that files of its configuration have changed, and waits until what they say is in force.
    pub(super) async fn reload(&self, dir: &Path) -> Result<(), Problem> {
        let log = dir.join(DAEMON_LOG);
        let loaded = || Ok::<_, io::Error>(fs::read_to_string(&log)?.matches(IN_FORCE).count());
        let before = loaded()?;
        self.signal(Signal::SIGHUP)?;
        within(|| "what had changed did not come into force".to_owned(), async {
            while loaded()? == before {
                sleep(LOOK_EVERY).await;
            }
            Ok(())
        })
        .await
    }

    fn signal(&self, signal: Signal) -> Result<(), Problem> {
        let id = self.child.0.id().ok_or("the daemon has ended, see daemon.log")?;
        Ok(kill(Pid::from_raw(id.try_into()?), signal)?)
    }

    /// Asks it to stop, and waits until it has.
    pub(super) async fn stop(mut self) -> Result<(), Problem> {
        self.signal(Signal::SIGTERM)?;
        let status =
            within(|| "the daemon did not stop".to_owned(), async { Ok(self.child.0.wait().await?) }).await?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the daemon stopped with {status}, see daemon.log").into())
        }
    }
}
