//! The response reader of the checker against any bytes. What must hold is `tests/it/fuzzing/property.rs`, which the tests
//! drive on a stable compiler too.

#![no_main]

#[path = "../../tests/it/fuzzing/property.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::holds(bytes));
