//! What a request sees of a pool: the eligible upstreams and the picker over them, immutable, published whole.
//!
//! The controller builds a new one when health, drain or membership changes; nobody filters it afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::snapshot::PoolId;
use super::upstream::{Upstream, UpstreamId};
use crate::balance::Picker;
use crate::model::Weight;
use crate::model::policy::Balance;

/// The published state of one pool.
#[derive(Debug)]
pub struct View {
    /// What a request may do with it.
    pub service: Service,
    /// The eligible upstreams that are not backups.
    pub primaries: Tier,
    /// The eligible backups. Used while no primary is eligible, or when a request has tried every primary.
    pub backups: Tier,
}

/// What a request may do with a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Pick one: enough are healthy.
    Open,
    /// Too few are healthy, and the pool says to use all that are not disabled or draining: the tiers hold those.
    FailOpen,
    /// Nothing is eligible yet, but a first probe is under way: wait for a change until this instant, then do `then`.
    Waiting {
        /// When waiting ends.
        until: Instant,
        /// What happens then.
        then: Nothing,
    },
    /// Nothing is eligible.
    Nothing(Nothing),
}

/// What happens to a request while nothing is eligible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {
    /// 503 with `Retry-After`.
    Reject,
    /// Use the tiers all the same (`fail_open`: they hold every upstream that is not disabled or draining).
    FailOpen,
    /// Use another pool.
    Pool(PoolId),
}

/// Eligible upstreams of one rank, with the picker over their weights.
#[derive(Debug)]
pub struct Tier {
    upstreams: Box<[Arc<Upstream>]>,
    picker: Picker,
}

impl Tier {
    /// A tier over these upstreams; may be empty.
    pub fn build(balance: Balance, members: impl IntoIterator<Item = (Arc<Upstream>, Weight)>) -> Tier {
        let (upstreams, weights): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        Tier { upstreams: upstreams.into_boxed_slice(), picker: Picker::build(balance, &weights) }
    }

    /// The upstreams, in the order of the pool.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// Chooses one that is not in `tried`; `None` when all are, or the tier is empty. Takes no lock and does not
    /// allocate.
    pub fn pick(&self, cursor: &AtomicUsize, rng: &mut fastrand::Rng, tried: &[UpstreamId]) -> Option<&Arc<Upstream>> {
        let load = |i: usize| self.upstreams[i].in_flight.load(Ordering::Relaxed);
        let skip = |i: usize| tried.contains(&self.upstreams[i].id);
        let index = match tried {
            [] => self.picker.pick(cursor, load, rng, |_| false),
            _ => self.picker.pick_other(load, rng, skip),
        }?;
        Some(&self.upstreams[index])
    }
}

impl View {
    /// Chooses an upstream that is not in `tried`: a primary, else a backup.
    pub fn pick(&self, cursor: &AtomicUsize, rng: &mut fastrand::Rng, tried: &[UpstreamId]) -> Option<&Arc<Upstream>> {
        self.primaries.pick(cursor, rng, tried).or_else(|| self.backups.pick(cursor, rng, tried))
    }
}
