//! Where the lines of the access log go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::policy::AccessTarget;

/// The pause after a write would block (a non-blocking pipe).
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// Facility local7, severity info (RFC 5424, 6.2.1), as nginx writes.
const PRIORITY: &str = "<190>";

/// An output that is open.
#[derive(Debug)]
pub struct Output {
    kind: Kind,
    /// The last line was written only in part.
    torn: bool,
}

#[derive(Debug)]
enum Kind {
    Stdout,
    File(PathBuf, File),
    Syslog(PathBuf, UnixDatagram),
}

/// An output that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("access_log: {}: {error}", .path.display())]
pub struct OpenError {
    path: PathBuf,
    error: io::Error,
}

impl Output {
    /// Opens it. A file is made if it is not there, and written at its end.
    ///
    /// # Errors
    /// The file cannot be opened, or nobody listens on the socket of the syslog.
    pub fn open(target: &AccessTarget) -> Result<Output, OpenError> {
        let kind = match target {
            AccessTarget::Stdout => Kind::Stdout,
            AccessTarget::File(path) => {
                let file = open_file(path).map_err(|error| OpenError { path: path.clone(), error })?;
                Kind::File(path.clone(), file)
            }
            AccessTarget::Syslog(path) => {
                let socket = connect(path).map_err(|error| OpenError { path: path.clone(), error })?;
                Kind::Syslog(path.clone(), socket)
            }
        };
        Ok(Output { kind, torn: false })
    }

    /// Opens the file anew.
    ///
    /// # Errors
    /// It cannot be opened; the old one stays open.
    pub(super) fn reopen(&mut self) -> Result<(), OpenError> {
        match &mut self.kind {
            Kind::Stdout => {}
            Kind::File(path, file) => {
                *file = open_file(path).map_err(|error| OpenError { path: path.clone(), error })?;
                self.torn = false;
            }
            Kind::Syslog(path, socket) => {
                *socket = connect(path).map_err(|error| OpenError { path: path.clone(), error })?;
            }
        }
        Ok(())
    }

    /// Writes whole lines; returns how many of them are lost.
    pub(super) fn write_lines(&mut self, batch: &[u8]) -> u64 {
        match &mut self.kind {
            Kind::Stdout => write_stream(&mut io::stdout().lock(), &mut self.torn, batch),
            Kind::File(_, file) => write_stream(file, &mut self.torn, batch),
            Kind::Syslog(path, socket) => {
                let mut lost = 0;
                for line in batch.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                    lost += u64::from(!send(path, socket, line));
                }
                lost
            }
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// Sends one line; a syslog that has been restarted is connected to again.
fn send(path: &Path, socket: &mut UnixDatagram, line: &[u8]) -> bool {
    let mut datagram = format!("{PRIORITY}roundsman[{}]: ", std::process::id()).into_bytes();
    datagram.extend_from_slice(line);
    if socket.send(&datagram).is_ok() {
        return true;
    }
    match connect(path) {
        Ok(again) => {
            *socket = again;
            socket.send(&datagram).is_ok()
        }
        Err(_) => false,
    }
}

/// Writes as much as possible, and ends a torn line first, so that the next one can be read.
fn write_stream(to: &mut impl Write, torn: &mut bool, batch: &[u8]) -> u64 {
    if *torn && write(to, b"\n") == 1 {
        *torn = false;
    }
    let written = write(to, batch);
    *torn |= written > 0 && batch[written - 1] != b'\n';
    batch[written..].iter().filter(|b| **b == b'\n').count() as u64
}

fn write(to: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // New lines gather in the bounded buffers meanwhile.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY_AFTER),
            Err(_) => break,
        }
    }
    let _ = to.flush();
    written
}
