//! The proxy of the demo: this very binary with a configuration file, and its admin API.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::admin::json::{EventsReply, StatusReply};

/// The most of an admin answer that is read.
const ANSWER_MAX: usize = 4 << 20;

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
    child: Child,
    dir: PathBuf,
}

impl Proxy {
    /// Starts it and waits until it is ready.
    pub async fn start(backends: &[SocketAddr]) -> Result<Proxy, String> {
        let dir = std::env::temp_dir().join(format!("roundsman-demo-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|error| format!("cannot write to {}: {error}", dir.display()))?;
        let address = free_port(8080).map_err(|error| format!("no free port: {error}"))?;
        let admin = free_port(9900).map_err(|error| format!("no free port: {error}"))?;
        let (file, log) = (dir.join("demo.toml"), dir.join("roundsman.log"));
        write_config(&file, address, admin, backends, 1).map_err(|error| error.to_string())?;
        let output = std::fs::File::create(&log).map_err(|error| error.to_string())?;
        let program = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
        let child = Command::new(program)
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .map_err(|error| format!("cannot start the proxy: {error}"))?;
        let mut proxy = Proxy { address, admin, file, log, backends: backends.to_vec(), child, dir };
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

    /// Writes the file with another weight for the first backend and sends SIGHUP; answers how long it took until the new
    /// generation was applied.
    pub async fn reload(&self, weight: u32) -> Result<Duration, String> {
        let before = self.status().await?.generation;
        write_config(&self.file, self.address, self.admin, &self.backends, weight)
            .map_err(|error| error.to_string())?;
        let begin = Instant::now();
        let pid = Pid::from_raw(i32::try_from(self.child.id()).map_err(|error| error.to_string())?);
        kill(pid, Signal::SIGHUP).map_err(|error| format!("cannot send SIGHUP: {error}"))?;
        for _ in 0..2_000 {
            if self.status().await?.generation > before {
                return Ok(begin.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Err("the reload was not applied".to_owned())
    }

    /// What `/api/v1/status` says.
    pub async fn status(&self) -> Result<StatusReply, String> {
        self.get("/api/v1/status").await
    }

    /// The events after this number.
    pub async fn events(&self, after: u64) -> Result<EventsReply, String> {
        self.get(&format!("/api/v1/events?after={after}")).await
    }

    /// Stops it with TERM and waits; true if it ended with status 0.
    pub async fn stop(mut self) -> bool {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        for _ in 0..500 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    async fn wait_until_ready(&mut self) -> Result<(), String> {
        for _ in 0..1_000 {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("the proxy ended at once ({status}):\n{log}"));
            }
            if self.answers_ready().await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("the proxy did not become ready in 10 s".to_owned())
    }

    async fn answers_ready(&self) -> bool {
        matches!(fetch(self.admin, "/readyz").await, Ok((200, _)))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let (status, body) = fetch(self.admin, path).await?;
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

async fn fetch(admin: SocketAddr, path: &str) -> Result<(u16, Bytes), String> {
    let exchange = async {
        let stream = TcpStream::connect(admin).await.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, driver) = handshake.map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        let request = http::Request::get(path).header("host", admin.to_string()).body(Empty::<Bytes>::new());
        let response =
            sender.send_request(request.expect("a good request")).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    match tokio::time::timeout(Duration::from_secs(5), exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{path}: no answer in 5 s")),
    }
}

/// The port people expect if it is free, else any.
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
    // Written beside and renamed, so that a reload never reads half a file.
    let beside = file.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, file)
}
