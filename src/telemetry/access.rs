//! The access log: a line for each request, written by a thread of its own.
//!
//! A worker appends its lines to a buffer that no other worker uses; the thread takes the buffers over, a few times a second.
//! If the output is blocked, the buffers fill up to a bound, and lines beyond it are dropped and counted: no request waits for
//! the log.

mod line;
mod output;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;

use self::line::Clock;
pub use self::output::{OpenError, Output};
use crate::exchange::{EndWord, Record};
use crate::model::policy::{AccessClass, AccessFormat, AccessPolicy, AccessTarget};
use crate::pool::sharded::Sharded;

/// The most bytes of lines that one worker has waiting.
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// How long the thread lets lines gather.
const GATHER: Duration = Duration::from_millis(50);
/// How often what time it is is compared with the clock that never goes back.
const CLOCK_AGE: Duration = Duration::from_secs(10);
/// The longest wait of [`AccessLog::flush`].
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The access log of a process.
#[derive(Debug, Default)]
pub struct AccessLog {
    buffers: Sharded<Mutex<Buffer>>,
    dropped: AtomicU64,
    /// The thread has something to do.
    woken: AtomicBool,
    work: Mutex<Work>,
    wake: Condvar,
    /// Told whenever everything that was asked of the thread is done.
    done: Condvar,
    running: AtomicBool,
}

/// Lines of one worker.
#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    clock: Option<Clock>,
    sampler: fastrand::Rng,
}

/// What the thread is to do.
#[derive(Debug, Default)]
struct Work {
    /// Where lines go from now on; `Some(None)`: nowhere.
    next: Option<Option<Output>>,
    reopen: bool,
    /// Flushes that were asked for, and that are done.
    asked: u64,
    answered: u64,
    stop: bool,
}

impl AccessLog {
    /// A log that writes nothing yet, and its thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> io::Result<Arc<AccessLog>> {
        let log = Arc::new(AccessLog::default());
        let thread = log.clone();
        std::thread::Builder::new().name("access-log".into()).spawn(move || thread.run())?;
        log.running.store(true, Ordering::Release);
        Ok(log)
    }

    /// Lines from now on go here.
    pub fn write_to(&self, output: Option<Output>) {
        self.work.lock().next = Some(output);
        self.wake_up();
    }

    /// Opens its file again, which may have been moved away.
    pub fn reopen(&self) {
        self.work.lock().reopen = true;
        self.wake_up();
    }

    /// Waits until everything recorded before is written, at most a second.
    pub fn flush(&self) {
        if !self.running.load(Ordering::Acquire) {
            return;
        }
        let mut work = self.work.lock();
        work.asked += 1;
        let number = work.asked;
        self.woken.store(true, Ordering::Release);
        self.wake.notify_one();
        self.done.wait_while_for(&mut work, |work| work.answered < number, FLUSH_MAX);
    }

    /// Lines lost so far: the output was blocked, or they could not be written.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds a line for this request, if its policy wants one. Does not block.
    pub fn record(&self, record: &Record<'_>) {
        let Some(noted) = &record.noted else { return };
        let mut buffer = self.buffers.mine().lock();
        let Buffer { lines, clock, sampler } = &mut *buffer;
        if !wants(noted.policy, record, sampler) {
            return;
        }
        if lines.len() >= BUFFER_BYTES_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let clock = match clock {
            Some(clock) if record.began.saturating_duration_since(clock.at) < CLOCK_AGE => clock,
            _ => clock.insert(now()),
        };
        match noted.policy.format {
            AccessFormat::Json => line::json(lines, record, noted, clock),
            AccessFormat::Combined => line::combined(lines, record, noted, clock),
        }
        drop(buffer);
        if !self.woken.load(Ordering::Relaxed) {
            self.wake_up();
        }
    }

    fn wake_up(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // With the lock, so that the thread does not begin to wait between its look and this.
            let _work = self.work.lock();
            self.wake.notify_one();
        }
    }

    /// Writes until it is stopped.
    fn run(&self) {
        let (mut output, mut batch): (Option<Output>, Vec<u8>) = (None, Vec::new());
        loop {
            let mut work = self.work.lock();
            while !self.woken.load(Ordering::Acquire) && !work.stop {
                self.wake.wait(&mut work);
            }
            let hurry = work.asked > work.answered || work.stop;
            drop(work);
            if !hurry {
                std::thread::sleep(GATHER);
            }
            self.woken.store(false, Ordering::Release);
            let (next, reopen, asked, stop) = {
                let mut work = self.work.lock();
                (work.next.take(), std::mem::take(&mut work.reopen), work.asked, work.stop)
            };
            // What was recorded before goes to where it was meant to go.
            for buffer in self.buffers.all() {
                batch.append(&mut buffer.lock().lines);
            }
            self.write(output.as_mut(), &batch);
            batch.clear();
            batch.shrink_to(BUFFER_BYTES_MAX);
            if let Some(next) = next {
                output = next;
            }
            if let (true, Some(output)) = (reopen, &mut output)
                && let Err(error) = output.reopen()
            {
                tracing::error!(%error, "The access log cannot be opened again: lines go to the file as it was");
            }
            let mut work = self.work.lock();
            work.answered = asked;
            self.done.notify_all();
            if stop {
                return;
            }
        }
    }

    fn write(&self, output: Option<&mut Output>, batch: &[u8]) {
        if batch.is_empty() {
            return;
        }
        let lost = match output {
            Some(output) => output.write_lines(batch),
            None => batch.iter().filter(|b| **b == b'\n').count() as u64,
        };
        self.dropped.fetch_add(lost, Ordering::Relaxed);
    }

    /// Ends its thread, for tests.
    #[cfg(test)]
    fn stop(&self) {
        self.work.lock().stop = true;
        self.wake_up();
    }
}

/// The time now, by both clocks.
fn now() -> Clock {
    Clock::new(Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Opens what a policy names; `None` for no policy.
///
/// # Errors
/// It cannot be opened.
pub fn open(target: Option<&AccessTarget>) -> Result<Option<Output>, OpenError> {
    target.map(Output::open).transpose()
}

/// Whether this policy wants a line for this request.
fn wants(policy: &AccessPolicy, record: &Record<'_>, rng: &mut fastrand::Rng) -> bool {
    let is = |class: &AccessClass| match class {
        AccessClass::Errors => record.status.is_none_or(|status| status >= 400) || record.end != EndWord::Ok,
        AccessClass::Slow(than) => record.took.is_none_or(|took| took > *than),
        AccessClass::Retried => record.attempts > 1,
    };
    if policy.only.iter().any(is) {
        return true;
    }
    let plain = !is(&AccessClass::Errors) && !is(&AccessClass::Retried);
    policy.only.is_empty() && (!plain || rng.f64() < policy.sample.as_f64())
}

#[cfg(test)]
mod tests;
