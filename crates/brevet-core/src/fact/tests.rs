use super::*;

#[test]
fn a_reason_is_a_short_code_and_never_free_text() {
    for good in ["a", "task_ended", "0_9", &"x".repeat(64)] {
        assert_eq!(ReasonCode::parse(good).unwrap().as_str(), good);
    }
    for bad in ["", "A", "a b", "a-b", "a\n", "caf\u{e9}", "a\u{202e}", &"x".repeat(65)] {
        assert_eq!(ReasonCode::parse(bad), Err(InvalidReasonCode), "{bad:?}");
        assert!(serde_json::from_value::<ReasonCode>(bad.into()).is_err(), "{bad:?}");
    }
}

#[test]
fn the_reasons_of_our_own_fit_the_grammar() {
    use crate::ledger::{REASON_EXPIRED, REASON_LOCKED, REASON_TASK_ENDED};
    for reason in [REASON_EXPIRED, REASON_LOCKED, REASON_TASK_ENDED] {
        assert_eq!(ReasonCode::parse(reason.as_str()), Ok(reason));
    }
}

#[test]
fn the_kinds_are_the_names_that_records_have() {
    let unknown = serde_json::from_str::<Fact>(r#"{"type":"?"}"#).unwrap_err().to_string();
    let named: Vec<&str> = unknown.split('`').skip(3).step_by(2).collect();
    assert_eq!(named, Fact::KINDS);

    let started = Fact::Started { version: "1".to_owned(), replayed: Revision(1), clock_behind: false };
    let denied = Fact::Denied {
        operation: DeniedOperation::Method("GetTask".to_owned()),
        reason: ReasonCode::of("not_found"),
        cause: None,
        uid: None,
    };
    for fact in [Fact::Stopped, started, denied] {
        assert_eq!(serde_json::to_value(&fact).unwrap()["type"], fact.kind());
    }
}
