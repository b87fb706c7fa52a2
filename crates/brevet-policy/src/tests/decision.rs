//! Decisions: default deny, failing policies, obligations, evidence.

use std::time::Duration;

use brevet_core::fact::DenialCause;
use brevet_core::request::{DeterminingPolicy, Obligations};

use super::*;

/// Fails by overflow for every caller that was verified at least two seconds ago, and holds for no other.
const FAILS: &str = "when { context.caller.verified_age_seconds * 9223372036854775807 < 0 }";
const PERMIT: &str = "@id(\"yes\") permit (principal, action, resource);\n";

const BY_NAME: &str = "@id(\"named\") permit (principal, action, resource is Brevet::Audience)
    when { context.credential.profile == \"jwt_svid\" };\n";

fn permit(policies: &Policies, request: Request) -> brevet_core::proof::Permit {
    match policies.decide(request) {
        Decision::Permit(permit) => permit,
        Decision::Deny(denial) => panic!("denied: {denial:?}"),
    }
}

#[test]
fn what_nothing_permits_is_denied() {
    let none = Policies::from_sources(&BTreeMap::new()).unwrap();
    for request in one_of_each() {
        let denial = denial(&none, request);
        assert_eq!(denial.cause, DenialCause::NoPermit);
        assert_eq!(determining(&denial), [""; 0]);
    }
}

#[test]
fn a_forbid_outweighs_every_permit_and_is_named_with_its_place() {
    let policies = policies(&format!(
        "// First.\n\n{PERMIT}\n// Why.\n@id(\"no\")\nforbid (principal, action, resource);"
    ));
    let denial = denial(&policies, issue_credential());
    assert_eq!(denial.cause, DenialCause::Forbidden);
    let place = DeterminingPolicy { id: "no".to_owned(), file: "test.cedar".to_owned(), line: 6 };
    assert_eq!(*denial.evidence.determining, [place]);
    assert_eq!(denial.evidence.policy, policies.digest());
}

#[test]
fn p4_a_failing_forbid_denies() {
    let policies = policies(&format!("{PERMIT}@id(\"no\") forbid (principal, action, resource) {FAILS};"));
    let denial = denial(&policies, issue_credential());
    assert_eq!(denial.cause, DenialCause::EvaluationError);
    assert_eq!(determining(&denial), ["no"]);
    let mut young = issue_credential();
    young.caller.verified_age_seconds = 1;
    permit(&policies, young);
}

#[test]
fn p4_a_failing_permit_denies_beside_one_that_permits_and_all_failures_are_named() {
    let policies = policies(&format!(
        "{PERMIT}@id(\"b\") permit (principal, action, resource) {FAILS};
         @id(\"a\") permit (principal == Brevet::Workload::\"{AGENT}\", action, resource) {FAILS};
         @id(\"no\") forbid (principal, action, resource);"
    ));
    let denial = denial(&policies, issue_credential());
    assert_eq!(denial.cause, DenialCause::EvaluationError);
    assert_eq!(determining(&denial), ["a", "b"]);
}

#[test]
fn p4_an_attribute_of_an_entity_that_is_not_in_the_request_denies() {
    let policies = policies(&format!(
        "{PERMIT}@id(\"no\") forbid (principal, action, resource)
           when {{ Brevet::Audience::\"ledger\".enforcement == \"action\" }};"
    ));
    let denial = denial(&policies, issue_credential());
    assert_eq!(denial.cause, DenialCause::EvaluationError);
    assert_eq!(determining(&denial), ["no"]);
    permit(&policies, issue_for("ledger", Enforcement::Lease, Sensitivity::Low));
}

#[test]
fn p4_a_jwt_svid_is_permitted_by_policies_that_name_it_and_by_no_other() {
    let asked = || issue_jwt_svid("files", Enforcement::Lease, Sensitivity::Moderate);
    let of_audience = "principal, action, resource == Brevet::Audience::\"files\"";
    for condition in [
        "",
        "when { resource.enforcement == \"lease\" }",
        "when { context.credential.profile != \"x509_svid\" }",
        "when { context.credential.profile like \"jwt_*\" }",
        "unless { context.credential.profile == \"task_token\" }",
    ] {
        let policies = policies(&format!("@id(\"a\") permit ({of_audience}) {condition};"));
        // What was said of a task token that no condition tells from it is not recalled for it.
        let task_token = || issue_for("files", Enforcement::Lease, Sensitivity::Moderate);
        for earlier in [task_token(), renewal(task_token())] {
            let _verdict = policies.decide(earlier);
        }
        for request in [asked(), renewal(asked())] {
            let denial = denial(&policies, request);
            assert_eq!(denial.cause, DenialCause::NoPermit, "{condition}");
            assert_eq!(determining(&denial), [""; 0]);
        }
    }
    for condition in [
        "when { context.credential.profile == \"jwt_svid\" }",
        "when { [\"task_token\", \"jwt_svid\"].contains(context.credential.profile) }",
        "when { context.credential == { profile: \"jwt_svid\", lifetime_seconds: 600, actions: context.credential.actions, resources: context.credential.resources } }",
    ] {
        let policies = policies(&format!("@id(\"a\") permit ({of_audience}) {condition};"));
        for request in [asked(), renewal(asked())] {
            assert_eq!(permit(&policies, request).evidence().determining.len(), 1, "{condition}");
        }
    }
    // To name it is not enough, and a policy that does not name it adds nothing: no permit, and no obligation either.
    let only_others = policies(&format!(
        "@id(\"a\") permit ({of_audience}) unless {{ context.credential.profile == \"jwt_svid\" }};"
    ));
    assert_eq!(denial(&only_others, asked()).cause, DenialCause::NoPermit);
    let both = policies(&format!(
        "@id(\"all\") @lifetime_seconds_max(\"60\") permit (principal, action, resource);\n{BY_NAME}"
    ));
    let permit = permit(&both, asked());
    assert_eq!(permit.lifetime_max(), None);
    let determining: Vec<&str> =
        permit.evidence().determining.iter().map(|policy| policy.id.as_str()).collect();
    assert_eq!(determining, ["named"]);
    // A forbid needs no name.
    let forbidden = policies(&format!("{BY_NAME}@id(\"no\") forbid ({of_audience});"));
    assert_eq!(denial(&forbidden, asked()).cause, DenialCause::Forbidden);
}

#[test]
fn p4_a_request_without_what_its_action_always_has_is_denied() {
    let policies = policies(&format!("{PERMIT}{BY_NAME}"));
    for request in one_of_each() {
        permit(&policies, request);
    }
    for call in [OperatorCall::RevokeLeases, OperatorCall::CreateLock, OperatorCall::LiftLock] {
        let mut aimless = operate(call, Role::Stopper);
        aimless.ask = Ask::Operate { call, tenant: TenantName::default(), selector: None };
        assert_eq!(denial(&policies, aimless).cause, DenialCause::EvaluationError);
    }
    let mut orphan = delegate_task();
    about(&mut orphan).task.chain.remove(0);
    assert_eq!(denial(&policies, orphan).cause, DenialCause::EvaluationError);
}

#[test]
fn p4_a_word_is_said_however_a_policy_reads_it() {
    for condition in [
        "if context.task.depth > 0 then false else context.task.sensitivity_max.level == 1",
        "context.task.sensitivity_max == { level: 1, name: \"moderate\" }",
        "(if context.task.depth > 0 then principal else resource).spiffe_id like \"*reader\"",
        "(if context.task.depth > 0 then context.task else context.task).purpose == \"quarterly-report\"",
        "[context.prompt_origin].contains({ level: 1, name: \"user\" })",
        "{ who: principal }.who.roles.contains(\"agent\")",
        "principal has path && context has caller.verified && context.caller.verified == \"x509_svid\"",
        "[principal, resource].contains(principal) && !(principal is Brevet::Workload && principal == resource)",
        "Brevet::Workload::\"spiffe://example.org/agent/reader\".path == \"/agent/reader\"",
        "context == context && context.time == context.time",
    ] {
        let head = "principal, action == Brevet::Action::\"DelegateTask\", resource";
        let policies = policies(&format!("@id(\"a\") permit ({head}) when {{ {condition} }};"));
        let mut request = delegate_task();
        about(&mut request).task.depth =
            u8::from(condition.contains("(if context.task.depth > 0 then context"));
        permit(&policies, request);
    }
}

#[test]
fn p4_an_agent_that_delegates_to_itself_is_one_entity() {
    let policies = policies(
        "@id(\"a\") permit (principal, action, resource) when { principal.roles.contains(\"agent\") };
         @id(\"b\") permit (principal, action == Brevet::Action::\"DelegateTask\", resource)
           when { resource.path == principal.path };",
    );
    permit(&policies, delegate_to(AGENT));
}

#[test]
fn p4_an_origin_that_nobody_vouches_for_is_the_worst() {
    let policies = policies(
        "@id(\"a\") permit (principal, action == Brevet::Action::\"IssueCredential\", resource)
           when { context.prompt_origin.name == \"user\" };",
    );
    permit(&policies, issue_credential());
    let mut silent = issue_credential();
    about(&mut silent).prompt_origin = PromptOrigin::judged(None, Some(PromptOrigin::System));
    assert_eq!(denial(&policies, silent).cause, DenialCause::NoPermit);
}

#[test]
fn the_shortest_life_that_any_permit_obliges_to_binds() {
    let policies = policies(
        "@id(\"a\") @lifetime_seconds_max(\"300\") permit (principal, action, resource);
         @id(\"b\") @lifetime_seconds_max(\"60\") permit (principal is Brevet::Workload, action, resource);
         @id(\"c\") permit (principal, action, resource);
         @id(\"d\") @lifetime_seconds_max(\"1\") permit (principal, action, resource)
           when { context.caller.verified_age_seconds > 12 };",
    );
    let permit = permit(&policies, issue_credential());
    assert_eq!(permit.lifetime_max(), Some(Duration::from_secs(60)));
    assert_ne!(Obligations::default().lifetime_max, permit.lifetime_max());
    let ids: Vec<&str> = permit.evidence().determining.iter().map(|policy| policy.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
}

#[test]
fn p1_the_same_request_leaves_the_same_evidence() {
    let policies = policies(
        &(0..20)
            .map(|n| format!("@id(\"p{n}\") permit (principal, action, resource);\n"))
            .collect::<String>(),
    );
    let evidence = |request| serde_json::to_string(permit(&policies, request).evidence()).unwrap();
    assert_eq!(evidence(issue_credential()), evidence(issue_credential()));
    let again = serde_json::from_str(&serde_json::to_string(&issue_credential()).unwrap()).unwrap();
    assert_eq!(evidence(issue_credential()), evidence(again));
}

#[test]
fn p2_a_decision_names_the_policies_it_was_made_under() {
    let (old, new) = (policies(PERMIT), policies(&format!("{PERMIT}// A new comment.\n")));
    assert_ne!(old.digest(), new.digest());
    assert_eq!(permit(&old, create_task()).policy(), old.digest());
    assert_eq!(permit(&new, create_task()).policy(), new.digest());
}

#[test]
fn every_word_of_the_vocabulary_is_said_as_the_request_has_it() {
    let policies = policies(&format!(
        r#"@id("workload") permit (principal == Brevet::Workload::"{AGENT}", action, resource) when {{
             principal.spiffe_id == "{AGENT}" && principal.trust_domain == "example.org" &&
             principal.path == "/agent/researcher" && principal.tenant == "default" &&
             principal.roles == ["agent"]
           }};
           @id("call") permit (principal, action, resource) when {{
             context.caller.verified == "x509_svid" && context.caller.verified_age_seconds == 12 &&
             context.time == {{ unix_seconds: 1795350896, weekday: 7, hour: 12 }}
           }};
           @id("context") permit (principal, action in [
             Brevet::Action::"CreateTask", Brevet::Action::"IssueCredential", Brevet::Action::"RenewCredential"
           ], resource) when {{
             context.task.type == "research" && context.task.purpose == "quarterly-report" &&
             context.task.sensitivity_max == {{ level: 1, name: "moderate" }} &&
             context.task.agent == "{AGENT}" && context.task.opener == "{ORCHESTRATOR}" &&
             context.task.delegator == "spiffe://example.org/people/ada" && context.task.chain == ["{AGENT}"] &&
             context.task.ancestors.isEmpty() && context.task.depth == 0 && context.task.age_seconds == 30 &&
             context.task.remaining_seconds == 3570 && context.task.leases_live == 1 &&
             context.scope.audiences == ["files"] && context.prompt_origin == {{ level: 1, name: "user" }}
           }};
           @id("task-type") permit (principal, action, resource == Brevet::TaskType::"research");
           @id("delegate") permit (
             principal, action == Brevet::Action::"DelegateTask", resource == Brevet::Workload::"{DELEGATE}"
           ) when {{
             resource.spiffe_id == "{DELEGATE}" && resource.trust_domain == "example.org" &&
             resource.path == "/agent/reader" && resource.tenant == "default" && resource.roles == ["agent"] &&
             context.parent.agent == "{AGENT}" && context.task.agent == "{DELEGATE}" &&
             context.task.chain == ["{AGENT}", "{DELEGATE}"] && context.task.ancestors == ["{AGENT}"]
           }};
           @id("audience") permit (
             principal,
             action in [Brevet::Action::"IssueCredential", Brevet::Action::"RenewCredential"],
             resource == Brevet::Audience::"files"
           ) when {{
             resource.enforcement == "lease" && resource.sensitivity == {{ level: 1, name: "moderate" }} &&
             context.credential.profile == "task_token" && context.credential.lifetime_seconds == 600 &&
             context.credential.actions == ["read", "list"] && context.credential.resources == ["reports/**"]
           }};
           @id("trust-domain") permit (
             principal, action, resource == Brevet::TrustDomain::"{TRUST_DOMAIN}"
           ) when {{
             context.credential.profile == "x509_svid" && context.credential.lifetime_seconds == 600 &&
             context.credential.actions.isEmpty() && context.credential.resources.isEmpty()
           }};
           @id("tenant") permit (principal, action, resource == Brevet::Tenant::"default")
             when {{ resource.name == "default" }};
           @id("selector") permit (principal, action in [
             Brevet::Action::"RevokeLeases", Brevet::Action::"CreateLock", Brevet::Action::"LiftLock"
           ], resource) when {{ context.selector.kind == "everything" }};"#
    ));
    let ids = |request| -> Vec<String> {
        permit(&policies, request).evidence().determining.iter().map(|policy| policy.id.clone()).collect()
    };
    assert_eq!(ids(create_task()), ["call", "context", "task-type"]);
    assert_eq!(ids(delegate_task()), ["call", "delegate", "workload"]);
    for form in [|request| request, renewal] {
        assert_eq!(ids(form(issue_credential())), ["audience", "call", "context", "workload"]);
        assert_eq!(ids(form(issue_svid())), ["call", "context", "trust-domain", "workload"]);
    }
    for call in [OperatorCall::ListLeases, OperatorCall::ListLocks, OperatorCall::ListEvents] {
        assert_eq!(ids(operate(call, Role::Auditor)), ["call", "tenant"]);
    }
    for call in [OperatorCall::RevokeLeases, OperatorCall::CreateLock, OperatorCall::LiftLock] {
        assert_eq!(ids(operate(call, Role::Stopper)), ["call", "selector", "tenant"]);
    }
}
