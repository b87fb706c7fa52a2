use super::*;
use crate::digest::{BearerDigest, Thumbprint};
use crate::fact::{BearerBound, Outcome, ReasonCode};
use crate::ledger::tests::sample::*;
use crate::lock::Selector;
use crate::time::Now;

fn full() -> State {
    let mut state = State::default();
    let north = tenant("north");
    let tree = Some((root(1), &north));
    let facts = [
        (None, configuration()),
        (tree, Fact::TaskOpened(opened(root(1), None).into())),
        (tree, Fact::TaskOpened(opened(child(1, 2), Some(root(1))).into())),
        (tree, Fact::LeaseIssued { terms: terms(child(1, 2), 9).into(), body: body(1), renews: None }),
        (None, Fact::LockCreated(lock(7, Selector::Key(key_id("k9"))))),
        (
            tree,
            Fact::TaskEnded {
                task: child(1, 2),
                outcome: Outcome::Failed,
                reason: ReasonCode::of("asked"),
                since: None,
            },
        ),
        (None, Fact::BearerBound(bound(1, 2, 61_000))),
        (None, Fact::Stopped),
    ];
    for (tree, fact) in facts {
        let revision = state.revision.next();
        let envelope = Envelope {
            request_id: Some(request_id(&format!("r{revision}"))),
            ..envelope(tree, now(revision.0))
        };
        state.apply(&envelope, &fact, revision);
    }
    state
}

#[test]
fn a_state_is_read_from_its_snapshot_as_it_was() {
    for state in [State::default(), full()] {
        let bytes = state.to_snapshot().unwrap();
        let read = State::from_snapshot(&bytes).unwrap().unwrap();
        assert_eq!(read, state);
        assert_eq!(State::digest(&read.to_snapshot().unwrap()), State::digest(&bytes));
    }
    assert_ne!(
        State::digest(&full().to_snapshot().unwrap()),
        State::digest(&State::default().to_snapshot().unwrap())
    );
    for garbage in ["", "{}", "null", "[]"] {
        assert!(State::from_snapshot(garbage.as_bytes()).is_err(), "{garbage}");
    }
    let other = br#"{"v":1,"state":{"trees":"in another form"}}"#;
    assert_eq!(State::from_snapshot(other).unwrap(), None, "the records have it all");
}

#[test]
fn a_snapshot_from_before_sweeps_were_kept_in_mind_is_read() {
    let text = String::from_utf8(full().to_snapshot().unwrap()).unwrap();
    let before = text.replace(r#","sweeps":{"for_all":0,"of_tenant":{}}"#, "");
    assert_ne!(before, text);
    assert_eq!(State::from_snapshot(before.as_bytes()).unwrap(), Some(full()));
}

#[test]
fn every_record_counts_and_each_fact_reaches_what_it_is_about() {
    let state = full();
    assert_eq!(state.revision, Revision(8));
    assert_eq!(state.control.revision(), Revision(5));
    let tree = &state.trees[&root(1).root()];
    assert_eq!(tree.version(), Revision(6), "what is not of the tree leaves its version alone");
    assert_eq!(tree.tenant(), &tenant("north"));
    assert_eq!(tree.tasks().count(), 2);
}

#[test]
fn c1_the_highest_time_ever_judged_by_is_kept() {
    let mut state = State::default();
    for (issue, judge) in [(5, 9), (6, 7), (7, 7)] {
        let envelope = envelope(None, Now { issue: at(issue), judge: at(judge), suspect: false });
        state.apply(&envelope, &Fact::Stopped, state.revision.next());
    }
    assert_eq!(state.judged, at(9));
}

#[test]
fn a_tree_begins_with_its_root_and_with_nothing_else() {
    let north = tenant("north");
    let mut state = State::default();
    let stray = Fact::LeaseIssued { terms: terms(root(1), 9).into(), body: body(1), renews: None };
    state.apply(&envelope(Some((root(1), &north)), now(1)), &stray, Revision(1));
    assert!(state.trees.is_empty());
    let opened = Fact::TaskOpened(opened(root(1), None).into());
    let nobodys = Envelope { tenant: None, ..envelope(Some((root(1), &north)), now(1)) };
    state.apply(&nobodys, &opened, Revision(2));
    assert!(state.trees.is_empty(), "what has no tenant is visible to nobody");
    state.apply(&envelope(Some((root(1), &north)), now(1)), &opened, Revision(3));
    assert_eq!(state.trees.len(), 1);
}

#[test]
fn trees_are_forgotten_after_their_root_ended_and_nothing_that_lives_is() {
    let mut state = full();
    let north = tenant("north");
    let day = |days: u64, millis: u64| at(days * 86_400_000 + millis);
    let forgets = |state: &State, now| {
        let mut after = state.clone();
        after.forget(now, Duration::from_millis(5));
        (after.trees.is_empty(), after.revision == state.revision && after.control == state.control)
    };
    assert_eq!(forgets(&state, day(9_999, 0)), (false, true), "its root has no ending");
    let ended = Fact::TaskEnded {
        task: root(1),
        outcome: Outcome::Failed,
        reason: ReasonCode::of("asked"),
        since: None,
    };
    state.apply(&envelope(Some((root(1), &north)), now(86_400_000)), &ended, Revision(8));
    assert_eq!(forgets(&state, day(1, 4)), (false, true));
    assert_eq!(forgets(&state, day(1, 5)), (true, true));
}

fn bound(token: u8, key: u8, until: u64) -> BearerBound {
    BearerBound {
        token: BearerDigest::from_bytes([token; 32]),
        workload: workload("td/agent"),
        key: Thumbprint::from_bytes([key; 32]),
        until: at(until),
    }
}

#[test]
fn a_bearer_s_token_is_bound_once_and_remembered_while_it_could_be_shown() {
    let mut state = State::default();
    let mut apply = |time, bearer: BearerBound| {
        let revision = state.revision.next();
        state.apply(&envelope(None, now(time)), &Fact::BearerBound(bearer), revision);
        state.bearers.values().map(|bearer| (bearer.token.as_bytes()[0], bearer.key.as_bytes()[0])).collect()
    };
    let bearers: Vec<(u8, u8)> = apply(1_000, bound(1, 2, 5_000));
    assert_eq!(bearers, [(1, 2)]);
    let bearers: Vec<(u8, u8)> = apply(2_000, bound(1, 3, 5_000));
    assert_eq!(bearers, [(1, 2)], "the first key stays");
    let bearers: Vec<(u8, u8)> = apply(4_999, bound(2, 2, 9_000));
    assert_eq!(bearers, [(1, 2), (2, 2)]);
    let bearers: Vec<(u8, u8)> = apply(5_000, bound(3, 2, 9_000));
    assert_eq!(bearers, [(2, 2), (3, 2)]);
}
