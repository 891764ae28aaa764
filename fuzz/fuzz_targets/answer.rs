//! A response on its way to a client, with any bytes. The property is in `tests/it/fuzzing/answer.rs`, which the tests run
//! on a stable compiler too.

#![no_main]

#[path = "../../tests/it/fuzzing/answer.rs"]
#[allow(dead_code)]
mod answer;
#[path = "../../tests/it/fuzzing/strict.rs"]
#[allow(dead_code)]
mod strict;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| answer::holds(bytes));
