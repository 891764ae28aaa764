//! WSO2 Micro Integrator: `/healthz` and `/liveness` on 9201, traffic on 8290.
//!
//! | state | 9201 | 8290 | readiness | liveness |
//! |---|---|---|---|---|
//! | ready | 200 `ready` | open | passes | passes |
//! | faulty CApps | 500 with the list | open | fails, the list is quoted | passes |
//! | faulty CApps, an old version | 200 with the list | open | fails, the list is quoted | passes |
//! | starting | refused | refused | refused | refused |
//! | traffic port dead | 200 `ready` | refused | the TCP check fails | passes |
//! | probes switched off, an old version | 404 | open | fails with the hint | fails with the hint |

use std::time::Duration;

use roundsman::model::Code;

use super::{Port, State, chunked, hold, show, timings};

const HEALTH: u16 = 9201;
const TRAFFIC: u16 = 8290;
const BY_PRESET: &str = "preset = \"wso2-mi\"\n";
const LIVENESS_BY_PRESET: &str = "preset = \"wso2-mi-liveness\"\n";

fn by_hand(path: &str) -> String {
    format!(
        "interval = \"1s\"\nchecks = [{{ type = \"http\", path = \"{path}\", port = 9201, expect = {{ status = [200], \
         json = [{{ path = \"$.status\", equals = \"ready\" }}] }} }}, {{ type = \"tcp\" }}]\n"
    )
}

const READY: &str = r#"{"version":"4.3.0","status":"ready"}"#;
const FAULTY: &str =
    r#"{"version":"4.3.0","status":"not ready, faulty CAPPs detected","Faulty CAPPs":["orders","billing"]}"#;

fn answer(status: &str, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\nContent-Type: application/json\nDate: Tue, 04 Mar 2025 10:00:00 GMT");
    chunked(&head, body)
}

fn missing() -> Vec<u8> {
    chunked("HTTP/1.1 404 Not Found\nDate: Tue, 04 Mar 2025 10:00:00 GMT", "")
}

fn http(path: &'static str, answer: Vec<u8>) -> (u16, Port) {
    (HEALTH, Port::Http { path, answer, otherwise: missing() })
}

const CONNECTED: (Code, &[&str]) = (Code::L4Ok, &["connected in "]);
const REFUSED: (Code, &[&str]) = (Code::L4Con, &["connection refused"]);

fn ready(path: &'static str) -> State {
    State {
        name: "ready",
        ports: vec![http(path, answer("200 OK", READY)), (TRAFFIC, Port::Silent)],
        verdicts: &[(Code::L7Ok, &["200 in "]), CONNECTED],
    }
}

fn faulty() -> State {
    State {
        name: "faulty CApps",
        ports: vec![http("/healthz", answer("500 Internal Server Error", FAULTY)), (TRAFFIC, Port::Silent)],
        verdicts: &[(Code::L7Sts, &["status 500, expected 200", "Faulty CAPPs", "orders", "billing"]), CONNECTED],
    }
}

fn faulty_with_200() -> State {
    State {
        name: "faulty CApps, an old version",
        ports: vec![http("/healthz", answer("200 OK", FAULTY)), (TRAFFIC, Port::Silent)],
        verdicts: &[
            (
                Code::L7Rsp,
                &[
                    r#"$.status is "not ready, faulty CAPPs detected", expected "ready""#,
                    "Faulty CAPPs",
                    "orders",
                    "billing",
                ],
            ),
            CONNECTED,
        ],
    }
}

fn starting() -> State {
    State { name: "starting", ports: vec![], verdicts: &[REFUSED, REFUSED] }
}

fn traffic_dead(path: &'static str) -> State {
    State {
        name: "traffic port dead",
        ports: vec![http(path, answer("200 OK", READY))],
        verdicts: &[(Code::L7Ok, &["200 in "]), REFUSED],
    }
}

fn switched_off() -> State {
    State {
        name: "probes switched off",
        ports: vec![http("/", missing()), (TRAFFIC, Port::Silent)],
        verdicts: &[
            (Code::L7Sts, &["status 404, expected 200", "path wrong, endpoint disabled, or another Host is expected"]),
            CONNECTED,
        ],
    }
}

/// For the fuzzer.
pub fn real_answers() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("ready", answer("200 OK", READY)),
        ("faulty", answer("500 Internal Server Error", FAULTY)),
        ("switched-off", missing()),
    ]
}

#[tokio::test]
async fn mi_readiness_quotes_the_faulty_list_and_requires_its_traffic_port() {
    let path = "/healthz";
    let states = vec![ready(path), faulty(), faulty_with_200(), starting(), traffic_dead(path), switched_off()];
    hold(&[&by_hand(path), BY_PRESET], TRAFFIC, states).await;
}

#[tokio::test]
async fn mi_liveness_ignores_capps_and_the_traffic_port() {
    let path = "/liveness";
    let by_hand = "type = \"http\"\npath = \"/liveness\"\nport = 9201\nexpect = { status = [200] }\n";
    let alone = |state: State, name| State { name, verdicts: &state.verdicts[..1], ..state };
    let states = vec![
        alone(ready(path), "alive, with faulty CApps"),
        alone(traffic_dead(path), "traffic port dead"),
        alone(starting(), "starting"),
        alone(switched_off(), "probes switched off"),
    ];
    hold(&[by_hand, LIVENESS_BY_PRESET], TRAFFIC, states).await;
}

#[test]
fn the_presets_have_the_documented_timing() {
    for (preset, interval, start) in [(BY_PRESET, 1, 3), (LIVENESS_BY_PRESET, 5, 15)] {
        for (check, timing) in timings(preset) {
            assert_eq!(timing.interval, Duration::from_secs(interval), "{check}");
            assert_eq!(timing.start_period, Duration::from_secs(start), "{check}");
        }
    }
}

/// Several on one host: each has its own offset, and its health port lies 911 above its traffic port.
#[tokio::test]
async fn mi_with_an_offset_is_checked_with_port_offset() {
    let offset = 5;
    let mut state = ready("/healthz");
    state.ports = state.ports.into_iter().map(|(port, what)| (port + offset, what)).collect();
    let table = "preset = \"wso2-mi\"\nport_offset = 911\n";
    hold(&[table], TRAFFIC + offset, vec![state]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_faulty_capps_and_a_closed_traffic_port_of_mi() {
    let quick = format!("{BY_PRESET}interval = \"100ms\"\nfast_interval = \"20ms\"\nstart_period = \"0s\"\n");
    let path = "/healthz";
    let states: Vec<(State, &str, &[&str])> = vec![
        (ready(path), "healthy", &[]),
        (faulty(), "unhealthy", &["status 500", "Faulty CAPPs", "orders", "billing"]),
        (ready(path), "healthy", &[]),
        (traffic_dead(path), "unhealthy", &["connection refused"]),
    ];
    show(&quick, TRAFFIC, states).await;
}
