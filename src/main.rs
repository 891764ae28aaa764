//! The `roundsman` binary: the allocator, SIGHUP from the first instruction, and then the command line.

use std::process::ExitCode;

use roundsman::cli;

// Its background threads return unused memory to the system even without load: see `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // First, because SIGHUP ends the process until this line, and a supervisor may send it early.
    let hangup = cli::Hangup::watch();
    cli::main(&hangup)
}
