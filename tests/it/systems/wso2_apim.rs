//! WSO2 API Manager: Gateway start-up over TLS, the Version service, WebSocket ports, Traffic Manager and Key Manager.
//!
//! | state | what answers | verdict |
//! |---|---|---|
//! | Gateway deployed | 200 over TLS, self-signed | passes with `ca_file` or `verify = false`, else the certificate is named |
//! | every API failed, or version 4.3.0 | 500 | fails by its status |
//! | version 4.0 | 401 | fails with the hint |
//! | Gateway starting | refused | fails |
//! | Version service up | 200 with the XML | passes |
//! | a fault page | 200 or 500 without `getVersionResponse` | fails by its body or status |
//! | another product's Version service | 200, another name in the XML | fails by its body |
//! | starting | the port answers 404 or is refused | fails |
//! | WebSocket port | 200 to a plain `GET /health` | passes; refused fails |
//! | Traffic Manager | 5672 and 9611 take connections | passes; nothing is sent; one missing fails |
//! | Key Manager | 9673 and 9443 take connections | passes; one missing fails |

use roundsman::model::Code;

use super::{CERTIFICATES, Port, Running, State, chunked, hold, judge, load, sized};
use crate::origin::own_host;

const HTTP: u16 = 9763;
const VERSION_BY_HAND: &str = "type = \"http\"\npath = \"/services/Version\"\nport = 9763\n\
    expect = { status = [200], body = { matches = \"getVersionResponse.*WSO2 API Manager\" } }\n";
const VERSION_BY_PRESET: &str = "preset = \"wso2-apim-version\"\n";

const PASSES: &[(Code, &[&str])] = &[(Code::L7Ok, &["200 in "])];
const REFUSED: &[(Code, &[&str])] = &[(Code::L4Con, &["connection refused"])];

/// Its Tomcat sends no reason phrase.
fn head(status: u16, kind: &str) -> String {
    format!("HTTP/1.1 {status} \nContent-Type: {kind}\nDate: Tue, 04 Mar 2025 10:00:00 GMT\nServer: WSO2 Carbon Server")
}

fn version(product: &str) -> Vec<u8> {
    let xml = format!(
        "<ns:getVersionResponse xmlns:ns=\"http://version.services.core.carbon.wso2.org\"><return>{product}</return>\
         </ns:getVersionResponse>"
    );
    chunked(&head(200, "application/xml; charset=UTF-8"), &xml)
}

fn services(name: &'static str, answer: Vec<u8>, verdicts: &'static [(Code, &'static [&'static str])]) -> State {
    let otherwise = sized(&head(404, "text/html"), "");
    State { name, ports: vec![(HTTP, Port::Http { path: "/services/Version", answer, otherwise })], verdicts }
}

/// For the fuzzer.
pub fn real_answers() -> Vec<(&'static str, Vec<u8>)> {
    vec![("version", version("WSO2 API Manager-4.4.0")), ("not-deployed", sized(&head(404, "text/html"), ""))]
}

#[tokio::test]
async fn apim_version_requires_the_name_of_the_product() {
    let fault = "<soapenv:Fault><faultstring>The service cannot be found</faultstring></soapenv:Fault>";
    let states = vec![
        services("up", version("WSO2 API Manager-4.4.0"), PASSES),
        services(
            "a fault page with 200",
            chunked(&head(200, "application/xml; charset=UTF-8"), fault),
            &[(Code::L7Rsp, &["body", "soapenv:Fault"])],
        ),
        services(
            "a fault page with 500",
            chunked(&head(500, "application/xml; charset=UTF-8"), fault),
            &[(Code::L7Sts, &["status 500, expected 200"])],
        ),
        services("another product", version("WSO2 Micro Integrator-4.3.0"), &[(Code::L7Rsp, &["body"])]),
        services(
            "starting, not deployed",
            sized(&head(404, "text/html"), ""),
            &[(
                Code::L7Sts,
                &["status 404, expected 200", "path wrong, endpoint disabled, or another Host is expected"],
            )],
        ),
        State { name: "starting", ports: vec![], verdicts: REFUSED },
    ];
    hold(&[VERSION_BY_HAND, VERSION_BY_PRESET], HTTP, states).await;
}

#[tokio::test]
async fn apim_websocket_ports_are_checked_without_an_upgrade() {
    let by_hand = "type = \"http\"\npath = \"/health\"\nexpect = { status = [200] }\n";
    for port in [9099, 8099] {
        let state = |name, status: &str, verdicts| {
            let answer = sized(&format!("HTTP/1.1 {status}"), "");
            let otherwise = sized("HTTP/1.1 404 Not Found", "");
            State { name, ports: vec![(port, Port::Http { path: "/health", answer, otherwise })], verdicts }
        };
        let states = vec![
            state("healthy", "200 OK", PASSES),
            state("unhealthy", "500 Internal Server Error", &[(Code::L7Sts, &["status 500, expected 200"])]),
            State { name: "starting", ports: vec![], verdicts: REFUSED },
        ];
        hold(&[by_hand, "preset = \"wso2-apim-websocket\"\n"], port, states).await;
    }
}

/// Two ports with checks that only connect: both must accept connections, and nothing is sent on either.
async fn two_ports(ports: [u16; 2], preset: &str) {
    let by_hand =
        format!("checks = [{{ type = \"tcp\", port = {} }}, {{ type = \"tcp\", port = {} }}]\n", ports[0], ports[1]);
    let state = |name, open: &[u16], verdicts| State {
        name,
        ports: open.iter().map(|port| (*port, Port::Silent)).collect(),
        verdicts,
    };
    const UP: (Code, &[&str]) = (Code::L4Ok, &["connected in "]);
    const DOWN: (Code, &[&str]) = (Code::L4Con, &["connection refused"]);
    let states = vec![
        state("up", &ports, &[UP, UP]),
        state("the first is down", &ports[1..], &[DOWN, UP]),
        state("the second is down", &ports[..1], &[UP, DOWN]),
        state("starting", &[], &[DOWN, DOWN]),
    ];
    hold(&[&by_hand, preset], ports[0], states).await;
    let host = own_host();
    let origins = state("up", &ports, &[]).start(host);
    judge(&load(preset, (host, ports[0]).into())).await;
    for Running { origin, .. } in origins {
        // Connections are accepted in order: one of the check would come first.
        let _ours = std::net::TcpStream::connect(origin.socket_addr()).expect("it listens");
        crate::support::assert_eventually("the test's connection is accepted", super::PATIENCE, || {
            origin.accepted() > 0
        })
        .await;
        assert_eq!(origin.accepted(), 1, "the server saw a connection of the check");
    }
}

#[tokio::test]
async fn apim_traffic_manager_checks_connect_to_both_ports_and_send_nothing() {
    two_ports([5672, 9611], "preset = \"wso2-apim-traffic-manager\"\n").await;
}

#[tokio::test]
async fn apim_key_manager_checks_connect_to_both_ports() {
    two_ports([9673, 9443], "preset = \"wso2-apim-key-manager\"\n").await;
}

const GATEWAY: u16 = 9443;
const STARTUP: &str = "/api/am/gateway/v2/server-startup-healthcheck";
const GATEWAY_BY_HAND: &str = "type = \"http\"\nscheme = \"https\"\nport = 9443\nexpect = { status = [200] }\n\
    path = \"/api/am/gateway/v2/server-startup-healthcheck\"\n";
const GATEWAY_BY_PRESET: &str = "preset = \"wso2-apim-gateway\"\n";

fn gateway(name: &'static str, status: u16, verdicts: &'static [(Code, &'static [&'static str])]) -> State {
    let (answer, otherwise) = (sized(&head(status, "application/json"), ""), sized(&head(404, "text/html"), ""));
    State { name, ports: vec![(GATEWAY, Port::Https { path: STARTUP, answer, otherwise })], verdicts }
}

#[tokio::test]
async fn apim_gateway_is_checked_over_tls_and_its_certificate_must_be_trusted_by_the_file() {
    let trusting = format!("tls = {{ ca_file = {:?}, server_name = \"localhost\" }}\n", CERTIFICATES.self_signed.pem);
    let tables: Vec<String> = [GATEWAY_BY_HAND, GATEWAY_BY_PRESET]
        .iter()
        .flat_map(|table| [format!("{table}{trusting}"), format!("{table}tls = {{ verify = false }}\n")])
        .collect();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let states = vec![
        gateway("deployed", 200, PASSES),
        gateway("every API failed", 500, &[(Code::L7Sts, &["status 500, expected 200"])]),
        gateway("version 4.0", 401, &[(Code::L7Sts, &["status 401, expected 200", "credentials"])]),
        State { name: "starting", ports: vec![], verdicts: REFUSED },
    ];
    hold(&tables, GATEWAY, states).await;
    // The shipped certificate is not trusted without a key in the file.
    let untrusted = vec![gateway("deployed", 200, &[(Code::L6Rsp, &["self-signed"])])];
    hold(&[GATEWAY_BY_HAND, GATEWAY_BY_PRESET], GATEWAY, untrusted).await;
}

#[test]
fn the_gateway_preset_allows_minutes_to_start() {
    let (_, timing) = super::timings(GATEWAY_BY_PRESET).remove(0);
    assert!(timing.start_period >= std::time::Duration::from_secs(120), "{timing:?}");
}
