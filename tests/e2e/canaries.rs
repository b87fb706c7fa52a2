//! What stands where it has no business is repeated nowhere: not in an answer, a record, a log line or a metric. Secrets
//! get where they do not belong by mistake, as a token in the field for a name, or a key in a header.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brevet_api::v1;
use brevet_testkit::daemon::refused_start;
use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto};

use crate::every_method::{description, every_method};
use crate::secrets::{CANARY, Heard};
use crate::wire::{call, framed};
use crate::world::{
    AGENT, Client, OPERATOR, ORCHESTRATOR, RESOURCE_SERVER, World, binary, issue, renew, replace,
};

/// The same, where a blank cannot stand.
const CANARY_NAME: &str = "canary-in-a-coal-mine";
/// How deep messages are looked into.
const DEPTH_MAX: usize = 5;

type Messages = BTreeMap<String, DescriptorProto>;

/// Every message of the API by its full name, those that stand for the entries of a map included.
fn messages() -> Messages {
    let mut found = BTreeMap::new();
    let mut open: Vec<(String, DescriptorProto)> = description()
        .into_iter()
        .flat_map(|file| file.message_type)
        .map(|message| (".brevet.v1".to_owned(), message))
        .collect();
    while let Some((within, message)) = open.pop() {
        let name = format!("{within}.{}", message.name());
        open.extend(message.nested_type.iter().map(|nested| (name.clone(), nested.clone())));
        found.insert(name, message);
    }
    found
}

/// A field whose type has a length, with that content.
fn field(number: i32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint((u64::try_from(number).unwrap() << 3) | 2, &mut bytes);
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend(content);
    bytes
}

/// The message with something in one field, for each field at any depth: what is none of its type as well as what is.
fn filled(messages: &Messages, name: &str, depth: usize) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for inner in messages.get(name).map(|message| message.field.as_slice()).unwrap_or_default() {
        let place = |below: &str| format!("{}{below}", inner.name());
        for content in contents(inner) {
            found.push((place(""), field(inner.number(), &content)));
        }
        if inner.r#type() == Type::Message && depth < DEPTH_MAX {
            let below = filled(messages, inner.type_name(), depth + 1);
            found.extend(
                below
                    .into_iter()
                    .map(|(at, bytes)| (place(&format!(".{at}")), field(inner.number(), &bytes))),
            );
        }
    }
    found
}

fn contents(field: &FieldDescriptorProto) -> Vec<Vec<u8>> {
    let canary = CANARY.as_bytes().to_vec();
    match field.r#type() {
        Type::String => vec![canary.clone(), [&canary[..], &[0xff]].concat()],
        _ => vec![canary],
    }
}

/// Requests that are right but for what is put into them.
fn right(world: &World, method: &str) -> Vec<u8> {
    let (task, lease) = ("tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz", "7zzzzzzzzzzzzzzzzzzzzzzzzz");
    let lease = format!("{task}/leases/{lease}");
    match method {
        "CreateTask" => world.create("right").encode_to_vec(),
        "GetTask" | "CompleteTask" | "FailTask" | "CancelTask" => field(1, task.as_bytes()),
        "IssueCredential" => issue(task, "right").encode_to_vec(),
        "RenewCredential" => renew(&lease, "right").encode_to_vec(),
        "ReturnCredential" | "GetLease" | "RevokeLease" => field(1, lease.as_bytes()),
        "DelegateTask" => v1::DelegateTaskRequest {
            parent: task.to_owned(),
            request_id: "right".to_owned(),
            agent: "spiffe://workloads.dev.example/agent/b".to_owned(),
            ..Default::default()
        }
        .encode_to_vec(),
        _ => Vec::new(),
    }
}

fn service(path: &str) -> &str {
    path.split('/').nth(1).unwrap()
}

/// Sends each method the canary in every field, in headers, as a path and as rubbish.
async fn ask_everything(world: &World, heard: &mut Heard) -> usize {
    let clients: BTreeMap<&str, Client> = BTreeMap::from([
        ("brevet.v1.TaskService", world.client(ORCHESTRATOR).await),
        ("brevet.v1.CredentialService", world.client(AGENT).await),
        ("brevet.v1.RevocationService", world.client(RESOURCE_SERVER).await),
        ("brevet.v1.LeaseService", world.client(OPERATOR).await),
        ("brevet.v1.LockService", world.client(OPERATOR).await),
        ("brevet.v1.AuditService", world.client(OPERATOR).await),
    ]);
    let (root, messages) = (world.root().await, messages());
    let mut asked = 0;
    for method in every_method() {
        let name = method.path.rsplit('/').next().unwrap();
        let mut callers = vec![&clients[service(&method.path)]];
        if service(&method.path) == "brevet.v1.LockService" {
            callers.push(&root);
        }
        let mut requests: Vec<(String, Vec<u8>)> = Vec::new();
        for (place, bytes) in filled(&messages, &method.input, 0) {
            // A field that is given again counts as it was given last.
            let replaced = [right(world, name), bytes.clone()].concat();
            requests.extend([(place.clone(), framed(&bytes)), (place, framed(&replaced))]);
        }
        requests.push(("no message".to_owned(), framed(CANARY.as_bytes())));
        requests.push(("no frame".to_owned(), CANARY.into()));
        for client in callers {
            for (place, body) in &requests {
                let answer = call(client, &method.path, &[], body.clone()).await;
                hear(heard, &format!("{name} {place}"), answer);
                asked += 1;
            }
            let binary = STANDARD.encode(CANARY);
            for header in [
                ("authorization", CANARY),
                ("x-canary", CANARY),
                ("x-canary-bin", binary.as_str()),
                ("grpc-timeout", CANARY),
                ("grpc-encoding", CANARY),
                ("content-type", CANARY),
                (CANARY_NAME, CANARY),
            ] {
                let answer = call(client, &method.path, &[header], framed(&[])).await;
                hear(heard, &format!("{name} with {}", header.0), answer);
            }
            let path = format!("/{}/{CANARY_NAME}", service(&method.path));
            hear(heard, "no method", call(client, &path, &[], framed(&[])).await);
        }
    }
    asked
}

fn hear(heard: &mut Heard, place: &str, answer: Result<(), tonic::Status>) {
    let Err(status) = answer else { return };
    heard.hear(format!("the answer to {place}"), format!("{} {:?}", status.message(), status.metadata()));
    heard.hear(format!("the details of the answer to {place}"), status.details());
}

/// Says something to a listener that it does not understand, and gives its answer.
fn say(address: &str, said: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address.split("://").last().unwrap()).unwrap();
    let mut answer = Vec::new();
    // A listener that has heard enough may close before it was told all.
    let _said = stream.write_all(said.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u5_what_stands_where_it_has_no_business_is_repeated_nowhere() {
    let world = World::with(|config, _| {
        config.insert("log".to_owned(), toml::toml! { filter = "trace" json = true }.into());
        let limits = toml::toml! {
            denials_recorded_per_minute_max = 100000
            malformed_recorded_per_minute_max = 100000
        };
        config.insert("limits".to_owned(), limits.into());
    });
    let mut heard = Heard::default();
    let asked = ask_everything(&world, &mut heard).await;
    assert!(asked > 300, "{asked} fields of the API");

    // The HTTP listener, and TLS that is none.
    let (grpc, http) = (world.endpoints().grpc, world.endpoints().http);
    for said in [
        format!(
            "GET /{CANARY_NAME}?{CANARY_NAME} HTTP/1.1\r\nhost: {CANARY_NAME}\r\nconnection: close\r\n\r\n"
        ),
        format!("GET /metrics HTTP/1.1\r\nhost: a\r\nx-{CANARY_NAME}: {CANARY}\r\nconnection: close\r\n\r\n"),
        format!(
            "POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 21\r\nconnection: close\r\n\r\n{CANARY}"
        ),
        format!("{CANARY}\r\n\r\n"),
    ] {
        heard.hear("http", say(&http, &said));
        heard.hear("no tls", say(&grpc, &said));
    }

    // What the process is seen to be by others, what it measures, and what an auditor is told.
    for name in ["cmdline", "environ", "status", "comm"] {
        // Its environment is nobody's business unless the reader is root.
        if let Ok(said) = fs::read(format!("/proc/{}/{name}", world.daemon.id())) {
            heard.hear(name, said);
        }
    }
    heard.hear("the metrics", world.metrics().await);
    let operator = world.client(OPERATOR).await;
    let mut request = v1::ListEventsRequest { page_size: 1_000, ..Default::default() };
    loop {
        let page = operator.events(request.clone()).await.ok();
        heard.hear("the audit log", page.encode_to_vec());
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    drop(operator);
    let folder = world.folder.path().to_owned();
    let World { mut daemon, folder: kept, .. } = world;
    assert!(daemon.stop().success());
    heard.read(&folder);
    heard.read(&folder.join("state"));
    for canary in [CANARY, CANARY_NAME] {
        heard.assert_without("the canary", canary.as_bytes());
    }
    heard.assert_without("the canary in base64", STANDARD.encode(CANARY).trim_end_matches('=').as_bytes());
    drop(kept);
}

/// A file with a secret that is none, or not the one that it should be, is named and not quoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u5_no_command_quotes_the_files_that_it_is_given() {
    let mut world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let mut heard = Heard::default();
    let secret = world.path("secret");
    fs::write(&secret, format!("{CANARY_NAME}\n")).unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{CANARY_NAME}\n-----END PRIVATE KEY-----\n");
    let (dir, key, pem_file) = (world.folder.path(), world.path("agent-a.key"), world.path("canary.pem"));
    fs::write(&pem_file, &pem).unwrap();
    let run = |arguments: &[&str], files: &[&Path]| {
        let mut command = Command::new(binary());
        command.args(arguments).args(files).env("BREVET_DIR", dir).env("BREVET_AS", AGENT);
        let output = command.output().unwrap();
        (output.status.code(), [output.stdout, output.stderr].concat())
    };
    let issue = ["credential", "issue", &task, "--permit", "https://files.dev.example reports/q3 read"];
    for output in ["table", "json"] {
        for (command, option, file) in [
            (&["credential", "introspect"][..], "--token-file", &secret),
            (&issue, "--claim-file", &secret),
            (&issue, "--holder-key", &secret),
            (&issue, "--holder-key", &pem_file),
            (&["credential", "issue", &task, "--svid"], "--holder-key", &pem_file),
        ] {
            let (code, said) = run(&[command, &["-o", output, option]].concat(), &[file]);
            assert_ne!(code, Some(2), "{}", String::from_utf8_lossy(&said));
            heard.hear(format!("{command:?} {option}, which ended with {code:?}"), said);
        }
    }
    // A key that is none, of a client and of the daemon.
    fs::write(&key, &pem).unwrap();
    heard.hear("task list", run(&["task", "list"], &[]).1);
    assert!(world.daemon.stop().success());
    // A secret in the configuration where it has no business.
    let config = world.path("brevet.toml");
    let good = fs::read_to_string(&config).unwrap();
    for wrong in [
        format!("client_secret = \"{CANARY_NAME}\"\n{good}"),
        good.replacen("[grpc]", &format!("[grpc]\nconnections_max = \"{CANARY_NAME}\""), 1),
        good.replacen("[grpc]", &format!("[grpc]\nclient_certificate = \"{CANARY_NAME}\""), 1),
        good.replacen("[grpc]", &format!("[grpc]\nconnections_max = 1 {CANARY_NAME}"), 1),
        good.replacen("spiffe://workloads.dev.example/agent/a", CANARY_NAME, 1),
        good.replacen(
            "trust_domain = \"broker.dev.example\"",
            &format!("trust_domain = \"{CANARY_NAME}\""),
            1,
        ),
        good.replacen("[grpc]", &format!("[grpc]\n\"\\u{CANARY_NAME}\" = 1"), 1),
    ] {
        assert_ne!(wrong, good);
        replace(&config, &wrong);
        let refused = refused_start(binary(), &config);
        assert_eq!(refused.status.code(), Some(1));
        heard.hear("a start with a wrong configuration", [refused.stdout, refused.stderr].concat());
    }
    replace(&config, &good);
    let key = world.path("state/task-token.key");
    fs::write(&key, &pem).unwrap();
    let refused = refused_start(binary(), &world.path("brevet.toml"));
    assert_eq!(refused.status.code(), Some(1));
    heard.hear("a start", [refused.stdout, refused.stderr].concat());
    heard.assert_without("the canary", CANARY_NAME.as_bytes());
}
