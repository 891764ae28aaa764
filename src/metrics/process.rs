//! The families of the process: its listeners, its checker, and the values from `/proc`, under the names that
//! Prometheus client libraries use for them.

use std::fmt;
use std::fs;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Scrape;
use super::families::Families;
use crate::pool::{AnswerReason, CheckerStatus, FrontStats};

/// Clock ticks per second in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture Linux runs this on.
const USER_HZ: f64 = 100.0;

/// What the listeners count outside of any pool.
pub fn encode_front(to: &mut Families<'_>, front: &FrontStats) -> fmt::Result {
    let open = front.connections_open.load(Relaxed);
    to.gauge("roundsman_connections_open", "Client connections open now", open)?;
    to.counter("roundsman_connections", "Client connections accepted", front.connections.load(Relaxed))?;
    let help = "Client connections closed because nothing came in time";
    to.counter("roundsman_connections_silent", help, front.silent.load(Relaxed))?;
    let help = "Client connections closed because their client had as many as it may";
    to.counter("roundsman_connections_refused", help, front.refused.load(Relaxed))?;
    let help = "How often accepting paused because descriptors or memory were short";
    to.counter("roundsman_accept_rests", help, front.accept_rests.load(Relaxed))?;
    to.counters("roundsman_requests_by_lane", "Requests carried to an upstream, by lane", |series| {
        front.by_lane().into_iter().try_for_each(|(lane, count)| series.put(&[("lane", lane.as_str())], count))
    })?;
    to.counters("roundsman_front_answers", "Our own answers to requests that reached no pool, by reason", |series| {
        AnswerReason::ALL.into_iter().try_for_each(|r| series.put(&[("reason", r.as_str())], front.answers.get(r)))
    })
}

/// The state of the checker itself.
pub fn encode_checker(to: &mut Families<'_>, checker: &CheckerStatus) -> fmt::Result {
    let help = "Whether the checker is not running, so that verdicts may be out of date";
    to.gauge("roundsman_checker_stale", help, u64::from(checker.stale))?;
    let help = "The latest start of a probe after it was due, over the last minute; one overdue now counts";
    to.gauge("roundsman_probe_lag_seconds", help, checker.lag.as_secs_f64())?;
    to.gauge("roundsman_probes_in_flight", "Probes in flight", checker.probes_in_flight)?;
    to.counter("roundsman_checker_restarts", "How often the checker had to be restarted", checker.restarts_total)?;
    to.counter("roundsman_checker_probe_panics", "Probes that panicked", checker.probe_panics_total)
}

/// The process itself. Values that `/proc` does not have are left out.
pub fn encode(to: &mut Families<'_>, scrape: &Scrape) -> fmt::Result {
    to.counter("roundsman_panics", "Threads and tasks that panicked", scrape.panics)?;
    let help = "Log lines lost because the output was blocked or could not be written";
    to.counter("roundsman_log_lines_dropped", help, scrape.log_lines_dropped)?;
    let help = "Lines of the access log lost because the output was blocked or could not be written";
    to.counter("roundsman_access_log_lines_dropped", help, scrape.access_lines_dropped)?;
    let started = unix_seconds(scrape.started);
    to.gauge("process_start_time_seconds", "When the process started, in seconds since 1970", started)?;
    if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
        to.counter("process_cpu_seconds", "User and system CPU time spent", seconds)?;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kib) = status_value(&status, "VmRSS") {
        to.gauge("process_resident_memory_bytes", "Resident memory", kib * 1_024)?;
    }
    if let Some(kib) = status_value(&status, "VmSize") {
        to.gauge("process_virtual_memory_bytes", "Virtual memory", kib * 1_024)?;
    }
    if let Some(threads) = status_value(&status, "Threads") {
        to.gauge("process_threads", "Threads", threads)?;
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the descriptor of the directory itself.
        let count = open.count().saturating_sub(1);
        to.gauge("process_open_fds", "Open file descriptors", count)?;
    }
    if let Some(max) = fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(descriptors_max) {
        to.gauge("process_max_fds", "The limit of open file descriptors", max)?;
    }
    Ok(())
}

/// A date in seconds since 1970.
pub fn unix_seconds(date: SystemTime) -> f64 {
    date.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// User and system time of `/proc/PID/stat`, the 14th and 15th field. The second field is a name in parentheses that
/// may hold anything, so fields are counted from its end.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / USER_HZ)
}

/// The number in a line of `/proc/PID/status`; memory is in KiB.
fn status_value(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn descriptors_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_even_with_an_odd_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
        assert_eq!(status_value("Name:\ta\nVmRSS:\t   1234 kB\nThreads:\t9\n", "VmRSS"), Some(1_234));
        assert_eq!(status_value("VmRSSX: 1", "VmRSS"), None);
        assert_eq!(descriptors_max("Max open files            1024                 4096      files"), Some(1_024));
    }
}
