//! Interprets the answer to a gRPC health check as it arrives. Pure and bounded: a message of at most 4 KiB, or the first
//! bytes of an answer that is not gRPC.

use http::HeaderMap;
use http::header::{CONTENT_TYPE, LOCATION};

use super::{PREFIX_BYTES, message};
use crate::http1::limits::INTERIM_ANSWERS;
use crate::model::Trace;
use crate::model::policy::GrpcProbe;
use crate::model::policy::secrets;
use crate::model::quote::Excerpt;
use crate::probe::answer::Progress;
use crate::probe::finding::{Cutoff, GrpcAnswer, GrpcCall, Received, Violation};
use crate::probe::h2::{Receiver, octet, write_fields, write_head};

/// Bytes of a message that are read: a health status has two.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// An answer while it arrives.
#[derive(Debug)]
pub(in crate::probe) struct Reply<'p> {
    probe: &'p GrpcProbe,
    status: Option<u16>,
    interim: u32,
    /// The result, once it is certain.
    outcome: Option<GrpcAnswer>,
    /// The grpc-status of the head, if it has one.
    early: Option<Result<u32, Violation>>,
    /// The grpc-message of the head.
    words: Excerpt,
    /// The message with its prefix, as far as received.
    framed: Vec<u8>,
    /// The first bytes of the body.
    body: Excerpt,
    /// Head and trailers as text.
    head: Excerpt,
}

impl<'p> Reply<'p> {
    pub(in crate::probe) fn new(probe: &'p GrpcProbe) -> Reply<'p> {
        Reply {
            probe,
            status: None,
            interim: 0,
            outcome: None,
            early: None,
            words: Excerpt::default(),
            framed: Vec::new(),
            body: Excerpt::default(),
            head: Excerpt::default(),
        }
    }

    /// The result when no more is read; `cut`: why, if the answer is incomplete. Adds head and body to `trace`.
    pub(in crate::probe) fn finish(self, cut: Cutoff, trace: &mut Trace) -> GrpcCall<'p> {
        let received = match (self.framed.len(), self.message()) {
            (0, _) => Received::None,
            (_, Ok(_)) => Received::Whole,
            (bytes, Err(_)) => Received::Part(bytes),
        };
        let Reply { probe, status, interim, outcome, body, head, .. } = self;
        let mask = |excerpt: Excerpt| excerpt.without(secrets(&probe.headers));
        let body = mask(body);
        trace.head = kept(&mask(head), Trace::HEAD_BYTES_MAX);
        trace.body = kept(&body, Trace::BODY_BYTES_MAX);
        let outcome = match outcome.unwrap_or(GrpcAnswer::CutShort { cut, interim, received }) {
            GrpcAnswer::Error { code, message } => GrpcAnswer::Error { code, message: mask(message) },
            GrpcAnswer::Http { location, .. } => GrpcAnswer::Http { location: location.map(mask), body },
            GrpcAnswer::NotGrpc { content_type, .. } => {
                GrpcAnswer::NotGrpc { content_type: content_type.map(mask), body }
            }
            outcome @ (GrpcAnswer::Health(_)
            | GrpcAnswer::NoStatus
            | GrpcAnswer::Violation(_)
            | GrpcAnswer::CutShort { .. }) => outcome,
        };
        GrpcCall { probe, status, outcome }
    }

    fn settle(&mut self, outcome: GrpcAnswer) -> Progress {
        let quoted = matches!(outcome, GrpcAnswer::Http { .. } | GrpcAnswer::NotGrpc { .. });
        self.outcome = Some(outcome);
        if quoted { Progress::Settled } else { Progress::Done }
    }

    fn on_message(&mut self, piece: &[u8]) -> Progress {
        let room = PREFIX_BYTES + MESSAGE_BYTES_MAX + 1 - self.framed.len();
        self.framed.extend_from_slice(&piece[..piece.len().min(room)]);
        let wrong = match *self.framed {
            [1, ..] => Violation::Compressed,
            [flag, ..] if flag > 1 => Violation::Flag(flag),
            [0, a, b, c, d, ref message @ ..] => match u32::from_be_bytes([a, b, c, d]) {
                length if length as usize > MESSAGE_BYTES_MAX => Violation::Long(length),
                length if message.len() > length as usize => Violation::Several,
                _ => return Progress::More,
            },
            _ => return Progress::More,
        };
        self.settle(GrpcAnswer::Violation(wrong))
    }

    /// The message, once it is complete.
    fn message(&self) -> Result<&[u8], Violation> {
        let [_, a, b, c, d, message @ ..] = &*self.framed else {
            let come = self.framed.len();
            return Err(if come == 0 { Violation::Missing } else { Violation::Short(come, PREFIX_BYTES) });
        };
        match u32::from_be_bytes([*a, *b, *c, *d]) as usize {
            length if message.len() < length => Err(Violation::Short(message.len(), length)),
            length => Ok(&message[..length]),
        }
    }

    /// The result of a complete answer whose grpc-status is OK.
    fn read_health(&self) -> GrpcAnswer {
        match self.message().map(message::status) {
            Ok(Some(status)) => GrpcAnswer::Health(status),
            Ok(None) => GrpcAnswer::Violation(Violation::Undecodable),
            Err(wrong) => GrpcAnswer::Violation(wrong),
        }
    }
}

impl Receiver for Reply<'_> {
    fn on_head(&mut self, status: u16, fields: &HeaderMap) -> Progress {
        if status < 200 {
            self.interim += 1;
            return if self.interim > INTERIM_ANSWERS {
                self.settle(GrpcAnswer::Violation(Violation::Interim))
            } else {
                Progress::More
            };
        }
        self.status = Some(status);
        write_head(&mut self.head, status, fields);
        self.early = read_status(fields);
        self.words = read_message(fields);
        let content_type = fields.get(CONTENT_TYPE).map(|value| value.as_bytes());
        match self.early {
            Some(Err(wrong)) => self.settle(GrpcAnswer::Violation(wrong)),
            Some(Ok(code @ 1..)) => {
                let message = std::mem::take(&mut self.words);
                self.settle(GrpcAnswer::Error { code, message })
            }
            _ if status != 200 => {
                let location = fields.get(LOCATION).filter(|_| (300..400).contains(&status));
                let location = location.map(|value| excerpt(value.as_bytes()));
                self.settle(GrpcAnswer::Http { location, body: Excerpt::default() })
            }
            _ if !content_type.is_some_and(is_grpc) => {
                let content_type = content_type.map(excerpt);
                self.settle(GrpcAnswer::NotGrpc { content_type, body: Excerpt::default() })
            }
            _ => Progress::More,
        }
    }

    fn on_body(&mut self, piece: &[u8]) -> Progress {
        self.body.push(piece);
        match &self.outcome {
            None => self.on_message(piece),
            Some(_) if self.body.is_full() => Progress::Done,
            Some(_) => Progress::Settled,
        }
    }

    fn on_end(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(trailers) = trailers {
            write_fields(&mut self.head, trailers);
        }
        if self.outcome.is_some() {
            return;
        }
        let late = trailers.and_then(read_status);
        self.outcome = Some(match late.or(self.early) {
            None => GrpcAnswer::NoStatus,
            Some(Err(wrong)) => GrpcAnswer::Violation(wrong),
            Some(Ok(0)) => self.read_health(),
            Some(Ok(code)) => GrpcAnswer::Error { code, message: trailers.map(read_message).unwrap_or_default() },
        });
    }
}

fn kept(excerpt: &Excerpt, limit: usize) -> Box<[u8]> {
    excerpt.bytes().iter().take(limit).copied().collect()
}

fn excerpt(bytes: &[u8]) -> Excerpt {
    let mut excerpt = Excerpt::default();
    excerpt.push(bytes);
    excerpt
}

/// `application/grpc`, alone or followed by a format or parameters.
fn is_grpc(value: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let (start, rest) = value.split_at(value.len().min(TYPE.len()));
    start.eq_ignore_ascii_case(TYPE) && matches!(rest, [] | [b'+' | b';' | b' ', ..])
}

fn read_status(fields: &HeaderMap) -> Option<Result<u32, Violation>> {
    let value = fields.get("grpc-status")?.as_bytes();
    let digits = value.len() <= 9 && !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    Some(text.and_then(|text| text.parse().ok()).ok_or(Violation::Status))
}

/// The grpc-message, percent-decoded. Invalid encoding stays as it is.
fn read_message(fields: &HeaderMap) -> Excerpt {
    let mut message = Excerpt::default();
    let mut rest = fields.get("grpc-message").map(|value| value.as_bytes()).unwrap_or_default();
    while let [first, after @ ..] = rest {
        let octet = match (first, after) {
            (b'%', [high, low, ..]) => octet(*high, *low),
            _ => None,
        };
        message.push(&[octet.unwrap_or(*first)]);
        rest = if octet.is_some() { &after[2..] } else { after };
        if message.is_full() {
            break;
        }
    }
    message
}

#[cfg(test)]
mod tests;
