//! One function per endpoint: asks the host, renders, chooses the status. The guards have run; the paths are in `routes`.

use std::time::Duration;

use http::{StatusCode, header};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::asker::asker;
use super::host::{MetricsFormat, SetAdmin};
use super::json::{EventsReply, PoolWord, ProbeReply, ReloadResult, SetAdminReply};
use super::reply::{self, Reply};
use super::routes::{Question, WAIT_MAX};
use super::shared::Text;
use super::{explain, health, negotiate, page, render};
use crate::model::{Address, AdminState, lookup};
use crate::pool::{ExplainError, Status};

/// The longest reason an operator may give, in characters.
pub const REASON_CHARS_MAX: usize = 200;
/// How often a waiting question looks for new events.
const EVENTS_POLL: Duration = Duration::from_millis(100);

/// `GET /`.
pub async fn index(q: Question) -> Reply {
    let server = &q.server;
    let page = || page::index(&server.status_reply(q.asked), &server.clock.date(Instant::now())).into_bytes();
    reply::page(server.text(Text::Page, q.asked, page))
}

/// `GET /livez`.
pub async fn livez(_: Question) -> Reply {
    reply::json(StatusCode::OK, &ProbeReply { status: "ok".into(), reason: None })
}

/// `GET /readyz`.
pub async fn readyz(q: Question) -> Reply {
    match q.server.ready() {
        Ok(()) => reply::json(StatusCode::OK, &ProbeReply { status: "ready".into(), reason: None }),
        Err(why) => {
            let answer = ProbeReply { status: "not_ready".into(), reason: Some(why.to_string()) };
            reply::with(reply::json(StatusCode::SERVICE_UNAVAILABLE, &answer), header::RETRY_AFTER, "1")
        }
    }
}

/// `GET /health`.
pub async fn health(q: Question) -> Reply {
    let (now, status) = (Instant::now(), q.server.status(q.asked));
    let mut answer = health::health(&status);
    if q.query("detailed").is_some_and(|value| matches!(value.as_str(), "true" | "1" | "")) {
        answer.components = Some(health::components(&status));
        answer.uptime_seconds = Some(render::uptime(&q.server.host.process(), now));
        answer.version = Some(crate::VERSION.to_string());
        answer.now = Some(q.server.clock.date(now));
    }
    let code = match answer.status {
        PoolWord::Healthy | PoolWord::Degraded => StatusCode::OK,
        PoolWord::Unhealthy | PoolWord::Unknown => StatusCode::SERVICE_UNAVAILABLE,
    };
    reply::json(code, &answer)
}

/// `GET /health/POOL`.
pub async fn pool_health(q: Question) -> Reply {
    let status = q.server.status(q.asked);
    let Some(pool) = status.pools.iter().find(|pool| pool.name.as_str() == q.params[0]) else {
        return unknown_pool(&q.params[0], &status);
    };
    let code = if pool.eligible > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json(code, &health::pool_health(pool))
}

/// `GET /metrics`: OpenMetrics for those who accept it, the older text for everybody else; compressed where gzip is accepted.
pub async fn metrics(q: Question) -> Reply {
    let upstreams = match q.query("upstreams").as_deref() {
        None | Some("true" | "1" | "") => true,
        Some("false" | "0") => false,
        Some(_) => return reply::error(StatusCode::BAD_REQUEST, "upstreams is true or false"),
    };
    let open_metrics = negotiate::accepts_open_metrics(&q.head.headers);
    let gzip = negotiate::accepts_gzip(&q.head.headers);
    let content_type = match open_metrics {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    let format = MetricsFormat { open_metrics, upstreams };
    let plain = || {
        let render = || q.server.host.metrics(format).into_bytes();
        q.server.text(Text::Metrics { format, gzip: false }, q.asked, render)
    };
    let body = match gzip {
        false => plain(),
        true => {
            // Before the renderings are looked at: both are kept there.
            let plain = plain();
            q.server.text(Text::Metrics { format, gzip }, q.asked, || negotiate::gzip(&plain))
        }
    };
    let reply = reply::with(reply::text(content_type, body), header::VARY, "Accept, Accept-Encoding");
    if gzip { reply::with(reply, header::CONTENT_ENCODING, "gzip") } else { reply }
}

/// `GET /api/v1/status`.
pub async fn status(q: Question) -> Reply {
    let json = || reply::to_json(&q.server.status_reply(q.asked));
    reply::json_text(q.server.text(Text::Status, q.asked, json))
}

/// `GET /api/v1/events`. With `wait` the answer comes with the first event after `after`, or empty when the time is over.
/// An `after` of the future (of the process before this one) is answered from the beginning.
pub async fn events(q: Question) -> Reply {
    let (Some(mut after), Some(wait)) = (number(&q, "after"), number(&q, "wait")) else {
        return reply::error(StatusCode::BAD_REQUEST, "after and wait are whole numbers");
    };
    let host = &q.server.host;
    if after > 0 && host.events_after(after - 1).is_empty() {
        after = 0;
    }
    let place = q.server.waiters.try_acquire();
    let wait = if place.is_ok() { Duration::from_secs(wait).min(WAIT_MAX) } else { Duration::ZERO };
    let until = Instant::now() + wait;
    loop {
        let events = host.events_after(after);
        let now = Instant::now();
        if !events.is_empty() || now >= until || *q.server.stopped.borrow() {
            let last = events.last().map_or(after, |event| event.seq);
            let events = events.into_iter().map(|event| render::event(event, &q.server.clock)).collect();
            return reply::json(StatusCode::OK, &EventsReply { events, last });
        }
        sleep_until(until.min(now + EVENTS_POLL)).await;
    }
}

/// `GET /api/v1/pools/POOL/explain`.
pub async fn explain_pool(q: Question) -> Reply {
    let now = Instant::now();
    match q.server.host.explain(&q.params[0], None) {
        Ok(found) => reply::json(StatusCode::OK, &explain::pool(&found, &q.server.clock, now)),
        Err(error) => no_explanation(&q, &error),
    }
}

/// `GET …/upstreams/ADDRESS/explain`. The upstream may be named by its address or by its host name.
pub async fn explain_upstream(q: Question) -> Reply {
    let (now, pool, text) = (Instant::now(), &q.params[0], &q.params[1]);
    let status = q.server.status(q.asked);
    let Some(found) = status.pools.iter().find(|p| p.name.as_str() == pool) else {
        return no_explanation(&q, &ExplainError::NoPool(pool.clone()));
    };
    let all = found.upstreams.iter().map(|u| (&u.upstream.address, u.name.as_deref()));
    let index = match lookup::upstream(text, all) {
        Ok(index) => index,
        Err(missing) => {
            let suggestion = missing.suggestion();
            return reply::error(StatusCode::NOT_FOUND, format!("pool {pool:?} has no upstream {text:?}{suggestion}"));
        }
    };
    match q.server.host.explain(pool, Some(&found.upstreams[index].upstream.address)) {
        Ok(found) => match &found.upstream {
            Some(detail) => reply::json(StatusCode::OK, &explain::upstream(&found, detail, &q.server.clock, now)),
            None => reply::error(StatusCode::NOT_FOUND, format!("pool {pool:?} has no upstream {text:?}")),
        },
        Err(error) => no_explanation(&q, &error),
    }
}

fn no_explanation(q: &Question, error: &ExplainError) -> Reply {
    match error {
        ExplainError::NoPool(pool) => unknown_pool(pool, &q.server.status(q.asked)),
        ExplainError::NoUpstream(pool, address) => no_upstream(pool.as_str(), address),
    }
}

/// `POST /api/v1/reload`.
pub async fn reload(q: Question) -> Reply {
    let server = &q.server;
    let answer = match q.query("dry_run").as_deref() {
        Some("true" | "1" | "") => {
            let answer = server.host.check().await;
            let now = Instant::now();
            let generation = server.status(now).generation;
            render::check(answer, &server.host.process(), generation, &server.clock, now)
        }
        None | Some("false" | "0") => {
            let by = asker(&q.head.headers, q.head.extensions.get());
            render::reload(server.host.reload(by).await, &server.clock, Instant::now())
        }
        Some(_) => return reply::error(StatusCode::BAD_REQUEST, "dry_run is true or false"),
    };
    let code = match answer.result {
        ReloadResult::Applied | ReloadResult::Unchanged => StatusCode::OK,
        ReloadResult::Refused => StatusCode::UNPROCESSABLE_ENTITY,
    };
    reply::json(code, &answer)
}

/// `POST …/drain`.
pub async fn drain(q: Question) -> Reply {
    order(&q, AdminState::Draining, |_| None)
}

/// `POST …/undrain`: ends a drain, and does not enable what is disabled.
pub async fn undrain(q: Question) -> Reply {
    let disabled = Some("the upstream is disabled, not draining; enable it");
    order(&q, AdminState::Enabled, |was| disabled.filter(|_| was == AdminState::Disabled))
}

/// `POST …/disable`.
pub async fn disable(q: Question) -> Reply {
    order(&q, AdminState::Disabled, |_| None)
}

/// `POST …/enable`.
pub async fn enable(q: Question) -> Reply {
    order(&q, AdminState::Enabled, |_| None)
}

/// The body of an order; may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderBody {
    #[serde(default)]
    reason: String,
    /// Also where too few serve without it.
    #[serde(default)]
    force: bool,
}

/// How long an order holds.
const ORDER_HOLDS: &str = "an order survives reloads while its upstream is in the file, and ends with the process; \
                           write `admin` of the upstream in the file to make it last";

fn order(q: &Question, to: AdminState, conflict: impl Fn(AdminState) -> Option<&'static str>) -> Reply {
    let (pool, text) = (&q.params[0], &q.params[1]);
    let address: Address = match text.parse() {
        Ok(address) => address,
        Err(error) => return reply::error(StatusCode::BAD_REQUEST, format!("upstream address: {error}")),
    };
    let Ok(body) = read_order(&q.body) else {
        return reply::error(
            StatusCode::BAD_REQUEST,
            "the body is empty or {\"reason\": \"…\", \"force\": true}, both optional",
        );
    };
    let reason = one_line(&body.reason);
    let status = q.server.status(q.asked);
    let Some(found) = status.pools.iter().find(|p| p.name.as_str() == pool) else { return unknown_pool(pool, &status) };
    let Some(upstream) = found.upstreams.iter().find(|u| u.upstream.address == address) else {
        return no_upstream(pool, &address);
    };
    if let Some(why) = conflict(upstream.admin) {
        return reply::error(StatusCode::CONFLICT, why);
    }
    match q.server.host.set_admin(pool, &address, to, &reason, body.force) {
        SetAdmin::NoPool => no_pool(pool),
        SetAdmin::NoUpstream => no_upstream(pool, &address),
        SetAdmin::NeedsForce(why) => {
            let how = "nothing was changed; force (--force, or {\"force\": true}) does it all the same";
            reply::error(StatusCode::CONFLICT, format!("{why}; {how}"))
        }
        SetAdmin::Done => {
            let in_flight = upstream.upstream.in_flight.load(std::sync::atomic::Ordering::Relaxed);
            let (pool, upstream, was) = (pool.clone(), address.to_string(), upstream.admin);
            let note = ORDER_HOLDS.to_owned();
            reply::json(StatusCode::OK, &SetAdminReply { pool, upstream, admin: to, was, in_flight, note })
        }
    }
}

fn read_order(body: &[u8]) -> serde_json::Result<OrderBody> {
    if body.is_empty() {
        return Ok(OrderBody::default());
    }
    // An object: a struct alone would take an array of its values as well.
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)?;
    serde_json::from_value(object.into())
}

/// A reason goes into logs and events: one line, of bounded length.
fn one_line(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect()
}

/// No pool of this name, with those that there are.
fn unknown_pool(pool: &str, status: &Status) -> Reply {
    let names = status.pools.iter().map(|pool| pool.name.to_string());
    reply::error(StatusCode::NOT_FOUND, lookup::no_pool(pool, names))
}

fn no_pool(pool: &str) -> Reply {
    reply::error(StatusCode::NOT_FOUND, format!("there is no pool {pool:?}"))
}

fn no_upstream(pool: &str, address: &Address) -> Reply {
    reply::error(StatusCode::NOT_FOUND, format!("pool {pool:?} has no upstream {address}"))
}

/// A number of the query; 0 when it is not there.
fn number(q: &Question, key: &str) -> Option<u64> {
    q.query(key).map_or(Some(0), |text| text.parse().ok())
}
