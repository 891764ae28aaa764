//! Addresses: `ip:port`, `[v6]:port` or `unix:/path`, in one normal form, so that two spellings of one address are equal.
//! Decides what an address is; whether it may be listened on or dialled is asked with [`Address::upstream_problem`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// A socket to dial or to listen on.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// `ip:port` or `[v6]:port`; the port is never 0 when it came from a configuration file.
    Inet(SocketAddr),
    /// `unix:/path`: an absolute path of at most 107 bytes (`sun_path` less its NUL).
    Unix(Arc<Path>),
}

/// The longest path of a unix socket, in bytes (`sizeof sun_path` - 1 on Linux).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither `ip:port`, `[v6]:port` nor `unix:/path`.
    #[error("expected ip:port, [ipv6]:port or unix:/path")]
    Malformed,
    /// No `:port` at the end.
    #[error("the port is missing; expected ip:port, [ipv6]:port or unix:/path")]
    PortMissing,
    /// The port is not 1 to 65535.
    #[error("a port is 1 to 65535")]
    Port,
    /// A name where an address is wanted.
    #[error("host names are not supported yet; write the IP address and port")]
    HostName,
    /// An IPv6 address without its brackets.
    #[error("an IPv6 address is written in brackets: [::1]:80")]
    Brackets,
    /// An IPv4 part with leading zeros, which some programs read as octal.
    #[error("an IPv4 address has no leading zeros")]
    LeadingZero,
    /// The path is relative or empty.
    #[error("the path of a unix socket is absolute: unix:/path")]
    UnixRelative,
    /// The path does not fit a `sockaddr_un`.
    #[error("the path of a unix socket is at most 107 bytes")]
    UnixLong,
    /// The path holds a NUL or another control character.
    #[error("the path of a unix socket has no control characters")]
    UnixControl,
}

impl Address {
    /// The port, for an Internet address.
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Inet(a) => Some(a.port()),
            Address::Unix(_) => None,
        }
    }

    /// The same host with another port; a unix address stays as it is.
    pub fn with_port(&self, port: u16) -> Address {
        match self {
            Address::Inet(a) => Address::Inet(SocketAddr::new(a.ip(), port)),
            Address::Unix(p) => Address::Unix(p.clone()),
        }
    }

    /// Why this cannot be the address of an upstream: unspecified, multicast and broadcast addresses.
    pub fn upstream_problem(&self) -> Option<&'static str> {
        let Address::Inet(a) = self else { return None };
        let ip = a.ip().to_canonical();
        match ip {
            _ if ip.is_unspecified() => Some("an unspecified address names no upstream"),
            _ if ip.is_multicast() => Some("a multicast address names no upstream"),
            IpAddr::V4(v4) if v4 == Ipv4Addr::BROADCAST => Some("a broadcast address names no upstream"),
            _ => None,
        }
    }

    /// Whether a listener on `self` takes connections to `other`: the same socket, or `0.0.0.0`/`[::]` with its port.
    pub fn covers(&self, other: &Address) -> bool {
        match (self, other) {
            (Address::Inet(a), Address::Inet(b)) => {
                a.port() == b.port() && (a.ip() == b.ip() || (a.ip().is_unspecified() && a.is_ipv4() == b.is_ipv4()))
            }
            (Address::Unix(a), Address::Unix(b)) => a == b,
            _ => false,
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Inet(a) => a.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path == "/" {
                return Err(AddressError::UnixRelative);
            }
            if path.len() > UNIX_PATH_BYTES_MAX {
                return Err(AddressError::UnixLong);
            }
            if path.chars().any(char::is_control) {
                return Err(AddressError::UnixControl);
            }
            return Ok(Address::Unix(Arc::from(Path::new(path))));
        }
        if let Ok(a) = SocketAddr::from_str(text) {
            return if a.port() == 0 { Err(AddressError::Port) } else { Ok(Address::Inet(a)) };
        }
        Err(diagnose(text))
    }
}

/// Says what is wrong with a text that `SocketAddr` does not read.
fn diagnose(text: &str) -> AddressError {
    if text.parse::<IpAddr>().is_ok() {
        return if text.contains(':') { AddressError::Brackets } else { AddressError::PortMissing };
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return match text {
            "" => AddressError::Malformed,
            _ if text.starts_with('[') => AddressError::PortMissing,
            _ if is_host_name(text) => AddressError::PortMissing,
            _ => AddressError::Malformed,
        };
    };
    if host.starts_with('[') && !host.ends_with(']') {
        return AddressError::PortMissing;
    }
    if port.is_empty() {
        return AddressError::PortMissing;
    }
    let all_digits = port.bytes().all(|b| b.is_ascii_digit());
    if host.parse::<IpAddr>().is_ok() || host.strip_prefix('[').is_some() {
        return if all_digits { AddressError::Port } else { AddressError::Malformed };
    }
    let dotted = host.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if dotted && host.split('.').count() == 4 {
        let leading = host.split('.').any(|part| part.len() > 1 && part.starts_with('0'));
        return if leading { AddressError::LeadingZero } else { AddressError::Malformed };
    }
    if is_host_name(host) && all_digits {
        return AddressError::HostName;
    }
    AddressError::Malformed
}

fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
        && text.bytes().any(|b| b.is_ascii_alphabetic())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(a) => write!(f, "{a}"),
            Address::Unix(p) => write!(f, "unix:{}", p.display()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_address_are_equal() {
        let a: Address = "[::1]:80".parse().unwrap();
        let b: Address = "[0:0::1]:80".parse().unwrap();
        assert_eq!(a, b);
        assert_eq!(a.to_string(), "[::1]:80");
        assert_eq!("unix:/run/a.sock".parse::<Address>().unwrap().to_string(), "unix:/run/a.sock");
    }

    #[test]
    fn a_bad_address_says_why() {
        use AddressError::*;
        let long = format!("unix:/{}", "a".repeat(107));
        for (text, error) in [
            ("", Malformed),
            ("127.0.0.1", PortMissing),
            ("127.0.0.1:", PortMissing),
            ("127.0.0.1:0", Port),
            ("127.0.0.1:65536", Port),
            ("127.0.0.1:x", Malformed),
            ("127.000.0.1:80", LeadingZero),
            ("999.0.0.1:80", Malformed),
            ("::1", Brackets),
            ("[::1]", PortMissing),
            ("[::1]:99999", Port),
            ("localhost:80", HostName),
            ("api.example.com:7100", HostName),
            ("localhost", PortMissing),
            ("http://a:80", Malformed),
            ("unix:a", UnixRelative),
            ("unix:", UnixRelative),
            (&long, UnixLong),
            ("unix:/a\0b", UnixControl),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_wildcard_listener_covers_its_port_in_its_family() {
        let any: Address = "0.0.0.0:80".parse().unwrap();
        assert!(any.covers(&"127.0.0.1:80".parse().unwrap()));
        assert!(!any.covers(&"127.0.0.1:81".parse().unwrap()));
        assert!(!any.covers(&"[::1]:80".parse().unwrap()));
    }
}
