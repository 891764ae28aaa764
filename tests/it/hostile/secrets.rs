//! Credentials of checks are sent only to their upstream: redirects are not followed, and a credential that an upstream
//! quotes anywhere in its response is masked in all output.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::PATIENCE;
use crate::client::get;
use crate::origin::{Act, Origin, Reply};
use crate::program::{Program, STEADY, config, http_check, pool};
use crate::support::assert_eventually;

/// No part of it occurs anywhere by chance.
const SECRET: &str = "Zq7LwP0xRk3TnV9sYb5";
/// Parts of it with fewer characters reveal too little to matter.
const PART: usize = 6;

/// A secret that many encodings change.
const MARKED: &str = "Hq8ZtW1c/Xj5VdN0s\"Ky2GmR7f+Lu4BpT9w";

/// Every part of `secret` of [`PART`] characters.
fn parts_of(secret: &str) -> Vec<String> {
    (0..=secret.len() - PART).map(|from| secret[from..from + PART].to_owned()).collect()
}

/// Answers that quote the marked secret as JSON, percent encoding and HTML write it, whole and cut at every few bytes.
fn quoting_escaped() -> Vec<Reply> {
    let json = MARKED.replace('"', "\\\"");
    let php = json.replace('/', "\\/");
    let go = MARKED.replace('"', "\\u0022").replace('+', "\\u002b").replace('/', "\\u002F");
    let percent = MARKED.replace('/', "%2F").replace('"', "%22").replace('+', "%2b");
    let html = MARKED.replace('/', "&#x2F;").replace('"', "&quot;").replace('+', "&#43;");
    let twice = php.replace('\\', "\\\\").replace('"', "\\\"");
    let mut replies = Vec::new();
    for spelled in [json, php, go, percent, html, twice] {
        replies.push(Reply::status(401).body(format!("{{\"error\":\"bad key {spelled}\",\"key={spelled}\":1}}")));
        replies.push(Reply::status(403).header("X-Sent", &spelled).body(format!("<p>bad key={spelled}</p>")));
        replies.push(Reply::raw(format!(
            "HTTP/1.1 302 {spelled}\r\nLocation: /login?key={spelled}\r\nContent-Length: 0\r\n\r\n"
        )));
        replies.push(Reply::raw(format!("{spelled}\r\n\r\n")));
        for filler in [8, 10, 13, 21, 30] {
            replies.push(Reply::status(500).body(format!("{}{spelled}", "x".repeat(1025 - filler))));
            replies.push(Reply::status(500).body(format!("{}{spelled}", "x".repeat(256 - filler))));
        }
    }
    replies
}

/// Responses that quote what was sent, each in another place, some so long that the quote is cut inside the secret.
fn quoting(elsewhere: &str) -> Vec<Reply> {
    let header = format!("Bearer {SECRET}");
    let mut replies = vec![
        Reply::raw(format!("HTTP/1.1 401 {header}\r\nContent-Length: 0\r\n\r\n")),
        Reply::raw(format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{elsewhere}/?{SECRET}\r\nContent-Length: 0\r\n\r\n"
        )),
        Reply::raw(format!(
            "HTTP/1.1 307 {header}\r\nLocation: http://{elsewhere}/{SECRET}\r\nX-Sent: {header}\r\n\r\n{header}"
        )),
        Reply::status(403)
            .header("X-Sent", &header)
            .body(format!("{{\"error\":\"{header}\",\"status\":\"{header}\"}}")),
        Reply::raw(format!("Authorization: {header}\r\n\r\n")),
        Reply::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {SECRET}\r\n\r\n")),
        Reply::raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n")),
        Reply::raw(format!("HTTP/1.1 503 No\r\nContent-Length: 900\r\n\r\n{header}")).then(Act::Reset),
    ];
    for filler in (1..SECRET.len()).step_by(3) {
        let body = format!("{}{SECRET}", "x".repeat(256 - filler));
        replies.push(Reply::status(500).body(&body));
        replies.push(Reply::raw(body));
    }
    replies
}

/// All that is reported about one upstream: by the running program, and by `roundsman probe`.
async fn explanations(program: &Program, origins: &[Origin]) -> Vec<(String, String)> {
    let mut reported = vec![("explain api".to_owned(), get(program.admin, "/api/v1/pools/api/explain").await.text())];
    for origin in origins {
        let address = origin.text();
        let path = format!("/api/v1/pools/api/upstreams/{address}/explain");
        let answer = get(program.admin, &path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        reported.push((path, answer.text()));
        for command in [&["explain", "api", &address][..], &["probe", "api", &address]] {
            let (_, out, err) = program.command(command).await;
            assert!(out.contains(&address), "{command:?}: {out}{err}");
            reported.push((command.join(" "), out + &err));
        }
    }
    reported
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quoted_credential_is_never_shown_and_never_sent_elsewhere() {
    let elsewhere = Origin::plain("elsewhere").await;
    assert_never_shown(SECRET, "Bearer ", &parts_of(SECRET), quoting(&elsewhere.text())).await;
    assert_eq!(elsewhere.accepted(), 0, "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_quoted_with_escapes_is_never_shown() {
    // The letters between the escaped characters are the same in every encoding.
    let parts: Vec<String> = MARKED.split(['/', '"', '+']).flat_map(parts_of).collect();
    assert!(parts.len() > 10, "{parts:?}");
    assert_never_shown(MARKED, "key=", &parts, quoting_escaped()).await;
}

/// Responses that quote a Basic credential: decoded, encoded again, within other text, in another case.
fn quoting_encoded(pair: &str, password: &str) -> Vec<Reply> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut spelled = vec![pair.to_owned(), password.to_owned(), password.to_uppercase(), pair.to_lowercase()];
    for around in ["", "a", "ab"] {
        let text = format!("{around}{password}{around}");
        spelled.extend([STANDARD.encode(&text), STANDARD_NO_PAD.encode(&text)]);
        spelled.extend([URL_SAFE.encode(&text), URL_SAFE_NO_PAD.encode(&text)]);
    }
    spelled.extend([STANDARD.encode(pair), hex(password), hex(pair).to_uppercase()]);
    let replies = spelled.iter().map(|said| {
        Reply::status(401).header("X-Sent", said).body(format!("{{\"error\":\"bad {said}\",\"message\":\"{said}\"}}"))
    });
    replies.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_quoted_decoded_or_encoded_is_never_shown() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let pair = format!("probe:{SECRET}");
    let encoded = STANDARD.encode(&pair);
    let mut parts = parts_of(SECRET);
    parts.extend(parts_of(&SECRET.to_uppercase()));
    parts.extend(parts_of(&SECRET.to_lowercase()));
    // At each offset, the digits that encode the password alone.
    for offset in 0..3 {
        let shifted = STANDARD.encode(format!("{}{SECRET}", "a".repeat(offset)));
        parts.extend(parts_of(shifted.trim_end_matches('=').get(4..24).expect("it is long")));
    }
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    parts.extend([hex[2..14].to_owned(), hex[2..14].to_uppercase()]);
    assert_never_shown(&encoded, "Basic ", &parts, quoting_encoded(&pair, SECRET)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn core_files_are_disabled() {
    let origin = Origin::plain("a").await;
    let check = http_check();
    let program = Program::start_ready(&pool("api", &[&origin.text()], &check)).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.pid())).expect("its limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line with the limit");
    let values: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(values, ["0", "0"], "{core}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_file_with_secrets_in_wrong_places_does_not_show_them() {
    let file = "tests/config/invalid/51-secrets-in-wrong-places.toml";
    for arguments in
        [&["check", "--config", file][..], &["check", "--config", file, "--format", "json"], &["run", "--config", file]]
    {
        let output = std::process::Command::new(crate::program::BINARY).args(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("headers") && !said.contains("hunter2"), "{arguments:?}: {said}");
    }
}

/// Runs checks that send `prefix` and `secret` to upstreams that answer with `replies`, and looks for `parts` of it in
/// everything that is reported about them.
async fn assert_never_shown(secret: &str, prefix: &str, parts: &[String], replies: Vec<Reply>) {
    let origins: Vec<Origin> =
        replies.into_iter().map(|reply| Origin::new().on("/healthz").reply(reply).start_blocking()).collect();
    let mut program = Program::spawn_verbose(|web, admin, dir| {
        let file = dir.join("secret");
        std::fs::write(&file, format!("{secret}\n")).expect("write the secret");
        let check = format!(
            "{STEADY}expect = {{ body = {{ contains = \"never\" }} }}\n\
             headers = {{ Authorization = {{ file = {file:?}, prefix = {prefix:?} }} }}\n"
        );
        let addresses: Vec<String> = origins.iter().map(Origin::text).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        config(web, admin, &pool("api", &addresses, &check))
    });
    program.wait_until_ready().await;
    for origin in &origins {
        program.wait_for_state("api", &origin.text(), "unhealthy", PATIENCE).await;
        let sent = origin.requests("/healthz");
        assert_eq!(sent[0].field("authorization"), Some(&*format!("{prefix}{secret}")), "the secret is in use");
    }
    let mut reported = Vec::new();
    for path in ["/api/v1/status", "/api/v1/events", "/metrics", "/", "/health?detailed=true", "/health/api"] {
        reported.push((path.to_owned(), get(program.admin, path).await.text()));
    }
    for command in [&["status"][..], &["status", "--json"], &["events", "--json"], &["check"]] {
        let (_, out, err) = program.command(command).await;
        reported.push((command.join(" "), out + &err));
    }
    reported.extend(explanations(&program, &origins).await);
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait_for_exit(PATIENCE).await.code(), Some(0));
    reported.push(("the log".to_owned(), program.log()));
    program.assert_no_panic();
    assert!(
        reported[0].1.matches("***").count() >= 5,
        "quoted responses are shown without the secret: {}",
        reported[0].1
    );
    for (place, text) in &reported {
        assert!(text.len() > 20, "{place} is too short: {text:?}");
        let line = |part| text.lines().find(|line| line.contains(part));
        let found: Vec<_> = parts.iter().filter_map(|part| Some((part, line(&**part)?))).collect();
        assert!(found.is_empty(), "in {place}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_is_followed_whatever_its_status_and_location() {
    let elsewhere = Origin::plain("elsewhere").await;
    let places =
        [format!("http://{}/healthz", elsewhere.text()), "/healthy".to_owned(), format!("//{}/", elsewhere.text())];
    let mut origins = Vec::new();
    for status in [301, 302, 303, 307, 308] {
        for place in &places {
            let reply = Reply::status(status).header("Location", place);
            origins.push((status, Origin::new().on("/healthz").reply(reply).start().await));
        }
    }
    let addresses: Vec<String> = origins.iter().map(|(_, origin)| origin.text()).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let program = Program::start(&pool("api", &addresses, STEADY)).await;
    for (status, origin) in &origins {
        program.wait_for_state("api", &origin.text(), "unhealthy", PATIENCE).await;
        let last = program.upstream("api", &origin.text()).await.expect("status lists it").last_check.expect("probed");
        assert_eq!((last.code.as_str(), last.status), ("L7STS", Some(*status)), "{last:?}");
        assert!(last.reason.contains("redirects are not followed"), "{last:?}");
        assert_eq!(origin.count("/healthy"), 0);
    }
    assert_eq!(elsewhere.accepted(), 0);
    let allowed = STEADY.replace("path", "expect = { status = [\"200-399\"] }\npath");
    assert_eq!(program.reload(&pool("api", &addresses, &allowed)).await.0, 200);
    for (_, origin) in &origins {
        program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    }
    let probes = origins[0].1.count("/healthz");
    assert_eventually("probes continue", Duration::from_secs(20), || origins[0].1.count("/healthz") > probes + 3).await;
    assert_eq!(elsewhere.accepted(), 0, "an expected redirect passes and is not followed");
    program.assert_no_panic();
}
