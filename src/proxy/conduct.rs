//! What an upstream does with kept connections: whether bytes or an end have come on one that no request uses, and what that
//! says about its others.
//!
//! A kept connection is looked at in the kernel right before it is used, because the runtime may not have noticed yet that
//! the upstream has closed it, or has sent what nobody asked for, which would be taken for the response.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::time::Instant;

use crate::exchange::Reuse;
use crate::pool::instant::SharedInstant;

/// What is known of an upstream's kept connections, by all lanes.
#[derive(Debug)]
pub(super) struct Conduct {
    /// Connections of pingora that no request uses. All workers share it: two writes for each request of the general lane.
    pub(super) idle: AtomicUsize,
    /// It has been seen to send bytes after an answer that has no body. Whoever does that does it again, and often only
    /// when we have looked: none of its connections is kept after such an answer.
    loose: AtomicBool,
    /// Until when none of its connections is kept at all, because bytes that nobody asked for have come on one.
    unruly_until: SharedInstant,
    /// Until when what cannot be sent twice gets a connection of its own, because a kept one was closed before we would
    /// have. No look can find a close that is still on its way.
    closes_until: SharedInstant,
}

/// For how long an upstream is remembered for what it has done to a kept connection.
pub(super) const UNRULY: Duration = Duration::from_secs(60);

impl Default for Conduct {
    fn default() -> Conduct {
        let (idle, loose) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (unruly_until, closes_until) = (SharedInstant::never(), SharedInstant::never());
        Conduct { idle, loose, unruly_until, closes_until }
    }
}

impl Conduct {
    /// Bytes have come that nobody asked for.
    pub(super) fn on_unasked(&self, bodiless: bool, now: Instant) {
        match bodiless {
            true => self.loose.store(true, Ordering::Relaxed),
            false => self.unruly_until.set(Some(now + UNRULY)),
        }
    }

    /// A kept connection was closed by the upstream.
    pub(super) fn on_closed(&self, now: Instant) {
        self.closes_until.set(Some(now + UNRULY));
    }

    /// Whether an attempt may use a kept connection.
    pub(super) fn allows(&self, reuse: Reuse, now: Instant) -> bool {
        match reuse {
            Reuse::Any => true,
            Reuse::Safe => self.closes_until.get().is_none_or(|until| until <= now),
            Reuse::Never => false,
        }
    }

    /// Whether a connection on which nothing has come may not be used either.
    pub(super) fn is_suspect(&self, bodiless: bool, now: Instant) -> bool {
        let until = self.unruly_until.get();
        bodiless && self.loose.load(Ordering::Relaxed) || until.is_some_and(|until| now < until)
    }
}

/// What has come on a connection on which nothing should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    /// Bytes that nobody has asked for.
    Bytes,
    /// It is closed or broken, perhaps after a last word: servers that close an idle connection may say 408 before.
    End,
}

/// Looks, and takes nothing from a connection on which nothing has come. Of what has come, it takes what it must to tell
/// whether the end follows: such a connection is not used again.
pub(super) fn listen(fd: RawFd) -> Heard {
    match recv(fd, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
        Err(Errno::EAGAIN) => return Heard::Nothing,
        Ok(n) if n > 0 => {}
        Ok(_) | Err(_) => return Heard::End,
    }
    let mut taken = [0; 4 * 1024];
    for _ in 0..LAST_WORD_READS {
        match recv(fd, &mut taken, MsgFlags::MSG_DONTWAIT) {
            Ok(n) if n > 0 => {}
            Err(Errno::EAGAIN) => return Heard::Bytes,
            Ok(_) | Err(_) => return Heard::End,
        }
    }
    Heard::Bytes
}

/// How many reads of 4 KiB a last word may take.
const LAST_WORD_READS: usize = 4;
