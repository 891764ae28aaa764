//! The checks that health tables result in: lists and their names, presets under written keys, times, TLS.

use std::fmt::Write as _;
use std::time::Duration;

use crate::config::diagnostic::render_all;
use crate::config::presets::EmptyEnv;
use crate::config::{Parsed, Severity, Source, parse};
use crate::model::policy::{
    CheckPolicy, Expect, HttpProbe, PortRule, ProbeKind, ProbeSpec, Require, StatusRule, Timing, TlsPolicy,
};

/// Reads a file with two upstreams at port 8290 and this health table.
fn read(health: &str) -> Result<Parsed, String> {
    let text = format!(
        "listeners.web = {{ address = \"127.0.0.1:80\", pool = \"a\" }}\n[pools.a]\nupstreams = [\"10.0.0.1:8290\", \"10.0.0.2:8290\"]\n\
         [pools.a.health]\n{health}\n"
    );
    parse(&Source { file: "x", text: text.as_bytes() }, &EmptyEnv).map_err(|all| render_all(&all, false))
}

fn checks(health: &str) -> (Vec<CheckPolicy>, Require) {
    let pool = read(health).unwrap_or_else(|error| panic!("{error}")).config.pools.remove(0);
    (pool.checks.clone(), pool.require)
}

fn one(health: &str) -> CheckPolicy {
    let (mut checks, _) = checks(health);
    assert_eq!(checks.len(), 1);
    checks.remove(0)
}

fn http(check: &CheckPolicy) -> &HttpProbe {
    match &check.spec.kind {
        ProbeKind::Http(http) => http,
        other => panic!("{other:?}"),
    }
}

fn messages(health: &str) -> String {
    match read(health) {
        Ok(parsed) => render_all(&parsed.warnings, false),
        Err(error) => error,
    }
}

#[test]
fn several_checks_have_distinct_names() {
    for (list, names) in [
        (r#"{ type = "http" }"#, &["http"][..]),
        (r#"{ type = "http", path = "/healthz?x=1", port = 9201 }, { type = "tcp" }"#, &["http /healthz", "tcp"]),
        (r#"{ type = "tcp" }, { type = "tcp", port = 9443 }, { port_offset = -1 }"#, &["tcp", "tcp 9443", "tcp -1"]),
        (
            r#"{ type = "http", path = "/a" }, { type = "http", path = "/a", port = 81 }, { type = "http", path = "/b" }"#,
            &["http /a", "http /a 81", "http /b"],
        ),
        (
            r#"{ type = "http", path = "/a" }, { type = "http", path = "/a", method = "HEAD" }"#,
            &["http /a #1", "http /a #2"],
        ),
        (
            r#"{ type = "grpc" }, { type = "grpc", service = "x.Y" }, { type = "websocket" }, { type = "tls" }"#,
            &["grpc", "grpc x.Y", "websocket /", "tls"],
        ),
    ] {
        let (checks, require) = checks(&format!("checks = [{list}]"));
        assert_eq!(checks.iter().map(|check| &*check.name).collect::<Vec<_>>(), names);
        assert_eq!(require, Require::All);
    }
}

#[test]
fn times_beside_a_list_are_the_defaults_of_its_entries() {
    let (checks, require) = checks(
        "interval = \"4s\"\ntimeout = \"2s\"\nrise = 4\nrequire = 1\n\
         checks = [{ type = \"tcp\" }, { type = \"http\", interval = \"8s\", timeout = \"6s\", fall = 9 }]",
    );
    let times = |check: &CheckPolicy| {
        let timing = check.timing;
        (timing.interval.as_secs(), timing.timeout.as_secs(), timing.healthy_threshold, timing.unhealthy_threshold)
    };
    assert_eq!((times(&checks[0]), times(&checks[1]), require), ((4, 2, 4, 3), (8, 6, 4, 9), Require::Count(1)));
    let error = messages("timeout = \"2s\"\nchecks = [{ interval = \"1s\" }]");
    assert!(error.contains("checks[0].interval: \"1s\" is shorter than the timeout \"2s\" beside `checks`"), "{error}");
}

#[test]
fn an_unhealthy_interval_counts_only_if_it_is_longer() {
    // The interval and the one for unhealthy ones, in seconds.
    for (health, want) in [
        ("", (10, None)),
        ("unhealthy_interval = \"10s\"", (10, None)),
        ("unhealthy_interval = \"1m\"", (10, Some(60))),
        ("interval = \"2s\"\nunhealthy_interval = \"2500ms\"", (2, Some(2))),
        // A preset's interval (30 s) gives way to what is written.
        ("preset = \"smallest-waves\"\nunhealthy_interval = \"20s\"", (20, None)),
        ("preset = \"smallest-waves\"\nunhealthy_interval = \"1m\"", (30, Some(60))),
        ("unhealthy_interval = \"1m\"\nchecks = [{ type = \"tcp\", interval = \"20s\" }]", (20, Some(60))),
        ("interval = \"5s\"\nchecks = [{ type = \"tcp\", unhealthy_interval = \"20s\" }]", (5, Some(20))),
    ] {
        let timing = one(health).timing;
        let seconds = (timing.interval.as_secs(), timing.unhealthy_interval.map(|interval| interval.as_secs()));
        assert_eq!(seconds, want, "{health}");
    }
    assert_eq!(one("unhealthy_interval = \"10s\"").timing, one("").timing, "they share their probes");
    assert_eq!(one("").timing, Timing::defaults(), "what tests elsewhere take for the default timing");
}

#[test]
fn a_word_whose_opposite_is_excluded_draws_no_warning() {
    for (body, warns) in [
        ("{ contains = \"healthy\" }", true),
        ("[{ contains = \"healthy\" }]", true),
        ("[{ contains = \"healthy\" }, { contains = \"a\" }]", true),
        ("[{ contains = \"healthy\" }, { not_contains = \"unhealthy\" }]", false),
        ("[{ not_matches = \"un\" }, { contains = \"healthy\" }]", false),
        ("[{ matches = \"healthy\" }, { not_contains = \"un\" }]", false),
        ("[{ matches = \"ready\" }, { not_contains = \"un\" }]", true),
    ] {
        let output = messages(&format!("type = \"http\"\nexpect.body = {body}"));
        assert_eq!(output.contains("also f"), warns, "{body}: {output}");
    }
}

#[test]
fn a_rule_that_is_added_beside_a_preset_replaces_those_of_its_kind() {
    let check = one("preset = \"wso2-apim-version\"\nexpect.body = [{ contains = \"a\" }, { not_contains = \"b\" }]\n\
         expect.max_duration = \"1s\"");
    assert_eq!(http(&check).expect.body.len(), 2);
    assert_eq!(check.spec.max_duration, Some(Duration::from_secs(1)));
    let error = messages("preset = \"krakend\"\ntimeout = \"1s\"\nexpect.max_duration = \"1s\"");
    assert!(error.contains("expect.max_duration: \"1s\" is not below the timeout \"1s\""), "{error}");
}

#[test]
fn a_written_key_wins_over_that_of_a_preset() {
    let plain = one("preset = \"smallest-waves\"");
    assert_eq!(
        (plain.spec.port, plain.timing.interval, &*plain.name),
        (PortRule::Port(7100), Duration::from_secs(30), "http")
    );
    let check = one(
        "preset = \"smallest-waves\"\npath = \"/health/asr\"\nport_offset = 1\nfall = 7\nexpect.header = { X-A = \"b\" }",
    );
    assert_eq!(
        (check.spec.port, &*http(&check).path, check.timing.unhealthy_threshold),
        (PortRule::Offset(1), "/health/asr", 7)
    );
    // One more rule keeps those of the preset.
    assert_eq!(
        http(&check).expect,
        Expect { headers: http(&check).expect.headers.clone(), ..http(&plain).expect.clone() }
    );
    let check = one("preset = \"smallest-waves\"\nexpect.status = \"any\"");
    assert_eq!((&http(&check).expect.status, http(&check).expect.json.len()), (&StatusRule::Any, 1));
    // Of several checks the first gets the written keys.
    let (checks, _) = checks("preset = \"wso2-mi\"\nport_offset = 911\npath = \"/x\"");
    assert_eq!((checks[0].spec.port, &*http(&checks[0]).path), (PortRule::Offset(911), "/x"));
    assert_eq!(*checks[1].spec, ProbeSpec::connect());
}

#[test]
fn written_times_adjust_those_of_a_preset() {
    let millis = |health: &str| {
        let timing = one(health).timing;
        (timing.interval.as_millis(), timing.timeout.as_millis(), timing.fast_interval.as_millis())
    };
    assert_eq!(millis("preset = \"smallest-waves\"\ninterval = \"2s\""), (2_000, 2_000, 1_000));
    assert_eq!(millis("preset = \"smallest-waves\"\ninterval = \"500ms\""), (500, 500, 500));
    assert_eq!(millis("preset = \"smallest-waves\"\ntimeout = \"60s\""), (60_000, 60_000, 1_000));
    assert_eq!(millis("checks = [{ preset = \"smallest-waves\" }]\ninterval = \"3s\""), (3_000, 3_000, 1_000));
    let error = messages("preset = \"smallest-waves\"\ninterval = \"1s\"\ntimeout = \"2s\"");
    assert!(error.contains("health.timeout: \"2s\" exceeds the interval \"1s\""), "{error}");
}

#[test]
fn keys_that_do_not_fit_a_preset_are_reported_in_the_users_file() {
    for (health, start) in [
        ("preset = \"krakand\"", "x:5:10: error: pools.a.health.preset: \"krakand\" is not known"),
        (
            "preset = \"krakend\"\ntype = \"tcp\"",
            "x:6:8: error: pools.a.health.type: the preset \"krakend\" is of type \"http\"",
        ),
        ("preset = \"krakend\"\nservice = \"x\"", "x:6:11: error: pools.a.health.service: belongs to type = \"grpc\""),
        (
            "preset = \"smallest-waves\"\nmethod = \"HEAD\"",
            "x:5:10: error: pools.a.health.expect.json: an answer to HEAD has no body",
        ),
        (
            "checks = [{ preset = \"wso2-mi\" }]",
            "x:5:22: error: pools.a.health.checks[0].preset: the preset \"wso2-mi\" has 2 checks, and an entry",
        ),
        (
            "preset = \"krakend\"\nchecks = [{}]",
            "x:5:10: error: pools.a.health.preset: cannot be combined with `checks`",
        ),
        (
            "preset = \"krakend\"\nrequire = 2",
            "x:6:11: error: pools.a.health.require: there is one check, and nothing to count",
        ),
        (
            "preset = \"wso2-mi\"\nrequire = 3",
            "x:6:11: error: pools.a.health.require: 3 checks can never pass: there are 2",
        ),
    ] {
        let output = messages(health);
        assert!(output.starts_with(start), "{health}: {output}");
    }
    let error = messages("preset = \"krakand\"");
    assert!(error.contains("\"wso2-mi\"") && error.contains("did you mean `\"krakend\"`?"), "{error}");
}

#[test]
fn tls_is_switched_on_by_its_scheme_or_its_table() {
    let verified = TlsPolicy { verify: true, server_name: None, roots: None, client: None };
    for (health, tls) in [
        ("type = \"http\"", None),
        ("type = \"http\"\nscheme = \"http\"", None),
        ("type = \"tls\"", Some(verified.clone())),
        ("type = \"http\"\nscheme = \"https\"", Some(verified.clone())),
        ("type = \"grpc\"", None),
        ("type = \"grpc\"\ntls = {}", Some(verified.clone())),
        ("type = \"websocket\"\ntls.verify = false", Some(TlsPolicy { verify: false, ..verified.clone() })),
        (
            "preset = \"wso2-apim-gateway\"\ntls.server_name = \"::1\"",
            Some(TlsPolicy { server_name: Some("::1".into()), ..verified }),
        ),
    ] {
        assert_eq!(one(health).spec.tls, tls, "{health}");
    }
}

#[test]
fn an_untouched_traffic_port_draws_a_warning_with_what_to_write() {
    let warned = messages("type = \"http\"\npath = \"/healthz\"\nport = 9201");
    assert!(warned.contains("no check touches the port of the traffic, such as 10.0.0.1:8290"), "{warned}");
    let toml = r#"checks = [{ type = "http", port = 9201, path = "/healthz" }, { type = "tcp" }]"#;
    assert!(warned.contains(toml), "{warned}");
    assert_eq!(messages(toml), "");
    for quiet in ["port = 8290", "preset = \"wso2-mi\"", "preset = \"krakend\"", "checks = [{ port = 1 }, {}]"] {
        assert_eq!(messages(quiet), "", "{quiet}");
    }
    let warned = messages("preset = \"wso2-apim-version\"");
    assert!(warned.contains("checks = [{ preset = \"wso2-apim-version\" }, { type = \"tcp\" }]"), "{warned}");
}

#[test]
fn one_answer_for_several_upstreams_draws_a_warning() {
    let text = "listeners.web = { address = \"127.0.0.1:80\", pool = \"a\" }\n[pools.a]\nhealth.port = 9201\n\
        upstreams = [\"10.0.0.1:9201\", \"10.0.0.1:9202\"]\n";
    let warned = |text: &str| {
        let parsed = parse(&Source { file: "x", text: text.as_bytes() }, &EmptyEnv).unwrap();
        assert!(parsed.warnings.iter().all(|warning| warning.severity == Severity::Warning));
        render_all(&parsed.warnings, false)
    };
    assert!(warned(text).contains("10.0.0.1:9201 and 10.0.0.1:9202 are both checked at 10.0.0.1:9201"));
    assert!(!warned(&text.replace("10.0.0.1:9202", "10.0.0.2:9201")).contains("both checked"));
}

#[test]
fn a_health_address_that_takes_the_check_of_the_traffic_draws_a_warning() {
    let text = "listeners.web = { address = \"127.0.0.1:80\", pool = \"a\" }\n[pools.a]\n\
        upstreams = [\"10.0.0.1:8290\", { address = \"10.0.0.2:8290\", health_address = \"10.9.0.2:9201\" }]\n\
        health.checks = [{ type = \"http\", port = 9201 }, { type = \"tcp\" }]\n";
    let warned = |text: &str| {
        render_all(&parse(&Source { file: "x", text: text.as_bytes() }, &EmptyEnv).unwrap().warnings, false)
    };
    let start = "x:4:50: warning: pools.a.health.checks[1]: the health_address of 10.0.0.2:8290 takes this check too";
    assert!(warned(text).starts_with(start), "{}", warned(text));
    assert_eq!(warned(&text.replace("10.9.0.2:9201", "10.0.0.2:8290")), "");
    assert_eq!(warned(&text.replace(", port = 9201", "")), "");
}

#[test]
fn an_unverified_certificate_is_warned_about_once() {
    let warned = messages(
        "checks = [{ type = \"tls\", tls.verify = false }, { type = \"http\", tls.verify = false }, \
         { type = \"grpc\", tls.verify = false }]",
    );
    assert_eq!(warned.matches("warning").count(), 1, "{warned}");
    assert!(warned.contains("the upstream, as in 2 other checks"), "{warned}");
}

/// What every preset means, in words: its timing and its checks, in a file that a person has read.
#[test]
fn every_preset_means_what_it_says() {
    let mut out = String::new();
    for preset in crate::config::presets::all() {
        let (checks, require) = checks(&format!("preset = \"{}\"", preset.name));
        assert_eq!(require, Require::All, "{}", preset.name);
        for check in checks {
            assert_eq!(check.preset, Some(preset.name));
            let t = check.timing;
            let _ = writeln!(
                out,
                "{}: every {:?}, at most {:?}, {} passes, {} failures, from {:?} on",
                preset.name, t.interval, t.timeout, t.healthy_threshold, t.unhealthy_threshold, t.start_period
            );
            let _ = writeln!(out, "  {}", check.spec);
        }
    }
    let file = "tests/config/presets.expected";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(file, &out).expect("write what is expected");
    }
    assert_eq!(out, std::fs::read_to_string(file).expect("what is expected"), "UPDATE_EXPECT=1 rewrites it");
}

/// Presets work whatever the upstream's own port is.
#[test]
fn every_preset_fits_every_upstream() {
    for preset in crate::config::presets::all() {
        for address in ["10.0.0.1:1", "[2001:db8::1]:65535", "unix:/run/a.sock"] {
            let text = format!(
                "listeners.web = {{ address = \"127.0.0.1:80\", pool = \"a\" }}\n[pools.a]\nupstreams = [\"{address}\"]\nhealth.preset = \"{}\"\n\
                 health.interval = \"10ms\"\n",
                preset.name
            );
            let parsed = parse(&Source { file: "x", text: text.as_bytes() }, &EmptyEnv);
            assert!(parsed.is_ok(), "{} {address}: {}", preset.name, render_all(&parsed.unwrap_err(), false));
        }
    }
}

/// Paths such as `$['Faulty CAPPs']` reach the rule as written, and types are kept.
#[test]
fn json_rules_keep_types_and_keys_with_spaces() {
    let check = one("type = \"http\"\n[[pools.a.health.expect.json]]\npath = \"$['Faulty CAPPs']\"\nexists = false\n\
         [[pools.a.health.expect.json]]\npath = \"$.a\"\nin = [true, \"true\", 1, 1.5, [2], { b = \"c\" }]\nmissing = \"pass\"");
    assert_eq!(
        http(&check).expect.to_string(),
        "200-299, $['Faulty CAPPs'] absent and $.a one of true, \"true\", 1, 1.5, [2], {\"b\":\"c\"} (or missing)"
    );
}
