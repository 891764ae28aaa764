//! The head of a request with any bytes. The property is in `tests/it/fuzzing/request.rs`, which the tests run
//! on a stable compiler too.

#![no_main]

#[path = "../../tests/it/fuzzing/request.rs"]
#[allow(dead_code)]
mod request;
#[path = "../../tests/it/fuzzing/strict.rs"]
#[allow(dead_code)]
mod strict;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| request::holds(bytes));
