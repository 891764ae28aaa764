//! Serves the admin socket on threads and runtimes of its own: one for connections and the two probes, one for all other answers,
//! so that no answer is in the way of `/livez`. Everything is bounded: 64 connections without a head, 64 questions, 32 MiB of
//! answers that wait for their readers, heads of 8 KiB, one request per connection, 5 s for each of head, body, answer and a
//! write that stands still, 2 minutes for the whole.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http::{Method, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::asker::Peer;
use super::body::Body;
use super::connections::Open;
use super::host::Host;
use super::io::Bounded;
use super::reply::{self, Reply};
use super::routes;
use super::shared::Shared;
use super::socket::{Bound, Listener};

/// The largest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long the head of a request may take.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest life of a connection: a reload, and a slow reader of its answer.
const CONNECTION_MAX: Duration = Duration::from_secs(120);
/// How long requests in flight may take when the server is told to stop.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// How often it is looked whether they are done.
const STOP_POLL: Duration = Duration::from_millis(5);

/// A running admin server. Dropping it stops it.
pub struct Handle {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Bound {
    /// Serves the socket from a new thread.
    pub fn spawn(self, host: Arc<dyn Host>) -> io::Result<Handle> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answers = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("admin-answers")
            .enable_all()
            .build()?;
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            let file = self.file;
            let shared = Arc::new(Shared::new(host, answers.handle().clone(), stopped));
            runtime.block_on(serve(self.listener, shared));
            runtime.shutdown_timeout(Duration::from_millis(100));
            answers.shutdown_timeout(Duration::from_millis(100));
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
    // Judged once before the first question, so that there is something to tell.
    let judge = shared.clone();
    let _ = shared.answers.spawn(async move { judge.judge(Instant::now()) }).await;
    shared.answers.spawn(shared.clone().watch_readiness());
    shared.answers.spawn(shared.clone().keep_small());
    let mut stop = shared.stopped.clone();
    tokio::select! {
        () = accept_all(&acceptor, &shared) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    drop(acceptor);
    let _ = timeout(STOP_GRACE, async {
        while !shared.connections.is_empty() {
            sleep(STOP_POLL).await;
        }
    })
    .await;
}

async fn accept_all(acceptor: &Acceptor, shared: &Arc<Shared>) {
    let mut failing = false;
    loop {
        while let Err(later) = shared.connections.make_room(Instant::now()) {
            sleep_until(later).await;
        }
        let (stream, peer) = match acceptor.accept().await {
            Ok(accepted) => accepted,
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
        let (shared, open) = (shared.clone(), shared.connections.open(Instant::now()));
        tokio::spawn(async move {
            let _ = timeout(CONNECTION_MAX, serve_connection(stream, peer, shared, open)).await;
        });
        // Whoever has sent its head is heard before the next one comes.
        tokio::task::yield_now().await;
    }
}

/// One connection, one request. What goes wrong on it concerns nobody else, so its error is dropped.
async fn serve_connection(stream: Box<dyn Stream>, peer: Peer, shared: Arc<Shared>, open: Open) {
    let mut stopped = shared.stopped.clone();
    let (asked, open) = (AtomicBool::new(false), Arc::new(open));
    let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        asked.store(true, Ordering::Relaxed);
        let (shared, open, head_only) = (shared.clone(), open.clone(), request.method() == Method::HEAD);
        async move { Ok::<_, Infallible>(send(routes::dispatch(shared, request, &open).await, open, head_only)) }
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
        () = open.ended() => return,
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    // Told to stop: a question that was asked is answered, a connection that asked nothing is closed.
    if asked.load(Ordering::Relaxed) {
        let _ = connection.await;
    }
}

/// The answer as it is sent, if there is room for it.
fn send(reply: Reply, open: Arc<Open>, head_only: bool) -> Response<Body> {
    let fits = head_only || open.reads(reply.body(), Instant::now());
    let mut reply = if fits { reply } else { reply::closing(reply::busy("too many answers wait for their readers")) };
    let place = reply.extensions_mut().remove::<Arc<OwnedSemaphorePermit>>();
    reply.map(|bytes| Body::new(bytes, open, place))
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

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        Ok(match self {
            Acceptor::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                (Box::new(stream), Peer(peer.to_string().into()))
            }
            Acceptor::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let who = stream.peer_cred().map(|who| (who.uid(), who.pid()));
                let peer = match who {
                    Ok((uid, Some(pid))) => format!("unix socket, uid {uid}, pid {pid}"),
                    Ok((uid, None)) => format!("unix socket, uid {uid}"),
                    Err(_) => "unix socket".to_owned(),
                };
                (Box::new(stream), Peer(peer.into()))
            }
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
        let host = FakeHost::with(vec![pool("api", &[Healthy; 100])]);
        let shared = Arc::new(Shared::new(host, tokio::runtime::Handle::current(), stopped));
        let open = shared.connections.open(Instant::now());
        tokio::spawn(async move {
            serve_connection(Box::new(far), Peer("test".into()), shared, open).await;
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
