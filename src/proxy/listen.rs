//! Listening sockets: bound before anything else starts, accepting until told to stop, and never spinning when
//! descriptors run out.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{SockAddr, SockRef, Socket};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;

use crate::bind::{BindError, BoundSocket, SocketFile, bind};
use crate::model::Address;
use crate::pool::FrontStats;

/// Connections the kernel keeps for us between two accepts; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// Everybody may connect to a unix socket, as to a port on the loopback; who shall not is kept out by the directory.
const SOCKET_MODE: u32 = 0o666;

/// How long accepting rests after our own lack of descriptors or memory.
pub(super) const REST: Duration = Duration::from_millis(50);

/// A socket that is bound and listens, not yet accepting.
#[derive(Debug)]
pub struct Bound {
    address: Address,
    socket: BoundSocket,
}

impl Bound {
    /// Binds and listens. An IPv6 socket takes IPv6 only. A unix socket file that nobody listens on is replaced; one that
    /// somebody listens on is a failed bind.
    pub fn bind(address: &Address) -> Result<Bound, BindError> {
        let socket = bind(address, BACKLOG, SOCKET_MODE)?;
        Ok(Bound { address: address.clone(), socket })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The port, where the system chose it (port 0, in tests).
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr()
    }

    /// Begins accepting on the runtime this is called in.
    pub fn listen(self) -> io::Result<Listener> {
        let (file, socket) = match self.socket {
            BoundSocket::Tcp(socket) => (None, ListenerSocket::Tcp(TcpListener::from_std(socket)?)),
            BoundSocket::Unix(file, socket) => (Some(file), ListenerSocket::Unix(UnixListener::from_std(socket)?)),
        };
        Ok(Listener { address: self.address, _file: file, socket, resting: false })
    }
}

/// A client's connection.
#[derive(Debug)]
pub enum ClientStream {
    /// Over TCP, with the client's address.
    Tcp(TcpStream, SocketAddr),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// What accepting at once came to.
#[derive(Debug)]
pub(super) enum AcceptedNow {
    Client(ClientStream),
    /// We lack descriptors or memory: somebody may be there.
    Scarcity,
    /// A connection broke: there may be others.
    Broken,
    Nobody,
}

/// A client's connection between two workers.
#[derive(Debug)]
pub(super) enum Detached {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl ClientStream {
    /// The client's address; `None` over a unix socket.
    pub(super) fn client(&self) -> Option<IpAddr> {
        match self {
            ClientStream::Tcp(_, peer) => Some(peer.ip()),
            ClientStream::Unix(_) => None,
        }
    }

    /// Takes it out of the readiness queue of this thread.
    pub(super) fn detach(self) -> io::Result<Detached> {
        match self {
            ClientStream::Tcp(stream, peer) => Ok(Detached::Tcp(stream.into_std()?, peer)),
            ClientStream::Unix(stream) => Ok(Detached::Unix(stream.into_std()?)),
        }
    }
}

impl Detached {
    /// Puts it into the readiness queue of this thread.
    pub(super) fn attach(self) -> io::Result<ClientStream> {
        match self {
            Detached::Tcp(stream, peer) => Ok(ClientStream::Tcp(TcpStream::from_std(stream)?, peer)),
            Detached::Unix(stream) => Ok(ClientStream::Unix(UnixStream::from_std(stream)?)),
        }
    }
}

/// A socket that accepts.
pub struct Listener {
    address: Address,
    /// Dropped before the socket.
    _file: Option<SocketFile>,
    socket: ListenerSocket,
    resting: bool,
}

enum ListenerSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection. Errors of a single connection are passed over; our own lack of descriptors or memory is
    /// waited out and counted, with one warning per episode. Cancel-safe.
    pub(super) async fn accept(&mut self, stats: &FrontStats) -> ClientStream {
        loop {
            let accepted = match &self.socket {
                ListenerSocket::Tcp(socket) => {
                    socket.accept().await.map(|(stream, peer)| ClientStream::Tcp(stream, peer))
                }
                ListenerSocket::Unix(socket) => socket.accept().await.map(|(stream, _)| ClientStream::Unix(stream)),
            };
            match accepted {
                Ok(stream) => {
                    self.resting = false;
                    return stream;
                }
                Err(error) if is_scarcity(&error) => {
                    if !std::mem::replace(&mut self.resting, true) {
                        tracing::warn!(listener = %self.address, %error, "Cannot accept connections; retrying");
                    }
                    stats.accept_rests.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(REST).await;
                }
                Err(error) => {
                    tracing::debug!(listener = %self.address, %error, "A connection broke before it was accepted");
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

impl Listener {
    /// The next connection that the kernel has by now. The runtime may not have noticed it yet.
    pub(super) fn accept_now(&self) -> AcceptedNow {
        let accepted = match &self.socket {
            ListenerSocket::Tcp(socket) => SockRef::from(socket).accept(),
            ListenerSocket::Unix(socket) => SockRef::from(socket).accept(),
        };
        match accepted.and_then(|(socket, peer)| self.adopt(socket, &peer)) {
            Ok(stream) => AcceptedNow::Client(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => AcceptedNow::Nobody,
            Err(error) if is_scarcity(&error) => AcceptedNow::Scarcity,
            Err(error) => {
                tracing::debug!(listener = %self.address, %error, "A connection broke before it was accepted");
                AcceptedNow::Broken
            }
        }
    }

    fn adopt(&self, socket: Socket, peer: &SockAddr) -> io::Result<ClientStream> {
        socket.set_nonblocking(true)?;
        match (&self.socket, peer.as_socket()) {
            (ListenerSocket::Tcp(_), Some(peer)) => Ok(ClientStream::Tcp(TcpStream::from_std(socket.into())?, peer)),
            (ListenerSocket::Tcp(_), None) => Err(io::ErrorKind::NotConnected.into()),
            (ListenerSocket::Unix(_), _) => Ok(ClientStream::Unix(UnixStream::from_std(socket.into())?)),
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.address)
    }
}

/// Whether an error says that we lack descriptors, ports or memory, and nothing about the peer.
pub fn is_scarcity(error: &io::Error) -> bool {
    let scarce = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| scarce.contains(&Errno::from_raw(code)))
}

/// Tells a listener and the connections it accepted to finish. Dropping it does the same.
#[derive(Debug)]
pub struct ListenerHandle {
    stop: Stop,
    /// The task that owns the socket.
    pub(super) accepting: Option<tokio::task::JoinHandle<()>>,
}

impl ListenerHandle {
    /// A handle and what its listener and connections look at.
    pub(super) fn new() -> (ListenerHandle, Stop) {
        let stop = Stop(Arc::default());
        (ListenerHandle { stop: stop.clone(), accepting: None }, stop)
    }

    /// Closes the socket, once what is connected to it has been accepted. Idle connections close after a moment in which a
    /// request that is on its way may still arrive; others finish their request with `Connection: close`; tunnels go on.
    pub fn stop(&self) {
        self.stop.set();
    }

    /// As [`ListenerHandle::stop`]; completes when the socket is closed and its address can be bound again.
    pub async fn close(mut self) {
        self.stop();
        if let Some(accepting) = self.accepting.take() {
            // If it panicked, the socket is closed too.
            let _ = accepting.await;
        }
    }
}

impl Drop for ListenerHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Says when a connection is to take no further request. Each idle connection has one and waits for it: hence no larger
/// channel.
#[derive(Debug, Clone)]
pub(super) struct Stop(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    is_set: AtomicBool,
    changed: Notify,
}

impl Stop {
    fn set(&self) {
        self.0.is_set.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// Whether it is so now. Costs one look at memory that is hardly ever written.
    pub(super) fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::Acquire)
    }

    /// Completes when it is so. Cancel-safe.
    pub(super) async fn wait(&self) {
        // Before the look at the flag: no change is missed between the two.
        let changed = self.0.changed.notified();
        if !self.is_set() {
            changed.await;
        }
    }

    /// Whether both are of one listener.
    pub(super) fn is_same(&self, other: &Stop) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_on_ipv6_takes_no_ipv4() {
        let any = |port| Address::Inet((std::net::Ipv6Addr::UNSPECIFIED, port).into());
        let six = match Bound::bind(&any(0)) {
            Ok(bound) => bound,
            Err(error) => {
                let absent = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL].map(|errno| Some(errno as i32));
                assert!(absent.contains(&error.source.raw_os_error()), "this machine has IPv6: {error}");
                assert!(std::net::UdpSocket::bind("[::1]:0").is_err(), "this machine has IPv6: {error}");
                return;
            }
        };
        let BoundSocket::Tcp(socket) = &six.socket else { panic!("a TCP socket: {six:?}") };
        assert!(SockRef::from(socket).only_v6().unwrap());
        let port = six.local_addr().unwrap().port();
        let four = Bound::bind(&Address::Inet(([127, 0, 0, 1], port).into())).expect("both families may share a port");
        let stats = FrontStats::default();
        let (mut six, mut four) = (six.listen().unwrap(), four.listen().unwrap());
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let ClientStream::Tcp(_, peer) = four.accept(&stats).await else { panic!("it came over TCP") };
        assert_eq!(peer, client.local_addr().unwrap());
        let client = std::net::TcpStream::connect(("::1", port)).unwrap();
        let ClientStream::Tcp(_, peer) = six.accept(&stats).await else { panic!("it came over TCP") };
        assert_eq!(peer, client.local_addr().unwrap(), "the first client over IPv6 is the first that it gets");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stop_reaches_whoever_waits_for_it_or_will() {
        for round in 0..200 {
            let (handle, stop) = ListenerHandle::new();
            assert!(!stop.is_set());
            // They begin to wait before, while and after it comes.
            let wait = |stop: Stop| tokio::spawn(async move { stop.wait().await });
            let waiting: Vec<_> = (0..4).map(|_| wait(stop.clone())).collect();
            if round % 2 == 0 {
                handle.stop()
            } else {
                drop(handle)
            }
            for task in waiting {
                tokio::time::timeout(Duration::from_secs(30), task).await.expect("nobody waits for ever").unwrap();
            }
            assert!(stop.is_set());
            stop.wait().await;
        }
    }

    #[tokio::test]
    async fn a_stop_is_the_one_of_its_listener() {
        let ((one, stop), (_two, other)) = (ListenerHandle::new(), ListenerHandle::new());
        assert!(stop.is_same(&stop.clone()) && !stop.is_same(&other));
        one.close().await;
        assert!(stop.is_set() && !other.is_set());
        let waits = tokio::time::timeout(Duration::from_millis(1), other.wait()).await;
        assert!(waits.is_err(), "nobody has stopped it");
    }

    #[test]
    fn only_what_we_lack_ourselves_is_scarcity() {
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EADDRNOTAVAIL] {
            assert!(is_scarcity(&errno.into()), "{errno}");
        }
        for errno in [Errno::ECONNABORTED, Errno::ECONNREFUSED, Errno::ECONNRESET, Errno::EPERM, Errno::EAGAIN] {
            assert!(!is_scarcity(&errno.into()), "{errno}");
        }
        assert!(!is_scarcity(&io::ErrorKind::OutOfMemory.into()), "an error of no system call");
    }
}
