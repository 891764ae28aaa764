//! A client's connection between requests: reads each head within its deadline and cap, has it judged, writes our own
//! answers, and hands everything else to the lane that fits that request.
//!
//! Must never relay a body. What a request may do is `exchange`'s business; which bytes are whose is
//! [`super::client`]'s.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::client::Client;
use super::desk::{Desk, Outcome, Work};
use super::general::{DESK, General};
use super::guard::Guard;
use super::kept::Links;
use super::listen::ClientStream;
use super::{express, tunnel};
use crate::exchange::{
    Broken, End, Entry, Exchange, Facts, Framing, Leftover, Method, Next, OwnAnswer, Refusal, Replay, Scheme, judge,
    limits,
};
use crate::http1::Version;
use crate::model::policy::Lane;
use crate::pool::{AnswerReason, FrontStats, ListenerId, Published};

/// For how long a closing connection takes what the client was still sending, so that it reads our answer before it sees
/// a reset.
const LINGER: Duration = Duration::from_secs(2);
/// How long a client may take to send the rest of a body that we answered without it.
const DRAIN: Duration = Duration::from_secs(5);

/// For how long a connection still takes a request once it is to take no further one: the client may have sent it before
/// it could know.
pub(super) const STOP_GRACE: Duration = Duration::from_millis(300);

/// What every connection needs.
pub struct Front {
    pub(super) published: Published,
    pub(super) stats: Arc<FrontStats>,
    pub(super) lane: Lane,
    pub(super) links: Arc<Links>,
    pub(super) general: Arc<HttpProxy<General>>,
    /// Requests under way, tunnels included.
    pub(super) in_flight: AtomicUsize,
    /// Pingora asks this once a request whether it is shutting down; drains are ours, so it never is.
    pub(super) never: watch::Receiver<bool>,
}

/// What of a judged request outlives its head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) framing: Framing,
    pub(super) version: Version,
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
    pub(super) expects: bool,
    pub(super) upgrade: bool,
}

impl Request {
    fn new(facts: &Facts<'_>) -> Request {
        Request {
            framing: facts.framing,
            version: facts.version,
            head_only: facts.method == Method::Head,
            keep_alive: facts.keep_alive,
            expects: facts.expect_continue,
            upgrade: facts.upgrade,
        }
    }
}

/// What came of listening for a head.
enum Heard {
    /// A request, judged and begun.
    Request(Request, Exchange, Next),
    /// Bytes that are none.
    Refused(Refusal),
    /// The connection is to close without a word.
    Nothing,
}

/// A request that the lane has given back.
pub(super) struct Back {
    pub(super) client: Box<Client>,
    pub(super) exchange: Exchange,
    pub(super) outcome: Outcome,
    /// The client knows that the connection goes on.
    pub(super) keep: bool,
    /// Only the end of the connection ends the answer.
    pub(super) until_close: bool,
}

/// One client's connection. `None` where the answer of a step is the client: the connection has ended.
struct Connection {
    front: Arc<Front>,
    listener: ListenerId,
    address: Option<IpAddr>,
    stop: watch::Receiver<bool>,
    desk: Arc<Desk>,
    /// Goes off now and then to see whether an upstream owes us a head for too long. One for the connection, because
    /// setting a timer for every request would cost more than the look.
    alarm: Pin<Box<Sleep>>,
    /// The same in the express lane.
    ticks: express::Alarm,
}

/// Serves one connection until it ends. `stop`: finish the request under way, take no further one.
pub async fn serve(front: Arc<Front>, stream: ClientStream, listener: ListenerId, stop: watch::Receiver<bool>) {
    let address = match &stream {
        ClientStream::Tcp(_, peer) => Some(peer.ip()),
        ClientStream::Unix(_) => None,
    };
    let now = Instant::now();
    let desk = Arc::new(Desk::new(now, stop.clone()));
    let alarm = Box::pin(tokio::time::sleep_until(now + limits::FIRST_BYTE));
    let mut connection = Connection { front, listener, address, stop, desk, alarm, ticks: express::Alarm::default() };
    let mut client = Box::new(Client::new(stream));
    let mut first = true;
    loop {
        let (request, exchange, next) = match connection.hear(&mut client, first).await {
            Heard::Request(request, exchange, next) => (request, exchange, next),
            Heard::Refused(refusal) => return connection.refuse(client, refusal).await,
            Heard::Nothing => return,
        };
        first = false;
        let _in_flight = InFlight::new(&connection.front);
        match connection.conduct(client, request, exchange, next).await {
            Some(same) => client = same,
            None => return,
        }
    }
}

impl Connection {
    /// Waits for a head. A stop shortens the wait for its first bytes, and never cuts off who has sent some.
    async fn hear(&mut self, client: &mut Client, first: bool) -> Heard {
        client.await_head();
        let mut started = has_begun(&client.read);
        let mut stopping = false;
        let patience = if first || started { limits::HEADER_TIMEOUT } else { limits::KEEP_ALIVE };
        let deadline = tokio::time::sleep(patience);
        tokio::pin!(deadline);
        loop {
            if started {
                match self.try_begin(client) {
                    Ok(Some((request, exchange, next))) => return Heard::Request(request, exchange, next),
                    Ok(None) => {}
                    Err(refusal) => return Heard::Refused(refusal),
                }
            }
            let read = tokio::select! {
                biased;
                read = client.fill() => read,
                () = &mut deadline => match () {
                    () if started => {
                        return Heard::Refused(Refusal::new(AnswerReason::HeaderTimeout, "the head took too long"));
                    }
                    () if stopping => client.fill_now(),
                    () => {
                        self.front.stats.silent.fetch_add(u64::from(first), Ordering::Relaxed);
                        return Heard::Nothing;
                    }
                },
                () = stopped(&mut self.stop), if !started && !stopping => {
                    stopping = true;
                    let grace = Instant::now() + STOP_GRACE;
                    let end = deadline.deadline().min(grace);
                    deadline.as_mut().reset(end);
                    continue;
                }
            };
            if !matches!(read, Ok(n) if n > 0) {
                return Heard::Nothing;
            }
            if !started && has_begun(&client.read) {
                started = true;
                if !first || stopping {
                    deadline.as_mut().reset(Instant::now() + limits::HEADER_TIMEOUT);
                }
            }
        }
    }

    /// Judges the head at the front of the buffer and begins its exchange; `None` while it is not whole.
    fn try_begin(&self, client: &mut Client) -> Result<Option<(Request, Exchange, Next)>, Refusal> {
        let Some(head) = client.read_head()? else { return Ok(None) };
        let facts = judge(&head)?;
        let entry =
            Entry { listener: self.listener, client: self.address, scheme: Scheme::Http, stats: &self.front.stats };
        let rng = fastrand::Rng::new();
        let (exchange, next) = Exchange::begin(&self.front.published, entry, &head, &facts, Instant::now(), rng);
        let request = Request::new(&facts);
        client.begin(request.framing, request.expects);
        Ok(Some((request, exchange, next)))
    }

    /// Answers bytes that are no request. Nothing more can be read from the connection.
    async fn refuse(&self, mut client: Box<Client>, refusal: Refusal) {
        self.front.stats.answers.inc(refusal.reason);
        let mut bytes = Vec::with_capacity(256);
        refusal.answer().write_to(&mut bytes, Version::Http11, false, false);
        if client.send(&bytes).await.is_ok() {
            client.linger(LINGER).await;
        }
    }

    /// Sees one request through. The connection comes back if it takes another.
    async fn conduct(
        &mut self,
        mut client: Box<Client>,
        request: Request,
        mut exchange: Exchange,
        mut next: Next,
    ) -> Option<Box<Client>> {
        loop {
            next = match next {
                Next::Attempt(attempt) if request.upgrade => {
                    return tunnel::run(client, exchange, attempt, request.version).await;
                }
                Next::Attempt(attempt) => {
                    let back = match self.front.lane {
                        Lane::Auto => {
                            let front = self.front.clone();
                            express::run(client, exchange, request, attempt, &front, &mut self.ticks, &self.stop).await
                        }
                        Lane::General => self.general(client, request, exchange).await?,
                    };
                    let Outcome::Answer(answer) = back.outcome else { return end(back).await };
                    (client, exchange) = (back.client, back.exchange);
                    Next::Answer(answer)
                }
                Next::Wait(waiting) => {
                    let changed = tokio::select! {
                        biased;
                        () = waiting.wait() => true,
                        () = client.left() => false,
                    };
                    if !changed {
                        exchange.on_end(End::ClientLeft, Instant::now());
                        return None;
                    }
                    exchange.on_wake(waiting, Instant::now())
                }
                Next::Reroute => exchange.on_reroute(client.head(), Instant::now()),
                Next::Answer(answer) => return self.answer(client, request, exchange, answer).await,
                // Only after a response head, which is a lane's.
                Next::Forward(..) | Next::Abort => return None,
            };
        }
    }

    /// Writes an answer of our own and keeps the connection where the request's framing allows it.
    async fn answer(
        &self,
        mut client: Box<Client>,
        request: Request,
        exchange: Exchange,
        answer: OwnAnswer,
    ) -> Option<Box<Client>> {
        client.skip_head();
        let leftover = match client.fault() {
            Some(_) => Leftover::Close,
            None if client.is_eof() => Leftover::Close,
            None => request.framing.leftover(request.expects, client.body_read()),
        };
        let wanted = request.keep_alive && !answer.close && !exchange.must_close() && !*self.stop.borrow();
        let stay = wanted && leftover != Leftover::Close;
        let mut bytes = Vec::with_capacity(256);
        answer.write_to(&mut bytes, request.version, request.head_only, stay);
        let written = client.send(&bytes).await;
        exchange.on_end(if written.is_ok() { End::Delivered } else { End::ClientLeft }, Instant::now());
        written.ok()?;
        let drained = match leftover {
            _ if !stay => false,
            Leftover::Nothing => true,
            Leftover::Drain(most) => tokio::time::timeout(DRAIN, client.discard(most)).await.unwrap_or(false),
            Leftover::Close => false,
        };
        if drained {
            return Some(client);
        }
        client.linger(LINGER).await;
        None
    }

    /// Gives the request to pingora, and says what it came to.
    async fn general(&mut self, client: Box<Client>, request: Request, exchange: Exchange) -> Option<Back> {
        let Request { version, keep_alive, .. } = request;
        let work = Work { exchange, version, keep_alive, until_close: false, outcome: None };
        self.desk.put_work(Box::new(work));
        let session = ServerSession::new_http1(Box::new(Guard::lend(client, self.desk.clone())));
        let lane = self.front.general.process_new_http(session, &self.front.never);
        let (in_time, keep) = {
            let lane = DESK.scope(self.desk.clone(), lane);
            tokio::pin!(lane);
            loop {
                tokio::select! {
                    biased;
                    reused = poll_fn(|cx| self.desk.stall.pace(lane.as_mut(), cx)) => break (true, reused.is_some()),
                    () = &mut self.alarm => {
                        let now = Instant::now();
                        match self.desk.head_due() {
                            Some(due) if due <= now => break (false, false),
                            Some(due) => self.alarm.as_mut().reset(due),
                            None => self.alarm.as_mut().reset(now + limits::FIRST_BYTE),
                        }
                    }
                }
            }
        };
        // Pingora has dropped both by now, however it ended.
        let client = self.desk.take_client()?;
        let Work { mut exchange, until_close, outcome, .. } = *self.desk.take_work()?;
        let outcome = match outcome {
            Some(outcome) => outcome,
            None if !in_time => after(exchange.on_broken(Broken::TimedOut, Replay::Gone, Instant::now())),
            // It reads the head in another way than we do.
            None => after(exchange.on_client_fault(Refusal::malformed("refused by the lane"))),
        };
        Some(Back { client, exchange, outcome, keep, until_close })
    }
}

/// What is left to do for a request that cannot be sent again.
fn after(next: Next) -> Outcome {
    match next {
        Next::Answer(answer) => Outcome::Answer(answer),
        Next::Attempt(_) | Next::Wait(_) | Next::Reroute | Next::Forward(..) | Next::Abort => Outcome::Aborted,
    }
}

/// Ends a request that the lane has seen through, or that broke off.
async fn end(back: Back) -> Option<Box<Client>> {
    let Back { mut client, exchange, outcome, keep, until_close } = back;
    let now = Instant::now();
    match outcome {
        Outcome::Delivered => {
            exchange.on_end(End::Delivered, now);
            if keep && client.is_whole() && !client.is_eof() {
                return Some(client);
            }
            let sent = client.send(&[]).await.is_ok();
            if sent && (!client.is_whole() || !client.read.is_empty()) {
                client.linger(LINGER).await;
            }
        }
        Outcome::Aborted => {
            exchange.on_end(End::Aborted, now);
            // What has come of the answer is the client's. That it is not whole shows in what is missing, or in a reset
            // where nothing else could show it.
            let sent = client.send(&[]).await;
            if until_close || sent.is_err() {
                client.reset();
            }
        }
        Outcome::ClientLeft | Outcome::Answer(_) => {
            exchange.on_end(End::ClientLeft, now);
        }
    }
    None
}

/// Whether a request has begun: a lone line end may stand before one, and begins nothing.
fn has_begun(read: &[u8]) -> bool {
    !matches!(read, [] | [b'\r'] | [b'\r', b'\n'])
}

/// Completes when the connection is to take no further request.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// One request under way.
struct InFlight(Arc<Front>);

impl InFlight {
    fn new(front: &Arc<Front>) -> InFlight {
        front.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(front.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
