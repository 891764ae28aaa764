//! Opens the connection of a probe, TLS included, and decides whether a failure is the upstream's or this machine's. `socket`
//! handles the socket itself.
//!
//! Every connect error is a failure of the upstream, except the five that mean that this machine has run out of a resource
//! (`health.md`, "Probes and verdicts"): those give no verdict. The caller sets one deadline for everything; [`Steps`]
//! records the progress.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::finding::{Cutoff, Finding};
use super::socket::{Purpose, Socket, each};
use crate::model::policy::{ProbeKind, ProbeSpec, TlsPolicy};
use crate::model::{Address, TlsTrace, Trace};
use crate::tls::{self, Broken, Client, Failure, Seen};

/// The peer of a probe and how to connect to it: everything that is the same for each probe.
pub(super) struct Peer {
    /// The address dialled.
    pub target: Address,
    /// TLS over it.
    pub tls: Option<Tls>,
    /// Nothing is sent or read: the connection ends before the peer accepts it.
    pub connect_only: bool,
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
    /// TLS under the policy of `spec`, if it has one. `host` and `name` as for [`tls::server_name`]; `alpn` as for
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

    /// Does the work of the first handshake that must not count as the upstream's time: starts the cryptography, reads the
    /// roots of this machine, and makes the client. Blocks no thread of the runtime; later calls return at once.
    pub(super) async fn prepare(&self) {
        if self.client.get().is_none() {
            let policy = policy_of(&self.spec).expect("without a policy there is no TLS");
            Box::pin(tls::warm_up(policy)).await;
            // If it cannot be made, the handshake reports the failure.
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

    /// The failure when the peer sends `alert` after the handshake of `steps`.
    pub(super) fn refusal(&self, alert: rustls::AlertDescription, steps: &Steps) -> Failure {
        self.client.get().expect("after a handshake there is a client").refusal(alert, steps.seen())
    }

    /// Whether the peer asked for a client certificate and the check has none.
    pub(super) fn lacks_certificate(&self, steps: &Steps) -> bool {
        self.client.get().is_some_and(|client| client.lacks_certificate(steps.seen()))
    }
}

/// The policy of a `tls` check without one: verified.
static STRICT: TlsPolicy = TlsPolicy { verify: true, server_name: None, roots: None, client: None };

fn policy_of(spec: &ProbeSpec) -> Option<&TlsPolicy> {
    match (&spec.tls, &spec.kind) {
        (Some(policy), _) => Some(policy),
        (None, ProbeKind::Tls) => Some(&STRICT),
        (None, ProbeKind::Http(_) | ProbeKind::Grpc(_) | ProbeKind::Websocket(_)) => None,
        (None, ProbeKind::Tcp(_) | ProbeKind::Agent(_)) => None,
    }
}

/// The progress of a probe, and its trace.
pub(super) struct Steps {
    /// When the probe began.
    pub started: Instant,
    /// What was received and measured so far.
    pub trace: Trace,
    /// What the TLS handshake showed of the peer; `None` before one.
    seen: Option<Arc<Seen>>,
    /// The peer has sent data in the protocol over TLS.
    pub received: bool,
    phase: Phase,
    last_received_in: Option<Duration>,
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
        Steps { started, trace, seen: None, received: false, phase: Phase::Connecting, last_received_in: None }
    }

    /// The finding when the deadline passes; `None` once [`Peer::open`] has returned: then the protocol has its own.
    pub(super) fn timeout(&self) -> Option<Finding<'static>> {
        match self.phase {
            Phase::Connecting => Some(Finding::ConnectTimeout),
            Phase::Handshaking => Some(self.no_handshake(Cutoff::Deadline)),
            Phase::Talking => None,
        }
    }

    fn no_handshake(&self, cut: Cutoff) -> Finding<'static> {
        Finding::NoHandshake { cut, speaks_tls: self.seen().speaks_tls() }
    }

    fn seen(&self) -> &Seen {
        static BEFORE_HANDSHAKE: LazyLock<Seen> = LazyLock::new(Seen::default);
        self.seen.as_deref().unwrap_or(&BEFORE_HANDSHAKE)
    }

    /// More of an answer was received; the trace has the time of its first byte.
    pub(super) fn answered(&mut self) {
        self.received = true;
        let at = self.started.elapsed();
        self.trace.answered_in.get_or_insert(at);
        self.last_received_in = Some(at);
    }

    /// The answer has ended with its connection.
    pub(super) fn ended(&mut self) {
        self.last_received_in = self.last_received_in.map(|_| self.started.elapsed());
    }

    /// The time of the last received part of the answer, else of the handshake, else of the connection. The wait for the
    /// peer's close is not included.
    pub(super) fn decided_in(&self) -> Option<Duration> {
        let handshake_in = self.trace.tls.as_ref().and_then(|tls| tls.done_in);
        self.last_received_in.or(handshake_in).or(self.trace.connected_in)
    }
}

impl Peer {
    /// Connects and makes the handshake; the caller sets the deadline. Cancel-safe: dropping the future closes the socket.
    ///
    /// # Errors
    /// The finding that ends the probe.
    pub(super) async fn open(&self, steps: &mut Steps) -> Result<Stream, Finding<'static>> {
        let purpose = if self.connect_only { Purpose::ConnectOnly } else { Purpose::Exchange };
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

    /// Makes the handshake on an open connection, as [`Peer::open`] does.
    ///
    /// # Errors
    /// The finding that ends the probe.
    pub(super) async fn start_tls(&self, stream: Stream, steps: &mut Steps) -> Result<Stream, Finding<'static>> {
        let (Some(tls), Stream::Plain(socket)) = (&self.tls, stream) else {
            unreachable!("`config` makes at most one handshake, and only with a policy for it")
        };
        steps.phase = Phase::Handshaking;
        let stream = handshake(tls, socket, steps).await?;
        steps.phase = Phase::Talking;
        Ok(Stream::Tls(stream))
    }
}

async fn handshake(tls: &Tls, socket: Socket, steps: &mut Steps) -> Result<Box<tls::Stream<Socket>>, Finding<'static>> {
    let client = tls.client().map_err(|failure| Finding::Tls(Box::new(failure)))?;
    let seen = steps.seen.insert(Arc::default());
    let made = client.handshake(socket, seen).await;
    if let Err(Broken::Io(_)) = &made
        && seen.has_certificate()
    {
        steps.trace.tls = Some(Box::new(client.trace_of_failure(None, seen)));
    }
    match made {
        Ok(stream) => {
            let done_in = Some(steps.started.elapsed());
            steps.trace.tls = Some(Box::new(TlsTrace { done_in, ..client.trace(&stream) }));
            Ok(stream)
        }
        Err(Broken::Tls(failure)) => {
            steps.trace.tls = Some(Box::new(client.trace_of_failure(Some(&failure), seen)));
            steps.trace.body = failure.first_bytes().unwrap_or_default().into();
            Err(Finding::Tls(failure))
        }
        Err(Broken::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(steps.no_handshake(Cutoff::Closed))
        }
        Err(Broken::Io(error)) => Err(match Fault::from(&error) {
            Fault::Ours(errno) => Finding::NoResources(errno),
            Fault::Theirs(errno) => steps.no_handshake(Cutoff::Broke(errno)),
        }),
    }
}

/// A connection of a probe, ready for the protocol. A close without TLS's close_notify counts as a close: the framing of
/// the protocol decides whether the data is complete.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<tls::Stream<Socket>>),
}

impl Stream {
    /// Closes. If the peer has already closed its side, a reset saves both systems the rest of the TCP close.
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

/// The error of the system when a connection could not be made or broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// This machine has run out of a resource: no verdict about the upstream.
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

/// The libraries also make errors without a number; these kinds can occur on a socket.
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
    fn only_our_own_lack_of_resources_gives_no_verdict() {
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
