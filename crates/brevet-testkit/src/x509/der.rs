//! Distinguished encoding by hand, so that wrong encodings can be made too.

/// SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// SET.
pub const SET: u8 = 0x31;

/// An element of at most 65,535 bytes.
#[must_use]
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut encoded = vec![tag];
    match length {
        0..0x80 => encoded.push(u8::try_from(length).unwrap()),
        0x80..0x100 => encoded.extend([0x81, u8::try_from(length).unwrap()]),
        _ => {
            encoded.push(0x82);
            encoded.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    encoded.extend(content);
    encoded
}

/// A sequence of elements.
#[must_use]
pub fn seq(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

/// An object identifier from its encoded arcs.
#[must_use]
pub fn oid(encoded: &[u8]) -> Vec<u8> {
    tlv(6, encoded)
}

/// A bit string without unused bits.
#[must_use]
pub fn bits(content: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], content].concat())
}

/// The `SubjectPublicKeyInfo` of an RSA key (RFC 3279 §2.3.1) from the contents of its two integers.
#[must_use]
pub fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let rsa = seq(&[oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]), tlv(5, &[])]);
    seq(&[rsa, bits(&seq(&[tlv(2, modulus), tlv(2, exponent)]))])
}

/// The `SubjectPublicKeyInfo` of an elliptic key (RFC 5480 §2) from what stands for its curve and its point.
#[must_use]
pub fn ec_spki(curve: Vec<u8>, point: &[u8]) -> Vec<u8> {
    let algorithm = seq(&[oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), curve]);
    seq(&[algorithm, bits(point)])
}
