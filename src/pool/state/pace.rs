//! Probes that many upstreams want at once: first ones, those after a changed definition, those overdue after the process
//! stood still. They begin a thousand a second, those of upstreams that nothing is known of first, and each then goes on
//! at its own place in its interval. Regular probes are not paced: their places are spread.

use std::time::Duration;

use tokio::time::Instant;

use super::{CheckId, State};

/// Paced probes begin at most this often.
const GAP: Duration = Duration::from_millis(1);

/// Later than this is no busy moment: the process was stopped, or the machine asleep.
const STANDSTILL: Duration = Duration::from_secs(1);

/// When a paced probe may begin at the earliest, after one that begins `now`.
pub(super) fn next_after(now: Instant) -> Instant {
    now + GAP
}

impl State {
    /// Gives every probe that is paced and has not begun its instant, from now on. Called whenever there may be new ones;
    /// what a later reload has made needless leaves no hole.
    pub(super) fn pace(&mut self, now: Instant) {
        let waiting = self.checks.iter().filter_map(|(id, check)| {
            let urgency = check.track.urgency(now)?;
            Some((urgency, check.track.next_due(), *id))
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        let mut at = self.next_paced.max(now);
        for (_, _, id) in waiting {
            self.checks.get_mut(&id).expect("just listed").track.pace(at);
            self.set_check_timer(id);
            at += GAP;
        }
    }

    /// After the process stood still: what is overdue is due once more, and not all at once.
    pub(super) fn after_standstill(&mut self, now: Instant) {
        if self.overdue(now) <= STANDSTILL {
            return;
        }
        let overdue = self.checks.iter().filter(|(_, check)| check.track.is_overdue(now));
        let overdue: Vec<(CheckId, Instant)> = overdue.map(|(id, check)| (*id, check.track.next_due())).collect();
        for (id, _) in &overdue {
            self.checks.get_mut(id).expect("just listed").track.on_standstill(now);
        }
        self.pace(now);
        for (id, due) in overdue {
            let late = self.checks[&id].track.next_due() - due;
            self.lag.note(late, now);
        }
    }
}
