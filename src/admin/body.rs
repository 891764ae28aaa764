//! The body of a response: shared bytes, handed out in pieces, so that a connection buffers one piece and not a copy of
//! the whole. Reports the bytes taken, so that slow readers can be found.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::connections::Open;

/// How much is copied into a connection's buffer at once.
const PIECE_BYTES: usize = 16 << 10;

/// The body of a response.
pub struct Body {
    left: Bytes,
    reader: Arc<Open>,
    /// The permit of its request, held until the response is sent.
    _place: Option<Arc<OwnedSemaphorePermit>>,
}

impl Body {
    /// `bytes` for `reader`, which holds `place` until this is dropped.
    pub fn new(bytes: Bytes, reader: Arc<Open>, place: Option<Arc<OwnedSemaphorePermit>>) -> Body {
        Body { left: bytes, reader, _place: place }
    }
}

impl Drop for Body {
    /// Reports that nothing more of it will be written.
    fn drop(&mut self) {
        self.reader.on_answered();
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.left.len().min(PIECE_BYTES);
        let piece = self.left.split_to(piece);
        self.reader.on_taken(piece.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
