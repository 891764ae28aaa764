//! Size limits of the parts of a message that no key changes. Responses to requests and to checks have the same limits.

/// A method: beyond it 400. The longest registered one has 16 bytes.
pub const METHOD_BYTES: usize = 32;
/// A response head, as received and in canonical form: beyond it 502.
pub const RESPONSE_HEAD_BYTES: usize = 64 * 1024;
/// Fields of a response head: beyond it 502.
pub const RESPONSE_HEAD_FIELDS: usize = 200;
/// Interim (1xx) responses to one request: beyond it 502.
pub const INTERIM_ANSWERS: u32 = 16;
