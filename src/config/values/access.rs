//! The values of `[access_log]`.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::http::is_token;
use super::{OneOf, Text, Word};
use crate::config::read::{Node, Reader, Value};
use crate::model::policy::{AccessClass, AccessFormat, AccessKey, AccessTarget, ShownQuery};
use crate::model::secret::names_a_secret;
use crate::model::written;

/// `to`; `None`: "off".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct To(pub Option<AccessTarget>);

impl Text for To {
    fn what() -> String {
        "\"off\", \"stdout\", the path of a file, or \"syslog:unix:/dev/log\"".to_owned()
    }

    fn parse(text: &str) -> Result<To, String> {
        let target = match text {
            "off" => return Ok(To(None)),
            "stdout" => AccessTarget::Stdout,
            _ => match text.strip_prefix("syslog:") {
                Some(server) => match server.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
                    Some(path) => AccessTarget::Syslog(PathBuf::from(path)),
                    None => return Err(" is not the unix socket of a syslog".to_owned()),
                },
                None if text.contains('/') => AccessTarget::File(PathBuf::from(text)),
                None => return Err(" is neither a target nor a path with a /".to_owned()),
            },
        };
        Ok(To(Some(target)))
    }

    fn suggest(text: &str) -> Option<String> {
        match text.to_ascii_lowercase().as_str() {
            "none" | "false" | "no" | "" => Some("\"off\"".to_owned()),
            "-" | "/dev/stdout" | "on" | "true" => Some("\"stdout\"".to_owned()),
            "syslog" => Some("\"syslog:unix:/dev/log\"".to_owned()),
            _ if text.ends_with(".log") && !text.contains('/') => Some(format!("\"./{text}\"")),
            _ => None,
        }
    }
}

impl Word for AccessFormat {
    const WORDS: &'static [(&'static str, AccessFormat)] =
        &[("json", AccessFormat::Json), ("combined", AccessFormat::Combined)];

    fn meant(text: &str) -> Option<&'static str> {
        ["apache", "ncsa", "common", "clf", "main"].contains(&text).then_some("combined")
    }
}

/// An entry of `only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Only(pub AccessClass);

impl Text for Only {
    fn what() -> String {
        "\"errors\", \"retried\" or \"slow>500ms\"".to_owned()
    }

    fn parse(text: &str) -> Result<Only, String> {
        let class = match text.split_once('>') {
            None if text == "errors" => AccessClass::Errors,
            None if text == "retried" => AccessClass::Retried,
            Some(("slow", time)) => AccessClass::Slow(written::duration(time.trim())?),
            _ => return Err(" is not known".to_owned()),
        };
        Ok(Only(class))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^(errors|retried|slow>.+)$")
    }
}

/// `query`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query(pub ShownQuery);

impl Value for Query {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Query> {
        const WHAT: &str = "true, false or \"keys\"";
        match node.get_ref() {
            DeValue::Boolean(true) => Some(Query(ShownQuery::Whole)),
            DeValue::Boolean(false) => Some(Query(ShownQuery::Nothing)),
            DeValue::String(text) if text == "keys" => Some(Query(ShownQuery::Keys)),
            _ => {
                let message = format!("{} is not known", reader.written(node));
                reader.mistake(node.span(), message).expected(WHAT).done();
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, { "enum": ["keys"] }] })
    }
}

/// An entry of `fields.drop`.
pub type Dropped = OneOf<AccessKey>;

impl Word for AccessKey {
    const WORDS: &'static [(&'static str, AccessKey)] = &{
        let mut words = [("", AccessKey::Time); AccessKey::ALL.len()];
        let mut at = 0;
        while at < words.len() {
            words[at] = (AccessKey::ALL[at].as_str(), AccessKey::ALL[at]);
            at += 1;
        }
        words
    };
}

/// An entry of `fields.headers`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownHeader(pub Arc<str>);

impl Text for ShownHeader {
    fn what() -> String {
        "the name of a field, such as \"X-Tenant\"".to_owned()
    }

    fn parse(text: &str) -> Result<ShownHeader, String> {
        match text {
            _ if !is_token(text) || text.len() > 256 => Err(" is not a field name".to_owned()),
            _ if names_a_secret(text) => Err(" is a secret by its name, which no log shows".to_owned()),
            _ => Ok(ShownHeader(Arc::from(text.to_ascii_lowercase()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_go_to_a_stream_a_file_or_a_syslog() {
        for (text, want) in [
            ("off", None),
            ("stdout", Some(AccessTarget::Stdout)),
            ("/var/log/a.log", Some(AccessTarget::File("/var/log/a.log".into()))),
            ("./a.log", Some(AccessTarget::File("./a.log".into()))),
            ("syslog:unix:/dev/log", Some(AccessTarget::Syslog("/dev/log".into()))),
        ] {
            assert_eq!(To::parse(text), Ok(To(want)), "{text}");
        }
        for bad in ["", "on", "a.log", "syslog", "syslog:unix:log", "syslog:127.0.0.1:514", "stderr"] {
            assert!(To::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(To::suggest("a.log").as_deref(), Some("\"./a.log\""));
    }

    #[test]
    fn classes_and_headers_are_named() {
        assert_eq!(Only::parse("slow>1.5s"), Ok(Only(AccessClass::Slow(Duration::from_millis(1_500)))));
        assert!(["slow", "slow>", "slow>x", "error", "slow<1s"].iter().all(|bad| Only::parse(bad).is_err()));
        assert_eq!(ShownHeader::parse("X-Tenant"), Ok(ShownHeader("x-tenant".into())));
        assert!(
            ["Authorization", "cookie", "x-auth-token", "a b", ""].iter().all(|bad| ShownHeader::parse(bad).is_err())
        );
    }
}
