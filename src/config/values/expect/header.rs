//! `expect.header`: rules for fields of the answer, by name. A value that no field can have is refused.

use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::{DeTable, DeValue};

use super::PatternText;
use crate::config::read::{At, Field, Node, Reader, Value, quoted};
use crate::config::table::table;
use crate::config::values::http::is_token;
use crate::model::policy::{HeaderMatch, HeaderRule};

/// How many fields of an answer may have rules.
const FIELDS_MAX: usize = 32;
/// What a rule can be.
const WHAT: &str = "a string, { matches = \"…\" }, { not_equals = \"…\" }, { present = true } or { absent = true }";

/// `expect.header`: rules by the name of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectHeaders(pub Vec<HeaderRule>);

table! {
    /// What a field must be: one rule.
    struct ExpectHeader {
        /// The field has a value that this regular expression matches.
        matches ["matches"]: PatternText;
        /// The field is present, and none of its values is this.
        not_equals ["not_equals"]: FieldValue;
        /// true: the field is present, whatever its value.
        present ["present"]: bool;
        /// true: the field is absent.
        absent ["absent"]: bool;
    }
    later []
}

impl Value for ExpectHeaders {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<ExpectHeaders> {
        let DeValue::Table(table) = node.get_ref() else {
            reader.wrong_type(node, "a table of names and rules, such as { X-App = \"a\", X-Id = { present = true } }");
            return None;
        };
        if !(1..=FIELDS_MAX).contains(&table.len()) {
            let expected = format!("1 to {FIELDS_MAX} fields");
            reader.mistake(node.span(), format!("{} fields", table.len())).expected(expected).done();
            return None;
        }
        let rules = rules(table, reader);
        rules.into_iter().collect::<Option<_>>().map(ExpectHeaders)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let rule = ExpectHeader::schema(generator);
        json_schema!({
            "type": "object", "minProperties": 1, "maxProperties": FIELDS_MAX,
            "propertyNames": { "pattern": r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" },
            "additionalProperties": { "anyOf": [{ "type": "string" }, rule] },
        })
    }
}

fn rules(table: &DeTable<'_>, reader: &mut Reader<'_>) -> Vec<Option<HeaderRule>> {
    let mut names: Vec<String> = Vec::new();
    let mut out = Vec::new();
    for (key, node) in table.iter() {
        let name = key.get_ref();
        let problem = match name.to_ascii_lowercase() {
            lower if names.contains(&lower) => Some("is written twice, in another case"),
            _ if !is_token(name) || name.len() > 256 => Some("is not a field name"),
            lower => {
                names.push(lower);
                None
            }
        };
        out.push(reader.within(name, |reader| {
            if let Some(problem) = problem {
                reader.mistake(key.span(), format!("the field {} {problem}", quoted(name))).done();
                return None;
            }
            let value = rule(node, reader)?;
            Some(HeaderRule { name: Arc::from(name.as_ref()), value })
        }));
    }
    out
}

fn rule(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<HeaderMatch> {
    if !matches!(node.get_ref(), DeValue::Table(_)) {
        return FieldValue::read(node, reader).map(|value| HeaderMatch::Equals(value.0));
    }
    let raw = ExpectHeader::read(node, reader)?;
    let (whole, written) = (raw.is_whole(), raw.written().len());
    if written > 1 {
        reader.mistake(node.span(), counted(written)).expected(WHAT).done();
        return None;
    }
    if written == 0 && whole {
        reader.mistake(node.span(), "no rule").expected(WHAT).done();
    }
    // A table with mistakes is already reported.
    if written == 0 || !whole {
        return None;
    }
    let flag = |field: &Field<bool>, name: &str, instead: &str, reader: &mut Reader<'_>| {
        let At { value, span } = field.get()?;
        if !value {
            let expected = format!("{name} = true, or {instead}");
            reader.mistake(span.clone(), format!("{name} = false is not a rule")).expected(expected).done();
        }
        Some(*value)
    };
    let matches = raw.matches.value().map(|pattern| HeaderMatch::Matches(pattern.0.clone()));
    let not_equals = raw.not_equals.value().map(|value| HeaderMatch::NotEquals(value.0.clone()));
    let present = flag(&raw.present, "present", "absent = true", reader).filter(|present| *present);
    let absent = flag(&raw.absent, "absent", "present = true", reader).filter(|absent| *absent);
    matches.or(not_equals).or(present.map(|_| HeaderMatch::Present)).or(absent.map(|_| HeaderMatch::Absent))
}

fn counted(rules: usize) -> &'static str {
    match rules {
        2 => "two rules",
        3 => "three rules",
        _ => "several rules",
    }
}

/// What the value of a field may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldValue(Arc<str>);

impl Value for FieldValue {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<FieldValue> {
        let text = reader.string(node, WHAT)?;
        if text.trim() != text || text.chars().any(char::is_control) || text.len() > 8 << 10 {
            let message = format!("{} can never be the value of a field", reader.written(node));
            let expected = "at most 8 KiB without control characters and spaces around them";
            reader.mistake(node.span(), message).expected(expected).done();
            return None;
        }
        Some(FieldValue(Arc::from(text)))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
