use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<SpiffeId, InvalidSpiffeId> {
    text.parse()
}

/// That none of the texts is a SPIFFE ID, for this reason.
fn refused(reason: InvalidSpiffeId, texts: &[&str]) {
    for text in texts {
        assert_eq!(parse(text), Err(reason), "{text:?}");
    }
}

fn accepted(texts: &[&str]) {
    for text in texts {
        assert_eq!(parse(text).unwrap().as_str(), *text);
    }
}

/// A text of so many bytes, with the path filled up.
fn of_length(bytes: usize) -> String {
    format!("spiffe://td/{}", "a".repeat(bytes - 12))
}

#[test]
fn id_01_the_scheme_is_spiffe() {
    accepted(&["spiffe://td/a"]);
    let texts = [
        "",
        "https://td/a",
        "spiffes://td/a",
        "spiffe:/td/a",
        "spiffe:td/a",
        "//td/a",
        "td/a",
        " spiffe://td",
    ];
    refused(InvalidSpiffeId::Scheme, &texts);
}

#[test]
fn id_02_the_trust_domain_has_a_name() {
    refused(InvalidSpiffeId::TrustDomain, &["spiffe://", "spiffe:///a", "spiffe:////a"]);
    assert_eq!("".parse::<TrustDomain>(), Err(InvalidSpiffeId::TrustDomain));
}

#[test]
fn id_03_there_is_no_query() {
    refused(InvalidSpiffeId::TrustDomain, &["spiffe://td?", "spiffe://td?q", "spiffe://td?/a"]);
    refused(InvalidSpiffeId::Path, &["spiffe://td/a?", "spiffe://td/a?q=1", "spiffe://td/?q"]);
}

#[test]
fn id_04_there_is_no_fragment() {
    refused(InvalidSpiffeId::TrustDomain, &["spiffe://td#", "spiffe://td#f"]);
    refused(InvalidSpiffeId::Path, &["spiffe://td/a#", "spiffe://td/a#f"]);
}

#[test]
fn id_05_there_is_no_user() {
    let texts = ["spiffe://u@td/a", "spiffe://u:p@td/a", "spiffe://@td/a", "spiffe://:@td/a"];
    refused(InvalidSpiffeId::TrustDomain, &texts);
}

#[test]
fn id_06_there_is_no_port_and_no_colon_for_one() {
    refused(
        InvalidSpiffeId::TrustDomain,
        &["spiffe://td:80/a", "spiffe://td:/a", "spiffe://td:", "spiffe://:80/a"],
    );
}

#[test]
fn id_07_upper_case_is_refused_in_scheme_and_trust_domain() {
    refused(InvalidSpiffeId::TrustDomain, &["spiffe://Td/a", "spiffe://td.EXAMPLE/a"]);
    refused(InvalidSpiffeId::Scheme, &["SPIFFE://td/a", "Spiffe://td/a"]);
}

#[test]
fn id_08_a_trust_domain_has_lower_case_letters_digits_dots_dashes_and_underscores() {
    for byte in 0..=u8::MAX {
        let allowed = byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let name = format!("a{}b", char::from(byte));
        assert_eq!(name.parse::<TrustDomain>().is_ok(), allowed, "{byte:#x}");
    }
}

#[test]
fn id_09_a_trust_domain_has_no_percent_encoding() {
    refused(InvalidSpiffeId::TrustDomain, &["spiffe://t%64/a", "spiffe://%74d/a", "spiffe://td%2eexample/a"]);
}

#[test]
fn id_10_what_looks_like_an_address_is_a_name_like_any_other_and_ipv6_is_none() {
    accepted(&[
        "spiffe://127.0.0.1/x",
        "spiffe://256.1.1.1/x",
        "spiffe://example.org/x",
        "spiffe://a_b-c.d/x",
    ]);
    accepted(&["spiffe://0/x", "spiffe://localhost/x", "spiffe://xn--nxasmq6b/x"]);
    refused(
        InvalidSpiffeId::TrustDomain,
        &["spiffe://[::1]/a", "spiffe://[::ffff:127.0.0.1]/a", "spiffe://::1/a"],
    );
}

#[test]
fn id_11_a_path_has_no_percent_encoding() {
    refused(
        InvalidSpiffeId::Path,
        &["spiffe://td/%61", "spiffe://td/%2e", "spiffe://td/a%2fb", "spiffe://td/%"],
    );
}

#[test]
fn id_12_no_segment_is_empty_or_of_one_or_two_dots() {
    refused(
        InvalidSpiffeId::Path,
        &["spiffe://td//a", "spiffe://td/a//b", "spiffe://td/./a", "spiffe://td/a/."],
    );
    refused(InvalidSpiffeId::Path, &["spiffe://td/../a", "spiffe://td/a/..", "spiffe://td/a/../b"]);
    accepted(&["spiffe://td/...", "spiffe://td/..a/a../.a/a."]);
}

#[test]
fn id_13_a_path_ends_with_a_segment() {
    refused(InvalidSpiffeId::Path, &["spiffe://td/", "spiffe://td/a/", "spiffe://td/a//"]);
}

#[test]
fn id_14_a_segment_has_letters_digits_dots_dashes_and_underscores() {
    for byte in (0..=u8::MAX).filter(|byte| *byte != b'/') {
        let allowed = byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let text = format!("spiffe://td/a{}b", char::from(byte));
        assert_eq!(parse(&text).is_ok(), allowed, "{byte:#x}");
    }
}

#[test]
fn id_15_an_id_has_2048_bytes_at_most() {
    assert!(parse(&of_length(2048)).is_ok());
    assert_eq!(parse(&of_length(2049)), Err(InvalidSpiffeId::Length));
    assert_eq!(parse(&of_length(1 << 20)), Err(InvalidSpiffeId::Length));
}

#[test]
fn id_16_a_trust_domain_has_255_bytes_at_most() {
    assert!(parse(&format!("spiffe://{}/a", "t".repeat(255))).is_ok());
    assert_eq!(parse(&format!("spiffe://{}/a", "t".repeat(256))), Err(InvalidSpiffeId::TrustDomain));
}

#[test]
fn id_17_a_path_is_compared_with_its_case_and_the_rest_has_one_spelling() {
    assert_ne!(parse("spiffe://td/a").unwrap(), parse("spiffe://td/A").unwrap());
    assert_eq!(parse("spiffe://td/a").unwrap(), parse("spiffe://td/a").unwrap());
    for other in ["SPIFFE://td/a", "spiffe://TD/a"] {
        assert!(parse(other).is_err(), "{other}");
    }
}

#[test]
fn an_id_consists_of_a_trust_domain_and_a_path() {
    let id = parse("spiffe://td.example/a/b").unwrap();
    assert_eq!((id.trust_domain_name(), id.path()), ("td.example", "/a/b"));
    let id = parse("spiffe://td.example").unwrap();
    assert_eq!((id.trust_domain_name(), id.path()), ("td.example", ""));
}

proptest! {
    #[test]
    fn an_accepted_id_is_its_own_text(text in "spiffe://[a-zA-Z0-9.:@/_%-]{0,40}") {
        if let Ok(id) = parse(&text) {
            prop_assert_eq!(id.as_str(), text.as_str());
            prop_assert_eq!(SpiffeId::new(&id.trust_domain(), id.path()), Ok(id));
        }
    }
}
