//! The reason that a system reports for its failure, for the sentence about a failed probe: the `reason`, `message` or
//! `error` of a JSON answer (RFC 9457 and health+json among them), the component that reports a failure, or the `[-]` lines
//! of a verbose `readyz`. Pure and bounded; text of the peer is escaped when it is shown.

mod part;

use std::fmt;

use serde_json::{Map, Value};

use crate::model::quote::{Escaped, Excerpt};
pub(super) use part::is_verdict;
use part::{Part, reports_healthy};

/// Keys under which systems report a reason, the most specific first; in any case.
const REASON_KEYS: [&str; 9] =
    ["reason", "message", "msg", "detail", "output", "error", "exception", "title", "description"];
/// Keys of an object under `error`, the most specific first.
const ERROR_KEYS: [&str; 8] = ["message", "reason", "msg", "detail", "title", "description", "type", "code"];
/// Objects in a component that can hold its reason.
const DETAIL_KEYS: [&str; 2] = ["details", "data"];
/// Words in the name of a list of failures, in any case.
const LIST_WORDS: [&str; 7] = ["fault", "fail", "unhealthy", "error", "down", "detail", "message"];
/// Words in the name of an object whose fields are failures, each with its reason, in any case.
const OBJECT_WORDS: [&str; 3] = ["fault", "fail", "error"];
/// Bytes of a key that are shown.
const KEY_BYTES_MAX: usize = 64;

/// What a system reports about its failure: at most two remarks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SelfReport(Vec<Remark>);

/// A text and its key; the key is empty for lines of text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Remark {
    key: Excerpt,
    text: Excerpt,
    /// Further components that fail.
    more: usize,
}

impl SelfReport {
    /// Searches `document`, then `around`: the object around the node that a rule names. Where no rule names one, and the
    /// document does not report success, adds the first component that reports a failure. Masks `secrets`.
    pub(super) fn find<'s, S>(document: &Value, around: Option<&Value>, secrets: impl Fn() -> S) -> Option<SelfReport>
    where
        S: Iterator<Item = &'s str>,
    {
        let objects = [Some(document), around].into_iter().flatten().filter_map(Value::as_object);
        let words = objects.filter_map(words_of).next().or_else(|| whole_list(document));
        let part = if around.is_some() || reports_healthy(document) { None } else { Part::first(document) };
        // A flag of the document itself adds nothing to its reason.
        let part = part.filter(|part| words.is_none() || !part.path.is_empty()).map(Remark::of);
        let remarks: Vec<Remark> = [words, part].into_iter().flatten().map(|r| r.without(&secrets)).collect();
        (!remarks.is_empty()).then_some(SelfReport(remarks))
    }

    /// The `[-]` lines of a text that begins with such lines or with `[+]` ones: what a Kubernetes server answers to
    /// `readyz?verbose`.
    pub(super) fn find_lines<'s, S>(body: &[u8], secrets: impl Fn() -> S) -> Option<SelfReport>
    where
        S: Iterator<Item = &'s str>,
    {
        let body = body.trim_ascii_start();
        if !body.starts_with(b"[+]") && !body.starts_with(b"[-]") {
            return None;
        }
        let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let text = joined(lines.filter(|line| line.starts_with(b"[-]")))?;
        Some(SelfReport(vec![Remark { key: Excerpt::default(), text, more: 0 }.without(&secrets)]))
    }
}

impl Remark {
    fn of(part: Part<'_>) -> Remark {
        let mut text = Excerpt::default();
        text.push(part.verdict.as_bytes());
        if let Some(words) = part.object.and_then(words_of) {
            text.push(b", ");
            text.push(words.text.bytes());
        }
        Remark { key: Excerpt::of(part.path.as_bytes()), text, more: part.more }
    }

    fn without<'s, S: Iterator<Item = &'s str>>(self, secrets: &impl Fn() -> S) -> Remark {
        Remark { key: self.key.without(secrets()), text: self.text.without(secrets()), more: self.more }
    }
}

/// `reason: No ASR workers available; components.redis: DOWN; 1 more part fails`.
impl fmt::Display for SelfReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, remark) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "; " })?;
            write!(f, "{remark}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.bytes().is_empty() {
            write!(f, "{}: ", Escaped(self.key.bytes()))?;
        }
        write!(f, "{}", Escaped(self.text.bytes()))?;
        match self.more {
            0 => Ok(()),
            1 => f.write_str("; 1 more part fails"),
            more => write!(f, "; {more} more parts fail"),
        }
    }
}

fn words_of(object: &Map<String, Value>) -> Option<Remark> {
    let inner = || DETAIL_KEYS.iter().filter_map(|key| object.get(*key)?.as_object()).find_map(reason);
    reason(object).or_else(|| list(object)).or_else(inner)
}

fn reason(object: &Map<String, Value>) -> Option<Remark> {
    REASON_KEYS.iter().find_map(|wanted| {
        let (key, value) = object.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted))?;
        let text = match value {
            Value::Object(inner) if *wanted == "error" => {
                ERROR_KEYS.iter().find_map(|key| text_of(inner.get(*key)?))?
            }
            value => text_of(value)?,
        };
        Some(Remark { key: shown_key(key), text: Excerpt::of(text.as_bytes()), more: 0 })
    })
}

fn text_of(value: &Value) -> Option<&str> {
    value.as_str().map(str::trim).filter(|text| !text.is_empty())
}

fn list(object: &Map<String, Value>) -> Option<Remark> {
    object.iter().find_map(|(key, value)| {
        let name = key.to_ascii_lowercase();
        let named = |words: &[&str]| words.iter().any(|word| name.contains(word));
        let items: Option<Vec<String>> = match value {
            Value::Array(items) if named(&LIST_WORDS) => items.iter().map(item).collect(),
            Value::Object(fields) if named(&OBJECT_WORDS) => fields.iter().map(field).collect(),
            _ => return None,
        };
        let text = joined(items?.iter().map(String::as_bytes))?;
        Some(Remark { key: shown_key(key), text, more: 0 })
    })
}

/// A document that is a list of failures: objects with a `code` or a `message`, and nothing else.
fn whole_list(document: &Value) -> Option<Remark> {
    let items = document.as_array()?.iter().map(|one| one.as_object().and_then(|_| item(one)));
    let items: Vec<String> = items.collect::<Option<_>>()?;
    let text = joined(items.iter().map(String::as_bytes))?;
    Some(Remark { key: Excerpt::default(), text, more: 0 })
}

/// A field of an object of failures: `db: gone`. Its value is a text, or a list of texts.
fn field((key, value): (&String, &Value)) -> Option<String> {
    let text = match value {
        Value::Array(texts) => texts.iter().map(text_of).collect::<Option<Vec<_>>>()?.join(", "),
        value => text_of(value)?.to_owned(),
    };
    Some(format!("{}: {text}", cut_key(key)))
}

/// An item of a list of failures: a text, or an object with a `code` or a `message`.
fn item(value: &Value) -> Option<String> {
    let object = match value {
        Value::String(text) => return Some(text.clone()),
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return None,
    };
    let words = ["message", "msg", "reason", "detail"].iter().find_map(|key| text_of(object.get(*key)?));
    let code = object.get("code").and_then(|code| match code {
        Value::String(code) => Some(code.clone()),
        Value::Number(code) => Some(code.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    });
    match (code, words) {
        (Some(code), Some(words)) => Some(format!("{code} {words}")),
        (Some(code), None) => Some(code),
        (None, words) => words.map(str::to_owned),
    }
}

/// All `parts` as one text; `None`: there are none.
fn joined<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Option<Excerpt> {
    let mut text = Excerpt::default();
    for (i, part) in parts.enumerate() {
        text.push(if i == 0 { b"" } else { b", " });
        text.push(part);
    }
    (!text.bytes().is_empty()).then_some(text)
}

fn shown_key(key: &str) -> Excerpt {
    Excerpt::of(cut_key(key).as_bytes())
}

/// The first [`KEY_BYTES_MAX`] bytes of a key.
fn cut_key(key: &str) -> &str {
    let ends = key.char_indices().map(|(at, c)| at + c.len_utf8());
    &key[..ends.take_while(|end| *end <= KEY_BYTES_MAX).last().unwrap_or(0)]
}

#[cfg(test)]
mod tests;
