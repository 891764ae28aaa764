//! Access checks on the head of a request: the Host rule against DNS rebinding, the Origin rule against pages of other
//! sites, and the bearer token. Pure; `routes` applies them in this order.

use std::hint::black_box;
use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, StatusCode, Version, header};

use super::host::Access;
use crate::model::{Address, Secret};

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// More than one Host, or none in HTTP/1.1.
    HostMalformed,
    /// A Host that is not an IP address, localhost or the configured address.
    HostForeign,
    /// A POST from a page of another site.
    OriginForeign,
    /// The token is missing or wrong.
    Unauthorized,
}

impl Refusal {
    /// The status of the response.
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::HostMalformed => StatusCode::BAD_REQUEST,
            Refusal::HostForeign | Refusal::OriginForeign => StatusCode::FORBIDDEN,
            Refusal::Unauthorized => StatusCode::UNAUTHORIZED,
        }
    }

    /// The error message of the response.
    pub fn message(self) -> &'static str {
        match self {
            Refusal::HostMalformed => "exactly one Host field is required",
            Refusal::HostForeign => "Host must be an IP address, localhost or the configured address",
            Refusal::OriginForeign => "requests from pages of other sites are refused",
            Refusal::Unauthorized => "a bearer token is required",
        }
    }
}

/// The Host rule. Not needed with a token: a page that rebinds its name to our address does not know the token.
pub fn check_host(head: &Parts, access: &Access) -> Result<(), Refusal> {
    if access.token.is_some() {
        return Ok(());
    }
    let good = |host: &str| is_good_host(host, &access.address);
    if let Some(authority) = head.uri.authority()
        && !good(authority.as_str())
    {
        return Err(Refusal::HostForeign);
    }
    match one(&head.headers, header::HOST) {
        Ok(Some(host)) if good(host) => Ok(()),
        Ok(Some(_)) => Err(Refusal::HostForeign),
        // Old checkers use HTTP/1.0 without a Host; browsers never do.
        Ok(None) if head.version <= Version::HTTP_10 => Ok(()),
        Ok(None) | Err(()) => Err(Refusal::HostMalformed),
    }
}

/// The Origin rule, for requests that change something.
pub fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    match one(headers, "sec-fetch-site") {
        Ok(None | Some("same-origin" | "none")) => {}
        Ok(Some(_)) | Err(()) => return Err(Refusal::OriginForeign),
    }
    let origin = match one(headers, header::ORIGIN) {
        Ok(None) => return Ok(()),
        Ok(Some(origin)) => origin,
        Err(()) => return Err(Refusal::OriginForeign),
    };
    // The admin socket has no TLS, so a page with the scheme `https` is another site, whatever its host (RFC 6454,
    // section 5).
    let site = origin.strip_prefix("http://").and_then(host_and_port);
    match (site, one(headers, header::HOST).ok().flatten().and_then(host_and_port)) {
        (Some(site), Some(own)) if site.0.eq_ignore_ascii_case(own.0) && site.1 == own.1 => Ok(()),
        _ => Err(Refusal::OriginForeign),
    }
}

/// The host and port of an authority without user information; the port defaults to 80, as for `http`.
fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    let host = host_without_port(authority);
    let port = match authority[host.len()..].strip_prefix(':') {
        None | Some("") => 80,
        Some(digits) => digits.parse().ok()?,
    };
    let plain = !host.is_empty() && !host.contains(['/', '@', '?', '#', '\\']);
    plain.then_some((host, port))
}

/// The token rule.
pub fn check_token(headers: &HeaderMap, access: &Access) -> Result<(), Refusal> {
    let Some(token) = &access.token else { return Ok(()) };
    let given = one(headers, header::AUTHORIZATION).ok().flatten().and_then(|value| {
        let (scheme, given) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| given.trim_start_matches(' '))
    });
    match given {
        Some(given) if same_secret(token, given) => Ok(()),
        Some(_) | None => Err(Refusal::Unauthorized),
    }
}

fn is_good_host(host: &str, configured: &Address) -> bool {
    let name = host_without_port(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    let unbracketed = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    unbracketed.unwrap_or(name).parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || host == configured.to_string()
}

fn host_without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The one value of a field. `Err`: several, or not text.
fn one(headers: &HeaderMap, name: impl header::AsHeaderName) -> Result<Option<&str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// Compares in a time that depends only on the length of `given`.
fn same_secret(token: &Secret, given: &str) -> bool {
    let token = token.expose().as_bytes();
    let mut differences = u8::from(token.len() != given.len()) | u8::from(token.is_empty());
    for (i, byte) in given.bytes().enumerate() {
        let own = token.get(i % token.len().max(1)).copied().unwrap_or(0);
        differences = black_box(differences | (own ^ byte));
    }
    differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn access(token: Option<&str>) -> Access {
        Access { token: token.map(Secret::new), address: "127.0.0.1:9900".parse().unwrap() }
    }

    fn head(version: Version, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn without_a_token_a_host_that_could_be_rebound_is_refused() {
        for good in ["127.0.0.1", "127.0.0.1:9900", "[::1]:9900", "[::1]", "localhost", "LOCALHOST:1", "10.0.0.7"] {
            assert_eq!(check_host(&head(Version::HTTP_11, "/", &[("host", good)]), &access(None)), Ok(()), "{good}");
        }
        for bad in ["evil.example", "evil.example:9900", "localhost.evil.example", "127.0.0.1.evil", "", "a:b:c"] {
            let refused = check_host(&head(Version::HTTP_11, "/", &[("host", bad)]), &access(None));
            assert_eq!(refused, Err(Refusal::HostForeign), "{bad:?}");
            assert_eq!(check_host(&head(Version::HTTP_11, "/", &[("host", bad)]), &access(Some("t"))), Ok(()));
        }
        let absolute = head(Version::HTTP_11, "http://evil.example/", &[("host", "127.0.0.1")]);
        assert_eq!(check_host(&absolute, &access(None)), Err(Refusal::HostForeign));
        let two = head(Version::HTTP_11, "/", &[("host", "127.0.0.1"), ("host", "127.0.0.1")]);
        assert_eq!(check_host(&two, &access(None)), Err(Refusal::HostMalformed));
        assert_eq!(check_host(&head(Version::HTTP_11, "/", &[]), &access(None)), Err(Refusal::HostMalformed));
        assert_eq!(check_host(&head(Version::HTTP_10, "/", &[]), &access(None)), Ok(()));
    }

    #[test]
    fn an_order_from_another_sites_page_is_refused() {
        let host = ("host", "127.0.0.1:9900");
        let table: &[(&[(&str, &str)], bool)] = &[
            (&[host], true),
            (&[host, ("origin", "http://127.0.0.1:9900")], true),
            (&[host, ("origin", "http://127.0.0.1:9901")], false),
            (&[host, ("origin", "http://evil.example")], false),
            (&[host, ("origin", "null")], false),
            (&[host, ("origin", "")], false),
            (&[host, ("origin", "https://127.0.0.1:9900")], false),
            (&[host, ("origin", "ftp://127.0.0.1:9900")], false),
            (&[host, ("origin", "http://127.0.0.1")], false),
            (&[host, ("origin", "http://127.0.0.1:9900/")], false),
            (&[host, ("origin", "http://a@127.0.0.1:9900")], false),
            (&[host, ("origin", "http://127.0.0.1:9900, http://127.0.0.1:9900")], false),
            (&[("host", "127.0.0.1"), ("origin", "http://127.0.0.1:80")], true),
            (&[("host", "127.0.0.1:80"), ("origin", "http://127.0.0.1")], true),
            (&[("host", "127.0.0.1:443"), ("origin", "http://127.0.0.1")], false),
            (&[("host", "127.0.0.1:443"), ("origin", "https://127.0.0.1")], false),
            (&[("host", "127.0.0.1"), ("origin", "https://127.0.0.1")], false),
            (&[("host", "127.0.0.1"), ("origin", "http://127.0.0.1:99999")], false),
            (&[("host", "LocalHost:9900"), ("origin", "http://localhost:9900")], true),
            (&[("host", "[::1]"), ("origin", "http://[::1]:80")], true),
            (&[("host", "[::1]:9900"), ("origin", "http://[::1]:9900")], true),
            (&[("host", "[::1]:9900"), ("origin", "http://[::2]:9900")], false),
            (&[("origin", "http://127.0.0.1:9900")], false),
            (&[host, ("sec-fetch-site", "same-origin")], true),
            (&[host, ("sec-fetch-site", "none")], true),
            (&[host, ("sec-fetch-site", "same-site")], false),
            (&[host, ("sec-fetch-site", "cross-site")], false),
            (&[host, ("sec-fetch-site", "")], false),
            (&[host, ("origin", "http://evil.example"), ("sec-fetch-site", "same-origin")], false),
        ];
        for (fields, good) in table {
            let head = head(Version::HTTP_11, "/", fields);
            assert_eq!(check_origin(&head.headers).is_ok(), *good, "{fields:?}");
        }
    }

    #[test]
    fn only_the_complete_token_is_accepted() {
        let with = access(Some("s3cret-s3cret"));
        for (value, good) in [
            ("Bearer s3cret-s3cret", true),
            ("bearer  s3cret-s3cret", true),
            ("Bearer s3cret-s3cre", false),
            ("Bearer s3cret-s3crets3cret-s3cret", false),
            ("Bearer ", false),
            ("Bearer", false),
            ("Basic s3cret-s3cret", false),
            ("s3cret-s3cret", false),
        ] {
            let head = head(Version::HTTP_11, "/", &[("authorization", value)]);
            assert_eq!(check_token(&head.headers, &with).is_ok(), good, "{value}");
        }
        assert!(check_token(&HeaderMap::new(), &with).is_err());
        assert!(check_token(&HeaderMap::new(), &access(None)).is_ok());
        let empty = head(Version::HTTP_11, "/", &[("authorization", "Bearer ")]);
        assert!(check_token(&empty.headers, &access(Some(""))).is_err());
    }
}
