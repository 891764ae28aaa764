//! Whether a request meets the conditions `header`, `query` and `cookie` of a route.

use super::judge::Facts;
use super::key::cookies;
use crate::http1::Head;
use crate::model::policy::{Condition, RequestPart};

/// Whether the request has something of this name with this value. Of several with the name one is enough.
pub(super) fn holds(condition: &Condition, head: &Head<'_>, facts: &Facts<'_>) -> bool {
    let name = condition.name.as_bytes();
    let value = condition.value.as_ref().map(|value| value.as_bytes());
    match condition.part {
        RequestPart::Header => {
            let mut named = head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            named.any(|field| value.is_none_or(|value| value == field.value))
        }
        RequestPart::Cookie => cookies(head, name).any(|cookie| value.is_none_or(|value| value == cookie)),
        RequestPart::Query => {
            let query = facts.target.split_once('?').map_or("", |(_, query)| query);
            query.split('&').any(|pair| {
                let (given_name, given) = pair.split_once('=').unwrap_or((pair, ""));
                is_decoded(given_name, name) && value.is_none_or(|value| is_decoded(given, value))
            })
        }
    }
}

/// Whether a part of a query is this text, once `%XX` and `+` are decoded as in a form. A `%` without two hex digits is
/// itself.
fn is_decoded(given: &str, text: &[u8]) -> bool {
    let (mut given, mut text) = (given.as_bytes(), text.iter());
    while let Some((byte, rest)) = decode_one(given) {
        if text.next() != Some(&byte) {
            return false;
        }
        given = rest;
    }
    text.next().is_none()
}

/// The first byte, decoded, and what follows it.
fn decode_one(given: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (first, rest) = given.split_first()?;
    match (first, rest) {
        (b'+', rest) => Some((b' ', rest)),
        (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
            (Some(high), Some(low)) => Some(((high << 4 | low) as u8, after)),
            _ => Some((b'%', rest)),
        },
        (byte, rest) => Some((*byte, rest)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exchange::judge::judge;
    use crate::http1::{HeadReader, Limits};

    #[test]
    fn a_condition_is_about_a_name_and_its_whole_value() {
        let holds = |part, name: &str, value: Option<&str>, request: &str| {
            let bytes = format!("{}\r\n\r\n", request.replace('\n', "\r\n"));
            let mut reader = HeadReader::default();
            let head = reader.read(bytes.as_bytes(), &Limits::REQUEST).unwrap().unwrap();
            let condition = Condition { part, name: name.into(), value: value.map(Arc::from) };
            holds(&condition, &head, &judge(&head).unwrap())
        };
        use RequestPart::{Cookie, Header, Query};
        let with = |fields: &str| format!("GET / HTTP/1.1\nHost: a\n{fields}");
        let at = |target: &str| format!("GET {target} HTTP/1.1\nHost: a");
        for (part, name, value, request, want) in [
            (Header, "x-beta", Some("1"), with("X-Beta: 1"), true),
            (Header, "x-beta", Some("1"), with("x-beta:\t1 "), true),
            (Header, "x-beta", Some("1"), with("X-Beta: 11"), false),
            (Header, "x-beta", Some("1"), with("X-Beta: 2\nX-Beta: 1"), true),
            (Header, "x-beta", Some("a"), with("X-Beta: A"), false),
            (Header, "x-beta", None, with("X-Beta:"), true),
            (Header, "x-beta", None, with("X-Betas: 1"), false),
            (Header, "host", Some("a"), with("B: c"), true),
            (Cookie, "beta", Some("1"), with("Cookie: a=b; beta=1; c=d"), true),
            (Cookie, "beta", Some("1"), with("Cookie: beta=2\nCookie: beta=1"), true),
            (Cookie, "beta", Some("1"), with("Cookie: Beta=1; xbeta=1; beta=12"), false),
            (Cookie, "beta", None, with("Cookie: beta="), true),
            (Cookie, "beta", None, with("Cookie: alpha=beta"), false),
            (Query, "v", Some("2"), at("/?v=2"), true),
            (Query, "v", Some("2"), at("/x?a=b&v=2&c"), true),
            (Query, "v", Some("2"), at("/?v=1&v=2"), true),
            (Query, "v", Some("2"), at("http://a/?v=2"), true),
            (Query, "v", Some("2"), at("/v=2"), false),
            (Query, "v", Some("2"), at("/?v=22&V=2&vv=2"), false),
            (Query, "v", Some(""), at("/?v"), true),
            (Query, "v", None, at("/?v"), true),
            (Query, "v", None, at("/?a=v"), false),
            (Query, "v", None, at("/"), false),
            (Query, "a b", Some("c&d=\u{e9}"), at("/?a+b=c%26d%3D%C3%a9"), true),
            (Query, "a b", Some("+"), at("/?a%20b=%2B"), true),
            (Query, "v", Some("100%"), at("/?v=100%"), true),
            (Query, "v", Some("%zz"), at("/?v=%zz"), true),
        ] {
            assert_eq!(holds(part, name, value, &request), want, "{part:?} {name} {value:?} {request:?}");
        }
    }
}
