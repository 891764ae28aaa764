//! `type = "tls"`: a handshake and a goodbye. The goodbye is waited for: with TLS 1.3 a peer that wants a certificate of
//! ours says so only after the handshake, and what it sent must be read lest the close become a reset. Some say nothing and
//! close: a peer that asked for a certificate which the check lacks is given a moment to do so.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::Stop;
use super::connect::{Peer, Steps, Stream};
use super::finding::Finding;
use super::http::stop_of;
use crate::tls::{Failure, alert};

/// How long a peer that asked for a certificate in vain may take to refuse, within the deadline: its answer takes one round
/// trip. After our own goodbye its close would say nothing any more.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(250);
/// How long the peer may take to say goodbye, within the deadline.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are read for it.
const GOODBYE_BYTES_MAX: usize = 64 << 10;

/// One TLS probe, over by `deadline`.
pub(super) async fn run(peer: &Peer, deadline: Instant, steps: &mut Steps) -> Finding<'static> {
    let talk = async {
        match peer.open(steps).await {
            Ok(mut stream) => match refusal(peer, &mut stream, steps).await {
                Some(finding) => finding,
                None => part(&mut stream, GOODBYE_PATIENCE).await,
            },
            Err(finding) => finding,
        }
    };
    match timeout_at(deadline, talk).await {
        Ok(finding) => finding,
        Err(_elapsed) => steps.timeout().unwrap_or(Finding::Shaken),
    }
}

/// Whether a peer that asked for a certificate ends the connection for the lack of one.
async fn refusal(peer: &Peer, stream: &mut Stream, steps: &Steps) -> Option<Finding<'static>> {
    peer.tls.as_ref().filter(|tls| tls.lacks_certificate(steps))?;
    let end = match timeout(REFUSAL_PATIENCE, stream.read(&mut [0; 1])).await.ok()? {
        Ok(0) => "connection closed",
        Ok(_) => return None,
        Err(error) => match stop_of(&error) {
            Stop::Refused(alert) => return Some(Finding::Refused(alert)),
            _ => "connection reset",
        },
    };
    Some(Finding::Tls(Box::new(Failure::lacking(end))))
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
