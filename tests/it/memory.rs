//! Many clients that do not read or do not finish: they cost bounded descriptors, threads and memory, all of which are
//! freed once they have disconnected.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::lanes::differences;
use crate::lanes::each::{in_each_lane, once};
use crate::origin::{Act, Origin, Reply};
use crate::program::{Program, fetch, pool};
use crate::support::assert_read;

/// Ten times the 15 s within which all must be freed.
const PATIENCE: Duration = Duration::from_secs(150);
/// How much of the memory may stay allocated.
const KEPT: u64 = 20 << 20;

/// Rare checks, with a timeout that a busy machine keeps.
const CALM: &str =
    "type = \"http\"\npath = \"/healthz\"\ninterval = \"30s\"\ntimeout = \"20s\"\nfast_interval = \"50ms\"\n";

/// The memory limit for a client whose upload is not read.
const EACH_WRITER: u64 = 320 << 10;

/// Many clients, and a check that they free what they used.
struct Crowd {
    program: Program,
    origin: Origin,
    /// Descriptors, threads and bytes of memory before the clients connected.
    before: (usize, usize, u64),
    clients: Vec<TcpStream>,
}

impl Crowd {
    async fn start(reply: impl Into<Reply>, clients: usize, request: &str) -> Crowd {
        let origin = Origin::new().on("/x").reply(reply).start().await;
        let program = Program::start_ready(&pool("api", &[&origin.text()], CALM)).await;
        // Create what is made once and kept.
        assert_eq!(fetch(program.web, "GET", "/").await.0, 200);
        program.metrics().await;
        let before = (program.descriptors(), program.threads(), program.resident());
        let mut crowd = Crowd { program, origin, before, clients: Vec::new() };
        for _ in 0..clients {
            crowd.clients.push(connect(crowd.program.web, request).await);
        }
        crowd
    }

    /// Waits until each client uses at most this much memory: what was in use before the stall is freed first.
    async fn costs_at_most(&self, bytes: u64) {
        let end = Instant::now() + PATIENCE;
        loop {
            let each = self.program.resident().saturating_sub(self.before.2) / self.clients.len() as u64;
            if each <= bytes {
                return;
            }
            assert!(Instant::now() < end, "{} KiB for each client", each >> 10);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the origin can neither send nor read more.
    async fn until_stalled(&self) {
        let moved = || self.origin.bytes_written() + self.origin.bytes_read();
        let (mut last, mut since, end) = (0, Instant::now(), Instant::now() + PATIENCE);
        // Probes move a few bytes all the time.
        while since.elapsed() < Duration::from_secs(1) {
            assert!(Instant::now() < end, "the clients are still served");
            if moved() > last + (64 << 10) {
                (last, since) = (moved(), Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(last > 64 << 10, "nothing was transferred");
    }

    /// Disconnects the clients, and waits until what they used is freed.
    async fn leaves_nothing(mut self) {
        self.clients.clear();
        self.origin.reset_connections();
        let end = Instant::now() + PATIENCE;
        loop {
            let now = (self.program.descriptors(), self.program.threads(), self.program.resident());
            let (descriptors, threads, memory) = self.before;
            if now.0 <= descriptors + 5 && now.1 <= threads + 1 && now.2 <= memory + KEPT {
                break;
            }
            assert!(Instant::now() < end, "(descriptors, threads, memory) {:?} before, {now:?} after", self.before);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(fetch(self.program.web, "GET", "/").await.0, 200);
        self.program.assert_no_panic();
    }
}

async fn connect(address: SocketAddr, request: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.expect("the listener accepts");
    client.write_all(request.as_bytes()).await.expect("the request is accepted");
    client
}

/// The memory limit for a client of whose head a few bytes have come.
const SLOW_START: u64 = 16 << 10;
/// The memory limit for a client whose head is not whole; it may have 32 KiB.
const SLOW_HEAD: u64 = 64 << 10;

/// How many slow clients there are in the tests of one kind of slowness.
const SLOW: usize = 500;

once!(clients_that_are_slow_to_send_heads_use_bounded_memory_and_free_it, flavor = "multi_thread");
async fn clients_that_are_slow_to_send_heads_use_bounded_memory_and_free_it() {
    // The smallest, and those that are nearly too large.
    let large = format!("GET /x HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(31 << 10));
    slow_to_send(&["GET /x HT"], SLOW_START).await;
    slow_to_send(&[&large], SLOW_HEAD).await;
}

in_each_lane!(clients_that_are_slow_to_send_bodies_use_bounded_memory_and_free_it, flavor = "multi_thread");
async fn clients_that_are_slow_to_send_bodies_use_bounded_memory_and_free_it() {
    let sized = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n".to_owned() + &"x".repeat(1_000);
    let chunked = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhel";
    slow_to_send(&[&sized, chunked], differences::slow_body()).await;
}

/// Many clients that begin with these, in turns, and go on with one byte.
async fn slow_to_send(starts: &[&str], each: u64) {
    let mut crowd = Crowd::start(200, 0, "").await;
    for number in 0..SLOW {
        crowd.clients.push(connect(crowd.program.web, starts[number % starts.len()]).await);
    }
    for client in &mut crowd.clients {
        client.write_all(b"x").await.expect("it is read");
    }
    for client in crowd.clients.iter().rev().take(4) {
        assert_read(client).await;
    }
    // At once: nothing has been freed yet, and none of them has run into its deadline for long.
    let used = crowd.program.resident().saturating_sub(crowd.before.2) / SLOW as u64;
    assert!(used <= each, "{} KiB for each client", used >> 10);
    crowd.leaves_nothing().await;
}

in_each_lane!(many_clients_that_do_not_read_use_bounded_memory_and_free_it, flavor = "multi_thread");
async fn many_clients_that_do_not_read_use_bounded_memory_and_free_it() {
    let piece = "x".repeat(256 << 10);
    let chunk = format!("40000\r\n{piece}\r\n");
    let interim = format!("HTTP/1.1 103 H\r\nX: {}\r\n\r\n", "y".repeat(60 << 10));
    let head = "HTTP/1.1 200 OK\r\n";
    for (what, reply, each) in [
        ("a body with a length", Reply::ok("").big(8 << 20), differences::slow_reader()),
        (
            "large chunks",
            Reply::raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n")).then_endless(chunk),
            differences::slow_reader(),
        ),
        ("a body without a length", Reply::raw(format!("{head}\r\n")).then_endless(piece), differences::slow_reader()),
        ("large interim responses", Reply::raw(interim.repeat(16)).then_hang(), differences::hostile_upstream()),
    ] {
        many_do_not_read(what, reply, each).await;
    }
}

/// Over unix sockets, whose buffers in the kernel are small. `each`: the memory limit for a client.
async fn many_do_not_read(what: &str, reply: Reply, each: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (front, back) = (dir.path().join("front.sock"), dir.path().join("back.sock"));
    let origin = Origin::new().at_unix(&back).on("/x").reply(reply).start().await;
    let upstream = format!("unix:{}", back.display());
    let listener = format!("\n[listeners.front]\naddress = \"unix:{}\"\npool = \"api\"\n", front.display());
    let pools = pool("api", &[&upstream], CALM) + &listener;
    let program = Program::start_ready(&pools).await;
    assert_eq!(fetch(program.web, "GET", "/").await.0, 200);
    let before = program.resident();
    let mut clients = Vec::new();
    for _ in 0..SLOW {
        let mut client = tokio::net::UnixStream::connect(&front).await.expect("the listener accepts");
        client.write_all(GET.as_bytes()).await.expect("the request is accepted");
        clients.push(client);
    }
    let end = Instant::now() + PATIENCE;
    let (mut last, mut since) = (0, Instant::now());
    while origin.count("/x") < SLOW as u64 || since.elapsed() < Duration::from_secs(1) {
        assert!(Instant::now() < end, "{what}: the clients are still served");
        if origin.bytes_written() > last {
            (last, since) = (origin.bytes_written(), Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(last < SLOW as u64 * (8 << 20), "{what}: nothing waits for the clients");
    loop {
        let used = program.resident().saturating_sub(before) / SLOW as u64;
        if used <= each {
            break;
        }
        assert!(Instant::now() < end, "{what}: {} KiB for each client", used >> 10);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(clients);
    let end = Instant::now() + PATIENCE;
    while program.resident() > before + KEPT {
        assert!(Instant::now() < end, "{what}: {} KiB stay", (program.resident() - before) >> 10);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    program.assert_no_panic();
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

/// How many requests are under way at hostile upstreams.
const HOSTILE: usize = 200;

in_each_lane!(hostile_upstreams_use_bounded_memory_and_free_it, flavor = "multi_thread");
async fn hostile_upstreams_use_bounded_memory_and_free_it() {
    let crowd = Crowd::start(Reply::hang(), 0, "").await;
    let head = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(60 << 10));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let interim = format!("HTTP/1.1 103 H\r\nX: {}\r\n\r\n", "y".repeat(1 << 10));
    let drip = Act::EndlessDrip(b"y".to_vec(), Duration::from_millis(20));
    // What they do, and whether the request ends by that.
    for (what, reply, ends) in [
        ("a head, byte by byte", Reply::raw("HTTP/1.1 200 OK\r\nX: ").then(drip), false),
        ("a head that is nearly too large, and no end of it", Reply::raw(&head).then_hang(), false),
        ("as many interim responses as may be, and no other", Reply::raw(interim.repeat(16)).then_hang(), false),
        (
            "a chunk of 1 TiB",
            Reply::raw(format!("{chunked}10000000000\r\n{}", "y".repeat(60 << 10))).then_hang(),
            false,
        ),
        ("an endless field", Reply::raw("HTTP/1.1 200 OK\r\nX: ").then_endless("x".repeat(4_096)), true),
        ("endless fields", Reply::raw("HTTP/1.1 200 OK\r\n").then_endless("X: y\r\n"), true),
        ("1,000 interim responses", Reply::raw(interim.repeat(1_000)), true),
        ("a reset in a head", Reply::raw(&head).then_reset(), true),
        ("a reset in a chunk", Reply::raw(format!("{chunked}ffff\r\n{}", "y".repeat(60 << 10))).then_reset(), true),
    ] {
        crowd.origin.forget();
        crowd.origin.set("/x", reply);
        let mut clients = Vec::new();
        for _ in 0..HOSTILE {
            clients.push(connect(crowd.program.web, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await);
        }
        let (mut most, end) = (0, Instant::now() + PATIENCE);
        let mut measure = || most = crowd.program.resident().saturating_sub(crowd.before.2).max(most);
        if ends {
            for client in &mut clients {
                // A reset is an end too.
                let _ = client.read_to_end(&mut Vec::new()).await;
                measure();
            }
        } else {
            let under_way = || crowd.origin.count("/x") == HOSTILE as u64;
            let mut since = Instant::now();
            while since.elapsed() < Duration::from_secs(1) {
                assert!(Instant::now() < end, "{what}: not every request is under way");
                since = if under_way() { since } else { Instant::now() };
                measure();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let each = most / HOSTILE as u64;
        assert!(each <= differences::hostile_upstream(), "{what}: {} KiB for each request", each >> 10);
        drop(clients);
        crowd.origin.reset_connections();
    }
    crowd.leaves_nothing().await;
}

in_each_lane!(clients_that_do_not_read_use_bounded_memory_and_free_it, flavor = "multi_thread");
async fn clients_that_do_not_read_use_bounded_memory_and_free_it() {
    let crowd = Crowd::start(Reply::ok("").big(100 << 20), 150, GET).await;
    crowd.until_stalled().await;
    crowd.costs_at_most(differences::slow_reader()).await;
    crowd.leaves_nothing().await;
}

in_each_lane!(uploads_that_are_not_read_use_bounded_memory_and_free_it, flavor = "multi_thread");
async fn uploads_that_are_not_read_use_bounded_memory_and_free_it() {
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n";
    // The origin neither responds nor reads.
    let mut crowd = Crowd::start(Reply::hang().before_body(), 150, head).await;
    let mut sending: Vec<_> = std::mem::take(&mut crowd.clients);
    let body = vec![b'x'; 1 << 20];
    let (mut sent, mut last, end) = (0, Instant::now(), Instant::now() + PATIENCE);
    // Until no client could send a byte for a second.
    while last.elapsed() < Duration::from_secs(1) {
        assert!(Instant::now() < end, "the uploads are still read: {sent} bytes");
        let moved: usize = sending.iter().map(|client| client.try_write(&body).unwrap_or(0)).sum();
        if moved > 0 {
            (sent, last) = (sent + moved, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(sent > sending.len() * (64 << 10), "nothing was transferred: {sent} bytes");
    assert_eq!(crowd.origin.count("/x"), sending.len() as u64, "each request is at the upstream");
    crowd.clients.append(&mut sending);
    crowd.costs_at_most(EACH_WRITER).await;
    crowd.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_that_are_not_read_use_bounded_memory_and_free_it() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let upgrade = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let reply = Reply::acts(vec![Act::Write(switch.into()), Act::Endless(vec![b'x'; 64 << 10])]);
    let crowd = Crowd::start(reply, 150, upgrade).await;
    crowd.until_stalled().await;
    crowd.costs_at_most(128 << 10).await;
    crowd.leaves_nothing().await;
}

in_each_lane!(many_connections_with_large_heads_free_their_memory, flavor = "multi_thread");
async fn many_connections_with_large_heads_free_their_memory() {
    let mut request = String::from("GET /x HTTP/1.1\r\nHost: a\r\n");
    for number in 0..90 {
        let _ = write!(request, "X-{number}: {}\r\n", "y".repeat(300));
    }
    request.push_str("\r\n");
    let mut crowd = Crowd::start(200, 300, &request).await;
    for _ in 0..10 {
        for client in &mut crowd.clients {
            let mut answer = [0; 4_096];
            let read = client.read(&mut answer).await.expect("an answer");
            assert!(answer[..read].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..read]));
            client.write_all(request.as_bytes()).await.expect("the request is accepted");
        }
    }
    crowd.leaves_nothing().await;
}
