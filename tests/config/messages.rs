//! Lines that people write who know another program or notation, and common slips: the message, its place, and its
//! suggestion. Every suggestion is accepted in its place.

use roundsman::app::load::load_text;
use roundsman::config::{Diagnostic, Severity};

use super::suggestions::refused_suggestions;

/// Three lines, then the pool `a` in the lines 4 and 5.
pub const POOL: &str = "[listeners.web]\naddress = \"127.0.0.1:8080\"\npool = \"a\"\n[pools.a]\nupstreams = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n";

pub fn diagnostics(text: &[u8]) -> Vec<Diagnostic> {
    match load_text("x.toml", text) {
        Ok(loaded) => loaded.warnings,
        Err(error) => error.diagnostics,
    }
}

/// The first diagnostic: its place, its text, and how many there are.
pub fn first(text: &[u8]) -> (String, String, usize) {
    let all = diagnostics(text);
    let Some(first) = all.first() else { return (String::new(), String::new(), 0) };
    let place = first.line.zip(first.column).map_or("-".to_owned(), |(line, column)| format!("{line}:{column}"));
    let texts = [Some(&first.message), first.expected.as_ref(), first.suggestion.as_ref()];
    (place, texts.into_iter().flatten().cloned().collect::<Vec<_>>().join(" | "), all.len())
}

/// Every row: a text, the place of the one message, and words of message, expectation and suggestion. The suggestion
/// holds in its place.
pub fn check(rows: &[(String, &str, &[&str])]) {
    let mut wrong = Vec::new();
    for (text, place, words) in rows {
        let (at, shown, number) = first(text.as_bytes());
        let missing: Vec<_> = words.iter().filter(|word| !shown.contains(**word)).collect();
        wrong.extend(refused_suggestions(text).1);
        if at != *place || !missing.is_empty() || number != 1 {
            wrong.push(format!("{text}\n--> {number} at {at} (not {place}), without {missing:?}: {shown}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The pool of [`POOL`] with these upstreams.
pub fn upstreams(list: &str) -> String {
    POOL.replace("[\"10.0.0.1:80\", \"10.0.0.2:80\"]", list)
}

/// A pool and a line 6 in it.
pub fn pool(line: &str) -> String {
    format!("{POOL}{line}\n")
}

/// An HTTP check and a line 8 in it.
pub fn check_of(line: &str) -> String {
    format!("{POOL}[pools.a.health]\ntype = \"http\"\n{line}\n")
}

/// A route from line 6, and a line 7 in it; the pool is in line 8.
pub fn route(line: &str) -> String {
    format!("{POOL}[[routes]]\n{line}\npool = \"a\"\n")
}

#[test]
fn values_without_quotes_or_with_other_quotes() {
    check(&[
        (upstreams("[10.0.0.1:80, \"10.0.0.2:80\"]"), "5:14", &["written in quotes", "\"10.0.0.1:80\""]),
        (POOL.replace("\"127.0.0.1:8080\"", "127.0.0.1:8080"), "2:11", &["in quotes", "\"127.0.0.1:8080\""]),
        (upstreams("[api:80, \"10.0.0.2:80\"]"), "5:14", &["\"api:80\""]),
        (check_of("interval = 10s"), "8:12", &["in quotes", "\"10s\""]),
        (check_of("jitter = 10%"), "8:10", &["0.1"]),
        (check_of("path = \u{201c}/x\u{201d}"), "8:8", &["straight quotes", "\"/x\""]),
        (upstreams("[\u{201c}10.0.0.1:80\u{201d}, \"10.0.0.2:80\"]"), "5:14", &["straight", "\"10.0.0.1:80\""]),
        (check_of("path = \"/x\u{201d}"), "8:8", &["closing quote", "\"/x\""]),
        (check_of("path = `/x`"), "8:8", &["\"/x\""]),
        (check_of("path = \"/x"), "8:11", &["no closing quote"]),
        (upstreams("[\"10.0.0.1:80\", \"10.0.0.2:80]"), "5:42", &["no closing quote"]),
        (upstreams("[\n\"10.0.0.1:80\",\n'10.0.0.2:80,\n]"), "7:14", &["no closing quote"]),
        (upstreams("[\"C:\\\\x\\\\\", \"10.0.0.2:80\"\n"), "5:13", &["list", "not closed"]),
        (POOL.replace("\"127.0.0.1:8080\"", ":8080"), "2:11", &["in quotes", "| \"0.0.0.0:8080\""]),
        (POOL.replace("\"127.0.0.1:8080\"", "localhost:8080;"), "2:11", &["in quotes", "| \"127.0.0.1:8080\""]),
        (POOL.replace("\"127.0.0.1:8080\"", "[::1]:8080"), "2:11", &["in quotes", "| \"[::1]:8080\""]),
        (upstreams("[[::1]:80]"), "5:14", &["written in quotes", "| \"[::1]:80\""]),
        (upstreams("[\"10.0.0.1:80\", [2001:db8::1]:80]"), "5:29", &["| \"[2001:db8::1]:80\""]),
        (upstreams("[\n\"10.0.0.1:80\",\n[::1]:80,\n]"), "7:1", &["| \"[::1]:80\""]),
        (upstreams("[{ address = [::1]:80 }, \"[::2]:80\"]"), "5:26", &["| \"[::1]:80\""]),
        (upstreams("[:3001, \"10.0.0.2:80\"]"), "5:14", &["in quotes", "| \"127.0.0.1:3001\""]),
        (check_of("\u{201c}path\u{201d} = \"/x\""), "8:1", &["these quotes", "| path = \"/x\""]),
        (check_of("\u{201c}path\u{201d} = \u{201c}/x\u{201d}"), "8:1", &["| path = \"/x\""]),
        (check_of("\u{2018}path\u{2019} = '/x'"), "8:1", &["| path = '/x'"]),
        (check_of("expect = { \u{201c}status\u{201d} = [200] }"), "8:1", &["| expect = { \"status\" = [200] }"]),
        (format!("{POOL}[pools.\u{201c}a\u{201d}.health]\ntype = \"http\"\n"), "6:1", &["| [pools.a.health]"]),
        (check_of("body = \"\"\"\nabc\n\npath = \"/x\""), "8:8", &["text that begins here", "`\"\"\"` at its end"]),
        (check_of("expect.body.contains = '''\nabc''\npath = \"/x\""), "8:24", &["begins here", "`'''` at its end"]),
        (check_of("healthy_threshold = 3;"), "8:21", &["semicolon", "| 3"]),
        (check_of("path = $PATH"), "8:8", &["\"${PATH}\""]),
        (check_of("path ="), "8:7", &["no value after `=`"]),
        (check_of("expect.json = [{ path = \"$.a\", equals = null }]"), "8:41", &["TOML has no null", "no key"]),
        (upstreams("[{ address = \"10.0.0.1:80\", backup = True }, \"10.0.0.2:80\"]"), "5:50", &["true"]),
        (
            upstreams("[{ address = \"10.0.0.1:80\", backup = \"yes\" }, \"10.0.0.2:80\"]"),
            "5:50",
            &["true or false", "true"],
        ),
        (check_of("expect.status = [200-299]"), "8:18", &["\"200-299\""]),
        (check_of("tls = { ca_file = \"C:\\Users\\ca.pem\" }"), "8:19", &["single quotes", "'C:\\Users\\ca.pem'"]),
        (check_of("tls = { ca_file = \"C:\\new\\ca.pem\" }"), "8:19", &["'C:\\new\\ca.pem'"]),
        (check_of("expect.body = { matches = \"\\d+\" }"), "8:27", &["'\\d+'"]),
    ]);
}

#[test]
fn commas_brackets_and_equals_signs() {
    check(&[
        (check_of("interval = \"10s\","), "8:1", &["without a comma", "interval = \"10s\""]),
        (check_of("interval = \"10s\";"), "8:1", &["semicolon", "interval = \"10s\""]),
        (upstreams("[\"10.0.0.1:80\",, \"10.0.0.2:80\"]"), "5:28", &["one comma too many"]),
        (upstreams("[\"10.0.0.1:80\" \"10.0.0.2:80\"]"), "5:28", &["no comma between two entries"]),
        (
            upstreams("[\n\"10.0.0.1:80\" weight=3,\n\"10.0.0.2:80\"]"),
            "6:1",
            &["| { address = \"10.0.0.1:80\", weight = 3 }"],
        ),
        (upstreams("[\n{ address = \"10.0.0.1:80\",\n\"10.0.0.2:80\"]"), "6:1", &["table", "not closed", "`}`"]),
        (pool("resolve = \"5s\"\nresolve.every = \"5s\""), "7:1", &["already has a value above"]),
        (upstreams("[\"10.0.0.1:80\", \"10.0.0.2:80\"\nbalance = \"random\""), "5:13", &["list", "not closed", "`]`"]),
        (
            format!("{}[pools.a.health]\ntype = \"http\"\n", upstreams("[\n\"10.0.0.1:80\",\n\"10.0.0.2:80\",\n")),
            "5:13",
            &["not closed"],
        ),
        (upstreams("[\"10.0.0.1:80\", \"10.0.0.2:80\""), "5:13", &["not closed"]),
        (check_of("expect = { status = [200]\npath = \"/x\""), "8:10", &["table", "not closed", "`}`"]),
        (format!("{POOL}[pools.a.health\ntype = \"http\"\n"), "6:1", &["header", "[pools.a.health]"]),
        (check_of("path \"/x\""), "8:1", &["no `=`", "path = \"/x\""]),
        (check_of("path\t\"/x\""), "8:1", &["no `=`", "path = \"/x\""]),
        (check_of("path == \"/x\""), "8:1", &["one `=`", "path = \"/x\""]),
        (check_of("path := \"/x\""), "8:1", &["path = \"/x\""]),
        (check_of("path => \"/x\""), "8:1", &["path = \"/x\""]),
        (check_of("path"), "8:1", &["without `=`"]),
        (check_of("path\u{a0}= \"/x\""), "8:5", &["no-break space"]),
        (check_of("// the path"), "8:1", &["comments begin with #", "# the path"]),
        (check_of("; the path"), "8:1", &["# the path"]),
    ]);
    assert_eq!(diagnostics(check_of("expect = { status = [200], }").as_bytes()), [], "TOML 1.1 has such commas");
}

#[test]
fn all_mistakes_of_a_file_are_reported_at_once() {
    let text = "[listeners.web]\nlisten 80\npool: api\n[pools.api]\nupstreams = [\n10.0.0.1:80,\n\"10.0.0.2:80\" weight=3,\n\
        'http://10.0.0.3:80',\n]\nbalance = least_conn\n[pools.api.health]\ninterval = 5\nfall 3\ntimeout = 10s\ntimeout = 5\n\
        expect = 200 OK\n";
    let all = diagnostics(text.as_bytes());
    let lines: Vec<_> = all.iter().filter_map(|diagnostic| diagnostic.line).collect();
    assert_eq!(lines, [2, 3, 6, 7, 8, 10, 12, 13, 14, 15, 16], "{all:#?}");
}

#[test]
fn other_notations() {
    check(&[
        ("listeners:\n  web:\n    address: \"0.0.0.0:80\"\n".to_owned(), "1:1", &["YAML", "[pools.NAME]"]),
        ("{\n  \"pools\": { \"a\": { \"upstreams\": [\"10.0.0.1:80\"] } }\n}\n".to_owned(), "1:1", &["JSON"]),
        ("[{\"a\":1}]\n".to_owned(), "1:1", &["JSON", "[pools.NAME]"]),
        ("{\"pools\":{\"a\":1}}".to_owned(), "1:1", &["JSON"]),
        ("".to_owned(), "-", &["empty", "[pools.NAME] with upstreams"]),
        ("# a\n".to_owned(), "-", &["only comments", "[listeners.NAME] with address"]),
        ("upstream a {\n  server 10.0.0.1:80;\n}\n".to_owned(), "1:1", &["nginx", "upstreams = [\"ip:port\"]"]),
        ("frontend web\n  bind *:80\n  default_backend a\n".to_owned(), "1:1", &["HAProxy"]),
        (":80 {\n  reverse_proxy 10.0.0.1:80\n}\n".to_owned(), "1:1", &["Caddy"]),
        (check_of("path: /x"), "8:1", &["YAML", "path = \"/x\""]),
        (check_of("interval: 10s"), "8:1", &["interval = \"10s\""]),
        (check_of("\"path\": \"/x\","), "8:1", &["JSON", "path = \"/x\""]),
        (check_of("- 10.0.0.1:80"), "8:1", &["YAML", "[ ]"]),
        (pool("health:"), "6:1", &["YAML", "table in brackets"]),
        (
            pool("server 10.0.0.3:80 weight=5;"),
            "6:1",
            &["another program", "{ address = \"10.0.0.3:80\", weight = 5 }"],
        ),
        (pool("server s3 10.0.0.3:80 check"), "6:1", &["upstreams = [\"10.0.0.3:80\"]"]),
        (pool("balance roundrobin"), "6:1", &["balance = \"round_robin\""]),
        (pool("balance leastconn"), "6:1", &["balance = \"least_request\""]),
        (pool("least_conn;"), "6:1", &["balance = \"least_request\""]),
        (pool("option httpchk GET /healthz"), "6:1", &["path = \"/healthz\"", "health"]),
        (pool("bind *:8080"), "6:1", &["address = \"0.0.0.0:8080\""]),
        (pool("listen 80;"), "6:1", &["address = \"0.0.0.0:80\""]),
        (pool("proxy_pass http://a;"), "6:1", &["pool = \"a\""]),
        (pool("backend b"), "6:1", &["[pools.b]"]),
        (pool("server {"), "6:1", &["[listeners.NAME]"]),
        (pool("health_uri /healthz"), "6:1", &["path = \"/healthz\"", "[pools.NAME.health]"]),
        (pool("health_interval 10s"), "6:1", &["interval = \"10s\""]),
        (check_of("rise 2"), "8:1", &["no `=`", "rise = 2"]),
        (check_of("inter 2s"), "8:1", &["interval = \"2s\""]),
    ]);
}

#[test]
fn keys_of_other_programs() {
    let key = |line: &str, key: &'static str| (check_of(line), "8:1", vec!["unknown key", key]);
    let rows = [
        key("inter = \"2s\"", "| interval"),
        key("period = \"2s\"", "| interval"),
        key("retries = 3", "| unhealthy_threshold"),
        key("fails = 3", "| unhealthy_threshold"),
        key("passes = 3", "| healthy_threshold"),
        key("url = \"/x\"", "| path"),
        key("uri = \"/x\"", "| path"),
        key("hostname = \"x\"", "| host"),
        key("fail_timeout = \"10s\"", "`interval`"),
        key("success_codes = [200]", "expect = { status"),
        key("status = 200", "expect = { status"),
        key("insecure_skip_verify = true", "verify = false"),
        key("enabled = true", "every pool is checked"),
        key("balance = \"random\"", "[pools.NAME]"),
        key("typ = \"http\"", "`type` is written already"),
        key("colour = 1", "one of preset, "),
        (pool("servers = []"), "6:1", vec!["unknown key", "upstreams"]),
        (pool("healthcheck = {}"), "6:1", vec!["| health"]),
        (pool("health_check = {}"), "6:1", vec!["| health"]),
        (pool("healthCheck = {}"), "6:1", vec!["| health"]),
        (pool("lb_policy = \"random\""), "6:1", vec!["| balance"]),
        (pool("max_fails = 3"), "6:1", vec!["`passive = { consecutive_failures = 5"]),
        (pool("maxconn = 3"), "6:1", vec!["max_per_upstream = 100"]),
        (pool("timeout = \"3s\""), "6:1", vec!["[pools.NAME.health]"]),
        (pool("interval = \"3s\""), "6:1", vec!["[pools.NAME.health]"]),
        (pool("passive = 5"), "6:11", vec!["consecutive_failures"]),
        (pool("passive = { max_fails = 5 }"), "6:13", vec!["consecutive_failures"]),
        (pool("passive = { failure = [\"500\"] }"), "6:24", vec!["one of"]),
        (pool("passive = { failure = [] }"), "6:23", vec!["nothing would count", "consecutive_failures = 0"]),
        (
            pool("passive = { ejection = { base = \"10m\", max = \"5m\" } }"),
            "6:33",
            vec!["longer than `max`", "at most 300 s"],
        ),
        (pool("passive = { ejection = { max_share = 1.5 } }"), "6:38", vec!["from 0 to 1"]),
        (pool("slow_start = 10"), "6:14", vec!["| \"10s\""]),
        (pool("sticky = { name = \"a\" }"), "6:12", vec!["unknown key `name`", "cookie"]),
        (pool("sticky_cookie = \"a\""), "6:1", vec!["sticky = { cookie = \"rm_affinity\" }"]),
        (pool("on_unhealthy = \"kill\""), "6:16", vec!["\"keep\", \"close\""]),
        (pool("retries = 2"), "6:1", vec!["retry = { retries = 2 }"]),
        (pool("keepalive = 32"), "6:1", vec!["idle_per_upstream"]),
        (pool("proxy_read_timeout = \"3s\""), "6:1", vec!["first_byte"]),
        (pool("retry = 2"), "6:9", vec!["retries"]),
        (pool("timeouts = { connect = 2 }"), "6:24", vec!["| \"2s\""]),
        (pool("timeouts = { read = \"2s\" }"), "6:14", vec!["first_byte"]),
        (pool("retry = { on = [\"conn-failure\"] }"), "6:17", vec!["| \"connect\""]),
        (pool("retry = { on = [\"500\"] }"), "6:17", vec!["one of"]),
        (pool("retry = { retries = 11 }"), "6:21", vec!["a whole number from 0 to 10"]),
        (pool("tls = {}"), "6:1", vec!["not supported yet", "plain HTTP"]),
        (check_of("timeouts = \"3s\""), "8:1", vec!["| timeout"]),
        (route("rule = \"Host(`x`)\""), "7:1", vec!["host = \"a\""]),
        (route("location = \"/x\""), "7:1", vec!["| path"]),
        (route("methods = [\"GET\"]"), "7:1", vec!["| method"]),
        (route("priority = 1"), "7:1", vec!["most specific"]),
        (format!("bind = \"0.0.0.0:80\"\n{POOL}"), "1:1", vec!["| listeners"]),
        (POOL.replace("pool =", "backend ="), "3:1", vec!["| pool"]),
        (POOL.replace("address =", "listen ="), "2:1", vec!["| address"]),
        (upstreams("[{ addr = \"10.0.0.1:80\" }, \"10.0.0.2:80\"]"), "5:16", vec!["| address"]),
        (upstreams("[{ url = \"10.0.0.1:80\" }, \"10.0.0.2:80\"]"), "5:16", vec!["| address"]),
        (
            upstreams("[{ address = \"10.0.0.1:80\", down = true }, \"10.0.0.2:80\"]"),
            "5:41",
            vec!["admin = \"disabled\""],
        ),
        (POOL.replace("listeners.web", "frontend.web"), "1:2", vec!["| listeners"]),
        (format!("{POOL}[http.services.s]\nx = 1\n"), "6:2", vec!["[pools.NAME]"]),
        (format!("{POOL}[global]\nthreads = 1\n"), "6:2", vec!["| runtime"]),
        (format!("{POOL}[runtime]\nnbthread = 4\n"), "7:1", vec!["| threads"]),
        (format!("{POOL}[admin]\nlisten = \"127.0.0.1:1\"\n"), "7:1", vec!["| address"]),
    ];
    check(&rows.iter().map(|(text, place, words)| (text.clone(), *place, &words[..])).collect::<Vec<_>>());
}

#[test]
fn words_in_place_of_ours() {
    let kind = |word: &str| format!("{POOL}[pools.a.health]\ntype = \"{word}\"\n");
    check(&[
        (pool("balance = \"leastconn\""), "6:11", &["\"least_request\""]),
        (pool("balance = \"least_conn\""), "6:11", &["| \"least_request\""]),
        (pool("balance = \"roundrobin\""), "6:11", &["| \"round_robin\""]),
        (pool("balance = \"ip_hash\""), "6:11", &["| \"hash\""]),
        (pool("balance = \"uri\""), "6:11", &["key = \"path\""]),
        (pool("balance = \"least_time\""), "6:11", &["| \"peak_ewma\""]),
        (pool("balance = { key = \"path\" }"), "6:11", &["`type` is missing"]),
        (pool("balance = { type = \"random\", key = \"path\" }"), "6:36", &["\"hash\" and \"maglev\"", "only `type`"]),
        (pool("balance = { type = \"hash\", key = \"ip\" }"), "6:34", &["is not known", "client_ip"]),
        (pool("balance = { type = \"hash\", bounded_load = 0.5 }"), "6:43", &["1 to 100"]),
        (pool("balance = { type = \"hash\", hash_balance = 1 }"), "6:28", &["unknown key"]),
        (pool("balance = \"peakewma\""), "6:11", &["not known"]),
        (kind("https"), "7:8", &["`type = \"http\"`, and `scheme = \"https\"`"]),
        (kind("wss"), "7:8", &["`type = \"websocket\"`, and `scheme"]),
        (kind("ws"), "7:8", &["| \"websocket\""]),
        (kind("HTTP"), "7:8", &["| \"http\""]),
        (kind("httpchk"), "7:8", &["| \"http\""]),
        (kind("exec"), "7:8", &["commands are not run"]),
        (check_of("jitter = \"10%\""), "8:10", &["is a string", "| 0.1"]),
        (pool("min_healthy = \"50%\""), "6:15", &["| 0.5"]),
        (check_of("rise = \"2\""), "8:8", &["| 2"]),
        (check_of("interval = \"10\""), "8:12", &["has no unit", "\"10s\""]),
        (check_of("interval = 10"), "8:12", &["is a number", "\"10s\""]),
        (check_of("interval = 0.5"), "8:12", &["\"0.5s\""]),
        (check_of("expect.max_duration = 800"), "8:23", &["is a number", "| \"800ms\""]),
        (check_of("interval = 800"), "8:12", &["| \"800s\""]),
        (check_of("timeout = 20"), "8:11", &["is a number", "such as \"5s\""]),
        (check_of("interval = \"30s\"\ntimeout = 20"), "9:11", &["| \"20s\""]),
        (check_of("expect.json = [{ path = \"$.a\", min = nan }]"), "8:38", &["not a JSON number", "finite number"]),
        (check_of("expect.json = [{ path = \"$.a\", max = \"5\" }]"), "8:38", &["a string", "number without quotes"]),
        (pool("health = true"), "6:10", &["a table", "| { type = \"http\", path = \"/\" }"]),
        (check_of("timeout = 2000"), "8:11", &["\"2000ms\""]),
        (check_of("interval = \"10S\""), "8:12", &["capitals", "\"10s\""]),
        (check_of("path = \"http://a/x\""), "8:8", &["\"/x\""]),
        (POOL.replace("\"a\"", "5"), "3:8", &["is a number", "in quotes"]),
        (check_of("expect.status = \"500\""), "8:17", &["| [500]"]),
        (check_of("expect.status = \"2xx\""), "8:17", &["| [\"200-299\"]"]),
        (check_of("expect.status = [\"2xx\"]"), "8:18", &["| \"200-299\""]),
        (check_of("expect.status = 700"), "8:17", &["is not a list"]),
        (check_of("expect.body = \"OK\""), "8:15", &["| { contains = \"OK\" }"]),
        (check_of("expect = 200"), "8:10", &["| { status = [200] }"]),
        (check_of("expect = \"200\""), "8:10", &["| { status = [200] }"]),
        (
            check_of("expect.json = { path = \"$.a\", equals = \"b\" }"),
            "8:15",
            &["| [{ path = \"$.a\", equals = \"b\" }]"],
        ),
        (route("host = \"http://a.de:80/\""), "7:8", &["| \"a.de\""]),
    ]);
}

#[test]
fn values_in_the_notation_of_json_or_in_other_brackets() {
    check(&[
        (pool("health = {\"type\": \"http\"}"), "6:10", &["not `:`", "| { type = \"http\" }"]),
        (pool("health = {type: \"http\"}"), "6:10", &["not `:`", "| { type = \"http\" }"]),
        (check_of("headers={\"X-A\": \"b\"}"), "8:9", &["| { X-A = \"b\" }"]),
        (check_of("headers = { X-A: foo }"), "8:11", &["| { X-A = \"foo\" }"]),
        (check_of("headers = { \"X-A\": \"b\" },"), "8:11", &["| { X-A = \"b\" }"]),
        (upstreams("[{\"address\":\"a:1\"}, \"b:1\"]"), "5:13", &["| [{ address = \"a:1\" }, \"b:1\"]"]),
        (upstreams("(\"10.0.0.1:1\", \"10.0.0.2:1\")"), "5:13", &["| [\"10.0.0.1:1\", \"10.0.0.2:1\"]"]),
        (upstreams("{\"10.0.0.1:1\", \"10.0.0.2:1\"}"), "5:13", &["| [\"10.0.0.1:1\", \"10.0.0.2:1\"]"]),
        (format!("{POOL}[pools.a.health]]\ntype = \"tcp\"\n"), "6:1", &["one bracket", "| [pools.a.health]"]),
        (format!("{POOL}[routes]]\npool = \"a\"\n"), "6:1", &["| [[routes]]"]),
    ]);
    // Below these, the pool of one upstream draws a warning of its own.
    for (list, words) in [
        ("(\"10.0.0.1:1\")", "a list in parentheses | a list in [ ] | [\"10.0.0.1:1\"]"),
        ("{\"10.0.0.1:1\"}", "a list in braces, which hold keys and values | a list in [ ] | [\"10.0.0.1:1\"]"),
        ("10.0.0.1:3001", "not a value; texts, addresses and durations are written in quotes | [\"10.0.0.1:3001\"]"),
        ("api:3001", "not a value; texts, addresses and durations are written in quotes | [\"api:3001\"]"),
    ] {
        let (place, shown, _) = first(upstreams(list).as_bytes());
        assert_eq!((place.as_str(), shown.as_str()), ("5:13", words));
    }
}

#[test]
fn rules_of_text_protocols_are_written_in_steps() {
    let tcp = |line: &str| format!("{POOL}[pools.a.health]\ntype = \"tcp\"\n{line}\n");
    check(&[
        (tcp("expect = { matches = \"^PONG\" }"), "8:12", &["`steps = [{ matches = \"^PONG\" }]`"]),
        (tcp("expect = { regex = \"^PONG\" }"), "8:12", &["`steps = [{ matches = \"^PONG\" }]`"]),
        (
            tcp("expect = { equals = \"+PONG\" }"),
            "8:12",
            &["`expect = { contains = \"+PONG\" }`, or `steps = [{ matches = \"^…$\" }]`"],
        ),
        (tcp("expect = { not_contains = \"-ERR\" }"), "8:12", &["[{ expect = \"…\", fail_on = [\"-ERR\"] }]"]),
        (
            tcp("send = \"PING\"\nexpect = { matches = \"^PONG\" }"),
            "9:12",
            &["[{ send = \"…\" }, { matches = \"^PONG\" }]", "in place of `send` and `expect`"],
        ),
        (tcp("matches = \"^PONG\""), "8:1", &["`steps = [{ matches = \"^PONG\" }]`"]),
        (tcp("send_hex = \"00ff\""), "8:1", &["`steps = [{ send_hex = \"00ff\" }]`"]),
        (check_of("fail_on = [\"-ERR\"]"), "8:1", &["fail_on = [\"-ERR\"] }]`"]),
        (check_of("expect = { matches = \"ok\" }"), "8:12", &["`body = { matches = \"ok\" }`"]),
        (tcp("expect = \"PONG\""), "8:10", &["is a string", "| { contains = \"PONG\" }"]),
        (check_of("expect = \"PONG\""), "8:10", &["| { body = { contains = \"PONG\" } }"]),
        (tcp("steps = [\"PING\"]"), "8:10", &["a table: { send = \"PING\\r\\n\" } or { expect = \"PONG\" }"]),
        (check_of("basic_auth = \"a:b\""), "8:14", &["a table: { user = \"…\", password = { file"]),
        (check_of("expect.json = { \"$.a\" = 1 }"), "8:15", &["[{ path = \"$.a\", equals = \"ok\" }]"]),
        (check_of("expect.header = [\"X\"]"), "8:17", &["such as { X-App = \"a\", X-Id = { present = true } }"]),
        (check_of("expect.json = [{ path = \".status\", equals = 1 }]"), "8:25", &["| \"$.status\""]),
        (check_of("expect.json = [{ path = \"$.a\", contains = \"5\" }]"), "8:32", &["`matches`", "`equals` or `in`"]),
        (check_of("expect.json = [{ path = \"$.a\", regex = \"5\" }]"), "8:32", &["| matches"]),
        (check_of("success_codes = \"200-399\""), "8:1", &["`expect = { status = [\"200-399\"] }`"]),
        (check_of("status = 204"), "8:1", &["`expect = { status = [204] }`"]),
        (check_of("codes = [200, 204]"), "8:1", &["`expect = { status = [200, 204] }`"]),
        (
            upstreams("[\"10.0.0.1:80 weight=0\", \"10.0.0.2:80\"]"),
            "5:14",
            &["a weight out of range", "from 1 to 1000: `{ address = \"10.0.0.1:80\", weight = 1 }`", "\"disabled\""],
        ),
        (format!("{POOL}[admin]\nupstream_histograms = 1\n"), "7:23", &["true or false"]),
    ]);
}

#[test]
fn mistakes_below_a_mistyped_table_are_reported_too() {
    let text = "[listener.web]\nadress = \"127.0.0.1:80\"\npool = \"ap\"\n[upstream.ap]\nservers = [\"10.0.0.1:80\"]\n";
    let lines: Vec<_> = diagnostics(text.as_bytes()).iter().filter_map(|diagnostic| diagnostic.line).collect();
    assert_eq!(lines, [1, 2, 4, 5]);
}

#[test]
fn headers_of_tables() {
    check(&[
        (POOL.replace("listeners.web", "listener.web"), "1:2", &["unknown key", "| listeners"]),
        (POOL.replace("[pools.a]", "[pool.a]"), "4:2", &["| pools"]),
        (format!("{POOL}[pool.b]\nupstreams = [\"10.0.0.1:80\"]\n"), "6:2", &["| pools"]),
        (format!("{POOL}[[route]]\npool = \"a\"\n"), "6:3", &["| routes"]),
        (format!("{POOL}[routes]\npool = \"a\"\n"), "6:1", &["[[routes]], in double brackets"]),
        (format!("{POOL}[routes.x]\npool = \"a\"\n"), "6:2", &["[[routes]], in double brackets"]),
        (POOL.replace("[pools.a]", "[[pools.a]]"), "4:1", &["[pools.a], in single brackets"]),
        (POOL.replace("[pools.a]", "[[pools]]\nname = \"a\""), "4:1", &["without `name`", "| [pools.a]"]),
        (POOL.replace("[pools.a]", "[[pools]]\nname = \"my pool\""), "4:1", &["such as [pools.\"my pool\"]"]),
        (POOL.replace("[pools.a]", "[[pools]]"), "4:1", &["such as [pools.NAME]"]),
        (POOL.replace("[listeners.web]", "[[listeners]]\nname = \"web\""), "1:1", &["| [listeners.web]"]),
        (format!("{POOL}[pools.a]\nbalance = \"random\"\n"), "6:8", &["`a` is written twice: first in line 4"]),
        (check_of("interval = \"5s\"\ntype = \"tcp\""), "9:1", &["`type` is written twice: first in line 7"]),
        (POOL.replace("[pools.a]", "[pools]"), "5:13", &["a header with a name above it: [pools.NAME]"]),
    ]);
}

#[test]
fn bytes_that_are_not_text() {
    let latin = [POOL.as_bytes(), b"# caf\xe9\n"].concat();
    let (place, shown, _) = first(&latin);
    assert_eq!((place.as_str(), shown.contains("0xE9")), ("6:6", true), "{shown}");
    for bom in ["", "\u{feff}"] {
        let utf16: Vec<u8> = format!("{bom}{POOL}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let (place, shown, _) = first(&utf16);
        assert_eq!((place.as_str(), shown.contains("UTF-16")), ("-", true), "{shown}");
    }
}

#[test]
fn what_leads_nowhere_draws_a_warning_with_its_place() {
    let unused = "[pools.b]\nupstreams = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n";
    let fallback = "when_no_healthy = { pool = \"b\" }\n";
    check(&[
        (
            POOL.replace("pool = \"a\"", "# none")
                + "[[routes]]\nlistener = \"web\"\npool = \"a\"\n"
                + "[listeners.x]\naddress = \"127.0.0.1:1\"\n",
            "9:12",
            &["404"],
        ),
        (format!("{POOL}{unused}"), "6:8", &["this pool gets no requests", "when_no_healthy"]),
        (route("path = \"/api/*\""), "7:8", &["taken literally", "| \"/api\""]),
        (route("path_exact = \"/api/*\""), "7:14", &["taken literally", "path = \"/api\""]),
        (route("path = \"/users/{id}\""), "7:8", &["taken literally"]),
        (check_of("path = \"/health*\""), "8:8", &["is sent as it is"]),
    ]);
    let default = format!("{}{unused}", POOL.replace("pool = \"a\"", "pool = \"b\""));
    let routed = |conditions: &str, pool: &str| format!("[[routes]]\n{conditions}pool = \"{pool}\"\n");
    let (all, get, post) = (routed("", "a"), routed("method = [\"GET\"]\n", "a"), routed("method = [\"POST\"]\n", "a"));
    let both = routed("method = [\"GET\", \"POST\"]\n", "b");
    check(&[
        (
            format!("{default}{all}"),
            "6:8",
            &["this pool gets no requests", "routes[0] takes every request of listeners.web"],
        ),
        (format!("{default}{}", routed("path = \"/\"\nlistener = \"web\"\n", "a")), "6:8", &["routes[0] takes every"]),
        (format!("{default}{all}{}", routed("path = \"/x\"\n", "b")), "3:8", &["never used", "routes[0] takes every"]),
        (
            format!("{POOL}{unused}{get}{post}{both}"),
            "6:8",
            &["no requests", "routes[0] with routes[1] takes", "routes[2]"],
        ),
        (format!("{default}{get}{post}{both}"), "14:1", &["never used", "routes[0] with routes[1]", "routes[2]"]),
    ]);
    for led in [
        format!("{default}{get}{post}"),
        format!("{default}{}", routed("host = \"*.de\"\n", "a")),
        format!("{default}{}", routed("path_exact = \"/\"\n", "a")),
        format!("{default}{}{all}", routed("host = \"b.de\"\n", "b")).replacen("pool = \"b\"", "pool = \"a\"", 1),
        format!("{POOL}{all}"),
        format!("{POOL}{fallback}{unused}"),
        format!("{POOL}{unused}[[routes]]\npath = \"/x\"\npool = \"b\"\n"),
        POOL.replace("pool = \"a\"\n", "") + "[[routes]]\npath = \"/x\"\npool = \"a\"\n",
    ] {
        assert_eq!(diagnostics(led.as_bytes()), [], "{led}");
    }
    // A pool is unused too if only an unused pool refers to it.
    let all = diagnostics(
        format!("{POOL}[pools.c]\nupstreams = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n{fallback}{unused}").as_bytes(),
    );
    assert_eq!(all.iter().map(|d| d.line).collect::<Vec<_>>(), [Some(6), Some(9)]);
    assert!(all.iter().all(|d| d.severity == Severity::Warning));
}

#[test]
fn without_a_file_the_program_reports_where_it_looked_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_roundsman"));
        let output = command.args(arguments).current_dir(dir.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let here = dir.path().canonicalize().unwrap().join("roundsman.toml").display().to_string();
    for arguments in [&["check"][..], &["run"], &["probe", "a", "127.0.0.1:1"], &["check", "--format", "json"]] {
        let (code, out, err) = run(arguments);
        assert_eq!(code, Some(78), "{arguments:?}: {err}");
        for part in [&*here, "/etc/roundsman/roundsman.toml", "--config FILE", "run --listen 127.0.0.1:8080 --to "] {
            assert!(format!("{out}{err}").contains(part), "{arguments:?}: {out}{err}");
        }
    }
    std::fs::write(dir.path().join("app.toml"), POOL).unwrap();
    let there = dir.path().canonicalize().unwrap();
    let example = "run --listen 127.0.0.1:8080 --to ";
    for (file, near) in [
        ("nofile.toml", "Did you mean app.toml?"),
        ("ap.toml", "Did you mean app.toml?"),
        ("./App.toml", "Did you mean ./app.toml?"),
        ("sub/app.toml", ""),
        ("app.toml/x", ""),
    ] {
        let looked_for = there.join(file).display().to_string();
        for command in [&["check"][..], &["run"], &["run", "--log-format", "human"], &["check", "--format", "json"]] {
            let (code, out, err) = run(&[command, &[file]].concat());
            assert_eq!(code, Some(78), "{command:?}: {err}");
            let said = format!("{out}{err}");
            for part in [&looked_for, near, example] {
                assert!(said.contains(part), "{command:?} {file}: {said}");
            }
            assert_eq!(said.contains("Did you mean"), !near.is_empty(), "{said}");
        }
        for command in [&["status"][..], &["probe", "a", "127.0.0.1:1"]] {
            let (code, out, err) = run(&[command, &["--config", file]].concat());
            assert!(code == Some(78) && format!("{out}{err}").contains(&looked_for), "{command:?}: {err}");
        }
    }
    std::fs::write(dir.path().join("other.toml"), POOL).unwrap();
    assert!(!run(&["check", "nofile.toml"]).2.contains("Did you mean"), "two files, and neither is near");
    for (arguments, help) in [
        (["run", "--listen", ":8080", "--to", "10.0.0.1:80"], "did you mean `0.0.0.0:8080`?"),
        (["run", "--listen", "127.0.0.1:1", "--to", "10.0.0.1:80,http://10.0.0.2:80/"], "did you mean `10.0.0.2:80`?"),
        (["run", "--listen", "127.0.0.1:1", "--to", "2001:db8::1:80"], "did you mean `[2001:db8::1]:80`?"),
        (["run", "--listen", "127.0.0.1:1", "--to", "https://10.0.0.1:443"], "requests go in plain HTTP"),
    ] {
        let (code, _, err) = run(&arguments);
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains(help), "{err}");
    }
    let (code, _, err) = run(&["events", "--since", "1x"]);
    assert!(code == Some(2) && err.contains("unknown unit \"x\"; expected a number with a unit"), "{err}");
}
