//! Question: what does one pick cost, and does it stay the same from 3 upstreams to 10,000? And what does it cost to
//! build a picker, which is done whenever the eligible set of a pool changes?
//!
//! `pick/ALGORITHM/N` is the usual case (nothing tried yet); `retry` skips one tried slot; `build` makes the picker.
//! Weights are 1 to 4, the loads a table of small numbers.

use std::hint::black_box;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use roundsman::balance::hashing::hash;
use roundsman::balance::{Picker, Slots};
use roundsman::model::policy::{Balance, LoadBound};
use roundsman::model::{FineWeight, Weight};

const ALGORITHMS: [Balance; 7] = [
    Balance::RoundRobin,
    Balance::Random,
    Balance::LeastRequest,
    Balance::PeakEwma,
    Balance::Hash(LoadBound::DEFAULT),
    Balance::Maglev(LoadBound::DEFAULT),
    Balance::First,
];

fn weights(n: usize) -> Vec<FineWeight> {
    (0..n).map(|i| Weight::try_new(1 + i as i64 % 4).expect("1 to 4").into()).collect()
}

/// Slots with some load, of which one is skipped or none.
struct Loaded {
    loads: Vec<u32>,
    all: u64,
    skipped: Option<usize>,
}

impl Slots for Loaded {
    fn load(&self, index: usize) -> u32 {
        self.loads[index]
    }

    fn load_of_all(&self) -> u64 {
        self.all
    }

    fn latency(&self, index: usize) -> f32 {
        self.loads[index] as f32 / 100.0
    }

    fn skips(&self, index: usize) -> bool {
        self.skipped == Some(index)
    }
}

fn benches(c: &mut Criterion) {
    for balance in ALGORITHMS {
        let name = balance.as_str();
        for n in [3, 100, 10_000] {
            let weights = weights(n);
            let names: Vec<u64> = (0..n).map(|i| hash(format!("10.0.0.1:{i}").as_bytes())).collect();
            let picker = Picker::build(balance, &weights, &names);
            let loads: Vec<u32> = (0..n as u32).map(|i| i * 7 % 5).collect();
            let all = loads.iter().map(|load| u64::from(*load)).sum();
            let mut slots = Loaded { loads, all, skipped: None };
            let cursor = AtomicUsize::new(0);
            let mut rng = fastrand::Rng::with_seed(1);
            let mut key = 0u64;
            c.bench_function(&format!("pick/{name}/{n}"), |b| {
                b.iter(|| {
                    key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    picker.pick(&cursor, &slots, Some(key), &mut rng)
                });
            });
            slots.skipped = black_box(Some(0));
            c.bench_function(&format!("retry/{name}/{n}"), |b| {
                b.iter(|| {
                    key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    picker.pick_other(&slots, Some(key), &mut rng)
                });
            });
            let input = (&weights, &names);
            c.bench_with_input(BenchmarkId::new(format!("build/{name}"), n), &input, |b, (weights, names)| {
                b.iter(|| Picker::build(balance, weights, names));
            });
        }
    }
}

criterion_group! {
    name = group;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = benches
}
criterion_main!(group);
