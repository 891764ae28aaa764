//! The entry point for fuzzing which bytes of a client's stream belong to which request: bytes in, requests out, as the
//! express lane and as the general lane take them. Not part of the interface: it may change at any time.

use std::future::poll_fn;

use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;

use super::{Client, ClientIo};
use crate::exchange::{ClientClock, judge};
use crate::model::policy::{ClientLimits, ClientTimeouts, RetryPolicy};

/// How a lane takes a request out of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Where it lies in the buffer, as the express lane does.
    InPlace,
    /// As a reader would, as the general lane does.
    TakenOut,
}

/// One request of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its head, byte for byte.
    pub head: Vec<u8>,
    /// Its body, with the framing of chunks; as far as it was taken, where it is not whole.
    pub body: Vec<u8>,
    /// How it ended.
    pub end: TakenEnd,
}

/// How a request of a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakenEnd {
    /// With its last byte.
    Whole,
    /// It broke a rule: this one.
    Refused(&'static str),
    /// With the end of the stream.
    Cut,
}

/// The requests in `bytes`, which arrive in pieces whose lengths are `cuts`, repeated (a zero counts as one; no cuts: in one
/// piece), and end with the end of the stream. Must run on a runtime with one thread: that makes each piece arrive alone.
pub async fn requests(bytes: &[u8], cuts: &[usize], way: Way) -> Vec<Taken> {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    let mut client = Client::new(ClientIo::Unix(ours));
    let writing = async {
        let (mut rest, mut lengths) = (bytes, cuts.iter().cycle());
        while !rest.is_empty() {
            let length = lengths.next().map_or(rest.len(), |cut| (*cut).max(1)).min(rest.len());
            let (piece, after) = rest.split_at(length);
            rest = after;
            if theirs.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        // The reader may have ended before.
        let _ = theirs.shutdown().await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        taken = take_all(&mut client, way) => taken,
        () = writing => Vec::new(),
    }
}

async fn take_all(client: &mut Client, way: Way) -> Vec<Taken> {
    let mut all = Vec::new();
    loop {
        client.await_head();
        let framing = loop {
            let refused = match client.read_head(&ClientLimits::DEFAULT) {
                Ok(Some(head)) => match judge(&head) {
                    Ok(facts) => break facts.framing,
                    Err(refusal) => refusal.why,
                },
                Ok(None) => match client.fill().await {
                    Ok(n) if n > 0 => continue,
                    Ok(_) | Err(_) => return all,
                },
                Err(fault) => crate::exchange::Refusal::from(fault).why,
            };
            all.push(Taken { head: vec![], body: vec![], end: TakenEnd::Refused(refused) });
            return all;
        };
        client.begin(framing, None, ClientClock::start(false, ClientTimeouts::DEFAULT.body_idle));
        let head = client.read[..client.head().map_or(0, |head| head.len)].to_vec();
        let (body, end) = match way {
            Way::InPlace => in_place(client).await,
            Way::TakenOut => taken_out(client, head.len()).await,
        };
        let whole = end == TakenEnd::Whole;
        all.push(Taken { head, body, end });
        if !whole {
            return all;
        }
    }
}

/// Twice where it can be sent again: the second time must be as the first.
async fn in_place(client: &mut Client) -> (Vec<u8>, TakenEnd) {
    let mut body = Vec::new();
    client.rewind(RetryPolicy::default().replay_bytes);
    loop {
        let unsent = client.unsent();
        body.extend_from_slice(unsent);
        let n = unsent.len();
        client.on_sent(n);
        if client.has_body() {
            break;
        }
        match poll_fn(|cx| client.poll_body_bytes(cx)).await {
            Ok(n) if n > 0 => {}
            Ok(_) => return (body, TakenEnd::Cut),
            Err(_) => {
                let fault = client.fault().expect("a pair of sockets does not fail");
                return (body, TakenEnd::Refused(fault.why));
            }
        }
    }
    if client.can_rewind() {
        client.rewind(RetryPolicy::default().replay_bytes);
        assert_eq!(client.unsent(), body, "what is sent again");
        let head = client.head().map_or(0, |head| head.len);
        assert!(head > 0, "the head is sent again too");
    }
    client.settle();
    (body, TakenEnd::Whole)
}

async fn taken_out(client: &mut Client, head: usize) -> (Vec<u8>, TakenEnd) {
    let mut out = Vec::new();
    let mut room = vec![0; 512];
    let end = loop {
        if client.is_whole() {
            break TakenEnd::Whole;
        }
        let mut piece = ReadBuf::new(&mut room);
        match poll_fn(|cx| client.poll_request(cx, &mut piece)).await {
            Ok(()) if piece.filled().is_empty() => break TakenEnd::Cut,
            Ok(()) => out.extend_from_slice(piece.filled()),
            Err(_) => {
                let fault = client.fault().expect("a pair of sockets does not fail");
                break TakenEnd::Refused(fault.why);
            }
        }
    };
    (out.split_off(head.min(out.len())), end)
}
