//! What the front and the general lane share about one connection: the request that is handed over, where connection and
//! exchange come back to when pingora is done or is cancelled, and since when an upstream owes us a response head.
//!
//! Locks here are taken when a request changes hands, by one task that never waits for another: they are never
//! contended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use super::listen::Stop;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::Client;
use super::stall::Stall;
use crate::exchange::{Attempt, End, Exchange, OwnAnswer, Request, Turn, UpstreamClock};
use crate::pool::CutOff;

/// What front and lane share about one connection.
#[derive(Debug)]
pub struct Handover {
    client: Mutex<Option<Box<Client>>>,
    handed: Mutex<Option<Box<HandedRequest>>>,
    may_answer: AtomicBool,
    answer_ended: AtomicBool,
    /// A 100 is on its way to the client.
    continued: AtomicBool,
    /// While an upstream owes a head: its clock, and whose turn it is.
    clock: Mutex<Option<(UpstreamClock, Turn)>>,
    /// When the request must have ended.
    deadline: Mutex<Option<Instant>>,
    /// When its upstream is lost and it must end, in pools where that may be.
    cut: Mutex<Option<CutOff>>,
    /// Whether the lane waits for a client that takes nothing.
    pub stall: Arc<Stall>,
    /// True when the connection takes no further request.
    pub(super) stop: Stop,
}

/// A request in the lane.
#[derive(Debug)]
pub struct HandedRequest {
    /// Decides.
    pub exchange: Box<Exchange>,
    /// Its first attempt.
    pub attempt: Option<Attempt>,
    /// What outlives its head.
    pub request: Request,
    /// Whether only the end of the connection will end the answer.
    pub until_close: bool,
    /// What it came to; `None`: pingora gave up before it began.
    pub outcome: Option<Outcome>,
    /// Bytes of the answer's body that have been passed on.
    pub sent: u64,
}

/// What a request in the lane came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was passed on to its end.
    Delivered,
    /// Answer this; nothing but interim answers has been passed on.
    Answer(OwnAnswer),
    /// The answer broke off: so must the client's connection.
    Aborted,
    /// The client has gone.
    ClientLeft,
}

impl Handover {
    /// An empty handover.
    pub(super) fn new(stop: Stop) -> Handover {
        Handover {
            client: Mutex::new(None),
            handed: Mutex::new(None),
            may_answer: AtomicBool::new(false),
            answer_ended: AtomicBool::new(false),
            continued: AtomicBool::new(false),
            clock: Mutex::new(None),
            deadline: Mutex::new(None),
            cut: Mutex::new(None),
            stall: Arc::default(),
            stop,
        }
    }

    /// Hands a request over.
    pub fn put_request(&self, handed: Box<HandedRequest>) {
        self.may_answer.store(false, Ordering::Relaxed);
        self.answer_ended.store(false, Ordering::Relaxed);
        self.continued.store(false, Ordering::Relaxed);
        self.settled();
        *self.deadline.lock() = None;
        *self.cut.lock() = None;
        self.stall.end();
        *self.handed.lock() = Some(handed);
    }

    /// Takes the request: the lane to work on it, the front to end it.
    pub fn take_request(&self) -> Option<Box<HandedRequest>> {
        self.handed.lock().take()
    }

    /// The lane is done with the request.
    pub fn return_request(&self, handed: Box<HandedRequest>) {
        *self.handed.lock() = Some(handed);
    }

    /// Pingora is done with the connection.
    pub fn return_client(&self, client: Box<Client>) {
        *self.client.lock() = Some(client);
    }

    /// Takes the connection back.
    pub fn take_client(&self) -> Option<Box<Client>> {
        self.client.lock().take()
    }

    /// The exchange has let an answer through.
    pub fn let_answer(&self) {
        self.may_answer.store(true, Ordering::Relaxed);
    }

    /// Whether pingora may write to the client.
    pub fn may_answer(&self) -> bool {
        self.may_answer.load(Ordering::Relaxed)
    }

    /// The last of the answer is on its way to the client.
    pub fn end_answer(&self) {
        self.answer_ended.store(true, Ordering::Relaxed);
    }

    /// Whether the whole answer has gone to the client.
    pub fn answer_ended(&self) -> bool {
        self.answer_ended.load(Ordering::Relaxed)
    }

    /// A request goes upstream, which owes a head from now on.
    pub fn owes(&self, clock: UpstreamClock, turn: Turn) {
        *self.deadline.lock() = clock.deadline();
        *self.clock.lock() = Some((clock, turn));
    }

    /// Another attempt begins: what was owed by the last one is not any more.
    pub fn begin_attempt(&self) {
        self.settled();
        *self.cut.lock() = None;
    }

    /// The request may have to end because its upstream is lost.
    pub fn may_be_cut(&self, cut: CutOff) {
        *self.cut.lock() = Some(cut);
    }

    /// Completes when the request must end because its upstream is lost.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.cut.lock() {
            Some(cut) => cut.poll(cx),
            None => Poll::Pending,
        }
    }

    /// A part of the request goes upstream, if a head is owed: the last part, or its client has its turn.
    pub fn on_progress(&self, last: bool, now: Instant) {
        if let Some((clock, turn)) = &mut *self.clock.lock() {
            clock.on_progress(now);
            *turn = Turn::before_head(false, last, false);
        }
    }

    /// The client is told to send its body.
    pub fn on_continue(&self) {
        self.continued.store(true, Ordering::Relaxed);
        if let Some((_, turn)) = &mut *self.clock.lock() {
            *turn = Turn::Client;
        }
    }

    /// Whether the client has been told so since this was asked last.
    pub fn take_continued(&self) -> bool {
        self.continued.load(Ordering::Relaxed) && self.continued.swap(false, Ordering::Relaxed)
    }

    /// The head has come, or the attempt has ended.
    pub fn settled(&self) {
        *self.clock.lock() = None;
    }

    /// Whether the upstream, or the whole request, has taken too long.
    pub fn is_overdue(&self, now: Instant) -> bool {
        let is_late = self.deadline.lock().is_some_and(|deadline| deadline <= now);
        is_late || self.clock.lock().as_mut().is_some_and(|(clock, turn)| clock.overdue(*turn, now))
    }
}

impl From<End> for Outcome {
    fn from(end: End) -> Outcome {
        match end {
            End::Delivered => Outcome::Delivered,
            End::ClientLeft => Outcome::ClientLeft,
            End::Aborted => Outcome::Aborted,
        }
    }
}
