//! Outages in the log, at level warn or error with their reason, and in status and explain.

use nix::sys::signal::Signal;
use roundsman::admin::json::{EventWhat, WarmingWord};
use serde_json::Value;

use super::{PATIENCE, http_check};
use crate::client::get;
use crate::lanes::each::in_each_lane;
use crate::origin::Origin;
use crate::origin::tls::{CERTIFICATES, TlsOrigin};
use crate::program::QUICK;
use crate::program::{Program, config, free_address, pool};
use crate::support::assert_eventually;

type Line = serde_json::Map<String, Value>;

fn lines(program: &Program) -> Vec<Line> {
    // The last line may be incomplete.
    program.log().split_inclusive('\n').filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn text<'a>(line: &'a Line, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A paragraph as one line.
fn unwrapped(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Waits for a line with this message, and returns the first.
async fn logged(program: &Program, message: &str) -> Line {
    let of = |line: &Line| text(line, "message") == message;
    assert_eventually(message, PATIENCE, || lines(program).iter().any(of)).await;
    lines(program).into_iter().find(of).expect("the line was found")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outage_is_logged_at_warn_or_above() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let program = Program::start_ready(&pool("api", &[&a.text(), &b.text()], &http_check())).await;
    for origin in [&a, &b] {
        program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    }
    let (_, out, err) = program.command(&["drain", "api", &b.text(), "--reason", "kernel"]).await;
    assert!(out.contains("draining"), "{out}{err}");
    a.set("/healthz", 503);
    program.wait_for_state("api", &a.text(), "unhealthy", PATIENCE).await;
    let began = logged(&program, "Pool refuses requests").await;
    assert_eq!((text(&began, "level"), text(&began, "pool")), ("error", "api"));
    let reason = text(&began, "reason");
    assert!(reason.starts_with("neither of its 2 upstreams can serve: 1 is unhealthy (L7STS: status 503"), "{reason}");
    assert!(reason.ends_with(", 1 is draining"), "{reason}");
    let next = format!("this ends when an upstream passes its checks, or after `roundsman undrain api {}`", b.text());
    assert_eq!(text(&began, "next"), next);

    let health = get(program.admin, "/health/api").await;
    let said: Value = serde_json::from_str(&health.text()).expect("JSON");
    assert_eq!(health.status, 503);
    assert_eq!(said["reason"].as_str(), Some(format!("{reason}; {next}").as_str()));
    let pool = program.pool("api").await;
    assert!(pool.reason.is_some() && pool.down_since.is_some(), "{pool:?}");
    let explained = unwrapped(&program.command(&["explain", "api"]).await.1);
    assert!(explained.contains("It has not served for "), "{explained}");
    let (_, events, _) = program.command(&["events"]).await;
    assert!(events.contains("api  refuses requests: neither of its 2 upstreams can serve"), "{events}");

    let (code, out, err) = program.command(&["undrain", "api", &b.text()]).await;
    let want = format!("api {}: enabled, was draining\n", b.text());
    assert_eq!((code, out), (Some(0), want), "it ends an order: {err}");
    let ended = logged(&program, "Pool serves again").await;
    assert_eq!(text(&ended, "level"), "info");
    assert!(ended["down_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{ended:?}");
    assert_eq!(get(program.admin, "/health/api").await.status, 200);
    let pool = program.pool("api").await;
    assert!(pool.reason.is_none() && pool.down_since.is_none(), "{pool:?}");

    // One line each, and each transition at its level.
    let lines = lines(&program);
    let of = |message: &str| lines.iter().filter(|line| text(line, "message") == message).collect::<Vec<_>>();
    assert_eq!((of("Pool refuses requests").len(), of("Pool serves again").len()), (1, 1));
    for line in of("Health changed") {
        let want = if text(line, "to") == "healthy" { "info" } else { "warn" };
        assert_eq!(text(line, "level"), want, "{line:?}");
    }
    let orders = of("Admin state changed");
    assert_eq!(orders.len(), 2, "{orders:?}");
    for (line, (level, reason)) in orders.into_iter().zip([("warn", Some("kernel")), ("info", None)]) {
        assert_eq!(text(line, "level"), level, "{line:?}");
        assert_eq!(line.get("reason").map(|reason| reason.as_str().expect("a text")), reason, "{line:?}");
        assert!(text(line, "by").starts_with("command from 127.0.0.1:"), "{line:?}");
    }
    let kernel = |what: &EventWhat| matches!(what, EventWhat::Admin(order) if order.reason == "kernel" && order.by.starts_with("command from 127.0.0.1:"));
    assert!(program.events(0).await.events.iter().any(|event| kernel(&event.what)));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_warming_and_reloads_have_their_origin_and_changes() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    b.set("/healthz", 503);
    let program = Program::start_ready(&pool("api", &[&a.text()], &http_check())).await;
    let started = logged(&program, "Configuration loaded").await;
    assert_eq!((text(&started, "by"), text(&started, "pools_added")), ("start", "api"));
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;

    program.write(&(pool("api", &[&b.text()], &http_check()) + &pool("web", &[&free_address().to_string()], "")));
    let (code, out, err) = program.command(&["reload"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("warming: api (removed upstreams serve until a new one is healthy, "), "{out}");
    assert!(out.contains("\n  pools added: web\n  pools changed: api\n"), "{out}");
    assert!(out.contains(&format!("\n  upstreams removed: api {}\n", a.text())), "{out}");
    let began = logged(&program, "Warming began: removed upstreams serve until new ones are healthy").await;
    assert_eq!((text(&began, "level"), &began["able"], &began["needed"]), ("warn", &0.into(), &1.into()));
    let health: Value = serde_json::from_str(&get(program.admin, "/health/api").await.text()).expect("JSON");
    let reason = health["reason"].as_str().expect("a reason");
    let ends = " s more at most: no upstream of the new configuration can serve yet";
    assert!(reason.starts_with("removed upstreams serve ") && reason.ends_with(ends), "{reason}");
    let seconds = program.pool("api").await.warming_seconds.expect("it warms");
    assert!((1.0..=30.0).contains(&seconds), "{seconds}");
    let explained = unwrapped(&program.command(&["explain", "api"]).await.1);
    assert!(
        explained.contains("still serve until a new one is healthy, at most ") && explained.contains(" s more"),
        "{explained}"
    );

    b.set("/healthz", 200);
    let ended = logged(&program, "Warming ended: the upstreams of the configuration serve").await;
    assert_eq!((text(&ended, "level"), text(&ended, "pool")), ("info", "api"));
    program.write(&pool("api", &[&b.text()], &http_check()));
    program.signal(Signal::SIGHUP);
    assert_eventually("SIGHUP has reloaded", PATIENCE, || program.log().contains("signal HUP")).await;

    let events = program.events(0).await.events;
    let reloads = events.iter().filter_map(|event| match &event.what {
        EventWhat::Reload { by, changes, .. } => Some((by.as_str(), changes.as_ref())),
        _ => None,
    });
    let reloads: Vec<_> = reloads.collect();
    assert_eq!(reloads.len(), 3, "{reloads:?}");
    assert!(reloads[1].0.starts_with("command from 127.0.0.1:"), "{reloads:?}");
    let changes = reloads[1].1.expect("something changed");
    assert_eq!((changes.pools_added.names.as_slice(), changes.pools_changed.count), (&["web".to_owned()][..], 1));
    assert_eq!(changes.upstreams_added.count, 2);
    assert_eq!(changes.upstreams_removed.names, [format!("api {}", a.text())]);
    let last = reloads[2].1.expect("something changed");
    assert_eq!((reloads[2].0, last.pools_removed.names.as_slice()), ("signal HUP", &["web".to_owned()][..]));
    let warming = events.iter().filter_map(|event| match &event.what {
        EventWhat::Warming { phase, .. } => Some(*phase),
        _ => None,
    });
    assert_eq!(warming.collect::<Vec<_>>(), [WarmingWord::Began, WarmingWord::Ended]);
    let removed =
        |what: &EventWhat| matches!(what, EventWhat::UpstreamRemoved { upstream, .. } if *upstream == a.text());
    assert_eq!(events.iter().filter(|event| removed(&event.what)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_the_host_name_it_waits_for() {
    let program = Program::start(&pool("api", &["nowhere.invalid:80"], &http_check())).await;
    let answer = get(program.admin, "/readyz").await;
    assert_eq!(answer.status, 503);
    let said: Value = serde_json::from_str(&answer.text()).expect("JSON");
    assert_eq!(said["reason"], "1 of 1 pools waits for the host name nowhere.invalid to resolve");
    let began = logged(&program, "Pool refuses requests").await;
    let reason = text(&began, "reason");
    assert!(reason.contains("its host name does not resolve"), "{reason}");
}

/// Why pool api does not serve and what ends that, according to `/health/api` and status.
async fn reasons(program: &Program) -> [String; 2] {
    let health: Value = serde_json::from_str(&get(program.admin, "/health/api").await.text()).expect("JSON");
    let of_health = health["reason"].as_str().unwrap_or_default().to_owned();
    [of_health, program.pool("api").await.reason.unwrap_or_default()]
}

/// The same, and the paragraph of explain.
async fn said(program: &Program) -> Vec<String> {
    let explained = get(program.admin, "/api/v1/pools/api/explain").await.text();
    reasons(program).await.into_iter().chain([explained]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_that_has_changed_on_disk_is_named_in_place_of_verify_false() {
    let front = TlsOrigin::with(&CERTIFICATES.self_signed).start();
    let tls = "type = \"tls\"\ntls = { ca_file = \"ca.pem\", server_name = \"localhost\" }\n";
    let check = format!("{tls}{QUICK}");
    let program = Program::spawn_whole(|web, admin, dir| {
        std::fs::copy(&CERTIFICATES.other_ca.pem, dir.join("ca.pem")).expect("copy");
        config(web, admin, &pool("api", &[&front.address().to_string()], &check))
    });
    let program = program.when_live().await;
    program.wait_for_state("api", &front.address().to_string(), "unhealthy", PATIENCE).await;
    let hint = "tls.ca_file is read from ca.pem, which has changed since; reload to read it";
    for text in said(&program).await {
        assert!(text.contains("(tls.ca_file does not hold this certificate: add it") && !text.contains(hint), "{text}");
        assert!(!text.contains("verify"), "{text}");
    }
    std::fs::copy(&CERTIFICATES.self_signed.pem, program.dir().join("ca.pem")).expect("copy");
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        // An answer comes without the hint where it is not known in time.
        let texts = said(&program).await;
        let right = |text: &String| text.contains(hint) && !text.contains("verify") && !text.contains("add it");
        if texts.iter().all(right) {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{texts:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let (code, out, err) = program.command(&["reload"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    program.wait_for_state("api", &front.address().to_string(), "healthy", PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_has_changed_on_disk_is_named_when_its_check_fails() {
    let origin = Origin::plain("a").await;
    let program = Program::spawn_whole(|web, admin, dir| {
        std::fs::write(dir.join("token"), "hunter2\n").unwrap();
        let headers = "headers = { Authorization = { file = \"token\", prefix = \"Bearer \" } }\n";
        config(web, admin, &pool("api", &[&origin.text()], &(http_check() + headers)))
    });
    let program = program.when_live().await;
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    let hint = "Authorization is read from token, which has changed since; reload to read it";
    let explained = |program: &Program| {
        let paths =
            ["/api/v1/pools/api/explain".to_owned(), format!("/api/v1/pools/api/upstreams/{}/explain", origin.text())];
        let admin = program.admin;
        async move {
            let mut texts = vec![];
            for path in paths {
                texts.push(get(admin, &path).await.text());
            }
            texts
        }
    };

    origin.set("/healthz", 401);
    program.wait_for_state("api", &origin.text(), "unhealthy", PATIENCE).await;
    for text in explained(&program).await {
        assert!(!text.contains("which has changed"), "the file is unchanged: {text}");
    }
    origin.set("/healthz", 200);
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    std::fs::write(program.dir().join("token"), "hunter3\n").unwrap();
    for text in explained(&program).await {
        assert!(!text.contains("which has changed"), "its check passes: {text}");
    }
    origin.set("/healthz", 401);
    program.wait_for_state("api", &origin.text(), "unhealthy", PATIENCE).await;
    let lost = |line: &Line| text(line, "to") == "unhealthy";
    assert_eventually("both are logged", PATIENCE, || lines(&program).iter().filter(|line| lost(line)).count() == 2)
        .await;
    let hints: Vec<String> =
        lines(&program).iter().filter(|line| lost(line)).map(|line| text(line, "hint").to_owned()).collect();
    assert_eq!(hints, ["", hint]);
    let refuses = |line: &Line| text(line, "message") == "Pool refuses requests";
    let both = || lines(&program).iter().filter(|line| refuses(line)).count() == 2;
    assert_eventually("both outages are logged", PATIENCE, both).await;
    let order: Vec<(bool, String)> = lines(&program)
        .iter()
        .filter(|line| lost(line) || refuses(line))
        .map(|line| (refuses(line), text(line, "hint").to_owned()))
        .collect();
    let (quiet, hinted) = (String::new(), hint.to_owned());
    let want = [(false, quiet.clone()), (true, quiet), (false, hinted.clone()), (true, hinted)];
    assert_eq!(order, want, "each outage follows its cause and has its hint");
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        // The response has no hint if reading the secrets takes too long.
        let texts = explained(&program).await;
        if texts.iter().all(|text| text.contains(hint)) {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{texts:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let health: Value = serde_json::from_str(&get(program.admin, "/health/api").await.text()).expect("JSON");
    let listed = health["unhealthy"][0]["reason"].as_str().expect("a reason").to_owned();
    let why = program.pool("api").await.upstreams.remove(0).why.expect("it is unhealthy");
    for reason in [listed, why] {
        assert!(reason.ends_with(&format!(" ({hint})")), "{reason}");
        assert!(!reason.contains("does not accept"), "{reason}");
    }
    let (_, events, _) = program.command(&["events"]).await;
    let known: Vec<&str> = events.lines().filter(|line| line.contains(hint)).collect();
    let shown = |word: &str| known.iter().filter(|line| line.contains(word)).count();
    assert_eq!((known.len(), shown("→ unhealthy"), shown("refuses requests")), (2, 1, 1), "{events}");
    assert!(known.iter().all(|line| !line.contains("does not accept")), "{known:?}");
    let (_, said, _) = program.command(&["explain", "api", &origin.text()]).await;
    assert!(said.contains("Hint: Authorization is read from token"), "{said}");
    let reasons = reasons(&program).await;
    let end = format!("this ends when {} passes its checks; {hint}", origin.text());
    for reason in &reasons {
        assert!(reason.ends_with(&end), "{reasons:?}");
    }
    let (code, out, err) = program.command(&["reload"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    for reason in self::reasons(&program).await {
        assert!(!reason.contains("which has changed"), "it has been read: {reason}");
    }
    assert!(!program.log().contains("hunter"), "{}", program.log());
}

in_each_lane!(an_upstream_that_passes_its_checks_and_fails_requests_is_a_warning, flavor = "multi_thread");
async fn an_upstream_that_passes_its_checks_and_fails_requests_is_a_warning() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let program = Program::start_ready(&pool("api", &[&a.text(), &b.text()], &http_check())).await;
    for origin in [&a, &b] {
        program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    }
    let of = |line: &Line, message: &str| text(line, "message") == message && text(line, "upstream") == a.text();
    let wait = |message: &'static str| {
        let (program, of) = (&program, &of);
        async move {
            let end = tokio::time::Instant::now() + PATIENCE;
            loop {
                for _ in 0..10 {
                    get(program.web, "/").await;
                }
                if let Some(line) = lines(program).into_iter().find(|line| of(line, message)) {
                    return line;
                }
                assert!(tokio::time::Instant::now() < end, "{}", program.log());
            }
        }
    };
    a.set("/", 500);
    let began = wait("Upstream fails requests and passes its checks").await;
    let count = |key: &str| began[key].as_u64().expect("a number");
    assert_eq!((text(&began, "level"), count("broken"), count("connect_failures")), ("warn", 0, 0));
    assert!(count("requests") >= 10 && count("server_errors") * 10 >= count("requests") * 9, "{began:?}");
    assert_eq!(program.upstream("api", &a.text()).await.map(|up| up.state.as_str()), Some("healthy"));
    let why = program.upstream("api", &a.text()).await.and_then(|up| up.why).expect("it fails requests");
    assert!(why.contains("of its last") && why.ends_with("requests, and passes its checks"), "{why}");
    let of_upstream = format!("/api/v1/pools/api/upstreams/{}/explain", a.text());
    for path in ["/", "/api/v1/pools/api/explain", &of_upstream] {
        let shown = get(program.admin, path).await.text();
        assert!(shown.contains("requests, and passes its checks"), "{path}: {shown}");
    }
    a.set("/", 200);
    let ended = wait("Upstream no longer fails requests while it passes its checks").await;
    assert_eq!((text(&ended, "level"), text(&ended, "why")), ("info", "succeeds"));
    let events = program.events(0).await.events;
    let on = events.iter().filter_map(|event| match &event.what {
        EventWhat::RequestsFail { upstream, on, .. } => Some((upstream == &a.text(), *on)),
        _ => None,
    });
    assert_eq!(on.collect::<Vec<_>>(), [(true, true), (true, false)], "and nothing of the other one");
}
