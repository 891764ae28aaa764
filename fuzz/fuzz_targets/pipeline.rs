//! A stream of requests with any bytes. The property is in `tests/it/fuzzing/pipeline.rs`, which the tests run
//! on a stable compiler too.

#![no_main]

#[path = "../../tests/it/fuzzing/pipeline.rs"]
#[allow(dead_code)]
mod pipeline;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipeline::holds(bytes));
