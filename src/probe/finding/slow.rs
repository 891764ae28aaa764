//! `expect.max_duration`: a right answer that took too long.

use std::time::Duration;

use crate::model::units::{Exact, Measured};
use crate::model::{Code, ProbeReport};

/// Turns a pass that was decided after `decided_in` into a timeout of its layer if that is more than `max`. Other reports
/// stay as they are.
pub(in crate::probe) fn check_duration(report: &mut ProbeReport, decided_in: Duration, max: Option<Duration>) {
    let (Some(code), Some(max)) = (timeout_of(report.code), max) else { return };
    if decided_in <= max {
        return;
    }
    let (mut after, limit) = (Measured(decided_in).to_string(), Exact(max));
    if after == Measured(max).to_string() {
        // Rounded, it would look as if it was in time.
        after = format!("{} ms", decided_in.as_micros() as f64 / 1e3);
    }
    report.code = code;
    report.reason = format!("right, but after {after}; at most {limit}").into_boxed_str();
    report.hint = None;
}

/// The timeout code for the code of a pass; `None`: not a pass.
fn timeout_of(code: Code) -> Option<Code> {
    match code {
        Code::L4Ok => Some(Code::L4Tout),
        Code::L6Ok => Some(Code::L6Tout),
        Code::L7Ok => Some(Code::L7Tout),
        Code::L4Con | Code::L4Tout | Code::L6Rsp | Code::L6Tout => None,
        Code::L7Tout | Code::L7Rsp | Code::L7Sts | Code::NoRes | Code::Panic => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pass_that_took_too_long_becomes_a_time_out() {
        let report =
            |code| ProbeReport { status: Some(200), ..ProbeReport::new(code, Duration::from_secs(2), "as it was") };
        let ms = Duration::from_millis;
        for (code, decided_in, max, want) in [
            (Code::L7Ok, ms(1_249), Some(ms(800)), (Code::L7Tout, "right, but after 1.2 s; at most 800 ms")),
            (Code::L7Ok, ms(801), Some(ms(800)), (Code::L7Tout, "right, but after 801 ms; at most 800 ms")),
            (Code::L7Ok, ms(1_240), Some(ms(1_200)), (Code::L7Tout, "right, but after 1240 ms; at most 1.2 s")),
            (Code::L6Ok, ms(30), Some(ms(5)), (Code::L6Tout, "right, but after 30 ms; at most 5 ms")),
            (Code::L4Ok, ms(30), Some(ms(5)), (Code::L4Tout, "right, but after 30 ms; at most 5 ms")),
            (Code::L7Ok, ms(800), Some(ms(800)), (Code::L7Ok, "as it was")),
            (Code::L7Ok, ms(9_000), None, (Code::L7Ok, "as it was")),
            (Code::L7Sts, ms(9_000), Some(ms(5)), (Code::L7Sts, "as it was")),
            (Code::NoRes, ms(9_000), Some(ms(5)), (Code::NoRes, "as it was")),
        ] {
            let mut checked = report(code);
            check_duration(&mut checked, decided_in, max);
            assert_eq!((checked.code, &*checked.reason), want);
            assert_eq!((checked.status, checked.duration), (Some(200), Duration::from_secs(2)));
        }
    }
}
