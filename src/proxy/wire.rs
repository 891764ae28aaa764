//! Connections to upstreams that pingora uses: dialled here and not by pingora, so that each is known to its upstream and
//! an idle one can be closed the moment its upstream becomes unhealthy (pingora's pool has no way to do that).
//!
//! A connection's descriptor is only touched under the lock that forgetting it takes, and pingora calls our tracer
//! before it closes the descriptor: so it is open, and it is that connection's, whenever we shut it down.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::socket::Shutdown;
use parking_lot::Mutex;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{Digest, GetProxyDigest};
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions, Tracer, Tracing};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use tokio::time::Instant;

use super::conduct::{Conduct, Heard, listen};
use super::connect::{UpstreamIo, dial};
use super::kept::DataPath;
use crate::exchange::{Attempt, ConnectError};
use crate::model::Address;
use crate::model::policy::UpstreamConnections;
use crate::pool::{Connection, Upstream};

/// Pingora's error type for our own lack of descriptors, ports or memory.
pub(super) const NO_RESOURCES: ErrorType = ErrorType::Custom("no resources");
/// Pingora's error type for dialling that was given up, because the upstream may not be picked any more.
pub(super) const OUTDATED: ErrorType = ErrorType::Custom("outdated");

/// The peer for pingora, and whether its connection serves this request alone. Connections of another epoch are never found
/// under its key.
pub fn peer(upstream: &Arc<Upstream>, attempt: &Attempt) -> Result<(HttpPeer, bool)> {
    let Attempt { epoch, timeouts, connections, .. } = attempt;
    let data_path = DataPath::of(upstream);
    let template = match data_path.peer.get() {
        Some(template) => template,
        None => {
            let made = template(upstream)?;
            data_path.peer.get_or_init(|| Box::new(made))
        }
    };
    let mut peer = HttpPeer::clone(template);
    peer.options.read_timeout = Some(timeouts.idle);
    peer.options.write_timeout = Some(timeouts.idle);
    peer.options.idle_timeout = Some(connections.idle_timeout);
    let (weak, conduct) = (Arc::downgrade(upstream), data_path.conduct.clone());
    peer.options.custom_l4 = Some(Arc::new(Dialer { upstream: weak, conduct, limit: timeouts.connect }));
    let single_use = !data_path.conduct.allows(attempt.reuse, Instant::now());
    // Upstream numbers are never used again, so the key is unique for an upstream and its epoch. Nothing is pooled under
    // a random one.
    peer.group_key = if single_use { fastrand::u64(..) | 1 << 63 } else { upstream.id.0 << 24 ^ epoch };
    Ok((peer, single_use))
}

/// What all peers of an upstream have in common.
fn template(upstream: &Upstream) -> Result<HttpPeer> {
    let mut peer = match &upstream.address {
        Address::Inet(inet) => HttpPeer::new(*inet, false, String::new()),
        Address::Unix(path) => {
            let path = path.to_str().ok_or_else(|| Error::new_str("a socket path that is no text"))?;
            HttpPeer::new_uds(path, false, String::new())?
        }
        Address::Name { .. } => return Err(Error::new_str("a name that is not resolved")),
    };
    peer.options = PeerOptions::new();
    Ok(peer)
}

/// Dials one upstream for pingora. Held by the upstream itself, which it therefore must not keep alive.
#[derive(Debug)]
struct Dialer {
    upstream: Weak<Upstream>,
    conduct: Arc<Conduct>,
    limit: Duration,
}

#[async_trait]
impl Connect for Dialer {
    async fn connect(&self, _address: &PingoraAddr) -> Result<Stream> {
        let upstream = self.upstream.upgrade().ok_or_else(|| Error::new_str("an upstream that is gone"))?;
        // As it was before dialling: what changed meanwhile makes the connection too old to be kept.
        let epoch = upstream.connections.epoch();
        let io = dial(&upstream, epoch, self.limit).await.map_err(|why| {
            Error::new(match why {
                ConnectError::Resources => NO_RESOURCES,
                ConnectError::TimedOut => ErrorType::ConnectTimedout,
                ConnectError::Refused => ErrorType::ConnectError,
                ConnectError::Outdated => OUTDATED,
            })
        })?;
        let (mut stream, fd) = match io {
            UpstreamIo::Tcp(tcp) => {
                let fd = tcp.as_raw_fd();
                (Stream::from(tcp), fd)
            }
            UpstreamIo::Unix(unix) => {
                let fd = unix.as_raw_fd();
                (Stream::from(unix), fd)
            }
        };
        let wire = Wire::register(&upstream, fd, epoch, self.conduct.clone());
        stream.tracer = Some(Tracer(Box::new(Ending(wire.clone()))));
        // The digest goes with the connection through pingora's pool: no look-up by descriptor.
        let unused = Box::new(ResponseHeader::build_no_case(200, Some(0))?);
        stream.set_proxy_digest(ProxyDigest::new(unused, Some(Box::new(wire))));
        Ok(stream)
    }
}

/// The connection that pingora has taken, from its digest.
pub fn wire_of(digest: &Digest) -> Option<&Arc<Wire>> {
    digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref::<Arc<Wire>>()
}

/// One open connection.
#[derive(Debug)]
pub struct Wire {
    upstream: Weak<Upstream>,
    epoch: u64,
    conduct: Arc<Conduct>,
    /// A request takes this lock when it begins and when it ends, so that a connection is never shut down under it.
    /// Contended only in the moment in which its upstream becomes unhealthy.
    state: Mutex<WireState>,
}

#[derive(Debug)]
struct WireState {
    /// `None` once it is about to close.
    fd: Option<RawFd>,
    /// In the upstream's list of connections.
    key: u64,
    /// Requests that use it. Two for a moment, when one has given it to the pool and the next has taken it before the
    /// first has ended.
    users: u32,
    /// We have shut it down.
    shut: bool,
    /// Its last answer had no body: what comes now may be one all the same.
    bodiless: bool,
    /// Pingora has closed it while it was in use, and the upstream had not.
    given_up: bool,
    /// Until when it may be used again; `None` before its first request has ended.
    idle_until: Option<Instant>,
}

impl WireState {
    fn shut(&mut self) {
        if let Some(fd) = self.fd {
            // Pingora's watcher of the idle connection sees the end and closes it.
            let _ = nix::sys::socket::shutdown(fd, Shutdown::Both);
        }
        self.shut = true;
    }
}

impl Wire {
    fn register(upstream: &Arc<Upstream>, fd: RawFd, epoch: u64, conduct: Arc<Conduct>) -> Arc<Wire> {
        conduct.idle.fetch_add(1, Ordering::Relaxed);
        let state = WireState {
            fd: Some(fd),
            key: 0,
            users: 0,
            shut: false,
            bodiless: false,
            given_up: false,
            idle_until: None,
        };
        let wire = Arc::new(Wire { upstream: Arc::downgrade(upstream), epoch, conduct, state: Mutex::new(state) });
        let key = upstream.connections.insert(wire.clone());
        wire.state.lock().key = key;
        wire
    }

    /// A request begins to use it; `None`: it was shut down, and nothing has been sent on it. After the request it is kept
    /// only as these limits say.
    pub fn begin(self: &Arc<Wire>, limits: UpstreamConnections) -> Option<InUse> {
        let mut state = self.state.lock();
        if state.shut {
            return None;
        }
        if state.users == 0 {
            self.conduct.idle.fetch_sub(1, Ordering::Relaxed);
        }
        state.users += 1;
        drop(state);
        Some(InUse { wire: self.clone(), limits, last: false })
    }

    fn end(&self, last: bool, limits: UpstreamConnections) {
        let mut state = self.state.lock();
        state.users -= 1;
        if state.users > 0 || state.fd.is_none() {
            return;
        }
        let idle = self.conduct.idle.fetch_add(1, Ordering::Relaxed) + 1;
        let epoch = self.upstream.upgrade().map(|upstream| upstream.connections.epoch());
        let now = Instant::now();
        let dirty = if state.bodiless { self.is_dirty(&state) } else { self.conduct.is_suspect(false, now) };
        state.idle_until = Some(now + limits.idle_timeout);
        let kept = idle <= limits.idle_per_upstream && !limits.idle_timeout.is_zero();
        if last || epoch != Some(self.epoch) || !kept || dirty {
            state.shut();
        }
    }

    fn is_dirty(&self, state: &WireState) -> bool {
        let heard = match state.fd {
            Some(fd) if !state.shut => listen(fd),
            Some(_) | None => return true,
        };
        let now = Instant::now();
        match heard {
            Heard::Nothing => {}
            Heard::Bytes => {
                self.conduct.on_unasked(state.bodiless, now);
                if let Some(upstream) = self.upstream.upgrade() {
                    upstream.note_unasked(now);
                }
            }
            Heard::End => self.conduct.on_closed(now),
        }
        let is_old = state.idle_until.is_some_and(|until| until <= now);
        heard != Heard::Nothing || is_old || self.conduct.is_suspect(state.bodiless, now)
    }
}

impl Connection for Wire {
    fn close_if_idle(&self) {
        let mut state = self.state.lock();
        if state.users == 0 {
            state.shut();
        }
    }
}

/// A request's use of a connection, until it is dropped.
#[derive(Debug)]
pub struct InUse {
    wire: Arc<Wire>,
    limits: UpstreamConnections,
    last: bool,
}

impl InUse {
    /// Whether pingora closed the connection although neither the upstream nor we wanted that: it has read more than the answer.
    pub fn was_given_up(&self) -> bool {
        !self.last && self.wire.state.lock().given_up
    }

    /// Bytes have come after its answer, which pingora has read.
    pub fn on_unasked(&self, upstream: &Upstream, now: Instant) {
        self.wire.conduct.on_unasked(self.wire.state.lock().bodiless, now);
        upstream.note_unasked(now);
    }

    /// For how long it may be kept after this request; `None`: it must not be.
    pub fn keep_for(&mut self, idle: Option<Duration>) {
        match idle {
            Some(idle) => self.limits.idle_timeout = idle,
            None => self.last(),
        }
    }

    /// No further request may use it.
    pub fn last(&mut self) {
        self.last = true;
    }

    /// Whether nothing may be sent on it, because it has served a request before and is closed since, or bytes have come that
    /// nobody asked for. Asked right before the first byte is written: what comes later cannot be told from an answer.
    pub fn is_dirty(&self) -> bool {
        let mut state = self.wire.state.lock();
        let dirty = self.wire.is_dirty(&state);
        state.bodiless = false;
        dirty
    }

    /// The upstream closed it when the request was on its way already.
    pub fn closed_too_early(&self) {
        self.wire.conduct.on_closed(Instant::now());
    }

    /// Its answer has no body (to HEAD, or 204, or 304). Some upstreams send one all the same.
    pub fn bodiless(&self) {
        self.wire.state.lock().bodiless = true;
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.wire.end(self.last, self.limits);
    }
}

/// Forgets a connection that pingora is about to close.
#[derive(Debug, Clone)]
struct Ending(Arc<Wire>);

impl Tracing for Ending {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        let mut state = self.0.state.lock();
        let Some(fd) = state.fd else { return };
        if state.users > 0 {
            state.given_up = !state.shut && listen(fd) != Heard::End;
        } else {
            // Pingora drops an idle connection when something comes on it, and takes one byte of that.
            self.0.is_dirty(&state);
        }
        state.fd = None;
        if state.users == 0 {
            self.0.conduct.idle.fetch_sub(1, Ordering::Relaxed);
        }
        let key = state.key;
        drop(state);
        if let Some(upstream) = self.0.upstream.upgrade() {
            upstream.connections.remove(key);
        }
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::super::conduct::UNRULY;
    use super::*;
    use crate::exchange::Reuse;
    use crate::model::Name;
    use crate::model::policy::TrafficPolicy;
    use crate::pool::{Hints, UpstreamId};

    const LIMITS: UpstreamConnections = UpstreamConnections {
        idle_per_upstream: 128,
        idle_timeout: Duration::from_secs(300),
        ..UpstreamConnections::DEFAULT
    };

    fn a_peer(upstream: &Arc<Upstream>, epoch: u64, reuse: Reuse) -> (HttpPeer, bool) {
        let traffic = TrafficPolicy::default();
        let attempt = Attempt {
            epoch,
            reuse,
            timeouts: traffic.timeouts,
            deadline: None,
            connections: traffic.connections,
            may_be_cut: false,
            replay_bytes: 0,
        };
        peer(upstream, &attempt).unwrap()
    }

    /// A wire over a real socket, its other end, and its upstream.
    fn wire(conduct: &Arc<Conduct>) -> (Arc<Wire>, [StdUnixStream; 2], Arc<Upstream>) {
        let name = Name::try_new("api").unwrap();
        let address = "127.0.0.1:80".parse().unwrap();
        let upstream = Arc::new(Upstream::new(UpstreamId(1), name, address, Hints::none()));
        let (near, far) = StdUnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let epoch = upstream.connections.epoch();
        (Wire::register(&upstream, near.as_raw_fd(), epoch, conduct.clone()), [near, far], upstream)
    }

    /// The upstream may not be picked any more.
    fn lose(upstream: &Upstream) {
        upstream.connections.begin_epoch();
        upstream.connections.close_idle();
    }

    fn is_open(far: &mut StdUnixStream) -> bool {
        far.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    #[test]
    fn a_new_epoch_closes_what_is_idle_at_once_and_what_is_in_use_at_its_end() {
        let conduct = Arc::default();
        let (wire, [_near, mut far], upstream) = wire(&conduct);
        let in_use = wire.begin(LIMITS).expect("it is open");
        lose(&upstream);
        assert!(is_open(&mut far), "it is in use");
        drop(in_use);
        assert!(!is_open(&mut far));
        assert!(wire.begin(LIMITS).is_none(), "nobody may use it again");
    }

    #[test]
    fn two_uses_that_overlap_for_a_moment_are_one_idle_connection_less() {
        let conduct = Arc::default();
        let (wire, [_near, mut far], upstream) = wire(&conduct);
        let first = wire.begin(LIMITS).unwrap();
        let second = wire.begin(LIMITS).unwrap();
        assert_eq!(conduct.idle.load(Ordering::Relaxed), 0);
        drop(first);
        lose(&upstream);
        assert!(is_open(&mut far), "the second is on its way");
        drop(second);
        assert!(!is_open(&mut far));
        assert_eq!(conduct.idle.load(Ordering::Relaxed), 1);
        Ending(wire).on_disconnected();
        assert_eq!(conduct.idle.load(Ordering::Relaxed), 0);
        assert!(upstream.connections.is_empty());
    }

    #[test]
    fn a_descriptor_is_not_touched_after_its_connection_was_forgotten() {
        let conduct = Arc::default();
        let (wire, [_near, mut far], upstream) = wire(&conduct);
        let in_use = wire.begin(LIMITS).unwrap();
        Ending(wire.clone()).on_disconnected();
        lose(&upstream);
        wire.close_if_idle();
        drop(in_use);
        assert!(is_open(&mut far), "by now the number may be another connection's");
        assert_eq!(conduct.idle.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn only_so_many_idle_connections_are_kept_and_none_of_a_fresh_attempt() {
        let conduct: Arc<Conduct> = Arc::default();
        conduct.idle.store(LIMITS.idle_per_upstream, Ordering::Relaxed);
        let (wire, [_near, mut far], _upstream) = wire(&conduct);
        drop(wire.begin(LIMITS));
        assert!(!is_open(&mut far), "one too many");
        let conduct = Arc::default();
        let (wire, [_near, mut far], _upstream) = self::wire(&conduct);
        let mut in_use = wire.begin(LIMITS).unwrap();
        in_use.last();
        drop(in_use);
        assert!(!is_open(&mut far));
    }

    #[test]
    fn peers_share_connections_within_an_epoch_and_upstream_only() {
        let (_, _, one) = wire(&Arc::default());
        let key = |upstream: &Arc<Upstream>, fresh| {
            let reuse = if fresh { Reuse::Never } else { Reuse::Any };
            a_peer(upstream, upstream.connections.epoch(), reuse).0.group_key
        };
        assert_eq!(key(&one, false), key(&one, false));
        assert_ne!(key(&one, true), key(&one, true));
        let before = key(&one, false);
        lose(&one);
        assert_ne!(key(&one, false), before);
        let name = Name::try_new("other").unwrap();
        let two = Arc::new(Upstream::new(UpstreamId(2), name, one.address.clone(), Hints::none()));
        assert_ne!(key(&two, false), before);
        let gone = Arc::downgrade(&two);
        drop(two);
        assert!(gone.upgrade().is_none(), "what the data path keeps does not keep the upstream");
    }

    #[test]
    fn a_kept_connection_is_dirty_once_it_is_closed_or_bytes_have_come() {
        for closed in [false, true] {
            let conduct = Arc::default();
            let (wire, [_near, mut far], _upstream) = wire(&conduct);
            drop(wire.begin(LIMITS));
            let in_use = wire.begin(LIMITS).unwrap();
            assert!(!in_use.is_dirty());
            if closed {
                far.shutdown(std::net::Shutdown::Write).unwrap();
            } else {
                far.write_all(b"x").unwrap();
            }
            assert!(in_use.is_dirty(), "closed: {closed}");
        }
        let (wire, _ends, _upstream) = wire(&Arc::default());
        let in_use = wire.begin(LIMITS).unwrap();
        wire.state.lock().shut();
        assert!(in_use.is_dirty(), "we have closed it ourselves");
    }

    #[tokio::test(start_paused = true)]
    async fn who_speaks_unasked_is_not_kept_for_a_minute_unless_it_was_a_last_word() {
        let conduct = Arc::default();
        for (late, last_word, kept) in [("", false, true), ("408", true, true), ("second", false, false)] {
            let (wire, [_near, mut far], _upstream) = wire(&conduct);
            drop(wire.begin(LIMITS));
            far.write_all(late.as_bytes()).unwrap();
            if last_word {
                far.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let in_use = wire.begin(LIMITS).unwrap();
            assert_eq!(in_use.is_dirty(), !late.is_empty(), "{late:?}");
            let (other, _ends, _upstream) = self::wire(&conduct);
            assert_eq!(!other.begin(LIMITS).unwrap().is_dirty(), kept, "{late:?}");
        }
        let (other, [_near, mut far], _upstream) = wire(&conduct);
        drop(other.begin(LIMITS));
        assert!(!is_open(&mut far), "none is kept");
        tokio::time::advance(UNRULY).await;
        let (other, [_near, mut far], _upstream) = wire(&conduct);
        drop(other.begin(LIMITS));
        assert!(is_open(&mut far));
        // What pingora finds is noticed too.
        far.write_all(b"second").unwrap();
        Ending(other).on_disconnected();
        assert!(conduct.is_suspect(false, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_closes_kept_connections_gets_what_cannot_be_sent_twice_on_new_ones_for_a_minute() {
        let (_, _, upstream) = wire(&Arc::default());
        let single_use = |reuse| a_peer(&upstream, 0, reuse).1;
        assert_eq!([Reuse::Any, Reuse::Safe, Reuse::Never].map(single_use), [false, false, true]);
        let data_path = DataPath::of(&upstream);
        for found_by_us in [true, false] {
            let (wire, [_near, far], _upstream) = wire(&data_path.conduct);
            let in_use = wire.begin(LIMITS).unwrap();
            drop(far);
            if found_by_us {
                assert!(in_use.is_dirty());
            } else {
                drop(in_use);
                Ending(wire).on_disconnected();
            }
            assert_eq!([Reuse::Any, Reuse::Safe, Reuse::Never].map(single_use), [false, true, true], "{found_by_us}");
            tokio::time::advance(UNRULY).await;
            assert!(!single_use(Reuse::Safe));
        }
        // What we have closed ourselves says nothing about it.
        let (wire, _ends, _upstream) = wire(&data_path.conduct);
        wire.state.lock().shut();
        assert!(wire.begin(LIMITS).is_none());
        Ending(wire).on_disconnected();
        assert!(!single_use(Reuse::Safe));
    }

    #[test]
    fn who_sends_a_body_where_there_is_none_is_found_out_and_not_trusted_again() {
        let conduct = Arc::default();
        let use_for = |bodiless: bool, late: &str| {
            let (wire, [_near, mut far], _upstream) = wire(&conduct);
            let in_use = wire.begin(LIMITS).unwrap();
            if bodiless {
                in_use.bodiless();
            }
            far.write_all(late.as_bytes()).unwrap();
            drop(in_use);
            is_open(&mut far)
        };
        assert!(use_for(true, ""), "nothing has come");
        assert!(use_for(true, ""), "that was no answer without a body");
        assert!(!use_for(true, "late"));
        assert!(!use_for(true, ""), "it would come again, a moment later");
        assert!(use_for(false, ""), "answers with a body are trusted as before");
    }
}
