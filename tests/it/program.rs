//! The real binary with its own configuration file, its admin API, its log, and its signals.
//!
//! Ports come from a range below the ephemeral one and are used once, so that two tests never share one.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use roundsman::admin::json::{EventWhat, EventsReply, PoolInfo, ReloadReply, StatusReply, UpstreamInfo};
use roundsman::model::HealthState;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::lanes::each::configured;

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_roundsman");

/// A quick check: 100 ms, two passes, two failures.
pub const QUICK: &str = "interval = \"100ms\"\ntimeout = \"80ms\"\nfast_interval = \"20ms\"\nhealthy_threshold = 2\n\
                         unhealthy_threshold = 2\njitter = 0\n";

/// An HTTP check with a timeout that a busy machine keeps, and a short fast interval to notice refused connections.
pub const STEADY: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"500ms\"\ntimeout = \"500ms\"\n\
                          fast_interval = \"40ms\"\nhealthy_threshold = 2\nunhealthy_threshold = 2\njitter = 0\n";

/// An HTTP check of `/healthz` that is [`QUICK`].
pub fn http_check() -> String {
    format!("type = \"http\"\npath = \"/healthz\"\n{QUICK}")
}

/// A loopback address that no other test of this run gets.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..10_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let from_pid = (std::process::id() % 11) as u16 * 1_000;
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + (from_pid + step) % 12_000));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between 20000 and 32000");
}

/// A running roundsman. Killed when dropped.
pub struct Program {
    child: Child,
    dir: TempDir,
    /// Where clients connect: listener `web`.
    pub web: SocketAddr,
    /// The admin API.
    pub admin: SocketAddr,
}

impl Program {
    /// Starts it with listener `web` (pool `api`), the admin socket, and `pools` as the rest of the file. Returns when
    /// the admin socket answers.
    pub async fn start(pools: &str) -> Program {
        Program::spawn(pools).when_live().await
    }

    /// As [`Program::start_ready`], with a limit of descriptors.
    pub async fn start_ready_with_descriptors(pools: &str, most: u32) -> Program {
        // The shell execs the program, which keeps its process ID.
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\""), BINARY]);
        Program::spawn_by(command, |web, admin, _| config(web, admin, pools)).when_live().await.when_ready().await
    }

    /// Waits until the admin socket answers.
    pub async fn when_live(self) -> Program {
        let program = self;
        let end = Instant::now() + Duration::from_secs(10);
        while try_fetch(program.admin, "GET", "/livez").await.is_err() {
            assert!(Instant::now() < end, "it did not start:\n{}", program.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        program
    }

    /// As [`Program::start`], and waits until `/readyz` is green.
    pub async fn start_ready(pools: &str) -> Program {
        Program::start(pools).await.when_ready().await
    }

    async fn when_ready(self) -> Program {
        self.wait_until_ready().await;
        self
    }

    /// Waits until `/readyz` is green.
    pub async fn wait_until_ready(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        while !matches!(try_fetch(self.admin, "GET", "/readyz").await, Ok((200, _))) {
            assert!(Instant::now() < end, "it did not become ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts it and does not wait.
    pub fn spawn(pools: &str) -> Program {
        Program::spawn_by(Command::new(BINARY), |web, admin, _| config(web, admin, pools))
    }

    /// Starts it with a whole file, made of its addresses and its directory, and does not wait.
    pub fn spawn_whole(text: impl FnOnce(SocketAddr, SocketAddr, &Path) -> String) -> Program {
        Program::spawn_by(Command::new(BINARY), text)
    }

    /// As [`Program::spawn_whole`], with every log line.
    pub fn spawn_verbose(text: impl FnOnce(SocketAddr, SocketAddr, &Path) -> String) -> Program {
        let mut command = Command::new(BINARY);
        command.env("RUST_LOG", "trace");
        Program::spawn_by(command, text)
    }

    /// Starts it by a command that execs the program, and does not wait.
    pub fn spawn_by(mut command: Command, text: impl FnOnce(SocketAddr, SocketAddr, &Path) -> String) -> Program {
        let (web, admin) = (free_address(), free_address());
        let dir = tempfile::tempdir().expect("a temporary directory");
        let text = text(web, admin, dir.path());
        std::fs::write(dir.path().join("roundsman.toml"), configured(&text)).expect("write the configuration");
        command.args(["run", "--config", "roundsman.toml"]);
        Program::spawn_in(dir, command, web, admin)
    }

    /// Starts it without a file, in front of these upstreams, and does not wait. `admin` is the default address, which
    /// may be another process's.
    pub fn spawn_without_file(to: &str) -> Program {
        let (web, admin) = (free_address(), SocketAddr::from(([127, 0, 0, 1], 9_900)));
        let mut command = Command::new(BINARY);
        command.args(["run", "--listen", &web.to_string(), "--to", to]);
        Program::spawn_in(tempfile::tempdir().expect("a temporary directory"), command, web, admin)
    }

    fn spawn_in(dir: TempDir, mut command: Command, web: SocketAddr, admin: SocketAddr) -> Program {
        let log = std::fs::File::create(dir.path().join("log")).expect("create the log");
        let child = command
            .args(["--log-format", "json"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start the program");
        Program { child, dir, web, admin }
    }

    /// The directory it runs in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its configuration file.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("roundsman.toml")
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Its log: JSON, one line per event.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Replaces `pools` in the configuration file, whole.
    pub fn write(&self, pools: &str) {
        self.write_raw(&config(self.web, self.admin, pools));
    }

    /// Replaces the configuration file, whole.
    pub fn write_raw(&self, text: &str) {
        let beside = self.dir.path().join("roundsman.toml.new");
        std::fs::write(&beside, configured(text)).expect("write the configuration");
        std::fs::rename(beside, self.file()).expect("put it in place");
    }

    /// Writes `pools` and reloads over the admin API; the status and the answer.
    pub async fn reload(&self, pools: &str) -> (u16, ReloadReply) {
        self.write(pools);
        self.order_reload().await
    }

    /// Reloads the file as it is.
    pub async fn order_reload(&self) -> (u16, ReloadReply) {
        let (status, body) = fetch(self.admin, "POST", "/api/v1/reload").await;
        (status, serde_json::from_slice(&body).expect("a reload's answer"))
    }

    /// Runs another command of the program in this one's directory: its exit status, stdout and stderr.
    pub async fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        let run = tokio::task::spawn_blocking(move || command.output().expect("start the command"));
        let output = tokio::time::timeout(Duration::from_secs(90), run).await.expect("it ends").expect("no panic");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("send a signal");
    }

    /// `/api/v1/status`.
    pub async fn status(&self) -> StatusReply {
        let (status, body) = fetch(self.admin, "GET", "/api/v1/status").await;
        assert_eq!(status, 200);
        serde_json::from_slice(&body).expect("a status")
    }

    /// One pool of the status.
    pub async fn pool(&self, name: &str) -> PoolInfo {
        self.status().await.pools.get(name).unwrap_or_else(|| panic!("no pool {name}")).clone()
    }

    /// One upstream of the status; `None` if the pool does not have it.
    pub async fn upstream(&self, pool: &str, address: &str) -> Option<UpstreamInfo> {
        self.pool(pool).await.upstreams.into_iter().find(|upstream| upstream.address == address)
    }

    /// `/metrics`.
    pub async fn metrics(&self) -> String {
        let (status, body) = fetch(self.admin, "GET", "/metrics").await;
        assert_eq!(status, 200);
        String::from_utf8(body.to_vec()).expect("UTF-8")
    }

    /// One series of the metrics, written as there with its labels; `None` if there is no such series.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().expect("a number"))
    }

    /// The events after number `after`.
    pub async fn events(&self, after: u64) -> EventsReply {
        let (_, body) = fetch(self.admin, "GET", &format!("/api/v1/events?after={after}")).await;
        serde_json::from_slice(&body).expect("events")
    }

    /// Waits until the upstream is in this state (`healthy`, `unhealthy`, `unknown`).
    pub async fn wait_for_state(&self, pool: &str, address: &str, state: &str, within: Duration) {
        let end = Instant::now() + within;
        loop {
            let upstream = self.upstream(pool, address).await;
            if upstream.as_ref().is_some_and(|upstream| upstream.state.as_str() == state) {
                return;
            }
            assert!(Instant::now() < end, "{address} is not {state} within {within:?}: {upstream:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Every transition so far of this upstream, oldest first.
    pub async fn transitions(&self, pool: &str, address: &str) -> Vec<TransitionSeen> {
        let events = self.events(0).await.events.into_iter();
        let seen = events.filter_map(|event| match event.what {
            EventWhat::Transition { pool: of, upstream, from, to, code, reason, .. } => {
                (of == pool && upstream == address).then_some(TransitionSeen { from, to, code, reason })
            }
            _ => None,
        });
        seen.collect()
    }

    /// Waits for its end; panics if it takes longer.
    pub async fn wait_for_exit(&mut self, within: Duration) -> ExitStatus {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            assert!(Instant::now() < end, "it did not end within {within:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// Allows it so many descriptors from now on; those that are open stay.
    pub fn limit_descriptors(&self, most: u32) {
        let arguments = ["--pid".to_owned(), self.pid().to_string(), format!("--nofile={most}:")];
        let done = Command::new("prlimit").args(arguments).status().expect("util-linux is installed");
        assert!(done.success());
    }

    /// The ID of its thread of this name.
    pub fn thread(&self, name: &str) -> Pid {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads");
        let named = |task: &std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = tasks.filter_map(Result::ok).find(named).unwrap_or_else(|| panic!("no thread {name}"));
        Pid::from_raw(task.file_name().to_str().and_then(|id| id.parse().ok()).expect("a number"))
    }

    /// Its threads.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id())).map_or(0, Iterator::count)
    }

    /// The names of its threads.
    pub fn thread_names(&self) -> Vec<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        threads.map(|thread| name(thread).trim_end().to_owned()).collect()
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let mut text = String::new();
        let file = std::fs::File::open(format!("/proc/{}/status", self.child.id()));
        file.and_then(|mut file| file.read_to_string(&mut text)).expect("its memory");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("a line VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// Processor time it has used, in all its threads.
    pub fn processor_time(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("its times");
        // The name of the program, in brackets, may contain anything.
        let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
        let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number"));
        // Linux reports in hundredths of a second on every machine this runs on.
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Panics if the log reports a panic.
    pub fn assert_no_panic(&self) {
        let log = self.log();
        assert!(!log.contains("panicked"), "a panic was reported:\n{log}");
    }
}

/// A change of an upstream's state, from the event ring.
#[derive(Debug, Clone)]
pub struct TransitionSeen {
    pub from: HealthState,
    pub to: HealthState,
    pub code: Option<String>,
    pub reason: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The file of [`Program::start`].
pub fn config(web: SocketAddr, admin: SocketAddr, pools: &str) -> String {
    format!("[listeners.web]\naddress = \"{web}\"\npool = \"api\"\n\n[admin]\naddress = \"{admin}\"\n\n{pools}\n")
}

/// A pool `name` over these upstreams, with `check` as its health table (empty: none).
pub fn pool(name: &str, upstreams: &[&str], check: &str) -> String {
    let list: Vec<String> = upstreams.iter().map(|address| format!("\"{address}\"")).collect();
    let health = if check.is_empty() { String::new() } else { format!("[pools.{name}.health]\n{check}") };
    format!("[pools.{name}]\nupstreams = [{}]\n{health}\n", list.join(", "))
}

/// The same over upstreams written as TOML values.
pub fn pool_of(name: &str, entries: &[String], check: &str) -> String {
    format!("[pools.{name}]\nupstreams = [{}]\n[pools.{name}.health]\n{check}\n", entries.join(", "))
}

/// One request on a new connection: the status and the body. Panics when there is no answer.
pub async fn fetch(address: SocketAddr, method: &str, path: &str) -> (u16, Bytes) {
    try_fetch(address, method, path).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// As [`fetch`], with failures as text. Orders have `force`: refusals without it have their own tests.
pub async fn try_fetch(address: SocketAddr, method: &str, path: &str) -> Result<(u16, Bytes), String> {
    let exchange = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, driver) = handshake.map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        let request = hyper::Request::builder().method(method).uri(path).header("host", address.to_string());
        let is_order = method == "POST" && (path.ends_with("/drain") || path.ends_with("/disable"));
        let body = if is_order { Bytes::from_static(br#"{"force":true}"#) } else { Bytes::new() };
        let request = request.body(Full::new(body)).expect("a good request");
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    tokio::time::timeout(Duration::from_secs(60), exchange).await.unwrap_or_else(|_| Err("no answer in 60 s".into()))
}
