//! `type = "http"`: one HTTP/1.1 request on a new connection. Builds the request, transfers the bytes and enforces the
//! deadline; `answer` decides what they mean.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{Answer, Progress, Stop};
use super::connect::{Fault, Peer, Steps, Stream};
use super::finding::Finding;
use crate::VERSION;
use crate::model::Address;
use crate::model::policy::HttpProbe;
use crate::tls;

/// Bytes read from the socket at a time: answers of health endpoints fit.
const READ_BYTES: usize = 4 << 10;
/// How long a failed probe waits for the text that it quotes, within its deadline.
const QUOTE_PATIENCE: Duration = Duration::from_millis(100);

/// The default for Host: `name`, which the address was resolved from, with the port unless it is the scheme's default; else
/// the address dialled; `localhost` for a unix socket.
pub(super) fn authority(name: Option<&str>, target: &Address, tls: bool) -> String {
    let default_port = if tls { 443 } else { 80 };
    match (name, target) {
        (Some(name), Address::Inet(a)) if a.port() == default_port => name.to_owned(),
        (Some(name), Address::Inet(a)) => format!("{name}:{}", a.port()),
        (Some(name), Address::Unix(_)) => name.to_owned(),
        // Without the zone of a link-local address, which means nothing to the peer (RFC 6874, section 1).
        (None, Address::Inet(std::net::SocketAddr::V6(a))) => format!("[{}]:{}", a.ip(), a.port()),
        (None, Address::Inet(a)) => a.to_string(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
        (_, Address::Name { .. }) => target.to_string(),
    }
}

/// The bytes of the request; `authority` is the default for Host. A configured field replaces the default one, except the
/// length of a configured body.
pub(super) fn request(probe: &HttpProbe, authority: &str) -> Box<[u8]> {
    let host = probe.host.as_deref().unwrap_or(authority);
    let agent = format!("roundsman-probe/{VERSION}");
    let mut text = format!("{} {} HTTP/1.1\r\n", probe.method, probe.path);
    let mut field = |name: &str, value: &str| {
        for part in [name, ": ", value, "\r\n"] {
            text.push_str(part);
        }
    };
    let configured = |name: &str| probe.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    for (name, value) in [("Host", host), ("User-Agent", &agent), ("Accept", "*/*"), ("Connection", "close")] {
        if !configured(name) || (name == "Host" && probe.host.is_some()) {
            field(name, value);
        }
    }
    // Methods with a body declare an empty one (RFC 9110, section 8.6).
    let wants_length = matches!(&*probe.method, "POST" | "PUT" | "PATCH") && !configured("Content-Length");
    if probe.body.is_some() || wants_length {
        field("Content-Length", &probe.body.as_ref().map_or(0, |body| body.len()).to_string());
    }
    for (name, value) in &probe.headers {
        let replaced = |ours: &str, is_ours: bool| is_ours && name.eq_ignore_ascii_case(ours);
        if !replaced("Host", probe.host.is_some()) && !replaced("Content-Length", probe.body.is_some()) {
            field(name, value.expose());
        }
    }
    text.push_str("\r\n");
    text.push_str(probe.body.as_deref().unwrap_or_default());
    text.into_bytes().into_boxed_slice()
}

/// One HTTP probe, finished by `deadline`.
pub(super) async fn run<'p>(
    peer: &Peer,
    probe: &'p HttpProbe,
    request: &[u8],
    deadline: Instant,
    steps: &mut Steps,
) -> Finding<'p> {
    let mut answer = Answer::new(probe);
    let ended = {
        // Pinned here: moving it into the timeout would copy it.
        let talk = pin!(async {
            let mut stream = peer.open(steps).await?;
            let stop = exchange(&mut stream, request, &mut answer, steps).await;
            stream.close();
            Ok(stop)
        });
        timeout_at(deadline, talk).await
    };
    match ended {
        Ok(Err(finding)) => finding,
        Ok(Ok(stop)) => answer.finish(stop),
        Err(_elapsed) => steps.timeout().unwrap_or_else(|| answer.finish(Stop::Deadline)),
    }
}

/// Sends the request and reads as much of the answer as is needed.
async fn exchange(stream: &mut Stream, request: &[u8], answer: &mut Answer<'_>, steps: &mut Steps) -> Stop {
    // A peer may answer and close before it has read the request: its answer matters, not the failed write.
    let sent = send(stream, request).await;
    match receive(stream, answer, steps).await {
        Stop::Closed => sent.err().map_or(Stop::Closed, |error| stop_of(&error)),
        stop => stop,
    }
}

/// Sends all of `bytes`, and flushes: TLS buffers some.
pub(super) async fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Why an answer ends when reading or writing fails.
pub(super) fn stop_of(error: &io::Error) -> Stop {
    tls::alert(error).map_or_else(|| Stop::Broke(Fault::from(error)), Stop::Refused)
}

/// Reads as much of the answer as is needed.
pub(super) async fn receive(stream: &mut Stream, answer: &mut Answer<'_>, steps: &mut Steps) -> Stop {
    loop {
        match read(stream, answer, steps).await {
            Ok(Some(Progress::More)) => {}
            Ok(Some(Progress::Settled)) => break,
            Ok(Some(Progress::Done)) => return Stop::Enough,
            Ok(None) => return Stop::Closed,
            Err(error) => return stop_of(&error),
        }
    }
    let rest = async { while let Ok(Some(Progress::More | Progress::Settled)) = read(stream, answer, steps).await {} };
    // The finding is certain: errors no longer matter. Boxed, so that the many probes that pass are small.
    let _ = Box::pin(timeout(QUOTE_PATIENCE, rest)).await;
    Stop::Enough
}

/// Feeds the answer with the available bytes; `None` at the end of the stream. The buffer exists only while there are
/// bytes, so that ten thousand waiting probes have none.
async fn read(stream: &mut Stream, answer: &mut Answer<'_>, steps: &mut Steps) -> io::Result<Option<Progress>> {
    poll_fn(|cx| {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(match buffer.filled() {
            [] => {
                steps.ended();
                None
            }
            bytes => {
                steps.answered();
                Some(answer.feed(bytes))
            }
        }))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use crate::model::policy::{Expect, HeaderText};

    fn get(path: &str) -> HttpProbe {
        HttpProbe::get(path, Expect::default())
    }

    fn sent(probe: &HttpProbe, target: &str) -> String {
        let authority = authority(None, &target.parse().unwrap(), false);
        String::from_utf8(request(probe, &authority).into_vec()).unwrap()
    }

    #[test]
    fn a_request_has_a_user_agent_and_closes() {
        let expected = format!(
            "GET /healthz?full=1 HTTP/1.1\r\nHost: 127.0.0.1:81\r\nUser-Agent: roundsman-probe/{VERSION}\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(sent(&get("/healthz?full=1"), "127.0.0.1:81"), expected);
    }

    #[test]
    fn the_host_is_the_address_dialled_unless_one_is_configured() {
        for (target, host) in [("[::1]:81", "[::1]:81"), ("[fe80::1%3]:81", "[fe80::1]:81"), ("unix:/a", "localhost")] {
            assert!(sent(&get("/"), target).contains(&format!("\r\nHost: {host}\r\n")), "{target}");
        }
        let configured = HttpProbe { host: Some("api.internal".into()), ..get("/") };
        assert!(sent(&configured, "127.0.0.1:81").contains("\r\nHost: api.internal\r\n"));
    }

    #[test]
    fn a_name_replaces_the_address_with_its_port_unless_it_is_the_default() {
        for (target, tls, host) in [
            ("127.0.0.1:7100", false, "api.internal:7100"),
            ("127.0.0.1:80", false, "api.internal"),
            ("127.0.0.1:443", false, "api.internal:443"),
            ("[::1]:443", true, "api.internal"),
            ("[::1]:80", true, "api.internal:80"),
            ("unix:/a", true, "api.internal"),
        ] {
            assert_eq!(authority(Some("api.internal"), &target.parse().unwrap(), tls), host, "{target}");
        }
    }

    #[test]
    fn a_body_is_sent_with_its_length_for_every_method() {
        for (method, body, sent_length) in
            [("POST", Some("{\"a\":1}"), "7"), ("GET", Some("ü"), "2"), ("PUT", Some(""), "0"), ("PUT", None, "0")]
        {
            let headers = match body {
                Some(_) => vec![("content-length".into(), HeaderText::Plain("99".into()))],
                None => Vec::new(),
            };
            let probe = HttpProbe { method: method.into(), body: body.map(Into::into), headers, ..get("/") };
            let text = sent(&probe, "127.0.0.1:81");
            let (head, content) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(head.to_ascii_lowercase().matches("content-length:").count(), 1, "{text}");
            assert!(head.contains(&format!("Content-Length: {sent_length}")), "{text}");
            assert_eq!(content, body.unwrap_or_default());
        }
        for method in ["GET", "HEAD", "OPTIONS"] {
            let text = sent(&HttpProbe { method: method.into(), ..get("/") }, "127.0.0.1:81");
            assert!(!text.contains("Content-Length") && text.starts_with(method), "{text}");
        }
    }

    #[test]
    fn a_configured_field_replaces_ours() {
        let headers = vec![
            ("accept".into(), HeaderText::Plain("text/plain".into())),
            ("Host".into(), HeaderText::Plain("by.header".into())),
            ("Authorization".into(), HeaderText::Secret(Secret::new("Bearer s3cret"))),
        ];
        let text = sent(&HttpProbe { headers, method: "POST".into(), ..get("/") }, "127.0.0.1:81");
        assert_eq!(text.to_ascii_lowercase().matches("accept:").count(), 1);
        assert_eq!(text.to_ascii_lowercase().matches("host:").count(), 1);
        assert!(text.contains("\r\nContent-Length: 0\r\n") && text.contains("\r\nAuthorization: Bearer s3cret\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
    }
}
