//! Resolves names. [`SystemResolver`] calls the system's `getaddrinfo`, which blocks: each lookup has its own thread,
//! up to [`THREADS_MAX`] and one per name. A thread that hangs on a dead name server keeps its place until the system
//! gives up, and later lookups of the same name join it; so threads do not pile up, and the end of the process waits
//! for none of them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The most threads at once.
const THREADS_MAX: usize = 32;

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The system's error text.
    #[error("{0}")]
    System(Box<str>),
    /// No answer within this time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// An answer without addresses.
    #[error("the answer is empty")]
    Empty,
    /// Only addresses that cannot be upstreams: unspecified, multicast, link-local.
    #[error("none of its addresses can be an upstream ({})", list(.0))]
    Unusable(Vec<IpAddr>),
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// Resolves names. [`SystemResolver`] asks the system; tests use a script.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// The addresses of `host`, in any order, repetitions allowed. May take long; dropping the future is allowed.
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError>;
}

type Answer = Result<Vec<IpAddr>, ResolveError>;
type Running = Arc<Mutex<HashMap<Arc<str>, watch::Receiver<Option<Answer>>>>>;

/// The system's resolver.
pub struct SystemResolver {
    running: Running,
    room: Arc<Semaphore>,
    ask: fn(&str) -> Answer,
}

impl Default for SystemResolver {
    fn default() -> SystemResolver {
        SystemResolver::asking(THREADS_MAX, getaddrinfo)
    }
}

impl SystemResolver {
    fn asking(threads: usize, ask: fn(&str) -> Answer) -> SystemResolver {
        SystemResolver { running: Running::default(), room: Arc::new(Semaphore::new(threads)), ask }
    }

    fn begin(&self, host: &str, permit: OwnedSemaphorePermit) -> io::Result<watch::Receiver<Option<Answer>>> {
        let mut running = self.running.lock();
        if let Some(earlier) = running.get(host) {
            return Ok(earlier.clone());
        }
        let host: Arc<str> = host.into();
        let (sender, receiver) = watch::channel(None);
        let (name, places, ask) = (host.clone(), self.running.clone(), self.ask);
        std::thread::Builder::new().name("resolve".into()).spawn(move || {
            let answer = ask(&name);
            places.lock().remove(&name);
            // There may be no receiver any more.
            let _ = sender.send(Some(answer));
            drop(permit);
        })?;
        running.insert(host, receiver.clone());
        Ok(receiver)
    }
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> Answer {
        let earlier = self.running.lock().get(host).cloned();
        let mut answer = match earlier {
            Some(earlier) => earlier,
            None => {
                let permit = self.room.clone().acquire_owned().await.expect("the semaphore is never closed");
                let begun = self.begin(host, permit);
                begun.map_err(|error| ResolveError::System(format!("no thread for the lookup: {error}").into()))?
            }
        };
        let ended = answer.wait_for(Option::is_some).await.map(|answer| answer.clone());
        match ended {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => {
                // The thread panicked and left its entry.
                self.running.lock().remove(host);
                Err(ResolveError::System("the lookup failed unexpectedly".into()))
            }
        }
    }
}

fn getaddrinfo(host: &str) -> Answer {
    match (host, 0).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
        Err(error) => {
            let text = error.to_string();
            let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
            Err(ResolveError::System(text.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_system_knows_localhost_and_says_why_it_does_not_know_a_name() {
        let system = SystemResolver::default();
        let addresses = system.resolve("localhost").await.unwrap();
        assert!(!addresses.is_empty() && addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        // A label cannot be that long, so no name server is asked.
        let error = system.resolve(&"a".repeat(64)).await.unwrap_err();
        let ResolveError::System(text) = &error else { panic!("{error:?}") };
        assert!(!text.is_empty() && !text.contains("lookup address information"), "{text}");
        assert!(system.running.lock().is_empty());
    }

    #[tokio::test]
    async fn a_lookup_that_hangs_is_joined_and_takes_one_place() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static OPEN: AtomicBool = AtomicBool::new(false);
        let system = SystemResolver::asking(1, |_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            while !OPEN.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(vec![IpAddr::from([10, 0, 0, 1])])
        });
        for _ in 0..3 {
            let gone = tokio::time::timeout(Duration::from_millis(20), system.resolve("slow")).await;
            assert!(gone.is_err(), "it hangs");
        }
        let other = tokio::time::timeout(Duration::from_millis(20), system.resolve("other")).await;
        assert!(other.is_err(), "there is no room for another thread");
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        while ASKED.load(Ordering::SeqCst) == 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), 1, "and none was started");
        let joined = tokio::join!(system.resolve("slow"), async { OPEN.store(true, Ordering::SeqCst) }).0;
        assert_eq!(joined, Ok(vec![IpAddr::from([10, 0, 0, 1])]));
        assert!(system.resolve("other").await.is_ok());
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_lookup_that_panics_is_an_error_and_leaves_its_place() {
        let system = SystemResolver::asking(1, |_| panic!("injected fault"));
        for _ in 0..2 {
            let error = system.resolve("api").await.unwrap_err();
            assert_eq!(error, ResolveError::System("the lookup failed unexpectedly".into()));
        }
        assert!(system.running.lock().is_empty());
    }
}
