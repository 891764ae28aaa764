//! `roundsman probe`: runs checks once, with the prober of `run` but without a running process, and shows every step.
//! The checks are those of an upstream of the configuration or, with `--url`, one that is not in the configuration yet.
//!
//! Exit status: 0 pass; 1 fail; 2 no such pool or upstream; 78 bad configuration.

mod trial;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use futures_util::future::join_all;

use super::text::{self, Colour, Paint, one_line};
use super::{Failure, client, locate, steps};
use crate::admin::json::{TrialCheckInfo, TrialInfo, TrialReply, Verdict};
use crate::app::load::{LoadError, load_file};
use crate::discovery::{self, SystemResolver};
use crate::model::policy::{CheckPolicy, Config, PoolPolicy, UpstreamPolicy};
use crate::model::trace::{Probed, steps as steps_of};
use crate::model::{Judgement, ProbeReport, lookup};
use crate::probe::Prepared;

/// The arguments of `probe`.
#[derive(Debug, Clone, Args)]
pub struct ProbeArgs {
    /// The pool
    #[arg(required_unless_present = "url")]
    pub pool: Option<String>,
    /// The upstream: its address or host name
    #[arg(required_unless_present = "url")]
    pub upstream: Option<String>,
    /// The configuration file [default: roundsman.toml, else /etc/roundsman/roundsman.toml]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// A check given by its URL.
    #[command(flatten)]
    pub trial: trial::TrialArgs,
    /// The steps of that check.
    #[command(flatten)]
    pub steps: trial::StepArgs,
}

/// Runs the checks once and prints their steps.
pub fn run(args: &ProbeArgs) -> Result<ExitCode, Failure> {
    let reply = match (&args.trial.url, &args.pool, &args.upstream) {
        (Some(url), ..) => of_url(url, args)?,
        (None, Some(pool), Some(upstream)) => of_file(args.config.as_deref(), pool, upstream)?,
        (None, ..) => unreachable!("clap requires both, or a URL"),
    };
    if args.json {
        let json = serde_json::to_string_pretty(&reply).map_err(|error| Failure::Runtime(error.to_string()))?;
        text::print(&format!("{json}\n"))?;
    } else {
        text::print(&render(&reply, Paint::for_stdout()))?;
    }
    Ok(match reply.result {
        Verdict::Pass => ExitCode::SUCCESS,
        Verdict::Fail => ExitCode::FAILURE,
    })
}

fn of_file(config: Option<&Path>, pool: &str, upstream: &str) -> Result<TrialReply, Failure> {
    let file = locate::config_file(config).map_err(|missing| Failure::Config(missing.message))?;
    let loaded = load_file(&file).map_err(|error| bad_configuration(&error))?;
    let found = find_pool(&loaded.config, pool)?.clone();
    let name = found.name.to_string();
    // Only the host names of this pool have to be resolved.
    let config = Config { pools: vec![found], ..loaded.config };
    client::runtime()?.block_on(async {
        let config = discovery::resolved(&config, Arc::new(SystemResolver::default())).await;
        let pool = &config.pools[0];
        let checked = check_all(&find_upstreams(pool, upstream)?, pool).await?;
        // Each address of a host name is an upstream with its own verdict.
        let passes = checked.iter().all(|upstream| upstream.result == Verdict::Pass);
        Ok(TrialReply { pool: Some(name), upstreams: checked, result: verdict(passes), toml: None })
    })
}

fn of_url(url: &str, args: &ProbeArgs) -> Result<TrialReply, Failure> {
    let written = trial::Plan::new(url, &args.trial, &args.steps).map_err(Failure::Usage)?.write();
    let config = written.load().map_err(|error| bad_configuration(&error))?;
    client::runtime()?.block_on(async {
        let config = discovery::resolved(&config, Arc::new(SystemResolver::default())).await;
        let pool = &config.pools[0];
        let checked = check_all(&pool.upstreams.iter().collect::<Vec<_>>(), pool).await?;
        // One passing address shows that the check itself is right.
        let passes = checked.iter().any(|upstream| upstream.result == Verdict::Pass);
        Ok(TrialReply { pool: None, upstreams: checked, result: verdict(passes), toml: Some(written.toml) })
    })
}

fn verdict(passes: bool) -> Verdict {
    if passes { Verdict::Pass } else { Verdict::Fail }
}

fn bad_configuration(error: &LoadError) -> Failure {
    Failure::Config(error.render(false).trim_end().to_owned())
}

fn find_pool<'c>(config: &'c Config, name: &str) -> Result<&'c Arc<PoolPolicy>, Failure> {
    let found = config.pools.iter().find(|pool| pool.name.as_str() == name);
    let names = config.pools.iter().map(|pool| pool.name.to_string());
    found.ok_or_else(|| Failure::NotFound(lookup::no_pool(name, names)))
}

/// The upstreams that an argument names: one by its address, or all of a host name.
fn find_upstreams<'p>(pool: &'p PoolPolicy, text: &str) -> Result<Vec<&'p UpstreamPolicy>, Failure> {
    let all = pool.upstreams.iter().map(|upstream| (&upstream.address, upstream.name.as_deref()));
    let found = lookup::upstreams(text, all).map_err(|missing| {
        Failure::NotFound(format!("pool {:?} has no upstream {text:?}{}", pool.name.as_str(), missing.suggestion()))
    })?;
    Ok(found.into_iter().map(|index| &pool.upstreams[index]).collect())
}

/// Runs the checks of these upstreams concurrently.
async fn check_all(upstreams: &[&UpstreamPolicy], pool: &PoolPolicy) -> Result<Vec<TrialInfo>, Failure> {
    if let Some(host) = upstreams.iter().find_map(|upstream| upstream.address.host_name()) {
        return Err(Failure::Runtime(format!("{host} does not resolve to an address")));
    }
    Ok(join_all(upstreams.iter().map(|upstream| check(upstream, pool))).await)
}

/// Runs every check of an upstream concurrently, each with its own timeout.
async fn check(upstream: &UpstreamPolicy, pool: &PoolPolicy) -> TrialInfo {
    let reports = join_all(pool.checks.iter().map(|check| probe_once(upstream, check))).await;
    let checks = pool.checks.iter().zip(&reports).map(|(check, report)| check_info(upstream, check, report));
    let needed = pool.require.needed(pool.checks.len());
    let passes = reports.iter().filter(|report| report.code.judgement() == Judgement::Pass).count();
    TrialInfo {
        upstream: upstream.address.to_string(),
        name: upstream.name.as_deref().map(str::to_owned),
        result: verdict(passes >= needed),
        needed,
        checks: checks.collect(),
    }
}

async fn probe_once(upstream: &UpstreamPolicy, check: &CheckPolicy) -> ProbeReport {
    let target = check.spec.target(upstream);
    let (name, timeout) = (upstream.name.as_deref(), check.timing.timeout);
    Prepared::new(&target, &upstream.address, name, &check.spec, timeout).run().await
}

fn check_info(upstream: &UpstreamPolicy, check: &CheckPolicy, report: &ProbeReport) -> TrialCheckInfo {
    let target = check.spec.target(upstream);
    let name = upstream.name.as_deref();
    let probed = Probed { upstream: &upstream.address, name, target: &target, spec: &check.spec, report };
    TrialCheckInfo {
        name: check.name.to_string(),
        preset: check.preset.map(str::to_owned),
        probe: check.spec.to_string(),
        result: Verdict::of(report.code),
        code: report.code.to_string(),
        status: report.status,
        duration_ms: report.duration.as_micros() as f64 / 1e3,
        reason: report.sentence(),
        steps: steps_of(&probed),
    }
}

/// As text: each check with its steps, the result, and for `--url` the lines to add to the file.
fn render(reply: &TrialReply, paint: Paint) -> String {
    let mut out = String::new();
    for upstream in &reply.upstreams {
        out.push_str(&render_upstream(reply.pool.as_deref(), upstream, paint));
    }
    if let Some(toml) = &reply.toml {
        out.push_str(&format!("\n{}", text::Visible(toml)));
    }
    out
}

fn render_upstream(pool: Option<&str>, upstream: &TrialInfo, paint: Paint) -> String {
    let name = upstream.name.as_deref().map_or(String::new(), |name| format!(" ({})", one_line(name)));
    let title = pool.map_or(String::new(), |pool| format!("{} ", one_line(pool)));
    let title = format!("{title}{}{name}", one_line(&upstream.upstream));
    let mut out = format!("{}\n", paint.text(Some(Colour::Bold), &title));
    for check in &upstream.checks {
        out.push_str(&format!("{}  {}\n", one_line(&check.name), one_line(&check.probe)));
        out.push_str(&steps::render(&check.steps, "  ", paint));
    }
    let passes = upstream.checks.iter().filter(|check| check.result == Some(Verdict::Pass)).count();
    let (word, colour) = match upstream.result {
        Verdict::Pass => ("pass", Colour::Green),
        Verdict::Fail => ("fail", Colour::Red),
    };
    out.push_str(&paint.text(Some(colour), word));
    if upstream.checks.len() > 1 {
        let (total, needed) = (upstream.checks.len(), upstream.needed);
        out.push_str(&format!(": {passes} of {total} checks pass, {needed} required"));
    }
    out.push('\n');
    out
}
