//! Names of pools and listeners: `[A-Za-z0-9_.-]{1,64}`, cheap to clone. Decides only what a name may look like;
//! `config` reports bad names, and all other code gets valid ones.

use std::fmt;
use std::sync::Arc;

/// A pool's or listener's name: 1 to 64 of `A-Z a-z 0-9 _ . -`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// The longest name accepted, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

impl Name {
    /// Fails unless `text` is `[A-Za-z0-9_.-]{1,64}`.
    pub fn try_new(text: &str) -> Result<Name, NameError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(good) {
            return Err(NameError);
        }
        Ok(Name(Arc::from(text)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 64 of A-Z a-z 0-9 _ . -")]
pub struct NameError;

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_ascii_words() {
        for good in ["a", "api", "api-v1.2_x", &"x".repeat(64)] {
            assert!(Name::try_new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "ä", "a/b", "a\n", &"x".repeat(65)] {
            assert_eq!(Name::try_new(bad), Err(NameError), "{bad}");
        }
    }
}
