//! A client's connection: waits for its requests, has each head judged, writes our own answers, and hands everything else
//! to the lane that fits that request.
//!
//! A connection on which nothing is under way is [`Quiet`]: a socket and a timer. What requests need is made when bytes
//! come, and kept while more requests follow at once ([`Busy`]): then a request allocates nothing and sets no timer.
//!
//! Must never relay a body. What a request may do is `exchange`'s business; which bytes are whose is
//! [`super::client`]'s.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::client::{Client, ClientIo};
use super::express::{self, Alarm, TICK, Tunnel};
use super::general::{General, HANDOVER};
use super::handover::{HandedRequest, Handover, Outcome};
use super::kept::Links;
use super::lent_client::LentClient;
use super::listen::{ClientStream, Stop};
use super::{date, tunnel};
use crate::exchange::limits::{DRAIN, LINGER};
use crate::exchange::{
    Added, Attempt, Broken, Carried, ClientClock, Desk, End, Ending, Entry, Exchange, Finish, Leftover, Listening,
    Next, OwnAnswer, Refusal, Replay, Request, Scheme, Silence, ending, judge,
};
use crate::http1::Version;
use crate::model::policy::{ClientPolicy, Lane, UpstreamTimeouts};
use crate::pool::sharded::Sharded;
use crate::pool::{FrontStats, InFlight as Kind, ListenerId, Published, RequestLane};

/// What every connection needs.
pub struct Front {
    pub(super) published: Published,
    pub(super) stats: Arc<FrontStats>,
    pub(super) desk: Arc<dyn Desk>,
    pub(super) lane: Lane,
    pub(super) links: Arc<Links>,
    pub(super) general: Arc<HttpProxy<General>>,
    pub(super) in_flight: InFlight,
    /// Pingora asks this once a request whether it is shutting down; drains are ours, so it never is.
    pub(super) never: watch::Receiver<bool>,
}

/// What came of listening for a head.
enum Heard {
    /// A request, judged and begun.
    Request(Request, Next),
    /// Bytes that are none.
    Refused(Refusal),
    /// No request has followed at once.
    Quiet,
    /// The connection is to close without a word.
    Nothing,
}

/// A client with what it has read ahead, and its request or the place of its next one.
pub(super) struct Held {
    pub(super) client: Box<Client>,
    pub(super) exchange: Box<Exchange>,
}

/// How a lane has seen a request through.
pub(super) struct Served {
    pub(super) outcome: Outcome,
    /// The client knows that the connection goes on.
    pub(super) keep: bool,
    /// Only the end of the connection ends the answer.
    pub(super) until_close: bool,
    /// The time, as far as the lane knows it.
    pub(super) now: Instant,
    /// What follows is a tunnel.
    pub(super) tunnel: Option<Tunnel>,
    /// Bytes of the answer's body that the client has been sent.
    pub(super) sent: u64,
}

/// A connection on which nothing is under way.
struct Quiet {
    io: ClientIo,
    /// How many requests it has had.
    requests: u32,
    /// When the last request ended, or when the connection was accepted.
    since: Instant,
}

/// What came of a connection on which nothing was under way.
enum Roused {
    /// It can be read.
    Bytes,
    /// It has sent nothing for too long.
    Silent,
    /// Its listener takes no further request.
    Stopped,
}

impl Quiet {
    /// Waits for bytes, until `end`. A stop shortens the wait. Cancel-safe.
    fn wait<F: Future<Output = ()>>(
        &self,
        mut stopped: Pin<&mut F>,
        mut end: Pin<&mut Sleep>,
    ) -> impl Future<Output = Roused> {
        let mut stopping = false;
        poll_fn(move |cx| {
            if self.io.poll_readable(cx).is_ready() {
                return Poll::Ready(Roused::Bytes);
            }
            if !stopping && stopped.as_mut().poll(cx).is_ready() {
                stopping = true;
                let sooner = Listening::stays_until(end.deadline(), Instant::now());
                end.as_mut().reset(sooner);
            }
            ready!(end.as_mut().poll(cx));
            Poll::Ready(match stopping {
                true if self.io.has_bytes() => Roused::Bytes,
                true => Roused::Stopped,
                false => Roused::Silent,
            })
        })
    }
}

/// A connection with requests under way, or about to be.
struct Busy<'a> {
    front: &'a Front,
    listener: ListenerId,
    address: Option<IpAddr>,
    /// The limits of its listener, as of the last request.
    policy: ClientPolicy,
    stop: &'a Stop,
    /// How many requests it has had.
    requests: u32,
    /// When the last request began or ended, or when the connection was accepted.
    since: Instant,
    alarm: Alarm,
    /// What it shares with the general lane, once that has had a request of it.
    handover: Option<Arc<Handover>>,
}

/// Serves one connection until it ends, and lets go of `held` then. `stop`: finish the request under way, take no further
/// one.
///
/// A quiet connection is little more than the size of this future, so it is no `async fn`: that would keep its arguments
/// beside what is made of them.
pub(super) fn serve<H: Send>(
    front: Arc<Front>,
    stream: ClientStream,
    listener: ListenerId,
    stop: Stop,
    held: H,
) -> impl Future<Output = ()> + Send {
    let address = stream.client();
    // Most clients send a request at once.
    let mut quiet = Quiet { io: stream.into(), requests: 0, since: Instant::now() };
    async move {
        let _held = &held;
        loop {
            let (requests, since) = (quiet.requests, quiet.since);
            let (alarm, handover) = (Alarm::default(), None);
            let policy = ClientPolicy::default();
            let busy = Busy { front: &front, listener, address, policy, stop: &stop, requests, since, alarm, handover };
            let io = std::mem::replace(&mut quiet.io, ClientIo::HandedOn);
            // On the heap: a quiet connection must not carry the size of all lanes.
            let Some((again, patience)) = Box::pin(busy.serve(io)).await else { return };
            quiet = again;
            let end = pin!(tokio::time::sleep_until(quiet.since + patience));
            let stopped = pin!(stop.wait());
            match quiet.wait(stopped, end).await {
                Roused::Bytes => {}
                Roused::Silent => {
                    front.stats.silent.fetch_add(u64::from(quiet.requests == 0), Ordering::Relaxed);
                    return;
                }
                Roused::Stopped => return,
            }
        }
    }
}

impl<'a> Busy<'a> {
    /// Serves requests as long as each follows the one before at once. Then the connection may be quiet for so long; `None`:
    /// it has ended.
    async fn serve(mut self, io: ClientIo) -> Option<(Quiet, Duration)> {
        self.renew_policy();
        let Front { published, stats, desk, .. } = self.front;
        let entry = Entry { listener: self.listener, client: self.address, scheme: Scheme::Http };
        let rng = fastrand::Rng::new();
        let exchange = Exchange::new(published.clone(), stats.clone(), desk.clone(), entry, self.since, rng);
        let mut held = Held { client: Box::new(Client::new(io)), exchange: Box::new(exchange) };
        loop {
            let (request, next) = match self.hear(&mut held).await {
                Heard::Request(request, next) => (request, next),
                Heard::Refused(refusal) => {
                    self.refuse(held, refusal).await;
                    return None;
                }
                Heard::Quiet => {
                    let quiet = Quiet { io: held.client.into_io(), requests: self.requests, since: self.since };
                    return Some((quiet, Listening::patience(self.is_first(), &self.policy.timeouts)));
                }
                Heard::Nothing => return None,
            };
            let in_flight = self.front.in_flight.enter();
            held = self.conduct(held, request, next).await?;
            drop(in_flight);
        }
    }

    /// Waits for a head, but not for long if nothing of it has come.
    async fn hear(&mut self, held: &mut Held) -> Heard {
        held.client.await_head();
        let mut begun = has_begun(&held.client.read).then_some(self.since);
        poll_fn(|cx| self.poll_hear(held, &mut begun, cx)).await
    }

    /// `begun`: when the first bytes of the head came.
    fn poll_hear(&mut self, held: &mut Held, begun: &mut Option<Instant>, cx: &mut Context<'_>) -> Poll<Heard> {
        let mut now = None;
        loop {
            if begun.is_some() {
                match self.try_begin(held, &mut now) {
                    Ok(Some((request, next))) => return Poll::Ready(Heard::Request(request, next)),
                    Ok(None) => {}
                    Err(refusal) => return Poll::Ready(Heard::Refused(refusal)),
                }
            }
            match held.client.poll_fill(cx) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    if begun.is_none() && has_begun(&held.client.read) {
                        self.renew_policy();
                        *begun = Some(if self.is_first() { self.since } else { clock(&mut now) });
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Heard::Nothing),
                Poll::Pending => {
                    ready!(self.alarm.poll(cx));
                    if let Some(heard) = self.overdue(held, *begun) {
                        return Poll::Ready(heard);
                    }
                }
            }
        }
    }

    /// Whether it has had no request yet.
    fn is_first(&self) -> bool {
        self.requests == 0
    }

    /// Takes the limits from the newest configuration. If that has the listener no longer, the last ones hold.
    fn renew_policy(&mut self) {
        let snapshot = self.front.published.load();
        // Of one that is gone, as long as it may have requests, what it had.
        if let Some(entry) = snapshot.routing(self.listener).listener(self.listener) {
            self.policy = entry.client;
        }
    }

    /// What follows from how long nothing has come.
    fn overdue(&self, held: &Held, begun: Option<Instant>) -> Option<Heard> {
        let (now, stopping) = (Instant::now(), self.stop.is_set());
        if begun.is_none() && held.client.read.is_empty() {
            return (stopping || self.since + TICK <= now).then_some(Heard::Quiet);
        }
        let listening = Listening { first: self.is_first(), since: self.since, begun };
        match listening.judge(&self.policy.timeouts, stopping, now) {
            Silence::Wait => None,
            Silence::Refused(refusal) => Some(Heard::Refused(refusal)),
            Silence::Over { silent } => {
                self.front.stats.silent.fetch_add(u64::from(silent), Ordering::Relaxed);
                Some(Heard::Nothing)
            }
        }
    }

    /// Judges the head at the front of the buffer and begins its exchange; `None` while it is not whole.
    fn try_begin(&mut self, held: &mut Held, now: &mut Option<Instant>) -> Result<Option<(Request, Next)>, Refusal> {
        let Held { client, exchange } = held;
        let Some(head) = client.read_head(&self.policy.limits)? else { return Ok(None) };
        let facts = judge(&head)?;
        self.since = clock(now);
        let next = exchange.begin(&head, &facts, self.since);
        let mut request = Request::new(&facts, exchange.is_upgrade());
        let ClientPolicy { timeouts, limits } = &self.policy;
        self.requests = self.requests.saturating_add(1);
        request.keep_alive &= limits.requests_per_connection.is_none_or(|most| self.requests < most.get());
        client.begin(request.framing, limits.body_bytes, ClientClock::start(request.expects, timeouts.body_idle));
        Ok(Some((request, next)))
    }

    /// Answers bytes that are no request. Nothing more can be read from the connection.
    async fn refuse(&self, mut held: Held, refusal: Refusal) {
        let Held { client, exchange } = &mut held;
        let answer = exchange.on_refused(refusal, Instant::now());
        answer.write_to(client.write_mut(), Added::default(), Version::Http11, false, false, date::now());
        let sent = client.send(&[]).await.is_ok();
        let body_bytes = if sent { answer.body_bytes(Added::default()) as u64 } else { 0 };
        exchange.carry(Carried { received: 0, sent: body_bytes });
        exchange.on_end(if sent { End::Delivered } else { End::ClientLeft }, Instant::now());
        let (end, leftover, client_ended) = (End::Delivered, Leftover::Close, client.is_eof());
        let finish = Finish { end, told: false, until_close: false, leftover, client_ended, unread: true, sent };
        close(held, ending(finish)).await;
    }

    /// Sees one request through. The connection comes back if it takes another.
    async fn conduct(&mut self, mut held: Held, request: Request, mut next: Next) -> Option<Held> {
        loop {
            next = match next {
                Next::Attempt(attempt) => {
                    let lane = if request.upgrade { Lane::Auto } else { self.front.lane };
                    let served = match lane {
                        Lane::Auto => {
                            let Held { client, exchange } = &mut held;
                            let (alarm, stop) = (&mut self.alarm, self.stop);
                            let served =
                                express::run(client, exchange, request, attempt, self.front, alarm, stop, self.since);
                            let served = served.await;
                            let switched = served.tunnel.is_some();
                            let lane = if switched { RequestLane::Tunnel } else { RequestLane::Express };
                            self.front.stats.count_lane(lane);
                            served
                        }
                        Lane::General => {
                            // On the heap: pingora's state is larger than all else here.
                            let (back, served) = Box::pin(self.general(held, request, attempt)).await?;
                            self.front.stats.count_lane(RequestLane::General);
                            held = back;
                            served
                        }
                    };
                    self.since = served.now;
                    if let Some(tunnel) = served.tunnel {
                        self.relay(held, tunnel).await;
                        return None;
                    }
                    let Outcome::Answer(answer) = served.outcome else { return end(held, served).await };
                    Next::Answer(answer)
                }
                Next::Wait(waiting) => {
                    let changed = tokio::select! {
                        biased;
                        () = waiting.wait() => true,
                        () = held.client.left() => false,
                    };
                    if !changed {
                        held.exchange.on_end(End::ClientLeft, Instant::now());
                        return None;
                    }
                    self.since = Instant::now();
                    held.exchange.on_wake(waiting, self.since)
                }
                Next::Reroute => held.exchange.on_reroute(held.client.head(), Instant::now()),
                Next::Answer(answer) => {
                    self.since = Instant::now();
                    return self.answer(held, request, answer).await;
                }
                // Only after a response head, which is a lane's.
                Next::Forward(..) | Next::Leave | Next::Abort => return None,
            };
        }
    }

    /// Carries a tunnel to its end; the client's connection ends with it.
    async fn relay(&self, held: Held, tunnel: Tunnel) {
        let Held { mut client, mut exchange } = held;
        let UpstreamTimeouts { tunnel_idle, tunnel_half_idle, .. } = tunnel.timeouts;
        let upstream = exchange.upstream().cloned();
        let cut = async {
            match &upstream {
                Some(upstream) => upstream.connections.cut_reached(tunnel.epoch, Kind::Tunnel).await,
                None => std::future::pending().await,
            }
        };
        let carried = tunnel::run(&mut client, tunnel.link, tunnel_idle, tunnel_half_idle, cut).await;
        exchange.carry(carried);
        exchange.on_end(End::Delivered, Instant::now());
        if !client.is_eof() {
            client.linger(LINGER).await;
        }
    }

    /// Writes an answer of our own and keeps the connection where the request's framing allows it.
    async fn answer(&self, mut held: Held, request: Request, answer: OwnAnswer) -> Option<Held> {
        let Held { client, exchange } = &mut held;
        client.skip_head();
        let cut = client.fault().is_some() || client.is_eof();
        let leftover = request.leftover(client.body_read(), cut, || client.has_more());
        let told = exchange.goes_on(&request, answer.close, leftover, self.stop.is_set());
        let added = exchange.added(&answer);
        answer.write_to(client.write_mut(), added, request.version, request.head_only, told, date::now());
        let sent = client.send(&[]).await.is_ok();
        let end = if sent { End::Delivered } else { End::ClientLeft };
        let has_body = sent && !request.head_only;
        let body_bytes = if has_body { answer.body_bytes(exchange.added(&answer)) as u64 } else { 0 };
        exchange.carry(Carried { received: client.body_read(), sent: body_bytes });
        exchange.on_end(end, Instant::now());
        let (client_ended, unread) = (client.is_eof(), !client.read.is_empty());
        let finish = Finish { end, told, until_close: false, leftover, client_ended, unread, sent };
        close(held, ending(finish)).await
    }

    /// Gives the request to pingora, and says what it came to.
    async fn general(&mut self, held: Held, request: Request, attempt: Attempt) -> Option<(Held, Served)> {
        let Held { client, exchange } = held;
        let handover = self.handover.get_or_insert_with(|| Arc::new(Handover::new(self.stop.clone())));
        let handed =
            HandedRequest { exchange, attempt: Some(attempt), request, until_close: false, outcome: None, sent: 0 };
        handover.put_request(Box::new(handed));
        let session = ServerSession::new_http1(Box::new(LentClient::lend(client, handover.clone())));
        let lane = self.front.general.process_new_http(session, &self.front.never);
        let (broken, keep) = {
            let lane = HANDOVER.scope(handover.clone(), lane);
            tokio::pin!(lane);
            loop {
                tokio::select! {
                    biased;
                    reused = poll_fn(|cx| handover.stall.pace(lane.as_mut(), cx)) => break (None, reused.is_some()),
                    () = poll_fn(|cx| self.alarm.poll(cx)) => {
                        if handover.is_overdue(Instant::now()) {
                            break (Some(Broken::TimedOut), false);
                        }
                    }
                    () = poll_fn(|cx| handover.poll_cut(cx)) => break (Some(Broken::Cut), false),
                }
            }
        };
        // Pingora has dropped both by now, however it ended.
        let client = handover.take_client()?;
        let HandedRequest { mut exchange, until_close, outcome, sent, .. } = *handover.take_request()?;
        let outcome = match (outcome, broken) {
            (Some(outcome), _) => outcome,
            (None, Some(how)) => after(exchange.on_broken(how, Replay::Gone, Instant::now())),
            // It reads the head in another way than we do.
            (None, None) => after(exchange.on_client_fault(Refusal::BY_LANE)),
        };
        let served = Served { outcome, keep, until_close, now: Instant::now(), tunnel: None, sent };
        Some((Held { client, exchange }, served))
    }
}

/// What is left to do for a request that cannot be sent again.
fn after(next: Next) -> Outcome {
    match next {
        Next::Answer(answer) => Outcome::Answer(answer),
        Next::Attempt(_) | Next::Wait(_) | Next::Reroute | Next::Forward(..) | Next::Leave | Next::Abort => {
            Outcome::Aborted
        }
    }
}

/// Ends a request that the lane has seen through, or that broke off.
async fn end(mut held: Held, served: Served) -> Option<Held> {
    let Held { client, exchange } = &mut held;
    let Served { outcome, keep, until_close, now, sent: body_bytes, tunnel: _ } = served;
    let end = match outcome {
        Outcome::Delivered => End::Delivered,
        Outcome::Aborted => End::Aborted,
        Outcome::ClientLeft | Outcome::Answer(_) => End::ClientLeft,
    };
    exchange.carry(Carried { received: client.body_read(), sent: body_bytes });
    exchange.on_end(end, now);
    // What has come of the answer is the client's.
    let sent = end != End::ClientLeft && client.send(&[]).await.is_ok();
    let finish = Finish {
        end,
        told: keep,
        until_close,
        leftover: Leftover::of_relayed(client.is_whole()),
        client_ended: client.is_eof(),
        // Closing on bytes that have come would be a reset.
        unread: !keep && client.has_unread(),
        sent,
    };
    close(held, ending(finish)).await
}

/// Ends a connection in this way. It comes back if it takes another request.
async fn close(mut held: Held, ending: Ending) -> Option<Held> {
    match ending {
        Ending::Keep => return Some(held),
        Ending::Drain(most) => match tokio::time::timeout(DRAIN, held.client.discard(most)).await {
            Ok(true) => return Some(held),
            Ok(false) | Err(_) => held.client.linger(LINGER).await,
        },
        Ending::Linger => held.client.linger(LINGER).await,
        Ending::Close => {}
        Ending::Reset => held.client.reset(),
    }
    None
}

/// The time, asked for once.
fn clock(now: &mut Option<Instant>) -> Instant {
    *now.get_or_insert_with(Instant::now)
}

/// Whether a request has begun: a lone line end may stand before one, and begins nothing.
fn has_begun(read: &[u8]) -> bool {
    !matches!(read, [] | [b'\r'] | [b'\r', b'\n'])
}

/// Requests under way, tunnels included.
#[derive(Debug, Default)]
pub(super) struct InFlight(Sharded<AtomicIsize>);

/// One of them.
pub(super) struct Entered<'a>(&'a InFlight);

impl InFlight {
    pub(super) fn enter(&self) -> Entered<'_> {
        self.0.mine().fetch_add(1, Ordering::Relaxed);
        Entered(self)
    }

    /// How many there are. One that another worker ends than has begun it counts in two shards: a sum that is made meanwhile
    /// may be out by it.
    pub(super) fn count(&self) -> usize {
        let sum: isize = self.0.all().map(|shard| shard.load(Ordering::Relaxed)).sum();
        usize::try_from(sum).unwrap_or(0)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.mine().fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
