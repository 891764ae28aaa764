//! A backend that is a process of its own: `backend.py` beside this file.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::free_address;
use crate::support::assert_eventually_blocking;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/faults/stage/backend.py");

/// A process behind the program; killed when dropped.
pub struct Backend {
    pub address: SocketAddr,
    log: PathBuf,
    running: Option<Running>,
}

struct Running {
    child: Child,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
}

/// A request that reached a backend, when its head had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    pub at: SystemTime,
    pub post: bool,
    pub path: String,
}

impl Backend {
    /// Starts one that writes its log into `dir`. Returns when it listens.
    pub fn start(dir: &Path, name: &str) -> Backend {
        let mut backend = Backend { address: free_address(), log: dir.join(format!("{name}.log")), running: None };
        backend.revive();
        backend
    }

    /// Starts it again, at its address.
    pub fn revive(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let mut child = Command::new("python3")
            .args(["-u", SCRIPT, &self.address.port().to_string()])
            .arg(&self.log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed: `./dev test` installs it");
        let orders = child.stdin.take().expect("it was piped");
        let said = BufReader::new(child.stdout.take().expect("it was piped"));
        let mut running = Running { child, orders, said };
        running.hear("ready");
        self.running = Some(running);
    }

    /// Has it do this from now on; see `backend.py`.
    pub fn order(&mut self, order: &str) {
        let running = self.running.as_mut().expect("it runs");
        writeln!(running.orders, "{order}").expect("it reads");
        running.hear("done");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let mut running = self.running.take().expect("it runs");
        running.child.wait().expect("it ends");
    }

    /// SIGTERM: it stops listening, closes idle connections, and ends after the last response.
    pub fn stop_gracefully(&mut self) {
        self.signal(Signal::SIGTERM);
        let mut running = self.running.take().expect("it runs");
        let within = Duration::from_secs(30);
        assert_eventually_blocking("it ends", within, || running.child.try_wait().is_ok_and(|ended| ended.is_some()));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let child = &self.running.as_ref().expect("it runs").child;
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("it is our child");
    }

    /// Every request that has reached it.
    pub fn arrived(&self) -> Vec<Arrived> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let read = |line: &str| {
            let (nanos, request) = line.split_once(' ')?;
            let (method, path) = request.split_once(' ')?;
            let at = UNIX_EPOCH + Duration::from_nanos(nanos.parse().ok()?);
            Some(Arrived { at, post: method == "POST", path: path.to_owned() })
        };
        text.lines().map(|line| read(line).unwrap_or_else(|| panic!("{line}"))).collect()
    }
}

impl Running {
    fn hear(&mut self, word: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it speaks");
        assert_eq!(line.trim_end(), word);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}
