//! The invariants I1 to I7 and I9, as pure rules over what was seen; `tests` makes each of them fail. I8 (no panic, alive) is the
//! stage's to see.
//!
//! - **I1** no request is picked for an upstream while that is not healthy;
//! - **I2** a new upstream, or one that was unhealthy, gets nothing before its passes, by what the upstreams saw;
//! - **I3** with all of them down: 503 at once, and no connection attempt;
//! - **I4** every request that was sent has ended, and has exactly one line in the access log, with the status that its client saw;
//! - **I5** a POST reaches upstreams at most once;
//! - **I6** a response that is not whole is not delivered as if it were;
//! - **I7** after calm, descriptors, threads and memory are as before;
//! - **I9** the status answers in time throughout.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::storm::model::At;

/// How far apart two clocks, or an event and what it changes, may be; ten times the worst lateness of a thread is added.
const CLOCKS: Duration = Duration::from_millis(30);
/// How many violations of a rule are shown.
const SHOWN_MAX: usize = 5;

/// What was seen; backends are numbers.
#[derive(Debug, Default)]
pub struct Evidence {
    pub requests: Vec<Request>,
    pub arrivals: Vec<Arrival>,
    pub lines: Vec<Line>,
    pub changes: Vec<Change>,
    pub backends: usize,
    /// Where a thread that wakes every 5 ms was late.
    pub hiccups: Vec<(At, Duration)>,
    /// Queries of the status, each with how long it took.
    pub statuses: Vec<(At, Duration)>,
    /// Before the faults, and after the calm; not where the process has ended.
    pub figures: Option<[Figures; 2]>,
    /// Wall-clock limits are multiplied by this: 1 on a quiet machine, 10 elsewhere.
    pub lenience: u32,
}

/// A request as its client saw it.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub sent: At,
    pub ended: At,
    pub answer: Result<u16, String>,
    /// Whole, with another body than it should have.
    pub wrong: bool,
}

/// A request as a backend saw it.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub at: At,
    pub backend: usize,
    pub post: bool,
    pub path: String,
}

/// A request as the access log has it.
#[derive(Debug, Clone)]
pub struct Line {
    pub path: String,
    pub began: At,
    pub ended: At,
    pub status: i64,
    pub attempts: Vec<usize>,
}

/// The verdict on a backend has changed.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub at: At,
    pub backend: usize,
    pub healthy: bool,
}

/// What the process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub descriptors: usize,
    pub threads: usize,
    pub resident: u64,
}

impl Figures {
    /// I7: whether it is calm again, as before.
    pub fn is_as(&self, before: &Figures) -> bool {
        self.descriptors <= before.descriptors + 5
            && self.threads <= before.threads
            && self.resident <= before.resident + (20 << 20)
    }
}

/// Times in which something holds, in order.
type Spells = Vec<(At, At)>;

/// All violations, the first ones of each rule.
pub fn judge(seen: &Evidence) -> Vec<String> {
    let rules: [(&str, Vec<String>); 8] = [
        ("I1", picked_while_not_healthy(seen)),
        ("I2", arrived_while_not_healthy(seen)),
        ("I3", served_while_all_down(seen)),
        ("I4", not_accounted_for(seen)),
        ("I5", sent_twice(seen)),
        ("I6", delivered_wrong(seen)),
        ("I7", left_behind(seen)),
        ("I9", late_statuses(seen)),
    ];
    let shown = |(rule, found): (&str, Vec<String>)| {
        let more = found.len().saturating_sub(SHOWN_MAX);
        let first = found.into_iter().take(SHOWN_MAX).map(move |what| format!("{rule}: {what}")).collect::<Vec<_>>();
        first.into_iter().chain((more > 0).then(|| format!("{rule}: and {more} more")))
    };
    rules.into_iter().flat_map(shown).collect()
}

impl Evidence {
    /// When a backend was not healthy; it begins without a verdict.
    fn sick(&self, backend: usize) -> Spells {
        let mut spells = Spells::new();
        let mut since = Some(At::ZERO);
        for change in self.changes.iter().filter(|change| change.backend == backend) {
            match (change.healthy, since) {
                (true, Some(from)) => {
                    spells.push((from, change.at));
                    since = None;
                }
                (false, None) => since = Some(change.at),
                (true, None) | (false, Some(_)) => {}
            }
        }
        spells.extend(since.map(|from| (from, At::MAX)));
        spells
    }

    /// When none was healthy.
    fn all_sick(&self) -> Spells {
        (1..self.backends).fold(self.sick(0), |all, backend| {
            let other = self.sick(backend);
            let both = all.iter().flat_map(|a| other.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
            both.filter(|(from, to)| from < to).collect()
        })
    }

    /// The worst lateness of a thread of the test in this time.
    fn lateness(&self, from: At, to: At) -> Duration {
        let late = self.hiccups.iter().filter(|(at, _)| *at + CLOCKS >= from && *at <= to + CLOCKS);
        late.map(|(_, late)| *late).max().unwrap_or_default()
    }

    /// Whether all of this time is within one of these, with room for clocks and late threads at the beginning.
    fn within(&self, spells: &Spells, from: At, to: At) -> bool {
        let slack = CLOCKS + 10 * self.lateness(from, to);
        spells.iter().any(|(begin, end)| *begin + slack <= from && to <= *end)
    }
}

fn picked_while_not_healthy(seen: &Evidence) -> Vec<String> {
    let sick: Vec<Spells> = (0..seen.backends).map(|backend| seen.sick(backend)).collect();
    let picks = seen.lines.iter().flat_map(|line| line.attempts.iter().map(move |backend| (line, *backend)));
    let wrong = picks.filter(|(line, backend)| seen.within(&sick[*backend], line.began, line.ended));
    wrong
        .map(|(line, backend)| format!("{} was sent to backend {backend}, which was not healthy: {line:?}", line.path))
        .collect()
}

fn arrived_while_not_healthy(seen: &Evidence) -> Vec<String> {
    let sick: Vec<Spells> = (0..seen.backends).map(|backend| seen.sick(backend)).collect();
    // Not before its client has sent it; one that is stopped reads later what has arrived before.
    let sent: HashMap<&str, At> = seen.requests.iter().map(|request| (&*request.path, request.sent)).collect();
    let wrong = seen.arrivals.iter().filter(|arrival| {
        let sent = sent.get(&*arrival.path).copied();
        sent.is_some_and(|sent| seen.within(&sick[arrival.backend], sent, arrival.at))
    });
    wrong.map(|arrival| format!("{arrival:?} before its passes")).collect()
}

fn served_while_all_down(seen: &Evidence) -> Vec<String> {
    let down = seen.all_sick();
    let most =
        |request: &Request| Duration::from_millis(50) * seen.lenience + 10 * seen.lateness(request.sent, request.ended);
    let requests = seen.requests.iter().filter(|request| seen.within(&down, request.sent, request.ended));
    let wrong = requests.filter(|request| request.answer != Ok(503) || request.ended - request.sent > most(request));
    let mut found: Vec<String> = wrong.map(|request| format!("with all down: {request:?}")).collect();
    let lines = seen.lines.iter().filter(|line| seen.within(&down, line.began, line.ended));
    found.extend(lines.filter(|line| !line.attempts.is_empty()).map(|line| format!("with all down: {line:?}")));
    found
}

fn not_accounted_for(seen: &Evidence) -> Vec<String> {
    let mut lines: HashMap<&str, Vec<&Line>> = HashMap::new();
    for line in &seen.lines {
        lines.entry(&line.path).or_default().push(line);
    }
    let mut found = Vec::new();
    for request in &seen.requests {
        let of = lines.remove(&*request.path).unwrap_or_default();
        match (&request.answer, &*of) {
            (Ok(status), [line]) if line.status == i64::from(*status) => {}
            // It may have found no listener; what broke off in the middle has a status.
            (Err(_), [] | [_]) => {}
            (_, of) => found.push(format!("{request:?} has the lines {of:?}")),
        }
    }
    found.extend(lines.into_values().flatten().map(|line| format!("nobody has sent {line:?}")));
    found
}

fn sent_twice(seen: &Evidence) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for arrival in seen.arrivals.iter().filter(|arrival| arrival.post) {
        *counts.entry(&arrival.path).or_default() += 1;
    }
    counts
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(path, count)| format!("POST {path} arrived {count} times"))
        .collect()
}

fn delivered_wrong(seen: &Evidence) -> Vec<String> {
    seen.requests
        .iter()
        .filter(|request| request.wrong)
        .map(|request| format!("whole, and wrong: {request:?}"))
        .collect()
}

fn left_behind(seen: &Evidence) -> Vec<String> {
    let Some([before, after]) = seen.figures else { return Vec::new() };
    if after.is_as(&before) { Vec::new() } else { vec![format!("{before:?} before, {after:?} after the calm")] }
}

fn late_statuses(seen: &Evidence) -> Vec<String> {
    let most = Duration::from_millis(100) * seen.lenience;
    let late = |at: At| seen.hiccups.iter().filter(|(when, _)| *when + most * 2 >= at).map(|(_, late)| *late).max();
    let slow = seen.statuses.iter().filter(|(at, took)| *took > most + 10 * late(*at).unwrap_or_default());
    slow.map(|(at, took)| format!("the status at {at:?} took {took:?}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn request(path: &str, sent: u64, ended: u64, status: u16) -> Request {
        Request { path: path.to_owned(), sent: ms(sent), ended: ms(ended), answer: Ok(status), wrong: false }
    }

    fn line(path: &str, began: u64, ended: u64, status: i64, attempts: &[usize]) -> Line {
        Line { path: path.to_owned(), began: ms(began), ended: ms(ended), status, attempts: attempts.to_vec() }
    }

    fn arrival(path: &str, at: u64, backend: usize, post: bool) -> Arrival {
        Arrival { at: ms(at), backend, post, path: path.to_owned() }
    }

    /// Two backends, healthy from 100 ms on; the first is down from 1 s to 2 s, both from 3 s to 4 s.
    fn evidence() -> Evidence {
        let change = |at, backend, healthy| Change { at: ms(at), backend, healthy };
        let changes = vec![
            change(100, 0, true),
            change(100, 1, true),
            change(1_000, 0, false),
            change(2_000, 0, true),
            change(3_000, 0, false),
            change(3_000, 1, false),
            change(4_000, 1, true),
        ];
        Evidence { changes, backends: 2, lenience: 1, ..Evidence::default() }
    }

    fn rules(seen: &Evidence) -> Vec<String> {
        let mut rules: Vec<_> = judge(seen).iter().map(|found| found[..2].to_owned()).collect();
        rules.dedup();
        rules
    }

    #[test]
    fn what_goes_well_breaks_no_rule() {
        let mut seen = evidence();
        seen.requests = vec![
            request("/n/1", 500, 510, 200),
            // Begun before the verdict, or ended after the recovery.
            request("/n/2", 990, 1_200, 200),
            request("/n/3", 1_900, 2_010, 200),
            request("/n/4", 3_500, 3_510, 503),
        ];
        seen.lines = vec![
            line("/n/1", 500, 510, 200, &[0]),
            line("/n/2", 990, 1_200, 200, &[0, 1]),
            line("/n/3", 1_900, 2_010, 200, &[0]),
            line("/n/4", 3_500, 3_510, 503, &[]),
        ];
        seen.arrivals =
            vec![arrival("/n/1", 505, 0, true), arrival("/n/2", 1_100, 0, false), arrival("/n/2", 1_101, 1, false)];
        let figures = Figures { descriptors: 40, threads: 8, resident: 30 << 20 };
        seen.figures = Some([figures, Figures { descriptors: 45, resident: 50 << 20, ..figures }]);
        seen.statuses = vec![(ms(100), ms(99))];
        assert_eq!(judge(&seen), [""; 0]);
        // One whose client left, and one that found nobody.
        seen.requests.push(Request { answer: Err("reset".into()), ..request("/n/5", 600, 610, 0) });
        seen.requests.push(Request { answer: Err("refused".into()), ..request("/n/6", 600, 610, 0) });
        seen.lines.push(line("/n/5", 600, 610, -1, &[1]));
        assert_eq!(judge(&seen), [""; 0]);
    }

    #[test]
    fn each_rule_can_be_broken() {
        let sent = |path: &str, at: u64, status: u16, backend: usize| Evidence {
            requests: vec![request(path, at, at + 10, status)],
            lines: vec![line(path, at, at + 10, i64::from(status), &[backend])],
            ..evidence()
        };
        assert_eq!(rules(&sent("/n/1", 1_500, 200, 0)), ["I1"]);
        assert_eq!(rules(&sent("/n/1", 1_500, 200, 1)), [""; 0]);
        assert_eq!(rules(&sent("/n/1", 10, 200, 1)), [""; 0], "the very beginning is within the tolerance");
        for (at, broken) in [(1_700, vec!["I2"]), (900, vec![]), (1_010, vec![])] {
            let mut seen = sent("/n/1", at, 200, 1);
            seen.arrivals = vec![arrival("/n/1", 1_750, 0, false)];
            assert_eq!(rules(&seen), broken, "sent at {at}");
        }
        assert_eq!(rules(&sent("/n/1", 3_500, 200, 1)), ["I1", "I3"]);
        let slow = Evidence {
            requests: vec![request("/n/1", 3_500, 3_600, 503)],
            lines: vec![line("/n/1", 3_500, 3_600, 503, &[])],
            ..evidence()
        };
        assert_eq!(rules(&slow), ["I3"]);
        assert_eq!(rules(&Evidence { requests: vec![request("/n/1", 500, 510, 200)], ..evidence() }), ["I4"]);
        let other = Evidence {
            requests: vec![request("/n/1", 500, 510, 200)],
            lines: vec![line("/n/1", 500, 510, 502, &[0])],
            ..evidence()
        };
        assert_eq!(rules(&other), ["I4"]);
        assert_eq!(rules(&Evidence { lines: vec![line("/n/1", 500, 510, 200, &[0])], ..evidence() }), ["I4"]);
        let twice = vec![arrival("/n/1", 500, 0, true), arrival("/n/1", 501, 1, true)];
        assert_eq!(rules(&Evidence { arrivals: twice, ..evidence() }), ["I5"]);
        let mut wrong = sent("/n/1", 500, 200, 0);
        wrong.requests[0].wrong = true;
        assert_eq!(rules(&wrong), ["I6"]);
        let before = Figures { descriptors: 40, threads: 8, resident: 30 << 20 };
        for after in [
            Figures { descriptors: 46, ..before },
            Figures { threads: 9, ..before },
            Figures { resident: 51 << 20, ..before },
        ] {
            assert_eq!(rules(&Evidence { figures: Some([before, after]), ..evidence() }), ["I7"]);
        }
        assert_eq!(rules(&Evidence { statuses: vec![(ms(100), ms(101))], ..evidence() }), ["I9"]);
    }

    #[test]
    fn many_violations_of_a_rule_are_counted() {
        let lines: Vec<Line> = (0..9).map(|number| line(&format!("/n/{number}"), 500, 510, 200, &[0])).collect();
        let found = judge(&Evidence { lines, ..evidence() });
        assert_eq!((found.len(), found[5].as_str()), (6, "I4: and 4 more"));
    }
}
