//! The clients of a storm: kept connections, numbered GETs and POSTs, sometimes several at once, and sometimes a client
//! that disconnects early. They record the outcome of every request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::evidence::{End, Outcome};
use super::model::SERVICES;

/// The longest wait for a response: a first verdict may take 3 s, and two unreachable upstreams 2 s each.
const PATIENCE: Duration = Duration::from_secs(12);
/// What a POST carries.
const BODY: &[u8] = b"0123456789";
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What all clients share.
#[derive(Debug)]
pub struct Shared {
    /// The start of the storm, from which moments count.
    pub start: Instant,
    /// The two addresses a listener may have.
    pub listeners: [SocketAddr; 2],
    /// Which of them is in use.
    pub listener: AtomicUsize,
    pub outcomes: Mutex<Vec<Outcome>>,
    next: AtomicU64,
    stop: AtomicBool,
}

/// The running clients.
#[derive(Debug)]
pub struct Clients {
    pub shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Clients {
    pub fn start(seed: u64, count: u64, start: Instant, listeners: [SocketAddr; 2]) -> Clients {
        let shared = Arc::new(Shared {
            start,
            listeners,
            listener: AtomicUsize::new(0),
            outcomes: Mutex::default(),
            next: AtomicU64::new(1),
            stop: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for index in 0..count {
            let rng = Rng::with_seed(seed ^ (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            tasks.spawn(Client { shared: shared.clone(), rng, wire: None }.run());
        }
        Clients { shared, tasks }
    }

    /// Sends no further request, and returns when those in flight have ended.
    pub async fn stop(mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client does not panic");
        }
    }
}

struct Client {
    shared: Arc<Shared>,
    rng: Rng,
    wire: Option<Wire>,
}

struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    reused: bool,
}

/// One request to be sent.
#[derive(Clone, Copy)]
struct Ask {
    number: u64,
    service: usize,
    post: bool,
}

impl Ask {
    fn target(&self) -> String {
        format!("/s{}/{}", self.service, self.number)
    }

    fn bytes(&self) -> Vec<u8> {
        let method = if self.post { "POST" } else { "GET" };
        let mut bytes = format!("{method} {} HTTP/1.1\r\nHost: storm.test\r\n", self.target()).into_bytes();
        if self.post {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", BODY.len()).as_bytes());
            bytes.extend_from_slice(BODY);
        } else {
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }
}

impl Client {
    async fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            match self.rng.u32(0..100) {
                0..4 => self.leave().await,
                4..9 => self.ask_many().await,
                _ => {
                    let ask = self.draw();
                    self.ask(&[ask]).await;
                }
            }
            sleep(Duration::from_millis(self.rng.u64(1..60))).await;
        }
    }

    fn draw(&mut self) -> Ask {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        Ask { number, service: self.rng.usize(0..SERVICES), post: self.rng.u32(0..3) == 0 }
    }

    async fn ask_many(&mut self) {
        let asks: Vec<Ask> = (0..self.rng.usize(2..5)).map(|_| self.draw()).collect();
        self.ask(&asks).await;
    }

    /// Sends these at once and reads the responses.
    async fn ask(&mut self, asks: &[Ask]) {
        let mut sent = self.shared.start.elapsed();
        let bytes: Vec<u8> = asks.iter().flat_map(Ask::bytes).collect();
        let mut failed = match self.connected().await {
            Some(wire) => {
                // A failed write shows when the response is read.
                let _ = wire.stream.write_all(&bytes).await;
                None
            }
            None => Some(End::NoConnection),
        };
        for ask in asks {
            let end = match failed.clone() {
                Some(end) => end,
                None => self.read(ask).await,
            };
            if self.wire.is_none() && failed.is_none() {
                // Nothing is promised to the pipelined requests after it.
                failed = Some(End::Unknown);
            }
            let ended = self.shared.start.elapsed();
            let Ask { number, service, post } = *ask;
            self.shared.outcomes.lock().push(Outcome { number, service, post, sent, ended, end });
            // The proxy reads the next one when this one has its response.
            sent = ended;
        }
    }

    /// Sends a request, or half of one, and disconnects.
    async fn leave(&mut self) {
        let ask = self.draw();
        let sent = self.shared.start.elapsed();
        let bytes = ask.bytes();
        let part = if self.rng.bool() { bytes.len() } else { self.rng.usize(1..bytes.len()) };
        if let Some(wire) = self.connected().await {
            let _ = wire.stream.write_all(&bytes[..part]).await;
            sleep(Duration::from_millis(self.rng.u64(0..120))).await;
        }
        self.wire = None;
        let Ask { number, service, post } = ask;
        let ended = self.shared.start.elapsed();
        self.shared.outcomes.lock().push(Outcome { number, service, post, sent, ended, end: End::Unknown });
    }

    async fn connected(&mut self) -> Option<&mut Wire> {
        if self.wire.is_none() {
            let address = self.shared.listeners[self.shared.listener.load(Ordering::SeqCst)];
            let stream = timeout(PATIENCE, TcpStream::connect(address)).await.ok()?.ok()?;
            stream.set_nodelay(true).ok()?;
            self.wire = Some(Wire { stream, buffer: Vec::new(), reused: false });
        }
        self.wire.as_mut()
    }

    /// The response to `ask`; the connection is dropped if it cannot continue.
    async fn read(&mut self, ask: &Ask) -> End {
        let Some(mut wire) = self.wire.take() else { return End::Unknown };
        let Ok(read) = timeout(PATIENCE, wire.answer()).await else { return End::GaveUp };
        match read {
            Err(end) => end,
            Ok(Got { status, body, close }) => {
                wire.reused = true;
                self.wire = (!close).then_some(wire);
                match (status, reason(&body)) {
                    (200, _) if body == ask.target() => End::Answered,
                    (200, _) => End::Wrong(format!("{body:?}")),
                    (status, Some(reason)) => End::Own(status, reason.to_owned()),
                    (status, None) => End::Wrong(format!("{status} {body:?}")),
                }
            }
        }
    }
}

struct Got {
    status: u16,
    body: String,
    close: bool,
}

impl Wire {
    async fn answer(&mut self) -> Result<Got, End> {
        loop {
            match parse(&self.buffer) {
                Err(why) => return Err(End::Wrong(why)),
                Ok(Some((got, length))) => {
                    self.buffer.drain(..length);
                    return Ok(got);
                }
                Ok(None) => {}
            }
            let mut block = [0; 4096];
            let read = self.stream.read(&mut block).await.unwrap_or(0);
            if read == 0 {
                return Err(if self.buffer.is_empty() { End::Closed { reused: self.reused } } else { End::Cut });
            }
            self.buffer.extend_from_slice(&block[..read]);
            if self.buffer.len() > ANSWER_BYTES_MAX {
                return Err(End::Wrong("it does not end".to_owned()));
            }
        }
    }
}

/// One complete response and its length; `None` while it is incomplete.
fn parse(buffer: &[u8]) -> Result<Option<(Got, usize)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(buffer).map_err(|error| format!("{error}: {}", buffer.escape_ascii()))?;
    let httparse::Status::Complete(head) = parsed else { return Ok(None) };
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| String::from_utf8_lossy(field.value).to_ascii_lowercase())
    };
    let length = field("content-length").and_then(|length| length.parse::<usize>().ok());
    let length = length.ok_or_else(|| "it has no length".to_owned())?;
    let Some(body) = buffer.get(head..head + length) else { return Ok(None) };
    let got = Got {
        status: response.code.unwrap_or_default(),
        body: String::from_utf8_lossy(body).into_owned(),
        close: field("connection").is_some_and(|value| value.contains("close")),
    };
    Ok(Some((got, head + length)))
}

/// The reason code of one of the proxy's own responses: `none_eligible` of `no eligible upstream (none_eligible)`.
fn reason(body: &str) -> Option<&str> {
    body.trim_end().strip_suffix(')')?.rsplit_once('(').map(|(_, reason)| reason)
}
