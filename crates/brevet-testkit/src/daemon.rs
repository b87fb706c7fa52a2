//! The built daemon as a process of its own, which a test may kill and start again on the same folder.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a daemon that fails fails its test"
)]

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a daemon may take to start or to stop; a machine that is busy with other tests is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a daemon that should refuse to start may take to say so.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(2);

/// The file whose presence says that the daemon listens.
const ENDPOINTS: &str = "endpoints.json";
/// What the daemon logs.
const LOG: &str = "daemon.log";

/// A daemon that serves a folder made by `brevet dev`. It is killed when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    binary: PathBuf,
    folder: PathBuf,
    user: Option<u32>,
    child: Option<Child>,
}

impl Daemon {
    /// Starts `binary` in a folder, which it fills unless it is filled already, and waits until it listens.
    #[must_use]
    pub fn start(binary: &Path, folder: &Path) -> Self {
        Self::start_as(binary, folder, None)
    }

    /// The same as another user, which only root can do.
    #[must_use]
    pub fn start_as(binary: &Path, folder: &Path, user: Option<u32>) -> Self {
        let mut daemon = Self { binary: binary.to_owned(), folder: folder.to_owned(), user, child: None };
        daemon.restart();
        daemon
    }

    /// Starts the daemon again after it was killed or stopped, and waits until it listens.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "the daemon runs");
        let endpoints = self.folder.join(ENDPOINTS);
        match fs::remove_file(&endpoints) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        let log = File::options().create(true).append(true).open(self.folder.join(LOG)).unwrap();
        let mut command = Command::new(&self.binary);
        // What a crash leaves behind is left there, too.
        command.args(["dev", "--dir"]).arg(&self.folder).current_dir(&self.folder);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let child = self.child.insert(child);
        let late = Instant::now() + PATIENCE;
        while !endpoints.exists() {
            let ended = child.try_wait().unwrap();
            let log = || fs::read_to_string(self.folder.join(LOG)).unwrap_or_default();
            if let Some(status) = ended {
                panic!("the daemon ended with {status}: {}", log());
            }
            assert!(Instant::now() < late, "the daemon does not listen: {}", log());
            thread::sleep(PAUSE);
        }
    }

    /// Ends the process with SIGKILL, at once.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Tells the process to stop and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.end(Signal::SIGTERM)
    }

    /// Has the process crash, and waits until it has.
    pub fn abort(&mut self) -> ExitStatus {
        self.end(Signal::SIGABRT)
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let mut child = self.child.take().unwrap();
        let late = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() >= late {
                let _gone = (child.kill(), child.wait());
                panic!("the daemon does not stop");
            }
            thread::sleep(PAUSE);
        }
    }

    /// Tells the process to look at its files now.
    pub fn hang_up(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// Whether the process runs.
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// The id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// The most memory that was resident at once since this was asked last, in KiB, and what is resident now from then on.
    #[must_use]
    pub fn peak_kib(&self) -> u64 {
        let process = format!("/proc/{}", self.id());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        // 5: the mark is what is resident now (proc(5), clear_refs).
        fs::write(format!("{process}/clear_refs"), "5").unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _gone = (child.kill(), child.wait());
        }
    }
}

/// Runs the daemon with a configuration that it must refuse, and gives what it said. A daemon that starts all the
/// same is ended after a while.
#[must_use]
pub fn refused_start(binary: &Path, config: &Path) -> Output {
    let mut child = Command::new(binary)
        .arg("serve")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let late = Instant::now() + REFUSAL_PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= late {
            let _gone = child.kill();
        }
        thread::sleep(PAUSE);
    }
    child.wait_with_output().unwrap()
}
