//! A socket that remembers the first bytes it heard: what a peer says that does not speak TLS is worth quoting, and the
//! TLS library does not tell.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes kept: enough for a status line or a banner.
const KEPT: usize = 64;

/// `S`, and its first bytes.
#[derive(Debug)]
pub struct Heard<S> {
    inner: S,
    first: [u8; KEPT],
    len: u8,
}

impl<S> Heard<S> {
    pub(super) fn new(inner: S) -> Heard<S> {
        Heard { inner, first: [0; KEPT], len: 0 }
    }

    /// The first bytes that came.
    pub(super) fn first(&self) -> &[u8] {
        &self.first[..usize::from(self.len)]
    }

    fn keep(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        let kept = bytes.len().min(KEPT - at);
        self.first[at..at + kept].copy_from_slice(&bytes[..kept]);
        self.len = u8::try_from(at + kept).expect("at most 64");
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        if usize::from(this.len) < KEPT {
            this.keep(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn the_first_bytes_are_kept_however_they_come() {
        let said: Vec<u8> = (0..100).collect();
        for size in [1, 7, 64, 100] {
            let mut heard = Heard::new(&said[..]);
            let mut seen = Vec::new();
            let mut piece = vec![0; size];
            while seen.len() < said.len() {
                let n = heard.read(&mut piece).await.unwrap();
                seen.extend_from_slice(&piece[..n]);
            }
            assert_eq!((seen.as_slice(), heard.first()), (&said[..], &said[..64]), "{size}");
        }
    }
}
