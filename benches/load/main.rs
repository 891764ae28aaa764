//! The load that `benches/compare` needs and wrk cannot make: a new connection per request, WebSocket messages through a
//! tunnel, a constant rate, and many idle connections. Also the origin for answers that nginx cannot make.
//!
//! Only the standard library and one blocking thread per connection: `rustc -O` compiles it alone in a few seconds, and on
//! the core that it shares with the backends it costs about as much as an event loop. Every run prints one line of JSON.
//! Without arguments (`cargo test --benches`, `cargo bench`) it runs every kind of load against its own origin, once.

#![forbid(unsafe_code)]
// The house's clock is tokio's, which is not here.
#![allow(clippy::disallowed_types)]

mod drive;
mod origin;
mod wire;

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use drive::{Load, Report};

const USAGE: &str = "\
load origin --listen ADDR
load fresh  --to ADDR --path PATH --connections N --seconds S   a new connection per request, which the server closes
load echo   --to ADDR --path PATH --connections N --seconds S   WebSocket messages of 1 KiB, one in flight per connection
load rate   --to ADDR --path PATH --connections N --rate R --requests N   R requests per second, whatever the answers do
load idle   --to ADDR --path PATH --connections N   one request per connection; keeps them open until its input ends";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench` and its own filters to every benchmark.
    let alone = words.first().is_none_or(|word| word.starts_with('-')) || words.iter().any(|word| word == "--bench");
    match if alone { test_itself() } else { run(&words) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("load: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), String> {
    let options = Options(words);
    if words[0] == "origin" {
        let listener = TcpListener::bind(options.word("--listen")?).map_err(|e| format!("bind: {e}"))?;
        return origin::serve(&listener).map_err(|e| format!("accept: {e}"));
    }
    let load = Load {
        to: options.number("--to")?,
        path: options.word("--path")?.to_owned(),
        connections: options.number("--connections")?,
    };
    let seconds = || Duration::try_from_secs_f64(options.number("--seconds")?).map_err(|e| format!("--seconds: {e}"));
    let report = match words[0].as_str() {
        "fresh" => drive::fresh(&load, seconds()?),
        "echo" => drive::echo(&load, seconds()?),
        "rate" => match options.number("--rate")? {
            rate if rate >= 1.0 && load.connections > 0 => drive::rate(&load, rate, options.number("--requests")?),
            _ => return Err("--rate and --connections must be at least 1".to_owned()),
        },
        "idle" => drive::idle(&load, || {
            println!("READY");
            // What ends the wait is the end of the input; nothing is expected in it.
            let _ = io::stdin().read_to_end(&mut Vec::new());
        }),
        _ => return Err(USAGE.to_owned()),
    };
    println!("{}", report.json());
    Ok(())
}

/// The words of the command line, as pairs after the first.
struct Options<'a>(&'a [String]);

impl Options<'_> {
    fn word(&self, name: &str) -> Result<&str, String> {
        let found = self.0[1..].chunks(2).find(|pair| pair[0] == name);
        found.and_then(|pair| pair.get(1)).map(String::as_str).ok_or_else(|| format!("{name} is missing\n{USAGE}"))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, String> {
        let word = self.word(name)?;
        word.parse().map_err(|_| format!("{name}: `{word}` is not understood\n{USAGE}"))
    }
}

/// Every kind of load against the origin of this program: a load generator that counts wrongly would make wrong figures.
fn test_itself() -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("bind: {e}"))?;
    let to: SocketAddr = listener.local_addr().map_err(|e| format!("bind: {e}"))?;
    thread::spawn(move || origin::serve(&listener));
    let load = |path: &str| Load { to, path: path.to_owned(), connections: 4 };
    let moment = Duration::from_millis(20);
    expect("fresh", &drive::fresh(&load("/"), moment), 4..)?;
    expect("echo", &drive::echo(&load("/echo"), moment), 4..)?;
    let rate = drive::rate(&load("/"), 2_000.0, 50);
    expect("rate", &rate, 50..51)?;
    // 50 requests at 2,000 per second: the last is due after 24.5 ms.
    if rate.seconds < 0.0245 {
        return Err(format!("rate: 50 requests took only {:.4} s", rate.seconds));
    }
    expect("idle", &drive::idle(&load("/"), || ()), 4..5)?;
    for path in ["/chunks", "/chunks-at-once", "/chunks-apart"] {
        expect(path, &drive::fresh(&load(path), Duration::ZERO), 4..5)?;
    }
    // What goes wrong must be counted as an error.
    for (what, report) in [
        ("a 404", drive::fresh(&load("/nothing"), Duration::ZERO)),
        ("a 404", drive::rate(&load("/nothing"), 2_000.0, 4)),
        ("no upgrade", drive::echo(&load("/"), Duration::ZERO)),
        ("a closed connection", idle_on_closing_origin(&load("/close"))),
    ] {
        if report.errors == 0 || report.requests != 0 {
            return Err(format!("{what} was not counted as an error: {}", report.json()));
        }
    }
    println!("load: every kind of load ran against its own origin");
    Ok(())
}

/// The origin closes these connections a moment after its response, so it may take more than one try to see all closed.
fn idle_on_closing_origin(load: &Load) -> Report {
    let mut report = Report::default();
    for _ in 0..100 {
        report = drive::idle(load, || thread::sleep(Duration::from_millis(5)));
        if report.requests == 0 {
            break;
        }
    }
    report
}

fn expect(what: &str, report: &Report, requests: impl std::ops::RangeBounds<u64>) -> Result<(), String> {
    if report.errors == 0 && requests.contains(&report.requests) {
        return Ok(());
    }
    Err(format!("{what}: {}", report.json()))
}
