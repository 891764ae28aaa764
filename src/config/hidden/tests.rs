//! Every way in which a secret has got into a file, and every diagnostic about such a file.

use super::super::presets::EmptyEnv;
use super::super::{Source, diagnostic, parse};
use super::*;

/// The text with asterisks where it is hidden.
fn shown(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for range in Hidden::of(text, Vec::new()).within(0..text.len()) {
        bytes[range.clone()].fill(b'*');
    }
    String::from_utf8(bytes).unwrap()
}

/// Files with mistakes, each with `hunter2` in it.
const FILES: &[&str] = &[
    // Under tables and keys that do not exist, at every depth.
    "[pools.a.health]\ntype = \"http\"\nheader = { Authorization = \"Bearer hunter2-a\" }",
    "[pools.a.health.header]\nAuthorization = \"hunter2-a\"",
    "[pools.a.health.header]\n\"X-API-KEY\" = 'hunter2-a'",
    "[pools.a.health.header]\nX-Api-Key = \"\"\"\nhunter2-a\nhunter2-b\"\"\"",
    "[pools.a.health]\nheader.authorization = \"hunter2-a\"",
    "[pools.a.health]\nheader.\"Author\\u0069zation\" = \"hunter2-a\"",
    "[pools.a.health]\nheaderz = [{ name = \"x\" }, { Set-Cookie = [\"hunter2-a\", { x = \"hunter2-b\" }] }]",
    "[admin.tokens]\nfirst = \"hunter2-a\"\n[admin.tokens.more]\nsecond = [\n  \"hunter2-b\",\n]",
    "[admin]\ntokn = \"x\"\npassword = \"hunter2-a\"",
    "[admin]\ntokn = \"hunter2-a\"\nPasword = \"hunter2-b\"\nauthorisation = \"hunter2-c\"",
    "[admin]\nadmin_pwd = \"hunter2-a\"\ncredentials = { user = \"u\", value = \"hunter2-b\" }",
    "[admni]\nPassWd = \"hunter2-a\"",
    "[pools]\ntoken = \"hunter2-a\"",
    "pools.token = [\"hunter2-a\"]",
    "private_key = '''\n-----BEGIN RSA PRIVATE KEY-----\nhunter2-a\n'''",
    "[pools.a.tls]\nclient_key = \"\"\"-----BEGIN PRIVATE KEY-----\nhunter2-a\n-----END PRIVATE KEY-----\"\"\"",
    // Under keys that exist, as what they cannot be.
    "[admin]\ntoken = \"hunter2-a\"",
    "[admin]\ntoken = [\"hunter2-a\"]\n",
    "[admin]\ntoken = { value = \"hunter2-a\" }",
    "[admin]\ntoken = { file = 1, text = \"hunter2-a\" }",
    "[pools.a.health]\nheaders = \"Authorization: Bearer hunter2-a\"",
    "[pools.a.health]\nheaders = [\"Authorization: Bearer hunter2-a\"]",
    "[pools.a.health]\nheaders = { \"Authorization: Bearer hunter2-a\" = \"x\" }",
    "[pools.a.health]\nheaders = { Authorization = \"hunter2\\u002da\\\"b\\tc\" }",
    "[pools.a.health]\nbasic_auth = \"admin:hunter2-a\"",
    "[pools.a.health]\nbasic_auth = { user = \"admin\", password = \"hunter2-a\", realm = \"hunter2-b\" }",
    // By their form, under any key.
    "[pools.a]\nupstreams = [\"http://admin:hunter2@10.0.0.1:80\"]",
    "[pools.a]\nupstreams = [\"admin:hunter2@10.0.0.1:80\", \"a:hunter2@b:80\"]",
    "[pools.a]\nupstreams = [\"https://a:p/hunter2@q@10.0.0.1:80\"]",
    "[pools.a.health]\npath = \"x?token=hunter2&y=1\"",
    "[pools.a.health]\npath = \"/x y?a=1&api_key=hunter2\"",
    "[pools.a.health]\nsend = 1\nbody = '{\"password\": \"hunter2 a\"}'",
    "[pools.a.health]\nbody = \"{\\\"password\\\": \\\"hunter2\\\"}\"",
    "[pools.a.health]\nmethod = \"Bearer hunter2aaa\"",
    "[pools.a.health]\nintervall = \"Basic aHVudGVyMg==hunter2\"",
    "[pools.a.health]\nhost = \"host=db user=x password=hunter2 port=1\"",
    "[pools.a.health]\ninterval = 1 # the password is: x, password=hunter2",
    "[admin]\ntoken = { } # was hunter2-a",
    // Text that is not TOML.
    "[admin]\ntoken = \"hunter2-a",
    "[admin]\ntoken = hunter2-a",
    "[admin]\ntoken = hunter2 and hunter2.more, hunter2",
    "[admin]\ntoken: hunter2-a",
    "[admin]\ntoken hunter2-a",
    "[admin]\ntoken =\n\"hunter2-a\"",
    "[admin]\ntoken = \n\n hunter2-a",
    "[admin]\ntoken = a = \"hunter2-a\"",
    "[admin]\ntoken == \"hunter2-a\"",
    "[admin]\ntoken = '''hunter2-a\nhunter2-b",
    "[admin]\ntoken = \"\"\"hunter2-a",
    "[admin]\ntoken = \"x\" hunter2-a",
    "[admin]\ntoken = [\"hunter2-a\"\naddress = \"x\"",
    "[admin]\ntoken = { \"hunter2-a\"",
    "[admin]\naddress = \"127.0.0.1:1, token = \"hunter2-a\"",
    "[admin]\naddress = \"\"\"127.0.0.1:1\ntoken = \"hunter2-a\"\n",
    "[pools.a]\nupstreams = [ \"10.0.0.1:80\"\n[secrets]\nfirst = \"hunter2-a\"",
    "[pools.a]\nupstreams = [ { address = \"x\"\ntoken = \"hunter2-a\"",
    "Authorization: Bearer hunter2-a\nCookie: a=hunter2; b=hunter2",
    "{ \"password\": \"hunter2-a\" }",
    "password: \"hunter2-a\"",
    "- token: hunter2-a",
    "export TOKEN=hunter2-a;",
    "[admin]\ntoken := \"hunter2-a\"",
    "[admin]\ntoken => hunter2-a",
    "[admin]\ntoken = \u{201c}hunter2-a\u{201d}",
    "[admin]\ntoken = \"hunter2-a\u{201d}",
    "[admin]\ntoken = `hunter2-a`",
    "[admin]\ntoken = \"C:\\hunter2\\q\"",
    "[admin]\ntoken = \"hunter2-a\",",
    "[admin]\ntoken = $hunter2",
    "[admin\ntoken = \"hunter2-a\"",
    "admin:\n  token: hunter2-a\n  password: \"hunter2-b\"",
    "{\n  \"admin\": {\n    \"token\": \"hunter2-a\"\n  }\n}",
    "listen 80;\nproxy_set_header Authorization hunter2-a;\nproxy_pass http://u:hunter2@a;",
    "[pools.a]\nproxy_set_header Authorization hunter2-a;",
    "[pools.a]\nserver http://u:hunter2@10.0.0.1:80 weight=5;",
    "[pools.a]\nupstreams = \"u:hunter2@10.0.0.1:80, 10.0.0.2:80\"",
    "[pools.a]\nupstreams = [\"https://u:hunter2@10.0.0.1:80\", \"u:hunter2@[fe80::1%eth0]:80\"]",
    "[pools.a]\nhealth = \"/x?token=hunter2\"",
    "[pools.a.health]\npath = \"http://a/x?token=hunter2\"",
    // Twice.
    "[admin]\ntoken = \"hunter2-a\"\ntoken = \"hunter2-b\"",
    "[admin]\ntoken.hunter = \"hunter2-a\"\ntoken = \"hunter2-b\"",
];

#[test]
fn no_diagnostic_shows_a_secret() {
    let mut leaks = Vec::new();
    for text in FILES {
        // Another mistake on each line puts that line into an excerpt.
        let spoilt: String = text.lines().map(|line| format!("{line} ]x\n")).collect();
        for text in [*text, &spoilt, &text.replace('\n', "\r\n")] {
            let source = Source { file: "x.toml", text: text.as_bytes() };
            let diagnostics = parse(&source, &EmptyEnv).expect_err(text);
            let json = serde_json::to_string(&diagnostics).unwrap();
            let lines: String = diagnostics.iter().map(diagnostic::Diagnostic::headline).collect();
            for output in [diagnostic::render_all(&diagnostics, false), json, lines] {
                let line = output.lines().find(|line| line.to_lowercase().contains("hunter2"));
                leaks.extend(line.map(|line| format!("{line}, of {text:?}")));
            }
        }
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn a_file_that_is_not_text_is_shown_without_its_secrets() {
    for text in [&b"[admin]\ntoken = \"hunter2 \xe9\"\n"[..], b"password: hunter2\0", b"# Bearer hunter2-abc \xff"] {
        let diagnostics = parse(&Source { file: "x.toml", text }, &EmptyEnv).expect_err("it is not text");
        let output = diagnostic::render_all(&diagnostics, false);
        assert!(output.contains("x.toml:") && !output.contains("hunter2"), "{output}");
    }
}

#[test]
fn every_secret_is_hidden_in_the_file_itself() {
    let leaks: Vec<_> = FILES.iter().map(|text| shown(text)).filter(|text| text.contains("hunter2")).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn text_without_secrets_is_shown() {
    for text in [
        "[pools.token-service]\nupstreams = [\"10.0.0.1:80\"]\n[pools.token-service.health]\npath = \"/x\"",
        "[pools]\npassword-api.upstreams = [\"10.0.0.1:80\"]\n",
        "pools = { cookies = { upstreams = [\"10.0.0.1:80\"] } }",
        "[pools.a.health.headers]\nAuthorization = { file = \"/run/token\", prefix = \"Bearer \" }\nX = \"y\"",
        "[admin]\naddress = \"unix:/run/a.sock\"\ntoken = { env = \"TOKEN\" }\n[pools.a]\nbalance = \"first\"",
        "[listeners.web.tls]\nclient_auth = \"required\"",
        "[pools.a]\nupstreams = [\"[::1]:80\", \"a:80\", \"unix:/run/x@y.sock\"]",
        "[pools.a.health]\npath = \"/a?b=c\"\nhost = \"api:80\"",
    ] {
        assert_eq!(shown(text), text);
    }
    let text = "[admin]\ntoken = \"hunter2\"\n[pools.a]\nbalance = \"x\"";
    assert_eq!(shown(text), text.replace("\"hunter2\"", "*********"), "what comes after a secret is shown");
}

#[test]
fn hidden_values_are_masked_in_messages() {
    let text = "path = \"/x\"\ntoken = \"hunter2 and more\"\n";
    let hidden = Hidden::of(text, Vec::new());
    let at = text.find("\"hunter2").unwrap();
    let about = at..at + 18;
    assert_eq!(hidden.without_any(text, "\"hunter2 and more\" is a string", &about), "\"***\" is a string");
    assert_eq!(hidden.without_any(text, "port \"HUNTER2\" is none", &about), NOT_SHOWN);
    assert_eq!(hidden.without(text, "another has hunter2 and more, too", Some(&(0..4))), "another has ***, too");
    assert_eq!(hidden.without(text, "it is hunters' fault", Some(&(0..4))), "it is hunters' fault");
}

#[test]
fn a_large_file_is_scanned_in_bounded_time() {
    for text in [
        "token = [".repeat(200_000),
        "{".repeat(1 << 20),
        "a = \"b:c@\"\n".repeat(100_000),
        "[".repeat(1 << 20),
        // One text of a million names, each with the next as its value.
        format!("# {}", "a=".repeat(1 << 20)),
        format!("a = \"{}\"", "a:".repeat(1 << 20)),
    ] {
        let begin = std::time::SystemTime::now();
        assert!(Hidden::of(&text, Vec::new()).ranges.len() <= text.len());
        // Quadratic time would take hours.
        let took = begin.elapsed().unwrap_or_default();
        assert!(took < std::time::Duration::from_secs(60), "{took:?} for {:?}", &text[..8]);
    }
}
