use brevet_core::name::TenantName;

use super::*;
use crate::broker::sample::{BEGAN, Sample};

fn nonce(number: u64) -> Nonce {
    Nonce::new(&[number.to_be_bytes(), [0; 8]].concat()).unwrap()
}

#[tokio::test]
async fn w6_bookmarks_come_every_second_while_the_judging_clock_stands_still() {
    let sample = Sample::with(1, 100).await;
    let mut asking = sample.broker.bookmarks.open();
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
