//! Sentences for errors of HTTP/2 itself.

use std::fmt::Write;

use h2::Reason;

use super::answer::{write_excerpt, write_received};
use super::hints::{http2_hint, not_http2_hint};
use crate::model::Code;
use crate::model::quote::{Excerpt, Quoted};
use crate::probe::response::Stage;

/// How HTTP/2 ended an answer before it was complete.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) struct Http2 {
    pub trouble: Trouble,
    /// The progress of the answer.
    pub stage: Stage,
    pub status: Option<u16>,
    /// The first bytes of its body.
    pub body: Excerpt,
    /// Whether the check is a gRPC check.
    pub grpc: bool,
}

/// An error of HTTP/2.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) enum Trouble {
    /// TLS negotiated another protocol, or none.
    NotNegotiated,
    /// The peer speaks another protocol: what it sent.
    NotHttp2(Excerpt),
    /// The peer ended the connection, with this debug data.
    GoAway { reason: Reason, words: Excerpt },
    /// The peer ended the stream.
    Reset(Reason),
    /// The peer violated the protocol: the error that we sent.
    Broken(Reason),
    /// The peer sends endlessly.
    Flood,
    /// The request cannot be sent over HTTP/2.
    Unsendable(Box<str>),
}

impl Trouble {
    /// Masks our credentials, in case the peer has sent them back.
    pub(in crate::probe) fn without<'s>(self, secrets: impl Iterator<Item = &'s str>) -> Trouble {
        match self {
            Trouble::NotHttp2(seen) => Trouble::NotHttp2(seen.without(secrets)),
            Trouble::GoAway { reason, words } => Trouble::GoAway { reason, words: words.without(secrets) },
            Trouble::NotNegotiated
            | Trouble::Reset(_)
            | Trouble::Broken(_)
            | Trouble::Flood
            | Trouble::Unsendable(_) => self,
        }
    }
}

impl Http2 {
    pub(super) fn code(&self) -> Code {
        match self.trouble {
            Trouble::NotNegotiated => Code::L6Rsp,
            Trouble::NotHttp2(_)
            | Trouble::GoAway { .. }
            | Trouble::Reset(_)
            | Trouble::Broken(_)
            | Trouble::Flood
            | Trouble::Unsendable(_) => Code::L7Rsp,
        }
    }

    pub(super) fn write_sentence(&self, out: &mut String) -> std::fmt::Result {
        let place = if matches!(self.stage, Stage::Head(_)) { "instead of an answer" } else { "inside the answer" };
        match &self.trouble {
            Trouble::NotNegotiated => out.push_str("TLS did not negotiate h2"),
            Trouble::NotHttp2(seen) => write!(out, "not HTTP/2: {}", Quoted(seen.bytes()))?,
            Trouble::GoAway { reason, words } => {
                write!(out, "GOAWAY {place}: {}", Named(*reason))?;
                if !words.bytes().is_empty() {
                    write!(out, ", {}", Quoted(words.bytes()))?;
                }
            }
            Trouble::Reset(reason) => write!(out, "stream reset {place}: {}", Named(*reason))?,
            Trouble::Broken(reason) => {
                // The library gives one error for both.
                let large = matches!(self.stage, Stage::Head(_)) && *reason != Reason::FLOW_CONTROL_ERROR;
                let or_large = if large { ", or its head is over 64 KiB" } else { "" };
                write!(out, "the answer violates HTTP/2{or_large} ({})", Named(*reason))?;
            }
            Trouble::Flood => out.push_str("over 1 MiB of frames without a complete answer"),
            Trouble::Unsendable(why) => write!(out, "HTTP/2 cannot carry the request: {}", Quoted(why.as_bytes()))?,
        }
        if let Stage::Body(..) = self.stage {
            out.push_str("; ");
            write_received(out, self.stage)?;
        }
        write_excerpt(out, &self.body)
    }

    pub(super) fn hint(&self, is_tls: bool) -> Option<&'static str> {
        match &self.trouble {
            Trouble::NotNegotiated => Some(match self.grpc {
                true => "it does not offer HTTP/2 on this port, which gRPC needs",
                false => "it does not offer HTTP/2 on this port: remove version = \"h2\"",
            }),
            Trouble::NotHttp2(seen) => not_http2_hint(seen.bytes(), self.grpc, is_tls),
            Trouble::GoAway { reason, .. } | Trouble::Reset(reason) => http2_hint(*reason, self.grpc, is_tls),
            Trouble::Broken(_) | Trouble::Flood | Trouble::Unsendable(_) => None,
        }
    }
}

/// The name of an error code (RFC 9113, section 7).
struct Named(Reason);

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match u32::from(self.0) {
            0 => "NO_ERROR",
            1 => "PROTOCOL_ERROR",
            2 => "INTERNAL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            4 => "SETTINGS_TIMEOUT",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            8 => "CANCEL",
            9 => "COMPRESSION_ERROR",
            10 => "CONNECT_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            12 => "INADEQUATE_SECURITY",
            13 => "HTTP_1_1_REQUIRED",
            code => return write!(f, "error {code:#x}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(trouble: Trouble, stage: Stage, body: &str, grpc: bool) -> (Code, String) {
        let mut excerpt = Excerpt::default();
        excerpt.push(body.as_bytes());
        let finding = Http2 { trouble, stage, status: None, body: excerpt, grpc };
        let mut sentence = String::new();
        finding.write_sentence(&mut sentence).unwrap();
        if let Some(hint) = finding.hint(false) {
            write!(sentence, " ({hint})").unwrap();
        }
        (finding.code(), sentence)
    }

    fn excerpt(text: &str) -> Excerpt {
        let mut excerpt = Excerpt::default();
        excerpt.push(text.as_bytes());
        excerpt
    }

    #[test]
    fn every_trouble_has_its_sentence() {
        let head = Stage::Head(0);
        let calm = || Trouble::GoAway { reason: Reason::ENHANCE_YOUR_CALM, words: excerpt("too_many_pings") };
        let answer = "HTTP/1.1 400 Bad Request";
        for (trouble, stage, body, grpc, code, sentence) in [
            (
                Trouble::NotNegotiated,
                head,
                "",
                false,
                Code::L6Rsp,
                "TLS did not negotiate h2 (it does not offer HTTP/2 on this port: remove version = \"h2\")",
            ),
            (
                Trouble::NotNegotiated,
                head,
                "",
                true,
                Code::L6Rsp,
                "TLS did not negotiate h2 (it does not offer HTTP/2 on this port, which gRPC needs)",
            ),
            (
                Trouble::NotHttp2(excerpt(answer)),
                head,
                "",
                false,
                Code::L7Rsp,
                "not HTTP/2: \"HTTP/1.1 400 Bad Request\" (it answers in HTTP/1: remove version = \"h2\")",
            ),
            (
                Trouble::NotHttp2(excerpt(answer)),
                head,
                "",
                true,
                Code::L7Rsp,
                "not HTTP/2: \"HTTP/1.1 400 Bad Request\" (it answers in HTTP/1, and gRPC needs HTTP/2)",
            ),
            (
                Trouble::NotHttp2(excerpt("\u{15}\u{3}\u{1}")),
                head,
                "",
                true,
                Code::L7Rsp,
                "not HTTP/2: \"\\u{15}\\u{3}\\u{1}\" (this port speaks TLS)",
            ),
            (
                calm(),
                head,
                "",
                true,
                Code::L7Rsp,
                "GOAWAY instead of an answer: ENHANCE_YOUR_CALM, \"too_many_pings\" \
                 (it limits how often it is checked: raise the interval)",
            ),
            (
                Trouble::GoAway { reason: Reason::NO_ERROR, words: Excerpt::default() },
                Stage::Body(2, Some(10)),
                "ok",
                false,
                Code::L7Rsp,
                "GOAWAY inside the answer: NO_ERROR; 2 of 10 bytes received; body: \"ok\" (its server is going down)",
            ),
            (
                Trouble::Reset(Reason::REFUSED_STREAM),
                head,
                "",
                false,
                Code::L7Rsp,
                "stream reset instead of an answer: REFUSED_STREAM (it accepts no requests now: overloaded or going down)",
            ),
            (
                Trouble::Reset(Reason::from(0x99)),
                Stage::Body(2, None),
                "",
                false,
                Code::L7Rsp,
                "stream reset inside the answer: error 0x99; 2 bytes received, but not its end",
            ),
            (
                Trouble::Reset(Reason::HTTP_1_1_REQUIRED),
                head,
                "",
                false,
                Code::L7Rsp,
                "stream reset instead of an answer: HTTP_1_1_REQUIRED (it requires HTTP/1.1 here: remove version = \"h2\")",
            ),
            (
                Trouble::Broken(Reason::PROTOCOL_ERROR),
                head,
                "",
                false,
                Code::L7Rsp,
                "the answer violates HTTP/2, or its head is over 64 KiB (PROTOCOL_ERROR)",
            ),
            (
                Trouble::Broken(Reason::FLOW_CONTROL_ERROR),
                Stage::Body(9, None),
                "",
                true,
                Code::L7Rsp,
                "the answer violates HTTP/2 (FLOW_CONTROL_ERROR); 9 bytes received, but not its end",
            ),
        ] {
            assert_eq!(said(trouble, stage, body, grpc), (code, sentence.to_owned()));
        }
    }
}
