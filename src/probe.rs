//! Makes one probe: its own connection, one deadline over all of it, and a report in words.
//!
//! ```text
//! connect ─▶ tcp: close                      ─▶ Finding ─▶ ProbeReport (code, sentence, hint)
//!         └▶ http: send ─▶ response ─▶ answer
//! ```
//! `connect`, `tcp` and `http` hold the sockets; `response` (framing), `answer` and `expect` (judging) and `finding`
//! (codes, sentences, hints) are pure. Knows nothing of thresholds: what a report means for an upstream is decided by
//! `pool`, whose scheduler calls [`SocketProber`].

mod answer;
mod connect;
mod expect;
mod finding;
#[doc(hidden)]
pub mod fuzz;
mod http;
mod response;
mod tcp;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::policy::{HttpVersion, ProbeKind, ProbeSpec};
use crate::model::{Address, ProbeReport};
use crate::pool::{ProbeJob, Prober};
use finding::Circumstances;

/// Makes one probe of `upstream` at `target` and returns by `timeout`. Never fails and never panics over what the peer
/// does. Cancel-safe: dropping the future closes the socket.
pub async fn probe(target: &Address, upstream: &Address, spec: &Arc<ProbeSpec>, timeout: Duration) -> ProbeReport {
    Prepared::new(target, upstream, spec, timeout).run().await
}

/// A probe with its request already built: for whoever makes the same probe again and again.
///
/// Has no `Debug`: the request may hold credentials.
pub struct Prepared {
    target: Address,
    elsewhere: bool,
    timeout: Duration,
    spec: Arc<ProbeSpec>,
    request: Box<[u8]>,
}

impl Prepared {
    /// Builds what the probe will send. `target` is the address dialled; where it is not the `upstream`'s own, sentences
    /// name it.
    pub fn new(target: &Address, upstream: &Address, spec: &Arc<ProbeSpec>, timeout: Duration) -> Prepared {
        let request = match &spec.kind {
            ProbeKind::Http(probe) if probe.version == HttpVersion::Http1 => http::request(probe, target),
            ProbeKind::Http(_) | ProbeKind::Tcp(_) | ProbeKind::Tls | ProbeKind::Grpc(_) | ProbeKind::Websocket(_) => {
                Box::default()
            }
        };
        Prepared { target: target.clone(), elsewhere: target != upstream, timeout, spec: spec.clone(), request }
    }

    /// Makes the probe; see [`probe`].
    pub async fn run(&self) -> ProbeReport {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let mut connected = None;
        let finding = match &self.spec.kind {
            ProbeKind::Tcp(_) => tcp::run(&self.target, deadline).await,
            ProbeKind::Http(probe) => http::run(&self.target, probe, &self.request, deadline, &mut connected).await,
            ProbeKind::Tls | ProbeKind::Grpc(_) | ProbeKind::Websocket(_) => {
                unreachable!("no file can ask for this kind yet")
            }
        };
        finding.report(&Circumstances {
            took: started.elapsed(),
            connected_in: connected.map(|at| at - started),
            timeout: self.timeout,
            elsewhere: self.elsewhere.then_some(&self.target),
        })
    }
}

/// The prober of the scheduler: real sockets.
#[derive(Debug, Clone, Copy, Default)]
pub struct SocketProber;

impl Prober for SocketProber {
    fn probe(&self, job: ProbeJob) -> Pin<Box<dyn Future<Output = ProbeReport> + Send>> {
        let prepare = || Arc::new(Prepared::new(&job.target, &job.upstream, &job.spec, job.timeout));
        let prepared = job.kept.get_or_make(prepare);
        Box::pin(async move { prepared.run().await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::{Expect, HttpProbe, PortRule};

    /// Ten thousand probes may hang at once, each against an upstream that drops packets.
    #[test]
    fn a_probe_in_flight_is_small() {
        let target: Address = "127.0.0.1:1".parse().unwrap();
        let kind = ProbeKind::Http(HttpProbe {
            version: HttpVersion::Http1,
            path: "/".into(),
            method: "GET".into(),
            host: None,
            headers: Vec::new(),
            body: None,
            expect: Expect::default(),
        });
        let spec = Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind });
        let prepared = Prepared::new(&target, &target, &spec, Duration::from_secs(1));
        let future = prepared.run();
        assert!(size_of_val(&future) <= 1_536, "{} bytes", size_of_val(&future));
    }
}
