use brevet_core::id::LockId;
use tokio::task::yield_now;

use super::*;
use crate::broker::sample::{Sample, lock, task, tenant};

/// A broker whose trees are of these tenants, and that pulled these locks.
async fn locked(tenants: &[(&str, usize)], locks: &[(u64, Option<&str>)]) -> (Sample, Vec<LockId>) {
    let trees = tenants.iter().flat_map(|(name, trees)| vec![tenant(name); *trees]).collect();
    let sample = Sample::of_tenants(trees, 100).await;
    let locks: Vec<_> = locks.iter().map(|(number, tenant)| lock(*number, *tenant)).collect();
    let ids = locks.iter().map(|lock| lock.id).collect();
    for lock in locks {
        sample.control(&Fact::LockCreated(lock));
        sample.time.elapse(Duration::from_millis(1));
    }
    (sample, ids)
}

fn swept(sample: &Sample, lock: LockId) -> Option<Swept> {
    sample.broker.table.in_force().control.locks()[&lock].swept
}

/// The sweeps go on until a lock is swept; then they stop where they are.
async fn until_swept(sample: &Sample, lock: LockId) {
    let broker = Arc::clone(&sample.broker);
    let sweeping = tokio::spawn(async move { broker.sweep_locks().await });
    for _ in 0..10_000 {
        if swept(sample, lock).is_some() {
            break;
        }
        yield_now().await;
    }
    sweeping.abort();
    assert!(swept(sample, lock).is_some(), "it is not swept");
}

#[tokio::test]
async fn t6_w6_no_tenants_sweep_waits_for_anothers() {
    let (sample, locks) =
        locked(&[("north", 200), ("south", 1)], &[(1, Some("north")), (2, Some("south"))]).await;
    until_swept(&sample, locks[1]).await;
    assert_eq!(swept(&sample, locks[1]), Some(Swept { tasks: 1, leases: 0 }));
    assert_eq!(swept(&sample, locks[0]), None, "the one that was pulled first has more to do");
    until_swept(&sample, locks[0]).await;
    assert_eq!(swept(&sample, locks[0]), Some(Swept { tasks: 200, leases: 0 }));
}

#[tokio::test]
async fn one_sweep_takes_every_lock_of_its_tenant_and_the_first_has_killed() {
    let (sample, locks) =
        locked(&[("north", 3), ("south", 1)], &[(9, Some("north")), (1, Some("north"))]).await;
    until_swept(&sample, locks[1]).await;
    assert_eq!(swept(&sample, locks[0]), Some(Swept { tasks: 3, leases: 0 }));
    assert_eq!(swept(&sample, locks[1]), Some(Swept::default()));
    let lives = |number| {
        let (in_force, judge) = (sample.broker.table.in_force(), sample.broker.clock.now().judge);
        let ending = |ledger: &Ledger| ledger.task_ending(task(number), &in_force.control, judge).is_none();
        sample.broker.table.view(task(number).root(), ending).unwrap()
    };
    assert_eq!([1, 2, 3, 4].map(lives), [false, false, false, true]);
}

#[tokio::test]
async fn what_stops_all_tenants_is_swept_however_many_sweeps_of_tenants_wait() {
    // As many tenants as may be swept at once, each with a lock, and one that only the last lock is about.
    let names: Vec<String> = (1..=9).map(|number| format!("tenant-{number}")).collect();
    let trees: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let of_tenants = (1..=8).zip(&names).map(|(number, name)| (number, Some(name.as_str())));
    let (sample, locks) = locked(&trees, &of_tenants.chain([(9, None)]).collect::<Vec<_>>()).await;
    assert_eq!(sample.broker.limits.lock_sweeps_max(), 8);
    // None of them gets through.
    sample.journal.hold();
    let broker = Arc::clone(&sample.broker);
    let sweeping = tokio::spawn(async move { broker.sweep_locks().await });
    for _ in 0..10_000 {
        yield_now().await;
    }
    sweeping.abort();
    let for_all = sample.broker.table.in_force().control.locks()[&locks[8]].clone();
    let swept = sample.broker.table.view(task(9).root(), |ledger| ledger.swept(&for_all));
    assert_eq!(swept, Some(Swept { tasks: 1, leases: 0 }));
}
