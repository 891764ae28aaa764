//! Rules of every kind on complete answers: passes, and the sentences of failures.

use serde_json::{Value, json};

use super::*;
use crate::model::Secret;
use crate::model::policy::{HeaderMatch, HeaderRule, HeaderText, JsonMatch, JsonPath, JsonRule, Pattern};

pub(super) fn expecting(expect: Expect) -> HttpProbe {
    HttpProbe { expect, ..get(None) }
}

pub(super) fn json(path: &str, value: JsonMatch) -> JsonRule {
    JsonRule { path: JsonPath::try_new(path).unwrap(), value, missing_passes: false }
}

fn equal(path: &str, value: Value) -> JsonRule {
    json(path, JsonMatch::Equals(value))
}

pub(super) fn expecting_json(rules: impl IntoIterator<Item = JsonRule>) -> HttpProbe {
    expecting(Expect { json: rules.into_iter().collect(), ..Expect::default() })
}

fn matches(pattern: &str) -> HttpProbe {
    get(Some(BodyRule::Matches(Pattern::try_new(pattern).unwrap())))
}

pub(super) fn header(name: &str, value: HeaderMatch) -> HeaderRule {
    HeaderRule { name: name.into(), value }
}

pub(super) fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn the_reason_quotes_the_systems_report() {
    let healthy = expecting_json([equal("$.status", json!("healthy"))]);
    let portus = r#"{"database":{"msg":"database is initializing","success":false},
                     "registry":{"msg":"registry is reachable","success":true}}"#;
    let micro_integrator = r#"{"version":"4.3","status":"not ready, faulty CAPPs detected","Faulty CAPPs":["a","b"]}"#;
    let fault = "<am:fault xmlns:am=\"http://wso2.org/apimanager\"><am:code>404</am:code></am:fault>";
    for (probe, status, body, code, sentence) in [
        (
            &healthy,
            200,
            r#"{"status":"unhealthy","reason":"No ASR workers available"}"#,
            Code::L7Rsp,
            r#"$.status is "unhealthy", expected "healthy" (reason: No ASR workers available)"#,
        ),
        (
            &healthy,
            503,
            r#"{"status":"unhealthy","reason":"No ASR workers available"}"#,
            Code::L7Sts,
            "status 503, expected 200-299; $.status is \"unhealthy\", expected \"healthy\" \
             (reason: No ASR workers available)",
        ),
        (
            &healthy,
            500,
            micro_integrator,
            Code::L7Sts,
            "status 500, expected 200-299; $.status is \"not ready, faulty CAPPs detected\", expected \"healthy\" \
             (Faulty CAPPs: a, b)",
        ),
        (
            &expecting_json([equal("$.status", json!("ready"))]),
            200,
            micro_integrator,
            Code::L7Rsp,
            r#"$.status is "not ready, faulty CAPPs detected", expected "ready" (Faulty CAPPs: a, b)"#,
        ),
        (
            &expecting_json([equal("$.database.success", json!(true)), equal("$.registry.success", json!(true))]),
            200,
            portus,
            Code::L7Rsp,
            "$.database.success is false, expected true (msg: database is initializing)",
        ),
        (
            &contains("all good"),
            200,
            r#"{"error":{"message":"no\ndatabase"}}"#,
            Code::L7Rsp,
            r#"body does not contain "all good" (error: no\ndatabase)"#,
        ),
        (
            &expecting(Expect { headers: vec![header("X-App", HeaderMatch::Present)], ..Expect::default() }),
            200,
            r#"{"message":"wrong door"}"#,
            Code::L7Rsp,
            "header X-App is absent (message: wrong door)",
        ),
        (
            &get(None),
            500,
            fault,
            Code::L7Sts,
            r#"status 500, expected 200-299; body: "<am:fault xmlns:am=\"http://wso2.org/apimanager\"><am:code>404</am:code></am:fault>""#,
        ),
        (
            &get(None),
            500,
            r#"{"reason":"cut off""#,
            Code::L7Sts,
            r#"status 500, expected 200-299; body: "{\"reason\":\"cut off\"""#,
        ),
        (&get(None), 500, r#"{"up":false}"#, Code::L7Sts, "status 500, expected 200-299 (up is false)"),
    ] {
        check(probe, answer(status, body), Stop::Closed, code, sentence);
    }
    let chunked = "HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"reason\"\r\n6\r\n:\"no\"}\r\n0\r\n\r\n";
    check(&get(None), chunked, Stop::Deadline, Code::L7Sts, "status 503, expected 200-299 (reason: no)");
}

#[test]
fn a_large_object_is_quoted_as_it_begins() {
    let filler = "x".repeat(16 << 10);
    let body = format!(r#"{{"reason":"no","filler":"{filler}"}}"#);
    let large = report(&get(None), [answer(503, &body).as_bytes()], Stop::Closed);
    assert!(large.reason.starts_with(r#"status 503, expected 200-299; body: "{\"reason\":\"no\",\"filler\":\"xxx"#));
    check_alike(&get(None), &answer(503, &body));
    // A rule that needs the body has read all of it.
    let ruled = report(&expecting_json([equal("$.up", json!(true))]), [answer(200, &body).as_bytes()], Stop::Closed);
    assert_eq!(&*ruled.reason, "$.up is missing, expected true (reason: no)");
}

fn check_alike(probe: &HttpProbe, answer: &str) {
    let whole = report(probe, [answer.as_bytes()], Stop::Closed);
    for size in [1, 7, 1_000, 4_096, 65_536] {
        assert_alike(&whole, &report(probe, answer.as_bytes().chunks(size), Stop::Closed));
    }
}

#[test]
fn every_json_rule_has_its_sentence() {
    let document = r#"{"status":"up","n":1.5,"list":[1,2],"none":null,"o":{"a":"b\u001b"},
        "components":{"api":"healthy","redis":"unhealthy","asr":"down","it's":"x"}}"#;
    let text = |values: &[&str]| values.iter().map(|v| json!(v)).collect::<Vec<Value>>();
    for (rule, sentence) in [
        (equal("$.components.redis", json!("healthy")), r#"$.components.redis is "unhealthy", expected "healthy""#),
        (
            equal("$.components.*", json!("healthy")),
            r#"$.components.redis is "unhealthy", expected "healthy"; 2 more nodes fail"#,
        ),
        (equal("$.components['asr','it\\'s']", json!("down")), r#"$.components['it\'s'] is "x", expected "down""#),
        (json("$.status", JsonMatch::NotEquals(json!("up"))), r#"$.status is "up", expected anything but "up""#),
        (json("$.status", JsonMatch::In(text(&["a", "b"]))), r#"$.status is "up", expected one of "a", "b""#),
        (
            json("$.status", JsonMatch::In(text(&["1", "2", "3", "4", "5", "6", "7", "8", "9"]))),
            r#"$.status is "up", expected one of "1", "2", "3", "4", "5", "6", "7", "8", …"#,
        ),
        (json("$.none", JsonMatch::Exists(false)), "$.none is null, expected nothing there"),
        (json("$.list[*]", JsonMatch::Exists(false)), "$.list[0] is 1, expected nothing there; 1 more node fails"),
        (equal("$.n", json!(2)), "$.n is 1.5, expected 2"),
        (equal("$.list", json!([1])), "$.list is [1,2], expected [1]"),
        (equal("$.o", json!({})), r#"$.o is {"a":"b\u001b"}, expected {}"#),
        (
            equal("$.status", json!(true)),
            "$.status is \"up\", expected true \
             (port and path answer, but the value is a string and the rule expects a boolean)",
        ),
    ] {
        check(&expecting_json([rule]), answer(200, document), Stop::Closed, Code::L7Rsp, sentence);
    }
    for (rule, sentence) in [
        (json("$.gone", JsonMatch::Exists(true)), r#"$.gone is missing; body: "{\"a\":1}""#),
        (equal("$.gone", json!(1)), r#"$.gone is missing, expected 1; body: "{\"a\":1}""#),
        (
            equal("$.x.a", json!(1)),
            "$.x.a is missing, expected 1; body: \"{\\\"a\\\":1}\" \
             (port and path answer, and a key of that name is at another place: check the JSONPath)",
        ),
    ] {
        check(&expecting_json([rule]), answer(200, r#"{"a":1}"#), Stop::Closed, Code::L7Rsp, sentence);
    }
}

#[test]
fn a_body_that_is_not_json_is_named() {
    let probe = expecting_json([equal("$.status", json!("healthy"))]);
    for (body, sentence) in [
        ("", "body is not JSON: it is empty"),
        ("OK", r#"body is not JSON: expected value at line 1 column 1; body: "OK""#),
        (
            "<html>",
            "body is not JSON: it is HTML or XML; body: \"<html>\" \
             (port and path answer with a page: the endpoint may be at another path)",
        ),
        (
            r#"{"status":"unhealthy","status":"healthy"}"#,
            r#"body is not JSON: duplicate key "status" at line 1 column 30; body: "{\"status\":\"unhealthy\",\"status\":\"healthy\"}""#,
        ),
    ] {
        check(&probe, answer(200, body), Stop::Closed, Code::L7Rsp, sentence);
    }
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{\"status\":\"healthy\"}";
    let sentence = "body was cut short: connection closed, 20 of 30 bytes received; \
                    body: \"{\\\"status\\\":\\\"healthy\\\"}\"";
    check(&probe, cut, Stop::Closed, Code::L7Rsp, sentence);
    for body in ["[".repeat(60_000), format!("{}1", "[".repeat(200)), "{\"a\":".repeat(10_000)] {
        check_alike(&probe, &answer(200, &body));
    }
}

#[test]
fn json_over_the_cap_fails() {
    let probe = expecting_json([equal("$.status", json!("healthy"))]);
    let body = |length: usize| {
        let bare = r#"{"status":"healthy","x":""}"#.len();
        format!(r#"{{"status":"healthy","x":"{}"}}"#, "x".repeat(length - bare))
    };
    check(&probe, answer(200, &body(BODY_BYTES_MAX)), Stop::Closed, Code::L7Ok, OK);
    let over = report(&probe, [answer(200, &body(BODY_BYTES_MAX + 1)).as_bytes()], Stop::Closed);
    let start = "body is over 64 KiB: too long to be checked as JSON; body: \"{";
    assert!(over.reason.starts_with(start), "{}", over.reason);
    check_alike(&probe, &answer(200, &body(BODY_BYTES_MAX + 1)));
}

#[test]
fn a_pattern_is_matched_against_the_complete_body() {
    let version = matches(r"(?s)getVersionResponse.*WSO2 API Manager");
    let xml = "<ns:getVersionResponse>\n<return>WSO2 API Manager-4.4.0</return></ns:getVersionResponse>";
    check(&version, answer(200, xml), Stop::Closed, Code::L7Ok, OK);
    let whole = matches("^ok$");
    check(&whole, answer(200, "ok"), Stop::Closed, Code::L7Ok, OK);
    check(&whole, answer(200, "okay"), Stop::Closed, Code::L7Rsp, r#"body does not match "^ok$"; body: "okay""#);
    let sentence = "no complete body within 5s: the answer has no length and its connection stayed open; 2 bytes received \
                    (connected in 0.3 ms); body: \"ok\" (it must send Content-Length or chunks, or close when asked to; \
                    a contains rule passes without the end)";
    check(&whole, "HTTP/1.1 200 OK\r\n\r\nok", Stop::Deadline, Code::L7Tout, sentence);
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{}ready{}", "x".repeat(BODY_BYTES_MAX - 5), "x".repeat(10));
    check(&matches("ready"), &long, Stop::Deadline, Code::L7Ok, OK);
    for late in ["ready$", "readyx", r"ready\b"] {
        let missed = report(&matches(late), [long.as_bytes()], Stop::Deadline);
        assert!(missed.reason.contains("in its first 64 KiB (the rest is not read)"), "{}", missed.reason);
        check_alike(&matches(late), &long);
    }
}

#[test]
fn fields_are_checked_before_the_body_is_read() {
    let equals = |text: &str| HeaderMatch::Equals(text.into());
    let pattern = |text: &str| HeaderMatch::Matches(Pattern::try_new(text).unwrap());
    let head = "HTTP/1.1 200 OK\r\nX-Frame-Options: SAMEORIGIN\r\nx-frame-options:  DENY \r\nX-App: portus 2\r\n\
                A: 1\r\nA: 2\r\nA: 3\r\nA: 4\r\nA: 5\r\n\r\n";
    for (rule, sentence) in [
        (header("x-frame-options", equals("DENY")), None),
        (header("X-APP", pattern("^portus")), None),
        (
            header("X-Frame-Options", equals("ALLOW")),
            Some(r#"header X-Frame-Options is "SAMEORIGIN", "DENY", expected "ALLOW""#),
        ),
        (header("A", equals("6")), Some(r#"header A is "1", "2", "3" and 2 more, expected "6""#)),
        (header("X-App", pattern("^clair")), Some(r#"header X-App is "portus 2", expected a match of "^clair""#)),
        (header("X-Up", equals("1")), Some(r#"header X-Up is absent, expected "1""#)),
        (header("X-Up", HeaderMatch::Present), Some("header X-Up is absent")),
        (
            header("X-App", equals("portus")),
            Some(
                "header X-App is \"portus 2\", expected \"portus\" \
                 (port and path answer, but the field holds more than that: equals compares the whole value: use matches)",
            ),
        ),
    ] {
        let probe = expecting(Expect { headers: vec![rule], ..Expect::default() });
        let code = if sentence.is_none() { Code::L7Ok } else { Code::L7Rsp };
        check(&probe, head, Stop::Closed, code, sentence.unwrap_or(OK));
    }
}

#[test]
fn with_any_status_the_other_rules_decide_alone() {
    let soft = JsonRule { missing_passes: true, ..equal("$.ldap.success", json!(true)) };
    let probe = expecting(Expect {
        status: StatusRule::Any,
        json: vec![equal("$.database.success", json!(true)), soft],
        ..Expect::default()
    });
    let clair_down = r#"{"database":{"success":true},"clair":{"msg":"down","success":false}}"#;
    check(&probe, answer(503, clair_down), Stop::Closed, Code::L7Ok, "503 in 1.9 ms");
    let down = r#"{"database":{"success":false},"clair":{"success":true}}"#;
    check(&probe, answer(200, down), Stop::Closed, Code::L7Rsp, "$.database.success is false, expected true");
    let ldap = r#"{"database":{"success":true},"ldap":{"msg":"no bind","success":false}}"#;
    let sentence = "$.ldap.success is false, expected true (msg: no bind)";
    check(&probe, answer(503, ldap), Stop::Closed, Code::L7Rsp, sentence);
}

#[test]
fn all_rules_must_hold_and_the_first_that_fails_is_named() {
    let probe = expecting(Expect {
        headers: vec![header("X-App", HeaderMatch::Equals("a".into()))],
        body: vec![BodyRule::Contains("ready".into())],
        json: vec![equal("$.n", json!(1))],
        ..Expect::default()
    });
    let with = |status: u16, app: &str, body: &str| {
        format!("HTTP/1.1 {status} X\r\nX-App: {app}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let good = r#"{"n":1,"s":"ready"}"#;
    check(&probe, with(200, "a", good), Stop::Closed, Code::L7Ok, OK);
    let sentence = r#"status 500, expected 200-299; body: "{\"n\":1,\"s\":\"ready\"}""#;
    check(&probe, with(500, "b", good), Stop::Closed, Code::L7Sts, sentence);
    check(&probe, with(200, "b", "{}"), Stop::Closed, Code::L7Rsp, r#"header X-App is "b", expected "a""#);
    let sentence = r#"body does not contain "ready"; body: "{}""#;
    check(&probe, with(200, "a", "{}"), Stop::Closed, Code::L7Rsp, sentence);
    check(&probe, with(200, "a", r#"{"n":2,"s":"ready"}"#), Stop::Closed, Code::L7Rsp, "$.n is 2, expected 1");
    // The text is there: only the rest is missing.
    let cut = "HTTP/1.1 200 X\r\nX-App: a\r\nContent-Length: 99\r\n\r\n{\"s\":\"ready\",";
    let sentence =
        "body was cut short: connection closed, 13 of 99 bytes received; body: \"{\\\"s\\\":\\\"ready\\\",\"";
    check(&probe, cut, Stop::Closed, Code::L7Rsp, sentence);
}

#[test]
fn credentials_that_are_sent_back_are_masked() {
    let headers = vec![("Authorization".into(), HeaderText::Secret(Secret::new("Bearer s3cret-t0ken")))];
    let with = |expect| HttpProbe { headers: headers.clone(), expect, ..get(None) };
    let probes = [
        with(Expect::default()),
        with(Expect { json: vec![equal("$.token", json!("x"))], ..Expect::default() }),
        with(Expect { json: vec![equal("$.*", json!("x"))], ..Expect::default() }),
        with(Expect { headers: vec![header("X-Echo", HeaderMatch::Equals("x".into()))], ..Expect::default() }),
        with(Expect { body: vec![BodyRule::Equals("x".into())], ..Expect::default() }),
    ];
    for (status, body) in [
        (200, r#"{"token":"s3cret-t0ken"}"#),
        (200, r#"{"s3cret-t0ken":1,"s3cret-t0ken":2}"#),
        (200, r#"{"s3cret-t0ken":1}"#),
        (200, r#"{"token":["s3cret-t0ken"],"reason":"bad token s3cret-t0ken"}"#),
        (401, r#"{"failed: s3cret-t0ken":["Bearer s3cret-t0ken"]}"#),
        (302, "no s3cret-t0ken"),
        (999, "s3cret-t0ken"),
    ] {
        let text = format!(
            "HTTP/1.1 {status} X\r\nX-Echo: Bearer s3cret-t0ken\r\nLocation: /?t=s3cret-t0ken\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        for probe in &probes {
            let report = report(probe, [text.as_bytes()], Stop::Closed);
            let trace = [&*report.trace.head, &*report.trace.body].concat();
            assert!(!report.sentence().contains("s3cret"), "{}", report.sentence());
            assert!(!String::from_utf8_lossy(&trace).contains("s3cret"), "{}", String::from_utf8_lossy(&trace));
            assert!(report.trace.head.starts_with(b"HTTP/1.1 "));
        }
    }
}

#[test]
fn a_trace_holds_the_beginning_of_the_final_head_and_of_the_body() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let head = "HTTP/1.1 503 No\r\nA: b\r\nContent-Length: 700\r\n\r\n";
    let seen = report(&get(None), [format!("{interim}{head}{}", "x".repeat(700)).as_bytes()], Stop::Closed).trace;
    assert_eq!((&*seen.head, &*seen.body), (head.as_bytes(), &[b'x'; Trace::BODY_BYTES_MAX][..]));
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\nbody", "x".repeat(5_000));
    let seen = report(&get(None), [long.as_bytes()], Stop::Closed).trace;
    assert_eq!((&*seen.head, seen.body.len()), (&long.as_bytes()[..Trace::HEAD_BYTES_MAX], 0));
    let seen = report(&get(None), [&b"HTTP/1.1 200 OK\r\nA: "[..]], Stop::Deadline).trace;
    assert_eq!(&*seen.head, b"HTTP/1.1 200 OK\r\nA: ");
    let seen = report(&get(None), [&b"SSH-2.0-OpenSSH_9.6\r\n"[..]], Stop::Closed).trace;
    assert_eq!((&*seen.head, &*seen.body), (&b""[..], &b"SSH-2.0-OpenSSH_9.6\r\n"[..]));
    let seen = report(&contains("ready"), [answer(200, "is ready").as_bytes()], Stop::Closed).trace;
    assert_eq!(&*seen.body, b"is ready");
}

#[test]
fn a_parsed_head_is_traced_as_text_without_credentials() {
    let headers = vec![("Authorization".into(), HeaderText::Secret(Secret::new("Bearer s3cret-t0ken")))];
    let probe = HttpProbe { headers, ..get(None) };
    let field = |name: &'static str, value: &'static str| Field::new(name.as_bytes(), value.as_bytes());
    let mut answer = Answer::new(&probe);
    assert_eq!(answer.feed_head(103, &[field("link", "x")]), Progress::More);
    assert_eq!(answer.feed_head(200, &[field("a", "b"), field("x-echo", "s3cret-t0ken")]), Progress::Done);
    let report = answer.finish(Stop::Enough).report(&Circumstances {
        took: Duration::ZERO,
        connected_in: None,
        handshake_in: None,
        timeout: Duration::from_secs(5),
        elsewhere: None,
    });
    assert_eq!(String::from_utf8_lossy(&report.trace.head), "HTTP/2 200\r\na: b\r\nx-echo: ***\r\n\r\n");
}

/// 14 components of Spring Boot, one of them failing: longer than a quotation.
fn spring() -> String {
    let ups = "circuitBreakers clientConfigServer db discoveryComposite diskSpace hikari jms livenessState mail ping rabbit \
               readinessState";
    let mut components = serde_json::Map::new();
    for name in ups.split(' ') {
        components.insert(name.into(), json!({"status": "UP", "details": {"x": "y".repeat(100)}}));
    }
    let error = "RedisConnectionFailureException: Unable to connect to Redis";
    components.insert("redis".into(), json!({"status": "DOWN", "details": {"error": error}}));
    json!({"status": "DOWN", "components": components}).to_string()
}

#[test]
fn a_component_that_fails_is_named_where_the_status_fails_too() {
    let not_down = json("$.components.*.status", JsonMatch::NotEquals(json!("DOWN")));
    let rule = "$.components.redis.status is \"DOWN\", expected anything but \"DOWN\"";
    let words = "RedisConnectionFailureException: Unable to connect to Redis";
    let pad = |bytes: usize| format!("{{\"pad\":\"{}\",{}", "x".repeat(bytes), &spring()[1..]);
    for (rules, body, says, not) in [
        (vec![not_down.clone()], spring(), vec!["status 503, expected 200-299; ", rule, words], "body:"),
        // No rule names it: the report does.
        (vec![], spring(), vec!["status 503, expected 200-299 (components.redis: DOWN, Redis", words], "body:"),
        // A rule over another node fails first.
        (
            vec![equal("$.status", json!("UP")), not_down.clone()],
            spring(),
            vec!["; $.status is \"DOWN\", expected \"UP\" (components.redis: DOWN, ", words],
            "body:",
        ),
        // All rules hold, so none names a component.
        (
            vec![equal("$.status", json!("DOWN"))],
            spring(),
            vec!["200-299 (components.redis: DOWN, "],
            "expected \"DOWN\"",
        ),
        // At the limit, and over it: a longer report is not searched.
        (vec![not_down.clone()], pad(40_000), vec!["200-299; ", rule], "body:"),
        (vec![not_down.clone()], pad(BODY_BYTES_MAX), vec!["200-299; body: \"{"], "components"),
        (vec![], pad(40_000), vec!["200-299; body: \"{"], "components"),
        (vec![not_down], "<html>".into(), vec!["200-299; body: \"<html>\""], "components"),
    ] {
        let probe = expecting_json(rules);
        let answer = answer(503, &body);
        let whole = report(&probe, [answer.as_bytes()], Stop::Closed);
        assert_alike(&whole, &report(&probe, answer.as_bytes().chunks(7), Stop::Closed));
        assert_eq!((whole.code, whole.hint), (Code::L7Sts, None));
        for text in says {
            assert!(whole.reason.contains(text), "{}: {}", text, whole.reason);
        }
        assert!(!whole.reason.contains(not), "{}: {}", not, whole.reason);
    }
}

#[test]
fn the_failed_lines_of_a_verbose_readyz_are_quoted_alone() {
    let lines = "[+]ping ok\n".repeat(300);
    let body = format!("{lines}[-]etcd failed: reason withheld\n[+]log ok\nreadyz check failed\n");
    let sentence = "status 500, expected 200-299 ([-]etcd failed: reason withheld)";
    check(&get(None), answer(500, &body), Stop::Closed, Code::L7Sts, sentence);
    check(
        &contains("ready"),
        answer(200, &body.replace("ready", "live")),
        Stop::Closed,
        Code::L7Rsp,
        "body does not contain \"ready\" ([-]etcd failed: reason withheld)",
    );
}

#[test]
fn a_health_report_suppresses_the_hint() {
    let hint = "(path wrong, endpoint disabled, or another Host is expected)";
    for (status, body, sentence) in [
        (
            404,
            r#"{"status":"maintenance_mode"}"#,
            r#"status 404, expected 200-299; body: "{\"status\":\"maintenance_mode\"}""#,
        ),
        (
            429,
            r#"{"initialized":true,"sealed":false,"standby":true}"#,
            r#"status 429, expected 200-299; body: "{\"initialized\":true,\"sealed\":false,\"standby\":true}""#,
        ),
        (503, r#"{"initialized":true,"sealed":true}"#, "status 503, expected 200-299 (sealed is true)"),
        (403, r#"{"status":"DOWN","reason":"locked"}"#, "status 403, expected 200-299 (reason: locked)"),
        // Error pages of an API, which are not health reports.
        (404, r#"{"detail":"Not Found"}"#, &format!("status 404, expected 200-299 (detail: Not Found) {hint}")),
        (
            404,
            r#"{"status":404,"error":"Not Found"}"#,
            &format!("status 404, expected 200-299 (error: Not Found) {hint}"),
        ),
        (404, "", &format!("status 404, expected 200-299 {hint}")),
        (304, "", "status 304, expected 200-299"),
    ] {
        check(&get(None), answer(status, body), Stop::Closed, Code::L7Sts, sentence);
    }
    // The check sets a Host, so the Host is not at fault.
    let hosted = HttpProbe { host: Some("api.internal".into()), ..get(None) };
    check(&hosted, answer(400, ""), Stop::Closed, Code::L7Sts, "status 400, expected 200-299");
    let field = HttpProbe { headers: vec![("host".into(), HeaderText::Plain("api".into()))], ..get(None) };
    check(&field, answer(400, ""), Stop::Closed, Code::L7Sts, "status 400, expected 200-299");
    let sentence = "status 400, expected 200-299 (it may not accept the address as Host: set host)";
    check(&get(None), answer(400, ""), Stop::Closed, Code::L7Sts, sentence);
}

/// Bodies similar to what the rules below expect, hostile ones included.
fn almost_a_body() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        &br#"{"status":"healthy"}"#[..],
        br#"{"status":"unhealthy","reason":"no"}"#,
        br#"{"status":"healthy","status":"healthy"}"#,
        br#"{"components":{"a":"healthy","b":"down"}}"#,
        br#"{"faulty":["a","b"]}"#,
        br#"{"status":1e999}"#,
        br#"{"status":NaN}"#,
        br#"{"status":"\ud800"}"#,
        br#"{"status":123456789012345678901234567890.5e-20}"#,
        b"{\"status\":\"\xff\xfe\"}",
        b"\xef\xbb\xbf{}",
        b"{",
        b"}",
        b"[[[[",
        b"  \n ",
        b"ready",
        b"<html>",
        b"",
    ]);
    let repeat = prop_oneof![8 => Just(1_usize), 1 => Just(200), 1 => Just(5_000)];
    prop::collection::vec((part, repeat), 0..4)
        .prop_map(|parts| parts.into_iter().flat_map(|(part, times)| part.repeat(times)).collect())
}

proptest! {
    #[test]
    fn no_rule_depends_on_the_pieces(
        body in almost_a_body(),
        status in prop::sample::select(vec![200_u16, 200, 503, 302]),
        framing in 0_usize..3,
        cuts in prop::collection::vec(1_usize..3_000, 1..12),
        end in prop_oneof![Just(Stop::Closed), Just(Stop::Deadline)],
    ) {
        let mut text = format!("HTTP/1.1 {status} X\r\nX-App: a\r\n").into_bytes();
        match framing {
            0 => text.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes()),
            1 => text.extend(b"\r\n"),
            _ => text.extend(format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).bytes()),
        }
        text.extend_from_slice(&body);
        if framing == 2 && !body.is_empty() {
            text.extend(b"\r\n0\r\n\r\n");
        }
        for probe in [
            get(None),
            contains("ready"),
            equals("ready"),
            matches("rea?dy$"),
            expecting_json([equal("$.status", json!("healthy"))]),
            expecting_json([equal("$..*", json!("healthy")), json("$.faulty", JsonMatch::Exists(false))]),
            expecting(Expect {
                status: StatusRule::Any,
                headers: vec![header("x-app", HeaderMatch::Equals("b".into()))],
                ..Expect::default()
            }),
            expecting(Expect {
                status: StatusRule::Any,
                body: vec![BodyRule::Equals("{}".into())],
                json: vec![equal("$.status", json!("healthy"))],
                ..Expect::default()
            }),
            expecting(Expect {
                body: vec![BodyRule::Matches(Pattern::try_new("healthy|ready").unwrap())],
                json: vec![equal("$.status", json!("healthy"))],
                ..Expect::default()
            }),
        ] {
            let whole = report(&probe, [&text[..]], end);
            assert_alike(&whole, &report(&probe, pieces(&text, &cuts), end));
            prop_assert!(whole.reason.chars().count() < 8_000);
            prop_assert!(whole.trace.head.len() <= Trace::HEAD_BYTES_MAX);
            prop_assert!(whole.trace.body.len() <= Trace::BODY_BYTES_MAX);
        }
    }
}
