//! Chunks with any bytes. The property is in `tests/it/fuzzing/chunks.rs`, which the tests run
//! on a stable compiler too.

#![no_main]

#[path = "../../tests/it/fuzzing/chunks.rs"]
#[allow(dead_code)]
mod chunks;
#[path = "../../tests/it/fuzzing/strict.rs"]
#[allow(dead_code)]
mod strict;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chunks::holds(bytes));
