//! The behaviour of the origin on which other tests rely.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::origin::{BlackHole, Ending, Origin, Reply, refusing_address};
use crate::support::{assert_eventually_blocking, assert_read, backlog};

fn get(origin: &Origin, request: &str) -> String {
    let mut stream = TcpStream::connect(origin.socket_addr()).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set a timeout");
    stream.write_all(request.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

fn get_path(origin: &Origin, path: &str) -> String {
    get(origin, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
}

#[test]
fn a_script_runs_in_order_and_its_last_step_repeats() {
    let origin = Origin::new().named("a").on("/healthz").reply(503).times(2).then(404).then(200).start_blocking();
    let statuses: Vec<String> = (0..5).map(|_| get_path(&origin, "/healthz?x=1")[9..12].to_owned()).collect();
    assert_eq!(statuses, ["503", "503", "404", "200", "200"]);
    assert!(get_path(&origin, "/").ends_with("\r\n\r\nhello from a\n"));
    assert_eq!((origin.count("/healthz"), origin.total()), (5, 6));
    let seen = &origin.requests("/healthz")[0];
    assert_eq!((seen.target.as_str(), seen.field("HOST"), seen.connection), ("/healthz?x=1", Some("a"), 1));
    origin.set("/healthz", Reply::status(500));
    assert!(get_path(&origin, "/healthz").starts_with("HTTP/1.1 500 "));
}

#[test]
fn a_connection_is_kept_alive_and_bodies_come_back() {
    let origin = Origin::new().start_blocking();
    let answer = get(
        &origin,
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst\
         POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nsec\r\n3\r\nond\r\n0\r\n\r\n\
         GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.contains("first") && answer.contains("second"), "{answer}");
    assert_eq!(origin.accepted(), 1);
    let bodies: Vec<u64> = origin.all_requests().iter().map(|seen| seen.body_bytes).collect();
    assert_eq!(bodies, [5, 6, 0]);
}

#[test]
fn a_killed_origin_resets_refuses_and_returns_on_its_port() {
    let origin = Origin::new().on("/").reply(Reply::hang()).start_blocking();
    let mut open = TcpStream::connect(origin.socket_addr()).expect("connect");
    open.set_read_timeout(Some(Duration::from_secs(5))).expect("set a timeout");
    open.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("write");
    assert_eventually_blocking("the request has arrived", Duration::from_secs(5), || origin.count("/") == 1);
    origin.kill();
    let error = open.read(&mut [0]).expect_err("a killed origin resets its connections");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let error = TcpStream::connect(origin.socket_addr()).expect_err("a killed origin refuses connections");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    origin.revive();
    origin.unset("/");
    assert!(get_path(&origin, "/").starts_with("HTTP/1.1 200 "));
    assert_eq!(origin.endings()[0], Ending::Ours);
}

#[test]
fn a_black_hole_neither_accepts_nor_refuses() {
    let hole = BlackHole::start();
    let roundsman::model::Address::Inet(address) = hole.address() else { unreachable!("it listens on IPv4") };
    let error = TcpStream::connect_timeout(&address, Duration::from_millis(300)).expect_err("no handshake");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    let roundsman::model::Address::Inet(address) = refusing_address() else { unreachable!("it was IPv4") };
    let error = TcpStream::connect(address).expect_err("nothing listens");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn unaccepted_connections_and_unread_bytes_are_seen() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    assert_eq!(backlog(address), Some(0));
    let mut client = tokio::net::TcpStream::connect(address).await.expect("it listens");
    client.write_all(b"hello").await.expect("the kernel takes the bytes");
    assert_eq!(backlog(address), Some(1));
    let (mut server, _) = listener.accept().await.expect("a connection");
    assert_eq!(backlog(address), Some(0));
    let waiting = tokio::time::timeout(Duration::from_millis(200), assert_read(&client)).await;
    assert!(waiting.is_err(), "the bytes are only in the kernel");
    server.read_exact(&mut [0; 5]).await.expect("the bytes arrive");
    assert_read(&client).await;
    drop(listener);
    assert_eq!(backlog(address), None);
}
