//! HTTP/1.x messages as bytes: heads, fields, what ends a body, chunks. One code reads what clients send, what upstreams
//! answer to requests and to upgrades, and what they answer to checks, so that no two parts judge one answer differently.
//!
//! A request has one reading only, or it is refused: the next parser on its way must not read it differently. An answer is
//! read as a user agent reads it ([`Reading::Answer`]) and passed on in canonical form. Where pingora parses an answer
//! before we see it, the rules here take what pingora takes; README lists the few differences that are left.
//!
//! Must never do I/O, read a clock, or know what a message is for.

pub mod chunked;
pub mod fault;
pub mod fields;
pub mod framing;
pub mod head;
pub mod limits;
pub mod response;

pub use chunked::{Chunked, Progress, Step};
pub use fault::Fault;
pub use fields::{Field, Fields, Known};
pub use framing::ResponseFraming;
pub use head::{Head, HeadReader, Limits, Version, parse};
pub use response::{ResponseHead, ResponseReader, parse_response};

/// How much is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// Nothing: CRLF alone ends a line, nothing is repaired.
    #[default]
    Request,
    /// What a user agent forgives: folded fields and white space before a colon (RFC 9112, 5.1 and 5.2), empty lines before
    /// the status line and a bare LF as the end of a line (2.2), white space before a chunk extension (RFC 9110, 5.6.3).
    Answer,
}
