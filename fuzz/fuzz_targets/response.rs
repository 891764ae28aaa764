//! The response reader of the checker with any bytes. The property is in `tests/it/fuzzing/property.rs`, which the
//! tests run on a stable compiler too.

#![no_main]

#[path = "../../tests/it/fuzzing/property.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::holds(bytes));
