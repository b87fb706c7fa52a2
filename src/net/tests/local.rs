//! The local socket, and what raw bytes on it do to HTTP/2.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn private_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    directory
}

async fn run_local(path: &Path, limits: NetLimits) -> (Arc<Counters>, Arc<AtomicUsize>) {
    let counters = Arc::new(Counters::new("local"));
    let (release, waiting) = (Arc::default(), Arc::default());
    let endpoint = Endpoint { routes: routes(&release, &waiting), limits, counters: Arc::clone(&counters) };
    let listener = LocalListener::bind(path).unwrap();
    let admit = |peer: LocalPeer| LocalPeerSeen(peer.uid);
    tokio::spawn(endpoint.serve_local(listener, admit, std::future::pending()));
    (counters, waiting)
}

#[tokio::test]
async fn the_local_socket_is_private_and_knows_its_peer() {
    let directory = private_directory();
    let path = directory.path().join("root@brevet.sock");
    let _ = run_local(&path, NetLimits::default()).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (mut client, _connection) = speak(UnixStream::connect(&path).await.unwrap()).await;
    let uid = nix::unistd::geteuid().to_string();
    assert_eq!(call(&mut client, "/uid").await.unwrap(), (StatusCode::OK, uid));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let directory = private_directory();
    let path = directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let live = LocalListener::bind(&path).unwrap();
    assert!(matches!(LocalListener::bind(&path), Err(BindError::InUse)));
    drop(live);

    let file = directory.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    assert!(matches!(LocalListener::bind(&file), Err(BindError::NotASocket)));
    assert_eq!(std::fs::read(&file).unwrap(), b"kept");

    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(LocalListener::bind(&link), Err(BindError::NotASocket)));

    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
    assert!(matches!(LocalListener::bind(&directory.path().join("new")), Err(BindError::OpenDirectory)));
}

#[tokio::test]
async fn a_client_of_another_protocol_is_refused() {
    let directory = private_directory();
    let path = directory.path().join("root.sock");
    let (counters, _) = run_local(&path, NetLimits::default()).await;
    let mut socket = UnixStream::connect(&path).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(is_closed(&mut socket).await);
    assert_eq!(counters.refused(Refusal::HandshakeFailed), 1);
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_cut() {
    let directory = private_directory();
    let path = directory.path().join("root.sock");
    let limits = NetLimits { keepalive_interval: SHORT, keepalive_timeout: SHORT, ..NetLimits::default() };
    let (counters, _) = run_local(&path, limits).await;
    let mut socket = UnixStream::connect(&path).await.unwrap();
    socket.write_all(OPENING).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(socket.read_to_end(&mut answer)).await;
    assert_eq!(counters.accepted(), 1);
}

#[tokio::test]
async fn rapid_resets_end_the_connection_and_their_work_is_bounded() {
    const HEADERS: &[u8] = &[0, 0, 3, 1, 0x05];
    const GET_ROOT_OVER_HTTPS: &[u8] = &[0x82, 0x84, 0x87];
    const RESET: &[u8] = &[0, 0, 4, 3, 0];
    const CANCEL: &[u8] = &[0, 0, 0, 8];
    const GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let directory = private_directory();
    let path = directory.path().join("root.sock");
    let (counters, waiting) = run_local(&path, NetLimits::default()).await;
    let mut bytes = OPENING.to_vec();
    for stream in (1..2_000_u32).step_by(2).map(u32::to_be_bytes) {
        bytes.extend([HEADERS, &stream, GET_ROOT_OVER_HTTPS, RESET, &stream, CANCEL].concat());
    }
    let mut socket = UnixStream::connect(&path).await.unwrap();
    let _ = socket.write_all(&bytes).await;
    let mut answer = Vec::new();
    let _ = soon(socket.read_to_end(&mut answer)).await;
    soon(async {
        while counters.open() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut frames = answer.as_slice();
    let mut reason = None;
    while let Some((head, rest)) = frames.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        if head[3] == GOAWAY {
            reason = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        frames = rest;
    }
    assert_eq!(reason, Some(ENHANCE_YOUR_CALM));
    let handled = waiting.load(Ordering::SeqCst);
    assert!(handled <= 128, "{handled} of 1,000 calls that were reset at once were taken up");
}
