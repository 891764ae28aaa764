//! Prometheus metrics: what the pools, the checker and the process counted, read at scrape time. Decides names, labels and
//! help texts, all of them in `pools`, `process` and here.
//!
//! Nothing is kept between scrapes: a pool or upstream that is gone has no series any more, and no counter goes backwards.
//! Labels come from names of the configuration and from enums, never from paths, clients or error texts.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::pool::{FrontStats, Status};

mod families;
mod legacy;
mod pools;
mod process;
#[cfg(test)]
mod syntax;

use families::Families;

/// What is told at one scrape.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// Every pool.
    pub status: Status,
    /// What the listeners have done that belongs to no pool.
    pub front: Arc<FrontStats>,
    /// When the process began.
    pub started: SystemTime,
    /// Whether the last reload was applied or changed nothing; true before the first.
    pub last_reload_success: bool,
    /// When it was done; the start before the first.
    pub last_reload: SystemTime,
    /// Threads that panicked.
    pub panics: u64,
    /// Log lines dropped.
    pub log_lines_dropped: u64,
}

/// The text of `/metrics`: OpenMetrics 1.0, or the Prometheus text format 0.0.4.
pub fn render(scrape: Scrape, open_metrics: bool) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::with_capacity(64 * 1024);
    encode(&mut text, &registry).expect("a String takes everything");
    if open_metrics { text } else { legacy::from_open_metrics(&text) }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::new(encoder);
        families.info("roundsman_build", "The version of this process", &[("version", crate::VERSION)])?;
        families.gauge("roundsman_config_generation", "Counts applied configurations", self.status.generation)?;
        let success = u64::from(self.last_reload_success);
        families.gauge("roundsman_config_last_reload_success", "Whether the last reload was not refused", success)?;
        let at = process::unix_seconds(self.last_reload);
        families.gauge("roundsman_config_last_reload_timestamp_seconds", "When the last reload was done", at)?;
        pools::encode(&mut families, &self.status)?;
        process::encode_front(&mut families, &self.front)?;
        process::encode_checker(&mut families, &self.status.checker)?;
        process::encode(&mut families, self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::model::eligibility::eligibility;
    use crate::model::{AdminState, Code, HealthState, Name, Weight};
    use crate::pool::*;

    fn upstream(pool: &str, address: &str, state: HealthState) -> UpstreamStatus {
        let pool = Name::try_new(pool).unwrap();
        let address = address.parse().unwrap();
        UpstreamStatus {
            upstream: Arc::new(Upstream::new(UpstreamId(1), pool, address, Hints::none())),
            name: None,
            state,
            eligibility: eligibility(state, AdminState::Enabled, false, false),
            why: None,
            since: Instant::now(),
            weight: Weight::ONE,
            backup: false,
            admin: AdminState::Enabled,
            ejected: false,
            carried: false,
            retiring: false,
            unverified: false,
            streak: None,
            checks_total: 5,
            transitions_total: 1,
            last_check: None,
            next_due: Instant::now(),
            decides: 0,
            checks: Vec::new(),
        }
    }

    fn pool(name: &str, upstreams: Vec<UpstreamStatus>) -> PoolStatus {
        PoolStatus {
            name: Name::try_new(name).unwrap(),
            summary: PoolSummary::Degraded,
            healthy: 1,
            total: upstreams.len(),
            eligible: 1,
            fail_open: false,
            warming: false,
            warming_until: None,
            out_of_order: None,
            judged: true,
            first_probe: None,
            shared: Arc::new(PoolShared::new(Instant::now())),
            upstreams,
        }
    }

    fn scrape(pools: Vec<PoolStatus>) -> Scrape {
        let checker = CheckerStatus {
            stale: false,
            restarts_total: 1,
            probe_panics_total: 0,
            probes_in_flight: 2,
            lag: Duration::from_millis(3),
        };
        Scrape {
            status: Status { generation: 3, pools, checker },
            front: Arc::default(),
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
            last_reload_success: true,
            last_reload: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            panics: 0,
            log_lines_dropped: 0,
        }
    }

    fn two_pools() -> Scrape {
        let odd = upstream("api", "unix:/run/a \"b\\c.sock", HealthState::Unhealthy);
        let api = pool("api", vec![upstream("api", "10.0.0.1:80", HealthState::Healthy), odd]);
        let stats = &api.shared.stats;
        stats.record_request(RequestClass::Success, Duration::from_millis(3));
        stats.record_request(RequestClass::ServerError, Duration::from_secs(100));
        stats.record_probe(Code::L7Ok, Duration::from_micros(700));
        stats.answers.inc(AnswerReason::NoneEligible);
        scrape(vec![api, pool("web", vec![upstream("web", "10.0.0.1:80", HealthState::Unknown)])])
    }

    #[tokio::test(start_paused = true)]
    async fn both_formats_keep_to_their_grammar() {
        syntax::check(&render(two_pools(), false), syntax::Format::Prometheus);
        syntax::check(&render(two_pools(), true), syntax::Format::OpenMetrics);
        syntax::check(&render(scrape(vec![]), false), syntax::Format::Prometheus);
    }

    #[tokio::test(start_paused = true)]
    async fn series_say_what_was_counted() {
        let text = render(two_pools(), false);
        for line in [
            &format!("roundsman_build_info{{version=\"{}\"}} 1", crate::VERSION),
            "# TYPE roundsman_requests_total counter",
            "roundsman_config_generation 3",
            "roundsman_config_last_reload_timestamp_seconds 1.5",
            "roundsman_upstream_state{pool=\"api\",upstream=\"10.0.0.1:80\",state=\"healthy\"} 1",
            "roundsman_upstream_state{pool=\"api\",upstream=\"10.0.0.1:80\",state=\"unhealthy\"} 0",
            "roundsman_upstream_healthy{pool=\"web\",upstream=\"10.0.0.1:80\"} 0",
            "roundsman_upstream_eligible{pool=\"api\",upstream=\"10.0.0.1:80\"} 1",
            "roundsman_upstream_transitions_total{pool=\"api\",upstream=\"10.0.0.1:80\"} 1",
            "roundsman_probes_total{pool=\"api\",code=\"L7OK\"} 1",
            "roundsman_requests_total{pool=\"api\",class=\"2xx\"} 1",
            "roundsman_requests_total{pool=\"web\",class=\"2xx\"} 0",
            "roundsman_answers_total{pool=\"api\",reason=\"none_eligible\"} 1",
            "roundsman_request_duration_seconds_bucket{le=\"0.005\",pool=\"api\"} 1",
            "roundsman_request_duration_seconds_bucket{le=\"+Inf\",pool=\"api\"} 2",
            "roundsman_request_duration_seconds_count{pool=\"api\"} 2",
            "roundsman_probe_duration_seconds_count{pool=\"api\"} 1",
            "roundsman_checker_restarts_total 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_series_of_what_was_removed_end() {
        let mut scrape = two_pools();
        assert!(render(scrape.clone(), false).contains("pool=\"web\""));
        scrape.status.pools.pop();
        scrape.status.pools[0].upstreams.remove(0);
        let text = render(scrape, false);
        assert!(!text.contains("pool=\"web\"") && !text.contains("10.0.0.1:80"), "{text}");
        assert!(text.contains("roundsman_requests_total{pool=\"api\",class=\"2xx\"} 1"));
    }
}
