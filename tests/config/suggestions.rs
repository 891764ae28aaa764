//! Every suggestion about a place of a file holds there: written in place of what is marked, it is no mistake, whatever
//! the rules between keys are. Tried for all bad files, all rows of `messages`, and lines in every table.

use roundsman::config::{Diagnostic, Severity};

use super::files;
use super::messages::{POOL, check_of, diagnostics, pool, route};

/// How many suggestions `text` gets, and which of them are refused when followed alone.
pub fn refused_suggestions(text: &str) -> (usize, Vec<String>) {
    let (mut number, mut wrong) = (0, Vec::new());
    for diagnostic in diagnostics(text.as_bytes()) {
        let (Some(suggestion), Some(span)) = (&diagnostic.suggestion, &diagnostic.span) else { continue };
        number += 1;
        let followed = format!("{}{suggestion}{}", &text[..span.start], &text[span.end..]);
        let place = span.start..span.start + suggestion.len();
        let is_there = |other: &&Diagnostic| {
            other.severity == Severity::Error && other.span.as_ref().is_some_and(|span| place.contains(&span.start))
        };
        if let Some(refused) = diagnostics(followed.as_bytes()).iter().find(is_there) {
            wrong.push(format!("{}\n  {suggestion}\n  {}", diagnostic.headline(), refused.headline()));
        }
    }
    (number, wrong)
}

#[test]
fn whatever_is_suggested_is_accepted_in_its_place() {
    let (mut number, mut wrong) = (0, Vec::new());
    for path in files("tests/config/invalid").into_iter().chain(files("tests/config/valid")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let (followed, refused) = refused_suggestions(text.trim_start_matches('\u{feff}'));
        number += followed;
        wrong.extend(refused);
    }
    for line in OTHERS {
        for text in [pool(line), check_of(line), route(line), format!("{line}\n{POOL}")] {
            let (followed, refused) = refused_suggestions(&text);
            number += followed;
            wrong.extend(refused);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(number > 150, "{number} suggestions");
}

/// Lines that people write, each tried in every table.
const OTHERS: &[&str] = &[
    "intervall = \"5s\"",
    "inter = \"5s\"",
    "timeouts = \"5s\"",
    "timeout = 5",
    "timeout = 20",
    "fast_interval = 800",
    "unhealthy_interval = 5",
    "expect.max_duration = 800",
    "expect.max_duration = \"5S\"",
    "port_offset = \"-80000\"",
    "require = \"2\"",
    "upstreams = \"127.0.0.1:8080\"",
    "upstreams = [8080]",
    "upstreams = \":8080\"",
    "min_healthy = \"5\"",
    "address = 9900",
    "pool = a",
    "pool = b",
    "[pool.b]",
    "[[pools]]\nname = \"b\"",
    "[[listeners]]\nname = \"web\"",
    "listeners.x = { address = 8080 }",
    "listeners.x = { address = \":8080\" }",
    "interval = 100000000",
    "interval = 10s",
    "interval 10s",
    "rise 2",
    "rise = \"2\"",
    "rise = \"2000\"",
    "passes = 3\nrise = 2",
    "jitter = \"10%\"",
    "jitter = \"90%\"",
    "jitter = 10%",
    "min_healthy = \"50%\"",
    "type = \"https\"",
    "type = \"web\"",
    "type = http",
    "balance = \"leastconn\"",
    "balance = \"peakewma\"",
    "balance = \"mglev\"",
    "balance leastconn",
    "servers = [\"10.0.0.1:80\"]",
    "server 10.0.0.1:80 weight=5;",
    "host = \"http://a.de:80\"",
    "host: a.de",
    "path: /x",
    "path = \"x y\"",
    "path = \"http://a/x\"",
    "path = \"~ ^/x\"",
    "method = \"get\"",
    "method = [\"get\"]",
    "methods = [\"GET\"]",
    "expect = \"ok\"",
    "expect = 200",
    "expect = 700",
    "expect.status = \"2xx\"",
    "expect.status = \"9xx\"",
    "expect.status = [\"2xx\"]",
    "expect.body = \"ok\"",
    "expect.body = \"\"",
    "expect.json = { path = \"status\" }",
    "expect.json = [{ path = \"Faulty CAPPs\", equals = 1 }]",
    "health = \"/x\"",
    "health = \"http\"",
    "healthcheck = \"/x\"",
    "when_no_healthy = \"failopen\"",
    "when_no_healthy = \"other\"",
    "require = \"alll\"",
    "preset = \"kraken\"",
    "upstream = \"10.0.0.3:80\"",
    "pool.b = {}",
    "admin = \"127.0.0.1:1\"",
    "admin = \"0.0.0.0\"",
    "tls = true",
    "tls = \"C:\\new\"",
    "scheme = \"HTTPS\"",
    "version = \"2\"",
    "port = \"80\"",
    "port = \"80000\"",
    "// x",
    "x = \u{201c}y\u{201d}",
    "path = \u{201c}y\u{201d}",
    "path = \"C:\\q\"",
    "path == \"/x\"",
    "path = \"/x\",",
    "backup = True",
];
