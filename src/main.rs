//! The `roundsman` binary: the allocator, SIGHUP from the first instruction, and then the command line.

use std::process::ExitCode;

use roundsman::cli;

// Its own threads give back what nobody uses, when it is calm as well: see `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // First of all: until this line SIGHUP would end the process, and a supervisor may send it early.
    let hangup = cli::Hangup::watch();
    cli::main(&hangup)
}
