//! Addresses in the file: where we listen, what we dial.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::foreign;
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

    fn expected(text: &str) -> Option<String> {
        expected(text, WHAT, "TLS towards clients is not supported yet: a listener speaks plain HTTP")
    }

    fn suggest(text: &str) -> Option<String> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
            return Some(format!("\"127.0.0.1:{port}\""));
        }
        let everywhere = text.strip_prefix(':').or(text.strip_prefix("*:")).unwrap_or(text);
        match port(everywhere) {
            Some(port) => Some(format!("\"0.0.0.0:{port}\"")),
            None => suggest(text),
        }
    }

    fn pattern() -> Option<&'static str> {
        Some(PATTERN)
    }
}

/// Where requests go: an address to dial, or a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial(pub Address);

impl Text for Dial {
    fn what() -> String {
        WHAT_OR_NAME.to_owned()
    }

    fn parse(text: &str) -> Result<Dial, String> {
        dialled(text).map(Dial)
    }

    fn expected(text: &str) -> Option<String> {
        const PLAIN: &str = "[pools.NAME.tls] is not supported yet: requests go in plain HTTP (checks may use TLS: \
                             `health.scheme = \"https\"`)";
        expected(text, WHAT_OR_NAME, PLAIN)
    }

    fn suggest(text: &str) -> Option<String> {
        local(text).or_else(|| suggest(text))
    }

    fn pattern() -> Option<&'static str> {
        Some(PATTERN_OR_NAME)
    }
}

/// Where checks go: an address to dial, and never a name. A name may have several addresses, and nothing says which of
/// them would belong to which address of the upstream.
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

    fn expected(text: &str) -> Option<String> {
        expected(text, WHAT, "TLS of checks is set with `health.scheme` and `health.tls`")
    }

    fn suggest(text: &str) -> Option<String> {
        local(text).or_else(|| suggest(text))
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
        _ if zone(text).is_some() => {
            format!(": the zone {} of an IPv6 address is not supported", zone(text).unwrap_or(""))
        }
        _ if scheme(text).is_some() => " is a URL, not an address".to_owned(),
        _ if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => {
            let shown = bracketed(text).unwrap_or_else(|| format!("[{text}]:PORT"));
            format!(": an IPv6 address is written in brackets, with a port: {shown}")
        }
        AddressError::Malformed => " is not an address".to_owned(),
        AddressError::PortMissing => " has no port".to_owned(),
        AddressError::HostName | AddressError::NumericName if !looks_like_a_name(text) => {
            " is not an address".to_owned()
        }
        other => format!(": {other}"),
    })
}

/// Whether `text` can be meant as a host name.
fn looks_like_a_name(text: &str) -> bool {
    !text.contains([' ', '*', '/', ';', ',', '"', '\'', '$', '{', '%', '@'])
}

/// What to write instead of `text`, if there is more to say than `what`.
fn expected(text: &str, what: &str, tls: &str) -> Option<String> {
    if zone(text).is_some() {
        return Some("an address that needs no zone: a global one, a unique local one (fd00::/8), or IPv4".to_owned());
    }
    let Some(scheme) = scheme(text) else {
        let is_without_port = format!("{text}:1").parse::<Address>().is_ok();
        return is_without_port.then(|| format!("the address with its port: {text}:PORT"));
    };
    match scheme.as_str() {
        "https" | "wss" | "grpcs" | "tls" | "ssl" => Some(format!("{what}; {tls}")),
        _ if path_of(text).is_some() => Some(format!("{what}, without the path: requests keep theirs")),
        _ => Some(format!("{what}, without a scheme")),
    }
}

/// The zone of an IPv6 address, with its `%`: `%eth0` of `fe80::1%eth0`.
fn zone(text: &str) -> Option<&str> {
    let (ip, rest) = text.trim_start_matches('[').split_once('%')?;
    ip.parse::<Ipv6Addr>().ok()?;
    let end = rest.find([']', ':']).unwrap_or(rest.len());
    text.get(text.find('%')?..=text.find('%')? + end)
}

/// The scheme of a URL, in lower case.
fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    (!scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+') && scheme != "unix")
        .then_some(scheme)
}

/// The path of a URL, if it has more than `/`.
fn path_of(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    rest.split_once('/').map(|(_, path)| path).filter(|path| !path.is_empty())
}

/// `2001:db8::1:8081` with brackets: the last part is the port if it can be one and the rest is an address.
fn bracketed(text: &str) -> Option<String> {
    let (ip, port) = text.rsplit_once(':')?;
    ip.parse::<Ipv6Addr>().ok()?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0 && !text.ends_with(":0"))?;
    Some(format!("[{ip}]:{port}"))
}

fn suggest(text: &str) -> Option<String> {
    if let Some(address) = bracketed(text) {
        return Some(format!("\"{address}\""));
    }
    if text.starts_with('/') && text.len() > 1 {
        return Some(format!("{:?}", format!("unix:{text}")));
    }
    let scheme = scheme(text);
    let bare = match scheme.as_deref() {
        Some("http" | "tcp" | "h2c" | "ws" | "grpc") if path_of(text).is_none() => text.split_once("://")?.1,
        Some(_) => return None,
        None => text,
    };
    let bare = bare.trim().trim_end_matches(['/', ';', ',']);
    let has_default = matches!(scheme.as_deref(), Some("http" | "ws"));
    let default = if has_default { format!("{bare}:80") } else { bare.to_owned() };
    let address = bare.parse::<Address>().or_else(|_| default.parse()).ok()?;
    Some(format!("\"{address}\""))
}

/// A port alone, or with an address that stands for every one of this machine: its loopback.
fn local(text: &str) -> Option<String> {
    let (loopback, port) = match text.strip_prefix("[::]:") {
        Some(port) => ("[::1]", port),
        None => {
            let every = [":", "*:", "0.0.0.0:"].into_iter().find_map(|every| text.strip_prefix(every));
            ("127.0.0.1", every.unwrap_or(text))
        }
    };
    let port = port.parse::<u16>().ok().filter(|port| *port > 0 && text.len() <= 13)?;
    Some(format!("\"{loopback}:{port}\""))
}

/// What a word of an entry of another program, such as `fail_timeout=10s`, is replaced by, as a phrase.
pub fn other_words(text: &str) -> Option<String> {
    let keys = text.split([' ', ',', ';', '\t']).map(|word| word.split_once('=').map_or(word, |(key, _)| key));
    let unknown = keys.filter(|key| !matches!(*key, "weight" | "backup"));
    unknown.take(32).find_map(|key| {
        let instead = foreign::key("UpstreamTable", key)?.instead;
        (!instead.is_empty()).then(|| format!("for `{key}`: {instead}"))
    })
}

/// An entry of `upstreams` in the words of another program, or several in one text, as entries of ours:
/// `server 10.0.0.1:80 weight=5;`, `10.0.0.1:80, 10.0.0.2:80`.
pub fn entries(text: &str) -> Option<String> {
    const ENTRIES_MAX: usize = 8;
    if text.len() > 400 || !text.contains([' ', ',', ';', '\t']) {
        return None;
    }
    let mut out: Vec<String> = Vec::new();
    let mut weight = None;
    let mut backup = false;
    for word in text.split([' ', ',', ';', '\t']).filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            Some(("weight", number)) => weight = Some(number.parse::<u16>().ok().filter(|n| (1..=1_000).contains(n))?),
            _ if word == "backup" => backup = true,
            _ => out.extend(dialled(word).ok().map(|address| format!("\"{address}\""))),
        }
    }
    match (&out[..], weight, backup) {
        ([], ..) => None,
        (_, None, false) if out.len() <= ENTRIES_MAX => Some(out.join(", ")),
        ([address], ..) => {
            let weight = weight.map_or(String::new(), |weight| format!(", weight = {weight}"));
            let backup = if backup { ", backup = true" } else { "" };
            Some(format!("{{ address = {address}{weight}{backup} }}"))
        }
        _ => None,
    }
}

/// What to write instead of an entry whose weight is out of range, such as `10.0.0.1:80 weight=0`.
pub fn bad_weight(text: &str) -> Option<String> {
    let weight = text.split([' ', ',', ';', '\t']).find_map(|word| word.strip_prefix("weight="))?;
    let is_number = !weight.is_empty() && weight.bytes().all(|b| b.is_ascii_digit());
    let is_good = weight.parse::<u16>().is_ok_and(|weight| (1..=1_000).contains(&weight));
    if !is_number || is_good {
        return None;
    }
    let one = entries(&text.replacen(&format!("weight={weight}"), "weight=1", 1))?;
    let none =
        if weight.bytes().all(|b| b == b'0') { "; for one without requests: `admin = \"disabled\"`" } else { "" };
    Some(format!("a weight from 1 to 1000: `{one}`{none}"))
}

/// The address to listen on that is meant by a text without quotes, as it is written; `None`: none that would do.
pub fn listen_meant(text: &str) -> Option<String> {
    match Listen::parse(text) {
        Ok(_) => Some(format!("\"{text}\"")),
        Err(_) => Listen::suggest(text).filter(|shown| Listen::parse(shown.trim_matches('"')).is_ok()),
    }
}

/// The same for an address that requests go to.
pub fn dial_meant(text: &str) -> Option<String> {
    match Dial::parse(text) {
        Ok(_) => Some(format!("\"{text}\"")),
        Err(_) => Dial::suggest(text).filter(|shown| Dial::parse(shown.trim_matches('"')).is_ok()),
    }
}

/// Reads the address of `--listen`.
///
/// # Errors
/// What is wrong with it, what is expected, and a suggestion, in one sentence.
pub fn listen_argument(text: &str) -> Result<Address, String> {
    argument::<Listen>(text).map(|listen| listen.0)
}

/// Reads one of the addresses of `--to`.
///
/// # Errors
/// As [`listen_argument`].
pub fn upstream_argument(text: &str) -> Result<Address, String> {
    if let Some(entries) = entries(text) {
        let addresses: Vec<&str> = entries.split('"').skip(1).step_by(2).collect();
        return Err(format!(
            "it is more than an address; expected addresses with commas between them, and a file for weights and backups; \
             did you mean `{}`?",
            addresses.join(",")
        ));
    }
    argument::<Dial>(text).map(|dial| dial.0)
}

fn argument<T: Text>(text: &str) -> Result<T, String> {
    T::parse(text).map_err(|problem| {
        let expected = T::expected(text).unwrap_or_else(T::what);
        let shell = if text.contains('$') { "; the shell replaces variables outside single quotes" } else { "" };
        let meant = T::suggest(text).map(|shown| shown.trim_matches('"').to_owned());
        let meant = meant.filter(|meant| T::parse(meant).is_ok());
        let meant = meant.map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
        let problem = problem.strip_prefix(':').map_or(format!("it{problem}"), |problem| problem.trim().to_owned());
        format!("{problem}; expected {expected}{shell}{meant}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_gets_a_suggestion() {
        assert_eq!(Listen::suggest(":8080").as_deref(), Some("\"0.0.0.0:8080\""));
        assert_eq!(Listen::suggest("8080").as_deref(), Some("\"0.0.0.0:8080\""));
        assert_eq!(Dial::suggest("http://10.0.0.1:80/").as_deref(), Some("\"10.0.0.1:80\""));
        assert_eq!(Dial::suggest("http://Api:80/").as_deref(), Some("\"api:80\""));
        assert_eq!(Dial::suggest("api"), None);
        assert_eq!(Listen::suggest("localhost:80").as_deref(), Some("\"127.0.0.1:80\""));
        for (text, meant) in [
            ("2001:db8::1:8081", Some("\"[2001:db8::1]:8081\"")),
            ("::1:80", Some("\"[::1]:80\"")),
            ("fe80::1", None),
            ("http://10.0.0.1", Some("\"10.0.0.1:80\"")),
            ("http://10.0.0.1:80/api", None),
            ("https://10.0.0.1:443", None),
            ("/run/a.sock", Some("\"unix:/run/a.sock\"")),
        ] {
            assert_eq!(Dial::suggest(text).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn messages_name_the_mistake_in_an_address() {
        for (text, problem) in [
            ("2001:db8::1:8081", ": an IPv6 address is written in brackets, with a port: [2001:db8::1]:8081"),
            ("fe80::1", ": an IPv6 address is written in brackets, with a port: [fe80::1]:PORT"),
            ("[fe80::1%eth0]:8081", ": the zone %eth0 of an IPv6 address is not supported"),
            ("fe80::1%eth0:8081", ": the zone %eth0 of an IPv6 address is not supported"),
            ("https://a:443", " is a URL, not an address"),
            ("a b:80", " is not an address"),
            ("fe80::1%ü", ": the zone %ü of an IPv6 address is not supported"),
        ] {
            assert_eq!(Dial::parse(text).unwrap_err(), problem, "{text}");
        }
        assert!(Dial::expected("https://a:443").unwrap().contains("[pools.NAME.tls] is not supported yet"));
    }

    #[test]
    fn entries_in_other_words_become_ours() {
        for (text, meant) in [
            ("10.0.0.1:80 weight=5", Some("{ address = \"10.0.0.1:80\", weight = 5 }")),
            ("server s1 10.0.0.1:80 check backup", Some("{ address = \"10.0.0.1:80\", backup = true }")),
            ("server 10.0.0.1:80;", Some("\"10.0.0.1:80\"")),
            ("10.0.0.1:80, 10.0.0.2:80", Some("\"10.0.0.1:80\", \"10.0.0.2:80\"")),
            ("10.0.0.1:80 weight=0", None),
            ("10.0.0.1:80", None),
            ("a b", None),
        ] {
            assert_eq!(entries(text).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn the_command_line_gets_the_same_help() {
        assert_eq!(listen_argument("127.0.0.1:80").unwrap().to_string(), "127.0.0.1:80");
        for (text, help) in
            [(":8080", "did you mean `0.0.0.0:8080`?"), ("localhost:80", "did you mean `127.0.0.1:80`?")]
        {
            assert!(listen_argument(text).unwrap_err().ends_with(help), "{text}");
        }
        let problem = upstream_argument("http://a:80").unwrap_err();
        assert_eq!(
            problem,
            "it is a URL, not an address; expected ip:port, [ipv6]:port, name:port or unix:/path, without a scheme; did you \
             mean `a:80`?"
        );
        assert!(upstream_argument("::1:80").unwrap_err().contains("[::1]:80"));
    }

    #[test]
    fn addresses_of_listeners_and_of_upstreams_have_different_rules() {
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
