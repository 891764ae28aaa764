//! Frames of HTTP/2, written out (RFC 9113, section 4): for origins that answer a byte at a time, or against the rules.
//!
//! ```ignore
//! let acts = [settings(), head(1, &[(":status", "200")], END_STREAM)];
//! Origin::new().on_accept(Reply::acts(vec![Act::AwaitRequest, Act::Write(acts.concat())])).start_blocking()
//! ```

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;

/// Any frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload that a frame can have").to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

pub fn settings() -> Vec<u8> {
    frame(4, 0, 0, &[])
}

/// HEADERS on stream 1, whole.
pub fn head(fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(1, END_HEADERS | flags, 1, &block(fields))
}

/// CONTINUATION on stream 1, which need not be the last.
pub fn continuation(fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(9, flags, 1, &block(fields))
}

/// DATA on stream 1.
pub fn data(bytes: &[u8], flags: u8) -> Vec<u8> {
    frame(0, flags, 1, bytes)
}

/// RST_STREAM on stream 1.
pub fn reset(code: u32) -> Vec<u8> {
    frame(3, 0, 1, &code.to_be_bytes())
}

/// GOAWAY: streams above `last` were not processed.
pub fn goaway(last: u32, code: u32, words: &str) -> Vec<u8> {
    let payload = [&last.to_be_bytes()[..], &code.to_be_bytes(), words.as_bytes()].concat();
    frame(7, 0, 0, &payload)
}

/// Fields as literals that no table keeps (RFC 7541, section 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            put_length(&mut out, text.len());
            out.extend(text.as_bytes());
        }
    }
    out
}

/// An integer with a prefix of 7 bits (RFC 7541, section 5.1).
fn put_length(out: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else { return out.push(length as u8) };
    out.push(127);
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// Whether `bytes` hold a complete request.
pub(super) fn hold_a_request(bytes: &[u8]) -> bool {
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or_default();
    while let [a, b, c, kind, flags, _, _, _, _, ..] = *rest {
        let length = FRAME_HEAD_BYTES + u32::from_be_bytes([0, a, b, c]) as usize;
        let Some(next) = rest.get(length..) else { return false };
        if kind <= 1 && flags & END_STREAM != 0 {
            return true;
        }
        rest = next;
    }
    false
}
