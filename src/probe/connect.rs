//! Opens the connection of a probe, TLS included, and tells apart what a failed one says: about the upstream, or about
//! ourselves. What happens on the socket itself is in `socket`.
//!
//! Every connect error is the upstream's failure but the five that mean that this machine has run out of something
//! (`health.md`, "Probes and verdicts"): those are no verdict. The deadline is the caller's, over everything it does;
//! [`Steps`] remembers how far it came.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::finding::{Cut, Finding};
use super::socket::{Purpose, Socket, each};
use crate::model::policy::{ProbeKind, ProbeSpec, TlsPolicy};
use crate::model::{Address, TlsTrace, Trace};
use crate::tls::{self, Broken, Client, Failure, Seen};

/// Whom a probe talks to, and how: everything that stays the same from one probe to the next.
pub(super) struct Peer {
    /// The address dialled.
    pub target: Address,
    /// TLS over it.
    pub tls: Option<Tls>,
    /// Nothing is sent or read: the connection ends before it is one for the peer.
    pub knocks: bool,
    /// TLS begins later, with [`Peer::start_tls`].
    pub begins_plain: bool,
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

    /// Does what the first handshake would otherwise do on the upstream's clock: starts the cryptography, reads the roots
    /// of this machine, and makes the client. Blocks no thread of the runtime; afterwards it returns at once.
    pub(super) async fn prepare(&self) {
        if self.client.get().is_none() {
            let policy = policy_of(&self.spec).expect("without a policy there is no TLS");
            Box::pin(tls::warm_up(policy)).await;
            // What keeps it from being made is the finding of the handshake.
            let _ = self.client();
        }
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
    last_heard_in: Option<Duration>,
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
        Steps { started, trace, seen: None, heard: false, phase: Phase::Connecting, last_heard_in: None }
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

    /// More of an answer has come; the trace has the time of its first byte.
    pub(super) fn answered(&mut self) {
        self.heard = true;
        let at = self.started.elapsed();
        self.trace.answered_in.get_or_insert(at);
        self.last_heard_in = Some(at);
    }

    /// The answer has ended with its connection.
    pub(super) fn ended(&mut self) {
        self.last_heard_in = self.last_heard_in.map(|_| self.started.elapsed());
    }

    /// When what was seen last had come: of the answer, else of the handshake, else the connection itself. Without what is
    /// waited for afterwards, such as the peer's goodbye.
    pub(super) fn decided_in(&self) -> Option<Duration> {
        let shaken_in = self.trace.tls.as_ref().and_then(|tls| tls.done_in);
        self.last_heard_in.or(shaken_in).or(self.trace.connected_in)
    }
}

impl Peer {
    /// Connects and makes the handshake, without a deadline of its own. Cancel-safe: dropping the future closes the
    /// socket.
    ///
    /// # Errors
    /// What is found where that fails; it ends the probe.
    pub(super) async fn open(&self, steps: &mut Steps) -> Result<Stream, Finding<'static>> {
        let purpose = if self.knocks { Purpose::Knock } else { Purpose::Talk };
        let dialled = Socket::dial(&self.target, purpose).await;
        let socket = dialled.map_err(|error| Finding::NotConnected(Fault::from(&error)))?;
        steps.trace.local = socket.local();
        steps.trace.connected_in = Some(steps.started.elapsed());
        let stream = Stream::Plain(socket);
        if self.tls.is_none() || self.begins_plain {
            steps.phase = Phase::Talking;
            return Ok(stream);
        }
        // Boxed, so that the many probes without TLS are small.
        Box::pin(self.start_tls(stream, steps)).await
    }

    /// Makes the handshake on a connection that is open, as [`Peer::open`] does.
    ///
    /// # Errors
    /// What is found where that fails; it ends the probe.
    pub(super) async fn start_tls(&self, stream: Stream, steps: &mut Steps) -> Result<Stream, Finding<'static>> {
        let (Some(tls), Stream::Plain(socket)) = (&self.tls, stream) else {
            unreachable!("`config` makes at most one handshake, and only with a policy for it")
        };
        steps.phase = Phase::Handshaking;
        let stream = shake_hands(tls, socket, steps).await?;
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

/// A connection of a probe, ready for the protocol. A peer that closes without TLS's own goodbye has closed: what it said
/// until then is judged by its own framing.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<tls::Stream<Socket>>),
}

impl Stream {
    /// Closes. Where the peer has closed its side already, a reset spares both systems the rest of the ceremony: nobody is
    /// there to miss it.
    pub(super) fn close(self) {
        if let Stream::Plain(socket) = &self
            && socket.is_ended_by_peer()
        {
            socket.reset_on_close();
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
