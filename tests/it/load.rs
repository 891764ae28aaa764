//! Steady load over keep-alive connections, and the outcome of every request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// What to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The method.
    pub method: &'static str,
    /// The path. `{n}` in it becomes a number that no other request has.
    pub path: &'static str,
    /// The body.
    pub body: Bytes,
    /// Connections.
    pub clients: u32,
    /// Requests per second over all of them.
    pub rate: u32,
    /// The body of the good answer to a path, where that matters.
    pub answer: Option<fn(&str) -> Vec<u8>>,
}

impl Plan {
    /// GETs of `/`.
    pub fn get(clients: u32, rate: u32) -> Plan {
        Plan { method: "GET", path: "/", body: Bytes::new(), clients, rate, answer: None }
    }

    /// GETs, each to its own path: `/n/` and a number.
    pub fn numbered_get(clients: u32, rate: u32) -> Plan {
        Plan { path: "/n/{n}", ..Plan::get(clients, rate) }
    }

    /// POSTs, each to its own path: `/n/` and a number.
    pub fn numbered_post(clients: u32, rate: u32) -> Plan {
        Plan { path: "/n/{n}", ..Plan::post(clients, rate) }
    }

    /// POSTs of ten bytes to `/`, which are never retried.
    pub fn post(clients: u32, rate: u32) -> Plan {
        Plan { method: "POST", body: Bytes::from_static(b"0123456789"), ..Plan::get(clients, rate) }
    }
}

/// The outcome of one request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its method.
    pub method: &'static str,
    /// Its path.
    pub path: String,
    /// When it was sent.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// The status, or what went wrong.
    pub answer: Result<u16, String>,
    /// The good answer was whole and had another body.
    pub wrong: bool,
}

/// Load that runs until [`Load::stop`].
pub struct Load {
    clients: JoinSet<()>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Begins.
    pub fn start(address: SocketAddr, plan: &Plan) -> Load {
        let outcomes: Arc<Mutex<Vec<Outcome>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..plan.clients {
            clients.spawn(client(address, plan.clone(), number, outcomes.clone(), stop.clone()));
        }
        Load { clients, outcomes, stop }
    }

    /// How many requests have ended.
    pub fn count(&self) -> usize {
        self.outcomes.lock().len()
    }

    /// Sends no further request, waits for those in flight, and returns all outcomes.
    pub async fn stop(mut self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        std::mem::take(&mut *self.outcomes.lock())
    }
}

/// Outcomes other than 2xx, as text for a message.
pub fn failures(outcomes: &[Outcome]) -> Vec<String> {
    let bad = outcomes.iter().filter(|outcome| !matches!(outcome.answer, Ok(200..=299)));
    bad.map(|outcome| format!("{:?} after {:?}", outcome.answer, outcome.took)).collect()
}

async fn client(
    address: SocketAddr,
    plan: Plan,
    number: u32,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    stop: Arc<AtomicBool>,
) {
    let period = Duration::from_secs(1) * plan.clients / plan.rate;
    let mut ticks = tokio::time::interval_at(Instant::now() + period * number / plan.clients, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let path = plan.path.replace("{n}", &NEXT_NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
        let at = Instant::now();
        let asked = request(address, &plan, &path, &mut connection);
        let answer = match tokio::time::timeout(Duration::from_secs(90), asked).await {
            Ok(answer) => answer,
            Err(_) => Err("no answer in 90 s".to_owned()),
        };
        if answer.is_err() {
            connection = None;
        }
        let wrong = match (&answer, plan.answer) {
            (Ok((200, body)), Some(right)) => *body != right(&path),
            _ => false,
        };
        let answer = answer.map(|(status, _)| status);
        outcomes.lock().push(Outcome { method: plan.method, path, at, took: at.elapsed(), answer, wrong });
    }
}

async fn request(
    address: SocketAddr,
    plan: &Plan,
    path: &str,
    connection: &mut Option<SendRequest<Full<Bytes>>>,
) -> Result<(u16, Bytes), String> {
    let ready = match connection {
        Some(sender) => sender.ready().await.is_ok(),
        None => false,
    };
    if !ready {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        *connection = Some(sender);
    }
    let sender = connection.as_mut().expect("just made");
    let request = hyper::Request::builder().method(plan.method).uri(path).header("host", "load.test");
    let request = request.body(Full::new(plan.body.clone())).expect("a good request");
    let response = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| format!("body: {error:?}"))?;
    Ok((status, body.to_bytes()))
}
