//! Who a request is from: what is believed of the X-Forwarded-* and Forwarded fields of a trusted peer, and how the chain goes
//! on. From any other peer nothing is believed, and what we say replaces what it says.

use std::net::{IpAddr, SocketAddr};

use bytes::BufMut;

use super::authority::Authority;
use super::edits::Scheme;
use super::rules::client_text;
use crate::http1::fields::{list, put, trim};
use crate::http1::{Head, Known};
use crate::model::policy::Trusted;

/// The most addresses that are looked at in a chain.
const HOPS_MAX: usize = 64;

/// What a trusted peer says about a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Claims<'a> {
    /// The client: the last address of the chain that is not trusted itself.
    pub client: Option<IpAddr>,
    /// What `X-Forwarded-For` is before the peer's own address is added.
    pub chain: Vec<u8>,
    /// In which scheme the client asked.
    pub scheme: Option<Scheme>,
    /// For which host.
    pub host: Option<&'a [u8]>,
    /// What `Forwarded` is before our own element is added.
    pub forwarded: Vec<u8>,
}

/// What the fields of this head say, which has come from this trusted peer.
pub(super) fn claims<'a>(head: &Head<'a>, peer: Option<IpAddr>, trusted: &Trusted) -> Claims<'a> {
    let named = |name: &'static [u8]| {
        let fields = head.fields.iter().filter(|field| field.known == Known::Forwarded);
        fields.filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let mut claims = Claims { forwarded: joined(named(b"forwarded")), ..Claims::default() };
    claims.chain = joined(named(b"x-forwarded-for"));
    let elements = claims.forwarded.clone();
    if claims.chain.is_empty() {
        let addresses = elements_of(&elements).filter_map(|element| node(parameter(element, b"for")?));
        claims.chain = addresses.map(|address| client_text(Some(address))).collect::<Vec<_>>().join(", ").into_bytes();
    }
    claims.client = client(&claims.chain, peer, trusted);
    let scheme = |text: &[u8]| match text {
        _ if text.eq_ignore_ascii_case(b"https") => Some(Scheme::Https),
        _ if text.eq_ignore_ascii_case(b"http") => Some(Scheme::Http),
        _ => None,
    };
    let proto = named(b"x-forwarded-proto").next().and_then(|value| list(value).next()).and_then(scheme);
    let last = |name: &'static [u8]| elements_of(&elements).last().and_then(|element| parameter(element, name));
    claims.scheme = proto.or_else(|| scheme(last(b"proto")?));
    claims.host = named(b"x-forwarded-host").next().filter(|value| Authority::parse(value).is_some());
    claims
}

/// The last address that is not trusted itself; if all are, the first. One that cannot be read ends the chain.
fn client(chain: &[u8], peer: Option<IpAddr>, trusted: &Trusted) -> Option<IpAddr> {
    let mut client = peer;
    for address in chain.rsplit(|b| *b == b',').take(HOPS_MAX) {
        let Some(address) = node(trim(address)) else { break };
        client = Some(address);
        if !trusted.has(client) {
            break;
        }
    }
    client
}

/// An address, perhaps with a port, an IPv6 address perhaps in brackets (RFC 7239, 6).
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// Values of one field, as one.
fn joined<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let values: Vec<&[u8]> = values.filter(|value| !value.is_empty()).collect();
    values.join(&b", "[..])
}

/// The elements of Forwarded, without their white space. A comma within quotes does not end one.
fn elements_of(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    split_unquoted(value, b',')
}

/// The value of a parameter of an element, without its quotes.
fn parameter<'a>(element: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    split_unquoted(element, b';').find_map(|pair| {
        let at = pair.iter().position(|b| *b == b'=')?;
        let value = &pair[at + 1..];
        let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        pair[..at].eq_ignore_ascii_case(name).then_some(bare)
    })
}

fn split_unquoted(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = value.split(move |b| {
        let separates = *b == separator && !quoted;
        match *b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        separates
    });
    parts.map(trim).filter(|part| !part.is_empty())
}

/// Appends our own element of Forwarded.
pub(super) fn put_element(out: &mut Vec<u8>, peer: Option<IpAddr>, scheme: Scheme, host: &[u8]) {
    match peer.map(|peer| peer.to_canonical()) {
        None => out.put_slice(b"for=unknown"),
        Some(IpAddr::V4(v4)) => put(out, &[b"for=", v4.to_string().as_bytes()]),
        Some(IpAddr::V6(v6)) => put(out, &[b"for=\"[", v6.to_string().as_bytes(), b"]\""]),
    }
    if !host.is_empty() {
        // An authority has neither quotes nor backslashes.
        put(out, &[b";host=\"", host, b"\""]);
    }
    put(out, &[b";proto=", scheme.as_str().as_bytes()]);
}

/// Whether this is a `traceparent` (W3C Trace Context, 3.2): one of a later version may have more at its end.
pub(super) fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let not_zero = |part: &[u8]| part.iter().any(|b| *b != b'0');
    let Some((whole, rest)) = value.split_at_checked(55) else { return false };
    let version = &whole[..2];
    let ends = if version == b"00" { rest.is_empty() } else { rest.is_empty() || rest[0] == b'-' };
    let (trace, parent, flags) = (&whole[3..35], &whole[36..52], &whole[53..]);
    let dashes = [2, 35, 52].iter().all(|at| whole[*at] == b'-');
    let parts = [version, trace, parent, flags].into_iter().all(hex);
    ends && dashes && parts && version != b"ff" && not_zero(trace) && not_zero(parent)
}

/// Whether an id of a trusted peer can be passed on.
pub(super) fn is_request_id(value: &[u8]) -> bool {
    (1..=128).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{HeadReader, Limits};

    fn trusted() -> Trusted {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap()).to_vec();
        Trusted { networks, unix: true }
    }

    /// Client, chain, scheme, host.
    fn of(fields: &str) -> (String, String, Option<&'static str>, String) {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", fields.replace('\n', "\r\n"));
        let bytes = bytes.replace("\r\n\r\n\r\n", "\r\n\r\n");
        let mut reader = HeadReader::default();
        let head = reader.read(bytes.as_bytes(), &Limits::REQUEST).unwrap().unwrap();
        let claims = claims(&head, Some("10.0.0.1".parse().unwrap()), &trusted());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let client = claims.client.map_or_else(String::new, |client| client.to_string());
        (client, text(&claims.chain), claims.scheme.map(Scheme::as_str), text(claims.host.unwrap_or_default()))
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_trusted() {
        for (fields, client, chain) in [
            ("A: b", "10.0.0.1", ""),
            ("X-Forwarded-For: 192.0.2.7", "192.0.2.7", "192.0.2.7"),
            ("X-Forwarded-For: 6.6.6.6, 192.0.2.7", "192.0.2.7", "6.6.6.6, 192.0.2.7"),
            ("X-Forwarded-For: 192.0.2.7, 10.1.1.1,10.2.2.2", "192.0.2.7", "192.0.2.7, 10.1.1.1,10.2.2.2"),
            ("X-Forwarded-For: 6.6.6.6\nx-forwarded-for: 192.0.2.7", "192.0.2.7", "6.6.6.6, 192.0.2.7"),
            ("X-Forwarded-For: 10.3.3.3, 10.1.1.1", "10.3.3.3", "10.3.3.3, 10.1.1.1"),
            ("X-Forwarded-For: 192.0.2.7, unknown, 10.1.1.1", "10.1.1.1", "192.0.2.7, unknown, 10.1.1.1"),
            ("X-Forwarded-For: garbage", "10.0.0.1", "garbage"),
            ("X-Forwarded-For: 192.0.2.7:81", "192.0.2.7", "192.0.2.7:81"),
            ("X-Forwarded-For: [2001:db9::7]:81, [2001:db8::1]", "2001:db9::7", "[2001:db9::7]:81, [2001:db8::1]"),
            ("X-Forwarded-For: ::ffff:192.0.2.7", "192.0.2.7", "::ffff:192.0.2.7"),
            ("Forwarded: for=6.6.6.6, For=\"[2001:db9::7]:4711\";proto=http", "2001:db9::7", "6.6.6.6, 2001:db9::7"),
            ("Forwarded: for=\"a,b;c\";x=y, for=192.0.2.7", "192.0.2.7", "192.0.2.7"),
            ("Forwarded: for=_hidden", "10.0.0.1", ""),
            ("X-Forwarded-For: 192.0.2.8\nForwarded: for=192.0.2.7", "192.0.2.8", "192.0.2.8"),
            // Not a name that anybody means.
            ("X_Forwarded_For: 192.0.2.7", "10.0.0.1", ""),
        ] {
            let (got, got_chain, ..) = of(fields);
            assert_eq!((got.as_str(), got_chain.as_str()), (client, chain), "{fields:?}");
        }
    }

    #[test]
    fn scheme_and_host_are_believed_if_they_can_be() {
        for (fields, scheme, host) in [
            ("A: b", None, ""),
            ("X-Forwarded-Proto: https\nX-Forwarded-Host: shop.example:81", Some("https"), "shop.example:81"),
            ("X-Forwarded-Proto: HTTP, https", Some("http"), ""),
            ("X-Forwarded-Proto: gopher\nX-Forwarded-Host: a b", None, ""),
            ("Forwarded: for=a;proto=http, for=b;Proto=https", Some("https"), ""),
        ] {
            let (_, _, got, got_host) = of(fields);
            assert_eq!((got, got_host.as_str()), (scheme, host), "{fields:?}");
        }
    }

    #[test]
    fn our_own_element_can_be_read_by_everybody() {
        for (peer, host, want) in [
            (Some("192.0.2.1"), "a:81", "for=192.0.2.1;host=\"a:81\";proto=http"),
            (Some("::ffff:192.0.2.1"), "", "for=192.0.2.1;proto=http"),
            (Some("2001:db8::1"), "", "for=\"[2001:db8::1]\";proto=http"),
            (None, "a", "for=unknown;host=\"a\";proto=http"),
        ] {
            let mut out = Vec::new();
            put_element(&mut out, peer.map(|peer| peer.parse().unwrap()), Scheme::Http, host.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn a_traceparent_has_one_form() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (value, want) in [
            (good, true),
            ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false),
            ("00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("", false),
        ] {
            assert_eq!(is_traceparent(value.as_bytes()), want, "{value}");
        }
    }
}
