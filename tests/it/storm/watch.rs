//! The observer of a storm: follows the event ring so that nothing of it is lost, asks for status many times a second
//! and notes how long that takes, and notes when the machine itself stalled.

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
/// How often a thread of ours looks at the clock.
const BEAT: Duration = Duration::from_millis(5);

/// Turns the dates of the program into moments.
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

    /// What was before the start is at the start.
    pub fn moment(&self, date: &str) -> At {
        let date: jiff::Timestamp = date.parse().unwrap_or_else(|error| panic!("{date}: {error}"));
        SystemTime::from(date).duration_since(self.date).unwrap_or_default()
    }
}

/// One status as it was asked for.
#[derive(Debug)]
pub struct Asked {
    pub asked: At,
    pub answered: At,
    pub status: StatusReply,
}

/// What has been seen.
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

/// A gap in the numbers of the events is noticed by their reader: [`super::world`].
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

/// `None` when there is no answer: how things stand is asked again, and how long the next one takes is noted.
async fn ask<T: serde::de::DeserializeOwned>(admin: SocketAddr, path: &str) -> Option<T> {
    match try_fetch(admin, "GET", path).await {
        Ok((200, body)) => Some(serde_json::from_slice(&body).expect("as the contract has it")),
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
