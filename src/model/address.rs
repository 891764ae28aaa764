//! Addresses: `ip:port`, `[v6]:port`, `unix:/path` or `name:port`, in one normal form, so that two spellings of one
//! address are equal. Decides what an address is; [`Address::upstream_problem`] decides whether it may be dialled.
//! `discovery` resolves names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// A socket to dial or to listen on, or a name that resolves to some.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// `ip:port` or `[v6]:port`; the port is never 0 when it came from a configuration file.
    Inet(SocketAddr),
    /// `unix:/path`: an absolute path of at most 107 bytes (`sun_path` less its NUL).
    Unix(Arc<Path>),
    /// `name:port`: each of the name's addresses, which are not known here. It is never dialled itself.
    Name {
        /// A host name (RFC 1123, underscores allowed): lower case, without a trailing dot, at most 253 bytes.
        host: Arc<str>,
        /// The port; never 0.
        port: u16,
    },
}

/// The longest host name, in bytes (RFC 1123, section 2.1, less the root's dot).
pub const HOST_BYTES_MAX: usize = 253;
/// The longest part of a host name between two dots, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// The longest path of a unix socket, in bytes (`sizeof sun_path` - 1 on Linux).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither `ip:port`, `[v6]:port`, `name:port` nor `unix:/path`.
    #[error("expected ip:port, [ipv6]:port, name:port or unix:/path")]
    Malformed,
    /// No `:port` at the end.
    #[error("the port is missing; expected ip:port, [ipv6]:port, name:port or unix:/path")]
    PortMissing,
    /// The port is not 1 to 65535.
    #[error("a port is 1 to 65535")]
    Port,
    /// The name is not a valid host name.
    #[error(
        "a host name has letters, digits, hyphens, underscores and dots: at most 253 in all, and 63 between two dots"
    )]
    HostName,
    /// The last part of a name is a number, and programs disagree on whether that is an address.
    #[error("the last part of a host name must not be a number")]
    NumericName,
    /// An IPv6 address without its brackets.
    #[error("an IPv6 address is written in brackets: [::1]:80")]
    Brackets,
    /// An IPv4 part with leading zeros, which some programs read as octal.
    #[error("an IPv4 address must not have leading zeros")]
    LeadingZero,
    /// The path is relative or empty.
    #[error("the path of a unix socket must be absolute: unix:/path")]
    UnixRelative,
    /// The path does not fit a `sockaddr_un`.
    #[error("the path of a unix socket is at most 107 bytes")]
    UnixLong,
    /// The path holds a NUL or another control character.
    #[error("the path of a unix socket must not contain control characters")]
    UnixControl,
}

impl Address {
    /// The port, if it has one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Inet(a) => Some(a.port()),
            Address::Name { port, .. } => Some(*port),
            Address::Unix(_) => None,
        }
    }

    /// The same host with another port; a unix address stays as it is.
    pub fn with_port(&self, port: u16) -> Address {
        match self {
            Address::Inet(a) => Address::Inet(SocketAddr::new(a.ip(), port)),
            Address::Unix(p) => Address::Unix(p.clone()),
            Address::Name { host, .. } => Address::Name { host: host.clone(), port },
        }
    }

    /// Why this cannot be the address of an upstream: it is an unspecified, multicast or broadcast address.
    pub fn upstream_problem(&self) -> Option<&'static str> {
        let Address::Inet(a) = self else { return None };
        let ip = a.ip().to_canonical();
        match ip {
            _ if ip.is_unspecified() => Some("an unspecified address cannot be an upstream"),
            _ if ip.is_multicast() => Some("a multicast address cannot be an upstream"),
            IpAddr::V4(v4) if v4 == Ipv4Addr::BROADCAST => Some("a broadcast address cannot be an upstream"),
            _ => None,
        }
    }

    /// Whether a listener on `self` also takes connections to `other`: the same socket, or `0.0.0.0`/`[::]` with its
    /// port.
    pub fn covers(&self, other: &Address) -> bool {
        match (self, other) {
            (Address::Inet(a), Address::Inet(b)) => {
                a.port() == b.port() && (a.ip() == b.ip() || (a.ip().is_unspecified() && a.is_ipv4() == b.is_ipv4()))
            }
            (Address::Unix(a), Address::Unix(b)) => a == b,
            _ => false,
        }
    }

    /// Whether a connection to `dialled` certainly reaches the listener `self`. The other addresses of this machine are
    /// not known here: for a listener on `0.0.0.0`, only the loopback is known to be ours.
    pub fn is_reached_by(&self, dialled: &Address) -> bool {
        match (self, dialled) {
            (Address::Inet(own), Address::Inet(to)) => {
                let (own_ip, to_ip) = (own.ip().to_canonical(), to.ip().to_canonical());
                let wildcard = own.ip().is_unspecified() && to_ip.is_loopback() && to_ip.is_ipv4() == own.is_ipv4();
                own.port() == to.port() && (own_ip == to_ip || wildcard)
            }
            (Address::Unix(own), Address::Unix(to)) => own == to,
            _ => false,
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Inet(a) => a.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
            Address::Name { .. } => false,
        }
    }

    /// Why it cannot be bound while another socket has it, with a command that finds the process.
    pub fn in_use(&self) -> String {
        let command = match self {
            Address::Inet(inet) => format!("ss -ltnp 'sport = :{}'", inet.port()),
            Address::Unix(path) => format!("ss -lxp | grep -F '{}'", path.display()),
            Address::Name { port, .. } => format!("ss -ltnp 'sport = :{port}'"),
        };
        format!("the address is in use (find the process with: {command})")
    }

    /// The name, if it is one.
    pub fn host_name(&self) -> Option<&Arc<str>> {
        match self {
            Address::Name { host, .. } => Some(host),
            Address::Inet(_) | Address::Unix(_) => None,
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
        named(text)
    }
}

/// Parses a text that `SocketAddr` does not accept: `name:port`, or an error.
fn named(text: &str) -> Result<Address, AddressError> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(if text.contains(':') { AddressError::Brackets } else { AddressError::PortMissing });
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(match text {
            _ if text.starts_with('[') || host_name(text).is_ok() => AddressError::PortMissing,
            _ => AddressError::Malformed,
        });
    };
    if (host.starts_with('[') && !host.ends_with(']')) || port.is_empty() {
        return Err(AddressError::PortMissing);
    }
    let all_digits = port.bytes().all(|b| b.is_ascii_digit());
    if host.parse::<IpAddr>().is_ok() || host.starts_with('[') {
        return Err(if all_digits { AddressError::Port } else { AddressError::Malformed });
    }
    let dotted = host.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if dotted && host.split('.').count() == 4 {
        let leading = host.split('.').any(|part| part.len() > 1 && part.starts_with('0'));
        return Err(if leading { AddressError::LeadingZero } else { AddressError::Malformed });
    }
    if !all_digits || host.contains([':', '/']) || host.is_empty() {
        return Err(AddressError::Malformed);
    }
    match (host_name(host)?, port.parse()) {
        (_, Ok(0) | Err(_)) => Err(AddressError::Port),
        (host, Ok(port)) => Ok(Address::Name { host, port }),
    }
}

/// A host name in its normal form: lower case, without a trailing dot.
fn host_name(text: &str) -> Result<Arc<str>, AddressError> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let good = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if bare.len() > HOST_BYTES_MAX || !bare.split('.').all(good) {
        return Err(AddressError::HostName);
    }
    let last = bare.rsplit('.').next().unwrap_or(bare).to_ascii_lowercase();
    let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError::NumericName);
    }
    Ok(Arc::from(bare.to_ascii_lowercase()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(a) => write!(f, "{a}"),
            Address::Unix(p) => write!(f, "unix:{}", p.display()),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
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
            ("localhost", PortMissing),
            ("localhost:", PortMissing),
            ("localhost:0", Port),
            ("localhost:65536", Port),
            ("localhost:http", Malformed),
            ("http://a:80", Malformed),
            (":80", Malformed),
            ("a..b:80", HostName),
            (".:80", HostName),
            ("-a:80", HostName),
            ("a-.b:80", HostName),
            ("a b:80", HostName),
            ("b\u{fc}cher:80", HostName),
            ("10.0.0.1.5:80", NumericName),
            ("127.1:80", NumericName),
            ("2130706433:80", NumericName),
            ("0x7f.0x1:80", NumericName),
            ("unix:a", UnixRelative),
            ("unix:", UnixRelative),
            (&long, UnixLong),
            ("unix:/a\0b", UnixControl),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_lower_case_without_its_last_dot() {
        for (text, shown) in [
            ("localhost:3001", "localhost:3001"),
            ("API.Example.COM.:7100", "api.example.com:7100"),
            ("my_api:1", "my_api:1"),
            ("1and1.de:65535", "1and1.de:65535"),
            ("0xcafe.example:80", "0xcafe.example:80"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address, shown.parse().unwrap(), "{text}");
            assert_eq!(address.host_name().map(|host| &**host), shown.rsplit_once(':').map(|(host, _)| host));
        }
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), 253);
        assert!(format!("{longest}.:80").parse::<Address>().is_ok());
        assert_eq!(format!("{longest}a:80").parse::<Address>(), Err(AddressError::HostName));
        assert_eq!(format!("{label}a:80").parse::<Address>(), Err(AddressError::HostName));
    }

    #[test]
    fn a_listener_is_reached_by_its_own_address_and_a_wildcard_by_the_loopback() {
        for (own, dialled, reached) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("0.0.0.0:80", "127.0.0.9:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("0.0.0.0:80", "10.0.0.1:80", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "127.0.0.1:80", false),
            ("127.0.0.1:80", "localhost:80", false),
        ] {
            let (own, dialled): (Address, Address) = (own.parse().unwrap(), dialled.parse().unwrap());
            assert_eq!(own.is_reached_by(&dialled), reached, "{own} {dialled}");
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
