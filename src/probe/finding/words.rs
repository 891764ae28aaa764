//! The words for connections that failed, and for measured times and sizes.

use std::time::Duration;

use nix::errno::Errno;

pub(super) fn connect_words(errno: Errno) -> &'static str {
    match errno {
        Errno::ECONNREFUSED => "connection refused",
        Errno::ECONNRESET => "connection reset while connecting",
        Errno::EHOSTUNREACH => "host unreachable",
        Errno::ENETUNREACH => "network unreachable",
        Errno::ETIMEDOUT => "no connection: the system gave up waiting",
        Errno::EACCES | Errno::EPERM => "connection not permitted",
        Errno::ENOENT => "no such socket",
        Errno::EAGAIN => "connection not accepted: the backlog is full",
        Errno::EAFNOSUPPORT => "connection failed: address family not supported by this machine",
        errno => errno.desc(),
    }
}

pub(super) fn resource_words(errno: Errno) -> &'static str {
    match errno {
        Errno::EMFILE => "this process has no file descriptors left",
        Errno::ENFILE => "this machine has no file descriptors left",
        Errno::ENOBUFS => "this machine has no buffers left",
        Errno::ENOMEM => "this machine has no memory left",
        Errno::EADDRNOTAVAIL => "this machine has no free port or address",
        errno => errno.desc(),
    }
}

/// A measured time: `0.3 ms`, `12 ms`, `1.5 s`.
pub(super) struct Measured(pub Duration);

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.0.as_secs_f64() * 1e3;
        match ms {
            ..9.95 => write!(f, "{ms:.1} ms"),
            ..999.5 => write!(f, "{ms:.0} ms"),
            _ => write!(f, "{:.1} s", ms / 1e3),
        }
    }
}

pub(super) struct Bytes(pub u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}
