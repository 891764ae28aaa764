//! Durations (`"250ms"`, `"1m30s"`) and sizes (`"32KiB"`) as people write them. Decides what is valid; each key has its own range.

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
        DurationError::UnknownUnit { unit, .. } => format!(" has the unknown unit {}", super::quote::quoted(&unit)),
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

/// Units of sizes.
const SIZES: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Reads a size in bytes: a whole number with a unit, of which `KiB`, `MiB` and `GiB` are powers of 1,024, and `KB`, `MB` and
/// `GB` of 1,000.
///
/// # Errors
/// What is wrong, as a phrase after the value.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(" is not a size".to_owned());
    }
    if unit.is_empty() {
        return Err(" has no unit".to_owned());
    }
    let factor = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let factor = factor.ok_or_else(|| format!(" has the unknown unit {}", super::quote::quoted(unit)))?;
    number.parse().ok().and_then(|number: u64| number.checked_mul(factor)).ok_or_else(|| " is too large".to_owned())
}

/// A size in the notation of the file, in the largest unit that divides it: `64KiB`, `100B`.
pub fn show_size(bytes: u64) -> String {
    let units = SIZES.iter().take(3).rev();
    let (name, factor) =
        units.into_iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / factor)
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
    fn sizes_are_read_and_shown_and_others_get_a_reason() {
        for (text, bytes) in [
            ("0B", 0),
            ("100B", 100),
            ("32KiB", 32_768),
            ("1MiB", 1 << 20),
            ("2GiB", 2 << 30),
            ("1KB", 1_000),
            ("3MB", 3_000_000),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, reason) in [
            ("", " is not a size"),
            ("KiB", " is not a size"),
            ("-1B", " is not a size"),
            ("32", " has no unit"),
            ("32k", " has the unknown unit \"k\""),
            ("32 KiB", " has the unknown unit \" KiB\""),
            ("1.5KiB", " has the unknown unit \".5KiB\""),
            ("99999999999999999999B", " is too large"),
            ("18446744073709551615KiB", " is too large"),
        ] {
            assert_eq!(size(text).unwrap_err(), reason, "{text}");
        }
        for (bytes, shown) in
            [(0, "0B"), (64, "64B"), (1_024, "1KiB"), (1_500, "1500B"), (65_536, "64KiB"), (1 << 30, "1GiB")]
        {
            assert_eq!(show_size(bytes), shown);
            assert_eq!(size(shown), Ok(bytes));
        }
    }

    #[test]
    fn a_duration_is_shown_as_it_is_written() {
        assert_eq!(show_duration(Duration::from_millis(90_250)), "1m30s250ms");
    }
}
