//! Every rule with code that breaks it and with code that follows it.

use super::*;

fn findings(path: &str, code: &str) -> Vec<String> {
    check_file(path, &format!("//! Head.\n{code}")).into_iter().map(|finding| finding.what).collect()
}

#[track_caller]
fn refused(path: &str, code: &str, because: &str) {
    let found = findings(path, code);
    assert!(found.iter().any(|what| what.contains(because)), "{path}: {code}: {found:?}");
}

#[track_caller]
fn allowed(path: &str, code: &str) {
    assert_eq!(findings(path, code), Vec::<String>::new(), "{path}: {code}");
}

#[test]
fn an_import_against_the_arrows_is_reported() {
    for (path, code) in [
        ("src/model/name.rs", "use crate::pool::View;"),
        ("src/model.rs", "use crate::health::Track;"),
        ("src/balance/random.rs", "use crate::{model::Weight, pool::Upstream};"),
        ("src/balance/random.rs", "use super::super::pool;"),
        ("src/balance.rs", "use super::pool::View;"),
        ("src/balance.rs", "use self::super::route::Table;"),
        ("src/pool/state.rs", "use crate::config::parse;"),
        ("src/pool/state.rs", "fn f() { crate::exchange::judge() }"),
        ("src/pool/state.rs", "mod inner { use super::super::super::proxy::Front; }"),
        ("src/exchange.rs", "fn f() { let x = vec![crate::proxy::Lane]; }"),
        ("src/exchange.rs", "pub use crate::{model::{Name, Code}, app::{self}};"),
        ("src/admin/json.rs", "use crate::metrics::Scrape as Text;"),
        ("src/proxy/front.rs", "use crate::config;"),
        ("src/demo.rs", "use crate::cli::Options;"),
        ("src/app.rs", "use crate::cli;"),
        ("src/route/site.rs", "use crate::balance::Picker;"),
        ("src/route/site.rs", "use crate::config::parse;"),
        ("src/demo/stage.rs", "use crate::config::parse;"),
        ("src/pool.rs", "use crate::*;"),
        ("src/pool.rs", "#[cfg(test)] mod tests { use crate::app::App; }"),
    ] {
        refused(path, code, "imports");
    }
}

#[test]
fn an_import_along_the_arrows_passes() {
    for (path, code) in [
        ("src/main.rs", "fn main() { roundsman::cli::main() }"),
        ("src/cli.rs", "use crate::{app, config, demo};"),
        ("src/app.rs", "use crate::{admin, config, exchange, model, pool::{self, View}};"),
        ("src/admin/json.rs", "use super::super::model; use crate::pool::*; use super::page::Page;"),
        (
            "src/admin.rs",
            "mod page; use crate::admin::page::Page; pub use self::page::Page as Leaf; use crate::VERSION;",
        ),
        ("src/exchange/seek.rs", "use crate::pool::{View, state}; use crate::route;"),
        (
            "src/balance/random.rs",
            "use super::shares::Shares; // use crate::pool::View;\nconst S: &str = \"crate::pool\";",
        ),
        ("src/config/validate.rs", "use crate::model::*;"),
        ("src/pool/state.rs", "mod inner { use super::super::view; use super::super::super::model; }"),
        ("tests/it/main.rs", "use roundsman::app::App; use roundsman::config;"),
    ] {
        allowed(path, code);
    }
}

#[test]
fn pure_code_that_does_io_is_reported() {
    for (code, because) in [
        ("fn f() { let now = Instant::now(); }", "reads a clock"),
        ("use tokio::time::Instant; fn f() { tokio::time::Instant::now(); }", "reads a clock"),
        ("fn f() { let t = Clock::now(); }", "reads a clock"),
        ("fn f() { dates.map(Timestamp::now) }", "reads a clock"),
        ("fn f(since: Instant) { since.elapsed(); }", "reads a clock"),
        ("use std::time::{Duration, SystemTime};", "does I/O"),
        ("fn f() { tokio::spawn(async {}); }", "uses the runtime"),
        ("use tokio::{sync::mpsc, time::Instant};", "uses the runtime"),
        ("use tokio::time::sleep;", "uses the runtime"),
        ("fn f() { std::thread::spawn(|| {}); }", "does I/O"),
        ("use std::thread; fn f() { thread::sleep(d); }", "does I/O"),
        ("fn f(set: &mut Set) { set.spawn(async {}); }", "spawns"),
        ("fn f() { tracing::info!(\"x\"); }", "logs or prints"),
        ("use tracing::Level;", "does I/O"),
        ("fn f() { warn!(\"x\"); }", "logs or prints"),
        ("fn f() { println!(\"x\"); }", "logs or prints"),
        ("fn f() { if let 1 = vec![dbg!(x)][0] {} }", "logs or prints"),
        ("use std::fs;", "does I/O"),
        ("fn f() { fs::read(\"x\"); }", "does I/O"),
        ("use std::fs::File;", "does I/O"),
        ("use std::{fmt, fs::{self, File}};", "does I/O"),
        ("fn f() { std::env::var(\"HOME\"); }", "does I/O"),
        ("use std::net::{IpAddr, TcpStream};", "does I/O"),
        ("use std::os::unix::net::UnixListener;", "does I/O"),
        ("fn f() { fastrand::u32(..); }", "draws random numbers"),
        ("fn f() { fastrand::Rng::new(); }", "draws random numbers"),
        ("use pingora_core::Result;", "does I/O"),
    ] {
        for path in ["src/model/name.rs", "src/config/raw.rs", "src/health/track.rs", "src/balance.rs", "src/route.rs"]
        {
            refused(path, code, because);
        }
        for path in ["src/exchange/judge.rs", "src/pool/state.rs", "src/pool/view.rs", "src/pool/status.rs"] {
            refused(path, code, because);
        }
    }
}

#[test]
fn an_exchange_that_waits_is_found() {
    for code in ["async fn f() {}", "fn f() { let w = async { 1 }; }", "fn f() { g().await }"] {
        refused("src/exchange/machine.rs", code, "waits");
        allowed("src/proxy/front.rs", code);
    }
    allowed("src/exchange/machine.rs", "#[cfg(test)] mod tests { async fn f() { g().await } }");
}

#[test]
fn a_lane_that_decides_what_is_answered_is_found() {
    for code in ["use crate::pool::AnswerReason;", "fn f() -> crate::pool::AnswerReason { AnswerReason::Malformed }"] {
        refused("src/proxy/client.rs", code, "decided in `exchange`");
        allowed("src/exchange/answer.rs", code);
    }
    allowed("src/proxy/client.rs", "#[cfg(test)] mod tests { use crate::pool::AnswerReason; }");
}

#[test]
fn pure_code_that_takes_time_and_chance_as_arguments_passes() {
    for code in [
        "use tokio::time::Instant; use std::time::Duration; use std::net::{IpAddr, SocketAddr};",
        "fn f(now: Instant, rng: &mut fastrand::Rng) -> Instant { now + Duration::from_secs(rng.u64(0..9)) }",
        "/// Instant::now() is read by the caller.\nfn f() { let s = \"tokio::spawn\"; }",
        "#[cfg(test)] mod tests { fn f() { Instant::now(); tokio::spawn(g()); println!(); } }",
        "struct S { #[cfg(test)] at: fn(Map<A, B>) -> Instant, n: u32 }\nfn f() { g(S { #[cfg(test)] at: Instant::now, n: 1 }) }",
        "#[cfg(test)] fn at<A, B>() -> Instant { Instant::now() }\n#[cfg(test)]\nuse std::fs;",
        "fn f(entry: Entry) { let now = entry.now; let process = 1; let env = process; }",
        "fn f(seed: u64) -> fastrand::Rng { fastrand::Rng::with_seed(seed) }",
        "fn f(file: raw::File) { file.env() }",
        "fn f(error: Error, log: Log) { if error != log { log.info(&error) } }",
    ] {
        allowed("src/exchange/steps.rs", code);
    }
    // Code after a test item is checked again.
    refused("src/route.rs", "#[cfg(test)] fn a() {}\nfn b() { Instant::now(); }", "reads a clock");
    refused("src/route.rs", "struct S { #[cfg(test)] a: u8, b: TcpStream }", "does I/O");
    allowed("src/pool/state/tests.rs", "fn f() { Instant::now(); }");
    allowed("src/pool/state.rs", "#[cfg(test)]\nmod tests;");
    refused("src/pool/state.rs", "mod tests;", "is not under");
}

#[test]
fn modules_that_are_not_pure_may_do_io() {
    let code = "use tokio::net::TcpStream; fn f() { tracing::info!(\"x\"); tokio::spawn(g(Instant::now())); }";
    for path in ["src/proxy/front.rs", "src/probe/http.rs", "src/app.rs", "src/pool/controller.rs"] {
        allowed(path, code);
    }
}

#[test]
fn the_clock_that_cannot_be_paused_is_reported_everywhere() {
    for code in
        ["use std::time::Instant;", "use std::{fmt, time::{self, Instant as I}};", "fn f(at: std::time::Instant) {}"]
    {
        for path in ["src/proxy/front.rs", "src/app.rs", "tests/it/main.rs"] {
            refused(path, code, "does not stop");
        }
    }
}

#[test]
fn a_file_without_a_head_or_that_is_not_rust_is_reported() {
    let whats = |text: &str| check_file("src/app.rs", text).into_iter().map(|f| f.what).collect::<Vec<_>>();
    for text in ["", "use std::fmt;\n", "// Head.\n", "/// Head.\nfn f() {}\n", "\n//! Late.\n", "//!\n"] {
        assert!(whats(text).iter().any(|what| what.contains("head")), "{text:?}");
    }
    assert!(whats("//! Head.\nfn f() {").iter().any(|what| what.contains("cannot be read")));
}

#[test]
fn unfinished_code_is_reported() {
    for code in [
        "#[test]\n#[ignore]\nfn f() {}",
        "#[ignore = \"slow\"] fn f() {}",
        "#[cfg_attr(miri, ignore)] fn f() {}",
        "#[cfg(test)] mod tests { #[test] #[ignore] fn f() {} }",
    ] {
        refused("tests/it/main.rs", code, "ignored test");
    }
    for code in ["fn f() { todo!() }", "fn f() { unimplemented!(\"soon\"); }", "fn f() { std::todo!() }"] {
        refused("src/proxy/front.rs", code, "is unfinished code");
    }
    allowed("src/proxy/front.rs", "fn ignore(todo: bool) -> bool { todo != self.ignore() }");
}

#[test]
fn a_finding_names_file_and_line() {
    let found = check_file("src/route.rs", "//! Head.\n\nfn f() {\n    Instant::now();\n}\n");
    let texts: Vec<_> = found.iter().map(Finding::to_string).collect();
    assert_eq!(texts, ["src/route.rs:4: pure code reads a clock: `Instant::now`"]);
}
