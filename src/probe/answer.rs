//! Judges one HTTP answer while it comes: framing by `response`, expectations by `expect`, and the first bytes kept for
//! a quotation. Pure: `http` feeds it what it reads and says why it stopped. The finding does not depend on how the
//! answer was cut into pieces.
//!
//! Reads no further than the rules need: without a body rule nothing of the body; of a failure only what is quoted.

use std::sync::Arc;

use rustls::AlertDescription;

use super::connect::Fault;
use super::expect::{BodyMatcher, Match};
use super::finding::{Answered, Cut, Finding, Miss};
use super::response::{Flow, HEAD_FIELDS_MAX, Malformed, Reader, Sink};
use crate::model::policy::{HeaderText, HttpProbe};
use crate::model::quote::Excerpt;

/// Bytes of a body that rules see.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;

/// What to do after a piece of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More is needed.
    More,
    /// The finding is certain, and a failure; a little more would make it more telling.
    Settled,
    /// Enough.
    Done,
}

/// Why no more of an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It was not needed.
    Enough,
    /// The peer closed in good order.
    Closed,
    /// The connection broke.
    Broke(Fault),
    /// The peer took back the TLS handshake.
    Refused(AlertDescription),
    /// The deadline passed.
    Deadline,
}

impl Stop {
    /// What cut the answer; `None`: nothing did.
    pub(super) fn cut(self) -> Option<Cut> {
        match self {
            Stop::Enough => None,
            // Whoever tells our own faults apart has done so before.
            Stop::Broke(Fault::Ours(errno) | Fault::Theirs(errno)) => Some(Cut::Broke(errno)),
            Stop::Closed | Stop::Refused(_) => Some(Cut::Closed),
            Stop::Deadline => Some(Cut::Deadline),
        }
    }
}

/// One answer on its way.
#[derive(Debug)]
pub(super) struct Answer<'p> {
    reader: Reader,
    judge: Judge<'p>,
}

impl<'p> Answer<'p> {
    pub(super) fn new(probe: &'p HttpProbe) -> Answer<'p> {
        Answer { reader: Reader::new(&*probe.method == "HEAD"), judge: Judge::new(probe) }
    }

    /// Takes the next bytes of the connection. After `Done` none may follow.
    pub(super) fn feed(&mut self, mut input: &[u8]) -> Progress {
        if self.judge.verdict == Verdict::Malformed(Malformed::NotHttp) {
            return self.judge.excerpt_of(input);
        }
        let flow = self.reader.feed(&mut input, &mut self.judge);
        self.progress(flow, input)
    }

    /// Takes a head, interim or final, that another framing has read (HTTP/2). Its body follows with [`Answer::feed`],
    /// and an end that no length announced with [`Answer::feed_end`].
    pub(super) fn feed_head(&mut self, status: u16, fields: &[httparse::Header<'_>]) -> Progress {
        let flow = match fields.len() {
            ..=HEAD_FIELDS_MAX => self.reader.on_parsed_head(status, fields, &mut self.judge),
            _ => Err(Malformed::HeadFields),
        };
        self.progress(flow, &[])
    }

    /// The answer has ended whole.
    pub(super) fn feed_end(&mut self) {
        self.reader.on_close(&mut self.judge);
    }

    /// What comes of a piece, of which `rest` was not read.
    fn progress(&mut self, flow: Result<Flow, Malformed>, rest: &[u8]) -> Progress {
        match flow {
            Ok(Flow::Continue) if self.judge.verdict == Verdict::Open => Progress::More,
            Ok(Flow::Continue) => Progress::Settled,
            Ok(Flow::Stop) => Progress::Done,
            // The answer has failed already; its quotation ends here.
            Err(_) if self.judge.verdict != Verdict::Open => Progress::Done,
            Err(error) => {
                self.judge.verdict = Verdict::Malformed(error);
                if error != Malformed::NotHttp {
                    return Progress::Done;
                }
                self.judge.excerpt.push(self.reader.pending());
                self.judge.excerpt_of(rest)
            }
        }
    }

    /// The finding, when no more is read.
    pub(super) fn finish(mut self, stop: Stop) -> Finding<'p> {
        if stop == Stop::Closed {
            self.feed_end();
        }
        let stage = self.reader.stage();
        let interim = self.reader.interim();
        let Judge { probe, verdict, status, location, excerpt, .. } = self.judge;
        let location = location.map(|location| location.without(secrets(&probe.headers)));
        let excerpt = excerpt.without(secrets(&probe.headers));
        match (verdict, status) {
            (Verdict::Passed, Some(status)) => Finding::Answer(Answered::AsExpected { status }),
            (Verdict::Status, Some(status)) => {
                Finding::Answer(Answered::Status { probe, status, location, body: excerpt })
            }
            (Verdict::Missed(miss), Some(status)) => {
                Finding::Answer(Answered::Body { probe, status, miss, body: excerpt })
            }
            (Verdict::Malformed(error), status) => {
                Finding::Answer(Answered::Malformed { error, status, seen: excerpt })
            }
            (Verdict::Passed | Verdict::Status | Verdict::Missed(_), None) => {
                unreachable!("these verdicts are reached behind the head")
            }
            (Verdict::Open, status) => {
                let cut = match stop {
                    Stop::Broke(Fault::Ours(errno)) => return Finding::NoResources(errno),
                    Stop::Refused(alert) => return Finding::Refused(alert),
                    Stop::Broke(Fault::Theirs(errno)) => Cut::Broke(errno),
                    Stop::Deadline => Cut::Deadline,
                    Stop::Closed | Stop::Enough => Cut::Closed,
                };
                Finding::Answer(Answered::CutShort { probe, cut, stage, interim, status, body: excerpt })
            }
        }
    }
}

/// What must not be quoted, whoever says it.
pub(super) fn secrets(headers: &[(Arc<str>, HeaderText)]) -> impl Iterator<Item = &str> {
    headers.iter().filter_map(|(_, value)| match value {
        HeaderText::Secret(secret) => Some(secret.expose()),
        HeaderText::Plain(_) => None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Open,
    Passed,
    Status,
    Missed(Miss),
    Malformed(Malformed),
}

#[derive(Debug)]
struct Judge<'p> {
    probe: &'p HttpProbe,
    matcher: Option<BodyMatcher<'p>>,
    verdict: Verdict,
    status: Option<u16>,
    /// Where an unexpected redirect points.
    location: Option<Excerpt>,
    /// Bytes of body that the rule has seen.
    judged_bytes: usize,
    /// The first bytes of the body, or of what is no answer at all.
    excerpt: Excerpt,
}

impl<'p> Judge<'p> {
    fn new(probe: &'p HttpProbe) -> Judge<'p> {
        Judge {
            probe,
            matcher: probe.expect.body.as_ref().map(BodyMatcher::new),
            verdict: Verdict::Open,
            status: None,
            location: None,
            judged_bytes: 0,
            excerpt: Excerpt::default(),
        }
    }

    fn excerpt_of(&mut self, bytes: &[u8]) -> Progress {
        self.excerpt.push(bytes);
        if self.excerpt.is_full() { Progress::Done } else { Progress::Settled }
    }

    fn judge_piece(&mut self, piece: &[u8]) {
        let matcher = self.matcher.as_mut().expect("without a rule the head has decided");
        let room = BODY_BYTES_MAX - self.judged_bytes;
        let seen = &piece[..piece.len().min(room)];
        self.judged_bytes += seen.len();
        self.verdict = match matcher.feed(seen) {
            Match::Met => Verdict::Passed,
            Match::Missed => Verdict::Missed(Miss::Whole),
            Match::Open if piece.len() > room => Verdict::Missed(Miss::OverCap),
            Match::Open => Verdict::Open,
        };
    }
}

impl Sink for Judge<'_> {
    fn on_head(&mut self, status: u16, fields: &[httparse::Header<'_>]) -> Flow {
        self.status = Some(status);
        if !self.probe.expect.status.takes(status) {
            self.verdict = Verdict::Status;
            let location =
                fields.iter().find(|f| (300..400).contains(&status) && f.name.eq_ignore_ascii_case("location"));
            self.location = location.map(|field| {
                let mut excerpt = Excerpt::default();
                excerpt.push(field.value);
                excerpt
            });
            return Flow::Continue;
        }
        // A rule may hold for every body: nothing of this one is read then.
        match self.matcher.as_mut().map_or(Match::Met, |matcher| matcher.feed(&[])) {
            Match::Met => {
                self.verdict = Verdict::Passed;
                Flow::Stop
            }
            Match::Open | Match::Missed => Flow::Continue,
        }
    }

    fn on_body(&mut self, piece: &[u8]) -> Flow {
        self.excerpt.push(piece);
        if self.verdict == Verdict::Open {
            self.judge_piece(piece);
        }
        match self.verdict {
            Verdict::Open => Flow::Continue,
            Verdict::Passed => Flow::Stop,
            Verdict::Status | Verdict::Missed(_) | Verdict::Malformed(_) if self.excerpt.is_full() => Flow::Stop,
            Verdict::Status | Verdict::Missed(_) | Verdict::Malformed(_) => Flow::Continue,
        }
    }

    fn on_end(&mut self) {
        if self.verdict == Verdict::Open {
            let met = self.matcher.as_ref().is_none_or(|matcher| matcher.end() == Match::Met);
            self.verdict = if met { Verdict::Passed } else { Verdict::Missed(Miss::Whole) };
        }
    }
}

#[cfg(test)]
mod tests;
