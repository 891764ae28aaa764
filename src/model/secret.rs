//! A text that is never printed. `Debug` and `Display` show `***`; the only access is [`Secret::expose`], called where
//! the bytes are sent and nowhere else.

use std::fmt;
use std::sync::Arc;

/// A credential, masked in every kind of output.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret {
    text: Arc<str>,
    /// Length of the text added before it, such as `Bearer `, in bytes.
    prefix_bytes: usize,
    /// Length of the text added after it, such as a line end, in bytes.
    suffix_bytes: usize,
    /// The file it was read from.
    source: Option<SecretSource>,
}

/// The file that a secret was read from.
#[derive(Clone, PartialEq, Eq, Hash)]
struct SecretSource {
    file: Arc<str>,
    /// Its content, without the line end that is removed.
    read: Arc<str>,
}

/// The secret in a file's content: editors add a line end that is not part of the secret; a second one is.
pub fn cut_line_end(text: &str) -> &str {
    let cut = text.strip_suffix('\n').unwrap_or(text);
    cut.strip_suffix('\r').unwrap_or(cut)
}

impl Secret {
    /// Wraps a text read from a file or the environment.
    pub fn new(text: &str) -> Secret {
        Secret::with_prefix("", text)
    }

    /// The same with a public text before it.
    pub fn with_prefix(prefix: &str, text: &str) -> Secret {
        Secret::within(prefix, text, "")
    }

    /// The same with public texts before and after it.
    pub fn within(prefix: &str, text: &str, suffix: &str) -> Secret {
        let whole = Arc::from(format!("{prefix}{text}{suffix}"));
        Secret { text: whole, prefix_bytes: prefix.len(), suffix_bytes: suffix.len(), source: None }
    }

    /// Records that it was read from this file, which held `read`.
    pub fn from_file(self, file: &str, read: &str) -> Secret {
        let source = SecretSource { file: file.into(), read: cut_line_end(read).into() };
        Secret { source: Some(source), ..self }
    }

    /// Records the same file as `other`'s: it holds `other` in another form.
    pub fn made_of(self, other: &Secret) -> Secret {
        Secret { source: other.source.clone(), ..self }
    }

    /// The file it was read from, as the configuration names it; `None`: from elsewhere.
    pub fn file(&self) -> Option<&str> {
        self.source.as_ref().map(|source| &*source.file)
    }

    /// Whether a file with this content would give the same secret.
    pub fn is_held_by(&self, content: &str) -> bool {
        self.source.as_ref().is_some_and(|source| *source.read == *cut_line_end(content))
    }

    /// The text itself, with its prefix and suffix.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The texts to mask where a peer may have sent it back: the whole, and the part between prefix and suffix.
    pub fn to_mask(&self) -> impl Iterator<Item = &str> {
        let end = self.text.len() - self.suffix_bytes;
        [&*self.text, &self.text[self.prefix_bytes..end]].into_iter()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whether `text` names something that must not be written in a configuration file directly: the documented names.
pub fn names_a_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ["authorization", "cookie", "x-api-key", "token", "secret", "password"].iter().any(|word| lower.contains(word))
}

/// Whether a value with this name must not be shown: the names of [`names_a_secret`], and other usual names of
/// credentials, in any case and with any separators. Errs on the side of hiding.
pub fn may_name_a_secret(text: &str) -> bool {
    let joined: String = text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    const PARTS: [&str; 20] = [
        "authorization",
        "cookie",
        "apikey",
        "token",
        "secret",
        "password",
        "passwd",
        "passwort",
        "passphrase",
        "pwd",
        "credential",
        "privatekey",
        "accesskey",
        "signingkey",
        "encryptionkey",
        "sharedkey",
        "sshkey",
        "bearer",
        "sessionid",
        "connectionstring",
    ];
    const WHOLE: [&str; 4] = ["pass", "psk", "dsn", "pin"];
    // Neither of its two values is a secret.
    let asks_for_certificates = joined == "clientauth";
    PARTS.iter().any(|part| joined.contains(part))
        || WHOLE.contains(&&*joined)
        || (joined.ends_with("auth") && !asks_for_certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_in_every_output() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_secret_knows_its_file_and_whether_that_still_holds_it() {
        let secret = Secret::with_prefix("Bearer ", "hunter2").from_file("token", "hunter2\n");
        assert_eq!((secret.file(), format!("{secret:?}").as_str()), (Some("token"), "***"));
        for same in ["hunter2", "hunter2\n", "hunter2\r\n"] {
            assert!(secret.is_held_by(same), "{same:?}");
        }
        for other in ["", "hunter3", "hunter2\n\n", "Bearer hunter2"] {
            assert!(!secret.is_held_by(other), "{other:?}");
        }
        assert_eq!(Secret::new("hunter2").file(), None);
    }

    #[test]
    fn a_secret_is_masked_with_and_without_its_prefix() {
        let secret = Secret::with_prefix("key=", "a b");
        assert_eq!(secret.expose(), "key=a b");
        assert_eq!(secret.to_mask().collect::<Vec<_>>(), ["key=a b", "a b"]);
        let secret = Secret::within("AUTH ", "a b", "\r\n");
        assert_eq!(secret.to_mask().collect::<Vec<_>>(), ["AUTH a b\r\n", "a b"]);
        assert_eq!(format!("{secret:?}"), "***");
    }

    #[test]
    fn names_of_credentials_are_recognised_in_every_spelling() {
        for name in [
            "Authorization",
            "proxy-AUTHORIZATION",
            "Set-Cookie",
            "X-Api-Key",
            "x_api_key",
            "apiKey",
            "API KEY",
            "db.password",
            "passwd",
            "PWD",
            "pass",
            "client-secret",
            "refreshToken",
            "private_key",
            "private-key-pem",
            "Credentials",
            "basic_auth",
            "X-Auth",
            "AWS_SECRET_ACCESS_KEY",
            "passphrase",
        ] {
            assert!(may_name_a_secret(name), "{name}");
        }
        for name in
            ["address", "path", "client_auth", "author", "key", "host", "compass", "interval", "X-Request-Id", ""]
        {
            assert!(!may_name_a_secret(name), "{name}");
        }
    }
}
