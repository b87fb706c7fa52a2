//! `WatchRevocations`: what a resource server is told over TLS, and what it makes of it.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brevet::clock::since_boot;
use brevet_api::v1;
use brevet_api::v1::watch_revocations_request::{Begin, Kind as Asked};
use brevet_api::v1::watch_revocations_response::Kind as Told;
use brevet_client::watch::{Distrusted, Event, Watching, watch};
use brevet_client::{Identity, Settings, connect};
use brevet_core::name::AudienceName;
use brevet_identity::key::certificate_digest;
use brevet_testkit::ca::Leaf;
use brevet_verify::{JwkSet, Picture, Presenter, Standing, Verified, Verifier};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::world::{
    AGENT, Client, FILES, ORCHESTRATOR, RESOURCE_SERVER, STATUS, World, eventually, issue, now, permission,
};

const METHOD: &str = "WatchRevocations";
/// How stale a picture may be; on a machine that is busy with other tests, generous.
const STALENESS_MAX: Duration = Duration::from_secs(30);

pub(crate) fn begin(audiences: &[&str], cursor: Option<v1::Cursor>) -> v1::WatchRevocationsRequest {
    let audiences = audiences.iter().map(|name| (*name).to_owned()).collect();
    v1::WatchRevocationsRequest { kind: Some(Asked::Begin(Begin { audiences, cursor })) }
}

fn nonce(byte: u8) -> v1::WatchRevocationsRequest {
    v1::WatchRevocationsRequest { kind: Some(Asked::Nonce(vec![byte; 16])) }
}

/// One stream as it is on the wire.
pub(crate) struct Stream {
    ask: mpsc::Sender<v1::WatchRevocationsRequest>,
    told: Streaming<v1::WatchRevocationsResponse>,
}

impl Stream {
    pub(crate) async fn open(client: &Client, first: v1::WatchRevocationsRequest) -> Result<Self, Status> {
        let (ask, asked) = mpsc::channel(8);
        ask.send(first).await.unwrap();
        let told =
            client.broker.revocations().watch_revocations(ReceiverStream::new(asked)).await?.into_inner();
        Ok(Self { ask, told })
    }

    pub(crate) async fn endings(&mut self) -> v1::Endings {
        match self.told.message().await.unwrap().unwrap().kind.unwrap() {
            Told::Endings(endings) => endings,
            Told::Bookmark(bookmark) => panic!("{bookmark:?} and no ending"),
        }
    }

    /// The next bookmark, and nothing before it.
    pub(crate) async fn bookmark(&mut self, byte: u8) -> v1::Bookmark {
        self.ask.send(nonce(byte)).await.unwrap();
        match self.told.message().await.unwrap().unwrap().kind.unwrap() {
            Told::Bookmark(bookmark) => bookmark,
            Told::Endings(endings) => panic!("{endings:?} and no bookmark"),
        }
    }

    /// How it ends, after whatever else is told.
    async fn end(mut self) -> Status {
        loop {
            if let Err(status) = self.told.message().await.map(Option::unwrap) {
                return status;
            }
        }
    }
}

/// A task with one live token.
async fn granted(world: &World, name: &str) -> (String, String) {
    let task = world.open_task(world.create(name)).await.name;
    let issued = world.client(AGENT).await.issue(issue(&task, name)).await.ok();
    (task, issued.credential.unwrap().token)
}

pub(crate) fn fetch(world: &World, path: &str) -> String {
    let address = world.endpoints().http;
    let address = address.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A resource server that watches, and judges what the agent presents. This is all that it takes.
struct Enforcer {
    verifier: Verifier,
    presenter: Presenter,
    picture: Arc<Mutex<Picture>>,
    /// How often it began anew, and every revision that it was told endings of.
    told: Arc<Mutex<(usize, Vec<u64>)>>,
    watching: tokio::task::JoinHandle<Infallible>,
}

impl Enforcer {
    fn of(world: &World) -> Self {
        let keys = |path| JwkSet::parse(fetch(world, path).as_bytes()).unwrap();
        let bookmark_keys = keys("/revocation/jwks");
        let picture = Arc::new(Mutex::new(Picture::new(bookmark_keys.clone())));
        let told = Arc::<Mutex<(usize, Vec<u64>)>>::default();
        let tell = {
            let (picture, told) = (Arc::clone(&picture), Arc::clone(&told));
            move |event| {
                let (mut picture, mut told) = (picture.lock().unwrap(), told.lock().unwrap());
                match event {
                    Event::Anew => {
                        *picture = Picture::new(bookmark_keys.clone());
                        told.0 += 1;
                    }
                    Event::Asking(nonce) => picture.asking(nonce, since_boot()),
                    Event::Endings(endings) => {
                        picture.apply(&endings);
                        told.1.push(endings.revision.0);
                    }
                    Event::Bookmark(bookmark) => picture.bookmark(&bookmark).map_err(|_| Distrusted)?,
                    Event::Lost(_) => {}
                }
                Ok(())
            }
        };
        // The broker may come back at another address, and the identity may have been renewed.
        let folder = world.folder.path().to_owned();
        let trust = world.server_trust();
        let connecting = move || {
            let (folder, trust) = (folder.clone(), trust.clone());
            async move {
                let Ok(endpoints) = brevet_client::Endpoints::read(&folder) else {
                    return Err(brevet_client::ConnectError::Endpoint);
                };
                let files = endpoints.identity(RESOURCE_SERVER).unwrap();
                let identity = Identity::load(&files.cert, &files.key).unwrap();
                connect(&endpoints.grpc, &identity, &trust, &Settings::default()).await
            }
        };
        let watching = tokio::spawn(async move { watch(&Watching::default(), connecting, tell).await });
        let audience = AudienceName::parse(FILES).unwrap();
        let issuer = "https://broker.dev.example".to_owned();
        let certificate = CertificateDer::from_pem_file(world.path("agent-a.pem")).unwrap();
        Self {
            verifier: Verifier::new(issuer, audience, keys("/oauth/jwks")),
            presenter: Presenter {
                key: world.holder_key(AGENT).thumbprint(),
                certificate: Some(certificate_digest(&certificate)),
            },
            picture,
            told,
            watching,
        }
    }

    fn verified(&self, token: &str) -> Verified {
        let time = self.picture.lock().unwrap().time(since_boot(), now());
        self.verifier.verify(token, &self.presenter, time).unwrap()
    }

    fn standing(&self, token: &str) -> Standing {
        let verified = self.verified(token);
        self.picture.lock().unwrap().judge(&verified, STALENESS_MAX, since_boot(), now())
    }

    async fn eventually(&self, what: &str, token: &str, is_so: impl Fn(&Standing) -> bool) {
        eventually(what, || async { is_so(&self.standing(token)) }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t2_w1_w2_w3_w6_a_verifier_is_told_of_every_ending_once_in_order_and_before_its_bookmark() {
    let world = World::start();
    let (orchestrator, server) = (world.client(ORCHESTRATOR).await, world.client(RESOURCE_SERVER).await);
    let mut tasks = Vec::new();
    for name in ["one", "two", "three", "four"] {
        tasks.push(granted(&world, name).await.0);
    }
    let mut ended = Vec::new();
    for task in &tasks[..2] {
        ended.push((orchestrator.complete(task).await.ok().revision, task.clone()));
    }
    // Two before it begins, and two while it goes on.
    let mut stream = Stream::open(&server, begin(&[], None)).await.unwrap();
    let mut told = Vec::new();
    for number in 0..4 {
        if let Some(task) = tasks.get(number).filter(|_| number >= 2) {
            ended.push((orchestrator.complete(task).await.ok().revision, task.clone()));
        }
        let v1::Endings { revision, mut endings, more } = stream.endings().await;
        let ending = endings.pop().unwrap();
        assert!(endings.is_empty() && !more);
        assert_eq!(ending.reason, "completed");
        let Some(v1::endings::ending::Ended::Task(task)) = ending.ended else { panic!("{ending:?}") };
        told.push((revision, task));
    }
    assert_eq!(told, ended);
    let bookmark = stream.bookmark(7).await;
    assert!(bookmark.cursor.unwrap().revision >= ended[3].0);
    assert_eq!(bookmark.nonce, [7; 16]);
    let again = stream.bookmark(8).await;
    assert_eq!(again.nonce, [8; 16]);
    // A task without a live credential ends nothing that anyone could still accept.
    let task = world.open_task(world.create("five")).await.name;
    let revision = orchestrator.complete(&task).await.ok().revision;
    assert!(stream.bookmark(9).await.cursor.unwrap().revision >= revision);
    drop((stream, orchestrator, server));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t3_w5_w6_a_verifier_refuses_what_has_ended_and_goes_on_across_a_broker_that_is_killed() {
    let mut world = World::start();
    let orchestrator = world.client(ORCHESTRATOR).await;
    let (first, first_token) = granted(&world, "one").await;
    let (second, second_token) = granted(&world, "two").await;
    let (_, third_token) = granted(&world, "three").await;
    let enforcer = Enforcer::of(&world);
    let is_live = |standing: &Standing| *standing == Standing::Live;
    let is_dead = |standing: &Standing| matches!(standing, Standing::Dead(_));
    enforcer.eventually("the first token lives", &first_token, is_live).await;

    let mut ended = vec![orchestrator.complete(&first).await.ok().revision];
    enforcer.eventually("the first token is dead", &first_token, is_dead).await;
    assert_eq!(enforcer.standing(&second_token), Standing::Live);

    // The broker is killed. Nothing is lost by it: what was dead stays so, and what lived does until it is stale.
    drop(orchestrator);
    world.daemon.kill();
    assert!(is_dead(&enforcer.standing(&first_token)));
    assert_eq!(enforcer.standing(&second_token), Standing::Live);
    let verified = enforcer.verified(&second_token);
    let late = since_boot() + STALENESS_MAX;
    let stale = enforcer.picture.lock().unwrap().judge(&verified, STALENESS_MAX, late, now());
    assert_eq!(stale, Standing::Stale);
    let witness = enforcer.picture.lock().unwrap().witness().unwrap();

    // It starts again, and something ends before the verifier may be back.
    world.daemon.restart();
    ended.push(world.client(ORCHESTRATOR).await.complete(&second).await.ok().revision);
    enforcer.eventually("the second token is dead", &second_token, is_dead).await;
    let is_newer = || async {
        let now = enforcer.picture.lock().unwrap().witness().unwrap();
        now.cursor.revision.0 >= ended[1] && now.cursor.incarnation == witness.cursor.incarnation
    };
    eventually("a bookmark of the new process", is_newer).await;
    assert_eq!(enforcer.standing(&third_token), Standing::Live);
    assert_eq!(*enforcer.told.lock().unwrap(), (1, ended), "nothing was missed, doubled or begun anew");
    enforcer.watching.abort();
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t7_the_enforcer_of_another_audience_is_told_nothing() {
    let status_server = "spiffe://workloads.dev.example/status-server";
    let world = World::with(|config, _| {
        let audiences = config["audiences"].as_array_mut().unwrap();
        audiences[1]["enforcers"] = toml::Value::from(vec![status_server]);
    });
    let (task, _) = granted(&world, "one").await;
    let agent = world.client(AGENT).await;
    let status = v1::IssueCredentialRequest {
        audience: STATUS.to_owned(),
        scope: vec![permission(STATUS, "health", &["read"])],
        ..issue(&world.open_task(world.create("two")).await.name, "two")
    };
    let other = status.task.clone();
    agent.issue(status).await.ok();

    let (files, status) = (world.client(RESOURCE_SERVER).await, world.workload(status_server).await);
    let mut watching = Vec::new();
    for client in [&files, &status] {
        watching.push(Stream::open(client, begin(&[], None)).await.unwrap());
    }
    let orchestrator = world.client(ORCHESTRATOR).await;
    for (number, ended) in [&task, &other].into_iter().enumerate() {
        orchestrator.complete(ended).await.ok();
        watching[number].endings().await;
    }
    for stream in &mut watching {
        stream.bookmark(1).await;
    }
    // An audience that the caller does not enforce, and a caller that enforces none.
    for (client, audiences) in [(&files, [STATUS].as_slice()), (&status, &[STATUS, FILES]), (&agent, &[])] {
        let refused = Stream::open(client, begin(audiences, None)).await.map(|_| ());
        client.answer(METHOD, None, refused).refused(Code::PermissionDenied, "not_enforcer");
    }
    drop((watching, files, status, agent, orchestrator));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w5_what_is_no_beginning_no_nonce_or_no_cursor_of_this_journal_is_refused() {
    let world = World::start();
    let server = world.client(RESOURCE_SERVER).await;
    let mut stream = Stream::open(&server, begin(&[FILES], None)).await.unwrap();
    let cursor = stream.bookmark(1).await.cursor.unwrap();
    let future = v1::Cursor { revision: cursor.revision + 1_000, ..cursor };
    let other = v1::Cursor { incarnation: cursor.incarnation ^ 1, ..cursor };
    for (first, code, reason) in [
        (nonce(1), Code::InvalidArgument, "invalid_argument"),
        (v1::WatchRevocationsRequest { kind: None }, Code::InvalidArgument, "invalid_argument"),
        (begin(&["not an audience"], None), Code::InvalidArgument, "invalid_argument"),
        (begin(&[], Some(future)), Code::InvalidArgument, "invalid_argument"),
        (begin(&[], Some(other)), Code::FailedPrecondition, "incarnation_changed"),
    ] {
        let refused = Stream::open(&server, first).await.map(|_| ());
        server.answer(METHOD, None, refused).refused(code, reason);
    }
    let short = v1::WatchRevocationsRequest { kind: Some(Asked::Nonce(vec![1; 15])) };
    for second in [short, begin(&[], None), v1::WatchRevocationsRequest { kind: None }] {
        let stream = Stream::open(&server, begin(&[], None)).await.unwrap();
        stream.ask.send(second).await.unwrap();
        let refused = Err::<(), _>(stream.end().await);
        server.answer(METHOD, None, refused).refused(Code::InvalidArgument, "invalid_argument");
    }
    assert!(Stream::open(&server, begin(&[], Some(cursor))).await.is_ok());
    drop((stream, server));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w8_a_stream_ends_when_its_caller_enforces_nothing_any_more() {
    let world = World::start();
    let server = world.client(RESOURCE_SERVER).await;
    let mut stream = Stream::open(&server, begin(&[FILES], None)).await.unwrap();
    stream.bookmark(1).await;
    world.configure(|config| {
        for audience in config["audiences"].as_array_mut().unwrap() {
            audience["enforcers"] = toml::Value::from(vec!["spiffe://workloads.dev.example/another"]);
        }
    });
    world.daemon.hang_up();
    let refused = Err::<(), _>(stream.end().await);
    server.answer(METHOD, None, refused).refused(Code::PermissionDenied, "not_enforcer");
    drop(server);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w8_a_stream_ends_with_the_identity_that_it_was_opened_with() {
    let world = World::start();
    let server = world.endpoints().identity(RESOURCE_SERVER).unwrap().spiffe_id.clone();
    let short = Leaf { not_after: now().after(Duration::from_secs(4)), ..Leaf::of(server.as_str(), now()) };
    let broker = world.connect(&world.identity(&world.ca.sign(&short))).await.unwrap();
    let client = world.known(broker, server.as_str());
    let mut stream = Stream::open(&client, begin(&[], None)).await.unwrap();
    stream.bookmark(1).await;
    let ended = Err::<(), _>(stream.end().await);
    client.answer(METHOD, None, ended).refused_for(Code::Unauthenticated, "UNAUTHENTICATED", "cert_time");
    drop(client);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nobody_has_more_streams_than_it_may_and_a_place_comes_back_with_its_end() {
    let world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { watch_streams_per_caller_max = 2 }.into());
    });
    let server = world.client(RESOURCE_SERVER).await;
    let first = Stream::open(&server, begin(&[], None)).await.unwrap();
    let second = Stream::open(&server, begin(&[], None)).await.unwrap();
    let refused = Stream::open(&server, begin(&[], None)).await.map(|_| ());
    server.answer(METHOD, None, refused).refused(Code::ResourceExhausted, "watch_streams_per_caller_max");
    let metrics = world.metrics().await;
    for line in ["brevet_streams_open{kind=\"revocations\"} 2", "brevet_streams_open{kind=\"audit\"} 0"] {
        assert!(metrics.lines().any(|told| told == line), "{line}\n{metrics}");
    }
    drop(first);
    // Each try that comes too early leaves a record of its own.
    eventually("the place is free", || async {
        let opened = Stream::open(&server, begin(&[], None)).await.map(|_| ());
        let is_ok = opened.is_ok();
        if !is_ok {
            server
                .answer(METHOD, None, opened)
                .refused(Code::ResourceExhausted, "watch_streams_per_caller_max");
        }
        is_ok
    })
    .await;
    drop((second, server));
    world.finish();
}
