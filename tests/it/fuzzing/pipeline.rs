//! What must hold for a stream of requests, whatever its bytes are: which of them belong to which request depends neither on
//! how they are cut nor on the lane that takes them, and none is lost or used twice. Shared with the fuzz target `pipeline`.

use roundsman::proxy::client::fuzz::{Taken, TakenEnd, Way, requests};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
}

/// In pieces that depend on the bytes.
pub fn holds(bytes: &[u8]) {
    let cuts: Vec<usize> = bytes.iter().rev().take(16).map(|byte| usize::from(*byte) * 3 + 1).collect();
    holds_in_pieces(bytes, &cuts);
}

/// In pieces of these lengths, repeated.
pub fn holds_in_pieces(bytes: &[u8], cuts: &[usize]) {
    let take = |cuts: &[usize], way| RUNTIME.with(|runtime| runtime.block_on(requests(bytes, cuts, way)));
    let whole = take(&[], Way::InPlace);
    covers(bytes, &whole);
    for way in [Way::InPlace, Way::TakenOut] {
        let again = take(cuts, way);
        assert_eq!(comparable(&whole), comparable(&again), "{way:?}, cut by {cuts:?}: {}", bytes.escape_ascii());
    }
}

/// Of a request that is not whole only how it ended: how much of its body came before a fault, and which of several faults is
/// found first, depends on the pieces.
fn comparable(taken: &[Taken]) -> Vec<Option<(&[u8], &[u8])>> {
    let whole = |request: &Taken| request.end == TakenEnd::Whole;
    let refused = |request: &&Taken| matches!(request.end, TakenEnd::Refused(_));
    let all = taken.iter().filter(|request| whole(request) || refused(request));
    all.map(|request| whole(request).then_some((&request.head[..], &request.body[..]))).collect()
}

/// Whole requests follow one another without a gap, but for one empty line before each.
fn covers(bytes: &[u8], taken: &[Taken]) {
    let mut rest = bytes;
    for request in taken.iter().take_while(|request| request.end == TakenEnd::Whole) {
        if !rest.starts_with(&request.head) {
            rest = rest.strip_prefix(b"\r\n").unwrap_or_else(|| panic!("a gap: {}", bytes.escape_ascii()));
        }
        for part in [&request.head, &request.body] {
            rest = rest.strip_prefix(&part[..]).unwrap_or_else(|| panic!("other bytes: {}", bytes.escape_ascii()));
        }
    }
}
