//! The deadline that a caller sets for its call (`grpc-timeout` of the gRPC protocol over HTTP/2).

use std::time::Duration;

use axum::http::HeaderMap;

/// The most digits that a value has.
const DIGITS_MAX: usize = 8;

/// A `grpc-timeout` that is none, or one of several.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// How long the caller waits, if it says so: at most eight digits and a unit. Zero, which clients send whose time has run
/// out already, is a time like any other.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let mut values = headers.get_all("grpc-timeout").into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Malformed);
    }
    parse(value.as_bytes()).map(Some).ok_or(Malformed)
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count.saturating_mul(3_600))),
        b'M' => Some(Duration::from_secs(count.saturating_mul(60))),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_protocol_allows_is_read_and_nothing_else() {
        for (text, time) in [
            ("1H", Duration::from_secs(3_600)),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("00000004m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(time), "{text}");
        }
        for text in
            ["", "S", "1", "-1S", "+1S", "1s", "1 S", " 1S", "1.5S", "999999999S", "1SS", "0x1S", "1e3S"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers), Ok(None));
        headers.append("grpc-timeout", "1S".parse().unwrap());
        assert_eq!(of(&headers), Ok(Some(Duration::from_secs(1))));
        headers.append("grpc-timeout", "1S".parse().unwrap());
        assert_eq!(of(&headers), Err(Malformed));
    }
}
