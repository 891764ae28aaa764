//! A request's view of a pool: the eligible upstreams and the picker over them, immutable, published whole.
//!
//! The controller builds a new view when health, drain or membership changes. After that, only one thing is filtered: a
//! verdict that is out of date must not count, even while the checker is stalled. So each upstream has the instant
//! until which its verdict is valid, a view has the earliest of them, and a reader that comes later counts again
//! ([`View::read`]).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::Guard;
use tokio::time::Instant;

use super::instant::SharedInstant;
use super::snapshot::{PoolId, PoolShared};
use super::upstream::{Upstream, UpstreamId};
use crate::balance::{Picker, Slots, hashing};
use crate::model::policy::Balance;
use crate::model::{Address, FineWeight, Name};

/// How long requests wait for an unknown upstream, from the start of its first probe or from when its verdict went out
/// of date.
pub const FIRST_VERDICT_WAIT: Duration = Duration::from_secs(3);

/// The published state of one pool.
#[derive(Debug)]
pub struct View {
    /// What a request may do with it while every verdict is valid; [`View::read`] returns what it may do now.
    pub service: Service,
    /// The eligible upstreams that are not backups.
    pub primaries: Tier,
    /// The eligible backups. Used while no primary is eligible, or after a request has tried every primary.
    pub backups: Tier,
    /// In pools with sessions: where each may go on.
    pins: Option<Box<Pins>>,
    rules: Rules,
    /// The earliest instant at which a verdict of this view may be out of date.
    fresh_until: SharedInstant,
    /// When a reader first found too few valid verdicts.
    missed_at: OnceLock<Instant>,
}

/// Where sessions may go on.
#[derive(Debug, Default)]
struct Pins {
    /// By the number in the cookie.
    by_number: HashMap<u64, Place>,
    /// Upstreams that drain, and until when each takes requests of the sessions that are at it.
    resumable: Box<[(Candidate, Instant)]>,
}

/// The number of an upstream in the cookies of its pool: the same in every process, and no address.
pub fn session_number(pool: &Name, upstream: &Address) -> u64 {
    hashing::hash(format!("{pool}\0{upstream}").as_bytes())
}

/// The other rules of a pool that a reader needs when verdicts are out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How many primaries must be healthy (backups, if there are no primaries); with fewer, none is used.
    pub needed: usize,
    /// The configuration has no primaries.
    pub backups_alone: bool,
    /// What happens while nothing is eligible.
    pub otherwise: Otherwise,
}

/// What a request may do with a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Pick one: enough are healthy.
    Open,
    /// Too few are healthy, and the pool uses all that are not disabled or draining: the tiers hold those.
    FailOpen,
    /// Nothing is eligible yet, but a first probe is under way: wait for a change until this instant, then do `then`.
    Waiting {
        /// When waiting ends.
        until: Instant,
        /// What happens then.
        then: Otherwise,
    },
    /// Nothing is eligible.
    NoneEligible(Otherwise),
}

impl Service {
    /// Whether a request that has stopped waiting picks from the tiers: they hold what may be used.
    pub fn may_pick(self) -> bool {
        match self {
            Service::Open | Service::FailOpen => true,
            Service::Waiting { then: otherwise, .. } | Service::NoneEligible(otherwise) => match otherwise {
                Otherwise::FailOpen => true,
                Otherwise::Reject | Otherwise::Pool(_) => false,
            },
        }
    }

    /// The pool that such a request uses instead.
    pub fn other_pool(self) -> Option<PoolId> {
        match self {
            Service::Waiting { then: Otherwise::Pool(id), .. } | Service::NoneEligible(Otherwise::Pool(id)) => Some(id),
            Service::Open | Service::FailOpen | Service::Waiting { .. } | Service::NoneEligible(_) => None,
        }
    }
}

/// What happens to a request while nothing is eligible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otherwise {
    /// 503 with `Retry-After`.
    Reject,
    /// Use the tiers anyway (`fail_open`: they hold every upstream that is not disabled or draining).
    FailOpen,
    /// Use another pool.
    Pool(PoolId),
}

/// The state of a view at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What a request may do with the pool.
    pub service: Service,
    /// Skip upstreams whose verdict is out of date at this instant; `None`: there are none, or all may be used.
    pass_over: Option<Instant>,
    /// Primaries may be picked.
    primaries: bool,
}

/// An upstream that a request must not pick again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// The upstream.
    pub id: UpstreamId,
    /// Exclude it only while it is eligible under this epoch: it was lost between pick and send. `None`: it failed the
    /// request.
    pub epoch: Option<u64>,
}

/// What an upstream is chosen by.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// The pool.
    pub pool: &'a PoolShared,
    /// Upstreams that the request does not pick again.
    pub tried: &'a [Tried],
    /// The hash of what the request is chosen by, in pools that hash.
    pub key: Option<u64>,
    /// Upstreams may have so many requests in flight, and no more.
    pub bounded: bool,
    /// The time.
    pub now: Instant,
}

/// An eligible upstream.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The epoch of its connections under which it is eligible: a request that picked it is not sent under a later one.
    pub epoch: u64,
    /// The most requests that it may have in flight.
    pub places: u32,
}

impl Candidate {
    /// An upstream that is eligible from now on.
    pub fn new(upstream: Arc<Upstream>, places: u32) -> Candidate {
        let epoch = upstream.connections.epoch();
        Candidate { upstream, epoch, places }
    }

    /// Whether it has as many requests in flight as it may.
    pub fn is_full(&self) -> bool {
        self.upstream.in_flight.load(Ordering::Relaxed) >= self.places
    }

    fn is_tried(&self, tried: &[Tried]) -> bool {
        tried.iter().any(|t| t.id == self.upstream.id && t.epoch.is_none_or(|epoch| epoch >= self.epoch))
    }

    /// Whether it may not be picked any more: it was lost after this view was made, and a newer view is about to be
    /// published.
    fn is_lost(&self) -> bool {
        self.upstream.connections.epoch() != self.epoch
    }
}

/// Where in a view a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    rank: Rank,
    index: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    Primary,
    Backup,
    Resumable,
}

/// A candidate that was picked, in the view it was picked from. Short-lived: it keeps the view from being freed.
pub struct Pick {
    view: Guard<Arc<View>>,
    place: Place,
}

impl Pick {
    /// The candidate at this place.
    pub fn new(view: Guard<Arc<View>>, place: Place) -> Pick {
        Pick { view, place }
    }

    /// The upstream, with the epoch under which it is eligible.
    pub fn candidate(&self) -> &Candidate {
        self.view.candidate(self.place)
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pick({})", self.candidate().upstream.address)
    }
}

/// Eligible upstreams of one rank, with the picker over their weights.
#[derive(Debug)]
pub struct Tier {
    candidates: Box<[Candidate]>,
    picker: Picker,
}

impl Tier {
    /// A tier over these upstreams; may be empty.
    pub fn build(balance: Balance, members: impl IntoIterator<Item = (Arc<Upstream>, FineWeight)>) -> Tier {
        Tier::with_places(balance, members.into_iter().map(|(upstream, weight)| (upstream, weight, u32::MAX)))
    }

    /// The same, where each may have so many requests in flight.
    pub fn with_places(balance: Balance, members: impl IntoIterator<Item = (Arc<Upstream>, FineWeight, u32)>) -> Tier {
        let candidates =
            members.into_iter().map(|(upstream, weight, places)| (Candidate::new(upstream, places), weight));
        let (candidates, weights): (Vec<Candidate>, Vec<_>) = candidates.unzip();
        let name = |candidate: &Candidate| hashing::hash(candidate.upstream.address.to_string().as_bytes());
        let names: Vec<u64> = if balance.hashes() { candidates.iter().map(name).collect() } else { Vec::new() };
        Tier { candidates: candidates.into_boxed_slice(), picker: Picker::build(balance, &weights, &names) }
    }

    /// The upstreams, in the order of the pool.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    fn pick(&self, choice: &Choice<'_>, rng: &mut fastrand::Rng, pass_over: Option<Instant>) -> Option<usize> {
        let (cursor, key) = (&choice.pool.cursor, choice.key);
        let out_of_date = |index: usize| pass_over.is_some_and(|now| self.is_out_of_date(index, now));
        let is_full = |index: usize| choice.bounded && self.candidates[index].is_full();
        let index = match (choice.tried, pass_over) {
            ([], None) if choice.bounded => {
                self.picker.pick(cursor, &TierSlots { tier: self, choice, skip: is_full }, key, rng)
            }
            ([], None) => self.picker.pick(cursor, &TierSlots { tier: self, choice, skip: |_| false }, key, rng),
            ([], Some(_)) => {
                let skip = |index: usize| out_of_date(index) || is_full(index);
                self.picker.pick(cursor, &TierSlots { tier: self, choice, skip }, key, rng)
            }
            (tried, _) => {
                let skip =
                    |index: usize| self.candidates[index].is_tried(tried) || out_of_date(index) || is_full(index);
                self.picker.pick_other(&TierSlots { tier: self, choice, skip }, key, rng)
            }
        }?;
        if !self.candidates[index].is_lost() {
            return Some(index);
        }
        let skip = |index: usize| {
            let candidate = &self.candidates[index];
            candidate.is_lost() || candidate.is_tried(choice.tried) || out_of_date(index) || is_full(index)
        };
        self.picker.pick_other(&TierSlots { tier: self, choice, skip }, key, rng)
    }

    /// Whether one may be picked once it has a free place.
    fn has_usable(&self, tried: &[Tried], pass_over: Option<Instant>) -> bool {
        self.candidates.iter().any(|candidate| {
            let holds = pass_over.is_none_or(|now| !candidate.upstream.fresh_until.has_come(now));
            !candidate.is_tried(tried) && !candidate.is_lost() && holds
        })
    }

    fn has_lost(&self) -> bool {
        self.candidates.iter().any(Candidate::is_lost)
    }

    fn is_out_of_date(&self, index: usize, now: Instant) -> bool {
        self.candidates[index].upstream.fresh_until.has_come(now)
    }

    /// How many verdicts are valid.
    fn fresh(&self, now: Instant) -> usize {
        (0..self.candidates.len()).filter(|i| !self.is_out_of_date(*i, now)).count()
    }

    fn fresh_until(&self) -> Option<Instant> {
        self.candidates.iter().filter_map(|candidate| candidate.upstream.fresh_until.get()).min()
    }
}

/// The upstreams of a tier as a picker sees them.
struct TierSlots<'a, F> {
    tier: &'a Tier,
    choice: &'a Choice<'a>,
    skip: F,
}

impl<F: Fn(usize) -> bool> Slots for TierSlots<'_, F> {
    fn load(&self, index: usize) -> u32 {
        self.tier.candidates[index].upstream.in_flight.load(Ordering::Relaxed)
    }

    fn load_of_all(&self) -> u64 {
        self.choice.pool.in_flight.load(Ordering::Relaxed)
    }

    fn latency(&self, index: usize) -> f32 {
        let millis = self.choice.pool.millis(self.choice.now);
        self.tier.candidates[index].upstream.latency.seconds(millis)
    }

    fn skips(&self, index: usize) -> bool {
        (self.skip)(index)
    }
}

impl View {
    /// A view of these tiers.
    pub fn new(service: Service, primaries: Tier, backups: Tier, rules: Rules) -> View {
        let (fresh_until, missed_at) = (SharedInstant::never(), OnceLock::new());
        let view = View { service, primaries, backups, pins: None, rules, fresh_until, missed_at };
        view.look_ahead();
        view
    }

    /// Lets requests of a session go on where it is: at these upstreams of the pool of this name, and at those that drain until
    /// their time is over.
    pub fn pin(&mut self, pool: &Name, resumable: Vec<(Candidate, Instant)>) {
        let ranked = |rank: Rank, candidates: &[Candidate]| -> Vec<(u64, Place)> {
            let number = |candidate: &Candidate| session_number(pool, &candidate.upstream.address);
            let places = candidates.iter().enumerate();
            places.map(|(index, candidate)| (number(candidate), Place { rank, index })).collect()
        };
        let draining: Vec<Candidate> = resumable.iter().map(|(candidate, _)| candidate.clone()).collect();
        let mut by_number: HashMap<u64, Place> = ranked(Rank::Resumable, &draining).into_iter().collect();
        by_number.extend(ranked(Rank::Backup, &self.backups.candidates));
        by_number.extend(ranked(Rank::Primary, &self.primaries.candidates));
        self.pins = Some(Box::new(Pins { by_number, resumable: resumable.into() }));
    }

    /// Where a session with this number in its cookie goes on, if it may.
    pub fn pinned(&self, reading: Reading, number: u64, now: Instant) -> Option<Place> {
        let pins = self.pins.as_ref()?;
        let place = *pins.by_number.get(&number)?;
        let candidate = self.candidate(place);
        let may = match place.rank {
            Rank::Primary => reading.primaries && reading.service.may_pick(),
            // Those are for when no primary is eligible.
            Rank::Backup => {
                let has_primaries = reading.primaries && !self.primaries.candidates.is_empty();
                !has_primaries && reading.service.may_pick()
            }
            Rank::Resumable => {
                let (_, until) = &pins.resumable[place.index];
                now < *until && !candidate.upstream.fresh_until.has_come(now)
            }
        };
        let out_of_date = reading.pass_over.is_some_and(|now| candidate.upstream.fresh_until.has_come(now));
        (may && !out_of_date && !candidate.is_lost()).then_some(place)
    }

    /// What a request may do with the pool now, without out-of-date verdicts. Cheap while all are valid.
    pub fn read(&self, now: Instant) -> Reading {
        let as_published = Reading { service: self.service, pass_over: None, primaries: true };
        if !self.fresh_until.has_come(now) {
            return as_published;
        }
        self.recount(now).unwrap_or(as_published)
    }

    /// What happens to requests while nothing is eligible.
    pub fn otherwise(&self) -> Otherwise {
        self.rules.otherwise
    }

    /// Whether an upstream that is not in `tried` could be picked, had it a free place.
    pub fn has_usable(&self, reading: Reading, tried: &[Tried]) -> bool {
        let usable = |tier: &Tier| tier.has_usable(tried, reading.pass_over);
        (reading.primaries && usable(&self.primaries)) || usable(&self.backups)
    }

    /// Whether requests may wait for a newer view.
    pub fn is_awaited(&self) -> bool {
        matches!(self.service, Service::Waiting { .. }) || self.missed_at.get().is_some() || self.is_outdated()
    }

    /// Since when readers wait because too few verdicts hold.
    pub fn missed_at(&self) -> Option<Instant> {
        self.missed_at.get().copied()
    }

    /// Whether an upstream of this view may not be picked any more: a newer view is about to be published.
    pub fn is_outdated(&self) -> bool {
        self.primaries.has_lost() || self.backups.has_lost()
    }

    /// Picks an upstream that is not in `tried` and was not lost since the view was made: a primary, else a backup.
    /// Takes no lock and does not allocate.
    ///
    /// Epochs end shortly before the view that says so is published. Until then a lost primary is no reason to use a
    /// backup: the new view may have other primaries, such as those of a new configuration for which the old ones left.
    pub fn pick(&self, reading: Reading, choice: &Choice<'_>, rng: &mut fastrand::Rng) -> Option<Place> {
        if reading.primaries {
            let primary = self.primaries.pick(choice, rng, reading.pass_over);
            // Nor is one that has no free place: backups are for when no primary is eligible.
            let has_full = || choice.bounded && self.primaries.has_usable(choice.tried, reading.pass_over);
            if primary.is_some() || self.primaries.has_lost() || has_full() {
                return primary.map(|index| Place { rank: Rank::Primary, index });
            }
        }
        let backup = self.backups.pick(choice, rng, reading.pass_over);
        backup.map(|index| Place { rank: Rank::Backup, index })
    }

    /// The candidate at a place of this view.
    pub fn candidate(&self, place: Place) -> &Candidate {
        match (place.rank, &self.pins) {
            (Rank::Primary, _) => &self.primaries.candidates[place.index],
            (Rank::Resumable, Some(pins)) => &pins.resumable[place.index].0,
            (Rank::Backup | Rank::Resumable, _) => &self.backups.candidates[place.index],
        }
    }

    /// The upstream with this id, if it may still be picked and was not lost since the view was made.
    pub fn find(&self, reading: Reading, id: UpstreamId) -> Option<Place> {
        let usable = match reading.service {
            Service::Open | Service::FailOpen | Service::NoneEligible(Otherwise::FailOpen) => true,
            Service::Waiting { .. } | Service::NoneEligible(Otherwise::Reject | Otherwise::Pool(_)) => false,
        };
        let of_tier = |backup: bool| {
            let (tier, rank) = if backup { (&self.backups, Rank::Backup) } else { (&self.primaries, Rank::Primary) };
            let index = tier.candidates.iter().position(|c| c.upstream.id == id && !c.is_lost())?;
            Some(Place { rank, index })
        };
        let primary = if reading.primaries { of_tier(false) } else { None };
        let place = primary.or_else(|| of_tier(true)).filter(|_| usable)?;
        let fresh_until = &self.candidate(place).upstream.fresh_until;
        let out_of_date = reading.pass_over.is_some_and(|now| fresh_until.has_come(now));
        (!out_of_date).then_some(place)
    }

    /// Called when a verdict may be out of date: counts the valid ones. `None`: all are valid.
    #[cold]
    fn recount(&self, now: Instant) -> Option<Reading> {
        let (primaries, backups) = (self.primaries.fresh(now), self.backups.fresh(now));
        let missing = self.primaries.candidates.len() - primaries;
        if missing == 0 && backups == self.backups.candidates.len() {
            self.look_ahead();
            return None;
        }
        let open = |with_primaries| Reading { service: Service::Open, pass_over: Some(now), primaries: with_primaries };
        if primaries > 0 && primaries >= self.rules.needed {
            return Some(open(true));
        }
        let backups_serve = backups > 0 && (!self.rules.backups_alone || backups >= self.rules.needed);
        if missing == 0 && backups_serve {
            return Some(open(false));
        }
        // As at start: requests wait for unknown upstreams, and backups wait too.
        let until = *self.missed_at.get_or_init(|| now) + FIRST_VERDICT_WAIT;
        if now < until {
            let service = Service::Waiting { until, then: self.rules.otherwise };
            return Some(Reading { service, pass_over: Some(now), primaries: false });
        }
        if backups_serve {
            return Some(open(false));
        }
        Some(match self.rules.otherwise {
            Otherwise::FailOpen => Reading { service: Service::FailOpen, pass_over: None, primaries: true },
            otherwise => Reading { service: Service::NoneEligible(otherwise), pass_over: Some(now), primaries: false },
        })
    }

    /// Probes have passed since the view was made: computes again when the first verdict may be out of date.
    fn look_ahead(&self) {
        let tiers = [&self.primaries, &self.backups];
        let earliest = tiers.into_iter().filter_map(Tier::fresh_until).min();
        // Only an open view has verdicts that can go out of date.
        self.fresh_until.set(earliest.filter(|_| self.service == Service::Open));
    }
}

#[cfg(test)]
mod tests;
