//! The stream under an HTTP/2 connection. It keeps the first bytes, so that a finding can quote a peer that does not speak
//! HTTP/2; records errors of the socket; and limits the bytes read, at a time and in all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::model::quote::Excerpt;
use crate::probe::answer::Stop;
use crate::probe::http::stop_of;

/// Bytes that are read before the rest of the probe runs.
const TURN_BYTES: usize = 16 << 10;
/// Bytes that are read from one peer: many times the limits of head and body.
const BYTES_MAX: usize = 1 << 20;
/// The length of a frame header (RFC 9113, section 4.1).
const FRAME_HEAD_BYTES: usize = 9;

/// A stream on which HTTP/2 is expected.
pub(super) struct Opening<S> {
    stream: S,
    /// The first bytes received: a frame header or, if it is not one, as much as is quoted.
    seen: Excerpt,
    foreign: bool,
    /// Why a write failed. The peer may have answered before it closed: its answer is still read.
    unsent: Option<io::Error>,
    broke: Option<Stop>,
    turn: usize,
    /// Bytes received.
    come: usize,
}

impl<S> Opening<S> {
    pub(super) fn new(stream: S) -> Opening<S> {
        Opening { stream, seen: Excerpt::default(), foreign: false, unsent: None, broke: None, turn: 0, come: 0 }
    }

    /// Whether the peer speaks something else.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Whether the peer has sent anything.
    pub(super) fn has_received(&self) -> bool {
        self.come > 0
    }

    /// Whether the peer has sent more than [`BYTES_MAX`].
    pub(super) fn is_flooded(&self) -> bool {
        self.come > BYTES_MAX
    }

    /// The first bytes received.
    pub(super) fn into_seen(self) -> Excerpt {
        self.seen
    }

    /// The error that broke the stream; `None`: there was none.
    pub(super) fn broke(&self) -> Option<Stop> {
        self.broke
    }

    fn look_at(&mut self, bytes: &[u8]) {
        if self.seen.bytes().len() >= FRAME_HEAD_BYTES {
            return;
        }
        self.foreign = !begins_http2(&[self.seen.bytes(), &bytes[..bytes.len().min(FRAME_HEAD_BYTES)]].concat());
        let kept = if self.foreign { bytes.len() } else { bytes.len().min(FRAME_HEAD_BYTES) };
        self.seen.push(&bytes[..kept]);
    }
}

/// Whether these can be the first bytes of a server: SETTINGS without ACK, or a GOAWAY, on stream 0.
fn begins_http2(bytes: &[u8]) -> bool {
    bytes.iter().take(FRAME_HEAD_BYTES).enumerate().all(|(i, byte)| match i {
        0 => *byte == 0,
        3 => matches!(*byte, 0x04 | 0x07),
        4 => byte & 1 == 0,
        5..FRAME_HEAD_BYTES => *byte == 0,
        _ => true,
    })
}

impl<S: AsyncRead + Unpin> Opening<S> {
    /// Reads more of a protocol that is not HTTP/2, to quote it.
    pub(super) async fn read_on(&mut self) {
        let mut piece = [0; 256];
        while !self.seen.is_full() {
            match self.stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(length) => self.seen.push(&piece[..length]),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.turn >= TURN_BYTES {
            this.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if let Err(error) = ready!(Pin::new(&mut this.stream).poll_read(cx, buf)) {
            this.broke = Some(stop_of(&error));
            return Poll::Ready(Err(error));
        }
        let bytes = &buf.filled()[before..];
        this.turn += bytes.len();
        this.come += bytes.len();
        this.look_at(bytes);
        if this.foreign || this.is_flooded() {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::InvalidData)));
        }
        match this.unsent.take() {
            Some(error) if bytes.is_empty() => {
                this.broke = Some(stop_of(&error));
                Poll::Ready(Err(error))
            }
            unsent => {
                this.unsent = unsent;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Opening<S> {
    /// Reports a failed write as successful until everything that the peer sent is read.
    fn forgive(&mut self, written: io::Result<usize>, length: usize) -> io::Result<usize> {
        written.or_else(|error| {
            self.unsent.get_or_insert(error);
            Ok(length)
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unsent.is_some() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes));
        Poll::Ready(this.forgive(written, bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unsent.is_some() {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut this.stream).poll_flush(cx));
        Poll::Ready(this.forgive(flushed.map(|()| 0), 0).map(drop))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::connect::Fault;

    #[test]
    fn the_first_bytes_of_a_server_are_known() {
        for (bytes, http2) in [
            (&[][..], true),
            (&[0, 0, 18, 4, 0, 0, 0, 0, 0], true),
            (&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1], true),
            (&[0, 0, 8, 7, 0, 0, 0, 0, 0], true),
            (&[0, 0], true),
            (&[0, 0, 0, 4, 1, 0, 0, 0, 0], false),
            (&[0, 0, 0, 4, 0, 0, 0, 0, 1], false),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0], false),
            (b"H", false),
            (b"HTTP/1.1 400 Bad Request\r\n", false),
            (&[0x15, 3, 1, 0, 2, 2, 70], false),
        ] {
            assert_eq!(begins_http2(bytes), http2, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn another_protocol_is_recognised_in_any_pieces() {
        for size in [1, 2, 7, 1024] {
            let mut stream = tokio_test_stream(b"\0\0NOT A FRAME AT ALL", size);
            let mut opening = Opening::new(&mut stream);
            let mut space = [0; 64];
            let error = loop {
                match opening.read(&mut space).await {
                    Ok(read) => assert!(read > 0, "it ended before it was recognised"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(opening.is_foreign() && opening.broke().is_none());
            opening.read_on().await;
            assert_eq!(opening.into_seen().bytes(), b"\0\0NOT A FRAME AT ALL");
        }
    }

    #[tokio::test]
    async fn an_answer_is_read_after_a_failed_write() {
        use tokio::io::AsyncWriteExt;
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        drop(theirs);
        let mut opening = Opening::new(ours);
        opening.write_all(b"into the void").await.unwrap();
        let mut space = [0; 64];
        assert_eq!(opening.read(&mut space).await.unwrap(), 9);
        assert_eq!(opening.broke(), None);
        let error = opening.read(&mut space).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(opening.broke(), Some(Stop::Broke(Fault::Theirs(nix::errno::Errno::EPIPE))));
    }

    #[tokio::test]
    async fn an_endless_answer_is_not_read_forever() {
        let mut opening = Opening::new(tokio::io::repeat(0));
        opening.seen.push(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let mut space = [0; 4 << 10];
        let mut read = 0;
        while let Ok(bytes) = opening.read(&mut space).await {
            read += bytes;
            assert!(read <= BYTES_MAX, "{read} bytes were handed on");
        }
        assert!(read == BYTES_MAX && opening.is_flooded() && !opening.is_foreign());
    }

    #[tokio::test]
    async fn the_rest_of_the_probe_runs_between_reads() {
        let zeros = tokio::io::repeat(0);
        let mut opening = Opening::new(zeros);
        opening.seen.push(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let mut space = [0; 4 << 10];
        let mut buf = ReadBuf::new(&mut space);
        let mut polls = Vec::new();
        std::future::poll_fn(|cx| {
            for _ in 0..6 {
                buf.clear();
                polls.push(Pin::new(&mut opening).poll_read(cx, &mut buf).is_ready());
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(polls, [true, true, true, true, false, true]);
    }

    /// A stream that gives `bytes` in pieces of at most `size`.
    fn tokio_test_stream(bytes: &'static [u8], size: usize) -> impl AsyncRead + AsyncWrite + Unpin {
        let (ours, mut theirs) = tokio::io::duplex(size);
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let _ = theirs.write_all(bytes).await;
        });
        ours
    }
}
