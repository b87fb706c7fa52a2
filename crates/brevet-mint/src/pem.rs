//! PEM (RFC 7468), strict: one block, nothing around it, and no copy of its content left behind.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brevet_core::sabotage;
use zeroize::Zeroizing;

const LINE: usize = 64;

/// Writes one block.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    // The whole is allocated at once: a buffer that grew would leave copies of the key behind.
    let framing = 2 * (label.len() + "-----BEGIN -----\n".len());
    let mut text = Zeroizing::new(String::with_capacity(framing + body.len() + body.len() / LINE + 1));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for (position, character) in body.chars().enumerate() {
        if position > 0 && position % LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Reads a text that is one block with this label. None if it is anything else.
pub(crate) fn decode(label: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.strip_prefix("-----BEGIN ")?.strip_prefix(label)?.strip_prefix("-----\n")?;
    let body = text
        .strip_suffix('\n')
        .unwrap_or(text)
        .strip_suffix("-----")?
        .strip_suffix(label)?
        .strip_suffix("\n-----END ")?;
    let mut characters = Zeroizing::new(Vec::with_capacity(body.len()));
    characters.extend(body.bytes().filter(|&byte| byte != b'\n'));
    let mut der = Zeroizing::new(vec![0; characters.len()]);
    let length = STANDARD.decode_slice(&*characters, &mut der).ok()?;
    der.truncate(length);
    if sabotage::on("keys_leave_copies") {
        der.to_vec().leak();
    }
    Some(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_as_it_was_written() {
        for length in [0, 1, 47, 48, 49, 96, 138] {
            let der: Vec<u8> = (0..length).collect();
            let text = encode("PRIVATE KEY", &der);
            assert!(text.lines().all(|line| line.len() <= LINE));
            assert_eq!(decode("PRIVATE KEY", &text).map(|der| der.to_vec()), Some(der), "{length}");
        }
    }

    #[test]
    fn what_is_not_exactly_one_block_is_refused() {
        let good = encode("PRIVATE KEY", b"content").to_string();
        assert!(decode("PRIVATE KEY", good.trim_end()).is_some());
        for bad in [
            String::new(),
            format!(" {good}"),
            format!("{good}\n"),
            format!("{good}{good}"),
            good.replace("PRIVATE", "EC PRIVATE"),
            good.replacen('=', "", 1),
            good.replacen('Y', "*", 3),
            good.replace("END", "BEGIN"),
        ] {
            assert!(decode("PRIVATE KEY", &bad).is_none(), "{bad}");
        }
    }
}
