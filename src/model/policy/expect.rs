//! What an answer must look like: the rules of `expect` after validation, over status, fields, body and JSON.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// What an HTTP answer must look like. Every rule must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expect {
    /// Which status.
    pub status: StatusRule,
    /// What fields it must have.
    pub headers: Vec<HeaderRule>,
    /// What the body must hold.
    pub body: Option<BodyRule>,
    /// What the body must say as JSON.
    pub json: Vec<JsonRule>,
}

impl Default for Expect {
    fn default() -> Expect {
        Expect { status: StatusRule::In(vec![(200, 299)]), headers: Vec::new(), body: None, json: Vec::new() }
    }
}

/// Which status an answer must have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StatusRule {
    /// The other rules decide alone.
    Any,
    /// Inclusive ranges of status codes, each 100 to 599; never empty.
    In(Vec<(u16, u16)>),
}

impl StatusRule {
    /// Whether `status` is as it must be.
    pub fn takes(&self, status: u16) -> bool {
        match self {
            StatusRule::Any => true,
            StatusRule::In(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&status)),
        }
    }
}

/// As people write it: `200-299, 404`, or `any`.
impl fmt::Display for StatusRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = match self {
            StatusRule::Any => return f.write_str("any"),
            StatusRule::In(ranges) => ranges,
        };
        for (i, (from, to)) in ranges.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            match from == to {
                true => write!(f, "{separator}{from}")?,
                false => write!(f, "{separator}{from}-{to}")?,
            }
        }
        Ok(())
    }
}

/// A rule over one field of an answer. A field that comes several times holds if one of its values does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderRule {
    /// The field's name; case does not count.
    pub name: Arc<str>,
    /// What it must be.
    pub value: HeaderMatch,
}

/// What a field must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HeaderMatch {
    /// This value, byte for byte.
    Equals(Arc<str>),
    /// A value that the pattern finds something in.
    Matches(Pattern),
    /// There.
    Present,
}

/// A rule over the first 64 KiB of a body.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BodyRule {
    /// Holds this text.
    Contains(Arc<str>),
    /// Is this text, byte for byte.
    Equals(Arc<str>),
    /// The pattern finds something in it.
    Matches(Pattern),
}

/// A rule over what a JSONPath (RFC 9535) selects from a body.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JsonRule {
    /// The path.
    pub path: JsonPath,
    /// What every node that it selects must be.
    pub value: JsonMatch,
    /// Whether it holds when the path selects nothing.
    pub missing_passes: bool,
}

/// What a selected node must be. Types count: `true` is not `"true"`; numbers are compared by value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JsonMatch {
    /// This value.
    Equals(serde_json::Value),
    /// Not this value.
    NotEquals(serde_json::Value),
    /// One of these.
    In(Vec<serde_json::Value>),
    /// There (`true`), or not there (`false`); `missing` does not apply.
    Exists(bool),
}

/// A compiled regular expression; linear in what it searches.
#[derive(Clone)]
pub struct Pattern(regex::bytes::Regex);

/// The most memory that a compiled pattern may take, in bytes.
const PATTERN_BYTES_MAX: usize = 256 << 10;

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// It is no regular expression, or one too large.
    pub fn try_new(text: &str) -> Result<Pattern, regex::Error> {
        let mut builder = regex::bytes::RegexBuilder::new(text);
        builder.size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).nest_limit(64).build().map(Pattern)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it finds something in `bytes`.
    pub fn is_match(&self, bytes: &[u8]) -> bool {
        self.0.is_match(bytes)
    }

    /// Whether it finds something within the first `length` of `bytes`, of which it sees one more: `$` and `\b` know that
    /// the text goes on there.
    pub fn is_match_within(&self, bytes: &[u8], length: usize) -> bool {
        let seen = &bytes[..bytes.len().min(length + 1)];
        self.0.shortest_match(seen).is_some_and(|end| end <= length)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// How many values, scalars and containers alike, a document may hold whose JSON is judged.
pub const JSON_VALUES_MAX: usize = 10_000;
/// How deep it may be nested.
pub const JSON_DEPTH_MAX: usize = 64;

/// A parsed JSONPath (RFC 9535).
#[derive(Clone)]
pub struct JsonPath {
    text: Arc<str>,
    path: Arc<serde_json_path::JsonPath>,
}

impl JsonPath {
    /// Parses `text`.
    ///
    /// # Errors
    /// It is no JSONPath; the error says where.
    pub fn try_new(text: &str) -> Result<JsonPath, serde_json_path::ParseError> {
        Ok(JsonPath { text: text.into(), path: Arc::new(serde_json_path::JsonPath::parse(text)?) })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The nodes that it selects, in document order as the crate gives them.
    pub fn select<'v>(&self, value: &'v serde_json::Value) -> Vec<&'v serde_json::Value> {
        self.path.query(value).all()
    }
}

impl fmt::Debug for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonPath({})", self.text)
    }
}

impl PartialEq for JsonPath {
    fn eq(&self, other: &JsonPath) -> bool {
        self.text == other.text
    }
}

impl Eq for JsonPath {}

impl Hash for JsonPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_held_against_inclusive_ranges() {
        let expected = StatusRule::In(vec![(200, 299), (404, 404)]);
        for (status, passes) in [(199, false), (200, true), (299, true), (300, false), (404, true), (405, false)] {
            assert_eq!(expected.takes(status), passes, "{status}");
            assert!(StatusRule::Any.takes(status));
        }
        assert_eq!(expected.to_string(), "200-299, 404");
        assert_eq!(StatusRule::In(vec![(204, 204)]).to_string(), "204");
    }
}
