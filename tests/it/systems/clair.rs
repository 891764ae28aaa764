//! Clair: `/health` on 6061, plain HTTP even where its API speaks HTTPS.
//!
//! | state | 6061 | verdict |
//! |---|---|---|
//! | healthy | 200, empty | passes |
//! | unhealthy | 503 | fails by its status |
//! | starting | nothing listens | refused |
//! | health on another port | 6062 | refused, or checked there with `port` |

use roundsman::model::Code;

use super::{Port, State, hold, sized};

/// The API, which the check does not use.
const API: u16 = 6060;
const HEALTH: u16 = 6061;
const BY_HAND: &str = "type = \"http\"\npath = \"/health\"\nport = 6061\nexpect = { status = [200] }\n";
const BY_PRESET: &str = "preset = \"clair\"\n";

fn answer(status: &str) -> Vec<u8> {
    sized(&format!("HTTP/1.1 {status}\nServer: clair\nDate: Tue, 04 Mar 2025 10:00:00 GMT"), "")
}

fn state(name: &'static str, status: &str, verdicts: &'static [(Code, &'static [&'static str])]) -> State {
    let http = Port::Http { path: "/health", answer: answer(status), otherwise: answer("404 Not Found") };
    State { name, ports: vec![(HEALTH, http), (API, Port::Silent)], verdicts }
}

/// For the fuzzer.
pub fn real_answers() -> Vec<(&'static str, Vec<u8>)> {
    vec![("healthy", answer("200 OK")), ("unhealthy", answer("503 Service Unavailable"))]
}

#[tokio::test]
async fn clair_is_checked_over_plain_http_on_its_health_port() {
    let states = vec![
        state("healthy", "200 OK", &[(Code::L7Ok, &["200 in "])]),
        state("unhealthy", "503 Service Unavailable", &[(Code::L7Sts, &["status 503, expected 200"])]),
        State { name: "starting", ports: vec![], verdicts: &[(Code::L4Con, &["connection refused"])] },
    ];
    hold(&[BY_HAND, BY_PRESET], API, states).await;
}

#[tokio::test]
async fn clair_with_another_health_port_is_checked_there() {
    let mut moved = state("moved", "200 OK", &[(Code::L7Ok, &["200 in "])]);
    moved.ports[0].0 = 6062;
    hold(&["preset = \"clair\"\nport = 6062\n"], API, vec![moved]).await;
}
