//! The socket of a probe: how it connects, when it acknowledges, and how it closes.
//!
//! ```text
//! ConnectOnly: SYN ─▶ SYN+ACK ─▶ RST            the server's accept() never returns
//! Exchange:    SYN ─▶ SYN+ACK ─▶ ACK + request  (or the ACK alone, once the probe waits) … FIN
//! ```
//! Both delay the last packet of the handshake. The kernel sends it by itself after 200 ms (`TCP_DELACK_MAX`): if this
//! process does not run for that long between connect and close, the server sees a `ConnectOnly` connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::model::Address;

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To check that the port accepts connections. Over TCP the server never sees it: no `accept()` returns, nothing is
    /// logged, and neither side keeps TIME_WAIT. A unix socket has no handshake to abort: there the server accepts it.
    ConnectOnly,
    /// To send or receive data.
    Exchange,
}

/// The connection of a probe, under TLS.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(Tcp),
    Unix(UnixStream),
}

impl Socket {
    /// Connects; the caller sets the deadline. Cancel-safe: dropping the future closes the socket.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) async fn dial(target: &Address, purpose: Purpose) -> io::Result<Socket> {
        match target {
            Address::Inet(address) => Tcp::dial(*address, purpose).await.map(Socket::Tcp),
            Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
            // Names are resolved before; one without an address gives no verdict.
            Address::Name { .. } => Err(io::Error::from_raw_os_error(Errno::EADDRNOTAVAIL as i32)),
        }
    }

    /// The local address; `None` for a unix socket.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(tcp) => tcp.stream.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Whether the peer is known to have closed its side; makes no system call.
    pub(super) fn is_ended_by_peer(&self) -> bool {
        let Socket::Tcp(Tcp { stream, .. }) = self else { return false };
        let ready = stream.ready(Interest::READABLE).now_or_never();
        ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }

    /// Makes the close a reset.
    pub(super) fn reset_on_close(&self) {
        if let Socket::Tcp(Tcp { stream, .. }) = self {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// A TCP connection that delays no acknowledgement while it waits.
///
/// The kernel delays acknowledgements by 40 ms or more, to send them with our next data. A peer with Nagle's algorithm on
/// (the default of a socket) waits that long before it sends the second part of an answer, and a server that sends first
/// does not even accept the connection. `TCP_QUICKACK` is not permanent: the kernel resets it when we send (tcp(7)).
#[derive(Debug)]
pub(super) struct Tcp {
    stream: TcpStream,
    /// `TCP_QUICKACK` is set, and nothing was read or written since.
    prompt: bool,
}

impl Tcp {
    async fn dial(address: SocketAddr, purpose: Purpose) -> io::Result<Tcp> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        // None of these can fail on a TCP socket of Linux; if one did, the probe would still be valid.
        let _ = socket.set_tcp_quickack(false);
        let _ = match purpose {
            Purpose::ConnectOnly => socket.set_linger(Some(Duration::ZERO)),
            // HTTP/2 and TLS send several writes, which must not wait for acknowledgements of the peer.
            Purpose::Exchange => socket.set_tcp_nodelay(true),
        };
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let stream = TcpStream::from_std(socket.into())?;
        // A connection that failed is shown as closed: the others need not be asked for their error (a system call).
        if stream.ready(Interest::WRITABLE).await?.is_write_closed()
            && let Some(error) = stream.take_error()?
        {
            return Err(error);
        }
        Ok(Tcp { stream, prompt: false })
    }

    /// Sends a delayed acknowledgement, and delays none until we send again.
    ///
    /// Also called before anything was read. The kernel then acknowledges while this thread is busy with other probes: of the
    /// answers of a script that exits after 5 ms, two thirds were lost without it when the thread was busy for 6 ms.
    fn acknowledge(&mut self) {
        if !self.prompt {
            let _ = SockRef::from(&self.stream).set_tcp_quickack(true);
            self.prompt = true;
        }
    }
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tcp = self.get_mut();
        let polled = Pin::new(&mut tcp.stream).poll_read(cx, buf);
        match polled {
            Poll::Pending => tcp.acknowledge(),
            Poll::Ready(_) => tcp.prompt = false,
        }
        polled
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let tcp = self.get_mut();
        let written = ready!(Pin::new(&mut tcp.stream).poll_write(cx, bytes));
        tcp.prompt = false;
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tcp = self.get_mut();
        let written = ready!(Pin::new(&mut tcp.stream).poll_write_vectored(cx, pieces));
        tcp.prompt = false;
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

macro_rules! each {
    ($self:expr, $($kind:path)|+, $stream:ident => $does:expr) => {
        match $self.get_mut() { $($kind($stream) => { let $stream = Pin::new($stream); $does })+ }
    };
}
pub(super) use each;

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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn dialled(listener: &TcpListener, purpose: Purpose) -> Tcp {
        let target = Address::Inet(listener.local_addr().unwrap());
        match Socket::dial(&target, purpose).await.unwrap() {
            Socket::Tcp(tcp) => tcp,
            Socket::Unix(_) => panic!("a unix socket"),
        }
    }

    #[tokio::test]
    async fn a_waiting_connection_acknowledges_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut tcp = dialled(&listener, Purpose::Exchange).await;
        assert!(SockRef::from(&tcp.stream).tcp_nodelay().unwrap(), "Nagle's algorithm is off");
        let mut byte = [0];
        for turn in 0..3 {
            tcp.write_all(b"question").await.unwrap();
            assert!(!tcp.prompt, "turn {turn}: what was sent may carry an acknowledgement");
            assert!(tcp.read(&mut byte).now_or_never().is_none(), "turn {turn}: there is nothing to read");
            assert!(SockRef::from(&tcp.stream).tcp_quickack().unwrap(), "turn {turn}: it waits");
        }
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"a").await.unwrap();
        assert_eq!(tcp.read(&mut byte).await.unwrap(), 1);
        assert!(!tcp.prompt, "the next wait sets it again");
        assert!(tcp.read(&mut byte).now_or_never().is_none());
        assert!(tcp.prompt);
    }

    #[tokio::test]
    async fn connect_only_closes_with_a_reset_and_an_exchange_without_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (purpose, linger) in [(Purpose::ConnectOnly, Some(Duration::ZERO)), (Purpose::Exchange, None)] {
            let tcp = dialled(&listener, purpose).await;
            assert_eq!(SockRef::from(&tcp.stream).linger().unwrap(), linger, "{purpose:?}");
        }
    }
}
