//! Kept connections over real sockets: which one is lent, which are closed, and when.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use super::*;
use crate::model::Name;
use crate::model::policy::TrafficPolicy;
use crate::pool::{Hints, UpstreamId};
use crate::proxy::conduct::UNRULY;

/// An upstream that accepts, and what the data plane keeps with it.
struct Far {
    listener: TcpListener,
    upstream: Arc<Upstream>,
    links: Arc<Links>,
    in_flight: InFlight,
    limits: UpstreamConnections,
}

impl Far {
    /// At most `idle_max` connections are kept to all upstreams.
    fn new(idle_max: usize) -> Far {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let upstream = Upstream::new(UpstreamId(1), Name::try_new("api").unwrap(), address, Hints::none());
        let limits = UpstreamConnections {
            idle_per_upstream: 16,
            idle_timeout: Duration::from_secs(30),
            ..UpstreamConnections::default()
        };
        let links = Arc::new(Links::new(idle_max, 1));
        Far { listener, upstream: Arc::new(upstream), links, in_flight: InFlight::default(), limits }
    }

    fn kept(&self) -> &Arc<Kept> {
        &DataPath::of(&self.upstream).kept
    }

    fn epoch(&self) -> u64 {
        self.upstream.connections.epoch()
    }

    /// A new connection, and its other end.
    async fn connect(&self) -> (Box<Link>, TcpStream) {
        let TrafficPolicy { timeouts, connections, .. } = TrafficPolicy::default();
        let attempt = Attempt {
            epoch: self.epoch(),
            reuse: Reuse::Any,
            timeouts,
            deadline: None,
            connections,
            may_be_cut: false,
            replay_bytes: 0,
        };
        let link = self.kept().dial(&self.upstream, &attempt, &self.links).await.expect("it accepts");
        let (far, _) = self.listener.accept().unwrap();
        far.set_nonblocking(true).unwrap();
        (link, far)
    }

    fn give_back(&self, link: Box<Link>, bodiless: bool) {
        self.kept().give_back(&self.upstream, link, bodiless, self.limits, &self.in_flight, Instant::now());
    }

    /// A connection that is kept now, if that may be; its other end.
    async fn keep(&self) -> TcpStream {
        let (link, far) = self.connect().await;
        self.give_back(link, false);
        far
    }

    fn take(&self, reuse: Reuse) -> Option<Box<Link>> {
        self.kept().take(self.epoch(), reuse, Instant::now())
    }

    /// Whether a request may be sent on the connection that is lent.
    fn lends_clean(&self) -> bool {
        let mut link = self.take(Reuse::Any).expect("one is kept");
        !self.kept().is_dirty(&self.upstream, &mut link, Instant::now())
    }
}

fn is_open(mut far: &TcpStream) -> bool {
    far.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Whether this is the other end of the link.
fn is_of(link: &Link, far: &TcpStream) -> bool {
    let UpstreamIo::Tcp(stream) = &link.io else { return false };
    stream.local_addr().unwrap() == far.peer_addr().unwrap()
}

#[tokio::test]
async fn the_connection_used_last_is_lent_first_and_each_only_once() {
    let far = Far::new(16);
    let (one, two) = (far.keep().await, far.keep().await);
    assert!(far.take(Reuse::Never).is_none(), "this attempt must not use a kept one");
    let (second, first) = (far.take(Reuse::Any).unwrap(), far.take(Reuse::Safe).unwrap());
    assert!(is_of(&second, &two) && is_of(&first, &one));
    assert!(second.is_used() && far.take(Reuse::Any).is_none());
    assert_eq!(far.kept().count(), 2, "both are open");
    drop((first, second));
    assert!(!is_open(&one) && !is_open(&two));
    assert_eq!((far.kept().count(), far.links.open.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test]
async fn a_new_epoch_closes_what_is_idle_at_once_and_what_is_in_use_at_its_end() {
    let far = Far::new(16);
    let idle = far.keep().await;
    let (link, in_use) = far.connect().await;
    far.upstream.connections.begin_epoch();
    assert!(far.take(Reuse::Any).is_none(), "it was picked under another epoch");
    assert!(!is_open(&idle));
    far.give_back(link, false);
    assert!(!is_open(&in_use));
    let idle = far.keep().await;
    assert!(is_open(&idle), "it is of the new epoch");
    far.upstream.connections.begin_epoch();
    far.upstream.connections.close_idle();
    assert!(!is_open(&idle), "nobody has to ask for one");
}

#[tokio::test]
async fn no_more_are_kept_than_the_pool_and_the_process_allow() {
    let far = Far { limits: UpstreamConnections { idle_per_upstream: 2, ..Far::new(1).limits }, ..Far::new(16) };
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(far.keep().await);
    }
    assert_eq!(kept.iter().map(is_open).collect::<Vec<_>>(), [true, true, false], "two for each upstream");
    // Of the connections that are open, requests under way may use so many.
    for (idle_max, requests, want) in [(2, 0, [true, false, false]), (2, 1, [true, true, false]), (4, 0, [true; 3])] {
        let far = Far::new(idle_max);
        let under_way: Vec<_> = (0..requests).map(|_| far.in_flight.enter()).collect();
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept.push(far.keep().await);
        }
        assert_eq!(kept.iter().map(is_open).collect::<Vec<_>>(), want, "{idle_max} {requests}");
        drop(under_way);
    }
}

#[tokio::test]
async fn a_kept_connection_is_dirty_once_it_is_closed_or_bytes_have_come() {
    for (bytes, closed, want) in [("", false, true), ("", true, false), ("x", false, false), ("x", true, false)] {
        let far = Far::new(16);
        let mut end = far.keep().await;
        end.write_all(bytes.as_bytes()).unwrap();
        if closed {
            end.shutdown(Shutdown::Write).unwrap();
        }
        assert_eq!(far.lends_clean(), want, "{bytes:?} {closed}");
        let (mut new, _end) = far.connect().await;
        assert!(!far.kept().is_dirty(&far.upstream, &mut new, Instant::now()), "a new one never is");
    }
}

#[tokio::test]
async fn a_connection_with_bytes_after_its_response_is_not_kept_and_none_is_for_a_minute() {
    let far = Far::new(16);
    let before = far.keep().await;
    let (mut link, end) = far.connect().await;
    link.read.extend_from_slice(b"more");
    far.give_back(link, false);
    assert!(!is_open(&end));
    assert!(!far.lends_clean(), "it may be anybody's");
    assert!(!is_open(&before));
    assert!(!is_open(&far.keep().await));
    tokio::time::pause();
    tokio::time::advance(UNRULY).await;
    tokio::time::resume();
    assert!(is_open(&far.keep().await), "a minute later it is trusted again");
}

#[tokio::test]
async fn who_sends_a_body_where_there_is_none_keeps_connections_of_other_responses_only() {
    let far = Far::new(16);
    let (link, mut end) = far.connect().await;
    far.give_back(link, true);
    end.write_all(b"late").unwrap();
    assert!(!far.lends_clean());
    for (bodiless, kept) in [(true, false), (false, true)] {
        let (link, end) = far.connect().await;
        far.give_back(link, bodiless);
        assert_eq!(is_open(&end), kept, "{bodiless}");
    }
}

#[tokio::test]
async fn what_cannot_be_sent_twice_gets_a_new_connection_for_a_minute_after_one_was_closed() {
    let far = Far::new(16);
    for found_by_us in [true, false] {
        let closed = far.keep().await;
        drop(closed);
        if found_by_us {
            assert!(!far.lends_clean());
        } else {
            drop(far.take(Reuse::Any));
            far.kept().closed_too_early(Instant::now());
        }
        let open = far.keep().await;
        assert!(far.take(Reuse::Safe).is_none() && is_open(&open), "{found_by_us}");
        tokio::time::pause();
        tokio::time::advance(UNRULY).await;
        tokio::time::resume();
        drop(far.keep().await);
    }
}

#[tokio::test]
async fn what_is_idle_for_too_long_is_not_lent_and_is_closed_although_no_request_comes() {
    let far = Far::new(16);
    let idle = far.keep().await;
    tokio::time::pause();
    tokio::time::advance(far.limits.idle_timeout - Duration::from_millis(1)).await;
    drop(far.take(Reuse::Any).expect("its time is not over"));
    assert!(!is_open(&idle));
    tokio::time::resume();
    let idle = far.keep().await;
    tokio::time::pause();
    tokio::time::advance(far.limits.idle_timeout).await;
    assert!(far.take(Reuse::Any).is_none());
    assert!(!is_open(&idle));
    tokio::time::resume();
    let idle = far.keep().await;
    tokio::time::pause();
    // The sweep looks once a second.
    tokio::time::sleep(far.limits.idle_timeout + 2 * SWEEP).await;
    assert!(!is_open(&idle));
    assert_eq!(far.kept().count(), 0);
    // It has ended, and begins again with the next one.
    tokio::time::sleep(2 * SWEEP).await;
    assert!(!far.kept().sweeping.load(Ordering::SeqCst));
    tokio::time::resume();
    let idle = far.keep().await;
    tokio::time::pause();
    tokio::time::sleep(far.limits.idle_timeout + 2 * SWEEP).await;
    assert!(!is_open(&idle));
}
