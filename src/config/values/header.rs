//! Fields that a probe sends. Decides which names may be set, which values must be kept outside the file, and what a
//! value may hold.

use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::fields::{fields_schema, read_fields};
use super::http::is_token;
use super::secret::{SecretSource, secret_or};
use crate::config::read::{Node, Reader, Value};
use crate::model::policy::HeaderText;

/// The longest value, in bytes.
const VALUE_BYTES_MAX: usize = 8 << 10;

/// Fields in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers(pub Vec<(Arc<str>, HeaderText)>);

impl Value for Headers {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Headers> {
        read_fields(node, reader, "{ X-App = \"portus\" }", name_problem, read_value).map(Headers)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let secret = SecretSource::schema(generator);
        fields_schema(&json_schema!({ "anyOf": [{ "type": "string" }, secret] }))
    }
}

fn read_value(name: &str, node: &Node<'_>, reader: &mut Reader<'_>) -> Option<HeaderText> {
    secret_or(name, node, reader, HeaderText::Secret, read_plain)
}

fn read_plain(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<HeaderText> {
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

/// Why a probe cannot send a field of this name, as a phrase after the name, with its space.
fn name_problem(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "host" => Some(" is set with the key `host`".to_owned()),
        "content-length" | "transfer-encoding" | "connection" | "keep-alive" | "proxy-connection" | "upgrade"
        | "te" | "trailer" | "expect" => Some(" belongs to the connection; the checker sets it itself".to_owned()),
        _ if name.len() > 256 => Some(" has too long a name".to_owned()),
        _ if !is_token(name) => Some(" is not a field name".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::names_a_secret;

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
