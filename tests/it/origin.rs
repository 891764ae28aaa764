//! The scripted origin: a small HTTP/1.1 server that does exactly what a test says, well-behaved or hostile.
//!
//! ```ignore
//! let origin = Origin::new().named("a").on("/healthz").reply(503).times(3).then(200).start().await;
//! origin.set("/healthz", Reply::hang());          // from now on
//! origin.kill();                                  // refuses connections; those it had are reset
//! origin.revive();                                // same address
//! assert_eq!(origin.requests("/healthz").len(), 5);
//! ```
//!
//! Paths without a script answer 200 with `hello from NAME`; `POST /echo` gives the body back. Origins run on a runtime
//! of their own, so that neither a paused clock nor a busy test delays them, and every call from the test is plain and
//! synchronous. Each has its own loopback address (127.x.y.z), so that no other origin gets the port of a killed one.

mod connection;
pub mod frames;
mod reply;
pub mod tls;

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use roundsman::model::Address;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub use reply::{Act, Reply};

use connection::{Listening, serve};

/// The log keeps this many requests, the newest; the counters count all.
const LOG_REQUESTS_MAX: usize = 50_000;
/// How long `kill` and `revive` may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(5);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("origin")
        .enable_all()
        .build()
        .expect("a runtime for the origins")
});

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// As sent, query included.
    pub target: String,
    /// In the order they came, names as sent.
    pub fields: Vec<(String, String)>,
    /// The whole head, byte for byte.
    pub head: Vec<u8>,
    /// Bytes of body, decoded. 0 if the reply went out before the body was read.
    pub body_bytes: u64,
    /// The first 64 KiB of it.
    pub body: Vec<u8>,
    /// When its head was complete.
    pub at: Instant,
    /// Which connection brought it, counted from 1.
    pub connection: u64,
}

impl Seen {
    /// The value of the first field of this name, in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Every value of this name.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }
}

/// How a connection ended, as the origin saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The peer closed cleanly between requests, or before it sent one.
    Eof,
    /// The peer closed inside a request.
    EofInRequest,
    /// The peer reset it, or writing to it failed.
    Reset,
    /// The script, `kill` or `Connection: close` ended it.
    Ours,
}

/// Builds an [`Origin`]; made by [`Origin::new`].
#[derive(Debug, Default)]
pub struct OriginBuilder {
    name: Option<String>,
    at: Option<Address>,
    scripts: HashMap<String, Script>,
    current: Option<String>,
    on_accept: Option<Reply>,
}

impl OriginBuilder {
    /// Its name in bodies and in `X-Origin`; otherwise its address.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Listens on this address instead of its own; port 0 means any free port.
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.at = Some(Address::Inet(address));
        self
    }

    /// Listens on a unix socket.
    pub fn at_unix(mut self, path: &Path) -> Self {
        self.at = Some(Address::Unix(Arc::from(path)));
        self
    }

    /// The following `reply`, `times`, `then` are for this path (compared without query); `*` is every path that has no
    /// script of its own.
    pub fn on(mut self, path: &str) -> Self {
        self.scripts.entry(path.to_owned()).or_default();
        self.current = Some(path.to_owned());
        self
    }

    /// What it answers: a status, or a [`Reply`].
    pub fn reply(mut self, reply: impl Into<Reply>) -> Self {
        let script = self.script();
        script.steps.push(Step { reply: Arc::new(reply.into()), times: None });
        self
    }

    /// How often the last reply is given. Without it: once if another follows, for ever otherwise.
    pub fn times(mut self, times: u32) -> Self {
        self.script().steps.last_mut().expect("`times` follows `reply` or `then`").times = Some(times);
        self
    }

    /// What it answers after that.
    pub fn then(self, reply: impl Into<Reply>) -> Self {
        self.reply(reply)
    }

    /// Does this on every new connection before it reads a byte (only replies made of acts: `raw`, `hang`, `reset`, …).
    pub fn on_accept(mut self, reply: Reply) -> Self {
        self.on_accept = Some(reply);
        self
    }

    /// Listens.
    pub async fn start(self) -> Origin {
        self.start_blocking()
    }

    /// As [`OriginBuilder::start`], for tests without a runtime.
    pub fn start_blocking(self) -> Origin {
        let wanted = self.at.unwrap_or_else(own_address);
        let listening = bind_soon(&wanted);
        let address = listening.address();
        let shared = Arc::new(Shared {
            name: self.name.unwrap_or_else(|| address.to_string()),
            address,
            book: Mutex::new(Book { scripts: self.scripts, ..Book::default() }),
            on_accept: Mutex::new(self.on_accept.map(Arc::new)),
            open: Mutex::new(HashMap::new()),
            closed: Condvar::new(),
            listener: Mutex::new(None),
            resets: AtomicBool::new(false),
            stopping: watch::Sender::new(false),
            accepted: AtomicU64::new(0),
            listening: AtomicUsize::new(0),
        });
        let origin = Origin { shared };
        origin.listen(listening);
        origin
    }

    fn script(&mut self) -> &mut Script {
        let path = self.current.as_ref().expect("`on(path)` comes first");
        self.scripts.get_mut(path).expect("`on` made it")
    }
}

/// A running origin; dropping it ends it as `kill` does.
#[derive(Debug)]
pub struct Origin {
    shared: Arc<Shared>,
}

impl Origin {
    #[allow(clippy::new_ret_no_self, reason = "the chain of a script reads best from `Origin::new()`")]
    pub fn new() -> OriginBuilder {
        OriginBuilder::default()
    }

    /// An origin that responds with its name.
    pub async fn plain(name: &str) -> Origin {
        Origin::new().named(name).start().await
    }

    /// Where it listens, or listened.
    pub fn address(&self) -> Address {
        self.shared.address.clone()
    }

    /// The same as text, as configuration files have it.
    pub fn text(&self) -> String {
        self.shared.address.to_string()
    }

    /// For Internet addresses only.
    pub fn socket_addr(&self) -> SocketAddr {
        match &self.shared.address {
            Address::Inet(a) => *a,
            Address::Unix(_) | Address::Name { .. } => panic!("{} is not an Internet address", self.shared.address),
        }
    }

    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// From now on this is the reply for this path (`*`: for every path without a script).
    pub fn set(&self, path: &str, reply: impl Into<Reply>) {
        let steps = vec![Step { reply: Arc::new(reply.into()), times: None }];
        self.shared.book.lock().scripts.insert(path.to_owned(), Script { steps, at: 0, used: 0 });
    }

    /// Forgets the script of this path: the default answer again.
    pub fn unset(&self, path: &str) {
        self.shared.book.lock().scripts.remove(path);
    }

    /// From now on this is the reply to every request, whatever its path; `None` ends that. For a server that hangs.
    pub fn set_all(&self, reply: Option<Reply>) {
        self.shared.book.lock().all = reply.map(Arc::new);
    }

    /// What new connections get before a byte is read from them.
    pub fn set_on_accept(&self, reply: Option<Reply>) {
        *self.shared.on_accept.lock() = reply.map(Arc::new);
    }

    /// The requests to this path (without query), oldest first: the newest 50,000 of all paths are kept.
    pub fn requests(&self, path: &str) -> Vec<Seen> {
        let book = self.shared.book.lock();
        book.log.iter().filter(|seen| path_of(&seen.target) == path).cloned().collect()
    }

    /// The requests to every path.
    pub fn all_requests(&self) -> Vec<Seen> {
        self.shared.book.lock().log.iter().cloned().collect()
    }

    /// How many requests came to this path (without query).
    pub fn count(&self, path: &str) -> u64 {
        self.shared.book.lock().counts.get(path).copied().unwrap_or(0)
    }

    /// How many requests came to each path (without query), including those whose body was incomplete.
    pub fn counts(&self) -> HashMap<String, u64> {
        self.shared.book.lock().counts.clone()
    }

    /// How many requests came, health checks included.
    pub fn total(&self) -> u64 {
        self.shared.book.lock().counts.values().sum()
    }

    /// Clears the log, the counters and the endings; scripts continue.
    pub fn forget(&self) {
        let mut book = self.shared.book.lock();
        book.log.clear();
        book.counts.clear();
        book.endings.clear();
        book.bytes_written = 0;
        book.bytes_read = 0;
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    pub fn open_connections(&self) -> usize {
        self.shared.open.lock().len()
    }

    /// How connections ended, in that order.
    pub fn endings(&self) -> Vec<Ending> {
        self.shared.book.lock().endings.clone()
    }

    /// Bytes handed to the kernel, over all connections.
    pub fn bytes_written(&self) -> u64 {
        self.shared.book.lock().bytes_written
    }

    /// Bytes that peers sent, over all connections.
    pub fn bytes_read(&self) -> u64 {
        self.shared.book.lock().bytes_read
    }

    /// As a process killed with SIGKILL: when this returns, its connections are reset and new ones refused.
    pub fn kill(&self) {
        self.shared.resets.store(true, Ordering::SeqCst);
        self.stop_listening();
        self.close_connections();
    }

    /// As a server that is asked to stop: accepts no new connection, closes idle ones cleanly, and answers requests
    /// that have begun with `Connection: close`.
    pub fn stop_gracefully(&self) {
        self.stop_listening();
        self.shared.stopping.send_replace(true);
    }

    /// Resets every connection, and continues to listen.
    pub fn reset_connections(&self) {
        self.shared.resets.store(true, Ordering::SeqCst);
        self.close_connections();
        self.shared.resets.store(false, Ordering::SeqCst);
    }

    /// Stops listening; open connections continue.
    pub fn stop_listening(&self) {
        if let Some(listener) = self.shared.listener.lock().take() {
            listener.abort();
        }
        self.wait_until("the listener is closed", || self.shared.listening.load(Ordering::SeqCst) == 0);
        if let Address::Unix(path) = &self.shared.address {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Listens on the same address again. Does nothing if it does already.
    pub fn revive(&self) {
        if self.shared.listener.lock().is_some() {
            return;
        }
        self.shared.resets.store(false, Ordering::SeqCst);
        self.shared.stopping.send_replace(false);
        let listening = bind_soon(&self.shared.address);
        self.listen(listening);
    }

    fn listen(&self, listening: Listening) {
        self.shared.listening.store(1, Ordering::SeqCst);
        let task = RUNTIME
            .spawn(accept(Listener { listening, _guard: ListeningGuard(self.shared.clone()) }, self.shared.clone()));
        *self.shared.listener.lock() = Some(task.abort_handle());
    }

    fn close_connections(&self) {
        for handle in self.shared.open.lock().values() {
            handle.abort();
        }
        self.wait_until("every connection is closed", || self.shared.open.lock().is_empty());
    }

    fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < end, "origin {}: {what}: not within {PATIENCE:?}", self.shared.name);
            let mut open = self.shared.open.lock();
            self.shared.closed.wait_for(&mut open, Duration::from_millis(1));
        }
    }
}

/// An upstream whose checks go to another port than its requests.
pub struct Twin {
    /// Gets its requests.
    pub traffic: Origin,
    /// Gets its checks.
    pub health: Origin,
}

impl Twin {
    /// Two that answer alike.
    pub async fn start(name: &str) -> Twin {
        Twin { traffic: Origin::plain(name).await, health: Origin::plain(name).await }
    }

    /// Its entry in `upstreams`.
    pub fn entry(&self) -> String {
        format!("{{ address = \"{}\", health_address = \"{}\" }}", self.traffic.text(), self.health.text())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.resets.store(true, Ordering::SeqCst);
        if let Some(listener) = self.shared.listener.lock().take() {
            listener.abort();
        }
        for handle in self.shared.open.lock().values() {
            handle.abort();
        }
        if let Address::Unix(path) = &self.shared.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A port that completes no handshake: connecting to it neither succeeds nor fails. Its backlog is full and never
/// accepted.
#[derive(Debug)]
pub struct BlackHole {
    address: SocketAddr,
    _listener: socket2::Socket,
    _fillers: Vec<socket2::Socket>,
}

impl BlackHole {
    pub fn start() -> BlackHole {
        let Address::Inet(wanted) = own_address() else { unreachable!("own addresses are Internet addresses") };
        BlackHole::at(wanted)
    }

    /// At this address, on which nothing listens.
    pub fn at(wanted: SocketAddr) -> BlackHole {
        let listener = tcp_socket();
        listener.set_reuse_address(true).expect("a socket takes this option");
        listener.bind(&wanted.into()).expect("bind");
        listener.listen(0).expect("listen");
        let address = listener.local_addr().expect("a bound socket has an address").as_socket().expect("IPv4");
        let mut fillers = Vec::new();
        for _ in 0..16 {
            let filler = tcp_socket();
            let connected = filler.connect_timeout(&address.into(), Duration::from_millis(100)).is_ok();
            fillers.push(filler);
            if !connected {
                return BlackHole { address, _listener: listener, _fillers: fillers };
            }
        }
        panic!("the backlog of {address} does not fill up");
    }

    pub fn address(&self) -> Address {
        Address::Inet(self.address)
    }
}

fn tcp_socket() -> socket2::Socket {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket")
}

/// An address on which nothing listens: it was bound and closed, and no other origin gets its host.
pub fn refusing_address() -> Address {
    let wanted = own_address();
    bind(&wanted).expect("bind").address()
}

#[derive(Debug)]
struct Shared {
    name: String,
    address: Address,
    book: Mutex<Book>,
    on_accept: Mutex<Option<Arc<Reply>>>,
    open: Mutex<HashMap<u64, AbortHandle>>,
    closed: Condvar,
    listener: Mutex<Option<AbortHandle>>,
    /// Connections that end now are reset.
    resets: AtomicBool,
    /// Connections end when they are idle.
    stopping: watch::Sender<bool>,
    accepted: AtomicU64,
    listening: AtomicUsize,
}

impl Shared {
    fn ended(&self, connection: u64, ending: Ending) {
        self.book.lock().endings.push(ending);
        self.open.lock().remove(&connection);
        self.closed.notify_all();
    }

    /// Counts the request, and returns the reply of its path.
    fn reply_for(&self, target: &str) -> Option<Arc<Reply>> {
        let mut book = self.book.lock();
        let path = path_of(target);
        match book.counts.get_mut(path) {
            Some(count) => *count += 1,
            None => {
                book.counts.insert(path.to_owned(), 1);
            }
        }
        if let Some(reply) = &book.all {
            return Some(reply.clone());
        }
        if let Some(script) = book.scripts.get_mut(path) {
            return script.next();
        }
        book.scripts.get_mut("*").and_then(Script::next)
    }

    fn log(&self, seen: Seen) {
        let mut book = self.book.lock();
        if book.log.len() == LOG_REQUESTS_MAX {
            book.log.pop_front();
        }
        book.log.push_back(seen);
    }

    fn wrote(&self, bytes: usize) {
        self.book.lock().bytes_written += bytes as u64;
    }

    fn read(&self, bytes: usize) {
        self.book.lock().bytes_read += bytes as u64;
    }
}

#[derive(Debug, Default)]
struct Book {
    scripts: HashMap<String, Script>,
    all: Option<Arc<Reply>>,
    log: VecDeque<Seen>,
    counts: HashMap<String, u64>,
    endings: Vec<Ending>,
    bytes_written: u64,
    bytes_read: u64,
}

#[derive(Debug, Default)]
struct Script {
    steps: Vec<Step>,
    at: usize,
    used: u32,
}

#[derive(Debug)]
struct Step {
    reply: Arc<Reply>,
    times: Option<u32>,
}

impl Script {
    fn next(&mut self) -> Option<Arc<Reply>> {
        while self.at + 1 < self.steps.len() && self.used >= self.steps[self.at].times.unwrap_or(1) {
            self.at += 1;
            self.used = 0;
        }
        self.used += 1;
        self.steps.get(self.at).map(|step| step.reply.clone())
    }
}

/// A listening socket, and the guard that reports its end: in this order, so that the socket is closed before the
/// report.
struct Listener {
    listening: Listening,
    _guard: ListeningGuard,
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    loop {
        // Out of descriptors, most likely: the peers wait in the backlog meanwhile.
        let Ok(stream) = listener.listening.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let id = shared.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut open = shared.open.lock();
        // Under the lock, so that a connection that ends at once finds its entry to remove.
        let task = tokio::spawn(serve(stream, id, shared.clone()));
        open.insert(id, task.abort_handle());
    }
}

#[derive(Debug)]
struct ListeningGuard(Arc<Shared>);

impl Drop for ListeningGuard {
    fn drop(&mut self) {
        self.0.listening.store(0, Ordering::SeqCst);
        self.0.closed.notify_all();
    }
}

/// As [`bind`]; an address that was given up a moment ago may be free a moment later.
fn bind_soon(address: &Address) -> Listening {
    let end = Instant::now() + PATIENCE;
    loop {
        match bind(address) {
            Ok(listening) => return listening,
            Err(e) => assert!(Instant::now() < end, "origin cannot listen on {address}: {e}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn bind(address: &Address) -> std::io::Result<Listening> {
    let _runtime = RUNTIME.enter();
    match address {
        Address::Inet(a) => {
            let socket = if a.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(*a)?;
            Ok(Listening::Tcp(TcpListener::from_std(socket.listen(4096)?.into_std()?)?))
        }
        Address::Unix(path) => Ok(Listening::Unix(UnixListener::bind(path)?, PathBuf::from(&**path))),
        Address::Name { .. } => panic!("{address} cannot be listened on"),
    }
}

/// 127.x.y.z, which no two origins of this process, and hardly two of one machine, have in common: every port of it is
/// free.
pub fn own_host() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = (std::process::id() % 200) as u8 + 20;
    Ipv4Addr::new(127, process, (n / 250) as u8, (n % 250) as u8 + 1)
}

fn own_address() -> Address {
    Address::Inet(SocketAddr::from((own_host(), 0)))
}

fn path_of(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}
