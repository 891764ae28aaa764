//! Everything on the stage: backends, proxy and traffic; what happened when, in the proxy's own words; one line a second.

use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::backend::Backend;
use super::proxy::Proxy;
use super::traffic::Traffic;
use crate::admin::json::{EventInfo, EventWhat};
use crate::model::HealthState;

/// How long a change of state is waited for.
const CHANGE_MAX: Duration = Duration::from_secs(10);

/// The stage.
pub struct Stage {
    /// The backends, 1 to 3.
    pub backends: Vec<Backend>,
    /// The proxy.
    pub proxy: Proxy,
    /// The traffic.
    pub traffic: Traffic,
    begin: Instant,
    colour: bool,
    seen: u64,
    /// Events told and not yet asked for.
    heard: Vec<EventInfo>,
    last_line: (Instant, u64, Vec<u64>),
}

impl Stage {
    /// Everything is started and ready.
    pub async fn set_up(colour: bool) -> Result<Stage, String> {
        let mut backends = vec![];
        for name in 1..=3 {
            backends.push(Backend::start(name).await.map_err(|error| format!("cannot start a backend: {error}"))?);
        }
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        let proxy = Proxy::start(&addresses).await?;
        let traffic = Traffic::start(proxy.address);
        let begin = Instant::now();
        Ok(Stage { backends, proxy, traffic, begin, colour, seen: 0, heard: vec![], last_line: (begin, 0, vec![0; 3]) })
    }

    /// Says what is done now.
    pub fn say(&self, words: &str) {
        let (bold, plain) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        println!("{:6.1} s  {bold}{words}{plain}", self.begin.elapsed().as_secs_f64());
    }

    /// Lets time pass, telling what the proxy tells.
    pub async fn pass(&mut self, time: Duration) -> Result<(), String> {
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

    /// Waits until backend `number` is in `state`; answers how long after `since` the proxy found so.
    pub async fn wait_for(&mut self, number: usize, state: HealthState, since: Moment) -> Result<Duration, String> {
        let address = self.backends[number - 1].address.to_string();
        let end = Instant::now() + CHANGE_MAX;
        loop {
            self.listen().await?;
            let found = self.heard.iter().find_map(|event| match &event.what {
                EventWhat::Transition { upstream, to, .. } if *upstream == address && *to == state => {
                    since.until(&event.at)
                }
                _ => None,
            });
            if let Some(found) = found {
                return Ok(found);
            }
            if Instant::now() > end {
                return Err(format!("backend {number} did not become {state} within {CHANGE_MAX:?}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Takes in new events and tells them; every second a line with the figures.
    async fn listen(&mut self) -> Result<(), String> {
        let news = self.proxy.events(self.seen).await?;
        self.seen = news.last;
        for event in news.events {
            if let Some(words) = self.in_words(&event.what) {
                println!("{:6.1} s  {words}", self.begin.elapsed().as_secs_f64());
            }
            self.heard.push(event);
        }
        if self.last_line.0.elapsed() >= Duration::from_secs(1) {
            self.line();
        }
        let _ = std::io::stdout().flush();
        Ok(())
    }

    fn in_words(&self, what: &EventWhat) -> Option<String> {
        match what {
            EventWhat::Transition { upstream, from, to, code, reason, healthy_left, .. } => {
                let name = self.backends.iter().position(|backend| backend.address.to_string() == *upstream)? + 1;
                let code = code.as_deref().unwrap_or("-");
                let (paint, plain) = match (self.colour, to) {
                    (false, _) => ("", ""),
                    (true, HealthState::Healthy) => ("\x1b[32m", "\x1b[0m"),
                    (true, HealthState::Unhealthy) => ("\x1b[31m", "\x1b[0m"),
                    (true, HealthState::Unknown) => ("\x1b[33m", "\x1b[0m"),
                };
                Some(format!(
                    "  {paint}roundsman: backend {name} {from} -> {to}{plain}  {code} {reason}  ({healthy_left} healthy left)"
                ))
            }
            EventWhat::Reload { result, generation, .. } if *generation > 1 => {
                Some(format!("  roundsman: reload {result}, generation {generation}"))
            }
            EventWhat::Reload { .. }
            | EventWhat::Addresses { .. }
            | EventWhat::Admin { .. }
            | EventWhat::Refusing(_)
            | EventWhat::FailOpen(_)
            | EventWhat::OtherPool(_)
            | EventWhat::BelowHalf { .. }
            | EventWhat::Warming { .. }
            | EventWhat::UpstreamAdded { .. }
            | EventWhat::UpstreamRemoved { .. }
            | EventWhat::UpstreamsChanged { .. }
            | EventWhat::ProbePanic { .. }
            | EventWhat::CheckerRestart => None,
        }
    }

    fn line(&mut self) {
        let tally = &self.traffic.tally;
        let sent = tally.sent.load(Ordering::Relaxed);
        let served: Vec<u64> = self.backends.iter().map(Backend::served).collect();
        let (at, before, served_before) = &self.last_line;
        let per_second = |now: u64, before: u64| (now - before) as f64 / at.elapsed().as_secs_f64();
        let shares: Vec<String> = served
            .iter()
            .zip(served_before)
            .enumerate()
            .map(|(i, (now, before))| format!("[{}] {:3.0}/s", i + 1, per_second(*now, *before)))
            .collect();
        let (dim, plain) = if self.colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        println!(
            "{:6.1} s  {dim}{:4.0} requests/s  {}  failed {}{plain}",
            self.begin.elapsed().as_secs_f64(),
            per_second(sent, *before),
            shares.join("  "),
            tally.failed.load(Ordering::Relaxed),
        );
        self.last_line = (Instant::now(), sent, served);
    }

    /// Forgets the events heard so far, so that the next wait is for new ones.
    pub fn forget(&mut self) {
        self.heard.clear();
    }
}

/// A moment by the calendar's clock, which the proxy's events are told in.
#[derive(Debug, Clone, Copy)]
pub struct Moment(jiff::Timestamp);

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        Moment(jiff::Timestamp::now())
    }

    /// How long until this date; `None` if it was before. The proxy's dates have milliseconds only.
    fn until(self, date: &str) -> Option<Duration> {
        let date: jiff::Timestamp = date.parse().ok()?;
        let ms = date.as_millisecond() - self.0.as_millisecond();
        u64::try_from(ms).ok().map(Duration::from_millis)
    }
}
