//! `status`, `events` and `explain`, on a terminal and off it, with a running process and without one.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::{PATIENCE, Process, answer, lines_of, roundsman, text, wait};
use crate::origin::{Origin, Reply, refusing_address};
use crate::program::BINARY;
use crate::pty::Terminal;
use crate::support::assert_eventually_blocking;

/// Two pools: `web` is healthy; one of the two upstreams of `api` refuses connections.
fn start(good: &Origin) -> (Process, String) {
    let refusing = refusing_address().to_string();
    let process = Process::start_with(|dir| {
        let health = "health = { type = \"http\", path = \"/healthz\", interval = \"1s\", fast_interval = \"50ms\" }\n";
        let (dir, good) = (dir.path().display(), good.text());
        format!(
            "[listeners.web]\naddress = \"unix:{dir}/web.sock\"\npool = \"api\"\n\n\
             [listeners.other]\naddress = \"unix:{dir}/other.sock\"\npool = \"web\"\n\n\
             [pools.api]\nupstreams = [\"{good}\", \"{refusing}\"]\n{health}\n\
             [pools.web]\nupstreams = [\"{good}\"]\n{health}\n\
             [admin]\naddress = \"unix:{dir}/admin.sock\"\ntoken = {{ file = \"{dir}/token\" }}\n"
        )
    });
    assert_eventually_blocking("every upstream has a verdict", PATIENCE, || {
        let pools = process.status()["pools"].clone();
        let states = [&pools["api"]["upstreams"][1]["state"], &pools["web"]["upstreams"][0]["state"]];
        states == ["unhealthy", "healthy"]
    });
    (process, refusing)
}

fn good() -> Origin {
    Origin::new().on("/healthz").reply(Reply::ok("up")).start_blocking()
}

#[test]
fn status_selects_a_pool_or_unhealthy_ones_and_fits_the_terminal() {
    let good = good();
    let (process, refusing) = start(&good);
    let said = |args: &[&str]| text(&process.command(args).stdout);
    let web = said(&["status", "web"]);
    assert!(web.contains("web  healthy  1/1 healthy") && !web.contains("api"), "{web}");
    let bad = said(&["status", "--unhealthy"]);
    assert!(bad.contains(&refusing) && !bad.contains(&good.text()) && !bad.contains("\nweb  "), "{bad}");
    let json: Value = serde_json::from_str(&said(&["status", "api", "-u", "--json"])).expect("JSON");
    assert_eq!(json["pools"]["api"]["upstreams"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["pools"].as_object().map(serde_json::Map::len), Some(1));
    let missing = process.command(&["status", "wep"]);
    assert_eq!(missing.status.code(), Some(2));
    let want = "there is no pool \"wep\"; did you mean web?; the pools are api, web\n";
    assert!(text(&missing.stderr).ends_with(want), "{}", text(&missing.stderr));

    let colour = regex::Regex::new("\x1b\\[[0-9]*m").expect("a pattern");
    for columns in [40, 80] {
        let terminal = Terminal::open(columns, 50);
        let config = process.path("r.toml").display().to_string();
        let mut command = Command::new(BINARY);
        command.args(["status", "-c", &config]).env("TERM", "xterm").env_remove("NO_COLOR");
        assert!(wait(&mut terminal.run(&mut command)).success());
        terminal.shows(&refusing[..8], 1);
        terminal.shows("refused", 1);
        let shown = terminal.shown();
        assert!(shown.contains("\x1b[31munhealthy\x1b[0m"), "{shown}");
        let plain = colour.replace_all(&shown, "").into_owned();
        for line in plain.lines() {
            assert!(line.chars().count() <= usize::from(columns), "{columns}: {line:?}\n{plain}");
        }
    }
}

#[test]
fn watch_prints_status_again_and_redraws_in_place_on_a_terminal() {
    let good = good();
    let (process, refusing) = start(&good);
    let config = process.path("r.toml").display().to_string();
    let args = ["status", "--watch", "-c", &config];
    let mut child = Command::new(BINARY).args(args).stdout(Stdio::piped()).spawn().expect("it can be started");
    let lines = lines_of(child.stdout.take().expect("piped"));
    let mut healthy = 0;
    while healthy < 3 {
        let line = lines.recv_timeout(PATIENCE).expect("another status is printed");
        healthy += usize::from(line.contains("web  healthy"));
    }
    drop(lines);
    let _ = child.kill();
    let _ = child.wait();

    let terminal = Terminal::open(80, 8);
    let mut child = terminal.run(Command::new(BINARY).args(args));
    terminal.shows("\x1b[H", 3);
    terminal.shows("more lines; give a POOL or --unhealthy to show fewer", 2);
    let _ = child.kill();
    let _ = child.wait();
    let frame = terminal.shown().split("\x1b[H").nth(1).expect("a frame").to_owned();
    assert!(frame.matches('\n').count() < 8, "it never scrolls: {frame:?}");
    assert!(terminal.is_cooked());

    let gone = Command::new(BINARY).args(["status", "-w", "nowhere", "-c", &config]).output().expect("it runs");
    assert_eq!(gone.status.code(), Some(2), "an unknown pool ends the command at once: {refusing}");
}

#[test]
fn events_are_filtered_by_pool_and_age() {
    let (process, refusing) = start(&good());
    let said = |args: &[&str]| text(&process.command(&[&["events"], args].concat()).stdout);
    let api = answer(&process.command(&["events", "--pool", "api"]));
    assert!(api.contains(&refusing) && api.lines().all(|line| line.contains("Z  api ")), "{api}");
    let web = said(&["--pool", "web", "--json"]);
    assert!(!web.is_empty() && web.lines().all(|line| line.contains("\"pool\":\"web\"")), "{web}");
    assert_eq!(said(&["--since", "1h"]), said(&[]));
    assert_eq!(answer(&process.command(&["events", "--since", "0s"])), "");
    let missing = process.command(&["events", "--pool", "apy"]);
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
    assert!(text(&missing.stderr).contains("there is no pool \"apy\"; did you mean api?"));
}

#[test]
fn explain_without_a_pool_explains_those_in_trouble() {
    let good = good();
    let (process, refusing) = start(&good);
    let flat = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let troubled = flat(answer(&process.command(&["explain"])));
    assert!(troubled.starts_with("1 of 2 pools is in trouble: api is degraded Pool api is degraded: "), "{troubled}");
    assert!(troubled.contains(&refusing), "{troubled}");
    let more = "The other pools are healthy. One of them in full, for example: `roundsman explain web`";
    assert!(troubled.ends_with(more), "{troubled}");
    let json = process.command(&["explain", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&json.stderr)));
    assert_eq!((&json["pools"][0]["pool"], &json["pools"][0]["status"]), (&"api".into(), &"degraded".into()));
    assert_eq!(json["others"], serde_json::json!([{ "pool": "web", "status": "healthy" }]));
    let order = process.command(&["drain", "apy", &refusing]);
    assert!(text(&order.stderr).contains("there is no pool \"apy\"; did you mean api?"), "{}", text(&order.stderr));

    // An upstream of this machine may have more than one name.
    let local = format!("localhost:{}", refusing.rsplit_once(':').expect("a port").1);
    for command in ["drain", "undrain", "disable", "enable", "explain", "probe"] {
        let refused = process.command(&[command, "api", &local]);
        let want = format!("pool \"api\" has no upstream {local:?}; did you mean {refusing}?\n");
        assert_eq!(
            (refused.status.code(), text(&refused.stderr)),
            (Some(2), format!("roundsman: {want}")),
            "{command}"
        );
    }

    // All pools fail at once.
    good.set("/healthz", 503);
    assert_eventually_blocking("both pools are down", PATIENCE, || {
        let pools = process.status()["pools"].clone();
        [&pools["api"]["status"], &pools["web"]["status"]] == ["unhealthy", "unhealthy"]
    });
    let down = flat(answer(&process.command(&["explain"])));
    assert!(down.starts_with("2 of 2 pools are in trouble: api is unhealthy, web is unhealthy Pool api "), "{down}");
    assert!(down.contains("Pool web is unhealthy: ") && down.contains("Requests get 503"), "{down}");

    let alone = Process::start();
    let explained = || answer(&alone.command(&["explain"]));
    assert!(explained().starts_with("Pool api is "), "{}", explained());
    let upstream = alone.upstream("a.sock");
    let one = answer(&alone.command(&["explain", &upstream]));
    assert!(one.starts_with(&format!("api {upstream}  ")), "{one}");
    let neither = alone.command(&["explain", "unix:/nonexistent"]);
    assert_eq!(neither.status.code(), Some(2));
}

#[test]
fn every_mistake_of_a_refused_reload_has_its_own_line_everywhere() {
    let terminal = Terminal::open(200, 50);
    let process = Process::start();
    let config = process.path("r.toml").display().to_string();
    // Another process on the same file would meet its sockets, so this one has its own file.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.toml").display().to_string();
    std::fs::write(dir.path().join("token"), super::TOKEN).unwrap();
    std::fs::write(&file, Process::config(&dir, "a.sock")).unwrap();
    let mut child = terminal.run(Command::new(BINARY).args(["run", &file]).env("NO_COLOR", "1"));
    terminal.shows("Started  ", 1);
    for (path, dir) in [(&config, &process.dir), (&file, &dir)] {
        let bad = Process::config(dir, "a.sock") + "\n[pools.web]\nupstreamz = []\nhealth = { intervall = \"1s\" }\n";
        std::fs::write(path, bad).unwrap();
        // As an argument, and as an option.
        assert_eq!(roundsman(&["reload", path]).status.code(), Some(78));
        assert_eq!(roundsman(&["reload", "-c", path]).status.code(), Some(78));
        for command in ["status", "events"] {
            let shown = text(&roundsman(&[command, "-c", path]).stdout);
            assert!(!shown.contains("\\n"), "{command}: {shown}");
            for mistake in ["upstreamz", "intervall"] {
                let line = shown.lines().find(|line| line.contains(mistake)).unwrap_or_else(|| panic!("{shown}"));
                assert!(line.starts_with("  ") && line.contains("r.toml:1"), "{command}: {shown}");
                let next = ["; did you mean `upstreams`?", "; did you mean `interval`?"];
                assert!(next.iter().any(|next| line.contains(next)), "{command}: {shown}");
            }
        }
    }
    // A log on a terminal reads the same.
    terminal.shows("upstreamz", 2);
    terminal.shows("intervall", 2);
    // The two verdicts come in any order.
    terminal.shows("  unknown → unhealthy  L4CON ", 2);
    let log = terminal.shown();
    assert!(!log.contains("\\n"), "{log}");
    for mistake in ["upstreamz", "intervall"] {
        assert!(log.lines().any(|line| line.starts_with("    ") && line.contains(mistake)), "{log}");
    }
    // All events are there, in the words of `events`.
    assert!(
        roundsman(&["drain", "api", &format!("unix:{}/other.sock", dir.path().display()), "-c", &file])
            .status
            .success()
    );
    terminal.shows("now draining (command from unix socket, uid ", 1);
    let (log, events) = (terminal.shown(), answer(&roundsman(&["events", "-c", &file])));
    assert!(events.lines().count() > 6, "{events}");
    for line in events.lines() {
        let said = line.strip_prefix("    ").unwrap_or_else(|| line.split_once("Z  ").expect("a date").1);
        assert!(log.lines().any(|logged| logged.ends_with(said)), "{said:?} is not in the log:\n{log}");
    }
    let change = format!("Z INFO  api unix:{}/other.sock  unknown → unhealthy  L4CON ", dir.path().display());
    let change_warned = change.replace("Z INFO ", "Z WARN ");
    assert!(log.contains(&change) || log.contains(&change_warned), "{log}");
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn commands_without_a_running_process_name_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.toml").display().to_string();
    std::fs::write(&file, "[admin]\naddress = \"unix:/nonexistent/admin.sock\"\n").unwrap();
    for command in [&["status"][..], &["events"], &["explain"], &["reload"], &["status", "--watch"]] {
        let output = roundsman(&[command, &["-c", &file]].concat());
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(1), ""), "{said}");
        let want =
            format!("roundsman: cannot connect to roundsman at unix:/nonexistent/admin.sock ({file}): No such file");
        assert!(
            said.starts_with(&want) && said.contains("\n  Is it running? `roundsman run FILE` starts it.\n"),
            "{said}"
        );
    }
    let output = roundsman(&["status", "--admin", "unix:/nonexistent/admin.sock"]);
    assert!(text(&output.stderr).contains("admin.sock (--admin): "), "{}", text(&output.stderr));
}

#[test]
fn another_program_at_the_admin_address_is_named_as_such() {
    let other = Origin::new().on("/").reply(Reply::ok("hello")).start_blocking();
    let address = other.text();
    for command in [&["status"][..], &["events"], &["explain"], &["reload"], &["status", "--watch"]] {
        let output = roundsman(&[command, &["--admin", &address]].concat());
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(1), ""), "{said}");
        let want = format!("roundsman: {address} is not the admin address of a roundsman (it answers ");
        assert!(said.starts_with(&want) && !said.contains("?after"), "{said}");
        assert!(said.contains("\n  Is it running? `roundsman run FILE` starts it.\n"), "{said}");
    }
}

#[test]
fn the_start_line_has_the_address_of_the_admin_page() {
    let admin = crate::program::free_address();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.toml");
    let unix = dir.path().display();
    let text = format!(
        "[listeners.web]\naddress = \"unix:{unix}/web.sock\"\npool = \"api\"\n\n[pools.api]\n\
         upstreams = [\"unix:{unix}/a.sock\"]\n\n[admin]\naddress = \"{admin}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut child = Command::new(BINARY).arg("run").arg(&file).stderr(Stdio::piped()).spawn().expect("it starts");
    let lines = lines_of(child.stderr.take().expect("piped"));
    let started = loop {
        let line: Value = serde_json::from_str(&lines.recv_timeout(PATIENCE).expect("it starts")).expect("JSON");
        if line["message"] == "Started" {
            break line;
        }
    };
    assert_eq!(started["page"], format!("http://{admin}/"));
    let _ = child.kill();
    let _ = child.wait();
}
