//! What the front and the general lane share about one connection: the request that is handed over, where connection and
//! exchange come back to when pingora is done or is cancelled, and since when an upstream owes us a response head.
//!
//! Locks here are taken when a request changes hands, by one task that never waits for another: they are never
//! contended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::listen::Stop;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::Client;
use super::stall::Stall;
use crate::exchange::{Attempt, Exchange, OwnAnswer};
use crate::http1::Version;

/// One connection's desk.
#[derive(Debug)]
pub struct Desk {
    client: Mutex<Option<Box<Client>>>,
    work: Mutex<Option<Box<Work>>>,
    may_answer: AtomicBool,
    answer_ended: AtomicBool,
    origin: Instant,
    /// Until when an upstream must have sent its head, in milliseconds after `origin` plus one; 0: none owes one.
    due_ms: AtomicU64,
    /// Whether the lane waits for a client that takes nothing.
    pub stall: Arc<Stall>,
    /// True when the connection takes no further request.
    pub(super) stop: Stop,
}

/// A request in the lane.
#[derive(Debug)]
pub struct Work {
    /// Decides.
    pub exchange: Box<Exchange>,
    /// Its first attempt.
    pub attempt: Option<Attempt>,
    /// The client's version.
    pub version: Version,
    /// Whether the client wants the connection to go on.
    pub keep_alive: bool,
    /// Whether only the end of the connection will end the answer.
    pub until_close: bool,
    /// What it came to; `None`: pingora gave up before it began.
    pub outcome: Option<Outcome>,
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

impl Desk {
    /// An empty desk.
    pub(super) fn new(now: Instant, stop: Stop) -> Desk {
        Desk {
            client: Mutex::new(None),
            work: Mutex::new(None),
            may_answer: AtomicBool::new(false),
            answer_ended: AtomicBool::new(false),
            origin: now,
            due_ms: AtomicU64::new(0),
            stall: Arc::default(),
            stop,
        }
    }

    /// Hands a request over.
    pub fn put_work(&self, work: Box<Work>) {
        self.may_answer.store(false, Ordering::Relaxed);
        self.answer_ended.store(false, Ordering::Relaxed);
        self.due_ms.store(0, Ordering::Relaxed);
        self.stall.end();
        *self.work.lock() = Some(work);
    }

    /// Takes the request: the lane to work on it, the front to end it.
    pub fn take_work(&self) -> Option<Box<Work>> {
        self.work.lock().take()
    }

    /// The lane is done with the request.
    pub fn return_work(&self, work: Box<Work>) {
        *self.work.lock() = Some(work);
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

    /// A part of the request went upstream, which has until then for its whole response head.
    pub fn asked(&self, due: Instant) {
        let ms = due.saturating_duration_since(self.origin).as_millis();
        self.due_ms.store(u64::try_from(ms).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    /// Whether an upstream owes us a head.
    pub fn is_owed(&self) -> bool {
        self.due_ms.load(Ordering::Relaxed) != 0
    }

    /// The head has come, or the attempt has ended.
    pub fn settled(&self) {
        self.due_ms.store(0, Ordering::Relaxed);
    }

    /// Until when the head must be there; `None`: nobody owes one.
    pub fn head_due(&self) -> Option<Instant> {
        match self.due_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(self.origin + Duration::from_millis(ms - 1)),
        }
    }
}
