//! `type = "websocket"` (RFC 6455): the opening handshake as an HTTP request, a ping, the wait for its pong, and the close.
//! An answer other than 101 is checked like that of any HTTP probe; [`check_switch`] checks the 101, `frames` reads what
//! follows.

mod frames;

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{Answer, Progress, Stop};
use super::connect::{Fault, Peer, Steps, Stream};
use super::finding::{Answered, Cutoff, Finding, Flaw, Outcome};
use super::http::{self, send, stop_of};
use super::tls::close;
use crate::http1::fields::list;
use crate::http1::framing::switches_to;
use crate::http1::limits::INTERIM_ANSWERS;
use crate::http1::{self, ResponseHead, ResponseReader};
use crate::model::Trace;
use crate::model::policy::secrets;
use crate::model::policy::{Expect, HeaderText, HttpProbe, StatusRule, WebsocketProbe};
use crate::model::quote::Excerpt;
use frames::{Event, Inbox};

/// Bytes taken from the socket at a time.
const READ_BYTES: usize = 4 << 10;
/// How long a failed probe waits for the text that it quotes, and a passed one for the peer's close; both within the
/// deadline.
const PATIENCE: Duration = Duration::from_millis(100);
/// Appended to the key (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A prepared probe: its handshake as an HTTP request, without the key.
pub(super) struct Upgrade {
    request: HttpProbe,
    bytes: Box<[u8]>,
}

impl Upgrade {
    /// `authority` is the default for Host.
    pub(super) fn new(probe: &WebsocketProbe, authority: &str) -> Upgrade {
        let plain = |name: &str, value: &str| (name.into(), HeaderText::Plain(value.into()));
        let mut headers =
            vec![plain("Connection", "Upgrade"), plain("Upgrade", "websocket"), plain("Sec-WebSocket-Version", "13")];
        headers.extend(probe.subprotocol.iter().map(|name| plain("Sec-WebSocket-Protocol", name)));
        let ours = |name: &str| {
            ["connection", "upgrade"].iter().any(|ours| name.eq_ignore_ascii_case(ours))
                || name.get(..14).is_some_and(|start| start.eq_ignore_ascii_case("sec-websocket-"))
        };
        headers.extend(probe.headers.iter().filter(|(name, _)| !ours(name)).cloned());
        let expect = Expect { status: StatusRule::In(vec![(101, 101)]), ..Expect::default() };
        let request = HttpProbe { host: probe.host.clone(), headers, ..HttpProbe::get(&probe.path, expect) };
        let bytes = http::request(&request, authority);
        Upgrade { request, bytes }
    }

    /// The request with this key.
    fn with_key(&self, key: &str) -> Vec<u8> {
        let fields = self.bytes.strip_suffix(b"\r\n").expect("a head ends with an empty line");
        [fields, b"Sec-WebSocket-Key: ", key.as_bytes(), b"\r\n\r\n"].concat()
    }
}

/// The progress of a probe after the connection is open.
enum Stage<'p> {
    Upgrading(Answer<'p>),
    Waiting(Inbox),
    Done(Finding<'p>),
}

/// One WebSocket probe, finished by `deadline`.
pub(super) async fn run<'p>(
    peer: &Peer,
    probe: &'p WebsocketProbe,
    upgrade: &'p Upgrade,
    deadline: Instant,
    steps: &mut Steps,
) -> Finding<'p> {
    let mut stage = Stage::Upgrading(Answer::new(&upgrade.request));
    let talk = async {
        match peer.open(steps).await {
            Ok(mut stream) => converse(&mut stream, probe, upgrade, &mut stage, steps).await,
            Err(finding) => stage = Stage::Done(finding),
        }
    };
    let ended = timeout_at(deadline, talk).await;
    match (stage, ended) {
        (Stage::Done(finding), _) => finding,
        (Stage::Upgrading(answer), _) => steps.timeout().unwrap_or_else(|| answer.finish(Stop::Deadline)),
        (Stage::Waiting(inbox), _) => no_pong(&inbox, Stop::Deadline),
    }
}

async fn converse<'p>(
    stream: &mut Stream,
    probe: &'p WebsocketProbe,
    upgrade: &'p Upgrade,
    stage: &mut Stage<'p>,
    steps: &mut Steps,
) {
    let key = BASE64_STANDARD.encode(fastrand::u128(..).to_be_bytes());
    let mut received = Vec::new();
    let Stage::Upgrading(answer) = stage else { unreachable!("a probe begins with its upgrade") };
    let stop = handshake(stream, &upgrade.with_key(&key), answer, &mut received, steps).await;
    let Stage::Upgrading(answer) = std::mem::replace(stage, Stage::Waiting(Inbox::default())) else {
        unreachable!("the stage has not changed")
    };
    let rest = match answer.finish(stop) {
        // For the HTTP check a 101 is always unexpected.
        Finding::Answer(Answered { outcome: Outcome::Malformed { error: http1::Fault::Switch, .. }, .. }) => {
            check_switch(&received, probe, &key, steps).map_err(Finding::Websocket)
        }
        finding => Err(finding),
    };
    let ping = fastrand::u64(..).to_be_bytes();
    let pong = match rest {
        Ok(rest) => exchange_pings(stream, &ping, rest, stage).await,
        Err(finding) => Err(finding),
    };
    *stage = Stage::Done(pong.err().unwrap_or(Finding::Pong));
    if matches!(stage, Stage::Done(Finding::Pong)) {
        steps.answered();
        // The finding is certain: errors no longer matter.
        let _ = timeout(PATIENCE, send_close(stream)).await;
    }
}

/// Sends the request and reads the answer, which is kept in `received` while it may be a 101.
async fn handshake(
    stream: &mut Stream,
    request: &[u8],
    answer: &mut Answer<'_>,
    received: &mut Vec<u8>,
    steps: &mut Steps,
) -> Stop {
    // The answer of the peer matters, not the failed write.
    let sent = send(stream, request).await;
    loop {
        let before = received.len();
        match read(stream, received, steps).await {
            Ok(0) => return sent.err().map_or(Stop::Closed, |error| stop_of(&error)),
            Ok(_) => {}
            Err(error) => return stop_of(&error),
        }
        match answer.feed(&received[before..]) {
            Progress::Done => return Stop::Enough,
            // `answer` limits the size and the number of heads.
            Progress::More => {}
            Progress::Settled => {
                let _ = timeout(PATIENCE, http::receive(stream, answer, steps)).await;
                return Stop::Enough;
            }
        }
    }
}

async fn read(stream: &mut Stream, into: &mut Vec<u8>, steps: &mut Steps) -> std::io::Result<usize> {
    into.reserve(READ_BYTES);
    let bytes = stream.take(READ_BYTES as u64).read_buf(into).await?;
    if bytes > 0 {
        steps.answered();
    }
    Ok(bytes)
}

/// Checks the 101 in `received` (RFC 6455, section 4.1) and returns the bytes after it.
fn check_switch<'h, 'p>(
    received: &'h [u8],
    probe: &'p WebsocketProbe,
    key: &str,
    steps: &mut Steps,
) -> Result<&'h [u8], Flaw<'p>> {
    let mut rest = received;
    for _ in 0..=INTERIM_ANSWERS {
        let mut reader = ResponseReader::default();
        let Ok(Some(head)) = reader.read(rest) else { break };
        let (bytes, after) = rest.split_at(head.len);
        if head.status == 101 {
            let shown = masked(bytes, probe);
            steps.trace.head = shown.bytes()[..shown.bytes().len().min(Trace::HEAD_BYTES_MAX)].into();
            check_fields(&head, probe, key)?;
            return Ok(after);
        }
        rest = after;
    }
    Err(Flaw::Unreadable)
}

fn check_fields<'p>(head: &ResponseHead<'_>, probe: &'p WebsocketProbe, key: &str) -> Result<(), Flaw<'p>> {
    let all = |name: &'static str| {
        head.fields().filter(move |f| f.name.eq_ignore_ascii_case(name.as_bytes())).map(|f| f.value)
    };
    let lists = |name: &'static str, token: &str| {
        all(name).flat_map(list).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
    };
    if !lists("upgrade", "websocket") {
        return Err(Flaw::Missing("Upgrade: websocket"));
    }
    if !switches_to(b"websocket", head.fields()) {
        return Err(Flaw::Upgrade);
    }
    if !lists("connection", "upgrade") {
        return Err(Flaw::Missing("Connection: Upgrade"));
    }
    let mut accepts = all("sec-websocket-accept");
    match (accepts.next(), accepts.next()) {
        (Some(value), None) if value == accept_of(key).as_bytes() => {}
        (Some(value), _) => return Err(Flaw::Accept(masked(value, probe))),
        (None, _) => return Err(Flaw::Missing("Sec-WebSocket-Accept")),
    }
    let agreed = all("sec-websocket-protocol").next();
    if agreed != probe.subprotocol.as_deref().map(str::as_bytes) {
        let agreed = agreed.map(|value| masked(value, probe));
        return Err(Flaw::Subprotocol { asked: probe.subprotocol.as_deref(), agreed });
    }
    match all("sec-websocket-extensions").find(|value| !value.is_empty()) {
        Some(value) => Err(Flaw::Extension(masked(value, probe))),
        None => Ok(()),
    }
}

/// The Sec-WebSocket-Accept for a key (RFC 6455, section 4.2.2).
fn accept_of(key: &str) -> String {
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

/// `bytes` with our credentials masked.
fn masked(bytes: &[u8], probe: &WebsocketProbe) -> Excerpt {
    let mut excerpt = Excerpt::default();
    excerpt.push(bytes);
    excerpt.without(secrets(&probe.headers))
}

/// Sends a ping and waits for the pong with `payload`; `rest` are the bytes received after the 101.
async fn exchange_pings<'p>(
    stream: &mut Stream,
    payload: &[u8],
    rest: &[u8],
    stage: &mut Stage<'p>,
) -> Result<(), Finding<'p>> {
    let Stage::Waiting(inbox) = stage else { unreachable!("the upgrade is done") };
    inbox.push(rest);
    let sent = send(stream, &frames::frame(frames::PING, payload, mask())).await;
    let mut piece = Vec::new();
    loop {
        match inbox.next() {
            Ok(Some(Event::Pong(said))) if said == payload => return Ok(()),
            Ok(Some(Event::Pong(_) | Event::Other)) => continue,
            Ok(Some(Event::Close { code, reason })) => {
                return Err(Finding::Websocket(Flaw::Closed { code, reason: excerpt(&reason) }));
            }
            Ok(None) => {}
            Err(what) => return Err(Finding::Websocket(Flaw::Frame(what))),
        }
        piece.clear();
        piece.reserve(READ_BYTES);
        match stream.take(READ_BYTES as u64).read_buf(&mut piece).await {
            Ok(0) => {
                let stop = sent.err().map_or(Stop::Closed, |error| stop_of(&error));
                return Err(no_pong(inbox, stop));
            }
            Ok(_) => inbox.push(&piece),
            Err(error) => return Err(no_pong(inbox, stop_of(&error))),
        }
    }
}

fn excerpt(bytes: &[u8]) -> Excerpt {
    let mut excerpt = Excerpt::default();
    excerpt.push(bytes);
    excerpt
}

fn no_pong(inbox: &Inbox, stop: Stop) -> Finding<'static> {
    match stop {
        Stop::Broke(Fault::Ours(errno)) => Finding::NoResources(errno),
        Stop::Refused(alert) => Finding::Refused(alert),
        stop => Finding::Websocket(Flaw::NoPong { cut: stop.cut().unwrap_or(Cutoff::Closed), others: inbox.pongs() }),
    }
}

/// Closes normally, with code 1000 (RFC 6455, section 7.4.1).
async fn send_close(stream: &mut Stream) -> std::io::Result<()> {
    send(stream, &frames::frame(frames::CLOSE, &1000_u16.to_be_bytes(), mask())).await?;
    close(stream).await
}

fn mask() -> [u8; 4] {
    fastrand::u32(..).to_be_bytes()
}

#[cfg(test)]
mod tests;
