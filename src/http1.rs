//! HTTP/1.x messages as bytes: heads, fields, body framing, chunks. The same code reads requests of clients and responses
//! to requests, upgrades and checks, so that all parts agree about a response.
//!
//! A request that parsers could read in two ways is rejected: the next parser must not read it differently. A response is
//! read as a user agent reads it ([`Reading::Answer`]) and forwarded in canonical form. Where pingora parses a response
//! before we see it, the rules here accept what pingora accepts; README lists the few differences that are left.
//!
//! No I/O, no clock, and no knowledge of what a message is for.

pub mod body;
pub mod chunked;
pub mod date;
pub mod fault;
pub mod fields;
pub mod framing;
pub mod head;
pub mod limits;
pub mod response;

pub use body::Body;
pub use chunked::{Chunked, Step};
pub use date::HttpDate;
pub use fault::{BadByte, Fault, TargetPart};
pub use fields::{Field, Fields, Known};
pub use framing::{NOT_ONE_LENGTH, ResponseFraming};
pub use head::{Head, HeadReader, Limits, Version};
pub use response::{ResponseHead, ResponseReader};

/// How lenient the parser is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// Strict: only CRLF ends a line, nothing is repaired.
    #[default]
    Request,
    /// As lenient as a user agent: accepts folded fields and white space before a colon (RFC 9112, 5.1 and 5.2), empty lines before
    /// the status line and a bare LF as the end of a line (2.2), white space before a chunk extension (RFC 9110, 5.6.3).
    Answer,
}
