//! Connections to upstreams: dialled here and not by pingora, so that each is known to its upstream and an idle one can
//! be closed the moment its upstream becomes unhealthy (pingora's pool has no way to do that).
//!
//! The descriptor of a connection is only used under the lock that its unregistering takes, and pingora calls our
//! tracer before it closes the descriptor: so it is open, and it is that connection's, whenever we touch it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::socket::Shutdown;
use parking_lot::Mutex;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions, Tracer, Tracing};
use pingora_core::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::listen::is_scarcity;
use crate::exchange::limits;
use crate::model::Address;
use crate::pool::{Connection, Upstream, UpstreamId};

/// Pingora's error type for our own lack of descriptors, ports or memory.
pub(super) const NO_RESOURCES: ErrorType = ErrorType::Custom("no resources");

/// A socket to an upstream.
#[derive(Debug)]
pub enum UpstreamIo {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
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

/// Connects within `limit`; the error of an overrun is `TimedOut`. Cancel-safe.
pub async fn dial(address: &Address, limit: Duration) -> io::Result<UpstreamIo> {
    let connecting = async {
        match address {
            Address::Inet(inet) => {
                let stream = TcpStream::connect(inet).await?;
                stream.set_nodelay(true)?;
                Ok(UpstreamIo::Tcp(stream))
            }
            Address::Unix(path) => Ok(UpstreamIo::Unix(UnixStream::connect(path).await?)),
        }
    };
    match tokio::time::timeout(limit, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The connections of one upstream, by descriptor.
#[derive(Debug, Default)]
struct ByDescriptor(Mutex<HashMap<RawFd, Arc<Open>>>);

/// Dials one upstream for pingora.
#[derive(Debug)]
pub struct Dialer {
    upstream: Arc<Upstream>,
    by_fd: Arc<ByDescriptor>,
}

/// The dialers of all upstreams that were used; those of upstreams that are gone are dropped now and then.
#[derive(Debug, Default)]
pub struct Dialers {
    dialers: Mutex<HashMap<UpstreamId, Arc<Dialer>>>,
    added: AtomicU64,
}

impl Dialers {
    /// The dialer of an upstream. Takes a lock for a look-up by number; the express lane will keep its own connections.
    pub fn of(&self, upstream: &Arc<Upstream>) -> Arc<Dialer> {
        let mut dialers = self.dialers.lock();
        if let Some(dialer) = dialers.get(&upstream.id) {
            return dialer.clone();
        }
        if self.added.fetch_add(1, Ordering::Relaxed) % 64 == 63 {
            // Gone from every pool: only the dialer and its connections know the upstream.
            dialers.retain(|_, dialer| Arc::strong_count(&dialer.upstream) > 1 + dialer.by_fd.0.lock().len());
        }
        let dialer = Arc::new(Dialer { upstream: upstream.clone(), by_fd: Arc::default() });
        dialers.insert(upstream.id, dialer.clone());
        dialer
    }
}

impl Dialer {
    /// The peer for pingora: connections of an older epoch are never found under its key.
    pub fn peer(self: &Arc<Self>) -> Result<HttpPeer> {
        let mut peer = match &self.upstream.address {
            Address::Inet(inet) => HttpPeer::new(*inet, false, String::new()),
            Address::Unix(path) => {
                let path = path.to_str().ok_or_else(|| Error::new_str("the path of a unix socket is text"))?;
                HttpPeer::new_uds(path, false, String::new())?
            }
        };
        // Upstream numbers are never used again, so the key is unique for an upstream and its epoch.
        peer.group_key = (self.upstream.id.0 << 24) ^ self.upstream.connections.epoch();
        let mut options = PeerOptions::new();
        options.connection_timeout = Some(limits::CONNECT);
        options.total_connection_timeout = Some(limits::CONNECT);
        options.read_timeout = Some(limits::FIRST_BYTE);
        options.write_timeout = Some(limits::UPSTREAM_IDLE);
        options.idle_timeout = Some(limits::UPSTREAM_KEEP_ALIVE);
        options.custom_l4 = Some(self.clone());
        peer.options = options;
        Ok(peer)
    }

    /// A request begins to use the connection with this descriptor; it is idle again when the answer is dropped.
    pub fn in_use(&self, fd: RawFd) -> Option<InUse> {
        let open = self.by_fd.0.lock().get(&fd).cloned()?;
        open.used.store(true, Ordering::Release);
        Some(InUse { open, upstream: self.upstream.clone() })
    }

    fn register(&self, fd: RawFd) -> Tracer {
        let epoch = self.upstream.connections.epoch();
        let open = Arc::new(Open { fd: Mutex::new(Some(fd)), used: AtomicBool::new(true), epoch });
        self.by_fd.0.lock().insert(fd, open.clone());
        let key = self.upstream.connections.insert(open.clone());
        Tracer(Box::new(Registered(Arc::new(Registration {
            open,
            key,
            upstream: self.upstream.clone(),
            by_fd: self.by_fd.clone(),
        }))))
    }
}

#[async_trait]
impl Connect for Dialer {
    async fn connect(&self, _address: &PingoraAddr) -> Result<Stream> {
        let io = match dial(&self.upstream.address, limits::CONNECT).await {
            Ok(io) => io,
            Err(error) => {
                let kind = match error.kind() {
                    _ if is_scarcity(&error) => NO_RESOURCES,
                    io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
                    io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                    _ => ErrorType::ConnectError,
                };
                return Error::e_because(kind, "dial", error);
            }
        };
        let (mut stream, fd) = match io {
            UpstreamIo::Tcp(tcp) => {
                let fd = tcp.as_raw_fd();
                (Stream::from(tcp), fd)
            }
            UpstreamIo::Unix(unix) => {
                let fd = unix.as_raw_fd();
                (Stream::from(unix), fd)
            }
        };
        stream.tracer = Some(self.register(fd));
        Ok(stream)
    }
}

/// One open connection.
#[derive(Debug)]
struct Open {
    /// `None` once it is about to close.
    fd: Mutex<Option<RawFd>>,
    used: AtomicBool,
    epoch: u64,
}

impl Open {
    fn close(&self) {
        let fd = self.fd.lock();
        if let Some(fd) = *fd {
            // Pingora's watcher of the idle connection sees the end and closes it.
            let _ = nix::sys::socket::shutdown(fd, Shutdown::Both);
        }
    }
}

impl Connection for Open {
    fn close_if_idle(&self) {
        if !self.used.load(Ordering::Acquire) {
            self.close();
        }
    }
}

/// A request's use of a connection.
#[derive(Debug)]
pub struct InUse {
    open: Arc<Open>,
    upstream: Arc<Upstream>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.open.used.store(false, Ordering::Release);
        if self.open.epoch != self.upstream.connections.epoch() {
            self.open.close();
        }
    }
}

/// Forgets the connection when pingora is about to close it. Pingora clones tracers; the last one counts.
#[derive(Debug, Clone)]
struct Registered(Arc<Registration>);

#[derive(Debug)]
struct Registration {
    open: Arc<Open>,
    key: u64,
    upstream: Arc<Upstream>,
    by_fd: Arc<ByDescriptor>,
}

impl Tracing for Registered {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        let Registration { open, key, upstream, by_fd } = &*self.0;
        let mut fd = open.fd.lock();
        if let Some(closing) = fd.take() {
            let mut by_fd = by_fd.0.lock();
            if by_fd.get(&closing).is_some_and(|other| Arc::ptr_eq(other, open)) {
                by_fd.remove(&closing);
            }
            upstream.connections.remove(*key);
        }
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}
