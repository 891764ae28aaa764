//! `type = "tls"`: a handshake and a close. The probe waits for the close of the peer: with TLS 1.3 a peer rejects a missing
//! client certificate only after the handshake, and unread data would turn our close into a reset. Some peers close without
//! an alert: a peer that asked for a certificate that the check does not have gets a moment to do so.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::Stop;
use super::connect::{Peer, Steps, Stream};
use super::finding::Finding;
use super::http::stop_of;
use crate::tls::{Failure, alert};

/// How long a peer that asked for a certificate and got none may take to reject us, within the deadline: that takes one
/// round trip. After our close_notify, a close of the peer no longer shows a rejection.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(250);
/// How long the peer may take to close, within the deadline.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are read until the peer closes.
const CLOSE_BYTES_MAX: usize = 64 << 10;

/// One TLS probe, finished by `deadline`.
pub(super) async fn run(peer: &Peer, deadline: Instant, steps: &mut Steps) -> Finding<'static> {
    let talk = async {
        match peer.open(steps).await {
            Ok(mut stream) => match refusal(peer, &mut stream, steps).await {
                Some(finding) => finding,
                None => part(&mut stream, CLOSE_PATIENCE).await,
            },
            Err(finding) => finding,
        }
    };
    match timeout_at(deadline, talk).await {
        Ok(finding) => finding,
        Err(_elapsed) => steps.timeout().unwrap_or(Finding::HandshakeDone),
    }
}

/// The finding if a peer that asked for a certificate ends the connection without getting one.
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

/// Closes and waits for the peer's close. Only an alert that rejects us changes the finding.
async fn part(stream: &mut Stream, patience: Duration) -> Finding<'static> {
    match timeout(patience, close(stream)).await {
        Ok(Err(error)) => alert(&error).map_or(Finding::HandshakeDone, Finding::Refused),
        Ok(Ok(())) | Err(_) => Finding::HandshakeDone,
    }
}

/// Closes: ends our side, and reads until the peer has ended its side. The caller limits the time.
pub(super) async fn close(stream: &mut Stream) -> io::Result<()> {
    // A peer that has rejected us may have closed already: its alert is still unread.
    let ended = stream.shutdown().await;
    let mut rest = [0; 1 << 10];
    let mut left = CLOSE_BYTES_MAX;
    while left > 0 {
        match stream.read(&mut rest).await? {
            0 => break,
            n => left = left.saturating_sub(n),
        }
    }
    ended
}
