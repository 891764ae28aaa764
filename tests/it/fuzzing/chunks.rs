//! What must hold for chunks, whatever the bytes are: the data, the end and the fault do not depend on how they are cut; what
//! is accepted of a request, the strictest reader reads in the same way. Shared with the fuzz target `chunks`.

use roundsman::http1::{Body, Chunked, Fault, Reading, ResponseFraming, Step};

use super::strict;

/// At every split in two, and in pieces that depend on the bytes.
pub fn holds(bytes: &[u8]) {
    let cuts: Vec<usize> = bytes.iter().rev().take(16).map(|byte| usize::from(*byte) % 48 + 1).collect();
    holds_in_pieces(bytes, &cuts);
    let few = &bytes[..bytes.len().min(300)];
    for first in 1..few.len() {
        holds_in_pieces(few, &[first, usize::MAX]);
    }
}

/// In pieces of these lengths, repeated.
pub fn holds_in_pieces(bytes: &[u8], cuts: &[usize]) {
    for reading in [Reading::Request, Reading::Answer] {
        let whole = read(bytes, &[], reading);
        for cuts in [&[1][..], cuts] {
            let pieces = read(bytes, cuts, reading);
            assert_eq!(whole, pieces, "{reading:?}, cut by {cuts:?}: {}", bytes.escape_ascii());
        }
        let (data, used, fault) = whole;
        let mut fed = Body::Chunked(Chunked::new(reading));
        assert_eq!(fed.feed(bytes).is_ok(), fault.is_none(), "{}", bytes.escape_ascii());
        if fault.is_some() || reading == Reading::Answer {
            continue;
        }
        // What is passed on byte for byte must mean the same to the next reader.
        let strict = strict::chunks(bytes).unwrap_or_else(|why| panic!("{why}: {}", bytes.escape_ascii()));
        match (strict, fed.is_done()) {
            (Some(strict), true) => assert_eq!(strict, (data, used), "{}", bytes.escape_ascii()),
            (None, false) => assert_eq!(used, bytes.len(), "{}", bytes.escape_ascii()),
            (strict, done) => panic!("the end: {done}, {strict:?}: {}", bytes.escape_ascii()),
        }
    }
    let mut until_close = Body::response(ResponseFraming::UntilClose);
    assert_eq!(until_close.feed(bytes), Ok(bytes.len()));
}

/// The data, the bytes used, and the fault.
fn read(bytes: &[u8], cuts: &[usize], reading: Reading) -> (Vec<u8>, usize, Option<Fault>) {
    let mut chunks = Chunked::new(reading);
    let (mut data, mut left, mut lengths) = (Vec::new(), bytes, cuts.iter().cycle());
    while !left.is_empty() && !chunks.is_done() {
        let length = lengths.next().map_or(left.len(), |cut| (*cut).max(1)).min(left.len());
        let mut piece = &left[..length];
        loop {
            match chunks.next(&mut piece) {
                Ok(Step::Data(more)) => data.extend_from_slice(more),
                Ok(Step::More | Step::End) => break,
                Err(fault) => return (data, 0, Some(fault)),
            }
        }
        left = &left[length - piece.len()..];
    }
    (data, bytes.len() - left.len(), None)
}
