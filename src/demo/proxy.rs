//! The proxy of the demo: this very binary with a configuration file, and its admin API.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::admin::json::{EventsReply, ReloadReply, ReloadResult, StatusReply};

/// The most of an admin answer that is read.
const ANSWER_MAX: usize = 4 << 20;
/// How long most answers of the admin API may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reload may take: longer than the process gives itself.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The running proxy. Killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the admin API is.
    pub admin: SocketAddr,
    /// Its configuration file.
    pub file: PathBuf,
    /// What it logs.
    pub log: PathBuf,
    backends: Vec<SocketAddr>,
    /// The first backend's, in the file as it is now.
    weight: u32,
    child: Child,
    dir: PathBuf,
}

/// A reload that was ordered.
#[derive(Debug)]
pub struct Reloaded {
    /// From the order to the answer.
    pub took: Duration,
    /// Why it was refused.
    pub refused: Option<String>,
}

impl Proxy {
    /// Starts it and waits until it is ready. Uses the usual ports, or any free ones if another process takes those
    /// meanwhile.
    pub async fn start(backends: &[SocketAddr]) -> Result<Proxy, String> {
        let first = Proxy::start_on([8080, 9900], backends).await;
        match first {
            Err(problem) if problem.contains("in use") => Proxy::start_on([0, 0], backends).await,
            started => started,
        }
    }

    /// Uses these ports if they are free, else any.
    async fn start_on(wishes: [u16; 2], backends: &[SocketAddr]) -> Result<Proxy, String> {
        let free = wishes.map(|wish| free_port(wish).map_err(|error| format!("no free port: {error}")));
        let [address, admin] = free;
        let (address, admin) = (address?, admin?);
        let dir = std::env::temp_dir().join(format!("roundsman-demo-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|error| format!("cannot make the directory {}: {error}", dir.display()))?;
        let (file, log) = (dir.join("demo.toml"), dir.join("roundsman.log"));
        write_config(&file, address, admin, backends, 1).map_err(|error| error.to_string())?;
        let output = std::fs::File::create(&log).map_err(|error| error.to_string())?;
        let program = std::env::current_exe().map_err(|error| format!("cannot find the roundsman binary: {error}"))?;
        let child = Command::new(program)
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .map_err(|error| format!("cannot start the proxy: {error}"))?;
        let mut proxy = Proxy { address, admin, file, log, backends: backends.to_vec(), weight: 1, child, dir };
        proxy.wait_until_ready().await?;
        Ok(proxy)
    }

    /// The configuration as it is now.
    pub fn config(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes the file with the other weight (1 or 2) for the first backend, and returns the new weight. The file and
    /// `weight` agree even if the reload that follows is dropped.
    pub fn change_weight(&mut self) -> Result<u32, String> {
        let weight = 3 - self.weight;
        write_config(&self.file, self.address, self.admin, &self.backends, weight)
            .map_err(|error| format!("cannot write {}: {error}", self.file.display()))?;
        self.weight = weight;
        Ok(weight)
    }

    /// Orders a reload, as `roundsman reload` does, and waits for its end. It uses the API and not SIGHUP, because two
    /// signals may be merged, and the end of a reload that changes nothing could not be detected. The reload continues
    /// if this is dropped.
    pub fn reload(&self) -> impl Future<Output = Result<Reloaded, String>> + use<> {
        let admin = self.admin;
        async move {
            let begin = Instant::now();
            let (_, body) = fetch(admin, Method::POST, "/api/v1/reload", RELOAD_TIMEOUT).await?;
            let reply: ReloadReply = serde_json::from_slice(&body).map_err(|error| format!("reload: {error}"))?;
            let refused = match reply.result {
                ReloadResult::Applied | ReloadResult::Unchanged => None,
                ReloadResult::Refused => Some(reply.error.unwrap_or_else(|| "without a reason".to_owned())),
            };
            Ok(Reloaded { took: begin.elapsed(), refused })
        }
    }

    /// The reply of `/api/v1/status`.
    pub async fn status(&self) -> Result<StatusReply, String> {
        self.get("/api/v1/status").await
    }

    /// The events after this number.
    pub async fn events(&self, after: u64) -> Result<EventsReply, String> {
        self.get(&format!("/api/v1/events?after={after}")).await
    }

    /// Stops it with TERM and waits.
    ///
    /// # Errors
    /// It did not exit with status 0 in time; as text.
    pub async fn stop(mut self) -> Result<(), String> {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        for _ in 0..500 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return match status.success() {
                    true => Ok(()),
                    false => Err(format!("roundsman was stopped and exited with {status}{}", self.last_words())),
                };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("roundsman did not stop within 10 s of SIGTERM{}", self.last_words()))
    }

    /// Its exit status, if it has exited.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last lines of its log, to append to an error message.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.iter().rev().map(|line| format!("\n    its log: {line}")).collect()
    }

    async fn wait_until_ready(&mut self) -> Result<(), String> {
        for _ in 0..1_000 {
            if let Some(status) = self.ended() {
                return Err(format!("roundsman exited at once ({status}){}", self.last_words()));
            }
            if self.answers_ready().await && self.is_ours().await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("roundsman did not become ready in 10 s{}", self.last_words()))
    }

    async fn answers_ready(&self) -> bool {
        matches!(fetch(self.admin, Method::GET, "/readyz", ANSWER_TIMEOUT).await, Ok((200, _)))
    }

    /// Whether the process at the admin address has our backends: another one may have taken the ports first, and ours
    /// is about to exit.
    async fn is_ours(&self) -> bool {
        let Ok(status) = self.status().await else { return false };
        let pools = status.pools.0.iter().flat_map(|(_, pool)| &pool.upstreams);
        let known: Vec<&str> = pools.map(|upstream| &*upstream.address).collect();
        self.backends.iter().all(|backend| known.contains(&&*backend.to_string()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let (status, body) = fetch(self.admin, Method::GET, path, ANSWER_TIMEOUT).await?;
        if status != 200 {
            return Err(format!("{path} answered {status}"));
        }
        serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn fetch(admin: SocketAddr, method: Method, path: &str, within: Duration) -> Result<(u16, Bytes), String> {
    let exchange = async {
        let stream = TcpStream::connect(admin).await.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, driver) = handshake.map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        let request = http::Request::builder().method(method).uri(path).header("host", admin.to_string());
        let request = request.body(Empty::<Bytes>::new());
        let response =
            sender.send_request(request.expect("a good request")).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    match tokio::time::timeout(within, exchange).await {
        Ok(answer) => answer.map_err(|error: String| format!("{path}: {error}")),
        Err(_) => Err(format!("{path}: no answer in {} s", within.as_secs())),
    }
}

/// The wished port if it is free, else any.
fn free_port(wish: u16) -> io::Result<SocketAddr> {
    let try_bind = |port| std::net::TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr());
    try_bind(wish).or_else(|_| try_bind(0))
}

fn write_config(
    file: &PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
    backends: &[SocketAddr],
    weight: u32,
) -> io::Result<()> {
    let mut text =
        format!("[listeners.web]\naddress = \"{address}\"\npool = \"demo\"\n\n[pools.demo]\nupstreams = [\n");
    for (i, backend) in backends.iter().enumerate() {
        let weight = if i == 0 { weight } else { 1 };
        let _ = writeln!(text, "  {{ address = \"{backend}\", weight = {weight} }},");
    }
    text += "]\n\n[pools.demo.health]\ntype = \"http\"\npath = \"/healthz\"\ninterval = \"1s\"\ntimeout = \"500ms\"\n";
    text += "fast_interval = \"250ms\"\nhealthy_threshold = 2\nunhealthy_threshold = 2\n\n";
    let _ = writeln!(text, "[admin]\naddress = \"{admin}\"");
    // Written to another file and renamed, so that a reload never reads half a file.
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, file)
}
