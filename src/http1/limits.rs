//! How large the parts of a message may be. The same bounds hold for an answer to a request and for one to a check.

/// A request head: beyond it 431.
pub const HEAD_BYTES: usize = 32 * 1024;
/// Fields of a request head: beyond it 431.
pub const HEAD_FIELDS: usize = 100;
/// A request target: beyond it 414.
pub const TARGET_BYTES: usize = 16 * 1024;
/// A method: beyond it 400. The longest registered one has 16 bytes.
pub const METHOD_BYTES: usize = 32;
/// A response head, as it came and in canonical form: beyond it 502.
pub const RESPONSE_HEAD_BYTES: usize = 64 * 1024;
/// Fields of a response head: beyond it 502.
pub const RESPONSE_HEAD_FIELDS: usize = 200;
/// Interim (1xx) answers to one request: beyond it 502.
pub const INTERIM_ANSWERS: u32 = 16;
