//! Parses a complete body as one JSON document (RFC 8259), with a message if it is not one. Depth and number of values are
//! limited, so that rules are checked quickly.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::model::policy::{JSON_DEPTH_MAX, JSON_VALUES_MAX};
use crate::model::quote::{Excerpt, Quoted};

/// Why a body is not JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::probe) enum NotJson {
    /// The body is empty.
    Empty,
    /// It begins with a byte order mark.
    ByteOrderMark,
    /// HTML or XML.
    Markup,
    /// gzip, zlib or zstd, which were not asked for.
    Compressed,
    /// Nested deeper than the limit.
    TooDeep,
    /// More values than the limit.
    TooMany,
    /// Another error, with its position: `expected value at line 1 column 5`.
    Syntax(Box<str>),
}

impl NotJson {
    /// Masks our credentials, in case the peer has sent them back.
    pub(in crate::probe) fn without<'s>(self, secrets: impl Iterator<Item = &'s str>) -> NotJson {
        let NotJson::Syntax(words) = self else { return self };
        let excerpt = Excerpt::of(words.as_bytes()).without(secrets);
        NotJson::Syntax(String::from_utf8_lossy(excerpt.bytes()).into())
    }
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotJson::Empty => f.write_str("it is empty"),
            NotJson::ByteOrderMark => f.write_str("it begins with a byte order mark"),
            NotJson::Markup => f.write_str("it is HTML or XML"),
            NotJson::Compressed => f.write_str("it is compressed, which was not asked for"),
            NotJson::TooDeep => write!(f, "it is nested more than {JSON_DEPTH_MAX} levels deep"),
            NotJson::TooMany => write!(f, "it has more than {JSON_VALUES_MAX} values"),
            NotJson::Syntax(words) => f.write_str(words),
        }
    }
}

/// Reads a whole body.
pub(in crate::probe) fn parse(body: &[u8]) -> Result<Value, NotJson> {
    let bounds = Bounds { left: Cell::new(JSON_VALUES_MAX), broken: Cell::new(None) };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Strict { bounds: &bounds, depth: 0 }.deserialize(&mut reader);
    let whole = value.and_then(|value| reader.end().map(|()| value));
    whole.map_err(|error| bounds.broken.take().unwrap_or_else(|| why(body, &error)))
}

/// The number of values left, and which limit was reached.
struct Bounds {
    left: Cell<usize>,
    broken: Cell<Option<NotJson>>,
}

impl Bounds {
    fn break_with<E: Error>(&self, why: NotJson) -> E {
        let error = E::custom(&why);
        self.broken.set(Some(why));
        error
    }
}

fn why(body: &[u8], error: &serde_json::Error) -> NotJson {
    match body.trim_ascii_start() {
        [] => return NotJson::Empty,
        [0xef, 0xbb, 0xbf, ..] | [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return NotJson::ByteOrderMark,
        [b'<', ..] => return NotJson::Markup,
        [0x1f, 0x8b, ..] | [0x78, 0x01 | 0x9c | 0xda, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            return NotJson::Compressed;
        }
        [..] => {}
    }
    NotJson::Syntax(error.to_string().into())
}

/// A value in which no object has a key twice.
#[derive(Clone, Copy)]
struct Strict<'b> {
    bounds: &'b Bounds,
    /// The number of containers around it.
    depth: usize,
}

impl Strict<'_> {
    /// The seed for its items, if it is a container.
    fn inner<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > JSON_DEPTH_MAX {
            return Err(self.bounds.break_with(NotJson::TooDeep));
        }
        Ok(Strict { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.bounds.left.get();
        let left = left.checked_sub(1).ok_or_else(|| self.bounds.break_with(NotJson::TooMany))?;
        self.bounds.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key {}", Quoted(key.as_bytes()))));
            }
            let value = fields.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_not_json_has_its_message() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        let many = |n: usize| format!("[{}]", vec!["1"; n].join(","));
        for (body, words) in [
            (&b""[..], "it is empty"),
            (b" \r\n", "it is empty"),
            (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
            (b"<!DOCTYPE html><p>Welcome", "it is HTML or XML"),
            (b"\n<?xml version=\"1.0\"?>", "it is HTML or XML"),
            (b"\x1f\x8b\x08\0\0", "it is compressed, which was not asked for"),
            (b"OK", "expected value at line 1 column 1"),
            (b"{\"status\": NaN}", "expected value at line 1 column 12"),
            (b"{\"status\": Infinity}", "expected value at line 1 column 12"),
            (b"{\"status\":", "EOF while parsing a value at line 1 column 10"),
            (b"{\"status\":\"up\"} {}", "trailing characters at line 1 column 17"),
            (b"{'status':1}", "key must be a string at line 1 column 2"),
            (b"[1,]", "trailing comma at line 1 column 4"),
            (b"[1e999]", "number out of range at line 1 column 6"),
            (b"[01]", "invalid number at line 1 column 3"),
            (b"[\"\xff\"]", "invalid unicode code point at line 1 column 3"),
            (b"[\"\\ud800\"]", "unexpected end of hex escape at line 1 column 9"),
            (b"[\"\\udc00\"]", "lone leading surrogate in hex escape at line 1 column 8"),
            (b"[\"\n\"]", "control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0"),
            (b"{\"a\":1,\n\"a\":2}", "duplicate key \"a\" at line 2 column 3"),
            (b"[{\"a\\u001b\":1,\"a\\u001b\":2}]", "duplicate key \"a\\u{1b}\" at line 1 column 23"),
            (deep(65).as_bytes(), "it is nested more than 64 levels deep"),
            (deep(60_000).as_bytes(), "it is nested more than 64 levels deep"),
            (many(10_000).as_bytes(), "it has more than 10000 values"),
            (many(30_000).as_bytes(), "it has more than 10000 values"),
        ] {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]);
            assert_eq!(parse(body).map_err(|e| e.to_string()), Err(words.to_owned()), "{shown:?}");
        }
        assert!(parse(deep(64).as_bytes()).is_ok());
        assert!(parse(many(9_999).as_bytes()).is_ok(), "the list itself is one more");
    }

    #[test]
    fn json_is_read_as_the_crate_reads_it() {
        for text in [
            "null",
            "true",
            "0",
            "-0.0",
            "18446744073709551615",
            "123456789012345678901234567890",
            "\"\\ud83d\\ude00\"",
            " [1, -2, 3.5, \"x\", {\"a\": {}, \"b\": []}] \n",
            "{\"a\":{\"a\":{\"a\":null}}}",
        ] {
            assert_eq!(parse(text.as_bytes()).ok(), serde_json::from_str::<Value>(text).ok(), "{text}");
        }
    }
}
