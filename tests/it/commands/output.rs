//! Commands whose output cannot be written, and log levels that do not exist.

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

use super::{PATIENCE, Process, roundsman, text};
use crate::program::BINARY;
use crate::support::assert_eventually_blocking;

const QUIET: [&[&str]; 4] = [
    &["schema"],
    &["check", "--presets"],
    &["check", "--presets", "--format", "json"],
    &["check", "--presets", "krakend"],
];

/// A command of the program whose stdout is this.
fn with_stdout(args: &[&str], stdout: Stdio) -> Output {
    let mut command = Command::new(BINARY);
    command.args(args).env_remove("RUST_LOG").stdout(stdout).stderr(Stdio::piped());
    command.spawn().expect("it can be started").wait_with_output().expect("it ends")
}

/// A device on which nothing can be written.
fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").expect("Linux has one").into()
}

/// A pipe without a reader.
fn broken() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn a_failed_write_to_stdout_fails_the_command_and_a_closed_pipe_ends_it_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let good = file(
        "good.toml",
        "listeners.web = { address = \"127.0.0.1:80\", pool = \"a\" }\npools.a.upstreams = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n",
    );
    let bad = file("bad.toml", "nonsense = 1\n");
    let good_cases = [&["check", "--config", &good][..], &["check", "--config", &good, "--format", "json"]];
    for args in QUIET.into_iter().chain(good_cases) {
        let refused = with_stdout(args, full());
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("write to stdout: No space left on device"), "{args:?}: {said}");
        let left = with_stdout(args, broken());
        assert_eq!((left.status.code(), text(&left.stderr).as_str()), (Some(0), ""), "{args:?}");
    }
    for stdout in [full(), broken()] {
        let args = ["check", "--config", &bad, "--format", "json"];
        assert_eq!(with_stdout(&args, stdout).status.code(), Some(78), "an invalid file decides the exit status");
    }
}

#[test]
fn what_is_missing_is_one_line_without_a_place_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let said = |args: &[&str]| {
        let output = Command::new(BINARY).args(args).current_dir(dir.path()).output().expect("it can be started");
        (output.status.code(), text(&output.stderr))
    };
    let (code, line) = said(&["check", "--presets", "krakendd"]);
    let want = "roundsman: there is no preset \"krakendd\"; did you mean krakend?\n";
    assert_eq!((code, line.as_str()), (Some(2), want));
    let (code, line) = said(&["check", "none.toml"]);
    let want = format!("roundsman: there is no file none.toml: looked for {}/none.toml. ", dir.path().display());
    assert!(code == Some(78) && line.starts_with(&want) && line.matches('\n').count() == 1, "{line}");
    // Unless this machine has the file that is read by default.
    if !std::path::Path::new("/etc/roundsman/roundsman.toml").exists() {
        let (code, line) = said(&["check"]);
        let want = format!("roundsman: there is no configuration file: looked for {}/r", dir.path().display());
        assert!(code == Some(78) && line.starts_with(&want) && line.matches('\n').count() == 1, "{line}");
    }
}

#[test]
fn no_command_panics_on_a_closed_or_full_output() {
    let process = Process::start();
    let config = process.path("r.toml").display().to_string();
    let none = "/nonexistent/r.toml";
    for args in [
        &["status", "--config", &config][..],
        &["status", "--json", "--config", &config],
        &["events", "--config", &config],
        &["explain", "api", "--config", &config],
        &["reload", "--config", &config],
        &["check", "--config", none],
        &["run", "--config", none],
        &["run", "--log-level", "nonsense", "--config", none],
        &["status", "--admin", "unix:/nonexistent/admin.sock"],
        &["--help"],
        &["nonsense"],
    ] {
        for stdio in [full as fn() -> Stdio, broken] {
            let mut command = Command::new(BINARY);
            let mut child = command.args(args).stdout(stdio()).stderr(stdio()).spawn().expect("it can be started");
            let status = super::wait(&mut child);
            // A panic is 101, and a signal has no code.
            assert!(matches!(status.code(), Some(0 | 1 | 2 | 78)), "{args:?}: {status:?}");
        }
    }
}

#[test]
fn an_unknown_log_level_is_a_usage_error() {
    let run = |variable: Option<&str>, flags: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["run", "--config", "/nonexistent/r.toml"]).args(flags).env_remove("RUST_LOG");
        if let Some(variable) = variable {
            command.env("RUST_LOG", variable);
        }
        let output = command.output().expect("it can be started");
        (output.status.code(), text(&output.stderr))
    };
    for (variable, flags, said) in [
        (None, &["--log-level", "warning"][..], "did you mean \"warn\"?"),
        (None, &["--log-level", "notice"], "did you mean \"info\"?"),
        (None, &["--log-level=debg"], "did you mean \"debug\"?"),
        (None, &["--log-level", "info,roundsman=warning"], "did you mean \"warn\"?"),
        (None, &["--log-level", ""], "names no level"),
        (Some("foo"), &[], "RUST_LOG \"foo\": \"foo\" is not a level, so it was read as a target"),
        (Some("WARNING"), &[], "did you mean \"warn\"?"),
    ] {
        let (code, error) = run(variable, flags);
        assert_eq!(code, Some(2), "{variable:?} {flags:?}: {error}");
        assert!(error.contains(said), "{error}");
    }
    for (variable, flags) in [
        (None, &["--log-level", "WARN"][..]),
        (None, &["--log-level", "hyper=debug"]),
        (Some("roundsman::probe=trace"), &[]),
        (Some("info,roundsman=debug"), &[]),
        (Some(""), &[]),
        // The flag wins.
        (Some("foo"), &["--log-level", "info"]),
    ] {
        let (code, error) = run(variable, flags);
        assert_eq!(code, Some(78), "{variable:?} {flags:?}: {error}");
    }
}

#[test]
fn a_log_line_that_cannot_be_written_is_counted() {
    let mut process = Process::start();
    let config = process.path("r.toml");
    let _ = process.child.kill();
    let _ = super::wait(&mut process.child);
    process.child = Command::new(BINARY)
        .args(["run", "--config"])
        .arg(config)
        .env_remove("RUST_LOG")
        .stderr(full())
        .spawn()
        .expect("it can be started");
    let lost = || {
        process
            .get("/metrics")
            .lines()
            .find_map(|line| line.strip_prefix("roundsman_log_lines_dropped_total ")?.parse::<f64>().ok())
    };
    assert_eventually_blocking("it answers", PATIENCE, || process.command(&["status"]).status.success());
    assert_eventually_blocking("its first line is lost", PATIENCE, || lost().is_some_and(|lost| lost >= 1.0));
    assert!(
        lost() < Some(1_000.0),
        "the line that reports lost lines is not itself counted again and again: {:?}",
        lost()
    );
}

#[test]
fn an_unknown_log_level_is_reported_before_other_mistakes() {
    let output = roundsman(&["run", "--log-level", "verbose", "--listen", "127.0.0.1:1", "--to", "127.0.0.1:2"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("did you mean \"debug\"?"));
}
