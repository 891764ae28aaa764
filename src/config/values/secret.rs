//! `{ file = "…" }` and `{ env = "…" }`, with an optional prefix: a secret outside the file. It is read here, through
//! `Env`, so that a missing one is a mistake of the configuration.

use std::path::Path;

use schemars::{Schema, SchemaGenerator};
use toml::de::DeValue;

use super::Text;
use crate::config::expand::is_variable_name;
use crate::config::read::{Field, Node, Reader, Value};
use crate::config::table::table;
use crate::model::Secret;
use crate::model::secret::{cut_line_end, names_a_secret};

/// The longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 8 << 10;
/// How a secret is written.
pub const WHAT: &str = "{ file = \"…\" } or { env = \"…\" }";

table! {
    /// A secret that is kept outside the file: exactly one of `file` and `env`.
    struct SecretSource {
        /// A file that holds the secret; one trailing line end is cut. Read again on reload. A relative path is taken from the working directory.
        file ["file"]: FilePath;
        /// The environment variable that holds the secret.
        env ["env"]: VariableName;
        /// A text before it, such as "Bearer ".
        prefix ["prefix"]: Prefix;
    }
    later []
}

/// A secret that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretValue(pub Secret);

impl Value for SecretValue {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<SecretValue> {
        if !matches!(node.get_ref(), DeValue::Table(_)) {
            refuse_literal(node, reader);
            return None;
        }
        let source = SecretSource::read(node, reader)?;
        let text = read_source(&source.file, &source.env, source.others, node, reader)?;
        let prefix = source.prefix.value().map_or("", |prefix| prefix.0.as_str());
        Some(SecretValue(text.within(prefix, "")))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        SecretSource::schema(generator)
    }
}

/// Reads the value of a field: a table says where a secret is, what has the name of a secret must be such a table, and `other`
/// reads what is left.
pub fn secret_or<T>(
    name: &str,
    node: &Node<'_>,
    reader: &mut Reader<'_>,
    secret: fn(Secret) -> T,
    other: impl FnOnce(&Node<'_>, &mut Reader<'_>) -> Option<T>,
) -> Option<T> {
    if matches!(node.get_ref(), DeValue::Table(_)) {
        return SecretValue::read(node, reader).map(|value| secret(value.0));
    }
    if names_a_secret(name) {
        refuse_literal(node, reader);
        return None;
    }
    other(node, reader)
}

/// Reports a secret that is written into the file, without showing it.
pub fn refuse_literal(node: &Node<'_>, reader: &mut Reader<'_>) {
    reader.mask(node.span());
    reader.mistake(node.span(), "a secret is not written into the configuration").expected(WHAT).done();
}

/// A secret as it was read.
#[derive(Debug)]
pub struct SecretText {
    /// Without the line end.
    pub text: String,
    /// The file that it was read from.
    file: Option<String>,
}

impl SecretText {
    /// The secret with the texts before and after it.
    pub fn within(&self, prefix: &str, suffix: &str) -> Secret {
        let secret = Secret::within(prefix, &self.text, suffix);
        match &self.file {
            Some(file) => secret.from_file(file, &self.text),
            None => secret,
        }
    }
}

/// Reads the text that `file` or `env` names; one trailing line end is cut. `others`: the table has unknown keys.
pub fn read_source(
    file: &Field<FilePath>,
    env: &Field<VariableName>,
    others: bool,
    node: &Node<'_>,
    reader: &mut Reader<'_>,
) -> Option<SecretText> {
    let (text, at, from) = match (file, env) {
        (Field::Good(file), Field::Absent) => {
            let read = reader.env().read_file(Path::new(&file.value.0));
            (read, file.span.clone(), format!("the secret file {:?}", file.value.0))
        }
        (Field::Absent, Field::Good(env)) => {
            let set = reader.env().var(&env.value.0);
            let text = set.and_then(|set| set.ok_or_else(|| "is not set".to_owned()));
            (text, env.span.clone(), format!("the environment variable {}", env.value.0))
        }
        (Field::Bad, _) | (_, Field::Bad) => return None,
        (Field::Good(_), Field::Good(_)) => {
            reader.mistake(node.span(), "`file` and `env` exclude each other").expected(WHAT).done();
            return None;
        }
        (Field::Absent, Field::Absent) if others => return None,
        (Field::Absent, Field::Absent) => {
            reader.mistake(node.span(), "a secret needs `file` or `env`").expected(WHAT).done();
            return None;
        }
    };
    let checked = text.and_then(|text| check(cut_line_end(&text)).map(str::to_owned));
    match checked {
        Ok(text) => Some(SecretText { text, file: file.value().map(|file| file.0.clone()) }),
        Err(problem) => {
            reader.mistake(at, format!("{from} {problem}")).done();
            None
        }
    }
}

fn check(text: &str) -> Result<&str, String> {
    match text {
        "" => Err("is empty".to_owned()),
        _ if text.len() > SECRET_BYTES_MAX => Err("holds more than 8 KiB".to_owned()),
        _ if text.chars().any(char::is_control) => Err("holds a control character or a second line".to_owned()),
        _ => Ok(text),
    }
}

/// The path of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(pub String);

impl Text for FilePath {
    fn what() -> String {
        "the path of a file".to_owned()
    }

    fn parse(text: &str) -> Result<FilePath, String> {
        match text {
            "" => Err(" names no file".to_owned()),
            _ if text.chars().any(char::is_control) => Err(" holds a control character".to_owned()),
            _ if text.len() > 4_096 => Err(" is longer than a path can be".to_owned()),
            _ => Ok(FilePath(text.to_owned())),
        }
    }
}

/// The name of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableName(pub String);

impl Text for VariableName {
    fn what() -> String {
        "the name of an environment variable".to_owned()
    }

    fn parse(text: &str) -> Result<VariableName, String> {
        if is_variable_name(text) {
            Ok(VariableName(text.to_owned()))
        } else {
            Err(" is not a variable name".to_owned())
        }
    }
}

/// A text before a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(pub String);

impl Text for Prefix {
    fn what() -> String {
        "a short text without control characters".to_owned()
    }

    fn parse(text: &str) -> Result<Prefix, String> {
        match text {
            _ if text.chars().any(char::is_control) => Err(" holds a control character".to_owned()),
            _ if text.len() > 256 => Err(" is longer than 256 bytes".to_owned()),
            _ => Ok(Prefix(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_cut_and_a_second_line_is_a_mistake() {
        for (text, secret) in [("a", Some("a")), ("a\n", Some("a")), ("a\r\n", Some("a")), (" a ", Some(" a "))] {
            assert_eq!(check(cut_line_end(text)).ok(), secret, "{text:?}");
        }
        for bad in ["", "\n", "a\n\n", "a\nb", "a\0", "a\rb"] {
            assert!(check(cut_line_end(bad)).is_err(), "{bad:?}");
        }
    }
}
