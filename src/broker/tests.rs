//! The stories in virtual time, over a journal in memory: what takes a day, and what only a fault can show.

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use brevet_core::fact::{DenialClass, DeniedOperation, Fact, LeaseOutcome, Outcome, ReasonCode};
use brevet_core::id::TaskId;
use brevet_core::lock::Selector;
use brevet_core::name::{RequestId, TenantName};
use brevet_core::record;
use brevet_core::revision::Revision;
use brevet_core::state::State;
use brevet_journal::Journal;

use self::fixture::{
    AGENT_A, Fault, KEPT, LOCKS_MAX, OPERATOR, ORCHESTRATOR, World, at_noon, task_ask, token_ask,
};
use super::sample::{Sample, X_SERVER, XY_SERVER};
use super::{Kind, LockAsk, LockCaller, Refusal, TaskFilter, WatchAsk};
use crate::reaper;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_tree_is_forgotten_after_its_day_and_its_name_is_nobodys_again() {
    let world = World::new(Fault::None);
    let broker = &world.broker;
    let task = world.open("request").await;
    let token = world.issue(task, "lease").await.unwrap();
    assert!(world.is_active(&token).await);
    world.source.elapse(HOUR / 2);
    world.end(task).await;

    // It is kept for as long as is configured, and no less than the day that its id was made on: until then the same
    // request finds it.
    let opener = ORCHESTRATOR.parse().unwrap();
    world.source.elapse(KEPT * 2);
    reaper::run_once(broker, broker.clock.now()).await;
    assert_eq!(world.open("request").await, task);
    assert_eq!(world.view(task).await.unwrap().ending.unwrap().outcome, Outcome::Completed);
    assert_eq!(broker.table.openers().of(&opener), (0, 1));

    // A wall clock that jumps ahead forgets nothing: the id is made of the issuing clock's day. Nor does it keep the
    // reaper awake.
    let noon = world.source.wall();
    world.source.set_wall(noon.after(HOUR * 13));
    reaper::run_once(broker, broker.clock.now()).await;
    assert!(world.view(task).await.is_ok());
    assert!(broker.table.deadlines().next() > Some(broker.clock.now().judge));
    world.source.set_wall(noon);

    // Then it is as if it had never been, but for the audit log.
    world.source.elapse(HOUR * 14);
    reaper::run_once(broker, broker.clock.now()).await;
    assert_eq!(world.view(task).await.unwrap_err().kind, Kind::NotFound);
    assert!(!world.is_active(&token).await);
    assert_eq!(world.issue(task, "lease").await.unwrap_err().kind, Kind::NotFound);
    let all = TaskFilter { limit: 9, ..TaskFilter::default() };
    assert_eq!(broker.list_tasks(&world.caller(ORCHESTRATOR), all).await.unwrap().len(), 0);
    assert_eq!(broker.table.openers().of(&opener), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l4_the_same_request_on_another_day_opens_another_task() {
    let world = World::new(Fault::None);
    let task = world.open("request").await;
    let token = world.issue(task, "lease").await.unwrap();
    world.end(task).await;
    world.source.elapse(HOUR * 13);
    // Nobody has swept yet: the tree is still there, and the request still its own.
    assert_eq!(world.open("request").await, task);
    reaper::run_once(&world.broker, world.broker.clock.now()).await;
    let again = world.open("request").await;
    assert_ne!(again, task);
    // What the first had does not come to the second.
    assert!(!world.is_active(&token).await);
    let other = world.issue(again, "lease").await.unwrap();
    assert!(world.is_active(&other).await && !world.is_active(&token).await);

    // A restart forgets the same: the state that it folds has the trees that the table has.
    let mut state = State::default();
    for written in world.journal.records() {
        let read = record::decode(&written.body).unwrap();
        state.apply(&read.envelope, &read.fact, written.revision);
    }
    assert_eq!(state.trees.len(), 2);
    state.forget(world.broker.clock.now().issue, KEPT);
    let kept: Vec<TaskId> = state.trees.keys().map(|root| TaskId::root_of(*root)).collect();
    assert_eq!(kept, [again]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_tree_lives_on_while_it_is_not_ended_whatever_the_day() {
    let world = World::new(Fault::None);
    let ask = super::TaskAsk { lifetime: Some(HOUR * 20), ..task_ask("long") };
    let long =
        world.broker.create_task(&world.caller(ORCHESTRATOR), ask.clone()).await.unwrap().task.opened.id;
    world.source.elapse(HOUR * 19);
    reaper::run_once(&world.broker, world.broker.clock.now()).await;
    let again = world.broker.create_task(&world.caller(ORCHESTRATOR), ask).await.unwrap();
    assert_eq!(again.task.opened.id, long, "the request is found on the day after");
    // Its deadline ends it, and then it is forgotten as any other.
    world.source.elapse(HOUR);
    reaper::run_once(&world.broker, world.broker.clock.now()).await;
    assert_eq!(world.view(long).await.unwrap().ending.unwrap().outcome, Outcome::Expired);
    world.source.elapse(KEPT);
    reaper::run_once(&world.broker, world.broker.clock.now()).await;
    assert_eq!(world.view(long).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l11_what_has_run_out_gives_room_at_once() {
    let world = World::new(Fault::None);
    let task = world.open("request").await;
    for number in 0..fixture::LEASES_MAX {
        world.issue(task, &format!("lease-{number}")).await.unwrap();
    }
    let full = world.issue(task, "full").await.unwrap_err();
    assert_eq!((full.kind, full.reason.as_str()), (Kind::Exhausted, "leases_live_per_opener_max"));
    // No reaper runs here.
    world.source.elapse(HOUR / 6);
    for number in 0..fixture::LEASES_MAX {
        world.issue(task, &format!("again-{number}")).await.unwrap();
    }
    assert_eq!(world.issue(task, "full").await.unwrap_err().kind, Kind::Exhausted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l11_who_goes_while_room_is_made_leaves_nothing_that_ran_out_unrecorded() {
    let world = World::new(Fault::None);
    let task = world.open("request").await;
    for number in 0..fixture::LEASES_MAX {
        world.issue(task, &format!("lease-{number}")).await.unwrap();
    }
    // More than are queued before the journal is waited for.
    let short = 100;
    for number in 0..short {
        let ask = super::TaskAsk {
            lifetime: Some(Duration::from_secs(60)),
            ..task_ask(&format!("short-{number}"))
        };
        world.broker.create_task(&world.caller(ORCHESTRATOR), ask).await.unwrap();
    }
    world.source.elapse(HOUR / 6);
    world.journal.hold();
    let newest = world.journal.head().newest;
    tokio::select! {
        biased;
        () = async { while world.journal.head().newest < Revision(newest.0 + 64) { tokio::task::yield_now().await } } => {}
        _issued = world.issue(task, "gone") => panic!("it waits for the journal"),
    }
    world.journal.release();
    reaper::run_once(&world.broker, world.broker.clock.now()).await;
    let expired = |fact: &Fact| matches!(fact, Fact::TaskEnded { outcome: Outcome::Expired, .. });
    assert_eq!(world.facts().iter().filter(|fact| expired(fact)).count(), short);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l10_a_signer_that_fails_leaves_no_lease_alive() {
    let world = World::new(Fault::Signer);
    let task = world.open("request").await;
    for request_id in ["one", "two"] {
        let refused = world.issue(task, request_id).await.unwrap_err();
        assert_eq!((refused.kind, refused.reason.as_str()), (Kind::Unavailable, "signer_failed"));
        assert_eq!(world.view(task).await.unwrap().leases_live, 0);
    }
    // Nor does a repetition get what the error kept from it.
    assert_eq!(world.issue(task, "one").await.unwrap_err().kind, Kind::Unavailable);
    let issued = world.facts().into_iter().filter(|fact| matches!(fact, Fact::LeaseIssued { .. })).count();
    let ended: Vec<_> = world
        .facts()
        .into_iter()
        .filter_map(|fact| match fact {
            Fact::LeasesEnded { leases, outcome, reason, .. } => Some((leases.len(), outcome, reason)),
            _ => None,
        })
        .collect();
    let failed = (1, LeaseOutcome::Undelivered, ReasonCode::of("signer_failed"));
    assert_eq!((issued, ended), (2, vec![failed.clone(), failed]));
}

#[tokio::test]
async fn l2_what_nobody_asks_for_again_in_time_ends_and_nothing_else() {
    let world = World::new(Fault::None);
    let task = world.open("request").await;
    let leave = async |request_id: &str| {
        world.journal.hold();
        let newest = world.journal_newest();
        tokio::select! {
            biased;
            () = async { while world.journal_newest() == newest { tokio::task::yield_now().await } } => {}
            _issued = world.issue(task, request_id) => panic!("it waits for the journal"),
        }
        world.journal.release();
        // What waits for the caller to come back begins to wait.
        tokio::task::yield_now().await;
    };
    let ended = || -> Vec<(usize, LeaseOutcome, ReasonCode)> {
        let of = |fact| match fact {
            Fact::LeasesEnded { leases, outcome, reason, .. } => Some((leases.len(), outcome, reason)),
            _ => None,
        };
        world.facts().into_iter().filter_map(of).collect()
    };
    leave("again").await;
    world.source.elapse(Duration::from_secs(9));
    let token = world.issue(task, "again").await.unwrap();
    leave("never").await;
    world.source.elapse(Duration::from_secs(10));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ended(), [(1, LeaseOutcome::Undelivered, ReasonCode::of("caller_gone"))]);
    assert!(world.is_active(&token).await);
    world.issue(task, "again").await.unwrap();
    assert_eq!(world.issue(task, "never").await.unwrap_err().reason.as_str(), "lease_ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l1_l2_no_key_is_used_before_its_lease_is_durable() {
    let world = World::new(Fault::None);
    let task = world.open("request").await;
    world.journal.hold();
    let (broker, caller) = (Arc::clone(&world.broker), world.caller(AGENT_A));
    let (ask, possession) = (token_ask(task, "lease"), world.possession());
    let issuing = tokio::spawn(async move { broker.issue(&caller, ask, possession).await });
    while world.journal_newest() == world.journal_durable() {
        tokio::task::yield_now().await;
    }
    // It is decided and queued, and there it waits.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.signed(), 0);
    assert!(!issuing.is_finished());
    world.journal.release();
    issuing.await.unwrap().unwrap();
    assert_eq!(world.signed(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u4_without_a_journal_nothing_is_granted_and_nothing_ended() {
    let world = World::new(Fault::None);
    let task = world.open("request").await;
    let token = world.issue(task, "before").await.unwrap();
    world.journal.seal();
    let caller = world.caller(ORCHESTRATOR);
    let completed = ReasonCode::of("completed");
    let refused = [
        world.broker.create_task(&caller, task_ask("after")).await.unwrap_err(),
        world.issue(task, "after").await.unwrap_err(),
        world.broker.end_task(&caller, task, Outcome::Completed, completed).await.unwrap_err(),
    ];
    for refusal in refused {
        assert_eq!((refusal.kind, refusal.reason.as_str()), (Kind::Unavailable, "journal_sealed"));
    }
    // What is durable stays true.
    assert!(world.is_active(&token).await);
    assert_eq!(world.signed(), 1);

    // A disk without room is no end: nothing grows, and endings go on.
    let world = World::new(Fault::None);
    let task = world.open("request").await;
    world.journal.set_full(true);
    let refused = world.issue(task, "after").await.unwrap_err();
    assert_eq!((refused.kind, refused.reason.as_str()), (Kind::Unavailable, "no_space"));
    world.end(task).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nobody_makes_more_lists_at_once_than_its_share_and_no_stream_waits_for_lists() {
    let sample = Sample::with(1, 100).await;
    let list = |caller: &str| {
        let (broker, caller) = (Arc::clone(&sample.broker), sample.caller(caller));
        let all = TaskFilter { limit: 9, ..TaskFilter::default() };
        async move { broker.list_tasks(&caller, all).await }
    };
    // Every turn of the tenant is taken, so that whoever comes has to wait.
    let limits = &sample.broker.limits;
    let mut turns = Vec::new();
    for _ in 0..limits.lists_per_tenant_max.get() {
        turns.push(sample.broker.list_turns.take(&TenantName::default()).await);
    }
    let share = usize::try_from(limits.lists_per_caller_max.get()).unwrap();
    let mut waiting: Vec<_> = (0..share).map(|_| tokio::spawn(list(X_SERVER))).collect();
    while sample.broker.lists.len() < share {
        tokio::task::yield_now().await;
    }
    let refused = list(X_SERVER).await.unwrap_err();
    assert_eq!((refused.kind, refused.reason.as_str()), (Kind::Exhausted, "lists_per_caller_max"));
    waiting.push(tokio::spawn(list(XY_SERVER)));

    // What a new stream has to tell is found by a walk all the same.
    let ended = sample.end(1);
    let (mut watch, _place) = sample.broker.watch(&sample.caller(XY_SERVER), WatchAsk::default()).unwrap();
    watch.ready().await.unwrap();
    assert_eq!(watch.take().unwrap().revision(), ended);

    drop(turns);
    for list in waiting {
        list.await.unwrap().unwrap();
    }
    assert!(sample.broker.lists.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn locks_that_are_lifted_before_they_are_swept_are_bounded_too_but_for_root() {
    let world = World::new(Fault::None);
    let broker = &world.broker;
    let operator = LockCaller::Operator(Arc::new(world.caller(OPERATOR)));
    let ask = |request_id: &str| LockAsk {
        request_id: RequestId::parse(request_id).unwrap(),
        selector: Selector::Everything,
        message: String::new(),
        lifetime: None,
    };
    // Nobody sweeps here. What stops everything stops whoever would lift it, so that root does.
    let root = LockCaller::Root { uid: 0 };
    for number in 0..LOCKS_MAX * 2 {
        let lock = broker.create_lock(&operator, ask(&format!("lock-{number}"))).await.unwrap();
        broker.lift_lock(&root, lock.record.lock.id).await.unwrap();
    }
    let refused = broker.create_lock(&operator, ask("more")).await.unwrap_err();
    assert_eq!((refused.kind, refused.reason.as_str()), (Kind::Exhausted, "locks_max"));
    assert_eq!(broker.locks_in_force(), 0);
    broker.create_lock(&root, ask("more")).await.unwrap();
    assert_eq!(broker.locks_in_force(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_what_is_not_recorded_is_summed_up_when_the_minute_turns() {
    let world = World::new(Fault::None);
    let broker = &world.broker;
    let deny = |caller: &str, kind, times: u32| {
        let caller = world.caller(caller);
        let refusal = Refusal::new(kind, "asked", "");
        let operation = || DeniedOperation::Method("GetTask".to_owned());
        let recorded =
            (0..times).filter(|_| broker.refuse(&caller, operation(), None, None, &refusal).is_ok());
        u32::try_from(recorded.count()).unwrap()
    };
    let denials = broker.limits.denials_recorded_per_minute_max.get();
    let malformed = broker.limits.malformed_recorded_per_minute_max.get();
    assert_eq!(deny(AGENT_A, Kind::Invalid, malformed + 7), malformed);
    assert_eq!(deny(AGENT_A, Kind::Denied, denials + 5), denials);
    assert_eq!(deny(AGENT_A, Kind::NotFound, 1), 0);
    assert_eq!(deny(ORCHESTRATOR, Kind::Denied, denials), denials, "it pays for itself alone");
    let summed_up = || -> Vec<(DenialClass, u64)> {
        let of = |fact| match fact {
            Fact::DenialsUnrecorded { class, count } => Some((class, count)),
            _ => None,
        };
        world.facts().into_iter().filter_map(of).collect()
    };
    let summing = tokio::spawn({
        let broker = Arc::clone(broker);
        async move { broker.sum_up_denials().await }
    });
    tokio::task::yield_now().await;
    assert_eq!(summed_up(), []);
    let turn = async |expected: &[(DenialClass, u64)]| {
        world.source.elapse(Duration::from_secs(60));
        let told = async {
            while summed_up().len() < expected.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), told).await.expect("the minute has turned");
        assert_eq!(summed_up(), expected);
    };
    let first = [(DenialClass::Malformed, 7), (DenialClass::Denied, 6)];
    turn(&first).await;
    assert_eq!(deny(AGENT_A, Kind::Denied, denials + 1), denials, "a minute later it has as many again");
    turn(&[first[0], first[1], (DenialClass::Denied, 1)]).await;
    summing.abort();
    broker.record_unrecorded();
    assert_eq!(summed_up().len(), 3, "what is told is told once");
}

#[test]
fn the_day_of_these_tests_begins_at_noon() {
    assert_eq!(at_noon().seconds() % 86_400, 43_200);
}
