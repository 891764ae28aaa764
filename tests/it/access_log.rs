//! The access log and `ready_path`, on the real program.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, get};
use crate::lanes::each::{in_each_lane, once};
use crate::origin::{Origin, Reply};
use crate::program::{Program, pool};
use crate::servers::installed;
use crate::support::assert_eventually;

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One check a minute; one pass is enough.
const RARE: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"60s\"\ntimeout = \"10s\"\nfast_interval = \"100ms\"\n\
                    healthy_threshold = 1\nunhealthy_threshold = 1\njitter = 0\n";

/// The lines of a file that are whole.
fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn json(file: &Path) -> Vec<Value> {
    lines(file)
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

async fn wait_for_lines(file: &Path, count: usize) {
    assert_eventually("the lines are written", PATIENCE, || lines(file).len() >= count).await;
    assert_eq!(lines(file).len(), count, "{:#?}", lines(file));
}

in_each_lane!(every_request_has_a_line_however_it_ends, flavor = "multi_thread");
async fn every_request_has_a_line_however_it_ends() {
    let (origin, dead) = (Origin::plain("api").await, crate::origin::refusing_address());
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("access.log");
    let text = pool("api", &[&origin.text(), &dead.to_string()], RARE)
        + &format!(
            "[access_log]\nto = \"{}\"\nexcept_paths = [\"/quiet\"]\nfields = {{ headers = [\"X-Tenant\"] }}\n",
            file.display()
        );
    let program = Program::start_ready(&text).await;
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    origin.set("/hang", Reply::hang());
    origin.set("/cut", Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"));
    let mut client = Client::connect(program.web).await;
    let fields = [("User-Agent", "test/1"), ("X-Tenant", "t1"), ("Referer", "http://a/")];
    assert_eq!(client.send("GET", "/a?b=c", &fields).await.expect("an answer").status, 200);
    assert_eq!(client.get("/quiet").await.status, 200);
    assert!(client.send("GET", "/cut", &[]).await.is_err(), "it breaks off");
    wait_for_lines(&file, 2).await;
    // Who leaves.
    let mut leaver = TcpStream::connect(program.web).await.expect("it listens");
    leaver.write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    assert_eventually("it is with the origin", PATIENCE, || origin.count("/hang") == 1).await;
    drop(leaver);
    wait_for_lines(&file, 3).await;
    // What is no request.
    let mut garbage = TcpStream::connect(program.web).await.expect("it listens");
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    garbage.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    wait_for_lines(&file, 4).await;
    let all = json(&file);
    for (line, want) in all.iter().zip([
        [("method", "GET"), ("path", "/a?b=c"), ("end", "ok"), ("pool", "api")],
        [("method", "GET"), ("path", "/cut"), ("end", "upstream_reset"), ("pool", "api")],
        [("method", "GET"), ("path", "/hang"), ("end", "client_left"), ("pool", "api")],
        [("method", ""), ("path", ""), ("end", "refused"), ("reason", "malformed")],
    ]) {
        for (key, value) in want {
            assert_eq!(line[key], value, "{key} of {line}");
        }
        assert_eq!((&line["client"], &line["listener"]), (&Value::from("127.0.0.1"), &Value::from("web")), "{line}");
    }
    let first = &all[0];
    assert_eq!((&first["status"], &first["bytes_out"]), (&Value::from(200), &Value::from("hello from api\n".len())));
    assert_eq!(first["headers"]["x-tenant"], "t1");
    assert_eq!((&first["user_agent"], &first["referer"]), (&Value::from("test/1"), &Value::from("http://a/")));
    let attempt = &first["attempts"][0];
    assert_eq!((&attempt["upstream"], &attempt["outcome"]), (&Value::from(origin.text()), &Value::from("ok")));
    assert!(attempt["connect_ms"].as_f64() >= Some(0.0) && attempt["first_byte_ms"].as_f64() > Some(0.0), "{attempt}");
    assert_eq!(all[2]["status"], -1);
    assert_eq!(all[3]["status"], 400);
    assert_eq!(program.metric("roundsman_access_log_lines_dropped_total").await, Some(0.0));
    program.assert_no_panic();
}

once!(the_file_is_opened_again_and_a_reload_changes_it, flavor = "multi_thread");
async fn the_file_is_opened_again_and_a_reload_changes_it() {
    let origin = Origin::plain("api").await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let to = |to: &str| pool("api", &[&origin.text()], RARE) + &format!("[access_log]\nto = \"{to}\"\n");
    let program = Program::start_ready(&to(&path("a").display().to_string())).await;
    let ask = async || assert_eq!(get(program.web, "/x").await.status, 200);
    ask().await;
    wait_for_lines(&path("a"), 1).await;
    std::fs::rename(path("a"), path("a.1")).expect("it is there");
    ask().await;
    wait_for_lines(&path("a.1"), 2).await;
    program.signal(Signal::SIGUSR1);
    assert_eventually("it is opened again", PATIENCE, || path("a").exists()).await;
    ask().await;
    wait_for_lines(&path("a"), 1).await;
    // A place that cannot be opened refuses the whole file.
    let (status, reply) = program.reload(&to(&path("none/x").display().to_string())).await;
    assert_eq!(status, 422, "{reply:?}");
    assert!(format!("{reply:?}").contains("none/x"), "{reply:?}");
    ask().await;
    wait_for_lines(&path("a"), 2).await;
    assert_eq!(program.reload(&to(&path("b").display().to_string())).await.0, 200);
    ask().await;
    wait_for_lines(&path("b"), 1).await;
    assert_eq!(program.reload(&to("off")).await.0, 200);
    ask().await;
    assert_eq!(program.reload(&to(&path("b").display().to_string())).await.0, 200);
    ask().await;
    wait_for_lines(&path("b"), 2).await;
    assert_eq!(lines(&path("a")).len(), 2);
    program.assert_no_panic();
}

once!(what_was_asked_before_the_end_is_written, flavor = "multi_thread");
async fn what_was_asked_before_the_end_is_written() {
    let origin = Origin::plain("api").await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("access.log");
    let text = pool("api", &[&origin.text()], RARE) + &format!("[access_log]\nto = \"{}\"\n", file.display());
    let mut program = Program::start_ready(&text).await;
    let mut client = Client::connect(program.web).await;
    for _ in 0..100 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    drop(client);
    program.signal(Signal::SIGTERM);
    program.wait_for_exit(PATIENCE).await;
    assert_eq!(lines(&file).len(), 100);
}

in_each_lane!(errors_and_retries_are_written_whatever_the_sample_is, flavor = "multi_thread");
async fn errors_and_retries_are_written_whatever_the_sample_is() {
    let (first, second) = (Origin::plain("first").await, Origin::plain("second").await);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("access.log");
    let text = pool("api", &[&first.text(), &second.text()], RARE)
        .replace("[pools.api]\n", "[pools.api]\nbalance = \"first\"\n")
        + &format!(
            "[access_log]\nto = \"{}\"\nsample = 0.0\nquery = \"keys\"\nfields = {{ drop = [\"user_agent\"] }}\n",
            file.display()
        );
    let program = Program::start_ready(&text).await;
    for origin in [&first, &second] {
        program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    }
    first.set("/missing", Reply::status(404));
    assert_eq!(get(program.web, "/good?a=1").await.status, 200);
    assert_eq!(get(program.web, "/missing?token=secret&b=2").await.status, 404);
    wait_for_lines(&file, 1).await;
    first.kill();
    assert_eq!(get(program.web, "/again").await.text(), "hello from second");
    wait_for_lines(&file, 2).await;
    let all = json(&file);
    assert_eq!((&all[0]["path"], &all[0]["status"]), (&"/missing?token&b".into(), &404.into()), "{:#?}", all[0]);
    assert_eq!((&all[1]["path"], &all[1]["retried"]), (&"/again".into(), &true.into()), "{:#?}", all[1]);
    assert!(all.iter().all(|line| line.get("user_agent").is_none()), "{all:#?}");
    program.assert_no_panic();
}

once!(goaccess_reads_what_combined_writes, flavor = "multi_thread");
async fn goaccess_reads_what_combined_writes() {
    let Some(goaccess) = installed("/usr/bin/goaccess", "goaccess") else { return };
    let origin = Origin::plain("api").await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("access.log");
    let text = pool("api", &[&origin.text()], RARE)
        + &format!("[access_log]\nto = \"{}\"\nformat = \"combined\"\n", file.display());
    let program = Program::start_ready(&text).await;
    origin.set("/gone", Reply::status(404));
    let mut client = Client::connect(program.web).await;
    for (path, agent) in
        [("/a?b=\\", "curl/8"), ("/a\"", "Mozilla/5.0 (X11; \"quoted\")"), ("/gone", "tab\tagent"), ("/b", "")]
    {
        client.send("GET", path, &[("User-Agent", agent), ("Referer", "http://a/\"")]).await.expect("an answer");
    }
    // A client that leaves, and what is no request.
    origin.set("/hang", Reply::hang());
    let mut leaver = TcpStream::connect(program.web).await.expect("it listens");
    leaver.write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    assert_eventually("it is with the origin", PATIENCE, || origin.count("/hang") == 1).await;
    drop(leaver);
    let mut garbage = TcpStream::connect(program.web).await.expect("it listens");
    garbage.write_all(b"nonsense\r\n\r\n").await.expect("sent");
    garbage.read_to_end(&mut Vec::new()).await.expect("an answer");
    wait_for_lines(&file, 6).await;
    let report = dir.path().join("report.json");
    let output = std::process::Command::new(goaccess)
        .args(["--no-global-config", "--log-format=COMBINED", "--no-progress", "-o"])
        .arg(&report)
        .arg(&file)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).expect("a report")).expect("JSON");
    assert_eq!(
        (&report["general"]["valid_requests"], &report["general"]["failed_requests"]),
        (&Value::from(6), &Value::from(0)),
        "{}\n{:#?}",
        report["general"],
        lines(&file)
    );
    program.assert_no_panic();
}

once!(a_path_of_the_listener_says_whether_the_process_is_ready, flavor = "multi_thread");
async fn a_path_of_the_listener_says_whether_the_process_is_ready() {
    let origin = Origin::plain("api").await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("access.log");
    let mut program = Program::spawn_whole(|web, admin, _| {
        format!(
            "[listeners.web]\naddress = \"{web}\"\npool = \"api\"\nready_path = \"/lb-ready\"\n[admin]\naddress = \"{admin}\"\n\
             [runtime]\ndrain_delay = \"2s\"\n[access_log]\nto = \"{}\"\n{}",
            file.display(),
            pool("api", &[&origin.text()], RARE)
        )
    })
    .when_live()
    .await;
    assert_eventually_ready(&program).await;
    let answer = get(program.web, "/lb-ready").await;
    let admin = get(program.admin, "/readyz").await;
    assert_eq!((answer.status, answer.text()), (200, admin.text()));
    assert_eq!(answer.field("content-type"), Some("application/json"));
    assert_eq!((origin.count("/lb-ready"), lines(&file).len()), (0, 0), "it is not routed and not logged");
    assert_eq!(get(program.web, "/lb-ready/x").await.text(), "hello from api");
    program.signal(Signal::SIGTERM);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = get(program.web, "/lb-ready").await;
        if answer.status == 503 {
            assert!(answer.text().contains("\"draining\""), "{}", answer.text());
            assert_eq!(answer.field("retry-after"), Some("1"));
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "it is never not ready");
    }
    program.wait_for_exit(PATIENCE).await;
}

async fn assert_eventually_ready(program: &Program) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while get(program.web, "/lb-ready").await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "it is never ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
