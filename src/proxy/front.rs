//! A client's connection between requests: reads each head within its deadline and cap, has it judged, writes our own
//! answers, and hands everything else to the lane that fits that request.
//!
//! Must never relay a body. What a request may do is `exchange`'s business; which bytes are whose is
//! [`super::guard`]'s.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Buf;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connect::Dialers;
use super::general::{General, HANDOFF, Handoff};
use super::guard::Guard;
use super::listen::ClientStream;
use super::tunnel;
use crate::exchange::head::Limits;
use crate::exchange::{
    Chunked, End, Entry, Exchange, Framing, HeadReader, Leftover, Method, Next, OwnAnswer, Refusal, Scheme, Version,
    judge, limits,
};
use crate::pool::{AnswerReason, FrontStats, ListenerId, Published};

/// Bytes read and thrown away after an answer that closes, so that the client reads it before it sees a reset.
const LINGER_BYTES: usize = 64 * 1024;
/// How long that may take.
const LINGER: Duration = Duration::from_secs(1);
/// How long a client may take to send the rest of a body that we answered without it.
const DRAIN: Duration = Duration::from_secs(5);
/// Bytes of following requests kept while one waits for a pool.
const AHEAD_MAX: usize = 64 * 1024;

/// What every connection needs.
pub struct Front {
    pub(super) published: Published,
    pub(super) stats: Arc<FrontStats>,
    pub(super) general: Arc<HttpProxy<General>>,
    pub(super) dialers: Arc<Dialers>,
    /// Pingora asks this once a request whether it is shutting down; drains are ours, so it never is.
    pub(super) never: watch::Receiver<bool>,
}

/// What came of listening for a head.
enum Heard {
    /// A request.
    Request(Box<Begun>),
    /// Bytes that are none.
    Refused(Refusal),
    /// The connection is to close without a word.
    Nothing,
}

/// A request that was judged and begun.
pub(super) struct Begun {
    pub(super) exchange: Exchange,
    pub(super) next: Next,
    pub(super) head: usize,
    pub(super) framing: Framing,
    pub(super) version: Version,
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    leftover: Leftover,
}

/// Serves one connection until it ends. `stop`: finish the request under way, take no further one.
pub async fn serve(front: Arc<Front>, stream: ClientStream, listener: ListenerId, mut stop: watch::Receiver<bool>) {
    let client = match &stream {
        ClientStream::Tcp(_, peer) => Some(peer.ip()),
        ClientStream::Unix(_) => None,
    };
    let mut guard = Box::new(Guard::new(stream));
    let mut settings = None;
    let mut first = true;
    loop {
        let heard = hear(&front, &mut guard, listener, client, first, &mut stop).await;
        first = false;
        let begun = match heard {
            Heard::Request(begun) => begun,
            Heard::Refused(refusal) => {
                front.stats.answers.inc(refusal.reason);
                let answer = refusal.answer();
                if write_answer(&mut guard, &answer, Version::Http11, false, false).await.is_ok() {
                    linger(&mut guard).await;
                }
                return;
            }
            Heard::Nothing => return,
        };
        match conduct(&front, guard, *begun, &mut settings, &stop).await {
            Some(same) => guard = same,
            None => return,
        }
    }
}

/// Waits for a head. The connection is ours: nothing else reads from it.
async fn hear(
    front: &Front,
    guard: &mut Guard,
    listener: ListenerId,
    client: Option<IpAddr>,
    first: bool,
    stop: &mut watch::Receiver<bool>,
) -> Heard {
    let mut reader = HeadReader::default();
    let mut started = !guard.read.is_empty();
    let patience = if first || started { limits::HEADER_TIMEOUT } else { limits::KEEP_ALIVE };
    let deadline = tokio::time::sleep(patience);
    tokio::pin!(deadline);
    loop {
        if started {
            match try_begin(front, guard, &mut reader, listener, client) {
                Ok(Some(begun)) => return Heard::Request(begun),
                Ok(None) => {}
                Err(refusal) => return Heard::Refused(refusal),
            }
        }
        tokio::select! {
            biased;
            read = guard.fill() => match read {
                Ok(0) | Err(_) => return Heard::Nothing,
                Ok(_) if started => {}
                Ok(_) => {
                    started = true;
                    if !first {
                        deadline.as_mut().reset(Instant::now() + limits::HEADER_TIMEOUT);
                    }
                }
            },
            () = &mut deadline => {
                if started {
                    return Heard::Refused(Refusal::new(AnswerReason::HeaderTimeout, "the head took too long"));
                }
                if first {
                    front.stats.silent.fetch_add(1, Ordering::Relaxed);
                }
                return Heard::Nothing;
            }
            () = stopped(stop), if !started => return Heard::Nothing,
        }
    }
}

/// Completes when the connection is to take no further request.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Judges the head at the front of the buffer and begins its exchange; `None` while it is not whole.
fn try_begin(
    front: &Front,
    guard: &mut Guard,
    reader: &mut HeadReader,
    listener: ListenerId,
    client: Option<IpAddr>,
) -> Result<Option<Box<Begun>>, Refusal> {
    let Some(head) = reader.read(&guard.read, &Limits::REQUEST)? else { return Ok(None) };
    let facts = judge(&head)?;
    let entry = Entry { listener, client, scheme: Scheme::Http, stats: &front.stats };
    let rng = fastrand::Rng::new();
    let (exchange, next) = Exchange::begin(&front.published, entry, &head, &facts, Instant::now(), rng);
    Ok(Some(Box::new(Begun {
        exchange,
        next,
        head: head.len,
        framing: facts.framing,
        version: facts.version,
        head_only: facts.method == Method::Head,
        keep_alive: facts.keep_alive,
        upgrade: facts.upgrade,
        leftover: facts.leftover(0),
    })))
}

/// Sees one request through. The connection comes back if it takes another.
async fn conduct(
    front: &Arc<Front>,
    mut guard: Box<Guard>,
    mut begun: Begun,
    settings: &mut Option<HttpPersistentSettings>,
    stop: &watch::Receiver<bool>,
) -> Option<Box<Guard>> {
    loop {
        begun.next = match std::mem::replace(&mut begun.next, Next::Abort) {
            Next::Attempt(_) if begun.upgrade => {
                tunnel::run(front, *guard, begun, stop.clone()).await;
                return None;
            }
            Next::Attempt(_) => return general(front, guard, begun, settings, stop).await,
            Next::Wait { until } => {
                if !wait(&mut guard, begun.head, &begun.exchange, until).await {
                    begun.exchange.on_end(End::ClientLeft, Instant::now());
                    return None;
                }
                begun.exchange.on_wake(Instant::now())
            }
            Next::Answer(answer) => {
                let rest = begun.rest();
                return answer_here(guard, begun.exchange, answer, rest, stop).await;
            }
            // Only after a response head, which is a lane's.
            Next::Forward(..) | Next::Abort => return None,
        };
    }
}

/// What of a request matters for an answer of our own.
struct Rest {
    head: usize,
    framing: Framing,
    version: Version,
    head_only: bool,
    keep_alive: bool,
    leftover: Leftover,
}

impl Begun {
    fn rest(&self) -> Rest {
        Rest {
            head: self.head,
            framing: self.framing,
            version: self.version,
            head_only: self.head_only,
            keep_alive: self.keep_alive,
            leftover: self.leftover,
        }
    }
}

/// Waits for the pool to change; false when the client left meanwhile.
async fn wait(guard: &mut Guard, head: usize, exchange: &Exchange, until: Instant) -> bool {
    let change = exchange.wait(until);
    tokio::pin!(change);
    loop {
        let full = guard.read.len() >= head + AHEAD_MAX;
        tokio::select! {
            biased;
            () = &mut change => return true,
            read = guard.fill(), if !full => {
                if !matches!(read, Ok(n) if n > 0) {
                    return false;
                }
            }
        }
    }
}

/// Writes an answer of our own and keeps the connection where the request's framing allows it.
async fn answer_here(
    mut guard: Box<Guard>,
    exchange: Exchange,
    answer: OwnAnswer,
    rest: Rest,
    stop: &watch::Receiver<bool>,
) -> Option<Box<Guard>> {
    let stay = rest.keep_alive
        && !answer.close
        && !exchange.must_close()
        && !*stop.borrow()
        && rest.leftover != Leftover::Close;
    let written = write_answer(&mut guard, &answer, rest.version, rest.head_only, stay).await;
    let end = if written.is_ok() { End::Delivered } else { End::ClientLeft };
    exchange.on_end(end, Instant::now());
    written.ok()?;
    if !stay {
        linger(&mut guard).await;
        return None;
    }
    guard.read.advance(rest.head);
    let drained = match rest.leftover {
        Leftover::Nothing => true,
        Leftover::Drain(most) => {
            let draining = drain_body(&mut guard, rest.framing, most);
            matches!(tokio::time::timeout(DRAIN, draining).await, Ok(Ok(true)))
        }
        Leftover::Close => false,
    };
    drained.then_some(guard)
}

/// Reads and throws away a body of at most `most` bytes; false if it is longer, malformed, or breaks off.
async fn drain_body(guard: &mut Guard, framing: Framing, most: u64) -> io::Result<bool> {
    let mut read = 0u64;
    let mut chunks = Chunked::new();
    loop {
        let there = guard.read.len() as u64;
        let (taken, done) = match framing {
            Framing::None => (0, true),
            Framing::Length(length) => {
                let taken = there.min(length - read);
                (taken, read + taken == length)
            }
            Framing::Chunked => match chunks.feed(&guard.read) {
                Ok(progress) => (progress.consumed as u64, progress.done),
                Err(_) => return Ok(false),
            },
        };
        guard.read.advance(taken as usize);
        read += taken;
        if done || read > most {
            return Ok(done && read <= most);
        }
        if guard.fill().await? == 0 {
            return Ok(false);
        }
    }
}

pub(super) async fn write_answer(
    guard: &mut Guard,
    answer: &OwnAnswer,
    version: Version,
    head_only: bool,
    keep_alive: bool,
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(256);
    answer.write_to(&mut bytes, version, head_only, keep_alive);
    match tokio::time::timeout(limits::BODY_IDLE, guard.send(&bytes)).await {
        Ok(sent) => sent,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Says that nothing more comes and reads what the client was still sending: closing on unread bytes would reset the
/// connection and take our answer with it.
async fn linger(guard: &mut Guard) {
    use tokio::io::AsyncWriteExt;
    let reading = async {
        guard.shutdown().await?;
        let mut read = 0;
        while read < LINGER_BYTES {
            guard.read.clear();
            match guard.fill().await? {
                0 => break,
                n => read += n,
            }
        }
        io::Result::Ok(())
    };
    // It was a courtesy; the connection closes either way.
    let _ = tokio::time::timeout(LINGER, reading).await;
}

/// Gives the request to pingora. The connection comes back if it takes another.
async fn general(
    front: &Arc<Front>,
    mut guard: Box<Guard>,
    begun: Begun,
    settings: &mut Option<HttpPersistentSettings>,
    stop: &watch::Receiver<bool>,
) -> Option<Box<Guard>> {
    guard.hand_over(begun.head, begun.framing);
    let mut session = ServerSession::new_http1(guard);
    match settings.take() {
        Some(settings) => settings.apply_to_session(&mut session),
        None => session.set_keepalive(Some(limits::KEEP_ALIVE.as_secs())),
    }
    let handoff = Handoff {
        exchange: begun.exchange,
        dialers: front.dialers.clone(),
        version: begun.version,
        stop: stop.clone(),
    };
    let lane = front.general.process_new_http(session, &front.never);
    let reused = HANDOFF.scope(Cell::new(Some(handoff)), lane).await?;
    let (stream, kept): (Stream, _) = reused.consume();
    *settings = kept;
    let guard = stream.into_any().downcast::<Guard>().ok()?;
    let clean = guard.is_handed_over() && !guard.is_malformed() && !guard.is_eof();
    clean.then_some(guard)
}
