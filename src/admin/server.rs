//! Serves the admin socket on a thread and runtime of its own. Everything is bounded: 64 connections, heads of 8 KiB, one
//! request per connection, 5 s for each of head, body, answer and a write that stands still, 2 minutes for the whole.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use super::clock::Clock;
use super::host::Host;
use super::io::Bounded;
use super::json::StatusReply;
use super::readiness::{NotReady, Readiness};
use super::socket::{Bound, Listener};
use super::{render, routes};

/// Connections served at once; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 64;
/// Questions for events that may wait at once, so that they leave room for the others.
pub const WAITERS_MAX: usize = 32;
/// The largest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long the head of a request may take.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest life of a connection: a reload, and a slow reader of its answer.
const CONNECTION_MAX: Duration = Duration::from_secs(120);
/// How long requests in flight may take when the server is told to stop.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// How often readiness is judged until it is green.
const READY_POLL: Duration = Duration::from_millis(50);

/// What the handlers share.
pub struct Shared {
    /// The process.
    pub host: Arc<dyn Host>,
    /// For dates.
    pub clock: Clock,
    /// Places for questions that wait for events.
    pub waiters: Semaphore,
    /// Becomes true when the server is told to stop: who waits for something answers at once.
    pub stopped: watch::Receiver<bool>,
    readiness: Readiness,
    ready_before: AtomicBool,
}

impl Shared {
    fn new(host: Arc<dyn Host>, stopped: watch::Receiver<bool>) -> Shared {
        Shared {
            host,
            clock: Clock::start(),
            waiters: Semaphore::new(WAITERS_MAX),
            stopped,
            readiness: Readiness::default(),
            ready_before: AtomicBool::new(false),
        }
    }

    /// Whether `/readyz` is green, and why not.
    pub fn check_ready(&self, now: Instant) -> Result<(), NotReady> {
        let result = self.readiness.check(&self.host.process(), &self.host.status(now), now);
        if result.is_ok() && !self.ready_before.swap(true, Ordering::Relaxed) {
            tracing::info!("Ready");
        }
        result
    }

    /// `GET /api/v1/status`.
    pub fn status_reply(&self, now: Instant) -> StatusReply {
        let (status, process) = (self.host.status(now), self.host.process());
        let ready = self.readiness.check(&process, &status, now).is_ok();
        render::status(&status, &process, ready, &self.clock, now)
    }
}

/// A running admin server. Dropping it stops it.
pub struct Handle {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Bound {
    /// Serves the socket from a new thread.
    pub fn spawn(self, host: Arc<dyn Host>) -> io::Result<Handle> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            let file = self.file;
            runtime.block_on(serve(self.listener, Arc::new(Shared::new(host, stopped))));
            runtime.shutdown_timeout(Duration::from_millis(100));
            drop(file);
        })?;
        Ok(Handle { stop, thread: Some(thread) })
    }
}

impl Handle {
    /// Stops accepting, lets what is in flight finish for at most 0.5 s, and ends the thread. Blocks for as long.
    pub fn stop(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop_now();
    }
}

async fn serve(listener: Listener, shared: Arc<Shared>) {
    let acceptor = match Acceptor::new(listener) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "Admin socket cannot be served"),
    };
    tokio::spawn(watch_readiness(shared.clone()));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stop = shared.stopped.clone();
    tokio::select! {
        () = accept_all(&acceptor, &shared, &places) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    drop(acceptor);
    let _ = timeout(STOP_GRACE, places.acquire_many(CONNECTIONS_MAX as u32)).await;
}

/// Judges readiness until it is green, so that it latches even if nobody asks.
async fn watch_readiness(shared: Arc<Shared>) {
    while shared.check_ready(Instant::now()).is_err() {
        sleep(READY_POLL).await;
    }
}

async fn accept_all(acceptor: &Acceptor, shared: &Arc<Shared>, places: &Arc<Semaphore>) {
    let mut failing = false;
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let stream = match acceptor.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "Admin connections cannot be accepted");
                }
                failing = true;
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        failing = false;
        let shared = shared.clone();
        tokio::spawn(async move {
            let _ = timeout(CONNECTION_MAX, serve_connection(stream, shared)).await;
            drop(place);
        });
    }
}

/// One connection, one request. What goes wrong on it concerns nobody else, so its error is dropped.
async fn serve_connection(stream: Box<dyn Stream>, shared: Arc<Shared>) {
    let mut stopped = shared.stopped.clone();
    let asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(routes::dispatch(shared, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Bounded::new(stream)), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    // Told to stop: a question that was asked is answered, a connection that asked nothing is closed.
    if asked.load(Ordering::Relaxed) {
        let _ = connection.await;
    }
}

/// Either kind of stream.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Either kind of listener.
enum Acceptor {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Acceptor {
    fn new(listener: Listener) -> io::Result<Acceptor> {
        Ok(match listener {
            Listener::Tcp(listener) => Acceptor::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Acceptor::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Acceptor::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Acceptor::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::admin::testing::{FakeHost, pool};
    use crate::model::HealthState::Healthy;

    fn connection(buffer: usize) -> DuplexStream {
        let (near, far) = tokio::io::duplex(buffer);
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::new(FakeHost::with(vec![pool("api", &[Healthy; 100])]), stopped));
        tokio::spawn(async move {
            serve_connection(Box::new(far), shared).await;
            drop(stop);
        });
        near
    }

    /// Sends one piece a second until the server closes, for at most a minute; the answer is what it said.
    async fn drip(mut stream: DuplexStream, head: &str, piece: &str) -> (String, Duration) {
        let begin = Instant::now();
        let mut sent = stream.write_all(head.as_bytes()).await;
        while sent.is_ok() && begin.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_secs(1)).await;
            sent = stream.write_all(piece.as_bytes()).await;
        }
        let took = begin.elapsed();
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said).await;
        (said, took)
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_is_cut_off_after_five_seconds() {
        let (_, took) = drip(connection(4_096), "GET /livez HTTP/1.1\r\n", "X: y\r\n").await;
        assert!(took <= HEAD_TIMEOUT + Duration::from_secs(1), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_answered_408_after_five_seconds() {
        let head = "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
        let (said, took) = drip(connection(4_096), head, "x").await;
        assert!(said.starts_with("HTTP/1.1 408"), "{said}");
        assert!(took <= routes::BODY_TIMEOUT + Duration::from_secs(1), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_closed_after_five_seconds() {
        let begin = Instant::now();
        let mut stream = connection(4_096);
        let mut said = Vec::new();
        let _ = timeout(Duration::from_secs(60), stream.read_to_end(&mut said)).await.expect("it is closed");
        assert!(begin.elapsed() <= HEAD_TIMEOUT + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up() {
        let mut stream = connection(512);
        stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        sleep(Duration::from_secs(12)).await;
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        assert!(said.len() <= 512, "the rest was dropped with the connection");
    }
}
