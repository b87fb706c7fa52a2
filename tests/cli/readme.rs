//! README's examples, as somebody types them who reads from top to bottom.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use brevet::clock::Clock;
use brevet_core::time::Timestamp;
use brevet_testkit::daemon::Daemon;

use super::BINARY;

/// The blocks of shell in the sections for each kind of user, in their order.
fn blocks() -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let sections = readme.split("\n## ").filter(|section| section.starts_with("For "));
    let blocks = sections.flat_map(|section| section.split("```sh\n").skip(1));
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_examples_of_the_readme_work_from_top_to_bottom() {
    let folder = tempfile::tempdir().unwrap();
    let playground = folder.path().join("playground");
    fs::create_dir(&playground).unwrap();
    let mut daemon = Daemon::start(Path::new(BINARY), &playground);
    // Nobody types so fast that a proof is of the second in which the daemon began, which it could have been accepted before.
    let now = || Clock::system(Timestamp::EPOCH, Duration::ZERO).unwrap().now().issue.seconds();
    let begun = now();
    while now() == begun {
        thread::sleep(Duration::from_millis(20));
    }
    let (of_a_stopped_daemon, of_a_daemon): (Vec<_>, Vec<_>) =
        blocks().into_iter().partition(|block| block.contains("audit verify"));
    assert!(of_a_daemon.len() >= 5 && of_a_stopped_daemon.len() == 1);
    let run = |blocks: &[String]| {
        let path = format!("{}:/usr/bin:/bin", Path::new(BINARY).parent().unwrap().display());
        let script = format!("set -euo pipefail\n{}", blocks.concat());
        let mut bash = Command::new("bash");
        let ran =
            bash.args(["-c", &script]).env_clear().env("PATH", path).current_dir(&folder).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{script}\n{out}\n{err}");
        out.into_owned()
    };
    let out = run(&of_a_daemon);
    for shown in ["tasks/", "\"state\"", "active"] {
        assert!(out.contains(shown), "{shown} is not in\n{out}");
    }
    assert!(daemon.stop().success());
    run(&of_a_stopped_daemon);
}
