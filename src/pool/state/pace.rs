//! Probes that many upstreams need at once: first ones, those after a changed definition, those overdue after the
//! process was stopped. They start at 1,000 per second, unknown upstreams first, and each then continues at its own
//! slot in its interval. Regular probes are not paced: their slots are spread already.

use std::time::Duration;

use tokio::time::Instant;

use super::{CheckId, State};

/// The shortest time between two paced probes.
const GAP: Duration = Duration::from_millis(1);

/// A delay longer than this is not a busy moment: the process was stopped, or the machine slept.
const STANDSTILL: Duration = Duration::from_secs(1);

/// The earliest start of the next paced probe, after one that begins `now`.
pub(super) fn next_after(now: Instant) -> Instant {
    now + GAP
}

impl State {
    /// Schedules every paced probe that has not begun, from now on. Call it whenever there may be new ones; probes that
    /// a later reload makes needless leave no gap.
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

    /// After the process was stopped: schedules overdue probes again, spread out.
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
