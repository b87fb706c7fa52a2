mod bounds;
mod rows;

use brevet_core::id::Id;
use brevet_core::task_svid::TaskSvidId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use super::*;
use crate::test_certificates::*;
use crate::trust::Bundle;
use brevet_testkit::x509::der;

const ID: &str = "spiffe://td.example/agent/a";

/// Three trust domains: two that callers come from, and the broker's own.
struct World {
    home: Root,
    other: Root,
    own: Root,
    key: Key,
    trust: CallerTrust,
}

fn world() -> World {
    let (home, other, own) = (Root::new("home root"), Root::new("other root"), Root::new("broker root"));
    let bundles =
        [(trust_domain("td.example"), bundle(&home)), (trust_domain("other.example"), bundle(&other))];
    let trust = CallerTrust::new(trust_domain("broker.example"), bundles).unwrap();
    World { home, other, own, key: Key::p256(), trust }
}

impl World {
    fn judge(&self, chain: &[Vec<u8>]) -> Result<Caller, &'static str> {
        verify_chain(chain, &self.trust, NOW).map_err(X509SvidError::reason)
    }

    fn leaf(&self) -> Spec {
        self.home.leaf(&self.key, ID)
    }

    /// A leaf of the home trust domain that differs in one respect.
    fn with(&self, change: impl FnOnce(&mut Spec)) -> Vec<Vec<u8>> {
        let mut spec = self.leaf();
        change(&mut spec);
        vec![spec.sign(&self.home.key)]
    }

    fn with_id(&self, id: &str) -> Vec<Vec<u8>> {
        self.with(|spec| spec.names = alternative_names(&[uri(id)]))
    }

    /// A chain over an intermediate that differs in one respect.
    fn over(&self, change: impl FnOnce(&mut Spec)) -> Vec<Vec<u8>> {
        let intermediate = Key::p256();
        let mut spec = Spec::authority(self.home.name, "intermediate", &intermediate);
        change(&mut spec);
        vec![Spec::leaf("intermediate", &self.key, ID).sign(&intermediate), spec.sign(&self.home.key)]
    }

    /// The verdict on a good leaf of a root that differs in one respect.
    fn under(&self, change: impl FnOnce(&mut Spec)) -> Result<Caller, &'static str> {
        let key = Key::p256();
        let mut spec = Spec::authority("changed root", "changed root", &key);
        change(&mut spec);
        let bundle = Bundle::from_certificates(&[spec.sign(&key)]).unwrap();
        let trust =
            CallerTrust::new(trust_domain("broker.example"), [(trust_domain("td.example"), bundle)]).unwrap();
        let leaf = Spec::leaf("changed root", &self.key, ID).sign(&key);
        verify_chain(&[leaf], &trust, NOW).map_err(X509SvidError::reason)
    }
}

#[test]
fn a_good_chain_is_a_caller() {
    let w = world();
    let chain = [w.leaf().sign(&w.home.key)];
    let caller = w.judge(&chain).unwrap();
    assert_eq!(caller.spiffe_id().as_str(), ID);
    assert_eq!(caller.key(), thumbprint(&w.key));
    assert_eq!(caller.certificate(), Some(certificate_digest(&chain[0])));
    assert_eq!(caller.valid_until(), END);
    assert_eq!(leaf_spiffe_id(&chain[0]).unwrap().as_str(), ID);
    for (name, chain) in [
        ("without extended key usage", w.with(|s| s.extended_key_usage = vec![])),
        ("without basic constraints", w.with(|s| s.basic_constraints = vec![])),
        ("with a dns name beside", w.with(|s| s.names = alternative_names(&[dns("a.example"), uri(ID)]))),
        ("with more key usages", w.with(|s| s.key_usage = key_usage(true, 0x88))),
        (
            "with an unknown extension",
            w.with(|s| s.other_extensions = extension(&[0x2a, 3, 4], false, &[5, 0])),
        ),
        ("serial of 20 bytes", w.with(|s| s.serial = vec![0x7f; 20])),
        ("p-384 leaf", w.with(|s| s.spki = Key::p384().spki())),
        ("rsa leaf", w.with(|s| s.spki = der::rsa_spki(&[&[0, 0x80][..], &[1; 255]].concat(), &[1, 0, 1]))),
        ("generalized time", w.with(|s| s.not_after = generalized("20500101000000Z"))),
        ("intermediate", w.over(|_| {})),
        ("intermediate with an id", w.over(|s| s.names = alternative_names(&[uri("spiffe://td.example")]))),
        (
            "intermediate with other uris",
            w.over(|s| s.names = alternative_names(&[uri("https://ca.example/"), uri("a:b")])),
        ),
        ("the root sent along", [w.over(|_| {}), vec![w.home.certificate.clone()]].concat()),
    ] {
        assert!(w.judge(&chain).is_ok(), "{name}: {:?}", w.judge(&chain));
    }
    // A caller's identity ends when the first certificate of its path does.
    let early = w.over(|s| s.not_after = utc("260701000000Z"));
    assert_eq!(w.judge(&early).unwrap().valid_until(), Timestamp::from_seconds(1_782_864_000));
    let root = w.under(|s| s.not_after = utc("260701000000Z")).unwrap();
    assert_eq!(root.valid_until(), Timestamp::from_seconds(1_782_864_000));
}

#[test]
fn a_bad_leaf_is_refused_with_its_reason() {
    let w = world();
    let leaf = w.leaf().sign(&w.home.key);
    let indefinite = [&[0x30, 0x80], &leaf[4..], &[0, 0]].concat();
    let sha1 = der::seq(&[der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1])]);
    let p192 = der::seq(&[
        der::seq(&[
            der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]),
            der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 1]),
        ]),
        der::tlv(3, &[&[0, 4], &[1; 48][..]].concat()),
    ]);
    let san = |names: &[Vec<u8>]| w.with(|s| s.names = alternative_names(names));
    for (name, chain, reason) in [
        // Names.
        ("no alternative name", w.with(|s| s.names = vec![]), "san_count"),
        ("no uri", san(&[dns("a.example")]), "san_count"),
        ("two spiffe ids", san(&[uri(ID), uri("spiffe://td.example/agent/b")]), "san_count"),
        ("the same id twice", san(&[uri(ID), uri(ID)]), "san_count"),
        ("another uri beside", san(&[uri(ID), uri("https://td.example/")]), "san_count"),
        ("a uri that is not ascii beside", san(&[uri(ID), der::tlv(0x86, b"\xff")]), "san_count"),
        ("no path", w.with_id("spiffe://td.example"), "id_invalid"),
        ("trailing slash", w.with_id("spiffe://td.example/a/"), "id_invalid"),
        ("root path", w.with_id("spiffe://td.example/"), "id_invalid"),
        ("empty segment", w.with_id("spiffe://td.example//a"), "id_invalid"),
        ("dot segment", w.with_id("spiffe://td.example/./a"), "id_invalid"),
        ("dot-dot segment", w.with_id("spiffe://td.example/a/.."), "id_invalid"),
        ("percent encoding", w.with_id("spiffe://td.example/%61"), "id_invalid"),
        ("upper-case host", w.with_id("spiffe://TD.example/a"), "id_invalid"),
        ("upper-case scheme", w.with_id("SPIFFE://td.example/a"), "id_invalid"),
        ("https", w.with_id("https://td.example/a"), "id_invalid"),
        ("port", w.with_id("spiffe://td.example:443/a"), "id_invalid"),
        ("userinfo", w.with_id("spiffe://u@td.example/a"), "id_invalid"),
        ("query", w.with_id("spiffe://td.example/a?q"), "id_invalid"),
        ("fragment", w.with_id("spiffe://td.example/a#f"), "id_invalid"),
        ("nul", w.with_id("spiffe://td.example/a\0b"), "id_invalid"),
        ("not ascii", w.with_id("spiffe://td.example/\u{e4}"), "id_invalid"),
        ("not utf-8", san(&[der::tlv(0x86, b"spiffe://td.example/\xff")]), "id_invalid"),
        ("2,049 bytes", w.with_id(&format!("spiffe://td.example/{}", "a".repeat(2029))), "id_invalid"),
        ("empty uri", w.with_id(""), "id_invalid"),
        // Authority.
        ("unknown trust domain", w.with_id("spiffe://unknown.example/a"), "id_not_authoritative"),
        ("foreign trust domain", w.with_id("spiffe://other.example/a"), "id_not_authoritative"),
        ("signed by a foreign root", vec![w.other.svid(&w.key, ID)], "id_not_authoritative"),
        (
            "the broker's trust domain",
            vec![w.own.svid(&w.key, "spiffe://broker.example/a")],
            "own_credential",
        ),
        (
            "the same through a foreign root",
            w.with_id("spiffe://broker.example/agent/x/task/y"),
            "own_credential",
        ),
        ("self-signed", vec![w.leaf().sign(&w.key)], "chain_invalid"),
        ("unknown root", vec![w.own.svid(&w.key, ID)], "chain_invalid"),
        ("root's name, another key", vec![w.home.leaf(&w.key, ID).sign(&Key::p256())], "chain_invalid"),
        // Profile.
        ("authority", w.with(|s| s.basic_constraints = basic_constraints(true, None)), "svid_profile"),
        ("no key usage", w.with(|s| s.key_usage = vec![]), "svid_profile"),
        ("key usage not critical", w.with(|s| s.key_usage = key_usage(false, 0x80)), "svid_profile"),
        ("may sign certificates", w.with(|s| s.key_usage = key_usage(true, 0x84)), "svid_profile"),
        ("may sign revocation lists", w.with(|s| s.key_usage = key_usage(true, 0x82)), "svid_profile"),
        ("may not sign", w.with(|s| s.key_usage = key_usage(true, 0x20)), "svid_profile"),
        ("server only", w.with(|s| s.extended_key_usage = extended_key_usage(&[SERVER])), "svid_profile"),
        ("client only", w.with(|s| s.extended_key_usage = extended_key_usage(&[CLIENT])), "svid_profile"),
        ("any usage only", w.with(|s| s.extended_key_usage = extended_key_usage(&[ANY])), "svid_profile"),
        ("a signing certificate", vec![w.home.certificate.clone()], "svid_profile"),
        (
            "unknown critical extension",
            w.with(|s| s.other_extensions = extension(&[0x2a, 3, 4], true, &[5, 0])),
            "svid_profile",
        ),
        (
            "critical and not processed",
            w.with(|s| s.other_extensions = extension(&[0x55, 0x1d, 31], true, &der::seq(&[]))),
            "svid_profile",
        ),
        (
            "version 1",
            w.with(|s| {
                s.version = vec![];
                s.strip();
            }),
            "svid_profile",
        ),
        (
            "version 2",
            w.with(|s| {
                s.version = der::tlv(0xa0, &der::tlv(2, &[1]));
                s.strip();
            }),
            "svid_profile",
        ),
        // Times.
        ("expired", w.with(|s| s.not_after = utc("260531235959Z")), "cert_time"),
        ("not yet valid", w.with(|s| s.not_before = utc("260601000001Z")), "cert_time"),
        (
            "ended in 1950",
            w.with(|s| {
                s.not_before = utc("500101000000Z");
                s.not_after = utc("510101000000Z");
            }),
            "cert_time",
        ),
        (
            "begins in 9999",
            w.with(|s| {
                s.not_before = generalized("99990101000000Z");
                s.not_after = generalized("99991231235959Z");
            }),
            "cert_time",
        ),
        (
            "ends before it begins",
            w.with(|s| {
                s.not_before = utc("270101000000Z");
                s.not_after = utc("260101000000Z");
            }),
            "cert_time",
        ),
        // Keys.
        (
            "rsa-1024",
            w.with(|s| s.spki = der::rsa_spki(&[&[0, 0x80][..], &[1; 127]].concat(), &[1, 0, 1])),
            "key_unacceptable",
        ),
        (
            "rsa with e = 3",
            w.with(|s| s.spki = der::rsa_spki(&[&[0, 0x80][..], &[1; 255]].concat(), &[3])),
            "key_unacceptable",
        ),
        ("p-192", w.with(|s| s.spki = p192.clone()), "key_unacceptable"),
        // Encoding.
        ("serial zero", w.with(|s| s.serial = vec![0]), "malformed"),
        ("serial negative", w.with(|s| s.serial = vec![0x81]), "malformed"),
        ("serial of 21 bytes", w.with(|s| s.serial = vec![0x7f; 21]), "malformed"),
        ("key usage twice", w.with(|s| s.other_extensions = key_usage(true, 0x80)), "malformed"),
        ("alternative names twice", w.with(|s| s.other_extensions = s.names.clone()), "malformed"),
        (
            "unknown extension twice",
            w.with(|s| s.other_extensions = extension(&[0x2a, 3], false, &[5, 0]).repeat(2)),
            "malformed",
        ),
        ("bytes after the certificate", vec![[&leaf[..], &[0]].concat()], "malformed"),
        (
            "bytes inside an extension",
            w.with(|s| s.key_usage = extension(&[0x55, 0x1d, 15], true, &[3, 2, 7, 0x80, 5, 0])),
            "malformed",
        ),
        ("indefinite length", vec![indefinite], "malformed"),
        ("truncated", vec![leaf[..leaf.len() - 1].to_vec()], "malformed"),
        ("empty", vec![vec![]], "malformed"),
        ("nothing", vec![], "malformed"),
        (
            "inner and outer algorithm differ",
            w.with(|s| s.inner_algorithm = Some(Key::p384().signature_algorithm())),
            "malformed",
        ),
        (
            "sha-1",
            w.with(|s| {
                s.inner_algorithm = Some(sha1.clone());
                s.outer_algorithm = Some(sha1.clone());
            }),
            "chain_invalid",
        ),
        (
            "17 KiB",
            w.with(|s| s.other_extensions = extension(&[0x2a, 3], false, &der::tlv(4, &[0; 17_000]))),
            "malformed",
        ),
    ] {
        assert_eq!(w.judge(&chain).map(|_| ()), Err(reason), "{name}");
    }
    for index in 0..leaf.len() {
        let mut flipped = leaf.clone();
        flipped[index] ^= 1;
        assert!(w.judge(&[flipped]).is_err(), "byte {index}");
        assert!(w.judge(&[leaf[..index].to_vec()]).is_err(), "cut at {index}");
    }
}

#[test]
fn a_bad_intermediate_is_refused_with_its_reason() {
    let w = world();
    let id = |id: &str| alternative_names(&[uri(id)]);
    let [leaf, intermediate]: [Vec<u8>; 2] = w.over(|_| {}).try_into().unwrap();
    let rsa1024 = der::rsa_spki(&[&[0, 0x80][..], &[1; 127]].concat(), &[1, 0, 1]);
    let another = w.over(|_| {});
    for (name, chain, reason) in [
        ("no authority", w.over(|s| s.basic_constraints = basic_constraints(false, None)), "chain_invalid"),
        ("no basic constraints", w.over(|s| s.basic_constraints = vec![]), "chain_invalid"),
        ("may not sign certificates", w.over(|s| s.key_usage = key_usage(true, 0x80)), "svid_profile"),
        ("no key usage", w.over(|s| s.key_usage = vec![]), "svid_profile"),
        ("a workload's id", w.over(|s| s.names = id("spiffe://td.example/a")), "svid_profile"),
        ("another trust domain's id", w.over(|s| s.names = id("spiffe://other.example")), "svid_profile"),
        ("an id that is none", w.over(|s| s.names = id("spiffe://TD.example")), "id_invalid"),
        ("expired", w.over(|s| s.not_after = utc("260531235959Z")), "cert_time"),
        ("not yet valid", w.over(|s| s.not_before = utc("260601000001Z")), "cert_time"),
        ("server only", w.over(|s| s.extended_key_usage = extended_key_usage(&[SERVER])), "svid_profile"),
        (
            "uri permitted",
            w.over(|s| s.other_extensions = name_constraints(true, 0xa0, &uri("td.example"))),
            "nc_violation",
        ),
        (
            "uri excluded",
            w.over(|s| s.other_extensions = name_constraints(true, 0xa1, &uri("td.example"))),
            "nc_violation",
        ),
        (
            "another uri permitted",
            w.over(|s| s.other_extensions = name_constraints(true, 0xa0, &uri("x.example"))),
            "nc_violation",
        ),
        (
            "unknown critical extension",
            w.over(|s| s.other_extensions = extension(&[0x2a, 3], true, &[5, 0])),
            "svid_profile",
        ),
        ("serial negative", w.over(|s| s.serial = vec![0x81]), "malformed"),
        ("weak key", w.over(|s| s.spki = rsa1024), "chain_invalid"),
        ("missing", vec![leaf.clone()], "chain_invalid"),
        ("another of the same name", vec![leaf.clone(), another[1].clone()], "chain_invalid"),
        (
            "too many",
            vec![
                leaf.clone(),
                intermediate.clone(),
                intermediate.clone(),
                intermediate.clone(),
                intermediate.clone(),
            ],
            "chain_invalid",
        ),
        ("a hundred", vec![leaf.clone(); 100], "chain_invalid"),
        ("leaf as its own issuer", vec![leaf.clone(), leaf.clone()], "chain_invalid"),
        ("order reversed", vec![intermediate.clone(), leaf.clone()], "svid_profile"),
    ] {
        assert_eq!(w.judge(&chain).map(|_| ()), Err(reason), "{name}");
    }
    assert!(w.judge(&[leaf, another[1].clone(), intermediate]).is_ok(), "the right one among several");
}

#[test]
fn an_authority_that_does_not_hold_signs_nothing() {
    let w = world();
    assert!(w.under(|_| {}).is_ok());
    for (name, verdict, reason) in [
        ("expired", w.under(|s| s.not_after = utc("260531235959Z")), "cert_time"),
        ("not yet valid", w.under(|s| s.not_before = utc("260601000001Z")), "cert_time"),
        (
            "uri constrained",
            w.under(|s| s.other_extensions = name_constraints(true, 0xa0, &uri("td.example"))),
            "nc_violation",
        ),
    ] {
        assert_eq!(verdict.map(|_| ()), Err(reason), "{name}");
    }
    // A root that was renewed under the same name and key holds, whichever comes first in the bundle.
    let key = Key::p256();
    let renewed = Spec::authority("root", "root", &key);
    let expired = Spec { not_after: utc("260531235959Z"), ..renewed.clone() };
    let leaf = Spec::leaf("root", &w.key, ID).sign(&key);
    for roots in [[&expired, &renewed], [&renewed, &expired]] {
        let bundle = Bundle::from_certificates(&roots.map(|root| root.sign(&key))).unwrap();
        let trust = CallerTrust::new(trust_domain("b"), [(trust_domain("td.example"), bundle)]).unwrap();
        assert!(verify_chain(&[&leaf], &trust, NOW).is_ok());
    }
    // The path length of a root binds, though webpki does not look at it.
    let short = Spec { basic_constraints: basic_constraints(true, Some(0)), ..renewed };
    let bundle = Bundle::from_certificates(&[short.sign(&key)]).unwrap();
    let trust = CallerTrust::new(trust_domain("b"), [(trust_domain("td.example"), bundle)]).unwrap();
    assert!(verify_chain(&[&leaf], &trust, NOW).is_ok());
    let between = Key::p256();
    let chain = [
        Spec::leaf("between", &w.key, ID).sign(&between),
        Spec::authority("root", "between", &between).sign(&key),
    ];
    assert_eq!(verify_chain(&chain, &trust, NOW).unwrap_err(), X509SvidError::Chain);
}

#[test]
fn validity_is_exact_to_the_millisecond() {
    let w = world();
    // The authority holds before and after, so that the leaf's own times are what is judged.
    let change = |spec: &mut Spec| {
        (spec.not_before, spec.not_after) = (utc("260601000000Z"), utc("260701000000Z"));
    };
    let (begin, end) = (NOW.millis(), 1_782_864_000_000);
    for chain in [w.with(change), w.over(change)] {
        let at = |millis| verify_chain(&chain, &w.trust, Timestamp::from_millis(millis)).map(|_| ());
        assert_eq!(at(begin), Ok(()));
        assert_eq!(at(begin - 1), Err(X509SvidError::Time));
        assert_eq!(at(end), Ok(()));
        assert_eq!(at(end + 1), Err(X509SvidError::Time));
    }
    let longer = Spec { not_after: utc("280101000000Z"), ..w.leaf() }.sign(&w.home.key);
    let at = |millis| verify_chain(&[&longer], &w.trust, Timestamp::from_millis(millis)).map(|_| ());
    assert_eq!(at(END.millis()), Ok(()));
    assert_eq!(at(END.millis() + 1), Err(X509SvidError::Time));
}

#[test]
fn t8_a_client_knows_the_broker_and_the_broker_refuses_itself() {
    let w = world();
    let id: SpiffeId = "spiffe://broker.example/brevet".parse().unwrap();
    let chain = [w.own.svid(&w.key, id.as_str())];
    let trust = ServerTrust::new([(trust_domain("broker.example"), bundle(&w.own))]).unwrap();
    assert_eq!(verify_server(&chain, &trust, &id, NOW), Ok(()));
    assert_eq!(w.judge(&chain).unwrap_err(), "own_credential");
    let other: SpiffeId = "spiffe://broker.example/other".parse().unwrap();
    assert_eq!(verify_server(&chain, &trust, &other, NOW), Err(X509SvidError::UnexpectedId));
    assert_eq!(X509SvidError::UnexpectedId.reason(), "id_unexpected");
    // A server is held to the same profile.
    let mut spec = w.own.leaf(&w.key, id.as_str());
    spec.key_usage = key_usage(true, 0x84);
    let verdict = verify_server(&[spec.sign(&w.own.key)], &trust, &id, NOW);
    assert_eq!(verdict.unwrap_err().reason(), "svid_profile");
    let foreign = [w.home.svid(&w.key, id.as_str())];
    assert_eq!(verify_server(&foreign, &trust, &id, NOW), Err(X509SvidError::Chain));
}

#[test]
fn a_chain_is_judged_without_a_connection_as_it_is_with_one() {
    let w = world();
    let bundles =
        [(trust_domain("td.example"), bundle(&w.home)), (trust_domain("broker.example"), bundle(&w.own))];
    let bundles = Bundles::new(bundles).unwrap();
    let chain = w.over(|s| s.not_after = utc("260701000000Z"));
    let (svid, caller) = (judge(&chain, &bundles, NOW).unwrap(), w.judge(&chain).unwrap());
    assert_eq!(svid.spiffe_id(), caller.spiffe_id());
    assert_eq!(svid.key(), caller.key());
    assert_eq!(Some(svid.certificate()), caller.certificate());
    assert_eq!(svid.end(), caller.valid_until());
    // Nobody's own trust domain is set apart.
    let own = [w.own.svid(&w.key, "spiffe://broker.example/agent")];
    assert_eq!(judge(&own, &bundles, NOW).unwrap().spiffe_id().as_str(), "spiffe://broker.example/agent");
    let profile = w.with(|s| s.key_usage = key_usage(true, 0x84));
    assert_eq!(judge(&profile, &bundles, NOW).unwrap_err().reason(), "svid_profile");
    let foreign = [w.own.svid(&w.key, ID)];
    assert_eq!(judge(&foreign, &bundles, NOW), Err(X509SvidError::NotAuthoritative));
}

#[test]
fn t8_the_svid_of_a_task_authenticates_its_agent_to_servers_and_nobody_to_the_broker() {
    let w = world();
    let own = trust_domain("broker.example");
    let path = [1, 2].map(|n| Id::from_bytes([n; 16]));
    let agent: SpiffeId = ID.parse().unwrap();
    let id = TaskSvidId::write(&agent, &path, &own).unwrap();
    // As the mint makes them: without a subject, and so with a critical name.
    let spec = |root: &Root| Spec {
        subject: der::seq(&[]),
        names: extension(&[0x55, 0x1d, 17], true, &der::seq(&[uri(id.as_str())])),
        serial: [&[0][..], &[0xff; 16]].concat(),
        ..root.leaf(&w.key, id.as_str())
    };
    let minted = [spec(&w.own).sign(&w.own.key)];
    assert_eq!(w.judge(&minted).unwrap_err(), "own_credential");
    // Nor if the authority of a trusted domain signed it, or the agent's own SVID comes behind it.
    assert_eq!(w.judge(&[spec(&w.home).sign(&w.home.key)]).unwrap_err(), "own_credential");
    let both = [minted[0].clone(), w.leaf().sign(&w.home.key)];
    assert_eq!(w.judge(&both).unwrap_err(), "own_credential");
    // Nor for another trust domain's name: its bundle is not the broker's.
    let disguised = Spec { names: alternative_names(&[uri(ID)]), ..spec(&w.own) };
    assert_eq!(w.judge(&[disguised.sign(&w.own.key)]).unwrap_err(), "chain_invalid");
    // Whoever trusts the broker's trust domain knows the agent and the task by it.
    let trust = CallerTrust::new(trust_domain("server.example"), [(own.clone(), bundle(&w.own))]).unwrap();
    let caller = verify_chain(&minted, &trust, NOW).unwrap();
    assert_eq!(caller.key(), thumbprint(&w.key));
    let task = TaskSvidId::parse(caller.spiffe_id(), &own).unwrap();
    assert_eq!((task.agent(), task.path()), (&agent, &path[..]));
}

#[test]
fn what_an_independent_issuer_makes_is_accepted() {
    let mut root = CertificateParams::default();
    (root.not_before, root.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    root.distinguished_name = DistinguishedName::new();
    root.distinguished_name.push(DnType::OrganizationName, "SPIFFE");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    root.subject_alt_names = vec![SanType::URI("spiffe://td.example".try_into().unwrap())];
    let issuer_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let authority = root.self_signed(&issuer_key).unwrap();
    let mut leaf = CertificateParams::default();
    (leaf.not_before, leaf.not_after) = (date_time_ymd(2026, 5, 31), date_time_ymd(2026, 6, 2));
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
    leaf.use_authority_key_identifier_extension = true;
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(root, issuer_key)).unwrap();
    for bundle in [
        Bundle::from_certificates(&[authority.der()]).unwrap(),
        Bundle::from_pem(authority.pem().as_bytes()).unwrap(),
    ] {
        let trust = CallerTrust::new(trust_domain("b"), [(trust_domain("td.example"), bundle)]).unwrap();
        assert_eq!(verify_chain(&[leaf.der()], &trust, NOW).unwrap().spiffe_id().as_str(), ID);
    }
}
