//! An HTTP answer while it arrives: `response` does the framing, `judge` checks the rules. Pure: `http` feeds it what it
//! reads and reports why it stopped. The finding does not depend on the pieces.

mod judge;

use rustls::AlertDescription;

use super::connect::Fault;
use super::finding::{Cutoff, Finding, Interruption};
use super::response::{Flow, Reader, Sink};
use crate::http1::limits::RESPONSE_HEAD_FIELDS;
use crate::http1::{self, Field};
use crate::model::Trace;
use crate::model::policy::HttpProbe;
use judge::{Judge, Verdict};

/// What to do after a piece of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More is needed.
    More,
    /// The finding is a failure, and certain; a little more would complete the quotation.
    Settled,
    /// Enough.
    Done,
}

/// Why reading an answer stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The rest is not needed.
    Enough,
    /// The peer closed its side.
    Closed,
    /// The connection broke.
    Broke(Fault),
    /// The peer rejected us after the TLS handshake.
    Refused(AlertDescription),
    /// The deadline passed.
    Deadline,
}

impl Stop {
    /// What ended the answer early; `None`: nothing did.
    pub(super) fn cut(self) -> Option<Cutoff> {
        match self {
            Stop::Enough => None,
            // Callers handle our own faults before.
            Stop::Broke(Fault::Ours(errno) | Fault::Theirs(errno)) => Some(Cutoff::Broke(errno)),
            Stop::Closed | Stop::Refused(_) => Some(Cutoff::Closed),
            Stop::Deadline => Some(Cutoff::Deadline),
        }
    }
}

/// An answer while it arrives.
#[derive(Debug)]
pub(super) struct Answer<'p> {
    reader: Reader,
    judge: Judge<'p>,
}

impl<'p> Answer<'p> {
    pub(super) fn new(probe: &'p HttpProbe) -> Answer<'p> {
        Answer { reader: Reader::new(&*probe.method == "HEAD"), judge: Judge::new(probe) }
    }

    /// Reads the next bytes of the connection. After `Done` feed no more.
    pub(super) fn feed(&mut self, mut input: &[u8]) -> Progress {
        if matches!(self.judge.verdict(), Verdict::Malformed(http1::Fault::NotHttp)) {
            return self.keep_unparsed(input);
        }
        let flow = self.reader.feed(&mut input, &mut self.judge);
        self.progress(flow, input)
    }

    /// Takes a head, interim or final, that another parser has read (HTTP/2). The body follows with [`Answer::feed`], and an
    /// end without a length with [`Answer::feed_end`].
    pub(super) fn feed_head(&mut self, status: u16, fields: &[Field<'_>]) -> Progress {
        if status >= 200 {
            self.judge.on_raw_head(&written(status, fields));
        }
        let flow = match fields.len() {
            ..=RESPONSE_HEAD_FIELDS => self.reader.on_parsed_head(status, fields, &mut self.judge),
            _ => Err(http1::Fault::HeadFields(RESPONSE_HEAD_FIELDS)),
        };
        self.progress(flow, &[])
    }

    /// The answer is complete.
    pub(super) fn feed_end(&mut self) {
        self.reader.on_close(&mut self.judge);
    }

    /// The progress after a piece, of which `rest` was not read.
    fn progress(&mut self, flow: Result<Flow, http1::Fault>, rest: &[u8]) -> Progress {
        let open = self.judge.is_open();
        match flow {
            Ok(Flow::Continue) if open || self.judge.reads_on() => Progress::More,
            Ok(Flow::Continue) => Progress::Settled,
            Ok(Flow::Stop) => Progress::Done,
            // The answer has failed already; its quotation ends here.
            Err(_) if !open => Progress::Done,
            Err(error) => {
                self.judge.on_malformed(error);
                if error != http1::Fault::NotHttp {
                    return Progress::Done;
                }
                self.judge.keep_unparsed(self.reader.pending());
                self.keep_unparsed(rest)
            }
        }
    }

    fn keep_unparsed(&mut self, bytes: &[u8]) -> Progress {
        if self.judge.keep_unparsed(bytes) { Progress::Done } else { Progress::Settled }
    }

    /// The finding, when no more is read.
    pub(super) fn finish(mut self, stop: Stop) -> Finding<'p> {
        if stop == Stop::Closed {
            self.feed_end();
        }
        let Answer { reader, judge } = self;
        match stop {
            Stop::Broke(Fault::Ours(errno)) if judge.is_open() => return Finding::NoResources(errno),
            Stop::Refused(alert) if judge.is_open() => return Finding::Refused(alert),
            Stop::Enough | Stop::Closed | Stop::Broke(_) | Stop::Refused(_) | Stop::Deadline => {}
        }
        let cut = stop.cut().unwrap_or(Cutoff::Closed);
        let end = Interruption { cut, stage: reader.stage(), interim: reader.interim() };
        Finding::Answer(judge.finish(end, reader.pending()))
    }
}

/// A head of HTTP/2 in the syntax of HTTP/1, as far as a trace shows it.
fn written(status: u16, fields: &[Field<'_>]) -> Vec<u8> {
    let mut head = format!("HTTP/2 {status}\r\n").into_bytes();
    for field in fields {
        if head.len() > Trace::HEAD_BYTES_MAX {
            break;
        }
        for part in [field.name, b": ", field.value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests;
