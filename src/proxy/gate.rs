//! How many connections a listener and one client may have: `limits.connections` and `limits.connections_per_client`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::policy::ClientLimits;
use crate::pool::Faults;

/// How often a listener at its limit looks whether a reload has changed that.
const LOOK: Duration = Duration::from_millis(500);
/// The shortest time between two log lines about clients at their limit.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The connections of one listener.
#[derive(Debug, Default)]
pub(super) struct Gate {
    open: AtomicU32,
    /// Those of clients that were counted when they connected, because there was a limit for each.
    clients: Mutex<HashMap<IpAddr, u32>>,
    left: Notify,
    refused: Faults<IpAddr>,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Admitted {
    gate: Arc<Gate>,
    /// Its client, if that is counted.
    client: Option<Box<IpAddr>>,
}

impl Gate {
    /// Completes when another connection may be accepted. `limits`: those that hold now. Cancel-safe.
    pub(super) async fn room(&self, limits: impl Fn() -> ClientLimits) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // Before the look, so that nobody leaves unnoticed after it.
            left.as_mut().enable();
            let most = limits().connections;
            if most.is_none_or(|most| self.open.load(Ordering::Acquire) < most.get()) {
                return;
            }
            // Either way it looks again.
            let (Ok(()) | Err(_)) = tokio::time::timeout(LOOK, left).await;
        }
    }

    /// Counts an accepted connection; `None`: its client has as many as it may.
    pub(super) fn admit(self: &Arc<Gate>, client: Option<IpAddr>, limits: &ClientLimits) -> Option<Admitted> {
        let counted = client.zip(limits.connections_per_client);
        if let Some((client, most)) = counted {
            let mut clients = self.clients.lock();
            let open = clients.entry(client).or_default();
            if *open >= most.get() {
                return None;
            }
            *open += 1;
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        Some(Admitted { gate: self.clone(), client: counted.map(|(client, _)| Box::new(client)) })
    }

    /// A connection of this client is refused. `Some`: log a line; so many before it were not logged.
    pub(super) fn on_refused(&self, client: IpAddr, now: Instant) -> Option<u64> {
        self.refused.note(client, now, LINE_EVERY)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let mut clients = self.gate.clients.lock();
            if let Entry::Occupied(mut open) = clients.entry(*client) {
                *open.get_mut() -= 1;
                if *open.get() == 0 {
                    open.remove();
                }
            }
            // A crowd must not leave its size behind.
            if clients.capacity() > 64 && clients.len() < clients.capacity() / 8 {
                clients.shrink_to_fit();
            }
        }
        self.gate.open.fetch_sub(1, Ordering::AcqRel);
        self.gate.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use futures_util::FutureExt;

    use super::*;

    fn limits(connections: u32, per_client: u32) -> ClientLimits {
        let (connections, connections_per_client) = (NonZeroU32::new(connections), NonZeroU32::new(per_client));
        ClientLimits { connections, connections_per_client, ..ClientLimits::DEFAULT }
    }

    const ONE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const TWO: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)));

    #[test]
    fn a_client_has_as_many_connections_as_it_may_and_is_forgotten_with_the_last() {
        let gate = Arc::new(Gate::default());
        let two = limits(0, 2);
        let mut open: Vec<_> = [ONE, ONE, TWO].map(|client| gate.admit(client, &two).expect("room")).into();
        assert!(gate.admit(ONE, &two).is_none());
        assert!(gate.admit(ONE, &limits(0, 3)).is_some(), "a reload has raised it");
        // Over a unix socket nobody has an address.
        let unix: Vec<_> = (0..9).map(|_| gate.admit(None, &two).expect("room")).collect();
        open.remove(0);
        open.push(gate.admit(ONE, &two).expect("one has left"));
        assert!(gate.admit(ONE, &two).is_none());
        assert_eq!((gate.clients.lock().len(), gate.open.load(Ordering::Relaxed)), (2, 12));
        drop((open, unix));
        assert_eq!((gate.clients.lock().len(), gate.open.load(Ordering::Relaxed)), (0, 0));
        // A client that connected while there was no limit is not counted, neither then nor when it leaves.
        let before = gate.admit(ONE, &limits(0, 0)).expect("no limit");
        let counted = gate.admit(ONE, &limits(0, 1)).expect("the first that counts");
        drop(before);
        assert!(gate.admit(ONE, &limits(0, 1)).is_none());
        drop(counted);
        assert!(gate.admit(ONE, &limits(0, 1)).is_some());
    }

    #[test]
    fn a_crowd_of_clients_leaves_no_memory() {
        let gate = Arc::new(Gate::default());
        let address = |number: u32| Some(IpAddr::from(number.to_be_bytes()));
        let crowd: Vec<_> =
            (0..10_000).map(|number| gate.admit(address(number), &limits(0, 1)).expect("room")).collect();
        assert!(gate.clients.lock().capacity() >= 10_000);
        drop(crowd);
        assert!(gate.clients.lock().capacity() <= 64, "{}", gate.clients.lock().capacity());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_listener_goes_on_when_somebody_leaves_or_a_reload_raises_the_limit() {
        let gate = Arc::new(Gate::default());
        let mut open: Vec<_> = (0..2).map(|_| gate.admit(ONE, &limits(2, 0)).expect("counted only")).collect();
        let full = || gate.room(|| limits(2, 0)).now_or_never().is_none();
        assert!(full() && gate.room(|| limits(0, 0)).now_or_never().is_some());
        open.remove(0);
        assert!(!full());
        open.push(gate.admit(ONE, &limits(2, 0)).expect("counted only"));
        let began = Instant::now();
        let leaves = async {
            tokio::time::sleep(LOOK / 5).await;
            drop(open);
        };
        tokio::join!(gate.room(|| limits(2, 0)), leaves);
        assert_eq!(began.elapsed(), LOOK / 5);
        let _open: Vec<_> = (0..2).map(|_| gate.admit(ONE, &limits(2, 0)).expect("counted only")).collect();
        let (most, began) = (std::cell::Cell::new(2), Instant::now());
        let reload = async {
            tokio::time::sleep(LOOK / 5).await;
            most.set(3);
        };
        tokio::join!(gate.room(|| limits(most.get(), 0)), reload);
        assert_eq!(began.elapsed(), LOOK);
    }
}
