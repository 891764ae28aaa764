//! Fields that a route sets or takes out, and how every table of fields is read. Decides which names would change the framing or
//! the connection, and what a value may hold.

use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::Text;
use super::http::{HostField, is_token};
use super::secret::{SecretSource, secret_or};
use super::template::{self, parts};
use crate::config::read::{Node, Reader, Value, quoted};
use crate::http1::Known;
use crate::model::policy::FieldText;
use crate::model::template::Template;

/// How many fields a table may have.
const FIELDS_MAX: usize = 64;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// `set_request_headers`, in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFields(pub Vec<(Arc<str>, FieldText)>);

/// `set_response_headers` and `respond.headers`, in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseFields(pub Vec<(Arc<str>, Template)>);

/// A name of `remove_request_headers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFieldName(pub Arc<str>);

/// A name of `remove_response_headers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseFieldName(pub Arc<str>);

impl Value for RequestFields {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<RequestFields> {
        read_fields(node, reader, EXAMPLE, set_in_request, read_request_value).map(RequestFields)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let secret = SecretSource::schema(generator);
        fields_schema(&json_schema!({ "anyOf": [{ "type": "string" }, secret] }))
    }
}

impl Value for ResponseFields {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<ResponseFields> {
        let value = |_: &str, node: &Node<'_>, reader: &mut Reader<'_>| read_template(node, reader);
        read_fields(node, reader, EXAMPLE, set_in_response, value).map(ResponseFields)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        fields_schema(&json_schema!({ "type": "string" }))
    }
}

impl Text for RequestFieldName {
    fn what() -> String {
        "the name of a field, such as \"X-Debug\"".to_owned()
    }

    fn parse(text: &str) -> Result<RequestFieldName, String> {
        match Known::of(text.as_bytes()) {
            Known::Host => Err(" is in every request".to_owned()),
            _ => own_name(text).map(RequestFieldName),
        }
    }

    fn pattern() -> Option<&'static str> {
        Some(NAME)
    }
}

impl Text for ResponseFieldName {
    fn what() -> String {
        RequestFieldName::what()
    }

    fn parse(text: &str) -> Result<ResponseFieldName, String> {
        match text {
            _ if text.eq_ignore_ascii_case("date") => Err(" is in every response".to_owned()),
            _ => own_name(text).map(ResponseFieldName),
        }
    }

    fn pattern() -> Option<&'static str> {
        Some(NAME)
    }
}

const NAME: &str = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

const EXAMPLE: &str = "{ X-App = \"shop\" }";

/// The schema of a table of fields with such values.
pub(super) fn fields_schema(value: &Schema) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": FIELDS_MAX, "propertyNames": { "pattern": NAME }, "additionalProperties": value,
    })
}

/// Reads a table of fields in file order: at most 64, each name once in any case. `problem_of`: why a name is refused, as a phrase
/// after it, which begins with a space.
pub(super) fn read_fields<T>(
    node: &Node<'_>,
    reader: &mut Reader<'_>,
    example: &str,
    problem_of: fn(&str) -> Option<String>,
    value_of: fn(&str, &Node<'_>, &mut Reader<'_>) -> Option<T>,
) -> Option<Vec<(Arc<str>, T)>> {
    let DeValue::Table(table) = node.get_ref() else {
        reader.wrong_type(node, &format!("a table of names and values, such as {example}"));
        return None;
    };
    if table.len() > FIELDS_MAX {
        let message = format!("{} fields are too many", table.len());
        reader.mistake(node.span(), message).expected(format!("at most {FIELDS_MAX}")).done();
        return None;
    }
    let mut out: Vec<(Arc<str>, T)> = Vec::new();
    let mut whole = true;
    for (key, node) in table.iter() {
        let name = key.get_ref();
        let twice = out.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let problem = if twice { Some(" is written twice, in another case".to_owned()) } else { problem_of(name) };
        let value = reader.within(name, |reader| {
            if let Some(problem) = &problem {
                reader.mistake(key.span(), format!("the field {}{problem}", quoted(name))).done();
            }
            value_of(name, node, reader)
        });
        match value {
            Some(value) if problem.is_none() => out.push((Arc::from(name.as_ref()), value)),
            _ => whole = false,
        }
    }
    whole.then_some(out)
}

fn set_in_request(name: &str) -> Option<String> {
    if name.eq_ignore_ascii_case("host") { None } else { own_name(name).err() }
}

fn set_in_response(name: &str) -> Option<String> {
    match name {
        _ if name.eq_ignore_ascii_case("date") => Some(" is set by whoever makes the response".to_owned()),
        _ => own_name(name).err(),
    }
}

/// A name that frames no message and belongs to no connection, or what is wrong with it.
fn own_name(name: &str) -> Result<Arc<str>, String> {
    match Known::of(name.as_bytes()) {
        _ if name.len() > NAME_BYTES_MAX => Err(" is longer than 256 bytes".to_owned()),
        _ if !is_token(name) => Err(" is not a field name".to_owned()),
        _ if name.eq_ignore_ascii_case("trailer") => Err(FRAMING.to_owned()),
        Known::Host
        | Known::ContentLength
        | Known::TransferEncoding
        | Known::Connection
        | Known::KeepAlive
        | Known::ProxyConnection
        | Known::Te
        | Known::Upgrade
        | Known::Http2Settings
        | Known::Expect
        | Known::ProxyAuth
        | Known::Underscored => Err(FRAMING.to_owned()),
        Known::Authorization | Known::Cookie | Known::Forwarded | Known::Other => Ok(Arc::from(name)),
    }
}

const FRAMING: &str = " frames the message or belongs to the connection, which only roundsman decides";

fn read_request_value(name: &str, node: &Node<'_>, reader: &mut Reader<'_>) -> Option<FieldText> {
    secret_or(name, node, reader, FieldText::Secret, |node, reader| read_request_template(name, node, reader))
}

fn read_request_template(name: &str, node: &Node<'_>, reader: &mut Reader<'_>) -> Option<FieldText> {
    let template = read_template(node, reader)?;
    let host = || template.literal().is_some_and(|host| HostField::parse(host).is_ok());
    if name.eq_ignore_ascii_case("host") && !host() {
        let message = format!("{} is no host", reader.written(node));
        reader.mistake(node.span(), message).expected("a host such as \"shop.internal\", without {…}").done();
        return None;
    }
    Some(FieldText::Template(template))
}

fn read_template(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Template> {
    let what = format!("a string; {}", parts());
    let text = reader.string(node, &what)?;
    let read = match text.trim() == text && !text.chars().any(char::is_control) {
        true => template::read(&text),
        false if text.chars().any(char::is_control) => Err(" holds a control character".to_owned()),
        false => Err(" has white space at an end, which no value of a field has".to_owned()),
    };
    match read {
        Ok(template) => Some(template),
        Err(problem) => {
            let message = format!("{}{problem}", reader.written(node));
            reader.mistake(node.span(), message).expected(what).done();
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_frame_a_message_or_belong_to_a_connection_are_refused() {
        for bad in [
            "Content-Length",
            "content_length",
            "TRANSFER-ENCODING",
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Upgrade",
            "HTTP2-Settings",
            "Expect",
            "Proxy-Authorization",
            "",
            "a b",
            "a:",
            "a\r\nb",
            "ä",
        ] {
            assert!(set_in_request(bad).is_some() && RequestFieldName::parse(bad).is_err(), "{bad:?}");
            assert!(set_in_response(bad).is_some() && ResponseFieldName::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["X-App", "Accept-Encoding", "X-Forwarded-Prefix", "X-Real-IP", "Cookie", "Set-Cookie", "Server"] {
            assert!(set_in_request(good).is_none() && RequestFieldName::parse(good).is_ok(), "{good:?}");
            assert!(set_in_response(good).is_none() && ResponseFieldName::parse(good).is_ok(), "{good:?}");
        }
        assert!(set_in_request("host").is_none() && RequestFieldName::parse("Host").is_err());
        assert!(set_in_response("Host").is_some() && set_in_response("date").is_some());
    }
}
