//! A check of a text protocol on its way: which step is next, and what has come for it. Pure: `tcp` feeds it what it reads,
//! does what it says, and tells it why it stopped. The finding does not depend on how an answer was cut into pieces.
//!
//! A step that waits takes everything up to the end of what it waits for; the next one reads on after it. At most 64 KiB
//! are read in all. With a step that starts TLS, nothing that came in plain text counts afterwards: an attacker on the way
//! could have added it.

use std::time::Duration;

use memchr::memmem;

use super::answer::Stop;
use super::connect::Fault;
use super::finding::{Cut, Finding, Unheard, Why};
use crate::model::policy::{Act, TcpProbe, Wanted};
use crate::model::{StepTrace, Trace};

/// Bytes of what a peer says that are looked at.
const HEARD_BYTES_MAX: usize = 64 << 10;
/// Bytes that patterns search in one check, each time anew. A peer that says one byte at a time reaches it; then its
/// pattern is tried once more, at the end.
const SEARCHED_BYTES_MAX: usize = 16 << 20;

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'p> {
    /// Send this, then [`Dialogue::on_sent`].
    Send(&'p [u8]),
    /// Read, then [`Dialogue::on_heard`] or [`Dialogue::on_closed`].
    Read,
    /// Make the handshake, then [`Dialogue::on_tls`].
    StartTls,
    /// It is over: [`Dialogue::finish`].
    Over,
}

/// One check on its way.
#[derive(Debug)]
pub(super) struct Dialogue<'p> {
    probe: &'p TcpProbe,
    /// The step that is due; as many as there are: all are done.
    at: usize,
    heard: Vec<u8>,
    /// How much of it the steps have taken.
    taken: usize,
    /// From where the present step has looked for its texts, so that a long answer is not searched again and again.
    searched: usize,
    /// Where what came over the present layer begins: what was said before TLS is out of sight after it.
    fence: usize,
    /// How much had come when something was last sent.
    asked_at: usize,
    /// Where the last match ended within what came since; `None`: nothing was waited for since.
    answered: Option<Answered>,
    /// Texts that fail the check, of steps that read nothing.
    watched: Vec<&'p str>,
    /// Nothing more can come.
    closed: bool,
    searched_bytes: usize,
    /// The last step whose bytes could not be sent.
    unsent: Option<usize>,
    failed: Option<Why<'p>>,
    /// For the trace: one for each step that was begun.
    traces: Vec<StepTrace>,
    /// How much was taken when the present step began.
    begun: usize,
}

/// The last match since something was sent.
#[derive(Debug, Clone, Copy)]
enum Answered {
    /// Of a text: the rest of its line belongs to it.
    Text,
    /// Of bytes: nothing but they.
    Bytes,
}

impl<'p> Dialogue<'p> {
    pub(super) fn new(probe: &'p TcpProbe) -> Dialogue<'p> {
        Dialogue {
            probe,
            at: 0,
            heard: Vec::new(),
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

    /// How much may be read; 0: nothing more is looked at.
    pub(super) fn room(&self) -> usize {
        HEARD_BYTES_MAX - self.heard.len()
    }

    /// The bytes of the step are on their way.
    pub(super) fn on_sent(&mut self, now: Duration) {
        (self.asked_at, self.answered) = (self.heard.len(), None);
        self.advance(Some(now));
    }

    /// The bytes of the step could not be sent. A peer may have answered before it closed: what it said counts.
    pub(super) fn on_not_sent(&mut self) {
        self.unsent = Some(self.at);
        self.advance(None);
    }

    /// Whether every step is done.
    pub(super) fn is_done(&self) -> bool {
        self.at == self.probe.steps.len() && self.unsent.is_none()
    }

    /// `piece` came; at most [`Dialogue::room`].
    pub(super) fn on_heard(&mut self, piece: &[u8]) {
        self.heard.extend_from_slice(piece);
    }

    /// The peer says no more.
    pub(super) fn on_closed(&mut self) {
        self.closed = true;
    }

    /// The handshake is done.
    pub(super) fn on_tls(&mut self, now: Duration) {
        let length = self.heard.len();
        (self.taken, self.fence, self.asked_at, self.answered) = (length, length, length, None);
        self.advance(Some(now));
    }

    /// What came of it, and what is kept of the way. `Enough`: [`Dialogue::next`] said `Over`.
    pub(super) fn finish(mut self, stop: Stop, over_tls: bool, trace: &mut Trace) -> Finding<'p> {
        self.keep(trace);
        // What happens while we close changes nothing.
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
        let rest = &self.heard[self.taken..];
        Finding::Unheard(Box::new(Unheard {
            step: self.probe.numbered.then_some((at + 1, steps.len())),
            sends: steps[..at].iter().any(|step| matches!(step.act, Act::Send(_))),
            why: self.failed.take().unwrap_or_else(|| why_not(&steps[at].act)),
            cut: stop.cut().or(self.closed.then_some(Cut::Closed)),
            bytes: rest.len(),
            heard: self.probe.masked(rest),
        }))
    }

    /// Everything came as expected.
    fn found(&self, over_tls: bool) -> Finding<'p> {
        let waits = self.probe.steps.iter().any(|step| matches!(step.act, Act::Wait(_)));
        match (waits, over_tls) {
            (true, _) => Finding::Heard,
            (false, true) => Finding::Shaken,
            (false, false) => Finding::Connected,
        }
    }

    fn keep(&mut self, trace: &mut Trace) {
        if self.at < self.probe.steps.len() {
            self.note(self.heard.len());
        }
        trace.body = self.heard[..self.heard.len().min(Trace::BODY_BYTES_MAX)].into();
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
            Wanted::Text(_) | Wanted::Match(_) => Answered::Text,
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

    /// Keeps the beginning of what came for the present step, up to `end`.
    fn note(&mut self, end: usize) {
        let heard = &self.heard[self.begun..end];
        if let Some(trace) = self.traces.last_mut() {
            trace.heard = heard[..heard.len().min(Trace::BODY_BYTES_MAX)].into();
        }
    }

    /// Looks for what the present step waits for, and for what fails it: what ends first counts, and of two that end
    /// together the failure.
    fn look(&mut self, wanted: &Wanted) -> Look<'p> {
        let found = match wanted {
            Wanted::Text(text) => self.find(text.as_bytes()),
            Wanted::Bytes(bytes) => self.find(bytes),
            Wanted::Match(_) if self.taken == self.heard.len() && !self.closed => None,
            Wanted::Match(_) if self.searched_bytes > SEARCHED_BYTES_MAX && !self.is_over() => None,
            Wanted::Match(pattern) => {
                self.searched_bytes += self.heard.len() - self.fence;
                let (seen, from) = (&self.heard[self.fence..], self.taken - self.fence);
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
            Wanted::Match(_) => 1,
        };
        // What is looked for may have begun in what came.
        let longest = self.watched.iter().map(|text| text.len()).chain([length]).max().unwrap_or(1);
        self.searched = self.taken.max((self.heard.len() + 1).saturating_sub(longest));
        match (found, refused) {
            (Some(found), Some((end, _))) if found < end => Look::Found(found),
            (_, Some((end, text))) => Look::Refused(text, end - text.len()),
            (Some(found), None) => Look::Found(found),
            (None, None) => Look::Open,
        }
    }

    /// Where the first `text` that was not yet looked for ends.
    fn find(&self, text: &[u8]) -> Option<usize> {
        let from = self.searched.max(self.taken);
        memmem::find(&self.heard[from..], text).map(|at| from + at + text.len())
    }

    /// What came after the answer that the peer gave before TLS. The rest of its line belongs to it, which may still be on
    /// its way where the peer has spoken in lines.
    fn rest_of_answer(&self) -> Rest {
        let from = if self.answered.is_some() { self.taken } else { self.asked_at };
        match (self.answered, &self.heard[from..]) {
            // Nothing was waited for since something was sent: what came before that is no part of it.
            (None, []) => Rest::None,
            (None, _) => Rest::Foreign,
            (Some(Answered::Bytes), []) => Rest::None,
            (Some(Answered::Bytes), _) => Rest::Foreign,
            (Some(Answered::Text), rest) if self.heard[..self.taken].ends_with(b"\n") => match rest {
                [] => Rest::None,
                [..] => Rest::Foreign,
            },
            (Some(Answered::Text), []) if memchr::memchr(b'\n', &self.heard[self.fence..]).is_none() => Rest::None,
            (Some(Answered::Text), rest) => match memchr::memchr(b'\n', rest) {
                None => Rest::Open,
                Some(at) if at + 1 == rest.len() => Rest::None,
                Some(_) => Rest::Foreign,
            },
        }
    }
}

/// What the step would have needed.
fn why_not(act: &Act) -> Why<'_> {
    match act {
        Act::Wait(wanted) => Why::NotCome(wanted),
        Act::StartTls => Why::NoLineEnd,
        Act::Send(_) => Why::NotSent,
    }
}

/// What came of looking.
enum Look<'p> {
    /// It has come, and ends here.
    Found(usize),
    /// What fails it has come, and begins here.
    Refused(&'p str, usize),
    /// Neither.
    Open,
}

/// What is left of an answer.
enum Rest {
    /// Nothing, or the end of its line.
    None,
    /// Its line has no end yet.
    Open,
    /// Something that is no part of it.
    Foreign,
}

#[cfg(test)]
mod tests;
