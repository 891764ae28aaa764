//! A request loses its upstream while it connects, its pool while it waits, connects or retries, or its listener. It is
//! still served, and nothing reaches an upstream that the newest configuration or verdict excludes.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::http::rig::{Client, get, post};
use crate::http::upgrades::UPGRADE;
use crate::lanes::each::in_each_lane;
use crate::origin::{Act, Origin, Reply};
use crate::program::{Program, fetch};
use crate::support::{assert_eventually, assert_read};

const PATIENCE: Duration = Duration::from_secs(30);

/// A fast interval shorter than the connect timeout, and a timeout that a busy machine keeps.
const CHECK: &str = "interval = \"500ms\"\ntimeout = \"500ms\"\nfast_interval = \"20ms\"\nhealthy_threshold = 1\n\
                     unhealthy_threshold = 2\njitter = 0\n";

/// A port with a full backlog: connecting to it does not complete until [`SlowListener::admit`].
struct SlowListener {
    listener: socket2::Socket,
    address: SocketAddr,
    _fillers: Vec<socket2::Socket>,
}

impl SlowListener {
    fn new() -> SlowListener {
        let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut fillers = vec![];
        loop {
            let filler = socket();
            let full = filler.connect_timeout(&address.into(), Duration::from_millis(200)).is_err();
            fillers.push(filler);
            if full {
                return SlowListener { listener, address, _fillers: fillers };
            }
            assert!(fillers.len() < 16, "the backlog has no end");
        }
    }

    /// Accepts from now on and responds to every request; returns the bytes that arrive.
    fn admit(&self) -> Arc<Mutex<Vec<u8>>> {
        let said = Arc::new(Mutex::new(vec![]));
        let (listener, kept) = (self.listener.try_clone().unwrap(), said.clone());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (kept, mut stream) = (kept.clone(), std::net::TcpStream::from(stream));
                std::thread::spawn(move || {
                    let mut bytes = [0; 4_096];
                    if let Ok(n @ 1..) = stream.read(&mut bytes) {
                        kept.lock().extend_from_slice(&bytes[..n]);
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale");
                    }
                });
            }
        });
        said
    }
}

/// Pool `name`, which sends nearly all requests to its first upstream (its address, and the address of its checks).
fn pool(name: &str, first: (&str, &str), others: &[&Origin], check: &str) -> String {
    let first = format!("{{ address = \"{}\", health_address = \"{}\", weight = 1000 }}", first.0, first.1);
    let others = others.iter().map(|origin| format!("\"{}\"", origin.text()));
    let list: Vec<String> = [first].into_iter().chain(others).collect();
    format!(
        "[pools.{name}]\nupstreams = [{}]\n[pools.{name}.health]\ntype = \"http\"\npath = \"/healthz\"\n{check}\n",
        list.join(", ")
    )
}

/// A whole file with one listener, on `web`, whose pool is `to`.
fn whole(program: &Program, web: SocketAddr, to: &str, pools: &str) -> String {
    format!("[listeners.web]\naddress = \"{web}\"\npool = \"{to}\"\n[admin]\naddress = \"{}\"\n{pools}", program.admin)
}

async fn connect(address: SocketAddr) -> Client {
    Client::new(TcpStream::connect(address).await.expect("the listener accepts"))
}

async fn apply(program: &Program, text: &str) {
    program.write_raw(text);
    let (status, reply) = program.order_reload().await;
    assert_eq!(status, 200, "{reply:?}");
}

#[derive(Debug, Clone, Copy)]
enum Loss {
    Unhealthy,
    Disabled,
    Draining,
    Removed,
}

async fn lost_while_it_is_dialled(loss: Loss) {
    for request in [get("/x"), post("/echo", "hello"), UPGRADE.to_owned()] {
        let case = format!("{loss:?} {}", &request[..12]);
        let (door, probed) = (SlowListener::new(), Origin::plain("probed").await);
        let good = Origin::new().named("good").on("/ws").reply(Reply::upgrade_echo()).start().await;
        let slow = door.address.to_string();
        let both = pool("api", (&slow, &probed.text()), &[&good], CHECK);
        let program = Program::start_ready(&both).await;
        for address in [&slow, &good.text()] {
            program.wait_for_state("api", address, "healthy", PATIENCE).await;
        }
        let mut client = connect(program.web).await;
        client.send(&request).await;
        let end = tokio::time::Instant::now() + PATIENCE;
        while program.upstream("api", &slow).await.expect("status lists it").in_flight != 1 {
            assert!(tokio::time::Instant::now() < end, "{case}: it does not connect");
        }
        let order = async |order: &str| {
            let path = format!("/api/v1/pools/api/upstreams/{slow}/{order}");
            assert_eq!(fetch(program.admin, "POST", &path).await.0, 200, "{case}");
        };
        match loss {
            Loss::Unhealthy => {
                probed.set("/healthz", 503);
                program.wait_for_state("api", &slow, "unhealthy", PATIENCE).await;
            }
            Loss::Disabled => order("disable").await,
            Loss::Draining => order("drain").await,
            Loss::Removed => {
                let one = pool("api", (&good.text(), &good.text()), &[], CHECK);
                let (status, reply) = program.reload(&one).await;
                assert_eq!(status, 200, "{case}: {reply:?}");
            }
        }
        let said = door.admit();
        let answer = client.answer().await;
        let want = if request == UPGRADE { 101 } else { 200 };
        assert_eq!(answer.status, want, "{case}: {answer:?}");
        assert!(!answer.text().contains("stale"), "{case}");
        let total = ["/x", "/echo", "/ws"].iter().map(|path| good.count(path)).sum::<u64>();
        assert_eq!(total, 1, "{case}");
        assert_eq!(said.lock().as_slice(), b"", "{case}: bytes were sent to it");
        drop(client);
        program.assert_no_panic();
    }
}

in_each_lane!(an_upstream_that_becomes_unhealthy_while_it_is_dialled_gets_nothing, flavor = "multi_thread");
async fn an_upstream_that_becomes_unhealthy_while_it_is_dialled_gets_nothing() {
    lost_while_it_is_dialled(Loss::Unhealthy).await;
}

in_each_lane!(an_upstream_that_is_disabled_while_it_is_dialled_gets_nothing, flavor = "multi_thread");
async fn an_upstream_that_is_disabled_while_it_is_dialled_gets_nothing() {
    lost_while_it_is_dialled(Loss::Disabled).await;
}

in_each_lane!(an_upstream_that_is_drained_while_it_is_dialled_gets_nothing, flavor = "multi_thread");
async fn an_upstream_that_is_drained_while_it_is_dialled_gets_nothing() {
    lost_while_it_is_dialled(Loss::Draining).await;
}

in_each_lane!(an_upstream_that_is_removed_while_it_is_dialled_gets_nothing, flavor = "multi_thread");
async fn an_upstream_that_is_removed_while_it_is_dialled_gets_nothing() {
    lost_while_it_is_dialled(Loss::Removed).await;
}

in_each_lane!(a_request_waiting_for_a_renamed_pool_waits_for_its_new_name, flavor = "multi_thread");
async fn a_request_waiting_for_a_renamed_pool_waits_for_its_new_name() {
    // The first probe is slow, so that requests wait for the pool.
    let slow = Origin::new().on("/healthz").reply(Reply::status(200).delay(Duration::from_millis(1_500))).start().await;
    let check = "interval = \"10s\"\ntimeout = \"9s\"\nhealthy_threshold = 1\n";
    let named = |name: &str| pool(name, (&slow.text(), &slow.text()), &[], check);
    let program = Program::start(&named("api")).await;
    let requests: Vec<_> = (0..50)
        .map(|n| {
            let web = program.web;
            tokio::spawn(async move {
                let mut client = connect(web).await;
                client.send(if n % 2 == 0 { get("/x") } else { post("/echo", "hello") }).await;
                client.answer().await.status
            })
        })
        .collect();
    let end = tokio::time::Instant::now() + PATIENCE;
    while program.pool("api").await.waiting != 50 {
        assert!(tokio::time::Instant::now() < end, "the requests do not wait");
    }
    apply(&program, &whole(&program, program.web, "renamed", &named("renamed"))).await;
    for request in requests {
        assert_eq!(request.await.expect("the request has a response"), 200);
    }
    assert_eq!(slow.count("/x") + slow.count("/echo"), 50);
    program.assert_no_panic();
}

in_each_lane!(a_failed_request_of_a_renamed_pool_is_retried_in_the_new_one, flavor = "multi_thread");
async fn a_failed_request_of_a_renamed_pool_is_retried_in_the_new_one() {
    let breaking = Reply::acts(vec![Act::Wait(Duration::from_millis(1_500)), Act::Reset]);
    let dying = Origin::new().on("/x").reply(breaking.clone()).on("/ws").reply(breaking).start().await;
    let good = Origin::new().named("good").on("/ws").reply(Reply::upgrade_echo()).start().await;
    for (request, path, want) in [(get("/x"), "/x", 200), (UPGRADE.to_owned(), "/ws", 101)] {
        let named = |name: &str| pool(name, (&dying.text(), &dying.text()), &[&good], CHECK);
        let program = Program::start_ready(&named("api")).await;
        for origin in [&dying, &good] {
            program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
            origin.forget();
        }
        let mut client = connect(program.web).await;
        client.send(&request).await;
        assert_eventually("the request has arrived", PATIENCE, || dying.count(path) == 1).await;
        apply(&program, &whole(&program, program.web, "renamed", &named("renamed"))).await;
        assert_eq!(client.answer().await.status, want, "{path}");
        assert_eq!((dying.count(path), good.count(path)), (1, 1), "{path}");
    }
}

in_each_lane!(a_request_connecting_in_a_renamed_pool_is_served_by_the_new_one, flavor = "multi_thread");
async fn a_request_connecting_in_a_renamed_pool_is_served_by_the_new_one() {
    for request in [get("/x"), post("/echo", "hello")] {
        let (door, probed, good) = (SlowListener::new(), Origin::plain("probed").await, Origin::plain("good").await);
        let slow = door.address.to_string();
        let named = |name: &str| pool(name, (&slow, &probed.text()), &[&good], CHECK);
        let program = Program::start_ready(&named("api")).await;
        for address in [&slow, &good.text()] {
            program.wait_for_state("api", address, "healthy", PATIENCE).await;
        }
        let mut client = connect(program.web).await;
        client.send(&request).await;
        let end = tokio::time::Instant::now() + PATIENCE;
        while program.upstream("api", &slow).await.expect("status lists it").in_flight != 1 {
            assert!(tokio::time::Instant::now() < end, "it does not connect");
        }
        apply(&program, &whole(&program, program.web, "renamed", &named("renamed"))).await;
        // The slow one may be picked again; it fails, and the request is retried on the good one.
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(good.count("/x") + good.count("/echo"), 1);
    }
}

in_each_lane!(a_moved_listener_with_a_renamed_pool_serves_its_open_connections, flavor = "multi_thread");
async fn a_moved_listener_with_a_renamed_pool_serves_its_open_connections() {
    let origin = Origin::plain("a").await;
    let named = |name: &str| pool(name, (&origin.text(), &origin.text()), &[], CHECK);
    let program = Program::start_ready(&named("api")).await;
    let to = crate::program::free_address();
    let mut half = connect(program.web).await;
    let mut kept = connect(program.web).await;
    for client in [&mut half, &mut kept] {
        client.send(get("/first")).await;
        assert_eq!(client.answer().await.status, 200);
    }
    half.send("GET /half HT").await;
    let mut whole_head = connect(program.web).await;
    whole_head.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n").await;
    assert_eq!(origin.count("/first"), 2);
    // The program has read their first bytes when the listener is removed.
    for client in [&half, &whole_head] {
        assert_read(&client.stream).await;
    }
    apply(&program, &whole(&program, to, "renamed", &named("renamed"))).await;
    half.send("TP/1.1\r\nHost: a\r\n\r\n").await;
    whole_head.send("\r\nhello").await;
    for client in [&mut half, &mut whole_head] {
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (200, Some("close")), "{answer:?}");
    }
    let mut new = connect(to).await;
    new.send(get("/new")).await;
    assert_eq!(new.answer().await.status, 200);
    program.assert_no_panic();
}
