//! `version = "h2"`: one HTTP/2 request on a new connection, by prior knowledge or after ALPN. Builds the request and drives
//! the connection inside the future of the probe, so that dropping it ends everything. A [`Receiver`], `answer` or
//! `grpc::reply`, decides what the answer means.
//!
//! The peer gets small limits: no push, 64 KiB of head, a window of 32 KiB. At most 16 KiB are read at a time, so that
//! frames never pile up, and 1 MiB in all.

mod opening;

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{Answer, Progress, Stop};
use super::connect::{Peer, Steps};
use super::finding::{Answered, Finding, Http2, Outcome, Trouble};
use crate::VERSION;
use crate::http1::Field;
use crate::http1::limits::RESPONSE_HEAD_BYTES;
use crate::model::policy::secrets;
use crate::model::policy::{HeaderText, HttpProbe};
use crate::model::quote::Excerpt;
use opening::Opening;

/// How long a failed probe waits for the text that it quotes, within its deadline.
const QUOTE_PATIENCE: Duration = Duration::from_millis(100);
/// How long a finished probe may take to close, within its deadline.
const CLOSE_PATIENCE: Duration = Duration::from_millis(50);
/// The window of the stream. The window of the connection has 64 KiB, the minimum of HTTP/2.
const WINDOW_BYTES: u32 = 32 << 10;

/// Receives an answer as it arrives.
pub(super) trait Receiver {
    /// A head, interim or final.
    fn on_head(&mut self, status: u16, fields: &HeaderMap) -> Progress;
    /// The next piece of the body; never empty.
    fn on_body(&mut self, piece: &[u8]) -> Progress;
    /// The answer is complete.
    fn on_end(&mut self, trailers: Option<&HeaderMap>);
}

impl Receiver for Answer<'_> {
    fn on_head(&mut self, status: u16, fields: &HeaderMap) -> Progress {
        let fields: SmallVec<[_; 16]> =
            fields.iter().map(|(name, value)| Field::new(name.as_str().as_bytes(), value.as_bytes())).collect();
        self.feed_head(status, &fields)
    }

    fn on_body(&mut self, piece: &[u8]) -> Progress {
        self.feed(piece)
    }

    fn on_end(&mut self, _trailers: Option<&HeaderMap>) {
        self.feed_end();
    }
}

/// How a request over HTTP/2 ended.
#[derive(Debug)]
pub(super) enum End {
    /// The connection was not opened.
    NotOpen(Finding<'static>),
    /// Reading stopped, with the answer complete or sufficient; never `Closed`: only the end of its stream ends an answer.
    Stop(Stop),
    /// An error of HTTP/2 itself.
    Trouble(Trouble),
}

/// One HTTP probe over HTTP/2, finished by `deadline`. `authority` is the default for Host.
pub(super) async fn run<'p>(
    peer: &Peer,
    probe: &'p HttpProbe,
    authority: &str,
    deadline: Instant,
    steps: &mut Steps,
) -> Finding<'p> {
    let mut answer = Answer::new(probe);
    let asked = request(probe, authority, peer.tls.is_some());
    let content = probe.body.as_ref().map_or_else(Bytes::new, |body| Bytes::copy_from_slice(body.as_bytes()));
    match open_and_exchange(peer, asked, content, &mut answer, deadline, steps).await {
        End::NotOpen(finding) => finding,
        End::Stop(stop) => answer.finish(stop),
        End::Trouble(trouble) => match answer.finish(Stop::Enough) {
            Finding::Answer(Answered { outcome: Outcome::CutShort { end, status, body: seen, .. }, head, body }) => {
                (steps.trace.head, steps.trace.body) = (head, body);
                let trouble = trouble.without(secrets(&probe.headers));
                Finding::Http2(Http2 { trouble, stage: end.stage, status, body: seen, grpc: false })
            }
            settled => settled,
        },
    }
}

/// Opens the connection, sends `request` with `content`, and passes the answer to `receiver`; finished by `deadline`.
pub(super) async fn open_and_exchange(
    peer: &Peer,
    request: http::Result<Request<()>>,
    content: Bytes,
    receiver: &mut impl Receiver,
    deadline: Instant,
    steps: &mut Steps,
) -> End {
    let request = match request {
        Ok(request) => request,
        Err(error) => return End::Trouble(Trouble::Unsendable(error.to_string().into_boxed_str())),
    };
    let talk = async {
        let stream = match peer.open(steps).await {
            Ok(stream) => stream,
            Err(finding) => return End::NotOpen(finding),
        };
        match &steps.trace.tls {
            Some(tls) if tls.alpn.as_deref() != Some("h2") => End::Trouble(Trouble::NotNegotiated),
            Some(_) | None => exchange(stream, request, content, receiver, steps).await,
        }
    };
    match timeout_at(deadline, talk).await {
        Ok(end) => end,
        Err(_elapsed) => steps.timeout().map_or(End::Stop(Stop::Deadline), End::NotOpen),
    }
}

/// The request of an HTTP probe. A configured field replaces the default one; fields of an HTTP/1 connection are not sent
/// (RFC 9113, section 8.2.2).
///
/// # Errors
/// HTTP/2 cannot carry it; `config` accepts no such probe.
pub(super) fn request(probe: &HttpProbe, host: &str, over_tls: bool) -> http::Result<Request<()>> {
    let given = probe.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = match (&probe.host, given) {
        (Some(host), _) => host,
        (None, Some((_, value))) => value.expose(),
        (None, None) => host,
    };
    let mut request = Request::builder()
        .method(Method::from_bytes(probe.method.as_bytes())?)
        .uri(uri(&probe.path, host, over_tls)?)
        .body(())?;
    let fields = request.headers_mut();
    put_headers(fields, &[("user-agent", &format!("roundsman-probe/{VERSION}")), ("accept", "*/*")], &probe.headers)?;
    let length = probe.body.as_ref().map_or(0, |body| body.len());
    // Methods with a body declare an empty one (RFC 9110, section 8.6).
    if length > 0 || matches!(&*probe.method, "POST" | "PUT" | "PATCH") {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(request)
}

/// `:scheme`, `:authority` and `:path`.
pub(super) fn uri(path: &str, host: &str, over_tls: bool) -> http::Result<Uri> {
    let scheme = if over_tls { "https" } else { "http" };
    Uri::builder().scheme(scheme).authority(host).path_and_query(&*written(path)).build()
}

/// `path` with the bytes that RFC 3986 forbids percent-encoded: the library rejects them otherwise.
fn written(path: &str) -> Cow<'_, str> {
    let bare = |b: &u8| (0x21..=0x7e).contains(b) && !b"\"<>`#".contains(b);
    if path.as_bytes().iter().all(bare) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len() + 8);
    for byte in path.bytes() {
        match bare(&byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Cow::Owned(out)
}

/// Fields of an HTTP/1 connection, of the framing, or with a pseudo-header.
const NOT_SENT: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "te",
    "expect",
    "content-length",
    "host",
];

/// Adds `ours`, with those in `configured` replaced. Secrets are marked sensitive, so that no header table keeps them
/// (RFC 7541, section 7.1.3).
pub(super) fn put_headers(
    fields: &mut HeaderMap,
    ours: &[(&'static str, &str)],
    configured: &[(std::sync::Arc<str>, HeaderText)],
) -> http::Result<()> {
    for (name, value) in ours {
        fields.insert(HeaderName::from_static(name), HeaderValue::from_str(value)?);
    }
    for (name, _) in configured {
        fields.remove(&**name);
    }
    for (name, text) in configured {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        if NOT_SENT.contains(&name.as_str()) {
            continue;
        }
        let mut value = HeaderValue::from_bytes(text.expose().as_bytes())?;
        value.set_sensitive(matches!(text, HeaderText::Secret(_)));
        fields.append(name, value);
    }
    Ok(())
}

/// Sends `request` with `content` on `stream`, passes the answer to `receiver` until it has enough, and closes with GOAWAY.
/// The caller sets the deadline. Cancel-safe: dropping the future closes the stream.
async fn exchange<S>(
    stream: S,
    request: Request<()>,
    content: Bytes,
    receiver: &mut impl Receiver,
    steps: &mut Steps,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut opening = Opening::new(stream);
    let talked = talk(&mut opening, request, content, receiver, steps).await;
    steps.received |= opening.has_received();
    match talked {
        Ok(()) => End::Stop(Stop::Enough),
        Err(_) if opening.is_foreign() => {
            // Nothing that happens now changes the finding.
            let _ = timeout(QUOTE_PATIENCE, opening.read_on()).await;
            End::Trouble(Trouble::NotHttp2(opening.into_seen()))
        }
        Err(_) if opening.is_flooded() => End::Trouble(Trouble::Flood),
        Err(Broken::Http2(error)) if !error.is_io() => End::Trouble(trouble(&error)),
        Err(Broken::Http2(_) | Broken::Closed) => End::Stop(opening.broke().unwrap_or(Stop::Enough)),
    }
}

/// Why a connection ended early.
enum Broken {
    /// The peer closed it.
    Closed,
    /// Another error; for errors of the socket see [`Opening::broke`].
    Http2(h2::Error),
}

impl From<h2::Error> for Broken {
    fn from(error: h2::Error) -> Broken {
        Broken::Http2(error)
    }
}

async fn talk<S>(
    opening: &mut Opening<S>,
    request: Request<()>,
    content: Bytes,
    receiver: &mut impl Receiver,
    steps: &mut Steps,
) -> Result<(), Broken>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (requests, connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(WINDOW_BYTES)
        .max_header_list_size(RESPONSE_HEAD_BYTES as u32)
        .handshake(opening)
        .await?;
    let mut connection = pin!(connection);
    drive(connection.as_mut(), converse(requests, request, content, receiver, steps)).await?;
    // The finding is certain: only GOAWAY and the close remain.
    let _ = timeout(CLOSE_PATIENCE, connection).await;
    Ok(())
}

/// Polls both until `conversation` ends, or the connection ends and cannot wake it any more.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    conversation: impl Future<Output = Result<(), h2::Error>>,
) -> Result<(), Broken>
where
    C: Future<Output = Result<(), h2::Error>>,
{
    let mut conversation = pin!(conversation);
    poll_fn(|cx| {
        let over = connection.as_mut().poll(cx);
        match (conversation.as_mut().poll(cx), over) {
            (Poll::Ready(ended), _) => Poll::Ready(ended.map_err(Broken::from)),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            (Poll::Pending, Poll::Ready(Ok(()))) => Poll::Ready(Err(Broken::Closed)),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
        }
    })
    .await
}

async fn converse(
    requests: SendRequest<Bytes>,
    request: Request<()>,
    content: Bytes,
    receiver: &mut impl Receiver,
    steps: &mut Steps,
) -> Result<(), h2::Error> {
    let mut requests = requests.ready().await?;
    let (mut response, mut sender) = requests.send_request(request, content.is_empty())?;
    if !content.is_empty() {
        // Buffered by the library, and sent as the window of the peer allows.
        sender.send_data(content, true)?;
    }
    while let Some(interim) = poll_fn(|cx| response.poll_informational(cx)).await {
        let interim = interim?;
        steps.answered();
        if receiver.on_head(interim.status().as_u16(), &HeaderMap::new()) == Progress::Done {
            return Ok(());
        }
    }
    let (head, mut body) = response.await?.into_parts();
    steps.answered();
    let progress = receiver.on_head(head.status.as_u16(), &head.headers);
    let progress = receive(&mut body, receiver, progress, Progress::More).await?;
    steps.answered();
    if progress == Progress::Settled {
        let rest = receive(&mut body, receiver, Progress::Settled, Progress::Settled);
        // Nothing that happens now changes the finding.
        let _ = timeout(QUOTE_PATIENCE, rest).await;
    }
    Ok(())
}

/// Passes on the body while the receiver returns `wanted`.
async fn receive(
    body: &mut RecvStream,
    receiver: &mut impl Receiver,
    mut progress: Progress,
    wanted: Progress,
) -> Result<Progress, h2::Error> {
    while progress == wanted {
        let Some(piece) = body.data().await else {
            let trailers = body.trailers().await?;
            receiver.on_end(trailers.as_ref());
            return Ok(Progress::Done);
        };
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        if !piece.is_empty() {
            progress = receiver.on_body(&piece);
        }
    }
    Ok(progress)
}

fn trouble(error: &h2::Error) -> Trouble {
    match error.reason() {
        Some(reason) if error.is_remote() && error.is_go_away() => {
            Trouble::GoAway { reason, words: words_of_goaway(error, reason) }
        }
        Some(reason) if error.is_remote() => Trouble::Reset(reason),
        Some(reason) if error.is_library() => Trouble::Broken(reason),
        Some(_) | None => Trouble::Unsendable(error.to_string().into_boxed_str()),
    }
}

/// The debug data of a GOAWAY (RFC 9113, section 6.8), such as `too_many_pings`. The library shows it only at the end of its
/// message, as a byte string literal.
fn words_of_goaway(error: &h2::Error, reason: h2::Reason) -> Excerpt {
    let mut words = Excerpt::default();
    let sentence = error.to_string();
    let literal = sentence.split_once(&format!("{reason} (b\"")).and_then(|(_, rest)| rest.strip_suffix("\")"));
    let mut rest = literal.unwrap_or_default().as_bytes();
    while let [first, after @ ..] = rest {
        let (octet, after) = match (first, after) {
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'0', after @ ..]) => (0, after),
            (b'\\', [b'x', high, low, after @ ..]) => (octet(*high, *low).unwrap_or_default(), after),
            (b'\\', [other, after @ ..]) => (*other, after),
            (other, after) => (*other, after),
        };
        words.push(&[octet]);
        rest = after;
    }
    words
}

/// The byte of two hexadecimal digits.
pub(super) fn octet(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    digit(high).zip(digit(low)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
}

/// A head as text, for `explain`: a line for the status and one for each field.
pub(super) fn write_head(out: &mut Excerpt, status: u16, fields: &HeaderMap) {
    out.push(format!("HTTP/2 {status}\r\n").as_bytes());
    write_fields(out, fields);
}

/// The lines of fields, as [`write_head`] writes them.
pub(super) fn write_fields(out: &mut Excerpt, fields: &HeaderMap) {
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.push(part);
        }
    }
}

#[cfg(test)]
mod tests;
