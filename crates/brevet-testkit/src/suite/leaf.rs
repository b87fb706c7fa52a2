//! The leaf by itself (RFC 5280 §4, X509-SVID §4 and §5.2): its profile, its key and its encoding.

use super::Suite;
use super::draft::{plain_shapes, shapes};
use crate::x509::{
    ANY, CLIENT, Key, SERVER, Spec, basic_constraints, der, extended_key_usage, extension, key_usage,
};

type Change = Box<dyn Fn(&mut Spec)>;

fn change(change: impl Fn(&mut Spec) + 'static) -> Change {
    Box::new(change)
}

/// An RSA modulus of so many whole bytes, odd, as a positive integer.
fn modulus(bytes: usize) -> Vec<u8> {
    [&[0, 0x80][..], &vec![1; bytes - 1]].concat()
}

const F4: &[u8] = &[1, 0, 1];

fn good() -> Vec<(&'static str, Change)> {
    let (p384, rsa) = (Key::p384().spki(), Key::rsa().spki());
    vec![
        ("plain", change(|_| {})),
        ("no-extended-key-usage", change(|s| s.extended_key_usage.clear())),
        (
            "more-extended-key-usages",
            change(|s| s.extended_key_usage = extended_key_usage(&[SERVER, CLIENT, ANY])),
        ),
        ("no-basic-constraints", change(|s| s.basic_constraints.clear())),
        ("more-key-usages", change(|s| s.key_usage = key_usage(true, 0xa8))),
        ("no-subject", change(|s| s.subject = der::seq(&[]))),
        (
            "unknown-extension",
            change(|s| s.other_extensions = extension(&[0x2a, 3, 4], false, &der::tlv(5, &[]))),
        ),
        (
            "key-identifiers",
            change(|s| {
                let subject = extension(&[0x55, 0x1d, 14], false, &der::tlv(4, &[1; 20]));
                let issuer = extension(&[0x55, 0x1d, 35], false, &der::seq(&[der::tlv(0x80, &[2; 20])]));
                s.other_extensions = [subject, issuer].concat();
            }),
        ),
        ("serial-of-20-bytes", change(|s| s.serial = vec![0x7f; 20])),
        ("serial-with-first-bit", change(|s| s.serial = [&[0][..], &[0xff; 16]].concat())),
        ("p384-key", change(move |s| s.spki.clone_from(&p384))),
        ("rsa-key", change(move |s| s.spki.clone_from(&rsa))),
        ("rsa-key-of-8192-bits", change(|s| s.spki = der::rsa_spki(&modulus(1024), F4))),
    ]
}

fn bad_profile() -> Vec<(&'static str, Change)> {
    let usage = |purposes: &'static [&'static [u8]]| {
        change(move |s| s.extended_key_usage = extended_key_usage(purposes))
    };
    let critical = |oid: &'static [u8], value: Vec<u8>| {
        change(move |s| s.other_extensions = extension(oid, true, &value))
    };
    vec![
        ("authority", change(|s| s.basic_constraints = basic_constraints(true, None))),
        ("authority-of-length-zero", change(|s| s.basic_constraints = basic_constraints(true, Some(0)))),
        ("no-key-usage", change(|s| s.key_usage.clear())),
        ("key-usage-not-critical", change(|s| s.key_usage = key_usage(false, 0x80))),
        ("may-sign-certificates", change(|s| s.key_usage = key_usage(true, 0x84))),
        ("may-sign-revocation-lists", change(|s| s.key_usage = key_usage(true, 0x82))),
        ("may-sign-both", change(|s| s.key_usage = key_usage(true, 0x86))),
        ("may-not-sign", change(|s| s.key_usage = key_usage(true, 0x20))),
        ("server-only", usage(&[SERVER])),
        ("client-only", usage(&[CLIENT])),
        ("any-only", usage(&[ANY])),
        ("any-and-server", usage(&[ANY, SERVER])),
        ("another-purpose", usage(&[&[0x2b, 6, 1, 5, 5, 7, 3, 3]])),
        ("unknown-critical", critical(&[0x2a, 3, 4], der::tlv(5, &[]))),
        ("critical-policies", critical(&[0x55, 0x1d, 32], der::seq(&[der::seq(&[der::oid(&[0x2a, 3])])]))),
        ("critical-distribution-points", critical(&[0x55, 0x1d, 31], der::seq(&[]))),
        (
            "version-1",
            change(|s| {
                s.version.clear();
                s.strip();
            }),
        ),
        (
            "version-2",
            change(|s| {
                s.version = der::tlv(0xa0, &der::tlv(2, &[1]));
                s.strip();
            }),
        ),
        ("version-4", change(|s| s.version = der::tlv(0xa0, &der::tlv(2, &[3])))),
    ]
}

fn bad_key() -> Vec<(&'static str, Change)> {
    let spki = |spki: Vec<u8>| change(move |s| s.spki.clone_from(&spki));
    let curve =
        |oid: &[u8], size: usize| spki(der::ec_spki(der::oid(oid), &[&[4], &vec![1; 2 * size][..]].concat()));
    let rsa = |modulus: &[u8], exponent: &[u8]| spki(der::rsa_spki(modulus, exponent));
    // The parameters of P-256 written out, as SEC 1 §C.2 has them, instead of its name.
    let explicit = der::seq(&[
        der::tlv(2, &[1]),
        der::seq(&[der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 1, 1]), der::tlv(2, &[0x7f; 32])]),
        der::seq(&[der::tlv(4, &[1; 32]), der::tlv(4, &[1; 32])]),
        der::tlv(4, &[&[4][..], &[1; 64]].concat()),
        der::tlv(2, &[0x7f; 32]),
        der::tlv(2, &[1]),
    ]);
    let p256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    vec![
        ("p192", curve(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 1], 24)),
        ("p224", curve(&[0x2b, 0x81, 4, 0, 33], 28)),
        ("p521", curve(&[0x2b, 0x81, 4, 0, 35], 66)),
        ("secp256k1", curve(&[0x2b, 0x81, 4, 0, 10], 32)),
        ("explicit-parameters", spki(der::ec_spki(explicit, &[&[4][..], &[1; 64]].concat()))),
        ("compressed-point", spki(der::ec_spki(der::oid(p256), &[2; 33]))),
        ("short-point", spki(der::ec_spki(der::oid(p256), &[4; 64]))),
        ("ed25519", spki(der::seq(&[der::seq(&[der::oid(&[0x2b, 0x65, 0x70])]), der::bits(&[1; 32])]))),
        ("rsa-512", rsa(&modulus(64), F4)),
        ("rsa-1024", rsa(&modulus(128), F4)),
        ("rsa-2040", rsa(&modulus(255), F4)),
        ("rsa-2047", rsa(&[&[0x40][..], &[1; 255]].concat(), F4)),
        ("rsa-2052", rsa(&[&[0x08][..], &[1; 256]].concat(), F4)),
        ("rsa-8200", rsa(&modulus(1025), F4)),
        ("rsa-even-modulus", rsa(&[&[0, 0x80][..], &[2; 255]].concat(), F4)),
        ("rsa-exponent-1", rsa(&modulus(256), &[1])),
        ("rsa-exponent-3", rsa(&modulus(256), &[3])),
        ("rsa-exponent-17", rsa(&modulus(256), &[17])),
        ("rsa-exponent-even", rsa(&modulus(256), &[1, 0, 2])),
        ("rsa-negative-modulus", rsa(&[0x81; 256], F4)),
    ]
}

fn bad_encoding() -> Vec<(&'static str, Change)> {
    let mut all = vec![
        ("serial-zero", change(|s| s.serial = vec![0])),
        ("serial-negative", change(|s| s.serial = vec![0x81])),
        ("serial-of-21-bytes", change(|s| s.serial = vec![0x7f; 21])),
        ("serial-empty", change(|s| s.serial.clear())),
        ("key-usage-twice", change(|s| s.other_extensions.clone_from(&s.key_usage))),
        ("names-twice", change(|s| s.other_extensions.clone_from(&s.names))),
        ("basic-constraints-twice", change(|s| s.other_extensions.clone_from(&s.basic_constraints))),
        (
            "unknown-extension-twice",
            change(|s| s.other_extensions = extension(&[0x2a, 3], false, &der::tlv(5, &[])).repeat(2)),
        ),
        (
            "bytes-inside-an-extension",
            change(|s| s.key_usage = extension(&[0x55, 0x1d, 15], true, &[3, 2, 7, 0x80, 5, 0])),
        ),
        ("inner-algorithm-differs", change(|s| s.inner_algorithm = Some(Key::p384().signature_algorithm()))),
        ("outer-algorithm-differs", change(|s| s.outer_algorithm = Some(Key::p384().signature_algorithm()))),
        (
            "longer-than-16-kib",
            change(|s| s.other_extensions = extension(&[0x2a, 3], false, &der::tlv(4, &[0; 17_000]))),
        ),
    ];
    all.push(("key-usage-garbage", change(|s| s.key_usage = extension(&[0x55, 0x1d, 15], true, &[5, 0]))));
    all
}

/// Algorithms that no signature counts by.
fn bad_algorithm() -> Vec<(&'static str, Vec<u8>)> {
    let rsa =
        |last: u8| der::seq(&[der::oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, last]), der::tlv(5, &[])]);
    vec![
        ("ecdsa-with-sha1", der::seq(&[der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1])])),
        ("rsa-with-md5", rsa(4)),
        ("rsa-with-sha1", rsa(5)),
        ("ed25519", der::seq(&[der::oid(&[0x2b, 0x65, 0x70])])),
        ("dsa-with-sha256", der::seq(&[der::oid(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 2])])),
    ]
}

pub(super) fn add(suite: &mut Suite) {
    for (shape, draft) in shapes(&suite.keys) {
        for (name, change) in good() {
            suite.accept(format!("leaf/{name}/{shape}"), &draft.clone().leaf(change));
        }
    }
    for (shape, draft) in plain_shapes(&suite.keys) {
        for (group, bad, reason) in [
            ("leaf", bad_profile(), "svid_profile"),
            ("key", bad_key(), "key_unacceptable"),
            ("encoding", bad_encoding(), "malformed"),
        ] {
            for (name, change) in bad {
                suite.refuse(format!("{group}/{name}/{shape}"), &draft.clone().leaf(change), reason);
            }
        }
        for (name, algorithm) in bad_algorithm() {
            let draft = draft.clone().leaf(|s| {
                s.inner_algorithm = Some(algorithm.clone());
                s.outer_algorithm = Some(algorithm);
            });
            suite.refuse(format!("algorithm/{name}/{shape}"), &draft, "chain_invalid");
        }
        let mut damage = |name: &str, reason, damage: &dyn Fn(&mut Vec<u8>)| {
            let mut chain = draft.chain();
            damage(chain.first_mut().unwrap());
            suite.refuse_chain(format!("encoding/{name}/{shape}"), &draft, chain, reason);
        };
        damage("trailing-byte", "malformed", &|leaf| leaf.push(0));
        damage("cut", "malformed", &|leaf| leaf.truncate(leaf.len() - 1));
        damage("no-certificate", "malformed", &Vec::clear);
        damage("not-der", "malformed", &|leaf| *leaf = b"-----BEGIN CERTIFICATE-----".to_vec());
        damage("a-token", "malformed", &|leaf| *leaf = b"eyJhbGciOiJFUzI1NiJ9.e30.AA".to_vec());
        damage("indefinite-length", "malformed", &|leaf| {
            leaf.splice(..4, [0x30, 0x80]);
            leaf.extend([0, 0]);
        });
        damage("length-in-long-form", "malformed", &|leaf| {
            leaf.splice(1..2, [0x83, 0]);
        });
        damage("signature-changed", "chain_invalid", &|leaf| *leaf.last_mut().unwrap() ^= 1);
        suite.refuse_chain(format!("encoding/empty-chain/{shape}"), &draft, vec![], "malformed");
    }
}
