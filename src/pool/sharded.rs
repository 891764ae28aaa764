//! Counters that every worker writes and that are summed when they are read. Each worker writes to memory of its own: with
//! one counter for all, each request would move its cache line from core to core, which costs more than the rest of the
//! request's counting.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most shards: threads beyond that share them, which is right and only slower.
const SHARDS_MAX: usize = 64;

/// One `T` for each thread that writes, made at the first write.
#[derive(Debug)]
pub struct Sharded<T>(OnceLock<Box<[Shard<T>]>>);

/// Two lines: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard<T>(T);

impl<T> Default for Sharded<T> {
    fn default() -> Sharded<T> {
        Sharded(OnceLock::new())
    }
}

impl<T: Default> Sharded<T> {
    /// The one to write to from this thread.
    pub fn mine(&self) -> &T {
        let shards = self.0.get_or_init(|| (0..COUNT.load(Ordering::Relaxed)).map(|_| Shard::default()).collect());
        &shards[number() % shards.len()].0
    }

    /// Those that may have been written to, to be summed.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.get().into_iter().flat_map(|shards| shards.iter().map(|shard| &shard.0))
    }
}

/// How many threads will write. Counters that have been written to already keep the number of shards that they have.
pub fn expect_threads(threads: usize) {
    COUNT.fetch_max(threads.min(SHARDS_MAX), Ordering::Relaxed);
}

static COUNT: AtomicUsize = AtomicUsize::new(2);

/// The number of this thread among those that have written.
fn number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn what_many_threads_count_is_summed_and_nothing_is_made_before() {
        let counter: Sharded<AtomicU64> = Sharded::default();
        assert_eq!(counter.all().count(), 0);
        std::thread::scope(|scope| {
            for _ in 0..SHARDS_MAX + 3 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        counter.mine().fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let sum: u64 = counter.all().map(|shard| shard.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, 1_000 * (SHARDS_MAX as u64 + 3));
    }

    #[test]
    fn shards_lie_in_lines_of_their_own() {
        let counter: Sharded<AtomicU64> = Sharded::default();
        counter.mine();
        let places: Vec<_> = counter.all().map(|shard| std::ptr::from_ref(shard) as usize).collect();
        assert!(places.len() > 1 && places.windows(2).all(|pair| pair[1] - pair[0] >= 128), "{places:?}");
    }
}
