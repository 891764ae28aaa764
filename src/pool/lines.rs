//! Log lines in the order of their events. The line of a check that fails may wait for a hint, which is read from a disk; the
//! lines after it wait with it, so that the log never has an outage before what caused it. None waits longer than a second.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::events::{Event, EventKind};
use super::{hinted, log};
use crate::model::Name;

/// A hint that has not come by then is left out, with the next line.
const HINT_MAX: Duration = Duration::from_secs(1);

/// Events whose lines are still to be written.
#[derive(Default)]
pub(super) struct Lines {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Line>,
    /// The hint that was written last.
    last: Option<Last>,
    /// Events that were written with a hint, for the event ring.
    amended: Vec<Event>,
}

struct Last {
    /// Its pool, and the instant of its event.
    of: (Name, Instant),
    hint: String,
    guess: Option<&'static str>,
}

struct Line {
    event: Event,
    hint: Hint,
    /// The hint of the probe, which a better one replaces.
    guess: Option<&'static str>,
}

enum Hint {
    Awaited { since: Instant },
    Known(Option<String>),
}

impl Lines {
    /// Adds the line of an event, to be written as soon as those before it are.
    pub(super) fn add(&self, event: Event) {
        self.waiting.lock().lines.push_back(Line { event, hint: Hint::Known(None), guess: None });
    }

    /// The same for one whose hint is asked for: the answer takes it, and may come on any thread, and at once.
    pub(super) fn add_hinted(
        self: &Arc<Lines>,
        event: Event,
        guess: Option<&'static str>,
        now: Instant,
    ) -> Box<dyn FnOnce(Option<String>) + Send> {
        let seq = event.seq;
        self.waiting.lock().lines.push_back(Line { event, hint: Hint::Awaited { since: now }, guess });
        let lines = self.clone();
        Box::new(move |hint| lines.answer(seq, hint))
    }

    fn answer(&self, seq: u64, hint: Option<String>) {
        let mut waiting = self.waiting.lock();
        if let Some(line) = waiting.lines.iter_mut().find(|line| line.event.seq == seq) {
            line.hint = Hint::Known(hint);
        }
        waiting.write(None);
    }

    /// The events that were written with a hint since the last call, and the number of the first that is still to be
    /// written.
    pub(super) fn take_amended(&self) -> (Vec<Event>, Option<u64>) {
        let mut waiting = self.waiting.lock();
        (std::mem::take(&mut waiting.amended), waiting.lines.front().map(|line| line.event.seq))
    }

    /// Writes what is ready.
    pub(super) fn write(&self, now: Instant) {
        self.waiting.lock().write(Some(now));
    }
}

impl Waiting {
    /// Under the lock, or two threads would write in each other's order. `now`: a hint that is late is no longer waited for.
    fn write(&mut self, now: Option<Instant>) {
        while let Some((event, hint)) = self.next(now) {
            log::event(&event.kind, hint.as_deref());
        }
    }

    /// The next line, if it is ready, with its hint. What makes a pool fail is a hint for the pool as well.
    fn next(&mut self, now: Option<Instant>) -> Option<(Event, Option<String>)> {
        if let Hint::Awaited { since } = self.lines.front()?.hint
            && now.is_none_or(|now| now.saturating_duration_since(since) < HINT_MAX)
        {
            return None;
        }
        let Line { mut event, hint, guess } = self.lines.pop_front()?;
        let hint = match hint {
            Hint::Known(hint) => hint,
            Hint::Awaited { .. } => None,
        };
        let (hint, guess) = match &event.kind {
            EventKind::Transition(change) => {
                let of = (change.pool.clone(), event.at);
                self.last = hint.clone().map(|hint| Last { of, hint, guess });
                (hint, guess)
            }
            EventKind::OutageBegan { pool, .. } => {
                let same = |last: &&Last| last.of.0 == *pool && last.of.1 == event.at;
                match self.last.as_ref().filter(same) {
                    Some(last) => (Some(last.hint.clone()), last.guess),
                    None => (None, None),
                }
            }
            _ => (hint, guess),
        };
        if let Some(hint) = &hint {
            event.kind = hinted::amended(&event.kind, guess, hint);
            self.amended.push(event.clone());
        }
        Some((event, hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Code, HealthState};
    use crate::pool::events::Transition;
    use crate::pool::outage::Way;
    use crate::pool::sentence::sentence;

    fn name(pool: &str) -> Name {
        Name::try_new(pool).expect("a name")
    }

    fn lost(seq: u64, pool: &str, at: Instant) -> Event {
        let kind = EventKind::Transition(Transition {
            pool: name(pool),
            upstream: "10.0.0.1:80".parse().expect("an address"),
            from: HealthState::Healthy,
            to: HealthState::Unhealthy,
            code: Some(Code::L7Sts),
            reason: "status 401 (a guess)".into(),
            duration: None,
            healthy_left: 0,
        });
        Event { seq, at, kind }
    }

    fn outage(seq: u64, pool: &str, at: Instant) -> Event {
        let (way, reason, remedy) = (Way::Refuse, "401 (a guess)".into(), "this ends".into());
        Event { seq, at, kind: EventKind::OutageBegan { pool: name(pool), way, reason, remedy } }
    }

    /// What could be written now: numbers and hints.
    fn ready(lines: &Lines, now: Instant) -> Vec<(u64, Option<String>)> {
        let mut waiting = lines.waiting.lock();
        std::iter::from_fn(|| waiting.next(Some(now))).map(|(event, hint)| (event.seq, hint)).collect()
    }

    #[test]
    fn an_outage_is_written_after_what_caused_it_and_with_its_hint() {
        let (lines, now) = (Arc::new(Lines::default()), Instant::now());
        lines.add(outage(1, "web", now));
        drop(lines.add_hinted(lost(2, "api", now), Some("a guess"), now));
        lines.add(outage(3, "api", now));
        lines.add(outage(4, "web", now));
        assert_eq!(lines.take_amended(), (vec![], Some(1)));
        assert_eq!(ready(&lines, now), [(1, None)], "the second waits, and those after it with it");
        lines.waiting.lock().lines[0].hint = Hint::Known(Some("reload".into()));
        assert_eq!(ready(&lines, now), [(2, Some("reload".into())), (3, Some("reload".into())), (4, None)]);
        let (amended, waiting) = lines.take_amended();
        let texts: Vec<String> = amended.iter().map(|event| sentence(&event.kind)).collect();
        let lost = "api 10.0.0.1:80  healthy → unhealthy  L7STS status 401 (reload)  (0 healthy)";
        assert_eq!(texts, [lost, "api  refuses requests: 401; this ends; reload"], "for the ring, without the guess");
        assert_eq!((lines.take_amended().0, waiting), (vec![], None), "once");
        lines.add(outage(5, "api", now + HINT_MAX));
        assert_eq!(ready(&lines, now), [(5, None)], "of another instant");
    }

    #[test]
    fn a_hint_that_does_not_come_holds_nothing_up_for_long() {
        let (lines, now) = (Arc::new(Lines::default()), Instant::now());
        let late = lines.add_hinted(lost(1, "api", now), None, now);
        lines.add(outage(2, "api", now));
        assert_eq!(ready(&lines, now + HINT_MAX - Duration::from_millis(1)), []);
        assert_eq!(ready(&lines, now + HINT_MAX), [(1, None), (2, None)]);
        late(Some("reload".into()));
        assert_eq!(ready(&lines, now + HINT_MAX), [], "it is not written twice");
    }
}
