//! What must hold of the response reader for any bytes whatever. Shared with the fuzz target `response`.

use roundsman::probe::fuzz::read_response;

/// Reads `bytes` whole, byte by byte, and in pieces that the bytes themselves choose: nothing panics, and the readings are
/// the same.
pub fn holds(bytes: &[u8]) {
    let chosen: Vec<usize> = bytes.iter().rev().take(16).map(|byte| usize::from(*byte) % 48).collect();
    holds_in_pieces(bytes, &chosen);
}

/// As [`holds`], in pieces of these lengths.
pub fn holds_in_pieces(bytes: &[u8], cuts: &[usize]) {
    let whole = read_response(bytes, &[]);
    for cuts in [&[1][..], cuts] {
        assert_eq!(whole, read_response(bytes, cuts), "cut by {cuts:?}: {}", bytes.escape_ascii());
    }
}
