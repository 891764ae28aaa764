//! No memory of this process goes to disk when it dies: it holds credentials and what clients have sent.

use std::io::{self, Write};

use nix::sys::resource::{Resource, setrlimit};

/// Sets the limit of core files to nothing, for good. To be called before the first secret is read.
///
/// The process stays dumpable as far as the kernel is concerned (`PR_SET_DUMPABLE`): otherwise nobody but root could see its
/// descriptors below `/proc`, which monitoring under its own user does. So a `core_pattern` that names a program is still
/// started; systemd-coredump and apport respect the limit and keep nothing.
pub fn forbid() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        // `eprintln!` panics where stderr is closed.
        let _ = writeln!(io::stderr(), "roundsman: core files cannot be switched off: {error}");
    }
}
