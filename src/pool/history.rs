//! The last state changes of one upstream, for `explain`: at most ten, each with its reason; empty before the first.
//!
//! Bounded in bytes too: with the trace of the last probe it stays below 8 KiB per upstream, whatever upstreams send.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::events::Transition;
use crate::model::{Address, Code, HealthState, Name};

/// The most changes kept.
pub const HISTORY_MAX: usize = 10;

/// The most bytes of a reason kept here; the event ring keeps the full text.
pub const HISTORY_REASON_BYTES_MAX: usize = 384;

/// The last changes of one upstream, oldest first.
#[derive(Debug, Default)]
pub struct History(VecDeque<Entry>);

/// A [`Transition`] without its pool and upstream.
#[derive(Debug)]
struct Entry {
    at: Instant,
    duration: Option<Duration>,
    reason: Box<str>,
    healthy_left: usize,
    code: Option<Code>,
    from: HealthState,
    to: HealthState,
}

impl History {
    /// Adds a change and drops the oldest if there are too many. Grows by one: most upstreams change once in their
    /// life.
    pub fn push(&mut self, at: Instant, transition: &Transition) {
        let entries = &mut self.0;
        if entries.len() == HISTORY_MAX {
            entries.pop_front();
        }
        entries.reserve_exact(1);
        entries.push_back(Entry {
            at,
            duration: transition.duration,
            reason: cut(&transition.reason),
            healthy_left: transition.healthy_left,
            code: transition.code,
            from: transition.from,
            to: transition.to,
        });
    }

    /// The reason of the change at `at` is known better now.
    pub fn amend(&mut self, at: Instant, to: HealthState, reason: &str) {
        if let Some(entry) = self.0.iter_mut().rev().find(|entry| entry.at == at && entry.to == to) {
            entry.reason = cut(reason);
        }
    }

    /// The changes of `upstream` of `pool`, oldest first.
    pub fn transitions(&self, pool: &Name, upstream: &Address) -> Vec<(Instant, Transition)> {
        let transition = |entry: &Entry| Transition {
            pool: pool.clone(),
            upstream: upstream.clone(),
            from: entry.from,
            to: entry.to,
            code: entry.code,
            reason: entry.reason.to_string(),
            duration: entry.duration,
            healthy_left: entry.healthy_left,
        };
        self.0.iter().map(|entry| (entry.at, transition(entry))).collect()
    }

    /// Its size on the heap, in bytes.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        let texts: usize = self.0.iter().map(|entry| entry.reason.len()).sum();
        self.0.capacity() * size_of::<Entry>() + texts
    }
}

fn cut(reason: &str) -> Box<str> {
    if reason.len() <= HISTORY_REASON_BYTES_MAX {
        return reason.into();
    }
    let mark = "…";
    let most = HISTORY_REASON_BYTES_MAX - mark.len();
    let end = (0..=most).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{mark}", &reason[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TlsTrace, Trace};

    fn transition(reason: String) -> Transition {
        Transition {
            pool: Name::try_new("api").unwrap(),
            upstream: "10.0.0.1:80".parse().unwrap(),
            from: HealthState::Healthy,
            to: HealthState::Unhealthy,
            code: Some(Code::L7Sts),
            reason,
            duration: Some(Duration::from_millis(2)),
            healthy_left: 1,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_ten_are_kept_and_texts_are_cut() {
        let mut history = History::default();
        assert_eq!(history.heap_bytes(), 0, "nothing before the first change");
        let now = Instant::now();
        for n in 0..25_u64 {
            history.push(now + Duration::from_secs(n), &transition(format!("{n} {}", "ä".repeat(4_000))));
        }
        let kept = history.transitions(&Name::try_new("api").unwrap(), &"10.0.0.1:80".parse().unwrap());
        assert_eq!(kept.len(), HISTORY_MAX);
        assert_eq!(kept[0].0, now + Duration::from_secs(15));
        assert!(kept[9].1.reason.starts_with("24 ää") && kept[9].1.reason.ends_with('…'));
        assert!(kept.iter().all(|(_, t)| t.reason.len() <= HISTORY_REASON_BYTES_MAX));
        assert_eq!((kept[9].1.code, kept[9].1.to), (Some(Code::L7Sts), HealthState::Unhealthy));
    }

    #[tokio::test(start_paused = true)]
    async fn with_the_largest_trace_it_stays_below_eight_kib() {
        let mut history = History::default();
        for _ in 0..100 {
            history.push(Instant::now(), &transition("x".repeat(10_000)));
        }
        let tls_texts = 3 * 256 + size_of::<TlsTrace>();
        let trace = Trace::HEAD_BYTES_MAX + Trace::BODY_BYTES_MAX + tls_texts;
        assert!(history.heap_bytes() + trace <= 8 << 10, "{} + {trace}", history.heap_bytes());
    }
}
