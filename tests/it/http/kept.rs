//! Kept upstream connections on which a FIN or unrequested bytes have arrived that only the kernel has noticed. The
//! next request is sent on another connection, whatever its method, and gets its own response.
//!
//! All of it runs on one thread, so that the test decides what the runtime has noticed: the next request waits for its
//! pool, then the bytes arrive, and the pool is open again before the runtime polls a socket.

use std::net::Shutdown;
use std::time::Duration;

use roundsman::model::Address;
use roundsman::pool::{Otherwise, Service};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::rig::{Client, Rig, SOON, get, post, within};
use crate::lanes::each::in_each_lane;
use crate::support::assert_eventually;

/// What arrives on an idle connection.
#[derive(Debug, Clone, Copy)]
enum Late {
    Bytes(&'static str),
    Fin,
    Reset,
}

const POISON: Late = Late::Bytes("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON");

impl Late {
    /// Sends it; it is in the proxy's kernel when this returns, and the proxy has not noticed.
    fn come(self, origin: TcpStream) -> Option<TcpStream> {
        match self {
            Late::Bytes(bytes) => assert_eq!(origin.try_write(bytes.as_bytes()).unwrap(), bytes.len()),
            Late::Fin => SockRef::from(&origin).shutdown(Shutdown::Write).unwrap(),
            Late::Reset => {
                SockRef::from(&origin).set_linger(Some(Duration::ZERO)).unwrap();
                return None;
            }
        }
        Some(origin)
    }
}

/// Reads one request with this first line and answers it.
async fn serve(origin: &mut TcpStream, line: &str, answer: &str) {
    let mut seen = vec![0; 16 * 1024];
    let mut n = 0;
    loop {
        let head = String::from_utf8_lossy(&seen[..n]).into_owned();
        let body = if head.contains("Content-Length: 5\r\n") { 5 } else { 0 };
        if head.find("\r\n\r\n").is_some_and(|end| n >= end + 4 + body) {
            assert!(head.starts_with(&format!("{line} ")), "{head:?} is not {line:?}");
            break;
        }
        let more = within(origin.read(&mut seen[n..])).await.unwrap();
        assert!(more > 0, "the end of the request, after {head:?}");
        n += more;
    }
    origin.write_all(answer.as_bytes()).await.unwrap();
}

/// A client, and an upstream that has responded and kept the connection.
async fn warm(listener: &TcpListener, line: &str, answer: &str) -> (Rig, Client, TcpStream) {
    let rig = Rig::build(&[Address::Inet(listener.local_addr().unwrap())], Handle::current(), 100);
    let mut client = rig.connect().await;
    client.head_only = line.starts_with("HEAD");
    client.send(format!("{line} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
    let (mut origin, _) = within(listener.accept()).await.unwrap();
    serve(&mut origin, line, answer).await;
    client.answer().await;
    client.head_only = false;
    let upstream = rig.upstreams[0].clone();
    let idle = || upstream.in_flight.load(std::sync::atomic::Ordering::Relaxed) == 0;
    assert_eventually("the connection is kept", SOON, idle).await;
    (rig, client, origin)
}

/// The request reaches the upstream on a new connection, and nothing of it on the old one.
async fn assert_on_another(listener: &TcpListener, old: Option<TcpStream>, line: &str, answer: &str) -> TcpStream {
    let mut origin = match old {
        None => within(listener.accept()).await.unwrap().0,
        Some(mut old) => {
            let mut byte = [0];
            within(async {
                let mut ended = false;
                loop {
                    tokio::select! {
                        new = listener.accept() => break new.unwrap().0,
                        read = old.read(&mut byte), if !ended => {
                            assert!(!matches!(read, Ok(n) if n > 0), "{line}: it is sent on a connection that is not clean");
                            ended = true;
                        }
                    }
                }
            })
            .await
        }
    };
    serve(&mut origin, line, answer).await;
    origin
}

in_each_lane!(late_bytes_on_a_kept_connection_reach_no_client_and_fail_no_request);
async fn late_bytes_on_a_kept_connection_reach_no_client_and_fail_no_request() {
    let answers = [
        ("GET /one", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"),
        ("HEAD /one", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
        ("GET /one", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET /one", "HTTP/1.1 304 Not Modified\r\n\r\n"),
    ];
    for (line, answer) in answers {
        for late in [POISON, Late::Bytes("x"), Late::Fin, Late::Reset] {
            for request in [get("/two"), post("/two", "hello")] {
                let case = format!("{line} {answer:?} {late:?} {request:?}");
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let (rig, mut client, old) = warm(&listener, line, answer).await;
                let until = Instant::now() + Duration::from_secs(300);
                rig.set_service(Service::Waiting { until, then: Otherwise::Reject });
                client.send(&request).await;
                assert_eventually("the request waits", SOON, || rig.pool.shared.waiting() == 1).await;
                // From here on nothing awaits, so the runtime polls no socket until an upstream has been picked.
                let old = late.come(old);
                rig.set_service(Service::Open);
                let two = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo";
                let first = &request[..request.find(" HTTP").unwrap()];
                let _new = assert_on_another(&listener, old, first, two).await;
                let answer = client.answer().await;
                assert_eq!((answer.status, answer.text().as_str()), (200, "two"), "{case}");
                let upstream = &rig.upstreams[0];
                assert_eventually("the old connection is closed", SOON, || upstream.connections.len() <= 1).await;
            }
        }
    }
}

in_each_lane!(after_closed_kept_connections_a_new_one_is_made);
async fn after_closed_kept_connections_a_new_one_is_made() {
    for request in [get("/two"), post("/two", "hello")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rig = Rig::build(&[Address::Inet(listener.local_addr().unwrap())], Handle::current(), 100);
        let mut kept = vec![];
        let mut clients = vec![];
        for _ in 0..3 {
            let mut client = rig.connect().await;
            client.send(get("/one")).await;
            kept.push(within(listener.accept()).await.unwrap().0);
            clients.push(client);
        }
        for (origin, client) in kept.iter_mut().zip(&mut clients) {
            serve(origin, "GET /one", "HTTP/1.1 204 No Content\r\n\r\n").await;
            client.answer().await;
        }
        let upstream = rig.upstreams[0].clone();
        let idle = || upstream.in_flight.load(std::sync::atomic::Ordering::Relaxed) == 0;
        assert_eventually("the connections are kept", SOON, idle).await;
        assert_eq!(upstream.connections.len(), 3);
        let until = Instant::now() + Duration::from_secs(300);
        rig.set_service(Service::Waiting { until, then: Otherwise::Reject });
        clients[0].send(&request).await;
        assert_eventually("the request waits", SOON, || rig.pool.shared.waiting() == 1).await;
        drop(kept);
        rig.set_service(Service::Open);
        let (mut new, _) = within(listener.accept()).await.unwrap();
        let first = &request[..request.find(" HTTP").unwrap()];
        serve(&mut new, first, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo").await;
        assert_eq!(clients[0].answer().await.text(), "two");
        assert_eq!(rig.pool.shared.stats.retries.total(), 0);
    }
}

in_each_lane!(after_a_body_on_a_bodiless_response_such_connections_are_not_kept);
async fn after_a_body_on_a_bodiless_response_such_connections_are_not_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (rig, mut client, origin) = warm(&listener, "HEAD /one", "HTTP/1.1 200 OK\r\n\r\n").await;
    // The surplus is noticed once.
    let until = Instant::now() + Duration::from_secs(300);
    rig.set_service(Service::Waiting { until, then: Otherwise::Reject });
    client.head_only = true;
    client.send("HEAD /two HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eventually("the request waits", SOON, || rig.pool.shared.waiting() == 1).await;
    let old = POISON.come(origin);
    rig.set_service(Service::Open);
    let empty = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n";
    let origin = assert_on_another(&listener, old, "HEAD /two", empty).await;
    assert_eq!(client.answer().await.status, 200);
    // The next connection is not kept, although nothing has arrived on it yet.
    client.head_only = false;
    client.send(get("/three")).await;
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthree";
    let mut origin = assert_on_another(&listener, Some(origin), "GET /three", whole).await;
    assert_eq!(client.answer().await.text(), "three");
    // After a response with a body it is kept.
    client.send(get("/four")).await;
    serve(&mut origin, "GET /four", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour").await;
    assert_eq!(client.answer().await.text(), "four");
}
