//! The lists of errors in the `.proto` files, to which every refusal that these tests see is held.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use tonic::Code;

/// The comment of each method, and under the empty name that of all of them.
static ERRORS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let mut errors = BTreeMap::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/brevet/v1");
    for entry in fs::read_dir(folder).unwrap() {
        let mut comment = String::new();
        for line in fs::read_to_string(entry.unwrap().path()).unwrap().lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("//") {
                comment = comment + text.strip_prefix(' ').unwrap_or(text) + "\n";
                continue;
            }
            if comment.contains("\nErrors of every method:") {
                errors.insert(String::new(), comment.clone());
            }
            if let Some(method) = line.strip_prefix("rpc ") {
                errors.insert(method.split('(').next().unwrap().to_owned(), comment.clone());
            }
            comment.clear();
        }
    }
    assert!(errors.len() > 20, "the methods were not found");
    errors
});

/// Whether a method's list, or that of all methods, has this reason under this code.
fn lists(method: &str, code: &str, reason: &str) -> bool {
    let Some(comment) = ERRORS.get(method) else { return false };
    let list = comment.split_once("Errors").map_or("", |(_, list)| list);
    list.split("\n- ").skip(1).filter_map(|entry| entry.split_once(": ")).any(|(listed, reasons)| {
        let mut words =
            reasons.split(|it: char| !it.is_ascii_uppercase() && !it.is_ascii_digit() && it != '_');
        listed == code && words.any(|word| word == reason)
    })
}

/// What a method answers is what its documentation says that it may.
#[track_caller]
pub(crate) fn assert_documented(method: &str, code: Code, reason: &str) {
    let code = match code {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Unavailable => "UNAVAILABLE",
        Code::Unauthenticated => "UNAUTHENTICATED",
        other => panic!("{method} answers {other:?}, which is none of ours"),
    };
    let is_listed = lists("", code, reason) || lists(method, code, reason);
    assert!(is_listed, "the .proto files do not say that {method} answers {code} for {reason}");
}

#[test]
fn what_is_not_listed_is_found_out() {
    assert!(lists("CreateTask", "ALREADY_EXISTS", "REQUEST_ID_REUSED"));
    assert!(lists("", "UNAUTHENTICATED", "UNAUTHENTICATED"));
    for (method, code, reason) in [
        ("CreateTask", "ALREADY_EXISTS", "REQUEST_ID"),
        ("CreateTask", "NOT_FOUND", "REQUEST_ID_REUSED"),
        ("GetTask", "ALREADY_EXISTS", "REQUEST_ID_REUSED"),
        ("NoTask", "NOT_FOUND", "NOT_FOUND"),
    ] {
        assert!(!lists(method, code, reason), "{method} {code} {reason}");
    }
}
