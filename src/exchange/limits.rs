//! The numbers of the data path, in one place until they get keys of their own. Each is the default that `traffic.md`
//! gives to its key.

use std::time::Duration;

pub use crate::http1::limits::{
    HEAD_BYTES, HEAD_FIELDS, INTERIM_ANSWERS, METHOD_BYTES, RESPONSE_HEAD_BYTES, RESPONSE_HEAD_FIELDS, TARGET_BYTES,
};

/// A whole request head, from its first byte (from accept for the first): then 408 and close.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle between requests of one client connection.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Between two reads of a request body, and between two writes to a client that does not read.
pub const BODY_IDLE: Duration = Duration::from_secs(60);
/// To connect to an upstream.
pub const CONNECT: Duration = Duration::from_secs(2);
/// From the last byte of the request until the whole response head is there.
pub const FIRST_BYTE: Duration = Duration::from_secs(60);
/// Between two reads of a response body, and between two writes of a request body.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(60);
/// An upgraded connection without a byte in either direction.
pub const TUNNEL_IDLE: Duration = Duration::from_secs(3_600);
/// The same once one of its sides has ended: what still flows the other way keeps it, but who ignores the end does not.
pub const TUNNEL_HALF_IDLE: Duration = Duration::from_secs(60);
/// How long an idle upstream connection is kept: shorter than what common servers keep (Node and uvicorn: 5 s).
pub const UPSTREAM_KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Idle connections kept per upstream.
pub const UPSTREAM_IDLE_MAX: usize = 128;

/// The request body that is kept so that it can be sent again.
pub const REPLAY_BYTES: usize = 64 * 1024;
/// The rest of a request body that is read and thrown away after an answer of our own, so that the connection can stay
/// open; a longer rest closes it.
pub const DRAIN_BYTES: u64 = 64 * 1024;
/// Attempts after the first.
pub const RETRIES: u32 = 1;
/// How often one request is picked anew because its upstream, or its connection, was lost before a byte was sent: beyond
/// it 503.
pub const UNUSED_MAX: u32 = 4;
/// Pools followed by `when_no_healthy = { pool = … }` before giving up. Validation refuses cycles and longer chains; a reload
/// in the middle of a request could still make one.
pub const FALLBACK_HOPS: usize = crate::model::policy::FALLBACK_POOLS_MAX;
