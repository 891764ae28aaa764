//! Listening sockets: bound before anything else starts, accepting until told to stop, and never spinning when
//! descriptors run out.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

use crate::model::Address;
use crate::pool::{FrontStats, ListenerId};

/// Connections the kernel keeps for us between two accepts; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// Everybody may connect to a unix socket, as to a port on the loopback; who shall not is kept out by the directory.
const SOCKET_MODE: u32 = 0o666;

/// How long accepting rests after our own lack of descriptors or memory.
const REST: Duration = Duration::from_millis(50);

/// A socket that is bound and listens, not yet accepting.
#[derive(Debug)]
pub struct Bound {
    address: Address,
    socket: BoundSocket,
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// The file of a unix socket, removed when dropped unless somebody has put another in its place.
#[derive(Debug)]
struct SocketFile {
    path: Arc<Path>,
    /// Device and inode.
    identity: (u64, u64),
}

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct BindError {
    /// The address.
    pub address: Address,
    /// The reason, in words where we know better ones than the system's.
    pub reason: String,
    /// The system's error.
    #[source]
    pub source: io::Error,
}

impl Bound {
    /// Binds and listens. An IPv6 socket takes IPv6 only. A unix socket file that nobody listens on is replaced; one that
    /// somebody listens on is a failed bind.
    pub fn bind(address: &Address) -> Result<Bound, BindError> {
        let socket = match address {
            Address::Inet(inet) => bind_tcp(*inet).map(BoundSocket::Tcp),
            Address::Unix(path) => bind_unix(path).map(|(socket, file)| BoundSocket::Unix(socket, file)),
            Address::Name { .. } => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        match socket {
            Ok(socket) => Ok(Bound { address: address.clone(), socket }),
            Err(source) => Err(BindError { address: address.clone(), reason: reason(address, &source), source }),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The port, where the system chose it (port 0, in tests).
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            BoundSocket::Tcp(socket) => socket.local_addr().ok(),
            BoundSocket::Unix(..) => None,
        }
    }

    /// Begins accepting on the runtime this is called in.
    pub fn listen(self) -> io::Result<Listener> {
        let (socket, file) = match self.socket {
            BoundSocket::Tcp(socket) => (ListenerSocket::Tcp(TcpListener::from_std(socket)?), None),
            BoundSocket::Unix(socket, file) => (ListenerSocket::Unix(UnixListener::from_std(socket)?), Some(file)),
        };
        Ok(Listener { address: self.address, socket, resting: false, _file: file })
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it. Small writes must not wait for an acknowledgement.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: &Arc<Path>) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if somebody_listens(path)? => return Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => std::fs::remove_file(path)?,
        // Nothing is there; anything else shows when we bind.
        Err(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let found = std::fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.clone(), identity: (found.dev(), found.ino()) };
    std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// Asks without waiting: a full backlog is an answer too.
fn somebody_listens(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: std::fs::Metadata| (found.dev(), found.ino()) == self.identity;
        if std::fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Somebody may remove it before us.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn reason(address: &Address, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => address.in_use(),
        io::ErrorKind::AlreadyExists => "a file that is no socket is in the way".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "not permitted (ports below 1024 need CAP_NET_BIND_SERVICE)".to_owned(),
        _ => error.to_string(),
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

/// A client's connection between two workers.
#[derive(Debug)]
pub(super) enum Detached {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl ClientStream {
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
    socket: ListenerSocket,
    resting: bool,
    _file: Option<SocketFile>,
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
    /// The next connection that the kernel has by now; `None`: none, or it cannot be taken. The runtime may not have
    /// noticed it yet.
    pub(super) fn accept_now(&self) -> Option<ClientStream> {
        loop {
            let accepted = match &self.socket {
                ListenerSocket::Tcp(socket) => SockRef::from(socket).accept(),
                ListenerSocket::Unix(socket) => SockRef::from(socket).accept(),
            };
            let adopted = match accepted {
                Ok((socket, peer)) => self.adopt(socket, &peer),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Err(error),
                Err(_) => return None,
            };
            match adopted {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    tracing::debug!(listener = %self.address, %error, "A connection broke before it was accepted");
                }
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
    address: Address,
    id: ListenerId,
    stop: watch::Sender<bool>,
    /// The task that owns the socket.
    pub(super) accepting: Option<tokio::task::JoinHandle<()>>,
}

impl ListenerHandle {
    /// A handle and what its listener and connections watch.
    pub(super) fn channel(address: Address, id: ListenerId) -> (ListenerHandle, watch::Receiver<bool>) {
        let (stop, watched) = watch::channel(false);
        (ListenerHandle { address, id, stop, accepting: None }, watched)
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its number.
    pub fn id(&self) -> ListenerId {
        self.id
    }

    /// Closes the socket, once what is connected to it has been accepted. Idle connections close after a moment in which a
    /// request that is on its way may still arrive; others finish their request with `Connection: close`; tunnels go on.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// As [`ListenerHandle::stop`]; completes when the socket is closed and its address can be bound again.
    pub async fn close(self) {
        self.stop();
        if let Some(accepting) = self.accepting {
            // If it panicked, the socket is closed too.
            let _ = accepting.await;
        }
    }
}

/// Says when a connection is to take no further request.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    watched: watch::Receiver<bool>,
    set: bool,
}

impl Stop {
    /// Follows the handle of a listener.
    pub(super) fn new(watched: watch::Receiver<bool>) -> Stop {
        let set = *watched.borrow();
        Stop { watched, set }
    }

    /// Whether it is so now. Costs one look at memory that is hardly ever written. A handle that is gone means the same.
    pub(super) fn is_set(&self) -> bool {
        self.set || self.watched.has_changed().unwrap_or(true)
    }

    /// Completes when it is so. Cancel-safe.
    pub(super) async fn wait(&mut self) {
        if !self.set {
            let _ = self.watched.wait_for(|stop| *stop).await;
            self.set = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &Path) -> Address {
        Address::Unix(Arc::from(path))
    }

    #[test]
    fn an_address_in_use_is_a_failed_bind_that_says_so() {
        let bound = Bound::bind(&Address::Inet(([127, 0, 0, 1], 0).into())).unwrap();
        let taken = Address::Inet(bound.local_addr().unwrap());
        let error = Bound::bind(&taken).unwrap_err();
        let port = taken.port().unwrap();
        let found = format!("(find the process with: ss -ltnp 'sport = :{port}')");
        assert_eq!(error.to_string(), format!("cannot listen on {taken}: the address is in use {found}"));
    }

    #[test]
    fn a_dead_unix_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = Bound::bind(&unix(&path)).expect("nobody listens on it");
        let error = Bound::bind(&unix(&path)).unwrap_err();
        let found = format!("(find the process with: ss -lxp | grep -F '{}')", path.display());
        assert!(error.to_string().ends_with(&format!("the address is in use {found}")), "{error}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        drop(bound);
        assert!(!path.exists(), "the file goes with the socket");
    }

    #[test]
    fn only_our_own_socket_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let error = Bound::bind(&unix(&file)).unwrap_err();
        assert!(error.to_string().ends_with("a file that is no socket is in the way"), "{error}");
        let path = dir.path().join("a.sock");
        let bound = Bound::bind(&unix(&path)).unwrap();
        std::fs::remove_file(&path).unwrap();
        let other = Bound::bind(&unix(&path)).unwrap();
        drop(bound);
        assert!(path.exists(), "another has put it there");
        drop(other);
    }

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
