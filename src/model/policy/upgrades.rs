//! The protocols to which requests may switch (RFC 9110, section 7.8): what a name looks like, and which are allowed.

use std::fmt;
use std::sync::Arc;

/// The longest name, in bytes, with its version.
pub const PROTOCOL_BYTES_MAX: usize = 64;

/// The protocols of one pool, at most [`Upgrades::MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrades(Arc<[Arc<str>]>);

impl Upgrades {
    /// The most protocols that a pool may have.
    pub const MAX: usize = 8;

    /// These, each of which [`is_protocol`]. A name without a version allows every version.
    pub fn new(protocols: impl IntoIterator<Item = Arc<str>>) -> Upgrades {
        Upgrades(protocols.into_iter().collect())
    }

    /// Whether a request may switch to this one, compared in any case.
    pub fn allow(&self, protocol: &[u8]) -> bool {
        self.0.iter().any(|allowed| match (allowed.contains('/'), protocol.split(|b| *b == b'/').next()) {
            (false, Some(name)) => name.eq_ignore_ascii_case(allowed.as_bytes()),
            (true, _) | (false, None) => protocol.eq_ignore_ascii_case(allowed.as_bytes()),
        })
    }
}

/// `[websocket, tls]`.
impl fmt::Display for Upgrades {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.0.join(", "))
    }
}

impl Default for Upgrades {
    fn default() -> Upgrades {
        Upgrades::new([Arc::from("websocket")])
    }
}

/// Whether this is the name of a protocol: a token, or two with a `/` between (RFC 9110, 7.8), of at most
/// [`PROTOCOL_BYTES_MAX`] bytes.
pub fn is_protocol(text: &[u8]) -> bool {
    let mut parts = text.split(|b| *b == b'/');
    let is_token = |part: &[u8]| !part.is_empty() && part.iter().all(|b| is_tchar(*b));
    let good = parts.next().is_some_and(is_token) && parts.next().is_none_or(is_token) && parts.next().is_none();
    good && text.len() <= PROTOCOL_BYTES_MAX
}

/// Whether this protocol carries HTTP requests. In a tunnel nobody would check them, so no pool may allow it.
pub fn carries_http(text: &str) -> bool {
    let name = text.split('/').next().unwrap_or_default();
    ["h2c", "h2", "http"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// RFC 9110, 5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_allows_every_version_and_a_version_only_itself() {
        let upgrades = Upgrades::new([Arc::from("tls"), Arc::from("foo/2")]);
        for (protocol, allowed) in [
            ("tls", true),
            ("TLS/1.0", true),
            ("tls2", false),
            ("tl", false),
            ("", false),
            ("Foo/2", true),
            ("foo", false),
            ("foo/3", false),
            ("foo/2/1", false),
            ("websocket", false),
        ] {
            assert_eq!(upgrades.allow(protocol.as_bytes()), allowed, "{protocol:?}");
        }
        assert!(Upgrades::default().allow(b"WebSocket") && !Upgrades::default().allow(b"h2c"));
        assert!(!Upgrades::new([]).allow(b"websocket"));
    }

    #[test]
    fn a_protocol_is_a_token_perhaps_with_a_version() {
        let long = "a".repeat(PROTOCOL_BYTES_MAX);
        for good in ["websocket", "TLS/1.0", "h2c", "a!#$%&'*+-.^_`|~", &long] {
            assert!(is_protocol(good.as_bytes()), "{good:?}");
        }
        for bad in ["", "/", "a/", "/a", "a/b/c", "a b", "a,b", "a;b", "a, b", "\"a\"", "ä", "a\0", &format!("{long}a")]
        {
            assert!(!is_protocol(bad.as_bytes()), "{bad:?}");
        }
        for (text, http) in
            [("h2c", true), ("H2C", true), ("HTTP/2.0", true), ("h2", true), ("http2", false), ("tls", false)]
        {
            assert_eq!(carries_http(text), http, "{text}");
        }
    }
}
