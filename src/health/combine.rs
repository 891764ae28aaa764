//! The joint verdict of several checks of one upstream (health.md, "Several checks"), and which check decides. Pure,
//! and the only place that knows `require`.
//!
//! A check without a verdict does not vote: the upstream is healthy once enough checks are, unhealthy once enough can
//! no longer be, and unknown in between. While a state is carried, it is carried in between.

use crate::model::HealthState;
use crate::model::policy::Require;

/// The vote of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// Its own verdict.
    pub state: HealthState,
    /// Whether a run against that verdict is open.
    pub contested: bool,
}

/// The state of an upstream whose checks have the verdicts `votes`. A single check decides alone, whatever is required.
pub fn combine(votes: impl IntoIterator<Item = HealthState>, require: Require) -> HealthState {
    let (mut total, mut healthy, mut unhealthy) = (0, 0, 0);
    for vote in votes {
        total += 1;
        match vote {
            HealthState::Healthy => healthy += 1,
            HealthState::Unhealthy => unhealthy += 1,
            HealthState::Unknown => {}
        }
    }
    let needed = require.needed(total);
    if healthy >= needed {
        HealthState::Healthy
    } else if total - unhealthy < needed {
        HealthState::Unhealthy
    } else {
        HealthState::Unknown
    }
}

/// The index of the check that decides the result of [`combine`]: of a healthy upstream the one that may end it next,
/// of an unhealthy one the first that failed, of an unknown one the first without a verdict. 0 if all are alike.
pub fn decides(votes: &[Vote], require: Require) -> usize {
    let first = |state: HealthState| votes.iter().position(|vote| vote.state == state);
    let contested = || votes.iter().position(|vote| vote.state == HealthState::Healthy && vote.contested);
    let state = combine(votes.iter().map(|vote| vote.state), require);
    let healthy = votes.iter().filter(|vote| vote.state == HealthState::Healthy).count();
    let found = match state {
        HealthState::Healthy if healthy == require.needed(votes.len()) => contested().or_else(|| first(state)),
        HealthState::Healthy | HealthState::Unhealthy | HealthState::Unknown => first(state),
    };
    found.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states(text: &str) -> Vec<HealthState> {
        let state = |c| match c {
            'H' | 'h' => HealthState::Healthy,
            'U' => HealthState::Unhealthy,
            '?' => HealthState::Unknown,
            other => panic!("no such state: {other}"),
        };
        text.chars().map(state).collect()
    }

    /// `h` is healthy with a run of failures open.
    fn votes(text: &str) -> Vec<Vote> {
        let contested = text.chars().map(|c| c == 'h');
        states(text).into_iter().zip(contested).map(|(state, contested)| Vote { state, contested }).collect()
    }

    #[test]
    fn the_table_of_several_checks() {
        let count = Require::Count;
        for (checks, require, want) in [
            ("H", Require::All, "H"),
            ("U", Require::Any, "U"),
            ("?", count(1), "?"),
            // all: unhealthy if one is unhealthy, healthy if every one is healthy
            ("HH", Require::All, "H"),
            ("HU", Require::All, "U"),
            ("H?", Require::All, "?"),
            ("U?", Require::All, "U"),
            ("??", Require::All, "?"),
            // any: healthy if one is, unhealthy if all are
            ("HU", Require::Any, "H"),
            ("H?", Require::Any, "H"),
            ("U?", Require::Any, "?"),
            ("UU", Require::Any, "U"),
            // n: healthy if n are, unhealthy when n can no longer be reached
            ("HHU", count(2), "H"),
            ("HH?", count(2), "H"),
            ("HU?", count(2), "?"),
            ("UU?", count(2), "U"),
            ("UUH", count(2), "U"),
            ("H??", count(2), "?"),
            ("U???", count(3), "?"),
            ("UU??", count(3), "U"),
            ("HH", count(9), "H"),
        ] {
            assert_eq!(combine(states(checks), require), states(want)[0], "{checks} with {require:?}");
        }
    }

    #[test]
    fn the_check_that_decides_is_the_one_to_look_at() {
        for (checks, require, want) in [
            ("HH", Require::All, 0),
            ("Hh", Require::All, 1),
            ("HUU", Require::All, 1),
            ("HU?", Require::All, 1),
            ("H??", Require::All, 1),
            ("UH", Require::Any, 1),
            ("Uh", Require::Any, 1),
            // Another is still healthy when the contested one fails.
            ("Hh", Require::Any, 0),
            ("UU", Require::Any, 0),
            ("U?", Require::Any, 1),
            ("HhU", Require::Count(2), 1),
            ("HU?", Require::Count(2), 2),
        ] {
            assert_eq!(decides(&votes(checks), require), want, "{checks} with {require:?}");
        }
    }

    proptest! {
        /// Unknown means exactly that the missing verdicts could still turn it either way.
        #[test]
        fn unknown_is_what_missing_verdicts_can_still_turn(text in "[HU?]{1,5}", n in 1u32..6, kind in 0..3) {
            let require = match kind { 0 => Require::All, 1 => Require::Any, _ => Require::Count(n) };
            let filled = |with: &str| combine(states(&text.replace('?', with)), require);
            let (best, worst) = (filled("H"), filled("U"));
            let want = if best == worst { best } else { HealthState::Unknown };
            prop_assert_eq!(combine(states(&text), require), want);
            let at = decides(&votes(&text), require);
            prop_assert_eq!(states(&text)[at], want, "the one that decides is in the state that is decided");
        }
    }
}
