//! What a client sends: requests one after the other, mostly valid, some of them changed, and an end that makes every
//! proxy close the connection, whatever it is reading then.

use fastrand::Rng;

/// Bytes, and where they are cut.
pub struct Stream {
    pub bytes: Vec<u8>,
    /// Lengths of the pieces; the last piece is the rest.
    pub cuts: Vec<usize>,
}

/// No body of these streams is longer, apart from those that a change made so.
const BODY_MAX: usize = 2_500;

impl Stream {
    /// A stream whose every target, field and body holds `tag`.
    pub fn new(tag: &str, rng: &mut Rng) -> Stream {
        let mut bytes = Vec::new();
        for number in 0..rng.usize(1..6) {
            let mut request = request(tag, number, rng);
            if rng.u8(..100) < 18 {
                for _ in 0..rng.usize(1..4) {
                    change(&mut request, rng);
                }
            }
            bytes.extend(request);
        }
        bytes.extend(format!("GET /{tag}/98 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").bytes());
        // More than any body lacks, and not a head.
        bytes.extend(std::iter::repeat_n(b'Z', BODY_MAX + 500));
        bytes.extend(b"\r\n\r\n");
        let cuts = cuts(bytes.len(), rng);
        Stream { bytes, cuts }
    }
}

/// Lengths of pieces.
pub fn cuts(length: usize, rng: &mut Rng) -> Vec<usize> {
    match rng.u8(..10) {
        0..3 => Vec::new(),
        3..8 => (0..rng.usize(1..8)).map(|_| rng.usize(1..length.max(2))).collect(),
        8 => (0..rng.usize(1..60)).map(|_| rng.usize(1..40)).collect(),
        _ => vec![1; rng.usize(1..400)],
    }
}

fn request(tag: &str, number: usize, rng: &mut Rng) -> Vec<u8> {
    let method = pick(rng, &["GET", "GET", "GET", "POST", "POST", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"]);
    let old = rng.u8(..12) == 0;
    let version = if old { "HTTP/1.0" } else { "HTTP/1.1" };
    let target = format!("/{tag}/{number}");
    let target = match rng.u8(..24) {
        0 => format!("http://a.example{target}"),
        1 => format!("{target}?a={tag}&b=%41"),
        2 => format!("{target}/x/../y"),
        3 => format!("{target}//{tag}"),
        4 => format!("{target}/%2e%2e/z"),
        5 => format!("{target}/{}", tag.repeat(300)),
        _ => target,
    };
    let mut out = Vec::new();
    if rng.u8(..16) == 0 {
        out.extend(b"\r\n");
    }
    out.extend(format!("{method} {target} {version}\r\n").bytes());
    if !(old && rng.bool()) {
        out.extend(b"Host: a.example\r\n");
    }
    for _ in 0..rng.usize(..5) {
        let field = match rng.u8(..34) {
            0..6 => format!("X-Tag: {tag}"),
            6..9 => "Accept: */*".to_owned(),
            9 => "Connection: close".to_owned(),
            10..12 => "Connection: keep-alive".to_owned(),
            12 => "Connection: X-Mine, keep-alive".to_owned(),
            13 => format!("X-Mine: {tag}"),
            14 => format!("Cookie: a={tag}"),
            15 => "TE: trailers".to_owned(),
            16 => "Keep-Alive: timeout=5".to_owned(),
            17 => "X-Forwarded-For: 6.6.6.6".to_owned(),
            18 => format!("Authorization: Bearer {tag}"),
            19 => format!("X-Long: {}", tag.repeat(rng.usize(1..2_000))),
            20 => format!("x-Empty:\r\nX-Spaces:  \t {tag} \t"),
            21 => "Upgrade: h2c".to_owned(),
            22 => "Host: b.example".to_owned(),
            23 => "Content-Length: 3".to_owned(),
            24 => "Transfer-Encoding: chunked".to_owned(),
            25 => "Transfer-Encoding: gzip, chunked".to_owned(),
            26 => format!("X-Folded: {tag}\r\n  {tag}"),
            27 => format!("X-Lf: {tag}\nX-More: {tag}"),
            28 => format!("X-Cr: {tag}\rX-More: {tag}"),
            29 => format!("X-Space : {tag}"),
            30 => "Proxy-Connection: keep-alive".to_owned(),
            31 => "Connection: Host".to_owned(),
            32 => "Trailer: X-Sum".to_owned(),
            _ => "Content-Type: text/plain".to_owned(),
        };
        // Most of the invalid ones end the stream: often enough there must be none.
        let invalid =
            matches!(field.as_bytes(), [b'H' | b'T', ..]) || field.contains(['\r', '\n']) || field.contains(" :");
        if !invalid || rng.u8(..4) == 0 {
            out.extend(field.bytes());
            out.extend(b"\r\n");
        }
    }
    put_body(&mut out, tag, method, old, rng);
    out
}

/// Ends the head, and writes a body.
fn put_body(out: &mut Vec<u8>, tag: &str, method: &str, old: bool, rng: &mut Rng) {
    let text = || tag.bytes().cycle();
    let size = match rng.u8(..8) {
        0 => 0,
        7 => rng.usize(..BODY_MAX),
        _ => rng.usize(1..80),
    };
    let body: Vec<u8> = text().take(size).collect();
    let with_body = if matches!(method, "POST" | "PUT" | "PATCH") { 9 } else { 1 };
    if rng.u8(..10) >= with_body {
        out.extend(b"\r\n");
        return;
    }
    if old || rng.bool() {
        // Now and then the length is a lie, within bounds.
        let length = if rng.u8(..20) == 0 { rng.usize(..BODY_MAX) } else { body.len() };
        out.extend(format!("Content-Length: {length}\r\n\r\n").bytes());
        out.extend(body);
        return;
    }
    let coding = pick(rng, &["chunked", "chunked", "chunked", "Chunked", "chunked "]);
    out.extend(format!("Transfer-Encoding: {coding}\r\n\r\n").bytes());
    let mut rest = &body[..];
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rng.usize(1..=rest.len()));
        rest = after;
        let extension = match rng.u8(..14) {
            0 => format!(";{tag}"),
            1 => format!(";a=\"{tag};\""),
            2 => ";".to_owned(),
            3 => " ;a=b".to_owned(),
            _ => String::new(),
        };
        let zeros = "0".repeat(if rng.u8(..10) == 0 { rng.usize(1..4) } else { 0 });
        out.extend(format!("{zeros}{:x}{extension}\r\n", piece.len()).bytes());
        out.extend(piece);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\n");
    for _ in 0..rng.usize(..8).saturating_sub(5) {
        out.extend(match rng.u8(..6) {
            0 => b"Content-Length: 4\r\n".to_vec(),
            1 => b"no colon\r\n".to_vec(),
            _ => format!("X-Sum: {tag}\r\n").into_bytes(),
        });
    }
    out.extend(b"\r\n");
}

/// Changes some bytes.
fn change(bytes: &mut Vec<u8>, rng: &mut Rng) {
    const TOKENS: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"\x7f",
        b"\xff",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"a",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"\r\n folded",
        b"\\",
        b"#",
        b"%00",
        b"%2f",
        b"+",
        b"-",
        b"_",
        b"5",
        b"ffff",
        b"GET / HTTP/1.1\r\n",
    ];
    let at = rng.usize(..=bytes.len());
    match rng.u8(..10) {
        0..5 => drop(bytes.splice(at..at, pick(rng, TOKENS).iter().copied())),
        5..7 if at < bytes.len() => bytes[at] = pick(rng, TOKENS)[0],
        7 if at < bytes.len() => bytes[at] = rng.u8(..),
        8 => {
            let end = (at + rng.usize(1..12)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let piece = bytes[at..(at + rng.usize(1..40)).min(bytes.len())].to_vec();
            drop(bytes.splice(at..at, piece));
        }
    }
}

/// One of these.
pub fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}
