//! What other processes get of one that holds private keys, those of its own user included: nothing, neither while it
//! runs nor when it has crashed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use brevet_testkit::daemon::Daemon;
use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid};

use crate::secrets::private_keys;
use crate::world::binary;

/// A user who owns nothing, where the tests run as root: from root nothing is kept.
const NOBODY: u32 = 65_534;
/// Tells a process that a test starts what to try to reach.
pub(crate) const TARGET: &str = "BREVET_TEST_TARGET";

/// The user of both processes, if it is not the one of the tests.
fn user() -> Option<u32> {
    geteuid().is_root().then_some(NOBODY)
}

/// An open program, which a user can run who cannot reach it by its path.
pub(crate) struct Program(File);

impl Program {
    pub(crate) fn open(path: impl AsRef<Path>) -> Self {
        Self(File::open(path).unwrap())
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.path());
        if let Some(user) = user() {
            command.uid(user).gid(user);
        }
        command
    }
}

/// A process that ends with its test.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _gone = (self.0.kill(), self.0.wait());
    }
}

#[test]
fn l12_no_process_of_the_same_user_reads_one_that_holds_keys() {
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), user(), user()).unwrap();
    let program = Program::open(binary());
    let daemon = Daemon::start_as(&program.path(), folder.path(), user());
    let mut client = program.command();
    client.arg("demo-actor").arg("--dir").arg(folder.path()).args(["--as", "agent-a"]);
    let mut client = Owned(client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    // What it answers to this, it has used its key for.
    client.0.stdin.as_ref().unwrap().write_all(b"\"prove\"\n").unwrap();
    let mut answer = String::new();
    BufReader::new(client.0.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
    assert!(answer.contains("proven"), "{answer}");

    let reader = Program::open("/proc/self/exe");
    for process in [daemon.id(), client.0.id()] {
        let read = reader
            .command()
            .args(["--ignored", "--exact", "hardening::a_reader"])
            .env(TARGET, process.to_string())
            .output()
            .unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stdout));
        assert!(String::from_utf8_lossy(&read.stdout).contains("1 passed"), "nobody has read");
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
}

#[test]
#[ignore = "the child of l12_no_process_of_the_same_user_reads_one_that_holds_keys"]
fn a_reader() {
    let target: i32 = std::env::var(TARGET).unwrap().parse().unwrap();
    // Of a process that is not closed, the same is read: it is not the machine that denies it.
    let open = Owned(Command::new("sleep").arg("60").spawn().unwrap());
    assert!(fs::read(format!("/proc/{}/environ", open.0.id())).is_ok());

    let of = |name: &str| format!("/proc/{target}/{name}");
    let read = |name: &str| File::open(of(name)).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
    for (what, result) in [
        ("mem", read("mem").map(drop)),
        ("environ", read("environ").map(drop)),
        ("maps", read("maps").map(drop)),
        ("auxv", read("auxv").map(drop)),
        ("fd", fs::read_dir(of("fd")).map(drop)),
        ("map_files", fs::read_dir(of("map_files")).map(drop)),
        ("cwd", fs::read_link(of("cwd")).map(drop)),
    ] {
        let kind = result.map_err(|problem| problem.kind());
        assert_eq!(kind, Err(io::ErrorKind::PermissionDenied), "{what}");
    }
    assert_eq!(ptrace::attach(Pid::from_raw(target)), Err(nix::errno::Errno::EPERM));
}

#[test]
fn l12_a_process_that_crashes_leaves_no_core() {
    // As much as the machine allows, so that it is not that limit which keeps the core away.
    let (_, max) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    setrlimit(Resource::RLIMIT_CORE, max, max).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(binary(), folder.path());
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let status = daemon.abort();
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
    assert!(!status.core_dumped(), "the kernel says that it dumped a core");
    let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let cores: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("core")).collect();
    assert!(cores.is_empty(), "{cores:?}");
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(limit.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
}

/// What a process has in memory that it can write to: its heap and its stacks among it. For root to see alone.
fn memory(process: u32) -> Vec<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let mut regions = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next().unwrap(), words.next().unwrap());
        let (begin, end) = range.split_once('-').unwrap();
        let address = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
        if mode.starts_with("rw") {
            let mut region = vec![0; usize::try_from(address(end) - address(begin)).unwrap()];
            memory.read_exact_at(&mut region, address(begin)).unwrap();
            regions.push(region);
        }
    }
    regions
}

/// What was read is looked for in every form that it has in files or could be said in; how `ring` computes with it is
/// none of them.
#[test]
fn l12_no_encoding_of_a_key_stays_in_the_daemons_memory() {
    if !geteuid().is_root() {
        println!("not run: only root sees the memory of the daemon");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(binary(), folder.path());
    assert!(daemon.stop().success());
    // The keys that were made before are read now.
    daemon.restart();
    let mut forms = private_keys(&folder.path().join("state"));
    forms.extend(private_keys(folder.path()));
    // What the daemon has all the time shows that it would be found.
    forms.push(("the configuration".to_owned(), b"spiffe://workloads.dev.example/agent/a".to_vec()));
    let mut begins = vec![false; 1 << 16];
    let begin = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
    for (_, form) in &forms {
        begins[begin(form)] = true;
    }
    let mut found = BTreeSet::new();
    for region in memory(daemon.id()) {
        for at in 0..region.len() - 1 {
            if begins[begin(&region[at..])] {
                let here = forms.iter().filter(|(_, form)| region[at..].starts_with(form));
                found.extend(here.map(|(name, _)| name.as_str()));
            }
        }
    }
    assert_eq!(found, BTreeSet::from(["the configuration"]));
}
