//! `roundsman demo` on its own terminal: keys in the order in which people press them, and unexpected ends.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::BINARY;
use crate::pty::Terminal;
use crate::support::assert_eventually_blocking;

/// The longest wait; the script needs half a minute on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running demo and its terminal.
struct RunningDemo {
    child: Child,
    terminal: Terminal,
}

impl RunningDemo {
    fn start() -> RunningDemo {
        let terminal = Terminal::open(80, 24);
        let child = terminal.run(Command::new(BINARY).arg("demo").env_remove("RUST_LOG").env("NO_COLOR", "1"));
        RunningDemo { child, terminal }
    }

    fn shown(&self) -> String {
        self.terminal.shown()
    }

    fn press(&mut self, keys: &str) {
        self.terminal.press(keys);
    }

    #[track_caller]
    fn shows(&self, text: &str, times: usize) {
        self.terminal.shows(text, times);
    }

    fn is_cooked(&self) -> bool {
        self.terminal.is_cooked()
    }

    fn ends(&mut self) -> Option<i32> {
        let mut status = None;
        assert_eventually_blocking("the demo ends", PATIENCE, || {
            status = self.child.try_wait().expect("its status");
            status.is_some()
        });
        status.expect("it has ended").code()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal).expect("it lives");
    }

    /// The process of the proxy, which the demo prints.
    fn proxy(&self) -> Pid {
        let shown = self.shown();
        let pid = shown.split("  pid    ").nth(1).and_then(|rest| rest.split_whitespace().next());
        Pid::from_raw(pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no pid in {shown}")))
    }
}

impl Drop for RunningDemo {
    fn drop(&mut self) {
        // SIGTERM, so that it ends its proxy.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

#[test]
fn the_reload_key_works_after_the_script_and_a_503_without_backends_is_not_a_failure() {
    let mut demo = RunningDemo::start();
    demo.shows("roundsman: reload applied", 1);
    demo.press("rr");
    demo.shows("(backend 1 has weight 1)", 1);
    demo.shows("(backend 1 has weight 2)", 1);
    // The script leaves backend 2 slow.
    demo.press("s");
    demo.shows("Backend 2 is healthy again", 1);
    demo.press("2s1");
    demo.shows("Killed backend 2", 1);
    demo.shows("Backend 2 is dead: press 2 to revive it first", 1);
    demo.press("e3");
    demo.shows("Killed backend 3", 1);
    for number in [1, 2, 3] {
        let address = format!("roundsman: backend {number} healthy -> unhealthy");
        let other = format!("roundsman: backend {number} unhealthy -> healthy");
        let down = || demo.shown().rfind(&address) > demo.shown().rfind(&other);
        assert_eventually_blocking("every backend is unhealthy", PATIENCE, down);
    }
    let figure = |line: &str| line.split("  503 ").nth(1)?.trim_start().split('/').next()?.parse::<u32>().ok();
    let counts = || demo.shown().lines().filter(|line| line.contains("requests/s")).filter_map(figure).any(|n| n > 0);
    assert_eventually_blocking("a line counts the 503 responses", PATIENCE, counts);
    demo.shows("roundsman: pool demo refuses requests  ", 1);
    // Until its second pass every response is 503, as it must be.
    demo.press("1");
    demo.shows("Revived backend 1", 1);
    demo.shows("backend 1 unhealthy -> healthy", 2);
    demo.shows("roundsman: pool demo serves again after ", 1);
    demo.press("q");
    let code = demo.ends();
    demo.shows("No request failed that should not have.", 1);
    assert_eq!(code, Some(0), "{}", demo.shown());
    assert!(!demo.shown().contains("WRONG") && demo.is_cooked(), "{}", demo.shown());
    let refused = demo.shown().split("503 while none could serve").nth(1).map(|rest| rest.trim_start().to_owned());
    assert!(refused.is_some_and(|count| !count.starts_with("0 ")), "{}", demo.shown());
}

#[test]
fn quitting_right_after_reviving_a_backend_is_not_a_failure() {
    let mut demo = RunningDemo::start();
    demo.shows("requests/s", 1);
    // All at once, before a check can see the first one down.
    demo.press("123");
    demo.shows("Killed backend 3", 1);
    demo.shows("(0 healthy left)", 1);
    demo.press("3x");
    demo.shows("Keys: 1 2 3", 2);
    demo.press("q");
    assert_eq!(demo.ends(), Some(0), "{}", demo.shown());
    assert!(demo.shown().contains("No request failed that should not have."), "{}", demo.shown());
}

#[test]
fn every_end_of_the_demo_restores_the_terminal() {
    for way in ["q", "\u{3}", "\u{4}", "TERM", "HUP", "INT", "QUIT"] {
        let mut demo = RunningDemo::start();
        demo.shows("Until you press one", 1);
        assert_eventually_blocking("it takes single keys", PATIENCE, || !demo.is_cooked());
        let proxy = demo.proxy();
        let signal = match way {
            "TERM" => Some(Signal::SIGTERM),
            "HUP" => Some(Signal::SIGHUP),
            "INT" => Some(Signal::SIGINT),
            "QUIT" => Some(Signal::SIGQUIT),
            key => {
                demo.press(key);
                None
            }
        };
        signal.into_iter().for_each(|signal| demo.signal(signal));
        assert_eq!(demo.ends(), Some(i32::from(signal.is_some())), "{way}: {}", demo.shown());
        assert!(demo.is_cooked(), "{way}");
        assert!(kill(proxy, None).is_err(), "{way}: its proxy has ended");
    }
}

#[test]
fn a_closed_pipe_or_a_dead_proxy_ends_the_demo_without_a_panic() {
    let mut child = Command::new(BINARY)
        .args(["demo", "--script"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let mut first = [0; 8];
    child.stdout.take().expect("piped").read_exact(&mut first).expect("it begins");
    assert_eq!(&first, b"Starting");
    // The reading side is closed already.
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(0), ""), "a closed pipe is not an error");

    let mut demo = RunningDemo::start();
    demo.shows("requests/s", 1);
    kill(demo.proxy(), Signal::SIGKILL).expect("it lives");
    assert_eq!(demo.ends(), Some(1));
    demo.shows("roundsman itself has exited (signal: 9 (SIGKILL))", 1);
    assert!(demo.is_cooked());
}

#[test]
fn a_closed_terminal_ends_the_demo() {
    let mut demo = RunningDemo::start();
    demo.shows("Until you press one", 1);
    let proxy = demo.proxy();
    // It is not the controlling terminal of any process, so no signal is sent.
    demo.terminal.close();
    assert_eventually_blocking("the end of the demo ends the proxy", PATIENCE, || {
        let _ = demo.child.try_wait();
        kill(proxy, None).is_err()
    });
    assert_eq!(demo.ends(), Some(0));
}
