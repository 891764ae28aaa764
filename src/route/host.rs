//! The normal form of a host: the part of a Host field or an authority that takes part in routing. Decides what a host
//! may look like (RFC 9110, section 7.2) and removes port and trailing dot; comparing code ignores case.

use std::net::Ipv6Addr;

/// The longest host, without port and trailing dot, in bytes (a DNS name has at most 253).
pub const HOST_BYTES_MAX: usize = 255;

/// Why a text is not a host. For a request: 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing before the port.
    #[error("the host is empty")]
    Empty,
    /// More than [`HOST_BYTES_MAX`] bytes.
    #[error("a host is at most {HOST_BYTES_MAX} bytes")]
    Long,
    /// A byte that a host cannot contain, an empty label, or brackets without an IPv6 address.
    #[error("a host is a name, an IPv4 address, or an IPv6 address in brackets")]
    Malformed,
    /// The host is followed by something other than `:` and a port up to 65535.
    #[error("a port is 0 to 65535")]
    Port,
}

/// The host of `field` (`host`, `host:port`, `[v6]:port`) without port and trailing dot, in its original case. An IPv6
/// address keeps its brackets. Does not allocate.
pub fn normalise_host(field: &[u8]) -> Result<&str, HostError> {
    let plain = plain_host(field);
    let field = std::str::from_utf8(field).map_err(|_| HostError::Malformed)?;
    if let Some(length) = plain {
        return Ok(&field[..length]);
    }
    let (host, port) = match field.find(']') {
        Some(end) => field.split_at(end + 1),
        None if field.starts_with('[') => return Err(HostError::Malformed),
        None => field.split_at(field.find(':').unwrap_or(field.len())),
    };
    check_port(port)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.len() {
        0 => return Err(HostError::Empty),
        1..=HOST_BYTES_MAX => {}
        _ => return Err(HostError::Long),
    }
    let good = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok()),
        None => host.split('.').all(|label| !label.is_empty() && label.bytes().all(is_host_byte)),
    };
    if good { Ok(host) } else { Err(HostError::Malformed) }
}

/// The length of the host in a field that is a plain name or IPv4 address, with or without a port of up to four digits. Most
/// are; `None` says nothing about the others.
fn plain_host(field: &[u8]) -> Option<usize> {
    let mut label_is_empty = true;
    for (at, byte) in field.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => label_is_empty = false,
            b'.' if !label_is_empty => label_is_empty = true,
            b':' if !label_is_empty && at <= HOST_BYTES_MAX => {
                let port = &field[at + 1..];
                return (matches!(port.len(), 1..=4) && port.iter().all(u8::is_ascii_digit)).then_some(at);
            }
            _ => return None,
        }
    }
    (!label_is_empty && field.len() <= HOST_BYTES_MAX).then_some(field.len())
}

/// Accepts nothing, `:` alone (RFC 3986, section 3.2.3), or `:` and a number that fits.
fn check_port(text: &str) -> Result<(), HostError> {
    let Some(port) = text.strip_prefix(':') else {
        return if text.is_empty() { Ok(()) } else { Err(HostError::Malformed) };
    };
    let digits = port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    if port.is_empty() || (digits && port.parse::<u16>().is_ok()) { Ok(()) } else { Err(HostError::Port) }
}

/// `reg-name` of RFC 3986 without the comma, which a reader of a list would take for a separator of two hosts.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_plain_host_is_what_it_is_in_all_other_respects(field in "[a.:0-9-]{0,12}") {
            if let Some(length) = plain_host(field.as_bytes()) {
                // With a character that makes it not plain, and is allowed anywhere in a name.
                let odd = format!("~{field}");
                prop_assert_eq!(normalise_host(odd.as_bytes()).map(str::len), Ok(length + 1));
                prop_assert_eq!(normalise_host(field.as_bytes()), Ok(&field[..length]));
            }
        }
    }

    #[test]
    fn port_and_trailing_dot_do_not_belong_to_a_host() {
        for (field, want) in [
            ("example.com", "example.com"),
            ("Example.COM:8080", "Example.COM"),
            ("example.com.", "example.com"),
            ("example.com.:80", "example.com"),
            ("example.com:", "example.com"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[2001:DB8::1]", "[2001:DB8::1]"),
            ("a_b-c", "a_b-c"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(normalise_host(field.as_bytes()), Ok(want), "{field}");
        }
    }

    #[test]
    fn anything_but_one_host_is_rejected() {
        use HostError::*;
        let long = "a".repeat(256);
        for (field, error) in [
            ("", Empty),
            (":80", Empty),
            (".", Empty),
            ("..", Malformed),
            ("a..b", Malformed),
            (".example.com", Malformed),
            ("example.com..", Malformed),
            ("a b", Malformed),
            ("a,b", Malformed),
            ("a/b", Malformed),
            ("user@a", Malformed),
            ("a\\b", Malformed),
            ("bücher.example", Malformed),
            ("::1", Port),
            ("fe80::1", Port),
            ("[::1", Malformed),
            ("::1]", Malformed),
            ("[::1]x", Malformed),
            ("[::1].", Malformed),
            ("[fe80::1%25eth0]", Malformed),
            ("[v1.x]", Malformed),
            ("[]", Malformed),
            ("a:65536", Port),
            ("a:-1", Port),
            ("a:+1", Port),
            ("a:80:80", Port),
            ("a:000080", Port),
            (&long, Long),
        ] {
            assert_eq!(normalise_host(field.as_bytes()), Err(error), "{field:?}");
        }
        assert_eq!(normalise_host(b"a\xffb"), Err(Malformed));
        assert_eq!(normalise_host(&long.as_bytes()[1..]).map(str::len), Ok(255));
    }

    proptest! {
        #[test]
        fn the_normal_form_of_a_host_is_its_own(field in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(host) = normalise_host(&field) {
                prop_assert_eq!(normalise_host(host.as_bytes()), Ok(host));
                prop_assert!(!host.ends_with('.') && !host.is_empty());
            }
        }
    }
}
