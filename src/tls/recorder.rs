//! A socket that keeps the first bytes it received: the TLS library does not report them, and a message about a peer that
//! does not speak TLS quotes them. It also delays write errors: a peer that rejects a handshake sends an alert and closes,
//! and our next write would fail before the library has read the alert.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::failure::is_tls;
use super::seen::Seen;

/// Bytes kept: enough for a status line or a banner.
const KEPT: usize = 64;
/// Bytes of a record header that identify TLS.
const RECORD_BYTES: usize = 2;

/// `S`, and its first bytes.
#[derive(Debug)]
pub struct Recorder<S> {
    inner: S,
    first: [u8; KEPT],
    len: u8,
    /// A write failed because the peer closed. What it sent before is read first.
    gone: bool,
    failure: Option<io::Error>,
    seen: Arc<Seen>,
}

impl<S> Recorder<S> {
    pub(super) fn new(inner: S, seen: Arc<Seen>) -> Recorder<S> {
        Recorder { inner, first: [0; KEPT], len: 0, gone: false, failure: None, seen }
    }

    /// The first bytes received.
    pub(super) fn first(&self) -> &[u8] {
        &self.first[..usize::from(self.len)]
    }

    /// The result for the writer of `whole` bytes: success if the peer has closed.
    fn note(&mut self, written: io::Result<usize>, whole: usize) -> io::Result<usize> {
        match written {
            Err(error) if is_gone(&error) => {
                self.gone = true;
                self.failure = Some(error);
                Ok(whole)
            }
            written => written,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        let kept = bytes.len().min(KEPT - at);
        self.first[at..at + kept].copy_from_slice(&bytes[..kept]);
        self.len = u8::try_from(at + kept).expect("at most 64");
        if self.first().len() >= RECORD_BYTES && is_tls(self.first()) {
            self.seen.note_tls();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorder<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let received = buf.filled().len() - before;
        if received == 0
            && let Some(failure) = this.failure.take()
        {
            return Poll::Ready(Err(failure));
        }
        if usize::from(this.len) < KEPT {
            this.keep(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorder<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.gone {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes));
        Poll::Ready(this.note(written, bytes.len()))
    }

    /// Sends the records of a handshake in one write.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let whole = pieces.iter().map(|piece| piece.len()).sum();
        if this.gone {
            return Poll::Ready(Ok(whole));
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, pieces));
        Poll::Ready(this.note(written, whole))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn the_first_bytes_are_kept_in_any_pieces() {
        let said: Vec<u8> = (0..100).collect();
        for size in [1, 7, 64, 100] {
            let mut recorder = Recorder::new(&said[..], Arc::default());
            let mut seen = Vec::new();
            let mut piece = vec![0; size];
            while seen.len() < said.len() {
                let n = recorder.read(&mut piece).await.unwrap();
                seen.extend_from_slice(&piece[..n]);
            }
            assert_eq!((seen.as_slice(), recorder.first()), (&said[..], &said[..64]), "{size}");
        }
    }

    #[tokio::test]
    async fn the_head_of_a_record_shows_that_the_peer_speaks_tls() {
        for (said, speaks) in
            [(&b"\x16\x03\x03\0\x01"[..], true), (b"\x15\x03", true), (b"\x16", false), (b"HTTP/1.1 400", false)]
        {
            for size in [1, 64] {
                let seen = Arc::new(Seen::default());
                let mut recorder = Recorder::new(said, seen.clone());
                let mut piece = vec![0; size];
                while recorder.read(&mut piece).await.unwrap() > 0 {}
                assert_eq!(seen.speaks_tls(), speaks, "{said:?} by {size}");
            }
        }
    }

    /// Sends its bytes; writes fail.
    struct Gone(&'static [u8], io::ErrorKind);

    impl AsyncRead for Gone {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Gone {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(self.1.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_peer_that_has_gone_can_still_be_read_before_the_write_fails() {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset] {
            let mut recorder = Recorder::new(Gone(b"bye", kind), Arc::default());
            recorder.write_all(b"hello").await.unwrap();
            recorder.write_all(b"again").await.unwrap();
            let mut said = [0; 8];
            assert_eq!(recorder.read(&mut said).await.unwrap(), 3);
            assert_eq!(recorder.read(&mut said).await.unwrap_err().kind(), kind);
        }
        let mut recorder = Recorder::new(Gone(b"bye", io::ErrorKind::OutOfMemory), Arc::default());
        assert_eq!(recorder.write_all(b"hello").await.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }
}
