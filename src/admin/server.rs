//! Serves the admin socket on its own threads and runtimes: one for connections and the two probes, one for all other
//! responses, so that no response delays `/livez`. Everything is bounded: 64 connections without a request, idle ones
//! included, 64 requests at once, 32 MiB of responses that wait for their readers, heads of 8 KiB, 5 s each for head,
//! body, response and a write without progress, 2 minutes for one request, 90 s without one.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use http::{Method, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::asker::Peer;
use super::body::Body;
use super::connections::Open;
use super::host::Host;
use super::io::{Bounded, Watched};
use super::reply::{self, Reply};
use super::shared::Shared;
use super::socket::Bound;
use super::{readiness, routes};
use crate::bind::{BoundSocket, SocketFile};

/// The largest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long requests in flight may take when the server stops.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// How often the server checks whether they are done.
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
            let shared = Arc::new(Shared::new(host, answers.handle().clone(), stopped));
            runtime.block_on(serve(self.socket, shared));
            runtime.shutdown_timeout(Duration::from_millis(100));
            answers.shutdown_timeout(Duration::from_millis(100));
        })?;
        Ok(Handle { stop, thread: Some(thread) })
    }
}

impl Handle {
    /// Stops accepting, gives requests in flight 0.5 s to finish, and ends the thread. Blocks meanwhile.
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

async fn serve(socket: BoundSocket, shared: Arc<Shared>) {
    let acceptor = match Acceptor::new(socket) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "Admin socket cannot be served"),
    };
    // Evaluated once before the first request, so that `/readyz` has a reason to report.
    let first = shared.clone();
    let evaluate = async move { first.host.readiness().evaluate(&*first.host, Instant::now()) };
    let _ = shared.answers.spawn(evaluate).await;
    shared.answers.spawn(readiness::watch(shared.host.clone()));
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
        while let Err(later) = shared.connections.make_room(Instant::now()) {
            sleep_until(later).await;
        }
        let (shared, open) = (shared.clone(), shared.connections.open(Instant::now()));
        tokio::spawn(serve_connection(stream, peer, shared, open));
        // Lets the new connection read its head before the next one is accepted.
        tokio::task::yield_now().await;
    }
}

/// Serves one connection, request by request. Its errors affect no other connection and are dropped.
async fn serve_connection(stream: Box<dyn Stream>, peer: Peer, shared: Arc<Shared>, open: Open) {
    let mut stopped = shared.stopped.clone();
    let open = Arc::new(open);
    let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        open.on_head(Instant::now());
        let (shared, open, head_only) = (shared.clone(), open.clone(), request.method() == Method::HEAD);
        async move { Ok::<_, Infallible>(send(routes::dispatch(shared, request, &open).await, open, head_only)) }
    });
    let connection = http1::Builder::new()
        // Hyper's timeout also runs while a connection is idle: too short for that, or too long for a head.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(true)
        .serve_connection(TokioIo::new(Watched::new(Bounded::new(stream), open.clone())), service);
    tokio::pin!(connection);
    let timer = sleep_until(Instant::now());
    tokio::pin!(timer);
    // The stage changes only while the connection is polled, so the deadline is right after the poll.
    let served = poll_fn(|cx| {
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(deadline) = open.deadline() else { return Poll::Ready(()) };
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    });
    tokio::select! {
        () = served => return,
        () = open.ended() => return,
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    // The server stops: a request in progress is answered, a connection without one is closed.
    if open.is_asking() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// The response with its body; 503 if there is no room for it.
fn send(reply: Reply, open: Arc<Open>, head_only: bool) -> Response<Body> {
    let fits = head_only || open.reads(reply.body(), Instant::now());
    let mut reply = if fits { reply } else { reply::closing(reply::busy("too many responses wait for slow clients")) };
    let place = reply.extensions_mut().remove::<Arc<OwnedSemaphorePermit>>();
    reply.map(|bytes| Body::new(bytes, open, place))
}

/// Either kind of stream.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Either kind of listener. The file of a unix socket is dropped before its socket.
enum Acceptor {
    Tcp(tokio::net::TcpListener),
    Unix { _file: SocketFile, listener: tokio::net::UnixListener },
}

impl Acceptor {
    fn new(socket: BoundSocket) -> io::Result<Acceptor> {
        Ok(match socket {
            BoundSocket::Tcp(listener) => Acceptor::Tcp(tokio::net::TcpListener::from_std(listener)?),
            BoundSocket::Unix(_file, listener) => {
                Acceptor::Unix { _file, listener: tokio::net::UnixListener::from_std(listener)? }
            }
        })
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        Ok(match self {
            Acceptor::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                (Box::new(stream), Peer(peer.to_string().into()))
            }
            Acceptor::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred().map(|credentials| (credentials.uid(), credentials.pid()));
                let peer = match credentials {
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
    use crate::admin::connections::{HEAD_TIMEOUT, IDLE_MAX};
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

    /// Sends one piece a second until the server closes, for at most a minute. Returns the response and the time.
    async fn drip(mut stream: DuplexStream, head: &str, piece: &str) -> (String, Duration) {
        let begin = Instant::now();
        let mut sent = stream.write_all(head.as_bytes()).await;
        while sent.is_ok() && begin.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_secs(1)).await;
            sent = stream.write_all(piece.as_bytes()).await;
        }
        let took = begin.elapsed();
        let mut received = String::new();
        let _ = stream.read_to_string(&mut received).await;
        (received, took)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_closed_after_five_seconds() {
        let (_, took) = drip(connection(4_096), "GET /livez HTTP/1.1\r\n", "X: y\r\n").await;
        assert!(took <= HEAD_TIMEOUT + Duration::from_secs(1), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_gets_408_after_five_seconds() {
        let head = "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
        let (received, took) = drip(connection(4_096), head, "x").await;
        assert!(received.starts_with("HTTP/1.1 408"), "{received}");
        assert!(took <= routes::BODY_TIMEOUT + Duration::from_secs(1), "{took:?}");
    }

    /// Reads `count` responses of `/livez`.
    async fn answers(stream: &mut DuplexStream, count: usize) -> String {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if text.matches("{\"status\":\"ok\"}\n").count() == count {
                assert_eq!(text.matches("HTTP/1.1 200").count(), count, "{text}");
                return text;
            }
            assert_ne!(stream.read_buf(&mut bytes).await.expect("it can be read"), 0, "closed after {text}");
        }
    }

    const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

    async fn closed_after(stream: &mut DuplexStream) -> Duration {
        let begin = Instant::now();
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(600), stream.read_to_end(&mut rest)).await.expect("it is closed");
        assert_eq!(String::from_utf8_lossy(&rest), "");
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_kept_for_more_requests_and_closed_when_idle() {
        let mut stream = connection(4_096);
        for wait in [0, 1, 60, 80] {
            sleep(Duration::from_secs(wait)).await;
            stream.write_all(LIVEZ).await.expect("it is kept");
            let received = answers(&mut stream, 1).await;
            assert!(!received.contains("connection: close"), "{received}");
        }
        // Two at once are answered one after the other.
        stream.write_all(&[LIVEZ, LIVEZ].concat()).await.unwrap();
        answers(&mut stream, 2).await;
        let after = closed_after(&mut stream).await;
        assert!((IDLE_MAX..IDLE_MAX + Duration::from_secs(1)).contains(&after), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_timeout_of_the_second_head_runs_from_its_first_byte() {
        let mut stream = connection(4_096);
        stream.write_all(LIVEZ).await.unwrap();
        answers(&mut stream, 1).await;
        sleep(Duration::from_secs(60)).await;
        let (_, took) = drip(stream, "GET /livez HTTP/1.1\r\n", "X: y\r\n").await;
        assert!((HEAD_TIMEOUT..=HEAD_TIMEOUT + Duration::from_secs(1)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_is_closed_if_the_client_asks_for_it_and_for_http_1_0() {
        for head in
            ["GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "GET /livez HTTP/1.0\r\n\r\n"]
        {
            let mut stream = connection(4_096);
            stream.write_all(head.as_bytes()).await.unwrap();
            let begin = Instant::now();
            let mut received = String::new();
            stream.read_to_string(&mut received).await.unwrap();
            assert!(received.contains(" 200 ") && begin.elapsed() < Duration::from_secs(1), "{received}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_closed_after_five_seconds() {
        let begin = Instant::now();
        let mut stream = connection(4_096);
        let mut received = Vec::new();
        let _ = timeout(Duration::from_secs(60), stream.read_to_end(&mut received)).await.expect("it is closed");
        assert!(begin.elapsed() <= HEAD_TIMEOUT + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_closed() {
        let mut stream = connection(512);
        stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        sleep(Duration::from_secs(12)).await;
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
        assert!(received.len() <= 512, "the rest was dropped with the connection");
    }
}
