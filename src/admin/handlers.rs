//! One function per endpoint: asks the host, renders, chooses the status. Access checks have run before; paths are in
//! `routes`.

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
use crate::pool::{AdminOrder, ExplainError, Status};

/// The longest reason an operator may give, in characters.
pub const REASON_CHARS_MAX: usize = 200;
/// How often a waiting request looks for new events.
const EVENTS_POLL: Duration = Duration::from_millis(100);

/// `GET /`.
pub async fn index(question: Question) -> Reply {
    let server = &question.server;
    let page = || page::index(&server.status_reply(question.asked), &server.clock.date(Instant::now())).into_bytes();
    reply::page(server.text(Text::Page, question.asked, page))
}

/// `GET /livez`.
pub async fn livez(_: Question) -> Reply {
    reply::json(StatusCode::OK, &ProbeReply { status: "ok".into(), reason: None })
}

/// `GET /readyz`.
pub async fn readyz(question: Question) -> Reply {
    match question.server.ready() {
        Ok(()) => reply::json(StatusCode::OK, &ProbeReply { status: "ready".into(), reason: None }),
        Err(why) => {
            let answer = ProbeReply { status: "not_ready".into(), reason: Some(why.to_string()) };
            reply::with(reply::json(StatusCode::SERVICE_UNAVAILABLE, &answer), header::RETRY_AFTER, "1")
        }
    }
}

/// `GET /health`.
pub async fn health(question: Question) -> Reply {
    let (now, status) = (Instant::now(), question.server.status(question.asked));
    let mut answer = health::health(&status, now);
    if question.query("detailed").is_some_and(|value| matches!(value.as_str(), "true" | "1" | "")) {
        answer.components = Some(health::components(&status));
        answer.uptime_seconds = Some(render::uptime(&question.server.host.process(), now));
        answer.version = Some(crate::VERSION.to_string());
        answer.now = Some(question.server.clock.date(now));
    }
    let code = match answer.status {
        PoolWord::Healthy | PoolWord::Degraded => StatusCode::OK,
        PoolWord::Unhealthy | PoolWord::Unknown => StatusCode::SERVICE_UNAVAILABLE,
    };
    reply::json(code, &answer)
}

/// `GET /health/POOL`.
pub async fn pool_health(question: Question) -> Reply {
    let status = question.server.status(question.asked);
    let Some(pool) = status.pools.iter().find(|pool| pool.name.as_str() == question.params[0]) else {
        return unknown_pool(&question.params[0], &status);
    };
    let code = if pool.eligible > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json(code, &health::pool_health(pool, Instant::now()))
}

/// `GET /metrics`: OpenMetrics if the client accepts it, else the Prometheus text format; compressed if gzip is
/// accepted.
pub async fn metrics(question: Question) -> Reply {
    let upstreams = match question.query("upstreams").as_deref() {
        None | Some("true" | "1" | "") => true,
        Some("false" | "0") => false,
        Some(_) => return reply::error(StatusCode::BAD_REQUEST, "upstreams must be true or false"),
    };
    let open_metrics = negotiate::accepts_open_metrics(&question.head.headers);
    let gzip = negotiate::accepts_gzip(&question.head.headers);
    let content_type = match open_metrics {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    let format = MetricsFormat { open_metrics, upstreams };
    let plain = || {
        let render = || question.server.host.metrics(format).into_bytes();
        question.server.text(Text::Metrics { format, gzip: false }, question.asked, render)
    };
    let body = match gzip {
        false => plain(),
        true => {
            // First, because both texts are under one lock.
            let plain = plain();
            question.server.text(Text::Metrics { format, gzip }, question.asked, || negotiate::gzip(&plain))
        }
    };
    let reply = reply::with(reply::text(content_type, body), header::VARY, "Accept, Accept-Encoding");
    if gzip { reply::with(reply, header::CONTENT_ENCODING, "gzip") } else { reply }
}

/// `GET /api/v1/process`.
pub async fn process(question: Question) -> Reply {
    reply::json(StatusCode::OK, &render::process(&question.server.host.process()))
}

/// `GET /api/v1/status`.
pub async fn status(question: Question) -> Reply {
    let json = || reply::to_json(&question.server.status_reply(question.asked));
    reply::json_text(question.server.text(Text::Status, question.asked, json))
}

/// `GET /api/v1/events`. With `wait` the response comes with the first event after `after`, or empty after that time.
/// An `after` that this process has not reached (from an earlier process) returns all events.
pub async fn events(question: Question) -> Reply {
    let (Some(mut after), Some(wait)) = (number(&question, "after"), number(&question, "wait")) else {
        return reply::error(StatusCode::BAD_REQUEST, "after and wait must be whole numbers");
    };
    let host = &question.server.host;
    if after > 0 && host.events_after(after - 1).is_empty() {
        after = 0;
    }
    let place = question.server.waiters.try_acquire();
    let wait = if place.is_ok() { Duration::from_secs(wait).min(WAIT_MAX) } else { Duration::ZERO };
    let until = Instant::now() + wait;
    loop {
        let events = host.events_after(after);
        let now = Instant::now();
        if !events.is_empty() || now >= until || *question.server.stopped.borrow() {
            let last = events.last().map_or(after, |event| event.seq);
            let events = events.into_iter().map(|event| render::event(event, &question.server.clock)).collect();
            return reply::json(StatusCode::OK, &EventsReply { events, last });
        }
        sleep_until(until.min(now + EVENTS_POLL)).await;
    }
}

/// `GET /api/v1/pools/POOL/explain`.
pub async fn explain_pool(question: Question) -> Reply {
    let now = Instant::now();
    match question.server.host.explain(&question.params[0], None) {
        Ok(found) => reply::json(StatusCode::OK, &explain::pool(&found, &question.server.clock, now)),
        Err(error) => no_explanation(&question, &error),
    }
}

/// `GET …/upstreams/ADDRESS/explain`. The upstream may be named by its address or by its host name.
pub async fn explain_upstream(question: Question) -> Reply {
    let (now, pool, text) = (Instant::now(), &question.params[0], &question.params[1]);
    let status = question.server.status(question.asked);
    let Some(found) = status.pools.iter().find(|p| p.name.as_str() == pool) else {
        return no_explanation(&question, &ExplainError::NoPool(pool.clone()));
    };
    let all = found.upstreams.iter().map(|u| (&u.upstream.address, u.name.as_deref()));
    let index = match lookup::upstream(text, all) {
        Ok(index) => index,
        Err(missing) => {
            let suggestion = missing.suggestion();
            return reply::error(StatusCode::NOT_FOUND, format!("pool {pool:?} has no upstream {text:?}{suggestion}"));
        }
    };
    match question.server.host.explain(pool, Some(&found.upstreams[index].upstream.address)) {
        Ok(found) => match &found.upstream {
            Some(detail) => {
                reply::json(StatusCode::OK, &explain::upstream(&found, detail, &question.server.clock, now))
            }
            None => reply::error(StatusCode::NOT_FOUND, format!("pool {pool:?} has no upstream {text:?}")),
        },
        Err(error) => no_explanation(&question, &error),
    }
}

fn no_explanation(question: &Question, error: &ExplainError) -> Reply {
    match error {
        ExplainError::NoPool(pool) => unknown_pool(pool, &question.server.status(question.asked)),
        ExplainError::NoUpstream(pool, address) => no_upstream(pool.as_str(), address),
    }
}

/// `POST /api/v1/reload`.
pub async fn reload(question: Question) -> Reply {
    let server = &question.server;
    let answer = match question.query("dry_run").as_deref() {
        Some("true" | "1" | "") => {
            let answer = server.host.check().await;
            let now = Instant::now();
            let generation = server.status(now).generation;
            render::check(answer, &server.host.process(), generation, &server.clock, now)
        }
        None | Some("false" | "0") => {
            let by = asker(&question.head.headers, question.head.extensions.get());
            render::reload(server.host.reload(by).await, &server.clock, Instant::now())
        }
        Some(_) => return reply::error(StatusCode::BAD_REQUEST, "dry_run must be true or false"),
    };
    let code = match answer.result {
        ReloadResult::Applied | ReloadResult::Unchanged => StatusCode::OK,
        ReloadResult::Refused => StatusCode::UNPROCESSABLE_ENTITY,
    };
    reply::json(code, &answer)
}

/// `POST …/drain`.
pub async fn drain(question: Question) -> Reply {
    order(&question, AdminState::Draining, |_| None)
}

/// `POST …/undrain`: ends a drain, and does not enable what is disabled.
pub async fn undrain(question: Question) -> Reply {
    let disabled = Some("the upstream is disabled, not draining; enable it");
    order(&question, AdminState::Enabled, |was| disabled.filter(|_| was == AdminState::Disabled))
}

/// `POST …/disable`.
pub async fn disable(question: Question) -> Reply {
    order(&question, AdminState::Disabled, |_| None)
}

/// `POST …/enable`.
pub async fn enable(question: Question) -> Reply {
    order(&question, AdminState::Enabled, |_| None)
}

/// The body of an order; may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderBody {
    #[serde(default)]
    reason: String,
    /// Carry the order out even if too few upstreams are left to serve.
    #[serde(default)]
    force: bool,
}

/// How long an order lasts, if the file says something else; otherwise empty, because it changes nothing that lasts.
fn order_lasts(to: AdminState, in_file: AdminState) -> String {
    if to == in_file {
        return String::new();
    }
    let (file, permanent) = match to {
        AdminState::Enabled => {
            (format!("the file has `admin = \"{in_file}\"`; "), "remove that from the upstream in the file".to_owned())
        }
        AdminState::Draining | AdminState::Disabled => {
            (String::new(), format!("set `admin = \"{to}\"` of the upstream in the file"))
        }
    };
    format!(
        "{file}an order survives reloads while its upstream is in the file, and ends with the process; to make it \
         permanent, {permanent}"
    )
}

fn order(question: &Question, to: AdminState, conflict: impl Fn(AdminState) -> Option<&'static str>) -> Reply {
    let (pool, text) = (&question.params[0], &question.params[1]);
    let Ok(body) = read_order(&question.body) else {
        return reply::error(
            StatusCode::BAD_REQUEST,
            "the body must be empty or {\"reason\": \"…\", \"force\": true}; both keys are optional",
        );
    };
    let reason = one_line(&body.reason);
    let status = question.server.status(question.asked);
    let Some(found) = status.pools.iter().find(|p| p.name.as_str() == pool) else { return unknown_pool(pool, &status) };
    let address = text.parse::<Address>();
    let known = |address: &Address| found.upstreams.iter().find(|u| u.upstream.address == *address);
    let Some(upstream) = address.as_ref().ok().and_then(known) else {
        let all = found.upstreams.iter().map(|u| (&u.upstream.address, u.name.as_deref()));
        let near = lookup::upstream(text, all).map_or_else(
            |missing| missing,
            |index| lookup::Missing { several: false, near: vec![found.upstreams[index].upstream.address.to_string()] },
        );
        return match address {
            Err(error) if near.near.is_empty() => {
                reply::error(StatusCode::BAD_REQUEST, format!("upstream address: {error}"))
            }
            Ok(_) | Err(_) => {
                let suggestion = near.suggestion();
                reply::error(StatusCode::NOT_FOUND, format!("pool {pool:?} has no upstream {text:?}{suggestion}"))
            }
        };
    };
    let address = upstream.upstream.address.clone();
    if let Some(why) = conflict(upstream.admin) {
        return reply::error(StatusCode::CONFLICT, why);
    }
    let by = asker(&question.head.headers, question.head.extensions.get());
    let order = AdminOrder { to, reason: &reason, by: &by, force: body.force };
    match question.server.host.set_admin(pool, &address, order) {
        SetAdmin::NoPool => no_pool(pool),
        SetAdmin::NoUpstream => no_upstream(pool, &address),
        SetAdmin::NeedsForce(why) => {
            let how = "nothing was changed; to do it anyway, use --force, or {\"force\": true} in the API";
            reply::error(StatusCode::CONFLICT, format!("{why}; {how}"))
        }
        SetAdmin::Done { in_file } => {
            let in_flight = upstream.upstream.in_flight.load(std::sync::atomic::Ordering::Relaxed);
            let (pool, upstream, was) = (pool.clone(), address.to_string(), upstream.admin);
            let note = order_lasts(to, in_file);
            reply::json(StatusCode::OK, &SetAdminReply { pool, upstream, admin: to, was, in_flight, note })
        }
    }
}

fn read_order(body: &[u8]) -> serde_json::Result<OrderBody> {
    if body.is_empty() {
        return Ok(OrderBody::default());
    }
    // First as an object: serde would also accept an array of values for a struct.
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)?;
    serde_json::from_value(object.into())
}

/// A reason goes into logs and events: one line, of bounded length.
fn one_line(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect()
}

/// 404 that lists the existing pools.
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

/// A number of the query; 0 if absent, `None` if it is not a number.
fn number(question: &Question, key: &str) -> Option<u64> {
    question.query(key).map_or(Some(0), |text| text.parse().ok())
}
