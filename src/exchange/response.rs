//! Judges response heads: what ends the answer, and whether it can be passed on at all. As with requests, what two parsers
//! could read differently is refused; the client is then told 502.

use super::answer::Refusal;
use super::edits::{Delivery, ResponseEdits};
use super::head::fields::{is_token, is_value};
use super::head::{Known, Version};
use super::judge::{Method, chunked, content_length};
use crate::pool::AnswerReason;

/// What ends an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFraming {
    /// It has no body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The end of the connection.
    UntilClose,
}

/// What of a request decides how its answer is read.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// The client's version.
    pub version: Version,
    /// Whether it asked for a WebSocket.
    pub upgrade: bool,
}

/// Judges a response head given as status and fields (name, value). Every refusal has the reason `BadResponse`.
pub fn judge_response<'a>(
    asked: Asked,
    status: u16,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Result<(ResponseFraming, ResponseEdits), Refusal> {
    judge(asked, status, fields).map_err(|refusal| Refusal { reason: AnswerReason::BadResponse, ..refusal })
}

fn judge<'a>(
    asked: Asked,
    status: u16,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Result<(ResponseFraming, ResponseEdits), Refusal> {
    if !(100..=599).contains(&status) {
        return Err(Refusal::malformed("a status outside 100 to 599"));
    }
    let mut length = None;
    let mut is_chunked = false;
    let mut upgrade = None;
    for (name, value) in fields.clone() {
        // The tunnel's parser has seen to that already, that of the general lane perhaps: nothing splits an answer.
        if !name.iter().all(|b| is_token(*b)) || !is_value(value) {
            return Err(Refusal::malformed("a control character in a field"));
        }
        let again = match Known::of(name) {
            Known::ContentLength => length.replace(content_length(value)?).is_some(),
            Known::TransferEncoding => {
                chunked(value)?;
                std::mem::replace(&mut is_chunked, true)
            }
            Known::Upgrade => upgrade.replace(value).is_some(),
            Known::Host
            | Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Te
            | Known::Http2Settings
            | Known::Expect
            | Known::ProxyAuth
            | Known::Authorization
            | Known::Cookie
            | Known::Forwarded
            | Known::Other => false,
        };
        // Several Upgrade fields are a list of offers, which only a 101 must not be.
        if again && (Known::of(name) != Known::Upgrade || status == 101) {
            return Err(Refusal::malformed("a field twice that decides where the answer ends"));
        }
    }
    if is_chunked && length.is_some() {
        return Err(Refusal::malformed("Content-Length with Transfer-Encoding"));
    }
    let switched = upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    if status == 101 && !(asked.upgrade && switched) {
        return Err(Refusal::malformed("a switch of protocols that nobody asked for"));
    }
    let framing = match (length, is_chunked) {
        _ if asked.method == Method::Head || status < 200 || status == 204 || status == 304 => ResponseFraming::None,
        (_, true) => ResponseFraming::Chunked,
        (Some(length), false) => ResponseFraming::Length(length),
        (None, false) => ResponseFraming::UntilClose,
    };
    let connection = fields.filter(|(name, _)| Known::of(name) == Known::Connection).map(|(_, value)| value);
    let old = asked.version == Version::Http10;
    let delivery = Delivery {
        hidden: old && status < 200 && status != 101,
        unframed: old,
        close: match framing {
            ResponseFraming::None | ResponseFraming::Length(_) => false,
            ResponseFraming::Chunked => old,
            ResponseFraming::UntilClose => true,
        },
    };
    Ok((framing, ResponseEdits::new(status, connection, delivery)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Asked = Asked { method: Method::Get, version: Version::Http11, upgrade: false };

    fn framing(asked: Asked, status: u16, fields: &[(&str, &str)]) -> Option<ResponseFraming> {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        match judge_response(asked, status, fields) {
            Ok((framing, _)) => Some(framing),
            Err(refusal) => {
                assert_eq!(refusal.reason, AnswerReason::BadResponse);
                None
            }
        }
    }

    #[test]
    fn an_answer_ends_in_one_place() {
        use ResponseFraming::*;
        let head = Asked { method: Method::Head, ..GET };
        let (length, chunked) = (("Content-Length", "5"), ("Transfer-Encoding", "chunked"));
        for (asked, status, fields, want) in [
            (GET, 200, &[][..], Some(UntilClose)),
            (GET, 200, &[length], Some(Length(5))),
            (GET, 200, &[chunked], Some(Chunked)),
            (GET, 404, &[("content-length", "0")], Some(Length(0))),
            (head, 200, &[length], Some(None)),
            (head, 200, &[chunked], Some(None)),
            (head, 200, &[], Some(None)),
            (GET, 204, &[length], Some(None)),
            (GET, 304, &[length], Some(None)),
            (GET, 100, &[], Some(None)),
            (GET, 103, &[length], Some(None)),
            (GET, 200, &[length, chunked], Option::None),
            (GET, 200, &[length, length], Option::None),
            (GET, 200, &[chunked, chunked], Option::None),
            (GET, 200, &[("Content-Length", "5, 5")], Option::None),
            (GET, 200, &[("Content-Length", "-1")], Option::None),
            (GET, 200, &[("Transfer-Encoding", "gzip")], Option::None),
            (GET, 200, &[("Transfer-Encoding", "gzip, chunked")], Option::None),
            (head, 200, &[("Content-Length", "x")], Option::None),
            (GET, 200, &[("X", "a\r\nSet-Cookie: b")], Option::None),
            (GET, 200, &[("X", "a\0")], Option::None),
            (GET, 200, &[("X Y", "a")], Option::None),
            (GET, 99, &[], Option::None),
            (GET, 600, &[], Option::None),
        ] {
            assert_eq!(framing(asked, status, fields), want, "{status} {fields:?}");
        }
    }

    #[test]
    fn protocols_are_switched_only_as_asked() {
        let asked = Asked { upgrade: true, ..GET };
        let websocket = [("Connection", "Upgrade"), ("Upgrade", "WebSocket")];
        assert_eq!(framing(asked, 101, &websocket), Some(ResponseFraming::None));
        assert_eq!(framing(GET, 101, &websocket), None);
        assert_eq!(framing(asked, 101, &[]), None);
        assert_eq!(framing(asked, 101, &[("Upgrade", "h2c")]), None);
        assert_eq!(framing(asked, 101, &[("Upgrade", "websocket"), ("Upgrade", "websocket")]), None);
        assert_eq!(framing(asked, 426, &[("Upgrade", "a"), ("Upgrade", "b"), ("Content-Length", "0")]), {
            Some(ResponseFraming::Length(0))
        });
    }

    #[test]
    fn a_client_of_http_1_0_sees_no_interim_answer() {
        let none: [(&[u8], &[u8]); 0] = [];
        for (version, status, want) in
            [(Version::Http10, 100, true), (Version::Http10, 200, false), (Version::Http11, 103, false)]
        {
            let (_, edits) = judge_response(Asked { version, ..GET }, status, none.into_iter()).unwrap();
            assert_eq!(edits.hidden(), want, "{version:?} {status}");
        }
    }
}
