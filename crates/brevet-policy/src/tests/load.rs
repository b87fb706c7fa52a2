//! Loading: what is refused, and that the refusal names the place.

use std::fs;

use super::*;
use crate::load::{NESTING_MAX, POLICY_BYTES_MAX, Problem};
use crate::vocabulary::{self, Facts, OPERATIONS, Sentence, Words};

const YES: &str = "@id(\"yes\") permit (principal, action, resource);";

/// The refusal of a text, with its line.
fn refusal(text: &str) -> (u32, Problem) {
    match try_policies(text) {
        Err(LoadError::Policy { file, line, problem }) if file == "test.cedar" => (line, problem),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_syntax_error_is_named_with_file_and_line() {
    let text = format!(
        "// A comment; with a semicolon.\n{YES}\n\n// \"\n@id(\"no\")\nforbid (principal, action);\n"
    );
    let error = try_policies(&text).unwrap_err().to_string();
    assert!(error.starts_with("test.cedar:5: "), "{error}");
    for bad in
        ["permit", "@id(\"a;b\") permit (principal, action, resource) when { \"", "\u{feff};", "\0;", ";"]
    {
        let (line, problem) = refusal(&format!("{YES}\n{bad}"));
        assert!(line == 2 && matches!(problem, Problem::Syntax(_)), "{bad:?} {line} {problem:?}");
    }
}

#[test]
fn a_semicolon_in_a_string_or_comment_ends_nothing() {
    let text = "// ; \n@id(\"a\") // ; \"\npermit (principal, action, resource)\n\
                when { principal.path != \"a\\\";b //\" }; // ;\n@id(\"b\")\nforbid (principal, action, resource);";
    let denial = denial(&policies(text), issue_credential());
    assert_eq!(denial.evidence.determining[0].line, 5);
}

#[test]
fn every_policy_has_an_id_of_its_own() {
    assert_eq!(refusal("\npermit (principal, action, resource);"), (2, Problem::NoId));
    let taken = Problem::DuplicateId { id: "yes".to_owned(), file: "test.cedar".to_owned(), line: 1 };
    assert_eq!(refusal(&format!("{YES}\n{YES}")), (2, taken));
    for bad in ["", "a b", "a\\nb", "\u{430}", &"x".repeat(65)] {
        let text = format!("@id(\"{bad}\") permit (principal, action, resource);");
        assert_eq!(refusal(&text), (1, Problem::InvalidId), "{bad:?}");
    }
    assert_eq!(refusal("@id permit (principal, action, resource);"), (1, Problem::InvalidId));
}

#[test]
fn an_id_is_taken_across_files() {
    let sources =
        BTreeMap::from([("a.cedar", YES), ("b.cedar", YES)].map(|(a, b)| (a.to_owned(), b.to_owned())));
    let error = Policies::from_sources(&sources).unwrap_err().to_string();
    assert_eq!(error, "b.cedar:1: the id yes is taken by a.cedar:1");
}

#[test]
fn a_policy_that_does_not_fit_the_schema_is_refused() {
    for condition in [
        "context.task.colour == \"red\"",
        "context.credential.profile == \"task_token\"",
        "principal.roles == 1",
        "context.task.depth < \"1\"",
        "resource in Brevet::Tool::\"hammer\"",
        "false",
        "context.task.type == \"p\u{430}y\"",
    ] {
        let head = "principal, action == Brevet::Action::\"CreateTask\", resource";
        let text = format!("{YES}\n@id(\"no\") forbid ({head}) when {{ {condition} }};");
        let (line, problem) = refusal(&text);
        assert!(line == 2 && matches!(problem, Problem::Invalid(_)), "{condition} {line} {problem:?}");
    }
    for head in [
        "principal, action == Brevet::Action::\"Fly\", resource",
        "principal, action == Brevet::Action::\"CreateTask\", resource is Brevet::Audience",
        "principal == Brevet::Audience::\"a\", action, resource",
        "principal == ?principal, action, resource",
    ] {
        let (line, _) = refusal(&format!("{YES}\n@id(\"no\") forbid ({head});"));
        assert_eq!(line, 2, "{head}");
    }
}

#[test]
fn extension_types_are_literals_only() {
    let text =
        |condition: &str| format!("@id(\"a\") permit (principal, action, resource) when {{ {condition} }};");
    policies(&text("ip(\"192.0.2.1\").isIpv4()"));
    for bad in ["ip(\"192.0.2\").isIpv4()", "ip(principal.path).isIpv4()"] {
        assert!(matches!(refusal(&text(bad)), (1, Problem::Invalid(_))), "{bad}");
    }
}

#[test]
fn an_obligation_is_understood_or_refused() {
    let text = |annotation: &str, effect: &str| {
        format!("@id(\"a\") {annotation} {effect} (principal, action, resource);")
    };
    for good in ["1", "60", "3600"] {
        assert!(
            try_policies(&text(&format!("@lifetime_seconds_max(\"{good}\")"), "permit")).is_ok(),
            "{good}"
        );
    }
    for bad in ["", "0", "3601", "-1", "+60", " 60", "1.5", "60s", "99999999999999999999"] {
        let refused = refusal(&text(&format!("@lifetime_seconds_max(\"{bad}\")"), "permit"));
        assert_eq!(refused, (1, Problem::InvalidLifetime), "{bad}");
    }
    let forbid = refusal(&text("@lifetime_seconds_max(\"60\")", "forbid"));
    assert_eq!(forbid, (1, Problem::ObligationOnForbid));
    let misspelt = refusal(&text("@lifetime_second_max(\"60\")", "permit"));
    assert_eq!(misspelt, (1, Problem::UnknownAnnotation("lifetime_second_max".to_owned())));
}

#[test]
fn p5_a_policy_is_bounded() {
    let long =
        format!("@id(\"a\") permit (principal, action, resource) // {}\n;", "x".repeat(POLICY_BYTES_MAX));
    assert_eq!(refusal(&long), (1, Problem::TooLong));
    let text = |open: &str, close: &str, depth| {
        let expression = format!("{}true{}", open.repeat(depth), close.repeat(depth));
        format!("@id(\"a\") permit (principal, action, resource) when {{ {expression} }};")
    };
    // The head of a condition is a bracket of its own.
    let allowed = NESTING_MAX - 1;
    for (open, close) in [("(", ")"), ("!(", ")"), ("{a:", "}.a")] {
        let policies = policies(&text(open, close, allowed - allowed % 2));
        assert!(matches!(policies.decide(issue_credential()), Decision::Permit(_)), "{open}");
        assert_eq!(refusal(&text(open, close, allowed + 1)), (1, Problem::TooNested), "{open}");
    }
    policies(&text("if true then ", " else true", 32));
    assert_eq!(refusal(&text("if true then ", " else true", 33)), (1, Problem::TooNested));
    // What nests without brackets and conditionals is bounded by the length, whether it is valid or not.
    for (open, close) in [("", "&&true"), ("true||", ""), ("", "&&1"), ("", ".a"), ("", "+1"), ("", "*1")] {
        let depth = (POLICY_BYTES_MAX - 128) / (open.len() + close.len());
        if let Ok(policies) = try_policies(&text(open, close, depth)) {
            drop(policies.decide(issue_credential()));
        }
    }
}

#[test]
fn p2_the_digest_covers_every_name_and_byte() {
    let digest = |pairs: &[(&str, &str)]| {
        let sources = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Policies::from_sources(&sources).unwrap().digest()
    };
    let base = digest(&[("a.cedar", YES), ("b.cedar", "")]);
    assert_eq!(base, digest(&[("b.cedar", ""), ("a.cedar", YES)]));
    assert_ne!(base, digest(&[("a.cedar", YES), ("c.cedar", "")]));
    assert_ne!(base, digest(&[("a.cedar", YES), ("b.cedar", " ")]));
    assert_ne!(base, digest(&[("a.cedar", ""), ("b.cedar", YES)]));
    assert_ne!(base, digest(&[("a.cedar", YES)]));
}

#[test]
fn a_directory_is_loaded_in_the_order_of_names_and_only_its_policy_files() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| fs::write(directory.path().join(name), text).unwrap();
    assert!(matches!(Policies::load(directory.path()), Err(LoadError::NoFiles(_))));
    assert!(matches!(Policies::load(&directory.path().join("none")), Err(LoadError::Unreadable { .. })));
    write("b.cedar", b"@id(\"no\")\nforbid (principal, action, resource);");
    write("a.cedar", YES.as_bytes());
    write("README", b"not a policy");
    let loaded = Policies::load(directory.path()).unwrap();
    let sources = BTreeMap::from([
        ("a.cedar".to_owned(), YES.to_owned()),
        ("b.cedar".to_owned(), "@id(\"no\")\nforbid (principal, action, resource);".to_owned()),
    ]);
    assert_eq!(loaded.digest(), Policies::from_sources(&sources).unwrap().digest());
    assert_eq!(denial(&loaded, create_task()).evidence.determining[0].file, "b.cedar");
    write("c.cedar", &[0xff]);
    assert!(matches!(Policies::load(directory.path()), Err(LoadError::Unreadable { .. })));
    write("c.cedar", &vec![b' '; crate::FILE_BYTES_MAX + 1]);
    assert!(matches!(Policies::load(directory.path()), Err(LoadError::TooMuch { .. })));
    write("c.cedar", b"");
    assert!(Policies::load(directory.path()).is_ok());
    write("d\ne.cedar", b"");
    assert!(matches!(Policies::load(directory.path()), Err(LoadError::FileName(_))));
}

#[test]
fn what_is_asked_fits_the_schema() {
    let schema = vocabulary::schema().unwrap();
    assert_eq!(schema.actions().count(), OPERATIONS.len());
    let mut asked = BTreeSet::new();
    for request in one_of_each() {
        let facts = Facts::of(&request).unwrap();
        asked.insert(facts.operation);
        let sentence = Sentence::of(facts.operation, facts.resource.0).unwrap();
        let query = sentence.query(&facts).unwrap();
        let entities = cedar_policy::Entities::from(query.entities);
        cedar_policy::Entities::from_entities(entities.iter().cloned(), Some(&schema)).unwrap();
        let request = cedar_policy::Request::from(query.request);
        let [principal, action, resource] =
            [request.principal(), request.action(), request.resource()].map(|uid| uid.unwrap().clone());
        let context = request.context().unwrap().clone();
        cedar_policy::Request::new(principal, action, resource, context, Some(&schema)).unwrap();
    }
    assert_eq!(asked, OPERATIONS.into());
    assert!(Words::at("context.time.hour").is_some(), "every word has a letter");
}
