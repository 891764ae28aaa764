//! The time of day for `Date` fields: the clock is read for every head, and the text is made once a second and worker.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::http1::HttpDate;

thread_local! {
    /// The last second that was asked for, and its text.
    static LATEST: Cell<Option<(u64, HttpDate)>> = const { Cell::new(None) };
}

/// The date now. A clock before 1970 counts as its beginning.
pub(super) fn now() -> HttpDate {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LATEST.with(|latest| match latest.get() {
        Some((second, date)) if second == seconds => date,
        Some(_) | None => {
            let date = HttpDate::of(seconds);
            latest.set(Some((seconds, date)));
            date
        }
    })
}
