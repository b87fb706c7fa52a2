//! Strict JSON (RFC 8259): one meaning for each text.
//!
//! Two readers that disagree on a repeated member disagree on what was signed. So a member that occurs twice, at
//! any depth, makes the whole text invalid, and so do deep nesting, trailing bytes and numbers out of range.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// The deepest nesting of arrays and objects.
pub const NESTING_MAX: usize = 16;

/// A text that is not strict JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a strict json text")]
pub struct InvalidJson;

/// Reads one JSON text. The caller has bounded its length.
///
/// # Errors
/// [`InvalidJson`] if the text is not JSON, has a member twice, is nested deeper than [`NESTING_MAX`], or is
/// followed by anything but white space.
pub fn parse(text: &[u8]) -> Result<Value, InvalidJson> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value =
        Strict { levels_left: NESTING_MAX }.deserialize(&mut deserializer).map_err(|_| InvalidJson)?;
    deserializer.end().map_err(|_| InvalidJson)?;
    Ok(value)
}

/// Reads one JSON object, as [`parse`] does.
///
/// # Errors
/// [`InvalidJson`] as for [`parse`], and if the text is no object.
pub fn parse_object(text: &[u8]) -> Result<Map<String, Value>, InvalidJson> {
    match parse(text)? {
        Value::Object(members) => Ok(members),
        _ => Err(InvalidJson),
    }
}

#[derive(Clone, Copy)]
struct Strict {
    levels_left: usize,
}

impl Strict {
    fn one_level_down<E: Error>(self) -> Result<Self, E> {
        let levels_left = self.levels_left.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))?;
        Ok(Self { levels_left })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a json value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let inner = self.one_level_down()?;
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.one_level_down()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                return Err(Error::custom("a member occurs twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_two_meanings_or_none_is_refused() {
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":[{"b":{"c":1,"c":2}}]}"#,
            r#"{"a":1}x"#,
            r#"{"a":1}{}"#,
            "\u{feff}{}",
            r#"{"a":1e400}"#,
            r#"{"a":NaN}"#,
            r#"{"a":01}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1,}"#,
            "{'a':1}",
            "{\"a\":\"\n\"}",
            "",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(InvalidJson), "{bad}");
        }
        assert_eq!(parse(b"{\"a\":\"\xff\"}"), Err(InvalidJson));
        assert_eq!(parse_object(b"[]"), Err(InvalidJson));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(NESTING_MAX).as_bytes()).is_ok());
        assert!(parse(nested(NESTING_MAX + 1).as_bytes()).is_err());
        assert!(parse(nested(10_000).as_bytes()).is_err());
    }

    #[test]
    fn what_is_json_is_read_as_it_is() {
        let text = r#" {"a":[null,true,-1,18446744073709551615,0.5,"\u00e4\n"],"b":{}} "#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }
}
