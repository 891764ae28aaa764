//! The general lane: pingora-proxy relays what is not a tunnel. Everything that could be decided is asked of the exchange;
//! this is translation between the two.
//!
//! It never answers on its own account: the outcome of a request goes into the handover, and the front reports it.
//!
//! What pingora does differently from our own lane, and gives no way to change: an answer's `Date` is replaced by
//! ours (as nginx does), and trailers are dropped. What it finds wrong with an answer, `verdict` puts in our words.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderName;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::client::Client;
use super::handover::{HandedRequest, Handover, Outcome};
use super::lent_client::LentClient;
use super::verdict;
use super::wire::{self, InUse, NO_RESOURCES, OUTDATED};
use crate::exchange::limits::DRAIN;
use crate::exchange::{
    Attempt, Broken, ConnectError, Course, Lent, Next, Refusal, Replay, ResponseEdits, Turn, UpstreamClock,
};
use crate::http1::{Field, HeadReader, Limits, ResponseFraming, Version};
use crate::pool::{InFlight, Waiting};

/// The exchange has decided already what becomes of the request.
const DECIDED: ErrorType = ErrorType::Custom("decided");

tokio::task_local! {
    /// Where the request lies that the lane is about to take: pingora makes its context without arguments, in the task
    /// that calls it.
    pub(super) static HANDOVER: Arc<Handover>;
}

/// The lane.
#[derive(Debug)]
pub struct General;

/// One request in the lane; goes back into the handover when pingora drops it.
pub struct Ctx {
    handover: Option<Arc<Handover>>,
    handed: Option<Box<HandedRequest>>,
    in_use: Option<InUse>,
    /// The attempt to make next, or under way.
    attempt: Option<Attempt>,
    /// This attempt must not, and its own must not be kept.
    single_use: bool,
    /// The request waits for an upstream before the next attempt.
    wait: Option<Waiting>,
    /// What pingora has taken for this attempt.
    lent: Lent,
    /// Pingora uses the connection again, unless bytes follow the answer.
    keeps: bool,
}

impl Ctx {
    fn parts(&mut self) -> Result<(&Handover, &mut HandedRequest)> {
        match (&self.handover, &mut self.handed) {
            (Some(handover), Some(handed)) => Ok((handover, handed)),
            _ => Err(Error::new_str("a request that no front has handed over")),
        }
    }

    /// What follows a failure: true to try again, perhaps after a wait. Otherwise the outcome is noted.
    fn follow(&mut self, session: &Session, next: Next) -> bool {
        let next = match (next, &mut self.handed) {
            (Next::Reroute, Some(handed)) => {
                // The client's buffer has given the head to pingora, which keeps its bytes.
                let (mut reader, bytes) = (HeadReader::default(), head_of(session));
                let head = reader.read(&bytes, &Limits::MAX).ok().flatten();
                handed.exchange.on_reroute(head, Instant::now())
            }
            (next, _) => next,
        };
        let outcome = match next {
            Next::Attempt(attempt) => {
                self.attempt = Some(attempt);
                return true;
            }
            Next::Wait(waiting) => {
                self.wait = Some(waiting);
                return true;
            }
            Next::Answer(answer) => Outcome::Answer(answer),
            Next::Leave => Outcome::ClientLeft,
            Next::Reroute | Next::Forward(..) | Next::Abort => Outcome::Aborted,
        };
        self.note(outcome);
        false
    }

    /// As [`Ctx::follow`], for an attempt that must not go on: the error that ends it.
    fn turn(&mut self, session: &Session, next: Next) -> Box<Error> {
        let mut error = Error::new(DECIDED).into_up();
        error.set_retry(self.follow(session, next));
        error
    }

    /// The client has gone, so nothing need be sent.
    fn give_up(&mut self) -> Box<Error> {
        self.note(Outcome::ClientLeft);
        Error::new(DECIDED)
    }

    /// The clock of the attempt, which begins.
    fn clock(&self) -> Result<UpstreamClock> {
        let attempt = self.attempt.as_ref().ok_or_else(|| Error::new_str("no attempt"))?;
        Ok(UpstreamClock::start(attempt.timeouts, attempt.deadline, Instant::now()))
    }

    fn note(&mut self, outcome: Outcome) {
        if let Some(handed) = &mut self.handed {
            handed.outcome = Some(outcome);
        }
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        // The connection first: when its request is counted as ended, it must not be in use any more.
        self.in_use = None;
        if let (Some(handover), Some(handed)) = (&self.handover, self.handed.take()) {
            handover.return_request(handed);
        }
    }
}

#[async_trait]
impl ProxyHttp for General {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        let handover = HANDOVER.try_with(Arc::clone).ok();
        let mut handed = handover.as_ref().and_then(|handover| handover.take_request());
        let attempt = handed.as_mut().and_then(|handed| handed.attempt.take());
        Ctx { handover, handed, in_use: None, attempt, single_use: false, wait: None, lent: Lent::Fresh, keeps: false }
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        let (_, handed) = ctx.parts()?;
        let client = session.as_downstream_mut();
        // The client's connection keeps its own time.
        client.set_read_timeout(None);
        client.set_total_drain_timeout(Some(DRAIN));
        if !handed.request.expects {
            // Pingora would pass a 100 on to whoever has the field, HTTP/1.0 or not.
            client.req_header_mut().remove_header(&http::header::EXPECT);
        }
        Ok(())
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        ctx.in_use = None;
        ctx.parts()?.0.begin_attempt();
        loop {
            let wait = ctx.wait.take();
            let (_, handed) = ctx.parts()?;
            let next = match wait {
                Some(waiting) => {
                    let there = tokio::select! {
                        biased;
                        () = waiting.wait() => true,
                        () = left(session) => false,
                    };
                    if !there {
                        return Err(ctx.give_up());
                    }
                    handed.exchange.on_wake(waiting, Instant::now())
                }
                None if handed.exchange.is_outdated(Instant::now()) => {
                    handed.exchange.on_connect_failed(ConnectError::Outdated, Instant::now())
                }
                None => break,
            };
            if !ctx.follow(session, next) {
                return Err(Error::new(DECIDED));
            }
        }
        let attempt = ctx.attempt;
        let exchange = &ctx.parts()?.1.exchange;
        let attempt = attempt.ok_or_else(|| Error::new_str("no attempt"))?;
        let upstream = exchange.upstream().ok_or_else(|| Error::new_str("an attempt without an upstream"))?;
        let (peer, single_use) = wire::peer(upstream, &attempt)?;
        ctx.single_use = single_use;
        Ok(Box::new(peer))
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: RawFd,
        digest: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.lent = if reused { Lent::Kept } else { Lent::Fresh };
        if let Some(wire) = digest.and_then(wire::wire_of) {
            ctx.in_use = ctx.attempt.as_ref().and_then(|attempt| wire.begin(attempt.connections));
            match &mut ctx.in_use {
                Some(in_use) if ctx.single_use => in_use.last(),
                Some(_) => {}
                None => ctx.lent = Lent::Dirty,
            }
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let why = match error.etype() {
            ErrorType::ConnectTimedout => ConnectError::TimedOut,
            etype if *etype == NO_RESOURCES => ConnectError::Resources,
            etype if *etype == OUTDATED => ConnectError::Outdated,
            _ => ConnectError::Refused,
        };
        let next = ctx.parts().map(|(_, handed)| handed.exchange.on_connect_failed(why, Instant::now()));
        let again = next.is_ok_and(|next| ctx.follow(session, next));
        error.set_retry(again);
        error
    }

    /// Pingora writes the head as soon as this has returned: there is no wait between.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let (_, handed) = ctx.parts()?;
        let edits = handed.exchange.request_edits();
        for name in &names(&upstream.headers, |field| edits.drops(field)) {
            upstream.remove_header(name);
        }
        for (name, value) in edits.sets() {
            upstream.insert_header(name, value)?;
        }
        for (name, value) in edits.more_sets() {
            upstream.insert_header(name.to_owned(), value)?;
        }
        if let Some(target) = edits.target() {
            upstream.set_raw_path(target.as_bytes())?;
        }
        if ctx.lent == Lent::Fresh && client_of(session).is_some_and(Client::has_left) {
            ctx.lent = Lent::TooLate;
        }
        if ctx.lent == Lent::Kept && ctx.in_use.as_ref().is_some_and(InUse::is_dirty) {
            ctx.lent = Lent::Dirty;
        }
        let (lent, now, clock) = (ctx.lent, Instant::now(), ctx.clock()?);
        let may_be_cut = ctx.attempt.as_ref().is_some_and(|attempt| attempt.may_be_cut);
        let (is_whole, awaits_continue) =
            client_of(session).map_or((true, false), |client| (client.is_whole(), client.awaits_continue()));
        let (handover, handed) = ctx.parts()?;
        match handed.exchange.on_connected(lent, now) {
            None => {
                handover.owes(clock, Turn::before_head(false, is_whole, awaits_continue));
                if let (true, Some(upstream)) = (may_be_cut, handed.exchange.upstream()) {
                    handover.may_be_cut(upstream.clone().cut_off(handed.exchange.epoch(), InFlight::Request));
                }
                Ok(())
            }
            Some(next) => {
                if let Some(in_use) = &mut ctx.in_use {
                    in_use.last();
                }
                Err(ctx.turn(session, next))
            }
        }
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let (handover, _) = ctx.parts()?;
        if body.is_some() || end {
            handover.on_progress(end, Instant::now());
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let status = response.status.as_u16();
        let replay = replay(session, ctx);
        let (handover, handed) = ctx.parts()?;
        let reason = response.get_reason_phrase().unwrap_or_default().as_bytes();
        let version = if response.version == http::Version::HTTP_10 { Version::Http10 } else { Version::Http11 };
        let next = handed.exchange.on_foreign_response(
            version,
            status,
            reason,
            fields(response).iter().copied(),
            replay,
            Instant::now(),
        );
        let (edits, framing) = match next {
            Next::Forward(edits, framing) => (edits, framing),
            other => return Err(ctx.turn(session, other)),
        };
        if status >= 200 {
            handover.settled();
            if matches!(framing, ResponseFraming::None | ResponseFraming::Length(0)) {
                handover.end_answer();
            }
        }
        handover.let_answer();
        if status == 100 {
            handover.on_continue();
        }
        if edits.hidden() {
            session.as_downstream_mut().set_ignore_info_resp(true);
        }
        let idle = ctx.attempt.as_ref().map_or(Duration::ZERO, |attempt| attempt.connections.idle_timeout);
        let keeps = edits.keeps_upstream(idle);
        ctx.keeps = keeps.is_some() && pingora_keeps(response);
        if let (200.., Some(in_use)) = (status, &mut ctx.in_use) {
            in_use.keep_for(keeps);
            if framing == ResponseFraming::None {
                in_use.bodiless();
            }
        }
        let (_, handed) = ctx.parts()?;
        handed.until_close = edits.close();
        edit(response, &edits)
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        response.set_version(http::Version::HTTP_11);
        if response.status.is_informational() {
            return Ok(());
        }
        let (handover, handed) = ctx.parts()?;
        let client = client_of(session);
        let more = || client.is_some_and(Client::has_more);
        let leftover = handed.request.leftover_of_relayed(client.is_some_and(Client::is_whole), more);
        if handed.until_close {
            // Pingora has added it.
            response.remove_header(&http::header::TRANSFER_ENCODING);
        }
        if !handed.exchange.goes_on(&handed.request, handed.until_close, leftover, handover.stop.is_set()) {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        if let (Some(body), Some(handed)) = (body, &mut ctx.handed) {
            handed.sent += body.len() as u64;
        }
        if end {
            ctx.parts()?.0.end_answer();
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Ctx,
        _reused: bool,
    ) -> Box<Error> {
        if *error.etype() == DECIDED {
            // The attempt is decided, and so is `error.retry`.
            return error;
        }
        let fault = client_fault(session, &error);
        let (in_use, replay) = (ctx.in_use.take(), replay(session, ctx));
        let next = match (error.esource(), ctx.parts()) {
            (_, Err(_)) => Next::Abort,
            (ErrorSource::Downstream, Ok((_, handed))) => match fault {
                Some(refusal) => handed.exchange.on_client_fault(refusal),
                None => {
                    let answer_ended = ctx.handover.as_ref().is_some_and(|handover| handover.answer_ended());
                    ctx.note(Course { request_sent: false, answer_ended }.on_client_end().into());
                    error.set_retry(false);
                    return error;
                }
            },
            (ErrorSource::Upstream | ErrorSource::Internal | ErrorSource::Unset, Ok((_, handed))) => {
                let how = how_it_broke(&error);
                if let (true, Some(in_use)) = (handed.exchange.is_stale(how), &in_use) {
                    in_use.closed_too_early();
                }
                handed.exchange.on_broken(how, replay, Instant::now())
            }
        };
        let again = ctx.follow(session, next);
        error.set_retry(again);
        error
    }

    /// The front answers, once pingora has given the connection back.
    async fn fail_to_proxy(&self, _session: &mut Session, _error: &Error, _ctx: &mut Ctx) -> FailToProxy {
        FailToProxy { error_code: 0, can_reuse_downstream: false }
    }

    async fn logging(&self, _session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        if error.is_none()
            && ctx.keeps
            && let Some(in_use) = ctx.in_use.as_ref().filter(|in_use| in_use.was_given_up())
            && let Some(upstream) = ctx.handed.as_ref().and_then(|handed| handed.exchange.upstream())
        {
            in_use.on_unasked(upstream, Instant::now());
        }
        ctx.in_use = None;
        if error.is_none() {
            ctx.note(Outcome::Delivered);
        }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Ctx,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// Whether pingora keeps the connection of this answer, if its upstream lets it and no bytes follow.
fn pingora_keeps(response: &ResponseHeader) -> bool {
    let framing = [http::header::CONTENT_LENGTH, http::header::TRANSFER_ENCODING];
    let is_delimited = framing.iter().any(|name| response.headers.contains_key(name));
    response.version == http::Version::HTTP_11 && is_delimited
}

/// The fields of a response.
fn fields(response: &ResponseHeader) -> SmallVec<[Field<'_>; 32]> {
    let fields = response.headers.iter();
    fields.map(|(name, value)| Field::new(name.as_str().as_bytes(), value.as_bytes())).collect()
}

fn edit(response: &mut ResponseHeader, edits: &ResponseEdits) -> Result<()> {
    for name in &names(&response.headers, |field| edits.drops(field)) {
        response.remove_header(name);
    }
    for (name, value) in edits.sets() {
        response.insert_header(name, value)?;
    }
    for (name, value) in edits.more_sets() {
        // The upstream may have set other cookies.
        response.append_header(name.to_owned(), value)?;
    }
    Ok(())
}

/// The names that are to be dropped; usually none or few.
fn names(fields: &http::HeaderMap, drops: impl Fn(&Field<'_>) -> bool) -> SmallVec<[HeaderName; 4]> {
    fields.keys().filter(|name| drops(&Field::new(name.as_str().as_bytes(), b""))).cloned().collect()
}

fn how_it_broke(error: &Error) -> Broken {
    if let Some(fault) = verdict::fault_of(error) {
        return Broken::BadResponse(fault);
    }
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Broken::TimedOut,
        etype if *etype == NO_RESOURCES => Broken::Resources,
        // Pingora's error types are an open set; all that is left are ways for a connection to end.
        _ => Broken::Closed,
    }
}

/// Whether pingora can send the request again.
fn replay(session: &Session, ctx: &Ctx) -> Replay {
    let replay_bytes = ctx.attempt.as_ref().map_or(0, |attempt| attempt.replay_bytes as u64);
    let is_long = client_of(session).is_some_and(|client| client.body_read() > replay_bytes);
    let is_whole = !is_long && !session.as_ref().retry_buffer_truncated();
    if is_whole { Replay::Whole } else { Replay::Gone }
}

/// The client's connection, while pingora has it.
fn client_of(session: &Session) -> Option<&Client> {
    let stream = session.as_downstream().as_http1().map(|http1| http1.stream());
    stream.and_then(|stream| stream.as_any().downcast_ref::<LentClient>()).map(LentClient::client)
}

/// Completes when the client has closed its side or broken off.
async fn left(session: &Session) {
    match client_of(session) {
        Some(client) => client.ended().await,
        None => std::future::pending().await,
    }
}

/// The bytes of the request's head, which are in pingora's buffer by now.
fn head_of(session: &Session) -> Bytes {
    session.as_downstream().as_http1().map(|http1| http1.get_headers_raw_bytes()).unwrap_or_default()
}

/// What the client did wrong, if it did; otherwise it has left.
fn client_fault(session: &Session, error: &Error) -> Option<Refusal> {
    match client_of(session).and_then(Client::fault) {
        Some(refusal) => Some(refusal),
        None if *error.etype() == ErrorType::InvalidHTTPHeader => Some(Refusal::BY_LANE),
        None => None,
    }
}
