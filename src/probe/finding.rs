//! What a probe found, and the words for it: outcome code, sentence with the values, hint. The one table of wordings:
//! logs, JSON, command line and metrics all show what is made here. `answer` has the words for HTTP answers.

mod answer;
mod hints;
mod words;

use std::fmt::Write;
use std::time::Duration;

use nix::errno::Errno;

pub(super) use answer::{Answered, Cut, Miss};

use super::connect::Fault;
use crate::model::{Address, Code, ProbeReport, Trace};
use hints::{connect_hint, resource_hint};
use words::{Measured, connect_words, resource_words};

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
    /// What came of an HTTP answer.
    Answer(Answered<'p>),
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
    pub(super) fn report(self, circumstances: &Circumstances<'_>) -> ProbeReport {
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
            Finding::Answer(answered) => answered.code(),
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Finding::Connected | Finding::NotConnected(_) | Finding::ConnectTimeout | Finding::NoResources(_) => None,
            Finding::Answer(answered) => answered.status(),
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
            Finding::Answer(answered) => answered.write_sentence(out, c),
        }
    }

    /// What the operator may want to try.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Finding::Connected => None,
            Finding::NotConnected(Fault::Theirs(errno)) => connect_hint(*errno),
            Finding::NotConnected(Fault::Ours(errno)) | Finding::NoResources(errno) => resource_hint(*errno),
            Finding::ConnectTimeout => Some("the host is down, or a firewall drops what is sent to it"),
            Finding::Answer(answered) => answered.hint(),
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
