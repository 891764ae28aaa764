//! Durations (`"250ms"`, `"1m30s"`) and sizes (`"64KiB"`, `"10MB"`) as people write them. Decides what is valid; each
//! key has its own range.

use std::time::Duration;

use humantime::DurationError;

/// Reads a duration: numbers with a unit (`ns us ms s m h d`, or the words for them), added up.
///
/// # Errors
/// What is wrong, as a phrase after the value; huge numbers are an error, not an overflow.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        // In the grammar of the library `1M` is a month, which is never meant here.
        return Err(" has a unit in capitals".to_owned());
    }
    humantime::parse_duration(text).map_err(|error| match error {
        DurationError::UnknownUnit { unit, .. } if unit.is_empty() => " has no unit".to_owned(),
        DurationError::UnknownUnit { unit, .. } => format!(" has the unknown unit {}", super::read::quoted(&unit)),
        DurationError::NumberOverflow => " is too large".to_owned(),
        DurationError::Empty | DurationError::InvalidCharacter(_) | DurationError::NumberExpected(_) => {
            " is not a duration".to_owned()
        }
    })
}

/// Reads a duration on the command line.
///
/// # Errors
/// What is wrong with it, and what is expected, in one sentence.
pub fn duration_argument(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|problem| {
        format!("it{problem}; expected a number with a unit (ms, s, m, h or d), such as 90s, 10m or 1h30m")
    })
}

/// A duration in the notation of the file: `1m30s`, `250ms`.
pub fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

/// Reads a size in bytes: `"64KiB"`, `"10MB"`, `"512"`.
///
/// # Errors
/// What is wrong, as a phrase after the value; huge numbers are an error, not an overflow.
pub fn size(text: &str) -> Result<u64, String> {
    let problem = || " is not a size".to_owned();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(problem()),
    };
    if number.is_empty() {
        return Err(problem());
    }
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(|| " is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_durations_are_read_and_others_get_a_reason() {
        for (text, ms) in
            [("250ms", 250), ("5s", 5_000), ("1m30s", 90_000), ("24h", 86_400_000), ("0s", 0), ("0.5s", 500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, reason) in [
            ("", " is not a duration"),
            ("5", " has no unit"),
            ("5x", " has the unknown unit \"x\""),
            ("5M", " has a unit in capitals"),
            ("-5s", " is not a duration"),
            ("1e300s", " has the unknown unit \"e\""),
            ("99999999999999999999h", " is too large"),
            ("nan", " is not a duration"),
        ] {
            assert_eq!(duration(text).unwrap_err(), reason, "{text}");
        }
        // Large but representable: the range of the key refuses it.
        assert!(duration("99999999999h").is_ok_and(|d| d > Duration::from_secs(86_400)));
    }

    #[test]
    fn the_command_line_names_the_units() {
        assert_eq!(duration_argument("90s"), Ok(Duration::from_secs(90)));
        for (text, problem) in [
            ("1x", "it has the unknown unit \"x\"; expected a number with a unit (ms, s, m, h or d)"),
            ("10", "it has no unit; expected"),
            ("5M", "it has a unit in capitals; expected"),
            ("", "it is not a duration; expected"),
        ] {
            assert!(duration_argument(text).unwrap_err().starts_with(problem), "{text}");
        }
    }

    #[test]
    fn a_duration_is_shown_as_it_is_written() {
        assert_eq!(show_duration(Duration::from_millis(90_250)), "1m30s250ms");
    }

    #[test]
    fn valid_sizes_are_read_and_others_get_a_reason() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("64KiB", 65_536), ("10MB", 10_000_000), ("1 GiB", 1 << 30), ("7kB", 7_000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, reason) in [
            ("", " is not a size"),
            ("KiB", " is not a size"),
            ("1.5MB", " is not a size"),
            ("-1", " is not a size"),
            ("5 parsecs", " is not a size"),
            ("99999999999GiB", " is too large"),
        ] {
            assert_eq!(size(text).unwrap_err(), reason, "{text}");
        }
    }
}
