//! Hosts and paths of routes, brought into the normal form that requests are compared in: hosts in lower case without
//! trailing dot, paths as `model::path` has them.

use std::sync::Arc;

use super::http::{host_problem, path_problem};
use crate::config::values::Text;
use crate::model::path::{PathError, normalise};
use crate::model::policy::HostPattern;

impl Text for HostPattern {
    fn what() -> String {
        "a host such as \"api.example.com\" or \"*.example.com\", without a port".to_owned()
    }

    fn parse(text: &str) -> Result<HostPattern, String> {
        let lower = text.to_ascii_lowercase();
        let (wildcard, host) = match lower.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        match host {
            "*" => return Err(": leave `host` out to take every host".to_owned()),
            _ if host.contains('*') => {
                return Err(": a * is allowed only at the start, as in \"*.example.com\"".to_owned());
            }
            _ if !host.starts_with('[') && host.contains(':') => {
                return Err(": a host is compared without its port".to_owned());
            }
            _ if host.starts_with('[') && !host.ends_with(']') => {
                return Err(": a host is compared without its port".to_owned());
            }
            _ if wildcard && host.starts_with('[') => return Err(" is not a host name".to_owned()),
            _ => {
                if let Some(problem) = host_problem(host) {
                    return Err(problem.to_owned());
                }
            }
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        Ok(match wildcard {
            true => HostPattern::Suffix(Arc::from(format!(".{host}"))),
            false => HostPattern::Exact(Arc::from(host)),
        })
    }

    fn suggest(text: &str) -> Option<String> {
        let bare = text.split_once("://").map_or(text, |(_, rest)| rest).split('/').next().unwrap_or(text);
        let host = match bare.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => bare,
        };
        (host != text && host_problem(host).is_none()).then(|| format!("\"{host}\""))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^(\*\.)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$")
    }
}

/// The path of a route in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePath(pub Arc<str>);

impl Text for RoutePath {
    fn what() -> String {
        "a path that begins with /, without query, spaces and dot segments".to_owned()
    }

    fn parse(text: &str) -> Result<RoutePath, String> {
        if let Some(problem) = path_problem(text) {
            return Err(problem.to_owned());
        }
        if text.contains('?') {
            return Err(" holds a query; routes compare the path alone".to_owned());
        }
        let path = normalise(text.as_bytes()).map_err(|error| match error {
            PathError::DotSegment => " has a dot segment, which no request may have".to_owned(),
            PathError::Nul => " holds %00, which no request may have".to_owned(),
            other => format!(": {other}"),
        })?;
        Ok(RoutePath(Arc::from(path)))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^/[!-\x22$->@-~]*$")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_into_the_form_they_are_compared_in() {
        let exact = |h: &str| Ok(HostPattern::Exact(Arc::from(h)));
        for (text, pattern) in [
            ("API.Example.com", exact("api.example.com")),
            ("a.", exact("a")),
            ("[::1]", exact("[::1]")),
            ("*.Example.com", Ok(HostPattern::Suffix(Arc::from(".example.com")))),
        ] {
            assert_eq!(HostPattern::parse(text), pattern, "{text}");
        }
        for bad in ["", "*", "a.*", "*.*.a", "a:80", "[::1]:80", "a b", "a..b", "ä", "*.", "*.[::1]", "http://a"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(HostPattern::suggest("a.de:80").as_deref(), Some("\"a.de\""));
        assert_eq!(HostPattern::suggest("https://a.de/x").as_deref(), Some("\"a.de\""));
    }

    #[test]
    fn paths_come_into_the_form_they_are_compared_in() {
        for (text, path) in
            [("/", "/"), ("/%41%2d", "/A-"), ("/a%2Fb//c", "/a%2Fb//c"), ("/v1/", "/v1/"), ("/a%2fb{}", "/a%2Fb%7B%7D")]
        {
            assert_eq!(RoutePath::parse(text), Ok(RoutePath(Arc::from(path))), "{text}");
        }
        for bad in ["", "a", "/a?b", "/..", "/a/../b", "/%2e%2E/", "/./a", "/%00", "/%zz", "/%4", "/a b", "/ä"] {
            assert!(RoutePath::parse(bad).is_err(), "{bad}");
        }
    }
}
