//! `roundsman demo` on its own terminal: keys in the orders in which people press them, and unplanned ends.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::BINARY;
use crate::pty::Terminal;
use crate::support::assert_eventually_blocking;

/// Every wait ends after this; the story needs half a minute on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A demo, and the terminal that it plays on.
struct Played {
    child: Child,
    terminal: Terminal,
}

impl Played {
    fn start() -> Played {
        let terminal = Terminal::open(80, 24);
        let child = terminal.run(Command::new(BINARY).arg("demo").env_remove("RUST_LOG").env("NO_COLOR", "1"));
        Played { child, terminal }
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

    /// The process of the proxy, from the demo's own words.
    fn proxy(&self) -> Pid {
        let shown = self.shown();
        let pid = shown.split("  pid    ").nth(1).and_then(|rest| rest.split_whitespace().next());
        Pid::from_raw(pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no pid in {shown}")))
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        // By TERM, so that it ends its proxy.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

#[test]
fn reloads_work_after_the_storys_own_and_a_503_without_any_backend_is_no_failure() {
    let mut demo = Played::start();
    demo.shows("roundsman: reload applied", 1);
    demo.press("rr");
    demo.shows("(backend 1 has weight 1)", 1);
    demo.shows("(backend 1 has weight 2)", 1);
    // The story has left backend 2 slow.
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
        assert_eventually_blocking("every backend is out", PATIENCE, down);
    }
    let figure = |line: &str| line.split("  503 ").nth(1)?.trim_start().split('/').next()?.parse::<u32>().ok();
    let counts = || demo.shown().lines().filter(|line| line.contains("requests/s")).filter_map(figure).any(|n| n > 0);
    assert_eventually_blocking("a line counts the requests that nobody serves", PATIENCE, counts);
    demo.shows("roundsman: pool demo refuses requests  ", 1);
    // Between its first listening and its second pass every answer is 503, rightly.
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
fn q_right_after_the_last_backend_is_back_is_no_failure() {
    let mut demo = Played::start();
    demo.shows("requests/s", 1);
    // All at once: what a check has not seen yet, a retry cannot know.
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
fn the_terminal_is_as_before_however_the_demo_ends() {
    for way in ["q", "\u{3}", "\u{4}", "TERM", "HUP", "INT", "QUIT"] {
        let mut demo = Played::start();
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
fn a_reader_that_goes_and_a_proxy_that_dies_end_it_without_a_panic() {
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
    // The reading side is closed by now.
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(0), ""), "as of any command before `| head`");

    let mut demo = Played::start();
    demo.shows("requests/s", 1);
    kill(demo.proxy(), Signal::SIGKILL).expect("it lives");
    assert_eq!(demo.ends(), Some(1));
    demo.shows("roundsman itself has exited (signal: 9 (SIGKILL))", 1);
    assert!(demo.is_cooked());
}

#[test]
fn a_terminal_that_is_gone_ends_it() {
    let mut demo = Played::start();
    demo.shows("Until you press one", 1);
    let proxy = demo.proxy();
    // Nobody has it as controlling terminal, so no signal comes.
    demo.terminal.close();
    assert_eventually_blocking("its end ends the proxy", PATIENCE, || {
        let _ = demo.child.try_wait();
        kill(proxy, None).is_err()
    });
    assert_eq!(demo.ends(), Some(0));
}
