//! A check made from arguments does what they say, and the printed lines are what was tried, without credentials.

mod keys;

use clap::Parser;

use super::*;
use crate::cli::args::{Cli, Command};
use crate::cli::probe::ProbeArgs;
use crate::model::policy::{HeaderText, ProbeKind, ProbeSpec};

fn args(words: &[&str]) -> ProbeArgs {
    let words = ["roundsman", "probe", "--url"].iter().chain(words);
    match Cli::try_parse_from(words).expect("a good command line").command {
        Command::Probe(args) => args,
        _ => unreachable!("it is `probe`"),
    }
}

fn plan(words: &[&str]) -> Result<Plan, String> {
    let args = args(words);
    Plan::new(args.trial.url.as_deref().expect("it is given"), &args.trial, &args.steps)
}

fn written(words: &[&str]) -> Written {
    plan(words).expect("it can be taken apart").write()
}

fn spec(written: &Written) -> ProbeSpec {
    let config = written.load().unwrap_or_else(|error| panic!("{error}\n{}", written.toml));
    (*config.pools[0].checks[0].spec).clone()
}

#[test]
fn the_lines_are_those_that_a_user_would_write() {
    let table: [(&[&str], &str); 8] = [
        (
            &["tcp://127.0.0.1:8080"],
            "[pools.app]\nupstreams = [\"127.0.0.1:8080\"]\n\n[pools.app.health]\ntype = \"tcp\"\n",
        ),
        (
            &[
                "http://127.0.0.1:8080/health?a=${b}",
                "--method",
                "HEAD",
                "--expect-status",
                "200-299, 404",
                "--timeout",
                "30s",
            ],
            "[pools.app]\nupstreams = [\"127.0.0.1:8080\"]\n\n[pools.app.health]\ntype = \"http\"\npath = \"/health?a=$${b}\"\n\
             method = \"HEAD\"\ninterval = \"30s\"\ntimeout = \"30s\"\n\n[pools.app.health.expect]\n\
             status = [\"200-299\", \"404\"]\n",
        ),
        (
            &[
                "https://api.internal",
                "--http2",
                "--insecure",
                "--expect-header",
                "X-App: portus",
                "--expect-header",
                "X.Up",
                "--expect-json",
                "$.status=healthy",
                "--expect-json",
                "$.n!=3",
                "--expect-json",
                "$.a[?(@.b==\"x\")]=true",
                "--expect-json",
                "$['a b']",
                "--expect-status",
                "any",
            ],
            "[pools.app]\nupstreams = [\"api.internal:443\"]\n\n[pools.app.health]\ntype = \"http\"\npath = \"/\"\n\
             version = \"h2\"\nscheme = \"https\"\ntls = { verify = false }\n\n[pools.app.health.expect]\nstatus = \"any\"\n\
             header = { X-App = \"portus\", \"X.Up\" = { present = true } }\n\
             json = [{ path = \"$.status\", equals = \"healthy\" }, { path = \"$.n\", not_equals = 3 }, \
             { path = '$.a[?(@.b==\"x\")]', equals = true }, { path = \"$['a b']\", exists = true }]\n",
        ),
        (
            &["grpc://localhost:50051/my.Service", "--header", "X-A: b"],
            "[pools.app]\nupstreams = [\"localhost:50051\"]\n\n[pools.app.health]\ntype = \"grpc\"\n\
             service = \"my.Service\"\nheaders = { X-A = \"b\" }\n",
        ),
        (
            &[
                "tcp://127.0.0.1:25",
                "--expect",
                "220",
                "--fail-on=421 ",
                "--fail-on",
                "-ERR",
                "--send=EHLO a\\r\\n",
                "--matches",
                "(?m)^250 ",
                "--starttls",
                "--send",
                "QUIT\r\n",
                "--expect",
                "221",
            ],
            "[pools.app]\nupstreams = [\"127.0.0.1:25\"]\n\n[pools.app.health]\ntype = \"tcp\"\nsteps = [\n  \
             { expect = \"220\", fail_on = [\"421 \", \"-ERR\"] },\n  { send = \"EHLO a\\r\\n\" },\n  \
             { matches = \"(?m)^250 \" },\n  { starttls = true },\n  { send = \"QUIT\\r\\n\" },\n  \
             { expect = \"221\" },\n]\ntls = {}\n",
        ),
        (
            &["tls://127.0.0.1:6380", "--send-hex", "50 0d0a", "--expect-hex", "2b"],
            "[pools.app]\nupstreams = [\"127.0.0.1:6380\"]\n\n[pools.app.health]\ntype = \"tcp\"\nsteps = [\n  \
             { send_hex = \"50 0d0a\" },\n  { expect_hex = \"2b\" },\n]\ntls = {}\n",
        ),
        (
            &["http://127.0.0.1:6443", "--preset", "kubernetes", "--timeout", "4s"],
            "[pools.app]\nupstreams = [\"127.0.0.1:6443\"]\n\n[pools.app.health]\npreset = \"kubernetes\"\n\
             timeout = \"4s\"\nscheme = \"http\"\n",
        ),
        (
            &["tcp://127.0.0.1:5432", "--preset", "postgresql", "--port", "6432"],
            "[pools.app]\nupstreams = [\"127.0.0.1:5432\"]\n\n[pools.app.health]\npreset = \"postgresql\"\n\
             port = 6432\n",
        ),
    ];
    for (words, want) in table {
        assert_eq!(written(words).toml, want, "{words:?}");
    }
}

#[test]
fn the_printed_lines_are_what_is_tried() {
    let table: [&[&str]; 19] = [
        &["tcp://127.0.0.1:8080"],
        &["http://127.0.0.1:8080/x?y=1", "--method", "POST", "--expect-status", "200,301-302"],
        &["http://name:8080/", "--expect-body-contains", "it's \"up\" ${x}\n", "--timeout", "250ms"],
        &["http://127.0.0.1:8080", "--expect-body-equals", ""],
        &["tcp://127.0.0.1:8080", "--body", "PING\r\n", "--expect-body-contains", "PONG"],
        &["tls://name:8443", "--insecure"],
        &["https://name/x", "--http2", "--body", "{}", "--method", "POST", "--server-name", "api.internal"],
        &["grpc://127.0.0.1:50051/a.B", "--header", "X-A: b"],
        &["grpcs://name:50051", "--insecure"],
        &["ws://127.0.0.1:8080/ws", "--header", "Host: other.internal"],
        &["wss://127.0.0.1:8080/ws"],
        &["ws://127.0.0.1:8080/ws", "--subprotocol", "graphql-ws", "--max-duration", "800ms"],
        &[
            "grpc://127.0.0.1:50051",
            "--user",
            "monitor",
            "--password-file",
            "tests/config/secrets/token",
            "--header-file",
            "X-Key=Token @tests/config/secrets/token",
        ],
        &[
            "http://127.0.0.1:8080/",
            "--basic-auth-user",
            "",
            "--basic-auth-password-file",
            "tests/config/secrets/token",
            "--header-file",
            "X-Api-Key=tests/config/secrets/token",
            "--expect-body",
            "healthy",
            "--expect-body-not-contains",
            "unhealthy",
            "--expect-body-not-matches",
            "(?i)error",
            "--expect-header",
            "X-Role!=replica",
            "--expect-header",
            "!X-Debug",
            "--expect-header",
            "Server~^nginx",
            "--expect-json",
            "$.lag<=10",
            "--expect-json",
            "$.peers>=2",
            "--expect-json",
            "?$.role~^prim",
            "--expect-json",
            "$.error is null",
            "--expect-json",
            "!$['Faulty CAPPs']",
            "--expect-json",
            "$.mode in [\"a\", true]",
            "--max-duration",
            "1s500ms",
            "--timeout",
            "2s",
        ],
        &[
            "http://127.0.0.1:8080/",
            "--expect-status",
            "any",
            "--expect-json",
            "$.status=healthy",
            "--expect-json",
            "$.n!=3.5",
            "--expect-json",
            "$.list=[1, \"a\", {\"b\": true}]",
            "--expect-json",
            "$['a b']",
            "--expect-header",
            "X-App: portus",
            "--expect-header",
            "Server",
            "--expect-body-matches",
            "^a\\d+$",
        ],
        &["tcp://127.0.0.1:6379", "--send", "a\u{1}b\u{7f}${x}\\r\\n", "--expect", "\"'\\t", "--fail-on", "-ERR"],
        &["tcp://127.0.0.1:6379", "--send-file", "AUTH @tests/config/secrets/token@\\r\\n", "--expect=+OK"],
        &["tcp://127.0.0.1:4222", "--preset", "nats"],
        &["https://127.0.0.1/", "--preset", "spring-boot", "--port-offset", "-10", "--host", "a.internal"],
    ];
    for words in table {
        let written = written(words);
        let tried = spec(&written);
        let file = format!("[listeners.web]\naddress = \"127.0.0.1:1\"\npool = \"app\"\n\n{}", written.toml);
        let loaded = load_trial("a.toml", file.as_bytes(), &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(*loaded.config.pools[0].checks[0].spec, tried, "{words:?}");
    }
    let ProbeKind::Websocket(websocket) = spec(&written(table[9])).kind else { panic!("it is websocket") };
    assert_eq!(websocket.host.as_deref(), Some("other.internal"));
    assert_eq!(
        spec(&written(table[13])).to_string(),
        "http: GET / with Basic credentials; expects 200-299, a header X-Role not equal to \"replica\", no header X-Debug, \
         the header Server matching \"^nginx\", a body that contains \"healthy\", a body that does not contain \
         \"unhealthy\", a body that does not match \"(?i)error\", $.lag a number, at most 10, $.peers a number, at least \
         2, $.role matching \"^prim\" (or missing), $.error null, $['Faulty CAPPs'] absent and $.mode one of \"a\", true; \
         within 1.5 s"
    );
}

#[test]
fn a_file_is_named_and_never_printed() {
    let words = [
        "ws://127.0.0.1:8080/",
        "--user",
        "a",
        "--password-file",
        "tests/config/secrets/token",
        "--header-file",
        "X-Key=Token @tests/config/secrets/token",
        "--header-file",
        "X-Other=tests/config/secrets/token",
    ];
    let written = written(&words);
    assert!(
        written.toml.ends_with(
            "headers = { X-Key = { file = \"tests/config/secrets/token\", prefix = \"Token \" }, \
             X-Other = { file = \"tests/config/secrets/token\" } }\n\
             basic_auth = { user = \"a\", password = { file = \"tests/config/secrets/token\" } }\n"
        ),
        "{}",
        written.toml
    );
    let ProbeKind::Websocket(websocket) = spec(&written).kind else { panic!("it is websocket") };
    let sent: Vec<&str> = websocket.headers.iter().map(|(_, value)| value.expose()).collect();
    let token = "0123456789abcdef0123456789abcdef";
    assert_eq!(sent[..2], [format!("Token {token}"), token.to_owned()]);
    assert!(sent[2].starts_with("Basic ") && !written.toml.contains("0123"));
}

#[test]
fn a_credential_is_sent_and_never_printed() {
    let words = [
        "http://127.0.0.1:8080/",
        "--header",
        "Authorization: Bearer s3cr3t-one",
        "--header",
        "X-Api-Key: s3cr3t-two",
        "--header",
        "X-Custom: Basic s3cr3t-three",
        "--header",
        "X-Plain: seen",
    ];
    let written = written(&words);
    assert!(!written.toml.contains("s3cr3t"), "{}", written.toml);
    assert!(!format!("{:?}", plan(&words)).contains("s3cr3t"));
    assert!(
        written.toml.ends_with(
            "headers = { Authorization = { env = \"PROBE_AUTHORIZATION\", prefix = \"Bearer \" }, \
             X-Api-Key = { env = \"PROBE_X_API_KEY\" }, X-Custom = { env = \"PROBE_X_CUSTOM\", prefix = \"Basic \" }, \
             X-Plain = \"seen\" }\n"
        ),
        "{}",
        written.toml
    );
    assert!(written.toml.starts_with("# Set PROBE_AUTHORIZATION in the environment of roundsman.\n"));
    let ProbeKind::Http(http) = spec(&written).kind else { panic!("it is http") };
    let sent: Vec<&str> = http.headers.iter().map(|(_, value)| value.expose()).collect();
    assert_eq!(sent, ["Bearer s3cr3t-one", "s3cr3t-two", "Basic s3cr3t-three", "seen"]);
    assert!(matches!(http.headers[0].1, HeaderText::Secret(_)) && matches!(http.headers[3].1, HeaderText::Plain(_)));
}

#[test]
fn an_argument_that_cannot_be_parsed_is_reported_without_credentials() {
    for (words, want) in [
        (&["nonsense with spaces"][..], "not a URL"),
        (&["ftp://a/"], "the scheme \"ftp\""),
        (&["127.0.0.1"], "no scheme; did you mean http://127.0.0.1?"),
        (&["127.0.0.1:24102"], "no scheme; did you mean http://127.0.0.1:24102?"),
        (&["127.0.0.1:24102/up"], "no scheme; did you mean http://127.0.0.1:24102/up?"),
        (&["h:6379", "--preset", "redis"], "no scheme; did you mean tcp://h:6379?"),
        (&["h:6443", "--preset", "kubernetes"], "no scheme; did you mean https://h:6443?"),
        (&["user:s3cr3t@h"], "no scheme"),
        (&["/up"], "no scheme"),
        (&["tcp://h:1", "--insecure"], "--insecure is for TLS, and tcp:// only connects; write --url tls://h:1"),
        (&["tcp://h:1", "--server-name", "a"], "--server-name is for TLS"),
        (&["tcp://127.0.0.1"], "has no port"),
        (&["http://[::1]:99999/"], "the port of --url"),
        (&["http://127.0.0.1:65536/"], "the port of --url"),
        (&["https://name:0/"], "the port of --url"),
        (&["http://name:+80/"], "the port of --url"),
        (&["http://user:s3cr3t/"], "the port of --url"),
        (&["http://user:s3cr3t@h/"], "contains credentials"),
        (&["http://h/", "--header", "s3cr3t"], "'NAME: VALUE'"),
        (&["http://h/", "--expect-json", "$.a!=null"], "no null"),
        (&["http://h/", "--header-file", "/run/secrets/a"], "NAME=PATH"),
        (&["http://h/", "--header", "Host: a", "--host", "b"], "--host and --header"),
        (&["grpc://h:1/a.B", "--service", "c.D"], "--service and the path of --url"),
        (&["tcp://h:1", "--fail-on", "-ERR", "--send", "PING"], "--fail-on belongs to a step"),
        (&["tcp://h:1", "--send", "s3cr3t\\q"], "\\q is not an escape"),
        (&["http://h:6379", "--preset", "redis"], "makes a check of type tcp: write --url tcp://h:6379"),
    ] {
        let error = plan(words).unwrap_err();
        assert!(error.contains(want) && !error.contains("s3cr3t"), "{words:?}: {error}");
    }
}

#[test]
fn options_of_tls_are_for_texts_over_tls_too() {
    for words in [&["tls://h:1", "--insecure"][..], &["tcp://h:1", "--insecure", "--send", "PING\\r\\n"]] {
        assert!(plan(words).is_ok(), "{words:?}");
    }
}

#[test]
fn a_port_is_the_one_written_or_that_of_the_scheme() {
    for (url, want) in [
        ("http://[::1]:65535/", "[::1]:65535"),
        ("http://[::1]/", "[::1]:80"),
        ("https://name:/", "name:443"),
        ("wss://name", "name:443"),
        ("ws://127.0.0.1:081/", "127.0.0.1:81"),
    ] {
        assert_eq!(plan(&[url]).expect("a good URL").upstream, want, "{url}");
    }
}

#[test]
fn mistakes_have_the_messages_of_the_configuration() {
    for (words, want) in [
        (&["http://127.0.0.1:8080/", "--expect-status", "2xx"][..], "pools.app.health.expect.status"),
        (&["http://127.0.0.1:8080/", "--timeout", "5"], "pools.app.health.timeout"),
        (&["http://127.0.0.1:8080/", "--header", "Connection: close"], "belongs to the connection"),
        (&["tcp://127.0.0.1:8080/x"], "pools.app.health.path"),
        (&["tcp://127.0.0.1:8080", "--method", "HEAD"], "pools.app.health.method"),
        (&["http://127.0.0.1:8080/", "--expect-body-matches", "a("], "pools.app.health.expect.body.matches"),
        (&["http://127.0.0.1:8080/", "--expect-json", "nonsense"], "pools.app.health.expect.json"),
        (&["grpc://127.0.0.1:8080/", "--expect-status", "any"], "pools.app.health.expect.status"),
        (&["http://127.0.0.1:8080/", "--max-duration", "5s"], "pools.app.health.expect.max_duration"),
        (&["http://127.0.0.1:8080/", "--expect-json", "$.a<=b"], "pools.app.health.expect.json[0].max"),
        (&["http://127.0.0.1:8080/", "--expect-json", "$.a is bool"], "pools.app.health.expect.json[0].is"),
        (&["http://127.0.0.1:8080/", "--subprotocol", "mqtt"], "pools.app.health.subprotocol"),
        (&["http://127.0.0.1:8080/", "--header-file", "X-A=/nonexistent"], "pools.app.health.headers.X-A"),
        (&["https://127.0.0.1:8080/", "--ca-file", "/nonexistent/ca.pem"], "pools.app.health.tls.ca_file"),
    ] {
        let error = written(words).load().unwrap_err().to_string();
        assert!(error.contains(want), "{words:?}: {error}");
    }
}

#[test]
fn a_url_leads_to_its_upstream() {
    for (url, upstream) in [
        ("http://[::1]/", "[::1]:80"),
        ("wss://127.0.0.1/", "127.0.0.1:443"),
        ("http://LocalHost:3001/", "localhost:3001"),
        ("tcp://api_1:5672", "api_1:5672"),
    ] {
        let config = written(&[url]).load().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.pools[0].upstreams[0].address.to_string(), upstream);
    }
}
