use super::*;
use PromptOrigin::{Retrieved, System, ToolOutput, Untrusted, User};

const ORIGINS: [PromptOrigin; 5] = [System, User, Retrieved, ToolOutput, Untrusted];

/// Rows: what the orchestrator said, nothing first. Columns: what the agent said, nothing first.
#[test]
fn the_agent_can_only_worsen_the_origin_of_its_prompt() {
    let table = [
        (None, [Untrusted, Untrusted, Untrusted, Untrusted, Untrusted, Untrusted]),
        (Some(System), [System, System, User, Retrieved, ToolOutput, Untrusted]),
        (Some(User), [User, User, User, Retrieved, ToolOutput, Untrusted]),
        (Some(Retrieved), [Retrieved, Retrieved, Retrieved, Retrieved, ToolOutput, Untrusted]),
        (Some(ToolOutput), [ToolOutput, ToolOutput, ToolOutput, ToolOutput, ToolOutput, Untrusted]),
        (Some(Untrusted), [Untrusted, Untrusted, Untrusted, Untrusted, Untrusted, Untrusted]),
    ];
    for (by_orchestrator, row) in table {
        let said = std::iter::once(None).chain(ORIGINS.map(Some));
        for (by_agent, expected) in said.zip(row) {
            let judged = PromptOrigin::judged(by_orchestrator, by_agent);
            assert_eq!(judged, expected, "{by_orchestrator:?} {by_agent:?}");
            assert!(judged >= PromptOrigin::judged(by_orchestrator, None));
        }
    }
}

#[test]
fn levels_grow_with_what_is_worse() {
    assert_eq!(ORIGINS.map(PromptOrigin::level), [0, 1, 2, 3, 4]);
    use Sensitivity::{Critical, High, Low, Moderate};
    assert_eq!([Low, Moderate, High, Critical].map(Sensitivity::level), [0, 1, 2, 3]);
    assert!(Low < Moderate && Moderate < High && High < Critical);
}

/// Policies, logs and the journal name these; the names are part of the format.
#[test]
fn names_are_the_same_in_code_and_in_json() {
    use OperatorCall as Call;
    let calls = [
        Call::ListLeases,
        Call::RevokeLeases,
        Call::ListLocks,
        Call::CreateLock,
        Call::LiftLock,
        Call::ListEvents,
    ];
    for call in calls {
        assert_eq!(serde_json::to_value(call).unwrap(), call.operation().as_str());
    }
    let of_tasks = [
        Operation::CreateTask,
        Operation::DelegateTask,
        Operation::IssueCredential,
        Operation::RenewCredential,
    ];
    for operation in of_tasks.into_iter().chain(calls.map(Call::operation)) {
        assert_eq!(serde_json::to_value(operation).unwrap(), operation.as_str());
        assert_eq!(operation.to_string(), operation.as_str());
    }
    assert_eq!(serde_json::to_value(Verification::X509Svid).unwrap(), Verification::X509Svid.as_str());
    let names = ["system", "user", "retrieved", "tool_output", "untrusted"];
    for (origin, name) in ORIGINS.into_iter().zip(names) {
        assert_eq!(serde_json::to_value(origin).unwrap(), name);
    }
}
