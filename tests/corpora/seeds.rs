//! The seeds: every case of the test kit's suites, the samples of the house, and a message for each method.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_api::v1;
use brevet_testkit::jose;
use brevet_testkit::suite::{self, Expected};
use brevet_testkit::x509::Root;
use prost::Message;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
use serde_json::{Value, json};

use super::fuzz::{LEASE, METHODS, PEERS, TASK, WITH_HEADERS};

/// What a target begins with.
pub(crate) struct Seed {
    /// The name of its file.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Whether it is committed: a few of each kind are.
    pub(crate) kept: bool,
}

fn seed(name: &str, bytes: impl Into<Vec<u8>>, kept: bool) -> Seed {
    Seed { name: name.replace(['/', ' '], "-"), bytes: bytes.into(), kept }
}

/// The seeds of a target.
pub(crate) fn of(target: &str) -> Vec<Seed> {
    match target {
        "claims" => claims(),
        "config" => files("deploy", ".toml"),
        "csr" => certification_requests(),
        "jwk_set" => jwk_sets(),
        "jws" => tokens(),
        "policy" => files("deploy/policies", ".cedar"),
        "record" => records(),
        "request" => requests(),
        "spiffe_id" => identifiers(),
        "x509_svid" => chains(),
        other => panic!("no seeds for {other}"),
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<Seed> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.filter(|path| path.to_string_lossy().ends_with(ending));
    found
        .map(|path| seed(path.file_stem().unwrap().to_str().unwrap(), fs::read(&path).unwrap(), true))
        .collect()
}

/// Whether a case is one of few: the plain good ones, and what is wrong in a way of its own.
fn is_kept(id: &str) -> bool {
    let last = id.rsplit('/').next().unwrap();
    !id.contains("letter")
        && !last.ends_with("-other")
        && (last == "good" || last.starts_with("good-ES") || last == "good-PS256")
}

fn token_of(case: &jose::Case) -> Option<&str> {
    case.body.get("token").or_else(|| case.body.get("proof")).and_then(Value::as_str)
}

fn tokens() -> Vec<Seed> {
    let cases = jose::cases();
    let with_token = cases.iter().filter_map(|case| Some((case, token_of(case)?)));
    with_token
        .map(|(case, token)| {
            let bundle = || Some(case.body.get("bundles")?.get("td.example")?.to_string());
            let keys = case.body.get("jwks").map(Value::to_string).or_else(bundle).unwrap_or_default();
            seed(&case.id, format!("{keys}\n{token}"), is_kept(&case.id))
        })
        .collect()
}

fn claims() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for case in jose::cases() {
        let Some(payload) = token_of(&case).and_then(|token| token.split('.').nth(1)) else { continue };
        let Ok(payload) = URL_SAFE_NO_PAD.decode(payload) else { continue };
        let kept = is_kept(&case.id);
        let kind = match case.kind {
            "token" => b't',
            "dpop" => b'd',
            "jwt-svid" => b'j',
            _ => continue,
        };
        seeds.push(seed(&case.id, [&[kind], payload.as_slice()].concat(), kept));
        // A provider's token says who the provider is.
        if kind == b'j'
            && let Ok(Value::Object(mut claims)) = serde_json::from_slice(&payload)
        {
            claims.insert("iss".to_owned(), jose::ISSUER.into());
            let name = case.id.replace("jwt-svid", "oidc");
            seeds.push(seed(&name, format!("o{}", Value::Object(claims)), kept));
        }
    }
    seeds
}

fn jwk_sets() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for case in jose::cases() {
        let bundles = case.body.get("bundles").and_then(Value::as_object);
        let sets = case.body.get("jwks").into_iter().chain(bundles.into_iter().flat_map(|map| map.values()));
        for (number, set) in sets.enumerate() {
            let kept = is_kept(&case.id) && case.id.contains("ES256");
            seeds.push(seed(&format!("{}-{number}", case.id), set.to_string(), kept));
        }
    }
    let authority = Root::new("root");
    let mut jwk = authority.key.jwk();
    jwk.insert("use".to_owned(), "x509-svid".into());
    jwk.insert(
        "x5c".to_owned(),
        json!([base64::engine::general_purpose::STANDARD.encode(&authority.certificate)]),
    );
    let bundle = json!({"keys": [jwk], "spiffe_sequence": 7, "spiffe_refresh_hint": 300});
    seeds.push(seed("bundle", bundle.to_string(), true));
    let body = base64::engine::general_purpose::STANDARD.encode(&authority.certificate);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    seeds.push(seed("pem", pem, true));
    seeds
}

fn identifiers() -> Vec<Seed> {
    let id = "04106104106104106104106104";
    let texts = [
        ("id", "spiffe://td.example/agent/a".to_owned()),
        ("root", "spiffe://td.example".to_owned()),
        ("odd", "spiffe://a_b-c.d/.../..a/-/_".to_owned()),
        ("long", format!("spiffe://{}/{}", "t".repeat(255), "a".repeat(1783))),
        ("domain", "td.example".to_owned()),
        ("task", format!("tasks/{id}")),
        ("child", format!("tasks/{id}.{id}")),
        ("lease", format!("tasks/{id}/leases/{id}")),
        ("pattern", "team/**".to_owned()),
        ("thumbprint", URL_SAFE_NO_PAD.encode([1; 32])),
    ];
    texts.into_iter().map(|(name, text)| seed(name, text, true)).collect()
}

fn chains() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = Vec::new();
    let mut groups: Vec<String> = Vec::new();
    for case in suite::x509_svids() {
        let of = |name: &str| case.bundles.get(name).cloned().unwrap_or_default();
        let own = of("td.example");
        let others = case.bundles.iter().filter(|(name, _)| *name != "td.example");
        let others: Vec<Vec<u8>> = others.flat_map(|(_, authorities)| authorities.clone()).collect();
        let (Ok(chain_count), Ok(own_count)) = (u8::try_from(case.chain.len()), u8::try_from(own.len()))
        else {
            continue;
        };
        let mut certificates = Vec::new();
        let mut fits = chain_count < 0x80;
        for der in case.chain.iter().chain(&own).chain(&others) {
            let Ok(length) = u16::try_from(der.len()) else {
                fits = false;
                continue;
            };
            certificates.extend(length.to_be_bytes());
            certificates.extend(der);
        }
        if !fits {
            continue;
        }
        let shape =
            format!("{}-{chain_count}-{}", case.group(), matches!(case.expected, Expected::Accept { .. }));
        let is_small = certificates.len() < 3_000;
        let kept = is_small && !groups.contains(&shape) && !shape.ends_with("false");
        if kept {
            groups.push(shape);
        }
        seeds.push(seed(&case.id, [&[chain_count, own_count], certificates.as_slice()].concat(), kept));
        if chain_count == 1 {
            // Only leaves are signed again.
            let bytes = [&[0x80 | chain_count, own_count], certificates.as_slice()].concat();
            seeds.push(seed(&format!("{}-signed-again", case.id), bytes, kept));
        }
    }
    seeds
}

fn certification_requests() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (name, algorithm) in [("p256", &PKCS_ECDSA_P256_SHA256), ("p384", &PKCS_ECDSA_P384_SHA384)] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        for (what, names) in [("plain", vec![]), ("named", vec!["a.example".to_owned()])] {
            let request = CertificateParams::new(names).unwrap().serialize_request(&key).unwrap();
            let request = request.der().as_ref();
            seeds.push(seed(&format!("{name}-{what}"), request, true));
            // Of what ends too early, no length holds.
            let cut = request.split_at(request.len() / 2).0;
            seeds.push(seed(&format!("{name}-{what}-cut"), cut, name == "p256"));
        }
    }
    seeds
}

fn records() -> Vec<Seed> {
    let text = fs::read_to_string(root().join("crates/brevet-core/src/record/format_1.jsonl")).unwrap();
    let one = text.lines().enumerate().map(|(number, line)| seed(&format!("{number:02}"), line, true));
    one.chain([seed("all", text.as_str(), false)]).collect()
}

fn requests() -> Vec<Seed> {
    let files = "https://files.dev.example".to_owned();
    let workload = |path: &str| format!("spiffe://workloads.dev.example/{path}");
    let permission = |resource: &str| v1::Permission {
        audience: files.clone(),
        resource: resource.to_owned(),
        actions: vec!["read".to_owned()],
        ..Default::default()
    };
    let (task, lease) = (TASK.to_owned(), LEASE.to_owned());
    let id = || "request-1".to_owned();
    let constrained = v1::Permission {
        constraints: [
            (
                "size".to_owned(),
                v1::constraint::Kind::Between(v1::constraint::Between { min: Some(1), max: None }),
            ),
            ("path".to_owned(), v1::constraint::Kind::Prefix("a/".to_owned())),
        ]
        .into_iter()
        .map(|(name, kind)| (name, v1::Constraint { kind: Some(kind) }))
        .collect(),
        ..permission("reports/q4")
    };
    let create = v1::CreateTaskRequest {
        request_id: id(),
        agent: workload("agent/a"),
        task_type: "summarise".to_owned(),
        purpose: "testing".to_owned(),
        sensitivity_max: v1::Sensitivity::Moderate.into(),
        scope: vec![permission("reports/**"), constrained],
        lifetime: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        holder_key_thumbprint: Some(URL_SAFE_NO_PAD.encode([7; 32])),
        ..Default::default()
    };
    let issue = v1::IssueCredentialRequest {
        task: task.clone(),
        request_id: id(),
        profile: v1::Profile::TaskToken.into(),
        audience: files.clone(),
        scope: vec![permission("reports/q3")],
        ..Default::default()
    };
    let delegate = v1::DelegateTaskRequest {
        parent: task.clone(),
        request_id: id(),
        agent: workload("agent/b"),
        scope: vec![permission("reports/q3")],
        ..Default::default()
    };
    let selector = |kind| Some(v1::Selector { kind: Some(kind) });
    let lock = |kind| v1::CreateLockRequest {
        request_id: id(),
        selector: selector(kind),
        message: "stand by".to_owned(),
        ..Default::default()
    };
    use v1::selector::Kind;
    let resource = v1::selector::Resource { audience: files.clone(), resource: "reports/**".to_owned() };
    let messages: Vec<(&str, &str, &str, Vec<u8>)> = vec![
        ("create", "CreateTask", "orchestrator", create.encode_to_vec()),
        ("task", "GetTask", "orchestrator", v1::GetTaskRequest { name: task.clone() }.encode_to_vec()),
        (
            "tasks",
            "ListTasks",
            "orchestrator",
            v1::ListTasksRequest { page_size: 2, ..Default::default() }.encode_to_vec(),
        ),
        (
            "complete",
            "CompleteTask",
            "orchestrator",
            v1::CompleteTaskRequest { name: task.clone(), ..Default::default() }.encode_to_vec(),
        ),
        (
            "cancel",
            "CancelTask",
            "operator",
            v1::CancelTaskRequest { name: task.clone(), reason: "done".to_owned() }.encode_to_vec(),
        ),
        ("issue", "IssueCredential", "agent-a", issue.encode_to_vec()),
        (
            "renew",
            "RenewCredential",
            "agent-a",
            v1::RenewCredentialRequest {
                lease: lease.clone(),
                request_id: "request-2".to_owned(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "return",
            "ReturnCredential",
            "agent-a",
            v1::ReturnCredentialRequest { lease: lease.clone(), ..Default::default() }.encode_to_vec(),
        ),
        ("delegate", "DelegateTask", "agent-a", delegate.encode_to_vec()),
        ("lease", "GetLease", "operator", v1::GetLeaseRequest { name: lease.clone() }.encode_to_vec()),
        (
            "leases",
            "ListLeases",
            "operator",
            v1::ListLeasesRequest { selector: selector(Kind::Task(task.clone())), ..Default::default() }
                .encode_to_vec(),
        ),
        (
            "revoke",
            "RevokeLease",
            "operator",
            v1::RevokeLeaseRequest { name: lease.clone(), ..Default::default() }.encode_to_vec(),
        ),
        (
            "revoke-all",
            "RevokeLeases",
            "operator",
            v1::RevokeLeasesRequest { selector: selector(Kind::Everything(true)), ..Default::default() }
                .encode_to_vec(),
        ),
        ("stop", "CreateLock", "operator", lock(Kind::Everything(true)).encode_to_vec()),
        ("stop-agent", "CreateLock", "operator", lock(Kind::Agent(workload("agent/a"))).encode_to_vec()),
        ("stop-resource", "CreateLock", "operator", lock(Kind::Resource(resource)).encode_to_vec()),
        ("locks", "ListLocks", "operator", v1::ListLocksRequest::default().encode_to_vec()),
        (
            "events",
            "ListEvents",
            "operator",
            v1::ListEventsRequest { task: task.clone(), ..Default::default() }.encode_to_vec(),
        ),
        (
            "introspect",
            "IntrospectCredential",
            "resource-server",
            v1::IntrospectCredentialRequest { token: "a.b.c".to_owned(), ..Default::default() }
                .encode_to_vec(),
        ),
    ];
    let place =
        |all: &[&str], name: &str| u8::try_from(all.iter().position(|it| *it == name).unwrap()).unwrap();
    let methods = METHODS.map(|(_, method)| method);
    let head = |method: &str, peer: &str| [place(&methods, method), place(&PEERS, peer)];
    let mut seeds: Vec<Seed> = messages
        .into_iter()
        .map(|(name, method, peer, message)| {
            seed(name, [head(method, peer).as_slice(), &message].concat(), true)
        })
        .collect();
    let tasks = v1::ListTasksRequest::default().encode_to_vec();
    for (name, peer, headers) in headers() {
        let [method, peer] = head("ListTasks", peer);
        let bytes = [&[method, peer | WITH_HEADERS], headers.concat().as_slice(), &tasks].concat();
        seeds.push(seed(&format!("headers-{name}"), bytes, true));
    }
    seeds
}

/// What a caller may say in headers: its token, a proof of its key, and how long it waits.
fn headers() -> Vec<(&'static str, &'static str, [Vec<u8>; 3])> {
    let (absent, good, twice) = (|| b"-".to_vec(), || b"g".to_vec(), || b"t".to_vec());
    let content = |kind: &[u8], text: &str| {
        [kind, &u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
    };
    let (signed, raw, binary) = (
        |text: &str| content(b"s", text),
        |text: &str| content(b"r", text),
        |text: &str| content(b"b", text),
    );
    let claims = r#"{"sub":"spiffe://functions.dev.example/agent/c","aud":"http://127.0.0.1:0","iat":1800000000,"exp":1800000300}"#;
    let proof = r#"{"jti":"1","htm":"POST","htu":"https://broker.example/brevet.v1.TaskService/ListTasks","iat":1800000001}"#;
    vec![
        ("good", "agent-c", [good(), good(), good()]),
        ("signed", "agent-c", [signed(claims), good(), absent()]),
        ("proof", "agent-c", [good(), signed(proof), absent()]),
        ("token-alone", "agent-c", [good(), absent(), absent()]),
        ("none", "agent-c", [absent(), absent(), absent()]),
        ("twice", "agent-c", [twice(), good(), absent()]),
        ("raw", "agent-c", [raw("Bearer a.b.c"), raw("a.b.c"), raw("1S")]),
        ("binary", "agent-c", [binary("Bearer a.b.c"), good(), absent()]),
        ("beside", "orchestrator", [good(), good(), absent()]),
        ("no-time", "orchestrator", [absent(), absent(), raw("0n")]),
        ("malformed-time", "orchestrator", [absent(), absent(), raw("1 S")]),
        ("times", "orchestrator", [absent(), absent(), twice()]),
    ]
}
