//! A stream with a write timeout: a write or flush without progress for [`WRITE_STALL_MAX`] fails, so that a client
//! that stops reading cannot hold a connection. A large response to a fast reader is written in turns, so that it does
//! not delay other connections on the thread. Callers bound the reads, which [`Watched`] reports to them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::connections::Open;

/// How long a write may make no progress.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(5);

/// Bytes written in one turn, before other connections get theirs: some tens of microseconds.
const TURN_BYTES: usize = 64 * 1024;

/// A stream whose writes time out without progress.
pub struct Bounded<S> {
    stream: S,
    /// Bytes written in this turn.
    turn: usize,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Bounded<S> {
    /// Bounds the writes of `stream`.
    pub fn new(stream: S) -> Bounded<S> {
        Bounded { stream, turn: 0, stalled: None }
    }

    /// Returns the result, or an error if it has been pending for [`WRITE_STALL_MAX`].
    fn bound<T>(&mut self, result: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_STALL_MAX)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.turn >= TURN_BYTES {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, &buf[..buf.len().min(TURN_BYTES)]);
        match &result {
            Poll::Ready(Ok(n)) => self.turn += n,
            Poll::Ready(Err(_)) | Poll::Pending => self.turn = 0,
        }
        self.bound(result, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.bound(result, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.bound(result, cx)
    }
}

/// A stream that reports what it reads and when everything is written.
pub struct Watched<S> {
    stream: S,
    open: Arc<Open>,
}

impl<S> Watched<S> {
    /// Reports to `open`.
    pub fn new(stream: S, open: Arc<Open>) -> Watched<S> {
        Watched { stream, open }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.open.on_bytes(Instant::now());
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = result {
            self.open.on_flushed(Instant::now());
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_write_fails_only_without_progress() {
        let (near, mut far) = tokio::io::duplex(10);
        let mut near = Bounded::new(near);
        let reader = tokio::spawn(async move {
            let mut buf = [0; 10];
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                far.read_exact(&mut buf).await.unwrap();
            }
            far
        });
        near.write_all(&[7; 50]).await.expect("the peer reads every 4 s");
        let far = reader.await.unwrap();
        let begin = Instant::now();
        let error = near.write_all(&[7; 50]).await.unwrap_err();
        assert_eq!((error.kind(), begin.elapsed()), (io::ErrorKind::TimedOut, WRITE_STALL_MAX));
        drop(far);
    }

    /// A reader that takes everything at once gets at most one turn's bytes at a time.
    #[tokio::test]
    async fn a_large_answer_is_written_in_turns() {
        let mut near = Bounded::new(tokio::io::sink());
        let (mut written, mut turns) = (0, 0);
        let bytes = vec![7; 20 * TURN_BYTES];
        let mut others = 0;
        while written < bytes.len() {
            let write = std::future::poll_fn(|cx| match Pin::new(&mut near).poll_write(cx, &bytes[written..]) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => Poll::Ready(None),
            });
            match write.await {
                Some(result) => {
                    written += result.unwrap();
                    turns += 1;
                }
                None => others += 1,
            }
        }
        assert_eq!((turns, others), (20, 19));
    }
}
