//! `require`: how many of several checks must pass.

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use crate::config::read::{Node, Reader, Value, nearest};
use crate::model::policy;

const WHAT: &str = "\"all\", \"any\" or a number from 1 to the number of checks";

/// The value of `require`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Require(pub policy::Require);

impl Value for Require {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Require> {
        if let DeValue::Integer(number) = node.get_ref() {
            let number = u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| *n > 0);
            if number.is_none() {
                let message = format!("{} is out of range", reader.written(node));
                reader.mistake(node.span(), message).expected(WHAT).done();
            }
            return number.map(|number| Require(policy::Require::Count(number)));
        }
        match reader.string(node, WHAT)?.as_str() {
            "all" => Some(Require(policy::Require::All)),
            "any" => Some(Require(policy::Require::Any)),
            text => {
                let near = nearest(text, ["all", "any"].into_iter()).map(|word| format!("\"{word}\""));
                let message = format!("{} is not known", reader.written(node));
                reader.mistake(node.span(), message).expected(WHAT).suggestion(near).done();
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "enum": ["all", "any"] }, { "type": "integer", "minimum": 1, "maximum": 16 },
            { "type": "string", "pattern": r"\$\{" },
        ] })
    }
}
