//! Names and ids that callers write.

use std::fmt::Display;
use std::str::FromStr;

use brevet_core::digest::{PolicyDigest, Thumbprint};
use brevet_core::id::{LeaseId, TaskId};
use brevet_core::scope::ResourcePattern;
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};

/// A SPIFFE ID, or another name with one spelling.
pub fn spiffe_id(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.as_str(), text);
        assert_eq!(id.to_string(), text);
        assert_eq!(format!("spiffe://{}{}", id.trust_domain_name(), id.path()), text);
        assert_eq!(SpiffeId::new(&id.trust_domain(), id.path()), Ok(id.clone()));
        is_of_the_grammar(text);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<SpiffeId>(&json).unwrap(), id);
    }
    is_its_own_text::<TrustDomain>(text);
    is_its_own_text::<LeaseId>(text);
    is_its_own_text::<Thumbprint>(text);
    is_its_own_text::<PolicyDigest>(text);
    is_its_own_text::<ResourcePattern>(text);
    if let Ok(task) = TaskId::from_name(text) {
        assert_eq!(task.name(), text);
    }
}

fn is_its_own_text<T: FromStr + Display>(text: &str) {
    if let Ok(parsed) = text.parse::<T>() {
        assert_eq!(parsed.to_string(), text, "it has another spelling");
    }
}

/// SPIFFE-ID §2.1 to §2.3, read by hand.
fn is_of_the_grammar(text: &str) {
    let (trust_domain, segments) = {
        let mut parts = text.strip_prefix("spiffe://").expect("the scheme").split('/');
        (parts.next().unwrap(), parts)
    };
    let lower = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() || b".-_".contains(&byte);
    let any = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    assert!(text.len() <= 2048 && (1..=255).contains(&trust_domain.len()));
    assert!(trust_domain.bytes().all(lower));
    for segment in segments {
        assert!(!["", ".", ".."].contains(&segment) && segment.bytes().all(any));
    }
}
