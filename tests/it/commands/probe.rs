//! `roundsman probe` on the real program: no process runs, sockets are real, and the output holds no credential.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde_json::Value;

use super::{roundsman, text};
use crate::origin::tls::{CERTIFICATES, TlsOrigin};
use crate::origin::{Origin, Reply, refusing_address};

const SECRET: &str = "s3cr3t-f0r-the-probe";

/// A file with one pool: its upstream, and the text of `[pools.api.health]`.
fn config(dir: &Path, upstream: &str, health: &str) -> String {
    let file = dir.join("r.toml");
    let text = format!(
        "[listeners.web]\naddress = \"unix:{}/web.sock\"\npool = \"api\"\n\n[pools.api]\nupstreams = [\"{upstream}\"]\n\n\
         [pools.api.health]\n{health}\n",
        dir.display()
    );
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn probe_prints_each_step_of_a_configured_check() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::new().on("/healthz").reply(Reply::ok("up")).start_blocking();
    let health = "type = \"http\"\npath = \"/healthz\"";
    let file = config(dir.path(), &origin.text(), health);
    let output = roundsman(&["probe", "api", &origin.text(), "--config", &file]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}{}", text(&output.stderr));
    for part in ["✓ connect", "✓ request  GET /healthz HTTP/1.1", "✓ verdict  pass, L7OK: 200 in "] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    assert!(shown.ends_with("pass\n"), "{shown}");
    assert_eq!(origin.count("/healthz"), 1, "one probe is sent");

    origin.set("/healthz", Reply::status(503).header("Set-Cookie", "id=42").body(r#"{"reason":"No workers"}"#));
    let output = roundsman(&["probe", "api", &origin.text(), "--config", &file, "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let reply: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let check = &reply["upstreams"][0]["checks"][0];
    assert_eq!((&reply["result"], &check["code"], &check["status"]), (&"fail".into(), &"L7STS".into(), &503.into()));
    assert!(check["reason"].as_str().unwrap().contains("No workers"), "{check}");
    let steps = check["steps"].as_array().expect("steps");
    let verdict = steps.iter().find(|step| step["step"] == "verdict").expect("a verdict");
    assert_eq!(verdict["ok"], false);
}

#[test]
fn a_refused_connection_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let refusing = refusing_address().to_string();
    let file = config(dir.path(), &refusing, "type = \"tcp\"");
    let output = roundsman(&["probe", "api", &refusing, "--config", &file]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(shown.contains("✗ connect  no connection") && shown.contains("fail, L4CON: "), "{shown}");
    assert!(shown.contains("refused") && shown.ends_with("fail\n"), "{shown}");
}

#[test]
fn an_unknown_pool_or_upstream_gets_a_suggestion_and_exit_status_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), "127.0.0.1:3001", "type = \"tcp\"");
    for (pool, upstream, said) in [
        ("apy", "127.0.0.1:3001", "there is no pool \"apy\"; did you mean api?"),
        ("api", "127.0.0.1:3002", "pool \"api\" has no upstream \"127.0.0.1:3002\"; did you mean 127.0.0.1:3001?"),
    ] {
        let output = roundsman(&["probe", pool, upstream, "--config", &file]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
    let bad = config(dir.path(), "127.0.0.1:3001", "typ = \"tcp\"");
    assert_eq!(roundsman(&["probe", "api", "127.0.0.1:3001", "--config", &bad]).status.code(), Some(78));
    assert_eq!(roundsman(&["probe", "api"]).status.code(), Some(2));
    assert_eq!(roundsman(&["probe", "api", "a", "--url", "http://a/"]).status.code(), Some(2));
    assert_eq!(roundsman(&["probe", "api", "a", "--insecure"]).status.code(), Some(2));
}

#[test]
fn credentials_are_sent_and_masked_even_where_the_response_quotes_them() {
    let dir = tempfile::tempdir().unwrap();
    let echo = Reply::status(401).header("X-Echo", &format!("Bearer {SECRET}")).body(format!("bad token {SECRET}"));
    let origin = Origin::new().on("/").reply(echo).start_blocking();
    std::fs::write(dir.path().join("token"), SECRET).unwrap();
    let token = dir.path().join("token").display().to_string();
    let health =
        format!("type = \"http\"\nheaders = {{ Authorization = {{ file = \"{token}\", prefix = \"Bearer \" }} }}");
    let file = config(dir.path(), &origin.text(), &health);
    let url = format!("http://{}/", origin.text());
    let header = format!("Authorization: Bearer {SECRET}");
    for args in [&["api", &origin.text(), "--config", &file][..], &["--url", &url, "--header", &header]] {
        for more in [&[][..], &["--json"]] {
            let output = roundsman(&[&["probe"], args, more].concat());
            let shown = text(&output.stdout) + &text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{shown}");
            assert!(!shown.contains(SECRET), "{shown}");
            assert!(shown.contains("Authorization (values are not shown)") && shown.contains("***"), "{shown}");
        }
    }
    let sent = origin.requests("/");
    assert_eq!(sent.len(), 4);
    assert!(sent.iter().all(|seen| seen.field("Authorization") == Some(&format!("Bearer {SECRET}"))));
}

#[test]
fn basic_credentials_are_sent_and_masked_in_every_form() {
    const ENCODED: &str = "bW9uaXRvcjpzM2NyM3QtZjByLXRoZS1wcm9iZQ==";
    let dir = tempfile::tempdir().unwrap();
    let echo = Reply::status(401)
        .header("X-Echo", &format!("Basic {ENCODED}"))
        .body(format!("no: monitor:{SECRET} or {SECRET} or {ENCODED}"));
    let origin = Origin::new().on("/").reply(echo).start_blocking();
    std::fs::write(dir.path().join("password"), format!("{SECRET}\n")).unwrap();
    let password = dir.path().join("password").display().to_string();
    let health =
        format!("type = \"http\"\nbasic_auth = {{ user = \"monitor\", password = {{ file = \"{password}\" }} }}");
    let file = config(dir.path(), &origin.text(), &health);
    let url = format!("http://{}/", origin.text());
    let by_flags = ["--url", &url, "--user", "monitor", "--password-file", &password];
    for args in [&["api", &origin.text(), "--config", &file][..], &by_flags] {
        for more in [&[][..], &["--json"]] {
            let output = roundsman(&[&["probe"], args, more].concat());
            let shown = text(&output.stdout) + &text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{shown}");
            assert!(!shown.contains(SECRET) && !shown.contains(ENCODED), "{shown}");
            assert!(shown.contains("with Basic credentials") && shown.contains("***"), "{shown}");
        }
    }
    let sent = origin.requests("/");
    assert_eq!(sent.len(), 4);
    assert!(sent.iter().all(|seen| seen.field("Authorization") == Some(&format!("Basic {ENCODED}"))));
}

#[test]
fn a_check_tried_with_flags_equals_the_configuration_it_prints() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::new().on("/ready").reply(Reply::status(404).body("all is well")).start_blocking();
    let url = format!("http://{}/ready?x=1", origin.text());
    let args =
        ["--expect-status", "200-299,404", "--expect-body-contains", "is well", "--header", "X-Api-Key: k3y-k3y"];
    let output = roundsman(&[&["probe", "--url", &url][..], &args].concat());
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}{}", text(&output.stderr));
    let toml = &shown[shown.find("# Set PROBE_X_API_KEY").expect("the lines to write")..];
    assert!(!shown.contains("k3y-k3y"), "{shown}");

    let file = dir.path().join("pasted.toml");
    let listener = format!("\n[listeners.web]\naddress = \"unix:{}/w.sock\"\npool = \"app\"\n", dir.path().display());
    std::fs::write(&file, format!("{toml}{listener}")).unwrap();
    let pasted = std::process::Command::new(env!("CARGO_BIN_EXE_roundsman"))
        .args(["probe", "app", &origin.text(), "--config"])
        .arg(&file)
        .env("PROBE_X_API_KEY", "k3y-k3y")
        .output()
        .expect("it can be started");
    assert_eq!(pasted.status.code(), Some(0), "{}", text(&pasted.stdout) + &text(&pasted.stderr));
    let heads: Vec<_> = origin.requests("/ready").into_iter().map(|seen| seen.head).collect();
    assert_eq!(heads.len(), 2);
    assert_eq!(heads[0], heads[1], "both requests are equal, byte for byte");

    let wrong = roundsman(&["probe", "--url", &url, "--expect-status", "2xx"]);
    assert_eq!(wrong.status.code(), Some(78));
    assert!(text(&wrong.stderr).contains("pools.app.health.expect.status"), "{}", text(&wrong.stderr));
    assert!(
        !text(&wrong.stderr).contains("warning"),
        "a single upstream is no reason for a warning here: {}",
        text(&wrong.stderr)
    );
    let no_port = roundsman(&["probe", "--url", "http://[::1]:99999/"]);
    assert_eq!((no_port.status.code(), text(&no_port.stdout)), (Some(2), String::new()));
    assert!(text(&no_port.stderr).contains("not one of 1 to 65535"), "{}", text(&no_port.stderr));
}

#[test]
fn a_certificate_problem_is_reported_and_its_remedy_passes() {
    let origin = Origin::new().on("/ready").reply(Reply::ok("up")).start_blocking();
    let front = TlsOrigin::with(&CERTIFICATES.good).before(&origin).start();
    let url = format!("https://{}/ready", front.address());
    let ca = CERTIFICATES.ca.pem.display().to_string();
    let probe = |more: &[&str]| {
        let output = roundsman(&[&["probe", "--url", &url], more].concat());
        (output.status.code(), text(&output.stdout))
    };
    let (code, shown) = probe(&[]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("✓ connect") && shown.contains("✗ tls") && shown.contains("fail, L6RSP: "), "{shown}");
    assert!(shown.contains("✗ tls      TLS, handshake failed; certificate not accepted: CN=api.internal"), "{shown}");
    assert!(!shown.contains("certificate verified: ") && !shown.contains("request "), "{shown}");

    let (code, shown) = probe(&["--ca-file", &ca]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("✓ tls      TLSv1.3, done ") && shown.contains("certificate verified: CN=api.internal"),
        "{shown}"
    );
    assert!(shown.contains(&format!("tls = {{ ca_file = \"{ca}\" }}")) && shown.contains("✓ answer "), "{shown}");

    let (code, shown) = probe(&["--insecure"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("certificate not verified, because verify = false: CN=api.internal"), "{shown}");

    let (code, shown) = probe(&["--ca-file", &ca, "--server-name", "other.internal"]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("✗ tls") && shown.contains("other.internal"), "{shown}");
}

/// A server that speaks first, and answers each line: a known one with its answer, others with `-ERR`.
fn talking(greeting: &'static str, answers: &'static [(&'static str, &'static str)]) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.write_all(greeting.as_bytes());
            let Ok(lines) = stream.try_clone() else { continue };
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                let known = answers.iter().find(|(asked, _)| *asked == line);
                let answer = known.map_or("-ERR unknown\r\n", |(_, answer)| answer);
                if stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    address
}

#[test]
fn the_steps_of_a_text_protocol_are_tried_in_their_order() {
    let mail = talking("220 hi\r\n", &[("EHLO a", "250 ok\r\n"), ("QUIT", "221 bye\r\n")]);
    let steps = [
        ["--expect", "220"],
        ["--send", "EHLO a\\r\\n"],
        ["--matches", "^250 "],
        ["--send-hex", "51 55 49 54 0d0a"],
        ["--expect-hex", "323231"],
        ["--fail-on", "-ERR"],
    ];
    let probe = |url: &str, more: &[&str]| {
        let output = roundsman(&[&["probe", "--url", url], more].concat());
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let url = format!("tcp://{mail}");
    let (code, shown) = probe(&url, &steps.concat());
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("  { expect_hex = \"323231\", fail_on = [\"-ERR\"] },\n]\n"), "{shown}");
    let (code, shown) =
        probe(&url, &["--expect", "220", "--send", "HELP\\r\\n", "--expect", "250", "--fail-on", "-ERR"]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("L7RSP") && shown.contains("-ERR unknown"), "{shown}");

    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("pw");
    std::fs::write(&password, format!("{SECRET}\n")).unwrap();
    let store = talking("", &[("PING", "+PONG\r\n"), ("AUTH s3cr3t-f0r-the-probe", "+OK\r\n")]);
    let (url, auth) = (format!("tcp://{store}"), format!("AUTH @{}@\\r\\n", password.display()));
    let (code, shown) = probe(&url, &["--send-file", &auth, "--expect", "+OK"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
    let (code, shown) = probe(&url, &["--preset", "redis"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains(&format!("upstreams = [\"{store}\"]\n\n[pools.app.health]\npreset = \"redis\"\n")),
        "{shown}"
    );
    let (code, shown) = probe(&url, &["--preset", "rediss"]);
    assert_eq!(code, Some(78), "{shown}");
    assert!(shown.contains("did you mean `\"redis\"`?"), "{shown}");
}

#[test]
fn a_client_certificate_is_shown_to_a_server_that_requires_one() {
    let front = TlsOrigin::with(&CERTIFICATES.good).requires_client(&CERTIFICATES.ca).start();
    let url = format!("tls://{}", front.address());
    let path = |path: &Path| path.display().to_string();
    let (ca, client) = (path(&CERTIFICATES.ca.pem), &CERTIFICATES.for_clients);
    let (cert, key) = (path(&client.pem), path(&client.key_pem));
    let shown = ["probe", "--url", &url, "--ca-file", &ca, "--client-cert", &cert, "--client-key", &key];
    let output = roundsman(&shown);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains(&format!("client_cert = \"{cert}\", client_key = \"{key}\"")));
    let output = roundsman(&shown[..5]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("client certificate"), "{}", text(&output.stdout));
}

#[test]
fn a_failed_rule_for_the_body_quotes_the_body() {
    let body = r#"{"status":"unhealthy","reason":"No ASR workers available"}"#;
    let origin = Origin::new().on("/health").reply(Reply::status(503).body(body)).start_blocking();
    let url = format!("http://{}/health", origin.text());
    let judge = |rule: &str| {
        let output = roundsman(&["probe", "--url", &url, "--expect-status", "any", "--expect-json", rule]);
        (output.status.code(), text(&output.stdout))
    };
    let (code, shown) = judge("$.status=healthy");
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("$.status") && shown.contains("unhealthy") && shown.contains("No ASR workers"), "{shown}");
    assert!(shown.contains("✓ answer   HTTP/1.1 503"), "any status passes, so that the rule decides: {shown}");
    let (code, shown) = judge("$.status!=healthy");
    assert_eq!(code, Some(0), "{shown}");
    let (code, shown) = judge("$.nothing");
    assert_eq!(code, Some(1), "{shown}");
}

#[test]
fn probe_resolves_a_name_and_tries_every_address() {
    let origin = Origin::new().at("127.0.0.1:0".parse().unwrap()).on("/").reply(Reply::ok("up")).start_blocking();
    let port = origin.socket_addr().port();
    let output = roundsman(&["probe", "--url", &format!("http://localhost:{port}/")]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}{}", text(&output.stderr));
    assert!(shown.contains(&format!("✓ target   localhost resolved to 127.0.0.1:{port}")), "{shown}");
    assert_eq!(origin.requests("/")[0].field("Host"), Some(&*format!("localhost:{port}")));
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), &format!("localhost:{port}"), "type = \"http\"");
    for named in ["localhost".to_owned(), format!("localhost:{port}"), format!("127.0.0.1:{port}")] {
        let output = roundsman(&["probe", "api", &named, "--config", &file, "--json"]);
        let reply: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)));
        let upstreams = reply["upstreams"].as_array().expect("upstreams");
        let here = upstreams.iter().find(|upstream| upstream["upstream"] == format!("127.0.0.1:{port}"));
        let here = here.expect("localhost is 127.0.0.1 too");
        assert_eq!((&here["name"], &here["result"]), (&"localhost".into(), &"pass".into()));
        // Where localhost is also [::1], that address is another upstream, on which nothing listens.
        let passes = upstreams.iter().all(|upstream| upstream["result"] == "pass");
        assert_eq!(output.status.code(), Some(i32::from(!passes)));
    }
    let output = roundsman(&["probe", "--url", "http://no-such-host.invalid/"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no-such-host.invalid"), "{}", text(&output.stderr));
}
