//! Several clients over one data plane and one upstream, each with a tag that is in everything it sends and gets: no tag is
//! ever seen by another client or in another client's request, whatever they send, and whatever comes after a response or on
//! an idle connection.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::answers::{Answers, POISON};
use super::run::{Client, Patience, World, settle};
use super::stream::Stream;
use crate::lanes::each::in_each_lane;

/// Nothing else contains these letters.
pub const TAGS: [&str; 4] = ["jQ", "jJ", "jW", "jV"];
/// How long each property is tried in each lane.
const TIME: Duration = Duration::from_secs(2);
const CASES_MIN: u64 = 8;
const SOON: Duration = Duration::from_secs(60);

in_each_lane!(nothing_of_one_client_reaches_another_whatever_they_send);
async fn nothing_of_one_client_reaches_another_whatever_they_send() {
    for_each_seed(async |seed| {
        let mut rng = Rng::with_seed(seed);
        let world = World::start(Answers::valid(&mut rng), seed).await;
        let streams = TAGS.map(|tag| of_one_client(tag, &mut rng));
        let mut clients = Vec::new();
        for _ in TAGS {
            clients.push(Client::connect(&world.rig).await);
        }
        let mut rest: Vec<_> = streams.iter().map(Pieces::new).collect();
        // Piece by piece, each time of another client.
        while rest.iter().any(|pieces| !pieces.left.is_empty()) {
            let at = rng.usize(..TAGS.len());
            let piece = rest[at].next();
            clients[at].write_all(piece).await;
            settle().await;
        }
        let mut got = Vec::new();
        for client in &mut clients {
            client.end(&world, Patience::SHORT).await;
        }
        for client in clients {
            got.push(client.close().0);
        }
        check(seed, world, &got).await;
    })
    .await;
}

in_each_lane!(bytes_on_an_idle_upstream_connection_reach_no_client);
async fn bytes_on_an_idle_upstream_connection_reach_no_client() {
    for_each_seed(async |seed| {
        let mut rng = Rng::with_seed(seed);
        let world = World::start(Answers::valid(&mut rng), seed).await;
        let mut clients = Vec::new();
        for _ in TAGS {
            clients.push(Client::connect(&world.rig).await);
        }
        let mut asked = [0; TAGS.len()];
        for round in 0..3_u32 {
            for (at, client) in clients.iter_mut().enumerate() {
                for _ in 0..rng.usize(..3) {
                    let (tag, number) = (TAGS[at], asked[at]);
                    let body = tag.repeat(rng.usize(..200));
                    let request = format!(
                        "POST /{tag}/{number} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    assert!(client.write_all(request.as_bytes()).await, "seed {seed}: the connection goes on");
                    asked[at] += 1;
                }
                settle().await;
            }
            let answered = |client: &Client| client.finals();
            let end = Instant::now() + SOON;
            while clients.iter().zip(asked).any(|(client, asked)| answered(client) < asked) {
                assert!(Instant::now() < end, "seed {seed}: not every request is answered");
                settle().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Everything is idle: now upstream connections speak, and the next requests come.
            let state = || {
                let log = world.book.log.lock();
                (log.idle, log.moved)
            };
            let before = state();
            world.speak.send_replace(round + 1);
            let spoken = || before.0 == 0 || state().1 > before.1 || state().0 == 0;
            while !spoken() {
                assert!(Instant::now() < end, "seed {seed}: the origin does not speak");
                settle().await;
            }
            settle().await;
        }
        let mut got = Vec::new();
        for (client, asked) in clients.into_iter().zip(asked) {
            assert_eq!(client.finals(), asked, "seed {seed}");
            got.push(client.close().0);
        }
        check(seed, world, &got).await;
    })
    .await;
}

/// Runs it with seeds of the suite, or with the one of `ROUNDSMAN_SEED`, or with fresh ones for `ROUNDSMAN_DIFF_SECONDS`.
async fn for_each_seed(case: impl AsyncFn(u64)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("ROUNDSMAN_SEED") {
        return case(seed).await;
    }
    let long = number("ROUNDSMAN_DIFF_SECONDS").map(Duration::from_secs);
    let first = if long.is_some() { fastrand::u64(1 << 32..1 << 48) } else { 1 };
    let end = Instant::now() + long.unwrap_or(TIME);
    let mut cases = 0;
    while Instant::now() < end || cases < CASES_MIN {
        case(first + cases).await;
        cases += 1;
    }
}

/// A stream with the tag of its client alone: a changed byte can make another tag of it.
fn of_one_client(tag: &str, rng: &mut Rng) -> Stream {
    loop {
        let stream = Stream::new(tag, rng);
        if TAGS.iter().all(|other| *other == tag || !contains(&stream.bytes, other)) {
            return stream;
        }
    }
}

/// Each client got nothing of another one, and no request holds anything of two of them.
async fn check(seed: u64, world: World, got: &[Vec<u8>]) {
    let log = world.stop().await;
    assert!(log.faults.is_empty(), "seed {seed}: not canonical at the origin: {:?}", log.faults);
    for (at, bytes) in got.iter().enumerate() {
        let foreign = TAGS.iter().enumerate().find(|(other, tag)| *other != at && contains(bytes, tag));
        assert_eq!(foreign, None, "seed {seed}: client {at} got {}", bytes.escape_ascii());
        assert!(!contains(bytes, POISON), "seed {seed}: client {at} got {}", bytes.escape_ascii());
    }
    for request in &log.requests {
        let tags = TAGS.iter().filter(|tag| contains(&request.raw, tag)).count();
        assert!(tags <= 1, "seed {seed}: a request of two clients: {}", request.raw.escape_ascii());
    }
    assert!(!log.requests.is_empty() || got.iter().all(|bytes| !contains(bytes, "HTTP/1.1 200")), "seed {seed}");
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The rest of a stream, in its pieces.
struct Pieces<'a> {
    left: &'a [u8],
    cuts: std::slice::Iter<'a, usize>,
}

impl<'a> Pieces<'a> {
    fn new(stream: &'a Stream) -> Pieces<'a> {
        Pieces { left: &stream.bytes, cuts: stream.cuts.iter() }
    }

    fn next(&mut self) -> &'a [u8] {
        let length = self.cuts.next().map_or(self.left.len(), |cut| (*cut).min(self.left.len()));
        let (piece, left) = self.left.split_at(length);
        self.left = left;
        piece
    }
}
