//! The protocol to which a request asks to switch. Whether it may is for the pool that it is routed to.

use smallvec::SmallVec;

/// The name of a protocol, as it is sent. Kept without allocating where it is as short as most are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol(SmallVec<[u8; 24]>);

impl Protocol {
    /// This one, which is bounded by its validation: as the client wrote it, but `websocket` in the usual case.
    pub(super) fn new(name: &[u8]) -> Protocol {
        let name = if is_websocket(name) { WEBSOCKET } else { name };
        Protocol(SmallVec::from_slice(name))
    }

    /// Its name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

const WEBSOCKET: &[u8] = b"websocket";

/// Whether this is WebSocket, to which only a GET switches (RFC 6455, 4.1).
pub(super) fn is_websocket(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(WEBSOCKET)
}
