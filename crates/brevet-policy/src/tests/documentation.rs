//! `docs/policy.md` names every word of the schema, and shows only policies that load.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::vocabulary::SCHEMA;

fn document() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.md")).unwrap()
}

/// Every attribute below a type, with the path that a policy reaches it by.
fn paths(types: &Value, prefix: &str, described: &Value, found: &mut Vec<String>) {
    let common = described["name"].as_str().or(described["type"].as_str());
    let described = common.and_then(|name| types.get(name)).unwrap_or(described);
    match described["attributes"].as_object() {
        None => found.push(prefix.to_owned()),
        Some(attributes) => {
            for (name, attribute) in attributes {
                paths(types, &format!("{prefix}.{name}"), attribute, found);
            }
        }
    }
}

#[test]
fn the_whole_vocabulary_is_documented() {
    let fragment = cedar_policy::SchemaFragment::from_cedarschema_str(SCHEMA).unwrap().0;
    let schema = &fragment.to_json_value().unwrap()["Brevet"];
    let types = &schema["commonTypes"];
    let mut words = Vec::new();
    for (name, entity) in schema["entityTypes"].as_object().unwrap() {
        words.push(format!("Brevet::{name}"));
        paths(types, "resource", &entity["shape"], &mut words);
        if name == "Workload" {
            paths(types, "principal", &entity["shape"], &mut words);
        }
    }
    for (name, action) in schema["actions"].as_object().unwrap() {
        words.push(format!("Brevet::Action::\"{name}\""));
        paths(types, "context", &action["appliesTo"]["context"], &mut words);
    }
    assert!(words.contains(&"context.task.sensitivity_max.level".to_owned()), "{words:?}");
    assert!(words.contains(&"resource.enforcement".to_owned()), "{words:?}");
    let document = document();
    words.retain(|word| word != "resource" && !document.contains(&format!("`{word}`")));
    assert_eq!(words, [""; 0], "missing in docs/policy.md");
}

#[test]
fn the_policies_shown_in_the_document_load() {
    let document = document();
    let examples: Vec<&str> =
        document.split("```cedar\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        policies(example);
    }
}
