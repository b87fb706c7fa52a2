//! Times (RFC 5280 §4.1.2.5): both ends of a validity are part of it, and every certificate of the path must hold.

use brevet_core::time::Timestamp;

use super::Suite;
use super::draft::Draft;
use crate::x509::{NOW, Spec, generalized, utc};

type Validity = (&'static str, Vec<u8>, Vec<u8>, Option<&'static str>);

/// Names of a validity around [`NOW`], its two ends, and the reason that it is refused for.
fn validities() -> Vec<Validity> {
    let (early, late) = (|| utc("260101000000Z"), || utc("270101000000Z"));
    vec![
        ("begins-now", utc("260601000000Z"), late(), None),
        ("ends-now", early(), utc("260601000000Z"), None),
        ("this-second-alone", utc("260601000000Z"), utc("260601000000Z"), None),
        ("ends-in-2049", early(), utc("491231235959Z"), None),
        ("ends-in-2050", early(), generalized("20500101000000Z"), None),
        ("ends-never", early(), generalized("99991231235959Z"), None),
        ("began-at-the-epoch", utc("700101000000Z"), late(), None),
        ("ended-a-second-ago", early(), utc("260531235959Z"), Some("cert_time")),
        ("begins-in-a-second", utc("260601000001Z"), late(), Some("cert_time")),
        ("ended-in-1950", utc("500101000000Z"), utc("500102000000Z"), Some("cert_time")),
        ("ended-in-1970", utc("700101000000Z"), utc("700101000001Z"), Some("cert_time")),
        ("begins-in-9999", generalized("99990101000000Z"), generalized("99991231235959Z"), Some("cert_time")),
        ("ends-before-it-begins", late(), early(), Some("cert_time")),
    ]
}

/// Ends that are not written as RFC 5280 asks, with the reason that Brevet has for a leaf. Where the path builder is
/// the first to read a time, as it is of an intermediate, it can only say that the certificate holds at no time.
fn malformed() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("fraction-of-a-second", generalized("20500101000000.5Z"), "cert_time"),
        ("no-seconds", utc("2701010000Z"), "cert_time"),
        ("another-zone", utc("270101000000+0100"), "cert_time"),
        ("no-zone", utc("270101000000"), "malformed"),
        ("month-13", utc("271301000000Z"), "malformed"),
        ("day-30-of-february", utc("270230000000Z"), "malformed"),
        ("hour-25", utc("270101250000Z"), "malformed"),
        ("no-digits", utc("27010100000aZ"), "malformed"),
        ("empty", utc(""), "malformed"),
    ]
}

pub(super) fn add(suite: &mut Suite) {
    let keys = &suite.keys;
    let shape = || Draft::direct(keys, &keys.root).over("one", &keys.between[0]);
    // The place in the chain: the leaf, the intermediate, the authority.
    let places =
        [("leaf", shape(), None), ("intermediate", shape(), Some(1)), ("authority", shape(), Some(0))];
    let at = |draft: Draft, place: Option<usize>, change: &dyn Fn(&mut Spec)| match place {
        None => draft.leaf(change),
        Some(link) => draft.link(link, change),
    };
    for (name, draft, place) in places {
        for (what, not_before, not_after, reason) in validities() {
            let id = format!("time/{what}/{name}");
            let draft = at(draft.clone(), place, &|s| {
                s.not_before.clone_from(&not_before);
                s.not_after.clone_from(&not_after);
            });
            match reason {
                None => suite.accept(id, &draft),
                Some(reason) => suite.refuse(id, &draft, reason),
            }
        }
        // What is no certificate can't be put into a bundle, so that authorities are left out here.
        if place != Some(0) {
            for (what, not_after, of_leaf) in malformed() {
                let draft = at(draft.clone(), place, &|s| s.not_after.clone_from(&not_after));
                let reason = if place.is_none() { of_leaf } else { "cert_time" };
                suite.refuse(format!("time/{what}/{name}"), &draft, reason);
            }
            // No clock here reads a time before 1970, and the path builder none of a certificate.
            for (what, not_before) in
                [("began-in-1950", utc("500101000000Z")), ("began-in-1900", generalized("19000101000000Z"))]
            {
                let draft = at(draft.clone(), place, &|s| s.not_before.clone_from(&not_before));
                suite.refuse(format!("time/{what}/{name}"), &draft, "cert_time");
            }
        }
        // To the millisecond.
        let exact = at(draft, place, &|s| {
            (s.not_before, s.not_after) = (utc("260601000000Z"), utc("260701000000Z"));
        });
        let (begin, end) = (NOW.millis(), 1_782_864_000_000);
        for (what, millis, holds) in [
            ("first-millisecond", begin, true),
            ("a-millisecond-early", begin - 1, false),
            ("last-millisecond", end, true),
            ("a-millisecond-late", end + 1, false),
            ("at-the-epoch", 0, false),
            ("at-the-end-of-time", u64::MAX, false),
        ] {
            let draft = Draft { at: Timestamp::from_millis(millis), ..exact.clone() };
            let id = format!("time/{what}/{name}");
            if holds {
                suite.accept(id, &draft);
            } else {
                suite.refuse(id, &draft, "cert_time");
            }
        }
    }
}
