//! What pingora found wrong with an answer, in the words that our own lane and the checker have for it.

use pingora_core::{Error, ErrorType};

use crate::http1::limits::RESPONSE_HEAD_BYTES;
use crate::http1::{Fault, NOT_ONE_LENGTH, ResponseReader};

/// For an answer that our own reader would have taken, or of which pingora does not say enough.
const UNKNOWN: Fault = Fault::Head("not what HTTP/1.1 allows");

/// The fault of an answer; `None`: the error is of another kind. Nothing that the upstream sent is in it.
pub(super) fn fault_of(error: &Error) -> Option<Fault> {
    let context = error.context.as_ref().map_or("", |context| context.as_str());
    let has = |words: &str| context.contains(words);
    match error.etype() {
        ErrorType::InvalidHTTPHeader => Some(match context.strip_prefix("buf: ") {
            Some(escaped) => head_fault(unescape(escaped)),
            None if has("Content-Length") => Fault::Length(NOT_ONE_LENGTH),
            None if has("larger than") => Fault::HeadBytes(RESPONSE_HEAD_BYTES >> 10),
            None if has("status") => Fault::Head("invalid status"),
            None => UNKNOWN,
        }),
        ErrorType::H1Error => Some(UNKNOWN),
        // The constants are not public.
        ErrorType::Custom("InvalidChunk") => Some(Fault::Chunk(match context {
            _ if has("was not") => "longer than its size",
            _ if has("over limit") => "too many bytes of extensions",
            _ if has("overflows") => "a size over 64 bits",
            _ => "invalid size",
        })),
        ErrorType::Custom("InvalidTrailerEnd") => Some(Fault::Chunk(match context {
            _ if has("over limit") => "too many bytes of trailers",
            _ => "a line that does not end in CRLF",
        })),
        // Pingora's error types are an open set; the others say that a connection ended, or ran out of time.
        _ => None,
    }
}

/// What our own reader says of a head that pingora has refused.
fn head_fault(mut head: Vec<u8>) -> Fault {
    let fault_of = |head: &[u8]| ResponseReader::default().read(head).err();
    if let Some(fault) = fault_of(&head) {
        return fault;
    }
    // Pingora does not wait for the end of a line.
    head.push(b'\n');
    fault_of(&head).unwrap_or(UNKNOWN)
}

/// The bytes that [`slice::escape_ascii`] wrote so.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16).unwrap_or_default() as u8;
                (digit(high) << 4 | digit(low), after)
            }
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [quoted, after @ ..]) => (*quoted, after),
            (plain, after) => (*plain, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_that_pingora_refused_is_named_as_the_checker_names_it() {
        for (head, words) in [
            (&b"SSH-2.0-OpenSSH\r\n"[..], "not an HTTP/1.1 answer"),
            (b"HTTP/1.1 200 OK\r\nX\r\n\r\n", "malformed head: a field without a colon"),
            (b"HTTP/1.1 200 OK\r\nX: \"a\\\0", "malformed head: a control character in a field value"),
            (b"HTTP/1.1 200 OK\rX", "malformed head: a CR without LF"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "malformed head: not what HTTP/1.1 allows"),
        ] {
            let error = Error::explain(ErrorType::InvalidHTTPHeader, format!("buf: {}", head.escape_ascii()));
            assert_eq!(fault_of(&error).map(|fault| fault.to_string()).as_deref(), Some(words));
        }
    }

    #[test]
    fn ends_and_time_outs_are_no_faults_of_an_answer() {
        for etype in [ErrorType::ConnectionClosed, ErrorType::ReadTimedout, ErrorType::Custom("PrematureBodyEnd")] {
            assert_eq!(fault_of(&Error::new(etype)), None);
        }
    }

    proptest! {
        #[test]
        fn every_byte_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(unescape(&bytes.escape_ascii().to_string()), bytes);
        }
    }
}
