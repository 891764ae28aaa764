//! Addresses in the file: where we listen, what we dial.

use crate::config::values::Text;
use crate::model::Address;
use crate::model::address::AddressError;

const PATTERN: &str = r"^(unix:/.+|\[[0-9A-Fa-f:.]+\]:[0-9]+|[0-9.]+:[0-9]+)$";
const PATTERN_OR_NAME: &str = r"^(unix:/.+|\[[0-9A-Fa-f:.]+\]:[0-9]+|[0-9A-Za-z_.-]+:[0-9]+)$";
const WHAT: &str = "ip:port, [ipv6]:port or unix:/path";
const WHAT_OR_NAME: &str = "ip:port, [ipv6]:port, name:port or unix:/path";

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen(pub Address);

impl Text for Listen {
    fn what() -> String {
        WHAT.to_owned()
    }

    fn parse(text: &str) -> Result<Listen, String> {
        let address = parse(text)?;
        match &address {
            Address::Inet(inet) if inet.ip().is_multicast() => Err(" is a multicast address".to_owned()),
            Address::Inet(inet) if inet.ip().to_canonical() != inet.ip() => {
                Err(": IPv6 sockets take no IPv4; write the IPv4 address".to_owned())
            }
            Address::Inet(inet) if inet.ip() == std::net::Ipv4Addr::BROADCAST => {
                Err(" is a broadcast address".to_owned())
            }
            Address::Name { .. } => Err(": a name cannot be listened on; write the IP address".to_owned()),
            Address::Inet(_) | Address::Unix(_) => Ok(Listen(address)),
        }
    }

    fn suggest(text: &str) -> Option<String> {
        let local = |text: &str| {
            let port = text.strip_prefix("localhost:")?;
            port.parse::<u16>().is_ok_and(|port| port > 0).then(|| format!("\"127.0.0.1:{port}\""))
        };
        local(text).or_else(|| suggest(text).filter(|shown| Listen::parse(shown.trim_matches('"')).is_ok())).or_else(
            || {
                let port = text.strip_prefix(':').or(text.strip_prefix("*:")).unwrap_or(text);
                port.parse::<u16>().is_ok_and(|port| port > 0).then(|| format!("\"0.0.0.0:{port}\""))
            },
        )
    }

    fn pattern() -> Option<&'static str> {
        Some(PATTERN)
    }
}

/// Where requests go: an address to dial, or a name that stands for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial(pub Address);

impl Text for Dial {
    fn what() -> String {
        WHAT_OR_NAME.to_owned()
    }

    fn parse(text: &str) -> Result<Dial, String> {
        dialled(text).map(Dial)
    }

    fn suggest(text: &str) -> Option<String> {
        suggest(text)
    }

    fn pattern() -> Option<&'static str> {
        Some(PATTERN_OR_NAME)
    }
}

/// Where checks go: an address to dial, and never a name. A name has several addresses, and which of them would be the one
/// for which address of the upstream, nobody can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialAddress(pub Address);

impl Text for DialAddress {
    fn what() -> String {
        WHAT.to_owned()
    }

    fn parse(text: &str) -> Result<DialAddress, String> {
        match dialled(text)? {
            Address::Name { .. } => Err(": a host name is not supported here; write the IP address".to_owned()),
            address @ (Address::Inet(_) | Address::Unix(_)) => Ok(DialAddress(address)),
        }
    }

    fn suggest(text: &str) -> Option<String> {
        suggest(text).filter(|shown| DialAddress::parse(shown.trim_matches('"')).is_ok())
    }

    fn pattern() -> Option<&'static str> {
        Some(PATTERN)
    }
}

fn dialled(text: &str) -> Result<Address, String> {
    let address = parse(text)?;
    match address.upstream_problem() {
        None => Ok(address),
        Some(problem) => Err(format!(": {problem}")),
    }
}

fn parse(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error| match error {
        AddressError::Malformed => " is not an address".to_owned(),
        AddressError::PortMissing => " has no port".to_owned(),
        other => format!(": {other}"),
    })
}

fn suggest(text: &str) -> Option<String> {
    let bare = text.strip_prefix("http://").or(text.strip_prefix("tcp://"))?;
    let bare = bare.trim_end_matches('/');
    bare.parse::<Address>().ok().map(|address| format!("\"{address}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_answered_with_what_may_be_meant() {
        assert_eq!(Listen::suggest(":8080").as_deref(), Some("\"0.0.0.0:8080\""));
        assert_eq!(Listen::suggest("8080").as_deref(), Some("\"0.0.0.0:8080\""));
        assert_eq!(Dial::suggest("http://10.0.0.1:80/").as_deref(), Some("\"10.0.0.1:80\""));
        assert_eq!(Dial::suggest("http://Api:80/").as_deref(), Some("\"api:80\""));
        assert_eq!(Dial::suggest("api"), None);
        assert_eq!(DialAddress::suggest("http://api:80/"), None);
        assert_eq!(Listen::suggest("localhost:80").as_deref(), Some("\"127.0.0.1:80\""));
        assert_eq!(Listen::suggest("tcp://api:80"), None);
    }

    #[test]
    fn what_can_be_listened_on_and_what_can_be_dialled_differ() {
        assert!(Listen::parse("0.0.0.0:80").is_ok());
        assert!(Dial::parse("0.0.0.0:80").is_err());
        for neither in ["224.0.0.1:80", "255.255.255.255:80", "[ff02::1]:80"] {
            assert!(Listen::parse(neither).is_err() && Dial::parse(neither).is_err(), "{neither}");
        }
        assert!(Listen::parse("[::ffff:127.0.0.1]:80").is_err());
        assert!(Dial::parse("api:80").is_ok());
        assert_eq!(Listen::parse("api:80").unwrap_err(), ": a name cannot be listened on; write the IP address");
        assert_eq!(
            DialAddress::parse("api:80").unwrap_err(),
            ": a host name is not supported here; write the IP address"
        );
    }
}
