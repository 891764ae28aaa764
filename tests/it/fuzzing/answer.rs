//! What must hold for a response on its way to a client, whatever its bytes are: the head that the client gets is canonical
//! and has one end, and the body is the same however it is cut. Shared with the fuzz target `answer`.

use roundsman::exchange::Method;
use roundsman::exchange::response::{Asked, judge_response};
use roundsman::http1::body::{put_chunk, put_last_chunk};
use roundsman::http1::{Body, HttpDate, ResponseFraming, ResponseReader, Step, Version};

use super::strict;

/// In pieces that depend on the bytes.
pub fn holds(bytes: &[u8]) {
    let cuts: Vec<usize> = bytes.iter().rev().take(16).map(|byte| usize::from(*byte) % 48 + 1).collect();
    holds_in_pieces(bytes, &cuts);
}

/// In pieces of these lengths, repeated.
pub fn holds_in_pieces(bytes: &[u8], cuts: &[usize]) {
    let mut reader = ResponseReader::default();
    let Ok(Some(head)) = reader.read(bytes) else { return };
    for method in [Method::Get, Method::Head] {
        for version in [Version::Http10, Version::Http11] {
            let asked = Asked { method, version, upgrade: None };
            let Ok((framing, edits)) = judge_response(&asked, head.version, head.status, head.fields()) else {
                continue;
            };
            let mut out = Vec::new();
            edits.write_to(&head, version, edits.close(), HttpDate::of(784_111_777), &mut out);
            let shown = || format!("{asked:?} {}\n{}", bytes.escape_ascii(), out.escape_ascii());
            let strict = strict::response(&out).unwrap_or_else(|why| panic!("{why}: {}", shown()));
            let ends = strict.framing().unwrap_or_else(|why| panic!("{why}: {}", shown()));
            let in_chunks = edits.in_chunks(framing);
            match (framing, ends) {
                (ResponseFraming::None, _) => {}
                (ResponseFraming::Length(length), Some(strict::Framing::Length(said))) if length == said => {}
                (ResponseFraming::Chunked | ResponseFraming::UntilClose, Some(strict::Framing::Chunked))
                    if in_chunks => {}
                (ResponseFraming::Chunked | ResponseFraming::UntilClose, None) if edits.close() => {}
                (framing, ends) => panic!("{framing:?} became {ends:?}: {}", shown()),
            }
            let options = strict.all("connection");
            let expected: &[&str] = match (edits.close(), version) {
                _ if head.status < 200 => &[],
                (true, _) => &["close"],
                (false, Version::Http10) => &["keep-alive"],
                (false, Version::Http11) => &[],
            };
            let offers = head.status == 426 && !strict.all("upgrade").is_empty();
            assert!(offers || options == expected, "{options:?}, not {expected:?}: {}", shown());
            let rest = &bytes[head.len..];
            let whole = relayed(rest, &[], framing, in_chunks);
            for cuts in [&[1][..], cuts] {
                assert_eq!(whole, relayed(rest, cuts, framing, in_chunks), "cut by {cuts:?}: {}", shown());
            }
        }
    }
}

/// The data that the client gets, and whether it sees its end; `None`: the body is malformed.
fn relayed(bytes: &[u8], cuts: &[usize], framing: ResponseFraming, in_chunks: bool) -> Option<(Vec<u8>, bool)> {
    let mut body = Body::response(framing);
    let (mut data, mut written) = (Vec::new(), Vec::new());
    let (mut left, mut lengths) = (bytes, cuts.iter().cycle());
    // The last chunk has gone on as it came.
    let mut has_end = false;
    while !left.is_empty() && !body.is_done() {
        let length = lengths.next().map_or(left.len(), |cut| (*cut).max(1)).min(left.len());
        let mut piece = &left[..length];
        left = &left[length..];
        loop {
            let whole = if in_chunks { body.whole_chunks(piece) } else { 0 };
            if whole > 0 {
                let end: &[u8] = if body.is_done() { b"" } else { b"0\r\n\r\n" };
                let ended = [&piece[..whole], end].concat();
                let read = strict::chunks(&ended).expect("they are canonical").expect("they are whole");
                has_end |= body.is_done();
                data.extend_from_slice(&read.0);
                written.extend_from_slice(&piece[..whole]);
                piece = &piece[whole..];
                continue;
            }
            match body.next(&mut piece) {
                Ok(Step::Data(more)) => {
                    data.extend_from_slice(more);
                    put_chunk(&mut written, more);
                }
                Ok(Step::More | Step::End) => break,
                Err(_) => return None,
            }
        }
    }
    let whole = body.is_whole_at_close();
    if whole && !has_end {
        put_last_chunk(&mut written, body.trailers());
    }
    if in_chunks {
        let read = strict::chunks(&written).expect("chunks of our own are canonical");
        assert_eq!(read, whole.then(|| (data.clone(), written.len())), "what is put into chunks");
    }
    Some((data, whole))
}
