//! Fields that a probe sends. Decides which names may be set, which values must be kept outside the file, and what a
//! value may hold.

use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::http::is_token;
use super::secret::{SecretSource, SecretValue, refuse_literal};
use crate::config::read::{Node, Reader, Value, quoted};
use crate::model::policy::HeaderText;
use crate::model::secret::names_a_secret;

/// How many fields a probe may be given.
const FIELDS_MAX: usize = 64;
/// The longest value, in bytes.
const VALUE_BYTES_MAX: usize = 8 << 10;

/// Fields in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers(pub Vec<(Arc<str>, HeaderText)>);

impl Value for Headers {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Headers> {
        let DeValue::Table(table) = node.get_ref() else {
            reader.wrong_type(node, "a table of names and values, such as { X-App = \"portus\" }");
            return None;
        };
        if table.len() > FIELDS_MAX {
            reader.mistake(node.span(), format!("{} fields are too many", table.len())).expected("at most 64").done();
            return None;
        }
        let mut out: Vec<(Arc<str>, HeaderText)> = Vec::new();
        let mut whole = true;
        for (key, node) in table.iter() {
            let name = key.get_ref();
            let twice = out.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
            let problem = if twice { Some("is written twice, in another case".to_owned()) } else { name_problem(name) };
            let value = reader.within(name, |reader| {
                if let Some(problem) = &problem {
                    reader.mistake(key.span(), format!("the field {} {problem}", quoted(name))).done();
                }
                read_value(name, node, reader)
            });
            match value {
                Some(value) if problem.is_none() => out.push((Arc::from(name.as_ref()), value)),
                _ => whole = false,
            }
        }
        whole.then_some(Headers(out))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let secret = SecretSource::schema(generator);
        json_schema!({
            "type": "object", "maxProperties": FIELDS_MAX,
            "propertyNames": { "pattern": r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" },
            "additionalProperties": { "anyOf": [{ "type": "string" }, secret] },
        })
    }
}

fn read_value(name: &str, node: &Node<'_>, reader: &mut Reader<'_>) -> Option<HeaderText> {
    if matches!(node.get_ref(), DeValue::Table(_)) {
        return SecretValue::read(node, reader).map(|secret| HeaderText::Secret(secret.0));
    }
    if names_a_secret(name) {
        refuse_literal(node, reader);
        return None;
    }
    let text = reader.string(node, "a string, { file = \"…\" } or { env = \"…\" }")?;
    let problem = match &text {
        _ if text.chars().any(char::is_control) => " holds a control character",
        _ if text.len() > VALUE_BYTES_MAX => " is longer than 8 KiB",
        _ => return Some(HeaderText::Plain(Arc::from(text))),
    };
    let message = format!("{}{problem}", reader.written(node));
    reader.mistake(node.span(), message).done();
    None
}

/// Why a probe cannot send a field of this name, as a phrase after the name.
fn name_problem(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "host" => Some("is set with the key `host`".to_owned()),
        "content-length" | "transfer-encoding" | "connection" | "keep-alive" | "proxy-connection" | "upgrade"
        | "te" | "trailer" | "expect" => Some("belongs to the connection; the checker sets it itself".to_owned()),
        _ if name.len() > 256 => Some("has too long a name".to_owned()),
        _ if !is_token(name) => Some("is not a field name".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_change_the_framing_are_refused() {
        for bad in ["Host", "content-LENGTH", "Transfer-Encoding", "Connection", "", "a b", "a:", "a\r\nb", "ä"] {
            assert!(name_problem(bad).is_some(), "{bad:?}");
        }
        for good in ["Accept", "User-Agent", "X-App"] {
            assert!(name_problem(good).is_none(), "{good:?}");
        }
    }

    #[test]
    fn names_of_secrets_are_known_in_any_case() {
        for secret in ["Authorization", "proxy-authorization", "Cookie", "X-Api-Key", "x-AUTH-Token", "My-Password"] {
            assert!(names_a_secret(secret), "{secret}");
        }
        assert!(!names_a_secret("Accept"));
    }
}
