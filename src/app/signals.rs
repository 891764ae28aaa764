//! The signals of the process as one stream of orders: HUP reloads, TERM and INT stop, a second one of them stops at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// HUP.
    Reload,
    /// TERM or INT.
    Stop,
    /// USR1.
    ReopenLogs,
}

/// The signals we listen to. Made once, before anything else can fail slowly.
#[derive(Debug)]
pub struct Signals {
    hup: Signal,
    term: Signal,
    int: Signal,
    usr1: Signal,
}

impl Signals {
    /// Takes over the signals; needs a runtime's context.
    pub fn install() -> io::Result<Signals> {
        Ok(Signals {
            hup: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next order. Cancel-safe. Several equal signals may come as one.
    pub async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.term.recv() => Order::Stop,
            _ = self.int.recv() => Order::Stop,
            _ = self.hup.recv() => Order::Reload,
            _ = self.usr1.recv() => Order::ReopenLogs,
        }
    }
}
