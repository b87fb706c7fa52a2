//! Certificate chains, the authorities that they are judged by, and certification requests.

use std::sync::LazyLock;
use std::time::Duration;

use brevet_core::spiffe_id::TrustDomain;
use brevet_identity::csr as request;
use brevet_identity::key::{PublicKey, certificate_digest};
use brevet_identity::trust::{Bundle, Bundles};
use brevet_identity::x509_svid;
use brevet_testkit::x509::{NOW, Root, der};

/// The trust domain whose authorities come first, and the one of all others.
const TRUST_DOMAINS: [&str; 2] = ["td.example", "other.example"];

/// The authority of both trust domains that signs leaves again.
static ROOT: LazyLock<Root> = LazyLock::new(|| Root::new("root"));

/// How many certificates are of the chain, how many authorities of the first trust domain, and then the certificates,
/// each behind the two bytes of its length. With the highest bit of the first byte set, the leaf is signed again by an
/// authority of the target's own, so that what lies behind its signature is reached.
pub fn x509_svid(bytes: &[u8]) {
    let [chain_count, authority_count, rest @ ..] = bytes else { return };
    let mut certificates = certificates(rest);
    let chain_count = usize::from(chain_count & 0x7f).min(certificates.len());
    let mut others = certificates.split_off(chain_count);
    let mut chain = certificates;
    let mut authorities = others.drain(..usize::from(*authority_count).min(others.len())).collect::<Vec<_>>();
    if bytes[0] & 0x80 != 0 {
        if let Some(signed) = chain.first().and_then(|leaf| sign_again(leaf)) {
            chain[0] = signed;
        }
        authorities.push(ROOT.certificate.clone());
    }
    let Some(bundles) = bundles([&authorities, &others]) else { return };
    let Ok(svid) = x509_svid::judge(&chain, &bundles, NOW) else { return };

    let again = x509_svid::judge(&chain, &bundles, NOW).expect("it was accepted once");
    assert_eq!(svid.spiffe_id(), again.spiffe_id());
    let id = svid.spiffe_id().as_str();
    assert_eq!(id.parse().as_ref(), Ok(svid.spiffe_id()));
    assert!(chain[0].windows(id.len()).any(|window| window == id.as_bytes()), "an identity from elsewhere");
    assert_eq!(x509_svid::leaf_spiffe_id(&chain[0]).as_ref(), Ok(svid.spiffe_id()));
    assert_eq!(svid.certificate(), certificate_digest(&chain[0]));
    let key = PublicKey::from_certificate(&chain[0]).expect("the key that was read");
    assert_eq!(svid.key(), key.thumbprint());
    // Its end is the last moment of its life (RFC 5280 §4.1.2.5).
    assert!(svid.end() >= NOW);
    assert!(x509_svid::judge(&chain, &bundles, svid.end()).is_ok(), "it ends before its end");
    let later = svid.end().after(Duration::from_millis(1));
    assert!(x509_svid::judge(&chain, &bundles, later).is_err(), "it outlives its end");
    // Without the authorities of its own trust domain, those of another prove nothing.
    let own = svid.spiffe_id().trust_domain();
    let none = Vec::new();
    let foreign = if own.as_str() == TRUST_DOMAINS[0] { [&none, &others] } else { [&authorities, &none] };
    let foreign = self::bundles(foreign).expect("bundles that were read");
    assert!(x509_svid::judge(&chain, &foreign, NOW).is_err(), "the authorities of another prove it");
}

fn certificates(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (certificate, rest) = rest.split_at(length);
        all.push(certificate.to_vec());
        bytes = rest;
    }
    all
}

fn bundles(authorities: [&Vec<Vec<u8>>; 2]) -> Option<Bundles> {
    let mut bundles = Vec::new();
    for (name, authorities) in TRUST_DOMAINS.into_iter().zip(authorities) {
        let bundle = Bundle::from_certificates(authorities).ok()?;
        let held: Vec<&[u8]> = bundle.authorities().collect();
        let again = Bundle::from_certificates(&held).expect("authorities that were read");
        assert!(again.authorities().eq(held), "other authorities");
        let trust_domain: TrustDomain = name.parse().unwrap();
        bundles.push((trust_domain, bundle));
    }
    Bundles::new(bundles).ok()
}

/// The signed part of a certificate, signed by [`ROOT`].
fn sign_again(certificate: &[u8]) -> Option<Vec<u8>> {
    let signed = whole_element(content(certificate)?)?;
    let signature = der::bits(&ROOT.key.sign(signed));
    Some(der::seq(&[signed.to_vec(), ROOT.key.signature_algorithm(), signature]))
}

/// Behind the tag and the length.
fn content(element: &[u8]) -> Option<&[u8]> {
    let whole = whole_element(element)?;
    whole.get(header_bytes(element)?..)
}

fn header_bytes(element: &[u8]) -> Option<usize> {
    let length = *element.get(1)?;
    Some(if length < 0x80 { 2 } else { 2 + usize::from(length & 0x7f) })
}

fn whole_element(element: &[u8]) -> Option<&[u8]> {
    let header = header_bytes(element)?;
    let length = match element.get(1..header)? {
        [length] => usize::from(*length),
        [0x81, length] => usize::from(*length),
        [0x82, high, low] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => return None,
    };
    element.get(..header + length)
}

/// A certification request.
pub fn csr(bytes: &[u8]) {
    let Ok(proven) = request::verify(bytes) else { return };
    let again = request::verify(bytes).expect("it was accepted once");
    assert_eq!(proven.thumbprint(), again.thumbprint());
    let der = proven.public_key().as_der();
    assert!(bytes.windows(der.len()).any(|window| window == der), "a key from elsewhere");
    let key = PublicKey::from_spki(der).expect("a key that was read");
    assert_eq!(key.thumbprint(), proven.thumbprint());
    assert!(key.algorithm().is_some(), "a key that nobody certifies");
    // It is what it is to the last byte.
    assert!(request::verify(&[bytes, &[0]].concat()).is_err());
    assert!(bytes.split_last().is_none_or(|(_, shorter)| request::verify(shorter).is_err()));
}
