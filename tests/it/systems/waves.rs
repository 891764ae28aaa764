//! Smallest.ai Waves, self-hosted: `/health` on 7100, plain and detailed.
//!
//! | state | answer | verdict |
//! |---|---|---|
//! | healthy | 200 `{"status":"healthy"}` | passes |
//! | unhealthy | 503 `{"status":"unhealthy","reason":…}` | fails by its status; the reason is quoted |
//! | unhealthy with 200 | 200 `{"status":"unhealthy","reason":…}` | fails by `$.status`: the text `healthy` in it does not count |
//! | starting | nothing listens | refused |
//! | a page of something else | 200 with HTML | fails: no JSON |
//! | detailed, one component down | 200 or 503 with `components` | fails, and names the component |

use std::time::Duration;

use roundsman::model::Code;

use super::{Port, State, hold, show, sized, timings};

const PORT: u16 = 7100;
const BY_HAND: &str = "type = \"http\"\npath = \"/health\"\nport = 7100\ninterval = \"30s\"\ntimeout = \"5s\"\n\
    expect = { status = [200], json = [{ path = \"$.status\", equals = \"healthy\" }] }\n";
const BY_PRESET: &str = "preset = \"smallest-waves\"\n";
const DETAILED_BY_HAND: &str = "type = \"http\"\npath = \"/health?detailed=true\"\nport = 7100\ninterval = \"30s\"\n\
    timeout = \"5s\"\nexpect = { status = [200], json = [{ path = \"$.status\", equals = \"healthy\" }, \
    { path = \"$.components.*\", equals = \"healthy\" }] }\n";
const DETAILED_BY_PRESET: &str = "preset = \"smallest-waves-detailed\"\n";

fn head(status: &str) -> String {
    format!("HTTP/1.1 {status}\ndate: Tue, 04 Mar 2025 10:00:00 GMT\nserver: uvicorn\ncontent-type: application/json")
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    // uvicorn writes field names in lower case and `sized` does not; names are case-insensitive.
    sized(&head(status), body)
}

fn http(answer: Vec<u8>) -> Vec<(u16, Port)> {
    let otherwise = sized(&head("404 Not Found"), r#"{"detail":"Not Found"}"#);
    vec![(PORT, Port::Http { path: "/health", answer, otherwise })]
}

const NO_WORKERS: &str = r#"{"status":"unhealthy","reason":"No ASR workers available"}"#;

fn healthy() -> State {
    let answer = answer("200 OK", r#"{"status":"healthy"}"#);
    State { name: "healthy", ports: http(answer), verdicts: &[(Code::L7Ok, &["200 in "])] }
}

fn unhealthy() -> State {
    let says: &[(Code, &[&str])] = &[(Code::L7Sts, &["status 503, expected 200", "No ASR workers available"])];
    State { name: "unhealthy", ports: http(answer("503 Service Unavailable", NO_WORKERS)), verdicts: says }
}

fn unhealthy_with_200() -> State {
    State {
        name: "unhealthy with 200",
        ports: http(answer("200 OK", NO_WORKERS)),
        verdicts: &[(
            Code::L7Rsp,
            &[r#"$.status is "unhealthy", expected "healthy" (reason: No ASR workers available)"#],
        )],
    }
}

fn starting() -> State {
    State { name: "starting", ports: vec![], verdicts: &[(Code::L4Con, &["connection refused"])] }
}

/// For the fuzzer.
pub fn real_answers() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("healthy", answer("200 OK", r#"{"status":"healthy"}"#)),
        ("unhealthy", answer("503 Service Unavailable", NO_WORKERS)),
        ("detailed", answer("200 OK", &detailed("healthy", "healthy"))),
    ]
}

#[tokio::test]
async fn waves_is_checked_by_its_status_field_and_not_by_a_text() {
    let page = sized("HTTP/1.1 200 OK\nServer: nginx\nContent-Type: text/html", "<html>healthy</html>");
    let page = State { name: "a page", ports: http(page), verdicts: &[(Code::L7Rsp, &["JSON"])] };
    let states = vec![healthy(), unhealthy(), unhealthy_with_200(), starting(), page];
    hold(&[BY_HAND, BY_PRESET], PORT, states).await;
}

fn detailed(asr: &str, status: &str) -> String {
    format!(
        "{{\"status\":\"{status}\",\"components\":{{\"api_server\":\"healthy\",\"lightning_asr\":\"{asr}\",\
         \"license_proxy\":\"healthy\",\"redis\":\"healthy\"}},\"uptime_seconds\":86400,\"version\":\"1.0.0\"}}"
    )
}

#[tokio::test]
async fn waves_detailed_requires_every_component() {
    let state = |name, status, asr, whole, verdicts| State {
        name,
        ports: http(answer(status, &detailed(asr, whole))),
        verdicts,
    };
    let states = vec![
        state("healthy", "200 OK", "healthy", "healthy", &[(Code::L7Ok, &["200 in "])]),
        state(
            "a component is down, the status is healthy",
            "200 OK",
            "unhealthy",
            "healthy",
            &[(Code::L7Rsp, &[r#"$.components.lightning_asr is "unhealthy", expected "healthy""#])],
        ),
        state(
            "a component is down, and so is the status",
            "503 Service Unavailable",
            "unhealthy",
            "unhealthy",
            &[(Code::L7Sts, &["status 503, expected 200", "unhealthy"])],
        ),
        starting(),
    ];
    hold(&[DETAILED_BY_HAND, DETAILED_BY_PRESET], PORT, states).await;
}

#[test]
fn the_presets_have_the_documented_timing() {
    for preset in [BY_PRESET, DETAILED_BY_PRESET] {
        for (check, timing) in timings(preset) {
            assert_eq!(timing.interval, Duration::from_secs(30), "{check}");
            assert_eq!((timing.timeout, timing.start_period), (Duration::from_secs(5), Duration::from_secs(40)));
            assert_eq!((timing.healthy_threshold, timing.unhealthy_threshold), (2, 3), "{check}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_waves_failing_and_recovering_with_its_reason() {
    let quick = format!("{BY_PRESET}interval = \"100ms\"\nfast_interval = \"20ms\"\nstart_period = \"0s\"\n");
    let states: Vec<(State, &str, &[&str])> = vec![
        (starting(), "unhealthy", &["connection refused"]),
        (healthy(), "healthy", &["200 in "]),
        (unhealthy(), "unhealthy", &["status 503", "No ASR workers available"]),
        (healthy(), "healthy", &["200 in "]),
        (unhealthy_with_200(), "unhealthy", &["$.status is", "(reason: No ASR workers available)"]),
    ];
    show(&quick, PORT, states).await;
}
