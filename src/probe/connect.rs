//! Opens the connection of a probe, and tells apart what a failed one says: about the upstream, or about ourselves.
//!
//! Every connect error is the upstream's failure but the five that mean that this machine has run out of something
//! (`health.md`, "Probes and verdicts"): those are no verdict.

use std::io;

use nix::errno::Errno;
use tokio::net::{TcpStream, UnixStream};

use crate::model::Address;

/// A connection of a probe.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects, without a deadline of its own. Cancel-safe: dropping the future closes the socket.
pub(super) async fn dial(target: &Address) -> Result<Socket, Fault> {
    let socket = match target {
        Address::Inet(address) => TcpStream::connect(address).await.map(Socket::Tcp),
        Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
    };
    socket.map_err(|error| Fault::from(&error))
}

/// What the system said when a connection could not be made or broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// This machine has run out of something: no verdict about the upstream.
    Ours(Errno),
    /// Anything else.
    Theirs(Errno),
}

impl From<&io::Error> for Fault {
    fn from(error: &io::Error) -> Fault {
        let errno = error.raw_os_error().map_or_else(|| without_number(error.kind()), Errno::from_raw);
        match errno {
            Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EADDRNOTAVAIL => Fault::Ours(errno),
            _ => Fault::Theirs(errno),
        }
    }
}

/// The libraries make errors of their own; these are the kinds a socket can meet.
fn without_number(kind: io::ErrorKind) -> Errno {
    match kind {
        io::ErrorKind::WouldBlock => Errno::EAGAIN,
        io::ErrorKind::WriteZero | io::ErrorKind::BrokenPipe => Errno::EPIPE,
        io::ErrorKind::ConnectionReset => Errno::ECONNRESET,
        io::ErrorKind::OutOfMemory => Errno::ENOMEM,
        _ => Errno::UnknownErrno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_lack_of_resources_is_no_verdict() {
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EADDRNOTAVAIL] {
            assert_eq!(Fault::from(&io::Error::from_raw_os_error(errno as i32)), Fault::Ours(errno));
        }
        for errno in [
            Errno::ECONNREFUSED,
            Errno::EHOSTUNREACH,
            Errno::ENETUNREACH,
            Errno::ENETDOWN,
            Errno::ETIMEDOUT,
            Errno::ECONNRESET,
            Errno::EACCES,
            Errno::EPERM,
            Errno::ENOENT,
            Errno::EAGAIN,
            Errno::EAFNOSUPPORT,
        ] {
            assert_eq!(Fault::from(&io::Error::from_raw_os_error(errno as i32)), Fault::Theirs(errno));
        }
        assert_eq!(Fault::from(&io::Error::from(io::ErrorKind::WouldBlock)), Fault::Theirs(Errno::EAGAIN));
    }
}
