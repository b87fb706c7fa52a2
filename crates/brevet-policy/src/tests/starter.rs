//! The policies in `deploy/policies`: what they permit, and that each of them matters.

use std::path::Path;
use std::time::Duration;

use brevet_core::registry::{Enforcement, Role};
use brevet_core::request::{PromptOrigin, Request, Sensitivity};

use super::*;
use crate::load::{self, Loaded};
use crate::source::pieces;

/// What a scenario comes to: the longest life of what is permitted, or the denial with its policies.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Permitted { lifetime_max: Option<Duration> },
    Denied { by: Vec<String> },
}

fn outcome(policies: &Policies, request: Request) -> Outcome {
    match policies.decide(request) {
        Decision::Permit(permit) => Outcome::Permitted { lifetime_max: permit.lifetime_max() },
        Decision::Deny(denial) => {
            Outcome::Denied { by: determining(&denial).into_iter().map(str::to_owned).collect() }
        }
    }
}

fn permitted(lifetime_seconds_max: Option<u64>) -> Outcome {
    Outcome::Permitted { lifetime_max: lifetime_seconds_max.map(Duration::from_secs) }
}

fn denied_by(id: &str) -> Outcome {
    Outcome::Denied { by: vec![id.to_owned()] }
}

fn sources() -> BTreeMap<String, String> {
    load::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/policies")).unwrap()
}

/// For each shipped policy an ordinary request that shows it: its id, the request, what comes of it.
fn scenarios() -> Vec<(&'static str, Request, Outcome)> {
    let within = |ceiling, mut request: Request| {
        request.task.sensitivity_max = ceiling;
        request
    };
    let ledger = || issue_for("ledger", Enforcement::Action, Sensitivity::High);
    let mut injected = within(Sensitivity::High, ledger());
    injected.prompt_origin = PromptOrigin::ToolOutput;
    vec![
        ("orchestrators-create-tasks", create_task(), permitted(None)),
        ("task-tokens", issue_credential(), permitted(None)),
        ("task-tokens-high-sensitivity", within(Sensitivity::High, ledger()), permitted(Some(300))),
        (
            "task-tokens-signature-only",
            issue_for("weather", Enforcement::Signature, Sensitivity::Low),
            permitted(Some(60)),
        ),
        ("guard-agent-and-ceiling", ledger(), denied_by("guard-agent-and-ceiling")),
        ("guard-prompt-origin", injected, denied_by("guard-prompt-origin")),
        (
            "guard-signature-only",
            issue_for("crm", Enforcement::Signature, Sensitivity::Moderate),
            denied_by("guard-signature-only"),
        ),
    ]
}

#[test]
fn every_shipped_policy_has_a_scenario_that_differs_without_it() {
    let sources = sources();
    let shipped = Policies::from_sources(&sources).unwrap();
    let Loaded { provenance, .. } = load::parse(&sources).unwrap();
    let scenarios = scenarios();
    assert_eq!(scenarios.len(), provenance.len());
    for (id, request, expected) in scenarios {
        assert_eq!(outcome(&shipped, request.clone()), expected, "{id}");
        let mut fewer = sources.clone();
        let annotation = format!("@id(\"{id}\")");
        let text = fewer.values_mut().find(|text| text.contains(&annotation)).unwrap();
        let piece = pieces(text).find(|piece| piece.text.contains(&annotation)).unwrap().text.to_owned();
        *text = text.replacen(&piece, "", 1);
        let without = Policies::from_sources(&fewer).unwrap();
        assert_ne!(outcome(&without, request), expected, "{id} makes no difference");
    }
}

#[test]
fn an_agent_opens_no_task_and_nobody_else_draws_its_credential() {
    let shipped = Policies::from_sources(&sources()).unwrap();
    let mut opening = create_task();
    opening.caller = caller(AGENT, Role::Agent);
    assert_eq!(outcome(&shipped, opening), Outcome::Denied { by: vec![] });
    let other = "spiffe://example.org/agent/other";
    for (spiffe_id, role) in
        [(ORCHESTRATOR, Role::Orchestrator), (other, Role::Agent), (AGENT, Role::Enforcer)]
    {
        let mut drawing = issue_credential();
        drawing.caller = caller(spiffe_id, role);
        assert_eq!(outcome(&shipped, drawing), denied_by("guard-agent-and-ceiling"), "{spiffe_id}");
    }
}

#[test]
fn the_limits_of_age_and_depth_are_exact() {
    let shipped = Policies::from_sources(&sources()).unwrap();
    let with = |age, depth| {
        let mut request = issue_credential();
        request.caller.verified_age_seconds = age;
        request.task.depth = depth;
        outcome(&shipped, request)
    };
    assert_eq!(with(3_600, 5), permitted(None));
    assert_eq!(with(3_601, 5), denied_by("guard-agent-and-ceiling"));
    assert_eq!(with(3_600, 6), denied_by("guard-agent-and-ceiling"));
    assert_eq!(with(u64::MAX, 0), denied_by("guard-agent-and-ceiling"));
}
