//! Upgraded connections: connects, sends the rewritten head, and after a 101 relays bytes both ways until both sides have
//! ended, or nothing has moved for an hour (for a minute, once one side has ended). Pingora is not involved: its tunnel loses
//! one in a thousand when the 101 comes early.
//!
//! Nothing of the client goes upstream before a 101. Any other answer is passed on in canonical form: its chunks are written
//! anew, without extensions. The client connection closes after it. A tunnel is in flight until it ends: a stopped listener lets it go on, and at the end of
//! the drain time it ends with the process.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use super::client::Client;
use super::connect::{UpstreamIo, dial};
use super::date;
use super::ended::Ended;
use super::front::Held;
use crate::exchange::{Attempt, Broken, End, Exchange, Lent, Next, Replay, ResponseEdits};
use crate::http1::body::{put_chunk, put_last_chunk};
use crate::http1::{Body, Fault, ResponseFraming, ResponseHead, ResponseReader, Step as Chunk, Version};
use crate::model::policy::UpstreamTimeouts;
use crate::pool::Waiting;

/// Bytes under way in one direction of a tunnel.
const DIRECTION_BYTES: usize = 16 * 1024;

/// For how long a closing connection takes what the client was still sending.
const LINGER: Duration = Duration::from_secs(2);

/// An upgrade on its way to a 101.
struct Upgrade {
    client: Box<Client>,
    exchange: Box<Exchange>,
    /// An answer is on its way that only the end of the connection ends.
    until_close: bool,
}

/// What one step came to.
enum Step {
    /// Ask the exchange's next step.
    Next(Next),
    /// It is over.
    Ended(End),
}

/// An upstream that has sent its final head.
struct Answered {
    upstream: UpstreamIo,
    /// What came after the head.
    rest: BytesMut,
    switched: bool,
    framing: ResponseFraming,
    in_chunks: bool,
}

/// Sees one upgrade through; the client connection ends with it.
pub(super) async fn run(held: Held, first: Attempt, version: Version) {
    let Held { client, exchange } = held;
    let mut upgrade = Upgrade { client, exchange, until_close: false };
    let mut next = Next::Attempt(first);
    let end = loop {
        let step = match next {
            Next::Attempt(attempt) => upgrade.attempt(attempt).await,
            Next::Answer(answer) => {
                let mut bytes = Vec::with_capacity(256);
                // Early data may stand where the next head would: the connection cannot go on.
                answer.write_to(&mut bytes, version, false, false, date::now());
                let sent = upgrade.send(&bytes).await;
                sent.map_or_else(|step| step, |()| Step::Ended(End::Delivered))
            }
            Next::Wait(waiting) => upgrade.wait(waiting).await,
            Next::Reroute => Step::Next(upgrade.exchange.on_reroute(upgrade.client.head(), Instant::now())),
            Next::Abort | Next::Forward(..) => Step::Ended(End::Aborted),
        };
        match step {
            Step::Next(following) => next = following,
            Step::Ended(end) => break end,
        }
    };
    let Upgrade { client, mut exchange, until_close } = upgrade;
    exchange.on_end(end, Instant::now());
    match end {
        End::Delivered if !client.is_eof() => client.linger(LINGER).await,
        // A clean end would make it whole.
        End::Aborted if until_close => client.reset(),
        End::Delivered | End::Aborted | End::ClientLeft => {}
    }
}

impl Upgrade {
    /// One try on one upstream, up to the end of its answer or of the tunnel.
    async fn attempt(&mut self, attempt: Attempt) -> Step {
        let Some(upstream) = self.exchange.upstream() else { return Step::Ended(End::Aborted) };
        let dialled = tokio::select! {
            biased;
            dialled = dial(upstream, attempt.epoch, attempt.timeouts.connect) => dialled,
            () = self.client.left() => return Step::Ended(End::ClientLeft),
        };
        let upstream = match dialled {
            Ok(upstream) => upstream,
            Err(why) => return Step::Next(self.exchange.on_connect_failed(why, Instant::now())),
        };
        if let Some(next) = self.exchange.on_connected(Lent::Fresh, Instant::now()) {
            return Step::Next(next);
        }
        let timeouts = &attempt.timeouts;
        let answered = match self.ask(upstream, timeouts).await {
            Ok(answered) => answered,
            Err(step) => return step,
        };
        match answered.switched {
            true => self.tunnel(answered, timeouts).await,
            false => self.relay_answer(answered, timeouts).await,
        }
    }

    /// Waits for an upstream.
    async fn wait(&mut self, waiting: Waiting) -> Step {
        tokio::select! {
            biased;
            () = waiting.wait() => Step::Next(self.exchange.on_wake(waiting, Instant::now())),
            () = self.client.left() => Step::Ended(End::ClientLeft),
        }
    }

    /// Sends the head and reads heads until the final one, which is passed on with the interim ones before it.
    async fn ask(&mut self, mut upstream: UpstreamIo, timeouts: &UpstreamTimeouts) -> Result<Answered, Step> {
        let request = self.request_head();
        let sent = tokio::time::timeout(timeouts.idle, upstream.write_all(&request)).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.broken(Broken::Closed)),
            Err(_) => return Err(self.broken(Broken::TimedOut)),
        }
        let deadline = Instant::now() + timeouts.first_byte;
        let mut buf = BytesMut::with_capacity(4 * 1024);
        let mut reader = ResponseReader::default();
        loop {
            reader.reset();
            let head = self.next_head(&mut upstream, &mut reader, &mut buf, deadline).await?;
            let next = self.exchange.on_response(head.version, head.status, head.fields(), Instant::now());
            let Next::Forward(edits, framing) = next else { return Err(Step::Next(next)) };
            let (status, len) = (head.status, head.len);
            self.forward_head(&edits, &head).await?;
            buf.advance(len);
            if status == 101 || status >= 200 {
                self.until_close = edits.close();
                let in_chunks = edits.in_chunks(framing);
                return Ok(Answered { upstream, rest: buf, switched: status == 101, framing, in_chunks });
            }
        }
    }

    /// Reads until a whole head is at the front of `buf`, or what can never become one.
    async fn next_head<'b>(
        &mut self,
        upstream: &mut UpstreamIo,
        reader: &'b mut ResponseReader,
        buf: &'b mut BytesMut,
        deadline: Instant,
    ) -> Result<ResponseHead<'b>, Step> {
        loop {
            match reader.read(buf) {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(reader.head(buf).expect("it is complete")),
                Err(fault) => return Err(self.broken(Broken::BadResponse(fault))),
            }
            let read = tokio::select! {
                biased;
                read = tokio::time::timeout_at(deadline, upstream.read_buf(buf)) => read,
                () = self.client.left() => return Err(Step::Ended(End::ClientLeft)),
            };
            match read {
                Ok(Ok(n)) if n > 0 => {}
                Ok(_) => return Err(self.broken(Broken::Closed)),
                Err(_) => return Err(self.broken(Broken::TimedOut)),
            }
        }
    }

    async fn forward_head(&mut self, edits: &ResponseEdits, head: &ResponseHead<'_>) -> Result<(), Step> {
        if edits.hidden() {
            return Ok(());
        }
        let mut out = Vec::with_capacity(head.len + 64);
        edits.write_to(head, Version::Http11, true, date::now(), &mut out);
        self.send(&out).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Step> {
        self.client.send(bytes).await.map_err(|_| Step::Ended(End::ClientLeft))
    }

    fn request_head(&self) -> Vec<u8> {
        let head = self.client.head().expect("the front has read it, and nothing has taken it");
        let mut out = Vec::with_capacity(head.len + 256);
        self.exchange.request_edits().write_to(&head, &mut out);
        out
    }

    fn broken(&mut self, how: Broken) -> Step {
        // An upgrade has no body, so it can always be sent again.
        Step::Next(self.exchange.on_broken(how, Replay::Whole, Instant::now()))
    }

    /// Passes on the body of an answer that is no 101.
    async fn relay_answer(&mut self, answered: Answered, timeouts: &UpstreamTimeouts) -> Step {
        let Answered { mut upstream, rest: mut buf, framing, in_chunks, .. } = answered;
        let mut body = Body::response(framing);
        loop {
            let piece = match take(&mut body, in_chunks, &mut buf) {
                Ok(piece) => piece,
                Err(fault) => return self.broken(Broken::BadResponse(fault)),
            };
            if !piece.is_empty()
                && let Err(step) = self.send(&piece).await
            {
                return step;
            }
            if body.is_done() {
                return Step::Ended(End::Delivered);
            }
            buf.reserve(DIRECTION_BYTES);
            let read = tokio::select! {
                biased;
                read = tokio::time::timeout(timeouts.idle, upstream.read_buf(&mut buf)) => read,
                () = self.client.left() => return Step::Ended(End::ClientLeft),
            };
            match read {
                Ok(Ok(0)) if body.is_whole_at_close() => {
                    let mut end = Vec::new();
                    if in_chunks {
                        put_last_chunk(&mut end, b"");
                    }
                    return self.send(&end).await.map_or_else(|step| step, |()| Step::Ended(End::Delivered));
                }
                Ok(Ok(n)) if n > 0 => {}
                Ok(_) => return self.broken(Broken::Closed),
                Err(_) => return self.broken(Broken::TimedOut),
            }
        }
    }

    /// Relays bytes both ways. What both sides sent early goes first.
    async fn tunnel(&mut self, answered: Answered, timeouts: &UpstreamTimeouts) -> Step {
        let Answered { upstream, rest, .. } = answered;
        self.client.skip_head();
        let early = std::mem::take(&mut self.client.read);
        let limits = (timeouts.tunnel_idle, timeouts.tunnel_half_idle);
        let (Ok(()) | Err(_)) = relay(self.client.io_mut(), upstream, early, rest, limits).await;
        Step::Ended(End::Delivered)
    }
}

/// Takes what has come of the body off `buf`, as it is passed on.
fn take(body: &mut Body, chunked: bool, buf: &mut BytesMut) -> Result<BytesMut, Fault> {
    let (mut out, mut rest) = (BytesMut::new(), &buf[..]);
    loop {
        match body.next(&mut rest)? {
            Chunk::Data(data) if chunked => put_chunk(&mut out, data),
            Chunk::Data(data) => out.extend_from_slice(data),
            Chunk::More => break,
            Chunk::End => {
                if chunked {
                    put_last_chunk(&mut out, body.trailers());
                }
                break;
            }
        }
    }
    let left = rest.len();
    buf.advance(buf.len() - left);
    Ok(out)
}

/// One direction of a tunnel.
struct Direction {
    buf: BytesMut,
    ended: bool,
    done: bool,
}

impl Direction {
    fn new(early: BytesMut) -> Direction {
        Direction { buf: early, ended: false, done: false }
    }

    /// Moves what can be moved; true if anything was. The end of one side closes that half of the other.
    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> Poll<io::Result<bool>> {
        let mut moved = false;
        loop {
            while !self.buf.is_empty() {
                match Pin::new(&mut to).poll_write(cx, &self.buf)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(n) => {
                        self.buf.advance(n);
                        moved = true;
                    }
                    Poll::Pending if moved => return Poll::Ready(Ok(true)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.done {
                return if moved { Poll::Ready(Ok(true)) } else { Poll::Pending };
            }
            if self.ended {
                ready!(Pin::new(&mut to).poll_shutdown(cx))?;
                self.done = true;
                return Poll::Ready(Ok(true));
            }
            let mut chunk = [0u8; DIRECTION_BYTES];
            let mut read = ReadBuf::new(&mut chunk);
            match Pin::new(&mut from).poll_read(cx, &mut read)? {
                Poll::Ready(()) if read.filled().is_empty() => self.ended = true,
                Poll::Ready(()) => {
                    self.buf.extend_from_slice(read.filled());
                    moved = true;
                }
                Poll::Pending if moved => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Relays both ways until both sides have ended, one breaks, or nothing has moved for `idle`. Once a side has ended, or has
/// gone unnoticed behind bytes that the other does not take, `half` counts instead where it is shorter. `to_upstream` and
/// `to_client` were read before it began.
async fn relay(
    client: &mut (impl AsyncRead + AsyncWrite + Ended + Unpin),
    mut upstream: impl AsyncRead + AsyncWrite + Ended + Unpin,
    to_upstream: BytesMut,
    to_client: BytesMut,
    (idle, half): (Duration, Duration),
) -> io::Result<()> {
    let mut up = Direction::new(to_upstream);
    let mut down = Direction::new(to_client);
    let half = half.min(idle);
    let mut moved_at = Instant::now();
    // Goes off now and then, whether something moves or not: setting it for every move would cost more than the look.
    let look = tokio::time::sleep_until(moved_at + half);
    tokio::pin!(look);
    loop {
        let moved = poll_fn(|cx| {
            // The two borrow one socket each way in turn, never at once.
            let rose = up.poll_move(cx, &mut *client, &mut upstream)?;
            let fell = down.poll_move(cx, &mut upstream, &mut *client)?;
            match (rose, fell) {
                (Poll::Pending, Poll::Pending) => Poll::Pending,
                _ => Poll::Ready(io::Result::Ok(())),
            }
        });
        tokio::select! {
            biased;
            moved = moved => moved?,
            () = &mut look => {
                let now = Instant::now();
                let one_ended = up.ended || down.ended || client.has_ended() || upstream.has_ended();
                let end = moved_at + if one_ended { half } else { idle };
                if end <= now {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                look.as_mut().reset(end.min(now + half));
                continue;
            }
        }
        if up.done && down.done {
            return Ok(());
        }
        moved_at = Instant::now();
        tokio::task::coop::consume_budget().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::http1::{Chunked, Reading};

    /// A pipe tells of its end only to who reads it.
    impl Ended for DuplexStream {
        fn has_ended(&self) -> bool {
            false
        }
    }

    const HALF: Duration = Duration::from_secs(4);

    #[test]
    fn chunks_are_passed_on_in_canonical_form_however_they_come() {
        let body = "4 ;a=b\r\nWiki\r\n05\r\npedia\r\n00\r\nContent-Length: 3\r\n\r\nrest";
        for cut in 1..=body.len() {
            let mut chunks = Body::response(ResponseFraming::Chunked);
            let (mut out, mut buf) = (BytesMut::new(), BytesMut::new());
            for piece in body.as_bytes().chunks(cut) {
                buf.extend_from_slice(piece);
                if !chunks.is_done() {
                    out.extend_from_slice(&take(&mut chunks, true, &mut buf).unwrap());
                }
            }
            assert!(chunks.is_done() && buf.ends_with(b"rest"), "cut by {cut}: {buf:?}");
            let mut decoded = Chunked::new(Reading::Request);
            let (mut data, mut rest) = (Vec::new(), &out[..]);
            while let Chunk::Data(piece) = decoded.next(&mut rest).expect("the strictest reader takes it") {
                data.extend_from_slice(piece);
            }
            assert_eq!((data.as_slice(), rest, decoded.is_done()), (&b"Wikipedia"[..], &b""[..], true), "cut by {cut}");
            assert!(out.ends_with(b"0\r\n\r\n"), "the trailer is gone: {out:?}");
        }
        assert!(
            take(&mut Body::response(ResponseFraming::Chunked), true, &mut BytesMut::from("0x2\r\nok\r\n")).is_err()
        );
    }

    async fn tunnel(idle: Duration, early: (&str, &str)) -> (DuplexStream, DuplexStream) {
        let (client, mut near) = duplex(1_024);
        let (upstream, far) = duplex(1_024);
        let (to_upstream, to_client) = (BytesMut::from(early.0), BytesMut::from(early.1));
        tokio::spawn(async move { relay(&mut near, far, to_upstream, to_client, (idle, HALF)).await });
        (client, upstream)
    }

    #[tokio::test(start_paused = true)]
    async fn what_both_sides_sent_early_arrives_first() {
        let (mut client, mut upstream) = tunnel(Duration::from_secs(9), ("early ", "soon ")).await;
        client.write_all(b"up").await.unwrap();
        upstream.write_all(b"down").await.unwrap();
        let mut got = [0; 8];
        upstream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"early up");
        let mut got = [0; 9];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"soon down");
    }

    #[tokio::test(start_paused = true)]
    async fn one_side_may_end_while_the_other_goes_on() {
        let (mut client, mut upstream) = tunnel(Duration::from_secs(9), ("", "")).await;
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        upstream.read_to_end(&mut got).await.unwrap();
        upstream.write_all(b"still here").await.unwrap();
        drop(upstream);
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"still here");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_tunnel_ends_and_a_busy_one_does_not() {
        let (mut client, mut upstream) = tunnel(Duration::from_secs(10), ("", "")).await;
        let mut got = [0; 1];
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(b"x").await.unwrap();
            upstream.read_exact(&mut got).await.unwrap();
        }
        let quiet = Instant::now();
        assert_eq!(client.read(&mut got).await.unwrap(), 0);
        assert_eq!(quiet.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn once_one_side_has_ended_the_other_may_be_quiet_for_less() {
        for client_ends in [true, false] {
            let (client, upstream) = tunnel(Duration::from_secs(100), ("", "")).await;
            let (mut ending, mut staying) = if client_ends { (client, upstream) } else { (upstream, client) };
            tokio::time::sleep(Duration::from_secs(99)).await;
            ending.shutdown().await.unwrap();
            let mut got = [0; 1];
            assert_eq!(staying.read(&mut got).await.unwrap(), 0, "the end is passed on");
            // What still flows keeps it, for as long as it likes.
            for _ in 0..40 {
                tokio::time::sleep(HALF - Duration::from_millis(10)).await;
                staying.write_all(b"x").await.unwrap();
                ending.read_exact(&mut got).await.unwrap();
            }
            let quiet = Instant::now();
            assert_eq!(ending.read(&mut got).await.unwrap(), 0);
            assert_eq!(quiet.elapsed(), HALF, "client ends: {client_ends}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_behind_bytes_that_the_other_side_does_not_take_ends_the_tunnel_too() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut near, _) = listener.accept().await.unwrap();
        let (_upstream, far) = duplex(1_024);
        client.write_all(&[b'x'; 100_000]).await.unwrap();
        drop(client);
        let began = Instant::now();
        let limits = (Duration::from_secs(1_000), HALF);
        let broken = relay(&mut near, far, BytesMut::new(), BytesMut::new(), limits).await.unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < 4 * HALF, "{:?}", began.elapsed());
    }
}
