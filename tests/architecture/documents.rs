//! What the documents say is there: invariants with their tests and faults, threats, files, the code map.

use std::collections::{BTreeMap, BTreeSet};

use super::{MAP_LINES_MAX, files, manifests, read, root, sources};

/// The deliberate faults, each with the target and the test that it fails.
fn sabotage() -> Vec<(String, String, String)> {
    let table = read(".ci/sabotage");
    let rows = table.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    rows.map(|row| {
        let [fault, target, test] = row.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("not a row of .ci/sabotage: {row}");
        };
        (fault.to_owned(), target.to_owned(), test.to_owned())
    })
    .collect()
}

#[test]
fn every_sabotage_is_run_and_documented() {
    let mut in_code = BTreeSet::new();
    for source in sources() {
        let asked = source.text.split("sabotage::on(\"").skip(1);
        in_code.extend(asked.filter_map(|after| after.split('"').next()).map(str::to_owned));
    }
    let table = sabotage();
    let run: BTreeSet<String> = table.iter().map(|(fault, _, _)| fault.clone()).collect();
    assert_eq!(in_code, run, "the faults in the code and those in .ci/sabotage");

    let invariants = read("docs/invariants.md");
    for (fault, _, test) in table {
        let together = invariants
            .lines()
            .any(|line| line.contains(&format!("`{fault}`")) && line.contains(&format!("{test}`")));
        assert!(together, "docs/invariants.md has no row with `{fault}` and {test}");
    }
}

#[test]
fn every_invariant_is_accounted_for_and_its_tests_exist() {
    let invariants = read("docs/invariants.md");
    let ids = [
        ("L", 1..=12),
        ("T", 1..=8),
        ("D", 1..=7),
        ("U", 1..=7),
        ("P", 1..=5),
        ("C", 1..=7),
        ("W", 1..=8),
        ("I", 1..=6),
        ("K", 2..=4),
        ("R", 1..=3),
        ("R", 5..=5),
    ];
    for (letter, numbers) in ids {
        for number in numbers {
            let row = format!("| {letter}{number} |");
            assert!(invariants.lines().any(|line| line.starts_with(&row)), "no row {letter}{number}");
        }
    }
    assert!(tests_that_exist(&invariants) > 20, "docs/invariants.md names its tests as `path.rs::test`");
}

#[test]
fn a_test_is_named_by_the_rows_of_the_invariants_that_it_is_named_after() {
    let invariants = read("docs/invariants.md");
    let rows: BTreeMap<String, &str> = invariants
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .filter(|(id, _)| *id != "id")
        .map(|(id, row)| (id.to_lowercase(), row))
        .collect();
    let mut missing = Vec::new();
    for source in sources() {
        let after = |word| source.text.split(word).skip(1);
        for declared in after("\nfn ").chain(after(" fn ")) {
            let name = declared.split(['(', '<']).next().unwrap_or_default();
            let test = format!("`{}::{name}`", source.path);
            let first = name.split_once('_').map_or("", |(first, _)| first);
            let digits = first.get(1..).unwrap_or_default();
            let is_id = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            // Those of the SPIFFE standards have a table of their own.
            if is_id && first != "x5" && !rows.contains_key(first) {
                missing.push(test.clone());
            }
            for row in name.split('_').map_while(|id| rows.get(id)) {
                if !row.contains(&test) {
                    missing.push(test.clone());
                }
            }
        }
    }
    assert_eq!(missing, [""; 0], "not in the row of docs/invariants.md that they are named after");
}

/// How many tests a document names, each of which is there.
fn tests_that_exist(document: &str) -> usize {
    let quoted = quoted(document);
    let tests = quoted.iter().filter_map(|text| text.split_once(".rs::"));
    tests
        .map(|(path, test)| {
            let path = format!("{path}.rs");
            let text = read(&path);
            let (before, _) =
                text.split_once(&format!("fn {test}(")).unwrap_or_else(|| panic!("{path} has no {test}"));
            let item = before.rsplit_once("}\n").map_or(before, |(_, item)| item);
            // What every journal has to do is a function that the test of each journal calls.
            let is_a_test = item.contains("#[test]")
                || item.contains("#[tokio::test")
                || path.ends_with("/conformance.rs");
            assert!(is_a_test, "{path}: {test} is no test");
        })
        .count()
}

#[test]
fn every_threat_has_a_test_or_says_that_it_has_none() {
    let model = read("docs/threat-model.md");
    let titles =
        ["Actors", "Agentic applications", "Non-human identities", "Zero trust", "Faults of clients"];
    let rows: Vec<&str> = titles
        .into_iter()
        .flat_map(|title| {
            let (_, section) = model.split_once(&format!("## {title}\n")).unwrap();
            let section = section.split("\n## ").next().unwrap();
            section.lines().filter(|line| line.starts_with('|')).skip(2)
        })
        .collect();
    let numbered = (1..=10)
        .flat_map(|number| [format!("| ASI{number:02} |"), format!("| NHI{number} |")])
        .chain((1..=7).map(|number| format!("| ZT{number}:")));
    for id in numbered {
        assert_eq!(rows.iter().filter(|row| row.starts_with(&id)).count(), 1, "rows that begin with {id}");
    }
    for row in &rows {
        let admits = ["*not built yet*", "*not defended*"].iter().any(|admission| row.contains(admission));
        assert!(admits || tests_that_exist(row) > 0, "neither a test nor an admission: {row}");
    }
    assert!(tests_that_exist(&model) > rows.len(), "docs/threat-model.md names its tests as `path.rs::test`");
}

/// What a document has between backticks.
pub(super) fn quoted(document: &str) -> Vec<&str> {
    document
        .lines()
        .filter(|line| !line.starts_with("```"))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

fn documents() -> Vec<String> {
    let mut documents = files("docs", ".md");
    documents.extend(
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(String::from),
    );
    documents
}

#[test]
fn documents_name_only_files_that_exist() {
    let endings = [".rs", ".toml", ".md", ".proto", ".cedar", ".cedarschema", ".jsonl"];
    for document in documents() {
        let text = read(&document);
        for name in quoted(&text) {
            let path = name.split("::").next().unwrap_or(name);
            let is_plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
            let is_ours = ["src/", "crates/", "tests/", "docs/", "deploy/", "proto/", "benches/", ".ci/"]
                .iter()
                .any(|folder| path.starts_with(folder));
            let is_file = endings.iter().any(|ending| path.ends_with(ending)) && path.contains('/');
            if is_plain && (is_ours || is_file) {
                assert!(root().join(path).exists(), "{document} names {path}, which is not there");
            }
        }
        for (_, link) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            let from = root().join(&document);
            if !target.is_empty() && !target.contains("://") {
                assert!(from.parent().unwrap().join(target).exists(), "{document} links to {target}");
            }
        }
    }
}

#[test]
fn the_code_map_is_short_and_complete() {
    let map = read("ARCHITECTURE.md");
    assert!(map.lines().count() <= MAP_LINES_MAX, "ARCHITECTURE.md has more than {MAP_LINES_MAX} lines");
    let named: BTreeSet<&str> = quoted(&map).into_iter().collect();
    for path in files("src", ".rs").iter().filter(|path| path.matches('/').count() == 1) {
        assert!(named.contains(path.as_str()), "{path} is not in the code map");
    }
    for path in files("src", "mod.rs") {
        let folder = path.trim_end_matches("mod.rs");
        assert!(named.contains(folder), "{folder} is not in the code map");
    }
    for name in manifests().keys() {
        assert!(named.contains(name.as_str()), "{name} is not in the code map");
    }
}

#[test]
fn nothing_names_a_machine() {
    let folders = ["work", "farm", "root", "home", "Users"].map(|folder| format!("/{folder}/"));
    let endings = [".md", ".toml", ".rs", ".cedar", ".proto", "/run", "/sabotage"];
    for path in files("", "").into_iter().filter(|path| endings.iter().any(|ending| path.ends_with(ending))) {
        let text = read(&path);
        for folder in &folders {
            let named = text.match_indices(folder.as_str()).any(|(at, _)| {
                let before = text.split_at(at).0.chars().next_back();
                before.is_none_or(|c| c.is_whitespace() || "\"'`(=:".contains(c))
            });
            assert!(!named, "{path} names a path of some machine below {folder}");
        }
    }
}
