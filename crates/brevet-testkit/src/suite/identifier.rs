//! The grammar of SPIFFE IDs (SPIFFE-ID §2) and of the names that carry them (X509-SVID §2).

use super::Suite;
use super::draft::{Draft, ID, TRUST_DOMAIN, plain_shapes, shapes};
use crate::x509::{alternative_names, der, dns, extension, uri};

/// Names of a good ID, its trust domain and its path.
fn good() -> Vec<(&'static str, String, String)> {
    let of = |name, trust_domain: &str, path: &str| (name, trust_domain.to_owned(), path.to_owned());
    vec![
        of("plain", TRUST_DOMAIN, "/agent/a"),
        of("one-segment", TRUST_DOMAIN, "/a"),
        of("deep", TRUST_DOMAIN, &"/a".repeat(100)),
        of("every-kind-of-character", TRUST_DOMAIN, "/azAZ09.-_"),
        of("upper-case-path", TRUST_DOMAIN, "/Agent/A"),
        of("three-dots", TRUST_DOMAIN, "/.../..a/a..."),
        of("like-an-ipv4-address", "127.0.0.1", "/a"),
        of("like-no-host", "a_b-c.d", "/a"),
        of("like-a-number", "0", "/a"),
        of("of-255-bytes", &"t".repeat(255), "/a"),
        of("of-2048-bytes", TRUST_DOMAIN, &format!("/{}", "a".repeat(2048 - 9 - TRUST_DOMAIN.len() - 1))),
    ]
}

/// IDs that are none, whatever trust domain they may mean.
fn bad() -> Vec<(&'static str, String)> {
    let mut all: Vec<(&'static str, String)> = [
        ("empty", ""),
        ("no-path", "spiffe://td.example"),
        ("root-path", "spiffe://td.example/"),
        ("trailing-slash", "spiffe://td.example/a/"),
        ("empty-first-segment", "spiffe://td.example//a"),
        ("empty-segment", "spiffe://td.example/a//b"),
        ("dot-first", "spiffe://td.example/./a"),
        ("dot-last", "spiffe://td.example/a/."),
        ("dot-dot-first", "spiffe://td.example/../a"),
        ("dot-dot-last", "spiffe://td.example/a/.."),
        ("percent-letter", "spiffe://td.example/%61"),
        ("percent-dot", "spiffe://td.example/%2e"),
        ("percent-slash", "spiffe://td.example/a%2Fb"),
        ("space", "spiffe://td.example/a b"),
        ("nul", "spiffe://td.example/a\0b"),
        ("newline-last", "spiffe://td.example/a\n"),
        ("tab-last", "spiffe://td.example/a\t"),
        ("space-first", " spiffe://td.example/a"),
        ("backslash", "spiffe://td.example\\a"),
        ("colon", "spiffe://td.example/a:b"),
        ("at", "spiffe://td.example/a@b"),
        ("plus", "spiffe://td.example/a+b"),
        ("tilde", "spiffe://td.example/~a"),
        ("star", "spiffe://td.example/*"),
        ("comma", "spiffe://td.example/a,b"),
        ("semicolon", "spiffe://td.example/a;b"),
        ("equals", "spiffe://td.example/a=b"),
        ("ampersand", "spiffe://td.example/a&b"),
        ("not-ascii", "spiffe://td.example/\u{e4}"),
        ("fullwidth", "spiffe://td.example/\u{ff41}"),
        ("query", "spiffe://td.example/a?q"),
        ("empty-query", "spiffe://td.example/a?"),
        ("query-of-host", "spiffe://td.example?q"),
        ("fragment", "spiffe://td.example/a#f"),
        ("empty-fragment", "spiffe://td.example/a#"),
        ("fragment-of-host", "spiffe://td.example#f"),
        ("port", "spiffe://td.example:443/a"),
        ("empty-port", "spiffe://td.example:/a"),
        ("user", "spiffe://u@td.example/a"),
        ("user-and-password", "spiffe://u:p@td.example/a"),
        ("empty-user", "spiffe://@td.example/a"),
        ("no-trust-domain", "spiffe:///a"),
        ("nothing-behind-the-scheme", "spiffe://"),
        ("upper-case-host", "spiffe://TD.example/a"),
        ("host-not-ascii", "spiffe://td.ex\u{e4}mple/a"),
        ("percent-host", "spiffe://t%64.example/a"),
        ("percent-dot-host", "spiffe://td%2eexample/a"),
        ("space-host", "spiffe://td .example/a"),
        ("ipv6", "spiffe://[::1]/a"),
        ("ipv6-of-ipv4", "spiffe://[::ffff:127.0.0.1]/a"),
        ("star-host", "spiffe://*.example/a"),
        ("upper-case-scheme", "SPIFFE://td.example/a"),
        ("mixed-case-scheme", "Spiffe://td.example/a"),
        ("https", "https://td.example/a"),
        ("scheme-with-more", "spiffe+x://td.example/a"),
        ("scheme-with-s", "spiffes://td.example/a"),
        ("one-slash", "spiffe:/td.example/a"),
        ("no-slash", "spiffe:td.example/a"),
        ("three-slashes", "spiffe:///td.example/a"),
        ("no-scheme", "//td.example/a"),
        ("path-alone", "/td.example/a"),
        ("urn", "urn:spiffe:td.example:a"),
    ]
    .into_iter()
    .map(|(name, text)| (name, text.to_owned()))
    .collect();
    all.push(("trust-domain-of-256-bytes", format!("spiffe://{}/a", "t".repeat(256))));
    all.push(("of-2049-bytes", format!("spiffe://td.example/{}", "a".repeat(2049 - 20))));
    all
}

/// Alternative names around the ID, with what is right about them or the reason that they are refused for.
fn around() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    let names = |names: &[Vec<u8>]| alternative_names(names);
    let email = |text: &str| der::tlv(0x81, text.as_bytes());
    let address = der::tlv(0x87, &[127, 0, 0, 1]);
    let critical = extension(&[0x55, 0x1d, 17], true, &der::seq(&[uri(ID)]));
    let raw = |bytes: &[u8]| names(&[der::tlv(0x86, bytes)]);
    vec![
        ("dns-beside", names(&[dns("a.example"), uri(ID)]), None),
        ("dns-behind", names(&[uri(ID), dns("a.example"), dns("*.b.example")]), None),
        ("email-and-address-beside", names(&[email("a@a.example"), uri(ID), address]), None),
        ("critical", critical, None),
        ("none", vec![], Some("san_count")),
        ("dns-alone", names(&[dns("td.example")]), Some("san_count")),
        ("two-ids", names(&[uri(ID), uri("spiffe://td.example/agent/b")]), Some("san_count")),
        ("the-same-id-twice", names(&[uri(ID), uri(ID)]), Some("san_count")),
        ("https-beside", names(&[uri(ID), uri("https://td.example/")]), Some("san_count")),
        ("https-before", names(&[uri("https://td.example/"), uri(ID)]), Some("san_count")),
        ("trust-domain-beside", names(&[uri(ID), uri("spiffe://td.example")]), Some("san_count")),
        ("empty-uri-beside", names(&[uri(ID), uri("")]), Some("san_count")),
        ("bytes-beside", names(&[uri(ID), der::tlv(0x86, b"\xff")]), Some("san_count")),
        ("bytes", raw(b"spiffe://td.example/\xff"), Some("id_invalid")),
        ("latin-1", raw(b"spiffe://td.example/\xe4"), Some("id_invalid")),
        ("id-as-dns", names(&[dns(ID)]), Some("san_count")),
        ("id-as-email", names(&[email(ID)]), Some("san_count")),
    ]
}

pub(super) fn add(suite: &mut Suite) {
    let with_id = |draft: Draft, id: &str| {
        Draft { id: id.to_owned(), ..draft }.leaf(|s| s.names = alternative_names(&[uri(id)]))
    };
    for (shape, draft) in shapes(&suite.keys) {
        for (name, trust_domain, path) in good() {
            let id = format!("spiffe://{trust_domain}{path}");
            let draft = Draft { trust_domain, ..with_id(draft.clone(), &id) };
            suite.accept(format!("identifier/{name}/{shape}"), &draft);
        }
    }
    for (shape, draft) in plain_shapes(&suite.keys) {
        for (name, id) in bad() {
            suite.refuse(format!("identifier/{name}/{shape}"), &with_id(draft.clone(), &id), "id_invalid");
        }
        for (name, names, reason) in around() {
            let id = format!("names/{name}/{shape}");
            let draft = draft.clone().leaf(|s| s.names = names);
            match reason {
                None => suite.accept(id, &draft),
                Some(reason) => suite.refuse(id, &draft, reason),
            }
        }
        // A path is compared with its case: this is another identity, and a good one.
        let other_case = with_id(draft.clone(), "spiffe://td.example/Agent/a");
        suite.accept(format!("names/same-but-for-case/{shape}"), &other_case);
        for (name, id) in [
            ("unknown-trust-domain", "spiffe://unknown.example/a"),
            ("subdomain", "spiffe://a.td.example/a"),
            ("parent-domain", "spiffe://example/a"),
            ("trailing-dot", "spiffe://td.example./a"),
        ] {
            let draft = with_id(draft.clone(), id);
            suite.refuse(format!("authority/{name}/{shape}"), &draft, "id_not_authoritative");
        }
    }
}
