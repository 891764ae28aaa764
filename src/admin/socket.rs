//! Binds the admin socket: TCP, or a unix socket that only its owner may open. Refuses an address that other machines
//! can reach if there is no token. `server` serves it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::model::Address;
use crate::model::policy::AdminPolicy;

/// Connections that the kernel queues until they are accepted.
const BACKLOG: i32 = 128;

/// A bound socket, not served yet.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: Listener,
    pub(super) file: Option<SocketFile>,
    address: Address,
}

/// The listening socket itself.
#[derive(Debug)]
pub(super) enum Listener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A unix socket.
    Unix(std::os::unix::net::UnixListener),
}

/// A unix socket's file, removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile(Arc<Path>);

/// Why the admin socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Other machines can reach the address, and there is no token.
    #[error("admin address {0} can be reached from other machines: set admin.token, or use 127.0.0.1 or unix:/path")]
    TokenMissing(Address),
    /// The system refused.
    #[error("cannot listen on {address}: {}", reason(.address, .source))]
    Io {
        /// The address.
        address: Address,
        /// The system's error.
        source: io::Error,
    },
}

/// Binds the socket of `[admin]`. A stale unix socket file, on which no process listens, is replaced; one in use is
/// `AddrInUse`.
pub fn bind(policy: &AdminPolicy) -> Result<Bound, BindError> {
    let address = &policy.address;
    if policy.token.is_none() && !address.is_local() {
        return Err(BindError::TokenMissing(address.clone()));
    }
    let bound = match address {
        Address::Inet(inet) => bind_tcp(*inet),
        Address::Unix(path) => bind_unix(path),
        Address::Name { .. } => Err(io::ErrorKind::AddrNotAvailable.into()),
    };
    bound.map_err(|source| BindError::Io { address: address.clone(), source })
}

/// Binds the same TCP address with any free port, for a process without a configuration file whose default is in use.
pub fn bind_free_port(policy: &AdminPolicy) -> Result<Bound, BindError> {
    let address = match &policy.address {
        Address::Inet(inet) => Address::Inet(std::net::SocketAddr::new(inet.ip(), 0)),
        other @ (Address::Unix(_) | Address::Name { .. }) => other.clone(),
    };
    bind(&AdminPolicy { address, ..policy.clone() })
}

fn reason(address: &Address, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => address.in_use(),
        _ => error.to_string(),
    }
}

impl Bound {
    /// The address in use; differs from the policy's only where that asked for port 0.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

fn bind_tcp(address: std::net::SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = std::net::TcpListener::from(socket);
    let address = Address::Inet(listener.local_addr()?);
    Ok(Bound { listener: Listener::Tcp(listener), file: None, address })
}

fn bind_unix(path: &Arc<Path>) -> io::Result<Bound> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile(path.clone());
    // No client can connect between bind and listen, so the mode is restricted before the first connection.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    Ok(Bound { listener: Listener::Unix(listener), file: Some(file), address: Address::Unix(path.clone()) })
}

/// Removes a socket file on which no process listens. Anything else at that path stays, and `bind` fails on it.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn policy(address: &str, token: Option<&str>) -> AdminPolicy {
        AdminPolicy { address: address.parse().unwrap(), written: true, token: token.map(Secret::new) }
    }

    #[test]
    fn an_address_reachable_from_other_machines_is_refused_without_a_token() {
        for address in ["0.0.0.0:9900", "[::]:9900", "10.0.0.1:9900"] {
            assert!(matches!(bind(&policy(address, None)), Err(BindError::TokenMissing(_))), "{address}");
        }
    }

    #[test]
    fn a_busy_port_is_an_error_with_its_address() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&policy(&address, None)).unwrap_err().to_string();
        let port = taken.local_addr().unwrap().port();
        assert!(error.contains(&format!("cannot listen on {address}: the address is in use (")), "{error}");
        assert!(error.contains(&format!("ss -ltnp 'sport = :{port}'")), "{error}");
    }

    #[test]
    fn a_free_port_is_found_where_the_configured_one_is_busy() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let bound = bind_free_port(&policy(&address, None)).expect("another port is free");
        let instead = bound.address().to_string();
        assert!(instead.starts_with("127.0.0.1:") && instead != address && !instead.ends_with(":0"), "{instead}");
        assert!(std::net::TcpStream::connect(&instead).is_ok(), "it listens");
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let address = format!("unix:{}", path.display());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = bind(&policy(&address, None)).expect("no process listens on the old one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&policy(&address, None)), Err(BindError::Io { .. })));
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(bind(&policy(&format!("unix:{}", path.display()), None)).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }
}
