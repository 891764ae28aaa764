//! Malformed responses to requests: reported in the log, in status, in metrics and by `explain`, with the same words as
//! in a failed check, in both lanes; and with a bounded number of log lines.

use std::time::Duration;

use roundsman::admin::json::UpstreamInfo;
use tokio::time::Instant;

use crate::client::{Client, get};
use crate::lanes::differences::Difference::SaysLess;
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::program::{Program, pool};
use crate::support::assert_eventually;

/// A check that does not fail on a busy machine.
const CALM: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"2s\"\ntimeout = \"2s\"\nfast_interval = \"50ms\"\n\
                    unhealthy_threshold = 10\n";

const PATIENCE: Duration = Duration::from_secs(60);

const OK: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

in_each_lane!(a_malformed_answer_is_named_in_log_status_metrics_and_explain, flavor = "multi_thread");
async fn a_malformed_answer_is_named_in_log_status_metrics_and_explain() {
    let too_many = OK.to_owned() + &"A: b\r\n".repeat(257) + "\r\n";
    // The response, and what is wrong.
    let rows: Vec<(String, &str)> = vec![
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), "not an HTTP/1.1 answer"),
        ("HTTP/1.2 200 OK\r\n\r\n".into(), "malformed head: invalid version"),
        ("HTTP/1.1 2x0 OK\r\n\r\n".into(), "malformed head: invalid status"),
        (format!("{OK}X\r\n\r\n"), "malformed head: a field without a colon"),
        (format!("{OK}: \"\\\r\n\r\n"), "malformed head: a field without a name"),
        (format!("{OK}Set-Cookie: s3cret\r\nX: a\0\r\n\r\n"), "malformed head: a control character in a field value"),
        (format!("{OK}X: a\rb\r\n\r\n"), "malformed head: a CR without LF"),
        (too_many, "the head has more than 200 fields"),
        (format!("{OK}Content-Length: x\r\n\r\n"), "malformed Content-Length: not one number of at most 64 bits"),
        (format!("{CHUNKED}0x2\r\nok\r\n"), "malformed chunk: invalid size"),
        (format!("{CHUNKED}2\r\nokay\r\n"), "malformed chunk: longer than its size"),
        (format!("{CHUNKED}0\r\nX: a\n\r\n"), "malformed chunk: a line that does not end in CRLF"),
        (format!("{OK}A: b\r\n").to_owned() + &"A: b\r\n".repeat(200) + "\r\n", "the head has more than 200 fields"),
        (format!("{OK}Transfer-Encoding: gzip\r\n\r\n"), "malformed Transfer-Encoding: the last coding is not chunked"),
        ("HTTP/1.1 099 X\r\n\r\n".into(), "status 99 is outside 100 to 999"),
        ("HTTP/1.1 103 X\r\n\r\n".repeat(17), "more than 16 interim answers"),
        ("HTTP/1.1 101 X\r\nUpgrade: h2c\r\n\r\n".into(), "answered 101 Switching Protocols, which was not asked for"),
    ];
    let origin = Origin::new().start().await;
    for (number, (bytes, _)) in rows.iter().enumerate() {
        origin.set(&format!("/{number}"), Reply::raw(bytes));
    }
    let program = Program::start_ready(&pool("api", &[&origin.text()], CALM)).await;
    assert_eq!(counted(&program, &origin, 0).await.last_malformed, None);
    let mut total = 0;
    for (number, (bytes, words)) in rows.iter().enumerate() {
        // The general lane has words of its own for this one.
        let less = (*words == "status 99 is outside 100 to 999").then_some("malformed head: invalid status");
        for upgrade in [false, true] {
            let path = format!("/{number}");
            let fields: &[_] = if upgrade { &[("connection", "upgrade"), ("upgrade", "websocket")] } else { &[] };
            let answer = Client::connect(program.web).await.send("GET", &path, fields).await;
            assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 502), "{}", bytes.escape_debug());
            total += 1;
            let last = counted(&program, &origin, total).await.last_malformed.expect("there is one").reason;
            // An upgrade goes through our own lane in any case.
            let words = less.filter(|_| !upgrade && SaysLess.is_here()).unwrap_or(words);
            assert_eq!(last, words, "upgrade: {upgrade}, {}", bytes.escape_debug());
        }
    }
    let series = format!("roundsman_upstream_malformed_total{{pool=\"api\",upstream=\"{}\"}}", origin.text());
    assert_eq!(program.metric(&series).await, Some(total as f64));
    let admin = program.admin.to_string();
    let (code, out, _) = program.command(&["explain", "--admin", &admin, "api", &origin.text()]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains(&format!("Requests got {total} malformed responses, the last at ")), "{out}");
    assert!(out.contains(rows[rows.len() - 1].1), "{out}");
    assert!(!program.log().contains("s3cret"), "nothing of the response is in the log");
    program.assert_no_panic();
}

in_each_lane!(malformed_answers_are_logged_once_a_second_with_the_number_not_logged, flavor = "multi_thread");
async fn malformed_answers_are_logged_once_a_second_with_the_number_not_logged() {
    let origin = Origin::new().on("/x").reply(Reply::raw("nonsense\r\n")).start().await;
    let program = Program::start_ready(&pool("api", &[&origin.text()], CALM)).await;
    let began = Instant::now();
    let lines = || {
        let log = program.log();
        log.lines().filter(|line| line.contains("Malformed answer to a request")).map(str::to_owned).collect::<Vec<_>>()
    };
    for _ in 0..200 {
        assert_eq!(get(program.web, "/x").await.status, 502);
    }
    counted(&program, &origin, 200).await;
    // No further one comes: the last ones are logged all the same.
    let reported = || lines().iter().map(|line| reported(line, &origin)).sum::<u64>();
    assert_eventually("all are in the log", PATIENCE, || reported() == 200).await;
    let (lines, seconds) = (lines().len() as u64, began.elapsed().as_secs());
    assert!((2..=seconds + 1).contains(&lines), "{lines} lines in {seconds} s");
}

/// How many malformed answers a line reports.
fn reported(line: &str, origin: &Origin) -> u64 {
    let fields: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
    assert_eq!((&fields["pool"], &fields["upstream"]), (&"api".into(), &origin.text().into()));
    assert_eq!((&fields["reason"], &fields["level"]), (&"not an HTTP/1.1 answer".into(), &"warn".into()));
    1 + fields["not_logged"].as_u64().expect("a number")
}

/// Waits until `total` malformed responses are counted: a status may be up to 100 ms old.
async fn counted(program: &Program, origin: &Origin, total: u64) -> UpstreamInfo {
    let end = Instant::now() + PATIENCE;
    loop {
        let upstream = program.upstream("api", &origin.text()).await.expect("status lists it");
        if upstream.malformed_total == total {
            return upstream;
        }
        assert!(upstream.malformed_total < total && Instant::now() < end, "{total} were expected: {upstream:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
