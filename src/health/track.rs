//! The verdict of one check on one address: a state, the run of equal results, and the instant of the next probe.
//!
//! ```text
//!            healthy_threshold passes                unhealthy_threshold failures
//!  Unknown ───────────────────────────▶ Healthy ◀──────────────────────────────▶ Unhealthy
//!     ▲  └──────────── unhealthy_threshold failures ─────────────────────────────────▲
//!     └── no probe passed or failed for a long time (stale), or a probe panicked: from every state
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::combine::Vote;
use crate::model::policy::Timing;
use crate::model::{HealthState, Judgement};

/// If a probe ends this long after the next one was due, the process was stopped, and many other probes are late too.
const OVERRUN: Duration = Duration::from_secs(1);

/// The state of one check of one upstream.
#[derive(Debug, Clone)]
pub struct Track {
    timing: Timing,
    state: HealthState,
    since: Instant,
    run: Option<Run>,
    first_seen: Instant,
    first_start: Option<Instant>,
    last_start: Option<Instant>,
    /// When a probe last passed or failed; before that, when the upstream was first seen.
    last_verdict: Instant,
    /// Since when requests wait for its first verdict: the start of its first probe, or of the first one after it went
    /// stale; until that starts, the instant at which it went stale.
    awaited: Awaited,
    ever_passed: bool,
    in_flight: bool,
    hinted_in_flight: bool,
    stale_reported: bool,
    /// Its verdict is valid at least until then: a shorter interval does not make it out of date at once.
    holds_until: Option<Instant>,
    next_due: Instant,
    due: Due,
    slot: Slot,
}

/// Why the next probe is due at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It is the first: due at once, or as soon as the pacing of first probes allows.
    First,
    /// The definition changed: due as a first probe.
    Redefined,
    /// After `fast_interval`: the state is unknown, or this run against the present state is open.
    Fast(Option<Run>),
    /// After `fast_interval`: it has never passed, and its start period has not ended.
    StartPeriod,
    /// At its own slot in the interval, so that the probes of many upstreams stay spread.
    Slot,
    /// After `interval`, with its jitter.
    Regular,
    /// The data path saw a failure.
    Hint,
    /// The interval became shorter.
    Retimed,
    /// The previous probe was cancelled by us or lost.
    Again,
    /// The process was stopped when it was due: overdue probes are spread like first ones.
    Spread,
}

/// Since when requests wait for a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// Its first probe has not begun.
    FirstProbe,
    /// It went stale then, and no probe has begun since.
    Stale(Instant),
    /// The first probe began then.
    Probed(Instant),
}

/// A run of equal results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Whether the results are passes.
    pub pass: bool,
    /// How many.
    pub count: u32,
}

/// The place of this upstream's probes in an interval, so that the probes of many are spread.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// The instant that intervals are counted from.
    pub origin: Instant,
    /// The part of an interval, as a fraction of 2^32.
    pub part: u32,
}

impl Slot {
    /// The first instant after `now` that is at this slot of an interval.
    fn after(self, now: Instant, interval: Duration) -> Instant {
        let interval_ns = interval.as_nanos().max(1);
        let offset = (interval_ns * u128::from(self.part)) >> 32;
        let since = now.saturating_duration_since(self.origin).as_nanos();
        let in_interval = since % interval_ns;
        let wait = if offset > in_interval { offset - in_interval } else { interval_ns + offset - in_interval };
        now + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The previous state.
    pub from: HealthState,
    /// The new state.
    pub to: HealthState,
    /// The cause of the change.
    pub cause: Cause,
}

/// The cause of a change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A threshold was reached.
    Threshold,
    /// No probe has passed or failed for `Timing::stale_after`.
    Stale,
    /// A probe panicked.
    ProbePanic,
}

impl Track {
    /// An upstream seen for the first time: unknown, its first probe due at `due`.
    pub fn new(timing: Timing, slot: Slot, now: Instant, due: Instant) -> Track {
        Track {
            timing,
            state: HealthState::Unknown,
            since: now,
            run: None,
            first_seen: now,
            first_start: None,
            last_start: None,
            last_verdict: now,
            awaited: Awaited::FirstProbe,
            ever_passed: false,
            in_flight: false,
            hinted_in_flight: false,
            stale_reported: false,
            holds_until: None,
            next_due: due,
            due: Due::First,
            slot,
        }
    }

    /// The track of a changed check of the same upstream: unknown, its first probe due at once; the start period
    /// continues from when the upstream was first seen. With `goes_on` the check replaces this one, and a run of
    /// failures continues: a failure under both definitions is two in a row.
    pub fn redefined(&self, timing: Timing, goes_on: bool, now: Instant) -> Track {
        let fresh = Track::new(timing, self.slot, now, now);
        let run = self.run.filter(|run| goes_on && !run.pass);
        Track { first_seen: self.first_seen, ever_passed: self.ever_passed, run, due: Due::Redefined, ..fresh }
    }

    /// A second track for the same check with another timing, while the first continues: carries everything but the
    /// probe in flight.
    pub fn split(&self, timing: Timing, now: Instant) -> (Track, Option<Change>) {
        let mut copy = self.clone();
        if copy.in_flight {
            copy.on_cancelled(now);
        }
        let change = copy.retime(timing, now);
        (copy, change)
    }

    pub fn state(&self) -> HealthState {
        self.state
    }

    /// Its vote if there are several checks.
    pub fn vote(&self) -> Vote {
        let contested = match self.state {
            HealthState::Unknown => false,
            HealthState::Healthy => self.run.is_some_and(|run| !run.pass),
            HealthState::Unhealthy => self.run.is_some_and(|run| run.pass),
        };
        Vote { state: self.state, contested }
    }

    /// Since when it is in this state.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The current run of equal results.
    pub fn run(&self) -> Option<Run> {
        self.run
    }

    /// How many equal results in a row make a verdict.
    pub fn needed(&self, pass: bool) -> u32 {
        if pass { self.timing.healthy_threshold } else { self.timing.unhealthy_threshold }
    }

    /// Whether a probe is in flight.
    pub fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// When the next probe is due; meaningless while one is in flight.
    pub fn next_due(&self) -> Instant {
        self.next_due
    }

    /// Why the next probe is due at that time.
    pub fn due(&self) -> Due {
        self.due
    }

    /// When the first probe began.
    pub fn first_start(&self) -> Option<Instant> {
        self.first_start
    }

    /// Since when requests may wait for its verdict, while it is unknown.
    pub fn awaited_since(&self, now: Instant) -> Instant {
        match self.awaited {
            Awaited::FirstProbe => self.next_due.max(now),
            Awaited::Stale(at) | Awaited::Probed(at) => at,
        }
    }

    /// The upstream's verdict is out of date: requests wait for it as at start.
    pub fn await_again(&mut self, now: Instant) {
        self.awaited = Awaited::Stale(now);
    }

    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// When something must happen: the next probe, or the verdict goes stale.
    pub fn deadline(&self) -> Option<Instant> {
        let stale = (!self.stale_reported).then(|| self.stale_at());
        match (self.in_flight, stale) {
            (true, stale) => stale,
            (false, None) => Some(self.next_due),
            (false, Some(stale)) => Some(stale.min(self.next_due)),
        }
    }

    /// When the upstream could be healthy at the earliest, if every probe from now on passes.
    pub fn usable_at(&self) -> Instant {
        let due = if self.in_flight { self.last_start.unwrap_or(self.next_due) } else { self.next_due };
        let passes = self.run.filter(|run| run.pass).map_or(0, |run| run.count);
        due + self.timing.fast_interval * self.timing.healthy_threshold.saturating_sub(passes).saturating_sub(1)
    }

    /// The priority of the next probe among paced ones: lower is sooner. `None`: it is not paced, or has begun.
    pub fn urgency(&self, now: Instant) -> Option<u8> {
        match self.due {
            _ if self.in_flight => None,
            Due::First => Some(0),
            Due::Redefined => Some(1),
            Due::Again | Due::Spread => Some(2),
            Due::Retimed => (self.next_due <= now).then_some(2),
            Due::Fast(_) | Due::StartPeriod | Due::Slot | Due::Regular | Due::Hint => None,
        }
    }

    /// A paced probe is due at `at`.
    pub fn pace(&mut self, at: Instant) {
        self.next_due = at;
    }

    /// Whether the next probe should have begun before now.
    pub fn is_overdue(&self, now: Instant) -> bool {
        !self.in_flight && self.next_due < now
    }

    /// The process was stopped when the next probe was due.
    pub fn on_standstill(&mut self, now: Instant) {
        let first = matches!(self.due, Due::First | Due::Redefined);
        self.due = if first { self.due } else { Due::Spread };
        self.next_due = now;
    }

    /// A probe begins.
    pub fn on_start(&mut self, now: Instant) {
        self.in_flight = true;
        self.first_start.get_or_insert(now);
        if !matches!(self.awaited, Awaited::Probed(_)) {
            self.awaited = Awaited::Probed(now);
        }
        self.last_start = Some(now);
    }

    /// The probe in flight ended. `chance` is uniform in -1.0..=1.0 and shifts a regular interval by its jitter.
    pub fn on_end(&mut self, judgement: Judgement, now: Instant, chance: f64) -> Option<Change> {
        self.in_flight = false;
        if matches!(judgement, Judgement::Pass | Judgement::Fail) {
            self.last_verdict = now;
            self.stale_reported = false;
            self.holds_until = None;
        }
        let change = match judgement {
            Judgement::Pass => {
                self.ever_passed = true;
                self.count(true, now)
            }
            Judgement::Fail if self.in_start_period(now) => None,
            Judgement::Fail => self.count(false, now),
            Judgement::NoVerdict => None,
            Judgement::Broken => Some(self.forget(Cause::ProbePanic, now)),
        };
        (self.next_due, self.due) = self.due_after(change, now, chance);
        if std::mem::take(&mut self.hinted_in_flight) {
            self.on_hint(now);
        }
        change
    }

    /// The probe in flight was cancelled by us: no verdict; it is due again at once.
    pub fn on_cancelled(&mut self, now: Instant) {
        if self.in_flight {
            self.in_flight = false;
            (self.next_due, self.due) = (now, Due::Again);
        }
    }

    /// Live traffic ejects its upstream: the next probe is due now.
    pub fn on_ejection(&mut self, now: Instant) {
        if now < self.next_due {
            (self.next_due, self.due) = (now, Due::Hint);
        }
        self.hinted_in_flight = self.in_flight;
    }

    /// When the last probe began.
    pub fn last_start(&self) -> Option<Instant> {
        self.last_start
    }

    /// The data path saw a failure: the next probe is due as soon as the fast interval allows.
    pub fn on_hint(&mut self, now: Instant) {
        let soon = self.last_start.map_or(now, |start| now.max(start + self.timing.fast_interval));
        if soon < self.next_due {
            (self.next_due, self.due) = (soon, Due::Hint);
        }
        self.hinted_in_flight = self.in_flight;
    }

    /// Whether its verdict is out of date and [`Track::on_tick`] has not reported that yet.
    pub fn is_stale(&self, now: Instant) -> bool {
        !self.stale_reported && now >= self.stale_at()
    }

    /// Forgets a verdict that is out of date. A change from unknown to unknown means that a verdict of the upstream
    /// under an earlier definition is out of date as well.
    pub fn on_tick(&mut self, now: Instant) -> Option<Change> {
        if !self.is_stale(now) {
            return None;
        }
        self.stale_reported = true;
        Some(self.forget(Cause::Stale, now))
    }

    /// The scheduler died: an unknown upstream counts as never probed, so requests wait for it once more.
    pub fn on_scheduler_restart(&mut self, now: Instant) {
        self.on_cancelled(now);
        if self.state == HealthState::Unknown {
            self.first_start = None;
            self.awaited = Awaited::FirstProbe;
        }
    }

    /// The timing changed: the state is carried, the new thresholds apply to the run, and the next probe is due at
    /// the latest one new interval after the last start.
    pub fn retime(&mut self, timing: Timing, now: Instant) -> Option<Change> {
        // A valid verdict does not end with the reload: it gets the time to be confirmed under the new timing.
        self.holds_until = Some(self.stale_at().min(now + timing.stale_after()));
        self.timing = timing;
        if let Some(start) = self.last_start {
            let at = start + timing.interval_in(self.state);
            if at < self.next_due {
                (self.next_due, self.due) = (at.max(now), Due::Retimed);
            }
        }
        self.apply_threshold(now)
    }

    /// When its verdict goes out of date, if no probe passes or fails before.
    pub fn stale_at(&self) -> Instant {
        let at = self.last_verdict + self.timing.stale_after();
        self.holds_until.map_or(at, |until| until.max(at))
    }

    fn in_start_period(&self, now: Instant) -> bool {
        !self.ever_passed && now < self.first_seen + self.timing.start_period
    }

    fn count(&mut self, pass: bool, now: Instant) -> Option<Change> {
        let before = self.run.filter(|run| run.pass == pass).map_or(0, |run| run.count);
        self.run = Some(Run { pass, count: before.saturating_add(1) });
        self.apply_threshold(now)
    }

    fn apply_threshold(&mut self, now: Instant) -> Option<Change> {
        let run = self.run?;
        let to = if run.pass { HealthState::Healthy } else { HealthState::Unhealthy };
        if run.count < self.needed(run.pass) || self.state == to {
            return None;
        }
        Some(self.turn(to, Cause::Threshold, now))
    }

    fn forget(&mut self, cause: Cause, now: Instant) -> Change {
        self.run = None;
        match self.state {
            state @ HealthState::Unknown => Change { from: state, to: state, cause },
            HealthState::Healthy | HealthState::Unhealthy => self.turn(HealthState::Unknown, cause, now),
        }
    }

    fn turn(&mut self, to: HealthState, cause: Cause, now: Instant) -> Change {
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        Change { from, to, cause }
    }

    /// Whether the next probe follows after the fast interval: the state is unknown, or a run against it is open.
    fn is_fast(&self, now: Instant) -> bool {
        match self.state {
            HealthState::Unknown => true,
            HealthState::Healthy => self.run.is_some_and(|run| !run.pass),
            HealthState::Unhealthy => self.run.is_some_and(|run| run.pass) || self.in_start_period(now),
        }
    }

    fn due_after(&self, change: Option<Change>, now: Instant, chance: f64) -> (Instant, Due) {
        let start = self.last_start.unwrap_or(now);
        let interval = self.timing.interval_in(self.state);
        let left_unknown = change.is_some_and(|c| c.from == HealthState::Unknown && c.to != HealthState::Unknown);
        let (at, due) = if self.is_fast(now) && !left_unknown {
            let why = if self.in_start_period(now) { Due::StartPeriod } else { Due::Fast(self.run) };
            (start + self.timing.fast_interval, why)
        } else if left_unknown || self.due.left_its_place() || now > start + interval + OVERRUN {
            (self.slot.after(now, interval), Due::Slot)
        } else {
            let jitter = self.timing.jitter.as_f64() * chance.clamp(-1.0, 1.0);
            (start + interval.mul_f64(1.0 + jitter), Due::Regular)
        };
        (at.max(now), due)
    }
}

impl Due {
    /// Whether probes that are due for this reason start one after another instead of all at once.
    pub fn is_paced(self) -> bool {
        match self {
            Due::First | Due::Redefined | Due::Retimed | Due::Again | Due::Spread => true,
            Due::Fast(_) | Due::StartPeriod | Due::Slot | Due::Regular | Due::Hint => false,
        }
    }

    /// Whether a probe that was due for this reason may have run together with those of many others.
    fn left_its_place(self) -> bool {
        match self {
            Due::First | Due::Redefined | Due::Hint | Due::Retimed | Due::Again | Due::Spread => true,
            Due::Fast(_) | Due::StartPeriod | Due::Slot | Due::Regular => false,
        }
    }
}

#[cfg(test)]
mod tests {
    mod intervals;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Ratio;

    const SECOND: Duration = Duration::from_secs(1);

    fn timing(rise: u32, fall: u32) -> Timing {
        let defaults = Timing::defaults();
        Timing { healthy_threshold: rise, unhealthy_threshold: fall, jitter: Ratio::ZERO, ..defaults }
    }

    fn track(timing: Timing, now: Instant) -> Track {
        Track::new(timing, Slot { origin: now, part: 1 << 31 }, now, now)
    }

    fn feed(track: &mut Track, results: &str, now: &mut Instant) {
        for result in results.chars() {
            let judgement = match result {
                'P' => Judgement::Pass,
                'F' => Judgement::Fail,
                '-' => Judgement::NoVerdict,
                '!' => Judgement::Broken,
                other => panic!("no such result: {other}"),
            };
            *now = track.next_due().max(*now);
            track.on_start(*now);
            *now += Duration::from_millis(2);
            track.on_end(judgement, *now, 0.0);
        }
    }

    fn check(rise: u32, fall: u32, results: &str, want: HealthState) {
        let mut now = Instant::now();
        let mut track = track(timing(rise, fall), now);
        feed(&mut track, results, &mut now);
        assert_eq!(track.state(), want, "rise {rise}, fall {fall}, {results}");
    }

    #[tokio::test(start_paused = true)]
    async fn thresholds_are_strictly_consecutive() {
        use HealthState::*;
        check(2, 3, "", Unknown);
        check(2, 3, "P", Unknown);
        check(2, 3, "PP", Healthy);
        check(2, 3, "PFP", Unknown);
        check(2, 3, "PFPP", Healthy);
        check(2, 3, "FF", Unknown);
        check(2, 3, "FFF", Unhealthy);
        check(2, 3, "PPFF", Healthy);
        check(2, 3, "PPFFPFF", Healthy);
        check(2, 3, "PPFFF", Unhealthy);
        check(2, 3, "PPFFFPFP", Unhealthy);
        check(2, 3, "PPFFFPP", Healthy);
        check(1, 1, "PF", Unhealthy);
        check(2, 3, "P-P", Healthy);
        check(2, 3, "PPFF-F", Unhealthy);
        check(2, 3, "PP!", Unknown);
        check(2, 3, "PP!P", Unknown);
        check(2, 3, "PP!PP", Healthy);
    }

    /// The gaps between starts, in seconds, for a sequence of results.
    fn gaps(timing: Timing, results: &str) -> Vec<f64> {
        let mut now = Instant::now();
        let mut track = track(timing, now);
        let mut starts = vec![];
        for result in results.chars() {
            feed(&mut track, &result.to_string(), &mut now);
            starts.push(track.last_start.unwrap());
        }
        starts.push(track.next_due());
        starts.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_run_is_followed_fast_and_a_settled_state_slowly() {
        // The first verdict comes after 1 s; the next probe is at the slot: half of the interval, 5 s from the origin.
        assert_eq!(gaps(timing(2, 3), "PP"), [1.0, 4.0]);
        assert_eq!(gaps(timing(2, 3), "PPP"), [1.0, 4.0, 10.0]);
        assert_eq!(gaps(timing(2, 3), "PPPF"), [1.0, 4.0, 10.0, 1.0]);
        assert_eq!(gaps(timing(2, 2), "PPPFF"), [1.0, 4.0, 10.0, 1.0, 10.0]);
        assert_eq!(gaps(timing(2, 2), "PPFFP"), [1.0, 4.0, 1.0, 10.0, 1.0]);
        assert_eq!(gaps(timing(2, 2), "PPFFPP"), [1.0, 4.0, 1.0, 10.0, 1.0, 10.0]);
        assert_eq!(gaps(timing(2, 2), "PPFP"), [1.0, 4.0, 1.0, 10.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_overrunning_probe_one_probe_follows_at_once() {
        let now = Instant::now();
        let mut track = track(timing(1, 1), now);
        track.on_start(now);
        track.on_end(Judgement::Pass, now, 0.0);
        track.on_start(now);
        let late = now + 11 * SECOND;
        track.on_end(Judgement::Pass, late, 0.0);
        assert_eq!(track.next_due(), late);
        track.on_start(now);
        let late_by_far = now + 101 * SECOND;
        track.on_end(Judgement::Pass, late_by_far, 0.0);
        assert_eq!((track.next_due(), track.due()), (now + 105 * SECOND, Due::Slot), "at its own slot");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_the_start_period_do_not_count_until_the_first_pass() {
        let mut now = Instant::now();
        let mut track = track(Timing { start_period: 10 * SECOND, ..timing(2, 2) }, now);
        feed(&mut track, "FFFF", &mut now);
        assert_eq!((track.state(), track.run()), (HealthState::Unknown, None));
        feed(&mut track, "PFF", &mut now);
        assert_eq!(track.state(), HealthState::Unhealthy);
        let mut now = Instant::now();
        let mut track = self::track(Timing { start_period: 3 * SECOND, ..timing(2, 2) }, now);
        feed(&mut track, "FFFFF", &mut now);
        assert_eq!(track.state(), HealthState::Unhealthy);
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_without_probes_goes_stale() {
        let mut now = Instant::now();
        let mut track = track(timing(1, 1), now);
        feed(&mut track, "P", &mut now);
        assert_eq!(track.on_tick(now + 44 * SECOND), None);
        let change = track.on_tick(now + 45 * SECOND);
        let want = Change { from: HealthState::Healthy, to: HealthState::Unknown, cause: Cause::Stale };
        assert_eq!(change, Some(want));
        assert_eq!(track.on_tick(now + 46 * SECOND), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_interval_ends_no_verdict_before_it_can_be_confirmed() {
        let slow = Timing { interval: 600 * SECOND, ..timing(1, 1) };
        // Seconds since the last pass at which the interval becomes 10 s, and when the verdict goes out of date then.
        for (after, want) in [(0, 45), (100, 145), (1_000, 1_045), (1_800, 1_815)] {
            let mut now = Instant::now();
            let mut track = track(slow, now);
            feed(&mut track, "P", &mut now);
            assert_eq!(track.retime(timing(1, 1), now + after * SECOND), None);
            assert_eq!(track.stale_at() - now, want * SECOND, "after {after} s");
            assert_eq!(track.retime(timing(1, 1), now + after * SECOND), None);
            assert_eq!(track.stale_at() - now, want * SECOND, "again after {after} s");
            now = track.next_due().max(now + after * SECOND);
            feed(&mut track, "P", &mut now);
            assert_eq!(track.stale_at() - now, 45 * SECOND, "a pass restarts the time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_brings_the_probe_forward_but_not_closer_than_the_fast_interval() {
        let mut now = Instant::now();
        let mut track = track(timing(1, 2), now);
        feed(&mut track, "PP", &mut now);
        let start = track.last_start.unwrap();
        track.on_hint(start + Duration::from_millis(10));
        assert_eq!(track.next_due(), start + SECOND);
        track.on_hint(start + Duration::from_millis(500));
        assert_eq!(track.next_due(), start + SECOND);
        assert_eq!(track.state(), HealthState::Healthy);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_during_a_probe_asks_for_one_more() {
        let mut now = Instant::now();
        let mut track = track(timing(1, 2), now);
        feed(&mut track, "PP", &mut now);
        let start = track.next_due();
        track.on_start(start);
        track.on_hint(start);
        track.on_end(Judgement::Pass, start, 0.0);
        assert_eq!(track.next_due(), start + SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_timing_judges_the_open_run() {
        let mut now = Instant::now();
        let mut track = track(timing(2, 5), now);
        feed(&mut track, "PPFF", &mut now);
        assert_eq!(track.retime(timing(2, 3), now), None);
        assert_eq!(track.state(), HealthState::Healthy);
        let change = track.retime(timing(2, 2), now).expect("two failures are enough now");
        assert_eq!(change.to, HealthState::Unhealthy);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_interval_holds_from_the_last_start() {
        let mut now = Instant::now();
        let mut track = track(timing(1, 1), now);
        feed(&mut track, "PP", &mut now);
        let start = track.last_start.unwrap();
        assert_eq!(track.next_due(), start + 10 * SECOND);
        track.retime(Timing { interval: 3 * SECOND, ..timing(1, 1) }, now);
        assert_eq!(track.next_due(), start + 3 * SECOND);
        track.retime(Timing { interval: 60 * SECOND, ..timing(1, 1) }, now);
        assert_eq!(track.next_due(), start + 3 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn usable_at_counts_the_passes_that_are_missing() {
        let mut now = Instant::now();
        let mut track = track(timing(3, 1), now);
        assert_eq!(track.usable_at(), now + 2 * SECOND);
        feed(&mut track, "P", &mut now);
        assert_eq!(track.usable_at(), track.next_due() + SECOND);
        feed(&mut track, "F", &mut now);
        assert_eq!(track.usable_at(), track.next_due() + 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_spread_over_the_interval() {
        let origin = Instant::now();
        let interval = SECOND;
        for (part, now_ms, want_ms) in
            [(0u32, 0u64, 1_000u64), (1 << 31, 0, 500), (1 << 31, 500, 1_500), (1 << 30, 2_300, 3_250)]
        {
            let got = Slot { origin, part }.after(origin + Duration::from_millis(now_ms), interval);
            assert_eq!((got - origin).as_millis() as u64, want_ms, "part {part}, now {now_ms}");
        }
    }

    /// The reference: ten lines that anyone can check against health.md.
    fn reference(rise: usize, fall: usize, results: &[bool]) -> HealthState {
        let mut state = HealthState::Unknown;
        for end in 1..=results.len() {
            let run = |pass: bool, n: usize| end >= n && results[end - n..end].iter().all(|r| *r == pass);
            if run(true, rise) {
                state = HealthState::Healthy;
            } else if run(false, fall) {
                state = HealthState::Unhealthy;
            }
        }
        state
    }

    proptest! {
        #[test]
        fn the_track_agrees_with_the_reference(
            rise in 1u32..5, fall in 1u32..5, results in proptest::collection::vec(any::<bool>(), 0..40)
        ) {
            let text: String = results.iter().map(|pass| if *pass { 'P' } else { 'F' }).collect();
            let mut now = Instant::now();
            let mut track = track(timing(rise, fall), now);
            feed(&mut track, &text, &mut now);
            prop_assert_eq!(track.state(), reference(rise as usize, fall as usize, &results));
        }

        #[test]
        fn the_next_probe_is_never_before_the_end_of_the_last_nor_after_the_jittered_interval(
            chance in -1.0f64..1.0, took_ms in 0u64..20_000, results in "[PF!-]{1,20}"
        ) {
            let mut track = track(Timing { jitter: Ratio::try_new(0.5).unwrap(), ..timing(2, 3) }, Instant::now());
            for result in results.chars() {
                let now = track.next_due();
                track.on_start(now);
                let end = now + Duration::from_millis(took_ms);
                let judgement = match result {
                    'P' => Judgement::Pass,
                    'F' => Judgement::Fail,
                    '-' => Judgement::NoVerdict,
                    _ => Judgement::Broken,
                };
                track.on_end(judgement, end, chance);
                prop_assert!(track.next_due() >= end);
                prop_assert!(track.next_due() <= end.max(now + 15 * SECOND).max(end + 10 * SECOND));
            }
        }
    }
}
