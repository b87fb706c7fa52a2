//! That the table of what SPIFFE asks and the names of the tests agree.

use std::collections::{BTreeMap, BTreeSet};

use super::documents::quoted;
use super::{read, sources};

/// What a verifier of SVIDs must hold, by the rows of `docs/spiffe-conformance.md`. There may be more rows.
const SPIFFE_ROWS: [(&str, &[u8]); 4] = [
    ("ID", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 20, 21]),
    ("X5", &[2, 6, 13, 14, 15, 16, 17, 21, 22]),
    ("BU", &[2, 3, 5, 6, 8, 10, 11]),
    ("JW", &[1, 4, 5, 6, 9, 11, 12, 13, 15]),
];

/// The rows that a test is named after: `["X5-14", "BU-06"]` for `x5_14_bu_06_…`.
fn rows_of(test: &str) -> Vec<String> {
    let words: Vec<&str> = test.split('_').collect();
    let is_row = |pair: &&[&str]| {
        pair[0].len() == 2
            && pair[0].starts_with(|c: char| c.is_ascii_lowercase())
            && pair[1].len() == 2
            && pair[1].chars().all(|c| c.is_ascii_digit())
    };
    words.chunks_exact(2).take_while(is_row).map(|p| format!("{}-{}", p[0].to_uppercase(), p[1])).collect()
}

#[test]
fn every_row_of_the_spiffe_standards_has_a_test_and_every_such_test_its_row() {
    let document = read("docs/spiffe-conformance.md");
    let mut rows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in document.lines() {
        let row = line.strip_prefix("| ").and_then(|cells| cells.split(" | ").next());
        let Some(row) = row.filter(|row| !rows_of(&row.to_lowercase().replace('-', "_")).is_empty()) else {
            continue;
        };
        let tests: BTreeSet<&str> = quoted(line).into_iter().filter(|text| text.contains(".rs::")).collect();
        assert!(!tests.is_empty(), "row {row} has no test");
        for (path, test) in tests.iter().filter_map(|text| text.split_once("::")) {
            assert!(read(path).contains(&format!("fn {test}(")), "{path} has no {test}");
            assert!(rows_of(test).iter().any(|held| held == row), "{test} is not named after {row}");
        }
        assert!(rows.insert(row, tests).is_none(), "row {row} stands twice");
    }
    for (section, numbers) in SPIFFE_ROWS {
        for number in numbers {
            assert!(
                rows.contains_key(format!("{section}-{number:02}").as_str()),
                "no row {section}-{number:02}"
            );
        }
    }
    // A section that the document has at all is there with all of its tests.
    let sections: BTreeSet<&str> = rows.keys().filter_map(|row| row.split('-').next()).collect();
    for source in sources() {
        for test in source.text.split("fn ").skip(1).filter_map(|after| after.split('(').next()) {
            for row in rows_of(test).iter().filter(|row| sections.contains(row.split('-').next().unwrap())) {
                let named = format!("{}::{test}", source.path);
                let held = rows.get(row.as_str()).is_some_and(|tests| tests.contains(named.as_str()));
                assert!(held, "docs/spiffe-conformance.md has no row {row} with {named}");
            }
        }
    }
}
