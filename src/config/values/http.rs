//! Texts of HTTP in the file: the path, method and Host field of a probe, and the rules that a field of a request obeys.
//! Whatever could break the framing of a request, or put a second one into it, is refused here.

use std::sync::Arc;

use crate::config::values::Text;

/// The longest request target of a probe, in bytes.
const PATH_BYTES_MAX: usize = 8 << 10;

/// The request target of a probe: begins with `/`, may hold a query, printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePath(pub Arc<str>);

impl Text for ProbePath {
    fn what() -> String {
        "a path that begins with /, of printable ASCII without spaces and #".to_owned()
    }

    fn parse(text: &str) -> Result<ProbePath, String> {
        path_problem(text).map_or_else(|| Ok(ProbePath(Arc::from(text))), |problem| Err(problem.to_owned()))
    }

    fn suggest(text: &str) -> Option<String> {
        let path = match text.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/".to_owned(), |at| rest[at..].to_owned()),
            None => format!("/{text}"),
        };
        let plain =
            !text.starts_with('/') && text.len() <= 200 && (text.contains("://") || !text.contains([':', '~', '^']));
        (plain && path_problem(&path).is_none()).then(|| format!("\"{path}\""))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^/[!-\x22$-~]*$")
    }
}

/// Why `text` cannot be the path of a request, as a phrase after it.
pub fn path_problem(text: &str) -> Option<&'static str> {
    match text {
        _ if !text.starts_with('/') => Some(" does not begin with /"),
        _ if text.len() > PATH_BYTES_MAX => Some(" is longer than 8 KiB"),
        _ if text.contains('#') => Some(" holds a #; fragments are not sent to servers"),
        _ if text.bytes().any(|b| b.is_ascii_control()) => Some(" holds a control character"),
        _ if text.bytes().any(|b| b == b' ') => Some(" holds a space; write %20"),
        _ if !text.is_ascii() => Some(" holds a character that is not ASCII; write its UTF-8 bytes as %XX"),
        _ => None,
    }
}

/// A request method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method(pub Arc<str>);

impl Text for Method {
    fn what() -> String {
        "a method in capitals, such as \"GET\"".to_owned()
    }

    fn parse(text: &str) -> Result<Method, String> {
        match text {
            _ if !is_token(text) || text.len() > 32 => Err(" is not a method".to_owned()),
            _ if text.bytes().any(|b| b.is_ascii_lowercase()) => Err(": methods are written in capitals".to_owned()),
            "CONNECT" | "TRACE" => Err(" cannot be used: it is answered 405".to_owned()),
            _ => Ok(Method(Arc::from(text))),
        }
    }

    fn suggest(text: &str) -> Option<String> {
        let upper = text.to_ascii_uppercase();
        (is_token(text) && text != upper && text.len() <= 32).then(|| format!("\"{upper}\""))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^[A-Z0-9!#$%&'*+.^_`|~-]{1,32}$")
    }
}

/// The Host field of a probe: a host, with or without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostField(pub Arc<str>);

impl Text for HostField {
    fn what() -> String {
        "a host, with or without a port".to_owned()
    }

    fn parse(text: &str) -> Result<HostField, String> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        if port
            .is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|p| p > 0))
        {
            return Err(" has a port that is not 1 to 65535".to_owned());
        }
        match host_problem(host) {
            None => Ok(HostField(Arc::from(text))),
            Some(problem) => Err(problem.to_owned()),
        }
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^[A-Za-z0-9._:\[\]-]+$")
    }
}

/// Why `host` cannot be a host name or address (without a port), as a phrase after it.
pub fn host_problem(host: &str) -> Option<&'static str> {
    if let Some(inner) = host.strip_prefix('[') {
        let v6 = inner.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
        return (!v6).then_some(" is not an IPv6 address");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    match host.strip_suffix('.').unwrap_or(host) {
        "" => Some(" names no host"),
        name if !name.is_ascii() => Some(" is not ASCII; write the name as it is in DNS (xn--…)"),
        name if name.len() > 253 => Some(" is longer than a host name can be"),
        name if name.split('.').all(label) => None,
        _ => Some(" is not a host name"),
    }
}

/// Whether `text` is a token (RFC 9110, 5.6.2): the form of methods and field names.
pub fn is_token(text: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(tchar)
}

/// A text that a body must contain or equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyText<const EMPTY: bool>(pub Arc<str>);

impl<const EMPTY: bool> Text for BodyText<EMPTY> {
    fn what() -> String {
        if EMPTY { "a text of at most 64 KiB" } else { "a text of 1 byte to 64 KiB" }.to_owned()
    }

    fn parse(text: &str) -> Result<BodyText<EMPTY>, String> {
        match text.len() {
            0 if !EMPTY => Err(" is empty, which every body contains".to_owned()),
            0..=65_536 => Ok(BodyText(Arc::from(text))),
            _ => Err(" is longer than the 64 KiB of a body that are read".to_owned()),
        }
    }
}

/// A text that a check sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendText(pub Arc<str>);

impl Text for SendText {
    fn what() -> String {
        "a text of 1 byte to 64 KiB".to_owned()
    }

    fn parse(text: &str) -> Result<SendText, String> {
        match text.len() {
            0 => Err(" is empty; without `send` nothing is sent".to_owned()),
            1..=65_536 => Ok(SendText(Arc::from(text))),
            _ => Err(" is longer than 64 KiB".to_owned()),
        }
    }
}

/// The name of a gRPC service; empty for the server as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceName(pub Arc<str>);

impl Text for ServiceName {
    fn what() -> String {
        "the name of a service, such as \"package.Service\"".to_owned()
    }

    fn parse(text: &str) -> Result<ServiceName, String> {
        match text {
            _ if text.len() > 512 => Err(" is longer than 512 bytes".to_owned()),
            _ if text.chars().any(|c| c.is_control() || c.is_whitespace()) => {
                Err(" holds a space or a control character".to_owned())
            }
            _ => Ok(ServiceName(Arc::from(text))),
        }
    }
}

/// A token (RFC 9110, 5.6.2), such as the name of a subprotocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(pub Arc<str>);

impl Text for Token {
    fn what() -> String {
        "one word of letters, digits, - and .".to_owned()
    }

    fn parse(text: &str) -> Result<Token, String> {
        if is_token(text) && text.len() <= 256 { Ok(Token(Arc::from(text))) } else { Err(" is not a token".to_owned()) }
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_path_cannot_break_a_request_line() {
        for good in ["/", "/healthz?ready=1&x", "/a%20b", "/~x;y"] {
            assert!(ProbePath::parse(good).is_ok(), "{good}");
        }
        let long = format!("/{}", "a".repeat(64 << 10));
        for bad in ["", "healthz", "/a b", "/a\r\nX: y", "/a#b", "/ä", "/\u{7f}", "/\0", &long] {
            assert!(ProbePath::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ProbePath::suggest("healthz").as_deref(), Some("\"/healthz\""));
        assert_eq!(ProbePath::suggest("http://a:80/healthz?x=1").as_deref(), Some("\"/healthz?x=1\""));
        assert_eq!(ProbePath::suggest("~ ^/x"), None);
    }

    #[test]
    fn methods_are_tokens_in_capitals() {
        for good in ["GET", "PURGE", "M-SEARCH"] {
            assert!(Method::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "get", "GET\r\nX: y", "G T", "CONNECT", "TRACE"] {
            assert!(Method::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Method::suggest("get").as_deref(), Some("\"GET\""));
    }

    #[test]
    fn a_host_field_is_a_host_with_or_without_a_port() {
        for good in ["a", "api.internal", "api.internal:80", "10.0.0.1", "[::1]", "[::1]:80", "a_b.c."] {
            assert!(HostField::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ":80", "a:", "a:99999", "a b", "a\r\nX: y", "a/b", "a@b", "ä.de", "::1", "[::1", "a:+80"] {
            assert!(HostField::parse(bad).is_err(), "{bad:?}");
        }
    }
}
