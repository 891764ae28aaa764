//! `roundsman probe`: runs checks once, with the prober that `run` uses and without a running process, and tells what
//! happened step by step. Of an upstream of the configuration, or (`--url`) of a check that is not written down yet.
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
    /// The upstream: its address, or its host name
    #[arg(required_unless_present = "url")]
    pub upstream: Option<String>,
    /// The configuration file [default: roundsman.toml, else /etc/roundsman/roundsman.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// A check that is not written down yet.
    #[command(flatten)]
    pub trial: trial::TrialArgs,
}

/// Runs the checks once and prints what happened.
pub fn run(args: &ProbeArgs) -> Result<ExitCode, Failure> {
    let reply = match (&args.trial.url, &args.pool, &args.upstream) {
        (Some(url), ..) => of_url(url, &args.trial)?,
        (None, Some(pool), Some(upstream)) => of_file(args.config.as_deref(), pool, upstream)?,
        (None, ..) => unreachable!("the command line demands both, or a URL"),
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
    let file = config.map_or_else(locate::default_file, Path::to_path_buf);
    let loaded = load_file(&file).map_err(|error| bad_configuration(&error))?;
    let runtime = client::runtime()?;
    let config = runtime.block_on(discovery::resolved(&loaded.config, Arc::new(SystemResolver::default())));
    let pool = find_pool(&config, pool)?;
    let upstream = find_upstream(pool, upstream)?;
    let checked = runtime.block_on(check(upstream, pool));
    Ok(TrialReply { pool: Some(pool.name.to_string()), result: checked.result, upstreams: vec![checked], toml: None })
}

fn of_url(url: &str, args: &trial::TrialArgs) -> Result<TrialReply, Failure> {
    let plan = trial::Plan::new(url, args).map_err(Failure::Usage)?;
    client::runtime()?.block_on(async {
        let addresses = plan.resolve().await.map_err(Failure::Runtime)?;
        let written = plan.write(&addresses);
        let config = written.load().map_err(|error| bad_configuration(&error))?;
        let pool = &config.pools[0];
        let named =
            |upstream: &UpstreamPolicy| UpstreamPolicy { name: plan.name().map(Into::into), ..upstream.clone() };
        let named: Vec<UpstreamPolicy> = pool.upstreams.iter().map(named).collect();
        let upstreams = join_all(named.iter().map(|upstream| check(upstream, pool))).await;
        // One address of a name is enough to see that the check is what was meant.
        let passes = upstreams.iter().any(|upstream| upstream.result == Verdict::Pass);
        let result = if passes { Verdict::Pass } else { Verdict::Fail };
        Ok(TrialReply { pool: None, upstreams, result, toml: Some(written.toml) })
    })
}

fn bad_configuration(error: &LoadError) -> Failure {
    Failure::Config(error.render(false).trim_end().to_owned())
}

fn find_pool<'c>(config: &'c Config, name: &str) -> Result<&'c PoolPolicy, Failure> {
    let found = config.pools.iter().find(|pool| pool.name.as_str() == name);
    found.map(|pool| &**pool).ok_or_else(|| {
        let near = lookup::near(name, config.pools.iter().map(|pool| pool.name.to_string()));
        let suggestion = lookup::Missing { several: false, near }.suggestion();
        Failure::NotFound(format!("there is no pool {name:?}{suggestion}"))
    })
}

fn find_upstream<'p>(pool: &'p PoolPolicy, text: &str) -> Result<&'p UpstreamPolicy, Failure> {
    let all = pool.upstreams.iter().map(|upstream| (&upstream.address, upstream.name.as_deref()));
    let index = lookup::upstream(text, all).map_err(|missing| {
        Failure::NotFound(format!("pool {:?} has no upstream {text:?}{}", pool.name.as_str(), missing.suggestion()))
    })?;
    Ok(&pool.upstreams[index])
}

/// Every check of an upstream at once, each under its own timeout.
async fn check(upstream: &UpstreamPolicy, pool: &PoolPolicy) -> TrialInfo {
    let reports = join_all(pool.checks.iter().map(|check| probe_once(upstream, check))).await;
    let checks = pool.checks.iter().zip(&reports).map(|(check, report)| told(upstream, check, report));
    let needed = pool.require.needed(pool.checks.len());
    let passes = reports.iter().filter(|report| report.code.judgement() == Judgement::Pass).count();
    TrialInfo {
        upstream: upstream.address.to_string(),
        name: upstream.name.as_deref().map(str::to_owned),
        result: if passes >= needed { Verdict::Pass } else { Verdict::Fail },
        needed,
        checks: checks.collect(),
    }
}

async fn probe_once(upstream: &UpstreamPolicy, check: &CheckPolicy) -> ProbeReport {
    let target = check.spec.target(upstream);
    let (name, timeout) = (upstream.name.as_deref(), check.timing.timeout);
    Prepared::new(&target, &upstream.address, name, &check.spec, timeout).run().await
}

fn told(upstream: &UpstreamPolicy, check: &CheckPolicy, report: &ProbeReport) -> TrialCheckInfo {
    let target = check.spec.target(upstream);
    let name = upstream.name.as_deref();
    let probed = Probed { upstream: &upstream.address, name, target: &target, spec: &check.spec, report };
    TrialCheckInfo {
        name: check.name.to_string(),
        probe: check.spec.to_string(),
        result: Verdict::of(report.code),
        code: report.code.to_string(),
        status: report.status,
        duration_ms: report.duration.as_micros() as f64 / 1e3,
        reason: report.sentence(),
        steps: steps_of(&probed),
    }
}

/// For people: each check with its steps, then the verdict, then what to write down.
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
        out.push_str(&format!(": {passes} of {total} checks pass, {needed} must"));
    }
    out.push('\n');
    out
}
