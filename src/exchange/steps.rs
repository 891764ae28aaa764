//! The words between an exchange and its lane: where a request came in, what the lane does next, what may have happened.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::OwnAnswer;
use super::edits::ResponseEdits;
pub use super::edits::Scheme;
use crate::http1::{Fault, ResponseFraming};
use crate::model::policy::{Failure, UpstreamConnections, UpstreamTimeouts};
use crate::model::{Address, Name};
use crate::pool::{AnswerReason, ListenerId, RequestClass, Settled, Waiting};

/// Where the requests of one client come in.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The listener.
    pub listener: ListenerId,
    /// The client's address; `None` on a unix socket.
    pub client: Option<IpAddr>,
    /// The scheme.
    pub scheme: Scheme,
}

/// What a lane does next.
#[derive(Debug)]
pub enum Next {
    /// Connect, then [`super::Exchange::on_connected`] or [`super::Exchange::on_connect_failed`].
    Attempt(Attempt),
    /// [`Waiting::wait`], then [`super::Exchange::on_wake`].
    Wait(Waiting),
    /// The request's pool is gone from the newest configuration: [`super::Exchange::on_reroute`] with its head.
    Reroute,
    /// Pass the response head on, edited. After an interim one (status under 200 but 101) another head follows.
    Forward(ResponseEdits, ResponseFraming),
    /// Answer this, then [`super::Exchange::on_end`].
    Answer(OwnAnswer),
    /// The client has left: do nothing more for it, then [`super::Exchange::on_end`].
    Leave,
    /// Break the client connection off, so that it cannot take the answer for whole; then [`super::Exchange::on_end`].
    Abort,
}

/// One try on one upstream: [`super::Exchange::upstream`], whose lease the exchange holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The epoch of its connections under which it was picked: under a later one nothing may be sent.
    pub epoch: u64,
    /// Which connections to the upstream it may use.
    pub reuse: Reuse,
    /// How long the upstream may take.
    pub timeouts: UpstreamTimeouts,
    /// When the whole request must have ended.
    pub deadline: Option<Instant>,
    /// Which connections are kept.
    pub connections: UpstreamConnections,
    /// The request may have to end because its upstream is lost: [`crate::pool::Connections::cut_reached`].
    pub may_be_cut: bool,
    /// The most bytes of the request body that are kept so that it can be sent again.
    pub replay_bytes: usize,
}

/// Whether an attempt may use a connection that has served another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Yes.
    Any,
    /// Not if this upstream closes those on its own account: the request could not be sent a second time.
    Safe,
    /// No.
    Never,
}

/// Why no connection could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// Refused, unreachable, reset.
    Refused,
    /// Not within [`UpstreamTimeouts::connect`].
    TimedOut,
    /// We lack descriptors, ports or memory.
    Resources,
    /// Given up, because meanwhile the upstream may not be picked any more: see [`super::Exchange::is_outdated`].
    Outdated,
}

/// The connection that is there for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lent {
    /// Made for it.
    Fresh,
    /// Made for it, and meanwhile its client has left.
    TooLate,
    /// It has served a request before, and nothing has come on it since.
    Kept,
    /// It has served a request before, and cannot be used: closed by either side, or bytes have come that nobody asked for.
    Dirty,
}

/// How an attempt broke after the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The upstream closed or reset the connection.
    Closed,
    /// [`UpstreamTimeouts::first_byte`], [`UpstreamTimeouts::idle`] or [`UpstreamTimeouts::request`] ran out.
    TimedOut,
    /// Its answer is malformed or too large.
    BadResponse(Fault),
    /// We lack descriptors or memory.
    Resources,
    /// The upstream is lost, and what is in flight there must end.
    Cut,
}

impl Broken {
    /// How it ends the upstream's lease before a response head has come. A malformed head counts as a reset.
    pub(super) fn settled(self) -> Settled {
        match self {
            Broken::Closed | Broken::BadResponse(_) => Settled::Failed(Failure::Reset),
            Broken::TimedOut => Settled::Failed(Failure::Timeout),
            Broken::Resources | Broken::Cut => Settled::NotTheUpstream,
        }
    }

    /// The same after the head: whatever breaks then says nothing about the upstream's health.
    pub(super) fn settled_late(self) -> Settled {
        match self {
            Broken::Closed | Broken::TimedOut | Broken::BadResponse(_) => Settled::BrokeOff,
            Broken::Resources | Broken::Cut => Settled::NotTheUpstream,
        }
    }
}

/// Whether the request body can be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// It has none, or every byte read so far is still in the replay buffer.
    Whole,
    /// Bytes of it are gone.
    Gone,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The whole answer was sent, or the tunnel closed.
    Delivered,
    /// The client left first.
    ClientLeft,
    /// The answer broke off, after [`Next::Abort`].
    Aborted,
}

/// What the access log wants to know.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The pool that took it.
    pub pool: Option<&'a Name>,
    /// The last upstream tried.
    pub upstream: Option<&'a Address>,
    /// The status the client saw; `None`: none.
    pub status: Option<u16>,
    /// Why we answered ourselves.
    pub reason: Option<AnswerReason>,
    /// What became of it.
    pub class: RequestClass,
    /// Upstreams tried, the first included.
    pub attempts: u32,
    /// From the request head to the end.
    pub took: Duration,
}
