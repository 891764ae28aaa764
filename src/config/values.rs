//! What a single value may be: numbers, durations and words here, texts of HTTP, addresses and secrets in the files
//! below. Each is read straight into a type of `model` that cannot be wrong; messages show the value as it is
//! written.

pub mod access;
pub mod address;
pub mod balance;
pub mod basic_auth;
pub mod conditions;
pub mod cookie;
pub mod expect;
pub mod fields;
pub mod header;
pub mod http;
pub mod network;
mod problem;
pub mod protocol;
pub mod require;
pub mod route;
pub mod secret;
pub mod several;
pub mod status;
pub mod steps;
pub mod template;
pub mod tls;

use std::time::Duration;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::foreign;
use super::read::{Node, Reader, Value, nearest};
use crate::model::policy::{Balance, Failure, HttpVersion, Lane, LoadBound, MinHealthy, OnUnhealthy};
use crate::model::written;
use crate::model::{AdminState, Ratio};
pub use balance::Balancing;

/// A string type with its own rules.
pub trait Text: Sized {
    /// What is expected, as a phrase.
    fn what() -> String;

    /// Parses `text`.
    ///
    /// # Errors
    /// What is wrong, as a phrase right after the value: `" has no port"`, `": the path is relative"`.
    fn parse(text: &str) -> Result<Self, String>;

    /// What is expected in place of this text, if there is more to say than [`Text::what`].
    fn expected(_text: &str) -> Option<String> {
        None
    }

    /// A correction of a text with a mistake, in the notation of the file. One that would be refused is not shown.
    fn suggest(_text: &str) -> Option<String> {
        None
    }

    /// A second correction, for the places where the first would be refused.
    fn suggest_else(_text: &str) -> Option<String> {
        None
    }

    /// What a number means in its place, if it means something.
    fn of_number(_number: &str) -> Option<Self> {
        None
    }

    /// The schema of such a number.
    fn number_schema() -> Option<Schema> {
        None
    }

    /// A pattern (ECMA 262) that every valid text matches, before and after `${NAME}` is replaced.
    fn pattern() -> Option<&'static str> {
        None
    }
}

impl<T: Text> Value for T {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<T> {
        let number = match node.get_ref() {
            DeValue::Integer(number) => Some(number.as_str()),
            DeValue::Float(number) => Some(number.as_str()),
            _ => None,
        };
        if let Some(value) = number.and_then(T::of_number) {
            return Some(value);
        }
        if let Some(number) = number {
            let message = format!("{} is a number", reader.written(node));
            let pending = reader.mistake(node.span(), message).expected(T::what());
            pending.suggestion(T::suggest(number)).suggestion(T::suggest_else(number)).done();
            return None;
        }
        let text = reader.string(node, &T::what())?;
        match T::parse(&text) {
            Ok(value) => Some(value),
            Err(problem) => {
                let expanded = reader.is_expanded(node);
                let note = if expanded { " once its variables are replaced" } else { "" };
                let message = format!("{}{problem}{note}", reader.written(node));
                let suggestions = match expanded {
                    true => [None, None],
                    false => [T::suggest(&text), T::suggest_else(&text)],
                };
                // The value of a variable is not shown, nor anything made from it.
                let mut expected = T::expected(&text).filter(|_| !expanded).unwrap_or_else(T::what);
                let variable = super::expand::shell_variable(&text).filter(|_| !expanded);
                if let Some((name, _)) = variable {
                    expected = format!("{expected}; the value of a variable is written `${{{name}}}`");
                }
                if let Some(path) = reader.without_escapes(node) {
                    expected = format!("{expected}; single quotes keep a \\ as it is: {path}");
                }
                let variable = variable.map(|(_, text)| format!("{text:?}"));
                let all = std::iter::once(variable).chain(suggestions);
                let pending = reader.mistake(node.span(), message).expected(expected);
                all.fold(pending, |pending, suggestion| pending.suggestion(suggestion)).done();
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        match T::pattern() {
            // A variable may have any value, so a text with one always fits.
            Some(pattern) => {
                let text =
                    json_schema!({ "type": "string", "anyOf": [{ "pattern": pattern }, { "pattern": r"\$\{" }] });
                match T::number_schema() {
                    Some(number) => json_schema!({ "anyOf": [number, text] }),
                    None => text,
                }
            }
            None => json_schema!({ "type": "string" }),
        }
    }
}

/// A duration from `MIN` to `MAX` milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<const MIN: u64, const MAX: u64>(pub Duration);

/// 24 hours, in milliseconds.
pub const DAY: u64 = 24 * 3_600_000;

impl<const MIN: u64, const MAX: u64> Text for Span<MIN, MAX> {
    fn what() -> String {
        let show = |ms| match ms {
            DAY => "24h".to_owned(),
            ms => written::show_duration(Duration::from_millis(ms)),
        };
        format!("a duration from {} to {}, such as \"5s\"", show(MIN), show(MAX))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let duration = written::duration(text)?;
        if duration < Duration::from_millis(MIN) {
            return Err(" is too short".to_owned());
        }
        if duration > Duration::from_millis(MAX) {
            return Err(" is too long".to_owned());
        }
        Ok(Span(duration))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^\s*([0-9.]+\s*(ns|us|µs|ms|s|m|h|d|[a-z]{3,})\s*)+$")
    }

    fn suggest(text: &str) -> Option<String> {
        match bare_number(text) {
            // In other programs a large bare number is milliseconds.
            Some(number) if number >= 1_000.0 => Some(format!("\"{text}ms\"")),
            Some(_) => Some(format!("\"{text}s\"")),
            None => Some(text.to_ascii_lowercase()).filter(|lower| lower != text).map(|lower| format!("{lower:?}")),
        }
    }

    fn suggest_else(text: &str) -> Option<String> {
        let number = bare_number(text)?;
        // A small one was never meant as milliseconds.
        let unit = if number >= 1_000.0 { "s" } else { "ms" };
        (number >= 100.0).then(|| format!("\"{text}{unit}\""))
    }
}

/// The number that `text` is, if it is one without a unit.
fn bare_number(text: &str) -> Option<f64> {
    let plain = text.len() < 9 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|_| plain)
}

/// A number of bytes from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Text for Size<MIN, MAX> {
    fn what() -> String {
        format!("a size from {} to {}, such as \"16KiB\"", written::show_size(MIN), written::show_size(MAX))
    }

    fn parse(text: &str) -> Result<Self, String> {
        match written::size(text)? {
            size if size < MIN => Err(" is too small".to_owned()),
            size if size > MAX => Err(" is too large".to_owned()),
            size => Ok(Size(size)),
        }
    }

    fn of_number(number: &str) -> Option<Self> {
        number.parse().ok().filter(|size| (MIN..=MAX).contains(size)).map(Size)
    }

    fn number_schema() -> Option<Schema> {
        Some(json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX }))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^[0-9]+([KMG]i?)?B$")
    }

    fn suggest(text: &str) -> Option<String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        // What other programs write as `8k` is 8,192 bytes.
        let unit = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
            "" | "b" | "byte" | "bytes" => "B",
            "k" | "kb" | "kib" => "KiB",
            "m" | "mb" | "mib" => "MiB",
            _ => return None,
        };
        (!digits.is_empty()).then(|| format!("\"{digits}{unit}\""))
    }
}

/// A number of bytes that must not be exceeded; `None`: "unlimited".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimit(pub Option<u64>);

impl Text for SizeLimit {
    fn what() -> String {
        "a size, such as \"10MiB\", or \"unlimited\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(SizeLimit(None));
        }
        match written::size(text)? {
            // Elsewhere it means no limit.
            0 => Err(" allows no body at all".to_owned()),
            size => Ok(SizeLimit(Some(size))),
        }
    }

    fn of_number(number: &str) -> Option<Self> {
        number.parse().ok().filter(|size| *size > 0).map(|size| SizeLimit(Some(size)))
    }

    fn number_schema() -> Option<Schema> {
        Some(json_schema!({ "type": "integer", "minimum": 1 }))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^([0-9]+([KMG]i?)?B|unlimited)$")
    }

    fn suggest(text: &str) -> Option<String> {
        let number = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let is_none = number.bytes().all(|digit| digit == b'0');
        if is_none
            && matches!(text.to_ascii_lowercase().as_str(), "" | "none" | "off" | "no" | "unlimited" | "infinite")
        {
            return Some("\"unlimited\"".to_owned());
        }
        if is_none && !number.is_empty() {
            Some("\"unlimited\"".to_owned())
        } else {
            Size::<1, { u64::MAX }>::suggest(text)
        }
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: i64, const MAX: i64>(pub i64);

impl<const MIN: i64, const MAX: i64> Value for Count<MIN, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let what = format!("a whole number from {MIN} to {MAX}");
        let number = integer(node, reader, &what)?;
        if (MIN..=MAX).contains(&number) {
            return Some(Count(number));
        }
        let message = format!("{} is out of range", reader.written(node));
        reader.mistake(node.span(), message).expected(what).done();
        None
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// The integer at `node`; one that does not fit counts as the largest, so that the range refuses it.
fn integer(node: &Node<'_>, reader: &mut Reader<'_>, what: &str) -> Option<i64> {
    match node.get_ref() {
        DeValue::Integer(number) => Some(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX)),
        DeValue::String(text) if text.parse::<i64>().is_ok() => {
            let message = format!("{} is a string", reader.written(node));
            reader.mistake(node.span(), message).expected(what).suggestion(Some(text.as_ref())).done();
            None
        }
        DeValue::String(text) if text.contains("${") => {
            reader.wrong_type(node, &format!("{what}: variables are replaced in strings only"));
            None
        }
        _ => {
            reader.wrong_type(node, what);
            None
        }
    }
}

impl Value for bool {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<bool> {
        if let DeValue::Boolean(value) = node.get_ref() {
            return Some(*value);
        }
        let meant = match node.get_ref() {
            DeValue::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some("true"),
                "false" | "no" | "off" | "0" => Some("false"),
                _ => None,
            },
            DeValue::Integer(number) if number.as_str() == "1" => Some("true"),
            DeValue::Integer(number) if number.as_str() == "0" => Some("false"),
            _ => None,
        };
        reader.wrong_type_meaning(node, "true or false, without quotes", meant.map(str::to_owned));
        None
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

/// A share, as a number from 0 to `PERCENT` / 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share<const PERCENT: u32>(pub Ratio);

impl<const PERCENT: u32> Value for Share<PERCENT> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let max = f64::from(PERCENT) / 100.0;
        let what = format!("a number from 0 to {max}");
        let Some(number) = number(node) else {
            reader.wrong_type_meaning(node, &what, share(node));
            return None;
        };
        match Ratio::try_new(number) {
            Some(share) if number <= max => Some(Share(share)),
            _ => {
                let message = format!("{} is out of range", reader.written(node));
                reader.mistake(node.span(), message).expected(what).done();
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": f64::from(PERCENT) / 100.0 })
    }
}

/// A share that is written as a string: `"10%"` or `"0.1"`.
fn share(node: &Node<'_>) -> Option<String> {
    let DeValue::String(text) = node.get_ref() else { return None };
    let number = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.trim().parse::<f64>().ok()?,
    };
    Some(format!("{}", (number * 1e6).round() / 1e6)).filter(|_| (0.0..=1.0).contains(&number))
}

fn number(node: &Node<'_>) -> Option<f64> {
    match node.get_ref() {
        DeValue::Integer(number) => {
            Some(i64::from_str_radix(number.as_str(), number.radix()).map_or(f64::MAX, |n| n as f64))
        }
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    }
}

impl Value for MinHealthy {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<MinHealthy> {
        const WHAT: &str = "a whole number from 1 to 65535, or a share from 0.0 to 1.0";
        let value = match node.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .filter(|count| (1..=65_535).contains(count))
                .and_then(|count| u32::try_from(count).ok())
                .map(MinHealthy::Count),
            DeValue::Float(number) => number.as_str().parse().ok().and_then(Ratio::try_new).map(MinHealthy::Share),
            _ => {
                let count = |text: &str| text.parse::<u32>().ok().map(|count| count.to_string());
                let meant = match node.get_ref() {
                    DeValue::String(text) => count(text).or_else(|| share(node)),
                    _ => None,
                };
                reader.wrong_type_meaning(node, WHAT, meant);
                return None;
            }
        };
        if value.is_none() {
            let message = format!("{} is out of range", reader.written(node));
            reader.mistake(node.span(), message).expected(WHAT).done();
        }
        value
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 65_535 })
    }
}

/// A word from a closed set.
pub trait Word: Sized + Copy + 'static {
    /// The words and what they mean.
    const WORDS: &'static [(&'static str, Self)];

    /// Our word for one of another program.
    fn meant(_text: &str) -> Option<&'static str> {
        None
    }

    /// What to write for one that no single word replaces.
    fn instead(_text: &str) -> Option<String> {
        None
    }
}

/// A value that is one of a set of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OneOf<W>(pub W);

impl<W: Word> Value for OneOf<W> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<OneOf<W>> {
        let names: Vec<_> = W::WORDS.iter().map(|(name, _)| *name).collect();
        let what = format!("one of \"{}\"", names.join("\", \""));
        let text = reader.string(node, &what)?;
        if let Some((_, word)) = W::WORDS.iter().find(|(name, _)| *name == text) {
            return Some(OneOf(*word));
        }
        let instead = W::instead(&text);
        let near = match &instead {
            Some(_) => None,
            None => W::meant(&text).map(str::to_owned).or_else(|| nearest(&text, names.into_iter())),
        };
        let (near, what) = (near.map(|word| format!("\"{word}\"")), instead.unwrap_or(what));
        let message = format!("{} is not known", reader.written(node));
        reader.mistake(node.span(), message).expected(what).suggestion(near).done();
        None
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = W::WORDS.iter().map(|(name, _)| *name).collect();
        json_schema!({ "type": "string", "anyOf": [{ "enum": names }, { "pattern": r"\$\{" }] })
    }
}

impl Word for Lane {
    const WORDS: &'static [(&'static str, Lane)] = &[("auto", Lane::Auto), ("general", Lane::General)];
}

impl Word for Balance {
    const WORDS: &'static [(&'static str, Balance)] = &[
        ("round_robin", Balance::RoundRobin),
        ("least_request", Balance::LeastRequest),
        ("peak_ewma", Balance::PeakEwma),
        ("random", Balance::Random),
        ("hash", Balance::Hash(LoadBound::DEFAULT)),
        ("maglev", Balance::Maglev(LoadBound::DEFAULT)),
        ("first", Balance::First),
    ];

    fn meant(text: &str) -> Option<&'static str> {
        foreign::balance(text)
    }

    fn instead(text: &str) -> Option<String> {
        foreign::hashed_by(text).map(|key| format!("{{ type = \"hash\", key = \"{key}\" }}"))
    }
}

impl Word for OnUnhealthy {
    const WORDS: &'static [(&'static str, OnUnhealthy)] = &[("keep", OnUnhealthy::Keep), ("close", OnUnhealthy::Close)];
}

impl Word for Failure {
    const WORDS: &'static [(&'static str, Failure)] = &[
        ("connect", Failure::Connect),
        ("reset", Failure::Reset),
        ("timeout", Failure::Timeout),
        ("502", Failure::BadGateway),
        ("503", Failure::Unavailable),
        ("504", Failure::GatewayTimeout),
    ];

    fn meant(text: &str) -> Option<&'static str> {
        foreign::retry_cause(text)
    }
}

impl Word for AdminState {
    const WORDS: &'static [(&'static str, AdminState)] =
        &[("enabled", AdminState::Enabled), ("draining", AdminState::Draining), ("disabled", AdminState::Disabled)];
}

/// `type` of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Connect and close, or exchange texts.
    Tcp,
    /// A TLS handshake.
    Tls,
    /// One HTTP request.
    Http,
    /// One call of the health service.
    Grpc,
    /// A WebSocket handshake and a ping.
    Websocket,
    /// A line of HAProxy's agent protocol.
    Agent,
}

impl Kind {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        Kind::WORDS.iter().find(|(_, kind)| *kind == self).map(|(word, _)| *word).expect("every kind has a word")
    }
}

impl Word for Kind {
    const WORDS: &'static [(&'static str, Kind)] = &[
        ("tcp", Kind::Tcp),
        ("tls", Kind::Tls),
        ("http", Kind::Http),
        ("grpc", Kind::Grpc),
        ("websocket", Kind::Websocket),
        ("agent", Kind::Agent),
    ];

    fn meant(text: &str) -> Option<&'static str> {
        foreign::check_type(text).and_then(Result::ok)
    }

    fn instead(text: &str) -> Option<String> {
        foreign::check_type(text).and_then(Result::err).map(str::to_owned)
    }
}

/// `scheme` of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Word for Scheme {
    const WORDS: &'static [(&'static str, Scheme)] = &[("http", Scheme::Http), ("https", Scheme::Https)];
}

impl Word for HttpVersion {
    const WORDS: &'static [(&'static str, HttpVersion)] = &[("http1", HttpVersion::Http1), ("h2", HttpVersion::H2)];

    fn meant(text: &str) -> Option<&'static str> {
        match text.to_ascii_lowercase().as_str() {
            "h1" | "1" | "1.1" | "http/1" | "http/1.1" => Some("http1"),
            "2" | "2.0" | "http2" | "http/2" | "http/2.0" | "h2c" => Some("h2"),
            _ => None,
        }
    }
}

/// What it means if a JSONPath selects nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The rule does not hold.
    Fail,
    /// It holds.
    Pass,
}

impl Word for Missing {
    const WORDS: &'static [(&'static str, Missing)] = &[("fail", Missing::Fail), ("pass", Missing::Pass)];
}
