//! Hints for an answer with the right status that violates another rule: the small difference from the rule, where known.
//! The address, the port and the path are right then; the rule may be wrong.

use serde_json::Value;

use crate::model::policy::{BodyRule, HeaderMatch, JsonMatch, JsonRule};
use crate::model::quote::Excerpt;
use crate::probe::expect::NotJson;

const HEAD: &str = "an answer to HEAD has no body: use GET";
const OTHER_CASE: &str = "port and path answer, but the text is in another case than in the rule";

/// Why a body with the beginning `body` may have violated `rule`.
pub(in crate::probe) fn body_hint(rule: &BodyRule, body: &[u8], method: &str) -> Option<&'static str> {
    if method == "HEAD" {
        return Some(HEAD);
    }
    let text = String::from_utf8_lossy(body);
    match rule {
        BodyRule::Contains(wanted) if in_another_case(&text, wanted) => Some(OTHER_CASE),
        BodyRule::Equals(wanted) if *text.trim() == *wanted.trim() => {
            Some("port and path answer, and only white space around the text differs: equals compares every byte")
        }
        BodyRule::Equals(wanted) if text.trim().eq_ignore_ascii_case(wanted.trim()) => Some(OTHER_CASE),
        BodyRule::Contains(_) | BodyRule::Equals(_) | BodyRule::Matches(_) => None,
        BodyRule::NotContains(_) | BodyRule::NotMatches(_) => None,
    }
}

/// Why a field may have violated its rule.
pub(in crate::probe) fn header_hint(wanted: &HeaderMatch, seen: &[Excerpt]) -> Option<&'static str> {
    let HeaderMatch::Equals(wanted) = wanted else { return None };
    seen.iter().find_map(|value| {
        let value = String::from_utf8_lossy(value.bytes());
        if value.eq_ignore_ascii_case(wanted) {
            Some(OTHER_CASE)
        } else if !wanted.is_empty() && value.contains(&**wanted) {
            Some("port and path answer, but the field holds more than that: equals compares the whole value: use matches")
        } else {
            None
        }
    })
}

/// Why the body may not be JSON.
pub(in crate::probe) fn not_json_hint(error: &NotJson, method: &str) -> Option<&'static str> {
    match error {
        NotJson::Empty if method == "HEAD" => Some(HEAD),
        NotJson::Markup => Some("port and path answer with a page: the endpoint may be at another path"),
        NotJson::Empty
        | NotJson::ByteOrderMark
        | NotJson::Compressed
        | NotJson::TooDeep
        | NotJson::TooMany
        | NotJson::Syntax(_) => None,
    }
}

/// Why `node` of `document` (`None`: the path selects nothing) may have violated its rule.
pub(in crate::probe) fn json_hint(rule: &JsonRule, document: &Value, node: Option<&Value>) -> Option<&'static str> {
    match (node, &rule.value) {
        (None, _) => missing_hint(rule.path.as_str(), document),
        (Some(node), JsonMatch::Equals(wanted)) => value_hint(node, std::slice::from_ref(wanted)),
        (Some(node), JsonMatch::In(wanted)) => value_hint(node, wanted),
        (Some(node), JsonMatch::Matches(_)) => kind_hint(node, Kind::Text),
        (Some(node), JsonMatch::Within(_)) => kind_hint(node, Kind::Number),
        (Some(_), JsonMatch::NotEquals(_) | JsonMatch::Exists(_) | JsonMatch::Is(_)) => None,
    }
}

fn value_hint(node: &Value, wanted: &[Value]) -> Option<&'static str> {
    let same_text = |wanted: &Value| match (node, wanted) {
        (Value::String(node), Value::String(wanted)) => node.eq_ignore_ascii_case(wanted),
        _ => false,
    };
    if wanted.iter().any(same_text) {
        return Some(OTHER_CASE);
    }
    let (seen, first) = (Kind::of(node), Kind::of(wanted.first()?));
    let all_alike = wanted.iter().all(|value| Kind::of(value) == first);
    if all_alike && seen != first { Some(kinds_hint(seen, first)) } else { None }
}

fn kind_hint(node: &Value, wanted: Kind) -> Option<&'static str> {
    let seen = Kind::of(node);
    (seen != wanted).then(|| kinds_hint(seen, wanted))
}

/// The path selects nothing: whether its last name exists elsewhere.
fn missing_hint(path: &str, document: &Value) -> Option<&'static str> {
    let name = last_name(path)?;
    if has_key(document, &|key| key == name) {
        Some("port and path answer, and a key of that name is at another place: check the JSONPath")
    } else if has_key(document, &|key| key.eq_ignore_ascii_case(name)) {
        Some("port and path answer, and a key of that name is in another case: check the JSONPath")
    } else {
        None
    }
}

/// The name at the end of a JSONPath: `success` of `$.database.success`, `Faulty CAPPs` of `$['Faulty CAPPs']`.
fn last_name(path: &str) -> Option<&str> {
    let name = match path.strip_suffix("']").or_else(|| path.strip_suffix("\"]")) {
        Some(bracketed) => bracketed.rsplit(['\'', '"']).next()?,
        None => path.rsplit('.').next()?,
    };
    let is_name = !name.is_empty() && !name.contains(['$', '*', '[', ']', '?', '(', ')', '@']);
    is_name.then_some(name)
}

fn has_key(document: &Value, is_it: &impl Fn(&str) -> bool) -> bool {
    match document {
        Value::Object(fields) => fields.iter().any(|(key, value)| is_it(key) || has_key(value, is_it)),
        Value::Array(items) => items.iter().any(|item| has_key(item, is_it)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn in_another_case(text: &str, wanted: &str) -> bool {
    !wanted.is_empty() && text.to_lowercase().contains(&wanted.to_lowercase())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Boolean,
    Number,
    Text,
    Array,
    Object,
}

impl Kind {
    fn of(value: &Value) -> Kind {
        match value {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Boolean,
            Value::Number(_) => Kind::Number,
            Value::String(_) => Kind::Text,
            Value::Array(_) => Kind::Array,
            Value::Object(_) => Kind::Object,
        }
    }
}

/// One sentence for every pair of kinds, made at compile time.
fn kinds_hint(seen: Kind, wanted: Kind) -> &'static str {
    macro_rules! expects {
        ($seen:literal) => {
            match wanted {
                Kind::Null => concat!("port and path answer, but the value is ", $seen, " and the rule expects null"),
                Kind::Boolean => {
                    concat!("port and path answer, but the value is ", $seen, " and the rule expects a boolean")
                }
                Kind::Number => {
                    concat!("port and path answer, but the value is ", $seen, " and the rule expects a number")
                }
                Kind::Text => {
                    concat!("port and path answer, but the value is ", $seen, " and the rule expects a string")
                }
                Kind::Array => {
                    concat!("port and path answer, but the value is ", $seen, " and the rule expects an array")
                }
                Kind::Object => {
                    concat!("port and path answer, but the value is ", $seen, " and the rule expects an object")
                }
            }
        };
    }
    match seen {
        Kind::Null => expects!("null"),
        Kind::Boolean => expects!("a boolean"),
        Kind::Number => expects!("a number"),
        Kind::Text => expects!("a string"),
        Kind::Array => expects!("an array"),
        Kind::Object => expects!("an object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::JsonPath;
    use serde_json::json;

    #[test]
    fn a_body_that_nearly_matches_has_a_hint() {
        let (contains, equals) = (|t: &str| BodyRule::Contains(t.into()), |t: &str| BodyRule::Equals(t.into()));
        for (rule, body, method, hint) in [
            (contains("healthy"), "Status: Healthy", "GET", Some("another case")),
            (contains("healthy"), "starting", "GET", None),
            (equals("ok"), "ok\r\n", "GET", Some("white space")),
            (equals("ok"), "OK\n", "GET", Some("another case")),
            (equals("ok"), "no", "GET", None),
            (contains("x"), "", "HEAD", Some("use GET")),
        ] {
            let found = body_hint(&rule, body.as_bytes(), method);
            assert_eq!(found.is_some(), hint.is_some(), "{rule:?} {body:?}: {found:?}");
            assert!(found.unwrap_or_default().contains(hint.unwrap_or_default()), "{found:?}");
        }
    }

    #[test]
    fn a_field_that_nearly_matches_has_a_hint() {
        let equals = HeaderMatch::Equals("application/json".into());
        for (value, hint) in [
            ("application/json; charset=utf-8", Some("more than that")),
            ("Application/JSON", Some("another case")),
            ("text/html", None),
        ] {
            let found = header_hint(&equals, &[Excerpt::of(value.as_bytes())]);
            assert_eq!(found.is_some(), hint.is_some(), "{value}: {found:?}");
            assert!(found.unwrap_or_default().contains(hint.unwrap_or_default()), "{found:?}");
        }
        assert_eq!(header_hint(&equals, &[]), None);
        assert_eq!(header_hint(&HeaderMatch::Present, &[]), None);
    }

    #[test]
    fn a_json_value_that_nearly_matches_has_a_hint() {
        let document = json!({ "status": "Healthy", "ok": "true", "n": 1, "deep": { "success": true }, "Ready": 1 });
        for (path, wanted, hint) in [
            ("$.status", json!("healthy"), Some("another case")),
            ("$.ok", json!(true), Some("the value is a string and the rule expects a boolean")),
            ("$.n", json!("1"), Some("the value is a number and the rule expects a string")),
            ("$.deep", json!("up"), Some("the value is an object and the rule expects a string")),
            ("$.success", json!(true), Some("at another place")),
            ("$['success']", json!(true), Some("at another place")),
            ("$.ready", json!(1), Some("in another case")),
            ("$.nowhere", json!(1), None),
            ("$.nowhere.*", json!(1), None),
            ("$.status", json!("unhealthy"), None),
            ("$.n", json!(2), None),
        ] {
            let path = JsonPath::try_new(path).unwrap();
            let node = path.select(&document).first().copied();
            let rule = JsonRule { path, value: JsonMatch::Equals(wanted), missing_passes: false };
            let found = json_hint(&rule, &document, node);
            assert_eq!(found.is_some(), hint.is_some(), "{rule:?}: {found:?}");
            assert!(found.unwrap_or_default().contains(hint.unwrap_or_default()), "{rule:?}: {found:?}");
        }
        let wanted = JsonMatch::In(vec![json!(true), json!("up")]);
        let mixed = JsonRule { path: JsonPath::try_new("$.n").unwrap(), value: wanted, missing_passes: false };
        assert_eq!(json_hint(&mixed, &document, Some(&document["n"])), None);
    }
}
