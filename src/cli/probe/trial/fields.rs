//! `--header` and `--header-file`: the header fields that a check sends. A credential becomes an environment variable of
//! the printed lines.

use super::args::Hidden;
use super::{quoted_key, string};
use crate::model::Secret;
use crate::model::secret::names_a_secret;

/// Parses `NAME: VALUE`.
pub fn header(text: &Hidden) -> Result<(String, Secret), String> {
    let (name, value) = text.0.split_once(':').ok_or("--header must be 'NAME: VALUE'")?;
    Ok((name.trim().to_owned(), Secret::new(value.trim())))
}

/// A header field whose value is in a file.
#[derive(Debug, Clone)]
pub struct HeaderFile {
    name: String,
    prefix: String,
    path: String,
}

impl HeaderFile {
    /// `NAME=PATH`, or `NAME=Bearer @PATH`, with curl's mark for a file.
    pub fn new(text: &str) -> Result<HeaderFile, String> {
        let (name, value) = text.split_once('=').ok_or("--header-file must be NAME=PATH")?;
        let (prefix, path) = match value.split_once(" @") {
            Some((prefix, path)) => (format!("{} ", prefix.trim()), path),
            None => (String::new(), value.strip_prefix('@').unwrap_or(value)),
        };
        Ok(HeaderFile { name: name.trim().to_owned(), prefix, path: path.to_owned() })
    }

    /// The entry of `headers`.
    pub fn write(&self) -> String {
        let prefix =
            if self.prefix.is_empty() { String::new() } else { format!(", prefix = {}", string(&self.prefix)) };
        format!("{} = {{ file = {}{prefix} }}", quoted_key(&self.name), string(&self.path))
    }
}

/// A header field to send; a credential becomes an environment variable.
pub fn write_field(name: &str, value: &str, vars: &mut Vec<(String, Secret)>) -> String {
    let scheme = value.split_once(' ').filter(|(scheme, rest)| {
        let known = ["bearer", "basic", "digest", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        known && !rest.trim().is_empty()
    });
    if scheme.is_none() && !names_a_secret(name) {
        return format!("{} = {}", quoted_key(name), string(value));
    }
    let (prefix, secret) = match scheme {
        Some((scheme, rest)) => (format!(", prefix = {}", string(&format!("{scheme} "))), rest),
        None => (String::new(), value),
    };
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let mut variable = format!("PROBE_{}", name.chars().map(upper).collect::<String>());
    while vars.iter().any(|(known, _)| *known == variable) {
        variable.push('_');
    }
    let field = format!("{} = {{ env = {}{prefix} }}", quoted_key(name), string(&variable));
    vars.push((variable, Secret::new(secret)));
    field
}
