//! `basic_auth`: a user and a password that a check sends as one Authorization field (RFC 7617).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::secret::SecretValue;
use crate::config::read::{At, Field, Node, Reader, Value};
use crate::config::report::{Found, Report};
use crate::config::table::table;
use crate::model::Secret;

table! {
    /// The credentials of a check, sent as Authorization: Basic.
    struct BasicAuth {
        /// The user: no colon, no control characters; it may be empty.
        user ["user"]: UserName;
        /// The password: { file = "…" } or { env = "…" }. Read again on reload.
        password ["password"]: SecretValue;
    }
    required ["user", "password"]
    later []
}

impl BasicAuth {
    /// The value of the Authorization field. `key` is that of the table at `span`; what is missing is reported.
    pub fn authorization(&self, span: &std::ops::Range<usize>, key: &str, report: &mut Report) -> Option<Secret> {
        let missing = [("user", self.user.is_absent()), ("password", self.password.is_absent())];
        for (name, _) in missing.into_iter().filter(|(_, missing)| *missing && !self.others) {
            let found = Found::error(span.clone(), key, format!("`{name}` is missing"));
            report.add(found.expected("{ user = \"…\", password = { file = \"…\" } }, or { env = \"…\" }"));
        }
        match (&self.user, &self.password) {
            (Field::Good(At { value: user, .. }), Field::Good(At { value: password, .. })) => {
                Some(credentials(&user.0, password.0.expose()).made_of(&password.0))
            }
            (Field::Absent | Field::Bad | Field::Good(_), Field::Absent | Field::Bad | Field::Good(_)) => None,
        }
    }
}

fn credentials(user: &str, password: &str) -> Secret {
    Secret::with_prefix("Basic ", &BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// The user of Basic credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName(String);

impl Value for UserName {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<UserName> {
        const WHAT: &str = "a user of at most 255 bytes, without colons and control characters";
        let text = reader.string(node, WHAT)?;
        let Some(problem) = problem(&text) else { return Some(UserName(text)) };
        // What follows a colon may be the password.
        reader.mask(node.span());
        reader.mistake(node.span(), problem).expected(WHAT).done();
        None
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[^:]*$" })
    }
}

fn problem(user: &str) -> Option<&'static str> {
    match user {
        _ if user.contains(':') => Some("the user has a colon, which ends it; the password goes under `password`"),
        _ if user.chars().any(char::is_control) => Some("the user has a control character"),
        _ if user.len() > 255 => Some("the user is longer than 255 bytes"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quote::Excerpt;

    #[test]
    fn user_and_password_are_joined_and_encoded() {
        // The first two are the examples of RFC 7617, sections 2 and 2.1.
        for (user, password, value) in [
            ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("test", "123£", "Basic dGVzdDoxMjPCow=="),
            ("", "token", "Basic OnRva2Vu"),
            ("a", "b:c", "Basic YTpiOmM="),
        ] {
            assert_eq!(credentials(user, password).expose(), value);
        }
    }

    #[test]
    fn a_colon_would_move_into_the_password() {
        for bad in ["a:b", ":", "a\nb", &"a".repeat(256)] {
            assert!(problem(bad).is_some(), "{bad:?}");
        }
        for good in ["", "monitor", "ü b@c", &"a".repeat(255)] {
            assert!(problem(good).is_none(), "{good:?}");
        }
    }

    #[test]
    fn pair_encoding_and_password_are_masked_wherever_a_peer_sends_them_back() {
        let secret = credentials("monitor", "hunter2!");
        for answer in [
            "denied: Basic bW9uaXRvcjpodW50ZXIyIQ==",
            "denied: bW9uaXRvcjpodW50ZXIyIQ==",
            "denied: monitor:hunter2!",
            "user monitor, password hunter2!",
            "{\"password\":\"hunter2\\u0021\"}",
            "?auth=monitor%3Ahunter2%21",
        ] {
            let shown = Excerpt::of(answer.as_bytes()).without(secret.to_mask());
            let shown = String::from_utf8_lossy(shown.bytes()).into_owned();
            assert!(
                shown.contains("***") && !shown.contains("hunter2") && !shown.contains("bW9u"),
                "{answer}: {shown}"
            );
        }
    }
}
