//! Steady traffic: GET requests at a fixed rate over keep-alive connections, whatever the responses. Counts the
//! results, separately for times in which a request could not be served.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

/// Connections. With this many, slow answers do not slow the rate.
const CLIENTS: u32 = 60;
/// Requests per second over all of them.
pub const RATE: u32 = 200;
/// A response that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(10);
/// Failures remembered in words.
const WORDS_MAX: usize = 5;

/// The results.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests sent.
    pub sent: AtomicU64,
    /// Answered with 2xx.
    pub good: AtomicU64,
    /// Not answered with 2xx although a backend was available all the time.
    pub failed: AtomicU64,
    /// Answered with 503 while a request could not be served.
    pub refused: AtomicU64,
    /// The slowest of those, in microseconds.
    pub refused_slowest_us: AtomicU64,
    /// Not answered at all, or with 502 or 504, while a request could not be served.
    pub lost: AtomicU64,
    /// Increased whenever requests become servable or stop being so; odd while they are not. A request that sees two
    /// numbers saw a change, however short.
    dark: AtomicU64,
    words: Mutex<VecDeque<String>>,
}

impl Tally {
    /// The first failures, in words.
    pub fn words(&self) -> Vec<String> {
        self.words.lock().iter().cloned().collect()
    }

    /// Sets whether requests cannot be served. Called before the last backend dies, and after one is known to be back.
    /// Only one task may call it.
    pub fn set_dark(&self, dark: bool) {
        if (self.dark.load(Ordering::SeqCst) % 2 == 1) != dark {
            self.dark.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// `dark`: the number when the request began.
    fn record(&self, dark: u64, outcome: Result<u16, String>, took: Duration) {
        let dark = dark % 2 == 1 || self.dark.load(Ordering::SeqCst) != dark;
        self.sent.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(200..=299) => {
                self.good.fetch_add(1, Ordering::Relaxed);
            }
            Ok(503) if dark => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.refused_slowest_us.fetch_max(us, Ordering::Relaxed);
            }
            _ if dark => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            other => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let mut words = self.words.lock();
                if words.len() < WORDS_MAX {
                    let what = other.map_or_else(|error| error, |status| format!("status {status}"));
                    words.push_back(format!("{what} after {:.1} ms", took.as_secs_f64() * 1e3));
                }
            }
        }
    }
}

/// The clients; they end when this is dropped.
#[derive(Debug)]
pub struct Traffic {
    /// The results so far.
    pub tally: Arc<Tally>,
    _clients: JoinSet<()>,
}

impl Traffic {
    /// Begins sending to `proxy`.
    pub fn start(proxy: SocketAddr) -> Traffic {
        let tally = Arc::new(Tally::default());
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            clients.spawn(client(proxy, number, tally.clone()));
        }
        Traffic { tally, _clients: clients }
    }
}

async fn client(proxy: SocketAddr, number: u32, tally: Arc<Tally>) {
    let period = Duration::from_secs(1) * CLIENTS / RATE;
    let mut ticks = tokio::time::interval_at(Instant::now() + period * number / CLIENTS, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection: Option<SendRequest<Empty<Bytes>>> = None;
    loop {
        ticks.tick().await;
        let dark = tally.dark.load(Ordering::SeqCst);
        let begin = Instant::now();
        let outcome = match tokio::time::timeout(PATIENCE, request(proxy, &mut connection)).await {
            Ok(outcome) => outcome,
            Err(_) => Err("no answer".to_owned()),
        };
        if outcome.is_err() {
            connection = None;
        }
        tally.record(dark, outcome, begin.elapsed());
    }
}

async fn request(proxy: SocketAddr, connection: &mut Option<SendRequest<Empty<Bytes>>>) -> Result<u16, String> {
    let ready = match connection {
        Some(sender) => sender.ready().await.is_ok(),
        None => false,
    };
    if !ready {
        let stream = TcpStream::connect(proxy).await.map_err(|error| format!("connect: {error}"))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        *connection = Some(sender);
    }
    let sender = connection.as_mut().expect("just made");
    let request = http::Request::get("/hello").header("host", "demo.local").body(Empty::new()).expect("a good request");
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    response.into_body().collect().await.map_err(|error| format!("body: {error}"))?;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_only_if_the_request_could_be_served_all_the_time() {
        let took = Duration::from_millis(3);
        let (lit, out) = ([false; 2], [true, false]);
        for (before, during, failed, refused, lost) in [
            (false, &lit[..], 2, 0, 0),
            (true, &[], 0, 1, 1),
            // Back again before its answer came.
            (true, &[false], 0, 1, 1),
            (false, &[true], 0, 1, 1),
            (false, &out, 0, 1, 1),
        ] {
            let tally = Tally::default();
            tally.set_dark(before);
            let begun = tally.dark.load(Ordering::SeqCst);
            during.iter().for_each(|dark| tally.set_dark(*dark));
            for outcome in [Ok(200), Ok(503), Err("reset".to_owned())] {
                tally.record(begun, outcome, took);
            }
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            assert_eq!((count(&tally.sent), count(&tally.good)), (3, 1));
            let seen = (count(&tally.failed), count(&tally.refused), count(&tally.lost));
            assert_eq!(seen, (failed, refused, lost), "{before} {during:?}");
        }
    }
}
