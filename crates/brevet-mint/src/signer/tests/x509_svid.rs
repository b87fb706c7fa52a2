//! What is signed as an X.509-SVID, and what is not.

use brevet_core::id::{Id, LeaseKey, RootTaskId, TaskId};
use brevet_core::public_key::PublicKey;
use brevet_core::task_svid::lease_of_serial;
use ring::signature::ECDSA_P256_SHA256_ASN1;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::*;
use crate::fixture::{any_svid_terms, id, own, public_key, svid_of, svid_terms, thumbprint};

fn terms_of(signer: &LocalSigner) -> Terms {
    svid_terms(signer.key_id(Profile::X509Svid))
}

fn signed(signer: &LocalSigner, terms: Terms) -> Result<Vec<u8>, SignError> {
    match sign(signer, terms)?.into_product() {
        Product::X509Svid(chain) => {
            let [leaf] = <[Vec<u8>; 1]>::try_from(chain).unwrap();
            Ok(leaf)
        }
        other => panic!("{other:?}"),
    }
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = parse_x509_certificate(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

fn verify_by(signer: &LocalSigner, certificate: &X509Certificate<'_>) {
    let authority = parse(signer.authority.certificate());
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &authority.public_key().subject_public_key.data)
        .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
        .unwrap();
}

#[test]
fn an_x509_svid_is_an_identity_and_nothing_else() {
    let signer = signer();
    let der = signed(&signer, terms_of(&signer)).unwrap();
    let certificate = parse(&der);
    verify_by(&signer, &certificate);
    let authority = parse(signer.authority.certificate());
    assert_eq!(certificate.issuer(), authority.subject());
    assert_eq!(certificate.subject().iter().count(), 0);
    assert_eq!(certificate.raw_serial(), [3; 16]);
    assert_eq!(certificate.validity().not_before.timestamp(), 1_800_000_000);
    assert_eq!(certificate.validity().not_after.timestamp(), 1_800_000_299);
    assert_eq!(certificate.public_key().raw, public_key(false, 7).as_der());
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let expected = format!("spiffe://broker.example/agent/td.example/agent/b/task/{}/{}", id(1), id(2));
    assert!(names.critical, "the subject is empty");
    assert_eq!(names.value.general_names, [GeneralName::URI(&expected)]);
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature and nothing else");
    let extended = certificate.extended_key_usage().unwrap().unwrap();
    assert!(!extended.critical && extended.value.server_auth && extended.value.client_auth);
    assert_eq!(certificate.extensions().len(), 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn l4_terms_of_this_authority_are_certified_under_a_serial_that_names_the_lease(
        mut terms in any_svid_terms(),
        lifetime in 1_u64..=3600,
    ) {
        let signer = signer();
        terms.key_id = signer.key_id(Profile::X509Svid).clone();
        terms.issued_at = Timestamp::from_seconds(1_800_000_000);
        terms.end = terms.issued_at.after(Duration::from_secs(lifetime));
        let lease = terms.id.key;
        let der = signed(&signer, terms).unwrap();
        let certificate = parse(&der);
        verify_by(&signer, &certificate);
        let serial = certificate.raw_serial();
        prop_assert!(serial.len() <= 17 && serial[0] < 0x80);
        prop_assert_eq!(lease_of_serial(serial), Some(lease));
    }
}

#[test]
fn l4_every_lease_but_zero_has_a_serial_of_its_own() {
    let signer = signer();
    let with_key = |bytes: [u8; 16]| {
        let mut terms = terms_of(&signer);
        terms.id.key = LeaseKey(Id::from_bytes(bytes));
        signed(&signer, terms).map(|der| parse(&der).raw_serial().to_vec())
    };
    let number = |value: u128| with_key(value.to_be_bytes());
    assert_eq!(with_key([0xff; 16]), Ok([&[0][..], &[0xff; 16]].concat()));
    assert_eq!(with_key([0x7f; 16]), Ok(vec![0x7f; 16]));
    assert_eq!(number(1), Ok(vec![1]));
    assert_eq!(number(0x80), Ok(vec![0, 0x80]));
    assert_eq!(number(0x0100), Ok(vec![1, 0]));
    assert_eq!(number(0), Err(SignError::Serial));
}

#[test]
fn l3_a_certificate_is_valid_until_the_second_before_its_end() {
    let signer = signer();
    for lifetime in [1, 2, 3600] {
        let mut terms = terms_of(&signer);
        terms.end = terms.issued_at.after(Duration::from_secs(lifetime));
        let der = signed(&signer, terms).unwrap();
        let validity = parse(&der).validity().clone();
        let length = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(u64::try_from(length).unwrap(), lifetime - 1);
    }
}

#[test]
fn k3_an_svid_lives_at_most_an_hour_never_nothing_and_not_beyond_the_authority() {
    let signer = signer();
    let with_life = |issued_at: Timestamp, end: Timestamp| {
        signed(&signer, Terms { issued_at, end, ..terms_of(&signer) }).map(drop)
    };
    let start = terms_of(&signer).issued_at;
    let later = |millis| start.after(Duration::from_millis(millis));
    assert_eq!(with_life(start, later(3_600_000)), Ok(()));
    assert_eq!(with_life(start, later(1_000)), Ok(()));
    for (issued_at, end) in [
        (start, later(3_601_000)),
        (start, later(3_600_001)),
        (start, later(1_500)),
        (start, start),
        (later(1), later(300_000)),
        (later(2_000), start),
        (Timestamp::EPOCH, Timestamp::EPOCH),
    ] {
        assert_eq!(with_life(issued_at, end), Err(SignError::Lifetime), "{issued_at} {end}");
    }
    let (second, end) = (Duration::from_secs(1), signer.authority.end());
    let before = Timestamp::from_seconds(end.seconds() - 300);
    assert_eq!(with_life(before, end), Ok(()));
    assert_eq!(with_life(before, end.after(second)), Err(SignError::Lifetime));
    assert_eq!(with_life(end, end.after(second)), Err(SignError::Lifetime));
}

#[test]
fn k3_what_belongs_to_another_authority_or_is_no_tasks_is_not_certified() {
    let signer = signer();
    let judge = |edit: &dyn Fn(&mut Terms)| {
        let mut terms = terms_of(&signer);
        edit(&mut terms);
        signed(&signer, terms).map(drop)
    };
    let with_id = |text: String| judge(&|terms| svid_of(terms).spiffe_id = text.parse().unwrap());
    assert_eq!(judge(&|_| ()), Ok(()));
    assert_eq!(judge(&|terms| terms.key_id = KeyId::parse("other").unwrap()), Err(SignError::KeyId));
    // The key of the other form signs nothing of this one.
    let tokens = signer.key_id(Profile::TaskToken).clone();
    assert_eq!(judge(&|terms| terms.key_id = tokens.clone()), Err(SignError::KeyId));
    let mut token = token_terms(&signer);
    token.key_id = signer.key_id(Profile::X509Svid).clone();
    assert_eq!(sign(&signer, token).map(drop), Err(SignError::KeyId));

    let task = format!("{}/{}", id(1), id(2));
    assert_eq!(with_id(format!("spiffe://broker.example/agent/td.example/agent/b/task/{task}")), Ok(()));
    for text in [
        format!("spiffe://td.example/agent/td.example/agent/b/task/{task}"),
        format!("spiffe://broker.example/agent/broker.example/agent/b/task/{task}"),
        format!("spiffe://broker.example/agent/td.example/task/{task}"),
        format!("spiffe://broker.example/agent/td.example/agent/b/task/{task}/x"),
        format!("spiffe://broker.example/agent/td.example/agent/b/{task}"),
        "spiffe://broker.example/brevet".to_owned(),
        "spiffe://broker.example".to_owned(),
    ] {
        assert_eq!(with_id(text.clone()), Err(SignError::SpiffeId), "{text}");
    }
    // An SVID for another task than the lease's passes no bound, but the product is compared with the lease.
    for task in [format!("{}/{}", id(9), id(2)), format!("{}/{}", id(1), id(9)), id(1).to_string()] {
        let verdict = with_id(format!("spiffe://broker.example/agent/td.example/agent/b/task/{task}"));
        assert_eq!(verdict, Err(SignError::ProductMismatch { field: "task" }), "{task}");
    }
    let root = TaskId::root_of(RootTaskId(id(1)));
    assert_eq!(judge(&|terms| terms.id.task = root), Err(SignError::ProductMismatch { field: "task" }));
}

#[test]
fn k3_only_a_holders_key_of_an_accepted_kind_is_certified() {
    let signer = signer();
    let with_key = |der: &[u8], holder| {
        let mut terms = terms_of(&signer);
        svid_of(&mut terms).public_key = PublicKey::from_der(der).unwrap();
        terms.holder = holder;
        signed(&signer, terms).map(drop)
    };
    for p384 in [false, true] {
        let key = public_key(p384, 9);
        assert_eq!(with_key(key.as_der(), thumbprint(&key)), Ok(()));
        let other = thumbprint(&public_key(p384, 8));
        let mismatch = Err(SignError::ProductMismatch { field: "holder" });
        assert_eq!(with_key(key.as_der(), other), mismatch);
    }
    let good = public_key(false, 9);
    let (good, holder) = (good.as_der(), thumbprint(&good));
    let mut compressed = good.to_vec();
    compressed[26] = 2;
    let mut k256 = good.to_vec();
    k256[22] = 0x0a;
    for bad in [&good[..90], &[good, &[0]].concat(), &compressed, &k256, &[0x30, 0]] {
        assert_eq!(with_key(bad, holder), Err(SignError::HolderKey), "{bad:02x?}");
    }
    // What has the broker's own keys is not the holder.
    let authority = parse(signer.authority.certificate()).public_key().raw.to_vec();
    assert_eq!(with_key(&authority, signer.authority.thumbprint()), Err(SignError::HolderKey));
    let tokens = [&good[..26], signer.key().public_point()].concat();
    assert_eq!(with_key(&tokens, signer.key().thumbprint()), Err(SignError::HolderKey));
}

#[test]
fn l9_the_same_terms_are_certified_again_as_they_were() {
    let signer = signer();
    let [one, two] = [0, 1].map(|_| signed(&signer, terms_of(&signer)).unwrap());
    assert_eq!(parse(&one).tbs_certificate.as_ref(), parse(&two).tbs_certificate.as_ref());
}

#[test]
fn l12_no_certificate_and_no_key_is_shown() {
    let signer = signer();
    let credential = sign(&signer, terms_of(&signer)).unwrap();
    let lease = credential.recorded().terms().id;
    assert_eq!(format!("{credential:?}"), format!("Credential {{ lease: {lease:?}, .. }}"));
    assert_eq!(format!("{:?}", credential.product()), "X509Svid(..)");
    let shown = format!("{signer:?}");
    assert!(shown.contains(&format!("CaKey {{ trust_domain: {:?}", own())), "{shown}");
}
