//! What the fuzzer is fed to begin with, read by the stable compiler: the committed seeds, and fresh ones of every suite
//! there is. `CONTRIBUTING.md` says how to fuzz.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that cannot make its input fails")]

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "elsewhere it is a crate of its own")]
mod fuzz;
#[path = "corpora/seeds.rs"]
mod seeds;

use std::fs;
use std::path::{Path, PathBuf};

/// Set to anything, it has the committed seeds written anew.
const WRITE: &str = "BREVET_WRITE_SEEDS";

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

#[test]
fn r3_every_committed_seed_is_read() {
    for (name, target) in fuzz::TARGETS {
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no seeds");
        for file in files {
            println!("cargo +nightly fuzz run --sanitizer none {name} {}", file.display());
            target(&fs::read(file).unwrap());
        }
    }
}

#[test]
fn r3_every_case_of_the_suites_is_read() {
    for (name, target) in fuzz::TARGETS {
        let seeds = seeds::of(name);
        assert!(seeds.iter().filter(|seed| seed.kept).count() >= 2, "{name} has too few seeds");
        for seed in seeds {
            println!("{name}: {}", seed.name);
            target(&seed.bytes);
            if seed.kept && std::env::var_os(WRITE).is_some() {
                fs::create_dir_all(folder(name)).unwrap();
                fs::write(folder(name).join(&seed.name), &seed.bytes).unwrap();
            }
        }
    }
}
