//! Texts for failed connections and for sizes.

use std::fmt::Write;

use nix::errno::Errno;

use super::answer::cutoff_words;
use super::{Circumstances, Cutoff};
use crate::model::units::Measured;

pub(super) fn connect_words(errno: Errno) -> &'static str {
    match errno {
        Errno::ECONNREFUSED => "connection refused",
        Errno::ECONNRESET => "connection reset while connecting",
        Errno::EHOSTUNREACH => "host unreachable",
        Errno::ENETUNREACH => "network unreachable",
        Errno::ETIMEDOUT => "no connection: the kernel's connect timed out",
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

/// The sentence for a TLS handshake that did not complete.
pub(super) fn write_no_handshake(out: &mut String, context: &Circumstances<'_>, cut: Cutoff) -> std::fmt::Result {
    match cut {
        Cutoff::Deadline => {
            write!(out, "no TLS handshake within {:?}", context.timeout)?;
            context
                .connected_in
                .map_or(Ok(()), |connected_in| write!(out, " (connected in {})", Measured(connected_in)))
        }
        Cutoff::Closed | Cutoff::Broke(_) => write!(out, "{} in the TLS handshake", cutoff_words(cut)),
    }
}

pub(super) struct Bytes(pub u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}
