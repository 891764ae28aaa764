//! The stream that pingora gets instead of the socket: it hands over exactly one request, keeps what follows for the next
//! head, refuses a chunked body that two parsers could read differently, and gathers small writes.
//!
//! Between requests [`super::front`] owns it and reads heads from its buffer.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType, raw_connect::ProxyDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::listen::ClientStream;
use crate::exchange::{Chunked, Framing, limits};

/// Writes gathered before they are sent.
const WRITE_BUFFER: usize = 16 * 1024;
/// Bytes of following requests kept while one is under way.
const PIPELINED_MAX: usize = 64 * 1024;

/// A client's connection with what was read ahead and what is not sent yet.
pub struct Guard {
    io: ClientIo,
    pub(super) read: BytesMut,
    write: BytesMut,
    pass: Pass,
    eof: bool,
    malformed: bool,
}

/// How many of the bytes to come belong to the request that is handed over.
enum Pass {
    /// This many.
    Bytes(u64),
    /// The rest of the head, then a chunked body.
    Chunked { head: u64, body: Chunked, done: bool },
}

impl Guard {
    /// Nothing is read yet.
    pub fn new(stream: ClientStream) -> Guard {
        let io = match stream {
            ClientStream::Tcp(stream, _) => ClientIo::Tcp(stream),
            ClientStream::Unix(stream) => ClientIo::Unix(stream),
        };
        Guard {
            io,
            read: BytesMut::with_capacity(4 * 1024),
            write: BytesMut::new(),
            pass: Pass::Bytes(0),
            eof: false,
            malformed: false,
        }
    }

    /// Hands over a head of `head` bytes, which is at the front of what was read, and the body after it.
    pub fn hand_over(&mut self, head: usize, framing: Framing) {
        self.pass = match framing {
            Framing::None => Pass::Bytes(head as u64),
            Framing::Length(body) => Pass::Bytes(head as u64 + body),
            Framing::Chunked => Pass::Chunked { head: head as u64, body: Chunked::new(), done: false },
        };
    }

    /// Whether the request that was handed over has been read to its end.
    pub fn is_handed_over(&self) -> bool {
        match &self.pass {
            Pass::Bytes(left) => *left == 0,
            Pass::Chunked { done, .. } => *done,
        }
    }

    /// Whether the body's chunks were malformed.
    pub fn is_malformed(&self) -> bool {
        self.malformed
    }

    /// Whether the client has closed its side.
    pub fn is_eof(&self) -> bool {
        self.eof
    }

    /// Reads more into the buffer; 0 at the end of the stream. Cancel-safe.
    pub async fn fill(&mut self) -> io::Result<usize> {
        use tokio::io::AsyncReadExt;
        let n = match &mut self.io {
            ClientIo::Tcp(stream) => stream.read_buf(&mut self.read).await?,
            ClientIo::Unix(stream) => stream.read_buf(&mut self.read).await?,
            ClientIo::None => 0,
        };
        self.eof |= n == 0;
        Ok(n)
    }

    /// Completes when the client has closed its side or broken off; what it sends meanwhile is kept. Once more is kept
    /// than may be, it is no longer listened to. Cancel-safe.
    pub async fn left(&mut self) {
        while self.read.len() < limits::HEAD_BYTES + PIPELINED_MAX {
            if !matches!(self.fill().await, Ok(n) if n > 0) {
                return;
            }
        }
        std::future::pending().await
    }

    /// The socket itself; what was read ahead is in `read`.
    pub fn io_mut(&mut self) -> &mut ClientIo {
        &mut self.io
    }

    /// Writes and sends. Not cancel-safe.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await?;
        self.flush().await
    }

    /// The socket itself, what was read ahead, and nothing unsent: for a tunnel.
    pub async fn into_parts(mut self) -> io::Result<(ClientIo, BytesMut)> {
        self.flush().await?;
        let io = std::mem::replace(&mut self.io, ClientIo::None);
        Ok((io, std::mem::take(&mut self.read)))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.write.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.write))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.write.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes from the buffer what belongs to the request, at most `max` bytes.
    fn take(&mut self, max: usize) -> io::Result<usize> {
        let ready = self.read.len().min(max);
        match &mut self.pass {
            Pass::Bytes(left) => {
                let n = (ready as u64).min(*left);
                *left -= n;
                Ok(n as usize)
            }
            Pass::Chunked { head, .. } if *head > 0 => {
                let n = (ready as u64).min(*head);
                *head -= n;
                Ok(n as usize)
            }
            Pass::Chunked { body, done, .. } => match body.feed(&self.read[..ready]) {
                Ok(progress) => {
                    *done = progress.done;
                    Ok(progress.consumed)
                }
                Err(_) => {
                    self.malformed = true;
                    Err(io::Error::new(io::ErrorKind::InvalidData, "malformed chunk"))
                }
            },
        }
    }

    /// The request is handed over: keeps what follows for the next head, and still notices that the client leaves.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.eof {
                return Poll::Ready(Ok(()));
            }
            if self.read.len() >= PIPELINED_MAX {
                return Poll::Pending;
            }
            let mut chunk = [0u8; 2_048];
            let mut buf = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
            self.eof = buf.filled().is_empty();
            self.read.extend_from_slice(buf.filled());
        }
    }
}

impl AsyncRead for Guard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        // Pingora flushes a body with a length only at its end; a slow one would stay in our buffer.
        if !me.write.is_empty() {
            let _ = me.poll_send(cx)?;
        }
        if me.is_handed_over() {
            return me.poll_ahead(cx);
        }
        if me.read.is_empty() {
            let mut chunk = [0u8; 16 * 1024];
            let room = out.remaining().clamp(1, chunk.len());
            let mut buf = ReadBuf::new(&mut chunk[..room]);
            ready!(Pin::new(&mut me.io).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                me.eof = true;
                return Poll::Ready(Ok(()));
            }
            me.read.extend_from_slice(buf.filled());
        }
        let n = me.take(out.remaining())?;
        out.put_slice(&me.read[..n]);
        me.read.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.write.len() >= WRITE_BUFFER {
            ready!(self.poll_send(cx))?;
        }
        let room = (2 * WRITE_BUFFER).saturating_sub(self.write.len()).max(1);
        let n = bytes.len().min(room);
        self.write.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Drop for Guard {
    /// What an upstream sent before it died must reach the client, or it would see an empty answer.
    fn drop(&mut self) {
        if !self.write.is_empty() {
            let _ = match &self.io {
                ClientIo::Tcp(stream) => stream.try_write(&self.write),
                ClientIo::Unix(stream) => stream.try_write(&self.write),
                ClientIo::None => Ok(0),
            };
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard(read {}, unsent {})", self.read.len(), self.write.len())
    }
}

#[async_trait]
impl Shutdown for Guard {
    async fn shutdown(&mut self) {
        // The peer may be gone already.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Guard {
    fn id(&self) -> UniqueIDType {
        match &self.io {
            ClientIo::Tcp(stream) => stream.as_raw_fd(),
            ClientIo::Unix(stream) => stream.as_raw_fd(),
            ClientIo::None => -1,
        }
    }
}

impl Ssl for Guard {}
impl Peek for Guard {}

impl GetTimingDigest for Guard {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![]
    }
}

impl GetProxyDigest for Guard {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Guard {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

/// A client's socket.
#[derive(Debug)]
pub enum ClientIo {
    /// TCP.
    Tcp(tokio::net::TcpStream),
    /// Unix.
    Unix(tokio::net::UnixStream),
    /// Taken away.
    None,
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ClientIo::Tcp(stream) => Pin::new(stream).poll_read(cx, out),
            ClientIo::Unix(stream) => Pin::new(stream).poll_read(cx, out),
            ClientIo::None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ClientIo::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            ClientIo::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            ClientIo::None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ClientIo::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            ClientIo::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            ClientIo::None => Poll::Ready(Ok(())),
        }
    }
}
