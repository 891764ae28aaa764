//! The signals of the process as one stream of orders: HUP reloads; TERM, INT and QUIT stop, and another of them, more
//! than a second later, stops at once; USR1 reopens log files; USR2 is ignored.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Stop signals within this time count as one, because supervisors and terminals send several for one stop.
pub const ONE_STOP: Duration = Duration::from_secs(1);

/// The meaning of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// HUP.
    Reload,
    /// TERM, INT or QUIT.
    Stop,
    /// USR1.
    ReopenLogs,
    /// USR2, which upgrades the binary in other servers, and is ignored here.
    Ignore,
}

/// The handled signals. Installed once, before any slow step of the start.
#[derive(Debug)]
pub struct Signals {
    hup: Signal,
    term: Signal,
    int: Signal,
    quit: Signal,
    usr1: Signal,
    usr2: Signal,
}

impl Signals {
    /// Installs the handlers; must run within a runtime.
    pub fn install() -> io::Result<Signals> {
        Ok(Signals {
            hup: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next order. Cancel-safe. Several equal signals may be merged into one.
    pub async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.term.recv() => Order::Stop,
            _ = self.int.recv() => Order::Stop,
            _ = self.quit.recv() => Order::Stop,
            _ = self.hup.recv() => Order::Reload,
            _ = self.usr1.recv() => Order::ReopenLogs,
            _ = self.usr2.recv() => Order::Ignore,
        }
    }
}

/// Whether a stop signal at `now`, after the first one at `first`, ends the process at once.
pub fn stops_at_once(first: Instant, now: Instant) -> bool {
    now.saturating_duration_since(first) > ONE_STOP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stop_signals_within_a_second_count_as_one() {
        let first = Instant::now();
        for (millis, at_once) in [(0, false), (1, false), (999, false), (1_000, false), (1_001, true), (60_000, true)] {
            assert_eq!(stops_at_once(first, first + Duration::from_millis(millis)), at_once, "after {millis} ms");
        }
        assert!(!stops_at_once(first, first - Duration::from_millis(1)));
    }
}
