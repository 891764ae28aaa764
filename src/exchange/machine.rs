//! The exchange itself: events in, one next step out. Decides where a request goes, whether it waits, whether it is tried
//! again, what an end means for client, upstream and counters.
//!
//! ```text
//!           begin ──► Wait ──on_wake──┐
//!             │ ▲───────────────────────┘
//!             ▼
//!          Attempt ──on_connected──► sent ──on_response──► Forward ──on_end──► Record
//!             ▲  │        │            │                        │
//!             │  └on_connect_failed    └on_broken               └on_broken ──► Abort
//!             └──────────┴┴────────────────┴──────────► Answer ──on_end──► Record
//! ```
//!
//! Every pick goes through the newest snapshot, so that a retry after a reload never reaches what the reload removed. Where
//! the pool itself is gone from it, the lane is asked for the head ([`Next::Reroute`]), and the newest configuration says
//! where the request belongs. What was lost between the pick and the first byte is picked anew.
//!
//! The lease is settled here, and counters are kept here, also when an exchange is dropped in the middle.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::answer::{Added, OwnAnswer, OwnKind, Refusal};
use super::edits::RequestEdits;
use super::journal::{Carried, Journal, Outcome};
use super::judge::{Facts, Framing, Method, judge};
use super::key::{hash_of, session_of, set_session, with_key};
use super::limits::{INTERIM_ANSWERS, UNUSED_MAX};
use super::response::{Asked, check_fields, judge_response};
use super::rules::TooLong;
use super::seek::{Ask, Found, PoolKey, find, keys_of, of_address, route, route_anew, still_eligible};
use super::steps::{
    Attempt, Broken, ConnectError, Desk, End, EndWord, Entry, Lent, Next, ReadyAnswer, Record, Replay, Reuse,
};
use super::upgrade::Protocol;
use crate::http1::response::check_size;
use crate::http1::{Fault, Field, Head, Version};
use crate::model::Name;
use crate::model::policy::{Failure, FixedAnswer, HashKey, Marks, TrafficPolicy};
use crate::pool::{
    AnswerReason, Awaits, Candidate, FrontStats, Lease, Limit, ListenerEntry, ListenerId, Pick, Pool, PoolId,
    Published, RequestClass, Route, Settled, Snapshot, Tried, Upstream, WAITING_MAX, Waiting, session_number,
};

/// One request from its head to its end; then the next one of the same client. What a request has in common with the one
/// before (its pool, its upstream) is kept between them: a reference count is a write that all workers share.
#[derive(Debug)]
pub struct Exchange {
    published: Published,
    stats: Arc<FrontStats>,
    rng: fastrand::Rng,
    /// Where its requests come in.
    listener: ListenerId,
    /// The name of that, where a log may want it.
    entry_name: Option<Name>,
    /// The client's address, as it is believed.
    client: Option<IpAddr>,
    asked: Asked,
    edits: RequestEdits,
    /// The route that it follows.
    route: Option<Arc<Route>>,
    /// Where picking begins.
    routed: Option<PoolId>,
    /// The serial of that pool: under its name there may be another one by now.
    serial: u64,
    /// The serial of the pool in whose budget for retries it counts as a request.
    budgeted: u64,
    /// What it is hashed by, in pools that hash.
    keys: SmallVec<[PoolKey; 1]>,
    /// Which pool it is counted for: the routed one, or the one that stands in for it.
    pool: Option<Arc<Pool>>,
    /// The hold on the upstream of the attempt, or on the last one.
    lease: Option<Lease>,
    /// Upstreams of this and earlier requests.
    known: KnownUpstreams,
    /// Under which epoch of its connections the upstream of the attempt was picked, and whether its verdict held then.
    picked: Picked,
    tried: SmallVec<[Tried; 2]>,
    /// Those that have failed it: a pool that takes the place of theirs knows them by their addresses only.
    failed: SmallVec<[Arc<Upstream>; 1]>,
    /// Its place among those that wait, between waking and the next step.
    waiting: Option<Waiting>,
    wait_until: Option<Instant>,
    /// When it stops waiting for a place, if it has begun to.
    queue_until: Option<Instant>,
    /// Since when it waits for a place now.
    queued_since: Option<Instant>,
    /// When it must have ended.
    deadline: Option<Instant>,
    phase: Phase,
    attempts: u32,
    /// Picks that came to nothing before a byte was sent.
    unused: u32,
    /// Those of them that met a kept connection which could not be used.
    dirty: u32,
    /// It has failed, and is tried again once it is routed anew or a newer view has come: the answer if no upstream is left.
    retry: Option<AnswerReason>,
    /// What it was tried again for last.
    cause: Option<Failure>,
    /// When it failed last, a kept connection was closed under it: the same upstream may be tried again, and no other kept
    /// connection is used.
    stale: bool,
    interim: u32,
    began: Instant,
    status: Option<u16>,
    reason: Option<AnswerReason>,
    listener_gone: bool,
    /// The most bytes that a request body may have, as of the last request.
    body_bytes: Option<u64>,
    recorded: bool,
    /// For the access log.
    journal: Journal,
    /// Its line is still to be written.
    unlogged: bool,
    /// What broke its answer off.
    broke: Option<EndWord>,
    desk: Arc<dyn Desk>,
    #[cfg(test)]
    ended: Option<(EndWord, RequestClass, Duration)>,
}

/// What was known when an upstream was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Picked {
    epoch: u64,
    verdict_held: bool,
}

/// What a failed request is tried again for.
#[derive(Debug, Clone, Copy)]
struct Retry {
    cause: Failure,
    /// The answer if no upstream is left.
    otherwise: AnswerReason,
}

/// How far the current attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No upstream is held.
    Seeking,
    /// Connecting to the upstream held.
    Connecting,
    /// The request is on its way, since then. Nothing of an answer has come.
    Sent { reused: bool, since: Instant },
    /// An interim answer has come, but not the final head.
    Interim { since: Instant },
    /// A final head, or an answer of our own, has gone to the client.
    Answered,
}

/// A few upstreams that a client's requests have used, so that each of them is counted as referred to once, and not for each
/// request.
#[derive(Debug, Default)]
struct KnownUpstreams(SmallVec<[Arc<Upstream>; KNOWN_MAX]>);

/// How often an upstream is picked anew whose last place another worker took in the same moment.
const HOLD_TRIES: usize = 4;

/// With more upstreams than this in a pool, an attempt counts a reference to its upstream up, and down later: in the cache
/// line of the upstream that its load is in.
const KNOWN_MAX: usize = 4;

impl KnownUpstreams {
    /// Takes this upstream out, or makes a new reference to it.
    fn take(&mut self, upstream: &Arc<Upstream>) -> Arc<Upstream> {
        let at = self.0.iter().position(|known| Arc::ptr_eq(known, upstream));
        at.map_or_else(|| upstream.clone(), |at| self.0.swap_remove(at))
    }

    fn put(&mut self, upstream: Arc<Upstream>) {
        if self.0.len() == KNOWN_MAX {
            self.0.remove(0);
        }
        self.0.push(upstream);
    }
}

impl Exchange {
    /// For the requests of one client. `stats` counts what belongs to no pool.
    pub fn new(
        published: Published,
        stats: Arc<FrontStats>,
        desk: Arc<dyn Desk>,
        entry: Entry,
        now: Instant,
        rng: fastrand::Rng,
    ) -> Exchange {
        let Entry { listener, client, scheme } = entry;
        Exchange {
            published,
            stats,
            rng,
            listener,
            entry_name: None,
            client,
            asked: Asked { method: Method::Other, version: Version::Http11, upgrade: None },
            edits: RequestEdits::of_client(client, scheme),
            route: None,
            routed: None,
            serial: 0,
            keys: SmallVec::new(),
            pool: None,
            lease: None,
            known: KnownUpstreams::default(),
            picked: Picked { epoch: 0, verdict_held: false },
            tried: SmallVec::new(),
            failed: SmallVec::new(),
            waiting: None,
            wait_until: None,
            queue_until: None,
            queued_since: None,
            deadline: None,
            phase: Phase::Seeking,
            attempts: 0,
            unused: 0,
            dirty: 0,
            retry: None,
            cause: None,
            stale: false,
            interim: 0,
            budgeted: 0,
            began: now,
            status: None,
            reason: None,
            listener_gone: false,
            body_bytes: None,
            recorded: true,
            journal: Journal::default(),
            unlogged: false,
            broke: None,
            desk,
            #[cfg(test)]
            ended: None,
        }
    }

    /// Decides the first step of a judged request. The one before has ended.
    pub fn begin(&mut self, head: &Head<'_>, facts: &Facts<'_>, now: Instant) -> Next {
        self.forget(now);
        self.asked = Asked { method: facts.method, version: facts.version, upgrade: facts.upgrade.map(Protocol::new) };
        self.edits.begin(head, facts);
        self.recorded = false;
        let snapshot = self.published.load();
        let routing = snapshot.routing(self.listener);
        let listener = routing.listener(self.listener);
        self.client = match listener {
            Some(ListenerEntry { marks, .. }) => self.edits.introduce(head, &snapshot.forwarded, marks, &mut self.rng),
            None => self.edits.introduce(head, &snapshot.forwarded, &Marks::default(), &mut self.rng),
        };
        self.journal.begin(snapshot.access_log.as_ref(), head, facts);
        self.journal.trace(self.edits.trace());
        self.unlogged = self.journal.is_on();
        self.name_entry(listener);
        if let Some(next) = listener.and_then(|entry| self.answer_ready(entry, facts)) {
            return next;
        }
        let mut routed = route(routing, self.listener, (head, facts), now, &mut self.rng);
        let is_there = |id| routing.pool(id).is_some_and(|pool| snapshot.has(id, pool.shared.serial));
        if routed.pool.is_some_and(|id| !is_there(id)) {
            // Routed as before a reload that removed its listener; but that removed the pool as well.
            let anew = route_anew(&snapshot, self.listener, (head, facts), now, &mut self.rng);
            routed = if anew.is_nowhere() { routed } else { anew };
        }
        self.routed = routed.pool;
        let made = self.follow(routed.route, facts);
        let pool = self.routed.and_then(|id| snapshot.pool(id));
        self.serial = pool.map_or(0, |pool| pool.shared.serial);
        self.deadline = self.deadline_in(pool);
        self.count_for(pool);
        self.budgeted = self.serial;
        if let Some(pool) = pool {
            pool.shared.on_request(now);
        }
        self.check_upgrade();
        self.listener_gone = snapshot.listener(self.listener).is_none();
        // The limit of a listener that is gone still holds.
        self.body_bytes = listener.map_or(self.body_bytes, |entry| entry.client.limits.body_bytes);
        self.take_keys(&snapshot, head, facts);
        if made == Err(TooLong) {
            return self.answer(OwnAnswer::new(AnswerReason::TargetTooLong));
        }
        let limits =
            [listener.and_then(|entry| entry.limit.as_ref()), routed.route.and_then(|route| route.limit.as_ref())];
        if let Err(seconds) = self.count_in(limits, head, facts, now) {
            return self.answer(OwnAnswer::retry_after(AnswerReason::RateLimited, seconds));
        }
        self.first_step(&snapshot, facts, now)
    }

    /// What `/readyz` answers, if this request asks for it.
    fn answer_ready(&mut self, entry: &ListenerEntry, facts: &Facts<'_>) -> Option<Next> {
        let path = entry.ready_path.as_ref()?;
        if **path != *facts.path || !matches!(facts.method, Method::Get | Method::Head) {
            return None;
        }
        self.journal.turn_off();
        self.unlogged = false;
        (self.route, self.routed) = (None, None);
        let ReadyAnswer { ready, body } = self.desk.ready();
        let again: &[u8] = if ready { b"" } else { b"Retry-After: 1\r\n" };
        self.edits.answer_with(&[b"Content-Type: application/json\r\n", again].concat(), body.as_bytes());
        Some(self.answer_without_pool(OwnAnswer::of_route(if ready { 200 } else { 503 })))
    }

    /// Keeps this route, and what its rules make of the request.
    fn follow(&mut self, route: Option<&Arc<Route>>, facts: &Facts<'_>) -> Result<(), TooLong> {
        match (&self.route, route) {
            (Some(same), Some(route)) if Arc::ptr_eq(same, route) => {}
            (None, None) => {}
            (_, route) => self.route = route.cloned(),
        }
        let rules = self.route.as_ref().and_then(|route| route.rules.as_deref());
        self.edits.follow(rules, facts, &mut self.rng)
    }

    /// When the request must have ended in this pool.
    fn deadline_in(&self, pool: Option<&Arc<Pool>>) -> Option<Instant> {
        let of_pool = || pool.and_then(|pool| pool.traffic.timeouts.request);
        let of_route = self.route.as_ref().and_then(|route| route.rules.as_ref()?.timeout);
        Some(self.began + of_route.unwrap_or_else(of_pool)?)
    }

    /// Counts the request in these limits; or the seconds until there is room for one.
    fn count_in(
        &self,
        limits: [Option<&Limit>; 2],
        head: &Head<'_>,
        facts: &Facts<'_>,
        now: Instant,
    ) -> Result<(), u64> {
        if let [None, None] = limits {
            return Ok(());
        }
        limits.into_iter().flatten().try_for_each(|limit| {
            let counted = with_key(&limit.policy.key, head, facts, self.client, |key| limit.take(key, now));
            counted.unwrap_or(Ok(()))
        })
    }

    /// Bytes that are no request are refused; they belong to no pool. Then [`Exchange::on_end`], with the answer sent.
    pub fn on_refused(&mut self, refusal: Refusal, now: Instant) -> OwnAnswer {
        self.forget(now);
        self.count_for(None);
        let snapshot = self.published.load();
        let listener = snapshot.routing(self.listener).listener(self.listener);
        self.client = self.edits.unmark();
        self.journal.begin_unread(snapshot.access_log.as_ref());
        self.unlogged = self.journal.is_on();
        self.name_entry(listener);
        let answer = refusal.answer();
        (self.phase, self.status, self.reason) = (Phase::Answered, Some(answer.status()), Some(refusal.reason));
        self.stats.answers.inc(refusal.reason);
        answer
    }

    /// Keeps the name of its listener, where the log wants it.
    fn name_entry(&mut self, listener: Option<&ListenerEntry>) {
        if self.unlogged && self.entry_name.as_ref() != listener.map(|entry| &entry.name) {
            self.entry_name = listener.map(|entry| entry.name.clone());
        }
    }

    /// Forgets what belongs to the last request alone.
    fn forget(&mut self, now: Instant) {
        debug_assert!(self.recorded && self.upstream().is_none(), "the last request has ended");
        self.tried.clear();
        self.failed.clear();
        (self.waiting, self.wait_until, self.queue_until, self.queued_since) = (None, None, None, None);
        (self.retry, self.cause, self.stale) = (None, None, false);
        self.phase = Phase::Seeking;
        (self.attempts, self.unused, self.dirty, self.interim) = (0, 0, 0, 0);
        (self.status, self.reason, self.broke) = (None, None, None);
        self.began = now;
    }

    /// The pool that the request is counted for.
    fn count_for(&mut self, pool: Option<&Arc<Pool>>) {
        match (&self.pool, pool) {
            (Some(same), Some(pool)) if Arc::ptr_eq(same, pool) => {}
            _ => {
                // Another configuration, or another pool: its upstreams are others.
                self.known = KnownUpstreams::default();
                self.pool = pool.cloned();
            }
        }
    }

    /// Keeps what the request is hashed by, for later attempts as well.
    fn take_keys(&mut self, snapshot: &Snapshot, head: &Head<'_>, facts: &Facts<'_>) {
        self.keys.clear();
        if snapshot.keyed {
            let client = self.client;
            let key_of = |key: &HashKey| hash_of(key, head, facts, client);
            keys_of(snapshot, self.routed, &mut self.keys, key_of, |cookie| session_of(cookie, head));
        }
    }

    /// Makes an ordinary request of one that may not switch protocols in its pool.
    fn check_upgrade(&mut self) {
        let upgrades = self.pool.as_ref().map(|pool| &pool.traffic.upgrades);
        let allowed = |to: &Protocol| upgrades.is_some_and(|upgrades| upgrades.allow(to.as_bytes()));
        if self.asked.upgrade.as_ref().is_some_and(|to| !allowed(to)) {
            self.asked.upgrade = None;
            self.edits.refuse_upgrade();
        }
    }

    /// Our own answers first, then the pool.
    fn first_step(&mut self, snapshot: &Snapshot, facts: &Facts<'_>, now: Instant) -> Next {
        if facts.method == Method::Trace {
            return self.answer_without_pool(OwnAnswer::new(AnswerReason::Method));
        }
        if facts.target == "*" {
            return self.answer_without_pool(OwnAnswer::server_options());
        }
        if let Some(answer) = self.fixed_answer() {
            return self.answer(answer);
        }
        if self.pool.is_none() && self.routed.is_some() {
            // A reload removed both its listener and its pool, and nothing has taken their place.
            return self.answer(OwnAnswer::retry_after(AnswerReason::NoneEligible, 1));
        }
        if self.pool.is_none() {
            return self.answer(OwnAnswer::new(AnswerReason::NoRoute));
        }
        if matches!((facts.framing, self.body_bytes), (Framing::Length(length), Some(most)) if length > most) {
            return self.answer(OwnAnswer::new(AnswerReason::BodyTooLarge));
        }
        self.seek(snapshot, now)
    }

    /// The answer of its route, if that has one instead of a pool.
    fn fixed_answer(&self) -> Option<OwnAnswer> {
        match self.route.as_ref()?.rules.as_ref()?.answer.as_ref()? {
            FixedAnswer::Redirect { status, .. } | FixedAnswer::Respond { status, .. } => {
                Some(OwnAnswer::of_route(*status))
            }
        }
    }

    /// What its route adds to this answer of ours.
    pub fn added(&self, answer: &OwnAnswer) -> Added<'_> {
        let made = self.edits.made();
        let all = Added { lines: &made.response, answer: &made.answer, body: &made.body };
        match answer.kind {
            OwnKind::OfRoute(_) => all,
            OwnKind::Error(_) => Added { lines: all.lines, ..Added::default() },
            OwnKind::ServerOptions => Added::default(),
        }
    }

    /// The pool has changed, or waiting has ended.
    pub fn on_wake(&mut self, waiting: Waiting, now: Instant) -> Next {
        if self.is_late(now) {
            return self.answer(OwnAnswer::new(AnswerReason::RequestTimeout));
        }
        self.waiting = Some(waiting);
        let next = match self.retry.take() {
            Some(otherwise) => self.try_elsewhere(otherwise, None, now),
            None => self.pick_anew(now),
        };
        self.waiting = None;
        next
    }

    /// The pool is gone from the newest configuration, which says where the request belongs now: `head` is its head, as it
    /// was given to [`Exchange::begin`].
    pub fn on_reroute(&mut self, head: Option<Head<'_>>, now: Instant) -> Next {
        let (snapshot, retry) = (self.published.load_full(), self.retry.take());
        let facts = head.as_ref().and_then(|head| judge(head).ok());
        let request = head.as_ref().zip(facts.as_ref());
        let routed = request.map(|request| route_anew(&snapshot, self.listener, request, now, &mut self.rng));
        if let (Some(routed), Some(facts)) = (routed, &facts) {
            if self.follow(routed.route, facts) == Err(TooLong) {
                return self.answer(OwnAnswer::new(AnswerReason::TargetTooLong));
            }
            if let Some(answer) = self.fixed_answer() {
                return self.answer(answer);
            }
        }
        let routed = routed.and_then(|routed| routed.pool);
        let Some(pool) = routed.and_then(|id| snapshot.pool(id)) else {
            return match retry {
                Some(otherwise) => self.answer(OwnAnswer::new(otherwise)),
                // Its connection is the last of a listener that is gone.
                None if snapshot.listener(self.listener).is_none() => {
                    self.answer(OwnAnswer::retry_after(AnswerReason::NoneEligible, 1))
                }
                None => self.answer_without_pool(OwnAnswer::new(AnswerReason::NoRoute)),
            };
        };
        self.routed = routed;
        self.serial = pool.shared.serial;
        self.deadline = self.deadline_in(Some(pool));
        if let (Some(head), Some(facts)) = (&head, &facts) {
            self.take_keys(&snapshot, head, facts);
        }
        self.count_for(Some(pool));
        self.check_upgrade();
        for failed in &self.failed {
            self.tried.extend(of_address(pool, &failed.address).map(|id| Tried { id, epoch: None }));
        }
        match self.find_and_hold(&snapshot, now) {
            Found::Nothing { retry_after } => match retry {
                Some(otherwise) => self.answer(OwnAnswer::new(otherwise)),
                None => self.answer(OwnAnswer::retry_after(AnswerReason::NoneEligible, retry_after)),
            },
            found => self.take(found, now),
        }
    }

    /// No connection could be made: nothing was sent, so every method may be tried elsewhere.
    pub fn on_connect_failed(&mut self, why: ConnectError, now: Instant) -> Next {
        let (settled, reason) = match why {
            ConnectError::TimedOut if self.is_late(now) => (Settled::NotTheUpstream, AnswerReason::RequestTimeout),
            ConnectError::Refused => (Settled::Failed(Failure::Connect), AnswerReason::ConnectFailed),
            ConnectError::TimedOut => (Settled::Failed(Failure::Connect), AnswerReason::ConnectTimeout),
            ConnectError::Resources => (Settled::NotTheUpstream, AnswerReason::Resources),
            ConnectError::Outdated => return self.on_outdated(now),
        };
        self.count_retry();
        self.journal.ended(Outcome::of_connect(why));
        self.fail(settled, now);
        // What we lack ourselves, another upstream would not give us.
        if why != ConnectError::Resources && self.may_retry_after(Failure::Connect, now) {
            return self.elsewhere(Retry { cause: Failure::Connect, otherwise: reason }, false, now);
        }
        self.answer(OwnAnswer::new(reason))
    }

    /// A connection is there, and nothing has been sent on it for this request. Called right before the first byte, with no
    /// wait between. `None`: send. Otherwise the connection must not be used for it, and this is what to do instead: the
    /// upstream may not be picked any more, or the connection is not what it should be. The request is then picked anew
    /// whatever its method, which uses up no retry.
    #[must_use]
    pub fn on_connected(&mut self, lent: Lent, now: Instant) -> Option<Next> {
        let reused = match lent {
            Lent::TooLate => return Some(Next::Leave),
            _ if self.is_outdated(now) => return Some(self.on_outdated(now)),
            Lent::Dirty => return Some(self.on_dirty(now)),
            Lent::Kept => true,
            Lent::Fresh => false,
        };
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.is_held()) {
            lease.on_sent();
        }
        self.count_retry();
        self.journal.connected(reused, now);
        self.phase = Phase::Sent { reused, since: now };
        None
    }

    /// Counts an attempt after the first, once it has come to something.
    fn count_retry(&self) {
        if let (true, Some(cause), Some(pool)) = (self.attempts > 1, self.cause, &self.pool) {
            pool.shared.stats.retries.inc(cause);
        }
    }

    /// Whether the upstream of the attempt under way may not be picked any more: unhealthy, unknown, disabled, draining,
    /// removed, or its verdict is out of date. Then connecting to it is in vain.
    pub fn is_outdated(&self, now: Instant) -> bool {
        self.upstream().is_some_and(|upstream| {
            let out_of_date = self.picked.verdict_held && upstream.fresh_until.has_come(now);
            upstream.connections.epoch() != self.picked.epoch || out_of_date
        })
    }

    /// The upstream was lost between pick and send. It counts as tried, unless it can be picked under a newer epoch.
    fn on_outdated(&mut self, now: Instant) -> Next {
        if let Some(tried) = self.tried.last_mut() {
            tried.epoch = Some(self.picked.epoch);
        }
        match self.unpick(now) {
            Some(answer) => answer,
            None => self.pick_anew(now),
        }
    }

    /// A kept connection was closed, or held bytes that nobody had asked for: another to the same upstream, the second time
    /// a new one.
    fn on_dirty(&mut self, now: Instant) -> Next {
        if let Some(answer) = self.unpick(now) {
            return answer;
        }
        self.tried.pop();
        self.dirty += 1;
        let reuse = if self.dirty > 1 { Reuse::Never } else { self.reuse() };
        // Its place may be another's by now.
        self.same_again(reuse, None, now).unwrap_or_else(|| self.pick_anew(now))
    }

    /// Takes a pick back. Some: it was the last.
    fn unpick(&mut self, now: Instant) -> Option<Next> {
        self.settle(Settled::NotTheUpstream);
        self.unused += 1;
        if self.unused > UNUSED_MAX {
            let retry_after = self.pool.as_ref().map_or(1, |pool| pool.shared.retry_after(now));
            return Some(self.answer(OwnAnswer::retry_after(AnswerReason::NoneEligible, retry_after)));
        }
        self.attempts -= 1;
        self.journal.unpick();
        None
    }

    /// A response head has come, interim or final, given as the upstream's version, status and fields. `replay`: what holds if
    /// it is thrown away.
    pub fn on_response<'a>(
        &mut self,
        version: Version,
        status: u16,
        fields: impl Iterator<Item = Field<'a>> + Clone,
        replay: Replay,
        now: Instant,
    ) -> Next {
        let since = match self.phase {
            Phase::Sent { since, .. } | Phase::Interim { since } => since,
            Phase::Seeking | Phase::Connecting | Phase::Answered => return Next::Abort,
        };
        let interim = status < 200 && status != 101;
        self.interim += u32::from(interim);
        let judged = match self.interim {
            ..=INTERIM_ANSWERS => judge_response(&self.asked, version, status, fields),
            _ => Err(Fault::Interim),
        };
        let (framing, mut edits) = match judged {
            Ok(judged) => judged,
            Err(fault) => return self.on_broken(Broken::BadResponse(fault), Replay::Gone, now),
        };
        if interim {
            self.phase = Phase::Interim { since };
            return Next::Forward(edits, framing);
        }
        let took = now.saturating_duration_since(since);
        self.journal.answered(status, took);
        if let Some(pool) = &self.pool {
            pool.shared.stats.record_upstream(took);
        }
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.is_held()) {
            lease.on_answer(status, took);
            if let Some(pool) = &self.pool {
                pool.on_response(lease.upstream(), status, took, now);
            }
        }
        if let Some(next) = self.instead_of(status, replay, now) {
            return next;
        }
        self.phase = Phase::Answered;
        self.status = Some(status);
        if let (200.., Some(rules)) = (status, self.route.as_ref().and_then(|route| route.rules.as_ref())) {
            edits.follow(&rules.response, &self.edits.made().response);
        }
        if let (200.., Some(line)) = (status, self.new_session(now)) {
            edits.add(&line);
        }
        if status == 101 {
            // A tunnel may live for days: its request ends here, for the counters.
            self.record(RequestClass::Informational, now.saturating_duration_since(self.began), now);
        }
        Next::Forward(edits, framing)
    }

    /// The field that keeps the client at the upstream of the attempt, where its pool wants that and it does not say so yet.
    fn new_session(&self, now: Instant) -> Option<String> {
        let (pool, upstream) = (self.pool.as_ref()?, self.upstream()?);
        let cookie = pool.traffic.sticky.as_deref()?;
        let number = session_number(&pool.name, &upstream.address);
        let known = self.keys.iter().find(|known| known.pool == pool.id && known.serial == pool.shared.serial);
        let before = known.and_then(|known| known.session);
        // One whose upstream only has no free place goes back to it.
        let view = pool.view.load();
        let stays = |before| self.attempts == 1 && view.pinned(view.read(now), before, now).is_some();
        let is_new = before != Some(number) && !before.is_some_and(stays);
        is_new.then(|| set_session(cookie, number, self.edits.forwarded_proto()))
    }

    /// Another attempt instead of a response with this status, if the pool wants that and has another upstream for it. Then
    /// nothing of the response may have gone to the client.
    fn instead_of(&mut self, status: u16, replay: Replay, now: Instant) -> Option<Next> {
        let cause = Failure::of_status(status)?;
        if !matches!(self.phase, Phase::Sent { .. }) || !self.may_repeat(replay) || !self.may_retry_after(cause, now) {
            return None;
        }
        let snapshot = self.published.load_full();
        if self.is_homeless(&snapshot) {
            return None;
        }
        let Found::Upstream(pool, pick) = self.find(&snapshot, now) else { return None };
        let Candidate { upstream, places, .. } = pick.candidate();
        // The first one is held until its response is thrown away, and the other one as well from now on: another worker may
        // have taken its last place since it was picked.
        let held = pool.traffic.connections.max_per_upstream.map(|_| Lease::take(upstream.clone()));
        if held.as_ref().is_some_and(|lease| !lease.fits(*places)) || !self.draws(cause, now) {
            return None;
        }
        self.journal.ended(Outcome::Status);
        self.settle(Settled::Done);
        self.failed.extend(self.last_upstream().cloned());
        self.stale = false;
        self.lease = held.or(self.lease.take());
        Some(self.attempt(pool, &pick, self.reuse(), now))
    }

    /// As [`Exchange::on_response`], for a head that a parser with wider bounds than ours has read.
    pub fn on_foreign_response<'a>(
        &mut self,
        version: Version,
        status: u16,
        reason: &[u8],
        fields: impl Iterator<Item = Field<'a>> + Clone,
        replay: Replay,
        now: Instant,
    ) -> Next {
        let size = check_size(reason, fields.clone().map(|field| (field.name, field.value)));
        match size.and_then(|_| check_fields(fields.clone())) {
            Ok(()) => self.on_response(version, status, fields, replay, now),
            Err(fault) => self.on_broken(Broken::BadResponse(fault), Replay::Gone, now),
        }
    }

    /// Whether this way of breaking says nothing about the upstream: it may close an idle connection at any time, also when
    /// a request is on its way. A part of a head is no answer yet: not every lane can tell. Asked before
    /// [`Exchange::on_broken`].
    pub fn is_stale(&self, how: Broken) -> bool {
        how == Broken::Closed && matches!(self.phase, Phase::Sent { reused: true, .. })
    }

    /// The attempt broke after the connection was made. Before a whole head, interim or final, it is tried again, if doing
    /// it twice is as good as once; after one nothing can be mended.
    pub fn on_broken(&mut self, how: Broken, replay: Replay, now: Instant) -> Next {
        if let (Broken::BadResponse(fault), Some(upstream)) = (how, self.upstream()) {
            upstream.note_malformed(fault, now);
        }
        self.journal.ended(Outcome::of_broken(how));
        let stale = self.is_stale(how);
        let late = how == Broken::TimedOut && self.is_late(now);
        let headless = match self.phase {
            Phase::Answered => {
                // In the middle of its answer. An answer of our own holds no lease, so nothing is settled twice.
                self.settle_with(if late { Settled::NotTheUpstream } else { how.settled_late() });
                self.broke = Some(if how == Broken::TimedOut { EndWord::Timeout } else { EndWord::UpstreamReset });
                return Next::Abort;
            }
            Phase::Sent { .. } => true,
            Phase::Seeking | Phase::Connecting | Phase::Interim { .. } => false,
        };
        let reason = match how {
            Broken::Closed | Broken::Cut => AnswerReason::UpstreamBroke,
            Broken::TimedOut if late => AnswerReason::RequestTimeout,
            Broken::TimedOut => AnswerReason::UpstreamTimeout,
            Broken::BadResponse(_) => AnswerReason::BadResponse,
            Broken::Resources => AnswerReason::Resources,
        };
        self.fail(if stale || late { Settled::NotTheUpstream } else { how.settled() }, now);
        let cause = match how {
            Broken::Closed | Broken::Cut => Some(Failure::Reset),
            Broken::TimedOut => Some(Failure::Timeout),
            Broken::BadResponse(_) | Broken::Resources => None,
        };
        if let Some(cause) = cause.filter(|cause| headless && self.may_retry_after(*cause, now))
            && self.may_repeat(replay)
        {
            return self.elsewhere(Retry { cause, otherwise: reason }, stale, now);
        }
        self.answer(OwnAnswer::new(reason))
    }

    /// The client's body broke a rule, or came too slowly. The upstream connection cannot be used again.
    pub fn on_client_fault(&mut self, refusal: Refusal) -> Next {
        self.settle_with(Settled::Done);
        if self.phase == Phase::Answered { Next::Abort } else { self.answer(refusal.answer()) }
    }

    /// The end, which is counted, and logged. Give up the upstream connection before, unless it can be used again.
    pub fn on_end(&mut self, end: End, now: Instant) {
        let class = match (end, self.status) {
            (End::Delivered, Some(status)) => RequestClass::of(status),
            (End::Delivered, None) | (End::ClientLeft | End::Aborted, _) => RequestClass::Aborted,
        };
        self.settle_with(match end {
            End::Delivered | End::ClientLeft => Settled::Done,
            End::Aborted => Settled::NotTheUpstream,
        });
        let took = now.saturating_duration_since(self.began);
        self.record(class, took, now);
        if cfg!(not(test)) && !self.unlogged {
            return;
        }
        if end == End::Delivered {
            self.journal.ended(Outcome::Ok);
        }
        let word = match (end, self.reason) {
            (End::ClientLeft, _) => EndWord::ClientLeft,
            (End::Aborted, _) => self.broke.unwrap_or(EndWord::UpstreamReset),
            (End::Delivered, Some(reason)) => EndWord::of_reason(reason),
            (End::Delivered, None) => EndWord::Ok,
        };
        #[cfg(test)]
        {
            self.ended = Some((word, class, took));
        }
        if std::mem::take(&mut self.unlogged) {
            self.desk.record(&self.make_record(word, class, Some(took)));
        }
    }

    /// How the last request has ended.
    #[cfg(test)]
    pub fn ended(&self) -> Record<'_> {
        let (word, class, took) = self.ended.expect("one has");
        self.make_record(word, class, Some(took))
    }

    fn make_record(&self, end: EndWord, class: RequestClass, took: Option<Duration>) -> Record<'_> {
        Record {
            listener: self.entry_name.as_ref(),
            client: self.client,
            id: self.edits.id(),
            noted: self.journal.noted(),
            tries: if self.journal.is_on() { &self.journal.tries } else { &[] },
            began: self.began,
            queued: self.journal.queued,
            carried: self.journal.carried,
            end,
            pool: self.pool.as_ref().map(|pool| &pool.name),
            upstream: self.last_upstream().filter(|_| self.attempts > 0).map(|upstream| &upstream.address),
            status: self.status,
            reason: self.reason,
            class,
            attempts: self.attempts,
            took,
        }
    }

    /// So many bytes of bodies have gone through, told before [`Exchange::on_end`].
    pub fn carry(&mut self, carried: Carried) {
        self.journal.carried = carried;
    }

    /// Whether it asks to switch protocols, and its pool allows that.
    pub fn is_upgrade(&self) -> bool {
        self.asked.upgrade.is_some()
    }

    /// The changes to the request head, for the attempt under way.
    pub fn request_edits(&self) -> &RequestEdits {
        &self.edits
    }

    /// The upstream of the attempt under way.
    pub fn upstream(&self) -> Option<&Arc<Upstream>> {
        self.lease.as_ref().filter(|lease| lease.is_held()).map(Lease::upstream)
    }

    /// The epoch under which it was picked.
    pub fn epoch(&self) -> u64 {
        self.picked.epoch
    }

    /// The upstream of the last attempt. Only after one: the lease may be that of an earlier request.
    fn last_upstream(&self) -> Option<&Arc<Upstream>> {
        self.lease.as_ref().map(Lease::upstream)
    }

    /// Whether the client must be told `Connection: close`, because the listener it came in on is gone.
    pub fn must_close(&self) -> bool {
        self.listener_gone
    }

    /// Looks for an upstream, waits for one, or says that there is none.
    fn seek(&mut self, snapshot: &Snapshot, now: Instant) -> Next {
        let found = self.find_and_hold(snapshot, now);
        self.take(found, now)
    }

    /// As [`Exchange::seek`], by the newest configuration, whatever has become of the pool.
    fn pick_anew(&mut self, now: Instant) -> Next {
        let snapshot = self.published.load_full();
        if self.is_homeless(&snapshot) { Next::Reroute } else { self.seek(&snapshot, now) }
    }

    /// Whether its pool is gone from this configuration.
    fn is_homeless(&self, snapshot: &Snapshot) -> bool {
        self.routed.is_some_and(|id| !snapshot.has(id, self.serial))
    }

    fn take(&mut self, found: Found<'_>, now: Instant) -> Next {
        match found {
            Found::Upstream(pool, pick) => self.attempt(pool, &pick, self.reuse(), now),
            Found::Wait { pool, until } | Found::Outdated { pool, until } => self.wait_for(pool, until, now),
            Found::Full { pool } => match self.queue_for(pool, now) {
                Ok(next) => next,
                Err(reason) => self.answer(OwnAnswer::retry_after(reason, 1)),
            },
            Found::Nothing { retry_after } => {
                self.answer(OwnAnswer::retry_after(AnswerReason::NoneEligible, retry_after))
            }
        }
    }

    fn wait_for(&mut self, pool: &Arc<Pool>, until: Instant, now: Instant) -> Next {
        // A later view may name a later end; who waits already is not kept longer than was said first.
        let until = *self.wait_until.get_or_insert(until);
        let until = self.deadline.map_or(until, |deadline| until.min(deadline));
        match self.place_in(pool, Awaits::Verdict, WAITING_MAX, until) {
            Some(waiting) => Next::Wait(waiting),
            None => {
                let retry_after = pool.shared.retry_after(now);
                self.answer(OwnAnswer::retry_after(AnswerReason::QueueFull, retry_after))
            }
        }
    }

    /// Waits for a free place; or why it does not.
    fn queue_for(&mut self, pool: &Arc<Pool>, now: Instant) -> Result<Next, AnswerReason> {
        let connections = &pool.traffic.connections;
        let until = *self.queue_until.get_or_insert(now + connections.queue_timeout);
        if until <= now {
            return Err(AnswerReason::QueueTimeout);
        }
        let until = self.deadline.map_or(until, |deadline| until.min(deadline));
        let place =
            self.place_in(pool, Awaits::Place, connections.queue_length, until).ok_or(AnswerReason::QueueFull)?;
        self.queued_since.get_or_insert(now);
        Ok(Next::Wait(place))
    }

    /// Its place among those that wait for this pool, or a new one if there is room.
    fn place_in(&mut self, pool: &Arc<Pool>, awaits: Awaits, most: u32, until: Instant) -> Option<Waiting> {
        let same = |waiting: &Waiting| waiting.pool() == pool.id && waiting.awaits() == awaits;
        match self.waiting.take().filter(same) {
            Some(waiting) => {
                // Where one finds no free place that may have any, nobody else does.
                if awaits == Awaits::Verdict || !self.tried.is_empty() {
                    waiting.pass_on();
                }
                Some(waiting)
            }
            None => Waiting::try_new(&self.published, pool, (awaits, !self.tried.is_empty()), most, until),
        }
    }

    /// Another upstream for a request that has failed on one, or the same where only a kept connection was `stale`, or else
    /// the answer. A retry waits only for a view that is about to be published, or if a reload has taken its
    /// pool away. It draws on the budget once it is known that there is an upstream, or that it waits.
    fn elsewhere(&mut self, retry: Retry, stale: bool, now: Instant) -> Next {
        self.stale = stale;
        self.cause = Some(retry.cause);
        self.failed.extend(self.last_upstream().cloned());
        self.try_elsewhere(retry.otherwise, Some(retry.cause), now)
    }

    /// Whether the request may be sent again although an upstream may have carried it out.
    fn may_repeat(&self, replay: Replay) -> bool {
        let any_method = self.pool.as_ref().is_some_and(|pool| pool.traffic.retry.non_idempotent);
        replay == Replay::Whole && (any_method || self.asked.method.is_idempotent())
    }

    /// Whether the pool of the last attempt allows another one after this failure, whatever is left of its budget.
    fn may_retry_after(&self, cause: Failure, now: Instant) -> bool {
        let allows = |pool: &Arc<Pool>| self.attempts <= pool.traffic.retry.retries && pool.traffic.retry.on.has(cause);
        !self.is_late(now) && self.pool.as_ref().is_some_and(allows)
    }

    /// Whether the time of the whole request is over.
    fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Takes a retry out of the budget, if it costs one.
    fn draws(&self, cause: Failure, now: Instant) -> bool {
        let draw = |pool: &Arc<Pool>| {
            let left = pool.shared.try_retry(&pool.traffic.retry.budget, now);
            if !left {
                pool.shared.stats.retries_refused.fetch_add(1, Ordering::Relaxed);
            }
            left
        };
        cause == Failure::Connect || self.pool.as_ref().is_some_and(draw)
    }

    /// `cause`: what the retry is for, unless it has drawn on the budget already.
    fn try_elsewhere(&mut self, otherwise: AnswerReason, cause: Option<Failure>, now: Instant) -> Next {
        let snapshot = self.published.load_full();
        let draws = |exchange: &Exchange| cause.is_none_or(|cause| exchange.draws(cause, now));
        let next = match self.find_at_home(&snapshot, now) {
            None if draws(self) => {
                self.retry = Some(otherwise);
                Some(Next::Reroute)
            }
            Some(Found::Upstream(pool, pick)) if draws(self) => Some(self.attempt(pool, &pick, self.reuse(), now)),
            Some(Found::Outdated { pool, until }) if draws(self) => {
                self.retry = Some(otherwise);
                Some(self.wait_for(pool, until, now))
            }
            Some(Found::Full { pool }) => match self.queue_for(pool, now).ok() {
                // Where it may not wait, it draws nothing.
                Some(next) if draws(self) => {
                    self.retry = Some(otherwise);
                    Some(next)
                }
                Some(_) | None => {
                    self.queued_since = None;
                    None
                }
            },
            Some(Found::Wait { .. } | Found::Nothing { .. }) if self.stale => self.same_again(Reuse::Never, cause, now),
            _ => None,
        };
        next.unwrap_or_else(|| {
            // It may hold a place that it does not use.
            self.settle(Settled::NotTheUpstream);
            self.answer(OwnAnswer::new(otherwise))
        })
    }

    /// The upstream of the last attempt, if it may still be picked and has a place. `cause` as in [`Exchange::try_elsewhere`].
    fn same_again(&mut self, reuse: Reuse, cause: Option<Failure>, now: Instant) -> Option<Next> {
        let snapshot = self.published.load_full();
        let pool = snapshot.pool(self.pool.as_ref()?.id)?;
        let pick = still_eligible(pool, self.last_upstream()?.id, now)?;
        if !self.takes_place(pool, pick.candidate()) {
            return None;
        }
        if cause.is_some_and(|cause| !self.draws(cause, now)) {
            self.settle(Settled::NotTheUpstream);
            return None;
        }
        Some(self.attempt(pool, &pick, reuse, now))
    }

    /// Which connections the next attempt may use.
    fn reuse(&self) -> Reuse {
        match self.stale {
            true => Reuse::Never,
            false if self.asked.method.is_idempotent() => Reuse::Any,
            false => Reuse::Safe,
        }
    }

    fn attempt(&mut self, pool: &Arc<Pool>, pick: &Pick, reuse: Reuse, now: Instant) -> Next {
        let Candidate { upstream, epoch, .. } = pick.candidate();
        let epoch = *epoch;
        self.attempts += 1;
        // A pool that stands in for another: its retries are a share of what it gets.
        if self.budgeted != pool.shared.serial {
            self.budgeted = pool.shared.serial;
            pool.shared.on_request(now);
        }
        self.journal.waited(self.queued_since, now);
        pool.shared.stats.record_queued(self.queued_since.take(), now);
        self.journal.attempt(&upstream.address, now);
        self.picked = Picked { epoch, verdict_held: !upstream.fresh_until.has_come(now) };
        self.tried.push(Tried { id: upstream.id, epoch: None });
        self.edits.aim(&upstream.address);
        self.hold(pool, upstream);
        let TrafficPolicy { timeouts, connections, retry, leaving, .. } = &*pool.traffic;
        let may_be_cut = leaving.ends_requests();
        let (mut timeouts, connections, replay_bytes) = (*timeouts, *connections, retry.replay_bytes);
        if let Some(deadline) = self.deadline {
            timeouts.connect = timeouts.connect.min(deadline.saturating_duration_since(now));
        }
        self.phase = Phase::Connecting;
        Next::Attempt(Attempt {
            epoch,
            reuse,
            timeouts,
            deadline: self.deadline,
            connections,
            may_be_cut,
            replay_bytes,
        })
    }

    /// `None`: its pool is gone from this configuration.
    fn find_at_home<'s>(&mut self, snapshot: &'s Snapshot, now: Instant) -> Option<Found<'s>> {
        (!self.is_homeless(snapshot)).then(|| self.find_and_hold(snapshot, now))
    }

    /// The same, with a hold on the upstream where it may have only so many requests in flight: another worker may have taken
    /// the last place since it was picked.
    fn find_and_hold<'s>(&mut self, snapshot: &'s Snapshot, now: Instant) -> Found<'s> {
        for _ in 0..HOLD_TRIES {
            let found = self.find(snapshot, now);
            let Found::Upstream(pool, pick) = &found else { return found };
            if self.takes_place(pool, pick.candidate()) {
                return found;
            }
        }
        match self.find(snapshot, now) {
            Found::Upstream(pool, _) => Found::Full { pool },
            found => found,
        }
    }

    /// Takes hold of this upstream where it may have only so many requests in flight. False: it has as many.
    fn takes_place(&mut self, pool: &Arc<Pool>, candidate: &Candidate) -> bool {
        if pool.traffic.connections.max_per_upstream.is_none() {
            return true;
        }
        self.hold(pool, &candidate.upstream);
        match self.lease.as_mut() {
            Some(lease) if !lease.fits(candidate.places) => {
                lease.settle(Settled::NotTheUpstream);
                false
            }
            _ => true,
        }
    }

    /// Takes hold of this upstream, unless it is held.
    fn hold(&mut self, pool: &Arc<Pool>, upstream: &Arc<Upstream>) {
        self.count_for(Some(pool));
        match &mut self.lease {
            Some(lease) if Arc::ptr_eq(lease.upstream(), upstream) => {
                if !lease.is_held() {
                    lease.retake();
                }
            }
            Some(lease) => {
                let before = lease.take_other(self.known.take(upstream));
                self.known.put(before);
            }
            None => self.lease = Some(Lease::take(upstream.clone())),
        }
        let counts = pool.traffic.choosing.load || pool.traffic.connections.max_per_upstream.is_some();
        if let Some(lease) = self.lease.as_mut().filter(|_| counts) {
            lease.count_in(&pool.shared);
        }
    }

    fn find<'s>(&mut self, snapshot: &'s Snapshot, now: Instant) -> Found<'s> {
        let called = self.waiting.as_ref().filter(|waiting| waiting.awaits() == Awaits::Place).map(Waiting::pool);
        let (from, tried, keys) = (self.routed, &self.tried, &self.keys);
        let ask = Ask { from, tried, wait_until: self.wait_until, keys, called };
        find(snapshot, ask, now, &mut self.rng)
    }

    fn answer_without_pool(&mut self, answer: OwnAnswer) -> Next {
        self.count_for(None);
        self.answer(answer)
    }

    fn answer(&mut self, answer: OwnAnswer) -> Next {
        self.phase = Phase::Answered;
        self.status = Some(answer.status());
        self.reason = answer.reason();
        if let Some(reason) = self.reason {
            self.pool.as_ref().map_or(&self.stats.answers, |pool| &pool.shared.stats.answers).inc(reason);
        }
        Next::Answer(OwnAnswer { close: answer.close || self.listener_gone, ..answer })
    }

    /// Ends an attempt that may have failed.
    fn fail(&mut self, how: Settled, now: Instant) {
        if let (Settled::Failed(failure), Some(pool), Some(upstream)) = (how, &self.pool, self.upstream()) {
            pool.on_failure(upstream, failure, now);
        }
        self.settle(how);
    }

    fn settle(&mut self, how: Settled) {
        self.settle_with(how);
        self.phase = Phase::Seeking;
    }

    fn settle_with(&mut self, how: Settled) {
        if let Some(lease) = &mut self.lease {
            lease.settle(how);
        }
    }

    fn record(&mut self, class: RequestClass, took: Duration, now: Instant) {
        let queued_since = self.queued_since.take();
        self.journal.waited(queued_since, now);
        if self.recorded {
            return;
        }
        self.recorded = true;
        if let Some(route) = &self.route {
            route.stats.inc(class);
        }
        if let Some(pool) = &self.pool {
            pool.shared.stats.record_request(class, took);
            pool.shared.stats.record_queued(queued_since, now);
        }
    }
}

impl Drop for Exchange {
    /// A request whose task was cancelled is counted too; how long it took is not known here.
    fn drop(&mut self) {
        if let (false, Some(route)) = (self.recorded, &self.route) {
            route.stats.inc(RequestClass::Aborted);
        }
        if let (false, Some(pool)) = (self.recorded, &self.pool) {
            pool.shared.stats.record_dropped();
        }
        if self.unlogged {
            // Its connection was given up: the time for it at the end of the process is over.
            self.desk.record(&self.make_record(EndWord::Timeout, RequestClass::Aborted, None));
        }
    }
}

#[cfg(test)]
mod tests;
