//! Durations (`"250ms"`, `"1m30s"`) as people write them. Decides what is valid; each key has its own range.

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
}
