//! The panic hook: logs each panic as one error line and counts it. The owner of the thread or task handles the rest.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// The logged part of a panic's message, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// Panics of this process so far, in any thread.
pub fn panics_total() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Puts our hook in place of the standard one.
pub(super) fn install() {
    std::panic::set_hook(Box::new(on_panic));
}

fn on_panic(info: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let message: String = message(info).chars().take(MESSAGE_CHARS_MAX).collect();
    let at = info.location().map_or_else(|| "unknown".to_string(), |location| location.to_string());
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let trace = Backtrace::capture();
    match trace.status() {
        BacktraceStatus::Captured => tracing::error!(at, thread, reason = message, %trace, "Thread panicked"),
        _ => tracing::error!(at, thread, reason = message, "Thread panicked"),
    }
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}
