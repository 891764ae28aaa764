//! Every key of a check has its argument, or a reason to have none.

use std::collections::BTreeSet;

use clap::CommandFactory;
use serde_json::Value as Json;

use super::written;
use crate::cli::args::Cli;
use crate::config::schema::schema;

/// A key, and arguments that write it: words between spaces, where a ␣ is a space.
const WRITTEN: &[(&str, &str)] = &[
    ("type", "tcp://a:1 --type tcp"),
    ("preset", "tcp://a:1 --preset redis"),
    ("timeout", "tcp://a:1 --timeout 2s"),
    ("port", "tcp://a:1 --port 9"),
    ("port_offset", "tcp://a:2 --port-offset -1"),
    ("scheme", "https://a/"),
    ("path", "http://a/x?y=1"),
    ("method", "http://a/ --method HEAD"),
    ("version", "http://a/ --http2"),
    ("host", "http://a/ --host b"),
    ("headers", "http://a/ --header X-A:b"),
    ("headers.*.file", "http://a/ --header-file X-A=tests/config/secrets/token"),
    ("headers.*.env", "http://a/ --header Authorization:Bearer␣b"),
    ("headers.*.prefix", "http://a/ --header-file X-A=Token␣@tests/config/secrets/token"),
    ("basic_auth", "http://a/ --basic-auth-user b --basic-auth-password-file tests/config/secrets/token"),
    ("basic_auth.user", "http://a/ --user b --password-file tests/config/secrets/token"),
    ("basic_auth.password", "http://a/ --user b --password-file tests/config/secrets/token"),
    ("basic_auth.password.file", "http://a/ --user b --password-file tests/config/secrets/token"),
    ("body", "http://a/ --method POST --body b"),
    ("service", "grpc://a:1 --service b.C"),
    ("subprotocol", "ws://a/ --subprotocol mqtt"),
    ("tls", "tls://a:1 --insecure"),
    ("tls.verify", "tls://a:1 --insecure"),
    ("tls.server_name", "tls://a:1 --server-name b"),
    ("tls.ca_file", "tls://a:1 --ca-file CERTIFICATE"),
    ("tls.client_cert", "tls://a:1 --client-cert CERTIFICATE --client-key KEY"),
    ("tls.client_key", "tls://a:1 --client-cert CERTIFICATE --client-key KEY"),
    ("send", "tcp://a:1 --body b"),
    ("steps", "tcp://a:1 --send b"),
    ("steps.expect", "tcp://a:1 --expect b"),
    ("steps.matches", "tcp://a:1 --matches ^b"),
    ("steps.send", "tcp://a:1 --send b"),
    ("steps.send.file", "tcp://a:1 --send-file tests/config/secrets/token"),
    ("steps.send.prefix", "tcp://a:1 --send-file AUTH␣@tests/config/secrets/token"),
    ("steps.send.suffix", "tcp://a:1 --send-file @tests/config/secrets/token@\\r\\n"),
    ("steps.send_hex", "tcp://a:1 --send-hex 00␣ff"),
    ("steps.send_hex.file", "tcp://a:1 --send-hex-file tests/config/secrets/token"),
    ("steps.send_hex.prefix", "tcp://a:1 --send-hex-file 00@tests/config/secrets/token"),
    ("steps.send_hex.suffix", "tcp://a:1 --send-hex-file @tests/config/secrets/token@00"),
    ("steps.expect_hex", "tcp://a:1 --expect-hex 00"),
    ("steps.starttls", "tcp://a:1 --starttls"),
    ("steps.fail_on", "tcp://a:1 --expect b --fail-on -ERR"),
    ("expect", "http://a/ --expect-status 204"),
    ("expect.status", "http://a/ --expect-status 204"),
    ("expect.header", "http://a/ --expect-header X-A:b"),
    ("expect.header.*.matches", "http://a/ --expect-header X-A~b"),
    ("expect.header.*.not_equals", "http://a/ --expect-header X-A!=b"),
    ("expect.header.*.present", "http://a/ --expect-header X-A"),
    ("expect.header.*.absent", "http://a/ --expect-header !X-A"),
    ("expect.body", "http://a/ --expect-body b"),
    ("expect.body.contains", "http://a/ --expect-body-contains b"),
    ("expect.body.equals", "http://a/ --expect-body-equals b"),
    ("expect.body.matches", "http://a/ --expect-body-matches b"),
    ("expect.body.not_contains", "http://a/ --expect-body-not-contains b"),
    ("expect.body.not_matches", "http://a/ --expect-body-not-matches b"),
    ("expect.json", "http://a/ --expect-json $.a"),
    ("expect.json.path", "http://a/ --expect-json $.a"),
    ("expect.json.equals", "http://a/ --expect-json $.a=1"),
    ("expect.json.not_equals", "http://a/ --expect-json $.a!=1"),
    ("expect.json.in", "http://a/ --expect-json $.a␣in␣[1]"),
    ("expect.json.exists", "http://a/ --expect-json !$.a"),
    ("expect.json.matches", "http://a/ --expect-json $.a~b"),
    ("expect.json.min", "http://a/ --expect-json $.a>=1"),
    ("expect.json.max", "http://a/ --expect-json $.a<=1"),
    ("expect.json.is", "http://a/ --expect-json $.a␣is␣null"),
    ("expect.json.missing", "http://a/ --expect-json ?$.a=1"),
    ("expect.contains", "tcp://a:1 --expect-body-contains b"),
    ("expect.max_duration", "http://a/ --max-duration 1s"),
];

/// A key, with those below it, and why it has no argument.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("interval", "one probe has no interval; a longer timeout writes it"),
    ("unhealthy_interval", "one probe has no interval"),
    ("fast_interval", "one probe has no interval"),
    ("healthy_threshold", "one probe makes no verdict"),
    ("rise", "an alias"),
    ("unhealthy_threshold", "one probe makes no verdict"),
    ("fall", "an alias"),
    ("start_period", "one probe makes no verdict"),
    ("jitter", "one probe has no interval"),
    ("checks", "the arguments are one check"),
    ("degraded", "one probe passes or fails; it is written by hand"),
    ("require", "the arguments are one check"),
    ("send.file", "--send-file is a step"),
    ("send.env", "a file holds it: --send-file"),
    ("send.prefix", "--send-file is a step"),
    ("send.suffix", "--send-file is a step"),
    ("steps.send.env", "a file holds it: --send-file"),
    ("steps.send_hex.env", "a file holds it: --send-hex-file"),
    ("basic_auth.password.env", "a file holds it: --basic-auth-password-file"),
    ("basic_auth.password.prefix", "a password has no prefix"),
];

/// The keys below a schema, as paths; a `*` is any name.
fn walk(schema: &Json, all: &Json, path: &str, out: &mut BTreeSet<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Some(name) = schema["$ref"].as_str() {
        walk(&all["$defs"][name.trim_start_matches("#/$defs/")], all, path, out);
    }
    for each in ["anyOf", "oneOf", "allOf"].iter().filter_map(|word| schema[word].as_array()).flatten() {
        walk(each, all, path, out);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], all, path, out);
    }
    if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], all, &below("*"), out);
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let key = below(name);
        let excepted = EXCEPTIONS.iter().any(|(exception, _)| *exception == key);
        out.insert(key.clone());
        if !excepted {
            walk(schema, all, &key, out);
        }
    }
}

/// Whether a table has this key.
fn has(value: &toml::Value, path: &str) -> bool {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let below = |value: &toml::Value| rest.is_none_or(|rest| has(value, rest));
    match value {
        toml::Value::Array(entries) => entries.iter().any(|entry| has(entry, path)),
        toml::Value::Table(table) if name == "*" => table.values().any(below),
        toml::Value::Table(table) => table.get(name).is_some_and(below),
        _ => false,
    }
}

#[test]
fn every_key_of_a_check_has_an_argument() {
    let all = schema();
    let mut keys = BTreeSet::new();
    walk(&all["$defs"]["Health"], &all, "", &mut keys);
    let listed = WRITTEN.iter().chain(EXCEPTIONS).map(|(key, _)| (*key).to_owned());
    assert_eq!(keys, listed.clone().collect(), "left: the keys of a check; right: those of the tables above");
    assert_eq!(listed.count(), keys.len(), "each is in one of the tables, once");
}

#[test]
fn every_argument_of_a_check_writes_its_key() {
    let certificate = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a certificate");
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("write");
        path.display().to_string()
    };
    let cert = file("cert.pem", certificate.cert.pem());
    let key = file("key.pem", certificate.signing_key.serialize_pem());
    let mut given = BTreeSet::new();
    for (path, line) in WRITTEN {
        let replaced = |word: &str| word.replace('␣', " ").replace("CERTIFICATE", &cert).replace("KEY", &key);
        let words: Vec<String> = line.split(' ').map(replaced).collect();
        given.extend(words.iter().filter_map(|word| word.strip_prefix("--")).map(str::to_owned));
        let written = written(&words.iter().map(String::as_str).collect::<Vec<_>>());
        written.load().unwrap_or_else(|error| panic!("{line}: {error}\n{}", written.toml));
        let table: toml::Table = written.toml.parse().expect("TOML");
        assert!(has(&table["pools"]["app"]["health"], path), "{line} does not write {path}:\n{}", written.toml);
    }
    let command = Cli::command();
    let probe = command.find_subcommand("probe").expect("a command");
    let others = ["url", "config", "json"];
    let arguments = probe.get_arguments().filter_map(|arg| arg.get_long()).filter(|name| !others.contains(name));
    let unused: Vec<_> = arguments.filter(|name| !given.contains(*name)).collect();
    assert_eq!(unused, Vec::<&str>::new(), "they write no key");
}

#[test]
fn arguments_that_belong_together_or_exclude_each_other_are_refused_otherwise() {
    for line in ["--client-cert a", "--client-key a", "--port 0", "--port 1 --port-offset 1", "--starttls --starttls"] {
        let words = ["roundsman", "probe", "--url", "tls://a:1"].into_iter().chain(line.split(' '));
        assert!(Cli::command().try_get_matches_from(words).is_err(), "{line}");
    }
    for line in ["--send a", "--preset redis", "--starttls", "--host a", "--url tcp://a:1"] {
        let words = ["roundsman", "probe", "api", "a:1"].into_iter().chain(line.split(' '));
        assert!(Cli::command().try_get_matches_from(words).is_err(), "{line} with a pool");
    }
}
