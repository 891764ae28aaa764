//! Question: what does one pick cost, and does it stay the same from 3 upstreams to 10,000? And what does it cost to
//! build a picker, which is done whenever the eligible set of a pool changes?
//!
//! `pick/ALGORITHM/N` is the usual case (nothing tried yet); `retry` skips one tried slot; `build` makes the picker.
//! Weights are 1 to 4, the loads a table of small numbers.

use std::hint::black_box;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use roundsman::balance::Picker;
use roundsman::model::Weight;
use roundsman::model::policy::Balance;

const ALGORITHMS: [(Balance, &str); 3] =
    [(Balance::RoundRobin, "round_robin"), (Balance::Random, "random"), (Balance::LeastRequest, "least_request")];

fn weights(n: usize) -> Vec<Weight> {
    (0..n).map(|i| Weight::try_new(1 + i as i64 % 4).expect("1 to 4")).collect()
}

fn benches(c: &mut Criterion) {
    for (balance, name) in ALGORITHMS {
        for n in [3, 100, 10_000] {
            let weights = weights(n);
            let picker = Picker::build(balance, &weights);
            let loads: Vec<u32> = (0..n as u32).map(|i| i * 7 % 5).collect();
            let cursor = AtomicUsize::new(0);
            let mut rng = fastrand::Rng::with_seed(1);
            c.bench_function(&format!("pick/{name}/{n}"), |b| {
                b.iter(|| picker.pick(&cursor, |i| loads[i], &mut rng, |_| false));
            });
            let tried = black_box(0);
            c.bench_function(&format!("retry/{name}/{n}"), |b| {
                b.iter(|| picker.pick_other(|i| loads[i], &mut rng, |i| i == tried));
            });
            c.bench_with_input(BenchmarkId::new(format!("build/{name}"), n), &weights, |b, weights| {
                b.iter(|| Picker::build(balance, weights));
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
