//! The table of endpoints. It drives dispatch, the index page and the tests: an endpoint is a row here and a function in
//! `handlers`.

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
/// How long the body of a request may take.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long most answers may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a question waits for a place.
const PLACE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a reload may take: a little less than `roundsman reload` waits for its answer.
pub const RELOAD_TIMEOUT: Duration = Duration::from_secs(55);
/// How long a question for events may wait.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// One endpoint.
pub struct Route {
    /// GET (and so HEAD) or POST.
    pub method: Method,
    /// Its path; `{name}` is one segment, percent-encoded.
    pub path: &'static str,
    /// Whether it answers without a token, at once, on the thread of connections: a probe of the process.
    pub open: bool,
    /// How long its answer may take.
    pub timeout: Duration,
    /// One line for the index.
    pub doc: &'static str,
    /// What answers.
    pub handler: Handler,
}

/// What answers a question.
pub type Handler = fn(Question) -> BoxFuture<'static, Reply>;

/// A question that passed the guards.
pub struct Question {
    /// The server it was put to.
    pub server: Arc<Shared>,
    /// The values of the path's `{name}` segments, decoded.
    pub params: Vec<String>,
    /// When its head was whole.
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
pub static ROUTES: [Route; 15] = [
    get("/", "This page", |q| Box::pin(handlers::index(q))),
    get("/livez", "200 while the process serves", |q| Box::pin(handlers::livez(q))).open(),
    get("/readyz", "200 once every pool has been judged; 503 before that and while draining", |q| {
        Box::pin(handlers::readyz(q))
    })
    .open(),
    get("/health", "healthy, degraded, or 503 unhealthy; ?detailed=true for more", |q| Box::pin(handlers::health(q))),
    get("/health/{pool}", "One pool; 503 when it has nothing eligible", |q| Box::pin(handlers::pool_health(q))),
    get("/metrics", "Prometheus text; ?upstreams=false leaves out the series per upstream", |q| {
        Box::pin(handlers::metrics(q))
    }),
    get("/api/v1/status", "Everything about pools and upstreams", |q| Box::pin(handlers::status(q))),
    get("/api/v1/events", "What happened: ?after=N for later ones, &wait=SECONDS (at most 30) to wait for one", |q| {
        Box::pin(handlers::events(q))
    })
    .within(WAIT_MAX.saturating_add(ANSWER_TIMEOUT)),
    get("/api/v1/pools/{pool}/explain", "Why a pool is what it is, in one paragraph", |q| {
        Box::pin(handlers::explain_pool(q))
    }),
    get(
        "/api/v1/pools/{pool}/upstreams/{address}/explain",
        "Everything about one upstream: its last probes step by step, what is next, and its last changes",
        |q| Box::pin(handlers::explain_upstream(q)),
    ),
    post("/api/v1/reload", "Rereads the configuration; ?dry_run=true only validates it", |q| {
        Box::pin(handlers::reload(q))
    })
    .within(RELOAD_TIMEOUT),
    post("/api/v1/pools/{pool}/upstreams/{address}/drain", "No new requests; those in flight finish", |q| {
        Box::pin(handlers::drain(q))
    }),
    post("/api/v1/pools/{pool}/upstreams/{address}/undrain", "Ends a drain", |q| Box::pin(handlers::undrain(q))),
    post("/api/v1/pools/{pool}/upstreams/{address}/disable", "No requests until it is enabled", |q| {
        Box::pin(handlers::disable(q))
    }),
    post("/api/v1/pools/{pool}/upstreams/{address}/enable", "Ends a drain or a disable", |q| {
        Box::pin(handlers::enable(q))
    }),
];

/// Answers a request. Never panics: what a handler panics with becomes a 500.
///
/// The connection is closed after an answer for which no body was read though there is one, and when the server stops.
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
            let reply = reply::error(StatusCode::METHOD_NOT_ALLOWED, format!("this path answers {allow}"));
            return reply::with(reply, header::ALLOW, &allow);
        }
        Found::Nothing => return reply::error(StatusCode::NOT_FOUND, "no such endpoint; GET / lists them"),
    };
    if route.method == Method::POST
        && let Err(refusal) = guard::check_origin(&head.headers)
    {
        return refuse(refusal);
    }
    // A probe has no body that matters; who sends one slowly is among those whose question is not whole.
    let body = match if route.open { Ok(Bytes::new()) } else { read_body(body).await } {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    *body_read = !route.open;
    if !connection.on_question() {
        return reply::busy("too many questions wait to be answered");
    }
    let question = Question { server: server.clone(), params, asked, head, body };
    if route.open {
        // The probes know their answers.
        return (route.handler)(question).await;
    }
    let Some(place) = place(&server).await else {
        return reply::busy("too many questions are being answered");
    };
    let answer = OnAnswers(server.answers.spawn(tokio::time::timeout(route.timeout, (route.handler)(question))));
    let mut reply = match answer.await {
        Ok(Ok(reply)) => reply,
        Ok(Err(_)) => reply::error(StatusCode::GATEWAY_TIMEOUT, format!("no answer within {:?}", route.timeout)),
        Err(_) => reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    };
    reply.extensions_mut().insert(Arc::new(place));
    reply
}

/// A place for a question. Where there is none, the slowest reader makes one.
async fn place(server: &Shared) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = server.places.clone().try_acquire_owned() {
        return Some(place);
    }
    server.connections.close_slowest(Instant::now());
    let place = tokio::time::timeout(PLACE_TIMEOUT, server.places.clone().acquire_owned()).await;
    place.ok()?.ok()
}

/// A question that is being answered on the thread of answers. It is given up when nobody waits for it any more.
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

/// What the table says of a method and a path.
pub(super) enum Found {
    /// This endpoint, with the values of its segments.
    Route(&'static Route, Vec<String>),
    /// The path is known with these methods.
    OtherMethod(String),
    /// The path is not known.
    Nothing,
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
    if allow.is_empty() { Found::Nothing } else { Found::OtherMethod(allow.join(", ")) }
}

async fn read_body(body: Incoming) -> Result<Bytes, Reply> {
    let too_large = || reply::error(StatusCode::PAYLOAD_TOO_LARGE, "a body is at most 64 KiB");
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(reply::error(StatusCode::BAD_REQUEST, "the body broke off or is malformed")),
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
        assert!(matches!(find(&Method::GET, "/nothing"), Found::Nothing));
        assert!(matches!(find(&Method::GET, "//"), Found::Nothing));
    }

    #[test]
    fn only_the_two_probes_answer_without_a_token() {
        let open: Vec<_> = ROUTES.iter().filter(|route| route.open).map(|route| route.path).collect();
        assert_eq!(open, ["/livez", "/readyz"]);
    }
}
