//! One function per endpoint: asks the host, renders, chooses the status. Access checks have run before; paths are in
//! `routes`.

use std::time::Duration;

use http::{StatusCode, header};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::asker::asker;
use super::host::MetricsFormat;
use super::json::{EventsReply, OrderReply, OrdersReply, PoolWord, ProbeReply, ReloadResult};
use super::reply::{self, Reply};
use super::routes::{Question, WAIT_MAX};
use super::shared::Text;
use super::{explain, health, negotiate, page, readiness, render};
use crate::model::units::glance;
use crate::model::written::{duration_argument, show_duration};
use crate::model::{Address, AdminState, Weight, lookup};
use crate::pool::{
    Command, DRAIN_RESUME, Done, ExplainError, Order, OrderError, PoolStatus, Setting, Status, UpstreamStatus,
};

/// The longest reason an operator may give, in characters.
pub const REASON_CHARS_MAX: usize = 200;
/// The shortest and the longest time for which an order can hold.
const ORDER_MIN: Duration = Duration::from_secs(1);
const ORDER_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);
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
    let ready = question.server.ready();
    let body = readiness::to_json(&ready).into();
    match ready {
        Ok(()) => reply::json_bytes(StatusCode::OK, body),
        Err(_) => reply::with(reply::json_bytes(StatusCode::SERVICE_UNAVAILABLE, body), header::RETRY_AFTER, "1"),
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
    order(&question, |body| {
        let resume = body.timeout.as_deref().map(|text| order_time("timeout", Duration::ZERO, text)).transpose()?;
        Ok(Command::Drain { resume: resume.unwrap_or(DRAIN_RESUME) })
    })
}

/// `POST …/undrain`: ends a drain, and does not enable what is disabled.
pub async fn undrain(question: Question) -> Reply {
    order(&question, |_| Ok(Command::Undrain))
}

/// `POST …/disable`.
pub async fn disable(question: Question) -> Reply {
    order(&question, |_| Ok(Command::Disable))
}

/// `POST …/enable`.
pub async fn enable(question: Question) -> Reply {
    order(&question, |_| Ok(Command::Enable))
}

/// `POST …/weight`.
pub async fn weight(question: Question) -> Reply {
    order(&question, |body| {
        let weight = body.weight.and_then(Weight::try_new);
        weight.map(Command::Weight).ok_or_else(|| "`weight` must be a number from 1 to 1000".to_owned())
    })
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
    /// It ends by itself after this time.
    #[serde(default, rename = "for")]
    lasts: Option<String>,
    /// The weight that is ordered.
    #[serde(default)]
    weight: Option<i64>,
    /// Of a drain: how long sessions may go on there.
    #[serde(default)]
    timeout: Option<String>,
}

/// How long an order lasts, if the file says something else; otherwise empty, because it changes nothing that lasts.
fn order_lasts(to: Setting, in_file: Setting, lasts: Option<Duration>) -> String {
    if let Some(lasts) = lasts {
        return format!("it ends by itself after {}, or with the process", glance(lasts));
    }
    if to == in_file {
        return String::new();
    }
    let key = |setting: Setting| match setting {
        Setting::Admin(state) => format!("`admin = \"{state}\"`"),
        Setting::Weight(weight) => format!("`weight = {}`", weight.as_u32()),
    };
    let (file, permanent) = match to {
        Setting::Admin(AdminState::Enabled) => {
            (format!("the file has {}; ", key(in_file)), "remove that from the upstream in the file".to_owned())
        }
        Setting::Admin(AdminState::Draining | AdminState::Disabled) | Setting::Weight(_) => {
            (String::new(), format!("set {} of the upstream in the file", key(to)))
        }
    };
    format!(
        "{file}an order survives reloads while its upstream is in the file, and ends with the process; to make it \
         permanent, {permanent}"
    )
}

/// In the place of a pool's name: every pool that has the upstream.
const EVERY_POOL: &str = "*";

/// Carries out the order that `command` makes of the body.
fn order(question: &Question, command: impl Fn(&OrderBody) -> Result<Command, String>) -> Reply {
    let (pool, text) = (&question.params[0], &question.params[1]);
    let bad = |why: &str| reply::error(StatusCode::BAD_REQUEST, why);
    let Ok(body) = read_order(&question.body) else {
        return bad(
            "the body must be empty or {\"reason\": \"…\", \"force\": true, \"for\": \"30m\"}; every key is optional; \
             `drain` has the key \"timeout\" as well, and `weight` the key \"weight\"",
        );
    };
    let command = match command(&body) {
        Ok(Command::Weight(_)) | Err(_) if body.weight.is_none() => return bad("`weight` is missing"),
        Ok(Command::Weight(_)) if body.timeout.is_some() => {
            return bad("`timeout` is a key of the order `drain` alone");
        }
        Ok(command @ Command::Weight(_)) => command,
        Ok(_) if body.weight.is_some() => return bad("`weight` is a key of the order `weight` alone"),
        Ok(Command::Undrain | Command::Disable | Command::Enable) if body.timeout.is_some() => {
            return bad("`timeout` is a key of the order `drain` alone");
        }
        Ok(command) => command,
        Err(why) => return bad(&why),
    };
    let lasts = match body.lasts.as_deref().map(|text| order_time("for", ORDER_MIN, text)).transpose() {
        Ok(lasts) => lasts,
        Err(why) => return bad(&why),
    };
    let reason = one_line(&body.reason);
    let status = question.server.status(question.asked);
    let named = (pool != EVERY_POOL).then_some(pool.as_str());
    let chosen: Vec<&PoolStatus> =
        status.pools.iter().filter(|p| named.is_none_or(|named| p.name.as_str() == named)).collect();
    if chosen.is_empty() {
        return unknown_pool(pool, &status);
    }
    let address = text.parse::<Address>();
    let all = || chosen.iter().flat_map(|pool| &pool.upstreams);
    if !address.as_ref().is_ok_and(|address| all().any(|u| u.upstream.address == *address)) {
        let mut seen: Vec<(&Address, Option<&str>)> = all().map(|u| (&u.upstream.address, u.name.as_deref())).collect();
        seen.sort();
        seen.dedup();
        let near = lookup::upstream(text, seen.iter().copied()).map_or_else(
            |missing| missing,
            |index| lookup::Missing { several: false, near: vec![seen[index].0.to_string()] },
        );
        return match address {
            Err(error) if near.near.is_empty() => bad(&format!("upstream address: {error}")),
            Ok(_) | Err(_) => {
                let (suggestion, subject) =
                    (near.suggestion(), named.map_or("no pool".to_owned(), |p| format!("pool {p:?}")));
                let no = if named.is_some() { "no " } else { "" };
                reply::error(StatusCode::NOT_FOUND, format!("{subject} has {no}upstream {text:?}{suggestion}"))
            }
        };
    }
    let Ok(address) = address else { return bad("upstream address") };
    let by = asker(&question.head.headers, question.head.extensions.get());
    let order = Order { command, reason: &reason, by: &by, force: body.force, lasts };
    let done = match question.server.host.order(named, &address, &order) {
        Ok(done) => done,
        Err(OrderError::NoPool(_)) => return no_pool(pool),
        Err(OrderError::NoUpstream { .. }) => return no_upstream(pool, &address),
        Err(OrderError::Conflict(why)) => return reply::error(StatusCode::CONFLICT, why),
        Err(OrderError::NeedsForce(why)) => {
            let how = "nothing was changed; to do it anyway, use --force, or {\"force\": true} in the API";
            return reply::error(StatusCode::CONFLICT, format!("{why}; {how}"));
        }
    };
    let mut orders: Vec<OrderReply> = done
        .iter()
        .filter_map(|done| {
            let pool = chosen.iter().find(|pool| pool.name == done.pool)?;
            let known = pool.upstreams.iter().find(|u| u.upstream.address == address)?;
            Some(order_reply(done, command, known, lasts))
        })
        .collect();
    match (named, orders.pop()) {
        (Some(_), Some(only)) => reply::json(StatusCode::OK, &only),
        (_, last) => {
            orders.extend(last);
            reply::json(StatusCode::OK, &OrdersReply { orders })
        }
    }
}

/// What an order has done in one pool.
fn order_reply(done: &Done, command: Command, known: &UpstreamStatus, lasts: Option<Duration>) -> OrderReply {
    let (admin, was, weight, was_weight) = match (command.setting(), done.was) {
        (Setting::Admin(to), Setting::Admin(was)) => (to, was, None, None),
        (Setting::Weight(to), Setting::Weight(was)) => {
            (known.admin, known.admin, Some(to.as_u32()), Some(was.as_u32()))
        }
        // What was is of the kind of what is.
        (Setting::Admin(_) | Setting::Weight(_), _) => (known.admin, known.admin, None, None),
    };
    OrderReply {
        pool: done.pool.to_string(),
        upstream: known.upstream.address.to_string(),
        admin,
        was,
        weight,
        was_weight,
        in_flight: known.upstream.in_flight.load(std::sync::atomic::Ordering::Relaxed),
        note: order_lasts(command.setting(), done.in_file, lasts),
    }
}

/// How long an order holds.
fn order_time(key: &str, least: Duration, text: &str) -> Result<Duration, String> {
    let time = duration_argument(text).map_err(|why| format!("`{key}`: {why}"))?;
    let allowed = least..=ORDER_MAX;
    let range = || format!("`{key}` must be from {} to 365d", show_duration(least));
    if allowed.contains(&time) { Ok(time) } else { Err(range()) }
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
