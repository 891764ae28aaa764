//! What a client's connection costs at rest, and what comes of listening to one, by what it sends and when.

use arc_swap::ArcSwap;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::super::listen::ListenerHandle;
use super::*;
use crate::exchange::NoDesk;
use crate::model::policy::ClientTimeouts;
use crate::pool::Snapshot;

fn size_of_future<A, B, C, D, E, F: Future>(_: fn(A, B, C, D, E) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_quiet_connection_carries_no_size_of_a_lane() {
    let size = size_of_future(serve::<[usize; 4]>);
    assert!(size <= 400, "{size} bytes");
}

#[test]
fn a_busy_connection_carries_no_size_of_the_general_lane() {
    fn size_of_future<'a, F: Future>(_: fn(Busy<'a>, ClientIo) -> F) -> usize {
        size_of::<F>()
    }
    let size = size_of_future(Busy::serve);
    assert!(size <= 4_096, "{size} bytes");
}

/// A process without a configuration: every request is answered by us.
fn front() -> Front {
    let general = Arc::new(http_proxy(&Arc::new(ServerConf::default()), General));
    let (_, never) = watch::channel(false);
    Front {
        published: Arc::new(ArcSwap::from_pointee(Snapshot::empty())),
        stats: Arc::default(),
        desk: Arc::new(NoDesk),
        lane: Lane::Auto,
        links: Arc::new(Links::new(1, 1)),
        general,
        in_flight: InFlight::default(),
        never,
    }
}

/// What a client does.
#[derive(Debug, Clone, Copy)]
enum Does {
    Sends(&'static str),
    /// For so many seconds nothing.
    Pauses(u64),
    /// It closes its side.
    Ends,
    /// Our listener takes no further request.
    Stopped,
}

use Does::{Ends, Pauses, Sends, Stopped};

/// What came of listening, in a word, and after how many whole seconds.
async fn heard(first: bool, does: &'static [Does]) -> (String, u64, u64) {
    let (front, (handle, stop)) = (front(), ListenerHandle::new());
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let now = Instant::now();
    let client = tokio::spawn(async move {
        for does in does {
            match *does {
                Sends(text) => theirs.write_all(text.as_bytes()).await.unwrap(),
                Pauses(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                Ends => theirs.shutdown().await.unwrap(),
                Stopped => handle.stop(),
            }
        }
        (theirs, handle)
    });
    let mut busy = Busy {
        front: &front,
        listener: ListenerId(0),
        address: None,
        policy: ClientPolicy::default(),
        stop: &stop,
        requests: u32::from(!first),
        since: now,
        alarm: Alarm::default(),
        handover: None,
    };
    let entry = Entry { listener: ListenerId(0), client: None, scheme: Scheme::Http };
    let rng = fastrand::Rng::with_seed(1);
    let exchange =
        Box::new(Exchange::new(front.published.clone(), front.stats.clone(), front.desk.clone(), entry, now, rng));
    let mut held = Held { client: Box::new(Client::new(ClientIo::Unix(ours))), exchange };
    let word = match busy.hear(&mut held).await {
        Heard::Request(_, next) => {
            assert!(matches!(next, Next::Answer(_)), "there is no pool: {next:?}");
            held.exchange.on_end(End::Delivered, Instant::now());
            "request".to_owned()
        }
        Heard::Refused(refusal) => refusal.reason.as_str().to_owned(),
        Heard::Quiet => "quiet".to_owned(),
        Heard::Nothing => "nothing".to_owned(),
    };
    let took = now.elapsed().as_secs();
    client.abort();
    (word, took, front.stats.silent.load(Ordering::Relaxed))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_and_a_client_without_one_is_quiet_or_gone() {
    let ClientTimeouts { header, keep_alive, .. } = ClientTimeouts::DEFAULT;
    assert_eq!((header.as_secs(), keep_alive.as_secs()), (10, 75), "the table counts with these");
    // What the client does, what comes of it, after how many seconds, and whether it counts as silent: on a new connection
    // and on one that has had a request.
    for (does, [new, later]) in [
        (&[Sends(GET)][..], [("request", 0, 0); 2]),
        (&[Sends("\r\n"), Pauses(1), Sends(GET)], [("request", 1, 0); 2]),
        // Wherever it pauses, up to the limit.
        (&[Sends("G"), Pauses(9), Sends("ET / HTTP/1.1\r\nHost: a\r\n\r\n")], [("request", 9, 0); 2]),
        (&[Sends("GET / HTTP/1.1\r\nHost: a\r\n\r"), Pauses(9), Sends("\n")], [("request", 9, 0); 2]),
        (&[Sends("GET / HTTP/1.1\r\n"), Pauses(60)], [("header_timeout", 10, 0); 2]),
        // Each byte does not give it more.
        (
            &[Sends("G"), Pauses(6), Sends("E"), Pauses(6), Sends("T"), Pauses(6), Sends(" /")],
            [("header_timeout", 10, 0); 2],
        ),
        // An empty line begins no head: then the limit is the one of a quiet connection.
        (&[Sends("\r\n"), Pauses(90)], [("nothing", 10, 1), ("nothing", 75, 0)]),
        (&[Pauses(90)], [("quiet", 0, 0); 2]),
        (&[Ends], [("nothing", 0, 0); 2]),
        (&[Sends("GET / HTTP/1.1\r\n"), Pauses(2), Ends], [("nothing", 2, 0); 2]),
        (&[Sends("GET\r\n\r\n")], [("malformed", 0, 0); 2]),
        (&[Sends("GET / HTTP/1.1\r\n"), Pauses(3), Sends("\r\n")], [("malformed", 3, 0); 2]),
        // A stop lets a head that has begun come to its end.
        (&[Stopped, Pauses(90)], [("quiet", 0, 0); 2]),
        (&[Stopped, Sends("\r\n"), Pauses(90)], [("nothing", 0, 0); 2]),
        (&[Sends("GET / HTTP/1.1\r\n"), Stopped, Pauses(5), Sends("Host: a\r\n\r\n")], [("request", 5, 0); 2]),
        (&[Sends("GET / HTTP/1.1\r\n"), Stopped, Pauses(60)], [("header_timeout", 10, 0); 2]),
    ] {
        for (first, (word, took, silent)) in [(true, new), (false, later)] {
            assert_eq!(heard(first, does).await, (word.to_owned(), took, silent), "first: {first}, {does:?}");
        }
    }
}
