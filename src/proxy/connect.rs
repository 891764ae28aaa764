//! Dials upstreams: a socket within a time limit, or why there is none.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::ended::Ended;
use super::listen::is_scarcity;
use crate::exchange::ConnectError;
use crate::model::Address;
use crate::pool::Upstream;

/// A socket to an upstream.
#[derive(Debug)]
pub enum UpstreamIo {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

/// Connects within `limit`. Gives up with `Outdated` when this epoch of the upstream's connections ends. Cancel-safe.
pub async fn dial(upstream: &Upstream, epoch: u64, limit: Duration) -> Result<UpstreamIo, ConnectError> {
    let connecting = async {
        match &upstream.address {
            Address::Inet(inet) => {
                let stream = TcpStream::connect(inet).await?;
                stream.set_nodelay(true)?;
                Ok(UpstreamIo::Tcp(stream))
            }
            Address::Unix(path) => Ok(UpstreamIo::Unix(UnixStream::connect(path).await?)),
            Address::Name { .. } => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    };
    tokio::select! {
        biased;
        () = upstream.connections.epoch_ended(epoch) => Err(ConnectError::Outdated),
        dialled = tokio::time::timeout(limit, connecting) => match dialled {
            Ok(connected) => connected.map_err(|error| connect_error(&error)),
            Err(_) => Err(ConnectError::TimedOut),
        }
    }
}

/// Why no connection could be made.
fn connect_error(error: &io::Error) -> ConnectError {
    match error.kind() {
        _ if is_scarcity(error) => ConnectError::Resources,
        io::ErrorKind::TimedOut => ConnectError::TimedOut,
        _ => ConnectError::Refused,
    }
}

impl UpstreamIo {
    /// Ready when bytes, an end or an error may have come.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error shows when it is read.
        let (Ok(()) | Err(_)) = ready!(match self {
            UpstreamIo::Tcp(stream) => stream.poll_read_ready(cx),
            UpstreamIo::Unix(stream) => stream.poll_read_ready(cx),
        });
        Poll::Ready(())
    }
}

impl AsFd for UpstreamIo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            UpstreamIo::Tcp(stream) => stream.as_fd(),
            UpstreamIo::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Ended for UpstreamIo {
    fn has_ended(&self) -> bool {
        match self {
            UpstreamIo::Tcp(stream) => stream.has_ended(),
            UpstreamIo::Unix(stream) => stream.has_ended(),
        }
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            UpstreamIo::Tcp(stream) => Pin::new(stream).poll_read(cx, out),
            UpstreamIo::Unix(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            UpstreamIo::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            UpstreamIo::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            UpstreamIo::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            UpstreamIo::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
