//! Turns core files off: the memory of this process holds credentials and data of clients.

use std::io::{self, Write};

use nix::sys::resource::{Resource, setrlimit};

/// Sets the limit of core files to 0, soft and hard. Call it before the first secret is read.
///
/// The process stays dumpable for the kernel (`PR_SET_DUMPABLE`): otherwise only root could see its descriptors in
/// `/proc`, and monitoring under its own user needs them. So a program in `core_pattern` is still started;
/// systemd-coredump and apport respect the limit and store nothing.
pub fn forbid() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        // `eprintln!` panics if stderr is closed.
        let _ = writeln!(io::stderr(), "roundsman: cannot turn core files off: {error}");
    }
}
