//! Judges response heads: what ends the answer, and whether it can be passed on at all. Where it ends is for
//! [`crate::http1::framing`], as with checks; what is wrong with it leads to 502.

use std::time::Duration;

use super::edits::{Delivery, Length, ResponseEdits};
use super::judge::Method;
use super::upgrade::Protocol;
use crate::http1::fields::{is_token, is_value, list, trim};
use crate::http1::framing::{Ending, ending, switches_to};
use crate::http1::{Fault, Field, Known, ResponseFraming, Version};

/// What of a request decides how its answer is read.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// The client's version.
    pub version: Version,
    /// The protocol to which it asks to switch, and may.
    pub upgrade: Option<Protocol>,
}

/// Refuses fields that could split an answer: for heads that another parser than ours has read.
pub fn check_fields<'a>(mut fields: impl Iterator<Item = Field<'a>>) -> Result<(), Fault> {
    match fields.all(|field| field.name.iter().all(|b| is_token(*b)) && is_value(field.value)) {
        true => Ok(()),
        false => Err(Fault::Head("a control character in a field")),
    }
}

/// Judges a response head given as the upstream's version, status and fields.
pub fn judge_response<'a>(
    asked: &Asked,
    version: Version,
    status: u16,
    fields: impl Iterator<Item = Field<'a>> + Clone,
) -> Result<(ResponseFraming, ResponseEdits), Fault> {
    let all = |known: Known| fields.clone().filter(move |field| field.known == known).map(|field| field.value);
    let Ending { framing, length: length_given } = ending(asked.method == Method::Head, status, fields.clone())?;
    let switch = asked.upgrade.as_ref().filter(|_| status == 101);
    if status == 101 && !switch.is_some_and(|to| switches_to(to.as_bytes(), fields.clone())) {
        return Err(Fault::Switch);
    }
    let old = asked.version == Version::Http10;
    let delivery = Delivery {
        hidden: old && status < 200 && status != 101,
        unframed: old,
        chunked: !old && framing == ResponseFraming::UntilClose,
        close: old && matches!(framing, ResponseFraming::Chunked | ResponseFraming::UntilClose),
        length: length(all(Known::ContentLength), length_given),
        // RFC 9110, 15.5.22. In other answers it is an offer for this connection, which is ours.
        offers: status == 426 && all(Known::Upgrade).next().is_some(),
        keeps: keeps_for(version, fields.clone(), Duration::MAX),
        switch: switch.cloned(),
    };
    Ok((framing, ResponseEdits::new(status, all(Known::Connection), delivery)))
}

/// For how long the connection of this response may be kept for another request: `idle_timeout`, or less where the upstream
/// says so (`Keep-Alive: timeout=5`). `None`: it must not be used again (RFC 9112, 9.3). The response must have ended by its
/// framing. Chunks in HTTP/1.0 are read as chunks, but whether the upstream means them is not certain (RFC 9112, 6.1).
///
/// A second is taken off what the upstream says: a request that is sent in the last moment meets a connection that is closed
/// when it arrives.
fn keeps_for<'a>(
    version: Version,
    fields: impl Iterator<Item = Field<'a>>,
    idle_timeout: Duration,
) -> Option<Duration> {
    let (mut close, mut keep_alive, mut chunked, mut idle) = (false, false, false, idle_timeout);
    for field in fields {
        match field.known {
            Known::Connection => {
                for option in list(field.value) {
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Known::KeepAlive => {
                for seconds in list(field.value).filter_map(keep_alive_timeout) {
                    idle = idle.min(Duration::from_secs(seconds.saturating_sub(1)));
                }
            }
            Known::TransferEncoding => chunked = true,
            Known::Host
            | Known::ContentLength
            | Known::ProxyConnection
            | Known::Te
            | Known::Upgrade
            | Known::Http2Settings
            | Known::Expect
            | Known::ProxyAuth
            | Known::Authorization
            | Known::Cookie
            | Known::Forwarded
            | Known::Underscored
            | Known::Other => {}
        }
    }
    let kept = match version {
        Version::Http11 => !close,
        Version::Http10 => keep_alive && !close && !chunked,
    };
    (kept && !idle.is_zero()).then_some(idle)
}

/// The seconds of `timeout=5`. Anything else says nothing; more than 64 bits are for ever.
fn keep_alive_timeout(parameter: &[u8]) -> Option<u64> {
    let at = parameter.iter().position(|b| *b == b'=')?;
    let (name, value) = (trim(&parameter[..at]), trim(&parameter[at + 1..]));
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let digits = quoted.unwrap_or(value);
    if !name.eq_ignore_ascii_case(b"timeout") || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |n: u64, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// What becomes of these Content-Lengths, all of which say `length`.
fn length<'a>(mut given: impl Iterator<Item = &'a [u8]>, length: Option<u64>) -> Length {
    match (length, given.next(), given.next()) {
        (None, _, _) | (_, None, _) => Length::Kept,
        (Some(_), Some(only), None) if is_canonical(only) => Length::Kept,
        (Some(length), Some(_), _) => Length::canonical(length),
    }
}

fn is_canonical(digits: &[u8]) -> bool {
    digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits[0] != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Asked = Asked { method: Method::Get, version: Version::Http11, upgrade: None };

    fn framing(asked: Asked, status: u16, fields: &[(&str, &str)]) -> Option<ResponseFraming> {
        let fields = fields.iter().map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()));
        judge_response(&asked, Version::Http11, status, fields).ok().map(|(framing, _)| framing)
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let head = Asked { method: Method::Head, ..GET };
        for (asked, fields, want) in [
            (GET, ("Content-Length", "5"), Some(ResponseFraming::Length(5))),
            (head, ("Content-Length", "5"), Some(ResponseFraming::None)),
            (GET, ("Transfer-Encoding", "gzip"), None),
        ] {
            assert_eq!(framing(asked, 200, &[fields]), want, "{fields:?}");
        }
    }

    #[test]
    fn nothing_splits_an_answer() {
        for (name, value, good) in
            [("X", "a\tb \u{e9}", true), ("X", "a\r\nSet-Cookie: b", false), ("X", "a\0", false), ("X Y", "a", false)]
        {
            let fields = [Field::new(b"A", b"b"), Field::new(name.as_bytes(), value.as_bytes())];
            assert_eq!(check_fields(fields.into_iter()).is_ok(), good, "{name}: {value:?}");
        }
    }

    #[test]
    fn a_connection_is_kept_unless_the_upstream_closes_it() {
        use Version::{Http10, Http11};
        for (version, fields, want) in [
            (Http11, &[][..], true),
            (Http11, &["close"][..], false),
            (Http11, &["Keep-Alive"], true),
            (Http11, &["x, CLOSE"], false),
            (Http11, &["keep-alive", "close"], false),
            (Http11, &["closed"], true),
            (Http10, &[], false),
            (Http10, &["keep-alive"], true),
            (Http10, &["keep-alive, close"], false),
        ] {
            let fields = fields.iter().map(|value| Field::new(b"Connection", value.as_bytes()));
            let kept = keeps_for(version, fields.clone(), Duration::from_secs(4)).is_some();
            assert_eq!(kept, want, "{version:?} {:?}", fields.collect::<Vec<_>>());
        }
        let chunked = [Field::new(b"Connection", b"keep-alive"), Field::new(b"Transfer-Encoding", b"chunked")];
        for (version, want) in [(Http11, true), (Http10, false)] {
            let (framing, edits) = judge_response(&GET, version, 200, chunked.into_iter()).unwrap();
            let keeps = edits.keeps_upstream(Duration::from_secs(4)).is_some();
            assert_eq!((framing, keeps), (ResponseFraming::Chunked, want), "{version:?}");
        }
    }

    #[test]
    fn a_connection_is_kept_a_second_less_than_its_upstream_keeps_it() {
        for (values, want) in [
            (&[][..], Some(10)),
            (&["timeout=5"][..], Some(4)),
            (&["timeout=5, max=100"], Some(4)),
            (&["max=100,Timeout = 5"], Some(4)),
            (&["timeout=\"5\""], Some(4)),
            (&["timeout=2"], Some(1)),
            (&["timeout=1"], None),
            (&["timeout=0"], None),
            (&["timeout=00"], None),
            (&["timeout=11"], Some(10)),
            (&["timeout=12"], Some(10)),
            (&["timeout=600"], Some(10)),
            (&["timeout=99999999999999999999999"], Some(10)),
            (&["timeout=60", "timeout=3"], Some(2)),
            (&["timeout=3, timeout=60"], Some(2)),
            // What cannot be read says nothing.
            (&["timeout"], Some(10)),
            (&["timeout="], Some(10)),
            (&["timeout=-1"], Some(10)),
            (&["timeout=5s"], Some(10)),
            (&["timeout=5;max=3"], Some(10)),
            (&["timeout=\"5"], Some(10)),
            (&["xtimeout=5"], Some(10)),
            (&["max=0"], Some(10)),
        ] {
            let fields = values.iter().map(|value| Field::new(b"Keep-Alive", value.as_bytes()));
            let got = keeps_for(Version::Http11, fields.clone(), Duration::from_secs(10));
            assert_eq!(got.map(|idle| idle.as_secs()), want, "{values:?}");
            let closed = fields.chain([Field::new(b"Connection", b"close")]);
            assert_eq!(keeps_for(Version::Http11, closed, Duration::from_secs(10)), None, "{values:?}");
        }
        assert_eq!(keeps_for(Version::Http11, [].into_iter(), Duration::ZERO), None, "the pool keeps none");
    }

    #[test]
    fn protocols_are_switched_only_as_asked() {
        let asked = |protocol: &str| Asked { upgrade: Some(Protocol::new(protocol.as_bytes())), ..GET };
        let websocket = [("Connection", "Upgrade"), ("Upgrade", "WebSocket")];
        assert_eq!(framing(asked("websocket"), 101, &websocket), Some(ResponseFraming::None));
        assert_eq!(framing(GET, 101, &websocket), None);
        assert_eq!(framing(asked("foo"), 101, &websocket), None);
        assert_eq!(framing(asked("Foo/2"), 101, &[("Upgrade", "foo/2")]), Some(ResponseFraming::None));
        assert_eq!(framing(asked("foo/2"), 101, &[("Upgrade", "foo")]), None);
        assert_eq!(framing(asked("foo"), 101, &[("Upgrade", "foo/2")]), None);
        assert_eq!(framing(asked("foo"), 101, &[("Upgrade", "foo, bar")]), None);
        assert_eq!(framing(asked("websocket"), 101, &[]), None);
        assert_eq!(framing(asked("websocket"), 101, &[("Upgrade", "h2c")]), None);
        assert_eq!(framing(asked("websocket"), 101, &[("Upgrade", "websocket"), ("Upgrade", "websocket")]), None);
        assert_eq!(framing(asked("websocket"), 426, &[("Upgrade", "a"), ("Upgrade", "b"), ("Content-Length", "0")]), {
            Some(ResponseFraming::Length(0))
        });
    }

    #[test]
    fn a_client_of_http_1_0_sees_no_interim_answer() {
        let none: [Field<'_>; 0] = [];
        for (version, status, want) in
            [(Version::Http10, 100, true), (Version::Http10, 200, false), (Version::Http11, 103, false)]
        {
            let (_, edits) =
                judge_response(&Asked { version, ..GET }, Version::Http11, status, none.into_iter()).unwrap();
            assert_eq!(edits.hidden(), want, "{version:?} {status}");
        }
    }
}
