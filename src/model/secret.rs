//! A text that is never printed. `Debug` and `Display` show `***`; the only way out is [`Secret::expose`], called where
//! the bytes go onto the wire and nowhere else.

use std::fmt;
use std::sync::Arc;

/// A credential, masked in every kind of output.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a text read from a file or the environment.
    pub fn new(text: &str) -> Secret {
        Secret(Arc::from(text))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
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

/// Whether `text` holds the name of something that must not be shown.
pub fn names_a_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ["authorization", "cookie", "x-api-key", "token", "secret", "password"].iter().any(|word| lower.contains(word))
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
}
