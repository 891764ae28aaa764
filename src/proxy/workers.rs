//! The threads that carry requests. Each has a runtime of its own, with its own readiness queue: a connection lives on one
//! thread from accept to close, and so do the idle upstream connections that it uses. Nothing is handed from one to
//! another but new connections: one thread accepts for a listener, and gives each to the worker that has fewest.
//!
//! `docs/performance.md` says why.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::pool::sharded::expect_threads;

/// The workers.
#[derive(Debug)]
pub struct Workers(Box<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    load: Load,
    /// Dropped with the workers, and then the thread ends.
    _running: Option<oneshot::Sender<()>>,
}

/// Connections of one worker. All that accept share it: two writes for each connection.
#[derive(Debug, Default, Clone)]
struct Load(Arc<AtomicUsize>);

/// A connection on its worker.
#[derive(Debug)]
pub(super) struct Placed(Load);

impl Workers {
    /// Starts so many threads, at least one. They end, with whatever is under way, when this is dropped.
    pub fn start(threads: usize) -> io::Result<Workers> {
        expect_threads(threads);
        (0..threads.max(1)).map(Worker::start).collect::<io::Result<_>>().map(Workers)
    }

    /// A runtime that somebody else runs.
    pub fn on(runtime: Handle) -> Workers {
        Workers([Worker { runtime, load: Load::default(), _running: None }].into())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The runtime that accepts for this listener.
    pub(super) fn acceptor(&self, number: u32) -> &Handle {
        &self.0[number as usize % self.0.len()].runtime
    }

    /// The worker with the fewest connections, and its runtime if that is not the current one. In doubt it is this one.
    pub(super) fn place(&self) -> (Placed, Option<&Handle>) {
        let here = Handle::try_current().ok().map(|runtime| runtime.id());
        let load = |worker: &Worker| worker.load.0.load(Ordering::Relaxed);
        let is_here = |worker: &Worker| Some(worker.runtime.id()) == here;
        let least = self.0.iter().min_by_key(|worker| (load(worker), !is_here(worker))).expect("there is at least one");
        least.load.0.fetch_add(1, Ordering::Relaxed);
        (Placed(least.load.clone()), (!is_here(least)).then_some(&least.runtime))
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Worker> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, end) = oneshot::channel::<()>();
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            // The sender is never used: it is gone when the workers are.
            let _ = runtime.block_on(end);
            runtime.shutdown_background();
        })?;
        Ok(Worker { runtime: handle, load: Load::default(), _running: Some(running) })
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_to_the_worker_with_the_fewest() {
        let workers = Workers::start(3).unwrap();
        let loads = || workers.0.iter().map(|worker| worker.load.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let mut placed: Vec<_> = (0..7).map(|_| workers.place().0).collect();
        assert_eq!(loads(), [3, 2, 2]);
        placed.remove(1);
        placed.remove(4);
        assert_eq!(loads(), [3, 1, 1]);
        placed.extend((0..4).map(|_| workers.place().0));
        assert_eq!(loads(), [3, 3, 3]);
        drop(placed);
        assert_eq!(loads(), [0, 0, 0]);
    }

    #[test]
    fn an_even_choice_is_the_worker_that_accepts() {
        let workers = Workers::start(3).unwrap();
        for number in [2, 0, 1] {
            let runtime = workers.acceptor(number);
            let _context = runtime.enter();
            let (placed, elsewhere) = workers.place();
            assert!(elsewhere.is_none(), "worker {number}");
            drop(placed);
        }
    }
}
