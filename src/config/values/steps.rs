//! The values of a check in steps: hexadecimal bytes, patterns for lines, and what is sent, which may be a secret
//! outside the file. A mistake inside a value is shown where it is in the string.

use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::Text;
use super::http::SendText;
use super::problem::{self, Problem};
use super::secret::{FilePath, VariableName, read_source};
use crate::config::read::{Field, Node, Reader, Value};
use crate::config::table::table;
use crate::model::policy::{LinePattern, Payload};

/// The longest text or bytes of a step.
const BYTES_MAX: usize = 64 << 10;
/// How bytes are written.
const HEX_WHAT: &str = "bytes as pairs of hexadecimal digits, such as \"00 5a ff\"";
const PATTERN_WHAT: &str = "a regular expression, such as \"^\\\\+PONG\"";

/// Bytes as hexadecimal digits, with or without spaces between the bytes; at least one, at most 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HexBytes(pub Arc<[u8]>);

impl Value for HexBytes {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<HexBytes> {
        let text = reader.string(node, HEX_WHAT)?;
        match hex(&text) {
            Ok(bytes) => Some(HexBytes(bytes.into())),
            Err(problem) => {
                problem.report(node, reader, HEX_WHAT);
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "anyOf": [{ "pattern": r"^\s*([0-9A-Fa-f]{2}\s*)+$" }, { "pattern": r"\$\{" }] })
    }
}

fn hex(text: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut high: Option<(usize, u8)> = None;
    for (at, c) in text.char_indices() {
        let digit = c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (digit, high) {
            (Some(digit), None) => high = Some((at, digit)),
            (Some(digit), Some((_, high_digit))) => {
                bytes.push(high_digit << 4 | digit);
                high = None;
            }
            (None, None) if c.is_whitespace() => {}
            (None, Some((at, _))) if c.is_whitespace() => {
                return Err(Problem::inside("half a byte: a byte is two digits", at..at + 1));
            }
            (None, _) => {
                let message = format!("{:?} is not a hexadecimal digit", c.to_string());
                return Err(Problem::inside(message, at..at + c.len_utf8()));
            }
        }
    }
    match (high, bytes.len()) {
        (Some((at, _)), _) => Err(Problem::inside("half a byte: a byte is two digits", at..at + 1)),
        (None, 0) => Err(Problem::whole("no bytes")),
        (None, 1..=BYTES_MAX) => Ok(bytes),
        (None, _) => Err(Problem::whole("more than 64 KiB")),
    }
}

/// A regular expression for lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinePatternText(pub LinePattern);

impl Value for LinePatternText {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<LinePatternText> {
        let text = reader.string(node, PATTERN_WHAT)?;
        match reader.store.line_patterns.get_or_make(&text, |_| 1, || pattern(&text), Problem::whole) {
            Ok(pattern) => Some(LinePatternText(pattern)),
            Err(problem) => {
                problem.report(node, reader, PATTERN_WHAT);
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

fn pattern(text: &str) -> Result<LinePattern, Problem> {
    let is_found = |pattern: &LinePattern, text: &[u8]| pattern.end_of_match(text, 0, true).is_some();
    let useless = "the pattern matches every text, so the step would wait for nothing";
    problem::pattern(text, LinePattern::try_new, is_found, useless)
}

/// `send`: a text, or a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentText {
    /// What is sent.
    pub payload: Payload,
    /// The text, if it is written in the file.
    pub plain: Option<Arc<str>>,
}

table! {
    /// A text to send that is kept outside the file, in whole or in part: exactly one of `file` and `env`.
    struct SentSecret {
        /// A file that holds the secret; one trailing line end is cut. Read again on reload. A relative path is taken from the working directory.
        file ["file"]: FilePath;
        /// The environment variable that holds the secret.
        env ["env"]: VariableName;
        /// What is sent before it, such as "AUTH ".
        prefix ["prefix"]: Around;
        /// What is sent after it, such as "\r\n".
        suffix ["suffix"]: Around;
    }
    later []
}

/// A text around a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around(String);

impl Text for Around {
    fn what() -> String {
        "a text of at most 4 KiB".to_owned()
    }

    fn parse(text: &str) -> Result<Around, String> {
        if text.len() > 4 << 10 { Err(" is longer than 4 KiB".to_owned()) } else { Ok(Around(text.to_owned())) }
    }
}

impl Value for SentText {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<SentText> {
        if !matches!(node.get_ref(), DeValue::Table(_)) {
            let text = SendText::read(node, reader)?.0;
            return Some(SentText { payload: Payload::plain(text.as_bytes()), plain: Some(text) });
        }
        let raw = SentSecret::read(node, reader)?;
        let text = read_source(&raw.file, &raw.env, raw.others, node, reader)?;
        if matches!(raw.prefix, Field::Bad) || matches!(raw.suffix, Field::Bad) {
            return None;
        }
        let around = |field: &Field<Around>| field.value().map_or(String::new(), |around| around.0.clone());
        let secret = text.within(&around(&raw.prefix), &around(&raw.suffix));
        Some(SentText { payload: Payload::secret(&secret), plain: None })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let secret = SentSecret::schema(generator);
        json_schema!({ "anyOf": [{ "type": "string", "minLength": 1 }, secret] })
    }
}

/// `send_hex`: bytes, or a secret that holds them as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentBytes(pub Payload);

table! {
    /// Bytes to send that are kept outside the file, in whole or in part, as hexadecimal digits: exactly one of `file` and `env`.
    struct SentSecretBytes {
        /// A file that holds the digits. Read again on reload. A relative path is taken from the working directory.
        file ["file"]: FilePath;
        /// The environment variable that holds the digits.
        env ["env"]: VariableName;
        /// Bytes that are sent before them, as digits.
        prefix ["prefix"]: HexBytes;
        /// Bytes that are sent after them, as digits.
        suffix ["suffix"]: HexBytes;
    }
    later []
}

impl Value for SentBytes {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<SentBytes> {
        if !matches!(node.get_ref(), DeValue::Table(_)) {
            return HexBytes::read(node, reader).map(|bytes| SentBytes(Payload::plain(&bytes.0)));
        }
        let raw = SentSecretBytes::read(node, reader)?;
        let digits = read_source(&raw.file, &raw.env, raw.others, node, reader)?;
        if matches!(raw.prefix, Field::Bad) || matches!(raw.suffix, Field::Bad) {
            return None;
        }
        // The digits are secret, so the place of a wrong one is not shown.
        let Ok(secret) = hex(&digits.text) else {
            let message = "the secret does not hold pairs of hexadecimal digits";
            reader.mistake(node.span(), message).expected(HEX_WHAT).done();
            return None;
        };
        let around = |field: &Field<HexBytes>| field.value().map_or(Arc::from([]), |bytes| bytes.0.clone());
        let bytes = [&*around(&raw.prefix), &secret, &*around(&raw.suffix)].concat();
        Some(SentBytes(Payload::secret_octets(&bytes, &secret, &digits.within("", ""))))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let (bytes, secret) = (HexBytes::schema(generator), SentSecretBytes::schema(generator));
        json_schema!({ "anyOf": [bytes, secret] })
    }
}

/// A text of `fail_on`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailText(pub Arc<str>);

impl Text for FailText {
    fn what() -> String {
        "a text of 1 byte to 1 KiB".to_owned()
    }

    fn parse(text: &str) -> Result<FailText, String> {
        match text.len() {
            0 => Err(" is empty, which every answer contains".to_owned()),
            1..=1_024 => Ok(FailText(Arc::from(text))),
            _ => Err(" is longer than 1 KiB".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_pairs_of_digits_and_a_mistake_has_its_place() {
        for (text, bytes) in
            [("00 5a FF", &[0, 0x5a, 0xff][..]), ("005aff", &[0, 0x5a, 0xff]), (" 53\n", b"S"), ("4e\t00", b"N\0")]
        {
            assert_eq!(hex(text).ok().as_deref(), Some(bytes), "{text:?}");
        }
        for (text, at) in [
            ("", None),
            (" ", None),
            ("5", Some(0..1)),
            ("53 4", Some(3..4)),
            ("5 3", Some(0..1)),
            ("53 zz", Some(3..4)),
            ("0x53", Some(1..2)),
            ("53ü", Some(2..4)),
            ("53:4e", Some(2..3)),
        ] {
            assert_eq!(hex(text).err().map(|problem| problem.at), Some(at), "{text:?}");
        }
        assert!(hex(&"00".repeat(BYTES_MAX)).is_ok() && hex(&"00".repeat(BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_pattern_that_waits_for_nothing_is_refused() {
        for bad in ["", ".*", "^", "$", "a|", "(", "x{9999999}"] {
            assert!(pattern(bad).is_err(), "{bad:?}");
        }
        for good in ["^\\+PONG", "^220[ -]", "ready$", "(?i)ok"] {
            assert!(pattern(good).is_ok(), "{good:?}");
        }
    }
}
