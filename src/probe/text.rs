//! The state machine of a check of a text protocol: which step is next, and what was received for it. Pure: `tcp` feeds it
//! what it reads, does what [`Next`] says, and reports why it stopped. The finding does not depend on the pieces.
//!
//! A step that waits consumes everything up to the end of its match; the next step reads on from there. At most 64 KiB are
//! read in all. After a step that starts TLS, data received in plain text is ignored: an attacker could have injected it.

use std::time::Duration;

use memchr::memmem;

use super::agent;
use super::answer::Stop;
use super::connect::Fault;
use super::finding::{AgentAnswer, Cutoff, Finding, TextFailure, Why};
use crate::model::policy::{Act, TcpProbe, TextStep, Wanted};
use crate::model::{StepTrace, Trace};

/// Bytes that are read from a peer.
const RECEIVED_BYTES_MAX: usize = 64 << 10;
/// Bytes that patterns search in one check, repetitions included. A peer that sends single bytes reaches it; then its
/// pattern is tried once more, at the end.
const SEARCHED_BYTES_MAX: usize = 16 << 20;

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'p> {
    /// Send this, then [`Dialogue::on_sent`].
    Send(&'p [u8]),
    /// Read, then [`Dialogue::on_received`] or [`Dialogue::on_closed`].
    Read,
    /// Make the handshake, then [`Dialogue::on_tls`].
    StartTls,
    /// The check is finished: call [`Dialogue::finish`].
    Over,
}

/// A running check.
#[derive(Debug)]
pub(super) struct Dialogue<'p> {
    probe: &'p TcpProbe,
    /// The index of the current step; the number of steps when all are done.
    at: usize,
    received: Vec<u8>,
    /// Bytes of it that the steps have consumed.
    taken: usize,
    /// Where the current step continues its search, so that a long answer is not searched repeatedly.
    searched: usize,
    /// Where the data of the current layer begins: after TLS starts, earlier data is ignored.
    fence: usize,
    /// Bytes received when something was last sent.
    asked_at: usize,
    /// The last match since then; `None`: no step has waited since.
    answered: Option<Answered>,
    /// Texts that fail the check, of steps that read nothing.
    watched: Vec<&'p str>,
    /// The peer has closed its side.
    closed: bool,
    searched_bytes: usize,
    /// The last step whose bytes could not be sent.
    unsent: Option<usize>,
    failed: Option<Why<'p>>,
    /// For the trace: one for each started step.
    traces: Vec<StepTrace>,
    /// Bytes consumed when the current step began.
    begun: usize,
}

/// The last match since something was sent.
#[derive(Debug, Clone, Copy)]
enum Answered {
    /// A text: the rest of its line belongs to the answer.
    Text,
    /// Bytes: they are the whole answer.
    Bytes,
}

impl<'p> Dialogue<'p> {
    pub(super) fn new(probe: &'p TcpProbe) -> Dialogue<'p> {
        Dialogue {
            probe,
            at: 0,
            received: Vec::new(),
            taken: 0,
            searched: 0,
            fence: 0,
            asked_at: 0,
            answered: None,
            watched: Vec::new(),
            closed: false,
            searched_bytes: 0,
            unsent: None,
            failed: None,
            traces: Vec::new(),
            begun: 0,
        }
    }

    /// What to do now; `now` is the time since the start of the probe.
    pub(super) fn next(&mut self, now: Duration) -> Next<'p> {
        loop {
            if self.failed.is_some() {
                return Next::Over;
            }
            let Some(step) = self.probe.steps.get(self.at) else { return Next::Over };
            if self.traces.len() <= self.at {
                self.traces.push(StepTrace::default());
                self.watched.extend(step.fail_on.iter().map(|text| &**text));
            }
            match &step.act {
                Act::Send(payload) => return Next::Send(payload.expose()),
                Act::StartTls => match self.rest_of_answer() {
                    Rest::None => return Next::StartTls,
                    Rest::Open if self.is_over() => return self.fail(Why::NoLineEnd),
                    Rest::Open => return Next::Read,
                    Rest::Foreign => return self.fail(Why::TooMuchBeforeTls),
                },
                Act::Wait(wanted) => match self.look(wanted) {
                    Look::Found(end) => self.take(wanted, end, now),
                    Look::Refused(text, at) => {
                        self.taken = at;
                        return self.fail(Why::Refused(text));
                    }
                    Look::Open if self.is_over() => return self.fail(Why::NotCome(wanted)),
                    Look::Open => return Next::Read,
                },
            }
        }
    }

    /// Bytes that may still be read.
    pub(super) fn room(&self) -> usize {
        RECEIVED_BYTES_MAX - self.received.len()
    }

    /// The bytes of the step were sent.
    pub(super) fn on_sent(&mut self, now: Duration) {
        (self.asked_at, self.answered) = (self.received.len(), None);
        self.advance(Some(now));
    }

    /// The bytes of the step could not be sent. A peer may have answered before it closed: its answer is still read.
    pub(super) fn on_not_sent(&mut self) {
        self.unsent = Some(self.at);
        self.advance(None);
    }

    /// Whether every step is done.
    pub(super) fn is_done(&self) -> bool {
        self.at == self.probe.steps.len() && self.unsent.is_none()
    }

    /// `piece` was received; at most [`Dialogue::room`].
    pub(super) fn on_received(&mut self, piece: &[u8]) {
        self.received.extend_from_slice(piece);
    }

    /// The peer has closed its side.
    pub(super) fn on_closed(&mut self) {
        self.closed = true;
    }

    /// The handshake is done.
    pub(super) fn on_tls(&mut self, now: Duration) {
        let length = self.received.len();
        (self.taken, self.fence, self.asked_at, self.answered) = (length, length, length, None);
        self.advance(Some(now));
    }

    /// The finding; adds what was received to `trace`. `Enough`: [`Dialogue::next`] returned `Over`.
    pub(super) fn finish(mut self, stop: Stop, over_tls: bool, trace: &mut Trace) -> Finding<'p> {
        self.keep(trace);
        // Errors during the close do not matter.
        if self.is_done() {
            return self.found(over_tls);
        }
        match stop {
            Stop::Broke(Fault::Ours(errno)) => return Finding::NoResources(errno),
            Stop::Refused(alert) => return Finding::Refused(alert),
            Stop::Enough | Stop::Closed | Stop::Broke(Fault::Theirs(_)) | Stop::Deadline => {}
        }
        let steps = &self.probe.steps;
        let at = if self.at < steps.len() { self.at } else { self.unsent.unwrap_or_default() };
        let rest = &self.received[self.taken..];
        let last = steps[..at].rsplit(|step| matches!(step.act, Act::Wait(_))).next().unwrap_or_default();
        Finding::TextFailed(Box::new(TextFailure {
            step: self.probe.numbered.then_some((at + 1, steps.len())),
            sends: last.iter().any(|step| matches!(step.act, Act::Send(_))),
            spoke: last.len() < at,
            why: self.failed.take().unwrap_or_else(|| why_not(&steps[at].act)),
            cut: stop.cut().or(self.closed.then_some(Cutoff::Closed)),
            bytes: rest.len(),
            received: self.probe.masked(rest),
        }))
    }

    /// The finding when every step succeeded.
    fn found(&self, over_tls: bool) -> Finding<'p> {
        if matches!(self.probe.steps.last(), Some(TextStep { act: Act::Wait(Wanted::Line), .. })) {
            let line = self.received[self.fence..self.taken].trim_ascii_end();
            return Finding::Agent(AgentAnswer::new(agent::read(line), self.probe.masked(line)));
        }
        let waits = self.probe.steps.iter().any(|step| matches!(step.act, Act::Wait(_)));
        match (waits, over_tls) {
            (true, _) => Finding::TextMatched,
            (false, true) => Finding::HandshakeDone,
            (false, false) => Finding::Connected,
        }
    }

    fn keep(&mut self, trace: &mut Trace) {
        if self.at < self.probe.steps.len() {
            self.note(self.received.len());
        }
        trace.body = self.received[..self.received.len().min(Trace::BODY_BYTES_MAX)].into();
        trace.dialogue = std::mem::take(&mut self.traces).into_boxed_slice();
    }

    fn fail(&mut self, why: Why<'p>) -> Next<'p> {
        self.failed = Some(why);
        Next::Over
    }

    /// Whether nothing more will be read.
    fn is_over(&self) -> bool {
        self.closed || self.room() == 0
    }

    fn take(&mut self, wanted: &Wanted, end: usize, now: Duration) {
        self.taken = end;
        self.answered = Some(match wanted {
            Wanted::Text(_) | Wanted::Match(_) | Wanted::Line => Answered::Text,
            Wanted::Bytes(_) => Answered::Bytes,
        });
        self.watched.clear();
        self.advance(Some(now));
    }

    fn advance(&mut self, done_in: Option<Duration>) {
        self.note(self.taken);
        if let Some(trace) = self.traces.last_mut() {
            trace.done_in = done_in;
        }
        self.at += 1;
        (self.begun, self.searched) = (self.taken, self.taken);
    }

    /// Keeps in the trace the beginning of what the current step received, up to `end`.
    fn note(&mut self, end: usize) {
        let received = &self.received[self.begun..end];
        if let Some(trace) = self.traces.last_mut() {
            trace.received = received[..received.len().min(Trace::BODY_BYTES_MAX)].into();
        }
    }

    /// Searches for the match of the current step and for texts that fail it: the first to end counts and, if both end
    /// together, the failure.
    fn look(&mut self, wanted: &Wanted) -> Look<'p> {
        let found = match wanted {
            Wanted::Text(text) => self.find(text.as_bytes()),
            Wanted::Bytes(bytes) => self.find(bytes),
            Wanted::Line => self.end_of_line(),
            Wanted::Match(_) if self.taken == self.received.len() && !self.closed => None,
            Wanted::Match(_) if self.searched_bytes > SEARCHED_BYTES_MAX && !self.is_over() => None,
            Wanted::Match(pattern) => {
                self.searched_bytes += self.received.len() - self.fence;
                let (seen, from) = (&self.received[self.fence..], self.taken - self.fence);
                pattern.end_of_match(seen, from, self.closed).map(|end| self.fence + end)
            }
        };
        let refused = self.watched.iter().filter_map(|text| {
            let end = self.find(text.as_bytes())?;
            Some((end, *text))
        });
        let refused = refused.min_by_key(|(end, _)| *end);
        let length = match wanted {
            Wanted::Text(text) => text.len(),
            Wanted::Bytes(bytes) => bytes.len(),
            Wanted::Match(_) | Wanted::Line => 1,
        };
        // A match may have begun in the data searched so far.
        let longest = self.watched.iter().map(|text| text.len()).chain([length]).max().unwrap_or(1);
        self.searched = self.taken.max((self.received.len() + 1).saturating_sub(longest));
        match (found, refused) {
            (Some(found), Some((end, _))) if found < end => Look::Found(found),
            (_, Some((end, text))) => Look::Refused(text, end - text.len()),
            (Some(found), None) => Look::Found(found),
            (None, None) => Look::Open,
        }
    }

    /// The end of the first `text` in the unsearched data.
    fn find(&self, text: &[u8]) -> Option<usize> {
        let from = self.searched.max(self.taken);
        memmem::find(&self.received[from..], text).map(|at| from + at + text.len())
    }

    /// The end of the line, with the byte that ends it.
    fn end_of_line(&self) -> Option<usize> {
        let from = self.searched.max(self.taken);
        let ends = memchr::memchr2(b'\r', b'\n', &self.received[from..]).map(|at| from + at + 1);
        let all = self.received.len();
        ends.or((self.closed && all > self.taken).then_some(all))
    }

    /// What was received after the answer before TLS. The rest of its line belongs to the answer, and may not have arrived
    /// yet if the peer sends lines.
    fn rest_of_answer(&self) -> Rest {
        let from = if self.answered.is_some() { self.taken } else { self.asked_at };
        match (self.answered, &self.received[from..]) {
            // No step has waited since something was sent: data from before is not part of the answer.
            (None, []) => Rest::None,
            (None, _) => Rest::Foreign,
            (Some(Answered::Bytes), []) => Rest::None,
            (Some(Answered::Bytes), _) => Rest::Foreign,
            (Some(Answered::Text), rest) if self.received[..self.taken].ends_with(b"\n") => match rest {
                [] => Rest::None,
                [..] => Rest::Foreign,
            },
            (Some(Answered::Text), []) if memchr::memchr(b'\n', &self.received[self.fence..]).is_none() => Rest::None,
            (Some(Answered::Text), rest) => match memchr::memchr(b'\n', rest) {
                None => Rest::Open,
                Some(at) if at + 1 == rest.len() => Rest::None,
                Some(_) => Rest::Foreign,
            },
        }
    }
}

/// Why a step that was not completed failed.
fn why_not(act: &Act) -> Why<'_> {
    match act {
        Act::Wait(wanted) => Why::NotCome(wanted),
        Act::StartTls => Why::NoLineEnd,
        Act::Send(_) => Why::NotSent,
    }
}

/// The result of a search.
enum Look<'p> {
    /// A match, which ends here.
    Found(usize),
    /// A text that fails the step, which begins here.
    Refused(&'p str, usize),
    /// Neither.
    Open,
}

/// What follows an answer.
enum Rest {
    /// Nothing, or the end of its line.
    None,
    /// Its line has not ended yet.
    Open,
    /// Data that is not part of it.
    Foreign,
}

#[cfg(test)]
mod tests;
