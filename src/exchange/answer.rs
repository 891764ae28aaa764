//! Our own answers: what they say and how they look on the wire. A status, a sentence with its reason code, and nothing
//! that tells of upstreams or versions.

use std::borrow::Cow;

use bytes::BufMut;

use super::edits::digits;
use super::rules::lines;
use crate::http1::fields::put;
use crate::http1::{BadByte, Fault, HttpDate, TargetPart, Version};
use crate::pool::AnswerReason;

/// Why a head, or the framing of a body, is refused. Nothing more can be read from that connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// What the client is told.
    pub reason: AnswerReason,
    /// Which rule it broke, for the log.
    pub why: &'static str,
    /// The byte that is not allowed, for the client.
    pub byte: Option<BadByte>,
}

impl Refusal {
    /// The head did not end in time: [`super::Silence`].
    pub const HEAD_TOO_SLOW: Refusal = Refusal::new(AnswerReason::HeaderTimeout, "the head took too long");
    /// The body did not go on in time: [`super::ClientClock`].
    pub const BODY_TOO_SLOW: Refusal = Refusal::new(AnswerReason::BodyTimeout, "the body took too long");
    /// The lane has a parser of its own, which reads a head in another way than ours.
    pub const BY_LANE: Refusal = Refusal::malformed("refused by the lane");

    /// A refusal for this reason.
    pub(super) const fn new(reason: AnswerReason, why: &'static str) -> Refusal {
        Refusal { reason, why, byte: None }
    }

    /// A 400.
    pub(super) const fn malformed(why: &'static str) -> Refusal {
        Refusal::new(AnswerReason::Malformed, why)
    }

    /// A 400 because of a byte of the target.
    pub(super) fn byte(byte: u8, part: TargetPart) -> Refusal {
        Refusal::from(Fault::TargetByte(BadByte { byte, part }))
    }

    /// The answer that says so and closes.
    pub fn answer(self) -> OwnAnswer {
        OwnAnswer { close: true, byte: self.byte, ..OwnAnswer::new(self.reason) }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        let reason = match fault {
            Fault::HeadBytes(_) | Fault::HeadFields(_) => AnswerReason::HeadTooLarge,
            Fault::TargetTooLong => AnswerReason::TargetTooLong,
            Fault::BodyTooLarge => AnswerReason::BodyTooLarge,
            Fault::Version => AnswerReason::Version,
            Fault::OtherCoding => AnswerReason::NotImplemented,
            Fault::NotHttp
            | Fault::Head(_)
            | Fault::TargetByte(_)
            | Fault::Length(_)
            | Fault::Coding(_)
            | Fault::Chunk(_) => AnswerReason::Malformed,
            // Only answers have these.
            Fault::Status(_) | Fault::Interim | Fault::Switch => AnswerReason::Malformed,
        };
        let byte = if let Fault::TargetByte(byte) = fault { Some(byte) } else { None };
        Refusal { reason, why: fault.words(), byte }
    }
}

/// An answer that is not an upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnAnswer {
    /// What it says.
    pub kind: OwnKind,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u64>,
    /// The byte of the request that is not allowed.
    pub byte: Option<BadByte>,
    /// The client connection cannot go on after it, whatever the client wishes.
    pub close: bool,
}

/// What an answer of our own says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnKind {
    /// Something is wrong.
    Error(AnswerReason),
    /// The answer to `OPTIONS *`, which asks about this server and not about an upstream: 200, empty.
    ServerOptions,
    /// The answer of the route, with this status: what is in it is [`Added`].
    OfRoute(u16),
}

/// What the rules of a route add to an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Added<'a> {
    /// Field lines, each with its line end.
    pub lines: &'a [u8],
    /// Further lines of an answer that is the route's own.
    pub answer: &'a [u8],
    /// The body of that answer.
    pub body: &'a [u8],
}

/// One field of an answer of our own.
pub type OwnField = (&'static str, Cow<'static, str>);

impl OwnAnswer {
    /// An answer for this reason that lets the connection go on where the reason allows it.
    pub(super) fn new(reason: AnswerReason) -> OwnAnswer {
        OwnAnswer { kind: OwnKind::Error(reason), retry_after: None, byte: None, close: closes(reason) }
    }

    /// An answer that says when to come again, in seconds.
    pub(super) fn retry_after(reason: AnswerReason, seconds: u64) -> OwnAnswer {
        OwnAnswer { retry_after: Some(seconds), ..OwnAnswer::new(reason) }
    }

    /// The answer of a route, with this status.
    pub(super) fn of_route(status: u16) -> OwnAnswer {
        OwnAnswer { kind: OwnKind::OfRoute(status), retry_after: None, byte: None, close: false }
    }

    /// The answer to `OPTIONS *`.
    pub(super) fn server_options() -> OwnAnswer {
        OwnAnswer { kind: OwnKind::ServerOptions, retry_after: None, byte: None, close: false }
    }

    /// Its reason code, unless all is well.
    pub fn reason(&self) -> Option<AnswerReason> {
        match self.kind {
            OwnKind::Error(reason) => Some(reason),
            OwnKind::ServerOptions | OwnKind::OfRoute(_) => None,
        }
    }

    /// Its status.
    pub fn status(&self) -> u16 {
        match self.kind {
            OwnKind::Error(reason) => reason.status(),
            OwnKind::ServerOptions => 200,
            OwnKind::OfRoute(status) => status,
        }
    }

    /// Its body, in pieces: one line of plain text, or nothing; without what a route adds.
    pub fn body(&self) -> [&'static str; 6] {
        match (self.reason(), self.byte) {
            (None, _) => [""; 6],
            (Some(reason), None) => [body(reason), "", "", "", "", ""],
            (Some(_), Some(BadByte { byte, part })) => {
                let digit = |value: u8| &"0123456789abcdef"[usize::from(value)..=usize::from(value)];
                [
                    "malformed request: byte 0x",
                    digit(byte >> 4),
                    digit(byte & 15),
                    " in the ",
                    part.as_str(),
                    " (malformed)\n",
                ]
            }
        }
    }

    /// Its fields but `Date` and `Connection`, in order, without what a route adds. `body_bytes`: the length of its body.
    fn fields(&self, body_bytes: usize) -> impl Iterator<Item = OwnField> {
        // No body and no length belong to these (RFC 9110, 8.6 and 15.4.5).
        let length = (!matches!(self.status(), 204 | 304)).then(|| Cow::Owned(body_bytes.to_string()));
        let kind = self.reason().map(|_| ("Content-Type", Cow::Borrowed("text/plain")));
        let allow = (self.reason() == Some(AnswerReason::Method)).then_some(("Allow", Cow::Borrowed(ALLOW)));
        let retry = self.retry_after.map(|seconds| ("Retry-After", Cow::Owned(seconds.to_string())));
        [length.map(|length| ("Content-Length", length)), kind, allow, retry].into_iter().flatten()
    }

    /// The length of its body.
    pub fn body_bytes(&self, added: Added<'_>) -> usize {
        self.body().iter().map(|piece| piece.len()).sum::<usize>() + added.body.len()
    }

    /// Appends the whole answer with what its route adds, and `date` as its `Date`. `head_only`: the request was HEAD. `keep_alive`: the connection
    /// goes on after it (never true where `close` is set); a client of HTTP/1.0 is told so.
    pub fn write_to(
        &self,
        out: &mut impl BufMut,
        added: Added<'_>,
        version: Version,
        head_only: bool,
        keep_alive: bool,
        date: HttpDate,
    ) {
        put(out, &[b"HTTP/1.1 ", &digits(self.status()), b" ", phrase(self.status()).as_bytes(), b"\r\n"]);
        for (name, value) in self.fields(self.body_bytes(added)) {
            // The route's wins.
            if !lines(added.lines).any(|(set, _)| set.eq_ignore_ascii_case(name)) {
                put(out, &[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
            }
        }
        put(out, &[added.lines, added.answer]);
        put(out, &[b"Date: ", date.as_bytes(), b"\r\n"]);
        match (keep_alive && !self.close, version) {
            (false, _) => out.put_slice(b"Connection: close\r\n"),
            (true, Version::Http10) => out.put_slice(b"Connection: keep-alive\r\n"),
            (true, Version::Http11) => {}
        }
        out.put_slice(b"\r\n");
        if !head_only {
            put(out, &self.body().map(str::as_bytes));
            out.put_slice(added.body);
        }
    }
}

/// What a 405 allows. Extension methods pass too, but nobody reads this list to find them.
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Whether the connection cannot go on after an answer for this reason.
fn closes(reason: AnswerReason) -> bool {
    match reason {
        AnswerReason::Malformed
        | AnswerReason::HeaderTimeout
        | AnswerReason::BodyTimeout
        | AnswerReason::BodyTooLarge
        | AnswerReason::TargetTooLong
        | AnswerReason::Expectation
        | AnswerReason::HeadTooLarge
        | AnswerReason::NotImplemented
        | AnswerReason::Version => true,
        AnswerReason::NoRoute
        | AnswerReason::Method
        | AnswerReason::ConnectFailed
        | AnswerReason::UpstreamBroke
        | AnswerReason::BadResponse
        | AnswerReason::RateLimited
        | AnswerReason::NoneEligible
        | AnswerReason::QueueFull
        | AnswerReason::QueueTimeout
        | AnswerReason::Resources
        | AnswerReason::ConnectTimeout
        | AnswerReason::UpstreamTimeout
        | AnswerReason::RequestTimeout => false,
    }
}

fn body(reason: AnswerReason) -> &'static str {
    match reason {
        AnswerReason::Malformed => "malformed request (malformed)\n",
        AnswerReason::NoRoute => "no route for this request (no_route)\n",
        AnswerReason::Method => "method not allowed (method)\n",
        AnswerReason::HeaderTimeout => "the request head took too long (header_timeout)\n",
        AnswerReason::BodyTimeout => "the request body took too long (body_timeout)\n",
        AnswerReason::BodyTooLarge => "the request body is too large (body_too_large)\n",
        AnswerReason::TargetTooLong => "the request target is too long (target_too_long)\n",
        AnswerReason::Expectation => "only 100-continue can be expected (expectation)\n",
        AnswerReason::RateLimited => "too many requests (rate_limited)\n",
        AnswerReason::HeadTooLarge => "the request head is too large (head_too_large)\n",
        AnswerReason::NotImplemented => "unknown transfer coding (not_implemented)\n",
        AnswerReason::ConnectFailed => "no connection to the upstream (connect_failed)\n",
        AnswerReason::UpstreamBroke => "the connection to the upstream broke (upstream_broke)\n",
        AnswerReason::BadResponse => "the upstream's answer is malformed (bad_response)\n",
        AnswerReason::NoneEligible => "no eligible upstream (none_eligible)\n",
        AnswerReason::QueueFull => {
            "the upstreams have as many requests as they may, and no more may wait (queue_full)\n"
        }
        AnswerReason::QueueTimeout => "no upstream had a free place in time (queue_timeout)\n",
        AnswerReason::Resources => "out of resources (resources)\n",
        AnswerReason::ConnectTimeout => "connecting to the upstream took too long (connect_timeout)\n",
        AnswerReason::UpstreamTimeout => "the upstream took too long (upstream_timeout)\n",
        AnswerReason::RequestTimeout => "the request took too long (request_timeout)\n",
        AnswerReason::Version => "only HTTP/1.0 and HTTP/1.1 are supported (version)\n",
    }
}

fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(answer: OwnAnswer, version: Version, head_only: bool, keep_alive: bool) -> String {
        let mut out = Vec::new();
        answer.write_to(&mut out, Added::default(), version, head_only, keep_alive, HttpDate::of(784_111_777));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_carries_its_reason_its_length_and_when_to_come_again() {
        let text = rendered(OwnAnswer::retry_after(AnswerReason::NoneEligible, 7), Version::Http11, false, true);
        assert_eq!(
            text,
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 37\r\nContent-Type: text/plain\r\nRetry-After: 7\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nno eligible upstream (none_eligible)\n"
        );
    }

    #[test]
    fn connection_says_what_the_version_does_not_imply() {
        let no_route = OwnAnswer::new(AnswerReason::NoRoute);
        for (version, keep_alive, want) in [
            (Version::Http11, true, None),
            (Version::Http11, false, Some("close")),
            (Version::Http10, true, Some("keep-alive")),
            (Version::Http10, false, Some("close")),
        ] {
            let text = rendered(no_route, version, false, keep_alive);
            let got = text.lines().find_map(|line| line.strip_prefix("Connection: "));
            assert_eq!(got, want, "{version:?} {keep_alive}");
        }
        let refused = rendered(Refusal::malformed("x").answer(), Version::Http11, false, true);
        assert!(refused.contains("Connection: close\r\n"), "a refusal closes even where the client would go on");
    }

    #[test]
    fn head_gets_the_length_but_no_body_and_405_says_what_is_allowed() {
        let text = rendered(OwnAnswer::new(AnswerReason::Method), Version::Http11, true, true);
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 28\r\n"), "{text}");
        assert!(text.contains("\r\nAllow: GET, HEAD, ") && text.ends_with("\r\n\r\n"), "{text}");
        let options = rendered(OwnAnswer::server_options(), Version::Http11, false, true);
        assert_eq!(options, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n");
    }

    #[test]
    fn a_byte_that_is_not_allowed_is_named_by_its_number() {
        for (byte, part, want) in [
            (b'\\', TargetPart::Path, "malformed request: byte 0x5c in the path (malformed)\n"),
            (b'#', TargetPart::Query, "malformed request: byte 0x23 in the query (malformed)\n"),
            (0xff, TargetPart::Whole, "malformed request: byte 0xff in the target (malformed)\n"),
            (0x00, TargetPart::Whole, "malformed request: byte 0x00 in the target (malformed)\n"),
        ] {
            let text = rendered(Refusal::byte(byte, part).answer(), Version::Http11, false, true);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, want);
            assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", want.len())), "{head}");
        }
    }

    #[test]
    fn every_body_ends_in_its_reason_code_and_every_status_has_a_phrase() {
        for reason in AnswerReason::ALL {
            let tail = format!(" ({})\n", reason.as_str());
            assert!(OwnAnswer::new(reason).body().concat().ends_with(&tail), "{reason:?}");
            assert!(!phrase(reason.status()).is_empty(), "{reason:?}");
        }
    }
}
