//! The local root socket, which stops all tenants, and which nothing that is stopped can close.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use brevet_api::v1;
use brevet_api::v1::selector::Kind;
use brevet_core::fact::{DeniedOperation, Fact};
use brevet_testkit::daemon::refused_start;
use tonic::Code;

use crate::hardening::{Program, TARGET};
use crate::wire::{call, framed};
use crate::world::{AGENT, Client, OPERATOR, RESOURCE_SERVER, World, Written, binary, issue};

async fn token(agent: &Client, request: v1::IssueCredentialRequest) -> v1::Credential {
    agent.issue(request).await.ok().credential.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t6_u1_a_stop_of_everything_is_lifted_over_the_root_socket_which_leaves_its_record_first() {
    let world = World::start();
    let (operator, server) = (world.client(OPERATOR).await, world.client(RESOURCE_SERVER).await);
    let (agent, root) = (world.client(AGENT).await, world.root().await);
    let task = world.open_task(world.create("task")).await.name;
    let dead = token(&agent, issue(&task, "one")).await.token;

    for (number, kind) in [
        Kind::Everything(true),
        Kind::TrustDomain("workloads.dev.example".to_owned()),
        Kind::PathPrefix("spiffe://workloads.dev.example/operator".to_owned()),
        Kind::Agent("spiffe://workloads.dev.example/operator/olivia".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let lock = operator.stop(&format!("{number}"), kind).await.ok();
        assert!(!server.is_active(&dead).await);
        operator.lift(&lock.name).await.refused(Code::FailedPrecondition, "locked");
        assert!(operator.get_lock(&lock.name).await.ok().in_force);
        assert!(!root.lift(&lock.name).await.ok().in_force);
    }

    // Whoever is root stops all tenants, and no tenant's operator undoes it.
    let lock = root.stop("root", Kind::Tool("read".to_owned())).await.ok();
    assert_eq!(
        (lock.tenant.as_str(), root.stop("root", Kind::Tool("read".to_owned())).await.ok().name),
        ("", lock.name.clone())
    );
    root.stop("root", Kind::Tool("write".to_owned())).await.refused(Code::AlreadyExists, "request_id_reused");
    let task = world.open_task(world.create("second")).await.name;
    agent.issue(issue(&task, "one")).await.refused(Code::FailedPrecondition, "locked");
    assert_eq!(operator.get_lock(&lock.name).await.ok().name, lock.name);
    operator.lift(&lock.name).await.refused(Code::FailedPrecondition, "locked");
    root.lift(&lock.name).await.ok();
    token(&agent, issue(&task, "one")).await;
    root.lift("locks/00000000000000000000000000").await.refused(Code::NotFound, "not_found");

    // It serves nothing else.
    let leases = root.broker.leases().list_leases(v1::ListLeasesRequest::default()).await.map(drop);
    root.answer("unknown", None, leases).refused(Code::Unimplemented, "unimplemented");
    // Each use is an alarm, and what the locks ended is counted.
    assert!(world.log().contains("the root socket is used"));
    let metrics = world.metrics().await;
    for line in [
        "brevet_root_socket_uses_total 9",
        "brevet_locks_in_force 0",
        "brevet_locked_total{kind=\"task\"} 1",
        "brevet_connections_total{listener=\"root\"} 1",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line}\n{metrics}");
    }
    drop((operator, server, agent, root));
    let journal = world.finish();

    let mut announced = 0;
    for Written { envelope, fact, .. } in &journal {
        match fact {
            Fact::RootSocketUsed { uid, method } => {
                assert_eq!(*uid, nix::unistd::geteuid().as_raw());
                assert!(["CreateLock", "LiftLock"].contains(&method.as_str()));
                announced += 1;
            }
            Fact::LockCreated(_) | Fact::LockLifted { .. } if envelope.caller.is_none() => {
                assert!(announced > 0, "an effect of root's without its record before");
                announced -= 1;
            }
            _ => {}
        }
    }
    // Asked for without effect: the repetition, the reused name and the lock that is not there.
    assert_eq!(announced, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_whatever_is_refused_at_the_root_socket_has_a_record_that_says_whose_it_was() {
    let world = World::start();
    let root = world.root().await;
    let garbage = call(&root, "/brevet.v1.LockService/CreateLock", &[], framed(&[0xff; 32])).await;
    assert_eq!(garbage.unwrap_err().code(), Code::InvalidArgument);
    root.lift("rubbish").await.refused(Code::InvalidArgument, "invalid_argument");
    root.get_lock("rubbish").await.refused(Code::InvalidArgument, "invalid_argument");
    // It serves nothing else.
    let leases = root.broker.leases().list_leases(v1::ListLeasesRequest::default()).await;
    assert_eq!(leases.unwrap_err().code(), Code::Unimplemented);
    drop(root);
    let refused: Vec<_> = world
        .stop()
        .into_iter()
        .filter_map(|written| match written.fact {
            Fact::Denied { operation: DeniedOperation::Method(method), reason, uid, .. } => {
                assert_eq!(uid, Some(nix::unistd::geteuid().as_raw()));
                Some((method, reason.as_str().to_owned()))
            }
            _ => None,
        })
        .collect();
    let expected = [
        ("CreateLock", "message_malformed"),
        ("LiftLock", "invalid_argument"),
        ("GetLock", "invalid_argument"),
        ("unknown", "unimplemented"),
    ];
    assert_eq!(refused, expected.map(|(method, reason)| (method.to_owned(), reason.to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_root_socket_goes_with_a_clean_stop_and_is_taken_again_after_a_crash() {
    let mut world = World::start();
    let path = world.endpoints().root_socket.unwrap();
    world.daemon.kill();
    assert!(path.exists());
    world.daemon.restart();
    world.root().await.list_locks(v1::ListLocksRequest::default()).await.ok();
    assert!(world.daemon.stop().success());
    assert!(!path.exists());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_root_socket_that_others_could_replace_is_refused_at_the_start() {
    let mut world = World::start();
    assert!(world.daemon.stop().success());
    let (open, file) = (world.path("open"), world.path("file"));
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    fs::write(&file, "kept").unwrap();
    for (socket, problem) in [
        (open.join("root@brevet.sock"), "writable by no one else"),
        (file.clone(), "not a socket"),
        (world.path("nowhere").join("root@brevet.sock"), "cannot listen"),
    ] {
        world.configure(|config| {
            config.insert("local".to_owned(), toml::toml! { root_socket = "" }.into());
            config["local"]["root_socket"] = socket.to_str().unwrap().into();
        });
        let output = refused_start(binary(), &world.path("brevet.toml"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(problem), "{said}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"kept");

    // A path of its own, relative to the configuration, is what `endpoints.json` says.
    world.configure(|config| {
        drop(config.insert("local".to_owned(), toml::toml! { root_socket = "r@b.sock" }.into()))
    });
    world.daemon.restart();
    assert_eq!(world.endpoints().root_socket, Some(world.path("r@b.sock")));
    world.root().await.list_locks(v1::ListLocksRequest::default()).await.ok();
    world.finish();
}

/// The socket's mode keeps others out; if it did not, the kernel's word on whose process calls would.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_root_socket_serves_nobody_but_its_user_and_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: only root can be another user");
        return;
    }
    let world = World::start();
    let (folder, socket) = (world.folder.path(), world.endpoints().root_socket.unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(&folder.join("state"))), (0o600, 0o700));
    for (path, mode) in [(folder, 0o755), (&folder.join("state"), 0o755), (&socket, 0o666)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let stranger = Program::open("/proc/self/exe")
        .command()
        .args(["--ignored", "--exact", "root_socket::a_stranger"])
        .env(TARGET, &socket)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stranger.stdout);
    assert!(stranger.status.success() && said.contains("1 passed"), "{said}");
    world.root().await.list_locks(v1::ListLocksRequest::default()).await.ok();
    world.finish();
}

#[test]
#[ignore = "the child of the_root_socket_serves_nobody_but_its_user_and_root"]
fn a_stranger() {
    let mut stream = UnixStream::connect(std::env::var(TARGET).unwrap()).unwrap();
    // The preface of HTTP/2 (RFC 9113 §3.4), to which a server has something to say.
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0, 0, 0, 4, 0, 0, 0, 0, 0][..]].concat();
    let _may_be_closed_already = stream.write_all(&preface);
    assert!(!matches!(stream.read(&mut [0]), Ok(1)), "a stranger is answered");
}
