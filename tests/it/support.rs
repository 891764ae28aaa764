//! Bounded waiting. No test sleeps and hopes: it says what must become true, and how long that may take.

use std::time::Duration;

use tokio::time::Instant;

const POLL_EVERY: Duration = Duration::from_millis(5);

/// Waits until `holds` is true; panics with `what` if that takes longer than `within`.
#[track_caller]
pub fn assert_eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let what = what.to_owned();
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + within;
        while !holds() {
            assert!(Instant::now() < end, "{caller}: not within {within:?}: {what}");
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

/// As [`assert_eventually`], for tests without a runtime.
#[track_caller]
pub fn assert_eventually_blocking(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        std::thread::sleep(POLL_EVERY);
    }
}
