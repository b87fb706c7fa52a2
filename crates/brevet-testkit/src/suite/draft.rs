//! Good chains before they are signed: the shapes that a case begins with.

use std::collections::BTreeMap;
use std::rc::Rc;

use brevet_core::time::Timestamp;

use crate::x509::{Key, NOW, Spec, basic_constraints, name, utc};

/// The identity of a case that is not about identifiers.
pub(super) const ID: &str = "spiffe://td.example/agent/a";
pub(super) const TRUST_DOMAIN: &str = "td.example";

/// Keys, made once and used in every case: what is wrong with a case is never that a key is known from another.
pub(super) struct Keys {
    pub(super) leaf: Rc<Key>,
    pub(super) root: Rc<Key>,
    pub(super) other: Rc<Key>,
    pub(super) stranger: Rc<Key>,
    pub(super) p384: Rc<Key>,
    pub(super) rsa: Rc<Key>,
    pub(super) rsa_pss: Rc<Key>,
    pub(super) between: [Rc<Key>; 4],
}

impl Keys {
    pub(super) fn new() -> Self {
        let p256 = || Rc::new(Key::p256());
        Self {
            leaf: p256(),
            root: p256(),
            other: p256(),
            stranger: p256(),
            p384: Rc::new(Key::p384()),
            rsa: Rc::new(Key::rsa()),
            rsa_pss: Rc::new(Key::rsa_pss()),
            between: [p256(), p256(), p256(), p256()],
        }
    }
}

/// A certificate that signs others.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) spec: Spec,
    pub(super) key: Rc<Key>,
}

/// A chain and the bundles that it is judged by.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) id: String,
    /// Whose bundle the authority is in.
    pub(super) trust_domain: String,
    pub(super) at: Timestamp,
    pub(super) leaf: Spec,
    /// Who signs the leaf, if it is not the last link.
    pub(super) leaf_signer: Option<Rc<Key>>,
    /// The authority, and the intermediates from it downwards.
    pub(super) links: Vec<Link>,
    /// What else is in the bundle, before the authority.
    pub(super) beside: Vec<Vec<u8>>,
    /// The bundles of other trust domains.
    pub(super) others: Vec<(String, Vec<Vec<u8>>)>,
    /// What else is sent, behind the intermediates.
    pub(super) sent_along: Vec<Vec<u8>>,
    /// Whether the intermediates are sent in the order from the authority.
    pub(super) reversed: bool,
}

impl Draft {
    /// A leaf that an authority signs.
    pub(super) fn direct(keys: &Keys, authority: &Rc<Key>) -> Self {
        let spec = Spec::authority("root", "root", authority);
        Self {
            id: ID.to_owned(),
            trust_domain: TRUST_DOMAIN.to_owned(),
            at: NOW,
            leaf: Spec::leaf("root", &keys.leaf, ID),
            leaf_signer: None,
            links: vec![Link { name: "root".to_owned(), spec, key: Rc::clone(authority) }],
            beside: Vec::new(),
            others: Vec::new(),
            sent_along: Vec::new(),
            reversed: false,
        }
    }

    /// The same with one more intermediate above the leaf.
    pub(super) fn over(mut self, common_name: &str, key: &Rc<Key>) -> Self {
        let spec = Spec::authority(&self.links.last().unwrap().name, common_name, key);
        self.leaf.issuer = name(common_name);
        self.links.push(Link { name: common_name.to_owned(), spec, key: Rc::clone(key) });
        self
    }

    pub(super) fn leaf(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.leaf);
        self
    }

    /// Changes a link: 0 is the authority, 1 the intermediate below it.
    pub(super) fn link(mut self, index: usize, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.links.get_mut(index).unwrap().spec);
        self
    }

    /// The certificate of a link.
    pub(super) fn certificate(&self, index: usize) -> Vec<u8> {
        let signer = self.links.get(index.saturating_sub(1)).unwrap();
        self.links.get(index).unwrap().spec.sign(&signer.key)
    }

    /// The chain as it is sent, leaf first.
    pub(super) fn chain(&self) -> Vec<Vec<u8>> {
        let signer = self.leaf_signer.as_ref().unwrap_or(&self.links.last().unwrap().key);
        let mut above: Vec<_> = (1..self.links.len()).rev().map(|index| self.certificate(index)).collect();
        if self.reversed {
            above.reverse();
        }
        [vec![self.leaf.sign(signer)], above, self.sent_along.clone()].concat()
    }

    pub(super) fn bundles(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let own = [self.beside.clone(), vec![self.certificate(0)]].concat();
        let own = (self.trust_domain.clone(), own);
        self.others.iter().cloned().chain([own]).collect()
    }
}

/// A self-signed authority that is good in itself.
pub(super) fn authority(common_name: &str, key: &Key) -> Vec<u8> {
    Spec::authority(common_name, common_name, key).sign(key)
}

/// The shapes that every bad thing is tried in.
pub(super) fn plain_shapes(keys: &Keys) -> Vec<(&'static str, Draft)> {
    let direct = || Draft::direct(keys, &keys.root);
    vec![
        ("direct", direct()),
        ("one-intermediate", direct().over("one", &keys.between[0])),
        ("rsa-authority", Draft::direct(keys, &keys.rsa)),
    ]
}

/// The shapes that every good thing is tried in.
pub(super) fn shapes(keys: &Keys) -> Vec<(&'static str, Draft)> {
    let [one, two, three, _] = &keys.between;
    let direct = || Draft::direct(keys, &keys.root);
    let signed_twice = direct().over("one", one);
    let by_another = Spec::authority("elsewhere", "one", one).sign(&keys.stranger);
    let expired = Spec {
        not_before: utc("250101000000Z"),
        not_after: utc("260101000000Z"),
        ..Spec::authority("root", "root", &keys.root)
    };
    let bounded = direct()
        .over("one", one)
        .over("two", two)
        .link(0, |s| s.basic_constraints = basic_constraints(true, Some(2)))
        .link(1, |s| s.basic_constraints = basic_constraints(true, Some(1)))
        .link(2, |s| s.basic_constraints = basic_constraints(true, Some(0)));
    let mut all = plain_shapes(keys);
    all.extend([
        ("p384-authority", Draft::direct(keys, &keys.p384)),
        ("rsa-pss-authority", Draft::direct(keys, &keys.rsa_pss)),
        ("p384-over-rsa", Draft::direct(keys, &keys.rsa).over("one", &keys.p384)),
        ("two-intermediates", direct().over("one", one).over("two", two)),
        ("three-intermediates", direct().over("one", one).over("two", &keys.p384).over("three", three)),
        ("any-order", Draft { reversed: true, ..direct().over("one", one).over("two", two) }),
        ("root-sent-along", Draft { sent_along: vec![direct().certificate(0)], ..direct().over("one", one) }),
        ("one-too-many-sent", Draft { sent_along: vec![authority("elsewhere", &keys.stranger)], ..direct() }),
        ("signed-twice", Draft { sent_along: vec![by_another], ..signed_twice }),
        (
            "several-authorities",
            Draft {
                beside: vec![authority("a", &keys.other), authority("b", &keys.p384)],
                ..direct().over("one", one)
            },
        ),
        ("authorities-of-one-name", Draft { beside: vec![authority("root", &keys.other)], ..direct() }),
        ("renewed-authority", Draft { beside: vec![expired.sign(&keys.root)], ..direct() }),
        (
            "several-trust-domains",
            Draft {
                others: vec![
                    ("a.example".to_owned(), vec![authority("root", &keys.other)]),
                    ("z.example".to_owned(), vec![]),
                ],
                ..direct()
            },
        ),
        ("path-length-that-suffices", bounded),
    ]);
    all
}
