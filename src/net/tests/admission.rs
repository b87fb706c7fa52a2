//! Places among connections and handshakes.

use std::cell::Cell;

use super::super::admission::{Admission, Place};
use super::*;

fn admission(limits: AcceptLimits) -> (Arc<Admission>, Arc<Counters>) {
    let counters = Arc::new(Counters::new("grpc"));
    (Admission::by(|| NOW.get(), limits, Arc::clone(&counters)), counters)
}

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::from_secs(9)) };
}

const ROOM: AcceptLimits = AcceptLimits {
    connections_max: 99,
    connections_per_peer_max: 99,
    connections_per_network_max: 99,
    handshakes_max: 99,
    handshakes_per_peer_max: 99,
    handshake_stage_max: Duration::from_secs(1),
    drain_max: Duration::ZERO,
};

fn origin(address: &str) -> Origin {
    Some(SocketAddr::new(address.parse().unwrap(), 1))
}

/// A handshake whose ClientHello has come.
fn begun(admission: &Arc<Admission>, address: &str) -> Place {
    let place = admission.admit(origin(address)).unwrap();
    place.begun();
    place
}

/// Whether a handshake was told to make way.
async fn makes_way(place: &Place) -> bool {
    tokio::select! {
        biased;
        () = place.makes_way() => true,
        () = std::future::ready(()) => false,
    }
}

#[tokio::test]
async fn r2_silent_handshakes_from_anywhere_make_way_for_a_newcomer() {
    let (admission, _) = admission(AcceptLimits { handshakes_max: 4, ..ROOM });
    let from = |address: &str| admission.admit(origin(address)).unwrap();
    let honest = from("192.0.2.1");
    honest.begun();
    // Each from a network of its own, and one network with two.
    let silent = ["198.51.100.1", "203.0.113.1", "203.0.113.2"].map(from);
    let second = from("192.0.2.2");
    assert!(makes_way(&silent[1]).await, "the oldest of the network that holds the most");
    assert!(!makes_way(&silent[0]).await && !makes_way(&silent[2]).await && !makes_way(&honest).await);
    let third = from("192.0.2.3");
    second.begun();
    assert!(makes_way(&silent[0]).await, "of those that hold as many the oldest");
    let flood: Vec<_> = (0..50).map(|i| from(&format!("100.64.{i}.1"))).collect();
    assert!(makes_way(&silent[2]).await && makes_way(&third).await, "whoever says nothing makes way");
    assert!(!makes_way(&honest).await && !makes_way(&second).await, "who has begun does not");
    assert!(!makes_way(&flood[49]).await, "the newest has its place");
}

#[tokio::test]
async fn r2_handshakes_that_have_begun_make_way_for_networks_that_hold_fewer() {
    let (admission, _) = admission(AcceptLimits { handshakes_max: 4, ..ROOM });
    let begun = |address: &str| begun(&admission, address);
    let crowd = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(begun);
    let alone = begun("2001:db8:1::1");
    assert_eq!(
        admission.admit(origin("192.0.2.4")).unwrap_err(),
        Refusal::HandshakesFull,
        "clients of one network do not undo each other's handshakes"
    );
    let other = begun("198.51.100.1");
    assert!(makes_way(&crowd[0]).await, "the oldest of the network that holds the most");
    assert!(!makes_way(&crowd[1]).await && !makes_way(&alone).await && !makes_way(&other).await);
    assert_eq!(admission.admit(origin("192.0.2.4")).unwrap_err(), Refusal::HandshakesFull);
    // What was told to make way gives its place in the handshakes back once, and not again when it is gone.
    drop(crowd);
    let _room = ["192.0.2.5", "192.0.2.6"].map(begun);
    assert_eq!(admission.admit(origin("192.0.2.7")).unwrap_err(), Refusal::HandshakesFull);
}

#[tokio::test]
async fn r2_a_crowd_that_keeps_its_handshakes_going_puts_out_nobody_elses_connection() {
    let (admission, _) = admission(AcceptLimits { handshakes_max: 4, ..ROOM });
    let begun = |address: &str| begun(&admission, address);
    let crowd = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(begun);
    let honest = begun("198.51.100.1");
    honest.complete();
    assert_eq!(admission.admit(origin("192.0.2.4")).unwrap_err(), Refusal::HandshakesFull);
    let other = begun("203.0.113.1");
    assert!(makes_way(&crowd[0]).await && !makes_way(&honest).await);
    // Of the crowd's own, who has nothing left to do but to call goes first.
    crowd[2].complete();
    let _another = begun("203.0.114.1");
    assert!(makes_way(&crowd[2]).await && !makes_way(&crowd[1]).await && !makes_way(&other).await);
}

#[tokio::test]
async fn r2_who_comes_no_further_makes_way_for_its_own_network_and_address() {
    let (admission, _) = admission(AcceptLimits {
        handshakes_max: 2,
        handshakes_per_peer_max: 2,
        handshake_stage_max: Duration::from_secs(3),
        ..ROOM
    });
    let begun = |address: &str| begun(&admission, address);
    let stalled = ["192.0.2.1", "192.0.2.1"].map(begun);
    assert_eq!(admission.admit(origin("192.0.2.1")).unwrap_err(), Refusal::PeerFull);
    assert_eq!(admission.admit(origin("192.0.2.2")).unwrap_err(), Refusal::HandshakesFull);
    NOW.set(NOW.get() + Duration::from_secs(3));
    assert_eq!(admission.admit(origin("192.0.2.1")).unwrap_err(), Refusal::PeerFull);
    NOW.set(NOW.get() + Duration::from_millis(1));
    let _newcomers = ["192.0.2.1", "192.0.2.2"].map(begun);
    assert!(makes_way(&stalled[0]).await && makes_way(&stalled[1]).await);
    assert_eq!(admission.admit(origin("192.0.2.3")).unwrap_err(), Refusal::HandshakesFull);
}

#[tokio::test]
async fn r2_a_peer_that_is_silent_in_its_handshakes_takes_no_more_than_its_own() {
    let (admission, _) = admission(AcceptLimits { handshakes_per_peer_max: 2, ..ROOM });
    let from = |address: &str| admission.admit(origin(address));
    let first = from("192.0.2.1").unwrap();
    let second = from("192.0.2.1").unwrap();
    let other = from("192.0.2.2").unwrap();
    let third = from("192.0.2.1").unwrap();
    assert!(makes_way(&first).await && !makes_way(&second).await && !makes_way(&other).await);
    second.begun();
    third.begun();
    assert_eq!(from("192.0.2.1").unwrap_err(), Refusal::PeerFull);
    third.probation().pass(Duration::MAX);
    drop((first, second, third, from("192.0.2.1").unwrap()));
    assert!(from("192.0.2.1").is_ok() && from("192.0.2.1").is_ok(), "every place came back");
}

#[test]
fn r1_places_are_counted_in_all_per_peer_and_per_network() {
    let (admission, counters) = admission(AcceptLimits {
        connections_max: 4,
        connections_per_peer_max: 2,
        connections_per_network_max: 3,
        ..ROOM
    });
    let from = |address: &str| admission.admit(origin(address));
    let first = from("2001:db8::1").unwrap();
    let second = from("2001:db8::ffff:2").unwrap();
    assert_eq!(
        from("2001:db8:0:0:abcd::").unwrap_err(),
        Refusal::PeerFull,
        "a network of 64 bits is one peer"
    );
    let third = from("2001:db8:0:1::1").unwrap();
    assert_eq!(from("2001:db8:0:2::1").unwrap_err(), Refusal::NetworkFull);
    first.probation().pass(Duration::MAX);
    second.probation().pass(Duration::MAX);
    second.probation().pass(Duration::MAX);
    let fourth = from("::ffff:192.0.2.1").unwrap();
    assert_eq!(from("192.0.2.3").unwrap_err(), Refusal::ConnectionsFull);
    drop(first);
    let fifth = from("192.0.2.1").unwrap();
    drop(third);
    assert_eq!(from("192.0.2.1").unwrap_err(), Refusal::PeerFull, "a mapped address is the address");
    let sixth = from("192.0.2.255").unwrap();
    drop(second);
    assert_eq!(from("192.0.2.0").unwrap_err(), Refusal::NetworkFull, "a network of 24 bits is one network");
    drop((fourth, fifth, sixth));
    assert_eq!((counters.accepted(), counters.open()), (6, 0));
    let again: Vec<_> = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(from).into_iter().collect();
    assert!(again.iter().all(Result::is_ok), "every place came back");
}
