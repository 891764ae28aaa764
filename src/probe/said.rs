//! What a system says of its own trouble: the `reason`, `message`, `msg` or `error` of a JSON answer, or its list of
//! faulty parts, for the sentence about a failed probe. Pure.

use std::fmt;

use serde_json::{Map, Value};

use crate::model::quote::{Escaped, Excerpt};

/// Keys under which systems say why, the more telling first; case does not count.
const REASON_KEYS: [&str; 4] = ["reason", "message", "msg", "error"];
/// What the name of a list of faulty parts contains, in any case.
const LIST_WORDS: [&str; 5] = ["fault", "fail", "unhealthy", "error", "down"];
/// Bytes of a key that are shown.
const KEY_BYTES_MAX: usize = 64;

/// A system's own words, and the key under which they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    key: Excerpt,
    text: Excerpt,
}

impl Said {
    /// Looks for them in `document`, and then in `around`: the object around the node that failed. None of `secrets` is
    /// repeated.
    pub(super) fn find<'s, S>(document: &Value, around: Option<&Value>, secrets: impl Fn() -> S) -> Option<Said>
    where
        S: Iterator<Item = &'s str>,
    {
        let objects = [Some(document), around].into_iter().flatten().filter_map(Value::as_object);
        let mut found = objects.filter_map(|object| reason(object).or_else(|| list(object)));
        let Said { key, text } = found.next()?;
        Some(Said { key: key.without(secrets()), text: text.without(secrets()) })
    }
}

/// `reason: No ASR workers available`.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Escaped(self.key.bytes()), Escaped(self.text.bytes()))
    }
}

fn reason(object: &Map<String, Value>) -> Option<Said> {
    REASON_KEYS.iter().find_map(|wanted| {
        let (key, value) = object.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted))?;
        let text = match value {
            Value::Object(inner) if *wanted == "error" => inner.get("message")?.as_str()?,
            value => value.as_str()?,
        };
        let text = text.trim();
        (!text.is_empty()).then(|| Said { key: shown_key(key), text: Excerpt::of(text.as_bytes()) })
    })
}

fn list(object: &Map<String, Value>) -> Option<Said> {
    object.iter().find_map(|(key, value)| {
        let name = key.to_ascii_lowercase();
        if !LIST_WORDS.iter().any(|word| name.contains(word)) {
            return None;
        }
        let parts: Option<Vec<&str>> = value.as_array()?.iter().map(Value::as_str).collect();
        let parts = parts.filter(|parts| !parts.is_empty())?;
        let mut text = Excerpt::default();
        for (i, part) in parts.iter().enumerate() {
            text.push(if i == 0 { b"" } else { b", " });
            text.push(part.as_bytes());
        }
        Some(Said { key: shown_key(key), text })
    })
}

fn shown_key(key: &str) -> Excerpt {
    let ends = key.char_indices().map(|(at, c)| at + c.len_utf8());
    Excerpt::of(&key.as_bytes()[..ends.take_while(|end| *end <= KEY_BYTES_MAX).last().unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(document: &Value, around: Option<&Value>) -> Option<String> {
        Said::find(document, around, || ["s3cret"].into_iter()).map(|said| said.to_string())
    }

    #[test]
    fn the_more_telling_words_are_found() {
        for (document, words) in [
            (
                json!({"status": "unhealthy", "reason": "No ASR workers available"}),
                Some("reason: No ASR workers available"),
            ),
            (json!({"error": "e", "msg": "m", "message": "n", "reason": "r"}), Some("reason: r")),
            (json!({"error": "e", "msg": "m", "message": "n"}), Some("message: n")),
            (json!({"error": "e", "msg": "m"}), Some("msg: m")),
            (json!({"error": "e"}), Some("error: e")),
            (json!({"Message": "n"}), Some("Message: n")),
            (json!({"error": {"code": 5, "message": "no database"}}), Some("error: no database")),
            (json!({"error": {"code": 5}}), None),
            (json!({"reason": {"message": "x"}}), None),
            (json!({"reason": "", "message": " \n", "error": "e"}), Some("error: e")),
            (json!({"reason": 5, "error": true}), None),
            (
                json!({"version": "..", "status": "not ready, faulty CAPPs detected", "Faulty CAPPs": ["a", "b"]}),
                Some("Faulty CAPPs: a, b"),
            ),
            (json!({"DOWN": ["redis"]}), Some("DOWN: redis")),
            (json!({"failedParts": [], "errors": ["x"]}), Some("errors: x")),
            (json!({"errors": [{"message": "x"}]}), None),
            (json!({"components": ["a"]}), None),
            (json!({"faulty": ["a"], "error": "e"}), Some("error: e")),
            (json!(["reason"]), None),
            (json!({}), None),
        ] {
            assert_eq!(said(&document, None).as_deref(), words, "{document}");
        }
    }

    #[test]
    fn the_object_around_the_node_comes_second() {
        let portus = json!({"database": {"msg": "database is initializing", "success": false}});
        let around = Some(&portus["database"]);
        assert_eq!(said(&portus, around).as_deref(), Some("msg: database is initializing"));
        let above = json!({"reason": "starting", "database": {"msg": "database is initializing"}});
        assert_eq!(said(&above, Some(&above["database"])).as_deref(), Some("reason: starting"));
    }

    #[test]
    fn words_are_short_escaped_and_without_credentials() {
        let long = said(&json!({"reason": "x".repeat(5_000)}), None).unwrap();
        assert_eq!(long.chars().count(), "reason: ".len() + 256 + 1);
        let list = said(&json!({"failed": vec!["part"; 5_000]}), None).unwrap();
        assert!(list.starts_with("failed: part, part, ") && list.chars().count() < 300, "{list}");
        let key = said(&json!({ (format!("down{}", "ü".repeat(500))): ["a"] }), None).unwrap();
        assert!(key.chars().count() < 80, "{key}");
        let acts = said(&json!({"reason": "a\nb\u{1b}[31m \"s3cret\" \u{202e}"}), None);
        assert_eq!(acts.as_deref(), Some(r#"reason: a\nb\u{1b}[31m "***" \u{202e}"#));
    }
}
