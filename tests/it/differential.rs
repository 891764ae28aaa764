//! The same bytes through both lanes: random requests, valid and invalid, cut at random places, to an origin whose
//! responses are random too. What arrives at the origin and what the client gets must agree, apart from [`compare::ALLOWED`].
//! Of each lane alone, [`rules`] holds whatever the bytes are.
//!
//! ```text
//! seed ── stream, answers ──► run, once in each lane ──► seen ──► rules, compare
//! ```
//!
//! In the suite this takes about 10 s and begins with the same seed each time. `ROUNDSMAN_SEED=7` repeats one case and prints
//! it; `ROUNDSMAN_DIFF_SECONDS=600` runs fresh seeds for so long. What was found is in [`FOUND`].
//!
//! Client, data plane and origin share one thread, so that the order of events hardly depends on the machine.

mod answers;
mod compare;
mod origin;
mod rules;
mod run;
mod stream;
mod tags;

use std::time::Duration;

use roundsman::model::policy::Lane;
use tokio::time::Instant;

use answers::Answers;
use compare::ALLOWED;
use run::{Patience, Seen};
use stream::Stream;

/// How long the cases of the suite take.
const TIME: Duration = Duration::from_secs(8);
/// Fewer cases than this in that time show nothing.
const CASES_MIN: u64 = 20;

/// Seeds that have shown a fault once.
const FOUND: &[u64] = &[
    // A connection with unread bytes was closed by a reset, after a response that only its end ended.
    15_104_616_059_699,
    15_104_616_060_664,
    // The general lane sent a request again in one chunk that had come in two, and without chunks when there was no data.
    237_914_175_289_949,
    237_914_175_304_911,
    237_914_175_306_166,
    // The general lane kept connections to an upstream that had sent bytes after a response.
    174_074_465_937_631,
    174_074_465_968_702,
    // The client was reset while it wrote, and then read an end.
    174_074_465_937_657,
];

#[test]
fn both_lanes_do_the_same_with_any_bytes() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("ROUNDSMAN_SEED") {
        let case = Case::new(seed);
        eprintln!("{case}");
        if let Err(why) = case.check() {
            panic!("{why}");
        }
        return;
    }
    let long = number("ROUNDSMAN_DIFF_SECONDS").map(Duration::from_secs);
    let end = Instant::now() + long.unwrap_or(TIME);
    let fresh = if long.is_some() { fastrand::u64(1 << 32..1 << 48) } else { 1 };
    let mut failed = Vec::new();
    let mut cases = 0;
    for seed in FOUND.iter().copied().chain(fresh..) {
        if Instant::now() > end && cases >= CASES_MIN {
            break;
        }
        let case = Case::new(seed);
        if let Err(why) = case.check() {
            eprintln!("{case}\n{why}\n");
            failed.push(seed);
        }
        cases += 1;
    }
    eprintln!("{cases} cases");
    let allowed: Vec<String> =
        ALLOWED.iter().map(|allowed| format!("{:?}: {}", allowed.difference, allowed.difference.why())).collect();
    assert!(
        failed.is_empty(),
        "of {cases} cases these failed; again: ROUNDSMAN_SEED=… for one of {failed:?}. Only this may differ:\n{}",
        allowed.join("\n")
    );
}

/// What one seed stands for.
struct Case {
    seed: u64,
    stream: Stream,
    answers: Answers,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut rng = fastrand::Rng::with_seed(seed);
        let stream = Stream::new(tags::TAGS[0], &mut rng);
        Case { seed, stream, answers: Answers::new(&mut rng) }
    }

    /// Runs it in both lanes. Where only the end of the client's connection decides how far a lane has come, and the lanes
    /// differ, it runs again with more time before that end.
    fn check(&self) -> Result<(), String> {
        let mut why = String::new();
        for patience in [Patience::SHORT, Patience::LONG] {
            let express = self.run(Lane::Auto, patience);
            let general = self.run(Lane::General, patience);
            let result = rules::hold(&express)
                .map_err(|why| format!("express: {why}"))
                .and_then(|()| rules::hold(&general).map_err(|why| format!("general: {why}")))
                .and_then(|()| compare::compare(&express, &general))
                .map_err(|why| format!("seed {}: {why}\n-- express\n{express}\n-- general\n{general}", self.seed));
            match result {
                Ok(()) => return Ok(()),
                Err(this) => why = this,
            }
            if !express.was_left && !general.was_left {
                break;
            }
        }
        Err(why)
    }

    fn run(&self, lane: Lane, patience: Patience) -> Seen {
        run::run(lane, &self.stream, &self.answers, self.seed, patience)
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}: the client sends, cut at {:?}", self.seed, self.stream.cuts)?;
        writeln!(f, "{}", self.stream.bytes.escape_ascii().to_string().replace("\\n", "\\n\n"))?;
        write!(f, "{}", self.answers)
    }
}
