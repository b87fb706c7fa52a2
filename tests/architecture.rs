//! The house rules that the compiler does not know: which crate may know which, which file may do what, and that the
//! documents speak of what is there. Each rule is a test; `CONTRIBUTING.md` says why it is one.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a rule that cannot read the tree does not hold"
)]

#[path = "architecture/documents.rs"]
mod documents;
#[path = "architecture/spiffe.rs"]
mod spiffe;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Which workspace crates a crate may depend on. Only tests may depend on `brevet-testkit`.
const EDGES: [(&str, &[&str]); 12] = [
    ("brevet-core", &[]),
    ("brevet-api", &[]),
    ("brevet-identity", &["brevet-core"]),
    ("brevet-policy", &["brevet-core"]),
    ("brevet-mint", &["brevet-core"]),
    ("brevet-journal", &["brevet-core"]),
    ("brevet-client", &["brevet-api", "brevet-core", "brevet-identity"]),
    ("brevet-verify", &["brevet-core", "brevet-identity"]),
    ("brevet-testkit", &["brevet-core", "brevet-identity", "brevet-journal"]),
    ("brevet", &HOUSE),
    // A program of its own, that no crate depends on.
    ("brevet-bench", &BENCH),
    // So is each of its targets, and all of them are tests.
    ("brevet-fuzz", &FUZZ),
];

const HOUSE: [&str; 8] = [
    "brevet-api",
    "brevet-client",
    "brevet-core",
    "brevet-identity",
    "brevet-journal",
    "brevet-mint",
    "brevet-policy",
    "brevet-verify",
];

const BENCH: [&str; 9] = [
    "brevet",
    "brevet-api",
    "brevet-client",
    "brevet-core",
    "brevet-identity",
    "brevet-journal",
    "brevet-mint",
    "brevet-policy",
    "brevet-verify",
];

const FUZZ: [&str; 7] = [
    "brevet",
    "brevet-api",
    "brevet-core",
    "brevet-identity",
    "brevet-mint",
    "brevet-policy",
    "brevet-testkit",
];

/// All that the core may draw on from outside: text, digests and nothing that acts.
const CORE_DRAWS_ON: [&str; 5] = ["base64", "serde", "serde_json", "sha2", "thiserror"];

/// What the core may not name, because it would act, wait or remember.
const IMPURE: [&str; 12] = [
    "async",
    "tokio",
    "tracing",
    "ring",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "Mutex",
    "RwLock",
    "println!",
];

/// What only one file may name. Tests are exempt, and `brevet-testkit`, which is for tests only.
const ONLY_THERE: [(&str, &str); 8] = [
    ("dashmap", "src/table.rs"),
    ("SystemTime", "src/clock.rs"),
    ("ClockId", "src/clock.rs"),
    ("Caller::verified_x509_svid", "crates/brevet-identity/src/x509_svid.rs"),
    ("Caller::verified_bearer", "src/grpc/token_caller.rs"),
    ("Permit::granted", "crates/brevet-policy/src/decide.rs"),
    ("Plan::drawn", "crates/brevet-mint/src/plan.rs"),
    ("Recorded::durable", "src/table.rs"),
];

/// Other ways to read a clock. Nobody needs them.
const NOWHERE: [&str; 3] = ["Instant", "clock_gettime", "now_utc"];

const PROOFS: [&str; 4] = ["Caller", "Permit", "Plan", "Recorded"];
const PROOFS_FILE: &str = "crates/brevet-core/src/proof.rs";
const LINES_MAX: usize = 600;
const MAP_LINES_MAX: usize = 250;

/// A file of Rust.
struct Source {
    path: String,
    text: String,
    /// The text without comments and string literals, and without what only tests compile.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|problem| panic!("{path}: {problem}"))
}

/// The files below a folder whose names end so, as paths from the root of the tree.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root().join(folder)) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type().unwrap().is_dir() {
            if !["target", ".git"].contains(&name.as_str()) {
                found.extend(files(&path, ending));
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let texts: Vec<(String, String)> =
        files("", ".rs").into_iter().map(|path| (path.clone(), read(&path))).collect();
    assert!(texts.len() > 100, "the tree was not found");
    let mut tests: Vec<String> = texts.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    tests.extend(["tests/", "crates/brevet-testkit/", "fuzz/"].map(String::from));
    texts
        .into_iter()
        .map(|(path, text)| {
            let tested = path.contains("/tests/") || tests.iter().any(|test| path.starts_with(test));
            let code = if tested { String::new() } else { without_tests(&without_prose(&text)) };
            Source { path, text, code }
        })
        .collect()
}

/// Where the modules are that a file declares for tests only.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let base = match file {
        "lib.rs" | "main.rs" | "mod.rs" => format!("{folder}/"),
        _ => format!("{}/", path.trim_end_matches(".rs")),
    };
    let mut lines = text.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]"
            && let Some(name) = lines.next().and_then(|next| next.strip_suffix(';')?.rsplit_once("mod "))
        {
            found.extend([format!("{base}{}.rs", name.1), format!("{base}{}/", name.1)]);
        }
    }
    found
}

/// Blanks comments, string literals and character literals.
fn without_prose(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let hashes = rest.strip_prefix('r').map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
        let is_raw = rest.strip_prefix('r').is_some_and(|raw| raw.trim_start_matches('#').starts_with('"'))
            && !code.ends_with(|before: char| before.is_alphanumeric() && before != 'b' || before == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if is_raw {
            let (open, close) = (hashes + 2, format!("\"{}", "#".repeat(hashes)));
            rest.get(open..)
                .and_then(|body| body.find(&close))
                .map_or(rest.len(), |end| open + end + close.len())
        } else if first == '"' {
            literal(rest, '"')
        } else if first == '\'' && (rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'')) {
            literal(rest, '\'')
        } else {
            code.push(first);
            rest = rest.strip_prefix(first).unwrap();
            continue;
        };
        let (blank, after) = rest.split_at(skipped);
        code.extend(blank.chars().filter(|character| *character == '\n'));
        code.push(' ');
        rest = after;
    }
    code
}

/// How many bytes a literal has, its quotes included.
fn literal(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Leaves out the items that stand under `#[cfg(test)]`, by the indentation that rustfmt gives them.
fn without_tests(code: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(line);
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        for skipped in lines.by_ref() {
            let own =
                skipped.len() - skipped.trim_start().len() == indent && !skipped.trim().starts_with('#');
            if own && skipped.trim_end().ends_with(['}', ';']) {
                break;
            }
        }
    }
    kept.join("\n")
}

/// Whether the code names this, as whole words.
fn names(code: &str, what: &str) -> bool {
    let is_word = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(what).any(|(at, _)| {
        let (before, after) = code.split_at(at);
        let next = after.chars().nth(what.chars().count());
        !is_word(before.chars().next_back()) && (!what.ends_with(char::is_alphanumeric) || !is_word(next))
    })
}

fn offenders(sources: &[Source], offends: impl Fn(&Source) -> bool) -> Vec<&str> {
    sources.iter().filter(|source| offends(source)).map(|source| source.path.as_str()).collect()
}

fn manifests() -> BTreeMap<String, toml::Table> {
    let manifests: BTreeMap<_, _> = files("", "Cargo.toml")
        .into_iter()
        .map(|path| {
            let manifest: toml::Table = read(&path).parse().unwrap();
            (manifest["package"]["name"].as_str().unwrap().to_owned(), manifest)
        })
        .collect();
    assert!(manifests.contains_key("brevet-core"), "the manifests were not found");
    manifests
}

fn dependencies(manifest: &toml::Table, tables: &[&str]) -> BTreeSet<String> {
    let keys = |table: &&str| {
        manifest.get(*table).and_then(toml::Value::as_table).map(|table| table.keys().cloned())
    };
    tables.iter().filter_map(keys).flatten().collect()
}

#[test]
fn arrows_between_crates_point_down_only() {
    let edges = BTreeMap::from(EDGES);
    for (name, manifest) in manifests() {
        let allowed = edges.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no floor in this test"));
        let is_ours = |dependency: &&String| dependency.starts_with("brevet");
        assert!(!manifest.contains_key("target"), "{name} depends on the platform");
        for built in dependencies(&manifest, &["dependencies", "build-dependencies"]).iter().filter(is_ours) {
            assert!(allowed.contains(&built.as_str()), "{name} must not know {built}");
        }
        for tested in dependencies(&manifest, &["dev-dependencies"]).iter().filter(is_ours) {
            let may = allowed.contains(&tested.as_str()) || tested == "brevet-testkit";
            assert!(may && name != "brevet-core", "the tests of {name} must not know {tested}");
        }
    }
}

#[test]
fn the_core_is_pure() {
    let manifests = manifests();
    let drawn_on = dependencies(&manifests["brevet-core"], &["dependencies", "build-dependencies"]);
    assert_eq!(drawn_on, CORE_DRAWS_ON.map(String::from).into(), "what the core draws on");
    let sources = sources();
    for impure in IMPURE {
        let found = offenders(&sources, |source| {
            source.path.starts_with("crates/brevet-core/src/")
                && source.path != "crates/brevet-core/src/sabotage.rs"
                && names(&source.code, impure)
        });
        assert_eq!(found, [""; 0], "{impure} in the core");
    }
}

#[test]
fn manifests_inherit_the_lints_and_have_no_features() {
    for (name, manifest) in manifests() {
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(inherits.and_then(toml::Value::as_bool), Some(true), "{name} has lints of its own");
        assert!(!manifest.contains_key("features"), "{name} has features, but configuration decides");
    }
    let workspace = &manifests()["brevet"]["workspace"];
    assert_eq!(workspace["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}

#[test]
fn only_one_file_does_it() {
    let sources = sources();
    for (what, there) in ONLY_THERE {
        let found = offenders(&sources, |source| names(&source.code, what));
        assert_eq!(found, [there], "who names {what}");
    }
    for what in NOWHERE {
        assert_eq!(offenders(&sources, |source| names(&source.code, what)), [""; 0], "who names {what}");
    }
}

#[test]
fn a_proof_has_one_constructor_and_no_copy() {
    let sources = sources();
    let proofs = sources.iter().find(|source| source.path == PROOFS_FILE).unwrap();
    // A caller is proven in one of two ways, and everything else in one.
    assert_eq!(proofs.code.matches("-> Self").count(), PROOFS.len() + 1, "constructors in {PROOFS_FILE}");
    for proof in PROOFS {
        let (before, after) = proofs.code.split_once(&format!("pub struct {proof} {{")).unwrap();
        let (_, derived) = before.rsplit_once("#[derive(").unwrap();
        assert_eq!(derived.trim(), "Debug)]", "what {proof} derives");
        assert!(!after.split_once('}').unwrap().0.contains("pub"), "{proof} has a public field");
        for implemented in ["Clone", "Copy", "Default", "Deserialize"] {
            let found = offenders(&sources, |source| {
                source.code.lines().any(|line| {
                    line.trim_start().starts_with("impl")
                        && names(line, implemented)
                        && names(line, &format!("for {proof}"))
                })
            });
            assert_eq!(found, [""; 0], "{implemented} for {proof}");
        }
        let renamed = offenders(&sources, |source| names(&source.code, &format!("{proof} as")));
        assert_eq!(renamed, [""; 0], "who renames {proof}");
    }
}

#[test]
fn nothing_is_left_unfinished_and_no_lint_is_switched_off() {
    let sources = sources();
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let unfinished = offenders(&sources, |source| {
        let code = without_prose(&source.text);
        let macros = ["todo!", "unimplemented!", "dbg!"];
        words.iter().any(|word| names(&source.text, word)) || macros.iter().any(|macro_| names(&code, macro_))
    });
    assert_eq!(unfinished, [""; 0], "unfinished");
    // A process that a test starts is a test itself, and is ignored because it is not one to start with.
    let ignored = offenders(&sources, |source| {
        without_prose(&source.text).matches("#[ignore").count()
            != source.text.matches("#[ignore = \"the child of").count()
    });
    assert_eq!(ignored, [""; 0], "a test that never runs");
    let allowed = offenders(&sources, |source| {
        let code = without_prose(&source.text);
        code.contains("#[allow(") || code.contains("#![allow(")
    });
    assert_eq!(allowed, [""; 0], "expect a lint, with a reason");
}

#[test]
fn files_are_short_and_say_why_they_are() {
    let sources = sources();
    let long = offenders(&sources, |source| source.text.lines().count() > LINES_MAX);
    assert_eq!(long, [""; 0], "longer than {LINES_MAX} lines");
    // What a file `tests.rs` is for, its parent says.
    let silent =
        offenders(&sources, |source| !source.text.starts_with("//!") && !source.path.ends_with("/tests.rs"));
    assert_eq!(silent, [""; 0], "begins without `//!`");
    let vague = offenders(&sources, |source| {
        let stems: Vec<&str> = source.path.split(['/', '.', '-', '_']).collect();
        ["util", "utils", "common", "helper", "helpers", "manager", "misc"]
            .iter()
            .any(|vague| stems.contains(vague))
    });
    assert_eq!(vague, [""; 0], "a name that says nothing");
}
