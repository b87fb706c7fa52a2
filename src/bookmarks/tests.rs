use brevet_core::name::TenantName;

use brevet_core::fact::Fact;

use super::*;
use crate::broker::sample::{BEGAN, Sample, lock, tenant};

fn nonce(number: u64) -> Nonce {
    Nonce::new(&[number.to_be_bytes(), [0; 8]].concat()).unwrap()
}

#[tokio::test]
async fn w6_bookmarks_come_every_second_while_the_judging_clock_stands_still() {
    let sample = Sample::with(1, 100).await;
    let mut asking = sample.broker.bookmarks.open(TenantName::default());
    let running = tokio::spawn(run(Arc::clone(&sample.broker)));
    let hour = Duration::from_secs(3_600);
    sample.time.set_wall(BEGAN.after(hour));
    assert_eq!(sample.broker.clock.now().judge, BEGAN.after(hour));
    sample.time.set_wall(BEGAN);
    for number in 1..=3 {
        asking.ask(nonce(number));
        let answered = tokio::time::timeout(Duration::from_secs(20), asking.answered()).await;
        answered.expect("no bookmark comes");
        sample.time.elapse(PERIOD);
        let bookmark = asking.take().unwrap();
        assert_eq!((bookmark.nonce, bookmark.judge_time), (nonce(number), BEGAN.after(hour)));
    }
    running.abort();
}

#[tokio::test]
async fn w6_the_locks_of_one_tenant_hold_up_no_bookmark_of_another() {
    let sample = Sample::with(1, 100).await;
    let desk = &sample.broker.bookmarks;
    let mut streams = ["north", "south"].map(|name| desk.open(tenant(name)));
    let mut answered = |number| {
        for stream in &streams {
            stream.ask(nonce(number));
        }
        let answered = desk.answer(&sample.broker.table, || BEGAN).unwrap();
        let bookmarks = streams.each_mut().map(Asking::take);
        assert_eq!(bookmarks.iter().flatten().count(), answered);
        bookmarks.map(|bookmark| bookmark.is_some_and(|it| it.nonce == nonce(number)))
    };
    let swept = |lock| sample.control(&Fact::LockSwept { lock, tasks: 0, leases: 0 });
    let (of_north, for_all) = (lock(8, Some("north")), lock(9, None));
    let ids = [of_north.id, for_all.id];

    assert_eq!(answered(1), [true, true]);
    sample.control(&Fact::LockCreated(of_north));
    assert_eq!(answered(2), [false, true]);
    sample.control(&Fact::LockCreated(for_all));
    assert_eq!(answered(3), [false, false]);
    swept(ids[1]);
    assert_eq!(answered(4), [false, true]);
    // What is swept is to be durable.
    sample.journal.hold();
    swept(ids[0]);
    assert_eq!(answered(5), [false, true]);
    sample.journal.release();
    assert_eq!(answered(6), [true, true]);
    drop(streams);
    assert!(desk.lock().nonces.is_empty());
}
