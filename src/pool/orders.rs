//! An operator's order, and whether it needs force. Pure counting: how many may serve before the order, and how many after
//! it.
//!
//! An order is refused if it would leave a pool without an upstream that serves, or with fewer than `min_healthy`. An
//! order that takes no serving upstream out (a dead upstream is drained for repair) is never refused.

use std::fmt;

use crate::model::policy::WhenNoHealthy;
use crate::model::{Address, AdminState, Name};

/// An operator's order to change the admin state of an upstream.
#[derive(Debug, Clone, Copy)]
pub struct AdminOrder<'a> {
    /// The new state.
    pub to: AdminState,
    /// The operator's reason; may be empty.
    pub reason: &'a str,
    /// The origin of the order, in words.
    pub by: &'a str,
    /// Carry it out even if too few upstreams are left to serve.
    pub force: bool,
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
