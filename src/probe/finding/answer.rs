//! The words for an HTTP answer: what came of it, and why it is not as expected.

use std::fmt::Write;

use nix::errno::Errno;

use super::Circumstances;
use super::hints::{CLOSED_HINT_HTTP2, NO_ANSWER_HINT, protocol_hint, status_hint};
use super::words::{Bytes, Measured};
use crate::model::Code;
use crate::model::policy::{BodyRule, HttpProbe, HttpVersion};
use crate::model::quote::{Excerpt, Quoted};
use crate::probe::response::{Malformed, Stage};

/// What came of one answer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) enum Answered<'p> {
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
pub(in crate::probe) enum Miss {
    /// It is known that the rule does not hold.
    Whole,
    /// The rule was open when the cap was reached.
    OverCap,
}

/// What ended an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe) enum Cut {
    /// The peer closed in good order.
    Closed,
    /// The connection broke.
    Broke(Errno),
    /// The deadline passed.
    Deadline,
}

impl Answered<'_> {
    pub(super) fn code(&self) -> Code {
        match self {
            Answered::AsExpected { .. } => Code::L7Ok,
            Answered::Status { .. } => Code::L7Sts,
            Answered::CutShort { cut: Cut::Deadline, .. } => Code::L7Tout,
            Answered::Body { .. } | Answered::Malformed { .. } | Answered::CutShort { .. } => Code::L7Rsp,
        }
    }

    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Answered::AsExpected { status } | Answered::Status { status, .. } | Answered::Body { status, .. } => {
                Some(*status)
            }
            Answered::Malformed { error: Malformed::Switch, .. } => Some(101),
            Answered::Malformed { status, .. } | Answered::CutShort { status, .. } => *status,
        }
    }

    pub(super) fn write_sentence(&self, out: &mut String, c: &Circumstances<'_>) -> std::fmt::Result {
        match self {
            Answered::AsExpected { status } => write!(out, "{status} in {}", Measured(c.took)),
            Answered::Status { probe, status, location, body } => {
                write!(out, "status {status}, expected {}", probe.expect.status)?;
                if let Some(location) = location {
                    write!(out, "; location: {}", Quoted(location.bytes()))?;
                }
                write_excerpt(out, body)
            }
            Answered::Body { probe, miss, body, .. } => {
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
            Answered::Malformed { error, seen, .. } => {
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
            Answered::CutShort { probe, cut, stage, interim, body, .. } => {
                write_cut(out, c, *cut, *stage, *interim, probe)?;
                if let (Cut::Deadline, Some(connected_in)) = (cut, c.connected_in) {
                    write!(out, " (connected in {})", Measured(connected_in))?;
                }
                write_excerpt(out, body)
            }
        }
    }

    /// What the operator may want to try.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Answered::AsExpected { .. } | Answered::Body { .. } => None,
            Answered::Status { probe, status: 200..300, .. } if probe.expect.status.takes(101) => {
                Some("this path answers plain requests: check the path of the WebSocket")
            }
            Answered::Status { probe, status, body, .. } => status_hint(&probe.method, *status, body.bytes()),
            Answered::Malformed { error: Malformed::NotHttp, seen, .. } => protocol_hint(seen.bytes()),
            Answered::Malformed { error: Malformed::Switch, .. } => {
                Some("this path wants a plain request, not an upgrade")
            }
            Answered::Malformed { .. } => None,
            Answered::CutShort { cut: Cut::Deadline, stage: Stage::Head(0), .. } => Some(NO_ANSWER_HINT),
            Answered::CutShort { cut: Cut::Deadline, .. } => Some("it answers too slowly for this timeout"),
            Answered::CutShort { probe, stage: Stage::Head(0), .. } if probe.version == HttpVersion::H2 => {
                Some(CLOSED_HINT_HTTP2)
            }
            Answered::CutShort { stage: Stage::Head(0), .. } => {
                Some("this port may speak TLS or another protocol, or its server is going down")
            }
            Answered::CutShort { .. } => None,
        }
    }
}

pub(super) fn write_excerpt(out: &mut String, body: &Excerpt) -> std::fmt::Result {
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

pub(super) fn write_came(out: &mut String, stage: Stage) -> std::fmt::Result {
    match stage {
        Stage::Body(bytes, Some(total)) => write!(out, "{bytes} of {} had come", Bytes(total)),
        Stage::Body(bytes, None) => write!(out, "{} had come, and not its end", Bytes(bytes)),
        Stage::Head(_) | Stage::End => Ok(()),
    }
}

pub(super) fn cut_words(cut: Cut) -> &'static str {
    match cut {
        Cut::Closed => "connection closed",
        Cut::Deadline => "deadline passed",
        Cut::Broke(Errno::ECONNRESET | Errno::EPIPE) => "connection reset",
        Cut::Broke(errno) => errno.desc(),
    }
}
