//! `roundsman check`: reads a configuration as `run` does, and prints its mistakes or a summary of what it does. Opens
//! no socket. Mistakes go to stderr, the summary to stdout; with `--format json` mistakes and warnings are one array on
//! stdout. `--presets` lists the presets instead.

mod describe;
mod routes;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use describe::describe;
use serde_json::json;

use super::args::FileArgs;
use super::{Failure, locate, text};
use crate::app::load::{EXIT_BAD_CONFIG, LoadError, Loaded, load_file};
use crate::config::diagnostic::render_all;
use crate::config::{Diagnostic, presets};
use crate::model::lookup;
use crate::model::units::counted;

/// The arguments of `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: FileArgs,
    /// List the presets, or print the preset NAME
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["config", "file"])]
    pub presets: Option<String>,
    /// The output format
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Mistakes with their line and a caret; without mistakes, what each pool does.
    Human,
    /// An array of { file, line, column, key, message, expected, suggestion, severity }.
    Json,
}

/// Runs `check`: status 0 for a valid file, 78 for one that has mistakes or cannot be read.
///
/// # Errors
/// Stdout cannot be written.
pub fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    if let Some(name) = &args.presets {
        return run_presets(name, args.format);
    }
    let found = locate::config_file(args.file.path());
    if let (Err(missing), Format::Human) = (&found, args.format) {
        // It is not a mistake of a file, so there is no place to show.
        return Err(Failure::Config(missing.message.clone()));
    }
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (file, result) = match found {
        Ok(file) => (file.clone(), load_file(&file)),
        Err(missing) => (PathBuf::from(&missing.file), Err(LoadError { diagnostics: vec![*missing] })),
    };
    let (stdout, stderr) = match args.format {
        Format::Json => (as_json(&result), String::new()),
        Format::Human => human(&file, &result, colour),
    };
    // If stderr cannot be written there is no way to report it; the exit status still counts.
    let _ = io::stderr().write_all(stderr.as_bytes());
    match (text::print(&stdout), result) {
        // A bad file wins over a failed write; a closed pipe (`| head`) is not a failure.
        (_, Err(_)) => Ok(ExitCode::from(EXIT_BAD_CONFIG)),
        (Ok(()) | Err(Failure::OutputClosed), Ok(_)) => Ok(ExitCode::SUCCESS),
        (Err(failure), Ok(_)) => Err(failure),
    }
}

/// Status 0, or 2 for an unknown preset.
fn run_presets(name: &str, format: Format) -> Result<ExitCode, Failure> {
    let list = presets(name, format).map_err(Failure::NotFound)?;
    text::print(&list).map(|()| ExitCode::SUCCESS)
}

fn as_json(result: &Result<Loaded, LoadError>) -> String {
    let diagnostics: &[Diagnostic] = match result {
        Ok(loaded) => &loaded.warnings,
        Err(error) => &error.diagnostics,
    };
    let mut text = serde_json::to_string_pretty(diagnostics).expect("strings and numbers always serialise");
    text.push('\n');
    text
}

/// The text for stdout and the text for stderr.
fn human(file: &Path, result: &Result<Loaded, LoadError>, colour: bool) -> (String, String) {
    match result {
        Ok(loaded) => {
            let out = format!("{} is valid.\n\n{}", file.display(), describe(&loaded.config));
            (out, render_all(&loaded.warnings, colour))
        }
        // The file is missing: there are no mistakes in it to count, and no line after which a space would help.
        Err(error) if !file.exists() => (String::new(), format!("{}\n", error.render(colour).trim_end())),
        Err(error) => {
            let errors = error.diagnostics.iter().filter(|d| d.severity == crate::config::Severity::Error).count();
            let mistakes = counted(errors, "mistake", "mistakes");
            (String::new(), format!("{}{} has {mistakes}.\n", error.render(colour), file.display()))
        }
    }
}

/// The presets, one line each; the file of one of them; or all as JSON.
fn presets(name: &str, format: Format) -> Result<String, String> {
    let all: Vec<_> = presets::all().collect();
    if name.is_empty() {
        return Ok(match format {
            Format::Json => {
                let list: Vec<_> = all
                    .iter()
                    .map(|p| json!({ "name": p.name, "group": p.group, "summary": p.summary(), "toml": p.text }))
                    .collect();
                format!("{:#}\n", serde_json::Value::from(list))
            }
            Format::Human => list_presets(&all),
        });
    }
    if let Some(preset) = presets::Preset::named(name) {
        return Ok(preset.text.to_owned());
    }
    let names: Vec<_> = all.iter().map(|preset| preset.name).collect();
    let near = lookup::near(name, names.iter().map(|name| (*name).to_owned()));
    Err(match near.as_slice() {
        [] => format!("there is no preset {name:?}; the presets are {}", names.join(", ")),
        near => format!("there is no preset {name:?}; did you mean {}?", near.join(" or ")),
    })
}

fn list_presets(all: &[presets::Preset]) -> String {
    let width = all.iter().map(|preset| preset.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for group in all.chunk_by(|a, b| a.group == b.group) {
        let _ = writeln!(out, "{}", group[0].group);
        for preset in group {
            let _ = writeln!(out, "  {:width$}  {}", preset.name, preset.summary());
        }
        out.push('\n');
    }
    out.push_str(
        "To use one:\n\n  [pools.NAME.health]\n  preset = \"krakend\"\n  port = 8090        # keys written beside it win\n\n\
         `roundsman check --presets NAME` prints its keys, what it catches and what it cannot catch.\n",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    const GOOD: &str = r#"
listeners.web = { address = "0.0.0.0:8080", pool = "api" }
[pools.api]
upstreams = ["10.0.0.1:80", { address = "10.0.0.2:80", weight = 3, health_address = "10.9.0.2:9201" }]
[pools.api.health]
type = "http"
path = "/healthz"
expect = { status = [200, "300-302"], body = { contains = "\"up\"" } }
"#;

    #[test]
    fn a_valid_file_is_described_pool_by_pool_with_its_worst_detection() {
        let (_dir, path) = write(GOOD);
        let (out, err) = human(&path, &load_file(&path), false);
        assert_eq!(err, "");
        let (head, rest) = out.split_once("\n\n").unwrap();
        assert!(head.ends_with("a.toml is valid."));
        assert_eq!(
            rest,
            "listener web on 0.0.0.0:8080: pool api\n0 routes\nadmin on 127.0.0.1:9900\n\n\
             pool api: 2 upstreams, round_robin; 503 while none is healthy\n  \
             probe      http: GET /healthz; expects 200, 300-302 and a body that contains \"\\\"up\\\"\"\n  \
             how often  every 10s (±1s), every 1s until a change is confirmed, each at most 5s\n  \
             verdict    healthy after 2 passes, unhealthy after 3 failures\n  \
             detection  a dead upstream gets no requests after 26s at worst\n  \
             recovery   an upstream that recovers gets requests after 21s at worst\n  \
             upstream   10.0.0.1:80\n  \
             upstream   10.0.0.2:80  (probed at 10.9.0.2:9201, weight 3)\n"
        );
        assert_eq!(as_json(&load_file(&path)), "[]\n");
    }

    #[test]
    fn what_is_not_the_default_of_traffic_is_shown() {
        let text = format!(
            "{GOOD}[pools.api.timeouts]\nrequest = \"30s\"\nconnect = \"2s\"\n[pools.api.retry]\nretries = 2\non = [\"connect\"]\n\
             budget = {{ share = 0.5 }}\n[pools.api.passive]\nconsecutive_failures = 3\nejection = {{ base = \"5s\" }}\n"
        );
        let text = text.replace("[pools.api]\n", "[pools.api]\nupgrades = [\"tls\"]\n");
        let client = "pool = \"api\", timeouts = { header = \"4s\" }, limits = { headers = 50 } }";
        let (_dir, path) = write(&text.replacen("pool = \"api\" }", client, 1));
        let (out, err) = human(&path, &load_file(&path), false);
        assert!(out.contains("\n  clients    header = 4s, headers = 50\n"), "{out}{err}");
        let changed = "  requests   request = 30s, retries = 2, retry.on = [connect], budget = { share = 0.5, min_per_second = 10 }, \
                       consecutive_failures = 3, ejection = { base = 5s, max = 5m, max_share = 0.5 }, upgrades = [tls]\n";
        assert!(out.contains(changed), "{out}");
    }

    #[test]
    fn names_are_shown_and_not_resolved() {
        let text = "listeners.web = { address = \"0.0.0.0:8080\", pool = \"api\" }\n[pools.api]\n\
            upstreams = [\"API.invalid.:7100\", { address = \"10.0.0.2:80\", weight = 3 }]\nresolve = \"5s\"\n\
            min_healthy = 0.5\nhealth = { port_offset = 1 }\n";
        let (_dir, path) = write(text);
        let (out, _) = human(&path, &load_file(&path), false);
        assert!(out.contains("2 upstreams, round_robin; 503 while fewer than 50 % are healthy\n"), "{out}");
        let name = "api.invalid:7100  (each of its addresses, resolved every 5s, probed at api.invalid:7101)\n";
        assert!(out.contains(name), "{out}");
        assert!(out.contains("10.0.0.2:80  (probed at 10.0.0.2:81, weight 3)\n"), "{out}");
    }

    #[test]
    fn a_bad_file_is_reported_on_stderr_and_in_json() {
        let (_dir, path) = write(&GOOD.replace("path =", "paht ="));
        let result = load_file(&path);
        let (out, err) = human(&path, &result, false);
        assert_eq!(out, "");
        assert!(err.contains("a.toml:7:1: error: pools.api.health.paht: unknown key `paht`"), "{err}");
        assert!(err.contains("did you mean `path`?") && err.ends_with("has 1 mistake.\n"), "{err}");
        let json: serde_json::Value = serde_json::from_str(&as_json(&result)).unwrap();
        assert_eq!((&json[0]["line"], &json[0]["suggestion"]), (&7.into(), &"path".into()));
    }

    #[test]
    fn warnings_leave_the_file_valid() {
        let (_dir, path) = write(&GOOD.replace("\\\"up\\\"", "healthy"));
        let result = load_file(&path);
        let (out, err) = human(&path, &result, false);
        assert!(
            out.contains("is valid.") && err.contains(": warning: pools.api.health.expect.body.contains: "),
            "{err}"
        );
    }

    #[test]
    fn several_checks_are_described_one_by_one_and_the_quickest_finds_a_dead_upstream() {
        let health = "[pools.api.health]\nchecks = [{ type = \"http\", path = \"/healthz\", port = 9201, interval = \"30s\" }, \
            { type = \"tls\", tls = { verify = false }, timeout = \"1s\" }]\nrequire = ";
        let head = &GOOD[..GOOD.find("[pools.api.health]").unwrap()];
        let described = |require: &str| {
            let (_dir, path) = write(&format!("{head}{health}{require}\n"));
            describe(&load_file(&path).unwrap().config)
        };
        let out = described("\"all\"");
        assert!(
            out.ends_with(
                "\n  checks     2; all must pass\n  \
                 check      http /healthz\n  \
                 probe      http: GET /healthz on port 9201; expects 200-299\n  \
                 how often  every 30s (±3s), every 1s until a change is confirmed, each at most 5s\n  \
                 verdict    healthy after 2 passes, unhealthy after 3 failures; found after 48s at worst\n  \
                 check      tls\n  \
                 probe      tls: handshake (certificate NOT verified)\n  \
                 how often  every 10s (±1s), every 1s until a change is confirmed, each at most 1s\n  \
                 verdict    healthy after 2 passes, unhealthy after 3 failures; found after 14s at worst\n  \
                 detection  a dead upstream gets no requests after 14s at worst\n  \
                 recovery   an upstream that recovers gets requests after 43s at worst\n  \
                 upstream   10.0.0.1:80  (http /healthz at 10.0.0.1:9201)\n  \
                 upstream   10.0.0.2:80  (http /healthz at 10.9.0.2:9201, tls at 10.9.0.2:9201, weight 3)\n"
            ),
            "{out}"
        );
        assert!(described("\"any\"").contains("2; one must pass"));
        assert!(described("\"any\"").contains("gets no requests after 48s at worst"));
        assert!(described("\"any\"").contains("gets requests after 13s at worst"));
    }

    #[test]
    fn a_longer_unhealthy_interval_delays_recovery() {
        let (_dir, path) = write(&GOOD.replace("type = \"http\"", "type = \"http\"\nunhealthy_interval = \"1m\""));
        let out = describe(&load_file(&path).unwrap().config);
        assert!(
            out.contains("every 10s (±1s), every 1m while unhealthy, every 1s until a change is confirmed"),
            "{out}"
        );
        assert!(
            out.contains(
                "gets no requests after 26s at worst\n  recovery   an upstream that recovers gets requests after 1m16s"
            ),
            "{out}"
        );
    }

    #[test]
    fn the_presets_are_listed_with_how_to_use_them_and_shown_by_name() {
        let list = presets("", Format::Human).unwrap();
        assert!(
            list.contains(
                "\nKrakenD\n  krakend                    KrakenD: its health endpoint, on the traffic port\n"
            ),
            "{list}"
        );
        assert!(list.contains("  preset = \"krakend\"\n") && list.lines().all(|line| line.len() <= 120), "{list}");
        let json: serde_json::Value = serde_json::from_str(&presets("", Format::Json).unwrap()).unwrap();
        assert_eq!((json.as_array().unwrap().len(), &json[0]["name"]), (38, &"aspnet".into()));
        assert!(presets("wso2-mi", Format::Human).unwrap().contains("path = \"/healthz\""));
        for (name, want) in [
            ("krakendd", "there is no preset \"krakendd\"; did you mean krakend?"),
            ("postgres", "there is no preset \"postgres\"; did you mean postgresql?"),
            ("Redis", "there is no preset \"Redis\"; did you mean redis?"),
            ("wso2", "there is no preset \"wso2\"; did you mean wso2-mi or "),
            ("nonsense", "there is no preset \"nonsense\"; the presets are aspnet, rails, "),
        ] {
            let said = presets(name, Format::Human).unwrap_err();
            assert!(said.starts_with(want) && !said.ends_with('\n'), "{name}: {said}");
        }
    }
}
