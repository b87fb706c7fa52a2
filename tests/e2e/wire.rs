//! Bytes that are no request: too many, malformed, cut off, for no method, without a certificate or a protocol.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use brevet_api::v1;
use brevet_identity::tls;
use brevet_identity::trust::{Bundle, ServerTrust};
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::time_provider::DefaultTimeProvider;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::world::{AGENT, Client, ORCHESTRATOR, World};

const CREATE: &str = "/brevet.v1.TaskService/CreateTask";

/// A message as gRPC frames it.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), message].concat()
}

/// Sends bytes as the body of a call and gives its status.
pub(crate) async fn call(
    client: &Client,
    path: &str,
    headers: &[(&'static str, &str)],
    body: Vec<u8>,
) -> Result<(), Status> {
    request(client, http::Method::POST, path, headers, body).await.1
}

/// Sends any request and gives the HTTP status and the status of gRPC.
async fn request(
    client: &Client,
    method: http::Method,
    path: &str,
    headers: &[(&'static str, &str)],
    body: impl Into<axum::body::Body>,
) -> (Option<http::StatusCode>, Result<(), Status>) {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(headers) {
        request.headers_mut().unwrap().insert(*name, value.parse().unwrap());
    }
    let body = tonic::body::Body::new(body.into());
    match client.broker.channel().oneshot(request.body(body).unwrap()).await {
        Err(error) => (None, Err(Status::unknown(error.to_string()))),
        Ok(response) => match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != Code::Ok => (Some(response.status()), Err(status)),
            _ => (Some(response.status()), Ok(())),
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_bytes_that_are_no_request_are_refused_and_recorded_and_harm_nothing() {
    let world = World::start();
    let client = world.client(AGENT).await;
    let too_large = vec![b'a'; 65 * 1024];
    let name = |bytes: &[u8]| [&[0x0a, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let nested = std::iter::repeat_n([0x0a, 0x7f], 2_000).flatten().collect::<Vec<u8>>();
    for (what, body, code, reason) in [
        ("garbage", framed(&[0xff; 32]), Code::InvalidArgument, "message_malformed"),
        ("a length beyond the end", framed(&[0x0a, 0x7f, b'a']), Code::InvalidArgument, "message_malformed"),
        (
            "a length of 2^64",
            framed(&[0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
            Code::InvalidArgument,
            "message_malformed",
        ),
        ("no UTF-8", framed(&name(&[0xc3, 0x28])), Code::InvalidArgument, "message_malformed"),
        ("another type", framed(&[0x08, 1]), Code::InvalidArgument, "message_malformed"),
        ("a group without an end", framed(&[0x0b]), Code::InvalidArgument, "message_malformed"),
        ("nested", framed(&nested), Code::InvalidArgument, "message_malformed"),
        ("no frame", vec![], Code::InvalidArgument, "message_malformed"),
        ("half a frame's head", vec![0, 0, 0], Code::InvalidArgument, "message_malformed"),
        ("a frame that is cut off", vec![0, 0, 0, 0, 9, 0x0a], Code::InvalidArgument, "message_malformed"),
        ("a frame of another kind", vec![7, 0, 0, 0, 0], Code::InvalidArgument, "message_malformed"),
        (
            "65 KiB",
            framed(&name(b"a").into_iter().chain(too_large.clone()).collect::<Vec<_>>()),
            Code::ResourceExhausted,
            "message_too_large",
        ),
        ("4 GiB, it says", vec![0, 255, 255, 255, 255, 1], Code::ResourceExhausted, "message_too_large"),
    ] {
        println!("{what}");
        let result = call(&client, CREATE, &[], body).await;
        client.answer("CreateTask", None, result).refused(code, reason);
    }
    for path in ["/brevet.v1.TaskService/DeleteTask", "/brevet.v1.KeyService/ListKeys", "/", "/a"] {
        let result = call(&client, path, &[], framed(&[])).await;
        client.answer("unknown", None, result).refused(Code::Unimplemented, "unimplemented");
    }
    // Fields that this version does not know mean nothing to it; of a field given twice the last counts.
    let name = |task: &str| [&[0x0a, u8::try_from(task.len()).unwrap()], task.as_bytes()].concat();
    let unknown = [name("x"), name("tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz"), vec![0xf8, 0x07, 1]].concat();
    let result = call(&client, "/brevet.v1.TaskService/GetTask", &[], framed(&unknown)).await;
    client.answer("GetTask", None, result).refused(Code::NotFound, "not_found");

    // The connection and the daemon are as they were.
    assert_eq!(client.list(v1::ListTasksRequest::default()).await.ok().tasks, []);
    drop(client);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn headers_are_bounded() {
    let world = World::start();
    let client = world.client(AGENT).await;
    let long = "a".repeat(64 * 1024);
    assert!(call(&client, CREATE, &[("x-long", &long)], framed(&[])).await.is_err());
    let client = world.client(AGENT).await;
    assert_eq!(client.list(v1::ListTasksRequest::default()).await.ok().tasks, []);
    drop(client);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_grpc_or_is_compressed_is_refused_before_it_is_read() {
    let world = World::start();
    let (post, malformed) = (http::Method::POST, Code::InvalidArgument);
    let good = prost::Message::encode_to_vec(&world.create("unread"));
    let (good, packed) = (framed(&good), [&[1], &framed(&good)[1..]].concat());
    for client in [world.client(AGENT).await, world.nobody().await] {
        let send = async |method, headers: &[(&'static str, &str)], body: &Vec<u8>| {
            request(&client, method, CREATE, headers, body.clone()).await
        };
        let is_known = client.is_known();
        let refused = |result, code, reason: &str| {
            let answer = client.answer("unknown", None, result);
            match is_known {
                true => answer.refused(code, reason),
                false => answer.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", "id_not_authoritative"),
            }
        };
        for content_type in [
            "application/json",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpc+json",
            "application/grpcx",
            "text/plain",
            "",
        ] {
            let (http, result) = send(post.clone(), &[("content-type", content_type)], &good).await;
            assert_eq!(http, Some(http::StatusCode::UNSUPPORTED_MEDIA_TYPE), "{content_type}");
            refused(result, malformed, "content_type_unsupported");
        }
        for method in [http::Method::GET, http::Method::PUT, http::Method::DELETE, http::Method::OPTIONS] {
            let (http, result) = send(method.clone(), &[], &good).await;
            assert_eq!(http, Some(http::StatusCode::METHOD_NOT_ALLOWED), "{method}");
            refused(result, malformed, "http_method_unsupported");
        }
        for encoding in ["gzip", "deflate", "zstd", "snappy", "identity,gzip", ""] {
            for body in [&packed, &good] {
                let (http, result) = send(post.clone(), &[("grpc-encoding", encoding)], body).await;
                assert_eq!(http, Some(http::StatusCode::OK), "{encoding}");
                refused(result, Code::Unimplemented, "compression_unsupported");
            }
        }
    }
    // A message that says of itself that it is compressed, where the call says that none is.
    let client = world.client(AGENT).await;
    for headers in [&[][..], &[("grpc-encoding", "identity")]] {
        let result = call(&client, CREATE, headers, packed.clone()).await;
        client.answer("CreateTask", None, result).refused(malformed, "message_malformed");
    }
    // However gRPC is spelled, it is gRPC.
    let orchestrator = world.client(ORCHESTRATOR).await;
    for spelled in ["application/grpc", "application/grpc+proto", "Application/GRPC; charset=utf-8"] {
        let headers = [("content-type", spelled), ("grpc-encoding", "identity")];
        call(&orchestrator, CREATE, &headers, good.clone()).await.unwrap();
    }
    assert_eq!(orchestrator.list(v1::ListTasksRequest::default()).await.ok().tasks.len(), 1);
    drop((client, orchestrator));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_what_is_no_request_is_recorded_at_the_root_socket_too() {
    let world = World::start();
    let (root, malformed) = (world.root().await, Code::InvalidArgument);
    let create = "/brevet.v1.LockService/CreateLock";
    for (method, path, headers, body, code, reason) in [
        ("CreateLock", create, &[][..], framed(&[0xff; 32]), malformed, "message_malformed"),
        (
            "unknown",
            create,
            &[("grpc-encoding", "gzip")],
            framed(&[]),
            Code::Unimplemented,
            "compression_unsupported",
        ),
        (
            "unknown",
            create,
            &[("content-type", "application/json")],
            vec![],
            malformed,
            "content_type_unsupported",
        ),
        // Nothing can be issued or read there.
        ("unknown", CREATE, &[], framed(&[]), Code::Unimplemented, "unimplemented"),
    ] {
        let result = call(&root, path, headers, body).await;
        root.answer(method, None, result).refused(code, reason);
    }
    assert_eq!(root.list_locks(v1::ListLocksRequest::default()).await.ok().locks, []);
    drop(root);
    world.finish();
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

pub(crate) fn tls_config(world: &World) -> ClientConfig {
    tls_config_of(world, AGENT)
}

pub(crate) fn tls_config_of(world: &World, name: &str) -> ClientConfig {
    let files = world.endpoints().identity(name).unwrap().clone();
    let chain = CertificateDer::pem_file_iter(&files.cert).unwrap().collect::<Result<_, _>>().unwrap();
    client_config(world, chain, PrivateKeyDer::from_pem_file(&files.key).unwrap())
}

pub(crate) fn client_config(
    world: &World,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> ClientConfig {
    let bundle = world.path("state/ca.pem");
    let authorities = Bundle::from_pem(&std::fs::read(bundle).unwrap()).unwrap();
    let server = world.endpoints().server_spiffe_id;
    let trust = Arc::new(ServerTrust::new([(server.trust_domain(), authorities)]).unwrap());
    let source: tls::TrustSource<_> = Arc::new(move || Arc::clone(&trust));
    tls::client_config(chain, key, source, server, Arc::new(DefaultTimeProvider)).unwrap()
}

/// Connects, sends what begins an HTTP/2 connection, and gives what comes back first; nothing at the end.
async fn answer_to_preface(world: &World, config: ClientConfig) -> std::io::Result<Vec<u8>> {
    let address = world.endpoints().grpc.trim_start_matches("https://").to_owned();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    stream.flush().await?;
    // A server that accepts the connection answers with its settings and stays.
    let mut buffer = [0; 1024];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await;
    let count = read.expect("an answer or an end")?;
    Ok(buffer.into_iter().take(count).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_without_a_certificate_or_a_protocol_gets_no_answer() {
    let world = World::start();
    // As it should be, the server's settings come back.
    assert!(!answer_to_preface(&world, tls_config(&world)).await.unwrap().is_empty());

    let mut nobody = tls_config(&world);
    nobody.client_auth_cert_resolver = Arc::new(NoCertificate);
    let alert = answer_to_preface(&world, nobody).await.unwrap_err();
    assert!(alert.to_string().contains("CertificateRequired"), "{alert}");

    let mut silent = tls_config(&world);
    silent.alpn_protocols = vec![];
    assert!(answer_to_preface(&world, silent).await.map_or(true, |read| read.is_empty()));

    let mut other = tls_config(&world);
    other.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert!(answer_to_preface(&world, other).await.is_err());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_port_that_is_sent_something_else_goes_on_serving() {
    let world = World::start();
    let address = world.endpoints().grpc.trim_start_matches("https://").to_owned();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0x16, 3, 1, 255, 255],
        &[0; 64],
        b"",
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
    }
    world.client(AGENT).await.list(v1::ListTasksRequest::default()).await.ok();
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reflection_is_there_only_by_configuration() {
    for reflection in [false, true] {
        let world = World::with(|config, _| {
            config["grpc"].as_table_mut().unwrap().insert("reflection".to_owned(), reflection.into());
        });
        let client = world.client(AGENT).await;
        let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let result = call(&client, path, &[], framed(&[0x3a, 1, b'*'])).await;
        let answer = client.answer("unknown", None, result);
        if reflection {
            answer.ok()
        } else {
            drop(answer.refused(Code::Unimplemented, "unimplemented"))
        }
        drop(client);
        world.finish();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_gets_through_the_handshake_is_told_that_the_daemon_serves() {
    let world = World::start();
    let client = world.client(AGENT).await;
    let check = "/grpc.health.v1.Health/Check";
    assert!(call(&client, check, &[], framed(&[])).await.is_ok());
    // Of no service by name is anything told.
    let unknown = call(&client, check, &[], framed(b"\x0a\x0aKeyService")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    // It is not watched, and strangers are told no more.
    let watch = "/grpc.health.v1.Health/Watch";
    let result = call(&client, watch, &[], framed(&[])).await;
    client.answer("unknown", None, result).refused(Code::Unimplemented, "unimplemented");
    let nobody = world.nobody().await;
    assert!(call(&nobody, check, &[], framed(&[])).await.is_ok());
    for (path, message) in [
        (watch, framed(&[])),
        (check, framed(&[b'x'; 1_000])),
        ("/brevet.v1.TaskService/ListTasks", framed(&[])),
    ] {
        let refused = call(&nobody, path, &[], message).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "the caller is not known"));
    }
    drop((client, nobody));
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r1_nobody_sends_more_than_the_configuration_gives_to_strangers() {
    let world = World::with(|config, _| {
        let grpc = config.get_mut("grpc").and_then(|grpc| grpc.as_table_mut()).unwrap();
        grpc.insert("strangers_message_bytes_max".to_owned(), 32.into());
    });
    let (client, nobody) = (world.client(AGENT).await, world.nobody().await);
    // The name of a service, in a message of so many bytes.
    let named = |bytes: u8| framed(&[&[0x0a, bytes - 2][..], &vec![b'x'; usize::from(bytes - 2)]].concat());
    for (who, bytes, code) in
        [(&client, 33, Code::NotFound), (&nobody, 32, Code::NotFound), (&nobody, 33, Code::Unauthenticated)]
    {
        let refused = call(who, "/grpc.health.v1.Health/Check", &[], named(bytes)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{bytes}");
    }
    drop((client, nobody));
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_a_call_that_takes_too_long_is_told_and_recorded_and_is_no_rubbish() {
    let world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { malformed_recorded_per_minute_max = 1 }.into());
        let grpc = config.get_mut("grpc").and_then(|grpc| grpc.as_table_mut()).unwrap();
        grpc.insert("call_seconds_max".to_owned(), 1.into());
    });
    let client = world.client(AGENT).await;
    let endless = || {
        let body = axum::body::Body::from_stream(tokio_stream::pending::<Result<Vec<u8>, Infallible>>());
        request(&client, http::Method::POST, CREATE, &[], body)
    };
    // Were they rubbish, the second would hear of its budget.
    for (_, answer) in [tokio::join!(endless(), endless())].into_iter().flat_map(|(one, two)| [one, two]) {
        client.answer("CreateTask", None, answer).refused(Code::DeadlineExceeded, "deadline_exceeded");
    }
    let rubbish = call(&client, CREATE, &[], framed(&[0xff; 32])).await;
    client.answer("CreateTask", None, rubbish).refused(Code::InvalidArgument, "message_malformed");
    drop(client);
    world.finish();
}
