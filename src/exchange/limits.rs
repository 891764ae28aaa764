//! Bounds that no key changes. Those that a listener or a pool has are in [`crate::model::policy`].

use std::time::Duration;

pub use crate::http1::limits::{INTERIM_ANSWERS, METHOD_BYTES, RESPONSE_HEAD_BYTES, RESPONSE_HEAD_FIELDS};

/// The rest of a request body that is read and thrown away after an answer of our own, so that the connection can stay
/// open; a longer rest closes it.
pub const DRAIN_BYTES: u64 = 64 * 1024;
/// How long that may take.
pub const DRAIN: Duration = Duration::from_secs(5);
/// For how long a closing connection reads what the client was still sending, so that it gets our answer before it sees a
/// reset.
pub const LINGER: Duration = Duration::from_secs(2);
/// For how long a connection still takes a request once it is to take no further one: the client may have sent it before
/// it could know.
pub const STOP_GRACE: Duration = Duration::from_millis(300);
/// How often one request is picked anew because its upstream, or its connection, was lost before a byte was sent: beyond
/// it 503.
pub const UNUSED_MAX: u32 = 4;
/// Pools followed by `when_no_healthy = { pool = … }` before giving up. Validation refuses cycles and longer chains; a reload
/// in the middle of a request could still make one.
pub const FALLBACK_HOPS: usize = crate::model::policy::FALLBACK_POOLS_MAX;
