//! `type = "tcp"`: connects and closes, or runs steps. Transfers the bytes and enforces the deadline; `text` decides which
//! step is next, and the finding.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::Stop;
use super::connect::{Peer, Steps, Stream};
use super::finding::Finding;
use super::http::{send, stop_of};
use super::text::{Dialogue, Next};
use super::tls;
use crate::model::policy::TcpProbe;

/// Bytes taken from the socket at a time.
const READ_BYTES: usize = 4 << 10;
/// How long the peer may take to close, within the deadline, once the finding is certain.
const CLOSE_PATIENCE: Duration = Duration::from_millis(100);

/// One TCP probe, finished by `deadline`.
pub(super) async fn run<'p>(peer: &Peer, probe: &'p TcpProbe, deadline: Instant, steps: &mut Steps) -> Finding<'p> {
    if probe.is_plain() {
        if peer.tls.is_some() {
            return Box::pin(tls::run(peer, deadline, steps)).await;
        }
        return match timeout_at(deadline, peer.open(steps)).await {
            Ok(Ok(_stream)) => Finding::Connected,
            Ok(Err(finding)) => finding,
            Err(_elapsed) => steps.timeout().unwrap_or(Finding::Connected),
        };
    }
    let mut dialogue = Dialogue::new(probe);
    // Boxed, so that the many probes that only connect are small.
    let talk = Box::pin(async {
        let stream = peer.open(steps).await?;
        converse(peer, stream, &mut dialogue, steps).await
    });
    let (stop, ended) = match timeout_at(deadline, talk).await {
        Ok(Ok(stop)) => (stop, None),
        Ok(Err(finding)) => (Stop::Enough, Some(finding)),
        Err(_elapsed) => (Stop::Deadline, steps.timeout()),
    };
    let received = std::mem::take(&mut steps.trace.body);
    let found = dialogue.finish(stop, peer.tls.is_some(), &mut steps.trace);
    let Some(finding) = ended else { return found };
    // What the peer sent instead of a TLS handshake is more useful.
    if !received.is_empty() {
        steps.trace.body = received;
    }
    finding
}

/// Runs the steps. `Enough`: the dialogue is finished.
async fn converse<'p>(
    peer: &Peer,
    mut stream: Stream,
    dialogue: &mut Dialogue<'p>,
    steps: &mut Steps,
) -> Result<Stop, Finding<'p>> {
    let mut unsent: Option<io::Error> = None;
    loop {
        match dialogue.next(steps.started.elapsed()) {
            Next::Send(bytes) => match send(&mut stream, bytes).await {
                Ok(()) => dialogue.on_sent(steps.started.elapsed()),
                Err(error) => {
                    dialogue.on_not_sent();
                    unsent = Some(error);
                }
            },
            Next::Read => match read(&mut stream, dialogue.room()).await {
                Ok(piece) if piece.is_empty() => match unsent {
                    Some(error) => return Ok(stop_of(&error)),
                    None => dialogue.on_closed(),
                },
                Ok(piece) => {
                    steps.answered();
                    dialogue.on_received(&piece);
                }
                Err(error) => return Ok(stop_of(&error)),
            },
            Next::StartTls => {
                stream = peer.start_tls(stream, steps).await?;
                dialogue.on_tls(steps.started.elapsed());
            }
            Next::Over => break,
        }
    }
    if dialogue.is_done() {
        // The finding is certain: errors no longer matter.
        let _ = timeout(CLOSE_PATIENCE, tls::close(&mut stream)).await;
    }
    Ok(unsent.map_or(Stop::Enough, |error| stop_of(&error)))
}

/// The available bytes, at most `room`; empty at the end of the stream.
async fn read(stream: &mut Stream, room: usize) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(room.min(READ_BYTES));
    stream.take(room.min(READ_BYTES) as u64).read_buf(&mut piece).await?;
    Ok(piece)
}
