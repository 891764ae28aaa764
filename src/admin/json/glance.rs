//! What people look at first, made of the API's numbers and dates: for the page and for the commands.

use std::time::Duration;

use jiff::Timestamp;

use super::UpstreamInfo;

impl UpstreamInfo {
    /// Requests that went wrong there: no connection, or broken.
    pub fn errors_total(&self) -> u64 {
        self.connect_failures_total.saturating_add(self.broken_total)
    }

    /// How long its last check took; `None` before the first.
    pub fn latency(&self) -> Option<Duration> {
        let last = self.last_check.as_ref()?;
        Duration::try_from_secs_f64(last.duration_ms / 1e3).ok()
    }
}

/// A duration at a glance, in its two largest units: `3d 4h`, `2m 5s`, `12s`.
pub fn glance(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, length)| seconds >= *length).unwrap_or(units.len() - 1);
    let (unit, length) = units[first];
    let mut text = format!("{}{unit}", seconds / length);
    if let Some((unit, length)) = units.get(first + 1)
        && seconds % units[first].1 >= *length
    {
        text.push_str(&format!(" {}{unit}", seconds % units[first].1 / length));
    }
    text
}

/// A short time with two figures at least: `0.42 ms`, `12 ms`, `1.2 s`.
pub fn short(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        ..1.0 => format!("{ms:.2} ms"),
        ..10.0 => format!("{ms:.1} ms"),
        ..1_000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1e3),
    }
}

/// How long ago an RFC 3339 date was; 0 when it is in the future, because clocks differ.
pub fn ago(date: &str, now: Timestamp) -> Option<Duration> {
    let then: Timestamp = date.parse().ok()?;
    Some(Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_shows_its_two_largest_units() {
        for (seconds, want) in [
            (0, "0s"),
            (12, "12s"),
            (60, "1m"),
            (125, "2m 5s"),
            (3_600, "1h"),
            (3_659, "1h"),
            (7_384, "2h 3m"),
            (277_200, "3d 5h"),
        ] {
            assert_eq!(glance(Duration::from_secs(seconds)), want);
        }
    }

    #[test]
    fn a_short_time_has_two_figures() {
        for (us, want) in
            [(420, "0.42 ms"), (1_900, "1.9 ms"), (12_345, "12 ms"), (999_000, "999 ms"), (1_234_000, "1.2 s")]
        {
            assert_eq!(short(Duration::from_micros(us)), want);
        }
    }

    #[test]
    fn a_date_in_the_future_is_no_time_ago() {
        let now: Timestamp = "2026-11-21T10:00:00.000Z".parse().unwrap();
        assert_eq!(ago("2026-11-21T09:59:00.000Z", now), Some(Duration::from_secs(60)));
        assert_eq!(ago("2026-11-21T10:01:00.000Z", now), Some(Duration::ZERO));
        assert_eq!(ago("yesterday", now), None);
    }
}
