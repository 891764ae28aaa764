//! Portus: `/_health` checks its database, registry and Clair; `/_ping` is an empty 200 in chunks with fields sent
//! twice.
//!
//! | state | answer | verdict |
//! |---|---|---|
//! | all reachable | 200 | passes |
//! | Clair not configured | 200 without `clair` | passes |
//! | Clair down | 503, `clair.success` false | passes: Clair is optional |
//! | LDAP not configured, or down | without `ldap`, or 503 | passes, or fails with its `msg` |
//! | registry down, or none configured | 503, `registry.success` false | fails with its `msg` |
//! | database starting or unreachable | 503, `database.success` false | fails with its `msg` |
//! | an error page | 500 with HTML | fails: no JSON |
//! | ping | 200, chunked and empty | passes |
//! | ping, behind nginx without Portus | 502 | fails |

use roundsman::model::Code;

use super::{Port, State, chunked, hold, show, sized};

/// The port of Puma. With nginx in front it is another one; the check uses the port of the upstream.
const PORT: u16 = 3000;
const BY_HAND: &str = "type = \"http\"\npath = \"/_health\"\ninterval = \"30s\"\nexpect = { status = \"any\", json = [\
    { path = \"$.database.success\", equals = true }, { path = \"$.registry.success\", equals = true }, \
    { path = \"$.ldap.success\", equals = true, missing = \"pass\" }] }\n";
const BY_PRESET: &str = "preset = \"portus\"\n";
const PING_BY_HAND: &str =
    "type = \"http\"\npath = \"/_ping\"\nexpect = { status = [200], body = { equals = \"\" } }\n";
const PING_BY_PRESET: &str = "preset = \"portus-ping\"\n";

/// nginx repeats what Rails has sent.
fn head(status: &str, kind: &str) -> String {
    format!(
        "HTTP/1.1 {status}\nServer: nginx/1.14.2\nDate: Tue, 04 Mar 2025 10:00:00 GMT\nContent-Type: {kind}\n\
         Connection: close\nX-Frame-Options: SAMEORIGIN\nX-XSS-Protection: 1; mode=block\n\
         X-Content-Type-Options: nosniff\nX-Runtime: 0.003871\nX-Frame-Options: DENY\n\
         X-XSS-Protection: 1; mode=block\nX-Content-Type-Options: nosniff"
    )
}

fn answer(status: &str, components: &[(&str, bool, &str)]) -> Vec<u8> {
    let entries: Vec<String> = components
        .iter()
        .map(|(name, success, msg)| format!("\"{name}\":{{\"msg\":\"{msg}\",\"success\":{success}}}"))
        .collect();
    chunked(&head(status, "application/json; charset=utf-8"), &format!("{{{}}}", entries.join(",")))
}

fn ping() -> Vec<u8> {
    chunked(&head("200 OK", "text/plain; charset=utf-8"), "")
}

fn bad_gateway() -> Vec<u8> {
    let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n";
    sized("HTTP/1.1 502 Bad Gateway\nServer: nginx/1.14.2\nContent-Type: text/html\nConnection: close", page)
}

const DATABASE: (&str, bool, &str) = ("database", true, "database is up-to-date");
const REGISTRY: (&str, bool, &str) = ("registry", true, "registry is reachable");
const CLAIR: (&str, bool, &str) = ("clair", true, "clair is reachable");
const DOWN: &str = "503 Service Unavailable";

fn health(name: &'static str, answer: Vec<u8>, verdicts: &'static [(Code, &'static [&'static str])]) -> State {
    let otherwise = sized(&head("404 Not Found", "text/html"), "");
    State { name, ports: vec![(PORT, Port::Http { path: "/_health", answer, otherwise })], verdicts }
}

const PASSES: &[(Code, &[&str])] = &[(Code::L7Ok, &[" in "])];

fn all_well() -> State {
    health("all reachable", answer("200 OK", &[DATABASE, REGISTRY, CLAIR]), PASSES)
}

fn clair_down() -> State {
    let clair = ("clair", false, "clair is not reachable");
    health("Clair down", answer(DOWN, &[DATABASE, REGISTRY, clair]), PASSES)
}

fn registry_down() -> State {
    let registry = ("registry", false, "no registry configured");
    let says: &[(Code, &[&str])] =
        &[(Code::L7Rsp, &["$.registry.success is false, expected true", "no registry configured"])];
    health("registry down", answer(DOWN, &[DATABASE, registry, CLAIR]), says)
}

fn initializing() -> State {
    let database = ("database", false, "database is initializing");
    let says: &[(Code, &[&str])] =
        &[(Code::L7Rsp, &["$.database.success is false, expected true", "database is initializing"])];
    health("starting", answer(DOWN, &[database, REGISTRY]), says)
}

/// For the fuzzer.
pub fn real_answers() -> Vec<(&'static str, Vec<u8>)> {
    let registry = ("registry", false, "no registry configured");
    vec![
        ("healthy", answer("200 OK", &[DATABASE, REGISTRY, CLAIR])),
        ("unhealthy", answer(DOWN, &[DATABASE, registry, CLAIR])),
        ("ping", ping()),
        ("bad-gateway", bad_gateway()),
    ]
}

#[tokio::test]
async fn portus_requires_database_and_registry_but_not_clair() {
    let database_gone = ("database", false, "cannot connect to database");
    let page = sized(&head("500 Internal Server Error", "text/html"), "<html>We're sorry</html>");
    let ldap = ("ldap", false, "ldap is not reachable");
    let states = vec![
        all_well(),
        health("Clair not configured", answer("200 OK", &[DATABASE, REGISTRY]), PASSES),
        clair_down(),
        health(
            "LDAP down",
            answer(DOWN, &[DATABASE, REGISTRY, ldap]),
            &[(Code::L7Rsp, &["$.ldap.success is false, expected true", "ldap is not reachable"])],
        ),
        registry_down(),
        initializing(),
        health(
            "database unreachable",
            answer(DOWN, &[database_gone, REGISTRY, CLAIR]),
            &[(Code::L7Rsp, &["$.database.success is false, expected true", "cannot connect to database"])],
        ),
        health(
            "without the required components",
            answer("200 OK", &[CLAIR]),
            &[(Code::L7Rsp, &["$.database.success"])],
        ),
        health("an error page", page, &[(Code::L7Rsp, &["JSON"])]),
        State { name: "not there", ports: vec![], verdicts: &[(Code::L4Con, &["connection refused"])] },
    ];
    hold(&[BY_HAND, BY_PRESET], PORT, states).await;
}

#[tokio::test]
async fn portus_ping_is_an_empty_200_in_chunks_with_fields_sent_twice() {
    let state = |name, answer, verdicts| {
        let otherwise = bad_gateway();
        State { name, ports: vec![(PORT, Port::Http { path: "/_ping", answer, otherwise })], verdicts }
    };
    let states = vec![
        state("up", ping(), &[(Code::L7Ok, &["200 in "])]),
        state("behind nginx without Portus", bad_gateway(), &[(Code::L7Sts, &["status 502, expected 200"])]),
    ];
    hold(&[PING_BY_HAND, PING_BY_PRESET], PORT, states).await;
}

/// A rule for a field that is sent twice holds if one of its values matches.
#[tokio::test]
async fn a_field_sent_twice_holds_with_either_value() {
    let up = || State {
        name: "up",
        ports: vec![(PORT, Port::Http { path: "/_ping", answer: ping(), otherwise: bad_gateway() })],
        verdicts: &[(Code::L7Ok, &["200 in "])],
    };
    for value in ["SAMEORIGIN", "DENY"] {
        let table = format!("{PING_BY_PRESET}expect = {{ header = {{ \"X-Frame-Options\" = \"{value}\" }} }}\n");
        hold(&[&table], PORT, vec![up()]).await;
    }
    let table = format!("{PING_BY_PRESET}expect = {{ header = {{ \"X-Frame-Options\" = \"ALLOW\" }} }}\n");
    let mut refused = up();
    refused.verdicts = &[(Code::L7Rsp, &["SAMEORIGIN"])];
    hold(&[&table], PORT, vec![refused]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_message_of_a_failed_portus_component() {
    let quick = format!("{BY_PRESET}interval = \"100ms\"\nfast_interval = \"20ms\"\nstart_period = \"0s\"\n");
    let states: Vec<(State, &str, &[&str])> = vec![
        (initializing(), "unhealthy", &["$.database.success is false", "database is initializing"]),
        (all_well(), "healthy", &["200 in "]),
        (clair_down(), "healthy", &["503 in "]),
        (registry_down(), "unhealthy", &["$.registry.success is false", "no registry configured"]),
    ];
    show(&quick, PORT, states).await;
}
