//! Name constraints (RFC 5280 §4.2.1.10).
//!
//! A constraint on URIs is refused, also one that would permit the identity: the standard lets a verifier refuse
//! what it does not process, and Brevet does.

use super::Suite;
use super::draft::{Draft, ID};
use crate::x509::{alternative_names, der, dns, name, name_constraints, uri};

const PERMITTED: u8 = 0xa0;
const EXCLUDED: u8 = 0xa1;

/// Names of a constraint, its kind, its base and whether it admits the leaf.
fn constraints() -> Vec<(&'static str, u8, Vec<u8>, bool)> {
    let directory = der::tlv(0xa4, &name("leaf"));
    let address = |last: u8| der::tlv(0x87, &[10, 0, 0, last, 255, 255, 255, 255]);
    let email = |host: &str| der::tlv(0x81, host.as_bytes());
    vec![
        ("uri-permitted-match", PERMITTED, uri("td.example"), false),
        ("uri-permitted-mismatch", PERMITTED, uri("b.example"), false),
        ("uri-permitted-subdomains", PERMITTED, uri(".example"), false),
        ("uri-permitted-everything", PERMITTED, uri(""), false),
        ("uri-excluded-match", EXCLUDED, uri("td.example"), false),
        ("uri-excluded-mismatch", EXCLUDED, uri("b.example"), false),
        ("uri-excluded-subdomains", EXCLUDED, uri(".example"), false),
        ("dns-permitted-match", PERMITTED, dns("a.example"), true),
        ("dns-permitted-parent", PERMITTED, dns("example"), true),
        ("dns-permitted-mismatch", PERMITTED, dns("b.example"), false),
        ("dns-excluded-match", EXCLUDED, dns("a.example"), false),
        ("dns-excluded-parent", EXCLUDED, dns("example"), false),
        ("dns-excluded-mismatch", EXCLUDED, dns("b.example"), true),
        ("email-permitted-without-one", PERMITTED, email("a.example"), true),
        ("address-permitted-without-one", PERMITTED, address(1), true),
        // A subject is a directory name, and constraints on those are not processed either.
        ("directory-permitted", PERMITTED, directory.clone(), false),
        ("directory-excluded", EXCLUDED, directory, false),
    ]
}

pub(super) fn add(suite: &mut Suite) {
    let keys = &suite.keys;
    let names = alternative_names(&[dns("a.example"), uri(ID)]);
    let with_names = |draft: Draft| draft.leaf(|s| s.names.clone_from(&names));
    let places = [
        ("authority", with_names(Draft::direct(keys, &keys.root)), 0),
        ("authority-above", with_names(Draft::direct(keys, &keys.rsa).over("one", &keys.between[0])), 0),
        ("intermediate", with_names(Draft::direct(keys, &keys.root).over("one", &keys.between[0])), 1),
    ];
    for (place, draft, link) in places {
        for (what, kind, base, admits) in constraints() {
            for (word, critical) in [("critical", true), ("not-critical", false)] {
                let id = format!("constraint/{what}/{place}/{word}");
                let draft = draft
                    .clone()
                    .link(link, |s| s.other_extensions = name_constraints(critical, kind, &base));
                if admits {
                    suite.accept(id, &draft);
                } else {
                    suite.refuse(id, &draft, "nc_violation");
                }
            }
        }
    }
}
