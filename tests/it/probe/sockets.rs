//! What a probe does to the peer's socket: a plain TCP check never becomes a connection that the server accepts, and every
//! other check acknowledges received data at once.
//!
//! The kernel's delays (40 and 200 ms) are lower bounds: with the delay, no probe is faster, however fast the machine. So
//! one fast probe of many shows that there is no delay, and a busy machine only makes more probes necessary.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use roundsman::model::policy::{PortRule, ProbeKind, ProbeSpec, TcpProbe, TlsPolicy};
use roundsman::model::{Address, Code, ProbeReport};
use roundsman::probe::probe;
use tokio::runtime::Builder;
use tokio::time::Instant;

use super::{LONG, SLACK, contains, equals, get, http_spec, tcp};
use crate::origin::tls::{CERTIFICATES, TlsOrigin};
use crate::support::assert_eventually;

/// The kernel completes a handshake by itself after 200 ms. The server may accept the connection of a slower probe.
const HANDSHAKE_DELAY: Duration = Duration::from_millis(200);
/// The kernel delays an acknowledgement by at least this (`TCP_DELACK_MIN`).
const ACKNOWLEDGEMENT_DELAY: Duration = Duration::from_millis(40);
/// Probes until enough of them are undisturbed by a busy machine.
const TRIES: usize = 500;

async fn connect_check(listener: &TcpListener) -> ProbeReport {
    let target = Address::Inet(listener.local_addr().unwrap());
    probe(&target, &target, &tcp(), LONG).await
}

/// The address pairs of all sockets of this port on either side, TIME_WAIT included, except the listener. The kernel reuses
/// ports, so sockets of other tests may be among them.
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
            let report = connect_check(&listener).await;
            assert_eq!((report.code, report.hint), (Code::L4Ok, None), "{ip}: {}", report.sentence());
            assert!(report.trace.local.is_some_and(|local| local.ip() == ip && local.port() > 0));
            let accepted = listener.accept().map(|_| ()).map_err(|error| error.kind());
            if began.elapsed() < HANDSHAKE_DELAY * 3 / 4 {
                assert_eq!(accepted, Err(ErrorKind::WouldBlock), "{ip}: the server got a connection");
                unseen += 1;
            }
            if unseen == 12 {
                break;
            }
        }
        assert_eq!(unseen, 12, "{ip}: every probe took longer than the kernel's delay");
        assert_eventually(&format!("{ip}: no socket is left"), SLACK, || kept(address).is_subset(&before)).await;
    }
}

#[tokio::test]
async fn a_plain_check_of_a_full_backlog_or_a_closed_port_fails_over_ipv6_too() {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let target = Address::Inet(address);
    let refused = probe(&target, &target, &tcp(), LONG).await;
    assert_eq!((refused.code, &*refused.reason), (Code::L4Con, "connection refused"));
    socket.listen(0).unwrap();
    let _filler = TcpStream::connect(address).unwrap();
    let full = probe(&target, &target, &tcp(), Duration::from_secs(1)).await;
    assert_eq!((full.code, &*full.reason), (Code::L4Tout, "no connection within 1s"));
}

/// A server that runs `act` on every connection, each on its own thread.
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
async fn received_data_is_acknowledged_at_once() {
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
    for (name, target, spec, delay) in [
        ("the server writes first", speaks_first, expects("220"), HANDSHAKE_DELAY),
        ("the server writes twice", two_writes, http_spec(contains("up")), ACKNOWLEDGEMENT_DELAY),
    ] {
        let mut fastest = Duration::MAX;
        for _ in 0..TRIES {
            let report = probe(&target, &target, &spec, LONG).await;
            assert_eq!(report.code, Code::L7Ok, "{name}: {}", report.sentence());
            fastest = fastest.min(report.duration);
            if fastest < delay {
                break;
            }
        }
        assert!(fastest < delay, "{name}: {fastest:?} at best");
    }
}

/// A script under inetd writes lines, reads nothing and exits. Its kernel discards unacknowledged data and resets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_of_a_server_that_exits_at_once_is_read_completely() {
    let script = serve(|mut connection| {
        for line in ["HTTP/1.1 200 OK", "Connection: close", "Content-Length: 8", "", "synced"] {
            connection.write_all(format!("{line}\r\n").as_bytes())?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let spec = http_spec(equals("synced\r\n"));
    // With delayed acknowledgements, an answer is complete only if the machine pauses between two lines: hardly ever.
    let (mut complete, mut last) = (0, String::new());
    for _ in 0..TRIES {
        let report = probe(&script, &script, &spec, LONG).await;
        complete += usize::from(report.code == Code::L7Ok);
        last = report.sentence();
        if complete == 10 {
            return;
        }
    }
    panic!("{complete} of {TRIES} answers were complete; the last: {last}");
}

/// The start of the cryptography library takes 50 ms and more, and must not count as the upstream's time. The first check of
/// a process is held before its warm-up, for an hour of the clock: it passes only if its clock starts after the warm-up.
/// Each process warms up once, so this test runs in a child process.
#[test]
fn the_clock_of_the_first_handshake_starts_after_the_warm_up() {
    const ORIGIN: &str = "ROUNDSMAN_TEST_FIRST_HANDSHAKE";
    if let Ok(address) = std::env::var(ORIGIN) {
        return probe_before_warm_up(&address.parse().unwrap());
    }
    let origin = TlsOrigin::with(&CERTIFICATES.good).start();
    let this = "probe::sockets::the_clock_of_the_first_handshake_starts_after_the_warm_up";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let child = child.args([this, "--exact", "--nocapture"]).env(ORIGIN, origin.address().to_string());
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn probe_before_warm_up(target: &Address) {
    let policy = TlsPolicy { verify: false, server_name: None, roots: None, client: None };
    let spec = ProbeSpec { port: PortRule::Same, tls: Some(policy), kind: ProbeKind::Tls, max_duration: None };
    let spec = Arc::new(spec);
    // The warm-up runs on a blocking thread. The only one is occupied, so that the warm-up cannot begin.
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let report = runtime.block_on(async {
        let occupied = tokio::task::spawn_blocking(move || released.recv());
        let mut first = Box::pin(probe(target, target, &spec, LONG));
        assert!((&mut first).now_or_never().is_none(), "a cold process warms up first");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(3_600)).await;
        tokio::time::resume();
        release.send(()).unwrap();
        let _ = occupied.await;
        first.await
    });
    assert_eq!(report.code, Code::L6Ok, "{}", report.sentence());
}

/// Checks that send a request close without a reset: a server that has read it sees the end of the stream.
#[tokio::test]
async fn a_check_with_a_request_closes_without_a_reset() {
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
