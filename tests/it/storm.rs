//! Storms: the real program among origins that die, hang, fail and mend, under edits, renames, orders, host names that
//! change, stops and storms of reloads, all drawn from one seed; and an oracle that knows what may not happen.
//!
//! ```text
//! plan ── acts ──► world ── evidence ──► oracle ──► violations
//!                 origins, clients, watch        history: how things stood at every moment
//! ```
//!
//! In the suite there is a storm of 10 s in each lane. `ROUNDSMAN_STORM_SEED=7 ROUNDSMAN_STORM_ACTS=30` repeats one; with
//! `ROUNDSMAN_STORM_SECONDS` alone there are storms of fresh seeds for so long. A seed fixes the script and not the threads:
//! what it found may need more than one run.

mod clients;
mod ending;
pub mod evidence;
mod history;
pub mod model;
mod oracle;
mod plan;
pub mod watch;
mod world;

use std::time::Duration;

use evidence::{End, Evidence};
use model::At;
use oracle::{Violation, judge};
use plan::Plan;
use roundsman::model::policy::Lane;
use tokio::time::Instant;
use world::World;

use crate::lanes::each::{self, in_each_lane};

/// How long one storm takes, without the calm after it.
const STORM: Duration = Duration::from_secs(10);
/// What is shown of the time after a violation.
const AFTERMATH: Duration = Duration::from_secs(1);
/// The seed of the suite.
const SEED: u64 = 8;
/// Fewer answers than this show nothing.
const ANSWERS_MIN: usize = 100;
/// Fewer samples of the status than this show nothing.
const SAMPLES_MIN: usize = 20;

/// What storms have found, each a short one.
const FOUND: &[Found] = &[
    Found { seed: 2, acts: 4, what: "503 on a listener that moved while the pool of its requests went" },
    Found { seed: 1, acts: 22, what: "504 instead of a second try, because the pool was renamed meanwhile" },
    Found { seed: 44, acts: 13, what: "503 with min_healthy 2: one healthy member let those go that served" },
    Found { seed: 67, acts: 20, what: "a second try in a pool that had gone and come back as another service's" },
    Found { seed: 63, acts: 13, what: "a request at an upstream that became unhealthy while it was dialled" },
];

/// A seed that broke the promise once, and how many of its acts it takes: how many fit into a time depends on the machine.
struct Found {
    seed: u64,
    acts: usize,
    what: &'static str,
}

/// How long a storm lasts, its calm aside.
#[derive(Debug, Clone, Copy)]
enum Length {
    Time(Duration),
    Acts(usize),
}

in_each_lane!(a_storm_breaks_no_promise, flavor = "multi_thread");
async fn a_storm_breaks_no_promise() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let time = number("ROUNDSMAN_STORM_SECONDS").map(Duration::from_secs);
    let acts = number("ROUNDSMAN_STORM_ACTS").map(|acts| usize::try_from(acts).expect("a number of acts"));
    match (number("ROUNDSMAN_STORM_SEED"), acts, time) {
        (Some(seed), Some(acts), _) => hold(seed, Length::Acts(acts), "as asked for").await,
        (Some(seed), None, time) => hold(seed, Length::Time(time.unwrap_or(STORM)), "as asked for").await,
        (None, _, None) => hold(SEED, Length::Time(STORM), "of the suite").await,
        (None, _, Some(time)) => {
            let end = Instant::now() + time;
            while Instant::now() < end {
                hold(fastrand::u64(..1 << 32), Length::Time(STORM), "a fresh one").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_storms_have_found_is_mended() {
    for (number, found) in FOUND.iter().enumerate() {
        let lane = if number % 2 == 0 { Lane::Auto } else { Lane::General };
        each::run(lane, hold(found.seed, Length::Acts(found.acts), found.what)).await;
    }
}

/// One storm; panics with what it broke.
async fn hold(seed: u64, length: Length, what: &str) {
    let mut world = World::start(seed).await;
    let mut plan = Plan::new(seed, world.names);
    let begin = Instant::now();
    let mut acts = 0;
    while match length {
        Length::Time(time) => begin.elapsed() < time,
        Length::Acts(most) => acts < most,
    } {
        let (act, quiet) = plan.next();
        world.act(act).await;
        acts += 1;
        tokio::time::sleep(quiet).await;
    }
    let (evidence, mut violations) = world.calm().await;
    violations.extend(judge(&evidence));
    let count = |end: fn(&End) -> bool| evidence.outcomes.iter().filter(|outcome| end(&outcome.end)).count();
    let answered = count(|end| *end == End::Answered);
    let sum = format!(
        "storm {seed} ({what}): {acts} acts, {} configurations, {} transitions, {} requests: {answered} answered, {} \
         refused or broken by us, {} that broke; {} standstills",
        evidence.configs.len(),
        evidence.transitions.len(),
        evidence.outcomes.len(),
        count(|end| matches!(end, End::Own(..))),
        count(|end| matches!(end, End::Cut | End::Closed { .. } | End::NoConnection | End::GaveUp)),
        evidence.standstills.len(),
    );
    eprintln!("{sum}");
    let samples = evidence.samples.len();
    let shown = answered > ANSWERS_MIN && evidence.configs.len() > 1 && samples > SAMPLES_MIN;
    assert!(shown, "nothing was shown, with {samples} samples of the status: {sum}");
    assert!(
        violations.is_empty(),
        "{sum}\n{}\nagain: ROUNDSMAN_STORM_SEED={seed} ROUNDSMAN_STORM_ACTS={acts} cargo test --test it storm::a_storm",
        described(&evidence, &violations)
    );
}

/// The violations, each among what happened around it.
fn described(evidence: &Evidence, violations: &[Violation]) -> String {
    let mut text = String::new();
    for Violation { rule, at, what } in violations {
        text += &format!("\n{rule} at {at:?}: {what}\n");
        let since = at.saturating_sub(Duration::from_secs(4));
        let mut lines: Vec<(At, String)> =
            evidence.diary.iter().filter(|(when, _)| (since..=*at + AFTERMATH).contains(when)).cloned().collect();
        let near = evidence.transitions.iter().filter(|t| (since..=*at + AFTERMATH).contains(&t.at));
        lines.extend(near.map(|t| (t.at, format!("{} {} {} to {}", t.pool, t.origin, t.from, t.to))));
        lines.sort_by_key(|(when, _)| *when);
        text.extend(lines.iter().map(|(when, line)| format!("    {when:.3?} {line}\n")));
    }
    text
}
