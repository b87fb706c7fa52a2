//! The path from a leaf to an authority of its own trust domain (RFC 5280 §6, X509-SVID §3.2 and §5.1).

use std::rc::Rc;

use super::Suite;
use super::draft::{Draft, TRUST_DOMAIN, authority};
use crate::x509::{
    Key, SERVER, Spec, alternative_names, basic_constraints, der, extended_key_usage, extension, key_usage,
    name, uri,
};

pub(super) fn add(suite: &mut Suite) {
    add_intermediates(suite);
    add_lengths(suite);
    add_authorities(suite);
    add_strangers(suite);
    add_other_trust_domains(suite);
    add_mazes(suite);
}

fn uri_name(id: &str) -> Vec<u8> {
    alternative_names(&[uri(id)])
}

type Good = (&'static str, fn(&mut Spec));
type Bad = (&'static str, &'static str, fn(&mut Spec));

/// Intermediates that differ in one thing.
fn add_intermediates(suite: &mut Suite) {
    let good: [Good; 5] = [
        ("id-of-its-trust-domain", |s| s.names = alternative_names(&[uri("spiffe://td.example")])),
        ("other-uris", |s| s.names = alternative_names(&[uri("https://ca.example/"), uri("a:b")])),
        ("no-revocation-lists", |s| s.key_usage = key_usage(true, 0x04)),
        ("key-usage-not-critical", |s| s.key_usage = key_usage(false, 0x06)),
        ("unknown-extension", |s| s.other_extensions = extension(&[0x2a, 3], false, &[5, 0])),
    ];
    let bad: [Bad; 17] = [
        ("no-authority", "chain_invalid", |s| s.basic_constraints = basic_constraints(false, None)),
        ("no-basic-constraints", "chain_invalid", |s| s.basic_constraints.clear()),
        ("may-not-sign-certificates", "svid_profile", |s| s.key_usage = key_usage(true, 0x82)),
        ("no-key-usage", "svid_profile", |s| s.key_usage.clear()),
        ("a-workloads-id", "svid_profile", |s| s.names = uri_name("spiffe://td.example/a")),
        ("another-trust-domains-id", "svid_profile", |s| s.names = uri_name("spiffe://b.example")),
        ("an-id-beside-another-uri", "san_count", |s| {
            s.names = alternative_names(&[uri("spiffe://td.example"), uri("https://ca.example/")]);
        }),
        ("an-id-twice", "san_count", |s| {
            s.names = alternative_names(&[uri("spiffe://td.example"), uri("spiffe://td.example")]);
        }),
        ("an-id-that-is-none", "id_invalid", |s| s.names = uri_name("spiffe://TD.example")),
        ("an-id-in-upper-case", "id_invalid", |s| s.names = uri_name("SPIFFE://td.example")),
        ("server-only", "svid_profile", |s| s.extended_key_usage = extended_key_usage(&[SERVER])),
        ("unknown-critical", "svid_profile", |s| s.other_extensions = extension(&[0x2a, 3], true, &[5, 0])),
        ("serial-negative", "malformed", |s| s.serial = vec![0x81]),
        ("serial-zero", "malformed", |s| s.serial = vec![0]),
        ("serial-of-21-bytes", "malformed", |s| s.serial = vec![0x7f; 21]),
        ("another-subject", "chain_invalid", |s| s.subject = name("another")),
        ("another-issuer", "chain_invalid", |s| s.issuer = name("another")),
    ];
    let keys = &suite.keys;
    let shapes = [
        ("one", Draft::direct(keys, &keys.root).over("one", &keys.between[0])),
        ("upper", Draft::direct(keys, &keys.rsa).over("one", &keys.p384).over("two", &keys.between[0])),
    ];
    for (shape, draft) in shapes {
        for (what, change) in good {
            suite.accept(format!("intermediate/{what}/{shape}"), &draft.clone().link(1, change));
        }
        for (what, reason, change) in bad {
            suite.refuse(format!("intermediate/{what}/{shape}"), &draft.clone().link(1, change), reason);
        }
    }
}

fn add_lengths(suite: &mut Suite) {
    let keys = &suite.keys;
    let [one, two, three, four] = &keys.between;
    let direct = || Draft::direct(keys, &keys.root);
    let length = |length| move |s: &mut Spec| s.basic_constraints = basic_constraints(true, Some(length));
    let over_one = direct().over("one", one);
    let over_two = direct().over("one", one).over("two", two);
    let over_four = direct().over("one", one).over("two", two).over("three", three).over("four", four);
    let large = |s: &mut Spec| s.other_extensions = extension(&[0x2a, 3], false, &der::tlv(4, &[0; 15_000]));
    let accepted = [
        ("authority-of-length-zero", direct().link(0, length(0))),
        ("authority-of-length-one", over_one.clone().link(0, length(1))),
    ];
    let refused = [
        ("longer-than-the-authority-allows", over_one.clone().link(0, length(0)), "chain_invalid"),
        ("longer-than-an-intermediate-allows", over_two.clone().link(1, length(0)), "chain_invalid"),
        ("two-below-an-authority-of-one", over_two.clone().link(0, length(1)), "chain_invalid"),
        ("five-certificates", over_four, "chain_invalid"),
        ("larger-than-32-kib", over_two.link(1, large).link(2, large).leaf(large), "malformed"),
    ];
    let hundred = vec![direct().chain().concat(); 100];
    for (what, draft) in accepted {
        suite.accept(format!("length/{what}"), &draft);
    }
    for (what, draft, reason) in refused {
        suite.refuse(format!("length/{what}"), &draft, reason);
    }
    let draft = Draft::direct(&suite.keys, &suite.keys.root);
    suite.refuse_chain("length/a-hundred-certificates", &draft, hundred, "chain_invalid");
}

/// An authority may say whose it is, as an intermediate may (X509-SVID §3.2).
fn add_authorities(suite: &mut Suite) {
    let named = |id| {
        let draft = Draft::direct(&suite.keys, &suite.keys.root);
        draft.link(0, move |s| s.names = alternative_names(&[uri(id)]))
    };
    let [own, foreign] = ["spiffe://td.example", "spiffe://b.example"].map(named);
    suite.accept("authority/id-of-its-trust-domain".to_owned(), &own);
    suite.refuse("authority/another-trust-domains-id".to_owned(), &foreign, "svid_profile");
}

/// Chains that nobody of the bundle signed.
fn add_strangers(suite: &mut Suite) {
    let keys = &suite.keys;
    let direct = || Draft::direct(keys, &keys.root);
    let over_one = || direct().over("one", &keys.between[0]);
    let stranger = Draft::direct(keys, &keys.stranger);
    // The leaf of another workload as an intermediate, with its own key.
    let mut below_leaf = direct().over("leaf", &keys.between[0]);
    below_leaf = below_leaf.link(1, |s| {
        *s = Spec { spki: s.spki.clone(), ..Spec::leaf("root", &keys.between[0], "spiffe://td.example/b") };
    });
    let below_one = over_one().chain().swap_remove(0);
    let namesake = Spec::authority("root", "one", &keys.between[1]).sign(&keys.root);
    let cases = [
        ("self-signed", Draft { leaf_signer: Some(Rc::clone(&keys.leaf)), ..direct() }.chain()),
        ("root-of-the-same-name", stranger.chain()),
        ("its-own-root-sent-along", [stranger.chain(), vec![stranger.certificate(0)]].concat()),
        (
            "signature-of-another-key",
            Draft { leaf_signer: Some(Rc::clone(&keys.other)), ..over_one() }.chain(),
        ),
        ("intermediate-missing", vec![below_one.clone()]),
        ("another-intermediate-of-the-name", vec![below_one.clone(), namesake]),
        ("leaf-as-its-own-issuer", vec![below_one.clone(), below_one.clone()]),
        ("below-another-leaf", below_leaf.chain()),
    ];
    for (what, chain) in cases {
        let draft = Draft::direct(&suite.keys, &suite.keys.root);
        suite.refuse_chain(format!("stranger/{what}"), &draft, chain, "chain_invalid");
    }
    // A signing certificate is nobody's identity.
    let draft = Draft::direct(&suite.keys, &suite.keys.root).over("one", &suite.keys.between[0]);
    suite.refuse_chain("signing/the-authority", &draft, vec![draft.certificate(0)], "svid_profile");
    suite.refuse_chain("signing/an-intermediate", &draft, vec![draft.certificate(1)], "svid_profile");
    let mut reversed = draft.chain();
    reversed.reverse();
    suite.refuse_chain("signing/order-reversed", &draft, reversed, "svid_profile");
    let with_id = draft.clone().link(1, |s| s.names = alternative_names(&[uri("spiffe://td.example/a")]));
    suite.refuse_chain("signing/with-a-workloads-id", &draft, vec![with_id.certificate(1)], "svid_profile");
}

/// Bundles are never pooled (SPIFFE Federation §4.2).
fn add_other_trust_domains(suite: &mut Suite) {
    let keys = &suite.keys;
    let foreign = |shape: Draft| Draft {
        others: vec![(TRUST_DOMAIN.to_owned(), vec![authority("home", &keys.other)])],
        trust_domain: "b.example".to_owned(),
        ..shape
    };
    let direct = || Draft::direct(keys, &keys.root);
    let over_one = || direct().over("one", &keys.between[0]);
    let empty = |shape: Draft| Draft {
        others: vec![(TRUST_DOMAIN.to_owned(), vec![])],
        trust_domain: "b.example".to_owned(),
        ..shape
    };
    let no_bundle = Draft { trust_domain: "b.example".to_owned(), ..direct() };
    let cases = [
        ("signed-by-anothers-authority", foreign(direct())),
        ("signed-by-anothers-intermediate", foreign(over_one())),
        ("signed-by-anothers-rsa-authority", foreign(Draft::direct(keys, &keys.rsa))),
        ("own-bundle-is-empty", empty(direct())),
        ("own-bundle-is-missing", no_bundle),
    ];
    let nobody = Draft { trust_domain: "b.example".to_owned(), ..empty(Draft::direct(keys, &keys.other)) };
    let nobody_signed = Draft::direct(keys, &keys.stranger).chain();
    for (what, draft) in cases {
        suite.refuse(format!("authority/{what}"), &draft, "id_not_authoritative");
    }
    suite.refuse_chain("authority/empty-bundle-and-a-stranger", &nobody, nobody_signed, "chain_invalid");
}

/// Certificates that could be walked for ever.
fn add_mazes(suite: &mut Suite) {
    let keys = &suite.keys;
    let [a, b, c, _] = &keys.between;
    let draft = Draft::direct(keys, &keys.root);
    let leaf = |signer: &Key| Spec::leaf("a", &keys.leaf, super::draft::ID).sign(signer);
    let signs = |issuer: &str, subject: &str, key: &Key, signer: &Key| {
        Spec::authority(issuer, subject, key).sign(signer)
    };
    let mesh = |signer: &Key| {
        vec![
            Spec::leaf("root", &keys.leaf, super::draft::ID).sign(&keys.stranger),
            signs("root", "root", a, signer),
            signs("root", "root", b, signer),
            signs("root", "root", c, signer),
        ]
    };
    let namesakes: Vec<_> = (0..64).map(|_| authority("root", &Key::p256())).collect();
    let crowded = Draft { beside: namesakes, ..draft.clone() };
    let mazes = [
        ("signs-itself", vec![leaf(a), signs("a", "a", a, a)]),
        ("cycle-of-two", vec![leaf(a), signs("b", "a", a, b), signs("a", "b", b, a)]),
        (
            "cycle-of-three",
            vec![leaf(a), signs("b", "a", a, b), signs("c", "b", b, c), signs("a", "c", c, a)],
        ),
        ("mesh-of-strangers", mesh(a)),
        ("mesh-that-the-authority-signed", mesh(&keys.root)),
    ];
    let dense = mesh(&keys.root);
    for (what, chain) in mazes {
        suite.refuse_chain(format!("maze/{what}"), &draft, chain, "chain_invalid");
    }
    suite.refuse_chain("maze/mesh-below-many-namesakes", &crowded, dense, "chain_invalid");
}
