//! Binds listening sockets for the data path and the admin. A bind never waits for another process. At the path of a unix
//! socket it replaces only a socket that no process listens on, and it removes only its own file at the end.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::model::Address;

/// A socket that is bound and listens, non-blocking, not yet accepting.
#[derive(Debug)]
pub enum BoundSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket after its file: the file is dropped first. See [`SocketFile`].
    Unix(SocketFile, UnixListener),
}

/// The file of a unix socket, removed when dropped unless another has taken its place. Drop it before the socket: a socket
/// that is open keeps the number of its file, which another file may get afterwards.
#[derive(Debug)]
pub struct SocketFile {
    path: Arc<Path>,
    identity: Identity,
}

/// Device and inode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

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

/// Binds and listens. `backlog`: connections that the kernel queues until they are accepted; `mode`: the permissions of a
/// unix socket's file. An IPv6 socket takes IPv6 only.
pub fn bind(address: &Address, backlog: i32, mode: u32) -> Result<BoundSocket, BindError> {
    let bound = match address {
        Address::Inet(inet) => bind_tcp(*inet, backlog),
        Address::Unix(path) => bind_unix(path, backlog, mode),
        Address::Name { .. } => Err(io::ErrorKind::AddrNotAvailable.into()),
    };
    bound.map_err(|source| BindError { address: address.clone(), reason: reason(address, &source), source })
}

impl BoundSocket {
    /// The address of a TCP socket, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            BoundSocket::Tcp(socket) => socket.local_addr().ok(),
            BoundSocket::Unix(..) => None,
        }
    }
}

fn bind_tcp(address: SocketAddr, backlog: i32) -> io::Result<BoundSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it. Small writes must not wait for an acknowledgement.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(BoundSocket::Tcp(socket.into()))
}

fn bind_unix(path: &Arc<Path>, backlog: i32, mode: u32) -> io::Result<BoundSocket> {
    remove_dead(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.clone(), identity: Identity::of(path)? };
    // No client can connect before `listen`, so that the mode holds for the first one too.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    Ok(BoundSocket::Unix(file, socket.into()))
}

/// Removes a socket file that no process listens on.
fn remove_dead(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        // Nothing is there; anything else shows when we bind.
        Err(_) => return Ok(()),
    };
    if !found.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    if is_in_use(path)? {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    // Another process may have replaced it since we looked.
    if Identity::of(path).is_ok_and(|now| now == Identity::new(&found)) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Whether a process listens. Does not wait: a full backlog is an answer too.
fn is_in_use(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

impl Identity {
    fn of(path: &Path) -> io::Result<Identity> {
        fs::symlink_metadata(path).map(|found| Identity::new(&found))
    }

    fn new(found: &fs::Metadata) -> Identity {
        Identity(found.dev(), found.ino())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Identity::of(&self.path).is_ok_and(|found| found == self.identity) {
            // Another process may remove it before us.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn reason(address: &Address, error: &io::Error) -> String {
    match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, _) => address.in_use(),
        (io::ErrorKind::AlreadyExists, _) => "a file that is no socket is in the way".to_owned(),
        (io::ErrorKind::AddrNotAvailable, _) => "this machine has no such address".to_owned(),
        (io::ErrorKind::PermissionDenied, Address::Inet(_)) => {
            "not permitted (ports below 1024 need CAP_NET_BIND_SERVICE)".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;

    fn unix(path: &Path) -> Address {
        Address::Unix(Arc::from(path))
    }

    /// In a thread, so that a bind that waits fails the test and does not stop it.
    fn bind_in_time(address: &Address, mode: u32) -> Result<BoundSocket, String> {
        let (done, result) = mpsc::channel();
        let address = address.clone();
        thread::spawn(move || drop(done.send(bind(&address, 16, mode))));
        let bound = result.recv_timeout(Duration::from_secs(20)).expect("a bind does not wait");
        bound.map_err(|error| error.to_string())
    }

    #[test]
    fn a_port_in_use_is_named_with_the_way_to_its_process() {
        let bound = bind(&Address::Inet(([127, 0, 0, 1], 0).into()), 16, 0o600).unwrap();
        let taken = Address::Inet(bound.local_addr().unwrap());
        let port = taken.port().unwrap();
        let found = format!("(find the process with: ss -ltnp 'sport = :{port}')");
        let error = bind(&taken, 16, 0o600).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {taken}: the address is in use {found}"));
    }

    #[test]
    fn only_a_socket_that_no_process_listens_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let in_use = format!(
            "cannot listen on unix:{0}: the address is in use (find the process with: ss -lxp | grep -F '{0}')",
            path.display()
        );
        drop(UnixListener::bind(&path).unwrap());
        for mode in [0o600, 0o666] {
            let bound = bind_in_time(&unix(&path), mode).expect("no process listens on it");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
            assert_eq!(bind_in_time(&unix(&path), mode).unwrap_err(), in_use);
            drop(bound);
            assert!(!path.exists(), "the file goes with the socket");
        }

        // Its backlog is full: a connection would wait until the process accepts.
        let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        busy.listen(0).unwrap();
        let fill = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.connect(&SockAddr::unix(&path).unwrap()).map(|()| socket)
        };
        let waiting: Vec<Socket> = std::iter::from_fn(|| fill().ok()).take(64).collect();
        assert!(waiting.len() < 64, "the backlog is full");
        assert_eq!(bind_in_time(&unix(&path), 0o600).unwrap_err(), in_use);
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_is_not_ours_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        let error = bind_in_time(&unix(&path), 0o600).unwrap_err();
        assert!(error.ends_with("a file that is no socket is in the way"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        fs::remove_file(&path).unwrap();

        let bound = bind_in_time(&unix(&path), 0o600).unwrap();
        // Whatever takes its place, and however often: no file gets the number of ours while our socket is open.
        for _ in 0..50 {
            fs::remove_file(&path).unwrap();
            drop(UnixListener::bind(&path).unwrap());
        }
        let BoundSocket::Unix(file, socket) = bound else { panic!("a unix socket") };
        drop(file);
        assert!(path.exists(), "another process has put it there");
        drop(socket);

        // A socket of another kind, with which no connection is possible, is somebody's too.
        fs::remove_file(&path).unwrap();
        let datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        bind_in_time(&unix(&path), 0o600).unwrap_err();
        assert!(path.exists());
        drop(datagrams);
    }

    #[test]
    fn a_file_is_removed_before_its_socket_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let BoundSocket::Unix(file, socket) = bind_in_time(&unix(&path), 0o600).unwrap() else {
            panic!("a unix socket")
        };
        assert!(SockRef::from(&socket).is_listener().unwrap());
        drop(file);
        assert!(!path.exists());
        let next = bind_in_time(&unix(&path), 0o600).expect("the path is free while the old socket still accepts");
        drop(socket);
        assert!(path.exists(), "it belongs to the next one");
        drop(next);
    }
}
