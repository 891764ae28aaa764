//! Which bytes belong to which request, over a pair of sockets: streams cut at every byte, for both ways of taking a request.

use super::fuzz::{Taken, TakenEnd, Way, requests};
use super::*;
use crate::model::policy::{ClientTimeouts, RetryPolicy};

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const SIZED: &str = "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n";
const CHUNKED: &str = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNKS: &str = "3;x=y\r\none\r\n10\r\nGET / HTTP/1.1\r\n\r\n0\r\nX-Sum: 1\r\n\r\n";

const WAYS: [Way; 2] = [Way::InPlace, Way::TakenOut];

fn whole(head: &str, body: &str) -> Taken {
    Taken { head: head.into(), body: body.into(), end: TakenEnd::Whole }
}

#[tokio::test]
async fn requests_keep_their_bytes_wherever_the_stream_is_cut() {
    let stream = [GET, SIZED, "GET / H", "\r\n", CHUNKED, CHUNKS, GET, SIZED, "seven b", "\r\n", GET].concat();
    let want = [
        whole(GET, ""),
        whole(SIZED, "GET / H"),
        whole(CHUNKED, CHUNKS),
        whole(GET, ""),
        whole(SIZED, "seven b"),
        whole(GET, ""),
    ];
    for way in WAYS {
        for first in 1..stream.len() {
            let taken = requests(stream.as_bytes(), &[first, usize::MAX], way).await;
            assert_eq!(taken, want, "{way:?}, cut after {first} bytes");
        }
        for each in [1, 2, 3, 7, 4_096] {
            assert_eq!(requests(stream.as_bytes(), &[each], way).await, want, "{way:?}, pieces of {each}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_ends_anywhere_gives_its_whole_requests_and_no_other() {
    let stream = [GET, SIZED, "GET / H", CHUNKED, CHUNKS].concat();
    let ends = [GET.len(), GET.len() + SIZED.len() + 7, stream.len()];
    for way in WAYS {
        for length in 0..=stream.len() {
            let taken = requests(&stream.as_bytes()[..length], &[], way).await;
            let whole = taken.iter().filter(|request| request.end == TakenEnd::Whole).count();
            assert_eq!(whole, ends.iter().filter(|end| **end <= length).count(), "{way:?}, {length} bytes");
            let rest = taken.iter().skip(whole).map(|request| request.end.clone()).collect::<Vec<_>>();
            assert!(matches!(rest[..], [] | [TakenEnd::Cut]), "{way:?}, {length} bytes: {rest:?}");
        }
    }
}

#[tokio::test]
async fn a_fault_ends_the_stream_with_the_same_reason_wherever_it_is_cut() {
    for (stream, before) in [
        ([GET, "GET /x HTTP/1.1\nHost: a\r\n\r\n", GET].concat(), 1),
        (
            [SIZED, "seven b", "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"].concat(),
            1,
        ),
        ([CHUNKED, "3\r\none\r\n3\r\ntwo0\r\n\r\n", GET].concat(), 0),
        ([CHUNKED, "3\r\none\r\n0\r\nContent-Length: 9\r\n\r\n", GET].concat(), 0),
        ([GET, CHUNKED, "zz\r\n", GET].concat(), 1),
    ] {
        for way in WAYS {
            let want = requests(stream.as_bytes(), &[], way).await;
            let end = |taken: &[Taken]| taken.last().map(|request| (request.head.clone(), request.end.clone()));
            assert_eq!(want.len(), before + 1, "{stream:?}: {want:?}");
            assert!(matches!(end(&want), Some((_, TakenEnd::Refused(_)))), "{stream:?}: {want:?}");
            for first in 1..stream.len() {
                let taken = requests(stream.as_bytes(), &[first, usize::MAX], way).await;
                assert_eq!((taken.len(), end(&taken)), (want.len(), end(&want)), "{stream:?} cut after {first} bytes");
            }
        }
    }
}

#[tokio::test]
async fn a_body_is_kept_for_another_attempt_up_to_a_limit() {
    let most = RetryPolicy::default().replay_bytes;
    for (length, kept) in [(100, true), (most, true), (most + 1, false), (200_000, false)] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = Client::new(ClientIo::Unix(ours));
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let sending = tokio::spawn(async move {
            let bytes = [head.into_bytes(), vec![b'x'; length], GET.into()].concat();
            tokio::io::AsyncWriteExt::write_all(&mut theirs, &bytes).await.unwrap();
            theirs
        });
        client.await_head();
        while client.read_head(&ClientLimits::DEFAULT).unwrap().is_none() {
            client.fill().await.unwrap();
        }
        client.begin(
            Framing::Length(length as u64),
            None,
            ClientClock::start(false, ClientTimeouts::DEFAULT.body_idle),
        );
        client.rewind(most);
        let mut sent = 0;
        while sent < length {
            let n = client.unsent().len();
            (sent, _) = (sent + n, client.on_sent(n));
            if !client.has_body() {
                poll_fn(|cx| client.poll_body_bytes(cx)).await.unwrap();
            }
        }
        assert_eq!(client.can_rewind(), kept, "{length}");
        if kept {
            client.rewind(most);
            assert_eq!(client.unsent().len(), length);
        }
        client.settle();
        client.await_head();
        while client.read_head(&ClientLimits::DEFAULT).unwrap().is_none() {
            client.fill().await.unwrap();
        }
        assert_eq!(client.read, GET.as_bytes(), "{length}: the next request is there, whole");
        drop(sending.await.unwrap());
    }
}
