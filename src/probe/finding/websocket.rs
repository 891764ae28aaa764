//! The words for a WebSocket that is none, or that does not answer.

use std::fmt::Write;

use super::answer::cut_words;
use super::hints::REFUSED_HINT;
use super::{Circumstances, Cut};
use crate::model::Code;
use crate::model::quote::{Excerpt, Quoted};
use crate::model::units::Measured;

/// What is wrong with a 101, before it or behind it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) enum Flaw<'p> {
    /// What was taken for a 101 cannot be read as one.
    Unreadable,
    /// The 101 lacks this field.
    Missing(&'static str),
    /// It offers other protocols beside WebSocket, so that a request would get 502.
    Upgrade,
    /// Its Sec-WebSocket-Accept is not the answer to our key.
    Accept(Excerpt),
    /// It does not agree to the subprotocol asked for, or to one that was not.
    Subprotocol { asked: Option<&'p str>, agreed: Option<Excerpt> },
    /// It agrees to extensions that were not asked for.
    Extension(Excerpt),
    /// The peer sent what it may not.
    Frame(&'static str),
    /// The peer closed the WebSocket.
    Closed { code: Option<u16>, reason: Excerpt },
    /// No pong for our ping; how many others came.
    NoPong { cut: Cut, others: u32 },
}

impl Flaw<'_> {
    pub(super) fn code(&self) -> Code {
        match self {
            Flaw::NoPong { cut: Cut::Deadline, .. } => Code::L7Tout,
            Flaw::Missing(_) | Flaw::Upgrade | Flaw::Accept(_) | Flaw::Subprotocol { .. } => Code::L7Rsp,
            Flaw::Extension(_) | Flaw::Unreadable | Flaw::Frame(_) | Flaw::Closed { .. } | Flaw::NoPong { .. } => {
                Code::L7Rsp
            }
        }
    }

    /// The status that was seen.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Flaw::Unreadable | Flaw::Missing(_) | Flaw::Upgrade | Flaw::Accept(_) => Some(101),
            Flaw::Subprotocol { .. } | Flaw::Extension(_) | Flaw::Frame(_) => Some(101),
            Flaw::Closed { .. } | Flaw::NoPong { .. } => Some(101),
        }
    }

    pub(super) fn write_sentence(&self, out: &mut String, c: &Circumstances<'_>) -> std::fmt::Result {
        match self {
            Flaw::Unreadable => write!(out, "answered 101 with a head that cannot be read"),
            Flaw::Missing(field) => write!(out, "answered 101 without {field}"),
            Flaw::Upgrade => write!(out, "answered 101 with more than Upgrade: websocket"),
            Flaw::Accept(value) => {
                write!(out, "wrong Sec-WebSocket-Accept: {} does not answer our key", Quoted(value.bytes()))
            }
            Flaw::Subprotocol { asked: Some(asked), agreed: None } => {
                write!(out, "subprotocol {} not agreed to", Quoted(asked.as_bytes()))
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
                    Cut::Deadline => write!(out, "no pong within {:?}", c.timeout)?,
                    Cut::Closed | Cut::Broke(_) => write!(out, "{} without a pong", cut_words(*cut))?,
                }
                match others {
                    0 => {}
                    1 => out.push_str(", but one that answers another ping"),
                    n => write!(out, ", but {n} that answer other pings")?,
                }
                match (cut, c.connected_in) {
                    (Cut::Deadline, Some(connected_in)) => write!(out, " (connected in {})", Measured(connected_in)),
                    (Cut::Deadline | Cut::Closed | Cut::Broke(_), _) => Ok(()),
                }
            }
        }
    }

    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Flaw::Upgrade => Some("a 101 names one protocol: requests that ask for it get 502"),
            Flaw::Missing(_) | Flaw::Accept(_) => {
                Some("what answers there is not a WebSocket server, or a proxy in front of it changes the answer")
            }
            Flaw::Subprotocol { asked: Some(_), .. } => {
                Some("check subprotocol: the server has not agreed to this one, or uses none")
            }
            Flaw::Subprotocol { asked: None, .. } => Some("set subprotocol to what the server speaks"),
            Flaw::Extension(_) => None,
            Flaw::Unreadable | Flaw::Frame(_) => Some("it does not keep to RFC 6455"),
            Flaw::Closed { code: Some(code), .. } => close_hint(*code),
            Flaw::Closed { code: None, .. } => None,
            Flaw::NoPong { cut: Cut::Deadline, .. } => Some(
                "it takes the upgrade but answers no ping (RFC 6455, section 5.5.2): overloaded, or it ignores pings",
            ),
            Flaw::NoPong { .. } => Some("it takes the upgrade and drops the connection: what serves it may be down"),
        }
    }
}

/// For a close code: by its definition (RFC 6455, section 7.4.1, and IANA's registry). Those from 4000 are the
/// application's own.
fn close_hint(code: u16) -> Option<&'static str> {
    match code {
        1001 | 1012 | 1013 => Some("its server is going down, restarting or overloaded"),
        1008 => Some("it refuses this client: check credentials, Origin and path"),
        1011 => Some("its own log may say why"),
        1014 => Some("a proxy in front of it reaches no server"),
        3000 => Some("needs credentials"),
        3003 => Some(REFUSED_HINT),
        4000..5000 => Some("this code is the application's own"),
        _ => None,
    }
}
