//! The test kit's suite of X.509-SVIDs, judged here.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its input fails")]

use std::collections::BTreeMap;

use brevet_identity::trust::{Bundle, Bundles};
use brevet_identity::x509_svid::{X509SvidError, judge};
use brevet_testkit::suite::{Case, Expected, x509_svids};

fn verdict(case: &Case) -> Expected {
    let bundles = case.bundles.iter().map(|(trust_domain, authorities)| {
        (trust_domain.parse().unwrap(), Bundle::from_certificates(authorities).unwrap())
    });
    let bundles = Bundles::new(bundles).unwrap();
    match judge(&case.chain, &bundles, case.at) {
        Ok(svid) => Expected::Accept { spiffe_id: svid.spiffe_id().to_string() },
        Err(error) => Expected::Refuse { reason: X509SvidError::reason(error) },
    }
}

#[test]
fn every_case_of_the_suite_is_judged_as_the_standards_ask() {
    let cases = x509_svids();
    let mut groups: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let verdict = verdict(case);
        let accepted = usize::from(matches!(verdict, Expected::Refuse { .. }));
        if let Some(count) = groups.entry(case.group()).or_default().get_mut(accepted) {
            *count += 1;
        }
        if verdict != case.expected {
            wrong.push(format!("{}: {verdict:?} instead of {:?}", case.id, case.expected));
        }
    }
    for (group, [accepted, refused]) in &groups {
        println!("{group:<14} {accepted:>4} accepted {refused:>4} refused");
    }
    let accepted: usize = groups.values().map(|[accepted, _]| accepted).sum();
    println!("{:<14} {accepted:>4} accepted {:>4} refused", "in all", cases.len() - accepted);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 1_000 && accepted * 10 >= cases.len());
}
