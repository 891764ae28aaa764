//! Reports of systems, and what is found in them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn said(document: &Value, around: Option<&Value>) -> Option<String> {
    SelfReport::find(document, around, || ["s3cret"].into_iter()).map(|said| said.to_string())
}

#[test]
fn the_most_specific_reason_is_found() {
    for (document, words) in [
        (
            json!({"status": "unhealthy", "reason": "No ASR workers available"}),
            Some("reason: No ASR workers available"),
        ),
        (json!({"error": "e", "msg": "m", "message": "n", "reason": "r"}), Some("reason: r")),
        (json!({"error": "e", "msg": "m", "message": "n"}), Some("message: n")),
        (json!({"error": "e", "msg": "m"}), Some("msg: m")),
        (json!({"error": "e", "detail": "d"}), Some("detail: d")),
        (json!({"error": "e", "title": "t"}), Some("error: e")),
        (json!({"error": "e"}), Some("error: e")),
        (json!({"Message": "n"}), Some("Message: n")),
        (json!({"error": {"code": 5, "message": "no database"}}), Some("error: no database")),
        (json!({"error": {"code": 5}}), None),
        (json!({"reason": {"message": "x"}}), None),
        (json!({"reason": "", "message": " \n", "error": "e"}), Some("error: e")),
        (json!({"reason": 5, "error": true}), None),
        // RFC 9457.
        (
            json!({"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": "no leader"}),
            Some("detail: no leader"),
        ),
        (
            json!({"type": "about:blank", "title": "Service Unavailable", "status": 503}),
            Some("title: Service Unavailable"),
        ),
        // health+json.
        (json!({"status": "fail", "output": "disk full", "description": "of a"}), Some("output: disk full")),
        (
            json!({"status": "fail", "description": "cannot reach its store"}),
            Some("description: cannot reach its store"),
        ),
        // Elasticsearch.
        (
            json!({"error": {"root_cause": [], "type": "master_not_discovered_exception", "reason": null}, "status": 503}),
            Some("error: master_not_discovered_exception"),
        ),
        (
            json!({"error": {"type": "security_exception", "reason": "missing credentials"}, "status": 401}),
            Some("error: missing credentials"),
        ),
        // A registry of Docker, Vault, FastAPI.
        (
            json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required", "detail": null}]}),
            Some("errors: UNAUTHORIZED authentication required"),
        ),
        (json!({"errors": [{"code": 7}, {"message": "x"}]}), Some("errors: 7, x")),
        (json!({"errors": ["permission denied"]}), Some("errors: permission denied")),
        (json!({"errors": [{"other": "x"}]}), None),
        (json!({"detail": [{"loc": ["query"], "msg": "field required"}]}), Some("detail: field required")),
        (
            json!({"version": "..", "status": "not ready, faulty CAPPs detected", "Faulty CAPPs": ["a", "b"]}),
            Some("Faulty CAPPs: a, b"),
        ),
        (json!({"DOWN": ["redis"]}), Some("DOWN: redis")),
        (json!({"failedParts": [], "errors": ["x"]}), Some("errors: x")),
        (json!({"errors": [{"message": "x"}]}), Some("errors: x")),
        (json!({"components": ["a"]}), None),
        (json!({"faulty": ["a"], "error": "e"}), Some("error: e")),
        // Lists at the top, and under other names.
        (json!([{"code": "E42", "message": "full"}]), Some("E42 full")),
        (json!([{"message": "m"}, {"code": 7}]), Some("m, 7")),
        (json!([{"message": "m"}, "n"]), None),
        (json!([{"name": "m"}]), None),
        (json!([]), None),
        (json!({"messages": [{"code": "E1", "message": "m"}]}), Some("messages: E1 m")),
        (json!({"error": {"title": "t"}}), Some("error: t")),
        (json!({"error": {"type": "about:blank", "detail": "d", "title": "t"}}), Some("error: d")),
        (json!({"errors": {"db": "gone"}}), Some("errors: db: gone")),
        (json!({"errors": {"db": ["gone", "slow"], "mq": "full"}}), Some("errors: db: gone, slow, mq: full")),
        (json!({"failures": {"db": {"at": 5}}}), None),
        (json!({"errors": {}}), None),
        (json!(["reason"]), None),
        (json!({}), None),
    ] {
        assert_eq!(said(&document, None).as_deref(), words, "{document}");
    }
}

#[test]
fn the_component_that_fails_is_named() {
    for (document, words) in [
        // Spring Boot: nested, and with the reason in details.
        (
            json!({"status": "DOWN", "components": {
                "db": {"status": "UP", "details": {"database": "H2"}},
                "redis": {"status": "DOWN", "details": {"error": "Unable to connect to Redis"}},
            }}),
            Some("components.redis: DOWN, Unable to connect to Redis"),
        ),
        (
            json!({"status": "DOWN", "components": {"discovery": {"status": "DOWN", "components": {
                "eureka": {"status": "OUT_OF_SERVICE"}, "ping": {"status": "UP"}}}}}),
            Some("components.discovery.components.eureka: OUT_OF_SERVICE"),
        ),
        // ASP.NET.
        (
            json!({"status": "Unhealthy", "totalDuration": "00:00:01", "entries": {
                "cache": {"status": "Degraded"},
                "sql": {"status": "Unhealthy", "description": "timeout", "data": {}},
                "bus": {"status": "Unhealthy"},
            }}),
            Some("entries.sql: Unhealthy, timeout; 1 more part fails"),
        ),
        (
            json!({"status": "Degraded", "entries": {"a": {"status": "Healthy"}, "b": {"status": "Degraded"}}}),
            Some("entries.b: Degraded"),
        ),
        // MicroProfile.
        (
            json!({"status": "DOWN", "checks": [{"name": "live", "status": "UP"}, {"name": "db", "status": "DOWN",
                "data": {"error": "no route"}}]}),
            Some("checks.db: DOWN, no route"),
        ),
        // health+json.
        (
            json!({"status": "fail", "checks": {
                "memory:used": [{"status": "pass"}],
                "db:responseTime": [{"status": "fail", "output": "refused"}],
            }}),
            Some("checks.db:responseTime: fail, refused"),
        ),
        (
            json!({"status": "fail", "output": "unwell", "checks": {"a": [{"status": "pass"}, {"status": "fail"}]}}),
            Some("output: unwell; checks.a[1]: fail"),
        ),
        // Consul.
        (
            json!([{"Node": "a", "Name": "Serf", "Status": "passing"}, {"Name": "web", "Status": "critical",
                "Output": "HTTP 500"}]),
            Some("web: critical, HTTP 500"),
        ),
        // Vault.
        (json!({"initialized": true, "sealed": true, "standby": true}), Some("sealed is true")),
        (json!({"initialized": false, "sealed": true}), Some("initialized is false")),
        (json!({"initialized": true, "sealed": false, "standby": true}), None),
        // Plain states, and flags.
        (json!({"status": "down", "checks": {"db": "ok", "queue": "failed"}}), Some("checks.queue: failed")),
        (json!({"services": {"db": true, "queue": false}}), Some("services.queue: false")),
        (json!({"database": {"success": false, "msg": "no"}, "x": 1}), Some("database: success is false, no")),
        (json!({"success": false, "message": "x"}), Some("message: x")),
        (json!({"a": {"status": "Failed: no route"}}), Some("a: Failed: no route")),
        // None of these fails.
        (json!({"status": "DOWN"}), None),
        (json!({"a": {"status": "failover_ready"}, "b": {"status": "UP"}}), None),
        (json!({"database": "down"}), None),
        (json!({"checks": {"message": "down"}}), None),
    ] {
        assert_eq!(said(&document, None).as_deref(), words, "{document}");
    }
}

#[test]
fn a_health_report_is_distinguished_from_an_error_page() {
    for (document, verdict) in [
        (json!({"status": "maintenance_mode"}), true),
        (json!({"initialized": true, "sealed": false, "standby": true}), true),
        (json!({"status": "DOWN"}), true),
        (json!({"components": {"db": {"status": "DOWN"}}}), true),
        (json!([{"Name": "web", "Status": "critical"}]), true),
        (json!({"timestamp": "2026", "status": 404, "error": "Not Found", "path": "/healthz"}), false),
        (json!({"status": "404", "message": "no route"}), false),
        (json!({"detail": "Not Found"}), false),
        (json!({"message": "no Route matched with those values"}), false),
        (json!({"ok": false, "error": "not_found"}), false),
        (json!({"error": {"status": "UNAVAILABLE", "message": "x"}}), false),
        (json!([]), false),
        (json!({}), false),
    ] {
        assert_eq!(is_verdict(&document), verdict, "{document}");
    }
}

#[test]
fn the_object_around_the_node_comes_second() {
    let portus = json!({"database": {"msg": "database is initializing", "success": false}});
    let around = Some(&portus["database"]);
    assert_eq!(said(&portus, around).as_deref(), Some("msg: database is initializing"));
    let above = json!({"reason": "starting", "database": {"msg": "database is initializing"}});
    assert_eq!(said(&above, Some(&above["database"])).as_deref(), Some("reason: starting"));
    // A rule over a component has named it; a rule over the document has not.
    let spring = json!({"status": "DOWN", "components": {"redis": {"status": "DOWN"}}});
    assert_eq!(said(&spring, Some(&spring["components"]["redis"])), None);
    assert_eq!(said(&spring, None).as_deref(), Some("components.redis: DOWN"));
    // The whole is healthy, whatever its components are.
    assert_eq!(said(&json!({"status": "up", "components": {"redis": {"status": "DOWN"}}}), None), None);
}

#[test]
fn the_failed_lines_of_a_verbose_readyz_are_found() {
    let lines =
        |text: &str| SelfReport::find_lines(text.as_bytes(), || ["s3cret"].into_iter()).map(|said| said.to_string());
    for (text, found) in [
        (
            "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\nreadyz check failed\n",
            Some("[-]etcd failed: reason withheld"),
        ),
        ("[-]a failed\r\n[+]b ok\r\n[-]c failed: s3cret", Some("[-]a failed, [-]c failed: ***")),
        ("\n[-]a \u{1b}[2J", Some(r"[-]a \u{1b}[2J")),
        ("[+]ping ok\nreadyz check passed\n", None),
        ("[-", None),
        ("see:\n[-]a failed", None),
        ("", None),
    ] {
        assert_eq!(lines(text).as_deref(), found, "{text}");
    }
    let many = lines(&"[-]part failed\n".repeat(1_000)).unwrap();
    assert_eq!(many.chars().count(), 257);
}

#[test]
fn reasons_are_short_escaped_and_without_credentials() {
    let long = said(&json!({"reason": "x".repeat(5_000)}), None).unwrap();
    assert_eq!(long.chars().count(), "reason: ".len() + 256 + 1);
    let list = said(&json!({"failed": vec!["part"; 5_000]}), None).unwrap();
    assert!(list.starts_with("failed: part, part, ") && list.chars().count() < 300, "{list}");
    let key = said(&json!({ (format!("down{}", "ü".repeat(500))): ["a"] }), None).unwrap();
    assert!(key.chars().count() < 80, "{key}");
    let acts = said(&json!({"reason": "a\nb\u{1b}[31m \"s3cret\" \u{202e}"}), None);
    assert_eq!(acts.as_deref(), Some(r#"reason: a\nb\u{1b}[31m "***" \u{202e}"#));
    let part = json!({"checks": {"s3cret": {"status": "fail", "output": "no s3cret\u{202e}"}}});
    assert_eq!(said(&part, None).as_deref(), Some(r"checks.***: fail, no ***\u{202e}"));
    let deep = (0..40).fold(json!({"status": "down"}), |inner, _| json!({ ("k".repeat(300)): inner }));
    assert_eq!(said(&deep, None), None, "the search has a limited depth");
}

proptest! {
    /// Whatever a peer sends, the text stays short and has no control characters.
    #[test]
    fn the_report_is_bounded(
        names in prop::collection::vec("[a-z\u{202e}\u{1b}]{0,90}", 1..40),
        states in prop::collection::vec(prop::sample::select(vec!["UP", "DOWN", "fail", "warn", "\u{1b}"]), 1..40),
    ) {
        let parts: Map<String, Value> =
            names.iter().zip(states.iter().cycle()).map(|(n, s)| (n.clone(), json!({"status": s, "error": n}))).collect();
        let fails = parts.values().filter(|part| ["DOWN", "fail"].iter().any(|s| part["status"] == *s)).count();
        let found = said(&json!({"message": "m", "components": parts}), None).unwrap();
        prop_assert!(found.chars().count() < 1_200, "{}", found);
        prop_assert!(found.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{}", found);
        if fails > 1 {
            let more = format!("{} more part", fails - 1);
            prop_assert!(found.contains(&more), "{}", found);
        }
    }
}
