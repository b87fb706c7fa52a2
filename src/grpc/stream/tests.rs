use brevet_api::v1;

use super::*;
use crate::broker::sample::{BEGAN, Sample, XY_SERVER};
use crate::broker::{Watch, WatchAsk};
use crate::grpc::CallerCredentials;
use crate::grpc::revocation::WATCH;
use crate::shares::Share;

async fn telling(sample: &Sample) -> (Telling<Watch>, Share) {
    let caller = Arc::new(sample.caller(XY_SERVER));
    let (watch, share) = sample.broker.watch(&caller, WatchAsk::default()).unwrap();
    let door =
        Door::new(Arc::clone(&sample.broker), CallerCredentials::none(), "https://broker.example".to_owned());
    (
        Telling::new(
            &door,
            (&caller, Reader { peer: Some(sample.peer(XY_SERVER)), ..Reader::default() }),
            WATCH,
            STALL_MAX,
            watch,
        ),
        share,
    )
}

const STALL_MAX: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w7_a_reader_that_is_too_slow_is_told_where_it_was_cut_and_nothing_is_skipped() {
    let sample = Sample::with(3, 100).await;
    let ended = [1, 2, 3].map(|number| sample.end(number));
    let (mut telling, _share) = telling(&sample).await;
    let (outgoing, mut unread) = mpsc::channel(3);
    let last = outgoing.clone().reserve_owned().await.unwrap();
    for _ in 0..2 {
        telling.source.ready().await.unwrap();
        assert!(telling.send(&outgoing).await.is_ok());
    }
    // Nobody reads, and there is no room for the third: it waits as long as the clock stands still.
    telling.source.ready().await.unwrap();
    let end = {
        let mut sending = Box::pin(telling.send(&outgoing));
        let still_waits = tokio::select! {
            biased;
            _sent = &mut sending => false,
            () = std::future::ready(()) => true,
        };
        assert!(still_waits);
        sample.time.elapse(STALL_MAX);
        sending.await.unwrap_err()
    };
    let End::Refused(refusal) = end else { panic!("not a refusal") };
    assert_eq!((refusal.kind, refusal.reason.as_str()), (Kind::Exhausted, "reader_too_slow"));
    assert!(refusal.text.ends_with(&format!("7:{}", ended[1])), "{}", refusal.text);
    last.send(Err(Status::resource_exhausted("")));
    drop(outgoing);
    // What was told before stands before the last word.
    let mut revisions = Vec::new();
    while let Some(Ok(message)) = unread.recv().await {
        let Some(v1::watch_revocations_response::Kind::Endings(endings)) = message.kind else { panic!() };
        revisions.push(Revision(endings.revision));
    }
    assert_eq!(revisions, ended[..2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w8_a_stream_is_looked_at_every_second_and_at_every_change_of_control() {
    let sample = Sample::with(1, 100).await;
    let (mut telling, _share) = telling(&sample).await;
    assert!(!telling.needs_authority());
    sample.time.elapse(Duration::from_millis(999));
    assert!(!telling.needs_authority());
    sample.time.elapse(Duration::from_millis(1));
    assert!(telling.needs_authority() && telling.authorised_for().is_zero());
    telling.authorise().unwrap();
    assert!(!telling.needs_authority());

    // The same while the judging clock stands still, after a jump ahead of the wall clock that was taken back.
    let now = sample.time.wall();
    sample.time.set_wall(now.after(Duration::from_secs(60)));
    assert_eq!(sample.broker.clock.now().judge, sample.time.wall());
    sample.time.set_wall(now);
    assert!(!telling.needs_authority());
    sample.time.elapse(AUTHORITY_MAX);
    assert!(telling.needs_authority());
    telling.authorise().unwrap();

    sample.enforcers(&[]).await;
    assert!(telling.needs_authority());
    assert_eq!(telling.authorise().unwrap_err().reason.as_str(), "not_enforcer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w8_nothing_is_told_to_whoever_is_nobody_any_more() {
    let sample = Sample::with(1, 100).await;
    let (mut telling, _share) = telling(&sample).await;
    let (outgoing, mut unread) = mpsc::channel(2);
    sample.end(1);
    telling.source.ready().await.unwrap();
    // The caller's certificate has ended.
    sample.time.elapse(telling.caller.valid_until().since(BEGAN));
    let End::Refused(refusal) = telling.send(&outgoing).await.unwrap_err() else { panic!("not a refusal") };
    assert_eq!((refusal.kind, refusal.reason.as_str()), (Kind::Unauthenticated, "cert_time"));
    assert!(unread.try_recv().is_err());

    // The record of it says who that was.
    let caller = telling.caller.spiffe_id().clone();
    let (_, gone) = oneshot::channel();
    telling.until_it_ends(tokio_stream::pending(), outgoing, gone).await;
    assert_eq!(unread.recv().await.unwrap().unwrap_err().code(), Code::Unauthenticated);
    let records = sample.journal.records();
    let last = brevet_core::record::decode(&records.last().unwrap().body).unwrap();
    assert_eq!((last.envelope.caller, last.fact.kind()), (Some(caller), "denied"));
}
