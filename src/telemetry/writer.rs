//! The thread that writes log lines. Lines come through a bounded queue. If the output is blocked (a full pipe, a
//! frozen terminal) they are dropped and counted, so that logging never delays a request or a probe. Lines that cannot
//! be written (a full disk, a closed pipe) are counted too.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait; more are dropped.
const QUEUE_LINES: usize = 8_192;
/// The most bytes written at once.
const BATCH_BYTES: usize = 64 * 1024;
/// The pause after a write would block (a non-blocking pipe).
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// The longest wait of [`flush`].
const FLUSH_MAX: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);
static QUEUE: OnceLock<Lines> = OnceLock::new();

/// Log lines lost so far: dropped because the output was blocked, or not written.
pub fn dropped_total() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits until everything logged before is written, at most 1 s. Does nothing before logging is set up.
pub fn flush() {
    if let Some(lines) = QUEUE.get() {
        lines.flush(FLUSH_MAX);
    }
}

/// Starts the writer of this process.
pub(super) fn start(to: impl Write + Send + 'static) -> io::Result<Lines> {
    let lines = spawn(to, QUEUE_LINES)?;
    Ok(QUEUE.get_or_init(|| lines).clone())
}

fn spawn(to: impl Write + Send + 'static, queue: usize) -> io::Result<Lines> {
    let (sender, receiver) = sync_channel(queue);
    std::thread::Builder::new().name("log".into()).spawn(move || run(to, &receiver))?;
    Ok(Lines { sender })
}

/// The sending end of the queue.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    sender: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Line(Box<[u8]>),
    Flush(SyncSender<()>),
}

impl Lines {
    fn flush(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        let (done, is_done) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.sender.try_send(message) {
            if Instant::now() >= until {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = is_done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// Each call writes one complete line, as the formatter passes them.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Message::Line(line.into())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

/// Writes lines until every sender is dropped.
fn run(to: impl Write, messages: &Receiver<Message>) {
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    let mut to = Destination { to, torn: false };
    let mut reported = dropped_total();
    while let Ok(first) = messages.recv() {
        let mut next = Some(first);
        let mut waiting = Vec::new();
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::Flush(done) => waiting.push(done),
            }
            next = if batch.len() < BATCH_BYTES { messages.try_recv().ok() } else { None };
        }
        let lost = to.write_lines(&batch);
        DROPPED.fetch_add(lost, Ordering::Relaxed);
        batch.clear();
        for done in waiting {
            let _ = done.try_send(());
        }
        let dropped = dropped_total();
        // Only once lines can be written again; otherwise this line would be lost too, and so on without end.
        if lost == 0 && dropped > reported {
            tracing::warn!(lines = dropped - reported, "Log lines were lost");
            reported = dropped;
        }
    }
}

/// The output of the writer.
struct Destination<W> {
    to: W,
    /// The last line was written only in part.
    torn: bool,
}

impl<W: Write> Destination<W> {
    /// Writes complete lines and returns how many of them could not be written.
    fn write_lines(&mut self, batch: &[u8]) -> u64 {
        // Ends a torn line first, so that the next one stays readable.
        if self.torn && self.write(b"\n") == 1 {
            self.torn = false;
        }
        let written = self.write(batch);
        let rest = &batch[written..];
        self.torn |= written > 0 && batch[written - 1] != b'\n';
        let lines = rest.iter().filter(|byte| **byte == b'\n').count();
        lines as u64
    }

    /// Writes as much as possible and returns the number of bytes written.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.to.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // New lines wait in the bounded queue meanwhile.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY_AFTER),
                Err(_) => break,
            }
        }
        // The destination has no buffer, so written bytes are with the system already.
        let _ = self.to.flush();
        written
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// A destination that can be frozen by holding its lock.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<Vec<u8>>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_destination_drops_lines_and_does_not_block() {
        let pipe = Pipe::default();
        let mut lines = spawn(pipe.clone(), 10).unwrap();
        let before = dropped_total();
        let frozen = pipe.0.lock();
        let begin = Instant::now();
        for i in 0..1_000 {
            lines.write_all(format!("line {i}\n").as_bytes()).unwrap();
        }
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert!(dropped_total() - before >= 900);
        lines.flush(Duration::from_millis(20));
        drop(frozen);
        lines.flush(Duration::from_secs(10));
        let text = String::from_utf8(pipe.0.lock().clone()).unwrap();
        assert!(text.starts_with("line 0\n") && text.ends_with('\n'), "complete lines, in order: {text}");
    }

    /// A disk with limited room that takes a few bytes at a time.
    struct Disk {
        holds: Vec<u8>,
        room: usize,
        /// How many writes fail with `WouldBlock` first.
        busy: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.busy > 0 {
                self.busy -= 1;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let free = self.room.saturating_sub(self.holds.len());
            if free == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(free).min(4);
            self.holds.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn unwritten_lines_are_counted_and_later_lines_are_complete() {
        for (room, lost, holds) in [
            (0, 3, ""),
            (3, 3, "one"),
            (4, 2, "one\n"),
            (6, 2, "one\ntw"),
            (14, 0, "one\ntwo\nthree\n"),
            (100, 0, "one\ntwo\nthree\n"),
        ] {
            let disk = Disk { holds: Vec::new(), room, busy: 2 };
            let mut to = Destination { to: disk, torn: false };
            assert_eq!(to.write_lines(b"one\ntwo\nthree\n"), lost, "room for {room}");
            assert_eq!(String::from_utf8_lossy(&to.to.holds), holds);
            let torn = !holds.is_empty() && !holds.ends_with('\n');
            to.to.room = 1_000;
            assert_eq!(to.write_lines(b"four\n"), 0);
            let want = if torn { format!("{holds}\nfour\n") } else { format!("{holds}four\n") };
            assert_eq!(String::from_utf8_lossy(&to.to.holds), want, "room for {room}");
        }
    }

    #[test]
    fn lines_that_cannot_be_written_reach_the_counter() {
        let mut lines = spawn(Disk { holds: Vec::new(), room: 0, busy: 0 }, 1_000).unwrap();
        let before = dropped_total();
        lines.write_all(b"lost\n").unwrap();
        lines.flush(Duration::from_secs(10));
        assert!(dropped_total() > before);
    }

    #[test]
    fn after_a_flush_everything_is_written() {
        let pipe = Pipe::default();
        let mut lines = spawn(pipe.clone(), 1_000).unwrap();
        for i in 0..500 {
            lines.write_all(format!("{i}\n").as_bytes()).unwrap();
        }
        lines.flush(Duration::from_secs(10));
        assert_eq!(pipe.0.lock().split(|b| *b == b'\n').count(), 501);
    }
}
