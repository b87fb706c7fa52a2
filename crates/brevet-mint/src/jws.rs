//! The compact form in which tokens are signed (RFC 7515 §7.1).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::name::KeyId;
use zeroize::Zeroizing;

/// A dot and the 64 bytes of an ES256 signature in base64url.
const SIGNATURE_TEXT: usize = 1 + 86;

/// The first part of every token of one key and type, with the dot behind it. A key id needs no escaping.
pub(crate) fn header(kid: &KeyId, typ: &str) -> String {
    let mut text = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"{typ}"}}"#));
    text.push('.');
    text
}

/// What is signed, with room for the signature, so that no copy is left behind by a buffer that grew. Without its signature
/// it opens nothing, so only the whole is destroyed.
pub(crate) fn signing_input(header: &str, claims: &[u8]) -> Zeroizing<String> {
    let capacity = header.len() + (claims.len() * 4).div_ceil(3) + SIGNATURE_TEXT;
    let mut input = Zeroizing::new(String::with_capacity(capacity));
    input.push_str(header);
    URL_SAFE_NO_PAD.encode_string(claims, &mut input);
    input
}
