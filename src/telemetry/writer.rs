//! The thread that writes log lines. Lines come through a bounded queue; when nobody takes them (a blocked pipe, a frozen
//! terminal) they are dropped and counted, so that logging never holds up a request or a probe.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait before one is dropped.
const QUEUE_LINES: usize = 8_192;
/// The most bytes written at once.
const BATCH_BYTES: usize = 64 * 1024;
/// How long [`flush`] waits.
const FLUSH_MAX: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);
static QUEUE: OnceLock<Lines> = OnceLock::new();

/// Log lines dropped so far because nobody took them.
pub fn dropped_total() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits until what was logged before is written, at most 1 s. Does nothing before logging is set up.
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

/// The near end of the queue.
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

/// One call writes one whole line: the formatter hands over a line at a time.
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

/// Writes what comes until nobody can send any more. A line that cannot be written is lost: there is no better place to
/// say so.
fn run(mut to: impl Write, messages: &Receiver<Message>) {
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    let mut told = dropped_total();
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
        let _ = to.write_all(&batch).and_then(|()| to.flush());
        batch.clear();
        for done in waiting {
            let _ = done.try_send(());
        }
        let dropped = dropped_total();
        if dropped > told {
            tracing::warn!(lines = dropped - told, "Log lines were dropped");
            told = dropped;
        }
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
    fn a_blocked_destination_drops_lines_and_blocks_nobody() {
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
        assert!(text.starts_with("line 0\n") && text.ends_with('\n'), "whole lines, in order: {text}");
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
