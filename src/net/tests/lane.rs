//! Connections that are served elsewhere than they were accepted.

use super::*;
use crate::shares::{ShareLimits, Shares};

fn shares<C: Ord + Clone>() -> Arc<Shares<C>> {
    Shares::new(ShareLimits { what: "connections", all: None, per_holder: ("connections_max", 1) })
}

#[test]
fn r5_a_connection_is_served_by_the_threads_that_it_was_admitted_to() {
    let threads = |name| {
        tokio::runtime::Builder::new_multi_thread().thread_name(name).worker_threads(1).enable_all().build()
    };
    let (here, there) = (threads("here").unwrap(), threads("there").unwrap());
    let (of_callers, of_tenants) = (shares(), shares());
    let elsewhere = {
        let (runtime, of_callers) = (there.handle().clone(), Arc::clone(&of_callers));
        move || {
            let caller = "spiffe://td.example/a".parse().unwrap();
            let tenant = TenantName::default();
            let places = (of_callers.take(&caller).ok()?, of_tenants.take(&tenant).ok()?);
            let room = Some(Room { bytes_per_second_max: NonZeroU32::new(1 << 20).unwrap(), places });
            Some(Lane { runtime: runtime.clone(), room })
        }
    };
    let testing = here.spawn(async move {
        let tls = tls();
        // What still runs when the listener closes is cut at once.
        let limits = NetLimits { drain_max: Duration::ZERO, ..NetLimits::default() };
        let running = run_for(TlsPeer::pass, &tls, limits, FOR_EVER, elsewhere).await;
        let (mut client, over) = connect(&tls, &running).await;
        for _ in 0..3 {
            assert_eq!(call(&mut client, "/thread").await.unwrap().1, "there");
        }
        // It counts, and ends, as any other.
        assert_eq!((running.counters.accepted(), running.counters.open()), (1, 1));
        assert_eq!(of_callers.len(), 1);
        let waits = tokio::spawn(async move { call(&mut client, "/wait").await });
        running.waiting().await;
        running.stop.send(()).unwrap();
        soon(running.served).await.unwrap();
        assert!(soon(waits).await.unwrap().is_err());
        let _cut = soon(over).await.unwrap();
        assert_eq!(running.counters.open(), 0);
        soon(async {
            while !of_callers.is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    });
    here.block_on(testing).unwrap();
}
