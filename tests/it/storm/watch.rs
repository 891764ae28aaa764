//! The observer of a storm: follows the event ring without a gap, queries the status many times a second and records
//! how long that takes, and records when the machine itself stalled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use roundsman::admin::json::{EventInfo, EventsReply, StatusReply};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::evidence::LATE;
use super::model::At;
use crate::program::try_fetch;

/// From one status to the next.
const EVERY: Duration = Duration::from_millis(40);
/// How often our own thread looks at the clock.
const BEAT: Duration = Duration::from_millis(5);

/// Converts the program's dates to moments.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub start: Instant,
    date: SystemTime,
}

impl Clock {
    pub fn new() -> Clock {
        Clock { start: Instant::now(), date: SystemTime::now() }
    }

    pub fn now(&self) -> At {
        self.start.elapsed()
    }

    /// Dates before the start count as the start.
    pub fn moment(&self, date: &str) -> At {
        self.moment_of(humantime::parse_rfc3339(date).unwrap_or_else(|error| panic!("{date}: {error}")))
    }

    /// The same of the system's time.
    pub fn moment_of(&self, time: SystemTime) -> At {
        time.duration_since(self.date).unwrap_or_default()
    }
}

/// One query of the status.
#[derive(Debug)]
pub struct Asked {
    pub asked: At,
    pub answered: At,
    pub status: StatusReply,
}

/// The observations.
#[derive(Debug, Default)]
pub struct Seen {
    pub events: Vec<EventInfo>,
    pub statuses: Vec<Asked>,
    pub hiccups: Vec<(At, Duration)>,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    pub seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    task: AbortHandle,
    beat: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn start(admin: SocketAddr, clock: Clock) -> Watch {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(follow(admin, clock, seen.clone())).abort_handle();
        let beat = std::thread::spawn({
            let (seen, stop) = (seen.clone(), stop.clone());
            move || beat(clock, &seen, &stop)
        });
        Watch { seen, stop, task, beat: Some(beat) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.abort();
        if let Some(beat) = self.beat.take() {
            let _ = beat.join();
        }
    }
}

/// [`super::world`] notices gaps in the numbers of the events.
async fn follow(admin: SocketAddr, clock: Clock, seen: Arc<Mutex<Seen>>) {
    let mut last = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        if let Some(reply) = ask::<EventsReply>(admin, &format!("/api/v1/events?after={last}")).await {
            last = reply.last;
            seen.lock().events.extend(reply.events);
        }
        let asked = clock.now();
        if let Some(status) = ask::<StatusReply>(admin, "/api/v1/status").await {
            seen.lock().statuses.push(Asked { asked, answered: clock.now(), status });
        }
    }
}

/// `None` without a response: the status is queried again, and the time of that query is recorded.
async fn ask<T: serde::de::DeserializeOwned>(admin: SocketAddr, path: &str) -> Option<T> {
    match try_fetch(admin, "GET", path).await {
        Ok((200, body)) => Some(serde_json::from_slice(&body).expect("the documented JSON")),
        Ok(_) | Err(_) => None,
    }
}

fn beat(clock: Clock, seen: &Mutex<Seen>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let before = clock.now();
        std::thread::sleep(BEAT);
        let late = clock.now().saturating_sub(before + BEAT);
        if late > LATE {
            seen.lock().hiccups.push((before + BEAT + late, late));
        }
    }
}
