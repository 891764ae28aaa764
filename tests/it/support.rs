//! Bounded waiting, and what the kernel knows of connections. A test does not sleep for a fixed time: it names what
//! must become true, and how long that may take. A test that cannot run on this machine reports that with [`skipped`].

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

const POLL_EVERY: Duration = Duration::from_millis(5);

/// Waits until `holds` is true; panics with `what` if that takes longer than `within`.
#[track_caller]
pub fn assert_eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let what = what.to_owned();
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + within;
        while !holds() {
            assert!(Instant::now() < end, "{caller}: not within {within:?}: {what}");
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

/// As [`assert_eventually`], for tests without a runtime.
#[track_caller]
pub fn assert_eventually_blocking(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        std::thread::sleep(POLL_EVERY);
    }
}

/// Reports on the terminal that a test cannot run on this machine; fails it if `ROUNDSMAN_REQUIRE_ALL` is set.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("ROUNDSMAN_REQUIRE_ALL").is_none(), "{why}");
    // `eprintln!` would not do: the test runner hides what a passing test prints.
    writeln!(std::io::stderr().lock(), "\n*** SKIPPED: {why} ***\n").expect("a terminal");
}

/// Waits until the process at the other end has read everything that `client` has sent: bytes that only its kernel
/// holds are not enough. IPv4 only.
pub async fn assert_read(client: &TcpStream) {
    let (ours, theirs) = (client.local_addr().expect("its address"), client.peer_addr().expect("its peer"));
    let within = Duration::from_secs(20);
    // In this order: bytes that have not arrived are not unread at the other end either.
    assert_eventually("all bytes have arrived", within, || {
        queues(ours, Some(theirs)).is_some_and(|(sent, _)| sent == 0)
    })
    .await;
    assert_eventually("all bytes are read", within, || {
        queues(theirs, Some(ours)).is_some_and(|(_, unread)| unread == 0)
    })
    .await;
}

/// Connections to a listening socket that its process has not accepted; `None`: nothing listens there. IPv4 only.
pub fn backlog(listener: SocketAddr) -> Option<usize> {
    queues(listener, None).map(|(_, waiting)| waiting)
}

/// Bytes that are not acknowledged and bytes that are not read, of the socket at `local` with this peer; without a
/// peer, of the listening socket there.
fn queues(local: SocketAddr, peer: Option<SocketAddr>) -> Option<(usize, usize)> {
    const LISTEN: &str = "0A";
    let written = |address: SocketAddr| {
        let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
        format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
    };
    let (local, peer) = (written(local), peer.map(written));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has one");
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let found = words[1] == local && peer.as_ref().map_or(words[3] == LISTEN, |peer| words[2] == peer);
        let (sent, unread) = words[4].split_once(':')?;
        let number = |text| usize::from_str_radix(text, 16).expect("a number");
        found.then(|| (number(sent), number(unread)))
    })
}
