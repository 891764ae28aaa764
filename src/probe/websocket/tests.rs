//! The opening handshake: the request, and which 101 accepts a WebSocket.

use super::*;
use crate::model::Secret;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn probe(subprotocol: Option<&str>) -> WebsocketProbe {
    WebsocketProbe {
        path: "/chat?a=1".into(),
        host: None,
        headers: vec![
            ("X-Token".into(), HeaderText::Secret(Secret::new("s3cret"))),
            ("sec-websocket-key".into(), HeaderText::Plain("mine".into())),
            ("CONNECTION".into(), HeaderText::Plain("close".into())),
        ],
        subprotocol: subprotocol.map(Into::into),
    }
}

/// The result for this 101.
fn checked(fields: &str, subprotocol: Option<&str>) -> Result<Vec<u8>, String> {
    let received = format!("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n{fields}\r\nrest");
    let probe = probe(subprotocol);
    let mut steps = Steps::begin();
    let rest = check_switch(received.as_bytes(), &probe, KEY, &mut steps).map(<[u8]>::to_vec);
    assert!(steps.trace.head.starts_with(b"HTTP/1.1 101 "));
    rest.map_err(|finding| format!("{finding:?}"))
}

#[test]
fn bytes_without_a_readable_101_are_a_failure() {
    let probe = probe(None);
    for received in ["", "HTTP/1.1 101", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Swit", "\0\0"] {
        let found = check_switch(received.as_bytes(), &probe, KEY, &mut Steps::begin());
        assert_eq!(found, Err(Flaw::Unreadable), "{received:?}");
    }
    let many = "HTTP/1.1 100 Continue\r\n\r\n".repeat(INTERIM_ANSWERS as usize + 1);
    assert_eq!(check_switch(many.as_bytes(), &probe, KEY, &mut Steps::begin()), Err(Flaw::Unreadable));
}

#[test]
fn the_accept_of_a_key_is_that_of_the_rfc() {
    assert_eq!(accept_of(KEY), ACCEPT);
}

#[test]
fn the_request_asks_for_a_websocket_with_one_key_and_our_fields() {
    let upgrade = Upgrade::new(&probe(Some("mqtt")), "api.internal:81");
    let text = String::from_utf8(upgrade.with_key(KEY)).unwrap();
    let expected = format!(
        "GET /chat?a=1 HTTP/1.1\r\nHost: api.internal:81\r\nUser-Agent: roundsman-probe/{}\r\nAccept: */*\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
         X-Token: s3cret\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        crate::VERSION
    );
    assert_eq!(text, expected);
    assert!(!String::from_utf8(Upgrade::new(&probe(None), "a").with_key(KEY)).unwrap().contains("Protocol"));
}

#[test]
fn a_101_must_accept_this_websocket() {
    let base = "Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n";
    let accept = format!("Sec-WebSocket-Accept: {ACCEPT}\r\n");
    for (fields, subprotocol) in [
        (format!("{base}{accept}"), None),
        (format!("{base}{accept}Sec-WebSocket-Protocol: mqtt\r\n"), Some("mqtt")),
        (format!("{base}{accept}Sec-WebSocket-Extensions: \r\n"), None),
    ] {
        assert_eq!(checked(&fields, subprotocol), Ok(b"rest".to_vec()), "{fields}");
    }
    for (fields, subprotocol, flaw) in [
        (format!("Connection: Upgrade\r\n{accept}"), None, "Upgrade: websocket"),
        (format!("Upgrade: h2c\r\nConnection: Upgrade\r\n{accept}"), None, "Upgrade: websocket"),
        // Requests would get 502.
        (format!("Upgrade: h2c\r\n{base}{accept}"), None, "Upgrade"),
        (format!("Upgrade: websocket, h2c\r\nConnection: upgrade\r\n{accept}"), None, "Upgrade"),
        (format!("Upgrade: websocket\r\n{accept}"), None, "Connection: Upgrade"),
        (base.to_owned(), None, "Missing(\"Sec-WebSocket-Accept\")"),
        (format!("{base}Sec-WebSocket-Accept: {}\r\n", ACCEPT.to_lowercase()), None, "Accept("),
        (format!("{base}{accept}{accept}"), None, "Accept("),
        (format!("{base}{accept}"), Some("mqtt"), "asked: Some(\"mqtt\"), agreed: None"),
        (format!("{base}{accept}Sec-WebSocket-Protocol: chat\r\n"), None, "asked: None, agreed: Some("),
        (format!("{base}{accept}Sec-WebSocket-Protocol: MQTT\r\n"), Some("mqtt"), "Subprotocol"),
        (format!("{base}{accept}Sec-WebSocket-Extensions: permessage-deflate\r\n"), None, "Extension("),
    ] {
        let error = checked(&fields, subprotocol).unwrap_err();
        assert!(error.contains(flaw), "{fields}: {error}");
    }
}
