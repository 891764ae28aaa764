//! An instant that one thread sets and others read, without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The value for "never".
const NEVER: u64 = u64::MAX;

/// How long before the first instant that is set others may lie: longer than any verdict is valid.
const BEFORE_FIRST: Duration = Duration::from_secs(30 * 24 * 3_600);

/// An instant, or never; kept in milliseconds, rounded down.
#[derive(Debug)]
pub struct SharedInstant {
    /// What the milliseconds are counted from.
    origin: OnceLock<Instant>,
    ms: AtomicU64,
}

impl SharedInstant {
    /// Never.
    pub const fn never() -> SharedInstant {
        SharedInstant { origin: OnceLock::new(), ms: AtomicU64::new(NEVER) }
    }

    /// Sets it; `None`: never.
    pub fn set(&self, at: Option<Instant>) {
        let ms = at.map_or(NEVER, |at| {
            let origin = self.origin.get_or_init(|| at.checked_sub(BEFORE_FIRST).unwrap_or(at));
            u64::try_from(at.saturating_duration_since(*origin).as_millis()).unwrap_or(NEVER)
        });
        self.ms.store(ms, Ordering::Release);
    }

    /// The last value set; `None`: never.
    pub fn get(&self) -> Option<Instant> {
        match (self.ms.load(Ordering::Acquire), self.origin.get()) {
            (NEVER, _) | (_, None) => None,
            (ms, Some(origin)) => Some(*origin + Duration::from_millis(ms)),
        }
    }

    /// Whether the instant is `now` or earlier.
    pub fn has_come(&self, now: Instant) -> bool {
        self.get().is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_comes_at_its_millisecond_and_never_does_not() {
        let (now, ms) = (Instant::now(), Duration::from_millis);
        let shared = SharedInstant::never();
        assert!(!shared.has_come(now + ms(1 << 40)) && shared.get().is_none());
        for at in [20, 90_000, 5] {
            shared.set(Some(now + ms(at) + Duration::from_micros(900)));
            assert!(!shared.has_come(now + ms(at) - ms(1)) && shared.has_come(now + ms(at + 1)), "{at}");
            assert!(shared.get().is_some_and(|got| got <= now + ms(at + 1) && got >= now + ms(at)), "{at}");
        }
        shared.set(None);
        assert!(!shared.has_come(now + ms(1 << 40)));
    }
}
