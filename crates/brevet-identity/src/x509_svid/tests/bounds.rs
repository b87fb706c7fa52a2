//! What a stranger's chain costs, counted in signatures that are verified.

use super::*;

/// The verdict on a chain, and how many signatures it took.
fn cost(chain: &[Vec<u8>], bundles: &Bundles) -> (Result<Svid, X509SvidError>, usize) {
    let (budget, usage) = (Budget::full(), KeyUsage::client_auth());
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let search = Search { chain: &chain, usage, now: NOW, budget: &budget };
    let verdict = verify_within(&search, bundles, None);
    (verdict, SIGNATURES_MAX - budget.0.load(Ordering::Relaxed))
}

fn bundles_of<C: AsRef<[u8]>>(authorities: &[C]) -> Bundles {
    let bundle = Bundle::from_certificates(authorities).unwrap();
    Bundles::new([(trust_domain("td.example"), bundle)]).unwrap()
}

/// Authorities that share a name, as those of an issuer that renews its key.
fn namesakes(count: usize) -> Vec<(Key, Vec<u8>)> {
    let one = |_| {
        let key = Key::p256();
        let certificate = Spec::authority("ca", "ca", &key).sign(&key);
        (key, certificate)
    };
    (0..count).map(one).collect()
}

fn certificates(authorities: &[(Key, Vec<u8>)]) -> Vec<Vec<u8>> {
    authorities.iter().map(|(_, certificate)| certificate.clone()).collect()
}

#[test]
fn a_good_chain_costs_a_signature_for_each_of_its_certificates() {
    let w = world();
    let bundles = bundles_of(&[&w.home.certificate]);
    assert!(matches!(cost(&[w.leaf().sign(&w.home.key)], &bundles), (Ok(_), 1)));
    assert!(matches!(cost(&w.over(|_| {}), &bundles), (Ok(_), 2)));
}

#[test]
fn a_chain_that_is_too_long_or_too_large_costs_nothing() {
    let w = world();
    let bundles = bundles_of(&[&w.home.certificate]);
    let leaf = w.leaf().sign(&w.home.key);
    for length in [5, 100] {
        let chain = vec![leaf.clone(); length];
        assert_eq!(cost(&chain, &bundles), (Err(X509SvidError::Chain), 0));
    }
    let padded = |size: usize| {
        w.with(|s| s.other_extensions = extension(&[0x2a, 3], false, &der::tlv(4, &vec![0; size])))
    };
    let large = [padded(15_000), padded(15_000), padded(15_000)].concat();
    assert_eq!(cost(&large, &bundles), (Err(X509SvidError::Malformed), 0));
    // Nor does the handshake look at it.
    let long: Vec<&[u8]> = std::iter::repeat_n(&leaf[..], 100).collect();
    assert_eq!(is_known(&long, &bundles, KeyUsage::client_auth(), NOW), Err(X509SvidError::Chain));
}

#[test]
fn a_cycle_leads_nowhere_and_costs_little() {
    let w = world();
    let bundles = bundles_of(&[&w.home.certificate]);
    let (a, b) = (Key::p256(), Key::p256());
    let chain = [
        Spec::leaf("a", &w.key, ID).sign(&a),
        Spec::authority("b", "a", &a).sign(&b),
        Spec::authority("a", "b", &b).sign(&a),
        Spec::authority("a", "a", &a).sign(&a),
    ];
    // No certificate names the authority, so no signature is worth a look.
    assert_eq!(cost(&chain, &bundles), (Err(X509SvidError::Chain), 0));
    let itself = vec![w.leaf().sign(&w.key); 4];
    assert!(cost(&itself, &bundles).1 <= 8);
}

/// Every certificate of the mesh may have signed every other, and every authority any of them.
#[test]
fn a_mesh_costs_no_more_than_its_budget() {
    let w = world();
    let (inner, authorities) = (namesakes(3), namesakes(BUNDLE_MANY));
    let bundles = bundles_of(&certificates(&authorities));
    let stranger = Key::p256();
    // Signed by nobody known, in every order.
    let chain = [
        Spec::leaf("ca", &w.key, ID).sign(&stranger),
        Spec::authority("ca", "ca", &inner[0].0).sign(&inner[1].0),
        Spec::authority("ca", "ca", &inner[1].0).sign(&inner[2].0),
        Spec::authority("ca", "ca", &inner[2].0).sign(&inner[0].0),
    ];
    assert_eq!(cost(&chain, &bundles), (Err(X509SvidError::Chain), SIGNATURES_MAX));
    // Signed by the authority, but for the last step: each path is followed to its end.
    let chain = [
        Spec::leaf("ca", &w.key, ID).sign(&stranger),
        Spec::authority("ca", "ca", &inner[0].0).sign(&authorities[0].0),
        Spec::authority("ca", "ca", &inner[1].0).sign(&authorities[0].0),
        Spec::authority("ca", "ca", &inner[2].0).sign(&authorities[0].0),
    ];
    assert_eq!(cost(&chain, &bundles), (Err(X509SvidError::Chain), SIGNATURES_MAX));
    // With one authority of the name, the mesh is walked whole and is no dearer.
    let one = bundles_of(&certificates(&authorities[..1]));
    let (verdict, spent) = cost(&chain, &one);
    assert_eq!(verdict, Err(X509SvidError::Chain));
    assert!(spent <= SIGNATURES_MAX, "{spent}");
}

#[test]
fn four_certificates_make_sixteen_paths_at_most() {
    let w = world();
    let (inner, authorities) = (namesakes(3), namesakes(1));
    // The leaf alone, below one, two or three of the others in any order: 1 + 3 + 6 + 6. Each costs the one signature
    // that its topmost certificate does not have.
    let chain = [
        Spec::leaf("ca", &w.key, ID).sign(&inner[0].0),
        Spec::authority("ca", "ca", &inner[0].0).sign(&inner[1].0),
        Spec::authority("ca", "ca", &inner[1].0).sign(&inner[2].0),
        Spec::authority("ca", "ca", &inner[2].0).sign(&inner[0].0),
    ];
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let (budget, usage) = (Budget::full(), KeyUsage::client_auth());
    let search = Search { chain: &chain, usage, now: NOW, budget: &budget };
    let bundle = Bundle::from_certificates(&certificates(&authorities)).unwrap();
    assert_eq!(search.path_to(bundle.anchors(), &|_| Ok(())), Err(X509SvidError::Chain));
    assert_eq!(SIGNATURES_MAX - budget.0.load(Ordering::Relaxed), 16);
}

/// Far more authorities of one name than the budget pays for.
const BUNDLE_MANY: usize = 40;

#[test]
fn a_budget_that_is_spent_is_not_given_again_for_other_trust_domains() {
    let w = world();
    let (own, other) = (namesakes(SIGNATURES_MAX), namesakes(1));
    let bundle = |authorities| Bundle::from_certificates(&certificates(authorities)).unwrap();
    let judged = |own| {
        let bundles =
            [(trust_domain("other.example"), bundle(&other)), (trust_domain("td.example"), bundle(own))];
        cost(&[Spec::leaf("ca", &w.key, ID).sign(&other[0].0)], &Bundles::new(bundles).unwrap())
    };
    // Who signed it is found out while there is something left, and is nobody's business after that.
    assert_eq!(judged(&own[..1]).0, Err(X509SvidError::NotAuthoritative));
    assert_eq!(judged(&own), (Err(X509SvidError::Chain), SIGNATURES_MAX));
}

#[test]
fn ten_authorities_of_one_name_are_within_the_budget() {
    let w = world();
    let authorities = namesakes(10);
    let bundles = bundles_of(&certificates(&authorities));
    let (last, between) = (&authorities[9].0, Key::p256());
    let chain =
        [Spec::leaf("ca", &w.key, ID).sign(&between), Spec::authority("ca", "ca", &between).sign(last)];
    let (verdict, spent) = cost(&chain, &bundles);
    assert!(verdict.is_ok(), "{verdict:?} after {spent}");
}

#[test]
fn a_handshake_looks_into_the_bundle_of_the_claimed_trust_domain_first() {
    let w = world();
    // A hundred trust domains whose authorities have one and the same name, as a common issuer's default has it.
    let others = (0..100).map(|n| {
        let bundle = Bundle::from_certificates(&certificates(&namesakes(1))).unwrap();
        (trust_domain(&format!("a{n}.example")), bundle)
    });
    let home = namesakes(1);
    let bundle = Bundle::from_certificates(&certificates(&home)).unwrap();
    let bundles = Bundles::new(others.chain([(trust_domain("td.example"), bundle)])).unwrap();
    let leaf = Spec::leaf("ca", &w.key, ID).sign(&home[0].0);
    assert_eq!(is_known(&[&leaf], &bundles, KeyUsage::client_auth(), NOW), Ok(()));
    assert!(matches!(cost(&[leaf], &bundles), (Ok(_), 1)));
}
