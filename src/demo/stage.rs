//! The setup of the demo: backends, proxy and traffic. Prints the proxy's events and one line of figures a second.
//! Every change of a backend goes through here, so that the demo knows when a failed request is the proxy's fault.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::backend::{Backend, Mood};
use super::duty::{Known, every_request_must_succeed};
use super::proxy::{Proxy, Reloaded};
use super::traffic::Traffic;
use super::{Ended, output};
use crate::admin::json::{EventInfo, EventWhat, OutageInfo, StatusReply, UpstreamInfo, Verdict};
use crate::model::HealthState;

/// How long to wait for a change of state.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// A process that is killed closes its sockets a moment before it has exited.
const EXIT_MAX: Duration = Duration::from_secs(1);

/// The backends, the proxy and the traffic.
pub struct Stage {
    /// The proxy.
    pub proxy: Proxy,
    /// The traffic.
    pub traffic: Traffic,
    backends: Vec<Backend>,
    /// Per backend: when it changed, until the proxy has seen it.
    changed: Vec<Option<Moment>>,
    begin: Instant,
    colour: bool,
    seen: u64,
    /// Events printed since the last [`Stage::forget`].
    events: Vec<EventInfo>,
    last_line: (Instant, u64, u64, Vec<u64>),
}

impl Stage {
    /// Starts everything and waits until every backend takes requests.
    pub async fn set_up(colour: bool) -> Result<Stage, String> {
        let mut backends = vec![];
        for name in 1..=3 {
            backends.push(Backend::start(name).await.map_err(|error| format!("cannot start a backend: {error}"))?);
        }
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        let proxy = Proxy::start(&addresses).await?;
        let end = Instant::now() + CHANGE_MAX;
        while !upstreams(&proxy.status().await?).all(|upstream| upstream.eligible) {
            if Instant::now() > end {
                return Err(format!("the backends did not become healthy in {CHANGE_MAX:?}{}", proxy.last_words()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let traffic = Traffic::start(proxy.address);
        let begin = Instant::now();
        let (changed, last_line) = (vec![None; backends.len()], (begin, 0, 0, vec![0; backends.len()]));
        Ok(Stage { backends, changed, proxy, traffic, begin, colour, seen: 0, events: vec![], last_line })
    }

    /// Prints what the demo does now.
    pub fn say(&self, words: &str) -> Result<(), Ended> {
        let (bold, plain) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.print(&format!("{bold}{words}{plain}"))
    }

    /// Whether backend `number` (from 1) is alive, and how it behaves.
    pub fn backend(&self, number: usize) -> (bool, Mood) {
        let backend = &self.backends[number - 1];
        (backend.is_alive(), backend.mood())
    }

    /// Kills backend `number`.
    pub fn kill(&mut self, number: usize) {
        self.changes(number, |known| known.alive = false);
        self.backends[number - 1].kill();
    }

    /// Revives backend `number`; it then behaves well, like a new process.
    pub async fn revive(&mut self, number: usize) -> Result<(), String> {
        let backend = &self.backends[number - 1];
        backend.set(Mood::Well);
        backend.revive().await.map_err(|error| format!("cannot listen on {} again: {error}", backend.address))?;
        // It counts as good only after a check that began after this instant.
        self.changed[number - 1] = Some(Moment::now());
        Ok(())
    }

    /// Changes how backend `number` behaves.
    pub fn set(&mut self, number: usize, mood: Mood) {
        self.changes(number, |known| known.well = mood == Mood::Well);
        self.backends[number - 1].set(mood);
    }

    /// Waits, and prints events meanwhile.
    pub async fn pass(&mut self, time: Duration) -> Result<(), Ended> {
        let end = Instant::now() + time;
        loop {
            self.listen().await?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(Duration::from_millis(50))).await;
        }
    }

    /// Gives the first backend the other weight and reloads, and prints events meanwhile. Returns the new weight.
    pub async fn reload(&mut self) -> Result<(u32, Reloaded), Ended> {
        let weight = self.proxy.change_weight()?;
        let mut order = std::pin::pin!(self.proxy.reload());
        let reloaded = loop {
            tokio::select! {
                reloaded = &mut order => break reloaded?,
                passed = self.pass(CHANGE_MAX) => passed?,
            }
        };
        Ok((weight, reloaded))
    }

    /// Waits until backend `number` is in `state`; returns the time from `since` to that change.
    pub async fn wait_for(&mut self, number: usize, state: HealthState, since: Moment) -> Result<Duration, Ended> {
        let address = self.backends[number - 1].address.to_string();
        let end = Instant::now() + CHANGE_MAX;
        loop {
            self.listen().await?;
            let found = self.events.iter().find_map(|event| match &event.what {
                EventWhat::Transition { upstream, to, .. } if *upstream == address && *to == state => {
                    since.until(&event.at)
                }
                _ => None,
            });
            if let Some(found) = found {
                return Ok(found);
            }
            if Instant::now() > end {
                return Err(Ended::Problem(format!("backend {number} did not become {state} within {CHANGE_MAX:?}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Why the demo cannot go on: the problem, or that the proxy has exited, which every request to it shows in its own way.
    pub async fn explain(&mut self, problem: String) -> String {
        let end = Instant::now() + EXIT_MAX;
        while Instant::now() < end {
            if let Some(status) = self.proxy.ended() {
                let words = self.proxy.last_words();
                return format!("roundsman itself has exited ({status}): {problem}{words}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        problem
    }

    /// Forgets the events so far, so that the next wait is for new ones.
    pub fn forget(&mut self) {
        self.events.clear();
    }

    /// Notes that backend `number` is about to change. If no backend may be left for requests, the traffic must know
    /// before.
    fn changes(&mut self, number: usize, becomes: impl FnOnce(&mut Known)) {
        self.changed[number - 1] = Some(Moment::now());
        let mut known = self.known();
        becomes(&mut known[number - 1]);
        self.traffic.tally.set_dark(!every_request_must_succeed(&known));
    }

    fn known(&self) -> Vec<Known> {
        let known = |(backend, changed): (&Backend, &Option<Moment>)| Known {
            alive: backend.is_alive(),
            well: backend.mood() == Mood::Well,
            settled: changed.is_none(),
        };
        self.backends.iter().zip(&self.changed).map(known).collect()
    }

    /// Fetches and prints new events, and every second a line of figures.
    async fn listen(&mut self) -> Result<(), Ended> {
        let news = self.proxy.events(self.seen).await?;
        self.seen = news.last;
        for event in news.events {
            if let Some(words) = self.in_words(&event.what) {
                self.print(&words)?;
            }
            self.events.push(event);
        }
        self.settle().await?;
        if self.last_line.0.elapsed() >= Duration::from_secs(1) {
            self.line()?;
        }
        Ok(())
    }

    /// Checks whether the proxy has seen the last changes.
    async fn settle(&mut self) -> Result<(), Ended> {
        if self.changed.iter().all(Option::is_none) {
            return Ok(());
        }
        let status = self.proxy.status().await?;
        for (backend, changed) in self.backends.iter().zip(&mut self.changed) {
            let address = backend.address.to_string();
            let Some(upstream) = upstreams(&status).find(|upstream| upstream.address == address) else { continue };
            if changed.is_some_and(|changed| has_seen(upstream, backend, changed)) {
                *changed = None;
            }
        }
        self.traffic.tally.set_dark(!every_request_must_succeed(&self.known()));
        Ok(())
    }

    fn in_words(&self, what: &EventWhat) -> Option<String> {
        match what {
            EventWhat::Transition { upstream, from, to, code, reason, healthy_left, .. } => {
                let name = self.backends.iter().position(|backend| backend.address.to_string() == *upstream)? + 1;
                let code = code.as_deref().unwrap_or("-");
                let change = self.painted(*to, &format!("roundsman: backend {name} {from} -> {to}"));
                Some(format!("  {change}  {code} {reason}  ({healthy_left} healthy left)"))
            }
            EventWhat::Refusing(info) => Some(self.outage(info, "refuses requests")),
            EventWhat::FailOpen(info) => Some(self.outage(info, "fails open")),
            EventWhat::OtherPool(info) => Some(self.outage(info, "uses another pool")),
            EventWhat::BelowHalf { pool, on, able, total } => {
                let (state, what) = match on {
                    true => (HealthState::Unknown, "serves with fewer than half of its backends"),
                    false => (HealthState::Healthy, "serves with at least half of its backends again"),
                };
                Some(format!("  {}  {able} of {total}", self.painted(state, &format!("roundsman: pool {pool} {what}"))))
            }
            EventWhat::Ejected { upstream, on, reason, seconds, .. } => {
                let name = self.backends.iter().position(|backend| backend.address.to_string() == *upstream)? + 1;
                let (state, what) = match on {
                    true => {
                        let seconds = seconds.map_or_else(String::new, |seconds| format!(" for {seconds:.0} s"));
                        (HealthState::Unhealthy, format!("ejected{seconds}"))
                    }
                    false => (HealthState::Healthy, "no longer ejected".to_owned()),
                };
                let painted = self.painted(state, &format!("roundsman: backend {name} {what}"));
                Some(format!("  {painted}  {}", reason.as_deref().unwrap_or_default()).trim_end().to_owned())
            }
            EventWhat::Reload { result, generation, .. } if *generation > 1 => {
                Some(format!("  roundsman: reload {result}, generation {generation}"))
            }
            EventWhat::Reload { .. }
            | EventWhat::Addresses { .. }
            | EventWhat::Admin(_)
            | EventWhat::Weight(_)
            | EventWhat::Warming { .. }
            | EventWhat::UpstreamAdded { .. }
            | EventWhat::UpstreamRemoved { .. }
            | EventWhat::UpstreamsChanged { .. }
            | EventWhat::RequestsFail { .. }
            | EventWhat::RequestsFailMore { .. }
            | EventWhat::Degraded { .. }
            | EventWhat::ProbePanic { .. }
            | EventWhat::CheckerRestart => None,
        }
    }

    /// The beginning or the end of an outage.
    fn outage(&self, info: &OutageInfo, what: &str) -> String {
        let pool = &info.pool;
        if info.on {
            let why = info.reason.as_deref().unwrap_or_default();
            return format!(
                "  {}  {why}",
                self.painted(HealthState::Unhealthy, &format!("roundsman: pool {pool} {what}"))
            );
        }
        let after = info.lasted_seconds.map_or_else(String::new, |seconds| format!(" after {seconds:.1} s"));
        match info.serves {
            Some(false) => format!("  roundsman: pool {pool} no longer {what}{after}"),
            Some(true) | None => {
                format!(
                    "  {}{after}",
                    self.painted(HealthState::Healthy, &format!("roundsman: pool {pool} serves again"))
                )
            }
        }
    }

    /// A text in the colour of a state.
    fn painted(&self, state: HealthState, text: &str) -> String {
        let colour = match state {
            _ if !self.colour => return text.to_owned(),
            HealthState::Healthy => 32,
            HealthState::Unhealthy => 31,
            HealthState::Unknown => 33,
        };
        format!("\x1b[{colour}m{text}\x1b[0m")
    }

    fn line(&mut self) -> Result<(), Ended> {
        let tally = &self.traffic.tally;
        let sent = tally.sent.load(Ordering::Relaxed);
        let served: Vec<u64> = self.backends.iter().map(Backend::served).collect();
        let refused = tally.refused.load(Ordering::Relaxed);
        let (at, before, refused_before, served_before) = &self.last_line;
        let per_second = |now: u64, before: u64| (now - before) as f64 / at.elapsed().as_secs_f64();
        let shares: Vec<String> = served
            .iter()
            .zip(served_before)
            .enumerate()
            .map(|(i, (now, before))| format!("[{}] {:3.0}/s", i + 1, per_second(*now, *before)))
            .collect();
        let (dim, plain) = if self.colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        self.print(&format!(
            "{dim}{:4.0} requests/s  {}  503 {:3.0}/s  failed {}{plain}",
            per_second(sent, *before),
            shares.join("  "),
            per_second(refused, *refused_before),
            tally.failed.load(Ordering::Relaxed),
        ))?;
        self.last_line = (Instant::now(), sent, refused, served);
        Ok(())
    }

    fn print(&self, words: &str) -> Result<(), Ended> {
        output::line(&format!("{:6.1} s  {words}", self.begin.elapsed().as_secs_f64()))
    }
}

fn upstreams(status: &StatusReply) -> impl Iterator<Item = &UpstreamInfo> {
    status.pools.0.iter().flat_map(|(_, pool)| &pool.upstreams)
}

/// Whether a check that began after this change has finished, and the upstream's state agrees with the change.
fn has_seen(upstream: &UpstreamInfo, backend: &Backend, changed: Moment) -> bool {
    let Some(last) = &upstream.last_check else { return false };
    let ended = changed.until(&last.at);
    let checked = ended.is_some_and(|ended| ended.as_secs_f64() * 1e3 >= last.duration_ms);
    let serves = backend.is_alive() && backend.mood() == Mood::Well;
    let agrees = upstream.eligible == serves && last.result == Some(if serves { Verdict::Pass } else { Verdict::Fail });
    checked && agrees
}

/// A moment on the system's clock, which the dates of events use.
#[derive(Debug, Clone, Copy)]
pub struct Moment(SystemTime);

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        Moment(SystemTime::now())
    }

    /// The time until this date; `None` if the date is earlier. Compared in milliseconds, the precision of the proxy's
    /// dates.
    fn until(self, date: &str) -> Option<Duration> {
        let since_1970 = |date: SystemTime| date.duration_since(UNIX_EPOCH).ok();
        let ms = since_1970(humantime::parse_rfc3339(date).ok()?)?.as_millis();
        let passed = ms.checked_sub(since_1970(self.0)?.as_millis())?;
        u64::try_from(passed).ok().map(Duration::from_millis)
    }
}
