use super::*;
use crate::ledger::tests::sample::*;

/// A party to each hop: the agent, the delegator and the opener.
type Parties = [&'static str; 3];

const PARTIES: Parties = ["td/agents/a", "td/people/ann", "td/orchestrator"];

/// Whether a task is stopped that lies at the end of the chain of the tasks 1, 2, … with these parties.
fn stops_chain(selector: &Selector, chain: &[Parties]) -> bool {
    let ids: Vec<SpiffeId> = chain.iter().flatten().map(|party| workload(party)).collect();
    let hops = ids.chunks(3).zip(1..).map(|(parties, number)| Hop {
        node: id(number),
        agent: &parties[0],
        delegator: &parties[1],
        opener: &parties[2],
    });
    let last = chain.len() as u128;
    selector.stops_task(if last == 1 { root(1) } else { child(1, last) }, hops)
}

fn stops_agent(selector: &Selector, agent: &'static str) -> bool {
    let [_, delegator, opener] = PARTIES;
    stops_chain(selector, &[[agent, delegator, opener]])
}

fn stops_lease(selector: &Selector, permissions: &[&str]) -> bool {
    selector.stops_terms(&terms_for(root(1), 9, permissions))
}

#[test]
fn a_lock_on_a_task_stops_it_and_what_is_below_it() {
    let chain = [PARTIES; 3];
    assert!(stops_chain(&Selector::Task(root(1)), &chain[..1]));
    assert!(stops_chain(&Selector::Task(root(1)), &chain));
    assert!(stops_chain(&Selector::Task(child(1, 2)), &chain));
    assert!(stops_chain(&Selector::Task(child(1, 2)), &chain[..2]));
    assert!(!stops_chain(&Selector::Task(child(1, 2)), &chain[..1]), "not what is above");
    assert!(!stops_chain(&Selector::Task(child(1, 4)), &chain), "not what is beside");
    assert!(!stops_chain(&Selector::Task(root(2)), &chain), "not another tree");
    assert!(
        !stops_chain(&Selector::Task(child(9, 2)), &chain),
        "not another tree's task with that part of an id"
    );
}

#[test]
fn a_lock_on_an_agent_stops_its_tasks_and_what_it_delegated() {
    let lock = Selector::Agent(workload("td/agents/a"));
    assert!(stops_agent(&lock, "td/agents/a"));
    for other in ["td/agents/ab", "td/agents/a/b", "td/agents", "other/agents/a"] {
        assert!(!stops_agent(&lock, other), "{other}");
    }
    let [_, delegator, opener] = PARTIES;
    assert!(stops_chain(&lock, &[PARTIES, ["td/agents/b", delegator, opener]]));
    let part = ["td/agents/b", "td/agents/a", "td/agents/a"];
    assert!(!stops_chain(&lock, &[part]), "delegating and opening is not working");
}

#[test]
fn a_lock_on_a_path_stops_what_is_at_or_below_it_and_no_neighbour() {
    let lock = Selector::PathPrefix(workload("td/a/b"));
    for stopped in ["td/a/b", "td/a/b/c", "td/a/b/c/d"] {
        assert!(stops_agent(&lock, stopped), "{stopped}");
    }
    for other in ["td/a/bc", "td/a/b.c", "td/a", "td/a/c", "other/a/b", "td"] {
        assert!(!stops_agent(&lock, other), "{other}");
    }
    let domain = Selector::PathPrefix(workload("td"));
    assert!(stops_agent(&domain, "td") && stops_agent(&domain, "td/a"));
    assert!(!stops_agent(&domain, "td.example/a") && !stops_agent(&domain, "t/a"));
    let [_, delegator, opener] = PARTIES;
    assert!(stops_chain(&lock, &[["td/a/b/c", delegator, opener], ["td/z", delegator, opener]]));
    assert!(!stops_chain(&lock, &[["td/z", "td/a/b", "td/a/b/c"]]), "it is agents that have the path");
}

#[test]
fn a_lock_on_a_delegator_stops_what_is_done_on_their_behalf() {
    let lock = Selector::Delegator(workload("td/people/ann"));
    let [agent, _, opener] = PARTIES;
    assert!(stops_chain(&lock, &[PARTIES]));
    assert!(stops_chain(&lock, &[PARTIES, [agent, "td/agents/a", opener]]));
    assert!(!stops_chain(&lock, &[[agent, "td/people/anna", opener]]));
    assert!(!stops_chain(&lock, &[["td/people/ann", "td/people/bob", "td/people/ann"]]));
}

#[test]
fn a_lock_on_a_trust_domain_stops_whatever_has_a_party_of_it() {
    let lock = Selector::TrustDomain("bad.example".parse().unwrap());
    let [agent, delegator, opener] = PARTIES;
    assert!(stops_chain(&lock, &[["bad.example/a", delegator, opener]]));
    assert!(stops_chain(&lock, &[[agent, "bad.example/p", opener]]));
    assert!(stops_chain(&lock, &[[agent, delegator, "bad.example"]]));
    assert!(stops_chain(&lock, &[[agent, "bad.example/p", opener], PARTIES]));
    for other in ["sub.bad.example/a", "bad.example.org/a", "bad/example", "td/bad.example"] {
        assert!(!stops_chain(&lock, &[[other, delegator, opener]]), "{other}");
    }
}

#[test]
fn a_lock_on_a_tool_stops_leases_that_name_it() {
    let lock = Selector::Tool(action("write"));
    assert!(stops_lease(&lock, &["x a write"]));
    assert!(stops_lease(&lock, &["x a read", "y b read,write"]), "in any permission");
    assert!(!stops_lease(&lock, &["x a read", "x b writer", "x write Write"]));
    assert!(!stops_lease(&lock, &["write write rewrite"]), "an audience is not a tool");
}

#[test]
fn a_lock_on_a_resource_stops_leases_that_overlap_it() {
    let lock =
        |resource: &str| Selector::Resource { audience: audience("x"), resource: resource.parse().unwrap() };
    for (stopped, leased, expected) in [
        ("a/b", "a/b", true),
        ("a/b", "a/**", true),
        ("a/**", "a/b", true),
        ("a/**", "a/b/c", true),
        ("a/b/**", "a/**", true),
        ("a/**", "a/b/**", true),
        ("a/b/**", "a/b/**", true),
        ("a/b", "a/bc", false),
        ("a/b/**", "a/bc/d", false),
        ("a/b/**", "a/bc/**", false),
        ("a/**", "a", false),
        ("a", "a/**", false),
        ("a", "a/b", false),
        ("a/b", "a", false),
        ("b", "a/b", false),
        ("a/b/**", "a/c/**", false),
    ] {
        let permission = format!("x {leased} r");
        assert_eq!(stops_lease(&lock(stopped), &[&permission]), expected, "{stopped} {leased}");
        assert!(!stops_lease(&lock(stopped), &[&permission.replace('x', "y")]), "another audience's");
        assert_eq!(stops_lease(&lock(stopped), &["x zz r", &permission]), expected, "in any permission");
    }
}

/// Nobody here knows what its audience lets the bearer of one do.
#[test]
fn a_lock_on_a_tool_or_a_resource_stops_every_identity_that_could_reach_it() {
    let for_x = jwt_svid(terms(root(1), 9), "x");
    let stops = |selector: &Selector| selector.stops_terms(&for_x);
    let resource =
        |name: &str| Selector::Resource { audience: audience(name), resource: "q".parse().unwrap() };
    assert!(stops(&Selector::Tool(action("write"))) && stops(&resource("x")));
    assert!(!stops(&resource("y")));
    assert!(stops(&Selector::Audience(audience("x"))) && !stops(&Selector::Audience(audience("y"))));
    // An X.509-SVID is for no audience, and none takes it for more than a name.
    let identity = svid(terms(root(1), 9));
    for selector in [Selector::Tool(action("write")), resource("x"), Selector::Audience(audience("x"))] {
        assert!(!selector.stops_terms(&identity), "{selector:?}");
    }
}

#[test]
fn a_lock_on_an_audience_stops_leases_for_it() {
    let lock = Selector::Audience(audience("https://x.example"));
    assert!(stops_lease(&lock, &["https://x.example a r"]));
    for other in ["https://x.example/v2", "https://x.exampl", "x.example"] {
        assert!(!stops_lease(&lock, &[&format!("{other} a r")]), "{other}");
    }
}

#[test]
fn a_lock_on_a_key_or_on_policies_stops_the_leases_that_rest_on_them() {
    let issued = terms(root(1), 9);
    assert!(Selector::Key(key_id("k1")).stops_terms(&issued));
    assert!(!Selector::Key(key_id("k11")).stops_terms(&issued));
    assert!(!Selector::Key(key_id("K1")).stops_terms(&issued));
    assert!(Selector::Policy(policy(1)).stops_terms(&issued));
    assert!(!Selector::Policy(policy(2)).stops_terms(&issued));
}

#[test]
fn each_selector_stops_tasks_or_leases_and_everything_stops_all() {
    let of_tasks = [
        Selector::Task(root(1)),
        Selector::Agent(workload("td/agents/a")),
        Selector::PathPrefix(workload("td")),
        Selector::Delegator(workload("td/people/ann")),
        Selector::TrustDomain("td".parse().unwrap()),
        Selector::Everything,
    ];
    let of_leases = [
        Selector::Tool(action("r")),
        Selector::Resource { audience: audience("x"), resource: "a/b".parse().unwrap() },
        Selector::Audience(audience("x")),
        Selector::Key(key_id("k1")),
        Selector::Policy(policy(1)),
    ];
    let issued = terms(root(1), 9);
    for selector in of_tasks {
        assert!(stops_chain(&selector, &[PARTIES]), "{selector:?}");
        assert!(!selector.stops_terms(&issued), "{selector:?}");
    }
    for selector in of_leases {
        assert!(!stops_chain(&selector, &[PARTIES]), "{selector:?}");
        assert!(selector.stops_terms(&issued), "{selector:?}");
    }
    assert!(stops_chain(&Selector::Everything, &[["z/z", "y/y", "w/w"]]));
}

#[test]
fn a_lock_of_a_tenant_binds_no_other() {
    let record = |tenant: Option<TenantName>| LockRecord {
        lock: Lock { tenant, ..lock(1, Selector::Everything) },
        created: Revision(1),
        created_at: at(0),
        lifted: None,
        swept: None,
    };
    let (north, south) = (tenant("north"), tenant("south"));
    assert!(record(Some(north.clone())).binds(&north));
    assert!(!record(Some(north.clone())).binds(&south));
    assert!(record(None).binds(&north) && record(None).binds(&south));
}

#[test]
fn a_lock_forbids_issue_until_its_end_or_until_it_is_lifted() {
    let record = |until, lifted| LockRecord {
        lock: Lock { until, ..lock(1, Selector::Everything) },
        created: Revision(1),
        created_at: at(0),
        lifted,
        swept: None,
    };
    assert!(record(None, None).forbids_issue(at(u64::MAX)));
    assert!(record(Some(at(10)), None).forbids_issue(at(9)));
    assert!(!record(Some(at(10)), None).forbids_issue(at(10)));
    assert!(!record(None, Some(at(5))).forbids_issue(at(5)));
    assert!(!record(Some(at(10)), Some(at(5))).forbids_issue(at(6)));
}

#[test]
fn t6_a_lock_kills_what_came_before_its_revision() {
    let record = LockRecord {
        lock: lock(1, Selector::Everything),
        created: Revision(5),
        created_at: at(0),
        lifted: Some(at(1)),
        swept: None,
    };
    assert_eq!([4, 5, 6].map(|recorded| record.kills(Revision(recorded))), [true, false, false]);
}

#[test]
fn a_workload_is_stopped_by_what_names_it_whatever_it_works_on() {
    let stops = |selector: Selector| selector.stops_workload(&workload("td/agents/a"));
    for selector in [
        Selector::Agent(workload("td/agents/a")),
        Selector::PathPrefix(workload("td/agents/a")),
        Selector::PathPrefix(workload("td/agents")),
        Selector::TrustDomain("td".parse().unwrap()),
        Selector::Everything,
    ] {
        assert!(stops(selector.clone()), "{selector:?}");
    }
    for selector in [
        Selector::Agent(workload("td/agents/b")),
        Selector::PathPrefix(workload("td/agents/a/b")),
        Selector::PathPrefix(workload("td/agent")),
        Selector::TrustDomain("other".parse().unwrap()),
        Selector::Delegator(workload("td/agents/a")),
        Selector::Task(root(1)),
        Selector::Tool(action("r")),
        Selector::Audience(audience("x")),
        Selector::Key(key_id("k1")),
        Selector::Policy(policy(1)),
        Selector::Resource { audience: audience("x"), resource: "a/**".parse().unwrap() },
    ] {
        assert!(!stops(selector.clone()), "{selector:?}");
    }
}

/// Policies, logs and the journal name these; the names are part of the format.
#[test]
fn kinds_are_the_same_in_code_and_in_json() {
    for selector in [
        Selector::Task(root(1)),
        Selector::Agent(workload("td/agents/a")),
        Selector::PathPrefix(workload("td/agents")),
        Selector::Delegator(workload("td/people/ann")),
        Selector::Tool(action("r")),
        Selector::Resource { audience: audience("x"), resource: "a/**".parse().unwrap() },
        Selector::Audience(audience("x")),
        Selector::TrustDomain("td".parse().unwrap()),
        Selector::Key(key_id("k1")),
        Selector::Policy(policy(1)),
        Selector::Everything,
    ] {
        let json = serde_json::to_value(&selector).unwrap();
        let name = json.as_str().or_else(|| json.as_object().unwrap().keys().next().map(String::as_str));
        assert_eq!(name, Some(selector.kind()));
    }
}
