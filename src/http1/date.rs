//! The form of a moment in a `Date` field (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`. Which moment it is, the
//! caller says.

use std::fmt;

/// A moment in whole seconds, as written in a `Date` field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HttpDate([u8; 29]);

/// The end of the year 9999: the form has no place for a fifth digit.
const LAST_SECOND: u64 = 253_402_300_799;

impl HttpDate {
    /// The moment so many seconds after the beginning of 1970 (UTC, without leap seconds). One after the year 9999 becomes the
    /// last of it.
    pub fn of(seconds: u64) -> HttpDate {
        let seconds = seconds.min(LAST_SECOND);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
        // 1970 began on a Thursday.
        text[..3].copy_from_slice(&name(b"ThuFriSatSunMonTueWed", days % 7));
        text[5..7].copy_from_slice(&two(day));
        text[8..11].copy_from_slice(&name(b"JanFebMarAprMayJunJulAugSepOctNovDec", month));
        text[12..14].copy_from_slice(&two(year / 100));
        text[14..16].copy_from_slice(&two(year % 100));
        text[17..19].copy_from_slice(&two(second / 3_600));
        text[20..22].copy_from_slice(&two(second / 60 % 60));
        text[23..25].copy_from_slice(&two(second % 60));
        HttpDate(text)
    }

    /// Its bytes, all ASCII.
    pub fn as_bytes(&self) -> &[u8; 29] {
        &self.0
    }
}

impl fmt::Debug for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpDate({})", self.0.escape_ascii())
    }
}

/// Year, month (0 is January) and day of the month of a day, counted from the beginning of 1970, in the Gregorian calendar.
/// Counts years from March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // From 0000-03-01, which begins a period of 400 years, to 1970-01-01.
    let days = days + 719_468;
    let (period, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // Months from March on: every five have 153 days.
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 2, 0) } else { (month - 10, 1) };
    (period * 400 + year + carry, month, day_of_month)
}

fn two(number: u64) -> [u8; 2] {
    [number / 10, number % 10].map(|digit| b'0' + digit as u8)
}

/// The name with this number, of names of three letters.
fn name(names: &[u8], number: u64) -> [u8; 3] {
    std::array::from_fn(|letter| names[3 * number as usize + letter])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moment_is_written_as_rfc_9110_writes_it() {
        for (seconds, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (68_169_599, "Mon, 28 Feb 1972 23:59:59 GMT"),
            (68_169_600, "Tue, 29 Feb 1972 00:00:00 GMT"),
            (68_256_000, "Wed, 01 Mar 1972 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (978_220_800, "Sun, 31 Dec 2000 00:00:00 GMT"),
            (2_147_483_647, "Tue, 19 Jan 2038 03:14:07 GMT"),
            (2_147_483_648, "Tue, 19 Jan 2038 03:14:08 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (4_294_967_296, "Sun, 07 Feb 2106 06:28:16 GMT"),
            (13_574_563_200, "Tue, 29 Feb 2400 00:00:00 GMT"),
            (LAST_SECOND, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (LAST_SECOND + 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(HttpDate::of(seconds).as_bytes()), Ok(want), "{seconds}");
        }
    }

    proptest! {
        /// Another library writes the same date and time of day.
        #[test]
        fn every_moment_is_the_one_of_the_calendar(seconds in 0..=LAST_SECOND) {
            let text = String::from_utf8(HttpDate::of(seconds).as_bytes().to_vec()).unwrap();
            let parts: Vec<&str> = text.split(' ').collect();
            let month = 1 + "JanFebMarAprMayJunJulAugSepOctNovDec".find(parts[2]).unwrap() / 3;
            let theirs = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
            prop_assert_eq!(format!("{}-{month:02}-{}T{}Z", parts[3], parts[1], parts[4]), theirs);
            let days = ["Thu,", "Fri,", "Sat,", "Sun,", "Mon,", "Tue,", "Wed,"];
            prop_assert_eq!(parts[0], days[(seconds / 86_400 % 7) as usize]);
        }
    }
}
