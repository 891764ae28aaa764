//! The table of endpoints. It drives dispatch, the index page and the tests: an endpoint is a row here and a function
//! in `handlers`.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::connections::Open;
use super::guard::{self, Refusal};
use super::handlers;
use super::reply::{self, Reply};
use super::shared::Shared;
use super::target;

/// The largest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long reading the body of a request may take.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long most responses may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request waits for a free place.
const PLACE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a reload may take: a little less than the timeout of `roundsman reload`.
pub const RELOAD_TIMEOUT: Duration = Duration::from_secs(55);
/// How long a request for events may wait.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// One endpoint.
pub struct Route {
    /// GET (which includes HEAD) or POST.
    pub method: Method,
    /// Its path; `{name}` is one segment, percent-encoded.
    pub path: &'static str,
    /// A liveness or readiness probe: answered without a token, at once, on the thread of connections.
    pub open: bool,
    /// How long its response may take.
    pub timeout: Duration,
    /// One line for the index.
    pub doc: &'static str,
    /// The function that answers.
    pub handler: Handler,
}

/// The function that answers a request.
pub type Handler = fn(Question) -> BoxFuture<'static, Reply>;

/// A request that passed the access checks.
pub struct Question {
    /// The server.
    pub server: Arc<Shared>,
    /// The values of the path's `{name}` segments, decoded.
    pub params: Vec<String>,
    /// When its head was complete.
    pub asked: Instant,
    /// The head.
    pub head: Parts,
    /// The body, at most [`BODY_BYTES_MAX`].
    pub body: Bytes,
}

impl Question {
    /// The decoded value of a key of the query.
    pub fn query(&self, key: &str) -> Option<String> {
        target::query_value(self.head.uri.query(), key)
    }
}

const fn get(path: &'static str, doc: &'static str, handler: Handler) -> Route {
    Route { method: Method::GET, path, open: false, timeout: ANSWER_TIMEOUT, doc, handler }
}

const fn post(path: &'static str, doc: &'static str, handler: Handler) -> Route {
    Route { method: Method::POST, path, open: false, timeout: ANSWER_TIMEOUT, doc, handler }
}

impl Route {
    const fn open(mut self) -> Route {
        self.open = true;
        self
    }

    const fn within(mut self, timeout: Duration) -> Route {
        self.timeout = timeout;
        self
    }
}

/// Every endpoint.
pub static ROUTES: [Route; 17] = [
    get("/", "This page", |q| Box::pin(handlers::index(q))),
    get("/livez", "200 while the process serves", |q| Box::pin(handlers::livez(q))).open(),
    get("/readyz", "200 once every pool has a first verdict; 503 before that and while draining", |q| {
        Box::pin(handlers::readyz(q))
    })
    .open(),
    get("/health", "Healthy, degraded, or unhealthy (503); ?detailed=true for more", |q| Box::pin(handlers::health(q))),
    get("/health/{pool}", "One pool; 503 if it has no eligible upstream", |q| Box::pin(handlers::pool_health(q))),
    get("/metrics", "Prometheus text; ?upstreams=false leaves out the series per upstream", |q| {
        Box::pin(handlers::metrics(q))
    }),
    get("/api/v1/process", "Which process this is: its number, configuration file and listeners", |q| {
        Box::pin(handlers::process(q))
    }),
    get("/api/v1/status", "Everything about pools and upstreams", |q| Box::pin(handlers::status(q))),
    get(
        "/api/v1/events",
        "What happened: ?after=N for newer events, &wait=SECONDS (at most 30) to wait for one",
        |q| Box::pin(handlers::events(q)),
    )
    .within(WAIT_MAX.saturating_add(ANSWER_TIMEOUT)),
    get("/api/v1/pools/{pool}/explain", "The state of a pool explained in one paragraph", |q| {
        Box::pin(handlers::explain_pool(q))
    }),
    get(
        "/api/v1/pools/{pool}/upstreams/{address}/explain",
        "Everything about one upstream: its last probes step by step, what comes next, and its last changes",
        |q| Box::pin(handlers::explain_upstream(q)),
    ),
    post("/api/v1/reload", "Reloads the configuration; ?dry_run=true only validates it", |q| {
        Box::pin(handlers::reload(q))
    })
    .within(RELOAD_TIMEOUT),
    post(
        "/api/v1/pools/{pool}/upstreams/{address}/drain",
        "No new requests; those in flight finish. As {pool}, * is every pool that has it",
        |q| Box::pin(handlers::drain(q)),
    ),
    post("/api/v1/pools/{pool}/upstreams/{address}/undrain", "Ends a drain", |q| Box::pin(handlers::undrain(q))),
    post("/api/v1/pools/{pool}/upstreams/{address}/disable", "No requests until it is enabled", |q| {
        Box::pin(handlers::disable(q))
    }),
    post("/api/v1/pools/{pool}/upstreams/{address}/enable", "Ends a drain or a disable", |q| {
        Box::pin(handlers::enable(q))
    }),
    post("/api/v1/pools/{pool}/upstreams/{address}/weight", "Another weight: {\"weight\": N}", |q| {
        Box::pin(handlers::weight(q))
    }),
];

/// Answers a request. A panic of a handler becomes a 500.
///
/// The connection is closed after the response if the request's body was not read, or if the server is stopping.
pub async fn dispatch(server: Arc<Shared>, request: Request<Incoming>, open: &Open) -> Reply {
    let (stopped, has_body) = (server.stopped.clone(), !request.body().is_end_stream());
    let mut body_read = false;
    let answered = AssertUnwindSafe(answer(server, request, open, &mut body_read)).catch_unwind().await;
    let reply = answered.unwrap_or_else(|_| reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error"));
    if *stopped.borrow() || (has_body && !body_read) { reply::closing(reply) } else { reply }
}

async fn answer(server: Arc<Shared>, request: Request<Incoming>, connection: &Open, body_read: &mut bool) -> Reply {
    let asked = Instant::now();
    let (head, body) = request.into_parts();
    let access = server.host.access();
    if let Err(refusal) = guard::check_host(&head, &access) {
        return refuse(refusal);
    }
    let found = find(&head.method, head.uri.path());
    let open = matches!(&found, Found::Route(route, _) if route.open);
    if !open && let Err(refusal) = guard::check_token(&head.headers, &access) {
        return refuse(refusal);
    }
    let (route, params) = match found {
        Found::Route(route, params) => (route, params),
        Found::OtherMethod(allow) => {
            let reply = reply::error(StatusCode::METHOD_NOT_ALLOWED, format!("this path allows {allow}"));
            return reply::with(reply, header::ALLOW, &allow);
        }
        Found::UnknownPath => {
            return reply::error(StatusCode::NOT_FOUND, "no such endpoint; GET / lists all endpoints");
        }
    };
    if route.method == Method::POST
        && let Err(refusal) = guard::check_origin(&head.headers)
    {
        return refuse(refusal);
    }
    // The body of a probe is ignored; a connection that sends one slowly counts as one without a complete request.
    let body = match if route.open { Ok(Bytes::new()) } else { read_body(body).await } {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    *body_read = !route.open;
    if !connection.on_question() {
        return reply::busy("too many requests are waiting");
    }
    let question = Question { server: server.clone(), params, asked, head, body };
    if route.open {
        // The probes answer at once and need no place.
        return (route.handler)(question).await;
    }
    let Some(place) = place(&server).await else {
        return reply::busy("too many requests are being answered");
    };
    let answer = OnAnswers(server.answers.spawn(tokio::time::timeout(route.timeout, (route.handler)(question))));
    let mut reply = match answer.await {
        Ok(Ok(reply)) => reply,
        Ok(Err(_)) => reply::error(StatusCode::GATEWAY_TIMEOUT, format!("no response within {:?}", route.timeout)),
        Err(_) => reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    };
    reply.extensions_mut().insert(Arc::new(place));
    reply
}

/// A place for a request. If none is free, the slowest reader is closed to free one.
async fn place(server: &Shared) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = server.places.clone().try_acquire_owned() {
        return Some(place);
    }
    server.connections.close_slowest(Instant::now());
    let place = tokio::time::timeout(PLACE_TIMEOUT, server.places.clone().acquire_owned()).await;
    place.ok()?.ok()
}

/// A request being answered on the thread `admin-answers`. Dropping this aborts it.
struct OnAnswers<T>(JoinHandle<T>);

impl<T> Future for OnAnswers<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for OnAnswers<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The result of a look-up in the table by method and path.
pub(super) enum Found {
    /// This endpoint, with the values of its segments.
    Route(&'static Route, Vec<String>),
    /// The path exists, but only with these methods.
    OtherMethod(String),
    /// There is no such path.
    UnknownPath,
}

/// Finds the endpoint. HEAD is answered as GET.
pub(super) fn find(method: &Method, path: &str) -> Found {
    let wanted = if method == Method::HEAD { &Method::GET } else { method };
    let mut allow = Vec::new();
    for route in &ROUTES {
        let Some(params) = target::match_path(route.path, path) else { continue };
        if route.method == *wanted {
            return Found::Route(route, params);
        }
        allow.push(if route.method == Method::GET { "GET, HEAD" } else { "POST" });
    }
    if allow.is_empty() { Found::UnknownPath } else { Found::OtherMethod(allow.join(", ")) }
}

async fn read_body(body: Incoming) -> Result<Bytes, Reply> {
    let too_large = || reply::error(StatusCode::PAYLOAD_TOO_LARGE, "the body must be at most 64 KiB");
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(reply::error(StatusCode::BAD_REQUEST, "the body is incomplete or malformed")),
        Err(_) => Err(reply::error(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

fn refuse(refusal: Refusal) -> Reply {
    let reply = reply::error(refusal.status(), refusal.message());
    match refusal {
        Refusal::Unauthorized => reply::with(reply, header::WWW_AUTHENTICATE, "Bearer realm=\"roundsman\""),
        Refusal::HostMalformed | Refusal::HostForeign | Refusal::OriginForeign => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_own_path_and_only_by_its_method() {
        for (i, route) in ROUTES.iter().enumerate() {
            let path = route.path.replace("{pool}", "api").replace("{address}", "10.0.0.1:80");
            let Found::Route(found, _) = find(&route.method, &path) else { panic!("{path} is not found") };
            assert!(std::ptr::eq(found, &ROUTES[i]), "{path} is taken by {}", found.path);
            assert!(matches!(find(&Method::DELETE, &path), Found::OtherMethod(_)), "{path}");
            assert!(!route.doc.is_empty());
        }
        assert!(matches!(find(&Method::GET, "/nothing"), Found::UnknownPath));
        assert!(matches!(find(&Method::GET, "//"), Found::UnknownPath));
    }

    #[test]
    fn only_the_two_probes_answer_without_a_token() {
        let open: Vec<_> = ROUTES.iter().filter(|route| route.open).map(|route| route.path).collect();
        assert_eq!(open, ["/livez", "/readyz"]);
    }
}
