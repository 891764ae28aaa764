//! How far a pool is from serving without its removed upstreams, in one sentence. Pure.

use std::time::Duration;

/// How many of the configured upstreams can serve, while removed ones serve for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Primaries that are healthy and enabled; backups, if there are no primaries.
    pub able: usize,
    /// How many must be; at least 1.
    pub needed: usize,
    /// Backups that can serve, but are no reason to let primaries go.
    pub backups: usize,
}

impl Progress {
    /// `removed upstreams serve 30 s more at most: no upstream of the new configuration can serve yet`.
    pub fn sentence(self, left: Duration) -> String {
        // Rounded up: "0 s more" would be wrong until the last moment.
        let seconds = left.as_millis().div_ceil(1_000);
        let rank = if self.backups > 0 { "primary" } else { "upstream" };
        let why = match (self.able, self.needed) {
            (0, _) => format!("no {rank} of the new configuration can serve yet"),
            (able, needed) => {
                format!("only {able} of the new configuration can serve yet, and min_healthy requires {needed}")
            }
        };
        format!("removed upstreams serve {seconds} s more at most: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_what_is_missing_and_how_long_that_may_last() {
        for (able, needed, backups, ms, want) in [
            (0, 1, 0, 30_000, "serve 30 s more at most: no upstream of the new configuration can serve yet"),
            (0, 2, 1, 0, "serve 0 s more at most: no primary of the new configuration can serve yet"),
            (
                1,
                2,
                1,
                11_001,
                "serve 12 s more at most: only 1 of the new configuration can serve yet, and min_healthy requires 2",
            ),
        ] {
            let said = Progress { able, needed, backups }.sentence(Duration::from_millis(ms));
            assert_eq!(said, format!("removed upstreams {want}"));
        }
    }
}
