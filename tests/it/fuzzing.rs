//! The fuzz targets on a stable compiler: random bytes, and seeds (real answers of real systems for the response reader),
//! changed, cut and joined, in random pieces. `fuzz/` drives the same properties with a fuzzer;
//! `ROUNDSMAN_FUZZ_SECONDS=600` runs each test here for so long.

mod answer;
mod chunks;
mod pipeline;
mod property;
mod request;
pub mod strict;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::time::Instant;

use crate::systems::real_answers;

/// One change of an answer; places are shares of its length, so that they fit any.
#[derive(Debug, Clone)]
enum Change {
    /// Sets a byte.
    Set(f64, u8),
    /// Inserts bytes.
    Insert(f64, Vec<u8>),
    /// Removes a number of bytes.
    Remove(f64, usize),
    /// Repeats a number of bytes.
    Repeat(f64, usize),
    /// Cuts the rest off.
    Truncate(f64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |share: &f64| ((bytes.len() as f64) * share) as usize;
        match self {
            Change::Set(at, byte) => {
                let at = place(at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Change::Insert(at, new) => {
                let at = place(at);
                drop(bytes.splice(at..at, new.iter().copied()));
            }
            Change::Remove(at, length) => {
                let at = place(at);
                let end = (at + length).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            Change::Repeat(at, length) => {
                let at = place(at);
                let piece = bytes[at..(at + length).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            Change::Truncate(at) => bytes.truncate(place(at)),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let place = || 0.0..1.0_f64;
    // Parts of responses, more often than random bytes.
    let token = prop_oneof![
        Just(&b"\r\n"[..]),
        Just(&b"\n"[..]),
        Just(&b"\0"[..]),
        Just(&b"Content-Length: 5\r\n"[..]),
        Just(&b"Content-Length: 18446744073709551616\r\n"[..]),
        Just(&b"Transfer-Encoding: chunked\r\n"[..]),
        Just(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]),
        Just(&b"HTTP/1.0 204 \r\n\r\n"[..]),
        Just(&b"ffffffffffffffff\r\n"[..]),
        Just(&b"\r\n folded\r\n"[..]),
        Just(&b" :"[..]),
        Just(&b"5 ;a=b\r\nready\r\n"[..]),
        Just(&b"0\r\n\r\n"[..]),
        Just(&b"ready"[..]),
        Just(&b"Connection: X-Forwarded-Proto, close\r\n"[..]),
        Just(&b"Host: b.example:80\r\n"[..]),
        Just(&b"GET http://a.example/x?y HTTP/1.1\r\n"[..]),
        Just(&b"Upgrade: websocket\r\nConnection: upgrade\r\n"[..]),
    ];
    let noise = prop::collection::vec(any::<u8>(), 0..12);
    let text = prop_oneof![3 => token.prop_map(<[u8]>::to_vec), 1 => noise];
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        4 => (place(), text).prop_map(|(at, text)| Change::Insert(at, text)),
        2 => (place(), 0..40_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        2 => (place(), 0..400_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
        1 => place().prop_map(Change::Truncate),
    ]
}

fn run<S: Strategy>(cases: u32, strategy: S, hold: impl Fn(S::Value)) {
    // Failures are shown whole; no file of them is written beside the sources.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let hold = |value| {
        hold(value);
        Ok::<_, TestCaseError>(())
    };
    let time = std::env::var("ROUNDSMAN_FUZZ_SECONDS").ok().map(|text| text.parse().expect("a number"));
    let end = Instant::now() + Duration::from_secs(time.unwrap_or(0));
    loop {
        if let Err(failure) = TestRunner::new(config.clone()).run(&strategy, hold) {
            panic!("{failure}");
        }
        if Instant::now() >= end {
            return;
        }
    }
}

/// The seeds of a target, changed.
fn seeds_changed(target: &str) -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let seeds: Vec<Vec<u8>> = read_seeds(target).into_values().collect();
    let changed =
        (prop::sample::select(seeds), prop::collection::vec(change(), 0..8)).prop_map(|(mut bytes, changes)| {
            changes.iter().for_each(|change| change.apply(&mut bytes));
            bytes
        });
    (changed, cuts())
}

fn read_seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("an entry");
        (entry.file_name().into_string().expect("UTF-8"), fs::read(entry.path()).expect("a seed"))
    };
    fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())).map(read).collect()
}

#[test]
fn heads_of_requests_go_upstream_in_one_sense_only() {
    let bytes = prop::collection::vec(any::<u8>(), 0..600);
    let headed = bytes.prop_map(|bytes| [&b"GET / HTTP/1.1\r\nHost: a\r\n"[..], &bytes, b"\r\n\r\n"].concat());
    run(500, (headed, cuts()), |(bytes, cuts)| request::holds_in_pieces(&bytes, &cuts));
    run(1_500, seeds_changed("request"), |(bytes, cuts)| request::holds_in_pieces(&bytes, &cuts));
    read_seeds("request").values().for_each(|seed| request::holds(seed));
}

#[test]
fn chunks_are_read_the_same_however_they_are_cut() {
    run(1_500, seeds_changed("chunks"), |(bytes, cuts)| chunks::holds_in_pieces(&bytes, &cuts));
    read_seeds("chunks").values().for_each(|seed| chunks::holds(seed));
}

#[test]
fn responses_reach_a_client_in_one_sense_only() {
    run(1_000, seeds_changed("response"), |(bytes, cuts)| answer::holds_in_pieces(&bytes, &cuts));
    run(1_000, seeds_changed("answer"), |(bytes, cuts)| answer::holds_in_pieces(&bytes, &cuts));
    read_seeds("answer").values().for_each(|seed| answer::holds(seed));
}

#[test]
fn each_byte_of_a_stream_belongs_to_one_request() {
    run(300, seeds_changed("pipeline"), |(bytes, cuts)| pipeline::holds_in_pieces(&bytes, &cuts));
    read_seeds("pipeline").values().for_each(|seed| pipeline::holds(seed));
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![4 => 0..48_usize, 1 => 0..2_000_usize], 1..16)
}

#[test]
fn random_bytes_never_panic_and_parse_the_same_in_any_pieces() {
    let bytes = prop::collection::vec(any::<u8>(), 0..3_000);
    let headed = bytes.clone().prop_map(|bytes| [&b"HTTP/1.1 200 OK\r\n"[..], &bytes].concat());
    run(1_000, (prop_oneof![bytes, headed], cuts()), |(bytes, cuts)| {
        property::holds_in_pieces(&bytes, &cuts);
        property::has_a_canonical_form(&bytes);
    });
}

#[test]
fn mutated_answers_of_real_systems_never_panic_and_parse_the_same_in_any_pieces() {
    let answers: Vec<Vec<u8>> = real_answers().into_values().collect();
    let answer = prop::sample::select(answers);
    let changed = (answer, prop::collection::vec(change(), 0..8)).prop_map(|(mut bytes, changes)| {
        changes.iter().for_each(|change| change.apply(&mut bytes));
        bytes
    });
    run(3_000, (changed, cuts()), |(bytes, cuts)| {
        property::holds_in_pieces(&bytes, &cuts);
        property::holds(&bytes);
    });
}

/// Sizes around every limit of the reader: heads of 64 KiB, 200 fields, 16 interim answers, bodies of 64 KiB.
#[test]
fn answers_around_the_limits_parse_the_same_in_any_pieces() {
    let head = |fields: usize, length: usize| {
        let fields: String = (0..fields).map(|n| format!("F{n}: {}\r\n", "x".repeat(length))).collect();
        format!("HTTP/1.1 200 OK\r\n{fields}\r\nready")
    };
    let interim = |count: usize| "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count) + &head(1, 1);
    let body = |length: usize| format!("HTTP/1.1 200 OK\r\n\r\n{}ready", "x".repeat(length));
    let mut answers = Vec::new();
    answers.extend([199, 200, 201].map(|fields| head(fields, 1)));
    answers.extend((65_470..65_550).step_by(9).map(|length| head(1, length)));
    answers.extend([15, 16, 17].map(interim));
    answers.extend((65_525..65_541).step_by(3).map(body));
    for answer in answers {
        for cuts in [&[4_096][..], &[16_384], &[7, 4_096, 1]] {
            property::holds_in_pieces(answer.as_bytes(), cuts);
        }
    }
}

#[test]
fn the_seeds_of_the_fuzzer_are_the_real_answers() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/response");
    let answers = real_answers();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(&directory).expect("a directory");
        for entry in fs::read_dir(&directory).expect("the seeds") {
            fs::remove_file(entry.expect("an entry").path()).expect("remove a seed");
        }
        for (name, answer) in &answers {
            fs::write(directory.join(name), answer).expect("write a seed");
        }
    }
    let seeds = read_seeds("response");
    let (seeds, answers): (Vec<_>, Vec<_>) = (seeds.into_iter().collect(), answers.into_iter().collect());
    assert!(seeds == answers, "fuzz/seeds differs from the answers in tests/it/systems: UPDATE_EXPECT=1 writes it");
    for (_, seed) in seeds {
        property::holds(&seed);
    }
}
