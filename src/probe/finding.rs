//! What a probe found, and the words for it: outcome code, sentence with the values, hint. The one table of wordings:
//! logs, JSON, command line and metrics all show what is made here.

mod hints;
mod words;

use std::fmt::Write;
use std::time::Duration;

use nix::errno::Errno;

use super::connect::Fault;
use super::response::{Malformed, Stage};
use crate::model::policy::{BodyRule, HttpProbe};
use crate::model::quote::{Excerpt, Quoted};
use crate::model::{Address, Code, ProbeReport, Trace};
use hints::{connect_hint, protocol_hint, resource_hint, status_hint};
use words::{Bytes, Measured, connect_words, resource_words};

/// What one probe found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding<'p> {
    /// Connected, and that was all.
    Connected,
    /// The system refused the connection.
    NotConnected(Fault),
    /// The deadline passed before there was a connection.
    ConnectTimeout,
    /// This machine ran out of something on the way.
    NoResources(Errno),
    /// The answer is as expected.
    AsExpected { status: u16 },
    /// Another status than expected.
    Status { probe: &'p HttpProbe, status: u16, location: Option<Excerpt>, body: Excerpt },
    /// The body is not as expected.
    Body { probe: &'p HttpProbe, status: u16, miss: Miss, body: Excerpt },
    /// Not an HTTP answer, or a broken one.
    Malformed { error: Malformed, status: Option<u16>, seen: Excerpt },
    /// The answer ended before it could be judged.
    CutShort { probe: &'p HttpProbe, cut: Cut, stage: Stage, interim: u32, status: Option<u16>, body: Excerpt },
}

/// How a body failed its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    /// It is known that the rule does not hold.
    Whole,
    /// The rule was open when the cap was reached.
    OverCap,
}

/// What ended an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The peer closed in good order.
    Closed,
    /// The connection broke.
    Broke(Errno),
    /// The deadline passed.
    Deadline,
}

/// What a sentence may mention beside the finding.
#[derive(Debug)]
pub(super) struct Circumstances<'a> {
    /// The whole probe.
    pub took: Duration,
    /// From its start to the connection.
    pub connected_in: Option<Duration>,
    /// The deadline.
    pub timeout: Duration,
    /// The address dialled, where it is not the upstream's own.
    pub elsewhere: Option<&'a Address>,
}

impl Finding<'_> {
    /// Puts it into words.
    pub(super) fn report(&self, circumstances: &Circumstances<'_>) -> ProbeReport {
        let mut reason = String::with_capacity(64);
        self.write_sentence(&mut reason, circumstances).expect("writing to a string cannot fail");
        ProbeReport {
            code: self.code(),
            status: self.status(),
            duration: circumstances.took,
            reason: reason.into_boxed_str(),
            hint: self.hint(),
            trace: Trace::default(),
        }
    }

    fn code(&self) -> Code {
        match self {
            Finding::Connected => Code::L4Ok,
            Finding::NotConnected(Fault::Theirs(Errno::ETIMEDOUT)) | Finding::ConnectTimeout => Code::L4Tout,
            Finding::NotConnected(Fault::Theirs(_)) => Code::L4Con,
            Finding::NotConnected(Fault::Ours(_)) | Finding::NoResources(_) => Code::NoRes,
            Finding::AsExpected { .. } => Code::L7Ok,
            Finding::Status { .. } => Code::L7Sts,
            Finding::CutShort { cut: Cut::Deadline, .. } => Code::L7Tout,
            Finding::Body { .. } | Finding::Malformed { .. } | Finding::CutShort { .. } => Code::L7Rsp,
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Finding::Connected | Finding::NotConnected(_) | Finding::ConnectTimeout | Finding::NoResources(_) => None,
            Finding::AsExpected { status } | Finding::Status { status, .. } | Finding::Body { status, .. } => {
                Some(*status)
            }
            Finding::Malformed { error: Malformed::Switch, .. } => Some(101),
            Finding::Malformed { status, .. } | Finding::CutShort { status, .. } => *status,
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
            Finding::AsExpected { status } => write!(out, "{status} in {}", Measured(c.took)),
            Finding::Status { probe, status, location, body } => {
                write!(out, "status {status}, expected {}", probe.expect.status)?;
                if let Some(location) = location {
                    write!(out, "; location: {}", Quoted(location.bytes()))?;
                }
                write_excerpt(out, body)
            }
            Finding::Body { probe, miss, body, .. } => {
                match &probe.expect.body {
                    Some(BodyRule::Contains(text)) => write!(out, "body does not contain {}", Quoted(text.as_bytes()))?,
                    Some(BodyRule::Equals(text)) => write!(out, "body is not {}", Quoted(text.as_bytes()))?,
                    Some(BodyRule::Matches(_)) | None => out.push_str("body is not as expected"),
                }
                match miss {
                    Miss::Whole => {}
                    Miss::OverCap => out.push_str(" in its first 64 KiB, of which no more are read"),
                }
                if body.bytes().is_empty() {
                    out.push_str("; it is empty");
                }
                write_excerpt(out, body)
            }
            Finding::Malformed { error, seen, .. } => {
                write!(out, "{error}")?;
                match error {
                    Malformed::NotHttp => write!(out, ": {}", Quoted(seen.bytes())),
                    Malformed::Head(_)
                    | Malformed::HeadBytes
                    | Malformed::HeadFields
                    | Malformed::Interim
                    | Malformed::Switch
                    | Malformed::ContentLength
                    | Malformed::Chunk(_) => Ok(()),
                }
            }
            Finding::CutShort { probe, cut, stage, interim, body, .. } => {
                write_cut(out, c, *cut, *stage, *interim, probe)?;
                if let (Cut::Deadline, Some(connected_in)) = (cut, c.connected_in) {
                    write!(out, " (connected in {})", Measured(connected_in))?;
                }
                write_excerpt(out, body)
            }
        }
    }

    /// What the operator may want to try.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Finding::Connected | Finding::AsExpected { .. } | Finding::Body { .. } => None,
            Finding::NotConnected(Fault::Theirs(errno)) => connect_hint(*errno),
            Finding::NotConnected(Fault::Ours(errno)) | Finding::NoResources(errno) => resource_hint(*errno),
            Finding::ConnectTimeout => Some("the host is down, or a firewall drops what is sent to it"),
            Finding::Status { probe, status, body, .. } => status_hint(&probe.method, *status, body.bytes()),
            Finding::Malformed { error: Malformed::NotHttp, seen, .. } => protocol_hint(seen.bytes()),
            Finding::Malformed { error: Malformed::Switch, .. } => {
                Some("this path wants a plain request, not an upgrade")
            }
            Finding::Malformed { .. } => None,
            Finding::CutShort { cut: Cut::Deadline, stage: Stage::Head(0), .. } => {
                Some("it accepts connections but does not answer: overloaded, stopped, or another protocol")
            }
            Finding::CutShort { cut: Cut::Deadline, .. } => Some("it answers too slowly for this timeout"),
            Finding::CutShort { stage: Stage::Head(0), .. } => {
                Some("this port may speak TLS or another protocol, or its server is going down")
            }
            Finding::CutShort { .. } => None,
        }
    }
}

fn write_place(out: &mut String, c: &Circumstances<'_>) -> std::fmt::Result {
    match c.elsewhere {
        Some(address) => write!(out, " at {address}"),
        None => Ok(()),
    }
}

fn write_excerpt(out: &mut String, body: &Excerpt) -> std::fmt::Result {
    if body.bytes().is_empty() { Ok(()) } else { write!(out, "; body: {}", Quoted(body.bytes())) }
}

fn write_cut(
    out: &mut String,
    c: &Circumstances<'_>,
    cut: Cut,
    stage: Stage,
    interim: u32,
    probe: &HttpProbe,
) -> std::fmt::Result {
    match (cut, stage) {
        (Cut::Deadline, Stage::Head(0)) if interim == 0 => write!(out, "no answer within {:?}", c.timeout),
        (Cut::Deadline, Stage::Head(0)) => {
            write!(out, "no final answer within {:?}: {interim} interim came", c.timeout)
        }
        (Cut::Deadline, Stage::Head(bytes)) => {
            write!(out, "no whole answer within {:?}: {} of its head came", c.timeout, Bytes(bytes as u64))
        }
        (Cut::Deadline, Stage::Body(..) | Stage::End) => {
            match &probe.expect.body {
                Some(BodyRule::Contains(text)) => write!(out, "no {} in the body", Quoted(text.as_bytes()))?,
                Some(BodyRule::Equals(_) | BodyRule::Matches(_)) | None => out.push_str("no whole body"),
            }
            write!(out, " within {:?}: ", c.timeout)?;
            write_came(out, stage)
        }
        (Cut::Closed | Cut::Broke(_), Stage::Head(0)) => write!(out, "{} without an answer", cut_words(cut)),
        (Cut::Closed | Cut::Broke(_), Stage::Head(bytes)) => {
            write!(out, "{} inside an answer: {} of its head came", cut_words(cut), Bytes(bytes as u64))
        }
        (Cut::Closed | Cut::Broke(_), Stage::Body(..) | Stage::End) => {
            if let Some(BodyRule::Contains(text)) = &probe.expect.body {
                write!(out, "body does not contain {} and was cut short: ", Quoted(text.as_bytes()))?;
            } else {
                out.push_str("body was cut short: ");
            }
            write!(out, "{} when ", cut_words(cut))?;
            write_came(out, stage)
        }
    }
}

fn write_came(out: &mut String, stage: Stage) -> std::fmt::Result {
    match stage {
        Stage::Body(bytes, Some(total)) => write!(out, "{bytes} of {} had come", Bytes(total)),
        Stage::Body(bytes, None) => write!(out, "{} had come, and not its end", Bytes(bytes)),
        Stage::Head(_) | Stage::End => Ok(()),
    }
}

fn cut_words(cut: Cut) -> &'static str {
    match cut {
        Cut::Closed => "connection closed",
        Cut::Deadline => "deadline passed",
        Cut::Broke(Errno::ECONNRESET | Errno::EPIPE) => "connection reset",
        Cut::Broke(errno) => errno.desc(),
    }
}

#[cfg(test)]
mod tests;
