//! Upstream systems as scripted origins that answer byte for byte as the real ones, on their own ports, in every state:
//! a check with keys and the preset must come to the same verdict with the same reason.
//!
//! Each system's file has a table: the state, what listens and answers, and the verdict of each check. A file is loaded
//! by the real loader and its checks are run by the real prober; for some systems the real program shows state and
//! reason in its status.

mod clair;
mod krakend;
mod portus;
mod presets;
mod waves;
mod wso2_apim;
mod wso2_mi;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use roundsman::app::load::load_text;
use roundsman::model::policy::{CheckPolicy, PoolPolicy, Timing};
use roundsman::model::{Code, ProbeReport};
use roundsman::probe::probe;
use tokio::time::Instant;

use crate::origin::tls::{Certificates, TlsOrigin, certificates};
use crate::origin::{Act, Origin, Reply, own_host};
use crate::program::{Program, pool};

/// No probe here needs a tenth of this.
const TIMEOUT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);

/// One state of a system.
pub struct State {
    /// Its name in failures of the test.
    name: &'static str,
    /// What listens: ports, and what they do.
    ports: Vec<(u16, Port)>,
    /// The report of each check, in the order of the file: the code, and parts of the sentence in their order.
    verdicts: &'static [(Code, &'static [&'static str])],
}

/// What listens on a port.
#[derive(Clone)]
pub enum Port {
    /// HTTP: these bytes for this target (with its query), and `otherwise` for every other.
    Http { path: &'static str, answer: Vec<u8>, otherwise: Vec<u8> },
    /// The same inside TLS, with a self-signed certificate for `localhost`.
    Https { path: &'static str, answer: Vec<u8>, otherwise: Vec<u8> },
    /// Accepts connections and sends nothing.
    Silent,
    /// Sends these bytes at once and keeps the connection.
    Says(Vec<u8>),
}

/// What listens on a port, running.
struct Running {
    origin: Origin,
    _front: Option<TlsOrigin>,
}

/// The certificates of every system here that speaks TLS.
static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(certificates);

/// A whole answer: its first line and fields as they are, then the body.
pub fn answer(head: &str, body: &str) -> Vec<u8> {
    let mut bytes = head.lines().map(str::trim_start).collect::<Vec<_>>().join("\r\n").into_bytes();
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

/// The responses of every system, by system and state.
pub fn real_answers() -> BTreeMap<String, Vec<u8>> {
    let all = [
        ("clair", clair::real_answers()),
        ("krakend", krakend::real_answers()),
        ("portus", portus::real_answers()),
        ("waves", waves::real_answers()),
        ("wso2-apim", wso2_apim::real_answers()),
        ("wso2-mi", wso2_mi::real_answers()),
    ];
    let named = |(system, answers): (&str, Vec<(&str, Vec<u8>)>)| {
        answers.into_iter().map(|(state, bytes)| (format!("{system}-{state}"), bytes)).collect::<Vec<_>>()
    };
    all.into_iter().flat_map(named).collect()
}

/// As [`answer`], with `Content-Length` as its last field.
pub fn sized(head: &str, body: &str) -> Vec<u8> {
    answer(&format!("{head}\nContent-Length: {}", body.len()), body)
}

/// As [`answer`], with the body in one chunk (none where it is empty) and `Transfer-Encoding` as its last field.
pub fn chunked(head: &str, body: &str) -> Vec<u8> {
    let chunk = if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
    answer(&format!("{head}\nTransfer-Encoding: chunked"), &format!("{chunk}0\r\n\r\n"))
}

impl State {
    /// Starts what listens in this state on this host.
    fn start(&self, host: Ipv4Addr) -> Vec<Running> {
        self.ports.iter().map(|(port, what)| what.start(SocketAddr::from((host, *port)))).collect()
    }
}

impl Port {
    fn start(&self, at: SocketAddr) -> Running {
        let http = |answer: &[u8], path: &str, otherwise: &[u8]| {
            Origin::new().on(path).reply(Reply::raw(answer)).on("*").reply(Reply::raw(otherwise))
        };
        match self {
            Port::Http { path, answer, otherwise } => {
                Running { origin: http(answer, path, otherwise).at(at).start_blocking(), _front: None }
            }
            Port::Https { path, answer, otherwise } => {
                let origin = http(answer, path, otherwise).start_blocking();
                let front = TlsOrigin::with(&CERTIFICATES.self_signed).before(&origin).at(at).start();
                Running { origin, _front: Some(front) }
            }
            Port::Says(bytes) => {
                let says = Reply::acts(vec![Act::Write(bytes.clone())]).then_hang();
                Running { origin: Origin::new().at(at).on_accept(says).start_blocking(), _front: None }
            }
            Port::Silent => {
                Running { origin: Origin::new().at(at).on_accept(Reply::hang()).start_blocking(), _front: None }
            }
        }
    }
}

/// The pool `api` of a file with this health table, over `host:port`, as the real loader understands it.
fn load(health: &str, upstream: SocketAddr) -> Arc<PoolPolicy> {
    let listener = "[listeners.web]\naddress = \"127.0.0.1:8080\"\npool = \"api\"\n\n";
    let text = listener.to_owned() + &pool("api", &[&upstream.to_string()], health);
    let loaded = load_text("test.toml", text.as_bytes());
    let loaded = loaded.unwrap_or_else(|error| panic!("{}\n{text}", error.render(false)));
    let mut pools = loaded.config.pools.into_iter().filter(|pool| pool.name.as_str() == "api");
    pools.next().expect("the pool api")
}

/// The timings of the checks of this table.
fn timings(health: &str) -> Vec<(String, Timing)> {
    let pool = load(health, SocketAddr::from(([127, 0, 0, 1], 1)));
    pool.checks.iter().map(|check| (check.name.to_string(), check.timing)).collect()
}

/// The report of each check of the one upstream of a pool.
async fn judge(pool: &PoolPolicy) -> Vec<(CheckPolicy, ProbeReport)> {
    let upstream = &pool.upstreams[0];
    let mut reports = Vec::new();
    for check in &pool.checks {
        let target = check.spec.target(upstream);
        reports.push((check.clone(), probe(&target, &upstream.address, &check.spec, TIMEOUT).await));
    }
    reports
}

/// Checks every state of a system with each of these tables (keys and preset), over its traffic port.
async fn hold(tables: &[&str], traffic: u16, states: Vec<State>) {
    for state in states {
        let host = own_host();
        let _origins = state.start(host);
        for table in tables {
            let reports = judge(&load(table, SocketAddr::from((host, traffic)))).await;
            let context = format!("{}, by\n{table}", state.name);
            assert_eq!(reports.len(), state.verdicts.len(), "checks: {context}");
            for ((check, report), (code, says)) in reports.iter().zip(state.verdicts) {
                let sentence = report.sentence();
                assert_eq!(report.code, *code, "check {}: {sentence}\n{context}", check.name);
                let mut rest = sentence.as_str();
                for part in *says {
                    let at = rest.find(part).unwrap_or_else(|| {
                        panic!("check {}: {sentence:?} does not have {part:?} in its place\n{context}", check.name)
                    });
                    rest = &rest[at + part.len()..];
                }
            }
        }
    }
}

/// Runs the real program over a system that passes through these states, and compares state and reason in status after
/// each.
async fn show(health: &str, traffic: u16, states: Vec<(State, &str, &[&str])>) {
    let host = own_host();
    let upstream = SocketAddr::from((host, traffic)).to_string();
    let program = Program::start(&pool("api", &[&upstream], health)).await;
    for (state, word, says) in states {
        let origins = state.start(host);
        program.wait_for_state("api", &upstream, word, PATIENCE).await;
        let end = Instant::now() + PATIENCE;
        loop {
            let now = program.upstream("api", &upstream).await.expect("status lists it");
            let shown = format!("{:?} {:?}", now.why, now.last_check.as_ref().map(|last| &last.reason));
            if now.state.as_str() == word && says.iter().all(|part| shown.contains(part)) {
                assert_eq!(now.eligible, word == "healthy", "{}: {now:?}", state.name);
                break;
            }
            assert!(Instant::now() < end, "{}: {says:?} is not in {shown}", state.name);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The ports must be free before the next state takes them.
        origins.iter().for_each(|running| running.origin.kill());
    }
    program.assert_no_panic();
}
