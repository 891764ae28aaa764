//! SIGHUP, from the first instruction of main. It is recorded, so that it never ends `run`. The other commands restore
//! its default action, so that they end with their terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGHUP;
use signal_hook::flag;

/// The SIGHUP signals received so far, and whether one ends the process.
#[derive(Debug, Clone, Default)]
pub struct Hangup {
    seen: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
}

impl Hangup {
    /// Starts recording. Cannot fail: SIGHUP may be caught.
    pub fn watch() -> Hangup {
        let hangup = Hangup::default();
        flag::register_conditional_default(SIGHUP, hangup.ends.clone()).expect("SIGHUP may be caught");
        flag::register(SIGHUP, hangup.seen.clone()).expect("SIGHUP may be caught");
        hangup
    }

    /// Set by every SIGHUP since [`Hangup::watch`].
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.seen.clone()
    }

    /// Restores the default action of SIGHUP, which ends the process; one received earlier ends it now.
    pub fn ends_the_process(&self) {
        self.ends.store(true, Ordering::SeqCst);
        if self.seen.load(Ordering::SeqCst) {
            let _ = signal_hook::low_level::emulate_default_handler(SIGHUP);
        }
    }
}
