//! Binds the admin socket: TCP, or a unix socket that only its owner may open. Refuses an address that other machines
//! can reach if there is no token. `server` serves it.

use crate::bind::{self, BoundSocket};
use crate::model::Address;
use crate::model::policy::AdminPolicy;

/// Connections that the kernel queues until they are accepted.
const BACKLOG: i32 = 128;

/// Only the owner may open a unix socket.
const SOCKET_MODE: u32 = 0o600;

/// A bound socket, not served yet.
#[derive(Debug)]
pub struct Bound {
    pub(super) socket: BoundSocket,
    address: Address,
}

/// Why the admin socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Other machines can reach the address, and there is no token.
    #[error("admin address {0} can be reached from other machines: set admin.token, or use 127.0.0.1 or unix:/path")]
    TokenMissing(Address),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] bind::BindError),
}

/// Binds the socket of `[admin]`. A stale unix socket file, on which no process listens, is replaced; one in use is
/// `AddrInUse`.
pub fn bind(policy: &AdminPolicy) -> Result<Bound, BindError> {
    let address = &policy.address;
    if policy.token.is_none() && !address.is_local() {
        return Err(BindError::TokenMissing(address.clone()));
    }
    let socket = bind::bind(address, BACKLOG, SOCKET_MODE)?;
    let address = socket.local_addr().map_or_else(|| address.clone(), Address::Inet);
    Ok(Bound { socket, address })
}

/// Binds the same TCP address with any free port, for a process without a configuration file whose default is in use.
pub fn bind_free_port(policy: &AdminPolicy) -> Result<Bound, BindError> {
    let address = match &policy.address {
        Address::Inet(inet) => Address::Inet(std::net::SocketAddr::new(inet.ip(), 0)),
        other @ (Address::Unix(_) | Address::Name { .. }) => other.clone(),
    };
    bind(&AdminPolicy { address, ..policy.clone() })
}

impl Bound {
    /// The address in use; differs from the policy's only where that asked for port 0.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
    fn a_unix_socket_is_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let address = format!("unix:{}", path.display());
        let bound = bind(&policy(&address, None)).unwrap();
        assert_eq!(bound.address().to_string(), address);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&policy(&address, None)), Err(BindError::Io(_))));
    }
}
