//! The rules that a storm must not violate. Each rule reads the evidence and reports what it cannot explain;
//! `oracle/tests.rs` makes each of them fail.
//!
//! - *outside*: a request reached an upstream that was not healthy and enabled by the event ring when it can have been
//!   sent, or that cannot have been healthy by what its origin did;
//! - *twice*: origins saw a POST twice;
//! - *cause*: a request failed, and nothing in the script explains it;
//! - *empty*: 503 from a pool that could serve by the event ring, or by what its origins did, or in which the request
//!   should have waited;
//! - *wrong*: a client got a response to another client's request, or to no request.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use roundsman::model::{AdminState, HealthState};

use super::evidence::{Arrival, End, Evidence, Outcome};
use super::history::{History, Hold, Moment};
use super::model::{At, Mode, ORIGINS, Reach, Traffic};

/// From the pick of an upstream until its origin has the head. Ten times the worst lateness of our own thread during
/// that time is added, and every standstill.
pub const SENDING: Duration = Duration::from_millis(250);
/// How far apart the program's times and ours may be, and how long it may take until all readers see a change.
pub const CLOCKS: Duration = Duration::from_millis(30);
/// How long a connection that an origin has reset, or a listener that is closed, may still be used.
const AFTERMATH: Duration = Duration::from_millis(150);
/// How long a request waits for the first verdicts of a new pool, less than the 3 s that it is.
const FIRST_WAIT: Duration = Duration::from_millis(2_500);
/// How many violations of a rule are reported.
const REPORTED_MAX: usize = 8;

/// What a rule cannot explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub at: At,
    pub what: String,
}

/// All violations; the first ones of each rule.
pub fn judge(evidence: &Evidence) -> Vec<Violation> {
    let sent = evidence.outcomes.iter().map(|outcome| (outcome.number, outcome.sent)).collect();
    let oracle = Oracle { evidence, history: History::of(evidence), arrived: arrived(evidence), sent };
    let outside = evidence.arrivals.iter().filter_map(|arrival| oracle.outside(arrival));
    let twice = oracle.twice();
    let failed = evidence.outcomes.iter().filter_map(|outcome| oracle.unexplained(outcome));
    let mut violations: Vec<Violation> = outside.chain(twice).chain(failed).collect();
    violations.sort_by_key(|violation| violation.at);
    let mut reported: HashMap<&'static str, usize> = HashMap::new();
    violations.retain(|violation| {
        let count = reported.entry(violation.rule).or_default();
        *count += 1;
        *count <= REPORTED_MAX
    });
    violations
}

fn arrived(evidence: &Evidence) -> HashMap<u64, Vec<Arrival>> {
    let mut arrived: HashMap<u64, Vec<Arrival>> = HashMap::new();
    for arrival in &evidence.arrivals {
        arrived.entry(arrival.number).or_default().push(*arrival);
    }
    arrived
}

/// The pools that a request of this service may have been routed to: it keeps its pool as long as that exists without a
/// gap, also when its listener moves. A pool that is added again under the same name is another pool.
fn routed(moments: &[Moment], service: usize) -> BTreeSet<String> {
    let pools = moments.iter().enumerate().map(|(index, moment)| (&moment.config.services[service], &moments[index..]));
    let kept = pools.filter(|(pool, later)| later.iter().all(|moment| moment.config.pools.contains_key(*pool)));
    kept.map(|(pool, _)| pool.clone()).collect()
}

/// The pool of a service at a moment, and those that it may have been routed to before.
fn pools_at<'m>(moment: &'m Moment, routed: &'m BTreeSet<String>, service: usize) -> impl Iterator<Item = &'m str> {
    let own = &moment.config.services[service];
    std::iter::once(own).chain(routed.iter().filter(move |pool| *pool != own)).map(String::as_str)
}

struct Oracle<'e> {
    evidence: &'e Evidence,
    history: History,
    arrived: HashMap<u64, Vec<Arrival>>,
    sent: HashMap<u64, At>,
}

impl Oracle<'_> {
    /// The earliest time of the pick of a request that arrived at `at`.
    fn picked_since(&self, at: At) -> At {
        let late = self.evidence.lateness(at.saturating_sub(SENDING), at);
        self.evidence.reach_back(at.saturating_sub(SENDING + 10 * late), at)
    }

    fn outside(&self, arrival: &Arrival) -> Option<Violation> {
        let since = self.picked_since(arrival.at);
        let moments = self.history.during(since.saturating_sub(CLOCKS), arrival.at + CLOCKS);
        let sent = self.sent.get(&arrival.number).map_or(since, |sent| since.min(*sent));
        let pools = routed(self.history.during(sent.saturating_sub(CLOCKS), arrival.at), arrival.service);
        let holds = |moment| pools_at(moment, &pools, arrival.service).filter_map(|p| moment.hold(p, arrival.origin));
        let (number, origin, service) = (arrival.number, arrival.origin, arrival.service);
        let violation = |what: String| {
            Some(Violation { rule: "outside", at: arrival.at, what: format!("/s{service}/{number}: {what}") })
        };
        let allowed = moments.iter().any(|moment| holds(moment).any(Hold::is_eligible));
        if !allowed && !self.shown_retiring(arrival, since) {
            let state = |moment| {
                let states = holds(moment).map(|hold| format!("{} {}", hold.state, hold.admin()));
                states.last().unwrap_or_else(|| "not there".to_owned())
            };
            let mut states: Vec<String> = moments.iter().map(state).collect();
            states.dedup();
            return violation(format!("reached origin {origin}, since {since:?}: {}", states.join(", then ")));
        }
        let impossible = |moment| {
            let mut holds = holds(moment).peekable();
            holds.peek().is_some() && holds.all(|hold| hold.must_not_serve(since))
        };
        if moments.iter().all(impossible) {
            return violation(format!(
                "reached origin {origin}, which has failed its checks for long, whatever the ring says"
            ));
        }
        None
    }

    /// Whether a status of that time shows it as removed and still serving.
    fn shown_retiring(&self, arrival: &Arrival, since: At) -> bool {
        let within = self.evidence.samples.iter().filter(|s| s.answered >= since && s.asked <= arrival.at + CLOCKS);
        let pools: BTreeSet<&String> =
            self.evidence.configs_in(since, arrival.at).map(|config| &config.services[arrival.service]).collect();
        let mut known = within.flat_map(|sample| {
            pools.iter().filter_map(|pool| sample.upstreams.get(&((*pool).clone(), arrival.origin)))
        });
        known.any(|known| known.retiring && known.state == HealthState::Healthy)
    }

    fn twice(&self) -> impl Iterator<Item = Violation> {
        self.arrived.values().filter(|seen| seen[0].post && seen.len() > 1).map(|seen| Violation {
            rule: "twice",
            at: seen[1].at,
            what: format!("POST /s{}/{} reached {} origins", seen[0].service, seen[0].number, seen.len()),
        })
    }

    fn unexplained(&self, outcome: &Outcome) -> Option<Violation> {
        let complaint = match &outcome.end {
            End::Answered | End::Unknown => None,
            End::Wrong(what) => Some(("wrong", what.clone())),
            End::Own(503, reason) if reason == "none_eligible" => {
                self.needlessly_empty(outcome).map(|why| ("empty", why))
            }
            failure => self.without_cause(outcome, failure).map(|why| ("cause", why)),
        };
        let (rule, why) = complaint?;
        let method = if outcome.post { "POST" } else { "GET" };
        let took = outcome.ended.saturating_sub(outcome.sent);
        let (service, number, end) = (outcome.service, outcome.number, &outcome.end);
        let what = format!("{method} /s{service}/{number}: {end:?} after {took:?}: {why}");
        Some(Violation { rule, at: outcome.sent, what })
    }

    /// The moments of a request, with a margin for the two clocks.
    fn moments(&self, outcome: &Outcome) -> &[Moment] {
        self.history.during(self.begin(outcome), outcome.ended + CLOCKS)
    }

    fn begin(&self, outcome: &Outcome) -> At {
        let late = self.evidence.lateness(outcome.sent, outcome.ended);
        self.evidence.reach_back(outcome.sent.saturating_sub(CLOCKS + 10 * late), outcome.ended)
    }

    fn needlessly_empty(&self, outcome: &Outcome) -> Option<String> {
        let moments = self.moments(outcome);
        let pool = |moment: &Moment| moment.config.services[outcome.service].clone();
        let by_ring = |moment: &Moment| moment.can_serve(&pool(moment), |hold| hold.is_eligible());
        if moments.iter().all(by_ring) {
            return Some(format!("{} could serve all the time, by the event ring", pool(&moments[0])));
        }
        let begin = self.begin(outcome);
        let by_script = |moment: &Moment| moment.can_serve(&pool(moment), |hold| hold.must_serve(begin));
        if moments.iter().all(by_script) {
            return Some(format!("enough origins of {} had passed their checks for long", pool(&moments[0])));
        }
        let (end, first) = (outcome.ended, &moments[0]);
        let awaited = |moment: &Moment| {
            let name = pool(moment);
            let mut holds = moment.holds_of(&name);
            holds.any(|hold| {
                let fresh = hold.state == HealthState::Unknown && hold.admin() == AdminState::Enabled;
                fresh && !hold.member.by_name && hold.joined <= begin && end < hold.joined + FIRST_WAIT
            })
        };
        if moments.iter().all(awaited) {
            return Some(format!("first verdicts of {} were awaited: it should have waited", pool(first)));
        }
        None
    }

    fn without_cause(&self, outcome: &Outcome, failure: &End) -> Option<String> {
        let moved = || {
            let since = outcome.sent.saturating_sub(Duration::from_secs(1));
            let listeners: BTreeSet<usize> =
                self.evidence.configs_in(since, outcome.ended + CLOCKS).map(|config| config.listener).collect();
            (listeners.len() < 2).then(|| "the listener was open all the time".to_owned())
        };
        match failure {
            End::Closed { .. } | End::NoConnection => moved(),
            End::Cut => {
                let broke = |seen: &Arrival| {
                    let mut modes = self.evidence.modes_of(seen.origin, seen.at.saturating_sub(CLOCKS), outcome.ended);
                    modes.any(|mode| mode.traffic == Traffic::Cuts || mode.reach != Reach::Open)
                };
                let explained = self.arrived.get(&outcome.number).is_some_and(|seen| seen.iter().any(broke));
                (!explained).then(|| "no origin that had it ended it early".to_owned())
            }
            End::Own(502 | 504, reason) if matches!(&**reason, "connect_failed" | "connect_timeout") => {
                self.not_enough(outcome, |mode| !outcome.post && mode.traffic.breaks())
            }
            End::Own(502, reason) if reason == "upstream_broke" && outcome.post => self.broken_post(outcome),
            End::Own(502, reason) if reason == "upstream_broke" => {
                self.not_enough(outcome, |mode| mode.traffic.breaks())
            }
            End::Own(..) => Some("nothing in a storm is a reason for this answer".to_owned()),
            End::GaveUp => Some("nothing in a storm takes so long".to_owned()),
            End::Answered | End::Unknown | End::Wrong(_) => None,
        }
    }

    /// A request is tried on two upstreams if there are two: one that could not be reached (or that `breaks`) explains
    /// a failure only if there was a moment without another.
    fn not_enough(&self, outcome: &Outcome, breaks: impl Fn(&Mode) -> bool) -> Option<String> {
        let begin = self.begin(outcome).saturating_sub(AFTERMATH);
        let moments = self.history.during(begin, outcome.ended + CLOCKS);
        let is_bad = |origin: usize| {
            let mut modes = self.evidence.modes_of(origin, begin, outcome.ended);
            modes.any(|mode| mode.reach != Reach::Open || breaks(&mode))
        };
        let bad: BTreeSet<usize> = (0..ORIGINS).filter(|origin| is_bad(*origin)).collect();
        let pools = routed(moments, outcome.service);
        let eligible = |moment| {
            let holds = pools_at(moment, &pools, outcome.service).flat_map(|pool| moment.holds_of(pool));
            holds.filter(|hold| hold.is_eligible()).map(|hold| hold.member.origin).collect::<BTreeSet<usize>>()
        };
        let met: BTreeSet<usize> = moments.iter().flat_map(eligible).filter(|origin| bad.contains(origin)).collect();
        // A removed one does not explain it: its requests are routed again.
        let empty = |moment: &Moment| {
            let good = |hold: &Hold| hold.is_eligible() && !bad.contains(&hold.member.origin);
            pools_at(moment, &pools, outcome.service).any(|pool| !moment.can_serve(pool, good))
        };
        let alone = moments.iter().any(empty);
        match (met.len(), alone) {
            (0, _) => Some("every upstream of its pool could be reached and answered".to_owned()),
            (1, false) => Some(format!("origin {met:?} alone did not serve, and there was always another")),
            _ => None,
        }
    }

    fn broken_post(&self, outcome: &Outcome) -> Option<String> {
        let begin = self.begin(outcome);
        let broke = |origin: usize, since: At, by_traffic: bool| {
            let mut modes = self.evidence.modes_of(origin, since, outcome.ended);
            modes.any(|mode| (by_traffic && mode.traffic.breaks()) || mode.reach != Reach::Open)
        };
        let explained = match self.arrived.get(&outcome.number) {
            Some(seen) => seen.iter().any(|seen| broke(seen.origin, seen.at.saturating_sub(CLOCKS), true)),
            // The connection was reset while the request was being sent.
            None => (0..ORIGINS).any(|origin| broke(origin, begin.saturating_sub(AFTERMATH), false)),
        };
        let why = || match self.arrived.get(&outcome.number) {
            Some(seen) => format!("origin {} had it and did not fail", seen[0].origin),
            None => "no origin had it, and none was killed".to_owned(),
        };
        (!explained).then(why)
    }
}

#[cfg(test)]
mod tests;
