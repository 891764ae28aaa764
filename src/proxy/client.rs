//! A client's connection: its socket, what was read ahead, what is not sent yet, and which of the bytes to come belong to
//! the request under way.
//!
//! [`super::front`] owns it between requests; [`super::lent_client`] lends it to pingora for one. Must never hand out a byte
//! that belongs to the next request, nor let a chunked body pass that two parsers could read differently.

#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

use super::ended::Ended;
use super::listen::ClientStream;
use crate::exchange::{ClientClock, Framing, Refusal};
use crate::http1::{Body, Fault, Head, HeadReader, Limits};
use crate::model::policy::{ClientLimits, ClientTimeouts};

/// Writes gathered before they are sent.
const WRITE_BUFFER: usize = 16 * 1024;
/// Bytes of following requests that every client may have kept while one is under way.
const AHEAD_MAX: usize = 64 * 1024;
/// Bytes beyond that for one client: as much as common kernels let a client leave behind that writes and closes at once.
const EXTRA_MAX: usize = 2 * 1024 * 1024;
/// The same for all clients together.
const EXTRA_TOTAL: usize = 8 * 1024 * 1024;
/// By how much the room beyond grows.
const EXTRA_STEP: usize = 64 * 1024;
/// Bytes from this number on are not gathered: copying them costs more than a second slice in the call.
const COPIED_MAX: usize = 4 * 1024;
/// How often the kernel is asked about a client that is not read any more.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of a request body that are read at once: pingora keeps several such pieces for an upstream that does not take
/// them, and would read 64 KiB each.
const BODY_PIECE: usize = 16 * 1024;
/// Room made for a read between requests.
const READ_ROOM: usize = 4 * 1024;

/// A client's connection.
pub struct Client {
    io: ClientIo,
    pub(super) read: BytesMut,
    /// The positions of the head at the front of `read`.
    head: HeadReader,
    write: BytesMut,
    /// Runs while a write waits for a client that does not read.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs while the request waits for more of its body.
    idle: Option<Pin<Box<Sleep>>>,
    /// Runs while the client is not read any more, and only its end is looked for.
    look: Option<Pin<Box<Sleep>>>,
    extra: Extra,
    pass: Pass,
    clock: ClientClock,
    eof: bool,
    fault: Option<Refusal>,
}

/// Room that one client has beyond `AHEAD_MAX`, in bytes.
#[derive(Debug, Default)]
struct Extra(usize);

/// Room that all clients have beyond `AHEAD_MAX`, in bytes. All workers share it: written only by clients that need such
/// room, twice for each step of it.
static EXTRA: AtomicUsize = AtomicUsize::new(0);

impl Extra {
    /// Makes it larger by a step, if it may be.
    fn grow(&mut self) -> bool {
        let more = |total: usize| (total < EXTRA_TOTAL).then_some(total + EXTRA_STEP);
        let grown = self.0 < EXTRA_MAX && EXTRA.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        self.0 += if grown { EXTRA_STEP } else { 0 };
        grown
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        if self.0 > 0 {
            EXTRA.fetch_sub(self.0, Ordering::Relaxed);
        }
    }
}

/// What of the request under way is still to come.
struct Pass {
    head: usize,
    body: Body,
    body_read: u64,
    /// Bytes of the body that lie behind the head in the buffer, for the lanes that do not take them out.
    kept: usize,
    /// How many of them have gone upstream in this attempt.
    sent: usize,
    /// How many of them are kept so that they can be sent again.
    replay: usize,
}

impl Client {
    /// Nothing is read yet.
    pub fn new(io: ClientIo) -> Client {
        Client {
            io,
            read: BytesMut::new(),
            head: HeadReader::default(),
            write: BytesMut::new(),
            stalled: None,
            idle: None,
            look: None,
            extra: Extra::default(),
            pass: Pass { head: 0, body: Body::NONE, body_read: 0, kept: 0, sent: 0, replay: 0 },
            clock: ClientClock::start(false, ClientTimeouts::DEFAULT.body_idle),
            eof: false,
            fault: None,
        }
    }

    /// The socket alone, of a client that has nothing under way.
    pub fn into_io(mut self: Box<Client>) -> ClientIo {
        debug_assert!(self.read.is_empty() && self.write.is_empty(), "nothing is under way");
        std::mem::replace(&mut self.io, ClientIo::HandedOn)
    }

    /// Waits for the next head from here on.
    pub fn await_head(&mut self) {
        self.head.reset();
    }

    /// The head at the front of what was read; `None` while it is not whole.
    pub fn read_head(&mut self, limits: &ClientLimits) -> Result<Option<Head<'_>>, Fault> {
        self.head.read(&self.read, &Limits::of(limits))
    }

    /// The request of the head that was read begins. `body_bytes`: the most that its body may have.
    pub fn begin(&mut self, framing: Framing, body_bytes: Option<u64>, clock: ClientClock) {
        self.clock = clock;
        // The empty line that may stand before a request is nobody's.
        self.read.advance(self.head.drop_lead());
        let head = self.head.head(&self.read).map_or(0, |head| head.len);
        self.pass = Pass { head, body: framing.body(body_bytes), body_read: 0, kept: 0, sent: 0, replay: 0 };
        self.fault = None;
        self.idle = None;
        self.look = None;
        if self.extra.0 > 0 && self.read.len() <= AHEAD_MAX {
            // The large buffer goes with the room it took.
            self.read = BytesMut::from(&self.read[..]);
            self.extra = Extra::default();
        }
    }

    /// The head of the request under way, until it is passed over or handed out.
    pub fn head(&self) -> Option<Head<'_>> {
        self.head.head(&self.read).filter(|head| head.len == self.pass.head)
    }

    /// Passes over the head.
    pub fn skip_head(&mut self) {
        self.read.advance(std::mem::take(&mut self.pass.head));
    }

    /// Whether the request has been read to its end.
    pub fn is_whole(&self) -> bool {
        self.pass.head == 0 && self.pass.body.is_done() && self.fault.is_none()
    }

    /// Bytes of the request's body that were read so far, chunk framing included.
    pub fn body_read(&self) -> u64 {
        self.pass.body_read
    }

    /// Whether the client waits for 100 before it sends its body.
    pub fn awaits_continue(&self) -> bool {
        self.clock.awaits_continue(self.pass.body_read)
    }

    /// The client is told to send its body: from now on it has no longer than others for it.
    pub fn on_continue(&mut self) {
        self.clock.on_continue();
    }

    /// Which rule the body broke.
    pub fn fault(&self) -> Option<Refusal> {
        self.fault
    }

    /// Whether the client has closed its side.
    pub fn is_eof(&self) -> bool {
        self.eof
    }

    /// Reads more into the buffer; 0 at the end of the stream. Cancel-safe.
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// As [`Client::fill`].
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < READ_ROOM / 4 {
            self.read.reserve(READ_ROOM);
        }
        let n = ready!(pin!(self.io.read_buf(&mut self.read)).poll(cx))?;
        self.eof |= n == 0;
        Poll::Ready(Ok(n))
    }

    /// Completes when the client has closed its side or broken off; what it sends meanwhile is kept, within bounds.
    /// Cancel-safe.
    pub async fn left(&mut self) {
        // An error is an end as well.
        let (Ok(()) | Err(_)) = poll_fn(|cx| self.poll_left(cx)).await;
    }

    /// Whether the client has closed its side or broken off, as far as the runtime knows. Costs no system call.
    pub fn has_left(&self) -> bool {
        self.eof || self.io.has_ended()
    }

    /// As [`Client::left`], for who cannot read: does not notice an end behind more bytes than the kernel keeps.
    /// Cancel-safe.
    pub async fn ended(&self) {
        while !self.has_left() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Writes and sends; fails if the client takes nothing for too long: [`ClientClock::takes_within`]. Not cancel-safe.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let n = poll_fn(|cx| self.poll_write(cx, rest)).await?;
            rest = &rest[n..];
        }
        poll_fn(|cx| self.poll_send(cx)).await
    }

    /// The request is to be sent from its beginning: its body again after its head. At most `replay` bytes of it are kept
    /// for yet another attempt.
    pub(super) fn rewind(&mut self, replay: usize) {
        self.pass.sent = 0;
        self.pass.replay = replay;
    }

    /// Whether every byte of the request that was read is still here.
    pub(super) fn can_rewind(&self) -> bool {
        self.pass.head > 0
    }

    /// Bytes of the request's body that have come and not gone upstream.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.read[self.pass.head + self.pass.sent..self.pass.head + self.pass.kept]
    }

    /// So many of them have gone upstream. Keeps them for another attempt, within bounds.
    pub(super) fn on_sent(&mut self, n: usize) {
        self.pass.sent += n;
        if self.pass.sent > self.pass.replay || (!self.can_rewind() && self.unsent().is_empty()) {
            self.forget_sent();
        }
    }

    /// The request will not be sent again.
    pub(super) fn forget_sent(&mut self) {
        self.read.advance(std::mem::take(&mut self.pass.head) + self.pass.sent);
        self.pass.kept -= std::mem::take(&mut self.pass.sent);
    }

    /// The request is over: what is left of it in the buffer goes.
    pub(super) fn settle(&mut self) {
        self.read.advance(std::mem::take(&mut self.pass.head) + std::mem::take(&mut self.pass.kept));
        self.pass.sent = 0;
    }

    /// Whether more has come than was read of the request, here or in the kernel. Not every lane reads ahead.
    pub(super) fn has_unread(&self) -> bool {
        !self.read.is_empty() || self.io.has_bytes()
    }

    /// Whether more has come than is read as the request, here or in the kernel. One system call.
    pub(super) fn has_more(&self) -> bool {
        self.read.len() > self.pass.head + self.pass.kept || self.io.has_bytes()
    }

    /// Whether the body has been read to its end.
    pub(super) fn has_body(&self) -> bool {
        self.pass.body.is_done() && self.fault.is_none()
    }

    /// Makes more of the request's body [`Client::unsent`]; 0: the client has closed its side before its end. Fails with
    /// [`Client::fault`] where the body breaks a rule.
    pub(super) fn poll_body_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if let Some(refusal) = self.fault {
                return Poll::Ready(Err(self.break_rule(refusal)));
            }
            let known = self.pass.head + self.pass.kept;
            match self.pass.body.feed(&self.read[known..]) {
                Ok(0) => {}
                Ok(n) => {
                    self.pass.kept += n;
                    self.pass.body_read += n as u64;
                    return Poll::Ready(Ok(n));
                }
                Err(fault) => return Poll::Ready(Err(self.break_rule(fault.into()))),
            }
            self.read.reserve(BODY_PIECE);
            match pin!(self.io.read_buf(&mut self.read)).poll(cx)? {
                Poll::Ready(0) => {
                    self.eof = true;
                    return Poll::Ready(Ok(0));
                }
                Poll::Ready(_) => self.idle = None,
                Poll::Pending => {
                    return match ready!(self.poll_idle(cx)) {
                        Ok(()) => Poll::Pending,
                        Err(error) => Poll::Ready(Err(error)),
                    };
                }
            }
        }
    }

    /// What is gathered to be sent.
    pub(super) fn write_mut(&mut self) -> &mut BytesMut {
        &mut self.write
    }

    /// Whether enough is gathered that it must be sent before more is.
    pub(super) fn is_full(&self) -> bool {
        self.write.len() >= WRITE_BUFFER
    }

    /// Reads and throws away the rest of the request's body; false if it is more than `most` bytes, breaks a rule or
    /// breaks off.
    pub async fn discard(&mut self, most: u64) -> bool {
        let until = self.pass.body_read.saturating_add(most);
        loop {
            while !self.read.is_empty() && !self.is_whole() {
                let Ok(n) = self.take(self.read.len()) else { return false };
                self.read.advance(n);
            }
            if self.is_whole() {
                return true;
            }
            if self.pass.body_read > until || !matches!(self.fill().await, Ok(n) if n > 0) {
                return false;
            }
        }
    }

    /// Says that nothing more comes, and for at most `limit` reads what the client still sends: closing on unread bytes
    /// would reset the connection, and that could take our answer with it.
    pub async fn linger(mut self, limit: Duration) {
        let reading = async {
            poll_fn(|cx| self.poll_send(cx)).await?;
            poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await?;
            while !self.eof {
                self.read.clear();
                self.fill().await?;
            }
            io::Result::Ok(())
        };
        // It is a courtesy; the connection closes either way.
        let _ = tokio::time::timeout(limit, reading).await;
    }

    /// Closes with a reset, which no client can take for the end of an answer that only the end of the connection ends.
    pub fn reset(mut self) {
        self.write.clear();
        if let ClientIo::Tcp(stream) = &self.io {
            // Where it fails the connection is gone already.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// The socket itself; what was read ahead is in `read`.
    pub fn io_mut(&mut self) -> &mut ClientIo {
        &mut self.io
    }

    /// Takes from the buffer what belongs to the request, at most `max` bytes.
    fn take(&mut self, max: usize) -> io::Result<usize> {
        let ready = self.read.len().min(max);
        if self.pass.head > 0 {
            let n = ready.min(self.pass.head);
            self.pass.head -= n;
            return Ok(n);
        }
        let n = match self.pass.body.feed(&self.read[..ready]) {
            Ok(n) => n,
            Err(fault) => return Err(self.break_rule(fault.into())),
        };
        self.pass.body_read += n as u64;
        Ok(n)
    }

    fn break_rule(&mut self, refusal: Refusal) -> io::Error {
        self.fault = Some(refusal);
        io::Error::new(io::ErrorKind::InvalidData, refusal.why)
    }

    /// Reads what belongs to the request; after its end it only notices that the client leaves.
    pub fn poll_request(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Pingora flushes a body with a length only at its end; a slow one would stay in our buffer.
        if !self.write.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_send(cx)
        {
            return Poll::Ready(Err(error));
        }
        if let Some(refusal) = self.fault {
            return Poll::Ready(Err(self.break_rule(refusal)));
        }
        if self.is_whole() {
            return self.poll_left(cx);
        }
        if self.read.is_empty() {
            return self.poll_body(cx, out);
        }
        let n = self.take(out.remaining().min(BODY_PIECE))?;
        out.put_slice(&self.read[..n]);
        self.read.advance(n);
        Poll::Ready(Ok(()))
    }

    /// Reads body from the socket straight into `out`; what is not body goes into the buffer.
    fn poll_body(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = out.remaining().min(BODY_PIECE);
        let room = self.pass.body.most().map_or(most, |left| usize::try_from(left).unwrap_or(usize::MAX).min(most));
        let mut piece = ReadBuf::new(out.initialize_unfilled_to(room));
        match Pin::new(&mut self.io).poll_read(cx, &mut piece)? {
            Poll::Ready(()) => self.idle = None,
            Poll::Pending => return self.poll_idle(cx),
        }
        let n = piece.filled().len();
        if n == 0 {
            self.eof = true;
            return Poll::Ready(Ok(()));
        }
        let taken = match self.pass.body.feed(piece.filled()) {
            Ok(taken) => taken,
            Err(fault) => return Poll::Ready(Err(self.break_rule(fault.into()))),
        };
        self.pass.body_read += taken as u64;
        self.read.extend_from_slice(&piece.filled()[taken..]);
        out.advance(taken);
        Poll::Ready(Ok(()))
    }

    /// While nothing of the body comes: fails if that takes too long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(limit) = self.clock.sends_within(self.pass.body_read) else { return Poll::Pending };
        let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(idle.as_mut().poll(cx));
        Poll::Ready(Err(self.break_rule(Refusal::BODY_TOO_SLOW)))
    }

    /// Ready when the client has closed its side or broken off. Until then keeps what it sends.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.eof {
            if self.read.len() >= self.pass.head + self.pass.kept + AHEAD_MAX + self.extra.0 && !self.extra.grow() {
                return self.poll_ended(cx);
            }
            let mut chunk = [0u8; 2_048];
            let mut piece = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut piece))?;
            self.eof = piece.filled().is_empty();
            self.read.extend_from_slice(piece.filled());
        }
        Poll::Ready(Ok(()))
    }

    /// The same where no more may be read.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.io.has_ended() {
            let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK)));
            ready!(look.as_mut().poll(cx));
            self.look = None;
        }
        self.eof = true;
        Poll::Ready(Ok(()))
    }

    /// Takes bytes to send. Small ones are gathered; large ones are sent from where they are, after what is gathered.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.len() < COPIED_MAX && self.write.len() + bytes.len() <= WRITE_BUFFER {
            self.write.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        loop {
            let gathered = self.write.len();
            let sent = match gathered {
                0 => Pin::new(&mut self.io).poll_write(cx, bytes),
                _ => {
                    let both = [IoSlice::new(&self.write), IoSlice::new(bytes)];
                    Pin::new(&mut self.io).poll_write_vectored(cx, &both)
                }
            };
            let sent = ready!(self.patient(cx, sent))?;
            self.write.advance(sent.min(gathered));
            if sent > gathered {
                return Poll::Ready(Ok(sent - gathered));
            }
        }
    }

    /// Sends what is gathered.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.write.is_empty() {
            let sent = Pin::new(&mut self.io).poll_write(cx, &self.write);
            let sent = ready!(self.patient(cx, sent))?;
            self.write.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// What a write came to; fails if the client takes nothing for too long. Pingora has no limit on flushing.
    fn patient(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match sent {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(sent) => {
                self.stalled = None;
                Poll::Ready(sent)
            }
            Poll::Pending => {
                let limit = self.clock.takes_within();
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                ready!(stalled.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl Drop for Client {
    /// What an upstream sent before it died must reach the client, or it would see an empty answer.
    fn drop(&mut self) {
        if !self.write.is_empty() {
            let _ = match &self.io {
                ClientIo::Tcp(stream) => stream.try_write(&self.write),
                ClientIo::Unix(stream) => stream.try_write(&self.write),
                ClientIo::HandedOn => Ok(0),
            };
        }
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        match &self.io {
            ClientIo::Tcp(stream) => stream.as_raw_fd(),
            ClientIo::Unix(stream) => stream.as_raw_fd(),
            ClientIo::HandedOn => -1,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client(read {}, unsent {})", self.read.len(), self.write.len())
    }
}

/// A client's socket.
#[derive(Debug)]
pub enum ClientIo {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
    /// [`Client::into_io`] has taken it.
    HandedOn,
}

impl ClientIo {
    /// Ready when bytes, an end or an error may have come. Holds no buffer.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error shows when it is read.
        let (Ok(()) | Err(_)) = ready!(match self {
            ClientIo::Tcp(stream) => stream.poll_read_ready(cx),
            ClientIo::Unix(stream) => stream.poll_read_ready(cx),
            ClientIo::HandedOn => Poll::Ready(Ok(())),
        });
        Poll::Ready(())
    }

    /// Whether the kernel has bytes by now: the runtime may not have noticed them yet.
    pub(super) fn has_bytes(&self) -> bool {
        let peek = |fd: RawFd| recv(fd, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
        let peeked = match self {
            ClientIo::Tcp(stream) => peek(stream.as_raw_fd()),
            ClientIo::Unix(stream) => peek(stream.as_raw_fd()),
            ClientIo::HandedOn => Ok(0),
        };
        peeked.is_ok_and(|n| n > 0)
    }
}

impl From<ClientStream> for ClientIo {
    fn from(stream: ClientStream) -> ClientIo {
        match stream {
            ClientStream::Tcp(stream, _) => ClientIo::Tcp(stream),
            ClientStream::Unix(stream) => ClientIo::Unix(stream),
        }
    }
}

impl Ended for ClientIo {
    fn has_ended(&self) -> bool {
        match self {
            ClientIo::Tcp(stream) => stream.has_ended(),
            ClientIo::Unix(stream) => stream.has_ended(),
            ClientIo::HandedOn => true,
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ClientIo::Tcp(stream) => Pin::new(stream).poll_read(cx, out),
            ClientIo::Unix(stream) => Pin::new(stream).poll_read(cx, out),
            ClientIo::HandedOn => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ClientIo::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            ClientIo::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            ClientIo::HandedOn => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ClientIo::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            ClientIo::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            ClientIo::HandedOn => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ClientIo::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            ClientIo::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            ClientIo::HandedOn => Poll::Ready(Ok(())),
        }
    }
}
