//! What is remembered of a request until its end, for the access log. With the log off, nothing is.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::judge::Facts;
use super::origin::is_traceparent;
use super::steps::{Broken, ConnectError};
use crate::http1::{Head, Version};
use crate::model::Address;
use crate::model::policy::{AccessPolicy, ShownQuery};

/// The longest text that is remembered of one field, in bytes. A line has at most 16 KiB.
const FIELD_BYTES_MAX: usize = 2 << 10;
/// The same of the target.
const TARGET_BYTES_MAX: usize = 8 << 10;

/// What is remembered of one request.
#[derive(Debug, Default)]
pub(super) struct Journal {
    policy: Option<Arc<AccessPolicy>>,
    /// This request may be logged.
    on: bool,
    bytes: Vec<u8>,
    method: Range<usize>,
    host: Range<usize>,
    target: Range<usize>,
    user_agent: Option<Range<usize>>,
    referer: Option<Range<usize>>,
    trace_id: Option<Range<usize>>,
    /// The values of the fields that the policy names, in its order.
    fields: SmallVec<[Option<Range<usize>>; 4]>,
    version: Option<Version>,
    pub tries: SmallVec<[Try; 2]>,
    /// How long it has waited for a place.
    pub queued: Option<Duration>,
    pub carried: Carried,
}

/// One attempt, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// On this upstream.
    pub upstream: Address,
    /// How it ended.
    pub outcome: Outcome,
    /// How long connecting took; zero on a kept connection, `None` if there was no connection.
    pub connect: Option<Duration>,
    /// From the request to the head of the response.
    pub first_byte: Option<Duration>,
    /// The status of that.
    pub status: Option<u16>,
    began: Instant,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has not.
    UnderWay,
    /// With a whole response, or a tunnel.
    Ok,
    /// With a response that was thrown away for another attempt.
    Status,
    /// No connection could be made.
    Connect,
    /// Not in time.
    ConnectTimeout,
    /// The connection broke.
    Reset,
    /// The upstream took too long.
    Timeout,
    /// The response was malformed.
    Malformed,
    /// The upstream was lost: `drain_timeout` or `on_unhealthy`.
    Cut,
    /// We lacked descriptors, ports or memory.
    Resources,
}

impl Outcome {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::UnderWay => "under_way",
            Outcome::Ok => "ok",
            Outcome::Status => "status",
            Outcome::Connect => "connect",
            Outcome::ConnectTimeout => "connect_timeout",
            Outcome::Reset => "reset",
            Outcome::Timeout => "timeout",
            Outcome::Malformed => "malformed",
            Outcome::Cut => "cut",
            Outcome::Resources => "resources",
        }
    }

    pub(super) fn of_connect(why: ConnectError) -> Outcome {
        match why {
            ConnectError::Refused | ConnectError::Outdated => Outcome::Connect,
            ConnectError::TimedOut => Outcome::ConnectTimeout,
            ConnectError::Resources => Outcome::Resources,
        }
    }

    pub(super) fn of_broken(how: Broken) -> Outcome {
        match how {
            Broken::Closed => Outcome::Reset,
            Broken::TimedOut => Outcome::Timeout,
            Broken::BadResponse(_) => Outcome::Malformed,
            Broken::Resources => Outcome::Resources,
            Broken::Cut => Outcome::Cut,
        }
    }
}

/// Bytes of bodies, or of a tunnel. In chunks, their framing counts where it is passed on as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// From the client.
    pub received: u64,
    /// To the client.
    pub sent: u64,
}

/// The head of a request, for the log. Texts that are longer than a line can hold are cut.
#[derive(Debug, Clone, Copy)]
pub struct Noted<'a> {
    /// The policy by which it was noted.
    pub policy: &'a AccessPolicy,
    /// The method.
    pub method: &'a [u8],
    /// The Host as it came; empty if there was none.
    pub host: &'a [u8],
    /// The target, with as much of its query as the policy shows.
    pub target: &'a [u8],
    /// The client's version; `None`: what came was no request.
    pub version: Option<Version>,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`.
    pub referer: Option<&'a [u8]>,
    /// Of the `traceparent` that goes upstream.
    pub trace_id: Option<&'a [u8]>,
    journal: &'a Journal,
}

impl<'a> Noted<'a> {
    /// The fields that the policy names, and their values.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let Noted { policy, journal, .. } = *self;
        let names = policy.headers.iter().zip(&journal.fields);
        names.filter_map(|(name, at)| Some((&**name, &journal.bytes[at.clone()?])))
    }
}

impl Journal {
    /// Begins a request.
    pub fn begin(&mut self, policy: Option<&Arc<AccessPolicy>>, head: &Head<'_>, facts: &Facts<'_>) {
        match (&self.policy, policy) {
            (None, None) => return,
            (Some(same), Some(policy)) if Arc::ptr_eq(same, policy) => {}
            (_, policy) => self.policy = policy.cloned(),
        }
        self.on =
            self.policy.as_ref().is_some_and(|policy| !policy.except_paths.iter().any(|path| **path == *facts.path));
        if self.on {
            self.note(head, facts);
        }
    }

    /// Begins what cannot be read as a request.
    pub fn begin_unread(&mut self, policy: Option<&Arc<AccessPolicy>>) {
        self.policy = policy.cloned();
        self.on = self.policy.is_some();
        self.forget();
    }

    fn forget(&mut self) {
        self.bytes.clear();
        self.tries.clear();
        self.fields.clear();
        (self.method, self.host, self.target) = (0..0, 0..0, 0..0);
        (self.user_agent, self.referer, self.trace_id) = (None, None, None);
        (self.queued, self.carried, self.version) = (None, Carried::default(), None);
    }

    fn note(&mut self, head: &Head<'_>, facts: &Facts<'_>) {
        let Some(policy) = self.policy.clone() else { return };
        self.forget();
        self.version = Some(facts.version);
        self.method = self.keep(facts.method_name.as_bytes(), FIELD_BYTES_MAX);
        self.host = self.keep(facts.authority.unwrap_or_default().as_bytes(), FIELD_BYTES_MAX);
        self.target = self.keep_target(&facts.target, policy.query);
        self.fields.resize(policy.headers.len(), None);
        for field in head.fields.iter() {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name.as_bytes());
            match field.name.len() {
                10 if self.user_agent.is_none() && is("user-agent") => {
                    self.user_agent = Some(self.keep(field.value, FIELD_BYTES_MAX));
                }
                7 if self.referer.is_none() && is("referer") => {
                    self.referer = Some(self.keep(field.value, FIELD_BYTES_MAX));
                }
                11 if is("traceparent") && is_traceparent(field.value) => {
                    self.trace_id = Some(self.keep(&field.value[3..35], 32));
                }
                _ => {}
            }
            if let Some(at) = policy.headers.iter().position(|name| is(name))
                && self.fields[at].is_none()
            {
                self.fields[at] = Some(self.keep(field.value, FIELD_BYTES_MAX));
            }
        }
    }

    fn keep(&mut self, text: &[u8], most: usize) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&text[..text.len().min(most)]);
        start..self.bytes.len()
    }

    fn keep_target(&mut self, target: &str, shown: ShownQuery) -> Range<usize> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        match (shown, query) {
            (ShownQuery::Whole, _) | (_, None) => self.keep(target.as_bytes(), TARGET_BYTES_MAX),
            (ShownQuery::Nothing, Some(_)) => self.keep(path.as_bytes(), TARGET_BYTES_MAX),
            (ShownQuery::Keys, Some(query)) => {
                let keys: Vec<&str> = query.split('&').map(|pair| pair.split('=').next().unwrap_or(pair)).collect();
                let text = format!("{path}?{}", keys.join("&"));
                self.keep(text.as_bytes(), TARGET_BYTES_MAX)
            }
        }
    }

    /// The trace that was made for the request.
    pub fn trace(&mut self, id: &[u8]) {
        if self.on && !id.is_empty() {
            self.trace_id = Some(self.keep(id, 32));
        }
    }

    /// The request is not logged.
    pub fn turn_off(&mut self) {
        self.on = false;
    }

    /// It has waited for a place so long, perhaps not for the first time.
    pub fn waited(&mut self, since: Option<Instant>, now: Instant) {
        if let Some(since) = since {
            *self.queued.get_or_insert_default() += now.saturating_duration_since(since);
        }
    }

    /// Whether the request may be logged.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Its head, if it may be logged.
    pub fn noted(&self) -> Option<Noted<'_>> {
        let policy = self.policy.as_deref().filter(|_| self.on)?;
        let text = |at: &Range<usize>| &self.bytes[at.clone()];
        let some = |at: &Option<Range<usize>>| at.as_ref().map(text);
        Some(Noted {
            policy,
            method: text(&self.method),
            host: text(&self.host),
            target: text(&self.target),
            version: self.version,
            user_agent: some(&self.user_agent),
            referer: some(&self.referer),
            trace_id: some(&self.trace_id),
            journal: self,
        })
    }

    /// An attempt begins.
    pub fn attempt(&mut self, upstream: &Address, now: Instant) {
        if self.on {
            let (outcome, upstream) = (Outcome::UnderWay, upstream.clone());
            self.tries.push(Try { upstream, outcome, connect: None, first_byte: None, status: None, began: now });
        }
    }

    /// It has come to nothing before a byte was sent, and does not count.
    pub fn unpick(&mut self) {
        self.tries.pop();
    }

    /// It has a connection.
    pub fn connected(&mut self, kept: bool, now: Instant) {
        if let Some(last) = self.tries.last_mut() {
            last.connect = Some(if kept { Duration::ZERO } else { now.saturating_duration_since(last.began) });
        }
    }

    /// A final head has come.
    pub fn answered(&mut self, status: u16, took: Duration) {
        if let Some(last) = self.tries.last_mut() {
            (last.status, last.first_byte) = (Some(status), Some(took));
        }
    }

    /// It has ended so, unless it had ended before.
    pub fn ended(&mut self, outcome: Outcome) {
        if let Some(last) = self.tries.last_mut().filter(|last| last.outcome == Outcome::UnderWay) {
            last.outcome = outcome;
        }
    }
}
