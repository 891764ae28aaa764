//! What happens in the demo, and the figures at its end.

use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::DemoOptions;
use super::backend::Mood;
use super::keys::Keys;
use super::stage::{Moment, Stage};
use super::traffic::RATE;
use crate::model::HealthState::{Healthy, Unhealthy};

const SECOND: Duration = Duration::from_secs(1);

/// What was measured.
#[derive(Debug, Default)]
struct Figures {
    eject: Vec<(&'static str, Duration)>,
    come_back: Vec<(&'static str, Duration)>,
    reload: Option<Duration>,
    kept: Option<bool>,
}

/// Plays; true if all went as it should.
pub async fn play(options: DemoOptions, interactive: bool) -> Result<bool, String> {
    let colour = std::io::stdout().is_terminal();
    println!("Starting three backends, roundsman in front of them, and {RATE} requests per second.");
    let mut stage = Stage::set_up(colour).await?;
    if options.show_config {
        println!("\n--- the generated configuration\n{}---\n", stage.proxy.config());
    }
    println!("  proxy  http://{}/     try: curl http://{}/", stage.proxy.address, stage.proxy.address);
    println!("  admin  http://{}/     (status, metrics, health)", stage.proxy.admin);
    println!("  pid    {}\n", stage.proxy.pid());
    let mut keys = if interactive { Keys::take() } else { None };
    let mut figures = Figures::default();
    let pressed = match &mut keys {
        None => {
            tell(&mut stage, &mut figures).await?;
            None
        }
        Some(keys) => {
            println!(
                "Keys: 1 2 3 kill or revive, s slow, e errors, r reload, q quit. Until you press one, a story plays.\n"
            );
            tokio::select! {
                told = tell(&mut stage, &mut figures) => { told?; None }
                key = keys.next() => Some(key),
            }
        }
    };
    let told = pressed.is_none();
    if let (Some(keys), Some(first)) = (&mut keys, pressed) {
        obey(&mut stage, keys, first).await?;
    }
    drop(keys);
    close(stage, &figures, told).await
}

/// The story, about half a minute.
async fn tell(stage: &mut Stage, figures: &mut Figures) -> Result<(), String> {
    stage.pass(3 * SECOND).await?;

    stage.say("Killing backend 1: its sockets are reset, as with kill -9");
    let since = Moment::now();
    stage.backends[0].kill();
    figures.eject.push(("killed", stage.wait_for(1, Unhealthy, since).await?));
    stage.pass(2 * SECOND).await?;

    stage.say("Reviving backend 1: it is used again only after two passes");
    let since = Moment::now();
    stage.backends[0].revive().await.map_err(|error| error.to_string())?;
    stage.forget();
    figures.come_back.push(("killed", stage.wait_for(1, Healthy, since).await?));
    stage.pass(SECOND).await?;

    stage.say("Backend 2 turns slow: its check times out after 500 ms");
    let since = Moment::now();
    stage.backends[1].set(Mood::Slow);
    figures.eject.push(("slow", stage.wait_for(2, Unhealthy, since).await?));
    stage.pass(SECOND).await?;

    stage.say("Reloading in the middle (SIGHUP, backend 1 gets weight 2): verdicts are kept");
    let before = unhealthy(stage).await?;
    figures.reload = Some(stage.proxy.reload(2).await?);
    figures.kept = Some(before == unhealthy(stage).await?);
    stage.pass(2 * SECOND).await?;

    stage.say("Backend 2 is quick again");
    let since = Moment::now();
    stage.backends[1].set(Mood::Well);
    stage.forget();
    figures.come_back.push(("slow", stage.wait_for(2, Healthy, since).await?));
    stage.pass(SECOND).await?;

    stage.say("Backend 3 answers 500 to its check, and serves everything else");
    let since = Moment::now();
    stage.backends[2].set(Mood::Sick);
    figures.eject.push(("errors", stage.wait_for(3, Unhealthy, since).await?));
    stage.pass(SECOND).await?;
    stage.say("Backend 3's check is well again");
    let since = Moment::now();
    stage.backends[2].set(Mood::Well);
    stage.forget();
    figures.come_back.push(("errors", stage.wait_for(3, Healthy, since).await?));
    stage.pass(SECOND).await?;

    stage.say("All down: clients get 503 at once, no upstream is tried");
    stage.traffic.tally.dark.store(true, Ordering::Relaxed);
    stage.forget();
    let since = Moment::now();
    stage.backends.iter().for_each(super::backend::Backend::kill);
    for number in 1..=3 {
        stage.wait_for(number, Unhealthy, since).await?;
    }
    stage.pass(2 * SECOND).await?;
    stage.say("All back");
    stage.forget();
    let since = Moment::now();
    for backend in &stage.backends {
        backend.revive().await.map_err(|error| error.to_string())?;
    }
    let mut first = None;
    for number in 1..=3 {
        let back = stage.wait_for(number, Healthy, since).await?;
        first = Some(first.map_or(back, |first: Duration| first.min(back)));
    }
    figures.come_back.extend(first.map(|first| ("all down", first)));
    // Requests that were begun in the dark have ended after this.
    stage.pass(SECOND).await?;
    stage.traffic.tally.dark.store(false, Ordering::Relaxed);
    stage.pass(2 * SECOND).await
}

/// The upstreams that are not healthy.
async fn unhealthy(stage: &Stage) -> Result<Vec<String>, String> {
    let status = stage.proxy.status().await?;
    let upstreams = status.pools.0.iter().flat_map(|(_, pool)| &pool.upstreams);
    Ok(upstreams.filter(|u| u.state != Healthy).map(|u| u.address.clone()).collect())
}

/// Does what keys say until `q`.
async fn obey(stage: &mut Stage, keys: &mut Keys, first: u8) -> Result<(), String> {
    let mut weight = 1;
    let mut key = first;
    loop {
        match key {
            b'1'..=b'3' => {
                let number = usize::from(key - b'0');
                let backend = &stage.backends[number - 1];
                if backend.is_alive() {
                    backend.kill();
                    stage.say(&format!("Killed backend {number}"));
                } else {
                    backend.revive().await.map_err(|error| error.to_string())?;
                    stage.say(&format!("Revived backend {number}"));
                }
            }
            b's' => flip(stage, 1, Mood::Slow, "slow"),
            b'e' => flip(stage, 2, Mood::Sick, "answering 500 to its check"),
            b'r' => {
                weight = 3 - weight;
                let took = stage.proxy.reload(weight).await?;
                stage.say(&format!("Reloaded in {} (backend 1 has weight {weight})", short(took)));
            }
            b'q' | 3 | 4 => return Ok(()),
            _ => stage.say("Keys: 1 2 3 kill or revive, s slow, e errors, r reload, q quit"),
        }
        let all_dead = stage.backends.iter().all(|backend| !backend.is_alive());
        stage.traffic.tally.dark.store(all_dead, Ordering::Relaxed);
        key = loop {
            tokio::select! {
                key = keys.next() => break key,
                passed = stage.pass(SECOND / 5) => passed?,
            }
        };
    }
}

fn flip(stage: &Stage, index: usize, mood: Mood, word: &str) {
    let backend = &stage.backends[index];
    if backend.mood() == mood {
        backend.set(Mood::Well);
        stage.say(&format!("Backend {} is well again", index + 1));
    } else {
        backend.set(mood);
        stage.say(&format!("Backend {} is {word}", index + 1));
    }
}

/// Prints the figures and ends everything. `told`: the whole story was, so every figure is there.
async fn close(stage: Stage, figures: &Figures, told: bool) -> Result<bool, String> {
    let tally = stage.traffic.tally.clone();
    drop(stage.traffic);
    let stopped = stage.proxy.stop().await;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let failed = count(&tally.failed);
    let slowest = Duration::from_micros(count(&tally.refused_slowest_us));
    println!("\nFigures");
    println!("  requests                        {:>8}", count(&tally.sent));
    println!("  answered by a backend           {:>8}", count(&tally.good));
    println!("  failed                          {failed:>8}   (a backend was there for each of them: 0 is right)");
    println!("  503 while all were down         {:>8}   (slowest after {})", count(&tally.refused), short(slowest));
    println!("  broken by killing all at once   {:>8}   (in the moment before the checks saw it)", count(&tally.lost));
    for (what, took) in &figures.eject {
        println!("  time to eject, {what:<16} {:>8}", short(*took));
    }
    for (what, took) in &figures.come_back {
        println!("  time to return, {what:<15} {:>8}", short(*took));
    }
    if let Some(took) = figures.reload {
        println!("  reload applied after            {:>8}", short(took));
    }
    if let Some(kept) = figures.kept {
        println!("  verdicts kept over the reload   {:>8}", if kept { "all" } else { "NOT ALL" });
    }
    for words in tally.words() {
        println!("  a failure: {words}");
    }
    let complete = figures.kept == Some(true) && count(&tally.refused) > 0;
    let good = failed == 0 && stopped && (complete || !told);
    println!("\n{}", if good { "No request failed that should not have." } else { "SOMETHING WENT WRONG, see above." });
    Ok(good)
}

fn short(time: Duration) -> String {
    if time < SECOND { format!("{:.1} ms", time.as_secs_f64() * 1e3) } else { format!("{:.2} s", time.as_secs_f64()) }
}
