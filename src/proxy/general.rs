//! The general lane: pingora-proxy relays what is not a tunnel. Everything it could decide is asked of the exchange; this
//! is translation.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::Arc;

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
use tokio::sync::watch;
use tokio::time::Instant;

use super::connect::{Dialer, Dialers, InUse, NO_RESOURCES};
use super::guard::Guard;
use crate::exchange::{Broken, ConnectError, End, Exchange, Next, OwnAnswer, Refusal, Replay, Version, limits};
use crate::pool::AnswerReason;

tokio::task_local! {
    /// The request that the lane is about to take: pingora makes its context without arguments, in the task that calls it.
    pub(super) static HANDOFF: Cell<Option<Handoff>>;
}

/// A request for the lane.
pub(super) struct Handoff {
    pub(super) exchange: Exchange,
    pub(super) dialers: Arc<Dialers>,
    pub(super) version: Version,
    pub(super) stop: watch::Receiver<bool>,
}

/// The lane.
#[derive(Debug)]
pub struct General;

/// One request in the lane.
pub struct Ctx {
    request: Option<Handoff>,
    dialer: Option<Arc<Dialer>>,
    in_use: Option<InUse>,
    fresh: bool,
    answer: Option<OwnAnswer>,
    client_left: bool,
}

impl Ctx {
    fn request(&mut self) -> Result<&mut Handoff> {
        self.request.as_mut().ok_or_else(|| Error::new_str("a request without its exchange"))
    }

    /// What follows a failure: true to try again, false to end with `self.answer` or nothing.
    fn follow(&mut self, next: Next) -> bool {
        match next {
            Next::Attempt(attempt) => {
                self.fresh = attempt.fresh;
                true
            }
            Next::Answer(answer) => {
                self.answer = Some(answer);
                false
            }
            Next::Wait { .. } | Next::Forward(..) | Next::Abort => false,
        }
    }
}

#[async_trait]
impl ProxyHttp for General {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        let request = HANDOFF.try_with(Cell::take).ok().flatten();
        Ctx { request, dialer: None, in_use: None, fresh: false, answer: None, client_left: false }
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        let version = ctx.request()?.version;
        let client = session.as_downstream_mut();
        client.set_read_timeout(Some(limits::BODY_IDLE));
        client.set_write_timeout(Some(limits::BODY_IDLE));
        client.set_total_drain_timeout(Some(limits::HEADER_TIMEOUT));
        client.set_ignore_info_resp(version == Version::Http10);
        Ok(())
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        ctx.in_use = None;
        let fresh = std::mem::take(&mut ctx.fresh);
        let request = ctx.request()?;
        let upstream = request.exchange.upstream().ok_or_else(|| Error::new_str("an attempt without an upstream"))?;
        let dialer = request.dialers.of(upstream);
        let mut peer = dialer.peer()?;
        if fresh {
            // Nothing is pooled under a key of its own.
            peer.group_key = fastrand::u64(..);
        }
        ctx.dialer = Some(dialer);
        Ok(Box::new(peer))
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        fd: RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.in_use = ctx.dialer.as_ref().and_then(|dialer| dialer.in_use(fd));
        ctx.request()?.exchange.on_connected(reused, Instant::now());
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let why = match error.etype() {
            ErrorType::ConnectTimedout => ConnectError::TimedOut,
            etype if *etype == NO_RESOURCES => ConnectError::Resources,
            _ => ConnectError::Refused,
        };
        let again = match ctx.request() {
            Ok(request) => {
                let next = request.exchange.on_connect_failed(why, Instant::now());
                ctx.follow(next)
            }
            Err(_) => false,
        };
        error.set_retry(again);
        error
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let edits = ctx.request()?.exchange.request_edits();
        let dropped: Vec<HeaderName> =
            upstream.headers.keys().filter(|name| edits.drops(name.as_str().as_bytes())).cloned().collect();
        for name in &dropped {
            upstream.remove_header(name);
        }
        for (name, value) in edits.sets() {
            upstream.insert_header(name, value)?;
        }
        if let Some(target) = edits.target() {
            upstream.set_raw_path(target.as_bytes())?;
        }
        upstream.set_version(http::Version::HTTP_11);
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let status = response.status.as_u16();
        let now = Instant::now();
        let exchange = &mut ctx.request()?.exchange;
        let bytes: usize = response.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let next = if bytes > limits::RESPONSE_HEAD_BYTES || response.headers.len() > limits::RESPONSE_HEAD_FIELDS {
            exchange.on_broken(Broken::BadResponse, Replay::Gone, now)
        } else {
            let fields = response.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
            let fields: SmallVec<[(&[u8], &[u8]); 32]> = fields.collect();
            exchange.on_response(status, fields.iter().copied(), now)
        };
        let edits = match next {
            Next::Forward(edits, _framing) => edits,
            other => {
                let again = ctx.follow(other);
                let mut error = Error::explain(ErrorType::InvalidHTTPHeader, "the upstream's answer").into_up();
                error.set_retry(again);
                return Err(error);
            }
        };
        let dropped: Vec<HeaderName> =
            response.headers.keys().filter(|name| edits.drops(name.as_str().as_bytes())).cloned().collect();
        for name in &dropped {
            response.remove_header(name);
        }
        for (name, value) in edits.sets() {
            response.insert_header(name, value)?;
        }
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        if response.status.is_informational() {
            return Ok(());
        }
        // The version of this hop is ours, whatever the upstream speaks.
        response.set_version(http::Version::HTTP_11);
        let request = ctx.request()?;
        let old = request.version == Version::Http10;
        let chunked = response.headers.contains_key(http::header::TRANSFER_ENCODING);
        if old && chunked {
            // A client of HTTP/1.0 cannot read chunks: the end of the connection ends the answer.
            response.remove_header(&http::header::TRANSFER_ENCODING);
        }
        if *request.stop.borrow() || request.exchange.must_close() || (old && chunked) {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Ctx,
        _reused: bool,
    ) -> Box<Error> {
        if ctx.answer.is_some() {
            error.set_retry(false);
            return error;
        }
        let now = Instant::now();
        let malformed = is_malformed(session);
        let replay = if session.as_ref().retry_buffer_truncated() { Replay::Gone } else { Replay::Whole };
        let Ok(request) = ctx.request() else {
            error.set_retry(false);
            return error;
        };
        let next = match error.esource() {
            ErrorSource::Downstream if malformed || *error.etype() == ErrorType::InvalidHTTPHeader => {
                request.exchange.on_client_fault(Refusal::malformed("a malformed body"))
            }
            ErrorSource::Downstream => {
                ctx.client_left = true;
                Next::Abort
            }
            ErrorSource::Upstream | ErrorSource::Internal | ErrorSource::Unset => {
                request.exchange.on_broken(how_it_broke(error.etype()), replay, now)
            }
        };
        let again = ctx.follow(next);
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        let dead = FailToProxy { error_code: 0, can_reuse_downstream: false };
        if session.response_written().is_some_and(|head| !head.status.is_informational()) {
            return dead;
        }
        let answer = match ctx.answer {
            Some(answer) => answer,
            // Pingora refused the request before an attempt began: it read the head in another way than we did.
            None if !ctx.client_left && *error.esource() == ErrorSource::Downstream => {
                Refusal::malformed("refused by the lane").answer()
            }
            None if ctx.client_left => return dead,
            None => OwnAnswer::new(AnswerReason::UpstreamBroke),
        };
        session.set_keepalive(None);
        match write_answer(session, &answer).await {
            Ok(()) => FailToProxy { error_code: answer.status(), can_reuse_downstream: false },
            Err(_) => {
                ctx.client_left = true;
                dead
            }
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        let Some(request) = ctx.request.take() else { return };
        ctx.in_use = None;
        let end = match error {
            None => End::Delivered,
            Some(_) if ctx.client_left => End::ClientLeft,
            Some(_) if ctx.answer.is_some() && session.response_written().is_some() => End::Delivered,
            Some(error) if *error.esource() == ErrorSource::Downstream => End::ClientLeft,
            Some(_) => End::Aborted,
        };
        request.exchange.on_end(end, Instant::now());
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

fn how_it_broke(etype: &ErrorType) -> Broken {
    match etype {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Broken::TimedOut,
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error => Broken::BadResponse,
        etype if *etype == NO_RESOURCES => Broken::Resources,
        _ => Broken::Closed,
    }
}

/// Whether the client's chunks were malformed.
fn is_malformed(session: &Session) -> bool {
    let stream = session.as_downstream().as_http1().map(|http1| http1.stream());
    stream.and_then(|stream| stream.as_any().downcast_ref::<Guard>()).is_some_and(Guard::is_malformed)
}

async fn write_answer(session: &mut Session, answer: &OwnAnswer) -> Result<()> {
    let mut head = ResponseHeader::build(answer.status(), Some(6))?;
    for (name, value) in answer.fields() {
        head.insert_header(name, &*value)?;
    }
    let body = answer.body();
    let head_only = session.req_header().method == http::Method::HEAD || body.is_empty();
    session.write_response_header(Box::new(head), head_only).await?;
    if !head_only {
        session.write_response_body(Some(Bytes::from_static(body.as_bytes())), true).await?;
    }
    Ok(())
}
