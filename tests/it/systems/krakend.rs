//! KrakenD: `/__health` on its traffic port, 200 or no response; no rule for the body.
//!
//! | state | answer | verdict |
//! |---|---|---|
//! | healthy | 200 with `agents` filled | passes |
//! | healthy, no agents | 200 with `{}` | passes |
//! | a stub of another shape | 200 with any body | passes |
//! | disabled or renamed | 404 while it serves | fails with the hint |
//! | not running | nothing listens | refused |
//! | stuck | takes connections only | not tested here: `hostile` |

use roundsman::model::Code;

use super::{Port, State, hold, sized};

const PORT: u16 = 8080;
const BY_HAND: &str = "type = \"http\"\npath = \"/__health\"\nexpect = { status = [200] }\n";
const BY_PRESET: &str = "preset = \"krakend\"\n";

fn head(status: &str, kind: &str) -> String {
    format!("HTTP/1.1 {status}\nContent-Type: {kind}\nDate: Wed, 19 Jan 2022 17:38:38 GMT")
}

fn answer(body: &str) -> Vec<u8> {
    sized(&head("200 OK", "application/json; charset=utf-8"), body)
}

fn missing() -> Vec<u8> {
    sized(&head("404 Not Found", "text/plain"), "404 page not found")
}

const WITH_AGENTS: &str = "{\"agents\":{\"some-agent\":\"2022-01-19 18:25:17.00225307 +0100 CET m=+0.031662879\"},\
    \"now\":\"2022-01-19 18:38:38.084402465 +0100 CET m=+30.674738658\",\"status\":\"ok\"}";
const WITHOUT: &str =
    "{\"agents\":{},\"now\":\"2022-01-19 18:38:39.084402465 +0100 CET m=+31.674738658\",\"status\":\"ok\"}";

/// For the fuzzer.
pub fn real_answers() -> Vec<(&'static str, Vec<u8>)> {
    vec![("healthy", answer(WITH_AGENTS)), ("no-agents", answer(WITHOUT)), ("disabled", missing())]
}

#[tokio::test]
async fn krakend_passes_with_200_only_and_its_404_has_a_hint() {
    let serving = |name, answer, verdicts| State {
        name,
        ports: vec![(PORT, Port::Http { path: "/__health", answer, otherwise: answer_of_an_endpoint() })],
        verdicts,
    };
    let passes: &[(Code, &[&str])] = &[(Code::L7Ok, &["200 in "])];
    let states = vec![
        serving("healthy", answer(WITH_AGENTS), passes),
        serving("healthy, no agents", answer(WITHOUT), passes),
        serving("a stub", answer("[\"anything\", 1]"), passes),
        serving("an empty stub", answer(""), passes),
        serving("another 2xx", answer_with_204(), &[(Code::L7Sts, &["status 204, expected 200"])]),
        serving("disabled", missing(), &[(Code::L7Sts, &["status 404, expected 200", "disabled"])]),
        State { name: "not there", ports: vec![], verdicts: &[(Code::L4Con, &["connection refused"])] },
    ];
    hold(&[BY_HAND, BY_PRESET], PORT, states).await;
}

fn answer_of_an_endpoint() -> Vec<u8> {
    sized(&head("200 OK", "application/json; charset=utf-8"), "{\"id\":1}")
}

fn answer_with_204() -> Vec<u8> {
    super::answer("HTTP/1.1 204 No Content\nDate: Wed, 19 Jan 2022 17:38:38 GMT", "")
}

#[tokio::test]
async fn the_krakend_preset_explains_a_404() {
    let ports = vec![(PORT, Port::Http { path: "/__health", answer: missing(), otherwise: answer_of_an_endpoint() })];
    let verdicts: &[(Code, &[&str])] = &[(Code::L7Sts, &["status 404", "path", "disabled"])];
    hold(&[BY_PRESET], PORT, vec![State { name: "disabled", ports, verdicts }]).await;
}
