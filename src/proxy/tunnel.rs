//! Upgraded connections: once an upstream has switched protocols, relays bytes both ways until both sides have ended, or
//! nothing has moved for an hour (for a minute, once one side has ended). How it came to the switch is an exchange like any
//! other, in [`super::express`]. Pingora is not involved: its tunnel loses one in a thousand when the 101 comes early.
//!
//! A tunnel is in flight until it ends: a stopped listener lets it go on, and at the end of the drain time it ends with the
//! process. It holds no buffer but for bytes that the other side does not take at once.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::client::Client;
use super::ended::Ended;
use super::kept::Link;
use crate::exchange::Carried;

/// The most bytes under way in one direction of a tunnel.
const DIRECTION_BYTES: usize = 16 * 1024;

/// Relays between a client and the upstream that has switched protocols for it, with what both have sent early. `idle`: how
/// long nothing may move; `half`: the same once a side has ended; `cut`: completes when it must end.
pub(super) async fn run(
    client: &mut Client,
    mut link: Box<Link>,
    idle: Duration,
    half: Duration,
    cut: impl Future<Output = ()>,
) -> Carried {
    client.skip_head();
    let to_upstream = std::mem::take(&mut client.read);
    // The head that says so is the first of it.
    let mut to_client = std::mem::take(client.write_mut());
    let head = to_client.len() as u64;
    to_client.extend_from_slice(&std::mem::take(&mut link.read));
    // However it ends, both sides are closed after it.
    let mut carried = Carried::default();
    let relay = relay(client.io_mut(), link.io_mut(), to_upstream, to_client, (idle, half), &mut carried);
    tokio::select! {
        biased;
        Ok(()) | Err(_) = relay => {}
        () = cut => {}
    }
    Carried { sent: carried.sent.saturating_sub(head), ..carried }
}

/// One direction of a tunnel.
struct Direction<'a> {
    /// What has been read and not been taken.
    held: BytesMut,
    ended: bool,
    done: bool,
    /// Bytes that the other side has taken.
    bytes: &'a mut u64,
}

impl<'a> Direction<'a> {
    fn new(early: BytesMut, bytes: &'a mut u64) -> Direction<'a> {
        Direction { held: early, ended: false, done: false, bytes }
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
            while !self.held.is_empty() {
                match poll_some(&mut to, cx, &self.held)? {
                    Poll::Ready(n) => {
                        self.held.advance(n);
                        *self.bytes += n as u64;
                        moved = true;
                    }
                    Poll::Pending if moved => return Poll::Ready(Ok(true)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            // A buffer is kept no longer than it is needed.
            self.held = BytesMut::new();
            if self.done {
                return if moved { Poll::Ready(Ok(true)) } else { Poll::Pending };
            }
            if self.ended {
                ready!(Pin::new(&mut to).poll_shutdown(cx))?;
                self.done = true;
                return Poll::Ready(Ok(true));
            }
            let mut room = [MaybeUninit::<u8>::uninit(); DIRECTION_BYTES];
            let mut read = ReadBuf::uninit(&mut room);
            match Pin::new(&mut from).poll_read(cx, &mut read)? {
                Poll::Ready(()) if read.filled().is_empty() => self.ended = true,
                Poll::Ready(()) => {
                    moved = true;
                    let taken = match poll_some(&mut to, cx, read.filled())? {
                        Poll::Ready(n) => n,
                        Poll::Pending => 0,
                    };
                    *self.bytes += taken as u64;
                    self.held.extend_from_slice(&read.filled()[taken..]);
                }
                Poll::Pending if moved => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn poll_some(to: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes)) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(written),
    }
}

/// Relays both ways until both sides have ended, one breaks, or nothing has moved for `idle`. Once a side has ended, or has
/// gone unnoticed behind bytes that the other does not take, `half` counts instead where it is shorter. `to_upstream` and
/// `to_client` were read before it began.
async fn relay(
    client: &mut (impl AsyncRead + AsyncWrite + Ended + Unpin),
    upstream: &mut (impl AsyncRead + AsyncWrite + Ended + Unpin),
    to_upstream: BytesMut,
    to_client: BytesMut,
    (idle, half): (Duration, Duration),
    carried: &mut Carried,
) -> io::Result<()> {
    let mut up = Direction::new(to_upstream, &mut carried.received);
    let mut down = Direction::new(to_client, &mut carried.sent);
    let half = half.min(idle);
    let mut moved_at = Instant::now();
    // Goes off now and then, whether something moves or not: setting it for every move would cost more than the look.
    let look = tokio::time::sleep_until(moved_at + half);
    tokio::pin!(look);
    loop {
        let moved = poll_fn(|cx| {
            // The two borrow one socket each way in turn, never at once.
            let rose = up.poll_move(cx, &mut *client, &mut *upstream)?;
            let fell = down.poll_move(cx, &mut *upstream, &mut *client)?;
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A pipe tells of its end only to who reads it.
    impl Ended for DuplexStream {
        fn has_ended(&self) -> bool {
            false
        }
    }

    const HALF: Duration = Duration::from_secs(4);

    async fn tunnel(idle: Duration, early: (&str, &str)) -> (DuplexStream, DuplexStream) {
        let (client, mut near) = duplex(1_024);
        let (upstream, mut far) = duplex(1_024);
        let (to_upstream, to_client) = (BytesMut::from(early.0), BytesMut::from(early.1));
        tokio::spawn(async move {
            let mut carried = Carried::default();
            relay(&mut near, &mut far, to_upstream, to_client, (idle, HALF), &mut carried).await
        });
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
        let (_upstream, mut far) = duplex(1_024);
        client.write_all(&[b'x'; 100_000]).await.unwrap();
        drop(client);
        let began = Instant::now();
        let limits = (Duration::from_secs(1_000), HALF);
        let mut carried = Carried::default();
        let broken =
            relay(&mut near, &mut far, BytesMut::new(), BytesMut::new(), limits, &mut carried).await.unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < 4 * HALF, "{:?}", began.elapsed());
    }
}
