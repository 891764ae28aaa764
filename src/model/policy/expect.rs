//! What an answer must look like: the validated rules of `expect`, over status, fields, body and JSON.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::Number;

/// What an HTTP answer must look like. Every rule must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expect {
    /// Which status.
    pub status: StatusRule,
    /// Which fields it must have.
    pub headers: Vec<HeaderRule>,
    /// What the body must contain; without rules it is not read.
    pub body: Vec<BodyRule>,
    /// What the body must contain as JSON.
    pub json: Vec<JsonRule>,
}

impl Default for Expect {
    fn default() -> Expect {
        Expect { status: StatusRule::In(vec![(200, 299)]), headers: Vec::new(), body: Vec::new(), json: Vec::new() }
    }
}

/// Which status an answer must have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StatusRule {
    /// Any status; the other rules decide.
    Any,
    /// Inclusive ranges of status codes, each 100 to 599; never empty.
    In(Vec<(u16, u16)>),
}

impl StatusRule {
    /// Whether `status` is allowed.
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

/// A rule over one field of an answer. If a field occurs several times, one matching value is enough, but no value may
/// be the one of [`HeaderMatch::NotEquals`].
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
    /// Present, and never with this value.
    NotEquals(Arc<str>),
    /// A value in which the pattern matches.
    Matches(Pattern),
    /// Present.
    Present,
    /// Absent.
    Absent,
}

/// A rule over the first 64 KiB of a body. Negated rules fail on a longer body, because the rest of it was not read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BodyRule {
    /// Contains this text.
    Contains(Arc<str>),
    /// Does not contain this text.
    NotContains(Arc<str>),
    /// Is this text, byte for byte.
    Equals(Arc<str>),
    /// The pattern matches in it.
    Matches(Pattern),
    /// The pattern does not match in it.
    NotMatches(Pattern),
}

/// A rule over what a JSONPath (RFC 9535) selects from a body.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JsonRule {
    /// The path.
    pub path: JsonPath,
    /// What every selected node must be.
    pub value: JsonMatch,
    /// Whether the rule passes when the path selects nothing.
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
    /// Present (`true`) or absent (`false`); `missing` does not apply.
    Exists(bool),
    /// A string in which the pattern matches.
    Matches(Pattern),
    /// A number within a range; a number in a string does not count.
    Within(NumberRange),
    /// A value of this type.
    Is(JsonType),
}

/// Inclusive bounds of a number; at least one is set, and `min` is at most `max`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NumberRange {
    min: Option<Number>,
    max: Option<Number>,
}

impl NumberRange {
    /// Rejects a range without bounds, and an empty range.
    pub fn try_new(min: Option<Number>, max: Option<Number>) -> Option<NumberRange> {
        match (&min, &max) {
            (None, None) => None,
            (Some(min), Some(max)) if compare_numbers(min, max).is_gt() => None,
            (Some(_), _) | (_, Some(_)) => Some(NumberRange { min, max }),
        }
    }

    /// Whether `number` is in the range, compared by value.
    pub fn contains(&self, number: &Number) -> bool {
        self.min.as_ref().is_none_or(|min| compare_numbers(number, min).is_ge())
            && self.max.as_ref().is_none_or(|max| compare_numbers(number, max).is_le())
    }
}

/// As people say it: `1 to 5`, `at least 1`, `at most 5`.
impl fmt::Display for NumberRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.min, &self.max) {
            (Some(min), Some(max)) => write!(f, "{min} to {max}"),
            (Some(min), None) => write!(f, "at least {min}"),
            (None, Some(max)) => write!(f, "at most {max}"),
            (None, None) => Ok(()),
        }
    }
}

/// The types of JSON (RFC 8259, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JsonType {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl JsonType {
    /// The type of `value`.
    pub fn of(value: &serde_json::Value) -> JsonType {
        match value {
            serde_json::Value::Null => JsonType::Null,
            serde_json::Value::Bool(_) => JsonType::Boolean,
            serde_json::Value::Number(_) => JsonType::Number,
            serde_json::Value::String(_) => JsonType::String,
            serde_json::Value::Array(_) => JsonType::Array,
            serde_json::Value::Object(_) => JsonType::Object,
        }
    }
}

/// As people say it: `null`, `a string`, `an object`.
impl fmt::Display for JsonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JsonType::Null => "null",
            JsonType::Boolean => "a boolean",
            JsonType::Number => "a number",
            JsonType::String => "a string",
            JsonType::Array => "an array",
            JsonType::Object => "an object",
        })
    }
}

/// Compares by value: `1` equals `1.0`, and an integer beyond 2^53 differs from the nearest float.
pub fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => compare_whole(a, float(b)),
        (None, Some(b)) => compare_whole(b, float(a)).reverse(),
        (None, None) => float(a).total_cmp(&float(b)),
    }
}

/// `float` has a fraction, or is outside the range of JSON integers.
fn compare_whole(whole: i128, float: f64) -> Ordering {
    match whole.cmp(&(float.floor() as i128)) {
        Ordering::Equal => Ordering::Less,
        order => order,
    }
}

fn float(number: &Number) -> f64 {
    number.as_f64().expect("without arbitrary precision every number is a float or fits into 64 bits")
}

/// The integer value of a number, if it is one.
fn whole(number: &Number) -> Option<i128> {
    if let Some(n) = number.as_i64() {
        return Some(n.into());
    }
    if let Some(n) = number.as_u64() {
        return Some(n.into());
    }
    // Beyond 2^64 only floats are left to compare with.
    let float = float(number);
    (float.fract() == 0.0 && float.abs() < 2_f64.powi(64)).then_some(float as i128)
}

/// A compiled regular expression; linear in the length of the text.
#[derive(Clone)]
pub struct Pattern(pub(super) regex::bytes::Regex);

/// The most memory that a compiled pattern may take, in bytes.
const PATTERN_BYTES_MAX: usize = 256 << 10;

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// `text` is not a regular expression, or is too large.
    pub fn try_new(text: &str) -> Result<Pattern, regex::Error> {
        Pattern::build(&mut regex::bytes::RegexBuilder::new(text))
    }

    /// Compiles within the limits of every pattern.
    pub(super) fn build(builder: &mut regex::bytes::RegexBuilder) -> Result<Pattern, regex::Error> {
        builder.size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).nest_limit(64).build().map(Pattern)
    }

    /// The text it was compiled from.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it matches in `bytes`.
    pub fn is_match(&self, bytes: &[u8]) -> bool {
        self.0.is_match(bytes)
    }

    /// Whether it matches within the first `length` of `bytes`. It sees one more byte, so that `$` and `\b` know that
    /// the text continues.
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

/// The most values, scalars and containers alike, in a JSON document that rules are tested on.
pub const JSON_VALUES_MAX: usize = 10_000;
/// The deepest nesting of such a document.
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
    /// `text` is not a JSONPath; the error says where.
    pub fn try_new(text: &str) -> Result<JsonPath, serde_json_path::ParseError> {
        Ok(JsonPath { text: text.into(), path: Arc::new(serde_json_path::JsonPath::parse(text)?) })
    }

    /// The text it was parsed from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The selected nodes, in document order.
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
    fn number(text: &str) -> Number {
        serde_json::from_str(text).expect("a number")
    }

    #[test]
    fn numbers_are_compared_by_value_whatever_their_representation() {
        let ascending = [
            "-1e300",
            "-18446744073709551616.0",
            "-9223372036854775808",
            "-1.5",
            "-1",
            "0",
            "0.1",
            "1",
            "1.5",
            "9007199254740993",
            "18446744073709551614",
            "18446744073709551615",
            "18446744073709551616.0",
            "1e300",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare_numbers(&number(a), &number(b)), i.cmp(&j), "{a} and {b}");
            }
        }
        for (a, b) in [("1", "1.0"), ("0", "-0.0"), ("9007199254740992", "9007199254740992.0"), ("1e2", "100")] {
            assert_eq!(compare_numbers(&number(a), &number(b)), Ordering::Equal, "{a} and {b}");
        }
        assert_eq!(compare_numbers(&number("9007199254740993"), &number("9007199254740992.0")), Ordering::Greater);
    }

    #[test]
    fn a_range_has_a_bound_and_holds_its_bounds() {
        let range = |min: &str, max: &str| {
            let bound = |text: &str| (!text.is_empty()).then(|| number(text));
            NumberRange::try_new(bound(min), bound(max))
        };
        assert!(range("", "").is_none() && range("2", "1.5").is_none());
        for (min, max, value, inside) in [
            ("1", "5", "1", true),
            ("1", "5", "5.0", true),
            ("1", "5", "5.1", false),
            ("1", "5", "0.9", false),
            ("1", "", "1e300", true),
            ("", "5", "-1e300", true),
            ("", "5", "18446744073709551615", false),
            ("2", "2", "2", true),
        ] {
            assert_eq!(range(min, max).expect("a range").contains(&number(value)), inside, "{min} {max} {value}");
        }
        let shown =
            [range("1", "5"), range("1.5", ""), range("", "5")].map(|range| range.expect("a range").to_string());
        assert_eq!(shown, ["1 to 5", "at least 1.5", "at most 5"]);
    }
}
