//! The observations of a storm, by one clock. The oracle knows nothing else, so that tests can give it invented logs.

use std::collections::HashMap;
use std::time::Duration;

use roundsman::model::{AdminState, HealthState};

use super::model::{At, Config, Mode};

/// All observations.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The configurations, each from its moment on, the first from the start.
    pub configs: Vec<(At, Config)>,
    /// The modes of the origins, each from its moment on, the first of each from the start.
    pub modes: Vec<(At, usize, Mode)>,
    /// Orders that succeeded.
    pub orders: Vec<Order>,
    /// Changes of state as the event ring has them.
    pub transitions: Vec<Transition>,
    /// Samples of the status.
    pub samples: Vec<Sample>,
    /// Times in which the program was stopped, or the machine stalled.
    pub standstills: Vec<(At, At)>,
    /// The lateness of a thread that wakes every 5 ms, where it was more than [`LATE`].
    pub hiccups: Vec<(At, Duration)>,
    /// Requests as they reached origins.
    pub arrivals: Vec<Arrival>,
    /// Requests as their clients saw them end.
    pub outcomes: Vec<Outcome>,
    /// What was done, as text.
    pub diary: Vec<(At, String)>,
}

/// The least lateness that is recorded.
pub const LATE: Duration = Duration::from_millis(10);

/// An order of the operator.
#[derive(Debug, Clone)]
pub struct Order {
    pub at: At,
    pub pool: String,
    pub origin: usize,
    pub to: AdminState,
}

/// A change of state.
#[derive(Debug, Clone)]
pub struct Transition {
    pub at: At,
    pub pool: String,
    pub origin: usize,
    pub from: HealthState,
    pub to: HealthState,
}

/// One status.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub asked: At,
    pub answered: At,
    pub upstreams: HashMap<(String, usize), Known>,
}

/// One upstream of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub state: HealthState,
    pub retiring: bool,
}

/// A request that reached an origin.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub at: At,
    pub number: u64,
    pub service: usize,
    pub post: bool,
    pub origin: usize,
}

/// A request that a client sent.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub number: u64,
    pub service: usize,
    pub post: bool,
    pub sent: At,
    pub ended: At,
    pub end: End,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// 200 and the body of this request.
    Answered,
    /// The proxy's own response: status and reason code.
    Own(u16, String),
    /// The listener accepted no connection.
    NoConnection,
    /// The connection ended before a byte of the response; whether it had served a request before.
    Closed { reused: bool },
    /// The connection ended inside the response.
    Cut,
    /// The response to another request.
    Wrong(String),
    /// No response within the client's patience.
    GaveUp,
    /// The client disconnected on purpose; or the connection was closed, as the response before this one announced.
    Unknown,
}

impl Evidence {
    /// What origin `origin` did at any moment from `from` to `to`.
    pub fn modes_of(&self, origin: usize, from: At, to: At) -> impl Iterator<Item = Mode> {
        let of = self.modes.iter().filter(move |(_, o, _)| *o == origin);
        let before = of.clone().rfind(move |(at, ..)| *at <= from);
        before.into_iter().chain(of.filter(move |(at, ..)| *at > from && *at <= to)).map(|(.., mode)| *mode)
    }

    /// The configurations that were in force at any moment from `from` to `to`.
    pub fn configs_in(&self, from: At, to: At) -> impl Iterator<Item = &Config> {
        let before = self.configs.iter().rfind(move |(at, _)| *at <= from);
        let later = self.configs.iter().filter(move |(at, _)| *at > from && *at <= to);
        before.into_iter().chain(later).map(|(_, config)| config)
    }

    /// The worst lateness of our own thread, from `from` to `to`.
    pub fn lateness(&self, from: At, to: At) -> Duration {
        let within = self.hiccups.iter().filter(|(at, _)| *at >= from && *at <= to);
        within.map(|(_, late)| *late).max().unwrap_or_default()
    }

    /// `from`, earlier by every standstill that overlaps the time from it to `to`.
    pub fn reach_back(&self, from: At, to: At) -> At {
        let mut from = from;
        for (begin, end) in self.standstills.iter().rev() {
            if *begin <= to && *end >= from {
                from = from.saturating_sub(*end - *begin);
            }
        }
        from
    }
}
