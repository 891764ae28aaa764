//! The finding of a probe, and its report: outcome code, sentence with the values, hint. Logs, JSON, command line and
//! metrics all show these texts. `answer` has the sentences for HTTP answers, `grpc` those for gRPC health checks, `h2`
//! those for errors of HTTP/2 itself, `websocket` those for WebSockets.

mod agent;
mod answer;
mod grpc;
mod h2;
mod hints;
mod rule_hints;
mod slow;
mod text;
mod websocket;
mod words;

use std::fmt::Write;
use std::time::Duration;

use nix::errno::Errno;

use rustls::AlertDescription;

pub(super) use agent::AgentAnswer;
pub(super) use answer::{Answered, Cutoff, Details, Interruption, Miss, Node, Outcome};
pub(super) use grpc::{GrpcAnswer, GrpcCall, Received, Violation};
pub(super) use h2::{Http2, Trouble};
pub(super) use hints::certificate_hint;
pub(super) use rule_hints::{body_hint, header_hint, json_hint, not_json_hint};
pub(super) use slow::check_duration;
pub(super) use text::{TextFailure, Why};
pub(super) use websocket::Flaw;

use super::connect::{Fault, Steps, Tls};
use crate::model::quote::Quoted;
use crate::model::units::Measured;
use crate::model::{Address, Code, ProbeReport, Trace};
use crate::tls::Failure;
use answer::cutoff_words;
use hints::{connect_hint, handshake_hint, resource_hint};
use words::{connect_words, resource_words, write_no_handshake};

/// What one probe found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding<'p> {
    /// Connected, without data.
    Connected,
    /// The connection failed.
    NotConnected(Fault),
    /// The deadline passed before there was a connection.
    ConnectTimeout,
    /// The TLS handshake succeeded, without data.
    HandshakeDone,
    /// One side rejected the other in the TLS handshake.
    Tls(Box<Failure>),
    /// The peer rejected us after the handshake; [`Finding::over_tls`] turns it into [`Finding::Tls`], which has the
    /// text.
    Refused(AlertDescription),
    /// The TLS handshake did not complete; whether the peer had sent a TLS record.
    NoHandshake { cut: Cutoff, speaks_tls: bool },
    /// The expected texts were received.
    TextMatched,
    /// An expected text was not received, or ours could not be sent.
    TextFailed(Box<TextFailure<'p>>),
    /// An agent has answered with a line.
    Agent(AgentAnswer),
    /// The WebSocket answered our ping.
    Pong,
    /// Not a WebSocket, or it does not answer.
    Websocket(Flaw<'p>),
    /// This process did not run for so long that there is no verdict.
    Stopped,
    /// This machine ran out of a resource during the probe.
    NoResources(Errno),
    /// The outcome of an HTTP answer.
    Answer(Answered<'p>),
    /// The outcome of a gRPC health check.
    Grpc(GrpcCall<'p>),
    /// An error of HTTP/2 itself.
    Http2(Http2),
}

/// What a sentence can mention besides the finding.
#[derive(Debug)]
pub(super) struct Circumstances<'a> {
    /// Duration of the whole probe.
    pub took: Duration,
    /// From its start to the connection.
    pub connected_in: Option<Duration>,
    /// From its start to the end of the TLS handshake.
    pub handshake_in: Option<Duration>,
    /// The deadline.
    pub timeout: Duration,
    /// The address dialled, if it differs from the upstream's.
    pub elsewhere: Option<&'a Address>,
}

impl Circumstances<'_> {
    /// A TLS handshake succeeded: no hint may doubt that the port speaks TLS.
    fn is_tls(&self) -> bool {
        self.handshake_in.is_some()
    }
}

impl<'p> Finding<'p> {
    /// The finding over TLS: the handshake of `steps` may explain the end of the connection.
    pub(super) fn over_tls(self, tls: &Tls, steps: &Steps) -> Finding<'p> {
        let lacking = !steps.received && tls.lacks_certificate(steps);
        match (self, lacking) {
            (Finding::Refused(alert), _) => Finding::Tls(Box::new(tls.refusal(alert, steps))),
            (finding, true) => match finding.unanswered_end() {
                Some(cut) => Finding::Tls(Box::new(Failure::lacking(cutoff_words(cut)))),
                None => finding,
            },
            (finding, false) => finding,
        }
    }

    /// How the peer ended a connection on which it had sent nothing.
    fn unanswered_end(&self) -> Option<Cutoff> {
        let cut = match self {
            Finding::NoHandshake { cut, .. } => *cut,
            Finding::TextFailed(failure) if failure.bytes == 0 => failure.cut?,
            Finding::Answer(Answered { outcome: Outcome::CutShort { end, .. }, .. }) => end.cut,
            Finding::Grpc(GrpcCall { outcome: GrpcAnswer::CutShort { cut, .. }, .. }) => *cut,
            _ => return None,
        };
        matches!(cut, Cutoff::Closed | Cutoff::Broke(_)).then_some(cut)
    }
}

impl Finding<'_> {
    /// The report. Its trace has only the head and body of an answer; the caller adds the rest.
    pub(super) fn report(self, circumstances: &Circumstances<'_>) -> ProbeReport {
        let mut reason = String::with_capacity(64);
        self.write_sentence(&mut reason, circumstances).expect("writing to a string cannot fail");
        let (code, status, hint) = (self.code(), self.status(), self.hint(circumstances));
        let (degraded, asks) = match &self {
            Finding::Answer(Answered { outcome: Outcome::AsExpected { degraded, .. }, .. }) => (*degraded, None),
            Finding::Agent(answer) => answer.asks(),
            _ => (None, None),
        };
        let trace = match self {
            Finding::Answer(Answered { head, body, .. }) => Trace { head, body, ..Trace::default() },
            Finding::Connected | Finding::NotConnected(_) | Finding::ConnectTimeout | Finding::NoResources(_) => {
                Trace::default()
            }
            Finding::HandshakeDone | Finding::Tls(_) | Finding::Refused(_) | Finding::NoHandshake { .. } => {
                Trace::default()
            }
            Finding::TextMatched | Finding::TextFailed(_) | Finding::Agent(_) | Finding::Stopped => Trace::default(),
            Finding::Grpc(_) | Finding::Http2(_) | Finding::Pong | Finding::Websocket(_) => Trace::default(),
        };
        // A new one of the right size is cheaper than shrinking this one.
        let reason = reason.as_str().into();
        ProbeReport { code, status, duration: circumstances.took, reason, hint, degraded, asks, trace }
    }

    /// Whether the probe waits for the peer to close after it, which does not count as time that the peer took.
    pub(super) fn waits_for_close(&self) -> bool {
        matches!(
            self,
            Finding::Connected | Finding::HandshakeDone | Finding::TextMatched | Finding::Pong | Finding::Agent(_)
        )
    }

    fn code(&self) -> Code {
        match self {
            Finding::Connected => Code::L4Ok,
            Finding::HandshakeDone => Code::L6Ok,
            Finding::Tls(_) | Finding::Refused(_) => Code::L6Rsp,
            Finding::NoHandshake { cut: Cutoff::Deadline, .. } => Code::L6Tout,
            Finding::NoHandshake { cut: Cutoff::Closed | Cutoff::Broke(_), .. } => Code::L6Rsp,
            Finding::TextMatched | Finding::Pong => Code::L7Ok,
            Finding::Websocket(flaw) => flaw.code(),
            Finding::TextFailed(failure) => failure.code(),
            Finding::Agent(answer) => answer.code(),
            Finding::NotConnected(Fault::Theirs(Errno::ETIMEDOUT)) | Finding::ConnectTimeout => Code::L4Tout,
            Finding::NotConnected(Fault::Theirs(_)) => Code::L4Con,
            Finding::NotConnected(Fault::Ours(_)) | Finding::NoResources(_) | Finding::Stopped => Code::NoRes,
            Finding::Answer(answered) => answered.outcome.code(),
            Finding::Grpc(called) => called.code(),
            Finding::Http2(http2) => http2.code(),
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Finding::Connected | Finding::NotConnected(_) | Finding::ConnectTimeout | Finding::NoResources(_) => None,
            Finding::HandshakeDone | Finding::Tls(_) | Finding::Refused(_) | Finding::NoHandshake { .. } => None,
            Finding::TextMatched | Finding::TextFailed(_) | Finding::Agent(_) | Finding::Stopped => None,
            Finding::Pong => Some(101),
            Finding::Websocket(flaw) => flaw.status(),
            Finding::Answer(answered) => answered.outcome.status(),
            Finding::Grpc(GrpcCall { status, .. }) | Finding::Http2(Http2 { status, .. }) => *status,
        }
    }

    fn write_sentence(&self, out: &mut String, context: &Circumstances<'_>) -> std::fmt::Result {
        match self {
            Finding::Connected => write!(out, "connected in {}", Measured(context.took)),
            Finding::NotConnected(Fault::Theirs(errno)) => {
                out.push_str(connect_words(*errno));
                write_place(out, context)
            }
            Finding::NotConnected(Fault::Ours(errno)) | Finding::NoResources(errno) => {
                write!(out, "not probed: {} ({errno:?})", resource_words(*errno))
            }
            Finding::ConnectTimeout => {
                write!(out, "no connection within {:?}", context.timeout)?;
                write_place(out, context)
            }
            Finding::HandshakeDone => {
                write!(out, "TLS handshake in {}", Measured(context.handshake_in.unwrap_or(context.took)))
            }
            Finding::Tls(failure) => {
                write!(out, "{failure}")?;
                if let Some(first) = failure.first_bytes() {
                    write!(out, ": {}", Quoted(first))?;
                }
                write_place(out, context)
            }
            Finding::Refused(_) => {
                out.push_str("TLS refused by the peer");
                write_place(out, context)
            }
            Finding::NoHandshake { cut, .. } => {
                write_no_handshake(out, context, *cut)?;
                write_place(out, context)
            }
            Finding::TextMatched => write!(out, "answered as expected in {}", Measured(context.took)),
            Finding::Pong => write!(out, "pong in {}", Measured(context.took)),
            Finding::Websocket(flaw) => flaw.write_sentence(out, context),
            Finding::TextFailed(failure) => failure.write_sentence(out, context),
            Finding::Agent(answer) => answer.write_sentence(out),
            Finding::Stopped => {
                let (took, timeout) = (Measured(context.took), context.timeout);
                write!(out, "not probed: this process was stopped; the probe took {took}, its timeout is {timeout:?}")
            }
            Finding::Answer(answered) => answered.outcome.write_sentence(out, context),
            Finding::Grpc(called) => called.write_sentence(out, context),
            Finding::Http2(http2) => http2.write_sentence(out),
        }
    }

    /// What the operator can try.
    fn hint(&self, context: &Circumstances<'_>) -> Option<&'static str> {
        match self {
            Finding::Connected
            | Finding::HandshakeDone
            | Finding::TextMatched
            | Finding::Pong
            | Finding::Refused(_) => None,
            Finding::Websocket(flaw) => flaw.hint(),
            Finding::Tls(failure) => failure.hint(),
            Finding::NoHandshake { cut, speaks_tls } => Some(handshake_hint(*cut, *speaks_tls)),
            Finding::TextFailed(failure) => failure.hint(context.is_tls()),
            Finding::Agent(answer) => answer.hint(context.is_tls()),
            Finding::Stopped => Some("it was suspended, or this machine is overloaded"),
            Finding::NotConnected(Fault::Theirs(errno)) => connect_hint(*errno),
            Finding::NotConnected(Fault::Ours(errno)) | Finding::NoResources(errno) => resource_hint(*errno),
            Finding::ConnectTimeout => connect_hint(Errno::ETIMEDOUT),
            Finding::Answer(answered) => answered.outcome.hint(context),
            Finding::Grpc(called) => called.hint(context),
            Finding::Http2(http2) => http2.hint(context.is_tls()),
        }
    }
}

fn write_place(out: &mut String, context: &Circumstances<'_>) -> std::fmt::Result {
    match context.elsewhere {
        Some(address) => write!(out, " at {address}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
