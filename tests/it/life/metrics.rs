//! Requests, orders and certificates in the metrics and the status of the real program; and that `docs/metrics.md`
//! lists every metric.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use roundsman::admin::json::UpstreamInfo;

use super::{PATIENCE, http_check};
use crate::client::{Client, get};
use crate::lanes::each::in_each_lane;
use crate::origin::tls::{CERTIFICATES, TlsOrigin};
use crate::origin::{Origin, Reply};
use crate::program::{Program, fetch, pool};

/// Type and labels of each family, by the name its samples have.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// Reads the rows of the tables of `docs/metrics.md`.
fn documented() -> Families {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).expect("the page is there");
    let mut families = Families::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, unit, meaning] = cells[..] else { panic!("five cells: {row}") };
        assert!(!unit.is_empty() && meaning.len() > 5, "{row}");
        let labels = labels.split(',').map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let before = families.insert(name.trim_end_matches('`').to_owned(), (kind.to_owned(), labels));
        assert!(before.is_none(), "{name} is listed twice");
    }
    families
}

/// Reads the families of a scrape in the Prometheus text format. Labels of families without a series are not known.
fn scraped(text: &str) -> Families {
    let mut families = Families::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((series, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| series.strip_suffix(part).filter(|name| families.contains_key(*name)));
            let entry = families.get_mut(family.unwrap_or(series)).unwrap_or_else(|| panic!("no type before {line}"));
            let (labels, _) = labels.rsplit_once('}').expect("labels end");
            let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            entry.1.extend(names.filter(|name| name != "le"));
        }
    }
    families
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_metrics_are_those_of_a_scrape() {
    let origin = Origin::plain("a").await;
    let tls = TlsOrigin::with(&CERTIFICATES.good).at((origin.socket_addr().ip(), 0).into()).before(&origin).start();
    let port = tls.address().port().expect("a port");
    let secure = format!("port = {port}\nscheme = \"https\"\ntls = {{ verify = false }}\n");
    // The first line belongs to `[admin]`.
    let api = pool("api", &[&origin.text()], &(http_check() + &secure));
    let pools = format!("upstream_histograms = true\n{api}[[routes]]\npath = \"/\"\npool = \"api\"\n");
    let program = Program::start_ready(&pools).await;
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    // Some have no series before the first request.
    assert_eq!(fetch(program.web, "GET", "/").await.0, 200);
    let (documented, text) = (documented(), program.metrics().await);
    let scraped = scraped(&text);
    let names = |families: &Families| families.keys().cloned().collect::<BTreeSet<_>>();
    let (listed, live) = (names(&documented), names(&scraped));
    let missing: Vec<_> = live.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/metrics.md does not list {missing:?}");
    let gone: Vec<_> = listed.difference(&live).collect();
    assert!(gone.is_empty(), "docs/metrics.md lists what no scrape has: {gone:?}");
    for (name, family) in &documented {
        assert_eq!(family, &scraped[name], "type and labels of {name}");
    }
    for standard in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "process_threads",
    ] {
        let value = program.metric(standard).await.unwrap_or_else(|| panic!("{standard} has no value"));
        assert!(value >= 0.0 && (value > 0.0 || standard.contains("cpu")), "{standard} {value}");
    }

    // The end of the certificate, as metric and as date.
    let labels = format!("pool=\"api\",upstream=\"{}\"", origin.text());
    let expiry = format!("roundsman_check_certificate_expiry_seconds{{{labels},check=\"http\"}}");
    let seconds = program.metric(&expiry).await.unwrap_or_else(|| panic!("{expiry}: {text}"));
    let upstream = program.upstream("api", &origin.text()).await.expect("status lists it");
    let date = upstream.certificate_expires_at.expect("a date");
    let since_1970 =
        humantime::parse_rfc3339(&date).expect("RFC 3339").duration_since(UNIX_EPOCH).expect("not in 1969");
    assert_eq!(since_1970.as_secs_f64(), seconds);
    // It is kept while no handshake succeeds.
    drop(tls);
    program.wait_for_state("api", &origin.text(), "unhealthy", PATIENCE).await;
    assert_eq!(program.metric(&expiry).await, Some(seconds));

    // The hash is that of the file, also when the new file means the same.
    let hash = |status: &roundsman::admin::json::StatusReply| status.config.hash.clone();
    let before = hash(&program.status().await);
    assert_eq!(before, sha256(&program.file()));
    assert_eq!(program.metric(&format!("roundsman_config_info{{hash=\"{before}\"}}")).await, Some(1.0));
    let (status, _) = program.reload(&format!("{pools}# a remark\n")).await;
    assert_eq!(status, 200);
    let after = hash(&program.status().await);
    assert!(after != before && after == sha256(&program.file()), "{after}");
    program.write_raw("nonsense");
    assert_eq!(program.order_reload().await.0, 422);
    assert_eq!(hash(&program.status().await), after, "a refused file does not change the hash");

    let (status, short) = fetch(program.admin, "GET", "/metrics?upstreams=false").await;
    let short = String::from_utf8_lossy(&short);
    assert!(status == 200 && !short.contains("upstream=\"") && short.contains("roundsman_pool_healthy{"), "{short}");
}

fn sha256(file: &std::path::Path) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &std::fs::read(file).expect("the file"));
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until `holds` is true of the upstream of pool `api`: a status may be up to 100 ms old.
async fn until(program: &Program, address: &str, holds: impl Fn(&UpstreamInfo) -> bool) -> UpstreamInfo {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let upstream = program.upstream("api", address).await.expect("status lists it");
        if holds(&upstream) {
            return upstream;
        }
        assert!(tokio::time::Instant::now() < end, "{upstream:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn answered(upstream: &UpstreamInfo) -> [u64; 5] {
    let r = upstream.responses_total;
    [r.informational, r.success, r.redirection, r.client_error, r.server_error]
}

in_each_lane!(failed_requests_are_counted_for_their_upstream, flavor = "multi_thread");
async fn failed_requests_are_counted_for_their_upstream() {
    let late = Reply::status(200).delay(std::time::Duration::from_millis(120));
    let origin = Origin::new()
        .on("/late")
        .reply(late)
        .on("/moved")
        .reply(302)
        .on("/gone")
        .reply(404)
        .on("/fails")
        .reply(503)
        .on("/cut")
        .reply(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"))
        .on("/reset")
        .reply(Reply::reset())
        .on("/ws")
        .reply(Reply::upgrade_echo())
        .start()
        .await;
    let address = origin.text();
    let program = Program::start_ready(&pool("api", &[&address], &http_check())).await;
    for (path, status) in [("/late", 200), ("/moved", 302), ("/gone", 404), ("/fails", 503), ("/fails", 503)] {
        assert_eq!(get(program.web, path).await.status, status, "{path}");
    }
    let before = until(&program, &address, |u| u.response_seconds_count >= 5).await;
    assert_eq!((answered(&before), before.broken_total), ([0, 1, 1, 1, 2], 0));
    assert_eq!(before.response_seconds_count, 5);
    assert!((0.12..60.0).contains(&before.response_seconds_sum), "{before:?}");

    // One response that is truncated, and one request without a response.
    let mut client = Client::connect(program.web).await;
    assert!(client.send("GET", "/cut", &[]).await.is_err(), "the response is truncated");
    assert_eq!(get(program.web, "/reset").await.status, 502);
    // The request that was reset may have been retried.
    until(&program, &address, |u| u.broken_total >= 2).await;
    let labels = format!("pool=\"api\",upstream=\"{address}\"");
    for (series, value) in [
        (format!("roundsman_upstream_responses_total{{{labels},class=\"5xx\"}}"), 2.0),
        (format!("roundsman_upstream_responses_total{{{labels},class=\"3xx\"}}"), 1.0),
        (format!("roundsman_upstream_response_time_seconds_count{{{labels}}}"), 6.0),
        (format!("roundsman_upstream_admin_state{{{labels},state=\"enabled\"}}"), 1.0),
    ] {
        assert_eq!(program.metric(&series).await, Some(value), "{series}");
    }
    assert!(program.metric(&format!("roundsman_upstream_broken_total{{{labels}}}")).await >= Some(2.0));
}

in_each_lane!(connect_failures_are_counted_for_their_upstream, flavor = "multi_thread");
async fn connect_failures_are_counted_for_their_upstream() {
    let origin = Origin::plain("a").await;
    // Its checks go to another port, and pass.
    let checked = Origin::new().at((origin.socket_addr().ip(), 0).into()).start().await;
    let port = format!("port = {}\n", checked.socket_addr().port());
    let program = Program::start_ready(&pool("api", &[&origin.text()], &(http_check() + &port))).await;
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    origin.kill();
    assert_eq!(get(program.web, "/").await.status, 502);
    let after = until(&program, &origin.text(), |u| u.connect_failures_total > 0).await;
    assert_eq!((after.connect_failures_total, after.broken_total, answered(&after)), (1, 0, [0; 5]), "{after:?}");
    let series = format!("roundsman_upstream_connect_failures_total{{pool=\"api\",upstream=\"{}\"}}", origin.text());
    assert_eq!(program.metric(&series).await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_counts_as_one_1xx_response() {
    let origin = Origin::new().on("/ws").reply(Reply::upgrade_echo()).start().await;
    let program = Program::start_ready(&pool("api", &[&origin.text()], &http_check())).await;
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
    let mut client = Client::connect(program.web).await;
    assert_eq!(client.send("GET", "/ws", &upgrade).await.expect("an answer").status, 101);
    let upstream = until(&program, &origin.text(), |u| u.response_seconds_count > 0).await;
    assert_eq!(answered(&upstream), [1, 0, 0, 0, 0], "{upstream:?}");
}
