//! The authority of a request: what stands in its Host field or in its absolute target, and when two of them are the same.
//! What a host may look like is for [`normalise_host`].

use crate::route::normalise_host;

/// A host and, if one was written, its port.
#[derive(Debug, Clone, Copy)]
pub struct Authority<'a> {
    /// As it was written: this is what goes upstream.
    pub text: &'a str,
    /// Without port and without one trailing dot, in the case in which it came; an IPv6 address keeps its brackets.
    pub host: &'a str,
    /// The port; `None` also for an empty one (`host:`).
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads one; `None` for anything else, the empty text included.
    pub fn parse(bytes: &'a [u8]) -> Option<Authority<'a>> {
        let host = normalise_host(bytes).ok()?;
        let text = std::str::from_utf8(bytes).ok()?;
        let port = text[host.len()..].trim_start_matches('.').strip_prefix(':').filter(|digits| !digits.is_empty());
        let port = match port {
            Some(digits) => Some(digits.parse().ok()?),
            None => None,
        };
        Some(Authority { text, host, port })
    }

    /// Whether both name one host and port, where `default` is the port of the scheme.
    pub fn agrees(&self, other: &Authority<'_>, default: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for (text, host, port) in [
            ("a", "a", None),
            ("Example.com.", "Example.com", None),
            ("example.com.:81", "example.com", Some(81)),
            ("a:8080", "a", Some(8080)),
            ("a:", "a", None),
            ("a_b.c~d:0", "a_b.c~d", Some(0)),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[2001:DB8::1]:443", "[2001:DB8::1]", Some(443)),
        ] {
            let got = Authority::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((got.text, got.host, got.port), (text, host, port));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_authority() {
        let long = "a".repeat(256);
        for text in [
            "",
            ".",
            "..",
            ".a",
            "a..",
            "a..b",
            ":80",
            "a@b",
            "u:p@b",
            "a/b",
            "a\\b",
            "a b",
            "a,b",
            "a?b",
            "a#b",
            "a:99999",
            "a:65536",
            "a:+80",
            "a:80:80",
            "a:000080",
            "::1",
            "[::1",
            "[::1]x",
            "[a]",
            "[::1]:x",
            "[fe80::1%25eth0]",
            "é",
            &long,
        ] {
            assert!(Authority::parse(text.as_bytes()).is_none(), "{text:?}");
        }
    }

    #[test]
    fn two_spellings_agree_but_for_case_dot_and_default_port() {
        let agrees = |a: &str, b: &str| {
            let (a, b) = (Authority::parse(a.as_bytes()).unwrap(), Authority::parse(b.as_bytes()).unwrap());
            a.agrees(&b, 80)
        };
        assert!(agrees("A.example", "a.EXAMPLE.:80"));
        assert!(!agrees("a", "a:81"));
        assert!(!agrees("a", "b"));
    }
}
