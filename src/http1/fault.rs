//! Faults of messages, with one text for the log, for status and for a failed check.

use std::fmt;

use super::limits::INTERIM_ANSWERS;

/// Why a message is invalid. The text never contains what the peer has sent, except a single byte as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A response that does not begin with `HTTP/1.`.
    #[error("not an HTTP/1.1 answer")]
    NotHttp,
    /// A line of a head.
    #[error("malformed head: {0}")]
    Head(&'static str),
    /// A head over its limit, in KiB.
    #[error("the head is over {0} KiB")]
    HeadBytes(usize),
    /// More fields than the limit.
    #[error("the head has more than {0} fields")]
    HeadFields(usize),
    /// A request target over its limit.
    #[error("the target is too long")]
    TargetTooLong,
    /// A byte that a request target must not contain.
    #[error("malformed head: {0}")]
    TargetByte(BadByte),
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("malformed head: invalid version")]
    Version,
    /// A status outside 100 to 999.
    #[error("status {0} is outside 100 to 999")]
    Status(u16),
    /// More interim responses than are forwarded.
    #[error("more than {INTERIM_ANSWERS} interim answers")]
    Interim,
    /// A 101 to a request that did not ask for a switch, or asked for another protocol.
    #[error("answered 101 Switching Protocols, which was not asked for")]
    Switch,
    /// An invalid Content-Length.
    #[error("malformed Content-Length: {0}")]
    Length(&'static str),
    /// Codings in which `chunked` is not the last, or not the only one of its name.
    #[error("malformed Transfer-Encoding: {0}")]
    Coding(&'static str),
    /// A coding before `chunked`.
    #[error("unsupported Transfer-Encoding: a coding other than chunked")]
    OtherCoding,
    /// More bytes of data than the listener allows, in chunks.
    #[error("the body is too large")]
    BodyTooLarge,
    /// Chunk framing or trailers.
    #[error("malformed chunk: {0}")]
    Chunk(&'static str),
}

/// A byte that is not allowed in a request target, and the part of the target it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte 0x{byte:02x} in the {part}")]
pub struct BadByte {
    /// The byte.
    pub byte: u8,
    /// Where it is.
    pub part: TargetPart,
}

/// A part of a request target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetPart {
    /// The target: which part of it is not known.
    Whole,
    /// The path.
    Path,
    /// The query.
    Query,
}

impl TargetPart {
    /// The word for it in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            TargetPart::Whole => "target",
            TargetPart::Path => "path",
            TargetPart::Query => "query",
        }
    }
}

impl fmt::Display for TargetPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Fault {
    /// The fault without its place and numbers: for texts from a closed set.
    pub fn words(self) -> &'static str {
        match self {
            Fault::NotHttp => "not an HTTP/1.1 answer",
            Fault::Head(words) | Fault::Length(words) | Fault::Coding(words) | Fault::Chunk(words) => words,
            Fault::HeadBytes(_) => "the head is too large",
            Fault::HeadFields(_) => "the head has too many fields",
            Fault::TargetTooLong => "the target is too long",
            Fault::BodyTooLarge => "the body is too large",
            Fault::TargetByte(_) => "a byte that is not allowed in the target",
            Fault::Version => "a version other than HTTP/1.0 and HTTP/1.1",
            Fault::Status(_) => "a status outside 100 to 999",
            Fault::Interim => "too many interim answers",
            Fault::Switch => "a switch of protocols that was not asked for",
            Fault::OtherCoding => "a transfer coding other than chunked",
        }
    }
}
