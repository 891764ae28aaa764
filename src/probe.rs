//! Makes one probe: a new connection, one deadline for everything, and a report.
//!
//! ```text
//! connect ─▶ tcp, tls: close                 ─▶ Finding ─▶ ProbeReport (code, sentence, hint)
//!         ├▶ http: send ─▶ response ─▶ answer
//!         ├▶ websocket: the same, then ping and pong
//!         └▶ h2: send and receive ─▶ answer, grpc
//! ```
//! `socket`, `connect`, `tcp`, `tls`, `http`, `websocket` and `h2` hold the sockets; `response` (framing), `text`, `answer`
//! and `expect` (rules) and `finding` (codes, sentences, hints) are pure. Thresholds are not applied here: `pool`, whose
//! scheduler calls [`SocketProber`], decides what a report means for an upstream.

mod agent;
mod answer;
mod connect;
mod expect;
mod finding;
#[doc(hidden)]
pub mod fuzz;
mod grpc;
mod h2;
mod http;
mod response;
mod self_report;
mod socket;
mod tcp;
mod text;
mod tls;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use crate::model::policy::{HttpVersion, ProbeKind, ProbeSpec};
use crate::model::{Address, ProbeReport};
use crate::pool::{CheckKey, ProbeFuture, ProbeJob, Prober};
use connect::{Peer, Steps, Tls};
use finding::{Circumstances, Finding, certificate_hint, check_duration};
use websocket::Upgrade;

/// Makes one probe of `upstream` at `target` and returns within `timeout`. Never fails or panics, whatever the peer does.
/// Cancel-safe: dropping the future closes the socket.
pub async fn probe(target: &Address, upstream: &Address, spec: &Arc<ProbeSpec>, timeout: Duration) -> ProbeReport {
    Prepared::new(target, upstream, None, spec, timeout).run().await
}

/// A probe with its request already built, to make the same probe repeatedly.
///
/// Has no `Debug`: the request may hold credentials.
pub struct Prepared {
    peer: Peer,
    elsewhere: bool,
    timeout: Duration,
    spec: Arc<ProbeSpec>,
    request: Box<[u8]>,
    /// The authority, where each probe builds its request: over HTTP/2.
    authority: Box<str>,
    upgrade: Option<Box<Upgrade>>,
}

impl Prepared {
    /// Builds what the probe will send. `target` is the address dialled; where it differs from `upstream`, sentences name
    /// it. `name` is the host name that the upstream was resolved from: the default for Host and the TLS name.
    pub fn new(
        target: &Address,
        upstream: &Address,
        name: Option<&str>,
        spec: &Arc<ProbeSpec>,
        timeout: Duration,
    ) -> Prepared {
        let tls = Tls::of(spec, alpn(&spec.kind), spec.kind.host(), name, target);
        let authority = || http::authority(name, target, tls.is_some());
        let (request, authority) = match &spec.kind {
            ProbeKind::Http(probe) if probe.version == HttpVersion::Http1 => {
                (http::request(probe, &authority()), Box::default())
            }
            ProbeKind::Http(_) | ProbeKind::Grpc(_) => (Box::default(), authority().into_boxed_str()),
            ProbeKind::Tcp(_) | ProbeKind::Tls | ProbeKind::Websocket(_) | ProbeKind::Agent(_) => Default::default(),
        };
        let upgrade = match &spec.kind {
            ProbeKind::Websocket(probe) => {
                Some(Box::new(Upgrade::new(probe, &http::authority(name, target, tls.is_some()))))
            }
            ProbeKind::Http(_) | ProbeKind::Grpc(_) => None,
            ProbeKind::Tcp(_) | ProbeKind::Tls | ProbeKind::Agent(_) => None,
        };
        let connect_only = tls.is_none() && matches!(&spec.kind, ProbeKind::Tcp(probe) if probe.is_plain());
        let begins_plain = matches!(&spec.kind, ProbeKind::Tcp(probe) if probe.starts_tls());
        let peer = Peer { target: target.clone(), tls, connect_only, begins_plain };
        Prepared { peer, elsewhere: target != upstream, timeout, spec: spec.clone(), request, authority, upgrade }
    }

    /// Makes the probe; see [`probe`].
    pub async fn run(&self) -> ProbeReport {
        if let Some(tls) = &self.peer.tls {
            // Before the clock starts: this is our work, not the upstream's.
            tls.prepare().await;
        }
        let mut steps = Steps::begin();
        let found = self.talk(&mut steps).await;
        let took = steps.started.elapsed();
        let finding = match (found, &self.peer.tls) {
            (_, _) if self.was_stopped(took) => Finding::Stopped,
            (found, Some(tls)) => found.over_tls(tls, &steps),
            (found, None) => found,
        };
        let lacks = self.peer.tls.as_ref().is_some_and(|tls| tls.lacks_certificate(&steps));
        let decided_in = steps.decided_in().unwrap_or(took);
        let said_in = steps.trace.dialogue.iter().filter_map(|step| step.done_in).max().unwrap_or_default();
        let took = if finding.waits_for_close() { decided_in.max(said_in) } else { took };
        let mut report = finding.report(&Circumstances {
            took,
            connected_in: steps.trace.connected_in,
            handshake_in: steps.trace.tls.as_ref().and_then(|tls| tls.done_in),
            timeout: self.timeout,
            elsewhere: self.elsewhere.then_some(&self.peer.target),
        });
        check_duration(&mut report, decided_in, self.spec.max_duration);
        if lacks {
            report.hint = certificate_hint(report.status, report.hint);
        }
        if !report.trace.head.is_empty() || !report.trace.body.is_empty() {
            (steps.trace.head, steps.trace.body) = (report.trace.head, report.trace.body);
        }
        report.trace = steps.trace;
        report
    }

    async fn talk(&self, steps: &mut Steps) -> Finding<'_> {
        let deadline = steps.started + self.timeout;
        match &self.spec.kind {
            ProbeKind::Tcp(probe) | ProbeKind::Agent(probe) => tcp::run(&self.peer, probe, deadline, steps).await,
            // Boxed, so that the many probes of the other kinds are small.
            ProbeKind::Tls => Box::pin(tls::run(&self.peer, deadline, steps)).await,
            ProbeKind::Http(probe) if probe.version == HttpVersion::H2 => {
                Box::pin(h2::run(&self.peer, probe, &self.authority, deadline, steps)).await
            }
            ProbeKind::Http(probe) => http::run(&self.peer, probe, &self.request, deadline, steps).await,
            ProbeKind::Grpc(probe) => Box::pin(grpc::run(&self.peer, probe, &self.authority, deadline, steps)).await,
            ProbeKind::Websocket(probe) => {
                let upgrade = self.upgrade.as_deref().expect("made for this kind");
                Box::pin(websocket::run(&self.peer, probe, upgrade, deadline, steps)).await
            }
        }
    }

    /// Whether the probe took so much longer than its timeout that this process cannot have run meanwhile: stopped by a
    /// signal, suspended, or starved. The answer may have arrived in time, unseen.
    fn was_stopped(&self, took: Duration) -> bool {
        took > self.timeout + self.timeout.max(STOPPED_MIN)
    }
}

/// A probe that exceeds its deadline by less than this was not stopped.
const STOPPED_MIN: Duration = Duration::from_secs(1);

/// What is offered in a TLS handshake (RFC 7301).
fn alpn(kind: &ProbeKind) -> &'static [&'static str] {
    match kind {
        ProbeKind::Http(probe) if probe.version == HttpVersion::H2 => &["h2"],
        ProbeKind::Grpc(_) => &["h2"],
        ProbeKind::Http(_) | ProbeKind::Websocket(_) => &["http/1.1"],
        ProbeKind::Tcp(_) | ProbeKind::Tls | ProbeKind::Agent(_) => &[],
    }
}

/// The prober of the scheduler: real sockets.
#[derive(Debug, Clone, Copy, Default)]
pub struct SocketProber;

impl Prober for SocketProber {
    fn probe(&self, job: ProbeJob) -> ProbeFuture {
        let prepared = job.kept.get_or_make(|| {
            let CheckKey { upstream, target, name, spec, timing } = &*job.check;
            Arc::new(Prepared::new(target, upstream, name.as_deref(), spec, timing.timeout))
        });
        Box::pin(async move { Arc::new(prepared.run().await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::{Expect, HttpProbe, PortRule};
    use crate::model::{Code, Judgement};

    /// A GET of `/` at a listener that never answers.
    fn unanswered(timeout: Duration) -> (std::net::TcpListener, Prepared) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Address::Inet(listener.local_addr().unwrap());
        let prepared = Prepared::new(&target, &target, None, &get(), timeout);
        (listener, prepared)
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_during_which_this_process_was_stopped_gives_no_verdict() {
        for (timeout, stopped_for, is_verdict) in [
            (Duration::from_millis(100), Duration::from_millis(1_050), true),
            (Duration::from_millis(100), Duration::from_millis(1_200), false),
            (Duration::from_secs(10), Duration::from_secs(19), true),
            (Duration::from_secs(10), Duration::from_secs(21), false),
        ] {
            let (_listener, prepared) = unanswered(timeout);
            let mut probe = Box::pin(prepared.run());
            tokio::select! {
                biased;
                report = &mut probe => panic!("over at once: {report:?}"),
                () = std::future::ready(()) => {}
            }
            tokio::time::advance(stopped_for).await;
            let report = probe.await;
            assert_eq!(report.code.judgement() != Judgement::NoVerdict, is_verdict, "{}", report.sentence());
            if !is_verdict {
                assert_eq!(report.code, Code::NoRes);
                assert!(report.reason.starts_with("not probed: this process was stopped; the probe took "));
                assert!(report.reason.ends_with(&format!(", its timeout is {timeout:?}")), "{}", report.reason);
            }
        }
    }

    /// Ten thousand probes may hang at once, each against an upstream that drops packets.
    #[test]
    fn a_probe_in_flight_is_small() {
        let target: Address = "127.0.0.1:1".parse().unwrap();
        let prepared = Prepared::new(&target, &target, None, &get(), Duration::from_secs(1));
        let future = prepared.run();
        assert!(size_of_val(&future) <= 1_536, "{} bytes", size_of_val(&future));
    }

    fn get() -> Arc<ProbeSpec> {
        let kind = ProbeKind::Http(HttpProbe::get("/", Expect::default()));
        Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind, max_duration: None })
    }
}
