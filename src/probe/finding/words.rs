//! The words for connections that failed, and for measured times and sizes.

use std::fmt::Write;

use nix::errno::Errno;

use super::answer::cut_words;
use super::{Circumstances, Cut};
use crate::model::units::Measured;

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

/// Of a TLS handshake that was cut off.
pub(super) fn write_no_handshake(out: &mut String, c: &Circumstances<'_>, cut: Cut) -> std::fmt::Result {
    match cut {
        Cut::Deadline => {
            write!(out, "no TLS handshake within {:?}", c.timeout)?;
            c.connected_in.map_or(Ok(()), |connected_in| write!(out, " (connected in {})", Measured(connected_in)))
        }
        Cut::Closed | Cut::Broke(_) => write!(out, "{} in the TLS handshake", cut_words(cut)),
    }
}

pub(super) struct Bytes(pub u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}
