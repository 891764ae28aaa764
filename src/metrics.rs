//! Prometheus metrics: the counters of the pools, the checker and the process, read at scrape time. Names, labels and
//! help texts are in `pools`, `upstreams`, `process` and here; `docs/metrics.md` lists them.
//!
//! Nothing is kept between scrapes: a removed pool or upstream has no series, and no counter goes backwards. Labels
//! come from names of the configuration and from enums, never from paths, clients or error texts.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::pool::{FrontStats, RouteStats, Status};

mod families;
mod legacy;
mod pools;
mod process;
#[cfg(test)]
mod syntax;
mod upstreams;

use families::Families;

/// How a scrape is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    /// In OpenMetrics 1.0; otherwise in the Prometheus text format 0.0.4.
    pub open_metrics: bool,
    /// With the series per upstream: about 20 MB for 10,000 upstreams.
    pub upstreams: bool,
}

/// What one scrape reports.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// Every pool.
    pub status: Status,
    /// Every route, by what it is for.
    pub routes: Vec<(String, Arc<RouteStats>)>,
    /// The SHA-256 of the configuration file, in hexadecimal; empty without a file.
    pub config_hash: Arc<str>,
    /// What the listeners count outside of any pool.
    pub front: Arc<FrontStats>,
    /// When the process started.
    pub started: SystemTime,
    /// Whether the last reload was applied or changed nothing; true before the first.
    pub last_reload_success: bool,
    /// When it was done; the start before the first.
    pub last_reload: SystemTime,
    /// Threads that panicked.
    pub panics: u64,
    /// Log lines lost.
    pub log_lines_dropped: u64,
    /// Lines of the access log lost.
    pub access_lines_dropped: u64,
}

/// The text of `/metrics`.
pub fn render(scrape: Scrape, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Formatted { scrape, upstreams: format.upstreams }));
    let mut text = String::with_capacity(64 * 1024);
    encode(&mut text, &registry).expect("a String takes everything");
    if format.open_metrics { text } else { legacy::from_open_metrics(&text) }
}

/// A scrape with or without the series per upstream.
#[derive(Debug)]
struct Formatted {
    scrape: Scrape,
    upstreams: bool,
}

impl Collector for Formatted {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.scrape.encode(Families::new(encoder), self.upstreams)
    }
}

impl Scrape {
    fn encode(&self, mut families: Families<'_>, upstreams: bool) -> fmt::Result {
        families.info("roundsman_build", "The version of this process", &[("version", crate::VERSION)])?;
        let hash = [("hash", &*self.config_hash)];
        families.info("roundsman_config", "The SHA-256 of the configuration file; empty without a file", &hash)?;
        families.gauge("roundsman_config_generation", "Counts applied configurations", self.status.generation)?;
        let success = u64::from(self.last_reload_success);
        families.gauge("roundsman_config_last_reload_success", "Whether the last reload was not refused", success)?;
        let at = process::unix_seconds(self.last_reload);
        families.gauge("roundsman_config_last_reload_timestamp_seconds", "When the last reload was done", at)?;
        pools::encode(&mut families, &self.status.pools)?;
        pools::encode_routes(&mut families, &self.routes)?;
        if upstreams {
            upstreams::encode(&mut families, &self.status.pools)?;
        }
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
    use crate::model::{AdminState, Code, HealthState};
    use crate::pool::*;

    const PLAIN: Format = Format { open_metrics: false, upstreams: true };

    fn upstream(pool: &str, address: &str, state: HealthState) -> UpstreamStatus {
        UpstreamStatus {
            checks_total: 5,
            ..testing::upstream(1, pool, address.parse().unwrap(), state, Instant::now())
        }
    }

    fn certified(name: &str, certificate_expiry: Option<i64>) -> CheckStatus {
        let check = testing::check(name, "10.0.0.1:80".parse().unwrap(), HealthState::Healthy, Instant::now());
        CheckStatus { certificate_expiry, ..check }
    }

    fn pool(name: &str, upstreams: Vec<UpstreamStatus>) -> PoolStatus {
        PoolStatus { healthy: 1, eligible: 1, ..testing::pool(name, PoolSummary::Degraded, upstreams, Instant::now()) }
    }

    fn scrape(pools: Vec<PoolStatus>) -> Scrape {
        let lag = Duration::from_millis(3);
        let checker = CheckerStatus { restarts_total: 1, probes_in_flight: 2, lag, ..testing::checker() };
        Scrape {
            status: Status { generation: 3, pools, checker },
            routes: vec![
                ("/v1".into(), Arc::default()),
                ("/v1".into(), Arc::default()),
                ("a.example/".into(), Arc::default()),
            ],
            config_hash: "c0ffee".into(),
            front: Arc::default(),
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
            last_reload_success: true,
            last_reload: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            panics: 0,
            log_lines_dropped: 0,
            access_lines_dropped: 0,
        }
    }

    fn two_pools() -> Scrape {
        let odd = upstream("api", "unix:/run/a \"b\\c.sock", HealthState::Unhealthy);
        let mut first = upstream("api", "10.0.0.1:80", HealthState::Healthy);
        first.admin = AdminState::Draining;
        first.checks = vec![certified("http", Some(1_893_456_000)), certified("tcp", None)];
        first.upstream.count_answer(200, Duration::from_millis(250));
        first.upstream.count_answer(503, Duration::from_secs(1));
        let mut api = pool("api", vec![first, odd]);
        api.warming = true;
        let stats = &api.shared.stats;
        stats.record_request(RequestClass::Success, Duration::from_millis(3));
        stats.record_request(RequestClass::ServerError, Duration::from_secs(100));
        stats.record_probe(Code::L7Ok, Duration::from_micros(700));
        stats.answers.inc(AnswerReason::NoneEligible);
        scrape(vec![api, pool("web", vec![upstream("web", "10.0.0.1:80", HealthState::Unknown)])])
    }

    #[tokio::test(start_paused = true)]
    async fn both_formats_follow_their_grammar() {
        for upstreams in [true, false] {
            let open = Format { open_metrics: true, upstreams };
            syntax::check(&render(two_pools(), Format { open_metrics: false, upstreams }), syntax::Format::Prometheus);
            syntax::check(&render(two_pools(), open), syntax::Format::OpenMetrics);
        }
        syntax::check(&render(scrape(vec![]), PLAIN), syntax::Format::Prometheus);
    }

    #[tokio::test(start_paused = true)]
    async fn series_have_the_counted_values() {
        let text = render(two_pools(), PLAIN);
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
            "roundsman_config_info{hash=\"c0ffee\"} 1",
            "roundsman_pool_warming{pool=\"api\"} 1",
            "roundsman_pool_warming{pool=\"web\"} 0",
            "roundsman_upstream_admin_state{pool=\"api\",upstream=\"10.0.0.1:80\",state=\"draining\"} 1",
            "roundsman_upstream_admin_state{pool=\"api\",upstream=\"10.0.0.1:80\",state=\"enabled\"} 0",
            "roundsman_upstream_responses_total{pool=\"api\",upstream=\"10.0.0.1:80\",class=\"5xx\"} 1",
            "roundsman_upstream_responses_total{pool=\"web\",upstream=\"10.0.0.1:80\",class=\"5xx\"} 0",
            "roundsman_upstream_response_time_seconds_sum{pool=\"api\",upstream=\"10.0.0.1:80\"} 1.25",
            "roundsman_upstream_response_time_seconds_count{pool=\"api\",upstream=\"10.0.0.1:80\"} 2",
            "roundsman_check_certificate_expiry_seconds{pool=\"api\",upstream=\"10.0.0.1:80\",check=\"http\"} 1893456000",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_is_in_one_service_state() {
        for state in ServiceState::ALL {
            let text = render(scrape(vec![PoolStatus { service: state, ..pool("api", vec![]) }]), PLAIN);
            let series =
                text.lines().filter_map(|line| line.strip_prefix("roundsman_pool_service_state{pool=\"api\","));
            let on: Vec<&str> = series.clone().filter(|series| series.ends_with(" 1")).collect();
            assert_eq!((on, series.count()), (vec![&*format!("state=\"{}\"}} 1", state.as_str())], 5), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_series_per_upstream_can_be_left_out() {
        let whole = render(two_pools(), PLAIN);
        let short = render(two_pools(), Format { upstreams: false, ..PLAIN });
        assert!(!short.contains("upstream=") && whole.contains("upstream="), "{short}");
        let of_upstreams = |line: &str| line.contains("roundsman_upstream_") || line.contains("roundsman_check_");
        // This series of pools begins like those of upstreams.
        let of_pools = |line: &str| line.contains("roundsman_upstream_response_seconds");
        // Values may change from one scrape to the next, so only names are compared.
        let named = |text: &str| -> Vec<String> {
            let kept = text.lines().filter(|line| !of_upstreams(line) || of_pools(line));
            kept.map(|line| line.rsplit_once(' ').map_or(line, |(series, _)| series).to_owned()).collect()
        };
        assert_eq!(named(&whole), named(&short));
        assert_eq!(named(&short).len(), short.lines().count(), "no series per upstream is left");
    }

    #[tokio::test(start_paused = true)]
    async fn removed_pools_and_upstreams_have_no_series() {
        let mut scrape = two_pools();
        assert!(render(scrape.clone(), PLAIN).contains("pool=\"web\""));
        scrape.status.pools.pop();
        scrape.status.pools[0].upstreams.remove(0);
        let text = render(scrape, PLAIN);
        assert!(!text.contains("pool=\"web\"") && !text.contains("10.0.0.1:80"), "{text}");
        assert!(text.contains("roundsman_requests_total{pool=\"api\",class=\"2xx\"} 1"));
    }
}
