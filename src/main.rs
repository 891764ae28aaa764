//! The `roundsman` binary: the allocator, SIGHUP from the first instruction, and then the command line.

use std::process::ExitCode;

use roundsman::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: until this line SIGHUP would end the process, and a supervisor may send it early.
    let hangup = cli::Hangup::watch();
    cli::main(&hangup)
}
