//! Whether a peer has closed its side or broken off, as the kernel knows it: also while what it sent before lies unread.
//! The runtime is told of a FIN and of a reset whatever is in the receive buffer, so nobody has to read to learn of them.
//!
//! A FIN behind bytes for which our receive window has no room cannot be seen by anybody; [`super::client`] makes room for
//! some of them.

use std::io;

use futures_util::FutureExt;
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

/// A socket whose peer may end.
pub(super) trait Ended {
    /// Whether its peer has closed its side or broken off. No system call.
    fn has_ended(&self) -> bool;
}

/// `PRIORITY` is the one interest that the end of the peer satisfies and its bytes do not.
const END: Interest = Interest::PRIORITY;

fn is_end(ready: &io::Result<Ready>) -> bool {
    ready.as_ref().map_or(true, |ready| ready.is_read_closed())
}

impl Ended for TcpStream {
    fn has_ended(&self) -> bool {
        self.ready(END).now_or_never().is_some_and(|ready| is_end(&ready))
    }
}

impl Ended for UnixStream {
    fn has_ended(&self) -> bool {
        self.ready(END).now_or_never().is_some_and(|ready| is_end(&ready))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn eventually(what: &str, holds: impl Fn() -> bool) {
        for _ in 0..2_000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not within 10 s: {what}");
    }

    #[tokio::test]
    async fn an_end_is_seen_behind_bytes_that_nobody_reads_and_bytes_are_no_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for reset in [false, true] {
            let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (near, _) = listener.accept().await.unwrap();
            far.write_all(&[b'x'; 30_000]).await.unwrap();
            near.readable().await.unwrap();
            assert!(!near.has_ended(), "it has only sent");
            if reset {
                socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(far);
            eventually("the end is seen", || near.has_ended()).await;
        }
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"x").await.unwrap();
        near.readable().await.unwrap();
        assert!(!near.has_ended(), "it has only sent");
        drop(far);
        eventually("the end is seen", || near.has_ended()).await;
    }
}
