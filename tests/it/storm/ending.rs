//! The end of a storm: all resources must be freed, and the observations become evidence.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use roundsman::admin::json::{EventInfo, EventWhat};
use tokio::time::{Instant, sleep};

use super::evidence::{Arrival, Evidence, Known, Sample, Transition};
use super::model::At;
use super::oracle::Violation;
use super::watch::{Asked, Clock};
use super::world::PATIENCE;
use crate::origin::Origin;
use crate::program::Program;

/// The longest time for a status, plus ten times the lateness of our own thread.
const STATUS_MAX: Duration = Duration::from_secs(1);
/// A pause of the machine this long may have made a probe time out.
const STANDSTILL: Duration = Duration::from_millis(100);
/// How many more descriptors may be open than before the storm.
const DESCRIPTORS_MORE: usize = 5;

/// What an idle process holds.
#[derive(Debug, Clone, Copy)]
pub struct Base {
    pub descriptors: usize,
    pub threads: usize,
}

/// The state when the load has ended.
pub struct Ending {
    pub program: Program,
    pub base: Base,
    pub clock: Clock,
    pub evidence: Evidence,
    pub violations: Vec<Violation>,
}

impl Ending {
    fn fault(&mut self, rule: &'static str, what: String) {
        self.violations.push(Violation { rule, at: self.clock.now(), what });
    }

    pub async fn wait_for_base(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let held = self.held().await;
            if held.is_empty() {
                break;
            }
            if Instant::now() > end {
                self.fault("base", held.join("; "));
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        if !self.program.is_alive() {
            self.fault("base", "the process has ended".to_owned());
        }
        let log = self.program.log();
        if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
            self.fault("base", line.to_owned());
        }
    }

    /// What is not freed.
    async fn held(&self) -> Vec<String> {
        let (descriptors, threads) = (self.program.descriptors(), self.program.threads());
        let mut held = Vec::new();
        if descriptors > self.base.descriptors + DESCRIPTORS_MORE {
            held.push(format!("{descriptors} descriptors, {} before", self.base.descriptors));
        }
        if threads > self.base.threads {
            let names = self.program.thread_names().join(", ");
            held.push(format!("{threads} threads, {} before: {names}", self.base.threads));
        }
        for (name, pool) in self.program.status().await.pools.0 {
            let busy = pool.upstreams.iter().filter(|upstream| upstream.in_flight > 0);
            held.extend(busy.map(|upstream| format!("{name} {}: {} in flight", upstream.address, upstream.in_flight)));
            let warming = if pool.warming { "warming" } else { "not warming" };
            if pool.waiting > 0 || pool.warming {
                held.push(format!("{name}: {} waiting, {warming}", pool.waiting));
            }
        }
        held
    }

    pub fn take_events(&mut self, events: &[EventInfo], addresses: &[SocketAddr]) {
        let lost = events.windows(2).find(|pair| pair[1].seq != pair[0].seq + 1);
        assert!(lost.is_none(), "events were lost, so the evidence is incomplete: {lost:?}");
        for event in events {
            let EventWhat::Transition { pool, upstream, from, to, .. } = &event.what else { continue };
            // A name without an address is not an origin.
            let Some(origin) = origin_at(addresses, upstream) else { continue };
            let (at, pool) = (self.clock.moment(&event.at), pool.clone());
            self.evidence.transitions.push(Transition { at, pool, origin, from: *from, to: *to });
        }
        let long = self.evidence.hiccups.iter().filter(|(_, late)| *late > STANDSTILL);
        let long: Vec<(At, At)> = long.map(|(at, late)| (at.saturating_sub(*late), *at)).collect();
        self.evidence.standstills.extend(long);
        self.evidence.standstills.sort_unstable();
    }

    pub fn take_statuses(&mut self, statuses: &[Asked], addresses: &[SocketAddr]) {
        for Asked { asked, answered, status } in statuses {
            let since = self.evidence.reach_back(*asked, *answered);
            let stopped = *asked - since;
            let late = self.evidence.lateness(*asked, *answered);
            let took = (*answered - *asked).saturating_sub(stopped);
            if took > STATUS_MAX + 10 * late {
                self.violations.push(Violation { rule: "status", at: *asked, what: format!("it took {took:?}") });
            }
            let mut upstreams = HashMap::new();
            for (name, pool) in &status.pools.0 {
                for upstream in &pool.upstreams {
                    let Some(origin) = origin_at(addresses, &upstream.address) else { continue };
                    let known = Known { state: upstream.state, retiring: upstream.retiring };
                    upstreams.insert((name.to_owned(), origin), known);
                }
            }
            self.evidence.samples.push(Sample { asked: *asked, answered: *answered, upstreams });
        }
    }

    pub fn take_arrivals(&mut self, origins: &[Origin]) {
        for (index, origin) in origins.iter().enumerate() {
            let seen = origin.all_requests();
            assert!(
                seen.len() < 50_000,
                "origin {index} has dropped requests from its log, so the evidence is incomplete"
            );
            for seen in seen {
                let Some((service, number)) = seen.target.strip_prefix("/s").and_then(|rest| rest.split_once('/'))
                else {
                    continue;
                };
                self.evidence.arrivals.push(Arrival {
                    at: seen.at.saturating_duration_since(self.clock.start),
                    number: number.parse().expect("a number of ours"),
                    service: service.parse().expect("a service of ours"),
                    post: seen.method == "POST",
                    origin: index,
                });
            }
        }
        self.evidence.arrivals.sort_by_key(|arrival| arrival.at);
    }
}

fn origin_at(addresses: &[SocketAddr], text: &str) -> Option<usize> {
    let address: SocketAddr = text.parse().ok()?;
    addresses.iter().position(|other| *other == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_known_by_its_address_alone() {
        let addresses = ["127.0.0.1:7080", "127.0.0.2:7080"].map(|text| text.parse().expect("an address"));
        assert_eq!(origin_at(&addresses, "127.0.0.2:7080"), Some(1));
        assert_eq!(origin_at(&addresses, "127.0.0.3:7080"), None);
        assert_eq!(origin_at(&addresses, "storm:7080"), None);
    }
}
