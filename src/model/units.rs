//! Numbers with a range: weights and shares. Decides their bounds; `config` reports values outside.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

/// An upstream's share of its pool's traffic, 1 to 1,000.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(NonZeroU16);

impl Weight {
    /// The default weight.
    pub const ONE: Weight = Weight(NonZeroU16::MIN);
    /// The largest weight.
    pub const MAX: u16 = 1_000;

    /// `None` for 0 and below, and for more than 1,000.
    pub fn try_new(value: i64) -> Option<Weight> {
        let value = u16::try_from(value).ok().filter(|v| *v <= Weight::MAX)?;
        NonZeroU16::new(value).map(Weight)
    }

    /// The number, 1 to 1,000.
    pub fn as_u32(self) -> u32 {
        u32::from(self.0.get())
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A weight as it holds now, in thousandths: that of an upstream which has just recovered is a part of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FineWeight(NonZeroU32);

impl FineWeight {
    /// The default weight.
    pub const ONE: FineWeight = FineWeight(NonZeroU32::new(1_000).unwrap());

    /// This part of a weight, at least a thousandth.
    pub fn new(weight: Weight, part: Ratio) -> FineWeight {
        let thousandths = u64::from(weight.as_u32()) * u64::from(part.millionths()) / 1_000;
        FineWeight(u32::try_from(thousandths).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
    }

    /// In thousandths, 1 to 1,000,000.
    pub fn as_u32(self) -> u32 {
        self.0.get()
    }
}

impl From<Weight> for FineWeight {
    fn from(weight: Weight) -> FineWeight {
        FineWeight::new(weight, Ratio::ONE)
    }
}

/// A share from 0 to 1, kept in parts per million so that it compares and hashes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ratio(
    /// The millionths and one, so that an optional one takes no more room.
    NonZeroU32,
);

impl Ratio {
    /// Nothing.
    pub const ZERO: Ratio = Ratio::of_millionths(0);
    /// All.
    pub const ONE: Ratio = Ratio::of_millionths(1_000_000);

    const fn of_millionths(millionths: u32) -> Ratio {
        Ratio(NonZeroU32::MIN.saturating_add(millionths))
    }

    fn millionths(self) -> u32 {
        self.0.get() - 1
    }

    /// `None` unless `value` is a finite number from 0 to 1.
    pub fn try_new(value: f64) -> Option<Ratio> {
        (value.is_finite() && (0.0..=1.0).contains(&value)).then(|| Ratio::of_millionths((value * 1e6).round() as u32))
    }

    /// So many hundredths, at most 100.
    pub const fn percent(percent: u32) -> Ratio {
        Ratio::of_millionths(if percent < 100 { percent * 10_000 } else { 1_000_000 })
    }

    /// This share of another one.
    pub fn times(self, other: Ratio) -> Ratio {
        Ratio::of_millionths((u64::from(self.millionths()) * u64::from(other.millionths()) / 1_000_000) as u32)
    }

    /// The share as a number from 0 to 1.
    pub fn as_f64(self) -> f64 {
        f64::from(self.millionths()) / 1e6
    }

    /// `self` of `total`, rounded up.
    pub fn of_rounded_up(self, total: usize) -> usize {
        let parts = total as u128 * u128::from(self.millionths());
        usize::try_from(parts.div_ceil(1_000_000)).unwrap_or(usize::MAX)
    }

    /// `self` of `total`, rounded down.
    pub fn of_rounded_down(self, total: usize) -> usize {
        let parts = total as u128 * u128::from(self.millionths());
        usize::try_from(parts / 1_000_000).unwrap_or(usize::MAX)
    }
}

impl fmt::Debug for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_f64())
    }
}

/// `1 pass`, `2 passes`.
pub fn counted<N: fmt::Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    if count == N::from(1) { format!("1 {one}") } else { format!("{count} {many}") }
}

/// A duration in its two largest units: `3d 4h`, `2m 5s`, `12s`.
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

/// Displays a measured time, rounded for reading: `0.3 ms`, `12 ms`, `1.5 s`.
#[derive(Debug, Clone, Copy)]
pub struct Measured(pub Duration);

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Integers: every probe writes one, and formatting a float takes several times as long.
        match self.0.as_nanos() {
            ns @ ..9_950_000 => {
                let tenths = (ns as u32 + 50_000) / 100_000;
                write!(f, "{}.{} ms", tenths / 10, tenths % 10)
            }
            ns @ ..999_500_000 => write!(f, "{} ms", (ns as u32 + 500_000) / 1_000_000),
            _ => write!(f, "{:.1} s", self.0.as_secs_f64()),
        }
    }
}

/// Displays a time of the configuration with all its digits: `800 ms`, `1.25 s`.
#[derive(Debug, Clone, Copy)]
pub struct Exact(pub Duration);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_nanos() {
            ..1_000_000_000 => write!(f, "{} ms", self.0.as_nanos() as f64 / 1e6),
            _ => write!(f, "{} s", self.0.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_ten_rounds_up() {
        let share = |v| Ratio::try_new(v).unwrap().of_rounded_up(10);
        assert_eq!([share(0.0), share(0.3), share(0.31), share(1.0)], [0, 3, 4, 10]);
        assert_eq!(Ratio::try_new(f64::NAN), None);
        assert_eq!(Ratio::try_new(1.01), None);
    }

    #[test]
    fn measured_times_are_short() {
        for (micros, shown) in [
            (0, "0.0 ms"),
            (49, "0.0 ms"),
            (50, "0.1 ms"),
            (1_949, "1.9 ms"),
            (1_951, "2.0 ms"),
            (9_949, "9.9 ms"),
            (9_950, "10 ms"),
            (12_499, "12 ms"),
            (12_500, "13 ms"),
            (999_499, "999 ms"),
            (999_500, "1.0 s"),
            (1_500_000, "1.5 s"),
            (90_000_000, "90.0 s"),
        ] {
            assert_eq!(Measured(Duration::from_micros(micros)).to_string(), shown);
        }
    }

    #[test]
    fn times_of_the_configuration_keep_their_digits() {
        for (micros, shown) in [(800_000, "800 ms"), (1_500, "1.5 ms"), (1_250_000, "1.25 s"), (60_000_000, "60 s")] {
            assert_eq!(Exact(Duration::from_micros(micros)).to_string(), shown);
        }
    }

    #[test]
    fn weights_are_one_to_a_thousand() {
        assert_eq!(Weight::try_new(0), None);
        assert_eq!(Weight::try_new(1_001), None);
        assert_eq!(Weight::try_new(-1), None);
        assert_eq!(Weight::try_new(1_000).unwrap().as_u32(), 1_000);
        for (weight, percent, want) in
            [(1, 100, 1_000), (1, 10, 100), (3, 35, 1_050), (1_000, 100, 1_000_000), (1, 0, 1)]
        {
            let weight = Weight::try_new(weight).unwrap();
            assert_eq!(FineWeight::new(weight, Ratio::percent(percent)).as_u32(), want, "{percent} % of {weight:?}");
        }
        assert_eq!(FineWeight::from(Weight::ONE), FineWeight::ONE);
    }
}
