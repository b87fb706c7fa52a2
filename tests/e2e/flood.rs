//! Clients that keep no rule of HTTP/2 or TLS, or keep them all and take no answer: their connection ends, the daemon
//! stays small, and whoever calls on another connection is answered throughout.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use brevet_api::v1;
use brevet_core::fact::Fact;
use brevet_core::record;
use brevet_testkit::ca::Leaf;
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::frames::{
    ACK, Attacker, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, End, FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR, HEADERS, PATIENCE, PING, PRIORITY, PROTOCOL_ERROR, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    call, field, frame, integer,
};
use crate::wire::{framed, tls_config, tls_config_of};
use crate::world::{OPERATOR, ORCHESTRATOR, RESOURCE_SERVER, World, now};

const LIST: &str = "/brevet.v1.TaskService/ListTasks";
const CREATE: &str = "/brevet.v1.TaskService/CreateTask";

/// What an attack may make the daemon grow by, in KiB.
const GROWTH_KIB_MAX: u64 = 8 * 1024;

/// The settings by which a client takes nothing: its windows are empty from the start.
const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

fn world_with(grpc: toml::Table, limits: toml::Table) -> World {
    World::with(|config, _| {
        config["grpc"].as_table_mut().unwrap().extend(grpc);
        config.insert("limits".to_owned(), limits.into());
    })
}

/// Somebody who calls on a connection of its own all the while, and is always answered.
struct Bystander {
    done: Arc<AtomicBool>,
    calls: JoinHandle<usize>,
}

impl Bystander {
    async fn begin(world: &World) -> Self {
        let (client, done) = (world.client(ORCHESTRATOR).await, Arc::new(AtomicBool::new(false)));
        // What a daemon grows by at its first calls is no attack's doing.
        let mut first = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let client = client.clone();
            first.spawn(async move { drop(client.list(v1::ListTasksRequest::default()).await.result()) });
        }
        first.join_all().await;
        let calls = tokio::spawn({
            let done = Arc::clone(&done);
            async move {
                let mut calls = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = client.list(v1::ListTasksRequest::default());
                    tokio::time::timeout(PATIENCE, answer).await.expect("an answer").ok();
                    calls += 1;
                    tokio::task::yield_now().await;
                }
                calls
            }
        });
        Self { done, calls }
    }

    async fn was_answered(self) {
        self.done.store(true, Ordering::Relaxed);
        assert!(self.calls.await.unwrap() > 0);
    }
}

/// One attack: what is sent at the n-th time, how often at most, how the connection may end.
struct Attack {
    what: &'static str,
    times: usize,
    send: Box<dyn Fn(usize) -> Vec<u8>>,
    /// With which code at the end the server may say why; none if any will do.
    code: Option<u32>,
    /// Whether the server may also bear it.
    is_borne: bool,
}

fn attack(what: &'static str, times: usize, code: u32, send: impl Fn(usize) -> Vec<u8> + 'static) -> Attack {
    Attack { what, times, send: Box::new(send), code: Some(code), is_borne: false }
}

impl Attack {
    fn with_any_code(self) -> Self {
        Self { code: None, ..self }
    }

    fn may_be_borne(self) -> Self {
        Self { code: None, is_borne: true, ..self }
    }
}

const WHOLE: u8 = END_HEADERS | END_STREAM;
const MOST: &[u8] = &0x7fff_ffff_u32.to_be_bytes();

/// The stream that is opened as the n-th.
fn stream(number: usize) -> u32 {
    u32::try_from(number).unwrap() * 2 + 1
}

/// Many streams at once, each opened and then spoilt by another frame.
fn spoilt(flags: u8, spoil: impl Fn(u32) -> Vec<u8> + 'static) -> impl Fn(usize) -> Vec<u8> {
    move |number| {
        (number * 100..(number + 1) * 100)
            .flat_map(|number| {
                let stream = stream(number);
                [frame(HEADERS, flags, stream, &call(LIST)), spoil(stream)].concat()
            })
            .collect()
    }
}

fn broken_rules() -> Vec<Attack> {
    let open = |flags| move |_| frame(HEADERS, flags, 1, &call(LIST));
    let after =
        |flags, rest: Vec<u8>| move |_| [frame(HEADERS, flags, 1, &call(LIST)), rest.clone()].concat();
    let junk = field("x", &"a".repeat(8_000)).repeat(2);
    let continued = move |number: usize| match number {
        0 => frame(HEADERS, 0, 1, &call(LIST)),
        _ => frame(CONTINUATION, 0, 1, &junk),
    };
    let nothing = |number: usize| match number {
        0 => frame(HEADERS, 0, 1, &call(LIST)),
        _ => frame(CONTINUATION, 0, 1, &[]).repeat(1_000),
    };
    // A field of 4,000 bytes goes into the table of those that are remembered, and is then named by a byte.
    let bomb = [&[0x40, 1, b'x'], integer(7, 4_000).as_slice(), &[b'a'; 4_000], &[0xbe; 12_000]].concat();
    let listed = [call(LIST), field("x", &"a".repeat(8_000))].concat();
    let large = [
        frame(HEADERS, END_STREAM, 1, &listed),
        frame(CONTINUATION, 0, 1, &field("x", &"a".repeat(16_000))).repeat(64),
        frame(CONTINUATION, END_HEADERS, 1, &[]),
    ]
    .concat();
    vec![
        attack("endless header fields", 10_000, ENHANCE_YOUR_CALM, continued).with_any_code(),
        attack("endless continuations of nothing", 1_000, ENHANCE_YOUR_CALM, nothing).with_any_code(),
        attack("header fields of a mebibyte", 1, ENHANCE_YOUR_CALM, move |_| large.clone()).may_be_borne(),
        attack("a bomb of remembered fields", 1, ENHANCE_YOUR_CALM, move |_| {
            frame(HEADERS, WHOLE, 1, &[call(LIST), bomb.clone()].concat())
        })
        .may_be_borne(),
        attack("another frame among header fields", 1, PROTOCOL_ERROR, after(0, frame(PING, 0, 0, &[0; 8]))),
        attack("an index of no field", 1, PROTOCOL_ERROR, |_| {
            frame(HEADERS, WHOLE, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f])
        })
        .with_any_code(),
        attack("too large a window", 2, FLOW_CONTROL_ERROR, |_| frame(WINDOW_UPDATE, 0, 0, MOST)),
        attack("a window that does not grow", 1, PROTOCOL_ERROR, |_| frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        attack("a stream opened twice", 2, PROTOCOL_ERROR, open(WHOLE)).with_any_code(),
        attack("a stream of the server's", 1, PROTOCOL_ERROR, |_| frame(HEADERS, WHOLE, 2, &call(LIST))),
        attack("data of no stream", 1, PROTOCOL_ERROR, |_| frame(DATA, 0, 0, &[0; 8])),
        attack("too large a frame", 1, FRAME_SIZE_ERROR, after(END_HEADERS, frame(DATA, 0, 1, &[0; 20_000]))),
        attack(
            "data beyond its window",
            1,
            FLOW_CONTROL_ERROR,
            after(END_HEADERS, frame(DATA, 0, 1, &[0; 16_384]).repeat(64)),
        )
        .may_be_borne(),
        attack("settings without end", 300, ENHANCE_YOUR_CALM, |_| frame(SETTINGS, 0, 0, &[]).repeat(1_000))
            .may_be_borne(),
        attack("pings without end", 300, ENHANCE_YOUR_CALM, |_| frame(PING, 0, 0, &[7; 8]).repeat(1_000))
            .may_be_borne(),
        attack(
            "rapid reset",
            100,
            ENHANCE_YOUR_CALM,
            spoilt(WHOLE, |stream| frame(RST_STREAM, 0, stream, &[0; 4])),
        ),
        attack(
            "reset by a window that does not grow",
            100,
            ENHANCE_YOUR_CALM,
            spoilt(END_HEADERS, |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4])),
        )
        .with_any_code(),
        attack(
            "reset by too large a window",
            100,
            ENHANCE_YOUR_CALM,
            spoilt(END_HEADERS, |stream| frame(WINDOW_UPDATE, 0, stream, MOST)),
        ),
        attack(
            "reset by data after the end",
            100,
            ENHANCE_YOUR_CALM,
            spoilt(WHOLE, |stream| frame(DATA, 0, stream, &[0; 8])),
        )
        .with_any_code(),
        attack(
            "reset by header fields after the end",
            100,
            ENHANCE_YOUR_CALM,
            spoilt(WHOLE, |stream| frame(HEADERS, WHOLE, stream, &call(LIST))),
        )
        .with_any_code(),
        attack(
            "reset by header fields without an end",
            100,
            ENHANCE_YOUR_CALM,
            spoilt(END_HEADERS, |stream| frame(HEADERS, END_HEADERS, stream, &call(LIST))),
        )
        .with_any_code(),
        attack(
            "a stream that depends on itself",
            100,
            PROTOCOL_ERROR,
            spoilt(END_HEADERS, |stream| {
                frame(PRIORITY, 0, stream, &[stream.to_be_bytes().as_slice(), &[0]].concat())
            }),
        )
        .may_be_borne(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r1_whoever_breaks_the_rules_of_http_2_ends_its_own_connection_and_harms_nobody() {
    let keepalive = toml::toml! {
        keepalive_interval_seconds = 1
        keepalive_timeout_seconds = 2
    };
    let world = world_with(keepalive, toml::Table::new());
    let bystander = Bystander::begin(&world).await;
    for Attack { what, times, send, code, is_borne } in broken_rules() {
        let before = world.daemon.peak_kib();
        let mut attacker = Attacker::connect(&world, tls_config(&world), &[]).await;
        attacker.flood(times, send).await;
        let (end, _) = attacker.end().await;
        println!("{what}: {end:?}");
        match (&end, code) {
            (End::Alive, _) => assert!(is_borne, "{what}: it goes on"),
            (End::Said(said), Some(code)) => assert_eq!(*said, code, "{what}"),
            (End::Said(_) | End::Closed, _) => {}
        }
        drop(attacker);
        let grown = world.daemon.peak_kib().saturating_sub(before);
        assert!(grown < GROWTH_KIB_MAX, "{what}: {grown} KiB more");
    }
    bystander.was_answered().await;
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r2_a_call_that_is_reset_while_it_runs_counts_like_any_other() {
    const BURST: usize = 5;
    const RESETS: usize = 200;
    let limits = toml::toml! {
        calls_per_second_per_caller_max = 1
        calls_burst_per_caller_max = 5
    };
    let world = world_with(toml::Table::new(), limits);
    let mut attacker = Attacker::connect(&world, tls_config_of(&world, ORCHESTRATOR), &[]).await;
    let mut resets = 0;
    let begun = now();
    while resets < RESETS {
        let message = framed(&world.create(&format!("request-{resets}")).encode_to_vec());
        let stream = stream(resets);
        let whole = [
            frame(HEADERS, END_HEADERS, stream, &call(CREATE)),
            frame(DATA, END_STREAM, stream, &message),
            frame(PING, 0, 0, &[1; 8]),
        ];
        if !attacker.send(&whole.concat()).await {
            break;
        }
        // It is taken up by now, and its caller wants nothing of it any more.
        while attacker.next().await.is_some_and(|frame| frame.kind != PING || frame.flags & ACK == 0) {}
        attacker.send(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
        resets += 1;
    }
    let seconds = usize::try_from(now().since(begun).as_secs()).unwrap() + 1;
    drop(attacker);
    let opened = world.stop().iter().filter(|written| matches!(written.fact, Fact::TaskOpened(_))).count();
    assert!(opened <= BURST + seconds, "{opened} tasks by {resets} calls in {seconds} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r1_whoever_takes_no_answer_is_cut_off() {
    let world = world_with(toml::toml! { answer_seconds_max = 1 }, toml::Table::new());
    let bystander = Bystander::begin(&world).await;
    let message = framed(&v1::ListTasksRequest::default().encode_to_vec());
    let mut attacks = 0;
    // What a busy daemon grows by once is no attack's doing; what it grows by each time is.
    loop {
        let before = world.daemon.peak_kib();
        let mut attacker = Attacker::connect(&world, tls_config(&world), &NO_WINDOW).await;
        for number in 0..100 {
            let stream = stream(number);
            let asked =
                [frame(HEADERS, END_HEADERS, stream, &call(LIST)), frame(DATA, END_STREAM, stream, &message)];
            assert!(attacker.send(&asked.concat()).await);
        }
        attacker.closed().await;
        attacks += 1;
        let grown = world.daemon.peak_kib().saturating_sub(before);
        if grown < GROWTH_KIB_MAX {
            break;
        }
        assert!(attacks < 3, "{grown} KiB more");
    }
    bystander.was_answered().await;
    let cut = format!(r#"{{listener="grpc",reason="answer_untaken"}} {attacks}"#);
    assert!(world.metrics().await.contains(&cut));
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r1_w7_whoever_takes_nothing_of_a_stream_is_cut_off() {
    let world = world_with(toml::Table::new(), toml::toml! { audit_stall_seconds_max = 1 });
    let bystander = Bystander::begin(&world).await;
    let mut attacker = Attacker::connect(&world, tls_config_of(&world, OPERATOR), &NO_WINDOW).await;
    let operator = world.client(OPERATOR).await;
    let events = operator.events(v1::ListEventsRequest::default()).await.ok().events;
    let incarnation = record::decode(events[0].record.as_bytes()).unwrap().envelope.incarnation.0;
    let cursor = Some(v1::Cursor { incarnation, revision: 0 });
    let from_the_start = v1::TailEventsRequest { cursor };
    let tail = call("/brevet.v1.AuditService/TailEvents");
    let asked = [
        frame(HEADERS, END_HEADERS, 1, &tail),
        frame(DATA, END_STREAM, 1, &framed(&from_the_start.encode_to_vec())),
    ];
    assert!(attacker.send(&asked.concat()).await);
    attacker.closed().await;
    bystander.was_answered().await;
    assert!(world.metrics().await.contains(r#"{listener="grpc",reason="answer_untaken"} 1"#));
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r1_calls_that_never_end_are_ended() {
    let world = world_with(toml::toml! { call_seconds_max = 1 }, toml::Table::new());
    let mut attacker = Attacker::connect(&world, tls_config(&world), &[]).await;
    let half = |number| {
        let stream = stream(number);
        let begun = [&[0, 0, 0, 1, 0][..], &[0; 16]].concat();
        [frame(HEADERS, END_HEADERS, stream, &call(CREATE)), frame(DATA, 0, stream, &begun)].concat()
    };
    attacker.flood(100, half).await;
    let mut ended = 0;
    while ended < 100 {
        let frame = attacker.next().await.expect("an answer to each call");
        ended += usize::from(frame.kind == HEADERS && frame.flags & END_STREAM != 0);
    }
    drop(attacker);
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w8_no_connection_outlives_its_clients_certificate() {
    let world = world_with(toml::toml! { call_seconds_max = 1 }, toml::Table::new());
    let short = Leaf {
        not_after: now().after(Duration::from_secs(3)),
        ..Leaf::of("spiffe://workloads.dev.example/agent/a", now())
    };
    let svid = world.ca.sign(&short);
    let chain = vec![CertificateDer::from_pem_slice(svid.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(svid.key.as_bytes()).unwrap();
    let config = crate::wire::client_config(&world, chain, key);
    let mut idle = Attacker::connect(&world, config.clone(), &[]).await;
    let mut busy = Attacker::connect(&world, config, &[]).await;
    assert!(busy.send(&frame(HEADERS, END_HEADERS, 1, &call(CREATE))).await);
    idle.closed().await;
    busy.closed().await;
    // A certificate ends on a whole second.
    assert!(now().after(Duration::from_secs(1)) >= short.not_after, "it ended early");
    world.stop();
}

/// A ClientHello of TLS 1.2, which names no other version.
fn hello_of_tls_1_2() -> Vec<u8> {
    let suites = [0, 4, 0xc0, 0x2b, 0xc0, 0x2f];
    // Signatures, groups and forms of points, without which it would be refused for another reason.
    let extensions =
        [&[0, 13, 0, 4, 0, 2, 4, 3][..], &[0, 10, 0, 4, 0, 2, 0, 23], &[0, 11, 0, 2, 1, 0]].concat();
    let length = [0, u8::try_from(extensions.len()).unwrap()];
    let hello = [&[3, 3][..], &[7; 32], &[0], &suites, &[1, 0], &length, &extensions].concat();
    let length = u8::try_from(hello.len()).unwrap();
    let handshake = [&[1, 0, 0, length][..], &hello].concat();
    [&[0x16, 3, 1, 0, length + 4][..], &handshake].concat()
}

/// A record of 16 KiB, with which a ClientHello of 64 KiB begins, and with the like of which it goes on.
fn part_of_a_hello() -> Vec<u8> {
    [&[0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..], &[0; 0x4000 - 4]].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r2_what_is_no_handshake_of_tls_1_3_gets_no_further_and_keeps_nobody_out() {
    let few = toml::toml! {
        handshakes_max = 8
        handshake_seconds_max = 2
    };
    let world = world_with(few, toml::Table::new());
    let address = world.endpoints().grpc.trim_start_matches("https://").to_owned();
    let bystander = Bystander::begin(&world).await;
    for _ in 0..10 {
        world.client(RESOURCE_SERVER).await;
    }
    let before = world.daemon.peak_kib();
    for (what, bytes) in [
        ("TLS 1.2", hello_of_tls_1_2()),
        ("plain HTTP/1.1", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        ("plain HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        ("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]),
        ("garbage", vec![0xa5; 4_096]),
        ("a record without an end", vec![0x16, 3, 1, 0x40, 0]),
        ("a ClientHello that never ends", part_of_a_hello().repeat(8)),
        ("nothing", vec![]),
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        // It may be refused before all of it is sent.
        let _sent = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{what} is still open");
        // If anything, an alert.
        assert!(answer.is_empty() || answer[0] == 0x15, "{what}: {answer:?}");
        if what == "TLS 1.2" {
            assert_eq!(answer.last(), Some(&70), "protocol_version");
        }
    }
    // More silent ones than there are places, some of which have begun to speak.
    let mut silent = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(&hello_of_tls_1_2()[..20]).await.unwrap();
        }
        silent.push(stream);
        if number % 10 == 0 {
            world.client(RESOURCE_SERVER).await;
        }
    }
    let grown = world.daemon.peak_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more");
    bystander.was_answered().await;
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r2_a_handshake_is_refused_when_it_is_longer_than_the_configuration_allows() {
    let short = toml::toml! {
        handshake_bytes_max = 16384
        handshake_seconds_max = 600
    };
    let world = world_with(short, toml::Table::new());
    let address = world.endpoints().grpc.trim_start_matches("https://").to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    // Half of a ClientHello: no more than the default allows.
    let _sent = stream.write_all(&part_of_a_hello().repeat(2)).await;
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "it is still open");
    world.client(RESOURCE_SERVER).await;
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_hello_in_single_bytes_is_one() {
    let world = World::start();
    let address = world.endpoints().grpc.trim_start_matches("https://").to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in hello_of_tls_1_2() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer.last(), Some(&70), "it was read, and it is not TLS 1.3");
    world.stop();
}
