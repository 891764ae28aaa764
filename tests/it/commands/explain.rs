//! `roundsman explain` on the real program: a running process with upstreams that answer, refuse and fail.

use std::time::Duration;

use serde_json::Value;

use super::{PATIENCE, Process, TOKEN, answer, roundsman, text};
use crate::origin::{Origin, Reply, refusing_address};
use crate::support::assert_eventually_blocking;

const SECRET: &str = "s3cr3t-f0r-the-check";

/// One pool of these upstreams, asked for `/healthz` with a credential every 100 ms.
fn start(upstreams: &[String]) -> Process {
    Process::start_with(|dir| {
        let list: Vec<String> = upstreams.iter().map(|upstream| format!("{upstream:?}")).collect();
        let (list, dir) = (list.join(", "), dir.path().display());
        std::fs::write(format!("{dir}/secret"), SECRET).unwrap();
        format!(
            "[listeners.web]\naddress = \"unix:{dir}/web.sock\"\npool = \"api\"\n\n[pools.api]\nupstreams = [{list}]\n\n\
             [pools.api.health]\ntype = \"http\"\npath = \"/healthz\"\ninterval = \"100ms\"\n\
             headers = {{ Authorization = {{ file = \"{dir}/secret\", prefix = \"Bearer \" }} }}\n\n\
             [admin]\naddress = \"unix:{dir}/admin.sock\"\ntoken = {{ file = \"{dir}/token\" }}\n"
        )
    })
}

impl Process {
    fn explain(&self, args: &[&str]) -> String {
        let output = self.command(&[&["explain"], args].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        if args.contains(&"--json") { text(&output.stdout) } else { answer(&output) }
    }

    fn explain_json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.explain(&[args, &["--json"]].concat())).expect("it is JSON")
    }

    /// Waits until every upstream has a verdict.
    fn judged(&self) {
        assert_eventually_blocking("every upstream has a verdict", PATIENCE, || {
            let status = self.status();
            let upstreams = status["pools"]["api"]["upstreams"].as_array().expect("upstreams").clone();
            upstreams.iter().all(|upstream| upstream["state"] != "unknown")
        });
    }
}

#[test]
fn explain_names_ineligible_upstreams_with_reasons_and_shows_the_last_probe() {
    let good = Origin::new().on("/healthz").reply(Reply::ok("up")).start_blocking();
    let echo = format!(r#"{{"status":"unhealthy","reason":"No workers","token":"{SECRET}"}}"#);
    let bad = Reply::status(503).header("Set-Cookie", "session=42").header("X-Echo", &format!("Bearer {SECRET}"));
    let sick = Origin::new().on("/healthz").reply(bad.body(echo)).start_blocking();
    let refusing = refusing_address().to_string();
    let process = start(&[good.text(), sick.text(), refusing.clone()]);
    process.judged();

    let paragraph = process.explain(&["api"]).replace('\n', " ");
    assert!(paragraph.starts_with("Pool api is degraded: 1 of 3 upstreams is healthy. "), "{paragraph}");
    for part in [
        format!("{} is unhealthy (L7STS: status 503, expected 200-299", sick.text()),
        format!("{refusing} is unhealthy (L4CON: "),
        format!("Requests go to {}.", good.text()),
        "it needs 2 passes in a row, and its next probe".to_owned(),
    ] {
        assert!(paragraph.contains(&part), "{part} is missing in {paragraph}");
    }

    let shown = process.explain(&["api", &sick.text()]);
    assert!(shown.contains("It takes no requests: its checks failed."), "{shown}");
    for part in ["✓ request  GET /healthz HTTP/1.1, with Authorization (values are not shown)", "✗ answer", "503"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    assert!(shown.contains("No workers") && shown.contains("unknown → unhealthy  L7STS"), "{shown}");

    let all =
        [paragraph, shown, process.explain(&["api", &sick.text(), "--json"]), process.explain(&["api", "--json"])];
    for shown in all {
        assert!(!shown.contains(SECRET) && !shown.contains("session=42") && !shown.contains(TOKEN), "{shown}");
    }
    let refused = process.explain_json(&["api", &refusing]);
    let steps = refused["checks"][0]["steps"].as_array().expect("steps");
    let words: Vec<_> = steps.iter().map(|step| (step["step"].as_str().unwrap(), step["ok"] == true)).collect();
    assert_eq!(words[..3], [("target", true), ("connect", false), ("verdict", false)]);
    assert_eq!(refused["eligible"], false);
}

#[test]
fn explain_never_contradicts_status() {
    let good = Origin::new().on("/healthz").reply(Reply::ok("up")).start_blocking();
    let process = start(&[good.text(), refusing_address().to_string()]);
    process.judged();
    assert_eq!(process.command(&["drain", "api", &good.text(), "--force"]).status.code(), Some(0));
    let status = process.status();
    for upstream in status["pools"]["api"]["upstreams"].as_array().expect("upstreams") {
        let explained = process.explain_json(&["api", upstream["address"].as_str().unwrap()]);
        for key in ["state", "eligible", "why", "admin", "since"] {
            assert_eq!(explained[key], upstream[key], "{key}");
        }
    }
    let paragraph = process.explain(&["api"]).replace('\n', " ");
    assert!(paragraph.contains(&format!("{} is draining.", good.text())), "{paragraph}");
    assert!(paragraph.contains("Requests get 503 with Retry-After: "), "{paragraph}");
}

#[test]
fn explain_lists_the_last_ten_changes_newest_last() {
    let origin = Origin::new().on("/healthz").reply(Reply::ok("up")).start_blocking();
    let process = start(&[origin.text()]);
    let becomes = |state: &str| {
        assert_eventually_blocking(state, Duration::from_secs(10), || {
            process.status()["pools"]["api"]["upstreams"][0]["state"] == state
        });
    };
    becomes("healthy");
    for _ in 0..6 {
        origin.set("/healthz", Reply::status(500));
        becomes("unhealthy");
        origin.set("/healthz", Reply::ok("up"));
        becomes("healthy");
    }
    let explained = process.explain_json(&["api", &origin.text()]);
    let changes = explained["transitions"].as_array().expect("changes");
    assert_eq!(changes.len(), 10);
    assert_eq!((&changes[9]["to"], &changes[8]["to"]), (&"healthy".into(), &"unhealthy".into()));
    let dates: Vec<_> = changes.iter().map(|change| change["at"].as_str().unwrap()).collect();
    assert!(dates.is_sorted(), "{dates:?}");
}

#[test]
fn a_503_has_its_reason_code_and_names_no_upstream() {
    use std::io::{Read, Write};
    let sick = Origin::new().named("sick").on("/healthz").reply(Reply::status(503).body("No workers")).start_blocking();
    let process = start(&[sick.text()]);
    process.judged();
    let mut stream = std::os::unix::net::UnixStream::connect(process.path("web.sock")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("(none_eligible)"), "{answer}");
    let ip = sick.socket_addr().ip().to_string();
    for word in [&ip[..], "sick", "No workers", "L7STS", "healthz", "api", "unhealthy", SECRET] {
        assert!(!answer.contains(word), "{word} is in {answer}");
    }
}

#[test]
fn an_unknown_pool_or_upstream_exits_with_its_status() {
    let process = start(&[refusing_address().to_string()]);
    for (args, code, said) in [
        (&["apy"][..], 2, "there is no pool \"apy\"; did you mean api?"),
        (&["api", "10.9.9.9:1"], 2, "pool \"api\" has no upstream \"10.9.9.9:1\""),
    ] {
        let output = process.command(&[&["explain"], args].concat());
        assert_eq!(output.status.code(), Some(code));
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
    let away = roundsman(&["explain", "api", "--admin", "unix:/nonexistent/admin.sock"]);
    assert_eq!(away.status.code(), Some(1));
    assert_eq!(roundsman(&["explain", "--nonsense"]).status.code(), Some(2));
}
