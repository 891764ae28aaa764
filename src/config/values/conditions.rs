//! `header`, `query` and `cookie` of a route: names, each with the whole value that a request must have there.

use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::http::is_token;
use crate::config::read::{Node, Reader, Value, quoted};
use crate::model::policy::{Condition, RequestPart};

/// How many names each of the three may have.
const NAMES_MAX: usize = 16;
/// The longest name and value, in bytes.
const BYTES_MAX: usize = 4_096;

/// `header`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderConditions(pub Vec<Condition>);

/// `query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryConditions(pub Vec<Condition>);

/// `cookie`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieConditions(pub Vec<Condition>);

impl Value for HeaderConditions {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        read(RequestPart::Header, node, reader).map(HeaderConditions)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        schema(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    }
}

impl Value for QueryConditions {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        read(RequestPart::Query, node, reader).map(QueryConditions)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        schema("^.+$")
    }
}

impl Value for CookieConditions {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        read(RequestPart::Cookie, node, reader).map(CookieConditions)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        schema(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    }
}

fn schema(names: &str) -> Schema {
    json_schema!({
        "type": "object", "minProperties": 1, "maxProperties": NAMES_MAX, "propertyNames": { "pattern": names },
        "additionalProperties": { "anyOf": [
            { "type": "string" },
            {
                "type": "object", "properties": { "present": { "const": true } }, "required": ["present"],
                "additionalProperties": false,
            },
        ] },
    })
}

fn read(part: RequestPart, node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Vec<Condition>> {
    let DeValue::Table(table) = node.get_ref() else {
        reader.wrong_type(node, "a table of names and values, such as { NAME = \"value\" }");
        return None;
    };
    if table.is_empty() || table.len() > NAMES_MAX {
        let message = format!("{} names", table.len());
        reader.mistake(node.span(), message).expected(format!("1 to {NAMES_MAX} names")).done();
        return None;
    }
    let mut out: Vec<Condition> = Vec::with_capacity(table.len());
    let mut whole = true;
    for (key, node) in table.iter() {
        let written = key.get_ref();
        let name: Arc<str> = match part {
            RequestPart::Header => written.to_ascii_lowercase().into(),
            RequestPart::Query | RequestPart::Cookie => Arc::from(written.as_ref()),
        };
        let problem = match name_problem(part, &name) {
            None if out.iter().any(|known| known.name == name) => Some("is written twice, in another case"),
            problem => problem,
        };
        let value = reader.within(written, |reader| {
            if let Some(problem) = problem {
                reader.mistake(key.span(), format!("{} {problem}", quoted(written))).done();
            }
            read_value(part, node, reader)
        });
        match value {
            Some(value) if problem.is_none() => out.push(Condition { part, name, value }),
            _ => whole = false,
        }
    }
    whole.then_some(out)
}

/// Why no request has something of this name, as a phrase after the name.
fn name_problem(part: RequestPart, name: &str) -> Option<&'static str> {
    match part {
        _ if name.is_empty() || name.len() > BYTES_MAX => Some("is not a name"),
        RequestPart::Header if name == "host" => Some("is compared by the key `host`"),
        RequestPart::Header if !is_token(name) => Some("is not a field name"),
        RequestPart::Cookie if !is_token(name) => Some("is not a cookie name"),
        RequestPart::Header | RequestPart::Query | RequestPart::Cookie => None,
    }
}

/// Some(None): any value.
#[expect(clippy::option_option, reason = "the outer one is a mistake")]
fn read_value(part: RequestPart, node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Option<Arc<str>>> {
    const WHAT: &str = "the whole value in quotes, or { present = true } for any";
    if let DeValue::Table(table) = node.get_ref() {
        let is_present = |value: &Node<'_>| matches!(value.get_ref(), DeValue::Boolean(true));
        let mut present = false;
        let mut whole = true;
        for (key, value) in table.iter() {
            let known = key.get_ref() == "present";
            let wrong = match (known, is_present(value)) {
                (true, true) => {
                    present = true;
                    continue;
                }
                (true, false) => (value.span(), format!("{} is no condition", reader.written(value))),
                (false, _) => (key.span(), format!("unknown key {}", quoted(key.get_ref()))),
            };
            reader.within(key.get_ref(), |reader| reader.mistake(wrong.0, wrong.1).expected(WHAT).done());
            whole = false;
        }
        if whole && !present {
            reader.mistake(node.span(), "an empty table is no condition").expected(WHAT).done();
        }
        return (whole && present).then_some(None);
    }
    let text = reader.string(node, WHAT)?;
    let problem = match part {
        _ if text.len() > BYTES_MAX => " is longer than 4 KiB",
        _ if text.chars().any(char::is_control) => " holds a control character",
        RequestPart::Header if text.trim() != text => " has white space at an end, which no value of a field has",
        RequestPart::Cookie if text.contains([';', ' ']) => " holds a character that no cookie has",
        RequestPart::Header | RequestPart::Query | RequestPart::Cookie => return Some(Some(Arc::from(text))),
    };
    let message = format!("{}{problem}", reader.written(node));
    reader.mistake(node.span(), message).expected(WHAT).done();
    None
}
