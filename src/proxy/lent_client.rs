//! The stream that pingora gets instead of the socket: a loan of the client's connection for exactly one request. It comes
//! home when pingora drops it, however the request ended, so that the front decides what becomes of the connection.
//!
//! Nothing that pingora says on its own account reaches the client: until the exchange has let an answer through, what
//! it writes is swallowed.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Client;
use super::handover::Handover;
use crate::exchange::Course;

/// A client's connection, lent to pingora.
pub struct LentClient {
    /// `None` only while it is dropped.
    client: Option<Box<Client>>,
    handover: Arc<Handover>,
}

impl LentClient {
    /// Lends the connection, which comes back through `handover`.
    pub fn lend(client: Box<Client>, handover: Arc<Handover>) -> LentClient {
        LentClient { client: Some(client), handover }
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("it is here until it is dropped")
    }

    fn client_mut(&mut self) -> &mut Client {
        self.client.as_mut().expect("it is here until it is dropped")
    }

    /// Writes; the lane stands still while that waits. Pingora waits for nothing else meanwhile.
    fn patient<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Client, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let client = self.client.as_mut().expect("it is here until it is dropped");
        match write(client, cx) {
            Poll::Pending => self.handover.stall.begin(cx, |cx| write(client, cx)),
            ready => ready,
        }
    }
}

impl Drop for LentClient {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.handover.return_client(client);
        }
    }
}

impl AsyncRead for LentClient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Pingora would go on with such a request for as long as its client takes. It asks for more only when the answer has
        // been written.
        let course = Course { request_sent: self.client().is_whole(), answer_ended: self.handover.answer_ended() };
        if course.drops_rest() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.client_mut().poll_request(cx, out)
    }
}

impl AsyncWrite for LentClient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.handover.may_answer() {
            return Poll::Ready(Ok(bytes.len()));
        }
        if self.handover.take_continued() {
            self.client_mut().on_continue();
        }
        self.patient(cx, |client, cx| client.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.patient(cx, Client::poll_send)
    }

    /// The front closes the connection, not pingora.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl fmt::Debug for LentClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LentClient({:?})", self.client)
    }
}

#[async_trait]
impl Shutdown for LentClient {
    async fn shutdown(&mut self) {}
}

impl UniqueID for LentClient {
    fn id(&self) -> UniqueIDType {
        self.client().as_raw_fd()
    }
}

impl Ssl for LentClient {}
impl Peek for LentClient {}

impl GetTimingDigest for LentClient {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![]
    }
}

impl GetProxyDigest for LentClient {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for LentClient {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
