//! When checks run: the written keys, else those of the preset, else the defaults. Only written keys can be refused: a
//! preset's times and the defaults give way to them.

use std::time::Duration;

use crate::config::raw;
use crate::config::read::Field;
use crate::config::report::{Found, Report};
use crate::config::values::{Count, Span};
use crate::model::Ratio;
use crate::model::policy::Timing;
use crate::model::written::show_duration;

/// One small request in ten seconds costs little, and a dead upstream is found within half a minute.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// How long a check may take, unless the interval is shorter.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// A change is confirmed quickly, unless the interval is shorter still.
const DEFAULT_FAST_INTERVAL: Duration = Duration::from_secs(1);
/// One pass may be chance.
const DEFAULT_HEALTHY_THRESHOLD: u32 = 2;
/// A lost packet or one slow answer is not an outage.
const DEFAULT_UNHEALTHY_THRESHOLD: u32 = 3;
/// Keeps the checks of many balancers from running at the same moment.
const DEFAULT_JITTER: f64 = 0.1;

/// The timing of a check from the written keys and its preset.
pub fn timing(written: &raw::Timing, preset: &raw::Timing) -> Timing {
    let (timeout, fast) = (span(&written.timeout), span(&written.fast_interval));
    let rarely = span(&written.unhealthy_interval);
    let interval = span(&written.interval).unwrap_or_else(|| {
        // A preset's interval adapts to the written keys.
        let preset = span(&preset.interval).map(|i| i.min(rarely.unwrap_or(i)));
        let preset = preset.map(|i| i.max(timeout.unwrap_or(i)).max(fast.unwrap_or(i)));
        preset.unwrap_or(DEFAULT_INTERVAL)
    });
    let up_to_interval = |preset: Option<Duration>, default: Duration| preset.unwrap_or(default).min(interval);
    Timing {
        interval,
        // Equal timings share a probe, however they are written.
        unhealthy_interval: rarely.or(span(&preset.unhealthy_interval)).filter(|rarely| *rarely > interval),
        timeout: timeout.unwrap_or_else(|| up_to_interval(span(&preset.timeout), DEFAULT_TIMEOUT)),
        healthy_threshold: count(&written.healthy_threshold)
            .or(count(&preset.healthy_threshold))
            .unwrap_or(DEFAULT_HEALTHY_THRESHOLD),
        unhealthy_threshold: count(&written.unhealthy_threshold)
            .or(count(&preset.unhealthy_threshold))
            .unwrap_or(DEFAULT_UNHEALTHY_THRESHOLD),
        fast_interval: fast.unwrap_or_else(|| up_to_interval(span(&preset.fast_interval), DEFAULT_FAST_INTERVAL)),
        start_period: span(&written.start_period).or(span(&preset.start_period)).unwrap_or(Duration::ZERO),
        jitter: (written.jitter.value().or(preset.jitter.value()))
            .map_or_else(|| Ratio::try_new(DEFAULT_JITTER).expect("the constant is a share"), |share| share.0),
    }
}

fn span<const MIN: u64, const MAX: u64>(field: &Field<Span<MIN, MAX>>) -> Option<Duration> {
    field.value().map(|span| span.0)
}

fn count<const MIN: i64, const MAX: i64>(field: &Field<Count<MIN, MAX>>) -> Option<u32> {
    field.value().and_then(|count| u32::try_from(count.0).ok())
}

/// Refuses a written timeout or fast interval above the interval, and an unhealthy interval below it, where one of the two is
/// in `written`. `above` is what is beside `checks`; two of its values are compared when it is `written` itself.
pub fn refuse_conflicts_with_interval(
    written: &raw::Timing,
    above: &raw::Timing,
    preset: &raw::Timing,
    key: &str,
    report: &mut Report,
) {
    let mut explicit = written.clone();
    explicit.fill_from(above);
    refuse_shorter_than_interval(written, &explicit, preset, key, report);
    if matches!(explicit.interval, Field::Bad) || (explicit.interval.is_absent() && !preset.interval.is_absent()) {
        return;
    }
    let interval = span(&explicit.interval).unwrap_or(DEFAULT_INTERVAL);
    let values = [
        ("timeout", explicit.timeout.get().map(|at| (at.value.0, &at.span)), written.timeout.is_absent()),
        (
            "fast_interval",
            explicit.fast_interval.get().map(|at| (at.value.0, &at.span)),
            written.fast_interval.is_absent(),
        ),
    ];
    for (name, value, from_above) in values {
        let Some((duration, span)) = value.filter(|(duration, _)| *duration > interval) else { continue };
        let (shown, limit) = (show_duration(duration), show_duration(interval));
        let found = match (from_above, written.interval.get()) {
            (false, _) => {
                let default = if explicit.interval.is_absent() { " (its default)" } else { "" };
                let message = format!("\"{shown}\" exceeds the interval \"{limit}\"{default}");
                let found = Found::error(span.clone(), format!("{key}.{name}"), message);
                found.expected(format!("at most \"{limit}\""))
            }
            (true, Some(at)) => {
                let message = format!("\"{limit}\" is shorter than the {name} \"{shown}\" beside `checks`");
                let found = Found::error(at.span.clone(), format!("{key}.interval"), message);
                found.expected(format!("a `{name}` beside it of at most \"{limit}\""))
            }
            // Both are beside `checks`, and reported there.
            (true, None) => continue,
        };
        report.add(found);
    }
}

fn refuse_shorter_than_interval(
    written: &raw::Timing,
    explicit: &raw::Timing,
    preset: &raw::Timing,
    key: &str,
    report: &mut Report,
) {
    let (Some(rarely), false) = (explicit.unhealthy_interval.get(), matches!(explicit.interval, Field::Bad)) else {
        return;
    };
    // A preset's interval gives way, but not below a written timeout.
    let (least, name, default) = match (span(&explicit.interval), preset.interval.is_absent()) {
        (Some(interval), _) => (interval, "interval", ""),
        (None, true) => (DEFAULT_INTERVAL, "interval", " (its default)"),
        (None, false) => {
            let values = [("timeout", span(&explicit.timeout)), ("fast_interval", span(&explicit.fast_interval))];
            let longest = values.into_iter().filter_map(|(name, value)| Some((value?, name))).max();
            let Some((least, name)) = longest else { return };
            (least, name, "")
        }
    };
    let own = rarely.value.0;
    if own >= least {
        return;
    }
    let (shown, limit) = (show_duration(own), show_duration(least));
    let of_list = written.unhealthy_interval.is_absent();
    report.add(match written.interval.get() {
        Some(interval) if of_list => {
            let message = format!("\"{limit}\" is longer than the unhealthy_interval \"{shown}\" beside `checks`");
            let found = Found::error(interval.span.clone(), format!("{key}.interval"), message);
            found.expected(format!("an `unhealthy_interval` beside it of at least \"{limit}\""))
        }
        // Both are beside `checks`, and reported there.
        None if of_list && name == "interval" => return,
        Some(_) | None => {
            let message = format!("\"{shown}\" is shorter than the {name} \"{limit}\"{default}");
            let found = Found::error(rarely.span.clone(), format!("{key}.unhealthy_interval"), message);
            found.expected(format!("at least \"{limit}\""))
        }
    });
}
