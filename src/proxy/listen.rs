//! Listening sockets: bound before anything else starts, accepting until told to stop, and never spinning when
//! descriptors run out.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::model::Address;

/// Connections the kernel keeps for us between two accepts; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

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
    Unix(std::os::unix::net::UnixListener),
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
            Address::Unix(path) => bind_unix(path).map(BoundSocket::Unix),
        };
        match socket {
            Ok(socket) => Ok(Bound { address: address.clone(), socket }),
            Err(source) => Err(BindError { address: address.clone(), reason: reason(&source), source }),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Begins accepting on the runtime this is called in.
    pub fn listen(self) -> io::Result<Listener> {
        let socket = match self.socket {
            BoundSocket::Tcp(socket) => ListenerSocket::Tcp(TcpListener::from_std(socket)?),
            BoundSocket::Unix(socket) => ListenerSocket::Unix(UnixListener::from_std(socket)?),
        };
        Ok(Listener { address: self.address, socket, resting: false })
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket {
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Ok(_) | Err(_) => return Err(io::Error::from(io::ErrorKind::AddrInUse)),
        }
    }
    let socket = std::os::unix::net::UnixListener::bind(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
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

/// A socket that accepts.
pub struct Listener {
    address: Address,
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
    /// waited out, with one warning per episode. Cancel-safe.
    pub async fn accept(&mut self) -> ClientStream {
        loop {
            let accepted = match &self.socket {
                ListenerSocket::Tcp(socket) => socket.accept().await.map(|(stream, peer)| {
                    // Small writes must not wait for an acknowledgement; a dead socket shows at the next read.
                    let _ = stream.set_nodelay(true);
                    ClientStream::Tcp(stream, peer)
                }),
                ListenerSocket::Unix(socket) => socket.accept().await.map(|(stream, _)| ClientStream::Unix(stream)),
            };
            match accepted {
                Ok(stream) => {
                    self.resting = false;
                    return stream;
                }
                Err(error) if is_scarcity(&error) => {
                    if !std::mem::replace(&mut self.resting, true) {
                        tracing::warn!(listener = %self.address, %error, "Cannot accept for want of resources; waiting");
                    }
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

impl Drop for Listener {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            // Somebody may have removed it before us.
            let _ = std::fs::remove_file(path);
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

/// Tells a listener and the connections it accepted to finish.
#[derive(Debug)]
pub struct ListenerHandle(Arc<tokio::sync::watch::Sender<bool>>);

impl ListenerHandle {
    /// A handle and what its listener and connections watch.
    pub fn channel() -> (ListenerHandle, tokio::sync::watch::Receiver<bool>) {
        let (sender, receiver) = tokio::sync::watch::channel(false);
        (ListenerHandle(Arc::new(sender)), receiver)
    }

    /// Closes the socket. Idle connections close, others finish their request with `Connection: close`.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_a_failed_bind_that_says_so() {
        let bound = Bound::bind(&"127.0.0.1:0".parse().unwrap_or(Address::Inet(([127, 0, 0, 1], 0).into()))).unwrap();
        let BoundSocket::Tcp(socket) = &bound.socket else { panic!("tcp") };
        let taken = Address::Inet(socket.local_addr().unwrap());
        let error = Bound::bind(&taken).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {taken}: the address is in use"));
    }

    #[test]
    fn a_dead_unix_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let address = Address::Unix(Arc::from(path.as_path()));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = Bound::bind(&address).expect("nobody listens on it");
        assert!(Bound::bind(&address).is_err(), "somebody listens on it");
        drop(bound);
        std::fs::write(dir.path().join("file"), "x").unwrap();
        let file = Address::Unix(Arc::from(dir.path().join("file").as_path()));
        assert!(Bound::bind(&file).is_err(), "a plain file is never removed");
    }
}
