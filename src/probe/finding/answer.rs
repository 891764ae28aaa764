//! Sentences for HTTP answers: the outcome, and why an answer is not as expected.

use std::fmt::Write;

use nix::errno::Errno;
use serde_json::Value;

use super::Circumstances;
use super::hints::{Asked, UNENDED_HINT, closed_hint, no_answer_hint, protocol_hint, status_hint};
use super::words::Bytes;
use crate::http1::Fault;
use crate::model::policy::{BodyRule, HeaderMatch, HttpProbe, HttpVersion, JsonMatch, JsonRule, have_credentials};
use crate::model::quote::{Escaped, Excerpt, Quoted};
use crate::model::units::Measured;
use crate::model::{Code, Ratio};
use crate::probe::expect::{HeaderMiss, NotJson};
use crate::probe::response::Stage;
use crate::probe::self_report::SelfReport;

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) struct Answered<'p> {
    pub outcome: Outcome<'p>,
    /// For the trace, bounded and without our credentials.
    pub head: Box<[u8]>,
    /// As the head.
    pub body: Box<[u8]>,
}

/// The outcome of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) enum Outcome<'p> {
    /// The answer is as expected. `degraded`: and says that the upstream is worse than others, which then takes this share of
    /// its weight.
    AsExpected { status: u16, degraded: Option<Ratio> },
    /// Another status than expected. `miss`: the first rule over JSON that also fails, which names the component at fault.
    /// `is_verdict`: the body is a health report of the system.
    Status {
        probe: &'p HttpProbe,
        status: u16,
        location: Option<Excerpt>,
        miss: Option<Miss<'p>>,
        details: Details,
        is_verdict: bool,
    },
    /// The status is as expected, and another rule fails.
    Missed { status: u16, miss: Miss<'p>, details: Details, hint: Option<&'static str> },
    /// Not an HTTP answer, or a broken one.
    Malformed { error: Fault, status: Option<u16>, seen: Excerpt },
    /// The answer ended before it was decided. `wanted`: the missing text.
    CutShort { probe: &'p HttpProbe, wanted: Option<&'p str>, end: Interruption, status: Option<u16>, body: Excerpt },
}

/// What a sentence shows of a failed answer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) enum Details {
    /// The reason that the system reports.
    Reported(SelfReport),
    /// The first bytes of its body; may be empty.
    Body(Excerpt),
}

/// The rule that fails.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) enum Miss<'p> {
    /// A rule over a field.
    Header(HeaderMiss<'p>),
    /// A rule over the body. `over_cap`: undecided when the cap was reached.
    Body { rule: &'p BodyRule, over_cap: bool, empty: bool },
    /// There are rules over JSON, and the body is not JSON.
    NotJson(NotJson),
    /// There are rules over JSON, and the body is over the cap.
    JsonOverCap,
    /// A rule over JSON: the first node at fault (`None`: the path selects nothing), and the number of further ones.
    Json { rule: &'p JsonRule, node: Option<Node>, more: usize },
}

/// A node of a JSON document, ready to be shown.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) struct Node {
    path: Excerpt,
    value: Excerpt,
    /// The value is a text, shown in quotation marks.
    text: bool,
}

impl Node {
    /// `value` at `path`.
    pub(in crate::probe) fn new(path: &str, value: &Value) -> Node {
        let (shown, text) = match value {
            Value::String(text) => (Excerpt::of(text.as_bytes()), true),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                (Excerpt::of(value.to_string().as_bytes()), false)
            }
        };
        Node { path: Excerpt::of(path.as_bytes()), value: shown, text }
    }

    /// Masks our credentials, in case the peer has sent them back.
    pub(in crate::probe) fn without<'s, S: Iterator<Item = &'s str>>(self, secrets: impl Fn() -> S) -> Node {
        Node { path: self.path.without(secrets()), value: self.value.without(secrets()), text: self.text }
    }
}

/// How an answer ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe) struct Interruption {
    pub cut: Cutoff,
    /// The progress of the answer.
    pub stage: Stage,
    /// Interim answers before it.
    pub interim: u32,
}

/// What ended an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe) enum Cutoff {
    /// The peer closed.
    Closed,
    /// The connection broke.
    Broke(Errno),
    /// The deadline passed.
    Deadline,
}

impl Outcome<'_> {
    pub(super) fn code(&self) -> Code {
        match self {
            Outcome::AsExpected { .. } => Code::L7Ok,
            Outcome::Status { .. } => Code::L7Sts,
            Outcome::CutShort { end: Interruption { cut: Cutoff::Deadline, .. }, .. } => Code::L7Tout,
            Outcome::Missed { .. } | Outcome::Malformed { .. } | Outcome::CutShort { .. } => Code::L7Rsp,
        }
    }

    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Outcome::AsExpected { status, .. } | Outcome::Status { status, .. } | Outcome::Missed { status, .. } => {
                Some(*status)
            }
            Outcome::Malformed { error: Fault::Switch, .. } => Some(101),
            Outcome::Malformed { status, .. } | Outcome::CutShort { status, .. } => *status,
        }
    }

    pub(super) fn write_sentence(&self, out: &mut String, context: &Circumstances<'_>) -> std::fmt::Result {
        match self {
            Outcome::AsExpected { status, degraded } => {
                let worse = if degraded.is_some() { ", degraded" } else { "" };
                write!(out, "{status} in {}{worse}", Measured(context.took))
            }
            Outcome::Status { probe, status, location, miss, details, .. } => {
                write!(out, "status {status}, expected {}", probe.expect.status)?;
                if let Some(location) = location {
                    write!(out, "; location: {}", Quoted(location.bytes()))?;
                }
                if let Some(miss) = miss {
                    out.push_str("; ");
                    miss.write(out)?;
                }
                write_details(out, details, miss.as_ref())
            }
            Outcome::Missed { miss, details, .. } => {
                miss.write(out)?;
                write_details(out, details, Some(miss))
            }
            Outcome::Malformed { error, seen, .. } => {
                write!(out, "{error}")?;
                if *error == Fault::NotHttp { write!(out, ": {}", Quoted(seen.bytes())) } else { Ok(()) }
            }
            Outcome::CutShort { wanted, end, body, .. } => {
                write_cutoff(out, context, *end, *wanted)?;
                if let (Cutoff::Deadline, Some(connected_in)) = (end.cut, context.connected_in) {
                    write!(out, " (connected in {})", Measured(connected_in))?;
                }
                write_excerpt(out, body)
            }
        }
    }

    /// What the operator can try.
    pub(super) fn hint(&self, context: &Circumstances<'_>) -> Option<&'static str> {
        match self {
            Outcome::AsExpected { .. } => None,
            Outcome::Missed { hint, .. } => *hint,
            Outcome::Status { probe, status: 200..300, .. } if probe.expect.status.takes(101) => {
                Some("this path answers plain requests: check the path of the WebSocket")
            }
            // The answer itself reports what is wrong.
            Outcome::Status { is_verdict: true, .. } => None,
            Outcome::Status { probe, status, details, .. } => {
                let body = match details {
                    Details::Body(body) => body.bytes(),
                    Details::Reported(_) => &[],
                };
                let has_host =
                    probe.host.is_some() || probe.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host"));
                let has_credentials = have_credentials(&probe.headers);
                let asked = Asked { method: &probe.method, has_host, has_credentials, is_tls: context.is_tls() };
                status_hint(asked, *status, body)
            }
            Outcome::Malformed { error: Fault::NotHttp, seen, .. } => protocol_hint(seen.bytes(), context.is_tls()),
            Outcome::Malformed { error: Fault::Switch, .. } => {
                Some("an Upgrade header of the check may ask for it: use type = \"websocket\"")
            }
            Outcome::Malformed { .. } => None,
            Outcome::CutShort {
                end: Interruption { cut: Cutoff::Deadline, stage: Stage::Head(0), interim: 0 },
                ..
            } => Some(no_answer_hint(context.is_tls())),
            Outcome::CutShort {
                end: Interruption { cut: Cutoff::Deadline, stage: Stage::UntilClose(_), .. }, ..
            } => Some(UNENDED_HINT),
            Outcome::CutShort { end: Interruption { cut: Cutoff::Deadline, .. }, .. } => {
                Some("it answers too slowly for this timeout")
            }
            // The peer speaks HTTP: it sent interim answers.
            Outcome::CutShort { end: Interruption { stage: Stage::Head(0), interim: 1.., .. }, .. } => None,
            Outcome::CutShort { probe, end: Interruption { stage: Stage::Head(0), .. }, .. } => {
                Some(closed_hint(context.is_tls(), probe.version == HttpVersion::H2))
            }
            Outcome::CutShort { .. } => None,
        }
    }
}

impl Miss<'_> {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        match self {
            Miss::Header(miss) => write_header(out, miss),
            Miss::Body { rule, over_cap, empty } => {
                match rule {
                    BodyRule::NotContains(_) | BodyRule::NotMatches(_) if *over_cap => {
                        let word = if matches!(rule, BodyRule::NotContains(_)) { "contain" } else { "match" };
                        write!(out, "body may {word} {}: only its first 64 KiB are read", excluded(rule))?;
                        return Ok(());
                    }
                    BodyRule::NotContains(_) => write!(out, "body contains {}, which it must not", excluded(rule))?,
                    BodyRule::NotMatches(_) => write!(out, "body matches {}, which it must not", excluded(rule))?,
                    BodyRule::Contains(text) => write!(out, "body does not contain {}", Quoted(text.as_bytes()))?,
                    BodyRule::Equals(text) => write!(out, "body is not {}", Quoted(text.as_bytes()))?,
                    BodyRule::Matches(pattern) => {
                        write!(out, "body does not match {}", Quoted(pattern.as_str().as_bytes()))?;
                    }
                }
                if *over_cap {
                    out.push_str(" in its first 64 KiB (the rest is not read)");
                }
                out.push_str(if *empty { "; it is empty" } else { "" });
                Ok(())
            }
            Miss::NotJson(error) => write!(out, "body is not JSON: {error}"),
            Miss::JsonOverCap => {
                out.push_str("body is over 64 KiB: too long to be checked as JSON");
                Ok(())
            }
            Miss::Json { rule, node, more } => {
                match node {
                    None => write!(out, "{} is missing", Escaped(rule.path.as_str().as_bytes()))?,
                    Some(Node { path, value, text: true }) => {
                        write!(out, "{} is {}", Escaped(path.bytes()), Quoted(value.bytes()))?;
                    }
                    Some(Node { path, value, text: false }) => {
                        write!(out, "{} is {}", Escaped(path.bytes()), Escaped(value.bytes()))?;
                    }
                }
                write_wanted(out, &rule.value)?;
                match more {
                    0 => Ok(()),
                    1 => write!(out, "; 1 more node fails"),
                    more => write!(out, "; {more} more nodes fail"),
                }
            }
        }
    }
}

/// The text or pattern of a negated rule.
fn excluded(rule: &BodyRule) -> Quoted<'_> {
    Quoted(match rule {
        BodyRule::NotContains(text) | BodyRule::Contains(text) | BodyRule::Equals(text) => text.as_bytes(),
        BodyRule::NotMatches(pattern) | BodyRule::Matches(pattern) => pattern.as_str().as_bytes(),
    })
}

fn write_header(out: &mut String, miss: &HeaderMiss<'_>) -> std::fmt::Result {
    write!(out, "header {} is ", miss.rule.name)?;
    for (i, value) in miss.seen.iter().enumerate() {
        write!(out, "{}{}", if i == 0 { "" } else { ", " }, Quoted(value.bytes()))?;
    }
    match miss.more {
        0 => {}
        more => write!(out, " and {more} more")?,
    }
    out.push_str(if miss.seen.is_empty() { "absent" } else { "" });
    match &miss.rule.value {
        HeaderMatch::Equals(text) => write!(out, ", expected {}", Quoted(text.as_bytes())),
        HeaderMatch::Matches(pattern) => {
            write!(out, ", expected a match of {}", Quoted(pattern.as_str().as_bytes()))
        }
        HeaderMatch::NotEquals(text) => write!(out, ", expected another value than {}", Quoted(text.as_bytes())),
        HeaderMatch::Absent => write!(out, ", expected none"),
        HeaderMatch::Present => Ok(()),
    }
}

/// Values of a rule that a sentence shows.
const WANTED_MAX: usize = 8;

fn write_wanted(out: &mut String, wanted: &JsonMatch) -> std::fmt::Result {
    match wanted {
        JsonMatch::Equals(value) => {
            out.push_str(", expected ");
            write_value(out, value)
        }
        JsonMatch::NotEquals(value) => {
            out.push_str(", expected anything but ");
            write_value(out, value)
        }
        JsonMatch::In(values) => {
            out.push_str(", expected one of ");
            for (i, value) in values.iter().take(WANTED_MAX).enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                write_value(out, value)?;
            }
            out.push_str(if values.len() > WANTED_MAX { ", …" } else { "" });
            Ok(())
        }
        JsonMatch::Exists(true) => Ok(()),
        JsonMatch::Exists(false) => {
            out.push_str(", expected nothing there");
            Ok(())
        }
        JsonMatch::Matches(pattern) => {
            write!(out, ", expected a string that matches {}", Quoted(pattern.as_str().as_bytes()))
        }
        JsonMatch::Within(range) => write!(out, ", expected a number: {range}"),
        JsonMatch::Is(wanted) => write!(out, ", expected {wanted}"),
    }
}

fn write_value(out: &mut String, value: &Value) -> std::fmt::Result {
    match value {
        Value::String(text) => write!(out, "{}", Quoted(text.as_bytes())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            write!(out, "{}", Escaped(value.to_string().as_bytes()))
        }
    }
}

/// The reported reason or the body, after `miss`.
fn write_details(out: &mut String, details: &Details, miss: Option<&Miss<'_>>) -> std::fmt::Result {
    match (details, miss) {
        (Details::Reported(report), _) => write!(out, " ({report})"),
        // The sentence already has the value.
        (Details::Body(_), Some(Miss::Header(_) | Miss::Json { node: Some(_), .. })) => Ok(()),
        (Details::Body(body), _) => write_excerpt(out, body),
    }
}

pub(super) fn write_excerpt(out: &mut String, body: &Excerpt) -> std::fmt::Result {
    if body.bytes().is_empty() { Ok(()) } else { write!(out, "; body: {}", Quoted(body.bytes())) }
}

fn write_cutoff(
    out: &mut String,
    context: &Circumstances<'_>,
    end: Interruption,
    wanted: Option<&str>,
) -> std::fmt::Result {
    let Interruption { cut, stage, interim } = end;
    match (cut, stage) {
        (Cutoff::Deadline, Stage::Head(0)) if interim == 0 => write!(out, "no answer within {:?}", context.timeout),
        (Cutoff::Deadline, Stage::Head(0)) => {
            write!(out, "no final answer within {:?}: {interim} interim received", context.timeout)
        }
        (Cutoff::Deadline, Stage::Head(bytes)) => {
            write!(out, "no complete answer within {:?}: {} of its head received", context.timeout, Bytes(bytes as u64))
        }
        (Cutoff::Deadline, Stage::Body(..) | Stage::UntilClose(_) | Stage::End) => {
            match wanted {
                Some(text) => write!(out, "no {} in the body", Quoted(text.as_bytes()))?,
                None => out.push_str("no complete body"),
            }
            write!(out, " within {:?}: ", context.timeout)?;
            if let Stage::UntilClose(bytes) = stage {
                out.push_str("the answer has no length and its connection stayed open; ");
                return write!(out, "{} received", Bytes(bytes));
            }
            write_received(out, stage)
        }
        (Cutoff::Closed | Cutoff::Broke(_), Stage::Head(0)) => write!(out, "{} without an answer", cutoff_words(cut)),
        (Cutoff::Closed | Cutoff::Broke(_), Stage::Head(bytes)) => {
            write!(out, "{} inside an answer: {} of its head received", cutoff_words(cut), Bytes(bytes as u64))
        }
        (Cutoff::Closed | Cutoff::Broke(_), Stage::Body(..) | Stage::UntilClose(_) | Stage::End) => {
            if let Some(text) = wanted {
                write!(out, "body does not contain {} and was cut short: ", Quoted(text.as_bytes()))?;
            } else {
                out.push_str("body was cut short: ");
            }
            write!(out, "{}, ", cutoff_words(cut))?;
            write_received(out, stage)
        }
    }
}

pub(super) fn write_received(out: &mut String, stage: Stage) -> std::fmt::Result {
    match stage {
        Stage::Body(bytes, Some(total)) => write!(out, "{bytes} of {} received", Bytes(total)),
        Stage::Body(bytes, None) | Stage::UntilClose(bytes) => {
            write!(out, "{} received, but not its end", Bytes(bytes))
        }
        Stage::Head(_) | Stage::End => Ok(()),
    }
}

pub(super) fn cutoff_words(cut: Cutoff) -> &'static str {
    match cut {
        Cutoff::Closed => "connection closed",
        Cutoff::Deadline => "deadline passed",
        Cutoff::Broke(Errno::ECONNRESET | Errno::EPIPE) => "connection reset",
        Cutoff::Broke(errno) => errno.desc(),
    }
}
