//! `type = "tls"`: a handshake and a goodbye. The goodbye is waited for: with TLS 1.3 a peer that wants a certificate of
//! ours says so only after the handshake, and what it sent must be read lest the close become a reset.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::{Peer, Steps, Stream};
use super::finding::Finding;
use crate::tls::alert;

/// How long the peer may take to say goodbye, within the deadline.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are read for it.
const GOODBYE_BYTES_MAX: usize = 64 << 10;

/// One TLS probe, over by `deadline`.
pub(super) async fn run(peer: &Peer, deadline: Instant, steps: &mut Steps) -> Finding<'static> {
    let talk = async {
        match peer.open(steps).await {
            Ok(mut stream) => part(&mut stream, GOODBYE_PATIENCE).await,
            Err(finding) => finding,
        }
    };
    match timeout_at(deadline, talk).await {
        Ok(finding) => finding,
        Err(_elapsed) => steps.timeout().unwrap_or(Finding::Shaken),
    }
}

/// Says goodbye and waits for the peer's, which takes back nothing unless it is a refusal.
async fn part(stream: &mut Stream, patience: Duration) -> Finding<'static> {
    match timeout(patience, close(stream)).await {
        Ok(Err(error)) => alert(&error).map_or(Finding::Shaken, Finding::Refused),
        Ok(Ok(())) | Err(_) => Finding::Shaken,
    }
}

/// Closes in good order: ends our side, and reads until the peer has ended its own. The caller bounds the time.
pub(super) async fn close(stream: &mut Stream) -> io::Result<()> {
    // A peer that has refused us may have closed already: what it said is still to be read.
    let ended = stream.shutdown().await;
    let mut rest = [0; 1 << 10];
    let mut left = GOODBYE_BYTES_MAX;
    while left > 0 {
        match stream.read(&mut rest).await? {
            0 => break,
            n => left = left.saturating_sub(n),
        }
    }
    ended
}
