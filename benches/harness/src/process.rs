//! The processes of a run: this program again, under another command.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use brevet::clock::since_boot;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;
use crate::cpu::Usage;

/// The command under which this program is the daemon.
pub(crate) const DAEMON: &str = "dev";

/// How long a process may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// A process of the run. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    command: &'static str,
    child: Child,
    told: Option<ChildStdin>,
    heard: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this program with a command on a folder; what it complains of goes to a file there.
    pub(crate) fn start(command: &'static str, dir: &Path) -> Result<Self, Failure> {
        Self::spawn(Command::new(std::env::current_exe()?), command, dir)
    }

    /// Likewise, behind everybody else for the machine's time.
    pub(crate) fn start_behind(command: &'static str, dir: &Path) -> Result<Self, Failure> {
        let mut nice = Command::new("nice");
        nice.args(["-n", "19"]).arg(std::env::current_exe()?);
        Self::spawn(nice, command, dir)
    }

    fn spawn(mut program: Command, command: &'static str, dir: &Path) -> Result<Self, Failure> {
        let mut child = program
            .arg(command)
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.join(format!("{command}.log")))?)
            .spawn()?;
        let told = child.stdin.take();
        let heard = BufReader::new(child.stdout.take().ok_or("a process without an output")?);
        Ok(Self { command, child, told, heard })
    }

    /// Starts the daemon and waits until it listens.
    pub(crate) fn daemon(dir: &Path) -> Result<Self, Failure> {
        let mut daemon = Self::start(DAEMON, dir)?;
        let late = since_boot() + PATIENCE;
        while !dir.join(brevet_client::endpoints::ENDPOINTS_FILE).exists() {
            if let Some(status) = daemon.child.try_wait()? {
                let log = std::fs::read_to_string(dir.join(format!("{DAEMON}.log")))?;
                return Err(format!("the daemon ended with {status}: {log}").into());
            }
            if since_boot() > late {
                return Err("the daemon does not listen".into());
            }
            sleep(PAUSE);
        }
        Ok(daemon)
    }

    /// Gives an order and waits for what comes of it.
    pub(crate) fn ask<O: Serialize, A: DeserializeOwned>(&mut self, order: &O) -> Result<A, Failure> {
        let told = self.told.as_mut().ok_or("the process takes no orders any more")?;
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        told.write_all(&line)?;
        self.hear()
    }

    /// Waits for the next line that the process writes.
    pub(crate) fn hear<A: DeserializeOwned>(&mut self) -> Result<A, Failure> {
        let mut line = String::new();
        self.heard.read_line(&mut line)?;
        match serde_json::from_str::<Result<A, String>>(&line) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(problem)) => Err(format!("{}: {problem}", self.command).into()),
            Err(_) => Err(format!("{} ended; see its log", self.command).into()),
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What its threads have used until now.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        Usage::of(self.child.id())
    }

    /// Tells the process to stop in order and waits until it has.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGTERM)?;
        let late = since_boot() + PATIENCE;
        while since_boot() < late {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("{} ended with {status}", self.command).into()),
                None => sleep(PAUSE),
            }
        }
        Err(format!("{} does not stop", self.command).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _gone = (self.child.kill(), self.child.wait());
    }
}

/// The other side of [`Process::ask`]: carries out the orders that come on standard input until it closes.
pub(crate) fn obey<O: DeserializeOwned, A: Serialize>(
    mut carry_out: impl FnMut(O) -> Result<A, Failure>,
) -> Result<(), Failure> {
    for line in std::io::stdin().lines() {
        let answer = serde_json::from_str(&line?).map_err(Failure::from).and_then(&mut carry_out);
        tell(answer.map_err(|failure| failure.to_string()))?;
    }
    Ok(())
}

/// The other side of [`Process::hear`].
pub(crate) fn tell<A: Serialize>(answer: Result<A, String>) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    output.write_all(&line)?;
    Ok(output.flush()?)
}
