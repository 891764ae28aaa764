//! Finds the component of a health report that fails. Reports have different shapes (`components` of Spring, `entries` of
//! ASP.NET, `checks` of MicroProfile and health+json, a list of Consul, flags of Vault), but all of them have objects with
//! a `status`, `state` or flag.

use serde_json::{Map, Value};

use super::cut_key;

/// Keys of the state of a component, in any case.
const STATUS_KEYS: [&str; 5] = ["status", "state", "health", "outcome", "result"];
/// Flags of a component that fails when they are `false`.
const GOOD_FLAGS: [&str; 7] = ["healthy", "ready", "success", "ok", "up", "alive", "initialized"];
/// Flags of a component that fails when they are `true`.
const BAD_FLAGS: [&str; 3] = ["sealed", "maintenance", "failed"];
/// Flags whose presence shows that a document is a health report, whatever their value.
const OWN_FLAGS: [&str; 8] = ["healthy", "ready", "up", "alive", "initialized", "sealed", "standby", "maintenance"];
/// States of a component that fails, in lower case.
const FAILS: [&str; 21] = [
    "down",
    "fail",
    "failed",
    "failing",
    "failure",
    "error",
    "unhealthy",
    "critical",
    "out_of_service",
    "unavailable",
    "not_ready",
    "not ready",
    "notready",
    "dead",
    "ko",
    "red",
    "offline",
    "bad",
    "broken",
    "stopped",
    "unreachable",
];
/// States of a component that is not healthy; used only if nothing fails.
const WEAK: [&str; 7] = ["degraded", "warn", "warning", "starting", "pending", "unknown", "yellow"];
/// Objects whose fields are components, each with its state as value.
const CONTAINERS: [&str; 7] = ["checks", "components", "entries", "services", "dependencies", "results", "details"];
/// Keys of the name of an item of a list.
const NAME_KEYS: [&str; 4] = ["name", "id", "checkid", "componentid"];
/// Depth of the search for components, and the number of values examined.
const DEPTH_MAX: usize = 8;
const VALUES_MAX: usize = 4_096;
/// Bytes of a path that are kept; fewer are shown.
const PATH_BYTES_MAX: usize = 300;

/// A component that fails.
#[derive(Debug)]
pub(super) struct Part<'d> {
    /// `components.redis`; empty for the document itself.
    pub path: String,
    /// Its state: `DOWN`, or `sealed is true`.
    pub verdict: String,
    /// The component, if it is an object.
    pub object: Option<&'d Map<String, Value>>,
    /// Further components that fail.
    pub more: usize,
}

impl<'d> Part<'d> {
    /// The first component of `document` that fails or, if none fails, that is not healthy. The document itself counts only
    /// for a flag: its status repeats that of the answer.
    pub(super) fn first(document: &'d Value) -> Option<Part<'d>> {
        [&FAILS[..], &WEAK[..]].into_iter().find_map(|words| {
            let mut search = Search { words, first: None, found: 0, left: VALUES_MAX };
            search.look_into(document, "", 0);
            let found = search.found;
            search.first.map(|part| Part { more: found.saturating_sub(1), ..part })
        })
    }
}

/// Whether `document` is a health report, and not, for example, the error page of an API.
pub(in crate::probe) fn is_verdict(document: &Value) -> bool {
    let says = |object: &Map<String, Value>| {
        object.iter().any(|(key, value)| match value {
            // A number, or its digits, repeats the status of the answer.
            Value::String(text) => {
                is_one_of(key, &STATUS_KEYS) && !text.is_empty() && !text.bytes().all(|b| b.is_ascii_digit())
            }
            Value::Bool(_) => is_one_of(key, &OWN_FLAGS),
            Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
        })
    };
    document.as_object().is_some_and(says) || Part::first(document).is_some_and(|part| !part.path.is_empty())
}

/// Whether `document` reports success.
pub(super) fn reports_healthy(document: &Value) -> bool {
    const WELL: [&str; 9] = ["up", "ok", "pass", "passing", "healthy", "ready", "success", "serving", "green"];
    let fields = document.as_object().into_iter().flatten();
    fields.into_iter().any(|(key, value)| {
        is_one_of(key, &STATUS_KEYS) && value.as_str().is_some_and(|text| is_one_of(text.trim(), &WELL))
    })
}

struct Search<'w, 'd> {
    words: &'w [&'w str],
    first: Option<Part<'d>>,
    found: usize,
    left: usize,
}

impl<'d> Search<'_, 'd> {
    /// Searches `value`, which is at `path`; whether it contains a component that counts.
    fn look_into(&mut self, value: &'d Value, path: &str, depth: usize) -> bool {
        if depth >= DEPTH_MAX || path.len() > PATH_BYTES_MAX || self.left == 0 {
            return false;
        }
        self.left -= 1;
        let before = self.found;
        match value {
            Value::Object(object) => {
                for (key, inner) in object {
                    // An error object is handled as a reason.
                    if !is_one_of(key, &["error", "errors"]) {
                        self.look_into(inner, &below(path, cut_key(key)), depth + 1);
                    }
                }
                // The innermost component is the one at fault.
                if self.found == before {
                    self.inspect(object, path, depth);
                }
            }
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    let at = match (name_of(item), items.len()) {
                        (Some(name), _) => below(path, cut_key(name)),
                        (None, 1) => path.to_owned(),
                        (None, _) => format!("{path}[{i}]"),
                    };
                    self.look_into(item, &at, depth + 1);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        self.found > before
    }

    /// Whether `object` itself fails, or one of its plain values where they are components.
    fn inspect(&mut self, object: &'d Map<String, Value>, path: &str, depth: usize) {
        let container = path.rsplit('.').next().is_some_and(|name| is_one_of(name, &CONTAINERS));
        for (key, value) in object {
            let verdict = match value {
                Value::String(text) if depth > 0 && is_one_of(key, &STATUS_KEYS) => {
                    begins_one_of(text, self.words).then(|| text.clone())
                }
                Value::String(text) if container && !is_one_of(key, &super::REASON_KEYS) => {
                    is_one_of(text.trim(), self.words).then(|| text.clone())
                }
                Value::Bool(flag) if is_one_of(key, if *flag { &BAD_FLAGS[..] } else { &GOOD_FLAGS[..] }) => {
                    Some(format!("{} is {flag}", cut_key(key)))
                }
                Value::Bool(false) if container || (depth > 0 && is_one_of(key, &STATUS_KEYS)) => {
                    Some("false".to_owned())
                }
                _ => None,
            };
            let Some(verdict) = verdict else { continue };
            let is_own = is_one_of(key, &STATUS_KEYS) || (matches!(value, Value::Bool(_)) && !container);
            let (path, object) =
                if is_own { (path.to_owned(), Some(object)) } else { (below(path, cut_key(key)), None) };
            // The reason of the document is handled elsewhere.
            let object = object.filter(|_| depth > 0);
            self.found += 1;
            if self.first.is_none() {
                self.first = Some(Part { path, verdict, object, more: 0 });
            }
            if is_own {
                return;
            }
        }
    }
}

/// `DOWN`, `failed`, or `Failed: no route`.
fn begins_one_of(text: &str, words: &[&str]) -> bool {
    let text = text.trim().to_ascii_lowercase();
    words.iter().any(|word| {
        text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

fn name_of(item: &Value) -> Option<&str> {
    let object = item.as_object()?;
    NAME_KEYS.iter().find_map(|wanted| {
        let (_, value) = object.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted))?;
        value.as_str().filter(|name| !name.is_empty())
    })
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn is_one_of(key: &str, keys: &[&str]) -> bool {
    keys.iter().any(|wanted| key.eq_ignore_ascii_case(wanted))
}
