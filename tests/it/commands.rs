//! The commands of the real program against a real process: what they print, and their exit statuses.

mod explain;
mod look;
mod output;
mod probe;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::assert_eventually_blocking;

/// The longest wait.
const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

pub fn roundsman(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roundsman"));
    command.args(args).env_remove("RUST_LOG").current_dir(std::env::temp_dir()).output().expect("it can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// What a command that succeeds prints for people. The line that says which process answers is for terminals only.
fn answer(output: &Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && err.is_empty() && !out.starts_with("process "), "{out}{err}");
    out
}

/// A running process whose sockets are files in its own directory.
struct Process {
    dir: tempfile::TempDir,
    child: Child,
}

impl Process {
    fn start() -> Process {
        Process::start_with(|dir| Process::config(dir, "a.sock"))
    }

    /// As [`Process::start`], with the configuration that `config` makes for its directory.
    fn start_with(config: impl FnOnce(&tempfile::TempDir) -> String) -> Process {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        let process = |dir: tempfile::TempDir, child| Process { dir, child };
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        std::fs::write(dir.path().join("r.toml"), config(&dir)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_roundsman"))
            .args(["run", "--config"])
            .arg(dir.path().join("r.toml"))
            .env_remove("RUST_LOG")
            .stderr(Stdio::from(log))
            .spawn()
            .expect("it can be started");
        let process = process(dir, child);
        assert_eventually_blocking("it answers", PATIENCE, || process.command(&["status"]).status.success());
        process
    }

    /// Nothing listens at the upstream, so it becomes unhealthy.
    fn config(dir: &tempfile::TempDir, upstream: &str) -> String {
        let dir = dir.path().display();
        format!(
            "[listeners.web]\naddress = \"unix:{dir}/web.sock\"\npool = \"api\"\n\n\
             [pools.api]\nupstreams = [\"unix:{dir}/{upstream}\", \"unix:{dir}/other.sock\"]\n\
             health = {{ type = \"tcp\", interval = \"100ms\" }}\n\n\
             [admin]\naddress = \"unix:{dir}/admin.sock\"\ntoken = {{ file = \"{dir}/token\" }}\n"
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that finds this process by its configuration file.
    fn command(&self, args: &[&str]) -> Output {
        let config = self.path("r.toml").display().to_string();
        roundsman(&[args, &["--config", &config]].concat())
    }

    fn status(&self) -> Value {
        let output = self.command(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)))
    }

    fn upstream(&self, name: &str) -> String {
        format!("unix:{}", self.path(name).display())
    }

    fn get(&self, path: &str) -> String {
        use std::io::Write;
        let mut stream = std::os::unix::net::UnixStream::connect(self.path("admin.sock")).expect("admin listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let mut status = None;
    assert_eventually_blocking("it ends", PATIENCE, || {
        status = child.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    status.expect("the process has ended")
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().expect("a pid")), signal).expect("it lives");
}

#[test]
fn exit_statuses_are_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "[pools.api]\nupstreams = []\n").unwrap();
    let bad = bad.display().to_string();
    for (args, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["schema"], 0),
        (&[], 2),
        (&["nonsense"], 2),
        (&["status", "--nonsense"], 2),
        (&["status", "--admin", "nonsense"], 2),
        (&["run", "--listen", "127.0.0.1:1"], 2),
        (&["status", "--admin", "unix:/nonexistent/admin.sock"], 1),
        (&["reload", "--admin", "unix:/nonexistent/admin.sock"], 1),
        (&["events", "--follow", "--admin", "unix:/nonexistent/admin.sock"], 1),
        (&["status", "--config", "/nonexistent/r.toml"], 78),
        (&["check", "--config", "/nonexistent/r.toml"], 78),
        (&["run", "--config", "/nonexistent/r.toml"], 78),
        (&["check", "--config", &bad], 78),
        (&["run", "--config", &bad], 78),
    ] {
        let output = roundsman(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
        assert_eq!(output.stderr.is_empty(), code == 0, "{args:?}: a failed command says why on stderr");
        assert!(!text(&output.stdout).contains('\x1b') && !text(&output.stderr).contains('\x1b'), "{args:?}");
    }
}

#[test]
fn status_events_and_orders_agree_on_a_running_process() {
    let process = Process::start();
    let unhealthy = || process.status()["pools"]["api"]["upstreams"][0]["state"] == "unhealthy";
    assert_eventually_blocking("both upstreams are unhealthy: nothing listens there", PATIENCE, unhealthy);
    let status = text(&process.command(&["status"]).stdout);
    assert!(status.contains("api  unhealthy  0/2 healthy") && status.contains("L4CON"), "{status}");
    assert!(!status.contains('\x1b'), "no colour off a terminal");

    let upstream = process.upstream("a.sock");
    // It serves no request, so no force is needed.
    let drained = process.command(&["drain", "api", &upstream, "--reason", "kernel upgrade"]);
    let said = answer(&drained);
    assert!(said.starts_with(&format!("api {upstream}: draining, was enabled\n(an order survives reloads")), "{said}");
    assert!(said.contains("ends with the process"), "{said}");
    assert_eq!(process.status()["pools"]["api"]["upstreams"][0]["admin"], "draining");
    for order in ["drain", "undrain", "disable", "enable"] {
        for (pool, upstream, said) in [
            ("apy", &*upstream, "there is no pool \"apy\"; did you mean api?"),
            ("api", "unix:/nonexistent", "pool \"api\" has no upstream"),
            ("api", "127.0.0.1:", "upstream address: "),
        ] {
            let refused = process.command(&[order, pool, upstream]);
            let error = text(&refused.stderr);
            assert_eq!((refused.status.code(), &*text(&refused.stdout)), (Some(2), ""), "{order}: {error}");
            assert!(error.contains(said), "{order}: {error}");
        }
    }

    let events = text(&process.command(&["events", "--json"]).stdout);
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(events.iter().any(|e| e["kind"] == "transition" && e["to"] == "unhealthy"), "{events:?}");
    assert!(events.iter().any(|e| e["kind"] == "admin" && e["reason"] == "kernel upgrade"), "{events:?}");
    assert!(
        text(&process.command(&["events"]).stdout).contains("now draining (command from unix socket, uid "),
        "who ordered it is named"
    );
}

#[test]
fn reload_prints_its_result_and_exits_with_78_when_refused() {
    let process = Process::start();
    let generation = || process.status()["generation"].as_u64().expect("a number");
    let first = generation();
    assert!(answer(&process.command(&["reload"])).starts_with("unchanged"));
    std::fs::write(process.path("r.toml"), Process::config(&process.dir, "new.sock")).unwrap();
    let trial = process.command(&["reload", "--dry-run"]);
    assert_eq!((trial.status.code(), generation()), (Some(0), first), "{}", text(&trial.stdout));
    let applied = process.command(&["reload"]);
    assert!(answer(&applied).starts_with("applied"), "{}", text(&applied.stdout));
    assert!(generation() > first);
    let (old, new) = (process.upstream("a.sock"), process.upstream("new.sock"));
    let metrics = process.get("/metrics");
    assert!(metrics.contains(&format!("roundsman_upstream_healthy{{pool=\"api\",upstream=\"{new}\"}} 0")), "{metrics}");
    assert!(!metrics.contains(&old), "the series of a removed upstream end");

    let running = generation();
    let broken = Process::config(&process.dir, "new.sock") + "\n[pools.web]\nupstreamz = []\n";
    std::fs::write(process.path("r.toml"), broken).unwrap();
    let refused = process.command(&["reload"]);
    let said = text(&refused.stdout);
    assert_eq!((refused.status.code(), generation()), (Some(78), running), "{said}");
    assert!(said.contains("r.toml:14:1: error: pools.web.upstreamz"), "{said}");
    assert_eq!(process.status()["config"]["last_reload"]["result"], "refused");
}

#[test]
fn followed_events_are_printed_as_they_happen_until_a_sighup() {
    let process = Process::start();
    let mut reader = Command::new(env!("CARGO_BIN_EXE_roundsman"))
        .args(["events", "--follow", "--json", "--config"])
        .arg(process.path("r.toml"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let lines = lines_of(reader.stdout.take().expect("piped"));
    assert!(process.command(&["disable", "api", &process.upstream("a.sock")]).status.success());
    let mut seen = false;
    while !seen {
        let line = lines.recv_timeout(PATIENCE).expect("the order is printed as an event");
        seen = line.contains("\"disabled\"");
    }
    signal(&reader, Signal::SIGHUP);
    let ended = wait(&mut reader);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(Signal::SIGHUP as i32));
}

#[test]
fn logs_off_a_terminal_are_json_lines_without_secrets() {
    let mut process = Process::start();
    signal(&process.child, Signal::SIGHUP);
    let log = |process: &Process| std::fs::read_to_string(process.path("log")).expect("the log");
    assert_eventually_blocking("a hangup reloads", PATIENCE, || log(&process).contains("unchanged"));
    signal(&process.child, Signal::SIGTERM);
    assert_eq!(wait(&mut process.child).code(), Some(0));
    let log = log(&process);
    for line in log.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(value["time"].is_string() && value["level"].is_string() && value["message"].is_string(), "{line}");
    }
    assert!(log.lines().count() >= 3 && !log.contains(TOKEN), "{log}");
    assert!(!process.path("admin.sock").exists(), "the admin socket is removed");
}

fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines
}
