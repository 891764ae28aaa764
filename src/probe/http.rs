//! `type = "http"`: one HTTP/1.1 request on a connection of its own. Builds the request, moves the bytes, keeps the
//! deadline; what they mean is decided by `answer`.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{Answer, Progress, Stop};
use super::connect::{Fault, Socket, dial};
use super::finding::Finding;
use crate::VERSION;
use crate::model::Address;
use crate::model::policy::HttpProbe;

/// Bytes taken from the socket at a time: the answers of health endpoints fit.
const READ_BYTES: usize = 4 << 10;
/// How long a failed probe waits for what it will quote, within its deadline.
const QUOTE_PATIENCE: Duration = Duration::from_millis(100);

/// The bytes of the request. A configured field replaces the one that is sent otherwise.
pub(super) fn request(probe: &HttpProbe, target: &Address) -> Box<[u8]> {
    let host = match (&probe.host, target) {
        (Some(host), _) => host.to_string(),
        // Without the zone of a link-local address, which means nothing to the peer (RFC 6874, section 1).
        (None, Address::Inet(std::net::SocketAddr::V6(a))) => format!("[{}]:{}", a.ip(), a.port()),
        (None, Address::Inet(a)) => a.to_string(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
    };
    let agent = format!("roundsman-probe/{VERSION}");
    let mut text = format!("{} {} HTTP/1.1\r\n", probe.method, probe.path);
    let mut field = |name: &str, value: &str| {
        for part in [name, ": ", value, "\r\n"] {
            text.push_str(part);
        }
    };
    let configured = |name: &str| probe.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    for (name, value) in [("Host", &*host), ("User-Agent", &agent), ("Accept", "*/*"), ("Connection", "close")] {
        if !configured(name) || (name == "Host" && probe.host.is_some()) {
            field(name, value);
        }
    }
    // Methods that carry a body say that there is none (RFC 9110, section 8.6).
    if matches!(&*probe.method, "POST" | "PUT" | "PATCH") && !configured("Content-Length") {
        field("Content-Length", "0");
    }
    for (name, value) in &probe.headers {
        if !(probe.host.is_some() && name.eq_ignore_ascii_case("Host")) {
            field(name, value.expose());
        }
    }
    text.push_str("\r\n");
    text.into_bytes().into_boxed_slice()
}

/// One HTTP probe, over by `deadline`. Sets `connected` when it is.
pub(super) async fn run<'p>(
    target: &Address,
    probe: &'p HttpProbe,
    request: &[u8],
    deadline: Instant,
    connected: &mut Option<Instant>,
) -> Finding<'p> {
    let mut answer = Answer::new(probe);
    let talk = async {
        let socket = dial(target).await?;
        *connected = Some(Instant::now());
        Ok(match socket {
            Socket::Tcp(mut stream) => exchange(&mut stream, request, &mut answer).await,
            Socket::Unix(mut stream) => exchange(&mut stream, request, &mut answer).await,
        })
    };
    let ended = timeout_at(deadline, talk).await;
    match ended {
        Ok(Err(fault)) => Finding::NotConnected(fault),
        Ok(Ok(stop)) => answer.finish(stop),
        Err(_elapsed) if connected.is_none() => Finding::ConnectTimeout,
        Err(_elapsed) => answer.finish(Stop::Deadline),
    }
}

/// Sends the request and reads as much of the answer as is needed.
async fn exchange<S>(stream: &mut S, request: &[u8], answer: &mut Answer<'_>) -> Stop
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A peer may answer and close before it has read the request: what it said counts, not the failed write.
    let sent = stream.write_all(request).await;
    match receive(stream, answer).await {
        Stop::Closed => sent.err().map_or(Stop::Closed, |error| Stop::Broke(Fault::from(&error))),
        stop => stop,
    }
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S, answer: &mut Answer<'_>) -> Stop {
    loop {
        match read(stream, answer).await {
            Ok(Some(Progress::More)) => {}
            Ok(Some(Progress::Settled)) => break,
            Ok(Some(Progress::Done)) => return Stop::Enough,
            Ok(None) => return Stop::Closed,
            Err(error) => return Stop::Broke(Fault::from(&error)),
        }
    }
    let rest = async { while let Ok(Some(Progress::More | Progress::Settled)) = read(stream, answer).await {} };
    // Nothing that happens now changes the finding.
    let _ = timeout(QUOTE_PATIENCE, rest).await;
    Stop::Enough
}

/// Feeds the answer with what the socket holds; `None` at the end of the stream. The buffer lives on the stack only
/// while bytes are there, so that ten thousand probes that wait hold none.
async fn read<S: AsyncRead + Unpin>(stream: &mut S, answer: &mut Answer<'_>) -> io::Result<Option<Progress>> {
    poll_fn(|cx| {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(match buffer.filled() {
            [] => None,
            bytes => Some(answer.feed(bytes)),
        }))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use crate::model::policy::{Expect, HeaderText, HttpVersion};

    fn get(path: &str) -> HttpProbe {
        HttpProbe {
            version: HttpVersion::Http1,
            path: path.into(),
            method: "GET".into(),
            host: None,
            headers: Vec::new(),
            body: None,
            expect: Expect::default(),
        }
    }

    fn sent(probe: &HttpProbe, target: &str) -> String {
        String::from_utf8(request(probe, &target.parse().unwrap()).into_vec()).unwrap()
    }

    #[test]
    fn a_request_says_who_asks_and_closes() {
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
