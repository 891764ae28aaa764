//! Health checks of gRPC against a real server (tonic and tonic-health), plain and over TLS, and against peers that
//! close early, violate the protocol or do not speak gRPC. The tables beside `probe::grpc` test the meaning of each
//! response.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use roundsman::model::policy::{Certificate, GrpcProbe, HeaderText, PortRule, ProbeKind, ProbeSpec, TlsPolicy};
use roundsman::model::{Address, Code, ProbeReport, Secret};
use roundsman::probe::probe;
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant};
use tonic::body::Body;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::h2::{after_request, frames};
use super::{LONG, SHORT, SLACK};
use crate::origin::frames::{END_STREAM, data, goaway, head, reset};
use crate::origin::tls::{CERTIFICATES, TlsOrigin};
use crate::origin::{Act, BlackHole, Origin, Reply, refusing_address};

/// A running gRPC server; dropping it ends it.
pub(super) struct Server {
    pub address: Address,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens, and spawns what `serve` makes of the listener.
fn start<F: Future<Output = Result<(), tonic::transport::Error>> + Send + 'static>(
    serve: impl FnOnce(TcpIncoming) -> F,
) -> Server {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = Address::Inet(incoming.local_addr().unwrap());
    let serving = serve(incoming);
    let task = tokio::spawn(async move { serving.await.expect("it serves until it is dropped") }).abort_handle();
    Server { address, task }
}

pub(super) fn healthy_server() -> (Server, HealthReporter) {
    let (reporter, health) = health_reporter();
    (start(|incoming| tonic::transport::Server::builder().serve_with_incoming(health, incoming)), reporter)
}

/// The response of a tonic server to a call of a service that it does not have.
#[derive(Clone)]
struct NoServices;

impl tonic::codegen::Service<http::Request<Body>> for NoServices {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(Ok(tonic::Status::unimplemented("").into_http()))
    }
}

pub(super) fn of(service: &str) -> GrpcProbe {
    GrpcProbe { service: service.into(), host: None, headers: Vec::new() }
}

async fn grpc(target: &Address, kind: GrpcProbe, tls: Option<TlsPolicy>, timeout: Duration) -> ProbeReport {
    let spec = Arc::new(ProbeSpec { port: PortRule::Same, tls, kind: ProbeKind::Grpc(kind), max_duration: None });
    probe(target, target, &spec, timeout).await
}

async fn check(target: &Address, service: &str) -> ProbeReport {
    let report = grpc(target, of(service), None, LONG).await;
    assert!(report.duration < LONG / 2, "{:?}", report.duration);
    report
}

const SERVICE: &str = "shop.Cart";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_passes_only_while_it_reports_serving() {
    let (server, reporter) = healthy_server();
    let at = &server.address;
    // tonic reports SERVING for the server as a whole from the start.
    let serving = check(at, "").await;
    assert_eq!((serving.code, serving.status, serving.hint), (Code::L7Ok, Some(200), None), "{}", serving.reason);
    assert!(serving.reason.starts_with("SERVING in ") && serving.reason.ends_with(" ms"), "{}", serving.reason);
    let unknown = check(at, SERVICE).await;
    assert_eq!(unknown.code, Code::L7Sts);
    let sentence = unknown.sentence();
    assert!(sentence.starts_with("unknown service \"shop.Cart\": grpc-status NOT_FOUND (5)"), "{sentence}");
    assert!(sentence.contains("(check `service`: a full name such as package.Service"), "{sentence}");
    for (status, code, sentence) in [
        (
            ServingStatus::NotServing,
            Code::L7Sts,
            "NOT_SERVING for \"shop.Cart\", expected SERVING (it runs, but reports that it is not ready)",
        ),
        (
            ServingStatus::Unknown,
            Code::L7Sts,
            "UNKNOWN for \"shop.Cart\", expected SERVING (it has set no status yet: it may still be starting)",
        ),
        (ServingStatus::Serving, Code::L7Ok, "SERVING in "),
    ] {
        reporter.set_service_status(SERVICE, status).await;
        let report = check(at, SERVICE).await;
        assert_eq!(report.code, code, "{}", report.sentence());
        assert!(report.sentence().starts_with(sentence), "{}", report.sentence());
    }
    // The server as a whole has its own status.
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let whole = check(at, "").await.sentence();
    assert!(whole.starts_with("NOT_SERVING, expected SERVING"), "{whole}");
    assert_eq!(check(at, SERVICE).await.code, Code::L7Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_the_health_service_is_unimplemented() {
    let server = start(|incoming| tonic::transport::Server::builder().serve_with_incoming(NoServices, incoming));
    let report = check(&server.address, "").await;
    assert_eq!(report.code, Code::L7Sts);
    assert_eq!(
        report.sentence(),
        "no health service: grpc-status UNIMPLEMENTED (12) \
         (register grpc.health.v1.Health in its server; type = \"tcp\" sees only whether the port is open)"
    );
}

fn trusting() -> TlsPolicy {
    let roots = vec![Certificate(Arc::from(&CERTIFICATES.ca.der()[..]))];
    TlsPolicy { verify: true, server_name: None, roots: Some(roots), client: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_results_are_the_same_and_alpn_must_select_h2() {
    let (server, reporter) = healthy_server();
    let front = TlsOrigin::with(&CERTIFICATES.good).alpn(&["h2"]).before_address(&server.address).start();
    let serving = grpc(&front.address(), of(""), Some(trusting()), LONG).await;
    assert_eq!(serving.code, Code::L7Ok, "{}", serving.sentence());
    assert_eq!(serving.trace.tls.as_ref().and_then(|tls| tls.alpn.as_deref()), Some("h2"));
    assert!(serving.trace.tls.unwrap().verified);
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let not = grpc(&front.address(), of(""), Some(trusting()), LONG).await.sentence();
    assert!(not.starts_with("NOT_SERVING, expected SERVING"), "{not}");
    let old = TlsOrigin::with(&CERTIFICATES.good).before_address(&server.address).start();
    let unsettled = grpc(&old.address(), of(""), Some(trusting()), LONG).await;
    let words = "TLS did not negotiate h2 (it does not offer HTTP/2 on this port, which gRPC needs)";
    assert_eq!((unsettled.code, unsettled.sentence().as_str()), (Code::L6Rsp, words));
    let expired = TlsOrigin::with(&CERTIFICATES.expired).alpn(&["h2"]).before_address(&server.address).start();
    let expired = grpc(&expired.address(), of(""), Some(trusting()), LONG).await;
    assert_eq!(expired.code, Code::L6Rsp);
    assert!(expired.reason.starts_with("certificate expired at "), "{}", expired.reason);
    // TLS to a plain port, and plain to a TLS port.
    let plain = grpc(&server.address, of(""), Some(trusting()), LONG).await;
    assert_eq!(plain.code, Code::L6Rsp, "{}", plain.sentence());
    let tls = grpc(&front.address(), of(""), None, LONG).await;
    assert_eq!(tls.code, Code::L7Rsp, "{}", tls.sentence());
    assert!(tls.sentence().contains("TLS"), "{}", tls.sentence());
}

const GRPC: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];
const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_connections_and_protocol_violations_are_distinguished() {
    let done: &[(&str, &str)] = &[("grpc-status", "0")];
    let page: &[(&str, &str)] = &[(":status", "404"), ("content-type", "text/html")];
    let huge = "x".repeat(8_000);
    let long = [&b"\0\x00\x01\x00\x00"[..], &[0; 16_000]].concat();
    for (name, origin, code, says) in [
        (
            "SERVING in pieces",
            frames([head(GRPC, 0), data(&SERVING[..3], 0), data(&SERVING[3..], 0), head(done, END_STREAM)]),
            Code::L7Ok,
            "SERVING in ",
        ),
        (
            "no trailers",
            frames([head(GRPC, 0), data(SERVING, END_STREAM)]),
            Code::L7Rsp,
            "the answer ended without a grpc-status (a proxy in front of it may drop trailers)",
        ),
        (
            "trailers only",
            frames([head(
                &[GRPC, &[("grpc-status", "16"), ("grpc-message", "who%20are you%3F")]].concat(),
                END_STREAM,
            )]),
            Code::L7Sts,
            "grpc-status UNAUTHENTICATED (16), expected OK; message: \"who are you?\" (needs credentials)",
        ),
        (
            "a huge message of an error",
            frames([head(&[GRPC, &[("grpc-status", "2"), ("grpc-message", &huge)]].concat(), END_STREAM)]),
            Code::L7Sts,
            "xxx…\" (see its log)",
        ),
        (
            "an answer over the limit",
            after_request([Act::Write([head(GRPC, 0), data(&long, 0)].concat()), Act::Hang]),
            Code::L7Rsp,
            "a message of 65536 bytes, of which at most 4 KiB are read",
        ),
        (
            "endless messages",
            after_request([Act::Write(head(GRPC, 0)), Act::Endless(data(SERVING, 0))]),
            Code::L7Rsp,
            "more than one message",
        ),
        (
            "no gRPC",
            frames([head(page, 0), data(b"<h1>nope", END_STREAM)]),
            Code::L7Sts,
            "status 404, expected 200; body: \"<h1>nope\" (this port speaks HTTP/2 but not gRPC, or a proxy there does not forward gRPC)",
        ),
        (
            "GOAWAY",
            frames([goaway(0, 11, "too_many_pings")]),
            Code::L7Rsp,
            "GOAWAY instead of an answer: ENHANCE_YOUR_CALM, \"too_many_pings\" (it limits how often",
        ),
        (
            "RST_STREAM after the message",
            frames([head(GRPC, 0), data(SERVING, 0), reset(8)]),
            Code::L7Rsp,
            "stream reset inside the answer: CANCEL",
        ),
        ("a close", after_request([Act::Close]), Code::L7Rsp, "connection closed without an answer (this port may"),
        (
            "a close inside",
            after_request([Act::Write(head(GRPC, 0)), Act::Close]),
            Code::L7Rsp,
            "connection closed inside the answer",
        ),
        (
            "HTTP/1",
            Origin::new().on_accept(Reply::raw("HTTP/1.1 400 Bad Request\r\n\r\n")).start_blocking(),
            Code::L7Rsp,
            "not HTTP/2: \"HTTP/1.1 400 Bad Request\\r\\n\\r\\n\" (it answers in HTTP/1, and gRPC needs HTTP/2)",
        ),
    ] {
        let report = check(&origin.address(), "").await;
        let sentence = report.sentence();
        assert_eq!(report.code, code, "{name}: {sentence}");
        assert!(sentence.contains(says), "{name}: {sentence}");
        assert!(sentence.len() < 2_048, "{name}: {} bytes", sentence.len());
        assert!(origin.bytes_written() < 32 << 20, "{name}: {} bytes were taken", origin.bytes_written());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_grpc_response_fails_at_the_deadline() {
    let tick = Duration::from_millis(20);
    let hole = BlackHole::start();
    let silent = after_request([Act::Hang]);
    let headless = frames([head(GRPC, 0)]);
    let endless = frames([head(GRPC, 0), data(SERVING, 0)]);
    let dripping = after_request([Act::Write(head(GRPC, 0)), Act::Drip(data(SERVING, 0).repeat(9), tick), Act::Hang]);
    for (address, code, says) in [
        (hole.address(), Code::L4Tout, "no connection within 300ms"),
        (silent.address(), Code::L7Tout, "no answer within 300ms (connected in "),
        (headless.address(), Code::L7Tout, "no message within 300ms (connected in "),
        (endless.address(), Code::L7Tout, "no grpc-status within 300ms: only its message was received (connected in "),
        (dripping.address(), Code::L7Tout, " within 300ms"),
    ] {
        let started = Instant::now();
        let report = grpc(&address, of(""), None, SHORT).await;
        let took = started.elapsed();
        assert_eq!(report.code, code, "{}", report.sentence());
        assert!(report.sentence().contains(says), "{}", report.sentence());
        assert!(took >= SHORT && took < SHORT + SLACK, "{took:?}: {}", report.sentence());
    }
    let refused = check(&refusing_address(), "").await;
    assert_eq!(refused.sentence(), "connection refused (nothing listens there)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_of_a_call_is_kept_without_credentials() {
    let trailers: &[(&str, &str)] = &[("grpc-status", "7"), ("grpc-message", "not with s3cret")];
    let origin = frames([head(GRPC, 0), head(trailers, END_STREAM)]);
    let headers = vec![("authorization".into(), HeaderText::Secret(Secret::new("Bearer s3cret")))];
    let report = grpc(&origin.address(), GrpcProbe { headers, ..of("") }, None, LONG).await;
    assert!(report.sentence().contains("PERMISSION_DENIED (7), expected OK; message: \"not with ***\""));
    let head = "HTTP/2 200\r\ncontent-type: application/grpc\r\ngrpc-status: 7\r\ngrpc-message: not with ***\r\n";
    assert_eq!(String::from_utf8_lossy(&report.trace.head), head);
    assert!(!format!("{report:?}").contains("s3cret"), "{report:?}");
    assert!(report.trace.answered_in.unwrap() >= report.trace.connected_in.unwrap());
}
