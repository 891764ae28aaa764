//! Listeners and routes over a reload: sockets are matched by address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{PATIENCE, rare};
use crate::client::{Client, get};
use crate::lanes::each::in_each_lane;
use crate::load::{Load, Plan, failures};
use crate::origin::{Origin, Reply};
use crate::program::{Program, fetch, free_address, pool};
use crate::support::assert_eventually;

/// Reloads these listeners (name, address, pool) with these pools; status and error.
async fn listen(program: &Program, listeners: &[(&str, String, &str)], pools: &str) -> (u16, String) {
    let tables = listeners
        .iter()
        .map(|(name, address, pool)| format!("[listeners.{name}]\naddress = \"{address}\"\npool = \"{pool}\"\n"));
    let text = tables.collect::<String>();
    program.write_raw(&format!("{text}[admin]\naddress = \"{}\"\n{pools}", program.admin));
    let (status, reply) = program.order_reload().await;
    (status, reply.error.unwrap_or_default())
}

async fn refuses(address: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(address).await.is_err()
}

async fn wait_until_refused(address: SocketAddr) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !refuses(address).await {
        assert!(tokio::time::Instant::now() < end, "{address} still accepts");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

in_each_lane!(listeners_are_added_and_removed_while_others_serve, flavor = "multi_thread");
async fn listeners_are_added_and_removed_while_others_serve() {
    let origin = Origin::new().on("/slow").reply(Reply::ok("slow").delay(Duration::from_secs(1))).start().await;
    let pools = pool("api", &[&origin.text()], &rare("/healthz"));
    let program = Program::start_ready(&pools).await;
    let (web, extra) = (program.web, free_address());
    let load = Load::start(web, &Plan::post(2, 50));
    let main = ("web", web.to_string(), "api");
    assert!(refuses(extra).await);
    let added = listen(&program, &[main.clone(), ("extra", extra.to_string(), "api")], &pools).await;
    assert_eq!(added, (200, String::new()));
    let mut idle = Client::connect(extra).await;
    assert_eq!(idle.get("/").await.status, 200);
    let mut busy = Client::connect(extra).await;
    let busy = tokio::spawn(async move { busy.get("/slow").await });
    assert_eventually("the request is in flight", PATIENCE, || origin.count("/slow") == 1).await;

    assert_eq!(listen(&program, std::slice::from_ref(&main), &pools).await, (200, String::new()));
    wait_until_refused(extra).await;
    let answer = busy.await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "slow"), "the request in flight finishes");
    assert_eq!(answer.field("connection"), Some("close"));
    idle.wait_for_close(PATIENCE).await;
    assert_eq!(failures(&load.stop().await), Vec::<String>::new());
}

in_each_lane!(a_removed_listener_can_be_added_again_at_once, flavor = "multi_thread");
async fn a_removed_listener_can_be_added_again_at_once() {
    let origin = Origin::plain("a").await;
    let pools = pool("api", &[&origin.text()], &rare("/healthz"));
    let program = Program::start_ready(&pools).await;
    let main = ("web", program.web.to_string(), "api");
    let socket = program.dir().join("extra.sock");
    for extra in [free_address().to_string(), format!("unix:{}", socket.display())] {
        for round in 0..20 {
            let with = [main.clone(), ("extra", extra.clone(), "api")];
            assert_eq!(listen(&program, &with, &pools).await, (200, String::new()), "{extra}, round {round}");
            let mut client = match extra.strip_prefix("unix:") {
                Some(path) => Client::connect_unix(path.as_ref()).await,
                None => Client::connect(extra.parse().unwrap()).await,
            };
            assert_eq!(client.get("/").await.status, 200, "{extra}, round {round}");
            let without = listen(&program, std::slice::from_ref(&main), &pools).await;
            assert_eq!(without, (200, String::new()), "{extra}, round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_takes_no_socket_from_a_reload() {
    let origin = Origin::plain("a").await;
    let pools = pool("api", &[&origin.text()], &rare("/healthz"));
    let program = Program::start_ready(&pools).await;
    let main = ("web", program.web.to_string(), "api");
    let with = [main.clone(), ("extra", free_address().to_string(), "api")];
    let (admin, stop) = (program.admin, Arc::new(AtomicBool::new(false)));
    let mut trials = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let stop = stop.clone();
        trials.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let (status, body) = fetch(admin, "POST", "/api/v1/reload?dry_run=true").await;
                assert_eq!(status, 200, "{body:?}");
            }
        });
    }
    for round in 0..200 {
        let listeners = if round % 2 == 0 { &with[..] } else { &with[..1] };
        assert_eq!(listen(&program, listeners, &pools).await, (200, String::new()), "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    trials.join_all().await;
    assert_eq!(program.status().await.generation, 201, "a dry run changes nothing");
}

in_each_lane!(a_renamed_listener_keeps_its_socket_and_its_connections, flavor = "multi_thread");
async fn a_renamed_listener_keeps_its_socket_and_its_connections() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let pools = pool("api", &[&a.text()], &rare("/healthz")) + &pool("other", &[&b.text()], &rare("/healthz"));
    let program = Program::start_ready(&pools).await;
    program.wait_for_state("other", &b.text(), "healthy", PATIENCE).await;
    let mut client = Client::connect(program.web).await;
    assert_eq!(client.get("/").await.text(), "hello from a");
    let load = Load::start(program.web, &Plan::post(2, 100));
    let renamed = listen(&program, &[("front", program.web.to_string(), "other")], &pools).await;
    assert_eq!(renamed, (200, String::new()));
    assert_eq!(client.get("/").await.text(), "hello from b", "the same connection, the new pool");
    assert!(client.is_open());
    assert_eq!(get(program.web, "/").await.text(), "hello from b");
    assert_eq!(failures(&load.stop().await), Vec::<String>::new());
}

in_each_lane!(a_listener_can_change_its_address, flavor = "multi_thread");
async fn a_listener_can_change_its_address() {
    let origin = Origin::plain("a").await;
    let pools = pool("api", &[&origin.text()], &rare("/healthz"));
    let program = Program::start_ready(&pools).await;
    let to = free_address();
    assert_eq!(listen(&program, &[("web", to.to_string(), "api")], &pools).await, (200, String::new()));
    assert_eq!(get(to, "/").await.status, 200);
    wait_until_refused(program.web).await;
    let any = format!("0.0.0.0:{}", to.port());
    let (status, error) = listen(&program, &[("web", any, "api")], &pools).await;
    assert_eq!(status, 422);
    assert!(error.contains("needs a restart") && error.contains("listeners.web.address"), "{error}");
    assert_eq!(get(to, "/").await.status, 200);
}

in_each_lane!(a_busy_port_refuses_the_whole_reload_and_frees_its_other_new_sockets, flavor = "multi_thread");
async fn a_busy_port_refuses_the_whole_reload_and_frees_its_other_new_sockets() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let program = Program::start_ready(&pool("api", &[&a.text()], &rare("/healthz"))).await;
    let (free, taken) = (free_address(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let socket = program.dir().join("new.sock");
    let listeners = [
        ("web", program.web.to_string(), "api"),
        ("first", free.to_string(), "api"),
        ("local", format!("unix:{}", socket.display()), "api"),
        ("last", taken.local_addr().unwrap().to_string(), "api"),
    ];
    let pools = pool("api", &[&b.text()], &rare("/healthz"));
    let (status, error) = listen(&program, &listeners, &pools).await;
    assert_eq!(status, 422);
    let address = taken.local_addr().unwrap().to_string();
    assert!(error.contains("listeners.last") && error.contains(&address) && error.contains("in use"), "{error}");
    assert!(refuses(free).await, "it was bound and is closed again");
    std::net::TcpListener::bind(free).expect("the port is free");
    assert!(!socket.exists(), "a refused reload removes its socket file");
    assert_eq!(get(program.web, "/").await.text(), "hello from a");
    assert_eq!(b.total(), 0, "no part of the file is applied");
    drop(taken);
    assert_eq!(listen(&program, &listeners, &pools).await, (200, String::new()));
    assert_eq!(get(free, "/").await.status, 200);
    assert!(socket.exists());
}

in_each_lane!(routes_change_atomically, flavor = "multi_thread");
async fn routes_change_atomically() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let text = |swap: bool| {
        let (x, y) = if swap { ("b", "a") } else { ("a", "b") };
        let route = |path: &str, to: &str| format!("[[routes]]\npath = \"{path}\"\npool = \"{to}\"\n");
        pool("a", &[&a.text()], &rare("/healthz"))
            + &pool("b", &[&b.text()], &rare("/healthz"))
            + &pool("api", &[&a.text()], &rare("/healthz"))
            + &route("/x", x)
            + &route("/y", y)
    };
    let program = Program::start_ready(&text(false)).await;
    for (name, origin) in [("a", &a), ("b", &b)] {
        program.wait_for_state(name, &origin.text(), "healthy", PATIENCE).await;
    }
    let load = Load::start(program.web, &Plan { path: "/x/1", ..Plan::post(4, 200) });
    let mut client = Client::connect(program.web).await;
    for round in 0..40 {
        let swap = round % 2 == 0;
        super::apply(&program, &text(swap)).await;
        let (x, y) = (client.get("/x").await.text(), client.get("/y").await.text());
        let want = if swap { ("hello from b", "hello from a") } else { ("hello from a", "hello from b") };
        assert_eq!((x.as_str(), y.as_str()), want, "round {round}");
    }
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new(), "every request is routed by one table");
}
