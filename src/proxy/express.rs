//! The express lane: relays one HTTP/1 exchange between two sockets, up to a switch of protocols. Everything that could be
//! decided is asked of the exchange; this reads, writes and waits.
//!
//! In the steady state of a kept connection with small bodies it makes five system calls and sets no timer: one alarm per
//! client connection goes off twice a second while a request waits, and finds out what is overdue.
//!
//! The request stays in the client's buffer until it cannot be sent again, so that another attempt begins at its head. A
//! response is read into the buffer of its connection, and what is passed on is written from there.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut};
use tokio::time::{Instant, Sleep};

use super::client::Client;
use super::date;
use super::front::{Front, Served};
use super::handover::Outcome;
use super::kept::{DataPath, Link};
use super::listen::Stop;
use crate::exchange::{Attempt, Broken, Course, Exchange, Lent, Next, Refusal, Replay, Request, Turn, UpstreamClock};
use crate::http1::body::{put_chunk_size, put_last_chunk};
use crate::http1::{Body, ResponseFraming, Step as Piece};
use crate::model::policy::{UpstreamConnections, UpstreamTimeouts};
use crate::pool::{CutOff, InFlight, Waiting};

/// How often a request that waits is looked at: what is overdue, and whether its client has left. Somewhat less than half a
/// second, so that what is overdue ends within that also where hundreds are at once.
pub(super) const TICK: Duration = Duration::from_millis(400);

/// Goes off every [`TICK`] while something waits for it. One for a connection, because setting a timer for every wait would
/// cost more than the look.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready now and then, at most a [`TICK`] apart while it is polled.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(TICK)));
        ready!(sleep.as_mut().poll(cx));
        sleep.as_mut().reset(Instant::now() + TICK);
        // It must be looked at once more to be set.
        let _ = sleep.as_mut().poll(cx);
        Poll::Ready(())
    }
}

/// One request in the lane.
struct Relay<'a> {
    client: &'a mut Client,
    exchange: &'a mut Exchange,
    request: Request,
    front: &'a Front,
    alarm: &'a mut Alarm,
    /// The alarm has gone off for this request: from now on its client's end is waited for.
    slow: bool,
    stop: &'a Stop,
    /// The client's connection goes on after the response.
    keep: bool,
    /// Only the end of the connection ends the response.
    until_close: bool,
    /// The time when something was last waited for. Asking for it costs as much as reading a field.
    now: Instant,
    /// Something has been waited for since.
    waited: bool,
    tunnel: Option<Tunnel>,
    /// Completes when the upstream is lost and the request must end, in pools where that may be.
    cut: Option<CutOff>,
    is_cut: bool,
    /// Bytes of the response's body that the client has been sent.
    sent: u64,
}

/// An upstream that has switched protocols. The head that says so is still to be sent.
pub(super) struct Tunnel {
    pub(super) link: Box<Link>,
    pub(super) timeouts: UpstreamTimeouts,
    /// The epoch of the upstream's connections under which it was made.
    pub(super) epoch: u64,
}

/// What one step came to.
enum Step {
    Next(Next),
    Over(Outcome),
}

/// What the wait for a response head ended with.
enum Event {
    Head,
    Broken(Broken),
    ClientFault(Refusal),
    ClientLeft,
}

/// An attempt whose request is on its way.
struct Sent {
    link: Box<Link>,
    connections: UpstreamConnections,
    upload: Upload,
    clock: UpstreamClock,
}

/// How far the request has gone upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    Going,
    Done,
    /// The upstream takes no more: it may have answered already.
    Refused,
}

/// A final head that is passed on.
#[derive(Debug, Clone, Copy)]
struct Answer {
    framing: ResponseFraming,
    coding: Coding,
    /// For how long the connection may be kept after it.
    keeps: Option<Duration>,
    /// The upstream has switched protocols: what follows is a tunnel.
    switches: bool,
}

/// What a response head is.
enum Heading {
    /// Another follows.
    Interim,
    /// It is passed on.
    Final(Answer),
    /// It is not passed on.
    Refused(Step),
}

/// What is to be passed on from the front of the upstream's buffer.
#[derive(Debug, Default)]
struct Pending {
    bytes: usize,
    /// A CRLF follows them.
    in_chunk: bool,
}

/// How a body is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Data,
    Chunks,
}

/// Sees one request through.
pub(super) async fn run(
    client: &mut Client,
    exchange: &mut Exchange,
    request: Request,
    first: Attempt,
    front: &Front,
    alarm: &mut Alarm,
    stop: &Stop,
    now: Instant,
) -> Served {
    let (slow, keep, until_close) = (false, false, false);
    let (waited, tunnel, cut, is_cut, sent) = (false, None, None, false, 0);
    let mut lane = Relay {
        client,
        exchange,
        request,
        front,
        alarm,
        slow,
        stop,
        keep,
        until_close,
        now,
        waited,
        tunnel,
        cut,
        is_cut,
        sent,
    };
    let mut next = Next::Attempt(first);
    let outcome = loop {
        let step = match next {
            Next::Attempt(attempt) => lane.attempt(attempt).await,
            Next::Wait(waiting) => lane.wait(waiting).await,
            Next::Reroute => Step::Next(lane.exchange.on_reroute(lane.client.head(), Instant::now())),
            Next::Answer(answer) => Step::Over(Outcome::Answer(answer)),
            Next::Leave => Step::Over(Outcome::ClientLeft),
            Next::Forward(..) | Next::Abort => Step::Over(Outcome::Aborted),
        };
        match step {
            Step::Next(following) => next = following,
            Step::Over(outcome) => break outcome,
        }
    };
    let Relay { client, keep, until_close, now, tunnel, sent, .. } = lane;
    client.settle();
    Served { outcome, keep, until_close, now, tunnel, sent }
}

impl Relay<'_> {
    /// Called whenever the task is woken.
    fn wake(&mut self) {
        if std::mem::take(&mut self.waited) {
            self.now = Instant::now();
        }
    }

    async fn wait(&mut self, waiting: Waiting) -> Step {
        tokio::select! {
            biased;
            () = waiting.wait() => {
                self.now = Instant::now();
                Step::Next(self.exchange.on_wake(waiting, self.now))
            }
            () = self.client.ended() => Step::Over(Outcome::ClientLeft),
        }
    }

    /// One try on one upstream, up to the end of its response.
    async fn attempt(&mut self, attempt: Attempt) -> Step {
        let Attempt { epoch, reuse, timeouts, deadline, connections, may_be_cut, replay_bytes } = attempt;
        let Some(upstream) = self.exchange.upstream() else { return Step::Over(Outcome::Aborted) };
        self.cut = may_be_cut.then(|| upstream.clone().cut_off(epoch, InFlight::Request));
        self.is_cut = false;
        let data_path = DataPath::of(upstream);
        let mut link = match data_path.kept.take(epoch, reuse, self.now) {
            Some(link) => link,
            None => {
                let dialled = tokio::select! {
                    biased;
                    dialled = data_path.kept.dial(upstream, &attempt, &self.front.links) => dialled,
                    () = self.client.ended() => return Step::Over(Outcome::ClientLeft),
                };
                self.now = Instant::now();
                match dialled {
                    Ok(link) => link,
                    Err(why) => return Step::Next(self.exchange.on_connect_failed(why, self.now)),
                }
            }
        };
        let now = self.now;
        let lent = match link.is_used() {
            true if data_path.kept.is_dirty(upstream, &mut link, now) => Lent::Dirty,
            true => Lent::Kept,
            false if self.client.has_left() => Lent::TooLate,
            false => Lent::Fresh,
        };
        if let Some(next) = self.exchange.on_connected(lent, now) {
            return Step::Next(next);
        }
        let Some(head) = self.client.head() else { return Step::Over(Outcome::Aborted) };
        link.write.clear();
        link.write.reserve(head.len + ADDED_BYTES);
        self.exchange.request_edits().write_to(&head, &mut link.write);
        self.client.rewind(replay_bytes);
        let clock = UpstreamClock::start(timeouts, deadline, now);
        let mut sent = Sent { link, connections, upload: Upload::Going, clock };
        loop {
            let event = poll_fn(|cx| {
                self.wake();
                self.poll_head(&mut sent, cx)
            });
            match event.await {
                Event::Head => match self.on_head(&mut sent) {
                    Heading::Interim => {}
                    Heading::Final(Answer { switches: true, .. }) => {
                        self.tunnel = Some(Tunnel { link: sent.link, timeouts, epoch });
                        return Step::Over(Outcome::Delivered);
                    }
                    Heading::Final(answer) => return self.deliver(sent, answer).await,
                    Heading::Refused(step) => return step,
                },
                Event::Broken(how) => return self.on_broken(how),
                Event::ClientFault(refusal) => return Step::Next(self.exchange.on_client_fault(refusal)),
                Event::ClientLeft => return Step::Over(Outcome::ClientLeft),
            }
        }
    }

    fn on_broken(&mut self, how: Broken) -> Step {
        let now = self.now;
        if self.exchange.is_stale(how) {
            self.exchange.upstream().into_iter().for_each(|upstream| DataPath::of(upstream).kept.closed_too_early(now));
        }
        Step::Next(self.exchange.on_broken(how, self.replay(), now))
    }

    fn replay(&self) -> Replay {
        if self.client.can_rewind() { Replay::Whole } else { Replay::Gone }
    }

    /// Sends the request and waits for a whole head.
    fn poll_head(&mut self, sent: &mut Sent, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(event) = self.drive_upload(sent, cx) {
            return Poll::Ready(event);
        }
        loop {
            if self.client.is_full() {
                // Interim responses: the next one waits until the client has taken these.
                match self.client.poll_send(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Event::ClientLeft),
                    Poll::Pending => {
                        ready!(self.poll_slow(cx));
                        if self.is_cut {
                            return Poll::Ready(Event::Broken(Broken::Cut));
                        }
                        if sent.clock.overdue(Turn::Client, self.now) {
                            return Poll::Ready(Event::Broken(Broken::TimedOut));
                        }
                        return if self.client.has_left() { Poll::Ready(Event::ClientLeft) } else { Poll::Pending };
                    }
                }
            }
            if !sent.link.read.is_empty() {
                match sent.link.reader.read(&sent.link.read) {
                    Ok(Some(_)) => return Poll::Ready(Event::Head),
                    Ok(None) => {}
                    Err(fault) => return Poll::Ready(Event::Broken(Broken::BadResponse(fault))),
                }
            }
            match sent.link.poll_fill(cx, false) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Event::Broken(Broken::Closed)),
                Poll::Pending => break,
            }
        }
        // The interim responses before it must not wait for the final one.
        if !self.client.write_mut().is_empty()
            && let Poll::Ready(Err(_)) = self.client.poll_send(cx)
        {
            return Poll::Ready(Event::ClientLeft);
        }
        ready!(self.poll_slow(cx));
        if self.is_cut {
            return Poll::Ready(Event::Broken(Broken::Cut));
        }
        let going = sent.upload == Upload::Going;
        let unsent = going && (!sent.link.write.is_empty() || !self.client.unsent().is_empty());
        let turn = Turn::before_head(unsent, !going, self.client.awaits_continue());
        if sent.clock.overdue(turn, self.now) {
            return Poll::Ready(Event::Broken(Broken::TimedOut));
        }
        if self.client.has_left() {
            return Poll::Ready(Event::ClientLeft);
        }
        Poll::Pending
    }

    /// Moves the request upstream as far as it goes. `Some`: its client has broken a rule or left.
    fn drive_upload(&mut self, sent: &mut Sent, cx: &mut Context<'_>) -> Option<Event> {
        while sent.upload == Upload::Going {
            if !sent.link.write.is_empty() {
                // A small body goes with the head.
                let body = self.client.unsent().len();
                if body > 0 && body <= WITH_HEAD {
                    sent.link.write.put_slice(self.client.unsent());
                    self.client.on_sent(body);
                } else if body == 0 && !self.client.has_body() {
                    match self.client.poll_body_bytes(cx) {
                        Poll::Ready(Ok(n)) if n > 0 => continue,
                        Poll::Ready(_) => return Some(self.client_end()),
                        Poll::Pending => {}
                    }
                }
                match sent.link.poll_flush(cx) {
                    Poll::Ready(Ok(())) => sent.clock.on_progress(self.now),
                    Poll::Ready(Err(_)) => sent.upload = Upload::Refused,
                    Poll::Pending => return None,
                }
                continue;
            }
            let unsent = self.client.unsent();
            if !unsent.is_empty() {
                match sent.link.poll_write(cx, unsent) {
                    Poll::Ready(Ok(n)) if n > 0 => {
                        self.client.on_sent(n);
                        sent.clock.on_progress(self.now);
                    }
                    Poll::Ready(_) => sent.upload = Upload::Refused,
                    Poll::Pending => return None,
                }
                continue;
            }
            if self.client.has_body() {
                sent.upload = Upload::Done;
                return None;
            }
            match self.client.poll_body_bytes(cx) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Some(self.client_end()),
                Poll::Pending => return None,
            }
        }
        None
    }

    /// Why no more of the request's body comes.
    fn client_end(&self) -> Event {
        self.client.fault().map_or(Event::ClientLeft, Event::ClientFault)
    }

    /// Asks the exchange about a whole head.
    fn on_head(&mut self, sent: &mut Sent) -> Heading {
        let head = sent.link.reader.head(&sent.link.read).expect("it is whole");
        let replay = self.replay();
        let next = self.exchange.on_response(head.version, head.status, head.fields(), replay, self.now);
        let Next::Forward(edits, framing) = next else { return Heading::Refused(Step::Next(next)) };
        let (len, switches) = (head.len, head.status == 101);
        let is_final = switches || head.status >= 200;
        let version = self.request.version;
        if is_final {
            let leftover = self.request.leftover_of_relayed(self.client.has_body(), || self.client.has_more());
            self.keep = self.exchange.goes_on(&self.request, edits.close(), leftover, self.stop.is_set());
            self.until_close = edits.close();
        }
        if !edits.hidden() {
            self.client.write_mut().reserve(head.len + ADDED_BYTES);
            edits.write_to(&head, version, !self.keep, date::now(), self.client.write_mut());
        }
        let keeps = edits.keeps_upstream(sent.connections.idle_timeout);
        if head.status == 100 {
            self.client.on_continue();
        }
        let in_chunks = edits.in_chunks(framing);
        sent.link.read.advance(len);
        sent.link.reader.reset();
        if !is_final {
            return Heading::Interim;
        }
        self.client.forget_sent();
        let coding = if in_chunks { Coding::Chunks } else { Coding::Data };
        Heading::Final(Answer { framing, coding, keeps, switches })
    }

    /// Passes the body on, and keeps the connection if that may be.
    async fn deliver(&mut self, mut sent: Sent, answer: Answer) -> Step {
        let Answer { framing, coding, keeps, .. } = answer;
        let mut body = Body::response(framing);
        sent.clock.on_progress(self.now);
        let mut pending = Pending::default();
        let done = poll_fn(|cx| {
            self.wake();
            self.poll_body(&mut sent, &mut body, coding, &mut pending, cx)
        });
        if let Some(step) = done.await {
            return step;
        }
        let course = Course { request_sent: sent.upload == Upload::Done, answer_ended: body.is_done() };
        if let Some(idle_timeout) = keeps.filter(|_| course.frees_upstream())
            && let Some(upstream) = self.exchange.upstream()
        {
            let (kept, bodiless) = (&DataPath::of(upstream).kept, framing == ResponseFraming::None);
            let limits = UpstreamConnections { idle_timeout, ..sent.connections };
            kept.give_back(upstream, sent.link, bodiless, limits, &self.front.in_flight, self.now);
        }
        Step::Over(Outcome::Delivered)
    }

    /// Relays until the body has ended and the client has all of it (`None`), or something breaks.
    fn poll_body(
        &mut self,
        sent: &mut Sent,
        body: &mut Body,
        coding: Coding,
        pending: &mut Pending,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Step>> {
        let mut ended = body.is_done() && pending.bytes == 0;
        loop {
            let course = Course { request_sent: sent.upload == Upload::Done, answer_ended: ended };
            let event = if course.drops_rest() { None } else { self.drive_upload(sent, cx) };
            match event {
                None => {}
                Some(Event::ClientFault(refusal)) => {
                    return Poll::Ready(Some(Step::Next(self.exchange.on_client_fault(refusal))));
                }
                Some(_) => return Poll::Ready(Some(Step::Over(course.on_client_end().into()))),
            }
            if pending.bytes > 0 {
                match self.client.poll_write(cx, &sent.link.read[..pending.bytes]) {
                    Poll::Ready(Ok(n)) => {
                        sent.link.read.advance(n);
                        pending.bytes -= n;
                        self.sent += n as u64;
                        if pending.bytes == 0 && std::mem::take(&mut pending.in_chunk) {
                            self.client.write_mut().put_slice(b"\r\n");
                        }
                        ended = pending.bytes == 0 && body.is_done();
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Some(Step::Over(Outcome::ClientLeft))),
                    Poll::Pending => return self.poll_overdue(sent, Some(body.is_done()), cx),
                }
            }
            if ended || sent.link.read.is_empty() || self.client.is_full() {
                match self.client.poll_send(cx) {
                    Poll::Ready(Ok(())) if ended => return Poll::Ready(None),
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Some(Step::Over(Outcome::ClientLeft))),
                    Poll::Pending => return self.poll_overdue(sent, Some(ended), cx),
                }
            }
            if !sent.link.read.is_empty() {
                pending.bytes = if coding == Coding::Chunks { body.whole_chunks(&sent.link.read) } else { 0 };
                if pending.bytes > 0 {
                    // They go on as they came.
                    continue;
                }
                let mut rest = &sent.link.read[..];
                match body.next(&mut rest) {
                    Err(fault) => return Poll::Ready(Some(self.on_broken(Broken::BadResponse(fault)))),
                    Ok(Piece::Data(data)) => {
                        pending.bytes = data.len();
                        pending.in_chunk = coding == Coding::Chunks;
                        if pending.in_chunk {
                            put_chunk_size(self.client.write_mut(), data.len());
                        }
                        let framed = sent.link.read.len() - rest.len() - data.len();
                        sent.link.read.advance(framed);
                    }
                    Ok(Piece::More) => sent.link.read.clear(),
                    Ok(Piece::End) => {
                        let used = sent.link.read.len() - rest.len();
                        sent.link.read.advance(used);
                        self.end_chunks(coding, body);
                        ended = true;
                    }
                }
                continue;
            }
            match sent.link.poll_fill(cx, body.is_large()) {
                Poll::Ready(Ok(n)) if n > 0 => sent.clock.on_progress(self.now),
                Poll::Ready(Ok(_)) if body.is_whole_at_close() => {
                    self.end_chunks(coding, body);
                    ended = true;
                }
                Poll::Ready(_) => return Poll::Ready(Some(self.on_broken(Broken::Closed))),
                Poll::Pending => return self.poll_overdue(sent, None, cx),
            }
        }
    }

    /// Ready now and then while a request waits, and when its client leaves. Waiting for that costs more than a look, so it
    /// begins with the first look.
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.waited = true;
        if let Some(cut) = &mut self.cut
            && cut.poll(cx).is_ready()
        {
            (self.cut, self.is_cut) = (None, true);
            return Poll::Ready(());
        }
        let ticked = self.alarm.poll(cx).is_ready();
        self.slow |= ticked;
        if self.slow && self.client.has_body() && self.client.poll_left(cx).is_ready() {
            return Poll::Ready(());
        }
        if ticked { Poll::Ready(()) } else { Poll::Pending }
    }

    fn end_chunks(&mut self, coding: Coding, body: &Body) {
        if coding == Coding::Chunks {
            put_last_chunk(self.client.write_mut(), body.trailers());
        }
    }

    /// While the body waits. `for_client`: for the client to take it, which has a time limit of its own; true if all of it has
    /// come from the upstream, which then may be lost.
    fn poll_overdue(&mut self, sent: &mut Sent, for_client: Option<bool>, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        ready!(self.poll_slow(cx));
        if self.is_cut && for_client != Some(true) {
            return Poll::Ready(Some(self.on_broken(Broken::Cut)));
        }
        let turn = if for_client.is_some() { Turn::Client } else { Turn::Body };
        if sent.clock.overdue(turn, self.now) {
            return Poll::Ready(Some(self.on_broken(Broken::TimedOut)));
        }
        if self.client.has_left() {
            return Poll::Ready(Some(Step::Over(Outcome::ClientLeft)));
        }
        Poll::Pending
    }
}

/// More than what is usually added to a head: a buffer that grows with each field is moved several times.
const ADDED_BYTES: usize = 256;
/// The largest part of a request body that is copied to go with the head.
const WITH_HEAD: usize = 8 * 1024;
