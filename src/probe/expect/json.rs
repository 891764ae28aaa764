//! Rules over the body as JSON. Parsed strictly, because parsers disagree about some documents: a duplicate key is an error.
//! Typed: `true` is not `"true"`, and `1` is `1.0`.

mod read;

use serde_json::Value;

use crate::model::policy::{JsonMatch, JsonRule, JsonType, compare_numbers};

pub(in crate::probe) use read::{NotJson, parse};

/// A violated rule, and the node that violates it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::probe) struct JsonMiss<'p, 'v> {
    pub rule: &'p JsonRule,
    /// The first node at fault; `None`: the path selects nothing.
    pub node: Option<&'v Value>,
    /// The number of further nodes at fault.
    pub more: usize,
}

/// The first violated rule.
pub(in crate::probe) fn json_miss<'p, 'v>(rules: &'p [JsonRule], document: &'v Value) -> Option<JsonMiss<'p, 'v>> {
    rules.iter().find_map(|rule| {
        let nodes = rule.path.select(document);
        if nodes.is_empty() {
            let holds = match rule.value {
                JsonMatch::Exists(wanted) => !wanted,
                JsonMatch::Equals(_) | JsonMatch::NotEquals(_) | JsonMatch::In(_) => rule.missing_passes,
                JsonMatch::Matches(_) | JsonMatch::Within(_) | JsonMatch::Is(_) => rule.missing_passes,
            };
            return (!holds).then_some(JsonMiss { rule, node: None, more: 0 });
        }
        let mut failing = nodes.into_iter().filter(|node| !holds(&rule.value, node));
        let node = failing.next()?;
        Some(JsonMiss { rule, node: Some(node), more: failing.count() })
    })
}

fn holds(wanted: &JsonMatch, node: &Value) -> bool {
    match wanted {
        JsonMatch::Equals(value) => same(node, value),
        JsonMatch::NotEquals(value) => !same(node, value),
        JsonMatch::In(values) => values.iter().any(|value| same(node, value)),
        JsonMatch::Exists(wanted) => *wanted,
        JsonMatch::Matches(pattern) => node.as_str().is_some_and(|text| pattern.is_match(text.as_bytes())),
        JsonMatch::Within(range) => match node {
            Value::Number(number) => range.contains(number),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => false,
        },
        JsonMatch::Is(wanted) => JsonType::of(node) == *wanted,
    }
}

/// Whether two values are equal, by type and value, in any order of keys.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (Value::Null | Value::Bool(_) | Value::String(_), _) => a == b,
        (Value::Number(_) | Value::Array(_) | Value::Object(_), _) => false,
    }
}

/// The normalized path to `node`, which is a part of `document`, in short: `$.components.redis`, `$['Faulty CAPPs'][0]`.
pub(in crate::probe) fn path_to(document: &Value, node: &Value) -> String {
    let mut steps = Vec::new();
    walk(document, node, &mut steps);
    let mut path = String::from("$");
    for step in steps.iter().rev() {
        match step {
            Step::Name(name) if is_plain(name) => {
                path.push('.');
                path.push_str(name);
            }
            Step::Name(name) => {
                path.push_str("['");
                path.push_str(&name.replace('\\', "\\\\").replace('\'', "\\'"));
                path.push_str("']");
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// The innermost object around `node`, where that is not `document` itself.
pub(in crate::probe) fn enclosing<'v>(document: &'v Value, node: &Value) -> Option<&'v Value> {
    let mut steps = Vec::new();
    walk(document, node, &mut steps);
    let mut at = document;
    let mut found = None;
    for step in steps.iter().rev() {
        found = if at.is_object() { Some(at) } else { found };
        at = match step {
            Step::Name(name) => &at[*name],
            Step::Index(index) => &at[*index],
        };
    }
    found.filter(|found| !std::ptr::eq(*found, document))
}

#[derive(Debug)]
enum Step<'v> {
    Name(&'v str),
    Index(usize),
}

/// Collects the path from `at` to `node`, last step first; `false`: there is none. Nodes are compared by address, so that
/// the right one of equal nodes is found; the depth of a document is limited, and so is the recursion.
fn walk<'v>(at: &'v Value, node: &Value, steps: &mut Vec<Step<'v>>) -> bool {
    if std::ptr::eq(at, node) {
        return true;
    }
    let step = match at {
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(i, item)| walk(item, node, steps).then_some(Step::Index(i)))
        }
        Value::Object(fields) => {
            fields.iter().find_map(|(name, value)| walk(value, node, steps).then_some(Step::Name(name)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    match step {
        Some(step) => {
            steps.push(step);
            true
        }
        None => false,
    }
}

/// Whether a name can follow a dot.
fn is_plain(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|b| !b.is_ascii_digit()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests;
