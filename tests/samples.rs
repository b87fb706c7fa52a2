//! Samples are promises: whatever this repository shows as configuration, policy or command is taken by the program.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a sample that cannot be read is no sample")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use brevet::clock::Clock;
use brevet::config::Config;
use brevet::dev;
use brevet_core::time::Timestamp;
use brevet_policy::Policies;
use ring::rand::SystemRandom;
use tempfile::TempDir;

/// The documents whose samples are tried.
const DOCUMENTS: [&str; 3] = ["README.md", "CONTRIBUTING.md", "docs/operations.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn brevet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_brevet")).args(arguments).current_dir(root()).output().unwrap()
}

fn configurations() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("deploy")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

/// The blocks of a document in one language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let opened = format!("```{language}\n");
    text.split(&opened).skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// The throw-away trust domain, as `brevet dev` makes it.
fn rendition() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let now = Clock::system(Timestamp::EPOCH, Duration::ZERO).unwrap().now().issue;
    let address = "127.0.0.1:0".parse().unwrap();
    let made = dev::make(folder.path(), address, address, now, &SystemRandom::new()).unwrap();
    (folder, made.config)
}

#[test]
fn every_configuration_in_deploy_is_one() {
    let configurations = configurations();
    assert!(configurations.len() >= 2, "deploy has configurations");
    for path in configurations {
        Config::load(&path).unwrap_or_else(|problem| panic!("{problem}"));
    }
}

/// The sample leaves no key out, and what is commented out in it is what the program does without it.
#[test]
fn the_sample_says_every_key_and_its_default() {
    let path = root().join("deploy/brevet.toml");
    let text = fs::read_to_string(&path).unwrap();
    let shown: Vec<&str> = text.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
    let tables =
        ["", "[grpc]", "[http]", "[local]", "[log]", "[limits]", "[bearers]", "[journal]", "[clock]"];
    let registry = ["[[tenants]]", "[[audiences]]", "[[agents]]", "[[orchestrators]]", "[[operators]]"];
    let lists = ["[[trust]]", "[[oidc]]"].into_iter().chain(registry);
    for section in tables.into_iter().chain(lists) {
        for key in keys(section) {
            let is_shown = shown
                .iter()
                .any(|line| line.starts_with(&format!("{key} = ")) || line.trim_matches(['[', ']']) == key);
            assert!(is_shown, "deploy/brevet.toml does not show {key} of {section}");
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let explicit = folder.path().join("brevet.toml");
    let mut in_example = false;
    let mut uncommented = String::new();
    for line in text.lines() {
        // A commented table is an example and no default, and its keys would belong to the table before.
        in_example = (in_example && !line.is_empty()) || line.starts_with("# [[");
        let key = line.strip_prefix("# ").filter(|rest| is_assignment(rest) && !in_example);
        uncommented = uncommented + key.unwrap_or(line) + "\n";
    }
    fs::write(&explicit, uncommented).unwrap();
    let mut explicit = Config::load(&explicit).unwrap_or_else(|problem| panic!("{problem}"));
    let sample = Config::load(&path).unwrap();
    // The registry has its defaults in types of their own.
    assert_eq!(explicit.registry().unwrap().digest(), sample.registry().unwrap().digest());
    explicit.trust.clone_from(&sample.trust);
    assert_eq!(format!("{explicit:?}"), format!("{sample:?}"));
}

/// The keys that a table has, as the program lists them to whoever uses another.
fn keys(section: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("brevet.toml");
    fs::write(&path, format!("{section}\nno_such_key = 1\n")).unwrap();
    let refused = Config::load(&path).unwrap_err().to_string();
    let (_, expected) = refused.split_once("expected").unwrap_or_else(|| panic!("{section}: {refused}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether a commented line is a key with its value.
fn is_assignment(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
}

#[test]
fn the_starter_policies_load() {
    Policies::load(&root().join("deploy/policies")).unwrap_or_else(|problem| panic!("{problem}"));
}

#[test]
fn the_daemon_accepts_what_dev_writes_and_refuses_a_typo_in_it() {
    let (_folder, config) = rendition();
    let checked = brevet(&["serve", "--config", config.to_str().unwrap(), "--check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("reflection", "reflexion")).unwrap();
    let checked = brevet(&["serve", "--config", config.to_str().unwrap(), "--check"]);
    assert_eq!(checked.status.code(), Some(1));
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("unknown field, expected one of") && said.contains("`reflection`"), "{said}");
}

/// A block of TOML in a document is a whole configuration, or tables that fit behind the one that `brevet dev` writes.
#[test]
fn configuration_in_documents_is_configuration() {
    let (_folder, config) = rendition();
    let base = fs::read_to_string(&config).unwrap();
    let mut tried = 0;
    for document in DOCUMENTS {
        for block in blocks(document, "toml") {
            let whole = block.contains("trust_domain =") && block.contains("[grpc]");
            fs::write(&config, if whole { block.clone() } else { format!("{base}\n{block}") }).unwrap();
            Config::load(&config).unwrap_or_else(|problem| panic!("{document}: {problem}\n{block}"));
            tried += 1;
        }
    }
    assert!(tried > 0, "the documents show configuration");
}

/// Each command that a document shows exists with all of its options: it is asked for its help instead of run.
#[test]
fn commands_in_documents_exist() {
    let mut tried = 0;
    for document in DOCUMENTS {
        let blocks = blocks(document, "sh").join("\n");
        for command in blocks.lines().filter_map(brevet_command) {
            let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
            arguments.push("--help");
            let asked = brevet(&arguments);
            let said = String::from_utf8_lossy(&asked.stderr);
            assert!(asked.status.success(), "{document}: brevet {}\n{said}", command.join(" "));
            tried += 1;
        }
    }
    assert!(tried > 10, "the documents show commands");
}

/// The arguments of `brevet`, if the line runs it, in a substitution too; a variable stands for the name of some task.
fn brevet_command(line: &str) -> Option<Vec<String>> {
    let line = line.split(" #").next()?.trim_end();
    let line = line.strip_prefix("TASK=$(").and_then(|line| line.strip_suffix(')')).unwrap_or(line);
    let line = line
        .replace("cargo run --release -- ", "brevet ")
        .replace("$TASK", "tasks/00000000000000000000000000");
    let mut words = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        // Every second part was quoted and is one word.
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    let is_setting = |word: &String| word.starts_with("BREVET_") && word.contains('=');
    let mut words = words.into_iter().skip_while(is_setting);
    if words.next()? != "brevet" {
        return None;
    }
    Some(words.take_while(|word| word != ">" && word != "|").collect())
}
