use proptest::prelude::*;

use super::*;

fn resource(text: &str) -> ResourcePattern {
    text.parse().unwrap()
}

#[test]
fn the_resource_grammar_is_exact() {
    for good in [
        "a",
        "a/b",
        "a/**",
        ".git/x",
        "A-Z_0.9",
        &["s"; 16].join("/"),
        &format!("{}/**", ["s"; 16].join("/")),
    ] {
        assert!(good.parse::<ResourcePattern>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "*",
        "**",
        "/a",
        "a/",
        "a//b",
        "a/*",
        "a/**/b",
        "a**",
        "a/***",
        "a/../b",
        ".",
        "a/.",
        "a,b",
        "a b",
        "a.",
        "a\u{202e}",
        "\u{ff41}",
        "a\n",
        "a%2fb",
        &["s"; 17].join("/"),
        &"x".repeat(65),
    ] {
        assert!(bad.parse::<ResourcePattern>().is_err(), "{bad:?}");
    }
}

#[test]
fn everything_below_is_strictly_below() {
    assert!(resource("a/b").is_within(&resource("a/**")));
    assert!(resource("a/b/**").is_within(&resource("a/**")));
    assert!(resource("a/**").is_within(&resource("a/**")));
    assert!(!resource("a").is_within(&resource("a/**")));
    assert!(!resource("ab").is_within(&resource("a/**")));
    assert!(!resource("a/**").is_within(&resource("a/b")));
    assert!(!resource("a/**").is_within(&resource("a")));
    assert!(resource("a/**").overlaps(&resource("a/b")));
    assert!(!resource("a/b").overlaps(&resource("a/c")));
}

#[test]
fn what_permits_nothing_is_refused_at_the_door() {
    let parse = |text: &str| serde_json::from_str::<Scope>(text);
    assert!(parse(r#"[{"audience":"x","resource":"a","actions":["read"]}]"#).is_ok());
    assert!(parse("[]").unwrap().is_empty());
    for bad in [
        r#"[{"audience":"x","resource":"a","actions":[]}]"#,
        r#"[{"audience":"x","resource":"a","actions":["*"]}]"#,
        r#"[{"audience":"x","resource":"a","actions":["r"],"extra":1}]"#,
        r#"[{"audience":"x","resource":"a","actions":["r"],"constraints":{"n":{"one_of":[]}}}]"#,
        r#"[{"audience":"x","resource":"a","actions":["r"],"constraints":{"n":{"between":{}}}}]"#,
        r#"[{"audience":"x","resource":"a","actions":["r"],"constraints":{"n":{"between":{"min":2,"max":1}}}}]"#,
        r#"[{"audience":"x","resource":"a","actions":["r"],"constraints":{"n":{"prefix":""}}}]"#,
        r#"[{"audience":"x","resource":"a","actions":["r"],"constraints":{"n":{"prefix":"a\u0000"}}}]"#,
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

// A universe small enough to try every call against every permission.
fn pattern() -> impl Strategy<Value = ResourcePattern> {
    prop::sample::select(vec!["a", "a/b", "a/b/c", "a/**", "a/b/**", "b", "b/**"]).prop_map(resource)
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..5i64).prop_map(Value::Integer),
        prop::sample::select(vec!["p", "pq", "pqr", "x"]).prop_map(|t| Value::Text(t.into())),
    ]
}

fn constraint() -> impl Strategy<Value = Constraint> {
    prop_oneof![
        prop::collection::btree_set(value(), 1..4).prop_map(Constraint::OneOf),
        (0..5i64, 0..5i64)
            .prop_map(|(a, b)| Constraint::Between { min: Some(a.min(b)), max: Some(a.max(b)) }),
        (0..5i64).prop_map(|a| Constraint::Between { min: Some(a), max: None }),
        (0..5i64).prop_map(|a| Constraint::Between { min: None, max: Some(a) }),
        prop::sample::select(vec!["p", "pq", "x"]).prop_map(|t| Constraint::Prefix(t.into())),
    ]
}

fn permission() -> impl Strategy<Value = Permission> {
    let actions = prop::collection::btree_set(prop::sample::select(vec!["r", "w"]), 1..3);
    let constraints = prop::collection::btree_map(prop::sample::select(vec!["n", "m"]), constraint(), 0..3);
    (prop::sample::select(vec!["x", "y"]), pattern(), actions, constraints).prop_map(
        |(audience, resource, actions, constraints)| {
            Permission::new(
                AudienceName::parse(audience).unwrap(),
                resource,
                actions.into_iter().map(|a| ActionName::parse(a).unwrap()).collect(),
                constraints.into_iter().map(|(n, c)| (ArgumentName::parse(n).unwrap(), c)).collect(),
            )
            .unwrap()
        },
    )
}

pub(crate) fn scope() -> impl Strategy<Value = Scope> {
    prop::collection::vec(permission(), 0..4).prop_map(|permissions| Scope::new(permissions).unwrap())
}

type Call = (AudienceName, ResourcePattern, ActionName, BTreeMap<ArgumentName, Value>);

fn every_call() -> Vec<Call> {
    let values: Vec<Value> = (-1..6)
        .map(Value::Integer)
        .chain(["o", "p", "pq", "pqr", "pqrs", "x", "xy"].map(|t| Value::Text(t.into())))
        .collect();
    let name = |t: &str| ArgumentName::parse(t).unwrap();
    let mut calls = Vec::new();
    for audience in ["x", "y"] {
        for place in ["a", "a/b", "a/z", "a/b/c", "a/b/z", "b", "b/z"] {
            for action in ["r", "w"] {
                let mut push = |arguments| {
                    calls.push((
                        AudienceName::parse(audience).unwrap(),
                        resource(place),
                        ActionName::parse(action).unwrap(),
                        arguments,
                    ));
                };
                push(BTreeMap::new());
                for n in &values {
                    push(BTreeMap::from([(name("n"), n.clone())]));
                    for m in &values {
                        push(BTreeMap::from([(name("n"), n.clone()), (name("m"), m.clone())]));
                    }
                }
            }
        }
    }
    calls
}

fn permitted(scope: &Scope, call: &Call) -> bool {
    scope.permits(&call.0, &call.1, &call.2, &call.3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    // D2, soundness: what lies within permits no call that the outer scope does not.
    #[test]
    fn d2_containment_is_sound(inner in scope(), outer in scope()) {
        if inner.is_within(&outer) {
            for call in every_call() {
                prop_assert!(!permitted(&inner, &call) || permitted(&outer, &call), "{call:?}");
            }
        }
    }

    #[test]
    fn d2_containment_is_a_preorder(a in scope(), b in scope(), c in scope()) {
        prop_assert!(a.is_within(&a));
        prop_assert!(Scope::default().is_within(&a));
        if a.is_within(&b) && b.is_within(&c) {
            prop_assert!(a.is_within(&c));
        }
        let joined = Scope::new(a.permissions().iter().chain(b.permissions()).cloned()).unwrap();
        prop_assert!(a.is_within(&joined));
    }

    #[test]
    fn d2_narrow_answers_the_wanted_scope_or_refuses(parent in scope(), wanted in scope()) {
        match parent.narrow(wanted.clone()) {
            Ok(child) => {
                prop_assert_eq!(&child, &wanted);
                prop_assert!(child.is_within(&parent));
            }
            Err(widening) => {
                let outside = &wanted.permissions()[widening.index];
                prop_assert!(!parent.permissions().iter().any(|outer| outside.is_within(outer)));
            }
        }
    }

    #[test]
    fn a_scope_is_read_as_it_was_written(scope in scope()) {
        let text = serde_json::to_string(&scope).unwrap();
        prop_assert_eq!(serde_json::from_str::<Scope>(&text).unwrap(), scope);
    }
}
