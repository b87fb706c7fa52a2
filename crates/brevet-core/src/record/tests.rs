use super::*;
use crate::digest::{BearerDigest, CertificateDigest, Thumbprint};
use crate::fact::{
    BearerBound, ConfigurationPart, DenialCause, DenialClass, DeniedOperation, Holder, LeaseOutcome, Outcome,
    ReasonCode,
};
use crate::id::RootTaskId;
use crate::ledger::tests::sample::*;
use crate::lock::{Lock, Selector};
use crate::name::PersonName;
use crate::proof::Evidence;
use crate::request::{Operation, Request};
use crate::revision::{Incarnation, Revision};
use crate::terms::{Content, Terms};

const HOSTILE: &str =
    "\n\r\"}\\{\u{0}\u{1b}[2K\u{7f}\u{85}\u{9b}\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}\u{1f600}";

fn full_envelope() -> Envelope {
    Envelope {
        caller: Some(workload("td/orchestrator")),
        request_id: Some(request_id("r-1")),
        ..envelope(Some((root(1), &tenant("north"))), now(1_500))
    }
}

fn terms_of(key: u128) -> Terms {
    terms(root(1), key)
}

fn bound_jwt_svid() -> Terms {
    let mut terms = jwt_svid(terms_of(12), "x");
    let Content::JwtSvid(svid) = &mut terms.content else { panic!() };
    svid.certificate = Some(CertificateDigest::of(&[b"certificate"]));
    terms
}

/// Every variant of a fact; the texts that have no grammar are `text`.
fn every_fact(text: &str) -> Vec<Fact> {
    let reason = || ReasonCode::of("asked");
    let person = |name: &str| PersonName::parse(name).unwrap();
    let mut terms = terms_of(9);
    let Content::TaskToken(token) = &mut terms.content else { panic!() };
    token.issuer = text.to_owned();
    let denied_because = |cause| Fact::Denied {
        operation: DeniedOperation::Method("IssueCredential".into()),
        reason: reason(),
        cause: Some(cause),
        uid: None,
    };
    let claimed = crate::fact::TaskOpened {
        holder: Holder::Claim(claim(1)),
        prompt_origin: None,
        ..opened(child(1, 2), Some(root(1)))
    };
    let selectors = [
        Selector::Task(child(1, 2)),
        Selector::Agent(workload("td/agents/a")),
        Selector::PathPrefix(workload("td/agents")),
        Selector::Delegator(workload("td/people/ann")),
        Selector::Tool(action("read")),
        Selector::Resource { audience: audience("x"), resource: "a/**".parse().unwrap() },
        Selector::Audience(audience("x")),
        Selector::TrustDomain("td".parse().unwrap()),
        Selector::Key(key_id("k1")),
        Selector::Policy(policy(1)),
        Selector::Everything,
    ];
    let locks = selectors.into_iter().map(|selector| {
        Fact::LockCreated(Lock {
            tenant: Some(tenant("north")),
            message: text.to_owned(),
            until: Some(at(2_000)),
            ..lock(7, selector)
        })
    });
    let mut facts = vec![
        Fact::TaskOpened(opened(root(1), None).into()),
        Fact::TaskOpened(claimed.into()),
        Fact::LeaseIssued { terms: terms.into(), body: body(1), renews: None },
        Fact::LeaseIssued {
            terms: Terms { end: at(u64::MAX), ..terms_of(9) }.into(),
            body: body(1),
            renews: None,
        },
        configuration(),
        Fact::ConfigurationLoaded {
            policy: policy(1),
            registry: crate::digest::RegistryDigest::of(&[]),
            trust: crate::digest::TrustDigest::of(&[]),
            proposer: Some(person("ann")),
            confirmers: vec![person("bob")],
        },
        Fact::LockCreated(lock(7, Selector::Everything)),
        Fact::LockLifted { lock: lock_id(7), proposer: None, confirmers: Vec::new() },
        Fact::LockLifted { lock: lock_id(7), proposer: Some(person("ann")), confirmers: vec![person("bob")] },
        Fact::LeaseIssued { terms: svid(terms_of(10)).into(), body: body(1), renews: Some(lease_key(9)) },
        Fact::LeaseIssued { terms: jwt_svid(terms_of(11), "x").into(), body: body(1), renews: None },
        Fact::LeaseIssued { terms: bound_jwt_svid().into(), body: body(1), renews: Some(lease_key(11)) },
        Fact::LockSwept { lock: lock_id(7), tasks: 2, leases: u64::MAX },
        Fact::RootSocketUsed { uid: 0, method: text.to_owned() },
        Fact::TaskEnded { task: root(1), outcome: Outcome::Revoked, reason: reason(), since: Some(at(9)) },
        Fact::LeasesEnded {
            task: root(1),
            leases: vec![lease_key(9)],
            outcome: LeaseOutcome::Revoked,
            reason: reason(),
            since: Some(at(9)),
        },
        Fact::Denied {
            operation: DeniedOperation::Operation(Operation::CreateTask),
            reason: reason(),
            cause: None,
            uid: None,
        },
        Fact::Denied {
            operation: DeniedOperation::Method(text.to_owned()),
            reason: reason(),
            cause: None,
            uid: Some(0),
        },
        denied_because(DenialCause::Forbidden),
        denied_because(DenialCause::NoPermit),
        denied_because(DenialCause::EvaluationError),
        Fact::DenialsUnrecorded { class: DenialClass::Malformed, count: 1 },
        Fact::DenialsUnrecorded { class: DenialClass::Denied, count: u64::MAX },
        Fact::BearerBound(bearer_bound()),
        Fact::ConfigurationRefused { part: ConfigurationPart::File, reason: reason() },
        Fact::ConfigurationRefused { part: ConfigurationPart::Registry, reason: reason() },
        Fact::ConfigurationRefused { part: ConfigurationPart::Policies, reason: reason() },
        Fact::ConfigurationRefused { part: ConfigurationPart::Trust, reason: reason() },
        Fact::Started { version: text.to_owned(), replayed: Revision(u64::MAX), clock_behind: true },
        Fact::Stopped,
        Fact::SnapshotTaken { revision: Revision(3), digest: crate::digest::StateDigest::of(&[]) },
    ];
    for outcome in
        [Outcome::Completed, Outcome::Failed, Outcome::Cancelled, Outcome::Revoked, Outcome::Expired]
    {
        facts.push(Fact::TaskEnded { task: child(1, 2), outcome, reason: reason(), since: None });
    }
    for outcome in [LeaseOutcome::Expired, LeaseOutcome::Revoked, LeaseOutcome::Undelivered] {
        let leases = vec![lease_key(9), lease_key(10)];
        facts.push(Fact::LeasesEnded { task: root(1), leases, outcome, reason: reason(), since: None });
    }
    facts.extend(locks);
    facts
}

#[test]
fn u7_every_fact_is_read_as_it_was_written() {
    for fact in every_fact("plain").into_iter().chain(every_fact(HOSTILE)) {
        for envelope in [full_envelope(), envelope(None, now(0))] {
            let bytes = encode::<()>(&envelope, &fact, None).unwrap();
            let record = decode(&bytes).unwrap();
            assert_eq!((&record.envelope, &record.fact), (&envelope, &fact));
            assert!(record.evidence.is_none());
            let again = encode::<()>(&record.envelope, &record.fact, None).unwrap();
            assert_eq!(again, bytes, "a record has one form");
        }
    }
}

#[test]
fn u6_no_text_leaves_the_line_of_its_record() {
    #[derive(Serialize)]
    struct Anything<'a> {
        text: &'a str,
    }
    for fact in every_fact(HOSTILE) {
        let bytes = encode(&full_envelope(), &fact, Some(&Anything { text: HOSTILE })).unwrap();
        assert!(bytes.iter().all(|byte| matches!(byte, b' '..=b'~')), "{}", String::from_utf8_lossy(&bytes));
        assert!(bytes.starts_with(b"{\"v\":1,"));
        let record = decode(&bytes).unwrap();
        let evidence: serde_json::Value = serde_json::from_str(record.evidence.unwrap().get()).unwrap();
        assert_eq!(evidence["text"], HOSTILE);
    }
}

#[test]
fn u6_any_text_at_all_is_kept_and_cannot_be_seen_as_another_field() {
    holds("u6_any_text", 256, proptest::arbitrary::any::<String>(), |text| {
        let (operation, reason) = (DeniedOperation::Method(text), ReasonCode::of("asked"));
        let fact = Fact::Denied { operation, reason, cause: None, uid: None };
        let bytes = encode::<()>(&full_envelope(), &fact, None).unwrap();
        assert!(bytes.iter().all(|byte| matches!(byte, b' '..=b'~')));
        assert_eq!(decode(&bytes).unwrap().fact, fact);
        Ok(())
    });
}

#[test]
fn p1_evidence_is_carried_and_kept_apart_from_the_fact() {
    let basis = crate::revision::Basis { tree: Revision::ZERO, control: Revision(4) };
    let permit = permit_to_open(&opened(root(1), None), &tenant("north"), basis);
    let evidence: &Evidence = permit.evidence();
    let bytes = encode(&full_envelope(), &Fact::Stopped, Some(evidence)).unwrap();
    let record = decode(&bytes).unwrap();
    let mut kept: serde_json::Value = serde_json::from_str(record.evidence.unwrap().get()).unwrap();
    let request: Request = serde_json::from_value(kept["request"].take()).unwrap();
    assert_eq!(request, evidence.request);
}

#[test]
fn a_record_of_a_later_version_is_called_newer_and_garbage_malformed() {
    let bytes = encode::<()>(&full_envelope(), &Fact::Stopped, None).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let read = |text: &str| decode(text.as_bytes()).map(|record| record.fact);
    assert!(matches!(read(&text), Ok(Fact::Stopped)));
    assert!(matches!(read(&text.replace("\"v\":1", "\"v\":2")), Err(InvalidRecord::Newer(2))));
    let unknown = text.replace("\"v\":1", "\"v\":200").replace("stopped", "paused");
    assert!(matches!(read(&unknown), Err(InvalidRecord::Newer(200))));
    assert!(matches!(read("{\"v\":2}"), Err(InvalidRecord::Newer(2))));
    for garbage in [
        text.replace("stopped", "paused"),
        text.replace("\"v\":1,", ""),
        text.replace("\"v\":1", "\"v\":-1"),
        text.replace("\"v\":1", "\"v\":1,\"v\":1"),
        text.replace("north", "North"),
        format!("{text}{text}"),
        text.strip_suffix('}').unwrap().to_owned(),
        "[]".into(),
        "null".into(),
        "\0".into(),
        String::new(),
    ] {
        assert!(matches!(read(&garbage), Err(InvalidRecord::Malformed(_))), "{garbage}");
    }
    assert!(matches!(decode(b"\xff\xfe"), Err(InvalidRecord::Malformed(_))));
}

/// Records of format 1 as they were first written. A change that makes one of these unreadable, or read as something
/// else, makes every journal unreadable.
#[test]
fn records_of_format_1_stay_readable() {
    let golden: [&str; 15] = include_str!("format_1.jsonl").lines().collect::<Vec<_>>().try_into().unwrap();
    let [lock_created, task_opened, lease_issued, later @ ..] =
        golden.map(|text| decode(text.as_bytes()).unwrap());

    assert_eq!(lock_created.envelope, full_envelope());
    let selector = Selector::Resource { audience: audience("x"), resource: "a/**".parse().unwrap() };
    let expected = Lock { until: Some(at(2_000)), ..lock(7, selector) };
    assert_eq!(lock_created.fact, Fact::LockCreated(expected));
    assert_eq!(lock_created.evidence.unwrap().get(), "{\"why\":\"drill\"}");

    assert_eq!(task_opened.envelope.incarnation, Incarnation(1));
    assert_eq!(task_opened.envelope.tree, Some(RootTaskId(id(1))));
    assert_eq!(task_opened.fact, Fact::TaskOpened(opened(root(1), None).into()));

    let fact = Fact::LeaseIssued { terms: terms(root(1), 9).into(), body: body(1), renews: None };
    assert_eq!(lease_issued.fact, fact);

    let reason = || ReasonCode::of("locked");
    let since = Some(at(1_250));
    let leases = vec![lease_key(9), lease_key(10)];
    let facts = [
        Fact::LeaseIssued {
            terms: svid(terms(root(1), 10)).into(),
            body: body(1),
            renews: Some(lease_key(9)),
        },
        Fact::TaskOpened(opened(child(1, 2), Some(root(1))).into()),
        Fact::TaskEnded { task: child(1, 2), outcome: Outcome::Revoked, reason: reason(), since },
        Fact::LeasesEnded { task: root(1), leases, outcome: LeaseOutcome::Revoked, reason: reason(), since },
        Fact::LockSwept { lock: lock_id(7), tasks: 1, leases: 2 },
        Fact::RootSocketUsed { uid: 1_000, method: "LiftLock".into() },
        Fact::DenialsUnrecorded { class: DenialClass::Malformed, count: 240 },
        Fact::Denied {
            operation: DeniedOperation::Method("CreateLock".into()),
            reason: ReasonCode::of("message_malformed"),
            cause: None,
            uid: Some(1_000),
        },
        Fact::Denied {
            operation: DeniedOperation::Method("IssueCredential".into()),
            reason: ReasonCode::of("policy_denied"),
            cause: Some(DenialCause::NoPermit),
            uid: None,
        },
        Fact::BearerBound(bearer_bound()),
        Fact::ConfigurationRefused {
            part: ConfigurationPart::Trust,
            reason: ReasonCode::of("key_unacceptable"),
        },
        Fact::LeaseIssued { terms: bound_jwt_svid().into(), body: body(1), renews: None },
    ];
    assert_eq!(later.map(|record| record.fact), facts);

    for text in golden {
        let record = decode(text.as_bytes()).unwrap();
        let written = encode(&record.envelope, &record.fact, record.evidence.as_ref()).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), text);
    }
}

fn bearer_bound() -> BearerBound {
    BearerBound {
        token: BearerDigest::from_bytes([1; 32]),
        workload: "spiffe://td/agent".parse().unwrap(),
        key: Thumbprint::from_bytes([2; 32]),
        until: at(61_500),
    }
}
