//! The connections of the admin socket and their limits: how many may be without a complete request, how many requests
//! wait for a response, and how much memory responses take while clients read them. Decides which connection to close
//! when a limit is reached, and when one times out; `server` acts on it. No clock: `now` is an argument.
//!
//! ```text
//! accepted ──request──▶ asking ──response──▶ reading ──read──▶ idle ──first byte──▶ accepted
//!    │ the oldest is closed, if none is idle   │ the slowest      │ the one idle longest is closed first
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Connections without a complete request (head and body), idle ones included; beyond that, one is closed.
pub const HEADS_MAX: usize = 64;
/// How long a new connection is never closed for another one, so that a head sent right after the handshake can arrive.
pub const HEAD_GRACE: Duration = Duration::from_millis(25);
/// How long the head of a request may take, from its first byte; for the first request, from accepting.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept without a request: longer than the interval of most scrapers.
pub const IDLE_MAX: Duration = Duration::from_secs(90);
/// How long one request may take, from its head to the last byte of its response: enough for a reload and a slow
/// reader.
pub const REQUEST_MAX: Duration = Duration::from_secs(120);
/// Complete requests that wait for a response; one more is refused.
pub const QUESTIONS_MAX: usize = 256;
/// Total bytes of responses that wait for their readers; a shared response counts once. A single response may be
/// larger.
pub const ANSWERS_BYTES_MAX: usize = 32 << 20;
/// Responses up to this size are always sent; there are at most as many as connections.
pub const SMALL_BYTES_MAX: usize = 64 << 10;
/// A reader can be closed as the slowest only after this time.
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// All open connections.
#[derive(Debug, Default)]
pub struct Connections {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    open: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    stage: Stage,
    end: Arc<Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// No complete head yet.
    Accepted { at: Instant },
    /// The head is complete; the body is being read.
    Asked { at: Instant },
    /// The request is complete and waits for its response.
    Asking { at: Instant },
    /// It reads its response.
    Reading { at: Instant, read: Read },
    /// The whole response has been handed over and is being written.
    Answered { at: Instant },
    /// The response is written; the next request may come.
    Idle { since: Instant },
}

/// How far a connection has read its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Read {
    /// Which response: its address, as responses are shared.
    answer: usize,
    /// The size of the response.
    bytes: usize,
    /// When it began to read.
    from: Instant,
    /// Bytes taken so far.
    taken: usize,
}

/// One connection; dropping this removes it.
#[derive(Debug)]
pub struct Open {
    id: u64,
    end: Arc<Notify>,
    all: Arc<Connections>,
}

impl Stage {
    /// When it times out.
    fn deadline(self) -> Instant {
        match self {
            Stage::Accepted { at } => at + HEAD_TIMEOUT,
            Stage::Asked { at } | Stage::Asking { at } | Stage::Reading { at, .. } | Stage::Answered { at } => {
                at + REQUEST_MAX
            }
            Stage::Idle { since } => since + IDLE_MAX,
        }
    }

    /// The order in which connections without a complete request are closed: idle ones first, then by age; `None`: not
    /// at all.
    fn waits(self) -> Option<(bool, Instant)> {
        match self {
            Stage::Idle { since } => Some((false, since)),
            Stage::Accepted { at } | Stage::Asked { at } => Some((true, at)),
            Stage::Asking { .. } | Stage::Reading { .. } | Stage::Answered { .. } => None,
        }
    }

    fn read(self) -> Option<Read> {
        match self {
            Stage::Reading { read, .. } => Some(read),
            Stage::Accepted { .. }
            | Stage::Asked { .. }
            | Stage::Asking { .. }
            | Stage::Answered { .. }
            | Stage::Idle { .. } => None,
        }
    }
}

impl Connections {
    /// Makes room to accept one more connection: if too many have no complete request, closes the one idle for longest,
    /// or else the oldest.
    ///
    /// # Errors
    /// All of them are younger than [`HEAD_GRACE`]; the instant to try again.
    pub fn make_room(&self, now: Instant) -> Result<(), Instant> {
        let mut inner = self.inner.lock();
        let waiting = inner.open.iter().filter_map(|(id, entry)| entry.stage.waits().map(|waits| (waits, *id)));
        let waiting: Vec<((bool, Instant), u64)> = waiting.collect();
        if waiting.len() < HEADS_MAX {
            return Ok(());
        }
        match waiting.into_iter().min() {
            Some(((true, at), _)) if now < at + HEAD_GRACE => return Err(at + HEAD_GRACE),
            Some((_, first)) => inner.close(first),
            None => {}
        }
        Ok(())
    }

    /// Adds a connection accepted at `now`.
    pub fn open(self: &Arc<Connections>, now: Instant) -> Open {
        let mut inner = self.inner.lock();
        inner.last += 1;
        let (id, end) = (inner.last, Arc::new(Notify::new()));
        inner.open.insert(id, Entry { stage: Stage::Accepted { at: now }, end: end.clone() });
        Open { id, end, all: self.clone() }
    }

    /// The number of open connections.
    pub fn len(&self) -> usize {
        self.inner.lock().open.len()
    }

    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the slowest of the readers that have read for at least a second; false if there is no such reader.
    pub fn close_slowest(&self, now: Instant) -> bool {
        self.inner.lock().close_slowest(now)
    }

    /// Total bytes of large responses that wait for their readers; each response counts once.
    #[cfg(test)]
    fn answer_bytes(&self) -> usize {
        self.inner.lock().answers().values().sum()
    }
}

impl Inner {
    fn close(&mut self, id: u64) {
        if let Some(entry) = self.open.remove(&id) {
            entry.end.notify_one();
        }
    }

    fn answers(&self) -> HashMap<usize, usize> {
        let read = self.open.values().filter_map(|entry| entry.stage.read());
        read.filter(|read| read.bytes > SMALL_BYTES_MAX).map(|read| (read.answer, read.bytes)).collect()
    }

    /// Whether one more connection may read this response.
    fn has_room(&self, answer: usize, bytes: usize) -> bool {
        let others = self.answers();
        let held: usize = others.values().sum();
        bytes <= SMALL_BYTES_MAX || held == 0 || others.contains_key(&answer) || held + bytes <= ANSWERS_BYTES_MAX
    }

    fn close_slowest(&mut self, now: Instant) -> bool {
        let readers = self.open.iter().filter_map(|(id, entry)| entry.stage.read().map(|read| (*id, read)));
        let rates = readers
            .filter(|(_, read)| now >= read.from + SLOW_AFTER)
            .map(|(id, read)| (id, read.taken as f64 / now.saturating_duration_since(read.from).as_secs_f64()));
        let slowest = rates.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id);
        slowest.inspect(|id| self.close(*id)).is_some()
    }
}

impl Open {
    /// Bytes arrived; the first ones after a response begin a head.
    pub fn on_bytes(&self, now: Instant) {
        self.change(|stage| match stage {
            Stage::Idle { .. } => Stage::Accepted { at: now },
            other => other,
        });
    }

    /// A head is complete.
    pub fn on_head(&self, now: Instant) {
        self.change(|stage| match stage {
            Stage::Accepted { at } => Stage::Asked { at },
            // Pipelined with the request before.
            Stage::Idle { .. } | Stage::Answered { .. } => Stage::Asked { at: now },
            other @ (Stage::Asked { .. } | Stage::Asking { .. } | Stage::Reading { .. }) => other,
        });
    }

    /// The request is complete. False if too many requests wait already.
    pub fn on_question(&self) -> bool {
        let mut inner = self.all.inner.lock();
        let asking = inner.open.values().filter(|entry| matches!(entry.stage, Stage::Asking { .. })).count();
        if let Some(entry) = inner.open.get_mut(&self.id)
            && let Stage::Accepted { at } | Stage::Asked { at } = entry.stage
        {
            entry.stage = Stage::Asking { at };
        }
        asking < QUESTIONS_MAX
    }

    /// It begins to read `answer`. False if there is no room for it even after slow readers were closed.
    pub fn reads(&self, answer: &Bytes, now: Instant) -> bool {
        let (key, bytes) = (answer.as_ptr() as usize, answer.len());
        let mut inner = self.all.inner.lock();
        while !inner.has_room(key, bytes) {
            if !inner.close_slowest(now) {
                return false;
            }
        }
        if let Some(entry) = inner.open.get_mut(&self.id) {
            let at = match entry.stage {
                Stage::Accepted { at } | Stage::Asked { at } | Stage::Asking { at } => at,
                Stage::Reading { at, .. } | Stage::Answered { at } => at,
                Stage::Idle { .. } => now,
            };
            entry.stage = Stage::Reading { at, read: Read { answer: key, bytes, from: now, taken: 0 } };
        }
        true
    }

    /// It has taken `more` bytes.
    pub fn on_taken(&self, more: usize) {
        self.change(|stage| match stage {
            Stage::Reading { at, read } => Stage::Reading { at, read: Read { taken: read.taken + more, ..read } },
            other => other,
        });
    }

    /// The whole response has been handed over for writing.
    pub fn on_answered(&self) {
        self.change(|stage| match stage {
            Stage::Asked { at } | Stage::Asking { at } | Stage::Reading { at, .. } => Stage::Answered { at },
            other @ (Stage::Accepted { .. } | Stage::Answered { .. } | Stage::Idle { .. }) => other,
        });
    }

    /// Everything handed over has been written.
    pub fn on_flushed(&self, now: Instant) {
        self.change(|stage| match stage {
            Stage::Answered { .. } => Stage::Idle { since: now },
            other => other,
        });
    }

    /// Whether a request is in progress, from its complete head until its response is written.
    pub fn is_asking(&self) -> bool {
        let inner = self.all.inner.lock();
        inner.open.get(&self.id).is_some_and(|entry| match entry.stage {
            Stage::Asked { .. } | Stage::Asking { .. } | Stage::Reading { .. } | Stage::Answered { .. } => true,
            Stage::Accepted { .. } | Stage::Idle { .. } => false,
        })
    }

    /// When it times out; `None`: it was closed already.
    pub fn deadline(&self) -> Option<Instant> {
        self.all.inner.lock().open.get(&self.id).map(|entry| entry.stage.deadline())
    }

    /// Returns when it must be closed. Cancel-safe.
    pub async fn ended(&self) {
        self.end.notified().await;
    }

    fn change(&self, to: impl FnOnce(Stage) -> Stage) {
        if let Some(entry) = self.all.inner.lock().open.get_mut(&self.id) {
            entry.stage = to(entry.stage);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.all.inner.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn is_ended(open: &Open) -> bool {
        futures_util::FutureExt::now_or_never(open.ended()).is_some()
    }

    fn answer(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_the_oldest_without_a_head_is_closed() {
        let (all, now) = (Arc::new(Connections::default()), Instant::now());
        let open: Vec<Open> = (0..HEADS_MAX as u64).map(|n| all.open(now + Duration::from_millis(n))).collect();
        open[0].on_head(now);
        open[0].on_question();
        let later = now + seconds(1);
        assert_eq!(all.make_room(later), Ok(()));
        let last = all.open(later);
        assert_eq!((all.len(), all.make_room(later)), (HEADS_MAX + 1, Ok(())));
        assert!(is_ended(&open[1]) && !is_ended(&open[0]) && !is_ended(&open[2]) && !is_ended(&last));
        assert_eq!(all.len(), HEADS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_has_time_for_its_head() {
        let (all, now) = (Arc::new(Connections::default()), Instant::now());
        let _open: Vec<Open> = (0..HEADS_MAX).map(|_| all.open(now)).collect();
        assert_eq!(all.make_room(now), Err(now + HEAD_GRACE));
        assert_eq!(all.make_room(now + HEAD_GRACE), Ok(()));
    }

    /// Sends one request and has its response at `now`.
    fn answered(open: &Open, now: Instant) {
        open.on_head(now);
        assert!(open.on_question() && open.reads(&answer(10), now));
        open.on_answered();
        open.on_flushed(now);
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_idle_for_longest_is_closed_first() {
        let (all, now) = (Arc::new(Connections::default()), Instant::now());
        let open: Vec<Open> = (0..HEADS_MAX).map(|_| all.open(now)).collect();
        answered(&open[5], now + seconds(2));
        answered(&open[9], now + seconds(1));
        let (later, mut others) = (now + seconds(3), Vec::new());
        for (gone, stays) in [(9, 5), (5, 0)] {
            assert_eq!(all.make_room(later), Ok(()));
            assert!(is_ended(&open[gone]) && !is_ended(&open[stays]), "{gone} before {stays}");
            others.push(all.open(later));
        }
        assert_eq!(all.make_room(later), Ok(()));
        assert!(is_ended(&open[0]), "then the oldest without a head");
    }

    #[tokio::test(start_paused = true)]
    async fn every_stage_has_its_timeout() {
        let (all, now) = (Arc::new(Connections::default()), Instant::now());
        let open = all.open(now);
        let at = |n| now + seconds(n);
        assert_eq!(open.deadline(), Some(now + HEAD_TIMEOUT));
        open.on_bytes(at(1));
        assert_eq!(open.deadline(), Some(now + HEAD_TIMEOUT), "the first head's time runs from accepting");
        open.on_head(at(2));
        assert!(open.is_asking());
        assert_eq!(open.deadline(), Some(now + REQUEST_MAX));
        assert!(open.on_question() && open.reads(&answer(10), at(3)));
        open.on_flushed(at(3));
        assert_eq!(open.deadline(), Some(now + REQUEST_MAX), "its answer is not over");
        open.on_answered();
        assert!(open.is_asking(), "it is not written yet");
        open.on_flushed(at(4));
        assert!(!open.is_asking());
        assert_eq!(open.deadline(), Some(at(4) + IDLE_MAX));
        open.on_flushed(at(5));
        assert_eq!(open.deadline(), Some(at(4) + IDLE_MAX));
        open.on_bytes(at(30));
        open.on_bytes(at(31));
        assert_eq!(open.deadline(), Some(at(30) + HEAD_TIMEOUT), "from the first byte of the next head");
        open.on_head(at(32));
        assert_eq!(open.deadline(), Some(at(30) + REQUEST_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn all_responses_together_are_bounded_and_a_shared_one_counts_once() {
        let (all, now) = (Arc::new(Connections::default()), Instant::now());
        let (shared, other, third) = (answer(20 << 20), answer(10 << 20), answer(10 << 20));
        let open: Vec<Open> = (0..8).map(|_| all.open(now)).collect();
        assert!(open[..4].iter().all(|open| open.reads(&shared.clone(), now)));
        assert!(open[4].reads(&other, now));
        assert_eq!(all.answer_bytes(), 30 << 20);
        assert!(!open[5].reads(&third, now), "no reader is slow yet");
        assert!(open[6].reads(&answer(SMALL_BYTES_MAX), now), "a small one is always sent");
        open[4].on_taken(1 << 20);
        open[..3].iter().for_each(|open| open.on_taken(5 << 20));
        let later = now + seconds(2);
        assert!(open[5].reads(&third, later));
        assert!(is_ended(&open[3]) && is_ended(&open[4]), "the slowest first, until there is room");
        assert!(!is_ended(&open[0]) && !is_ended(&open[5]));
        assert!(all.answer_bytes() <= ANSWERS_BYTES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_response_may_exceed_the_total() {
        let (all, now) = (Arc::new(Connections::default()), Instant::now());
        let (first, second) = (all.open(now), all.open(now));
        let huge = answer(ANSWERS_BYTES_MAX + 1);
        assert!(first.reads(&huge, now));
        assert!(second.reads(&huge, now), "it is the same");
        drop((first, second));
        assert_eq!((all.answer_bytes(), all.len()), (0, 0));
    }
}
