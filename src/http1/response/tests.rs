//! Response heads as bytes: tables of accepted and rejected heads, and a comparison with pingora's parser.

use proptest::prelude::*;

use super::*;

/// Status, reason phrase, fields and length of a head; or its fault.
type Read = Result<Option<(u16, String, Vec<(String, String)>, usize)>, String>;

fn shown(head: ResponseHead<'_>) -> (u16, String, Vec<(String, String)>, usize) {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let fields = head.fields().map(|field| (text(field.name), text(field.value))).collect();
    (head.status, text(head.reason), fields, head.len)
}

fn read(bytes: &[u8]) -> Read {
    ResponseReader::default().read(bytes).map(|head| head.map(shown)).map_err(|fault| fault.to_string())
}

/// As [`read`], with bytes that arrive in pieces of these lengths.
fn read_in_pieces(bytes: &[u8], cuts: &[usize]) -> Read {
    let (mut reader, mut end) = (ResponseReader::default(), 0);
    let mut lengths = cuts.iter().cycle();
    while end < bytes.len() {
        end = bytes.len().min(end + lengths.next().map_or(1, |cut| (*cut).max(1)));
        match reader.read(&bytes[..end]) {
            Ok(None) => {}
            Ok(Some(head)) => return Ok(Some(shown(head))),
            Err(fault) => return Err(fault.to_string()),
        }
    }
    Ok(None)
}

#[test]
fn unambiguous_deviations_are_accepted() {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    for (text, fields) in [
        (head("A: b\r\n"), &[("A", "b")][..]),
        (head("A:b\r\nC:\r\nD: \t e f\t \r\n"), &[("A", "b"), ("C", ""), ("D", "e f")]),
        // White space before the colon, line ends, empty lines.
        (head("A : b\r\nC \t: d\r\n"), &[("A", "b"), ("C", "d")]),
        ("HTTP/1.1 200 OK\nA: b\n\n".into(), &[("A", "b")]),
        ("HTTP/1.1 200 OK\r\nA: b\n\r\n".into(), &[("A", "b")]),
        ("HTTP/1.1 200 OK\r\nA: b\r\n\n".into(), &[("A", "b")]),
        (format!("\r\n{}", head("A: b\r\n")), &[("A", "b")]),
        (format!("\n\r\n\n{}", head("A: b\r\n")), &[("A", "b")]),
        // Folds become one space each.
        (head("A: b\r\n c\r\nD: e\r\n"), &[("A", "b c"), ("D", "e")]),
        (head("A: b \t\r\n\t  c  \r\n   d\r\n"), &[("A", "b c d")]),
        (head("A:\r\n b\r\n"), &[("A", "b")]),
        (head("A: b\r\n \t \r\nC: d\r\n"), &[("A", "b"), ("C", "d")]),
        (head("A: b\r\n \r\n c\r\n"), &[("A", "b c")]),
        (head("A:\r\n \r\n"), &[("A", "")]),
        (head("A: b\n c\r\nContent-Length : 2\r\n \r\n"), &[("A", "b c"), ("Content-Length", "2")]),
    ] {
        let want: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(read(text.as_bytes()), Ok(Some((200, "OK".into(), want, text.len()))), "{text:?}");
        let more = format!("{text}body");
        assert_eq!(read(more.as_bytes()).unwrap().unwrap().3, text.len(), "the body is not part of the head: {text:?}");
    }
    for (line, status, reason) in [
        (&b"HTTP/1.1 200"[..], 200, ""),
        (b"HTTP/1.0 404 ", 404, ""),
        (b"HTTP/1.1 299  two  spaces ", 299, " two  spaces "),
        (b"HTTP/1.1 500 \xe9\t", 500, "\\xe9\\t"),
        (b"HTTP/1.1 099 x", 99, "x"),
    ] {
        let bytes = [line, b"\r\n\r\n"].concat();
        assert_eq!(read(&bytes), Ok(Some((status, reason.into(), vec![], bytes.len()))), "{}", line.escape_ascii());
    }
}

#[test]
fn ambiguous_heads_are_rejected_with_their_fault() {
    let field = |line: &str| format!("HTTP/1.1 200 OK\r\nA: b\r\n{line}");
    let many = |n: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(n));
    let padded = |n: usize| format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(n - 24));
    for (text, words) in [
        ("SSH-2.0-OpenSSH\r\n".to_owned(), "not an HTTP/1.1 answer"),
        ("<html>".into(), "not an HTTP/1.1 answer"),
        ("\r\n\r\n220 ready".into(), "not an HTTP/1.1 answer"),
        ("\rHTTP/1.1 200 OK\r\n".into(), "not an HTTP/1.1 answer"),
        (" HTTP/1.1 200 OK\r\n".into(), "not an HTTP/1.1 answer"),
        ("http/1.1 200 OK\r\n".into(), "not an HTTP/1.1 answer"),
        ("HTTP/2 200\r\n".into(), "not an HTTP/1.1 answer"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), "not an HTTP/1.1 answer"),
        ("HTTP/1.2 200 OK\r\n".into(), "malformed head: invalid version"),
        ("HTTP/1.\r\n".into(), "malformed head: invalid version"),
        ("HTTP/1.10 200 OK\r\n".into(), "malformed head: invalid status"),
        ("HTTP/1.1\r\n".into(), "malformed head: invalid status"),
        ("HTTP/1.1  200 OK\r\n".into(), "malformed head: invalid status"),
        ("HTTP/1.1\t200 OK\r\n".into(), "malformed head: invalid status"),
        ("HTTP/1.1 20 OK\r\n".into(), "malformed head: invalid status"),
        ("HTTP/1.1 2000 OK\r\n".into(), "malformed head: invalid status"),
        ("HTTP/1.1 +20 OK\r\n".into(), "malformed head: invalid status"),
        ("HTTP/1.1 200\tOK\r\n".into(), "malformed head: invalid status"),
        ("HTTP/1.1 200 O\x01\r\n".into(), "malformed head: a control character in the reason phrase"),
        ("HTTP/1.1 200 O\rK\r\n".into(), "malformed head: a CR without LF"),
        ("HTTP/1.1 200 OK\r\r\n".into(), "malformed head: a CR without LF"),
        ("HTTP/1.1 200 OK\r\n A: b\r\n".into(), "malformed head: white space before the first field"),
        (field("c\r\n"), "malformed head: a field without a colon"),
        (field("HTTP/1.1 200 OK\r\n"), "malformed head: a field without a colon"),
        (field(": c\r\n"), "malformed head: a field without a name"),
        (field("C D: e\r\n"), "malformed head: a field name with white space or another character that is not allowed"),
        (
            field("C\u{e9}: d\r\n"),
            "malformed head: a field name with white space or another character that is not allowed",
        ),
        (field("C: d\0e\r\n"), "malformed head: a control character in a field value"),
        (field("C: d\x7f\r\n"), "malformed head: a control character in a field value"),
        (field(" folded\x01\r\n"), "malformed head: a control character in a field value"),
        (field("C: d\re\r\n"), "malformed head: a CR without LF"),
        (field("\r\r\n"), "malformed head: a CR without LF"),
        (many(201), "the head has more than 200 fields"),
        (many(1_000), "the head has more than 200 fields"),
        (padded(65_537), "the head is over 64 KiB"),
        (format!("HTTP/1.1 {}", "x".repeat(1 << 17)), "the head is over 64 KiB"),
        ("\r\n".repeat(1 << 15), "the head is over 64 KiB"),
        // Only the canonical form is over the limit: it has 200 more spaces.
        (
            format!("HTTP/1.1 200 OK\r\n{}A:{}\r\n\r\n", "A:\r\n".repeat(199), "x".repeat(64_600)),
            "the head is over 64 KiB",
        ),
    ] {
        let short = &text[..text.len().min(60)];
        assert_eq!(read(text.as_bytes()), Err(words.into()), "{short:?}");
        assert_eq!(read_in_pieces(text.as_bytes(), &[1]), Err(words.into()), "{short:?}, byte by byte");
    }
    assert!(matches!(read(many(200).as_bytes()), Ok(Some(_))));
    assert!(matches!(read(padded(65_536).as_bytes()), Ok(Some(_))));
    for partial in ["", "\r", "\n", "H", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n\r"] {
        assert_eq!(read(partial.as_bytes()), Ok(None), "{partial:?}");
    }
}

/// Bytes similar to a response head: pieces of valid and invalid ones.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(vec!["", "\r\n", "\n", "\r"]);
    let line = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 404\n",
        "HTTP/1.1 103 \t\r\n",
        "HTTP/1.1 20\r\n",
    ]);
    let piece = prop::sample::select(vec![
        "A: b\r\n",
        "C :d\r\n",
        "Content-Length: 2\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        " folded\r\n",
        "A:",
        "x",
        ":",
        "\0",
        "\u{e9}",
    ]);
    (start, line, prop::collection::vec(piece, 0..12))
        .prop_map(|(start, line, pieces)| [start, line, &pieces.concat()].concat().into_bytes())
}

/// How pingora reads these bytes: its parser with its settings, and its conversion of values.
fn pingora(bytes: &[u8]) -> Option<(u16, Vec<(String, String)>, usize)> {
    let mut slots = [httparse::EMPTY_HEADER; 256];
    let mut response = httparse::Response::new(&mut slots);
    let mut parser = httparse::ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    parser.allow_obsolete_multiline_headers_in_responses(true);
    let Ok(httparse::Status::Complete(len)) = parser.parse_response(&mut response, bytes) else { return None };
    let value = |raw| pingora_http::header_value_from_slice(raw).as_bytes().escape_ascii().to_string();
    let fields = response.headers.iter().map(|field| (field.name.to_owned(), value(field.value))).collect();
    Some((response.code?, fields, len))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// A check passes exactly the heads that a request would not get as 502.
    #[test]
    fn ours_accepts_what_pingora_accepts_and_reads_it_alike(
        bytes in prop_oneof![4 => heads(), 1 => prop::collection::vec(any::<u8>(), 0..300)]
    ) {
        let ours = read(&bytes).ok().flatten().map(|(status, _, fields, len)| (status, fields, len));
        prop_assert_eq!(ours, pingora(&bytes), "{}", bytes.escape_ascii());
    }

    #[test]
    fn the_result_does_not_depend_on_the_pieces(
        bytes in prop_oneof![4 => heads(), 1 => prop::collection::vec(any::<u8>(), 0..300)],
        cuts in prop::collection::vec(1_usize..20, 1..8),
    ) {
        prop_assert_eq!(read(&bytes), read_in_pieces(&bytes, &cuts), "{}", bytes.escape_ascii());
    }
}
