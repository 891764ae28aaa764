//! What must hold for the readers of responses with any bytes. Shared with the fuzz target `response`.

use roundsman::http1::body::{put_chunk, put_last_chunk};
use roundsman::http1::{self, Chunked, Reading, Step};
use roundsman::probe::fuzz::read_response;

/// Reads `bytes` whole, byte by byte, and in pieces that depend on the bytes: nothing panics, and the results are the
/// same. Accepted bytes have a canonical form.
pub fn holds(bytes: &[u8]) {
    let chosen: Vec<usize> = bytes.iter().rev().take(16).map(|byte| usize::from(*byte) % 48).collect();
    holds_in_pieces(bytes, &chosen);
    has_a_canonical_form(bytes);
}

/// Accepted bytes, as a head and as chunks after a head, have a canonical form that the strictest reader accepts with
/// the same result.
pub fn has_a_canonical_form(bytes: &[u8]) {
    has_a_canonical_head(bytes);
    let start = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
    has_canonical_chunks(&bytes[start..]);
}

/// As [`holds`], in pieces of these lengths, and without canonical forms.
pub fn holds_in_pieces(bytes: &[u8], cuts: &[usize]) {
    let whole = read_response(bytes, &[]);
    for cuts in [&[1][..], cuts] {
        assert_eq!(whole, read_response(bytes, cuts), "cut by {cuts:?}: {}", bytes.escape_ascii());
    }
}

/// The fields of a request are read strictly: put into a request, the canonical head of an answer must pass.
fn has_a_canonical_head(bytes: &[u8]) {
    let mut reader = http1::ResponseReader::default();
    let Ok(Some(head)) = reader.read(bytes) else { return };
    let (mut fields, mut size) = (Vec::new(), 0);
    for field in head.fields() {
        size += 1;
        fields.extend_from_slice(&[field.name, b": ", field.value, b"\r\n"].concat());
    }
    let request = [b"GET / HTTP/1.1\r\n", fields.as_slice(), b"\r\n"].concat();
    let limits = http1::Limits { head_bytes: 1 << 16, fields: size, target_bytes: 1 };
    if request.len() > limits.head_bytes {
        return;
    }
    let mut reader = http1::HeadReader::default();
    let strict = reader.read(&request, &limits);
    let strict = strict.unwrap_or_else(|fault| panic!("{fault}: {}", bytes.escape_ascii())).expect("it is whole");
    let pairs = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
    let ours: Vec<_> = head.fields().map(|field| pairs((field.name, field.value))).collect();
    let theirs: Vec<_> = strict.fields.iter().map(|field| pairs((field.name, field.value))).collect();
    assert_eq!(ours, theirs, "{}", bytes.escape_ascii());
}

/// The data of `bytes` as the body of an answer, written as chunks without extensions and trailers, must be the same
/// data.
fn has_canonical_chunks(bytes: &[u8]) {
    let (mut data, mut written) = (Vec::new(), Vec::new());
    let mut chunks = Chunked::new(Reading::Answer);
    let mut rest = bytes;
    loop {
        match chunks.next(&mut rest) {
            Ok(Step::Data(piece)) => {
                data.extend_from_slice(piece);
                put_chunk(&mut written, piece);
            }
            Ok(Step::End) => break,
            Ok(Step::More) | Err(_) => return,
        }
    }
    put_last_chunk(&mut written, chunks.trailers());
    let mut strict = Chunked::new(Reading::Request);
    let (mut again, mut rest) = (Vec::new(), &written[..]);
    while let Step::Data(piece) = strict.next(&mut rest).expect("the canonical form is good") {
        again.extend_from_slice(piece);
    }
    assert!(strict.is_done() && rest.is_empty() && again == data, "{}", bytes.escape_ascii());
}
