//! The data plane over upstreams that are always eligible, and a client that sends and reads raw bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use roundsman::exchange::NoDesk;
use roundsman::model::policy::{Balance, ClientPolicy, Lane, TrafficPolicy};
use roundsman::model::{Address, FineWeight, Name};
use roundsman::pool::{
    AnswerReason, Hints, ListenerEntry, ListenerId, Otherwise, Pool, PoolId, PoolShared, Published, Routes, Rules,
    Service, Snapshot, Tier, Upstream, UpstreamId, View,
};
use roundsman::proxy::{ListenerHandle, Plane, Workers};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::lanes::each;
use crate::origin::Origin;

/// The longest wait for what should happen at once.
pub const SOON: Duration = Duration::from_secs(10);

/// A data plane with one listener and one pool.
pub struct Rig {
    pub plane: Arc<Plane>,
    pub listener: ListenerHandle,
    pub address: SocketAddr,
    pub pool: Arc<Pool>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub published: Published,
}

impl Rig {
    /// All of them are eligible.
    pub fn over(origins: &[&Origin]) -> Rig {
        let addresses: Vec<Address> = origins.iter().map(|origin| origin.address()).collect();
        Rig::at(&addresses)
    }

    pub fn at(addresses: &[Address]) -> Rig {
        Rig::build_in(lane_of(addresses), addresses, worker(), 1_000)
    }

    /// Nothing is eligible.
    pub fn with_nothing() -> Rig {
        let rig = Rig::at(&[]);
        rig.set_service(Service::NoneEligible(Otherwise::Reject));
        rig
    }

    pub fn build(addresses: &[Address], runtime: Handle, connections_max: usize) -> Rig {
        Rig::build_in(lane_of(addresses), addresses, Workers::on(runtime), connections_max)
    }

    /// As [`Rig::over`], in this lane.
    pub fn in_lane(lane: Lane, origins: &[&Origin]) -> Rig {
        let addresses: Vec<Address> = origins.iter().map(|origin| origin.address()).collect();
        Rig::build_in(lane, &addresses, worker(), 1_000)
    }

    pub fn build_in(lane: Lane, addresses: &[Address], workers: Workers, connections_max: usize) -> Rig {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let name = Name::try_new("api").unwrap();
        let upstream = |address: &Address| {
            let id = UpstreamId(IDS.fetch_add(1, Ordering::Relaxed));
            Arc::new(Upstream::new(id, name.clone(), address.clone(), Hints::none()))
        };
        let upstreams: Vec<_> = addresses.iter().map(upstream).collect();
        let view = ArcSwap::from_pointee(view(Service::Open, &upstreams));
        let shared = Arc::new(PoolShared::new(Instant::now()));
        let pool = Arc::new(Pool { id: PoolId(0), name: name.clone(), traffic: Arc::default(), shared, view });
        let entry = ListenerEntry {
            name,
            pool: Some(PoolId(0)),
            client: ClientPolicy::default(),
            limit: None,
            marks: Arc::default(),
            ready_path: None,
        };
        let snapshot = Snapshot::new(1, Routes::default(), vec![Some(entry)], vec![Some(pool.clone())]);
        let published: Published = Arc::new(ArcSwap::from_pointee(snapshot));
        let plane = Plane::new(published.clone(), connections_max, lane, workers, Arc::new(NoDesk));
        let bound = Plane::bind(&Address::Inet(([127, 0, 0, 1], 0).into())).expect("a free port");
        let address = bound.local_addr().expect("it is TCP");
        let ready = plane.ready(bound, ListenerId(0)).expect("a runtime that has I/O");
        let listener = plane.serve(ready, ListenerId(0));
        Rig { plane, listener, address, pool, upstreams, published }
    }

    /// As a reload that changes nothing but these.
    pub fn set_policies(&self, client: ClientPolicy, traffic: TrafficPolicy) {
        let Pool { id, name, shared, view, .. } = &*self.pool;
        let (shared, view) = (shared.clone(), ArcSwap::new(view.load_full()));
        let pool = Arc::new(Pool { id: *id, name: name.clone(), traffic: Arc::new(traffic), shared, view });
        let entry = ListenerEntry {
            name: name.clone(),
            pool: Some(*id),
            client,
            limit: None,
            marks: Arc::default(),
            ready_path: None,
        };
        let generation = self.published.load().generation + 1;
        let snapshot = Snapshot::new(generation, Routes::default(), vec![Some(entry)], vec![Some(pool)]);
        self.published.store(Arc::new(snapshot));
    }

    pub fn set_service(&self, service: Service) {
        self.pool.view.store(Arc::new(view(service, &self.upstreams)));
        self.pool.shared.announce();
    }

    /// Makes this upstream ineligible and eligible again, so that a new epoch of connections begins.
    pub fn lose(&self, index: usize) {
        let connections = &self.upstreams[index].connections;
        connections.begin_epoch();
        let service = self.pool.view.load().service;
        self.set_service(service);
        connections.close_idle();
    }

    pub async fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).await.expect("the listener accepts"))
    }

    /// One connection, these bytes, one answer.
    pub async fn ask(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.answer().await
    }

    pub fn answered(&self, reason: AnswerReason) -> u64 {
        self.pool.shared.stats.answers.get(reason) + self.plane.stats().answers.get(reason)
    }
}

/// The lane of the test that runs here. Without an upstream no lane carries anything.
fn lane_of(addresses: &[Address]) -> Lane {
    each::current().or(addresses.is_empty().then_some(Lane::Auto)).expect("in_each_lane!(this_test)")
}

/// A worker of its own for a data plane.
fn worker() -> Workers {
    Workers::start(1).expect("a thread")
}

fn view(service: Service, upstreams: &[Arc<Upstream>]) -> View {
    let members = || upstreams.iter().map(|upstream| (upstream.clone(), FineWeight::ONE));
    let tier = |members: Vec<_>| Tier::build(Balance::RoundRobin, members);
    let rules = Rules { needed: 1, backups_alone: false, otherwise: Otherwise::Reject };
    View::new(service, tier(members().collect()), tier(vec![]), rules)
}

/// A response as the client read it.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub version: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body is complete by its framing. One without framing ends with a clean close.
    pub whole: bool,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client that sends exactly what the test says.
pub struct Client<S = TcpStream> {
    pub stream: S,
    buf: Vec<u8>,
    /// Responses to a HEAD have no body.
    pub head_only: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn new(stream: S) -> Client<S> {
        Client { stream, buf: vec![], head_only: false }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A refused request may be closed before all of it is read.
        let _ = within(self.stream.write_all(bytes.as_ref())).await;
    }

    /// The next response, interim ones included.
    pub async fn answer(&mut self) -> Answer {
        within(self.read_answer()).await.unwrap_or_else(|| panic!("no answer, but {:?}", self.buffered()))
    }

    /// `None`: the connection ended before a response.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        within(self.read_answer()).await
    }

    /// Waits for the end of the connection; panics if anything arrives before.
    #[track_caller]
    pub fn ends(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let ended = within(self.fill()).await;
            assert!(self.buf.is_empty() && !ended, "{caller}: expected the end, not {:?}", self.buffered());
        }
    }

    /// Reads and returns this many bytes.
    pub async fn take(&mut self, bytes: usize) -> Vec<u8> {
        while self.buf.len() < bytes {
            assert!(within(self.fill()).await, "the end after {:?}", self.buffered());
        }
        self.buf.drain(..bytes).collect()
    }

    fn buffered(&self) -> String {
        String::from_utf8_lossy(&self.buf[..self.buf.len().min(300)]).into_owned()
    }

    /// False at the end of the connection, clean or reset.
    async fn fill(&mut self) -> bool {
        let mut chunk = vec![0; 64 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(n) if n > 0 => {
                self.buf.extend_from_slice(&chunk[..n]);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    async fn read_answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.buf.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head: Vec<u8> = self.buf.drain(..end).collect();
        let head = String::from_utf8(head).expect("a head is text");
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{first:?}"));
        let fields: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer { status, version: first[..8].to_owned(), fields, body: vec![], whole: true };
        if self.head_only || status < 200 || status == 204 || status == 304 {
            return Some(answer);
        }
        let chunked = answer.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let length: Option<usize> = answer.field("content-length").map(|n| n.parse().expect("a number"));
        match (chunked, length) {
            (true, Some(_)) => panic!("both Content-Length and chunked: {head:?}"),
            (true, None) => self.read_chunks(&mut answer).await,
            (false, Some(length)) => {
                while self.buf.len() < length && self.fill().await {}
                answer.whole = self.buf.len() >= length;
                answer.body = self.buf.drain(..length.min(self.buf.len())).collect();
            }
            (false, None) => {
                let mut rest = Vec::new();
                answer.whole = self.stream.read_to_end(&mut rest).await.is_ok();
                answer.body = std::mem::take(&mut self.buf);
                answer.body.extend(rest);
            }
        }
        Some(answer)
    }

    async fn read_chunks(&mut self, answer: &mut Answer) {
        loop {
            let Some(line) = self.line().await else {
                answer.whole = false;
                return;
            };
            let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("a chunk size, not {line:?}"));
            while self.buf.len() < size + 2 {
                if !self.fill().await {
                    answer.whole = false;
                    answer.body.append(&mut self.buf);
                    return;
                }
            }
            answer.body.extend(self.buf.drain(..size));
            assert_eq!(self.buf.drain(..2).collect::<Vec<_>>(), b"\r\n");
            if size == 0 {
                return;
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buf.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buf.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.fill().await {
                return None;
            }
        }
    }
}

/// Bounds every wait of a test.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(200), what).await.expect("within 200 s")
}

/// A GET of this path.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

/// A POST with this body.
pub fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
