//! Sentences for answers that are not a WebSocket, and for WebSockets that do not answer.

use std::fmt::Write;

use super::answer::cutoff_words;
use super::hints::REFUSED_HINT;
use super::{Circumstances, Cutoff};
use crate::model::Code;
use crate::model::quote::{Excerpt, Quoted};
use crate::model::units::Measured;

/// A fault of a 101, or of what follows it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) enum Flaw<'p> {
    /// The 101 cannot be parsed.
    Unreadable,
    /// The 101 lacks this field.
    Missing(&'static str),
    /// It names other protocols besides WebSocket: a request would get 502.
    Upgrade,
    /// Its Sec-WebSocket-Accept does not match our key.
    Accept(Excerpt),
    /// It does not accept the requested subprotocol, or names one that was not requested.
    Subprotocol { asked: Option<&'p str>, agreed: Option<Excerpt> },
    /// It names extensions that were not requested.
    Extension(Excerpt),
    /// The peer sent an invalid frame.
    Frame(&'static str),
    /// The peer closed the WebSocket.
    Closed { code: Option<u16>, reason: Excerpt },
    /// No pong for our ping; the number of other pongs.
    NoPong { cut: Cutoff, others: u32 },
}

impl Flaw<'_> {
    pub(super) fn code(&self) -> Code {
        match self {
            Flaw::NoPong { cut: Cutoff::Deadline, .. } => Code::L7Tout,
            Flaw::Missing(_) | Flaw::Upgrade | Flaw::Accept(_) | Flaw::Subprotocol { .. } => Code::L7Rsp,
            Flaw::Extension(_) | Flaw::Unreadable | Flaw::Frame(_) | Flaw::Closed { .. } | Flaw::NoPong { .. } => {
                Code::L7Rsp
            }
        }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Flaw::Unreadable | Flaw::Missing(_) | Flaw::Upgrade | Flaw::Accept(_) => Some(101),
            Flaw::Subprotocol { .. } | Flaw::Extension(_) | Flaw::Frame(_) => Some(101),
            Flaw::Closed { .. } | Flaw::NoPong { .. } => Some(101),
        }
    }

    pub(super) fn write_sentence(&self, out: &mut String, context: &Circumstances<'_>) -> std::fmt::Result {
        match self {
            Flaw::Unreadable => write!(out, "answered 101 with a head that cannot be read"),
            Flaw::Missing(field) => write!(out, "answered 101 without {field}"),
            Flaw::Upgrade => write!(out, "answered 101 with more than Upgrade: websocket"),
            Flaw::Accept(value) => {
                write!(out, "wrong Sec-WebSocket-Accept: {} does not match our key", Quoted(value.bytes()))
            }
            Flaw::Subprotocol { asked: Some(asked), agreed: None } => {
                write!(out, "subprotocol {} not accepted", Quoted(asked.as_bytes()))
            }
            Flaw::Subprotocol { asked: Some(asked), agreed: Some(agreed) } => {
                write!(out, "subprotocol {}, expected {}", Quoted(agreed.bytes()), Quoted(asked.as_bytes()))
            }
            Flaw::Subprotocol { asked: None, agreed } => {
                let agreed = agreed.as_ref().map_or(&b""[..], Excerpt::bytes);
                write!(out, "subprotocol {}, which was not asked for", Quoted(agreed))
            }
            Flaw::Extension(value) => write!(out, "extension {}, which was not asked for", Quoted(value.bytes())),
            Flaw::Frame(what) => write!(out, "no pong, but {what}"),
            Flaw::Closed { code, reason } => {
                out.push_str("WebSocket closed instead of a pong");
                code.map_or(Ok(()), |code| write!(out, ": {code}"))?;
                if reason.bytes().is_empty() { Ok(()) } else { write!(out, " {}", Quoted(reason.bytes())) }
            }
            Flaw::NoPong { cut, others } => {
                match cut {
                    Cutoff::Deadline => write!(out, "no pong within {:?}", context.timeout)?,
                    Cutoff::Closed | Cutoff::Broke(_) => write!(out, "{} without a pong", cutoff_words(*cut))?,
                }
                match others {
                    0 => {}
                    1 => out.push_str(", but one for another ping"),
                    n => write!(out, ", but {n} for other pings")?,
                }
                match (cut, context.connected_in) {
                    (Cutoff::Deadline, Some(connected_in)) => write!(out, " (connected in {})", Measured(connected_in)),
                    (Cutoff::Deadline | Cutoff::Closed | Cutoff::Broke(_), _) => Ok(()),
                }
            }
        }
    }

    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Flaw::Upgrade => Some("a 101 names one protocol: requests that ask for it get 502"),
            Flaw::Missing(_) | Flaw::Accept(_) => {
                Some("it is not a WebSocket server, or a proxy in front of it changes the answer")
            }
            Flaw::Subprotocol { asked: Some(_), .. } => {
                Some("check subprotocol: the server has not accepted this one, or uses none")
            }
            Flaw::Subprotocol { asked: None, .. } => Some("set subprotocol to the one that the server uses"),
            Flaw::Extension(_) => None,
            Flaw::Unreadable | Flaw::Frame(_) => Some("it violates RFC 6455"),
            Flaw::Closed { code: Some(code), .. } => close_hint(*code),
            Flaw::Closed { code: None, .. } => None,
            Flaw::NoPong { cut: Cutoff::Deadline, .. } => Some(
                "it accepts the upgrade but does not answer pings (RFC 6455, section 5.5.2): overloaded, or it ignores them",
            ),
            Flaw::NoPong { .. } => Some("it accepts the upgrade and drops the connection: its backend may be down"),
        }
    }
}

/// For a close code: by its definition (RFC 6455, section 7.4.1, and IANA's registry). Applications define those from 4000.
fn close_hint(code: u16) -> Option<&'static str> {
    match code {
        1001 | 1012 | 1013 => Some("its server is going down, restarting or overloaded"),
        1008 => Some("it refuses this client: check credentials, Origin and path"),
        1011 => Some("see its log"),
        1014 => Some("a proxy in front of it cannot reach a server"),
        3000 => Some("needs credentials, or others than were sent"),
        3003 => Some(REFUSED_HINT),
        4000..5000 => Some("this code is the application's own"),
        _ => None,
    }
}
