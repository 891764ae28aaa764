//! Addresses that are almost right, in the file and on the command line: both say the same.

use roundsman::config::{Severity, listen_argument, upstream_argument};

use super::messages::{POOL, check, diagnostics, upstreams};

/// A text; what is said of it as an upstream, and as the address of a listener. A part that begins with `| ` is the
/// suggestion. Nothing: it is right.
const ROWS: &[(&str, &[&str], &[&str])] = &[
    ("[fe80::1%eth0]:8081", &["the zone %eth0", "needs no zone"], &["the zone %eth0", "needs no zone"]),
    ("fe80::1%eth0:8081", &["the zone %eth0"], &["the zone %eth0"]),
    ("2001:db8::1:8081", &["in brackets", "| [2001:db8::1]:8081"], &["in brackets", "| [2001:db8::1]:8081"]),
    ("2001:db8::1", &["in brackets", "[2001:db8::1]:PORT"], &["in brackets", "[2001:db8::1]:PORT"]),
    ("[2001:db8::1]", &["has no port", "[2001:db8::1]:PORT"], &["has no port", "[2001:db8::1]:PORT"]),
    ("10.0.0.1", &["has no port", "10.0.0.1:PORT"], &["has no port", "10.0.0.1:PORT"]),
    ("api", &["has no port", "api:PORT"], &["has no port"]),
    ("https://10.0.0.1:443", &["is a URL", "[pools.NAME.tls]", "plain HTTP"], &["is a URL", "TLS towards clients"]),
    ("HTTPS://a:443", &["is a URL", "[pools.NAME.tls]", "plain HTTP"], &["is a URL", "TLS towards clients"]),
    ("Http://10.0.0.1", &["is a URL", "without a scheme", "| 10.0.0.1:80"], &["is a URL", "| 10.0.0.1:80"]),
    ("http://10.0.0.1:80/", &["| 10.0.0.1:80"], &["| 10.0.0.1:80"]),
    ("http://10.0.0.1:80/api", &["without the path"], &["without the path"]),
    ("HTTP://Api:80", &["| api:80"], &["is a URL", "without a scheme"]),
    ("/run/a.sock", &["| unix:/run/a.sock"], &["| unix:/run/a.sock"]),
    ("unix:a.sock", &["must be absolute"], &["must be absolute"]),
    (":3001", &["is not an address", "| 127.0.0.1:3001"], &["is not an address", "| 0.0.0.0:3001"]),
    ("3001", &["| 127.0.0.1:3001"], &["| 0.0.0.0:3001"]),
    ("*:3001", &["is not an address", "| 127.0.0.1:3001"], &["is not an address", "| 0.0.0.0:3001"]),
    ("0.0.0.0:3001", &["unspecified", "| 127.0.0.1:3001"], &[]),
    ("[::]:3001", &["unspecified", "| [::1]:3001"], &[]),
    ("localhost:3001", &[], &["a name cannot be listened on", "| 127.0.0.1:3001"]),
    ("api:3001", &[], &["a name cannot be listened on"]),
    ("10.0.0.1:80 weight=5", &["more than an address"], &["is not an address"]),
    ("10.0.0.1:80 fail_timeout=10s", &["more than an address", "| 10.0.0.1:80"], &["is not an address"]),
    ("$BACKEND:3001", &["is not an address", "variable"], &["is not an address", "variable"]),
    ("10.0.0.1:99999", &["a port is 1 to 65535"], &["a port is 1 to 65535"]),
    ("", &["is not an address"], &["is not an address"]),
];

/// What is said of the only mistake of a file.
fn of_file(text: &str) -> String {
    let all = diagnostics(text.as_bytes());
    let errors: Vec<_> = all.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).collect();
    let [error] = errors[..] else { return format!("{errors:?}") };
    let suggestion = error.suggestion.as_ref().map(|text| format!("| {}", text.trim_matches('"')));
    [Some(error.message.clone()), error.expected.clone(), suggestion]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_file_and_the_command_line_say_the_same() {
    let mut wrong = Vec::new();
    let mut compare = |text: &str, words: &[&str], file: String, argument: Result<_, String>| {
        let argument = argument.err().unwrap_or_default().replace("did you mean `", "| ");
        for said in [file, argument] {
            let missing = words.iter().any(|word| !said.contains(word));
            let has_more = said.contains("| ") && words.iter().all(|word| !word.starts_with("| "));
            if missing || words.is_empty() != matches!(&*said, "" | "[]") || has_more && !text.contains(' ') {
                wrong.push(format!("{text:?}: {said:?} without {words:?}"));
            }
        }
    };
    for (text, as_upstream, as_listener) in ROWS {
        let file = of_file(&upstreams(&format!("[{text:?}, \"10.0.0.2:80\"]")));
        compare(text, as_upstream, file, upstream_argument(text).map(drop));
        let file = of_file(&POOL.replace("127.0.0.1:8080", text));
        compare(text, as_listener, file, listen_argument(text).map(drop));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn several_addresses_in_one_text_become_a_list() {
    let first = |address: &str| upstreams(&format!("[\"{address}\", \"10.0.0.2:80\"]"));
    check(&[
        (
            first("10.0.0.1:80 weight=5"),
            "5:14",
            &["more than an address", "| { address = \"10.0.0.1:80\", weight = 5 }"],
        ),
        (first("a:1 max_fails=3"), "5:14", &["for `max_fails`: [pools.NAME.passive]", "| \"a:1\""]),
        (first("10.0.0.1:80, 10.0.0.3:80"), "5:14", &["| \"10.0.0.1:80\", \"10.0.0.3:80\""]),
        (first("a:1 b:2"), "5:14", &["| \"a:1\", \"b:2\""]),
        (upstreams("\"10.0.0.1:80,10.0.0.2:80\""), "5:13", &["list in [ ]", "| [\"10.0.0.1:80\", \"10.0.0.2:80\"]"]),
        (upstreams("\"a:1 b:2\""), "5:13", &["list in [ ]", "| [\"a:1\", \"b:2\"]"]),
        (upstreams("\"10.0.0.1:80\""), "5:13", &["| [\"10.0.0.1:80\"]"]),
        (upstreams("{ address = \"10.0.0.1:80\" }"), "5:13", &["| [{ address = \"10.0.0.1:80\" }]"]),
        (upstreams("[8081, \"10.0.0.2:80\"]"), "5:14", &["is a number", "an address", "| \"127.0.0.1:8081\""]),
        (first("$BACKEND:80"), "5:14", &["`${BACKEND}`"]),
        (first("$(BACKEND):80"), "5:14", &["`${BACKEND}`"]),
        // The suggestion would be the listener itself.
        (first(":8080"), "5:14", &["is not an address"]),
    ]);
    for (text, meant) in [("a:1 b:2", "`a:1,b:2`"), ("a:1;", "`a:1`"), ("a:1 weight=5", "`a:1`")] {
        let said = upstream_argument(text).unwrap_err();
        assert!(said.contains("more than an address") && said.contains(&format!("did you mean {meant}?")), "{said}");
    }
}
