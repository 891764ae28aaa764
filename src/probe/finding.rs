//! What a probe found, and the words for it: outcome code, sentence with the values, hint. The one table of wordings:
//! logs, JSON, command line and metrics all show what is made here. `answer` has the words for HTTP answers, `grpc`
//! those for health checks of gRPC, `h2` those for what HTTP/2 itself runs into, `websocket` those for WebSockets.

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

pub(super) use answer::{Answered, Break, Cut, Miss, Node, Outcome, Own};
pub(super) use grpc::{Called, Came, Said, Wrong};
pub(super) use h2::{Http2, Trouble};
pub(super) use hints::certificate_hint;
pub(super) use rule_hints::{body_hint, header_hint, json_hint, not_json_hint};
pub(super) use slow::judge_duration;
pub(super) use text::{Unheard, Why};
pub(super) use websocket::Flaw;

use super::connect::{Fault, Steps, Tls};
use crate::model::quote::Quoted;
use crate::model::units::Measured;
use crate::model::{Address, Code, ProbeReport, Trace};
use crate::tls::Failure;
use answer::cut_words;
use hints::{connect_hint, handshake_hint, resource_hint};
use words::{connect_words, resource_words, write_no_handshake};

/// What one probe found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding<'p> {
    /// Connected, and that was all.
    Connected,
    /// The system refused the connection.
    NotConnected(Fault),
    /// The deadline passed before there was a connection.
    ConnectTimeout,
    /// The TLS handshake is done, and that was all.
    Shaken,
    /// One side refused the other in the TLS handshake.
    Tls(Box<Failure>),
    /// The peer refused after the handshake; [`Finding::over_tls`] makes it [`Finding::Tls`], which has the words.
    Refused(AlertDescription),
    /// The TLS handshake was cut off; whether the peer had sent a record of TLS by then.
    NoHandshake { cut: Cut, speaks_tls: bool },
    /// The expected text came.
    Heard,
    /// A text that was expected did not come, or ours could not be sent.
    Unheard(Box<Unheard<'p>>),
    /// The WebSocket answered our ping.
    Pong,
    /// The WebSocket is none, or does not answer.
    Websocket(Flaw<'p>),
    /// This process did not run for so long that nothing can be said.
    Stopped,
    /// This machine ran out of something on the way.
    NoResources(Errno),
    /// What came of an HTTP answer.
    Answer(Answered<'p>),
    /// What came of a gRPC health check.
    Called(Called<'p>),
    /// HTTP/2 itself ended it.
    Http2(Http2),
}

/// What a sentence may mention beside the finding.
#[derive(Debug)]
pub(super) struct Circumstances<'a> {
    /// The whole probe.
    pub took: Duration,
    /// From its start to the connection.
    pub connected_in: Option<Duration>,
    /// From its start to the end of the TLS handshake.
    pub shaken_in: Option<Duration>,
    /// The deadline.
    pub timeout: Duration,
    /// The address dialled, where it is not the upstream's own.
    pub elsewhere: Option<&'a Address>,
}

impl Circumstances<'_> {
    /// A TLS handshake has succeeded: no hint may doubt that the port speaks TLS.
    fn is_tls(&self) -> bool {
        self.shaken_in.is_some()
    }
}

impl<'p> Finding<'p> {
    /// What it is over TLS, where only the handshake of `steps` can say what an end means.
    pub(super) fn over_tls(self, tls: &Tls, steps: &Steps) -> Finding<'p> {
        let lacking = !steps.heard && tls.lacks_certificate(steps);
        match (self, lacking) {
            (Finding::Refused(alert), _) => Finding::Tls(Box::new(tls.refusal(alert, steps))),
            (finding, true) => match finding.unanswered_end() {
                Some(cut) => Finding::Tls(Box::new(Failure::lacking(cut_words(cut)))),
                None => finding,
            },
            (finding, false) => finding,
        }
    }

    /// How the peer ended a connection on which it had said nothing.
    fn unanswered_end(&self) -> Option<Cut> {
        let cut = match self {
            Finding::NoHandshake { cut, .. } => *cut,
            Finding::Unheard(unheard) if unheard.bytes == 0 => unheard.cut?,
            Finding::Answer(Answered { outcome: Outcome::CutShort { end, .. }, .. }) => end.cut,
            Finding::Called(Called { said: Said::CutShort { cut, .. }, .. }) => *cut,
            _ => return None,
        };
        matches!(cut, Cut::Closed | Cut::Broke(_)).then_some(cut)
    }
}

impl Finding<'_> {
    /// Puts it into words. Of the trace it has what came of an answer; the steps before are known to whoever took them.
    pub(super) fn report(self, circumstances: &Circumstances<'_>) -> ProbeReport {
        let mut reason = String::with_capacity(64);
        self.write_sentence(&mut reason, circumstances).expect("writing to a string cannot fail");
        let (code, status, hint) = (self.code(), self.status(), self.hint(circumstances));
        let trace = match self {
            Finding::Answer(Answered { head, body, .. }) => Trace { head, body, ..Trace::default() },
            Finding::Connected | Finding::NotConnected(_) | Finding::ConnectTimeout | Finding::NoResources(_) => {
                Trace::default()
            }
            Finding::Shaken | Finding::Tls(_) | Finding::Refused(_) | Finding::NoHandshake { .. } => Trace::default(),
            Finding::Heard | Finding::Unheard(_) | Finding::Stopped => Trace::default(),
            Finding::Called(_) | Finding::Http2(_) | Finding::Pong | Finding::Websocket(_) => Trace::default(),
        };
        ProbeReport { code, status, duration: circumstances.took, reason: reason.into_boxed_str(), hint, trace }
    }

    fn code(&self) -> Code {
        match self {
            Finding::Connected => Code::L4Ok,
            Finding::Shaken => Code::L6Ok,
            Finding::Tls(_) | Finding::Refused(_) => Code::L6Rsp,
            Finding::NoHandshake { cut: Cut::Deadline, .. } => Code::L6Tout,
            Finding::NoHandshake { cut: Cut::Closed | Cut::Broke(_), .. } => Code::L6Rsp,
            Finding::Heard | Finding::Pong => Code::L7Ok,
            Finding::Websocket(flaw) => flaw.code(),
            Finding::Unheard(unheard) => unheard.code(),
            Finding::NotConnected(Fault::Theirs(Errno::ETIMEDOUT)) | Finding::ConnectTimeout => Code::L4Tout,
            Finding::NotConnected(Fault::Theirs(_)) => Code::L4Con,
            Finding::NotConnected(Fault::Ours(_)) | Finding::NoResources(_) | Finding::Stopped => Code::NoRes,
            Finding::Answer(answered) => answered.outcome.code(),
            Finding::Called(called) => called.code(),
            Finding::Http2(http2) => http2.code(),
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Finding::Connected | Finding::NotConnected(_) | Finding::ConnectTimeout | Finding::NoResources(_) => None,
            Finding::Shaken | Finding::Tls(_) | Finding::Refused(_) | Finding::NoHandshake { .. } => None,
            Finding::Heard | Finding::Unheard(_) | Finding::Stopped => None,
            Finding::Pong => Some(101),
            Finding::Websocket(flaw) => flaw.status(),
            Finding::Answer(answered) => answered.outcome.status(),
            Finding::Called(Called { status, .. }) | Finding::Http2(Http2 { status, .. }) => *status,
        }
    }

    fn write_sentence(&self, out: &mut String, c: &Circumstances<'_>) -> std::fmt::Result {
        match self {
            Finding::Connected => write!(out, "connected in {}", Measured(c.took)),
            Finding::NotConnected(Fault::Theirs(errno)) => {
                out.push_str(connect_words(*errno));
                write_place(out, c)
            }
            Finding::NotConnected(Fault::Ours(errno)) | Finding::NoResources(errno) => {
                write!(out, "not probed: {} ({errno:?})", resource_words(*errno))
            }
            Finding::ConnectTimeout => {
                write!(out, "no connection within {:?}", c.timeout)?;
                write_place(out, c)
            }
            Finding::Shaken => write!(out, "TLS handshake in {}", Measured(c.shaken_in.unwrap_or(c.took))),
            Finding::Tls(failure) => {
                write!(out, "{failure}")?;
                if let Some(first) = failure.heard() {
                    write!(out, ": {}", Quoted(first))?;
                }
                write_place(out, c)
            }
            Finding::Refused(_) => {
                out.push_str("TLS refused by the peer");
                write_place(out, c)
            }
            Finding::NoHandshake { cut, .. } => {
                write_no_handshake(out, c, *cut)?;
                write_place(out, c)
            }
            Finding::Heard => write!(out, "answered as expected in {}", Measured(c.took)),
            Finding::Pong => write!(out, "pong in {}", Measured(c.took)),
            Finding::Websocket(flaw) => flaw.write_sentence(out, c),
            Finding::Unheard(unheard) => unheard.write_sentence(out, c),
            Finding::Stopped => {
                let (took, timeout) = (Measured(c.took), c.timeout);
                write!(out, "not probed: this process was stopped; the probe took {took}, its timeout is {timeout:?}")
            }
            Finding::Answer(answered) => answered.outcome.write_sentence(out, c),
            Finding::Called(called) => called.write_sentence(out, c),
            Finding::Http2(http2) => http2.write_sentence(out),
        }
    }

    /// What the operator may want to try.
    fn hint(&self, c: &Circumstances<'_>) -> Option<&'static str> {
        match self {
            Finding::Connected | Finding::Shaken | Finding::Heard | Finding::Pong | Finding::Refused(_) => None,
            Finding::Websocket(flaw) => flaw.hint(),
            Finding::Tls(failure) => failure.hint(),
            Finding::NoHandshake { cut, speaks_tls } => Some(handshake_hint(*cut, *speaks_tls)),
            Finding::Unheard(unheard) => unheard.hint(c.is_tls()),
            Finding::Stopped => Some("it was suspended, or this machine is overloaded"),
            Finding::NotConnected(Fault::Theirs(errno)) => connect_hint(*errno),
            Finding::NotConnected(Fault::Ours(errno)) | Finding::NoResources(errno) => resource_hint(*errno),
            Finding::ConnectTimeout => connect_hint(Errno::ETIMEDOUT),
            Finding::Answer(answered) => answered.outcome.hint(c),
            Finding::Called(called) => called.hint(c),
            Finding::Http2(http2) => http2.hint(c.is_tls()),
        }
    }
}

fn write_place(out: &mut String, c: &Circumstances<'_>) -> std::fmt::Result {
    match c.elsewhere {
        Some(address) => write!(out, " at {address}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
