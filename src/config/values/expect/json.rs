//! Values that JSON nodes are compared with, converted from TOML. TOML has no null; `is = "null"` replaces it.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Number, Value as Json};
use toml::de::DeValue;

use crate::config::read::{Node, Reader, Value};
use crate::config::values::Word;
use crate::model::policy::JsonType;

/// How many values `in` may list.
const VALUES_MAX: usize = 256;

/// A JSON value to compare with.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonValue(pub Json);

impl Value for JsonValue {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<JsonValue> {
        json(node, reader).map(JsonValue)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean", "array", "object"] })
    }
}

const JSON_WHAT: &str = "a string, number, boolean, list or table";

fn json(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Json> {
    match node.get_ref() {
        DeValue::String(_) => reader.string(node, JSON_WHAT).map(Json::String),
        DeValue::Boolean(value) => Some(Json::Bool(*value)),
        DeValue::Integer(_) | DeValue::Float(_) => number(node, JSON_WHAT, reader).map(Json::Number),
        DeValue::Datetime(_) => refuse(node, "is a date, and JSON has none; write it as a string", JSON_WHAT, reader),
        DeValue::Array(list) => {
            let values: Vec<_> = list.iter().map(|node| json(node, reader)).collect();
            values.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
        }
        DeValue::Table(table) => {
            let pairs: Vec<_> = table
                .iter()
                .map(|(key, node)| json(node, reader).map(|value| (key.get_ref().to_string(), value)))
                .collect();
            pairs.into_iter().collect::<Option<serde_json::Map<_, _>>>().map(Json::Object)
        }
    }
}

/// The number at `node`; `what` is expected.
fn number(node: &Node<'_>, what: &str, reader: &mut Reader<'_>) -> Option<Number> {
    match node.get_ref() {
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Some(Number::from(number)),
            Err(_) => refuse(node, "does not fit into 64 bits", what, reader),
        },
        DeValue::Float(number) => {
            let finite = number.as_str().parse().ok().and_then(Number::from_f64);
            finite.or_else(|| refuse(node, "is not a JSON number", what, reader))
        }
        DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            reader.wrong_type(node, what);
            None
        }
    }
}

fn refuse<T>(node: &Node<'_>, problem: &str, what: &str, reader: &mut Reader<'_>) -> Option<T> {
    let message = format!("{} {problem}", reader.written(node));
    reader.mistake(node.span(), message).expected(what).done();
    None
}

/// Several values to compare with.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonValues(pub Vec<Json>);

impl Value for JsonValues {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<JsonValues> {
        let what = format!("a list of 1 to {VALUES_MAX} values");
        let DeValue::Array(list) = node.get_ref() else {
            reader.wrong_type(node, &what);
            return None;
        };
        if !(1..=VALUES_MAX).contains(&list.len()) {
            reader.mistake(node.span(), format!("{} values", list.len())).expected(what).done();
            return None;
        }
        let values: Vec<_> = list.iter().map(|node| json(node, reader)).collect();
        values.into_iter().collect::<Option<_>>().map(JsonValues)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let items = JsonValue::schema(generator);
        json_schema!({ "type": "array", "minItems": 1, "maxItems": VALUES_MAX, "items": items })
    }
}

/// A bound for numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonNumber(pub Number);

impl Value for JsonNumber {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<JsonNumber> {
        number(node, "a finite number without quotes, such as 10 or 0.5", reader).map(JsonNumber)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number" })
    }
}

impl Word for JsonType {
    const WORDS: &'static [(&'static str, JsonType)] = &[
        ("null", JsonType::Null),
        ("string", JsonType::String),
        ("number", JsonType::Number),
        ("boolean", JsonType::Boolean),
        ("array", JsonType::Array),
        ("object", JsonType::Object),
    ];

    fn meant(text: &str) -> Option<&'static str> {
        match text {
            "bool" => Some("boolean"),
            "int" | "integer" | "float" => Some("number"),
            "list" => Some("array"),
            "table" | "map" => Some("object"),
            "text" | "str" => Some("string"),
            "nil" | "none" => Some("null"),
            _ => None,
        }
    }
}
