//! `connections.max_per_upstream` and its queue, on the real program.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::{Client, get};
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::program::{Program, pool};

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One check a minute; one pass is enough.
const RARE: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"60s\"\ntimeout = \"10s\"\nfast_interval = \"100ms\"\n\
                    healthy_threshold = 1\nunhealthy_threshold = 1\njitter = 0\n";

/// A program over this origin, which has one place.
async fn with(origin: &Origin, queue: &str) -> Program {
    let keys = format!("[pools.api.connections]\nmax_per_upstream = 1\nqueue = {queue}\n");
    Program::start_ready(&(pool("api", &[&origin.text()], RARE) + &keys)).await
}

/// A request under way: its status and body.
fn ask(program: &Program, path: &'static str) -> JoinHandle<(u16, String)> {
    let web = program.web;
    tokio::spawn(async move {
        let answer = get(web, path).await;
        (answer.status, answer.text())
    })
}

/// Waits until so many requests wait.
async fn wait_for_waiting(program: &Program, waiting: u32) {
    let deadline = Instant::now() + PATIENCE;
    while program.pool("api").await.waiting != waiting {
        assert!(Instant::now() < deadline, "{}", program.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

in_each_lane!(requests_beyond_the_limit_wait_in_order_and_beyond_the_queue_get_503, flavor = "multi_thread");
async fn requests_beyond_the_limit_wait_in_order_and_beyond_the_queue_get_503() {
    let slow = || Reply::ok("served").delay(Duration::from_secs(2));
    let origin =
        Origin::new().on("/one").reply(slow()).on("/two").reply(slow()).on("/three").reply(slow()).start().await;
    let program = with(&origin, "{ length = 2, timeout = \"30s\" }").await;
    let mut requests = vec![ask(&program, "/one")];
    let deadline = Instant::now() + PATIENCE;
    while origin.count("/one") == 0 {
        assert!(Instant::now() < deadline, "{}", program.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (waiting, path) in [(1, "/two"), (2, "/three")] {
        requests.push(ask(&program, path));
        wait_for_waiting(&program, waiting).await;
    }
    let answer = get(program.web, "/four").await;
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")), "{}", answer.text());
    assert!(answer.text().contains("(queue_full)"), "{}", answer.text());
    for request in requests {
        assert_eq!(request.await.expect("it ends"), (200, "served".to_owned()));
    }
    let seen: Vec<String> = origin.all_requests().into_iter().map(|seen| seen.target).collect();
    let seen: Vec<&str> = seen.iter().map(String::as_str).filter(|target| *target != "/healthz").collect();
    assert_eq!(seen, ["/one", "/two", "/three"], "one after the other, first in, first out");
    wait_for_waiting(&program, 0).await;
    let (count, length) = ("roundsman_queue_wait_seconds_count{pool=\"api\"}", "roundsman_queue_length{pool=\"api\"}");
    assert_eq!((program.metric(count).await, program.metric(length).await), (Some(2.0), Some(0.0)));
    program.assert_no_panic();
}

in_each_lane!(
    a_request_waits_no_longer_than_the_queue_says_and_a_client_that_leaves_makes_room,
    flavor = "multi_thread"
);
async fn a_request_waits_no_longer_than_the_queue_says_and_a_client_that_leaves_makes_room() {
    let origin = Origin::new().on("/hang").reply(Reply::hang()).start().await;
    let program = with(&origin, "{ length = 1, timeout = \"2s\" }").await;
    let hanging = ask(&program, "/hang");
    let deadline = Instant::now() + PATIENCE;
    while origin.count("/hang") == 0 {
        assert!(Instant::now() < deadline, "{}", program.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    let (status, text) = ask(&program, "/x").await.expect("it ends");
    assert!(status == 503 && text.contains("(queue_timeout)"), "{status} {text}");
    assert!(began.elapsed() >= Duration::from_millis(1_900), "after {:?}", began.elapsed());
    // Its client leaves while it waits.
    let leaver = ask(&program, "/gone");
    wait_for_waiting(&program, 1).await;
    leaver.abort();
    wait_for_waiting(&program, 0).await;
    let waits = ask(&program, "/y");
    wait_for_waiting(&program, 1).await;
    // The one that has the place leaves as well.
    hanging.abort();
    assert_eq!(waits.await.expect("it ends").0, 200, "the place is free");
    assert_eq!((origin.count("/gone"), origin.count("/x")), (0, 0));
    let mut client = Client::connect(program.web).await;
    for _ in 0..20 {
        assert_eq!(client.get("/z").await.status, 200, "one after the other, there is always a place");
    }
    program.assert_no_panic();
}
