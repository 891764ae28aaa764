//! What is believed of who a request is from, and what upstreams are given to know about it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// `[forwarded]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardedPolicy {
    /// Where the X-Forwarded-* and Forwarded of requests are believed.
    pub trusted: Trusted,
    /// Upstreams get `Forwarded` (RFC 7239) too.
    pub rfc7239: bool,
}

/// The peers that are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Networks.
    pub networks: Vec<IpNet>,
    /// Whoever connects to a unix socket.
    pub unix: bool,
}

impl Trusted {
    /// Whether the peer with this address is believed; `None`: one on a unix socket.
    pub fn has(&self, peer: Option<IpAddr>) -> bool {
        match peer.map(|peer| peer.to_canonical()) {
            None => self.unix,
            Some(peer) => self.networks.iter().any(|network| network.contains(&peer)),
        }
    }
}

/// `request_id` and `traceparent` of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// The field in which upstreams get the number of the request.
    pub request_id: Option<Arc<str>>,
    /// Requests without a `traceparent` get one.
    pub traceparent: bool,
}
