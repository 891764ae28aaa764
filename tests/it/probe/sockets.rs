//! What a probe does to the other side's socket: a plain TCP check never becomes a connection of the server's, and every
//! other one acknowledges at once what it waits for.
//!
//! Where the kernel's delays are measured (40 and 200 ms), the fastest of many probes counts: a busy machine makes some of
//! them slow, and with the delay none can be fast.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use roundsman::model::policy::{PortRule, ProbeKind, ProbeSpec, TcpProbe};
use roundsman::model::{Address, Code, ProbeReport};
use roundsman::probe::probe;
use serde_json::Value;
use tokio::time::Instant;

use super::{LONG, SLACK, contains, equals, get, http_spec, tcp};
use crate::origin::tls::{CERTIFICATES, TlsOrigin};
use crate::support::assert_eventually;

/// The kernel sends the end of a handshake by itself after 200 ms. A probe that took longer may have been seen.
const UNSEEN: Duration = Duration::from_millis(150);
/// Probes that are made until one of them is as fast as it must be.
const TRIES: usize = 200;

async fn knock(listener: &TcpListener) -> ProbeReport {
    let target = Address::Inet(listener.local_addr().unwrap());
    probe(&target, &target, &tcp(), LONG).await
}

/// The sockets that the kernel keeps for this port on either side, TIME_WAIT included, but for the listener: their two
/// addresses. Ports are used again, so what others left behind is there too.
fn kept(address: SocketAddr) -> HashSet<(String, String)> {
    let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let text = std::fs::read_to_string(table).unwrap();
    let end = format!(":{:04X}", address.port());
    let columns = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_port = columns.filter(|columns| columns[1..3].iter().any(|address| address.ends_with(&end)));
    of_port.filter(|columns| columns[3] != "0A").map(|columns| (columns[1].into(), columns[2].into())).collect()
}

#[tokio::test]
async fn plain_tcp_checks_never_become_connections_of_the_server() {
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let listener = TcpListener::bind(SocketAddr::new(ip, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let before = kept(address);
        let mut unseen = 0;
        for _ in 0..TRIES {
            let began = Instant::now();
            let report = knock(&listener).await;
            assert_eq!((report.code, report.hint), (Code::L4Ok, None), "{ip}: {}", report.sentence());
            assert!(report.trace.local.is_some_and(|local| local.ip() == ip && local.port() > 0));
            let accepted = listener.accept().map(|_| ()).map_err(|error| error.kind());
            if began.elapsed() < UNSEEN {
                assert_eq!(accepted, Err(ErrorKind::WouldBlock), "{ip}: the server got a connection");
                unseen += 1;
            }
            if unseen == 12 {
                break;
            }
        }
        assert_eq!(unseen, 12, "{ip}: this machine is too slow to see anything");
        assert_eventually(&format!("{ip}: nothing is left of them"), SLACK, || kept(address).is_subset(&before)).await;
    }
}

#[tokio::test]
async fn a_plain_check_of_a_full_backlog_or_of_nobody_fails_over_ipv6_too() {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let target = Address::Inet(address);
    let refused = probe(&target, &target, &tcp(), LONG).await;
    assert_eq!((refused.code, &*refused.reason), (Code::L4Con, "connection refused"));
    socket.listen(0).unwrap();
    let _filler = TcpStream::connect(address).unwrap();
    let timeout = Duration::from_millis(300);
    let full = probe(&target, &target, &tcp(), timeout).await;
    assert_eq!((full.code, &*full.reason), (Code::L4Tout, "no connection within 300ms"));
}

/// A server that does this with every connection, one thread each.
fn serve(act: impl Fn(TcpStream) -> std::io::Result<()> + Clone + Send + 'static) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let act = act.clone();
            std::thread::spawn(move || drop(act(connection)));
        }
    });
    Address::Inet(address)
}

fn read_to_end(mut connection: TcpStream) -> std::io::Result<()> {
    connection.read_to_end(&mut Vec::new()).map(drop)
}

/// Reads up to the empty line.
fn read_head(connection: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(())
}

fn expects(text: &str) -> Arc<ProbeSpec> {
    let kind = ProbeKind::Tcp(TcpProbe::of(None, Some(text.into())));
    Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind, max_duration: None })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_waited_for_is_acknowledged_at_once() {
    let speaks_first = serve(|mut connection| {
        connection.write_all(b"220 ready\r\n")?;
        read_to_end(connection)
    });
    let two_writes = serve(|mut connection| {
        read_head(&mut connection)?;
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")?;
        connection.write_all(b"up")?;
        read_to_end(connection)
    });
    for (name, target, spec) in
        [("it speaks first", speaks_first, expects("220")), ("it writes twice", two_writes, http_spec(contains("up")))]
    {
        let mut fastest = Duration::MAX;
        for _ in 0..TRIES {
            let report = probe(&target, &target, &spec, LONG).await;
            assert_eq!(report.code, Code::L7Ok, "{name}: {}", report.sentence());
            fastest = fastest.min(report.duration);
            if fastest < Duration::from_millis(30) {
                break;
            }
        }
        assert!(fastest < Duration::from_millis(30), "{name}: {fastest:?} at best");
    }
}

/// A script under inetd writes lines, reads nothing and ends. Its kernel throws away what was not acknowledged, and resets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_of_a_server_that_ends_at_once_is_read_whole() {
    let script = serve(|mut connection| {
        for line in ["HTTP/1.1 200 OK", "Connection: close", "Content-Length: 8", "", "synced"] {
            connection.write_all(format!("{line}\r\n").as_bytes())?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let spec = http_spec(equals("synced\r\n"));
    let mut broken = Vec::new();
    for _ in 0..20 {
        let report = probe(&script, &script, &spec, LONG).await;
        if report.code != Code::L7Ok {
            broken.push(report.sentence());
        }
    }
    // Where acknowledgements are held back, only a machine that stands still between two lines reads one whole.
    assert!(broken.len() < 10, "{} of 20: {}", broken.len(), broken[0]);
}

/// Each probe is the first of its process. What the start of the cryptography takes (50 ms and more) is not in its time.
#[test]
fn the_first_handshake_of_a_process_pays_for_no_start() {
    let origin = TlsOrigin::with(&CERTIFICATES.good).start();
    let url = format!("tls://{}", origin.address());
    let mut fastest = f64::MAX;
    for _ in 0..TRIES / 5 {
        let output = crate::commands::roundsman(&["probe", "--url", &url, "--insecure", "--json"]);
        let reply: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let check = &reply["upstreams"][0]["checks"][0];
        assert_eq!(check["code"], "L6OK", "{check}");
        fastest = fastest.min(check["duration_ms"].as_f64().unwrap());
        if fastest < 20.0 {
            return;
        }
    }
    panic!("{fastest} ms at best");
}

/// Other checks close in order: a server that has read the request sees the end of the stream and no reset.
#[tokio::test]
async fn a_check_that_talked_closes_in_order() {
    let (ends, ended) = std::sync::mpsc::channel();
    let target = serve(move |mut connection| {
        read_head(&mut connection)?;
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup")?;
        let _ = ends.send(connection.read(&mut [0; 1]).map_err(|error| error.kind()));
        Ok(())
    });
    let report = probe(&target, &target, &http_spec(get()), LONG).await;
    assert_eq!(report.code, Code::L7Ok, "{}", report.sentence());
    assert_eq!(ended.recv_timeout(SLACK * 10), Ok(Ok(0)));
}
