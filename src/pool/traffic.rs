//! Upstreams that fail nearly all requests and pass their checks: the checks test something else than the requests use.
//! Decides when that begins and ends, from the counters of an upstream. Pure.
//!
//! ```text
//! quiet ──(9 of 10 requests fail)──▶ suspected ──(still, and a check has passed since)──▶ failing ──(half succeed)──▶ quiet
//! ```
//!
//! A request fails if it gets a 5xx, breaks, or finds no connection. Requests are judged in windows of at least
//! [`REQUESTS_MIN`]. The rule is in the README, under "What happens when".

use std::time::Duration;

use tokio::time::Instant;

/// The fewest requests that are judged.
pub(super) const REQUESTS_MIN: u64 = 10;
/// A window that did not get so many requests in this time is forgotten.
const WINDOW_MAX: Duration = Duration::from_secs(300);
/// The shortest time from one report about an upstream to the next.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// Checks may be rarer than this; then the verdict counts as it is.
const CHECK_AWAITED_MAX: Duration = Duration::from_secs(60);

/// Requests of one upstream, and how many of them failed in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Requests that have ended.
    pub ended: u64,
    /// Answered with a status of 500 or above.
    pub server_errors: u64,
    /// Broken after the connection was made, malformed responses included.
    pub broken: u64,
    /// Without a connection.
    pub connect_failures: u64,
}

impl Requests {
    /// How many failed; one may have failed in two ways.
    pub fn failed(&self) -> u64 {
        let each = [self.server_errors, self.broken, self.connect_failures];
        each.into_iter().fold(0, u64::saturating_add).min(self.ended)
    }

    fn since(&self, earlier: &Requests) -> Requests {
        Requests {
            ended: self.ended.saturating_sub(earlier.ended),
            server_errors: self.server_errors.saturating_sub(earlier.server_errors),
            broken: self.broken.saturating_sub(earlier.broken),
            connect_failures: self.connect_failures.saturating_sub(earlier.connect_failures),
        }
    }

    /// At least nine of ten failed.
    fn nearly_all_failed(&self) -> bool {
        u128::from(self.failed()) * 10 >= u128::from(self.ended) * 9
    }

    /// At least half succeeded.
    fn half_succeeded(&self) -> bool {
        u128::from(self.failed()) * 2 <= u128::from(self.ended)
    }
}

/// What is known about an upstream at one look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Its counters.
    pub(super) requests: Requests,
    /// It is healthy, and the last probe of the check that decides passed.
    pub(super) passes: bool,
    /// When that probe ended.
    pub(super) checked: Option<Instant>,
}

/// Something to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// Nearly all requests of this window failed.
    Began(Requests),
    /// That is over.
    Ended(Over, Requests),
}

/// Why it no longer counts as failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// At least half of its last requests succeeded.
    Succeeds,
    /// It is no longer healthy, or its last check failed.
    NoLongerPasses,
    /// It got too few requests for five minutes.
    FewRequests,
}

impl Over {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Over::Succeeds => "succeeds",
            Over::NoLongerPasses => "no_longer_passes",
            Over::FewRequests => "few_requests",
        }
    }
}

/// What is remembered of one upstream between looks.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    /// The counters at the beginning of the window.
    base: Requests,
    /// When the window began.
    since: Instant,
    phase: Phase,
    /// When it was last reported as failing.
    reported: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Quiet,
    /// Nearly all requests failed at this look.
    Suspected(Instant),
    /// With the last window that was judged.
    Failing(Requests),
}

impl Traffic {
    /// Begins to watch an upstream that had no requests so far.
    pub(super) fn new(now: Instant) -> Traffic {
        Traffic { base: Requests::default(), since: now, phase: Phase::Quiet, reported: None }
    }

    /// Takes a look. At most one report; one that begins comes at most once a minute.
    pub(super) fn observe(&mut self, look: &Look, now: Instant) -> Option<Report> {
        let window = look.requests.since(&self.base);
        if !look.passes {
            // Its checks show that something is wrong, so the log has it already.
            self.restart(look, now);
            return self.end(Over::NoLongerPasses, window);
        }
        if window.ended < REQUESTS_MIN {
            if now.saturating_duration_since(self.since) < WINDOW_MAX {
                return None;
            }
            self.restart(look, now);
            return self.end(Over::FewRequests, window);
        }
        self.restart(look, now);
        match self.phase {
            Phase::Failing(_) if window.half_succeeded() => self.end(Over::Succeeds, window),
            Phase::Failing(_) => {
                self.phase = Phase::Failing(window);
                None
            }
            _ if !window.nearly_all_failed() => {
                self.phase = Phase::Quiet;
                None
            }
            Phase::Quiet => {
                self.phase = Phase::Suspected(now);
                None
            }
            Phase::Suspected(since) => {
                // A check from before the first failure says nothing: both may have begun to fail together.
                let checked = look.checked.is_some_and(|at| at > since);
                let waited = now.saturating_duration_since(since) >= CHECK_AWAITED_MAX;
                let recent = self.reported.is_some_and(|at| now.saturating_duration_since(at) < REPORT_EVERY);
                if recent || !(checked || waited) {
                    return None;
                }
                self.phase = Phase::Failing(window);
                self.reported = Some(now);
                Some(Report::Began(window))
            }
        }
    }

    /// Its last requests, from a report that it fails them until the one that this is over.
    pub(super) fn failing(&self) -> Option<&Requests> {
        match &self.phase {
            Phase::Failing(window) => Some(window),
            Phase::Quiet | Phase::Suspected(_) => None,
        }
    }

    fn restart(&mut self, look: &Look, now: Instant) {
        (self.base, self.since) = (look.requests, now);
    }

    fn end(&mut self, over: Over, window: Requests) -> Option<Report> {
        let was = std::mem::replace(&mut self.phase, Phase::Quiet);
        matches!(was, Phase::Failing(_)).then_some(Report::Ended(over, window))
    }
}

#[cfg(test)]
mod tests;
