//! `type = "grpc"`: one `grpc.health.v1.Health/Check` over HTTP/2. Builds the call; `h2` transfers it, `reply` interprets
//! the answer.

mod message;
mod reply;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request};
use tokio::time::Instant;

use super::answer::Stop;
use super::connect::{Fault, Peer, Steps};
use super::finding::{Cutoff, Finding, GrpcAnswer, Http2};
use super::h2::{End, open_and_exchange, put_headers, uri};
use super::response::Stage;
use crate::VERSION;
use crate::model::policy::GrpcProbe;
use crate::model::policy::secrets;
use crate::model::quote::Excerpt;
use reply::Reply;

/// The only method that a probe calls.
const PATH: &str = "/grpc.health.v1.Health/Check";
/// The flag and the length in front of a message.
const PREFIX_BYTES: usize = 5;

/// One health check, finished by `deadline`. `authority` is the default for Host.
pub(super) async fn run<'p>(
    peer: &Peer,
    probe: &'p GrpcProbe,
    authority: &str,
    deadline: Instant,
    steps: &mut Steps,
) -> Finding<'p> {
    let mut reply = Reply::new(probe);
    let asked = request(probe, authority, peer.tls.is_some());
    let (cut, trouble) = match open_and_exchange(peer, asked, content(probe), &mut reply, deadline, steps).await {
        End::NotOpen(finding) => return finding,
        End::Trouble(trouble) => (Cutoff::Closed, Some(trouble.without(secrets(&probe.headers)))),
        End::Stop(Stop::Enough | Stop::Closed) => (Cutoff::Closed, None),
        End::Stop(Stop::Deadline) => (Cutoff::Deadline, None),
        End::Stop(Stop::Broke(Fault::Theirs(errno))) => (Cutoff::Broke(errno), None),
        End::Stop(Stop::Broke(Fault::Ours(errno))) => return Finding::NoResources(errno),
        End::Stop(Stop::Refused(alert)) => return Finding::Refused(alert),
    };
    let called = reply.finish(cut, &mut steps.trace);
    match (trouble, &called.outcome) {
        (Some(trouble), GrpcAnswer::CutShort { .. }) => {
            let status = called.status;
            let stage = status.map_or(Stage::Head(0), |_| Stage::End);
            Finding::Http2(Http2 { trouble, stage, status, body: Excerpt::default(), grpc: true })
        }
        _ => Finding::Grpc(called),
    }
}

/// The head of the call. A configured field replaces the default one, except the two that gRPC requires.
///
/// # Errors
/// HTTP/2 cannot carry it; `config` accepts no such probe.
pub(super) fn request(probe: &GrpcProbe, host: &str, over_tls: bool) -> http::Result<Request<()>> {
    let host = probe.host.as_deref().unwrap_or(host);
    let mut request = Request::builder().method(Method::POST).uri(uri(PATH, host, over_tls)?).body(())?;
    let fields = request.headers_mut();
    put_headers(fields, &[("user-agent", &format!("roundsman-probe/{VERSION}"))], &probe.headers)?;
    put_headers(fields, &[("content-type", "application/grpc"), ("te", "trailers")], &[])?;
    Ok(request)
}

/// The message of the call, after its prefix.
pub(super) fn content(probe: &GrpcProbe) -> Bytes {
    let message = message::request(&probe.service);
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a name in a file is no longer than the file"));
    framed.put_slice(&message);
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use crate::model::policy::HeaderText;

    fn probe(service: &str) -> GrpcProbe {
        GrpcProbe { service: service.into(), host: None, headers: Vec::new() }
    }

    #[test]
    fn a_call_is_framed_and_says_that_it_is_grpc() {
        assert_eq!(&content(&probe(""))[..], [0, 0, 0, 0, 0]);
        assert_eq!(&content(&probe("a.B"))[..], b"\0\0\0\0\x05\x0a\x03a.B");
        assert_eq!(content(&probe(&"x".repeat(300))).len(), 5 + 3 + 300);
        let request = request(&probe(""), "127.0.0.1:81", false).unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "http://127.0.0.1:81/grpc.health.v1.Health/Check");
        let field = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!((field("content-type"), field("te")), ("application/grpc", "trailers"));
        assert_eq!(field("user-agent"), format!("roundsman-probe/{VERSION}"));
    }

    #[test]
    fn configured_metadata_is_sent_and_does_not_change_the_framing() {
        let headers = vec![
            ("Authorization".into(), HeaderText::Secret(Secret::new("Bearer s3cret"))),
            ("content-type".into(), HeaderText::Plain("text/plain".into())),
            ("TE".into(), HeaderText::Plain("gzip".into())),
        ];
        let probe = GrpcProbe { host: Some("api.internal".into()), headers, ..probe("") };
        let request = request(&probe, "127.0.0.1:81", true).unwrap();
        assert_eq!(request.uri(), "https://api.internal/grpc.health.v1.Health/Check");
        let all = |name: &str| request.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("content-type"), ["application/grpc"]);
        assert_eq!(all("te"), ["trailers"]);
        assert_eq!(all("authorization"), ["Bearer s3cret"]);
        assert!(all("authorization")[0].is_sensitive(), "no table of the peer may keep it");
    }
}
