//! Runs one case in one lane, and records what client and origin have seen.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use roundsman::model::Address;
use roundsman::model::policy::Lane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::answers::Answers;
use super::origin::{Book, Log, Request, serve};
use super::stream::Stream;
use crate::http::rig::Rig;
use crate::lanes::each;
use crate::support::assert_eventually;

/// The longest wait for what should happen at once.
const SOON: Duration = Duration::from_secs(60);

/// For how long nothing must have happened until the client closes its side.
#[derive(Debug, Clone, Copy)]
pub struct Patience(Duration);

impl Patience {
    pub const SHORT: Patience = Patience(Duration::from_millis(100));
    pub const LONG: Patience = Patience(Duration::from_secs(3));
}

/// What came of one case in one lane.
pub struct Seen {
    /// What the client got.
    pub client: Vec<u8>,
    /// Its connection was reset.
    pub reset: bool,
    /// The client has closed its side first.
    pub was_left: bool,
    pub requests: Vec<Request>,
    pub faults: Vec<String>,
    /// Where the origin listened.
    pub origin: String,
}

/// Lets everybody else on this thread do what there is to do.
pub async fn settle() {
    for _ in 0..6 {
        tokio::task::yield_now().await;
    }
}

/// One client over one data plane and one origin.
pub fn run(lane: Lane, stream: &Stream, answers: &Answers, seed: u64, patience: Patience) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let seen = runtime.block_on(each::run(lane, async {
        let world = World::start(answers.clone(), seed).await;
        let origin = world.rig.upstreams[0].address.to_string();
        let mut client = Client::connect(&world.rig).await;
        client.send(stream).await;
        let was_left = client.end(&world, patience).await;
        let (bytes, reset) = client.close();
        let log = world.stop().await;
        let Log { requests, faults, .. } = log;
        Seen { client: bytes, reset, was_left, requests, faults, origin }
    }));
    runtime.shutdown_background();
    seen
}

/// A data plane in this lane, and its origin.
pub struct World {
    pub rig: Rig,
    pub book: Book,
    pub speak: watch::Sender<u32>,
    serving: JoinHandle<()>,
}

impl World {
    pub async fn start(answers: Answers, seed: u64) -> World {
        fastrand::seed(seed);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = Address::Inet(listener.local_addr().expect("it has one"));
        let (speak, heard) = watch::channel(0);
        let log: Arc<Mutex<Log>> = Arc::default();
        let book = Book { log, answers: Arc::new(answers), speak: heard };
        let serving = tokio::spawn(serve(listener, book.clone()));
        World { rig: Rig::build(&[address], Handle::current(), 100), book, speak, serving }
    }

    /// Waits until no client is connected any more.
    pub async fn stop(self) -> Log {
        assert_eventually("every client's connection ends", SOON, || self.rig.plane.connections() == 0).await;
        settle().await;
        self.serving.abort();
        std::mem::take(&mut *self.book.log.lock())
    }
}

/// A client that reads all the time.
pub struct Client {
    write: OwnedWriteHalf,
    got: Arc<Mutex<Vec<u8>>>,
    /// True: it ended with a reset.
    reading: JoinHandle<bool>,
    reset: bool,
}

impl Client {
    pub async fn connect(rig: &Rig) -> Client {
        let stream = TcpStream::connect(rig.address).await.expect("the listener accepts");
        stream.set_nodelay(true).expect("it is TCP");
        let (read, write) = stream.into_split();
        let got: Arc<Mutex<Vec<u8>>> = Arc::default();
        Client { write, got: got.clone(), reading: tokio::spawn(collect(read, got)), reset: false }
    }

    /// Sends a stream in its pieces; after each piece everybody has time to read it.
    pub async fn send(&mut self, stream: &Stream) {
        let mut rest = &stream.bytes[..];
        for cut in stream.cuts.iter().copied().chain([usize::MAX]) {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            rest = after;
            if !self.write_all(piece).await {
                return;
            }
            settle().await;
        }
    }

    /// False: the connection has ended.
    pub async fn write_all(&mut self, bytes: &[u8]) -> bool {
        let written = timeout(SOON, self.write.write_all(bytes)).await.expect("the proxy reads");
        // The kernel reports a reset once, to whoever asks first.
        self.reset |= written.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        written.is_ok()
    }

    /// Final responses that have begun.
    pub fn finals(&self) -> usize {
        const START: &[u8] = b"HTTP/1.1 ";
        let is_final = |line: &[u8]| line.starts_with(START) && line.get(9).is_some_and(|digit| *digit >= b'2');
        let got = self.got.lock();
        (0..got.len()).filter(|at| is_final(&got[*at..])).count()
    }

    /// Waits for the end of the connection, and closes this side if nothing happens any more. True: it did that.
    pub async fn end(&mut self, world: &World, patience: Patience) -> bool {
        let mut left = false;
        let begin = Instant::now();
        let mut moved = usize::MAX;
        loop {
            match timeout(patience.0, &mut self.reading).await {
                Ok(reset) => {
                    self.reset |= reset.expect("no panic");
                    return left;
                }
                Err(_) => {
                    let now = world.book.log.lock().moved + self.got.lock().len();
                    if now == moved && !left {
                        left = true;
                        let _ = self.write.shutdown().await;
                    }
                    moved = now;
                    assert!(begin.elapsed() < SOON, "the connection does not end");
                }
            }
        }
    }

    /// What it got, and whether it ended with a reset.
    pub fn close(self) -> (Vec<u8>, bool) {
        (std::mem::take(&mut *self.got.lock()), self.reset)
    }
}

async fn collect(mut read: OwnedReadHalf, got: Arc<Mutex<Vec<u8>>>) -> bool {
    let mut piece = vec![0; 16 * 1024];
    loop {
        match read.read(&mut piece).await {
            Ok(0) => return false,
            Ok(n) => got.lock().extend_from_slice(&piece[..n]),
            Err(_) => return true,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bytes: &[u8]| bytes[..bytes.len().min(3_000)].escape_ascii().to_string().replace("\\n", "\\n\n");
        writeln!(f, "client (left: {}, reset: {}):\n{}", self.was_left, self.reset, shown(&self.client))?;
        for request in &self.requests {
            writeln!(f, "origin, on {}, whole: {}:\n{}", request.connection, request.whole, shown(&request.raw))?;
        }
        Ok(())
    }
}
