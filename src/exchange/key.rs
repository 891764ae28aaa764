//! What a request is hashed by, where its pool chooses by a hash (the same for equal requests, in every process and at any
//! time), or counted by, where there is a limit.

use std::net::IpAddr;

use super::edits::Scheme;
use super::judge::Facts;
use crate::balance::hashing::hash;
use crate::http1::Head;
use crate::model::policy::HashKey;

/// The hash of the part of a request that this key names; `None`: the request has none.
pub(super) fn hash_of(key: &HashKey, head: &Head<'_>, facts: &Facts<'_>, client: Option<IpAddr>) -> Option<u64> {
    with_key(key, head, facts, client, hash)
}

/// Gives this the part of a request that the key names; `None`: the request has none.
pub(super) fn with_key<T>(
    key: &HashKey,
    head: &Head<'_>,
    facts: &Facts<'_>,
    client: Option<IpAddr>,
    take: impl FnOnce(&[u8]) -> T,
) -> Option<T> {
    let value = match key {
        HashKey::ClientIp => {
            return client.map(|client| match client.to_canonical() {
                IpAddr::V4(v4) => take(&v4.octets()),
                IpAddr::V6(v6) => take(&v6.octets()),
            });
        }
        HashKey::Path => facts.path.as_bytes(),
        HashKey::Header(name) => {
            let mut fields = head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
            fields.next()?.value
        }
        HashKey::Cookie(name) => cookies(head, name.as_bytes()).next()?,
    };
    (!value.is_empty()).then(|| take(value))
}

/// The number in the cookie of a session, if it has one.
pub(super) fn session_of(cookie: &str, head: &Head<'_>) -> Option<u64> {
    cookies(head, cookie.as_bytes()).find_map(|value| {
        let is_number = value.len() == 16 && value.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
        is_number.then(|| u64::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()).flatten()
    })
}

/// The field that sets it.
pub(super) fn set_session(cookie: &str, number: u64, scheme: Scheme) -> String {
    let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
    format!("Set-Cookie: {cookie}={number:016x}; Path=/; HttpOnly; SameSite=Lax{secure}\r\n")
}

/// The values of the cookies of this name (RFC 6265, 4.2.1). Names are case-sensitive.
pub(super) fn cookies<'a>(head: &Head<'a>, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let fields = head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"cookie"));
    let pairs = fields.flat_map(|field| field.value.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    pairs.filter_map(move |pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::judge::judge;
    use crate::http1::{HeadReader, Limits};

    #[test]
    fn a_key_is_a_part_of_the_request_and_nothing_else_of_it() {
        let key = |key: &HashKey, request: &str, client: Option<&str>| {
            let bytes = format!("{}\r\n\r\n", request.replace('\n', "\r\n"));
            let mut reader = HeadReader::default();
            let head = reader.read(bytes.as_bytes(), &Limits::REQUEST).unwrap().unwrap();
            hash_of(key, &head, &judge(&head).unwrap(), client.map(|client| client.parse().unwrap()))
        };
        let (header, cookie) = (HashKey::Header("x-user".into()), HashKey::Cookie("id".into()));
        let of = |bytes: &[u8]| Some(hash(bytes));
        for (by, request, client, want) in [
            (&HashKey::ClientIp, "GET / HTTP/1.1\nHost: a", Some("10.0.0.1"), of(&[10, 0, 0, 1])),
            (&HashKey::ClientIp, "GET / HTTP/1.1\nHost: a", Some("::ffff:10.0.0.1"), of(&[10, 0, 0, 1])),
            (&HashKey::ClientIp, "GET / HTTP/1.1\nHost: a", None, None),
            (&HashKey::Path, "GET /x/%7Ey?q=1 HTTP/1.1\nHost: a", None, of(b"/x/~y")),
            (&HashKey::Path, "GET /x/~y HTTP/1.1\nHost: b", None, of(b"/x/~y")),
            (&header, "GET / HTTP/1.1\nHost: a\nX-USER: u1\nX-User: u2", None, of(b"u1")),
            (&header, "GET / HTTP/1.1\nHost: a\nX-User:", None, None),
            (&header, "GET / HTTP/1.1\nHost: a\nX-Users: u1", None, None),
            (&cookie, "GET / HTTP/1.1\nHost: a\nCookie: a=1; id=abc; id=d", None, of(b"abc")),
            (&cookie, "GET / HTTP/1.1\nHost: a\nCookie: a=1;id=abc\nCookie: id=d", None, of(b"abc")),
            (&cookie, "GET / HTTP/1.1\nHost: a\nCookie: ID=abc; idx=1; xid=2; id", None, None),
            (&cookie, "GET / HTTP/1.1\nHost: a\nCookie: id=", None, None),
        ] {
            assert_eq!(key(by, request, client), want, "{by} {request:?} {client:?}");
        }
    }
}
