//! Request heads as bytes, and what is said of them.

use proptest::prelude::*;

use super::*;
use crate::http1::{HeadReader, Limits, TargetPart};
use AnswerReason::{Expectation, Malformed, NotImplemented};

/// Judges a request line and fields in HTTP/1.1 with `Host: a`.
fn refusal(fields: &str) -> Option<AnswerReason> {
    raw(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).err()
}

/// Parses and judges; `f` of the facts.
fn with<T>(head: &str, f: impl FnOnce(Facts<'_>) -> T) -> Result<T, AnswerReason> {
    let mut reader = HeadReader::default();
    let head = reader.read(head.as_bytes(), &Limits::REQUEST).map_err(|fault| Refusal::from(fault).reason)?;
    let head = head.expect("a whole head");
    judge(&head).map(f).map_err(|refusal| refusal.reason)
}

/// The byte that the refusal of this head names.
fn bad_byte(head: &str) -> Option<(u8, TargetPart)> {
    let mut reader = HeadReader::default();
    let refusal = match reader.read(head.as_bytes(), &Limits::REQUEST) {
        Ok(head) => judge(&head.expect("a whole head")).err()?,
        Err(fault) => Refusal::from(fault),
    };
    assert_eq!(refusal.reason, Malformed);
    refusal.byte.map(|bad| (bad.byte, bad.part))
}

fn raw(head: &str) -> Result<(), AnswerReason> {
    with(head, |_| ())
}

#[test]
fn a_body_has_one_length() {
    for (fields, want) in [
        ("", Ok(Framing::None)),
        ("Content-Length: 0\r\n", Ok(Framing::Length(0))),
        ("content-length:  42 \r\n", Ok(Framing::Length(42))),
        ("Content-Length: 18446744073709551615\r\n", Ok(Framing::Length(u64::MAX))),
        ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
        ("transfer-encoding: CHUNKED\r\n", Ok(Framing::Chunked)),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(Malformed)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(Malformed)),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(Malformed)),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(Malformed)),
        ("Content-Length: 5, 5\r\n", Err(Malformed)),
        ("Content-Length: 5, 6\r\n", Err(Malformed)),
        ("Content-Length: +5\r\n", Err(Malformed)),
        ("Content-Length: 0x5\r\n", Err(Malformed)),
        ("Content-Length: -1\r\n", Err(Malformed)),
        ("Content-Length: 5 5\r\n", Err(Malformed)),
        ("Content-Length: 5.0\r\n", Err(Malformed)),
        ("Content-Length: 18446744073709551616\r\n", Err(Malformed)),
        ("Content-Length:\r\n", Err(Malformed)),
        ("Transfer-Encoding: xchunked\r\n", Err(Malformed)),
        ("Transfer-Encoding: chunked, identity\r\n", Err(Malformed)),
        ("Transfer-Encoding: chunked, chunked\r\n", Err(Malformed)),
        ("Transfer-Encoding: chunked\x0b\r\n", Err(Malformed)),
        ("Transfer-Encoding: chunked;q=1\r\n", Err(Malformed)),
        ("Transfer-Encoding: \"chunked\"\r\n", Err(Malformed)),
        ("Transfer-Encoding: identity\r\n", Err(Malformed)),
        ("Transfer-Encoding:\r\n", Err(Malformed)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(Malformed)),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", Err(Malformed)),
        ("Transfer-Encoding: gzip, chunked\r\n", Err(NotImplemented)),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(with(&head, |facts| facts.framing), want, "{fields:?}");
    }
    assert_eq!(raw("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Malformed));
}

#[test]
fn there_is_one_host() {
    let both = |head: &str| with(head, |facts| (facts.host.map(str::to_owned), facts.authority.map(str::to_owned)));
    let is = |host: &str, authority: &str| Ok((Some(host.to_owned()), Some(authority.to_owned())));
    for (head, want) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", is("a", "a")),
        ("GET / HTTP/1.1\r\nHost: A.example.:8080\r\n\r\n", is("A.example", "A.example.:8080")),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", is("[::1]", "[::1]:80")),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", is("a", "a")),
        ("GET / HTTP/1.0\r\n\r\n", Ok((None, None))),
        ("GET http://b/ HTTP/1.0\r\n\r\n", is("b", "b")),
        ("GET / HTTP/1.1\r\n\r\n", Err(Malformed)),
        ("GET http://a/ HTTP/1.1\r\n\r\n", Err(Malformed)),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Err(Malformed)),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Err(Malformed)),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Err(Malformed)),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", Err(Malformed)),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Err(Malformed)),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Err(Malformed)),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Err(Malformed)),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Err(Malformed)),
        ("GET / HTTP/1.0\r\nHost:\r\n\r\n", Err(Malformed)),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", Err(Malformed)),
        // Absolute-form: the two must agree, and nobody is sent elsewhere by it.
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", is("a", "a")),
        ("GET HTTP://A:80/ HTTP/1.1\r\nHost: a\r\n\r\n", is("a", "a")),
        ("GET http://a./ HTTP/1.1\r\nHost: A:80\r\n\r\n", is("A", "A:80")),
        ("GET http://A:/ HTTP/1.1\r\nHost: a.:80\r\n\r\n", is("a", "a.:80")),
        ("GET https://a/ HTTP/1.1\r\nHost: a:443\r\n\r\n", is("a", "a:443")),
        ("GET http://[::1]/ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", is("[::1]", "[::1]:80")),
        ("GET http://a../ HTTP/1.1\r\nHost: a\r\n\r\n", Err(Malformed)),
        ("GET https://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n", Err(Malformed)),
        ("GET http://[fe80::1%25eth0]/ HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", Err(Malformed)),
        ("GET / HTTP/1.1\r\nHost: [fe80::1%eth0]\r\n\r\n", Err(Malformed)),
        ("GET https://a:443/ HTTP/1.1\r\nHost: a\r\n\r\n", is("a", "a")),
        ("GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(Malformed)),
        ("GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(Malformed)),
        ("GET http://a:443/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(Malformed)),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(Malformed)),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Err(Malformed)),
        ("GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(Malformed)),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(Malformed)),
        ("GET foo:bar://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(Malformed)),
    ] {
        assert_eq!(both(head), want, "{head:?}");
    }
}

#[test]
fn a_target_is_routed_by_its_normal_form_and_sent_as_it_came() {
    let both = |target: &str| {
        let head = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        with(&head, |facts| (facts.path.into_owned(), facts.target.into_owned()))
    };
    let is = |path: &str, sent: &str| Ok((path.to_owned(), sent.to_owned()));
    for (target, want) in [
        ("/", is("/", "/")),
        ("//", is("//", "//")),
        ("/a;b", is("/a;b", "/a;b")),
        ("/%61?x=%zz&y=../..", is("/a", "/%61?x=%zz&y=../..")),
        ("/a%2fb", is("/a%2Fb", "/a%2fb")),
        ("/x?a\\b|{c}", is("/x", "/x?a\\b|{c}")),
        // Printable characters that RFC 3986 wants escaped: compared as if they were, forwarded as they are.
        ("/\"<>{}|^`?\"<>{}|^`", is("/%22%3C%3E%7B%7D%7C%5E%60", "/\"<>{}|^`?\"<>{}|^`")),
        ("http://a/<?<", is("/%3C", "/<?<")),
        ("*", is("*", "*")),
        ("http://a", is("*", "*")),
        ("http://a/", is("/", "/")),
        ("http://a?q", is("/", "/?q")),
        ("http://a/%7e?q=/", is("/~", "/%7e?q=/")),
        ("/..", Err(Malformed)),
        ("/../../x", Err(Malformed)),
        ("/%2e%2e/", Err(Malformed)),
        ("/a/..;/b", Err(Malformed)),
        ("/a%2f../b", Err(Malformed)),
        ("http://a/../b", Err(Malformed)),
        ("/%00", Err(Malformed)),
        ("/%zz", Err(Malformed)),
        ("/%", Err(Malformed)),
        ("/\\", Err(Malformed)),
        ("/#frag", Err(Malformed)),
        ("/?q#frag", Err(Malformed)),
        ("http://a#x", Err(Malformed)),
        ("?q", Err(Malformed)),
        ("a", Err(Malformed)),
        ("a:80", Err(Malformed)),
        ("**", Err(Malformed)),
    ] {
        assert_eq!(both(target), want, "{target:?}");
    }
    for (target, byte, part) in [
        ("/a\\b", b'\\', TargetPart::Path),
        ("http://a/b\\", b'\\', TargetPart::Path),
        ("/a#", b'#', TargetPart::Path),
        ("/a?b\\#", b'#', TargetPart::Query),
        ("/\u{e9}", 0xc3, TargetPart::Path),
        ("/?\u{e9}", 0xc3, TargetPart::Query),
        ("/?/\u{7f}\u{e9}", 0x7f, TargetPart::Query),
        ("/\t", b'\t', TargetPart::Path),
        ("http://\u{e9}/", 0xc3, TargetPart::Whole),
    ] {
        assert_eq!(bad_byte(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")), Some((byte, part)), "{target:?}");
    }
    assert_eq!(with("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", |facts| facts.target.into_owned()), Ok("/".into()));
    assert_eq!(raw("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), Err(Malformed));
    assert_eq!(raw("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), Err(AnswerReason::Method));
    let traced = with("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", |facts| facts.method);
    assert_eq!(traced, Ok(Method::Trace), "well-formed; the exchange answers 405");
}

#[test]
fn connection_cannot_name_what_must_stay() {
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Authorization",
        "Cookie",
        "X-Forwarded-For",
        "x-forwarded-anything",
        "X_Forwarded_For",
        "Forwarded",
        "X-Real-IP",
    ] {
        assert_eq!(refusal(&format!("Connection: close, {name}\r\n")), Some(Malformed), "{name}");
    }
    assert_eq!(refusal("Connection: close, X-Forwarded-For, Host\r\n"), Some(Malformed));
    assert_eq!(refusal("Connection: close\r\nConnection: host\r\n"), Some(Malformed));
    assert_eq!(refusal("Connection: clo se\r\n"), Some(Malformed));
    assert_eq!(refusal("Connection: X-Mine, , keep-alive,\r\n"), None);
    assert_eq!(refusal("Connection:\r\n"), None);
}

#[test]
fn a_name_that_only_an_underscore_tells_from_framing_is_refused() {
    for (name, want) in [
        ("Transfer_Encoding", Some(Malformed)),
        ("transfer_encoding", Some(Malformed)),
        ("Content_Length", Some(Malformed)),
        ("CONTENT_LENGTH", Some(Malformed)),
        ("Keep_Alive", Some(Malformed)),
        ("Proxy_Connection", Some(Malformed)),
        ("HTTP2_Settings", Some(Malformed)),
        ("Proxy_Authorization", Some(Malformed)),
        ("Proxy-Authentication_Info", Some(Malformed)),
        ("Proxy_Authentication-Info", Some(Malformed)),
        ("Proxy_Authenticate", Some(Malformed)),
        // They are dropped, like their usual spellings.
        ("X_Forwarded_For", None),
        ("X_Real-IP", None),
        ("Content_Type", None),
        ("Content_Lengths", None),
        ("Transfer__Encoding", None),
        ("_Keep_Alive", None),
    ] {
        for value in ["", "5", "chunked"] {
            assert_eq!(refusal(&format!("{name}: {value}\r\n")), want, "{name}: {value}");
        }
    }
}

#[test]
fn a_connection_goes_on_as_its_version_says() {
    for (version, fields, want) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: X, CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Keep-Alive: timeout=5\r\n", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(with(&head, |facts| facts.keep_alive), Ok(want), "{version} {fields}");
    }
}

#[test]
fn only_100_continue_can_be_expected() {
    let expects = |version: &str, fields: &str| {
        with(&format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"), |facts| facts.expect_continue)
    };
    assert_eq!(expects("1.1", "Expect: 100-Continue\r\nContent-Length: 5\r\n"), Ok(true));
    assert_eq!(expects("1.1", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n"), Ok(true));
    assert_eq!(expects("1.1", "Expect: 100-continue\r\n"), Ok(false), "without a body nobody waits");
    assert_eq!(expects("1.0", "Expect: 100-continue\r\nContent-Length: 5\r\n"), Ok(false));
    assert_eq!(expects("1.1", "Expect: x\r\n"), Err(Expectation));
    assert_eq!(expects("1.1", "Expect: 100-continue, x\r\n"), Err(Expectation));
    assert_eq!(expects("1.1", "Expect:\r\n"), Err(Expectation));
}

#[test]
fn an_upgrade_names_one_protocol_and_has_no_body() {
    let long = format!("Connection: Upgrade\r\nUpgrade: {}\r\n", "a".repeat(65));
    for (method, version, fields, want) in [
        ("GET", "1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
        ("GET", "1.1", "Connection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n", Some("WebSocket")),
        ("GET", "1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n", Some("websocket")),
        ("GET", "1.1", "Upgrade: websocket\r\n", None),
        ("GET", "1.1", "Connection: Upgrade\r\n", None),
        ("GET", "1.1", "Connection: Upgrade\r\nUpgrade:\r\n", None),
        ("GET", "1.1", "Connection: Upgrade\r\nUpgrade: websocket, foo\r\n", None),
        ("GET", "1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n", None),
        ("GET", "1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n", Some("h2c")),
        ("GET", "1.1", "Connection: Upgrade\r\nUpgrade: foo\r\n", Some("foo")),
        ("OPTIONS", "1.1", "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", Some("TLS/1.0")),
        ("POST", "1.1", "Connection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 0\r\n", Some("foo")),
        ("GET", "1.1", "Connection: Upgrade\r\nUpgrade: foo/1/2\r\n", None),
        ("GET", "1.1", "Connection: Upgrade\r\nUpgrade: foo bar\r\n", None),
        ("GET", "1.1", long.as_str(), None),
        ("GET", "1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", None),
        ("POST", "1.1", "Connection: Upgrade\r\nUpgrade: foo\r\nTransfer-Encoding: chunked\r\n", None),
        ("GET", "1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", None),
        ("POST", "1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", None),
    ] {
        let head = format!("{method} / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(
            with(&head, |facts| facts.upgrade.map(|name| name.escape_ascii().to_string())),
            Ok(want.map(str::to_owned)),
            "{head:?}"
        );
    }
}

#[test]
fn what_is_left_of_a_body_is_drained_only_where_it_is_short() {
    use super::super::limits::DRAIN_BYTES;
    for (fields, read, want) in [
        ("", 0, Leftover::Nothing),
        ("Content-Length: 0\r\n", 0, Leftover::Nothing),
        ("Content-Length: 5\r\n", 5, Leftover::Nothing),
        ("Content-Length: 5\r\n", 2, Leftover::Drain(3)),
        ("Content-Length: 65536\r\n", 0, Leftover::Drain(65_536)),
        ("Content-Length: 65537\r\n", 0, Leftover::Close),
        ("Content-Length: 65537\r\n", 1, Leftover::Drain(65_536)),
        ("Content-Length: 5\r\nExpect: 100-continue\r\n", 0, Leftover::Close),
        ("Content-Length: 5\r\nExpect: 100-continue\r\n", 1, Leftover::Drain(4)),
        ("Transfer-Encoding: chunked\r\n", 0, Leftover::Drain(DRAIN_BYTES)),
        ("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", 0, Leftover::Close),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(
            with(&head, |facts| facts.framing.leftover(facts.expect_continue, read)),
            Ok(want),
            "{fields:?} {read}"
        );
    }
}

/// Paths that are accepted, made of pieces: as they are sent, and in their normal form.
fn good_paths() -> impl Strategy<Value = (String, String)> {
    let pieces = vec![("/a", "/a"), ("/B.c", "/B.c"), ("/%41", "/A"), ("/%2f", "/%2F"), ("/;x", "/;x"), ("/%7e", "/~")];
    prop::collection::vec(prop::sample::select(pieces), 1..5)
        .prop_map(|pieces| (pieces.iter().map(|piece| piece.0).collect(), pieces.iter().map(|piece| piece.1).collect()))
}

/// Targets near good ones.
fn targets() -> impl Strategy<Value = String> {
    let start =
        prop::sample::select(vec!["/", "/", "/", "", "*", "http://a", "HTTPS://A:443/", "http://b/", "http://a:81"]);
    let pieces = vec!["/", "a", "..", ".", "%41", "%2f", "%2E", "%zz", "?", "q=1", ";", "~", "\\", "#", ":", "@"];
    let pieces = prop::collection::vec(prop::sample::select(pieces), 0..6).prop_map(|pieces| pieces.concat());
    let any = "[!-~]{1,40}".boxed();
    prop_oneof![4 => (start, pieces).prop_map(|(start, pieces)| format!("{start}{pieces}")), 1 => any]
}

/// Field lines that decide something, alone and together, and any others.
fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let lines = vec![
        ("Content-Length", "5"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("transfer-encoding", "gzip"),
        ("Host", "a"),
        ("Host", "b"),
        ("Connection", "close"),
        ("Connection", "Host"),
        ("Expect", "100-continue"),
    ];
    let line = prop::sample::select(lines).prop_map(|(name, value)| (name.to_owned(), value.to_owned()));
    prop::collection::vec(prop_oneof![4 => line, 1 => ("[A-Za-z_-]{1,20}", "[ -~]{0,30}")], 0..4)
}

/// What a request is routed and sent by: path, target, host, authority.
fn sent(head: &str) -> Result<(String, String, Option<String>, Option<String>), AnswerReason> {
    with(head, |facts| {
        let own = |text: Option<&str>| text.map(str::to_owned);
        (facts.path.into_owned(), facts.target.into_owned(), own(facts.host), own(facts.authority))
    })
}

proptest! {
    /// The head that goes upstream is accepted in its turn and says the same, and nothing in it has two readings.
    #[test]
    fn what_is_accepted_has_one_reading(
        method in prop::sample::select(vec!["GET", "POST", "OPTIONS"]), target in targets(), fields in fields(),
    ) {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        if let Ok((path, sent_target, host, authority)) = sent(&head) {
            prop_assert_eq!((host.as_deref(), authority.as_deref()), (Some("a"), Some("a")), "{}", head);
            prop_assert!(target.ends_with(&sent_target[1..]), "{}: {}", head, sent_target);
            prop_assert!(!sent_target.contains('#'), "{}", head);
            if path == "*" {
                prop_assert_eq!((method, sent_target.as_str()), ("OPTIONS", "*"));
            } else {
                let normal = crate::route::normalise(path.as_bytes()).map(Cow::into_owned);
                prop_assert_eq!(normal.as_ref(), Ok(&path), "{}", head);
                prop_assert!(path.starts_with('/') && sent_target.starts_with('/'), "{}: {}", head, path);
                prop_assert!(!path.split('/').any(|part| part == "." || part == ".."), "{}: {}", head, path);
            }
            let again = sent(&format!("{method} {sent_target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            prop_assert_eq!(again, Ok((path, sent_target, host, authority)), "{}", head);

            let count = |wanted: &str| fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).count();
            let framed = (count("content-length"), count("transfer-encoding"));
            let framing = with(&head, |facts| facts.framing);
            let agrees = matches!(
                (framed, framing),
                ((0, 0), Ok(Framing::None)) | ((1, 0), Ok(Framing::Length(_))) | ((0, 1), Ok(Framing::Chunked))
            );
            prop_assert!(agrees, "{}: {:?}", head, framing);
            prop_assert_eq!(count("host"), 0, "{}", head);
        }
    }

    /// The counterpart: what is good is not refused, and is read as it was made.
    #[test]
    fn what_is_good_is_accepted_as_it_is(
        (raw_path, normal) in good_paths(),
        query in prop::sample::select(vec!["", "?", "?x=%zz&y=../.."]),
        absolute in any::<bool>(),
        (line, framing) in prop::sample::select(vec![
            ("", Framing::None),
            ("Content-Length: 7\r\n", Framing::Length(7)),
            ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ]),
    ) {
        let target = format!("{raw_path}{query}");
        let scheme = if absolute { "http://a:80" } else { "" };
        let head = format!("POST {scheme}{target} HTTP/1.1\r\nHost: a\r\nX-Mine: 1\r\n{line}\r\n");
        prop_assert_eq!(sent(&head), Ok((normal, target, Some("a".to_owned()), Some("a".to_owned()))));
        prop_assert_eq!(with(&head, |facts| (facts.framing, facts.absolute)), Ok((framing, absolute)));
    }
}
