//! `type = "tcp"`: connects and closes. With `send` a text is sent, with `expect` the peer is listened to until the text
//! has come, in however many pieces.

use std::time::Duration;

use memchr::memmem;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::Stop;
use super::connect::{Fault, Peer, Steps, Stream};
use super::finding::Finding;
use super::http::{send, stop_of};
use super::tls;
use crate::model::Trace;
use crate::model::policy::TcpProbe;
use crate::model::quote::Excerpt;

/// Bytes of what a peer says that are looked at.
const HEARD_BYTES_MAX: usize = 64 << 10;
/// Bytes taken from the socket at a time.
const READ_BYTES: usize = 4 << 10;
/// How long the peer may take to close, within the deadline, once the finding is certain.
const CLOSE_PATIENCE: Duration = Duration::from_millis(100);

/// One TCP probe, over by `deadline`.
pub(super) async fn run<'p>(peer: &Peer, probe: &'p TcpProbe, deadline: Instant, steps: &mut Steps) -> Finding<'p> {
    if probe.send.is_none() && probe.expect.is_none() {
        if peer.tls.is_some() {
            return Box::pin(tls::run(peer, deadline, steps)).await;
        }
        return match timeout_at(deadline, peer.open(steps)).await {
            Ok(Ok(_stream)) => Finding::Connected,
            Ok(Err(finding)) => finding,
            Err(_elapsed) => steps.timeout().unwrap_or(Finding::Connected),
        };
    }
    let mut heard = Vec::new();
    // Boxed, so that the many probes that only connect are small.
    let talk = Box::pin(async {
        let mut stream = peer.open(steps).await?;
        Ok(converse(&mut stream, probe, &mut heard, steps).await)
    });
    let stop = match timeout_at(deadline, talk).await {
        Ok(Ok(stop)) => stop,
        Ok(Err(finding)) => return finding,
        Err(_elapsed) => match steps.timeout() {
            Some(finding) => return finding,
            None => Stop::Deadline,
        },
    };
    steps.trace.body = heard[..heard.len().min(Trace::BODY_BYTES_MAX)].into();
    finding(probe, &heard, stop)
}

/// What was said, held against what was expected.
fn finding<'p>(probe: &'p TcpProbe, heard: &[u8], stop: Stop) -> Finding<'p> {
    match (stop, &probe.expect) {
        (Stop::Enough, None) => Finding::Connected,
        (Stop::Enough, Some(text)) if memmem::find(heard, text.as_bytes()).is_some() => Finding::Heard,
        (Stop::Broke(Fault::Ours(errno)), _) => Finding::NoResources(errno),
        (Stop::Refused(alert), _) => Finding::Refused(alert),
        (stop, expected) => {
            let mut excerpt = Excerpt::default();
            excerpt.push(heard);
            let (expected, sends, cut) = (expected.as_deref(), probe.send.is_some(), stop.cut());
            Finding::Unheard { expected, sends, cut, bytes: heard.len(), heard: excerpt }
        }
    }
}

/// Sends and listens. `Enough`: the finding is certain.
async fn converse(stream: &mut Stream, probe: &TcpProbe, heard: &mut Vec<u8>, steps: &mut Steps) -> Stop {
    let sent = match &probe.send {
        Some(text) => send(stream, text.as_bytes()).await,
        None => Ok(()),
    };
    let stop = match (&probe.expect, sent) {
        (Some(text), sent) => match (listen(stream, text.as_bytes(), heard, steps).await, sent) {
            // What it said counts, not the failed write.
            (Stop::Closed, Err(error)) => stop_of(&error),
            (stop, _) => stop,
        },
        (None, Ok(())) => Stop::Enough,
        (None, Err(error)) => stop_of(&error),
    };
    if stop == Stop::Enough {
        // Nothing that happens now changes the finding.
        let _ = timeout(CLOSE_PATIENCE, tls::close(stream)).await;
    }
    stop
}

async fn listen(stream: &mut Stream, text: &[u8], heard: &mut Vec<u8>, steps: &mut Steps) -> Stop {
    while heard.len() < HEARD_BYTES_MAX {
        // The text may have begun in what came before.
        let from = heard.len().saturating_sub(text.len() - 1);
        let room = (HEARD_BYTES_MAX - heard.len()).min(READ_BYTES);
        heard.reserve(room);
        match stream.take(room as u64).read_buf(heard).await {
            Ok(0) => return Stop::Closed,
            Ok(_) => steps.answered(),
            Err(error) => return stop_of(&error),
        }
        if memmem::find(&heard[from..], text).is_some() {
            break;
        }
    }
    Stop::Enough
}
