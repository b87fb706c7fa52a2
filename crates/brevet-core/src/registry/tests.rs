use serde_json::{Value, json};

use super::*;
use crate::ledger::tests::sample::{action, audience, tenant, workload};

/// Two tenants with one of everything each.
fn source() -> Value {
    json!({
        "tenants": [
            {"name": "north", "trust_domains": ["north.example", "polar.example"]},
            {"name": "south", "trust_domains": ["south.example"]},
        ],
        "audiences": [
            {
                "name": "files", "tenant": "north", "enforcers": ["spiffe://north.example/files"],
                "enforcement": "lease", "sensitivity": "high", "actions": ["read", "write"],
            },
            {
                "name": "mail", "tenant": "south", "enforcers": ["spiffe://south.example/mail"],
                "enforcement": "signature", "sensitivity": "low", "actions": ["send"],
            },
        ],
        "agents": [
            {
                "spiffe_id": "spiffe://north.example/agent",
                "scope": [{"audience": "files", "resource": "a/**", "actions": ["read"]}],
                "sensitivity_max": "moderate",
            },
            {"spiffe_id": "spiffe://south.example/agent", "scope": [], "sensitivity_max": "low"},
        ],
        "orchestrators": [
            {
                "spiffe_id": "spiffe://polar.example/orchestrator", "task_types": ["report"],
                "agents": ["spiffe://north.example/agent"],
            },
        ],
        "operators": [
            {
                "name": "ann", "identities": ["spiffe://north.example/ann", "spiffe://polar.example/ann"],
                "roles": ["stopper", "auditor"],
            },
        ],
    })
}

fn registry(source: Value) -> Result<Registry, InvalidRegistry> {
    Registry::new(serde_json::from_value(source).unwrap())
}

/// The source with something put in the place of a JSON pointer's target, or at the end of the list there.
fn with(pointer: &str, value: Value) -> Value {
    let mut source = source();
    match source.pointer_mut(pointer).unwrap() {
        Value::Array(list) => list.push(value),
        place => *place = value,
    }
    source
}

fn twice(pointer: &str) -> Value {
    let mut source = source();
    let list = source.pointer_mut(pointer).unwrap().as_array_mut().unwrap();
    list.push(list[0].clone());
    source
}

#[test]
fn the_first_entry_that_does_not_fit_the_others_is_named() {
    let duplicate = |kind, name: &str| InvalidRegistry::Duplicate { kind, name: name.into() };
    let unassigned = |id: &str| InvalidRegistry::UnassignedTrustDomain(workload(id));
    let agent = "spiffe://north.example/agent";
    let other_audience = |name: &str| json!({"audience": name, "resource": "a", "actions": ["read"]});
    for (source, expected) in [
        (with("/tenants", json!({"name": "south", "trust_domains": []})), duplicate("tenant", "south")),
        (
            with("/tenants", json!({"name": "east", "trust_domains": ["south.example"]})),
            duplicate("trust domain", "south.example"),
        ),
        (twice("/audiences"), duplicate("audience", "files")),
        (twice("/agents"), duplicate("agent", agent)),
        (twice("/orchestrators"), duplicate("orchestrator", "spiffe://polar.example/orchestrator")),
        (
            with("/operators", json!({"name": "ann", "identities": [], "roles": []})),
            duplicate("operator", "ann"),
        ),
        (
            with("/audiences/0/tenant", json!("east")),
            InvalidRegistry::UnknownTenant { audience: audience("files"), tenant: tenant("east") },
        ),
        (with("/audiences/0/enforcers", json!("spiffe://east.example/e")), unassigned("east.example/e")),
        (with("/agents/1/spiffe_id", json!("spiffe://east.example/a")), unassigned("east.example/a")),
        (with("/orchestrators/0/spiffe_id", json!("spiffe://east.example/o")), unassigned("east.example/o")),
        (with("/operators/0/identities", json!("spiffe://east.example/p")), unassigned("east.example/p")),
        (
            with("/agents/0/scope", other_audience("nowhere")),
            InvalidRegistry::UnknownAudience {
                name: workload("north.example/agent"),
                audience: audience("nowhere"),
            },
        ),
        (
            with("/agents/0/scope", other_audience("mail")),
            InvalidRegistry::UnknownAudience {
                name: workload("north.example/agent"),
                audience: audience("mail"),
            },
        ),
        (
            with("/agents/0/scope/0/actions", json!("delete")),
            InvalidRegistry::UnknownAction {
                name: workload("north.example/agent"),
                audience: audience("files"),
                action: action("delete"),
            },
        ),
        (
            with("/orchestrators/0/agents", json!("spiffe://north.example/nobody")),
            InvalidRegistry::UnknownAgent {
                orchestrator: workload("polar.example/orchestrator"),
                agent: workload("north.example/nobody"),
            },
        ),
        (
            with(
                "/operators",
                json!({"name": "bob", "identities": ["spiffe://polar.example/ann"], "roles": []}),
            ),
            InvalidRegistry::SharedIdentity(workload("polar.example/ann")),
        ),
    ] {
        assert_eq!(registry(source.clone()).unwrap_err(), expected, "{source:#}");
    }
    assert!(registry(source()).is_ok());
}

#[test]
fn what_the_registry_does_not_know_is_not_read() {
    for pointer in ["", "/tenants/0", "/audiences/0", "/agents/0", "/orchestrators/0", "/operators/0"] {
        let mut source = source();
        source.pointer_mut(pointer).unwrap()["extra"] = json!(1);
        assert!(serde_json::from_value::<RegistrySource>(source).is_err(), "{pointer}");
    }
}

#[test]
fn a_workload_belongs_to_the_tenant_of_its_trust_domain_and_a_strangers_to_none() {
    let registry = registry(source()).unwrap();
    let tenant_of = |id| registry.tenant_of(&workload(id)).map(TenantName::as_str);
    assert_eq!(tenant_of("north.example/any"), Some("north"));
    assert_eq!(tenant_of("polar.example"), Some("north"));
    assert_eq!(tenant_of("south.example/any"), Some("south"));
    assert_eq!(tenant_of("sub.north.example/any"), None);
    assert_eq!(tenant_of("east.example/north.example"), None);
}

#[test]
fn where_no_tenant_is_configured_there_is_one_of_every_trust_domain() {
    let registry = registry(json!({
        "audiences": [{
            "name": "files", "enforcers": ["spiffe://a/files"], "enforcement": "action",
            "sensitivity": "low", "actions": ["read"],
        }],
    }))
    .unwrap();
    let default = TenantName::default();
    for id in ["a/x", "b", "c.example/y"] {
        assert_eq!(registry.tenant_of(&workload(id)), Some(&default));
    }
    assert!(registry.audience(&default, &audience("files")).is_some());
    let configured = with("/audiences/0/tenant", json!("default"));
    assert!(
        matches!(self::registry(configured), Err(InvalidRegistry::UnknownTenant { .. })),
        "with tenants, `default` is one only if it is among them"
    );
}

#[test]
fn t7_an_audience_is_seen_in_its_tenant_alone() {
    let registry = registry(source()).unwrap();
    assert!(registry.audience(&tenant("north"), &audience("files")).is_some());
    assert!(registry.audience(&tenant("south"), &audience("files")).is_none());
    assert!(registry.audience(&tenant("north"), &audience("mail")).is_none());
    assert!(registry.audience(&tenant("north"), &audience("nowhere")).is_none());
}

#[test]
fn t7_a_workload_enforces_the_audiences_that_name_it_and_no_other() {
    let registry = registry(source()).unwrap();
    let enforces = |id, name| registry.enforces(&workload(id), &audience(name));
    assert!(enforces("north.example/files", "files"));
    assert!(enforces("south.example/mail", "mail"));
    assert!(!enforces("north.example/files", "mail"));
    assert!(!enforces("north.example/files/sub", "files"));
    assert!(!enforces("north.example/agent", "files"));
    assert!(!enforces("north.example/files", "nowhere"));
}

#[test]
fn roles_come_from_the_registry_and_nobody_has_one_by_default() {
    let registry = registry(source()).unwrap();
    let roles = |id| registry.roles(&workload(id)).into_iter().collect::<Vec<_>>();
    assert_eq!(roles("north.example/agent"), [Role::Agent]);
    assert_eq!(roles("polar.example/orchestrator"), [Role::Orchestrator]);
    assert_eq!(roles("north.example/files"), [Role::Enforcer]);
    assert_eq!(roles("polar.example/ann"), [Role::Stopper, Role::Auditor]);
    assert_eq!(roles("north.example/nobody"), []);
    assert_eq!(roles("north.example/agent/below"), []);
    assert_eq!(registry.operator(&workload("north.example/ann")).unwrap().name.as_str(), "ann");
    assert!(registry.agent(&workload("polar.example/orchestrator")).is_none());
    assert!(registry.orchestrator(&workload("north.example/agent")).is_none());

    // A person is no workload's part, even if their entry says so; one identity may play several parts.
    let several = with("/operators/0/identities", json!("spiffe://north.example/agent"));
    let mut several = several;
    several["operators"][0]["roles"] = json!(["agent", "orchestrator", "enforcer", "author"]);
    let registry = self::registry(several).unwrap();
    let roles = |id| registry.roles(&workload(id)).into_iter().collect::<Vec<_>>();
    assert_eq!(roles("north.example/ann"), [Role::Author]);
    assert_eq!(roles("north.example/agent"), [Role::Agent, Role::Author]);
}

#[test]
fn the_digest_changes_with_anything_registered() {
    let before = registry(source()).unwrap().digest();
    assert_eq!(registry(source()).unwrap().digest(), before);
    for changed in [
        with("/tenants/0/trust_domains", json!("more.example")),
        with("/audiences/0/sensitivity", json!("critical")),
        with("/audiences/0/actions", json!("delete")),
        with("/agents/0/sensitivity_max", json!("high")),
        with("/orchestrators/0/task_types", json!("other")),
        with("/operators/0/roles", json!("author")),
    ] {
        assert_ne!(registry(changed.clone()).unwrap().digest(), before, "{changed:#}");
    }
}

#[test]
fn names_are_the_same_in_code_and_in_json() {
    use Role::{Agent, Approver, Auditor, Author, Enforcer, KeyOfficer, Orchestrator, Stopper};
    for role in [Agent, Orchestrator, Enforcer, Author, Approver, Stopper, Auditor, KeyOfficer] {
        assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        assert_eq!(role.is_operator(), !matches!(role, Agent | Orchestrator | Enforcer));
    }
    for enforcement in [Enforcement::Action, Enforcement::Lease, Enforcement::Signature] {
        assert_eq!(serde_json::to_value(enforcement).unwrap(), enforcement.as_str());
    }
    assert_eq!(Enforcement::Action.lifetime_max(), None);
    assert_eq!(Enforcement::Lease.lifetime_max(), None);
    assert_eq!(Enforcement::Signature.lifetime_max(), Some(Duration::from_secs(60)));
}
