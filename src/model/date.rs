//! Dates as RFC 3339 in UTC, as the API, the log and the descriptions of certificates show them. It takes times since the
//! beginning of 1970 as arguments; its callers read the clock.

use std::time::{Duration, UNIX_EPOCH};

use humantime::{format_rfc3339_millis, format_rfc3339_seconds};

/// The last second of the year 9999. RFC 3339 has four digits for a year.
const LAST_SECOND: u64 = 253_402_300_799;
/// The calendar repeats after 400 years: 146,097 days.
const SECONDS_OF_400_YEARS: i64 = 146_097 * 86_400;

/// `2026-11-21T10:00:00.123Z`, for a time since the beginning of 1970. A time after 9999 gives the last second of 9999.
pub fn with_millis(since_1970: Duration) -> String {
    let shown = since_1970.min(Duration::from_secs(LAST_SECOND));
    format_rfc3339_millis(UNIX_EPOCH + shown).to_string()
}

/// `2026-11-21T10:00:00Z`, for seconds since the beginning of 1970, or before it if negative. `None` if the year is not in
/// 0 to 9999.
pub fn with_seconds(seconds: i64) -> Option<String> {
    // The library formats no date before 1970: format the same day five times 400 years later.
    let eras_later = if seconds < 0 { 5 } else { 0 };
    let later = u64::try_from(seconds.checked_add(eras_later * SECONDS_OF_400_YEARS)?).ok()?;
    if later > LAST_SECOND {
        return None;
    }
    let text = format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(later)).to_string();
    let (year, rest) = text.split_at_checked(4)?;
    let year = year.parse::<i64>().ok()? - eras_later * 400;
    (year >= 0).then(|| format!("{year:04}{rest}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_have_seconds_or_milliseconds_and_a_zone() {
        for (millis, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_255_200_123, "2026-11-21T10:00:00.123Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(with_millis(Duration::from_millis(millis)), want);
        }
        for (seconds, want) in [
            (0, Some("1970-01-01T00:00:00Z")),
            (1_893_456_000, Some("2030-01-01T00:00:00Z")),
            (951_782_400, Some("2000-02-29T00:00:00Z")),
            // RFC 5280, section 4.1.2.5: a certificate without an end.
            (253_402_300_799, Some("9999-12-31T23:59:59Z")),
            (253_402_300_800, None),
            (i64::MAX, None),
            (-1, Some("1969-12-31T23:59:59Z")),
            (-631_152_000, Some("1950-01-01T00:00:00Z")),
            (-2_203_891_200, Some("1900-03-01T00:00:00Z")),
            (-62_167_219_200, Some("0000-01-01T00:00:00Z")),
            (-62_167_219_201, None),
            (i64::MIN, None),
        ] {
            assert_eq!(with_seconds(seconds).as_deref(), want, "{seconds}");
        }
    }

    proptest! {
        #[test]
        fn a_date_is_read_back_as_the_same_time(millis in 0..=LAST_SECOND * 1_000) {
            let since_1970 = Duration::from_millis(millis);
            let read = |text: String| humantime::parse_rfc3339(&text).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            prop_assert_eq!(read(with_millis(since_1970)), Some(since_1970));
            let seconds = i64::try_from(since_1970.as_secs()).expect("the year has four digits");
            let whole = with_seconds(seconds).and_then(read);
            prop_assert_eq!(whole, Some(Duration::from_secs(since_1970.as_secs())));
        }
    }
}
