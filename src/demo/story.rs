//! The script of the demo, and the figures at its end.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::backend::Mood;
use super::keys::Keys;
use super::stage::{Moment, Stage};
use super::traffic::{RATE, Tally};
use super::{DemoOptions, Ended, output};
use crate::model::HealthState::{Healthy, Unhealthy};
use crate::model::units::counted;

const SECOND: Duration = Duration::from_secs(1);
const KEYS: &str = "Keys: 1 2 3 kill or revive, s slow, e errors, r reload, q quit";
const CONTROL_C: u8 = 3;
const CONTROL_D: u8 = 4;

/// The measurements.
#[derive(Debug, Default)]
struct Figures {
    eject: Vec<(&'static str, Duration)>,
    come_back: Vec<(&'static str, Duration)>,
    reload: Option<Duration>,
    kept: Option<bool>,
}

/// Runs the demo; true if everything went as it should.
pub async fn play(options: DemoOptions, interactive: bool) -> Result<bool, Ended> {
    let colour = std::io::stdout().is_terminal() && crate::telemetry::colour_wanted();
    output::line(&format!("Starting three backends, roundsman in front of them, and {RATE} requests per second."))?;
    let mut stage = Stage::set_up(colour).await?;
    if options.show_config {
        output::line(&format!("\n--- the generated configuration\n{}---\n", stage.proxy.config()))?;
    }
    output::line(&format!(
        "  proxy  http://{0}/     try: curl http://{0}/\n  admin  http://{1}/     (status, metrics, health)\n  pid    {2}\n",
        stage.proxy.address,
        stage.proxy.admin,
        stage.proxy.pid()
    ))?;
    let mut figures = Figures::default();
    match perform(&mut stage, &mut figures, interactive).await {
        Ok(complete) => close(stage, &figures, complete).await,
        Err(Ended::Problem(problem)) => Err(Ended::Problem(stage.explain(problem).await)),
        Err(closed @ Ended::OutputClosed) => Err(closed),
    }
}

/// The script, and what the keys say; true if the script came to its end.
async fn perform(stage: &mut Stage, figures: &mut Figures, interactive: bool) -> Result<bool, Ended> {
    let mut keys = if interactive { Keys::take() } else { None };
    let Some(keys) = &mut keys else {
        run_script(stage, figures).await?;
        return Ok(true);
    };
    output::line(&format!("{KEYS}. Until you press one, a script runs.\n"))?;
    let pressed = tokio::select! {
        done = run_script(stage, figures) => { done?; None }
        key = keys.next() => Some(key),
    };
    if let Some(first) = pressed {
        obey(stage, keys, first).await?;
    }
    Ok(pressed.is_none())
}

/// The script; takes about half a minute.
async fn run_script(stage: &mut Stage, figures: &mut Figures) -> Result<(), Ended> {
    stage.pass(3 * SECOND).await?;

    stage.say("Killing backend 1: its sockets are reset, as with kill -9")?;
    let since = Moment::now();
    stage.kill(1);
    figures.eject.push(("killed", stage.wait_for(1, Unhealthy, since).await?));
    stage.pass(2 * SECOND).await?;

    stage.say("Reviving backend 1: it gets requests again only after two passes")?;
    let since = Moment::now();
    stage.revive(1).await?;
    stage.forget();
    figures.come_back.push(("killed", stage.wait_for(1, Healthy, since).await?));
    stage.pass(SECOND).await?;

    stage.say("Backend 2 becomes slow: its check times out after 500 ms")?;
    let since = Moment::now();
    stage.set(2, Mood::Slow);
    figures.eject.push(("slow", stage.wait_for(2, Unhealthy, since).await?));
    stage.pass(SECOND).await?;

    stage.say("Reloading the configuration (backend 1 gets weight 2): verdicts are kept")?;
    let before = unhealthy(stage).await?;
    let (_, reloaded) = stage.reload().await?;
    if let Some(problem) = reloaded.refused {
        return Err(Ended::Problem(format!("the reload was refused: {problem}")));
    }
    figures.reload = Some(reloaded.took);
    figures.kept = Some(before == unhealthy(stage).await?);
    stage.pass(2 * SECOND).await?;

    stage.say("Backend 2 is fast again")?;
    let since = Moment::now();
    stage.set(2, Mood::Well);
    stage.forget();
    figures.come_back.push(("slow", stage.wait_for(2, Healthy, since).await?));
    stage.pass(SECOND).await?;

    stage.say("Backend 3 answers 500 to its check, and serves everything else")?;
    let since = Moment::now();
    stage.set(3, Mood::Sick);
    figures.eject.push(("errors", stage.wait_for(3, Unhealthy, since).await?));
    stage.pass(SECOND).await?;
    stage.say("Backend 3 answers its check with 200 again")?;
    let since = Moment::now();
    stage.set(3, Mood::Well);
    stage.forget();
    figures.come_back.push(("errors", stage.wait_for(3, Healthy, since).await?));
    stage.pass(SECOND).await?;

    stage.say("All backends down: clients get 503 at once, without a connection attempt")?;
    stage.forget();
    let since = Moment::now();
    (1..=3).for_each(|number| stage.kill(number));
    for number in 1..=3 {
        stage.wait_for(number, Unhealthy, since).await?;
    }
    stage.pass(2 * SECOND).await?;
    stage.say("Reviving all backends")?;
    stage.forget();
    let since = Moment::now();
    for number in 1..=3 {
        stage.revive(number).await?;
    }
    let mut first = None;
    for number in 1..=3 {
        let back = stage.wait_for(number, Healthy, since).await?;
        first = Some(first.map_or(back, |first: Duration| first.min(back)));
    }
    figures.come_back.extend(first.map(|first| ("all down", first)));
    stage.pass(3 * SECOND).await
}

/// The upstreams that are not healthy.
async fn unhealthy(stage: &Stage) -> Result<Vec<String>, Ended> {
    let status = stage.proxy.status().await?;
    let upstreams = status.pools.0.iter().flat_map(|(_, pool)| &pool.upstreams);
    Ok(upstreams.filter(|u| u.state != Healthy).map(|u| u.address.clone()).collect())
}

/// Obeys the keys until `q`.
async fn obey(stage: &mut Stage, keys: &mut Keys, first: u8) -> Result<(), Ended> {
    let mut key = first;
    loop {
        match key {
            b'1'..=b'3' => {
                let number = usize::from(key - b'0');
                if stage.backend(number).0 {
                    stage.kill(number);
                    stage.say(&format!("Killed backend {number}"))?;
                } else {
                    // Another process may have taken its port; a later try may succeed.
                    match stage.revive(number).await {
                        Ok(()) => stage.say(&format!("Revived backend {number}"))?,
                        Err(problem) => stage.say(&problem)?,
                    }
                }
            }
            b's' => flip(stage, 2, Mood::Slow, "slow")?,
            b'e' => flip(stage, 3, Mood::Sick, "answering 500 to its check")?,
            b'r' => {
                let (weight, reloaded) = stage.reload().await?;
                let took = short(reloaded.took);
                match reloaded.refused {
                    None => stage.say(&format!("Reloaded in {took} (backend 1 has weight {weight})"))?,
                    Some(problem) => stage.say(&format!("The reload was refused after {took}: {problem}"))?,
                }
            }
            b'q' | CONTROL_C | CONTROL_D => return Ok(()),
            _ => stage.say(KEYS)?,
        }
        key = loop {
            tokio::select! {
                key = keys.next() => break key,
                passed = stage.pass(SECOND / 5) => passed?,
            }
        };
    }
}

fn flip(stage: &mut Stage, number: usize, mood: Mood, word: &str) -> Result<(), Ended> {
    match stage.backend(number) {
        (false, _) => stage.say(&format!("Backend {number} is dead: press {number} to revive it first")),
        (true, now) if now == mood => {
            stage.set(number, Mood::Well);
            stage.say(&format!("Backend {number} is healthy again"))
        }
        (true, _) => {
            stage.set(number, mood);
            stage.say(&format!("Backend {number} is {word}"))
        }
    }
}

/// Prints the figures and stops everything. `complete`: the whole script ran, so every figure must be there.
async fn close(stage: Stage, figures: &Figures, complete: bool) -> Result<bool, Ended> {
    let tally = stage.traffic.tally.clone();
    drop(stage.traffic);
    let stopped = stage.proxy.stop().await;
    output::line(&report(figures, &tally))?;
    let problems = problems(figures, &tally, complete, stopped.err());
    if problems.is_empty() {
        output::line("No request failed that should not have.")?;
        return Ok(true);
    }
    output::line(&format!("SOMETHING WENT WRONG:\n  {}", problems.join("\n  ")))?;
    Ok(false)
}

/// The figures as text.
fn report(figures: &Figures, tally: &Tally) -> String {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let slowest = short(Duration::from_micros(count(&tally.refused_slowest_us)));
    let mut lines = vec![
        "\nFigures".to_owned(),
        format!("  requests                        {:>8}", count(&tally.sent)),
        format!("  answered by a backend           {:>8}", count(&tally.good)),
        format!("  failed                          {:>8}   (a backend was available: must be 0)", count(&tally.failed)),
        format!("  503 while none could serve      {:>8}   (slowest after {slowest})", count(&tally.refused)),
        format!("  broken by killing several       {:>8}   (before the checks detected it)", count(&tally.lost)),
    ];
    let took = |what: String, took: Duration| format!("  {what:<31} {:>8}", short(took));
    lines.extend(figures.eject.iter().map(|(what, time)| took(format!("time to eject, {what}"), *time)));
    lines.extend(figures.come_back.iter().map(|(what, time)| took(format!("time to return, {what}"), *time)));
    lines.extend(figures.reload.map(|time| took("reload applied after".to_owned(), time)));
    let kept = figures.kept.map(|kept| if kept { "all" } else { "NOT ALL" });
    lines.extend(kept.map(|kept| format!("  verdicts kept over the reload   {kept:>8}")));
    lines.join("\n") + "\n"
}

/// Everything that went wrong, one line each. `unstopped`: why the proxy did not stop as it should.
fn problems(figures: &Figures, tally: &Tally, complete: bool, unstopped: Option<String>) -> Vec<String> {
    let mut problems = vec![];
    let failed = tally.failed.load(Ordering::Relaxed);
    if failed > 0 {
        let requests = counted(failed, "request", "requests");
        let first = tally.words().join("; ");
        problems.push(format!("{requests} failed although a backend could serve; the first: {first}"));
    }
    if complete && figures.kept != Some(true) {
        problems.push("the reload changed which backends are unhealthy: verdicts must be kept".to_owned());
    }
    if complete && tally.refused.load(Ordering::Relaxed) == 0 {
        problems.push("no request was answered with 503 while all backends were down".to_owned());
    }
    problems.extend(unstopped);
    problems
}

fn short(time: Duration) -> String {
    if time < SECOND { format!("{:.1} ms", time.as_secs_f64() * 1e3) } else { format!("{:.2} s", time.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named() {
        let well = Figures { kept: Some(true), ..Figures::default() };
        let tally = Tally::default();
        assert_eq!(
            problems(&well, &tally, false, None),
            Vec::<String>::new(),
            "an interrupted script need not be complete"
        );
        let missing = problems(&Figures::default(), &tally, true, Some("it did not stop".to_owned())).join("\n");
        for part in ["verdicts must be kept", "no request was answered with 503", "it did not stop"] {
            assert!(missing.contains(part), "{missing}");
        }
        tally.refused.store(3, Ordering::Relaxed);
        assert_eq!(problems(&well, &tally, true, None), Vec::<String>::new());
        tally.failed.store(2, Ordering::Relaxed);
        assert!(problems(&well, &tally, true, None)[0].starts_with("2 requests failed although"));
        assert!(
            report(&well, &tally).contains("verdicts kept over the reload        all\n"),
            "{}",
            report(&well, &tally)
        );
    }
}
