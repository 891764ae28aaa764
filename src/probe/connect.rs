//! Opens the connection of a probe, TLS included, and tells apart what a failed one says: about the upstream, or about
//! ourselves.
//!
//! Every connect error is the upstream's failure but the five that mean that this machine has run out of something
//! (`health.md`, "Probes and verdicts"): those are no verdict. The deadline is the caller's, over everything it does;
//! [`Steps`] remembers how far it came.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use nix::errno::Errno;
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::Instant;

use super::finding::{Cut, Finding};
use crate::model::policy::{ProbeKind, ProbeSpec, TlsPolicy};
use crate::model::{Address, TlsTrace, Trace};
use crate::tls::{self, Broken, Client, Failure, Seen};

/// Whom a probe talks to, and how: everything that stays the same from one probe to the next.
pub(super) struct Peer {
    /// The address dialled.
    pub target: Address,
    /// TLS over it.
    pub tls: Option<Tls>,
}

/// TLS for the probes of one check.
pub(super) struct Tls {
    spec: Arc<ProbeSpec>,
    alpn: &'static [&'static str],
    name: Result<ServerName<'static>, Failure>,
    /// Made by the first probe that can: a machine may get its roots later.
    client: OnceLock<Client>,
}

impl Tls {
    /// TLS as `spec` wants it, if it does. `host` and `name` as [`tls::server_name`] has them; `alpn` as
    /// [`Client::try_new`].
    pub(super) fn of(
        spec: &Arc<ProbeSpec>,
        alpn: &'static [&'static str],
        host: Option<&str>,
        name: Option<&str>,
        target: &Address,
    ) -> Option<Tls> {
        let name = tls::server_name(policy_of(spec)?, host, name, target);
        Some(Tls { spec: spec.clone(), alpn, name, client: OnceLock::new() })
    }

    fn client(&self) -> Result<&Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let policy = policy_of(&self.spec).expect("without a policy there is no TLS");
        let client = Client::try_new(policy, self.name.clone()?, self.alpn)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// What it means that the peer sent `alert` after the handshake of `steps`.
    pub(super) fn refusal(&self, alert: rustls::AlertDescription, steps: &Steps) -> Failure {
        self.client.get().expect("after a handshake there is a client").refusal(alert, steps.seen())
    }

    /// Whether the peer asked for a client certificate and the check has none.
    pub(super) fn lacks_certificate(&self, steps: &Steps) -> bool {
        self.client.get().is_some_and(|client| client.lacks_certificate(steps.seen()))
    }
}

/// A handshake that nobody has said anything about is verified.
static STRICT: TlsPolicy = TlsPolicy { verify: true, server_name: None, roots: None, client: None };

fn policy_of(spec: &ProbeSpec) -> Option<&TlsPolicy> {
    match (&spec.tls, &spec.kind) {
        (Some(policy), _) => Some(policy),
        (None, ProbeKind::Tls) => Some(&STRICT),
        (None, ProbeKind::Tcp(_) | ProbeKind::Http(_) | ProbeKind::Grpc(_) | ProbeKind::Websocket(_)) => None,
    }
}

/// How far a probe has come, and what it saw on the way.
pub(super) struct Steps {
    /// When it began.
    pub started: Instant,
    /// What it saw.
    pub trace: Trace,
    /// What the TLS handshake showed of the peer; `None`: there was none.
    seen: Option<Arc<Seen>>,
    /// The peer has said something in the protocol above TLS.
    pub heard: bool,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Handshaking,
    Talking,
}

impl Steps {
    pub(super) fn begin() -> Steps {
        let (started, trace) = (Instant::now(), Trace::default());
        Steps { started, trace, seen: None, heard: false, phase: Phase::Connecting }
    }

    /// What it means that the deadline passed; `None` once [`Peer::open`] has returned: then it is the protocol's.
    pub(super) fn timeout(&self) -> Option<Finding<'static>> {
        match self.phase {
            Phase::Connecting => Some(Finding::ConnectTimeout),
            Phase::Handshaking => Some(self.no_handshake(Cut::Deadline)),
            Phase::Talking => None,
        }
    }

    fn no_handshake(&self, cut: Cut) -> Finding<'static> {
        Finding::NoHandshake { cut, speaks_tls: self.seen().speaks_tls() }
    }

    fn seen(&self) -> &Seen {
        static NOTHING: LazyLock<Seen> = LazyLock::new(Seen::default);
        self.seen.as_deref().unwrap_or(&NOTHING)
    }

    /// The first byte of an answer has come. Later calls change nothing.
    pub(super) fn answered(&mut self) {
        self.heard = true;
        if self.trace.answered_in.is_none() {
            self.trace.answered_in = Some(self.started.elapsed());
        }
    }
}

impl Peer {
    /// Connects and makes the handshake, without a deadline of its own. Cancel-safe: dropping the future closes the
    /// socket.
    ///
    /// # Errors
    /// What is found where that fails; it ends the probe.
    pub(super) async fn open(&self, steps: &mut Steps) -> Result<Stream, Finding<'static>> {
        let socket = dial(&self.target).await.map_err(Finding::NotConnected)?;
        steps.trace.local = socket.local();
        steps.trace.connected_in = Some(steps.started.elapsed());
        let Some(tls) = &self.tls else {
            steps.phase = Phase::Talking;
            return Ok(Stream::Plain(socket));
        };
        steps.phase = Phase::Handshaking;
        // Boxed, so that the many probes without TLS are small.
        let stream = Box::pin(shake_hands(tls, socket, steps)).await?;
        steps.phase = Phase::Talking;
        Ok(Stream::Tls(stream))
    }
}

async fn shake_hands(
    tls: &Tls,
    socket: Socket,
    steps: &mut Steps,
) -> Result<Box<tls::Stream<Socket>>, Finding<'static>> {
    let client = tls.client().map_err(|failure| Finding::Tls(Box::new(failure)))?;
    let seen = steps.seen.insert(Arc::default());
    match client.handshake(socket, seen).await {
        Ok(stream) => {
            let done_in = Some(steps.started.elapsed());
            steps.trace.tls = Some(Box::new(TlsTrace { done_in, ..client.trace(&stream) }));
            Ok(stream)
        }
        Err(Broken::Tls(failure)) => {
            steps.trace.tls = Some(Box::new(client.trace_of_failure(&failure)));
            steps.trace.body = failure.heard().unwrap_or_default().into();
            Err(Finding::Tls(failure))
        }
        Err(Broken::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(steps.no_handshake(Cut::Closed)),
        Err(Broken::Io(error)) => Err(match Fault::from(&error) {
            Fault::Ours(errno) => Finding::NoResources(errno),
            Fault::Theirs(errno) => steps.no_handshake(Cut::Broke(errno)),
        }),
    }
}

/// Connects, without a deadline of its own. Cancel-safe: dropping the future closes the socket.
async fn dial(target: &Address) -> Result<Socket, Fault> {
    let socket = match target {
        Address::Inet(address) => dial_tcp(*address).await.map(Socket::Tcp),
        Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        // Names are resolved long before; one without an address gives no verdict.
        Address::Name { .. } => Err(io::Error::from_raw_os_error(Errno::EADDRNOTAVAIL as i32)),
    };
    socket.map_err(|error| Fault::from(&error))
}

async fn dial_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The end of the handshake may travel with the request: one packet less. Where that cannot be had, nothing is lost.
    let _ = SockRef::from(&socket).set_tcp_quickack(false);
    socket.connect(address).await
}

/// A connection of a probe below TLS.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Our end; unix sockets have none worth telling.
    fn local(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(stream) => stream.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }
}

/// A connection of a probe, ready for the protocol. A peer that closes without TLS's own goodbye has closed: what it said
/// until then is judged by its own framing.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<tls::Stream<Socket>>),
}

macro_rules! each {
    ($self:expr, $($kind:path)|+, $stream:ident => $does:expr) => {
        match $self.get_mut() { $($kind($stream) => { let $stream = Pin::new($stream); $does })+ }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, Socket::Tcp | Socket::Unix, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, Socket::Tcp | Socket::Unix, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, Socket::Tcp | Socket::Unix, stream => stream.poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, Socket::Tcp | Socket::Unix, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, Socket::Tcp | Socket::Unix, stream => stream.poll_shutdown(cx))
    }
}

impl Stream {
    /// Closes. Where the peer has closed its side already, a reset spares both systems the rest of the ceremony: nobody is
    /// there to miss it.
    pub(super) fn close(self) {
        let Stream::Plain(Socket::Tcp(stream)) = &self else { return };
        let ready = stream.ready(Interest::READABLE).now_or_never();
        if ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed())) {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match each!(self, Stream::Plain | Stream::Tls, stream => stream.poll_read(cx, buf)) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            polled => polled,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, Stream::Plain | Stream::Tls, stream => stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, Stream::Plain | Stream::Tls, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, Stream::Plain | Stream::Tls, stream => stream.poll_shutdown(cx))
    }
}

/// What the system said when a connection could not be made or broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// This machine has run out of something: no verdict about the upstream.
    Ours(Errno),
    /// Anything else.
    Theirs(Errno),
}

impl From<&io::Error> for Fault {
    fn from(error: &io::Error) -> Fault {
        let errno = error.raw_os_error().map_or_else(|| without_number(error.kind()), Errno::from_raw);
        match errno {
            Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EADDRNOTAVAIL => Fault::Ours(errno),
            _ => Fault::Theirs(errno),
        }
    }
}

/// The libraries make errors of their own; these are the kinds a socket can meet.
fn without_number(kind: io::ErrorKind) -> Errno {
    match kind {
        io::ErrorKind::WouldBlock => Errno::EAGAIN,
        io::ErrorKind::WriteZero | io::ErrorKind::BrokenPipe => Errno::EPIPE,
        io::ErrorKind::ConnectionReset => Errno::ECONNRESET,
        io::ErrorKind::OutOfMemory => Errno::ENOMEM,
        _ => Errno::UnknownErrno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_lack_of_resources_is_no_verdict() {
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EADDRNOTAVAIL] {
            assert_eq!(Fault::from(&io::Error::from_raw_os_error(errno as i32)), Fault::Ours(errno));
        }
        for errno in [
            Errno::ECONNREFUSED,
            Errno::EHOSTUNREACH,
            Errno::ENETUNREACH,
            Errno::ENETDOWN,
            Errno::ETIMEDOUT,
            Errno::ECONNRESET,
            Errno::EACCES,
            Errno::EPERM,
            Errno::ENOENT,
            Errno::EAGAIN,
            Errno::EAFNOSUPPORT,
        ] {
            assert_eq!(Fault::from(&io::Error::from_raw_os_error(errno as i32)), Fault::Theirs(errno));
        }
        assert_eq!(Fault::from(&io::Error::from(io::ErrorKind::WouldBlock)), Fault::Theirs(Errno::EAGAIN));
    }
}
