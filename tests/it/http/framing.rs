//! Requests that two parsers could read differently: the response to each, and that none reaches an upstream.

use roundsman::pool::AnswerReason;

use super::rig::{Rig, get, post};
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};

in_each_lane!(an_ambiguous_head_is_refused_and_reaches_no_upstream);
async fn an_ambiguous_head_is_refused_and_reaches_no_upstream() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let host = "Host: a.example\r\n";
    let post = |fields: &str, body: &str| (format!("POST / HTTP/1.1\r\n{host}{fields}\r\n{body}"), 400);
    let line = |line: &str, status| (format!("{line}\r\n{host}\r\n"), status);
    let field = |field: &str| (format!("GET / HTTP/1.1\r\n{host}{field}\r\n\r\n"), 400);
    let hosts = |hosts: &str| (format!("GET / HTTP/1.1\r\n{hosts}\r\n"), 400);
    let mut rows = vec![
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
        post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\u{b}\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        (format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n"), 501),
        (format!("GET / HTTP/1.1\n{host}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host}A: b\rC: d\r\n\r\n"), 400),
        field("A: b\n"),
        field("A : b"),
        field("A: b\r\n  folded"),
        field("A: b\0c"),
        field("A: b\u{1}c"),
        field("A(: b"),
        field(": b"),
        field("no colon"),
        field("Connection: close, Host"),
        field("Connection: X-Forwarded-For"),
        field("Content_Length: 5"),
        post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        post("transfer_encoding: chunked\r\n", "0\r\n\r\n"),
        field("Keep_Alive: 5"),
        field("Proxy_Authorization: Basic x"),
        hosts(""),
        hosts("Host: a\r\nHost: a\r\n"),
        hosts("Host: u@a\r\n"),
        hosts("Host: a/b\r\n"),
        hosts("Host: a b\r\n"),
        hosts("Host:\r\n"),
        hosts("Host: a:99999\r\n"),
        line("GET http://other.example/ HTTP/1.1", 400),
        line("GET / HTTP/1.1 HTTP/1.1", 400),
        line("GET\t/ HTTP/1.1", 400),
        line("get / HTTP/1.1", 400),
        line("GET /", 400),
        line("GET / HTTP/1.2", 505),
        line("GET / HTTP/3.0", 505),
        line("PRI * HTTP/2.0", 505),
        line("GET * HTTP/1.1", 400),
        line("GET /../x HTTP/1.1", 400),
        line("GET /%2e%2e/x HTTP/1.1", 400),
        line("GET /%00 HTTP/1.1", 400),
        line("GET /%zz HTTP/1.1", 400),
        line("GET /\\ HTTP/1.1", 400),
        line("GET /#x HTTP/1.1", 400),
        line("CONNECT a:80 HTTP/1.1", 405),
        line(&format!("{} / HTTP/1.1", "A".repeat(100_000)), 400),
        line(&format!("GET /{} HTTP/1.1", "a".repeat(16 * 1024)), 414),
        line(&format!("GET /{} HTTP/1.1", "a".repeat(1 << 20)), 414),
        (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "A: b\r\n".repeat(100)), 431),
        (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "A: b\r\n".repeat(10_000)), 431),
        (format!("GET / HTTP/1.1\r\n{host}A: {}\r\n\r\n", "b".repeat(100 * 1024)), 431),
        (format!("GET / HTTP/1.1\r\n{host}Expect: cake\r\n\r\n"), 417),
    ];
    for length in ["5, 6", "+5", "0x5", "-1", "5 5", "18446744073709551616", ""] {
        rows.push(post(&format!("Content-Length: {length}\r\n"), "hello"));
    }
    for (bytes, status) in rows {
        let shown = &bytes[..bytes.len().min(120)];
        let mut client = rig.connect().await;
        client.send(&bytes).await;
        client.send(get("/smuggled")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{shown:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{shown:?}");
        assert!(answer.whole && !answer.text().contains("127.") && answer.field("server").is_none(), "{answer:?}");
        client.ends().await;
    }
    assert_eq!(origin.total(), 0, "{:?}", origin.all_requests());
}

in_each_lane!(an_ambiguous_chunked_body_is_refused_and_never_completed);
async fn an_ambiguous_chunked_body_is_refused_and_never_completed() {
    for (body, what) in [
        ("0x5\r\nhello\r\n0\r\n\r\n", "prefix"),
        ("+5\r\nhello\r\n0\r\n\r\n", "sign"),
        ("5_0\r\nhello\r\n0\r\n\r\n", "underscore"),
        ("00000000000000005\r\nhello\r\n0\r\n\r\n", "17 digits"),
        ("5;ext\nhello\r\n0\r\n\r\n", "LF after extension"),
        ("5\nhello\r\n0\r\n\r\n", "bare LF"),
        ("5\rhello\r\n0\r\n\r\n", "bare CR"),
        ("5\r\nhelloX\r\n0\r\n\r\n", "no CRLF after data"),
        ("5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", "trailer Content-Length"),
        ("5\r\nhello\r\n0\r\nHost: b\r\n\r\n", "trailer Host"),
        ("5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", "trailer Transfer-Encoding"),
        ("\r\nhello\r\n0\r\n\r\n", "no size"),
        ("5;\r\nhello\r\n0\r\n\r\n", "an extension without a name"),
        ("5; \r\nhello\r\n0\r\n\r\n", "white space for the name of an extension"),
        ("5;=x\r\nhello\r\n0\r\n\r\n", "an extension with nothing but a value"),
        ("5\r\nhello\r\n0;a=\"\r\n\r\n", "an extension with an open quote"),
        ("5\r\nhello\r\n0\r\nTransfer_Encoding: chunked\r\n\r\n", "trailer Transfer_Encoding"),
    ] {
        let origin = Origin::new().on("/echo").reply(Reply::echo()).start().await;
        let rig = Rig::over(&[&origin]);
        let mut client = rig.connect().await;
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client.send(body).await;
        client.send(get("/smuggled")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (400, Some("close")), "{what}");
        client.ends().await;
        assert_eq!(rig.answered(AnswerReason::Malformed), 1, "{what}");
        assert_eq!(origin.count("/smuggled"), 0, "{what}");
        assert!(origin.requests("/echo").iter().all(|seen| seen.body_bytes < 5 || seen.body == b"hello"), "{what}");
        assert!(origin.total() <= 1, "{what}");
    }
}

in_each_lane!(an_unambiguous_request_reaches_the_upstream_once_in_canonical_form);
async fn an_unambiguous_request_reaches_the_upstream_once_in_canonical_form() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    for (bytes, target) in [
        ("\r\nGET /crlf HTTP/1.1\r\nHost: a\r\n\r\n", "/crlf"),
        ("GET http://a.example/absolute?q=1 HTTP/1.1\r\nHost: a.example\r\n\r\n", "/absolute?q=1"),
        ("GET http://a.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n", "/?q"),
        ("GET //x/%2F;a=b/%41 HTTP/1.1\r\nHost: a\r\n\r\n", "//x/%2F;a=b/%41"),
        ("PROPFIND /method HTTP/1.1\r\nHost: a\r\n\r\n", "/method"),
        ("GET /?[]{}|^ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "/?[]{}|^"),
        ("GET /old HTTP/1.0\r\nHost: a\r\n\r\n", "/old"),
    ] {
        origin.forget();
        let answer = rig.ask(bytes).await;
        assert_eq!(answer.status, 200, "{bytes:?}");
        assert_eq!(answer.version, "HTTP/1.1");
        let seen = origin.all_requests();
        assert_eq!(seen.len(), 1, "{bytes:?}");
        assert_eq!(seen[0].target, target, "{bytes:?}");
        assert_eq!(seen[0].values("host").len(), 1, "{bytes:?}");
        assert!(String::from_utf8_lossy(&seen[0].head).contains(" HTTP/1.1\r\n"), "{bytes:?}");
    }
}

in_each_lane!(hop_by_hop_fields_are_removed_and_forwarding_fields_are_replaced);
async fn hop_by_hop_fields_are_removed_and_forwarding_fields_are_replaced() {
    let origin = Origin::new()
        .on("/")
        .reply(
            Reply::ok("x")
                .header("Keep-Alive", "timeout=9")
                .header("Connection", "X-Hop")
                .header("X-Hop", "1")
                .header("Proxy-Connection", "keep-alive")
                .header("Set-Cookie", "a=1")
                .header("Set-Cookie", "b=2"),
        )
        .start()
        .await;
    let rig = Rig::over(&[&origin]);
    let answer = rig
        .ask(
            "GET / HTTP/1.1\r\nHost: shop.example:8080\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\n\
             Keep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: x\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AA\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
             Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Kept: 1\r\nCookie: c=1\r\nAuthorization: Basic x\r\n\r\n",
        )
        .await;
    let seen = &origin.requests("/")[0];
    for gone in [
        "x-secret",
        "keep-alive",
        "te",
        "proxy-authorization",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "forwarded",
        "x-real-ip",
    ] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    assert_eq!(seen.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.values("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.values("x-forwarded-host"), ["shop.example:8080"]);
    assert_eq!(seen.values("host"), ["shop.example:8080"]);
    for kept in ["x-kept", "cookie", "authorization"] {
        assert!(seen.field(kept).is_some(), "{kept}");
    }
    for gone in ["x-hop", "proxy-connection", "keep-alive"] {
        assert_eq!(answer.field(gone), None, "{gone}");
    }
    assert_eq!(answer.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).count(), 2);
}

in_each_lane!(an_http_1_0_request_without_host_is_sent_with_the_address_of_the_upstream);
async fn an_http_1_0_request_without_host_is_sent_with_the_address_of_the_upstream() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    assert_eq!(rig.ask("GET /x HTTP/1.0\r\n\r\n").await.status, 200);
    assert_eq!(origin.requests("/x")[0].values("host"), [origin.text().as_str()]);
}

in_each_lane!(trace_and_options_for_the_server_are_answered_by_the_proxy);
async fn trace_and_options_for_the_server_are_answered_by_the_proxy() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 405);
    assert!(answer.field("allow").is_some());
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(origin.total(), 0);
    client.send("OPTIONS /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(origin.count("/x"), 1);
}

in_each_lane!(a_body_on_an_unusual_method_does_not_disturb_the_next_request);
async fn a_body_on_an_unusual_method_does_not_disturb_the_next_request() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    for method in ["GET", "DELETE", "OPTIONS"] {
        client.send(format!("{method} /m HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")).await;
        assert_eq!(client.answer().await.status, 200, "{method}");
    }
    client.head_only = true;
    client.send("HEAD /m HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    let answer = client.answer().await;
    assert!(answer.status == 200 && answer.field("content-length").is_some());
    client.head_only = false;
    client.send(post("/m", "hello")).await;
    assert_eq!(client.answer().await.status, 200);
    let bodies: Vec<_> = origin.requests("/m").iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(bodies, [b"hello"; 5]);
}
