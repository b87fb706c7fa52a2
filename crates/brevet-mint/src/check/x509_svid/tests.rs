use std::time::Duration;

use brevet_core::digest::{PolicyDigest, Thumbprint};
use brevet_core::id::{LeaseKey, RootTaskId, TaskId};
use brevet_core::name::KeyId;
use brevet_core::revision::Revision;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod,
    KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::SystemRandom;

use super::*;
use crate::fixture::{any_svid_terms, authority, id, public_key, svid_of, svid_terms, terms, thumbprint};
use crate::x509_svid::{self, SubjectKey};

fn recorded(terms: &Terms) -> Recorded {
    Recorded::durable(terms.clone().into(), Revision(42))
}

/// A certificate of the terms that differs as `edit` has it, signed by the authority.
fn written_but(terms: &Terms, authority: &CaKey, edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let Content::X509Svid(svid) = &terms.content else { panic!("a token") };
    let mut params = x509_svid::parameters(terms, svid).unwrap();
    edit(&mut params);
    let key = SubjectKey::of_spki(svid.public_key.as_der()).unwrap();
    authority.sign(&params, &key, &SystemRandom::new()).unwrap()
}

fn written(terms: &Terms, authority: &CaKey) -> Vec<u8> {
    written_but(terms, authority, |_| ())
}

/// The terms with one thing changed, for each thing that a certificate shows, and what it is told as.
fn mutations(terms: &Terms) -> Vec<(Mismatch, Terms)> {
    let edited = |edit: &dyn Fn(&mut Terms)| {
        let mut terms = terms.clone();
        edit(&mut terms);
        terms
    };
    let (second, millisecond) = (Duration::from_secs(1), Duration::from_millis(1));
    let other_key = public_key(true, 0xee);
    vec![
        ("task", edited(&|t| t.id.task = TaskId::root_of(RootTaskId(id(0xee))))),
        ("task", edited(&|t| t.id.task = TaskId::child_of(t.id.task.root(), id(0xee)).unwrap())),
        ("serial", edited(&|t| t.id.key = LeaseKey(id(0xee)))),
        ("key id", edited(&|t| t.key_id = KeyId::parse("other").unwrap())),
        ("notBefore", edited(&|t| t.issued_at = t.issued_at.after(second))),
        ("notBefore", edited(&|t| t.issued_at = t.issued_at.after(millisecond))),
        ("notAfter", edited(&|t| t.end = t.end.after(second))),
        ("notAfter", edited(&|t| t.end = t.end.after(millisecond))),
        ("holder", edited(&|t| t.holder = Thumbprint::of(&[b"other"]))),
        ("public key", edited(&|t| svid_of(t).public_key = other_key.clone())),
        ("subjectAltName", edited(&|t| svid_of(t).spiffe_id = crate::fixture::spiffe_id("other"))),
        ("form", edited(&|t| t.content = crate::fixture::terms(&t.key_id).content)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn k3_what_was_written_passes_and_no_other_terms_do(mut terms in any_svid_terms()) {
        let authority = authority();
        terms.key_id = authority.key_id().clone();
        let der = written(&terms, &authority);
        prop_assert_eq!(product(&der, &recorded(&terms), &authority), Ok(()));
        for (field, other) in mutations(&terms) {
            prop_assert_ne!(&other, &terms, "{}", field);
            prop_assert_eq!(product(&der, &recorded(&other), &authority), Err(field));
        }
        // A certificate says nothing of policies.
        let other = Terms { policy: PolicyDigest::of(&[b"other"]), ..terms };
        prop_assert_eq!(product(&der, &recorded(&other), &authority), Ok(()));
    }
}

/// What a certificate of other parameters is refused by.
type Edit<'a> = (Mismatch, &'a dyn Fn(&mut CertificateParams));

#[test]
fn k3_a_certificate_that_differs_in_one_field_is_refused_by_its_name() {
    let authority = authority();
    let terms = svid_terms(authority.key_id());
    let judge = |edit: &dyn Fn(&mut CertificateParams)| {
        product(&written_but(&terms, &authority, edit), &recorded(&terms), &authority)
    };
    assert_eq!(judge(&|_| ()), Ok(()));
    let second = Duration::from_secs(1);
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = SanType::DnsName("td.example".try_into().unwrap());
    let edits: [Edit<'_>; 28] = [
        ("serial", &|p| p.serial_number = Some(SerialNumber::from_slice(&[3; 15]))),
        ("serial", &|p| p.serial_number = Some(SerialNumber::from_slice(&[3; 17]))),
        ("serial", &|p| p.serial_number = Some(SerialNumber::from_slice(&[0]))),
        ("serial", &|p| p.serial_number = None),
        ("notBefore", &|p| p.not_before -= second),
        ("notBefore", &|p| p.not_before += second),
        ("notAfter", &|p| p.not_after += second),
        ("notAfter", &|p| p.not_after -= second),
        ("subject", &|p| p.distinguished_name.push(DnType::OrganizationName, "Brevet")),
        ("basicConstraints", &|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ("basicConstraints", &|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
        ("extensions", &|p| p.is_ca = IsCa::NoCa),
        ("extensions", &|p| p.key_usages.clear()),
        ("keyUsage", &|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        ("keyUsage", &|p| p.key_usages.push(KeyUsagePurpose::KeyAgreement)),
        ("keyUsage", &|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        ("extensions", &|p| p.extended_key_usages.clear()),
        ("extKeyUsage", &|p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning)),
        ("extKeyUsage", &|p| p.extended_key_usages.truncate(1)),
        ("extKeyUsage", &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]),
        ("extensions", &|p| p.use_authority_key_identifier_extension = false),
        ("subjectKeyIdentifier", &|p| p.key_identifier_method = KeyIdMethod::PreSpecified(vec![1; 20])),
        ("subjectKeyIdentifier", &|p| p.key_identifier_method = KeyIdMethod::Sha384),
        ("subjectAltName", &|p| p.subject_alt_names.push(dns.clone())),
        ("subjectAltName", &|p| p.subject_alt_names.insert(0, dns.clone())),
        ("subjectAltName", &|p| p.subject_alt_names.push(p.subject_alt_names[0].clone())),
        ("subjectAltName", &|p| p.subject_alt_names = vec![uri("spiffe://broker.example/brevet")]),
        ("extensions", &|p| p.subject_alt_names.clear()),
    ];
    for (at, (field, edit)) in edits.into_iter().enumerate() {
        // An empty subject makes the name critical, so one that is not is told by the subject first.
        assert_eq!(judge(edit), Err(field), "{at}");
    }
    for critical in [false, true] {
        let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        unknown.set_criticality(critical);
        assert_eq!(judge(&|p| p.custom_extensions.push(unknown.clone())), Err("extensions"));
    }
    // One of the six twice, in place of another.
    let constraints = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0]);
    let twice = judge(&|p| {
        p.use_authority_key_identifier_extension = false;
        p.custom_extensions.push(constraints.clone());
    });
    assert!(twice.is_err());
}

#[test]
fn k3_another_authoritys_certificate_and_another_form_are_refused() {
    let (authority, other) = (authority(), authority());
    let svid = svid_terms(authority.key_id());
    let der = written(&svid, &other);
    assert_eq!(product(&der, &recorded(&svid), &authority), Err("issuer"));
    let with_other_id = Terms { key_id: other.key_id().clone(), ..svid.clone() };
    assert_eq!(product(&der, &recorded(&with_other_id), &other), Ok(()));
    let token = terms(authority.key_id());
    assert_eq!(product(&written(&svid, &authority), &recorded(&token), &authority), Err("form"));
}

/// Where the signature's content begins.
fn signature_start(der: &[u8]) -> usize {
    let (_, certificate) = parse_x509_certificate(der).unwrap();
    der.len() - certificate.signature_value.data.len()
}

#[test]
fn k3_no_bit_before_the_signature_can_be_another() {
    let authority = authority();
    let mut terms = svid_terms(authority.key_id());
    for p384 in [false, true] {
        let key = public_key(p384, 7);
        terms.holder = thumbprint(&key);
        svid_of(&mut terms).public_key = key;
        let der = written(&terms, &authority);
        let recorded = recorded(&terms);
        for at in 0..signature_start(&der) {
            for bit in 0..8 {
                let mut damaged = der.clone();
                damaged[at] ^= 1 << bit;
                assert!(product(&damaged, &recorded, &authority).is_err(), "bit {bit} of byte {at}");
            }
        }
        for end in 0..der.len() {
            assert!(product(&der[..end], &recorded, &authority).is_err(), "{end}");
        }
        assert!(product(&[&der[..], &[0]].concat(), &recorded, &authority).is_err());
    }
}

/// A DER element: its tag, and its content or its parts.
struct Element {
    tag: u8,
    parts: Result<Vec<Element>, Vec<u8>>,
}

impl Element {
    fn all(mut der: &[u8]) -> Vec<Self> {
        let mut elements = Vec::new();
        while let [tag, first, rest @ ..] = der {
            let (length, rest) = match first {
                ..=0x7f => (usize::from(*first), rest),
                0x81 => (usize::from(rest[0]), &rest[1..]),
                _ => (usize::from(rest[0]) * 256 + usize::from(rest[1]), &rest[2..]),
            };
            let (content, rest) = rest.split_at(length);
            let parts = if tag & 0x20 == 0 { Err(content.to_vec()) } else { Ok(Self::all(content)) };
            elements.push(Self { tag: *tag, parts });
            der = rest;
        }
        elements
    }

    /// The element with something done to the `n`th of those that have parts, counted down to none, in its content
    /// or in the form of its length.
    fn with(&self, n: &mut isize, insert: &[u8], at_end: bool, long: bool) -> Vec<u8> {
        *n -= isize::from(self.parts.is_ok());
        let chosen = *n == -1 && self.parts.is_ok();
        if chosen {
            *n -= 1;
        }
        let mut content = match &self.parts {
            Err(content) => content.clone(),
            Ok(parts) => parts.iter().flat_map(|part| part.with(n, insert, at_end, long)).collect(),
        };
        if chosen {
            let at = if at_end { content.len() } else { 0 };
            content.splice(at..at, insert.iter().copied());
        }
        let length = u16::try_from(content.len()).unwrap();
        let [high, low] = length.to_be_bytes();
        let header = match length {
            _ if chosen && long => vec![self.tag, 0x83, 0, high, low],
            0..0x80 => vec![self.tag, low],
            0x80..0x100 => vec![self.tag, 0x81, low],
            _ => vec![self.tag, 0x82, high, low],
        };
        [header, content].concat()
    }
}

#[test]
fn k3_nothing_is_hidden_beside_the_fields_or_in_their_lengths() {
    let authority = authority();
    let terms = svid_terms(authority.key_id());
    let der = written(&terms, &authority);
    let judge = |der: &[u8]| product(der, &recorded(&terms), &authority);
    let [certificate] = &Element::all(&der)[..] else { panic!("not one element") };
    let mut chosen = 0;
    loop {
        let mut left = chosen;
        let same = certificate.with(&mut left, &[], true, false);
        assert_eq!(same, der);
        if left >= 0 {
            break;
        }
        for (insert, at_end, long) in
            [(&[5, 0][..], true, false), (&[5, 0], false, false), (&[0], true, false), (&[], true, true)]
        {
            let changed = certificate.with(&mut chosen.clone(), insert, at_end, long);
            assert_ne!(changed, der);
            assert!(judge(&changed).is_err(), "{insert:?} in the {chosen}th");
        }
        chosen += 1;
    }
    assert!(chosen > 15, "{chosen}");
}

#[test]
fn k3_a_signature_is_two_integers_of_their_length() {
    let signature = |r: &[u8], s: &[u8]| {
        let integer = |bytes: &[u8]| [&[2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
        let body = [integer(r), integer(s)].concat();
        [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat()
    };
    let high = [&[0][..], &[0xff; 32]].concat();
    for (r, s) in [(&[1; 32][..], &[1; 32][..]), (&high, &high), (&[1], &[0x7f])] {
        assert!(is_ecdsa_signature(&signature(r, s)), "{r:?} {s:?}");
    }
    let good = signature(&[1; 32], &[2; 32]);
    for (r, s) in [(&[][..], &[1][..]), (&[1], &[0]), (&[0x80], &[1]), (&[0, 1], &[1]), (&[1; 33], &[1])] {
        assert!(!is_ecdsa_signature(&signature(r, s)), "{r:?} {s:?}");
    }
    for end in 0..good.len() {
        assert!(!is_ecdsa_signature(&good[..end]));
    }
    assert!(!is_ecdsa_signature(&[&good[..], &[0]].concat()));
}
