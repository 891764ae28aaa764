//! `roundsman check`: reads a configuration as `run` would, and says what is wrong with it or what it would do. Opens no
//! socket. Mistakes go to stderr, what the file means to stdout; as JSON both are one array on stdout.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::locate;
use crate::app::load::{EXIT_BAD_CONFIG, LoadError, Loaded, load_file};
use crate::config::Diagnostic;
use crate::config::diagnostic::render_all;
use crate::config::units::show_duration;
use crate::model::policy::{
    Balance, CheckPolicy, Config, MinHealthy, PoolPolicy, ProbeSpec, UpstreamPolicy, WhenNoHealthy,
};
use crate::model::{AdminState, Weight};

/// How many upstreams of a pool are listed.
const UPSTREAMS_LISTED_MAX: usize = 20;

/// The arguments of `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The configuration file [default: roundsman.toml, else /etc/roundsman/roundsman.toml]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How mistakes are shown
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// How mistakes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// With the line and a caret; then what each pool does.
    Human,
    /// An array of { file, line, column, key, message, expected, suggestion, severity }.
    Json,
}

/// Runs `check`: 0 where the file could be run, 78 where not.
pub fn run(args: &CheckArgs) -> ExitCode {
    let file = args.config.clone().unwrap_or_else(locate::default_file);
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let result = load_file(&file);
    let (stdout, stderr) = match args.format {
        Format::Json => (json(&result), String::new()),
        Format::Human => human(&file, &result, colour),
    };
    // Nobody may be reading any more; the exit status still tells.
    let _ = io::stderr().write_all(stderr.as_bytes());
    let _ = io::stdout().write_all(stdout.as_bytes());
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_BAD_CONFIG) }
}

fn json(result: &Result<Loaded, LoadError>) -> String {
    let diagnostics: &[Diagnostic] = match result {
        Ok(loaded) => &loaded.warnings,
        Err(error) => &error.diagnostics,
    };
    let mut text = serde_json::to_string_pretty(diagnostics).expect("strings and numbers always serialise");
    text.push('\n');
    text
}

/// What goes to stdout and what to stderr.
fn human(file: &Path, result: &Result<Loaded, LoadError>, colour: bool) -> (String, String) {
    match result {
        Ok(loaded) => {
            let out = format!("{} is good.\n\n{}", file.display(), describe(&loaded.config));
            (out, render_all(&loaded.warnings, colour))
        }
        Err(error) => {
            let errors = error.diagnostics.iter().filter(|d| d.severity == crate::config::Severity::Error).count();
            let mistakes = if errors == 1 { "1 mistake".to_owned() } else { format!("{errors} mistakes") };
            (String::new(), format!("{}{} has {mistakes}.\n", error.render(colour), file.display()))
        }
    }
}

/// What a configuration does: where it listens, and per pool what is probed, how often, and how long a dead upstream can
/// go unnoticed.
pub fn describe(config: &Config) -> String {
    let mut out = String::new();
    for listener in &config.listeners {
        let pool = listener.pool.as_ref().map_or("404 without a route".to_owned(), |pool| format!("pool {pool}"));
        let _ = writeln!(out, "listener {} on {}: {pool}", listener.name, listener.address);
    }
    let routes = config.routes.len();
    let _ = writeln!(out, "{routes} {}", if routes == 1 { "route" } else { "routes" });
    let token = if config.admin.token.is_some() { ", with a token" } else { "" };
    let _ = writeln!(out, "admin on {}{token}", config.admin.address);
    for pool in &config.pools {
        out.push('\n');
        describe_pool(pool, &mut out);
    }
    out
}

fn describe_pool(pool: &PoolPolicy, out: &mut String) {
    let balance = match pool.balance {
        Balance::RoundRobin => "round_robin",
        Balance::Random => "random",
        Balance::LeastRequest => "least_request",
    };
    let total = pool.upstreams.len();
    let s = if total == 1 { "" } else { "s" };
    let _ = writeln!(out, "pool {}: {total} upstream{s}, {balance}; {}", pool.name, when_no_healthy(pool));
    let _ = writeln!(out, "  probe      {}", pool.checks[0].spec);
    let _ = writeln!(out, "  how often  {}", how_often(&pool.checks[0]));
    let t = &pool.checks[0].timing;
    let _ = writeln!(
        out,
        "  verdict    healthy after {}, unhealthy after {}",
        times(t.healthy_threshold, "pass", "passes"),
        times(t.unhealthy_threshold, "failure", "failures")
    );
    let _ = writeln!(out, "  detection  a dead upstream gets no requests after {} at worst", show(t.worst_detection()));
    for upstream in pool.upstreams.iter().take(UPSTREAMS_LISTED_MAX) {
        let _ = writeln!(out, "  upstream   {}{}", upstream.address, notes(upstream, &pool.checks[0].spec));
    }
    if total > UPSTREAMS_LISTED_MAX {
        let _ = writeln!(out, "  and {} more", total - UPSTREAMS_LISTED_MAX);
    }
}

fn when_no_healthy(pool: &PoolPolicy) -> String {
    let fewer = match pool.min_healthy {
        MinHealthy::Count(1) => "with none healthy".to_owned(),
        MinHealthy::Count(_) | MinHealthy::Share(_) => {
            format!("with fewer than {} healthy", pool.min_healthy.needed(pool.upstreams.len()))
        }
    };
    match &pool.when_no_healthy {
        WhenNoHealthy::Reject => format!("{fewer}, 503"),
        WhenNoHealthy::FailOpen => format!("{fewer}, all are used"),
        WhenNoHealthy::Pool(other) => format!("{fewer}, pool {other}"),
    }
}

fn how_often(check: &CheckPolicy) -> String {
    let t = &check.timing;
    let mut out = format!("every {}", show(t.interval));
    if t.jitter.as_f64() > 0.0 {
        let _ = write!(out, " (±{})", show(t.interval.mul_f64(t.jitter.as_f64())));
    }
    let _ = write!(out, ", every {} while a change is open, each at most {}", show(t.fast_interval), show(t.timeout));
    if !t.start_period.is_zero() {
        let _ = write!(out, "; failures count after {}", show(t.start_period));
    }
    out
}

fn notes(upstream: &UpstreamPolicy, spec: &ProbeSpec) -> String {
    let mut notes = Vec::new();
    let target = spec.target(upstream);
    if target != upstream.address {
        notes.push(format!("probed at {target}"));
    }
    if upstream.weight != Weight::ONE {
        notes.push(format!("weight {}", upstream.weight.as_u32()));
    }
    if upstream.backup {
        notes.push("backup".to_owned());
    }
    if upstream.admin != AdminState::Enabled {
        notes.push(upstream.admin.to_string());
    }
    if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) }
}

fn times(count: u32, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// Rounded to what a reader cares for: nobody schedules probes by the microsecond.
fn show(duration: std::time::Duration) -> String {
    show_duration(std::time::Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
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
    fn a_good_file_is_told_pool_by_pool_with_its_worst_detection() {
        let (_dir, path) = write(GOOD);
        let (out, err) = human(&path, &load_file(&path), false);
        assert_eq!(err, "");
        let (head, rest) = out.split_once("\n\n").unwrap();
        assert!(head.ends_with("a.toml is good."));
        assert_eq!(
            rest,
            "listener web on 0.0.0.0:8080: pool api\n0 routes\nadmin on 127.0.0.1:9900\n\n\
             pool api: 2 upstreams, round_robin; with none healthy, 503\n  \
             probe      http: GET /healthz; expects 200, 300-302 and a body that contains \"\\\"up\\\"\"\n  \
             how often  every 10s (±1s), every 1s while a change is open, each at most 5s\n  \
             verdict    healthy after 2 passes, unhealthy after 3 failures\n  \
             detection  a dead upstream gets no requests after 26s at worst\n  \
             upstream   10.0.0.1:80\n  \
             upstream   10.0.0.2:80  (probed at 10.9.0.2:9201, weight 3)\n"
        );
        assert_eq!(json(&load_file(&path)), "[]\n");
    }

    #[test]
    fn a_bad_file_is_told_on_stderr_and_in_json() {
        let (_dir, path) = write(&GOOD.replace("path =", "paht ="));
        let result = load_file(&path);
        let (out, err) = human(&path, &result, false);
        assert_eq!(out, "");
        assert!(err.contains("a.toml:7:1: error: pools.api.health.paht: unknown key `paht`"), "{err}");
        assert!(err.contains("did you mean `path`?") && err.ends_with("has 1 mistake.\n"), "{err}");
        let json: serde_json::Value = serde_json::from_str(&json(&result)).unwrap();
        assert_eq!((&json[0]["line"], &json[0]["suggestion"]), (&7.into(), &"path".into()));
    }

    #[test]
    fn warnings_leave_the_file_good() {
        let (_dir, path) = write(&GOOD.replace("\\\"up\\\"", "healthy"));
        let result = load_file(&path);
        let (out, err) = human(&path, &result, false);
        assert!(
            out.contains("is good.") && err.contains(": warning: pools.api.health.expect.body.contains: "),
            "{err}"
        );
    }
}
