//! The log, metrics, status and commands of the process; and that none of them shows a secret.

use std::collections::HashMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use roundsman::model::AdminState;
use serde_json::Value;

use super::{PATIENCE, WITHIN_A_SECOND, http_check};
use crate::client::{Client, get};
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::program::{Program, QUICK, pool};
use crate::support::assert_eventually;

fn lines(program: &Program) -> Vec<serde_json::Map<String, Value>> {
    let log = program.log();
    let whole = log.lines().map(|line| match serde_json::from_str(line) {
        Ok(Value::Object(object)) => object,
        other => panic!("{line:?} is not a JSON object: {other:?}"),
    });
    whole.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_json_and_has_every_transition() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let mut program = Program::start_ready(&pool("api", &[&a.text(), &b.text()], &http_check())).await;
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
    program.wait_for_state("api", &b.text(), "healthy", PATIENCE).await;
    a.set("/healthz", Reply::status(503).body("out of\norder"));
    program.wait_for_state("api", &a.text(), "unhealthy", PATIENCE).await;
    b.kill();
    program.wait_for_state("api", &b.text(), "unhealthy", PATIENCE).await;
    a.set("/healthz", 200);
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
    let events = program.events(0).await.events;
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(0));

    let lines = lines(&program);
    let of = |name: &str| lines.iter().filter(|line| line["message"] == name).collect::<Vec<_>>();
    let changes = of("Health changed");
    let text =
        |line: &serde_json::Map<String, Value>, key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
    let seen: Vec<_> = changes
        .iter()
        .map(|line| ["pool", "upstream", "from", "to", "code"].map(|key| text(line, key).unwrap_or_default()))
        .collect();
    let change = |origin: &Origin, from: &str, to: &str, code: &str| {
        ["api".to_owned(), origin.text(), from.to_owned(), to.to_owned(), code.to_owned()]
    };
    let mut first: Vec<_> = seen[..2].to_vec();
    first.sort();
    let mut want = vec![change(&a, "unknown", "healthy", "L7OK"), change(&b, "unknown", "healthy", "L7OK")];
    want.sort();
    assert_eq!(first, want);
    let want = [
        change(&a, "healthy", "unhealthy", "L7STS"),
        change(&b, "healthy", "unhealthy", "L4CON"),
        change(&a, "unhealthy", "healthy", "L7OK"),
    ];
    assert_eq!(seen[2..], want);
    let reason = text(changes[2], "reason").unwrap();
    assert!(reason.contains("status 503, expected 200-299"), "{reason}");
    assert_eq!(changes[3]["healthy_left"], 0);
    assert!(changes[2]["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    let transitions =
        events.iter().filter(|event| matches!(event.what, roundsman::admin::json::EventWhat::Transition { .. }));
    assert_eq!(transitions.count(), changes.len(), "the event ring has the same transitions");
    assert_eq!((of("Started").len(), of("Stopping").len(), of("Stopped").len()), (1, 1, 1));
}

in_each_lane!(no_secret_is_ever_shown, flavor = "multi_thread");
async fn no_secret_is_ever_shown() {
    const SECRETS: [&str; 4] = ["hunter2-header", "hunter2-query", "hunter2-client", "hunter2-cookie"];
    // An upstream that quotes the request, as many error pages do.
    let quoting = Reply::status(403).body("you sent Bearer hunter2-header");
    let origin = Origin::new().on("/healthz").reply(quoting).on("/broken").reply(Reply::reset()).start().await;
    let mut program = Program::spawn_verbose(|web, admin, dir| {
        let secret = dir.join("secret");
        std::fs::write(&secret, "hunter2-header\n").unwrap();
        let check = format!(
            "type = \"http\"\npath = \"/healthz?token=hunter2-query\"\n{QUICK}\
             headers = {{ Authorization = {{ file = {secret:?}, prefix = \"Bearer \" }} }}\n"
        );
        let pools =
            pool("api", &[&origin.text()], &check).replacen("\n[pools", "\nwhen_no_healthy = \"fail_open\"\n[pools", 1);
        crate::program::config(web, admin, &pools)
    });
    program.wait_until_ready().await;
    program.wait_for_state("api", &origin.text(), "unhealthy", PATIENCE).await;
    let probe = &origin.requests("/healthz")[0];
    assert_eq!(probe.field("authorization"), Some("Bearer hunter2-header"), "the secrets are in use");
    assert_eq!(probe.target, "/healthz?token=hunter2-query");
    let fields = [("authorization", "Bearer hunter2-client"), ("cookie", "session=hunter2-cookie")];
    for path in ["/?token=hunter2-client", "/broken?token=hunter2-client", "/bad%zz?token=hunter2-client"] {
        let mut client = Client::connect(program.web).await;
        let answer = client.send("GET", path, &fields).await.expect("an answer");
        assert!(answer.status == 200 || answer.status >= 400);
    }
    let mut reported = vec![];
    for path in ["/api/v1/status", "/metrics", "/", "/health?detailed=true", "/api/v1/events"] {
        reported.push((path.to_owned(), get(program.admin, path).await.text()));
    }
    // `check` for people prints the paths of the file, queries included: the reader has the file anyway.
    for command in [&["status"][..], &["events"], &["check", "--format", "json"], &["reload", "--dry-run"]] {
        let (_, out, err) = program.command(command).await;
        reported.push((command.join(" "), out + &err));
    }
    program.write("[pools.api]\nupstreams = []\n");
    assert_eq!(program.order_reload().await.0, 422);
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(0));
    reported.push(("the log".to_owned(), program.log()));
    let mut found = vec![];
    for (place, text) in &reported {
        assert!(!text.is_empty(), "{place}");
        found.extend(
            SECRETS.iter().filter(|secret| text.contains(**secret)).map(|secret| format!("{secret} in {place}")),
        );
    }
    assert_eq!(found, Vec::<String>::new());
}

/// Families by name, and every series with its value; panics where the text is not Prometheus's format.
fn parse_metrics(text: &str) -> (HashMap<String, String>, HashMap<String, f64>) {
    let (mut families, mut series) = (HashMap::new(), HashMap::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            match words[0] {
                "HELP" => assert!(words.len() == 3 && !words[2].is_empty(), "{line}"),
                "TYPE" => assert!(families.insert(words[1].to_owned(), words[2].to_owned()).is_none(), "twice: {line}"),
                other => panic!("{other} in {line}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let value: f64 = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        let bare = name.split('{').next().unwrap();
        assert!(bare.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{line}");
        assert!(!name.contains('{') || name.ends_with('}'), "{line}");
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| bare.strip_suffix(end)).unwrap_or(bare);
        assert!(families.contains_key(family) || families.contains_key(bare), "{line} belongs to no family");
        assert!(series.insert(name.to_owned(), value).is_none(), "twice: {line}");
    }
    (families, series)
}

in_each_lane!(metrics_have_the_documented_families_and_drop_series_of_removed_upstreams, flavor = "multi_thread");
async fn metrics_have_the_documented_families_and_drop_series_of_removed_upstreams() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let both = pool("api", &[&a.text(), &b.text()], &http_check());
    let program = Program::start_ready(&both).await;
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
    program.wait_for_state("api", &b.text(), "healthy", PATIENCE).await;
    let mut client = Client::connect(program.web).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let counted = "roundsman_requests_total{pool=\"api\",class=\"2xx\"}";
    let end = tokio::time::Instant::now() + PATIENCE;
    while program.metric(counted).await != Some(10.0) {
        assert!(tokio::time::Instant::now() < end, "{}", program.metrics().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (families, series) = parse_metrics(&program.metrics().await);
    for (name, kind) in [
        ("roundsman_build_info", "gauge"),
        ("roundsman_config_generation", "gauge"),
        ("roundsman_config_last_reload_success", "gauge"),
        ("roundsman_config_last_reload_timestamp_seconds", "gauge"),
        ("roundsman_upstream_state", "gauge"),
        ("roundsman_upstream_eligible", "gauge"),
        ("roundsman_upstream_transitions_total", "counter"),
        ("roundsman_probes_total", "counter"),
        ("roundsman_probe_duration_seconds", "histogram"),
        ("roundsman_requests_total", "counter"),
        ("roundsman_request_duration_seconds", "histogram"),
        ("roundsman_upstream_response_seconds", "histogram"),
        ("roundsman_retries_total", "counter"),
        ("roundsman_retries_refused_total", "counter"),
        ("roundsman_queue_length", "gauge"),
        ("roundsman_queue_wait_seconds", "histogram"),
        ("roundsman_connections_total", "counter"),
        ("roundsman_answers_total", "counter"),
    ] {
        assert_eq!(families.get(name).map(String::as_str), Some(kind), "{name}");
    }
    let of = |origin: &Origin| series.keys().filter(|name| name.contains(&origin.text())).count();
    assert!(of(&a) > 5 && of(&a) == of(&b), "{} {}", of(&a), of(&b));
    let state = |state: &str| {
        series[&format!("roundsman_upstream_state{{pool=\"api\",upstream=\"{}\",state=\"{state}\"}}", a.text())]
    };
    assert_eq!((state("healthy"), state("unhealthy"), state("unknown")), (1.0, 0.0, 0.0));
    assert_eq!(series["roundsman_request_duration_seconds_count{pool=\"api\"}"], 10.0);
    assert!(series["roundsman_probes_total{pool=\"api\",code=\"L7OK\"}"] >= 4.0);

    assert_eq!(program.reload(&pool("api", &[&b.text()], &http_check())).await.0, 200);
    let (_, series) = parse_metrics(&program.metrics().await);
    assert!(!series.keys().any(|name| name.contains(&a.text())), "its series are gone");
    assert_eq!(series[counted], 10.0, "the pool's series continue");
    assert_eq!(series["roundsman_config_generation"], 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_would_leave_too_few_upstreams_needs_force() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let pools = pool("api", &[&a.text(), &b.text()], &http_check());
    let program = Program::start_ready(&pools).await;
    for origin in [&a, &b] {
        program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    }
    assert_eq!(program.command(&["drain", "api", &a.text()]).await.0, Some(0), "the other upstream serves");
    for word in ["drain", "disable"] {
        let (code, out, err) = program.command(&[word, "api", &b.text()]).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        let reason = format!("without {}, no upstream of pool api would serve: its requests would get 503", b.text());
        assert!(err.contains(&reason) && err.contains("--force"), "{err}");
        assert_eq!(program.upstream("api", &b.text()).await.unwrap().admin, AdminState::Enabled);
    }
    assert_eq!(get(program.web, "/").await.text(), "hello from b");
    // Orders to a pool that cannot serve need no force.
    a.set("/healthz", 503);
    program.wait_for_state("api", &a.text(), "unhealthy", PATIENCE).await;
    assert_eq!(program.command(&["disable", "api", &a.text()]).await.0, Some(0));
    let (code, out, err) = program.command(&["drain", "api", &b.text(), "--force"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("draining, was enabled") && out.contains("survives reloads"), "{out}");
    assert_eq!(get(program.web, "/").await.status, 503);
    // The order survives a reload.
    assert_eq!(program.reload(&(pools.clone() + &pool("other", &[&a.text()], ""))).await.0, 200);
    assert_eq!(program.upstream("api", &b.text()).await.unwrap().admin, AdminState::Draining);
    assert_eq!(program.command(&["undrain", "api", &b.text()]).await.0, Some(0));
    assert_eq!(get(program.web, "/").await.text(), "hello from b");
    let both = pools.replacen("\n", "\nmin_healthy = 2\n", 1);
    assert_eq!(program.command(&["enable", "api", &a.text()]).await.0, Some(0));
    a.set("/healthz", 200);
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
    assert_eq!(program.reload(&both).await.0, 200);
    let (code, _, err) = program.command(&["drain", "api", &a.text()]).await;
    assert!(code == Some(1) && err.contains("(min_healthy requires 2)"), "{err}");
    assert_eq!(get(program.web, "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_find_the_process_by_the_configuration_in_their_directory() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let pools = pool("api", &[&a.text(), &b.text()], &http_check());
    let mut program = Program::start_ready(&pools).await;
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
    let (code, out, err) = program.command(&["status"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("api") && out.contains(&a.text()) && out.contains("healthy"), "{out}");
    let (code, out, _) = program.command(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &status["pools"]["api"]["total"], &status["generation"]), (Some(0), &2.into(), &1.into()));
    let (code, out, _) = program.command(&["events", "--json"]).await;
    assert_eq!(code, Some(0));
    let kinds = out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["kind"].clone());
    assert!(kinds.collect::<Vec<_>>().contains(&"transition".into()), "{out}");
    let (code, out, _) = program.command(&["schema"]).await;
    assert_eq!(code, Some(0));
    assert!(serde_json::from_str::<Value>(&out).expect("JSON").get("properties").is_some());
    let (code, out, err) = program.command(&["check"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("api") && out.contains("/healthz"), "{out}");

    let (code, out, err) = program.command(&["drain", "api", &a.text(), "--reason", "kernel upgrade"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("draining, was enabled"), "{out}");
    assert_eventually("the order is logged", PATIENCE, || program.log().contains("kernel upgrade")).await;
    let before = a.count("/");
    let mut client = Client::connect(program.web).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "hello from b");
    }
    assert_eq!(a.count("/"), before, "a draining upstream gets no new request");
    let probes = a.count("/healthz");
    assert_eventually("it is still probed", PATIENCE, || a.count("/healthz") > probes + 2).await;
    assert_eq!(program.command(&["undrain", "api", &a.text()]).await.0, Some(0));
    let answers = [client.get("/").await.text(), client.get("/").await.text()];
    assert!(answers.contains(&"hello from a".to_owned()), "{answers:?}");
    for wrong in [["drain", "nopool", "127.0.0.1:1"], ["drain", "api", "127.0.0.1:1"]] {
        let (code, out, err) = program.command(&wrong).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(wrong[1]) || err.contains(wrong[2]), "{err}");
    }
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(0));
    let (code, _, err) = program.command(&["status"]).await;
    assert_eq!(code, Some(1), "the process has ended");
    assert!(err.contains(&program.admin.to_string()), "{err}");
}
