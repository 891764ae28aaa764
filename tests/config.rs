//! Valid and invalid configuration files: what is refused with which output (`tests/config/invalid`, the expected
//! output beside each), what is accepted (`tests/config/valid`, `conf`), the JSON Schema, the reference file, and
//! hostile input. `UPDATE_EXPECT=1 cargo test --test config` rewrites the expected output; read the difference before
//! committing it.

#[path = "config/addresses.rs"]
mod addresses;
#[path = "config/consequences.rs"]
mod consequences;
#[path = "config/messages.rs"]
mod messages;
#[path = "config/suggestions.rs"]
mod suggestions;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use roundsman::app::load::{LoadError, load_file};
use roundsman::config::diagnostic::render_all;
use roundsman::config::{Severity, schema};
use roundsman::model::policy::{
    Act, Balance, BodyRule, Config, HeaderText, HostPattern, MinHealthy, PathPattern, Payload, PortRule, ProbeKind,
    Require, StatusRule, WhenNoHealthy,
};

/// The `.toml` files of a directory, by name. The paths are relative, so that expected output holds on every machine.
fn files(dir: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = all.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    all.sort();
    assert!(!all.is_empty(), "{dir} is empty");
    all
}

fn good(path: &Path) -> Config {
    load_file(path).unwrap_or_else(|error| panic!("{}", error.render(false))).config
}

/// Compares with the text of a file, or writes it with `UPDATE_EXPECT` set.
fn expect(path: &Path, actual: &str) -> Result<(), String> {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, actual).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == actual {
        return Ok(());
    }
    Err(format!("{} differs.\n--- expected\n{expected}\n--- actual\n{actual}", path.display()))
}

#[test]
fn every_bad_file_is_refused_with_the_output_beside_it() {
    let mut differing = Vec::new();
    for path in files("tests/config/invalid") {
        let Err(error) = load_file(&path) else { panic!("{} is accepted", path.display()) };
        assert!(error.diagnostics.iter().any(|d| d.severity == Severity::Error));
        differing.extend(expect(&path.with_extension("expected"), &error.render(false)).err());
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn every_mistake_of_a_file_has_its_place_and_its_line() {
    for path in files("tests/config/invalid") {
        let text = fs::read_to_string(&path).unwrap();
        for diagnostic in load_file(&path).unwrap_err().diagnostics {
            let (Some(line), Some(column)) = (diagnostic.line, diagnostic.column) else {
                assert!(diagnostic.message.starts_with("the file ") || diagnostic.message.starts_with("there is no "));
                continue;
            };
            let length = text.lines().nth(line - 1).map(|line| line.chars().count());
            assert!(length.is_some_and(|length| column <= length + 1), "{}", diagnostic.headline());
        }
    }
}

#[test]
fn no_secret_of_a_bad_file_is_shown() {
    for path in files("tests/config/invalid") {
        let error = load_file(&path).unwrap_err();
        let json = serde_json::to_string(&error.diagnostics).unwrap();
        for shown in [error.render(true), error.to_string(), json] {
            assert!(!shown.contains("hunter2"), "{}: {shown}", path.display());
        }
    }
}

#[test]
fn every_good_file_is_accepted() {
    for path in [files("tests/config/valid"), files("conf"), files("conf/examples")].concat() {
        good(&path);
    }
}

#[test]
fn what_looks_like_a_mistake_draws_a_warning() {
    let path = Path::new("tests/config/valid/warnings.toml");
    let warnings = load_file(path).unwrap().warnings;
    assert!(warnings.iter().all(|w| w.severity == Severity::Warning));
    expect(&path.with_extension("expected"), &render_all(&warnings, false)).unwrap();
    for path in [files("conf"), files("conf/examples")].concat() {
        assert_eq!(load_file(&path).unwrap().warnings, [], "{}", path.display());
    }
}

#[test]
fn every_key_reaches_the_policy() {
    let config = good(Path::new("tests/config/valid/everything.toml"));
    assert_eq!(config.runtime.threads.map(usize::from), Some(4));
    assert_eq!((config.runtime.drain_delay.as_secs(), config.runtime.drain_timeout.as_secs()), (5, 90));
    let listeners: Vec<_> = config.listeners.iter().map(|l| l.address.to_string()).collect();
    assert_eq!(listeners, ["0.0.0.0:8080", "[::]:8080", "unix:/run/roundsman/web.sock"]);
    assert_eq!(config.listeners[1].pool, None);
    let route = &config.routes[0];
    assert_eq!(route.host, HostPattern::Suffix(Arc::from(".example.com")));
    assert_eq!(route.path, PathPattern::Prefix(Arc::from("/v1")));
    assert_eq!(route.methods, [Arc::from("GET"), Arc::from("HEAD")]);
    assert_eq!(config.routes[1].path, PathPattern::Exact(Arc::from("/status")));
    let api = &config.pools[0];
    assert_eq!(api.balance, Balance::LeastRequest);
    assert_eq!(api.min_healthy.needed(4), 2);
    let protocols = ["websocket", "TLS/1.0", "tls", "h2c"];
    assert_eq!(protocols.map(|name| api.traffic.upgrades.allow(name.as_bytes())), [true, true, false, false]);
    assert!(matches!(&api.when_no_healthy, WhenNoHealthy::Pool(name) if name.as_str() == "static"));
    let upstream = &api.upstreams[1];
    assert_eq!((upstream.weight.as_u32(), upstream.backup, upstream.admin.as_str()), (2, true, "draining"));
    let timing = api.checks[0].timing;
    assert_eq!((timing.healthy_threshold, timing.unhealthy_threshold), (3, 5));
    assert_eq!(timing.unhealthy_interval.map(|interval| interval.as_secs()), Some(60));
    assert_eq!((timing.fast_interval.as_millis(), timing.start_period.as_secs()), (500, 30));
    let ProbeKind::Http(http) = &api.checks[0].spec.kind else { panic!("an http check") };
    assert_eq!(
        (api.checks[0].spec.port, &*http.path, &*http.method),
        (PortRule::Offset(911), "/healthz?full=1", "HEAD")
    );
    assert_eq!(http.host.as_deref(), Some("api.internal:8443"));
    let HeaderText::Secret(secret) = &http.headers[1].1 else { panic!("a secret") };
    assert_eq!(secret.expose(), "Bearer 0123456789abcdef0123456789abcdef");
    assert_eq!(http.expect.status, StatusRule::In(vec![(200, 200), (300, 302)]));
    let targets: Vec<_> = api.upstreams.iter().map(|u| api.checks[0].spec.target(u).to_string()).collect();
    assert_eq!(targets, ["10.0.0.1:8991", "10.9.0.2:9201", "[2001:db8::1]:8991", "unix:/run/api.sock"]);
    let ProbeKind::Http(http) = &config.pools[1].checks[0].spec.kind else { panic!("an http check") };
    assert_eq!(http.expect.body, [BodyRule::Equals(Arc::from("OK"))]);
    assert_eq!(config.pools[1].min_healthy, MinHealthy::Count(2));
    assert_eq!(config.admin.token.unwrap().expose().len(), 32);
}

#[test]
fn every_key_of_every_kind_of_check_reaches_the_policy() {
    let config = good(Path::new("tests/config/valid/everything.toml"));
    let pool = &config.pools[2];
    let described: Vec<_> = pool.checks.iter().map(|check| format!("{} | {}", check.name, check.spec)).collect();
    assert_eq!(
        described,
        [
            "http / | http: POST / for host checks.internal with a body of 2 bytes in HTTP/2, over TLS (certificate \
             verified as 10.0.0.5, against ca_file, with a client certificate); expects any status, the header X-App equal to \
             \"portus\", the header Server matching \"^nginx\", a header ETag, a body that matches \
             \"\\\"status\\\":\\\\s*\\\"up\\\"\", $.status equal to \"healthy\", $.components.* not equal to \
             {\"state\":\"down\",\"since\":1.5}, $.mode one of \"active\", true, 2, $['Faulty CAPPs'] absent and \
             $.ldap.success equal to true (or missing)",
            "tcp 6379 | tcp: connect, send 6 bytes on port 6379; expects a text that contains \"+PONG\"",
            "tls | tls: handshake (certificate verified)",
            "grpc shop.Cart | grpc: Health/Check of \"shop.Cart\" with Basic credentials; expects SERVING; within 1.5 s",
            "websocket /live | websocket: upgrade /live, ping and pong, subprotocol graphql-ws",
            "http /__health | http: GET /__health on the traffic's port -443; expects 200",
        ]
    );
    assert_eq!(pool.require, Require::Count(2));
    let tls = pool.checks[0].spec.tls.as_ref().unwrap();
    let client = tls.client.as_ref().unwrap();
    assert_eq!((tls.roots.as_ref().unwrap().len(), client.chain.len()), (1, 1));
    assert_eq!(client.key.expose(), fs::read_to_string("tests/config/tls/client.key").unwrap());
    let ProbeKind::Tcp(tcp) = &pool.checks[1].spec.kind else { panic!("a tcp check") };
    assert_eq!(tcp.steps[0].act, Act::Send(Payload::plain(b"PING\r\n")));
    let times: Vec<_> =
        pool.checks[..2].iter().map(|c| (c.timing.interval.as_secs(), c.timing.timeout.as_secs())).collect();
    assert_eq!((&times[..], pool.checks[5].timing.unhealthy_threshold), (&[(3, 2), (10, 2)][..], 4));
    let preset = &config.pools[3];
    assert_eq!((preset.checks.len(), preset.require, preset.checks[1].timing.interval.as_secs()), (2, Require::Any, 5));
}

#[test]
fn every_rule_about_answers_reaches_the_policy() {
    let config = good(Path::new("tests/config/valid/everything.toml"));
    let check = &config.pools[4].checks[0];
    assert_eq!(
        check.spec.to_string(),
        "http: GET / with Basic credentials; expects 200-299, a header X-Role not equal to \"replica\", no header X-Debug, \
         a body that contains \"healthy\", a body that does not contain \"unhealthy\", a body that does not match \
         \"(?i)error\", $.lag a number, 0 to 10.5, $.peers a number, at least 2, $.role matching \"^prim\" (or missing) \
         and $.error null; within 800 ms"
    );
    let ProbeKind::Http(http) = &check.spec.kind else { panic!("an http check") };
    let [(name, HeaderText::Secret(secret))] = &http.headers[..] else { panic!("one secret") };
    assert_eq!((&**name, secret.expose()), ("Authorization", "Basic OjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm"));
}

#[test]
fn too_many_different_patterns_are_refused_and_equal_ones_are_not() {
    let pools = |text: &dyn Fn(usize) -> String| -> String {
        let pool = |p| {
            let pattern = text(p);
            format!(
                "pools.p{p}.upstreams = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n\
                 pools.p{p}.health = {{ type = \"http\", expect.body = {{ matches = \"{pattern}\" }} }}\n"
            )
        };
        format!("{}{}", HEAD.replace("\"a\"", "\"p0\""), (0..101).map(pool).collect::<String>())
    };
    load_bytes(pools(&|_| "^up".to_owned()).as_bytes()).unwrap();
    let error = load_bytes(pools(&|p| format!("^up{p}")).as_bytes()).unwrap_err();
    assert!(error.to_string().ends_with("matches: this file has more than 100 different patterns"), "{error}");
}

#[test]
fn a_renewed_certificate_is_another_definition() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, file) = (dir.path().join("ca.pem"), dir.path().join("a.toml"));
    let text = format!(
        "{HEAD}[pools.a]\nupstreams = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n\
         health = {{ type = \"tls\", tls = {{ ca_file = {:?} }} }}\n",
        ca.display().to_string()
    );
    fs::write(&file, text).unwrap();
    fs::copy("tests/config/tls/ca.pem", &ca).unwrap();
    let before = good(&file);
    assert_eq!(before, good(&file));
    fs::copy("tests/config/tls/client.pem", &ca).unwrap();
    assert_ne!(before, good(&file));
}

#[test]
fn variables_are_replaced_in_strings() {
    let config = good(Path::new("tests/config/valid/variables.toml"));
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(config.pools[0].upstreams[1].address.to_string(), "10.0.0.2:80");
    let ProbeKind::Http(http) = &config.pools[0].checks[0].spec.kind else { panic!("an http check") };
    assert_eq!(http.expect.body, [BodyRule::Contains(Arc::from("${literal}"))]);
}

#[test]
fn the_minimal_file_is_at_most_twelve_lines() {
    let text = fs::read_to_string("conf/minimal.toml").unwrap();
    assert!(text.lines().count() <= 12);
    assert_eq!(good(Path::new("conf/minimal.toml")).pools[0].upstreams.len(), 2);
}

/// Every key in the schema, which is generated from the declarations that read the file: `pools.*.health.interval`.
fn keys_of_schema() -> BTreeSet<String> {
    let root = schema::schema();
    let mut out = BTreeSet::new();
    collect_keys(&root, &root, "", &mut out);
    out
}

fn collect_keys(root: &serde_json::Value, schema: &serde_json::Value, path: &str, out: &mut BTreeSet<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        let target = root.pointer(target.trim_start_matches('#')).expect("a reference within the schema");
        return collect_keys(root, target, path, out);
    }
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        collect_keys(root, value, &path, out);
        out.insert(path);
    }
    for nested in [&schema["items"], &schema["additionalProperties"]] {
        if nested.is_object() {
            collect_keys(root, nested, &format!("{path}.*"), out);
        }
    }
    for alternative in schema["anyOf"].as_array().into_iter().flatten() {
        collect_keys(root, alternative, path, out);
    }
}

#[test]
fn the_reference_explains_every_key() {
    let text = fs::read_to_string("conf/reference.toml").unwrap();
    let word = |name: &str| {
        let names = |line: &str| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|w| w == name);
        text.lines().any(names)
    };
    let keys = keys_of_schema();
    assert!(keys.contains("pools.*.health.expect.body.contains") && keys.contains("pools.*.upstreams.*.weight"));
    for key in &keys {
        let name = key.rsplit('.').next().unwrap();
        assert!(word(name), "conf/reference.toml does not mention {key}");
    }
}

#[test]
fn every_key_that_other_programs_words_are_mapped_to_exists() {
    let text = fs::read_to_string("docs/coming-from.md").unwrap();
    let keys = keys_of_schema();
    let mut found = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let ours = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for word in ours.split('`').skip(1).step_by(2).filter(|word| !word.contains([' ', '/'])) {
            let list = word.replacen("routes.", "routes.*.", 1).replacen(".upstreams.", ".upstreams.*.", 1);
            let key = list.replacen(".NAME.", ".*.", 1);
            assert!(keys.contains(&key), "{word} is not a key of the file: {line}");
            found += 1;
        }
    }
    assert!(found > 40, "{found} keys");
}

/// The keys that `conf/reference.toml` sets and does not only mention.
fn keys_written(table: &toml::Table, path: &str, out: &mut BTreeSet<String>) {
    for (key, value) in table {
        let named = matches!(path, "pools" | "listeners");
        let key = match (path, named) {
            ("", _) => key.clone(),
            (_, true) => format!("{path}.*"),
            (_, false) => format!("{path}.{key}"),
        };
        match value {
            toml::Value::Table(table) => keys_written(table, &key, out),
            toml::Value::Array(list) => {
                list.iter().filter_map(toml::Value::as_table).for_each(|t| keys_written(t, &format!("{key}.*"), out));
            }
            _ => {}
        }
        out.insert(key);
    }
}

#[test]
fn the_reference_sets_every_key_that_has_a_default() {
    let root = schema::schema();
    let mut written = BTreeSet::new();
    let table = fs::read_to_string("conf/reference.toml").unwrap().parse().unwrap();
    keys_written(&table, "", &mut written);
    // The names of all keys with defaults, whichever definition they belong to.
    let mut with_default = BTreeSet::new();
    for (_, definition) in root["$defs"].as_object().unwrap() {
        for (key, value) in definition["properties"].as_object().unwrap() {
            if value.get("default").is_some() {
                with_default.insert(key.clone());
            }
        }
    }
    assert!(with_default.len() > 15);
    let aliases = ["rise", "fall"];
    for key in with_default.iter().filter(|key| !aliases.contains(&key.as_str())) {
        assert!(written.iter().any(|w| w.rsplit('.').next() == Some(key)), "conf/reference.toml does not set {key}");
    }
}

#[test]
fn the_reference_is_equal_to_leaving_the_keys_out() {
    let reference = good(Path::new("conf/reference.toml"));
    let dir = tempfile::tempdir().unwrap();
    let bare = dir.path().join("bare.toml");
    let text = "listeners.web.address = \"0.0.0.0:8080\"\n\
        pools.app.upstreams = [\"10.0.0.1:3000\", \"10.0.0.2:3000\"]\n\
        pools.static.upstreams = [\"10.0.0.3:3000\", \"10.0.0.4:3000\"]\n\
        pools.static.health.type = \"http\"\n\
        pools.several.upstreams = [\"10.0.0.5:3000\", \"10.0.0.6:3000\"]\n\
        pools.several.sticky = {}\n\
        pools.several.health.checks = [{ type = \"http\", port = 9201, \
            expect.json = [{ path = \"$.status\", equals = \"healthy\" }], \
            degraded.expect.json = [{ path = \"$.load\", min = 0.8 }] }, \
            { type = \"grpc\", scheme = \"https\" }, { type = \"websocket\" }, \
            { type = \"agent\", port = 9707 }]\n\
        [[routes]]\npool = \"app\"\n\
        [[routes]]\npath = \"/static\"\npool = \"static\"\n\
        [[routes]]\npath = \"/old\"\nstrip_prefix = \"/old\"\nredirect.to = \"/new{path}\"\n\
            rate_limit.requests = 100\n\
        [[routes]]\npath = \"/closed\"\nrespond = {}\n\
        [[routes]]\npath = \"/several\"\npool = \"several\"\n[admin]\n";
    fs::write(&bare, text).unwrap();
    assert_eq!(reference, good(&bare));
    // Without its table the admin differs only in what a failed bind means.
    fs::write(&bare, text.replace("[admin]\n", "")).unwrap();
    let mut without = good(&bare);
    assert!(!without.admin.written);
    without.admin.written = true;
    assert_eq!(reference, without);
}

#[test]
fn the_schema_accepts_every_good_file() {
    let validator = jsonschema::validator_for(&schema::schema()).unwrap();
    for path in files("tests/config/valid").into_iter().chain(files("conf")) {
        let text = fs::read_to_string(&path).unwrap();
        let value: toml::Table = text.trim_start_matches('\u{feff}').parse().unwrap();
        let value = serde_json::to_value(value).unwrap();
        let problems: Vec<_> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(problems.is_empty(), "{}: {problems:?}", path.display());
    }
}

#[test]
fn the_schema_refuses_bad_values_and_unknown_keys() {
    let validator = jsonschema::validator_for(&schema::schema()).unwrap();
    for name in ["01-no-pool", "08-unknown-keys", "11-wrong-types", "16-host-names", "19-thresholds", "32-later-keys"] {
        let text = fs::read_to_string(format!("tests/config/invalid/{name}.toml")).unwrap();
        let value: toml::Table = text.parse().unwrap();
        assert!(!validator.is_valid(&serde_json::to_value(value).unwrap()), "{name}");
    }
}

#[test]
fn the_schema_describes_every_key() {
    let root = schema::schema();
    for (name, definition) in root["$defs"].as_object().unwrap() {
        for (key, value) in definition["properties"].as_object().unwrap() {
            assert!(value["description"].as_str().is_some_and(|d| d.len() > 5), "{name}.{key}");
        }
    }
}

/// Writes `bytes` to a file and loads it.
fn load_bytes(bytes: &[u8]) -> Result<(), LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    fs::write(&path, bytes).unwrap();
    load_file(&path).map(|_| ())
}

const HEAD: &str = "listeners.web = { address = \"127.0.0.1:8080\", pool = \"a\" }\n";

#[test]
fn a_file_that_is_not_text_is_refused() {
    let utf16: Vec<u8> = "\u{feff}a = 1".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, reason) in [
        (&utf16[..], "the file is UTF-16; a configuration is UTF-8"),
        (b"a = \"\0\"\n", "the file holds a NUL byte; a configuration is UTF-8 text"),
        (b"a = \"\xff\"\n", "the file is not UTF-8: the byte 0xFF"),
    ] {
        let message = &load_bytes(bytes).unwrap_err().diagnostics[0].message;
        assert!(message.starts_with(reason), "{message}");
    }
}

#[test]
fn a_symbolic_link_that_is_swapped_is_read_whole_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (link, good) = (dir.path().join("link"), dir.path().join("good"));
    fs::copy("conf/minimal.toml", &good).unwrap();
    for target in [Path::new("/dev/zero"), dir.path(), &good] {
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
        assert_eq!(load_file(&link).is_ok(), target == good);
    }
}

#[test]
fn too_many_upstreams_are_refused_and_the_most_allowed_are_not() {
    let upstreams = |n: u32| -> String {
        (0..n).map(|i| format!("\"10.{}.{}.{}:80\",", i >> 16, (i >> 8) & 255, i & 255)).collect()
    };
    let file = |n| format!("{HEAD}pools.a.upstreams = [{}]\n", upstreams(n));
    assert!(load_bytes(file(65_535).as_bytes()).is_ok());
    let error = load_bytes(file(65_536).as_bytes()).unwrap_err();
    assert!(error.to_string().ends_with("pools.a.upstreams: 65536 are too many"), "{error}");
    let many = format!("{HEAD}pools.a.upstreams = [{}]\n", "\"1.0.0.1:1\",".repeat(1_000_000));
    let error = load_bytes(many.as_bytes()).unwrap_err();
    assert!(error.to_string().ends_with("the file holds more than can be read safely"), "{error}");
}

#[test]
fn the_most_upstreams_as_tables_are_accepted() {
    let table =
        |i: u32| format!("  {{ address = \"10.{}.{}.{}:80\", weight = 2 }},\n", i >> 16, (i >> 8) & 255, i & 255);
    let upstreams: String = (0..65_535).map(table).collect();
    load_bytes(format!("{HEAD}pools.a.upstreams = [\n{upstreams}]\n").as_bytes()).unwrap();
}

#[test]
fn too_many_pools_routes_and_listeners_are_refused() {
    let pools =
        |n| (0..n).map(|i| format!("pools.p{i}.upstreams = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n")).collect::<String>();
    let error = load_bytes(format!("{}{}", HEAD.replace("\"a\"", "\"p1\""), pools(1_001)).as_bytes()).unwrap_err();
    assert!(error.to_string().contains("pools: 1001 are too many"), "{error}");
    let routes: String = (0..10_001).map(|i| format!("[[routes]]\npath = \"/{i}\"\npool = \"p0\"\n")).collect();
    let text = format!("{}{}{routes}", HEAD.replace("\"a\"", "\"p0\""), pools(1));
    let error = load_bytes(text.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("routes: 10001 are too many"), "{error}");
    let listeners: String = (0..1_001).map(|i| format!("listeners.l{i}.address = \"127.0.0.1:{}\"\n", i + 1)).collect();
    let error = load_bytes(format!("{listeners}{}", pools(1)).as_bytes()).unwrap_err();
    assert!(error.to_string().contains("listeners: 1001 are too many"), "{error}");
}

#[test]
fn a_hundred_diagnostics_are_shown_and_the_rest_counted() {
    let text: String = (0..150_000).map(|i| format!("k{i} = 1\n")).collect();
    let error = load_bytes(text.as_bytes()).unwrap_err();
    assert_eq!(error.diagnostics.len(), 101);
    assert!(error.diagnostics[100].message.ends_with(" more are not shown"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Cuts and pastes pieces of good and bad files at random places: any result is accepted or refused without
    /// a panic, and every place in a diagnostic lies within the file.
    #[test]
    fn a_mangled_file_is_accepted_or_refused_with_places_inside_it(
        first in 0..1_000_usize,
        splices in proptest::collection::vec((0..1_000_usize, 0..10_000_usize, 0..10_000_usize, 0..60_usize), 1..8),
    ) {
        let all: Vec<Vec<u8>> = SAMPLES.iter().map(|path| fs::read(path).unwrap()).collect();
        let mut text = all[first % all.len()].clone();
        for (sample, to, from, length) in splices {
            let sample = &all[sample % all.len()];
            let from = from % sample.len();
            let piece = sample[from..(from + length).min(sample.len())].to_vec();
            let to = to % (text.len() + 1);
            let end = (to + length / 2).min(text.len());
            text.splice(to..end, piece);
        }
        if let Err(error) = load_bytes(&text) {
            let lines = text.split(|b| *b == b'\n').count();
            for diagnostic in &error.diagnostics {
                prop_assert!(diagnostic.line.is_none_or(|line| (1..=lines).contains(&line)));
                prop_assert!(!diagnostic.message.is_empty());
            }
            prop_assert!(!error.render(true).is_empty());
        }
    }
}

const SAMPLES: [&str; 13] = [
    "tests/config/invalid/45-tls-of-checks.toml",
    "tests/config/invalid/46-expectations.toml",
    "tests/config/invalid/47-lists-of-checks.toml",
    "tests/config/invalid/49-presets.toml",
    "conf/presets/portus.toml",
    "tests/config/valid/everything.toml",
    "tests/config/valid/warnings.toml",
    "tests/config/valid/bom-crlf-no-newline.toml",
    "conf/reference.toml",
    "tests/config/invalid/11-wrong-types.toml",
    "tests/config/invalid/32-later-keys.toml",
    "tests/config/invalid/36-secrets.toml",
    "tests/config/invalid/42-syntax.toml",
];
