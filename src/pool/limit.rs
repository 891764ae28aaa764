//! `rate_limit`: how many requests each client, or whatever else they are counted by, may make in a time.
//!
//! A bucket is one number: the time until which what it has let through is paid for (the virtual scheduling form of the generic
//! cell rate algorithm, ITU-T I.371, annex A). A bucket whose time has come is full, and the same as none: so the ones that have
//! been idle longest can be forgotten first.
//!
//! All workers share the buckets. A request that is counted takes one of a few locks for as long as a look-up takes.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::policy::RateLimit;

/// The most buckets of one limit.
pub const BUCKETS_MAX: usize = 100_000;
/// Parts of the buckets with a lock each.
const PARTS: usize = 16;

/// A limit and its buckets.
#[derive(Debug, Clone)]
pub struct Limit {
    /// How many requests.
    pub policy: RateLimit,
    buckets: Arc<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    /// Keyed anew in each process, so that no client can find out whose bucket it could share.
    hasher: RandomState,
    parts: [Mutex<LruCache<u64, u64>>; PARTS],
    epoch: Instant,
}

impl Limit {
    /// A limit that has counted nothing. `now` is only the origin for its instants.
    pub fn new(policy: RateLimit, now: Instant) -> Limit {
        let parts = std::array::from_fn(|_| Mutex::new(LruCache::unbounded()));
        Limit { policy, buckets: Arc::new(Buckets { hasher: RandomState::new(), parts, epoch: now }) }
    }

    /// The same after a reload: what it has counted stays, unless it counts by something else now.
    pub fn carried(policy: RateLimit, earlier: Option<&Limit>, now: Instant) -> Limit {
        match earlier.filter(|earlier| earlier.policy.key == policy.key) {
            Some(earlier) => Limit { policy, buckets: earlier.buckets.clone() },
            None => Limit::new(policy, now),
        }
    }

    /// Counts a request with this key.
    ///
    /// # Errors
    /// It is one too many: the seconds until there is room for one, at least 1.
    pub fn take(&self, key: &[u8], now: Instant) -> Result<(), u64> {
        let RateLimit { requests, per, burst, key: _ } = &self.policy;
        let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let each = nanos(*per) / u64::from((*requests).max(1));
        let ahead = each.saturating_mul(u64::from(burst.saturating_sub(1)));
        let now = nanos(now.saturating_duration_since(self.buckets.epoch));
        let hash = self.buckets.hasher.hash_one(key);
        let mut part = self.buckets.parts[hash as usize % PARTS].lock();
        let paid_until = part.get(&hash).map_or(now, |until| *until.max(&now));
        // After a reload with a smaller limit an old debt must not outlast the new one.
        let paid_until = paid_until.min(now.saturating_add(ahead).saturating_add(each));
        let wait = (paid_until - now).saturating_sub(ahead);
        if wait > 0 {
            return Err(wait.div_ceil(1_000_000_000));
        }
        part.put(hash, paid_until.saturating_add(each));
        if part.len() > BUCKETS_MAX / PARTS {
            part.pop_lru();
        }
        Ok(())
    }

    /// Buckets now.
    #[cfg(test)]
    fn buckets(&self) -> usize {
        self.buckets.parts.iter().map(|part| part.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::policy::HashKey;

    fn policy(requests: u32, per: Duration, burst: u32) -> RateLimit {
        RateLimit { requests, per, burst, key: HashKey::ClientIp }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn as_many_pass_as_the_limit_says_whatever_is_asked() {
        let start = Instant::now();
        // Requests, in which time, at once; how many are tried in each millisecond; how many pass in ten seconds.
        for (requests, per, burst, tries, want) in [
            (100, SECOND, 100, 1, 1_100),
            (100, SECOND, 1, 1, 1_000),
            (100, SECOND, 200, 3, 1_200),
            (1_000, SECOND, 50, 2, 10_050),
            (7, Duration::from_secs(3), 7, 5, 30),
            (600, Duration::from_secs(60), 5, 10, 105),
        ] {
            let limit = Limit::new(policy(requests, per, burst), start);
            let mut passed = 0u32;
            for ms in 0..10_000 {
                let now = start + Duration::from_millis(ms);
                passed += (0..tries).filter(|_| limit.take(b"a", now).is_ok()).count() as u32;
            }
            assert!(passed.abs_diff(want) <= want / 50 + 1, "{requests} {per:?} {burst}: {passed}, not {want}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_learns_when_there_is_room() {
        let start = Instant::now();
        let limit = Limit::new(policy(1, 10 * SECOND, 2), start);
        assert_eq!([limit.take(b"a", start), limit.take(b"a", start)], [Ok(()); 2]);
        assert_eq!(limit.take(b"a", start), Err(10));
        assert_eq!(limit.take(b"b", start), Ok(()), "another key has a bucket of its own");
        assert_eq!(limit.take(b"a", start + 9 * SECOND), Err(1));
        assert_eq!(limit.take(b"a", start + 10 * SECOND), Ok(()));
        assert_eq!(limit.take(b"a", start + 10 * SECOND + SECOND / 2), Err(10), "rounded up");
    }

    #[tokio::test(start_paused = true)]
    async fn buckets_are_bounded_and_the_idlest_go_first() {
        let start = Instant::now();
        let limit = Limit::new(policy(1, 3_600 * SECOND, 1), start);
        for number in 0..3 * BUCKETS_MAX as u64 {
            // One that is asked for again and again.
            let _ = limit.take(b"busy", start);
            assert_eq!(limit.take(&number.to_le_bytes(), start), Ok(()), "{number}");
        }
        assert!(limit.buckets() <= BUCKETS_MAX && limit.buckets() > BUCKETS_MAX - PARTS, "{}", limit.buckets());
        assert!(limit.take(b"busy", start).is_err(), "it is the last to be forgotten");
        assert_eq!(limit.take(&0u64.to_le_bytes(), start), Ok(()), "the first to be forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_keeps_what_was_counted_by_the_same_key() {
        let start = Instant::now();
        let limit = Limit::new(policy(1, 3_600 * SECOND, 1), start);
        assert_eq!(limit.take(b"a", start), Ok(()));
        let same = Limit::carried(policy(1, 1_800 * SECOND, 1), Some(&limit), start);
        assert_eq!(same.take(b"a", start), Err(1_800), "but no longer than the new limit says");
        let by_path = RateLimit { key: HashKey::Path, ..limit.policy.clone() };
        assert_eq!(Limit::carried(by_path, Some(&limit), start).take(b"a", start), Ok(()));
        assert_eq!(Limit::carried(policy(1, SECOND, 1), None, start).take(b"a", start), Ok(()));
    }
}
