//! An operator's order, what of it holds, and whether it needs force: pure counting, how many may serve before the order, and
//! how many after it. A new order is a [`Command`]; the compiler lists the places.
//!
//! An order is refused if it would leave a pool without an upstream that serves, or with fewer than `min_healthy`. An
//! order that takes no serving upstream out (a dead upstream is drained for repair) is never refused.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::policy::WhenNoHealthy;
use crate::model::units::glance;
use crate::model::{Address, AdminState, Name, Weight};

/// How long sessions may go on at an upstream that drains, unless an order says otherwise.
pub const DRAIN_RESUME: Duration = Duration::from_secs(300);

/// What an operator can order about an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// It takes no new requests; those in flight finish. Sessions that are there may go on there for this time.
    Drain {
        /// How long.
        resume: Duration,
    },
    /// A drain ends; what is disabled stays so.
    Undrain,
    /// It takes no requests.
    Disable,
    /// It takes requests when healthy.
    Enable,
    /// It has this weight.
    Weight(Weight),
}

impl Command {
    /// What it sets.
    pub fn setting(self) -> Setting {
        match self {
            Command::Drain { .. } => Setting::Admin(AdminState::Draining),
            Command::Disable => Setting::Admin(AdminState::Disabled),
            Command::Undrain | Command::Enable => Setting::Admin(AdminState::Enabled),
            Command::Weight(weight) => Setting::Weight(weight),
        }
    }

    /// Why it cannot be carried out in this admin state; `asked`: which the upstream's agent has asked for.
    fn conflict(self, was: AdminState, asked: bool) -> Option<&'static str> {
        match (self, was) {
            (Command::Undrain | Command::Enable, AdminState::Enabled) if asked => {
                Some("the agent of the upstream takes it out, not an order; it takes requests when its agent says so")
            }
            (Command::Undrain, AdminState::Disabled) => Some("the upstream is disabled, not draining; enable it"),
            _ => None,
        }
    }

    /// Whether it takes an upstream out.
    fn takes_out(self) -> bool {
        match self {
            Command::Drain { .. } | Command::Disable => true,
            Command::Undrain | Command::Enable | Command::Weight(_) => false,
        }
    }
}

/// A value that the file sets for an upstream, and an order can set instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The admin state.
    Admin(AdminState),
    /// The weight.
    Weight(Weight),
}

/// `draining`, `weight 5`.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Admin(state) => state.fmt(f),
            Setting::Weight(weight) => write!(f, "weight {}", weight.as_u32()),
        }
    }
}

/// An operator's order.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// What is ordered.
    pub command: Command,
    /// The operator's reason; may be empty.
    pub reason: &'a str,
    /// The origin of the order, in words.
    pub by: &'a str,
    /// Carry it out even if too few upstreams are left to serve.
    pub force: bool,
    /// It ends by itself after this time.
    pub lasts: Option<Duration>,
}

/// What an order has done in one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The pool.
    pub pool: Name,
    /// What held before.
    pub was: Setting,
    /// What the file says.
    pub in_file: Setting,
}

/// Why an order was not carried out, in no pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No pool of that name.
    #[error("no such pool: {0}")]
    NoPool(String),
    /// The pool, or any pool if none was named, has no such upstream.
    #[error("{} has no upstream {upstream}", pool.as_ref().map_or("no pool".to_owned(), |pool| format!("pool {pool}")))]
    NoUpstream {
        /// The pool that was named.
        pool: Option<Name>,
        /// The upstream.
        upstream: Address,
    },
    /// The upstream is in a state that the order is not meant for.
    #[error("{0}")]
    Conflict(&'static str),
    /// Too few upstreams would serve.
    #[error("{0}")]
    NeedsForce(Box<NeedsForce>),
}

/// A setting that an order has put in place of the file's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override<T> {
    /// The value.
    pub to: T,
    /// When it was ordered.
    pub at: Instant,
    /// When it ends by itself.
    pub until: Option<Instant>,
    /// The origin of the order, in words.
    pub by: String,
    /// The operator's reason; may be empty.
    pub reason: String,
}

impl<T> Override<T> {
    fn new(to: T, order: &Order<'_>, now: Instant) -> Override<T> {
        let until = order.lasts.map(|lasts| now + lasts);
        Override { to, at: now, until, by: order.by.to_owned(), reason: order.reason.to_owned() }
    }

    /// `ordered 12m ago (command from 127.0.0.1:4711): kernel upgrade; ends in 18m`.
    pub fn sentence(&self, now: Instant) -> String {
        let by = if self.by.is_empty() { String::new() } else { format!(" ({})", self.by) };
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        let left = |until: Instant| format!("; ends in {}", glance(until.saturating_duration_since(now)));
        let ends = self.until.map_or_else(String::new, left);
        format!("ordered {} ago{by}{reason}{ends}", glance(now.saturating_duration_since(self.at)))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// The orders that hold for one upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(
    /// Most upstreams have none.
    Option<Box<Held>>,
);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Held {
    admin: Option<Override<AdminState>>,
    weight: Option<Override<Weight>>,
    /// Of the order of the admin state, if that drains.
    resume: Option<Duration>,
}

impl Overrides {
    /// That of the admin state.
    pub fn admin(&self) -> Option<&Override<AdminState>> {
        self.0.as_ref()?.admin.as_ref()
    }

    /// That of the weight.
    pub fn weight(&self) -> Option<&Override<Weight>> {
        self.0.as_ref()?.weight.as_ref()
    }

    /// How long sessions may go on, if it was ordered to drain.
    pub(super) fn resume(&self) -> Option<Duration> {
        self.0.as_ref()?.resume
    }

    /// An order for this admin state, for tests.
    #[cfg(test)]
    pub fn example(to: AdminState, lasts: Option<Duration>) -> Overrides {
        let command = match to {
            AdminState::Enabled => Command::Enable,
            AdminState::Draining => Command::Drain { resume: DRAIN_RESUME },
            AdminState::Disabled => Command::Disable,
        };
        Overrides::example_of(command, lasts)
    }

    /// One order, for tests.
    #[cfg(test)]
    pub fn example_of(command: Command, lasts: Option<Duration>) -> Overrides {
        let order = Order { command, reason: "kernel", by: "command from 127.0.0.1:4711", force: false, lasts };
        let mut overrides = Overrides::default();
        overrides.set(&order, Instant::now());
        overrides
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Puts an order in place.
    pub(super) fn set(&mut self, order: &Order<'_>, now: Instant) {
        let held = self.0.get_or_insert_default();
        match order.command.setting() {
            Setting::Admin(to) => {
                held.admin = Some(Override::new(to, order, now));
                held.resume = match order.command {
                    Command::Drain { resume } => Some(resume),
                    Command::Undrain | Command::Disable | Command::Enable | Command::Weight(_) => None,
                };
            }
            Setting::Weight(to) => held.weight = Some(Override::new(to, order, now)),
        }
    }

    /// Those of `other`, where there is none.
    pub(super) fn or(self, other: Overrides) -> Overrides {
        Overrides(match (self.0, other.0) {
            (Some(mut held), Some(other)) => {
                if held.admin.is_none() {
                    (held.admin, held.resume) = (other.admin, other.resume);
                }
                held.weight = held.weight.or(other.weight);
                Some(held)
            }
            (held, other) => held.or(other),
        })
    }

    /// When the first ends by itself.
    pub(super) fn until(&self) -> Option<Instant> {
        let (admin, weight) = (self.admin().and_then(|order| order.until), self.weight().and_then(|order| order.until));
        admin.into_iter().chain(weight).min()
    }

    /// When the order of this kind ends by itself.
    pub(super) fn until_of(&self, setting: Setting) -> Option<Instant> {
        match setting {
            Setting::Admin(_) => self.admin()?.until,
            Setting::Weight(_) => self.weight()?.until,
        }
    }

    /// Takes out those whose time is over.
    pub(super) fn end(&mut self, now: Instant) {
        let Some(held) = &mut self.0 else { return };
        held.admin.take_if(|order| order.is_over(now));
        held.weight.take_if(|order| order.is_over(now));
        if held.admin.is_none() && held.weight.is_none() {
            self.0 = None;
        }
    }
}

impl Order<'_> {
    /// Why it cannot be carried out for an upstream in this admin state; `force`: why it needs force, asked where it matters.
    pub(super) fn refused(
        &self,
        was: AdminState,
        asked: bool,
        needs_force: impl FnOnce() -> Option<NeedsForce>,
    ) -> Option<OrderError> {
        if let Some(why) = self.command.conflict(was, asked) {
            return Some(OrderError::Conflict(why));
        }
        let asks = self.command.takes_out() && !self.force;
        asks.then(needs_force).flatten().map(|why| OrderError::NeedsForce(Box::new(why)))
    }
}

/// Upstreams of a pool that may serve, by rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Able {
    /// Eligible primaries.
    pub primaries: usize,
    /// Eligible backups; 0 while they wait for the first verdict of a primary.
    pub backups: usize,
}

impl Able {
    /// One fewer of the backups, or of the primaries.
    pub fn without_one(self, backup: bool) -> Able {
        match backup {
            true => Able { backups: self.backups.saturating_sub(1), ..self },
            false => Able { primaries: self.primaries.saturating_sub(1), ..self },
        }
    }

    /// Whether there is one.
    pub fn any(self) -> bool {
        self.primaries + self.backups > 0
    }
}

/// The rule by which a pool serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// At least this many must be able to serve; with fewer primaries the backups serve, if there are any.
    AtLeast(usize),
    /// The pool has no primaries: at least this many backups must be able to serve.
    BackupsAlone(usize),
    /// `fail_open` has begun: every enabled upstream serves, healthy or not.
    FailOpen,
}

/// Why an order needs force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedsForce {
    /// The pool.
    pub pool: Name,
    /// The upstream.
    pub upstream: Address,
    /// How many would serve after the order.
    pub left: usize,
    /// How many must serve (`min_healthy`).
    pub needed: usize,
    /// What happens to requests when none serves.
    pub otherwise: WhenNoHealthy,
}

impl Rule {
    /// How many serve.
    fn serving(self, able: Able) -> usize {
        match self {
            // Removed primaries may still serve where the configuration has none.
            Rule::AtLeast(needed) | Rule::BackupsAlone(needed) if able.primaries >= needed.max(1) => able.primaries,
            Rule::AtLeast(_) => able.backups,
            Rule::BackupsAlone(needed) if able.backups < needed => 0,
            Rule::BackupsAlone(_) => able.backups,
            Rule::FailOpen => able.primaries + able.backups,
        }
    }

    /// How many must serve.
    pub fn needed(self) -> usize {
        match self {
            Rule::AtLeast(needed) | Rule::BackupsAlone(needed) => needed.max(1),
            Rule::FailOpen => 1,
        }
    }

    /// Whether so many are enough.
    pub fn is_enough(self, able: Able) -> bool {
        self.serving(able) >= self.needed()
    }

    /// How many would serve after an order that leaves `after` of `before`, if the order needs force.
    pub fn left_too_few(self, before: Able, after: Able) -> Option<usize> {
        let (served, left) = (self.serving(before), self.serving(after));
        (left < served && left < self.needed()).then_some(left)
    }
}

impl fmt::Display for NeedsForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NeedsForce { pool, upstream, left, needed, otherwise } = self;
        if *left > 0 {
            let is = if *left == 1 { "upstream" } else { "upstreams" };
            return write!(
                f,
                "without {upstream}, pool {pool} would serve from {left} {is}; min_healthy requires {needed}"
            );
        }
        write!(f, "without {upstream}, no upstream of pool {pool} would serve")?;
        if *needed > 1 {
            write!(f, " (min_healthy requires {needed})")?;
        }
        f.write_str(": ")?;
        match otherwise {
            WhenNoHealthy::Reject => f.write_str("its requests would get 503"),
            WhenNoHealthy::FailOpen => {
                f.write_str("its requests would go to upstreams that are not healthy (fail_open)")
            }
            WhenNoHealthy::Pool(other) => write!(f, "its requests would go to pool {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_needs_force_only_if_it_leaves_too_few_upstreams() {
        use Rule::{AtLeast, BackupsAlone, FailOpen};
        let able = |(primaries, backups)| Able { primaries, backups };
        for (rule, before, after, left) in [
            (AtLeast(1), (2, 0), (1, 0), None),
            (AtLeast(1), (1, 0), (0, 0), Some(0)),
            (AtLeast(1), (1, 1), (0, 1), None),
            (AtLeast(1), (0, 1), (0, 0), Some(0)),
            (AtLeast(1), (0, 2), (0, 1), None),
            // None serves, and none is taken out.
            (AtLeast(1), (0, 0), (0, 0), None),
            (AtLeast(2), (3, 0), (2, 0), None),
            // The pool closes at once, though one is healthy.
            (AtLeast(2), (2, 0), (1, 0), Some(0)),
            (AtLeast(2), (2, 1), (1, 1), Some(1)),
            (AtLeast(2), (2, 2), (1, 2), None),
            // Its one primary is not in use.
            (AtLeast(2), (1, 3), (0, 3), None),
            (AtLeast(2), (1, 0), (0, 0), None),
            (AtLeast(2), (0, 2), (0, 1), Some(1)),
            // `min_healthy` as a share of zero upstreams.
            (AtLeast(0), (1, 0), (0, 0), Some(0)),
            (BackupsAlone(1), (0, 2), (0, 1), None),
            (BackupsAlone(1), (0, 1), (0, 0), Some(0)),
            (BackupsAlone(2), (0, 2), (0, 1), Some(0)),
            (BackupsAlone(2), (0, 1), (0, 0), None),
            (BackupsAlone(1), (1, 0), (0, 0), Some(0)),
            (BackupsAlone(1), (1, 1), (0, 1), None),
            (FailOpen, (2, 0), (1, 0), None),
            (FailOpen, (1, 1), (0, 1), None),
            (FailOpen, (1, 0), (0, 0), Some(0)),
        ] {
            assert_eq!(rule.left_too_few(able(before), able(after)), left, "{rule:?}: {before:?} to {after:?}");
        }
    }

    #[test]
    fn the_reason_says_what_requests_would_get() {
        let reason = NeedsForce {
            pool: Name::try_new("api").unwrap(),
            upstream: "10.0.0.1:80".parse().unwrap(),
            left: 0,
            needed: 1,
            otherwise: WhenNoHealthy::Reject,
        };
        let head = "without 10.0.0.1:80, no upstream of pool api would serve: its requests would";
        assert_eq!(reason.to_string(), format!("{head} get 503"));
        let other = NeedsForce { otherwise: WhenNoHealthy::Pool(Name::try_new("web").unwrap()), ..reason.clone() };
        assert_eq!(other.to_string(), format!("{head} go to pool web"));
        let open = NeedsForce { otherwise: WhenNoHealthy::FailOpen, ..reason.clone() };
        assert_eq!(open.to_string(), format!("{head} go to upstreams that are not healthy (fail_open)"));
        let few = NeedsForce { left: 1, needed: 2, ..reason };
        assert_eq!(
            few.to_string(),
            "without 10.0.0.1:80, pool api would serve from 1 upstream; min_healthy requires 2"
        );
    }
}
