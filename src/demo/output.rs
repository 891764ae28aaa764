//! The output of the demo. A closed output (`| head`, a closed terminal) ends the demo quietly; it never panics.

use std::io::{self, Write as _};

use nix::errno::Errno;

use super::Ended;

/// Prints one line, or several, and flushes.
pub fn line(text: &str) -> Result<(), Ended> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(on_error)
}

fn on_error(error: io::Error) -> Ended {
    // A closed terminal returns EIO, a closed pipe EPIPE.
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ended::OutputClosed,
        _ if error.raw_os_error() == Some(Errno::EIO as i32) => Ended::OutputClosed,
        _ => Ended::Problem(format!("cannot write to stdout: {error}")),
    }
}
