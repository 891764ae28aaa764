//! The words between an exchange and its lane: where a request came in, what the lane does next, what may have happened.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::OwnAnswer;
use super::edits::ResponseEdits;
pub use super::edits::Scheme;
use super::journal::{Carried, Noted, Try};
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

/// How a request ended, for the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndWord {
    /// The client has the whole answer.
    Ok,
    /// The client left first.
    ClientLeft,
    /// An upstream broke the connection, or its answer was malformed.
    UpstreamReset,
    /// Something took too long.
    Timeout,
    /// No upstream could take it.
    NoUpstream,
    /// It broke a rule, or a limit.
    Refused,
}

impl EndWord {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            EndWord::Ok => "ok",
            EndWord::ClientLeft => "client_left",
            EndWord::UpstreamReset => "upstream_reset",
            EndWord::Timeout => "timeout",
            EndWord::NoUpstream => "no_upstream",
            EndWord::Refused => "refused",
        }
    }

    /// That of an answer of ours for this reason.
    pub(super) fn of_reason(reason: AnswerReason) -> EndWord {
        match reason {
            AnswerReason::Malformed
            | AnswerReason::NoRoute
            | AnswerReason::Method
            | AnswerReason::BodyTooLarge
            | AnswerReason::TargetTooLong
            | AnswerReason::Expectation
            | AnswerReason::RateLimited
            | AnswerReason::HeadTooLarge
            | AnswerReason::NotImplemented
            | AnswerReason::Version => EndWord::Refused,
            AnswerReason::ConnectFailed
            | AnswerReason::NoneEligible
            | AnswerReason::QueueFull
            | AnswerReason::QueueTimeout
            | AnswerReason::Resources => EndWord::NoUpstream,
            AnswerReason::UpstreamBroke | AnswerReason::BadResponse => EndWord::UpstreamReset,
            AnswerReason::HeaderTimeout
            | AnswerReason::BodyTimeout
            | AnswerReason::ConnectTimeout
            | AnswerReason::UpstreamTimeout
            | AnswerReason::RequestTimeout => EndWord::Timeout,
        }
    }
}

/// What an exchange asks of the process, and reports to it.
pub trait Desk: std::fmt::Debug + Send + Sync {
    /// What `/readyz` answers now.
    fn ready(&self) -> ReadyAnswer;

    /// A request has ended. Must not block.
    fn record(&self, record: &Record<'_>);
}

/// A desk where nothing is kept, of a process that is always ready.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDesk;

impl Desk for NoDesk {
    fn ready(&self) -> ReadyAnswer {
        ReadyAnswer { ready: true, body: String::new() }
    }

    fn record(&self, _record: &Record<'_>) {}
}

/// What `/readyz` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyAnswer {
    /// The process is ready: 200, else 503.
    pub ready: bool,
    /// A JSON object that says so.
    pub body: String,
}

/// How a request ended, for those that count or log it.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// Where it came in, unless that is gone.
    pub listener: Option<&'a Name>,
    /// The client, as it is believed.
    pub client: Option<IpAddr>,
    /// Its number; empty if it has none.
    pub id: &'a [u8],
    /// Its head, if the access log may want it.
    pub noted: Option<Noted<'a>>,
    /// Its attempts, if the access log may want them.
    pub tries: &'a [Try],
    /// When it began.
    pub began: Instant,
    /// How long it waited for a place on an upstream; `None`: not at all.
    pub queued: Option<Duration>,
    /// Bytes of bodies.
    pub carried: Carried,
    /// How it ended.
    pub end: EndWord,
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
    /// From the request head to the end; `None` if it was dropped in the middle.
    pub took: Option<Duration>,
}
