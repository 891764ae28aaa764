//! Requests as they are built, and texts of the library. Tests with real sockets cover the peers.

use super::*;
use crate::model::Secret;
use crate::model::policy::{Expect, HttpVersion};

fn get(path: &str) -> HttpProbe {
    HttpProbe { version: HttpVersion::H2, ..HttpProbe::get(path, Expect::default()) }
}

fn lines(request: &Request<()>) -> String {
    let mut out = Excerpt::default();
    write_fields(&mut out, request.headers());
    String::from_utf8_lossy(out.bytes()).replace("\r\n", "\n")
}

#[test]
fn a_request_has_a_user_agent() {
    let request = request(&get("/healthz?full=1"), "127.0.0.1:81", false).unwrap();
    assert_eq!(request.method(), "GET");
    assert_eq!(request.uri(), "http://127.0.0.1:81/healthz?full=1");
    assert_eq!(lines(&request), format!("user-agent: roundsman-probe/{VERSION}\naccept: */*\n"));
}

#[test]
fn the_authority_is_the_address_dialled_unless_one_is_configured() {
    let uri = |probe: &HttpProbe, host: &str| request(probe, host, true).unwrap().uri().to_string();
    for host in ["127.0.0.1:81", "[fe80::1]:81", "localhost", "api"] {
        assert_eq!(uri(&get("/"), host), format!("https://{host}/"));
    }
    let configured = HttpProbe { host: Some("api.internal:8443".into()), ..get("/") };
    assert_eq!(uri(&configured, "127.0.0.1:81"), "https://api.internal:8443/");
    let field = ("Host".into(), HeaderText::Plain("by.header".into()));
    assert_eq!(uri(&HttpProbe { headers: vec![field.clone()], ..get("/") }, "127.0.0.1:81"), "https://by.header/");
    assert_eq!(uri(&HttpProbe { headers: vec![field], ..configured }, "127.0.0.1:81"), "https://api.internal:8443/");
}

#[test]
fn configured_fields_replace_defaults_and_do_not_change_the_framing() {
    let plain = |name: &str, value: &str| (name.into(), HeaderText::Plain(value.into()));
    let headers = vec![
        plain("Accept", "text/plain"),
        plain("X-App", "a"),
        plain("X-App", "b"),
        plain("Connection", "close"),
        plain("TE", "gzip"),
        plain("Content-Length", "99"),
        ("Authorization".into(), HeaderText::Secret(Secret::new("Bearer s3cret"))),
    ];
    let post = HttpProbe { headers, method: "POST".into(), body: Some("{}".into()), ..get("/") };
    let request = request(&post, "127.0.0.1:81", false).unwrap();
    let sent = lines(&request);
    assert_eq!(
        sent,
        format!(
            "user-agent: roundsman-probe/{VERSION}\naccept: text/plain\nx-app: a\nx-app: b\n\
             authorization: Bearer s3cret\ncontent-length: 2\n"
        )
    );
    assert!(request.headers()["authorization"].is_sensitive(), "no table of the peer may keep it");
    assert!(!request.headers()["x-app"].is_sensitive());
}

#[test]
fn methods_with_a_body_declare_an_empty_one() {
    for (method, length) in [("POST", Some("0")), ("PUT", Some("0")), ("GET", None), ("HEAD", None), ("PURGE", None)] {
        let request = request(&HttpProbe { method: method.into(), ..get("/") }, "a", false).unwrap();
        let sent = request.headers().get("content-length").map(|value| value.to_str().unwrap());
        assert_eq!(sent, length, "{method}");
    }
}

#[test]
fn every_path_that_a_file_may_hold_can_be_sent() {
    for byte in 0x21..=0x7e_u8 {
        for path in [format!("/a{}b", char::from(byte)), format!("/a?b={}c", char::from(byte))] {
            let request = request(&get(&path), "a", false).unwrap_or_else(|error| panic!("{path}: {error}"));
            let sent = request.uri().path_and_query().unwrap().as_str();
            let encoded = path.replace(char::from(byte), &format!("%{byte:02X}"));
            assert!(sent == path || sent == encoded, "{path} became {sent}");
        }
    }
    assert_eq!(written("/a#b"), "/a%23b");
}

/// The debug data of a GOAWAY is decoded unchanged.
#[tokio::test]
async fn the_debug_data_of_a_goaway_is_read() {
    for words in ["too_many_pings", "", "it's \"so\" \\ \r\n\t\0 \u{1b} ä", "a (b\"c\") d"] {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let server = async {
            let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
            frames.extend([0, 0, 8 + u8::try_from(words.len()).unwrap(), 7, 0, 0, 0, 0, 0]);
            frames.extend([0, 0, 0, 0, 0, 0, 0, 11]);
            frames.extend(words.as_bytes());
            let mut theirs = theirs;
            tokio::io::AsyncWriteExt::write_all(&mut theirs, &frames).await.unwrap();
            theirs
        };
        let probe = get("/");
        let mut answer = Answer::new(&probe);
        let asked = request(&probe, "a", false).unwrap();
        let mut steps = Steps::begin();
        let (end, _open) = tokio::join!(exchange(ours, asked, Bytes::new(), &mut answer, &mut steps), server);
        let End::Trouble(Trouble::GoAway { reason, words: read }) = end else { panic!("{end:?}") };
        assert_eq!(reason, h2::Reason::ENHANCE_YOUR_CALM);
        assert_eq!(String::from_utf8_lossy(read.bytes()), words);
        assert_eq!(steps.trace.answered_in, None);
    }
}
