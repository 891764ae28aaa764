//! Sessions by a cookie, on the real program.

use std::collections::HashMap;
use std::time::Duration;

use crate::client::Client;
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::program::{Program, pool};

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A check every 100 ms; one result is enough.
const QUICK: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"100ms\"\ntimeout = \"90ms\"\nfast_interval = \"100ms\"\n\
                     healthy_threshold = 1\nunhealthy_threshold = 1\njitter = 0\n";

/// A browser that keeps the cookie.
struct Browser {
    client: Client,
    cookie: Option<String>,
}

impl Browser {
    async fn new(program: &Program) -> Browser {
        Browser { client: Client::connect(program.web).await, cookie: None }
    }

    /// The origin that answers, and whether the cookie was set.
    async fn ask(&mut self) -> (String, bool) {
        let cookie = self.cookie.clone().map(|cookie| format!("other=1; {cookie}; more=2"));
        let fields: Vec<(&str, &str)> = cookie.iter().map(|cookie| ("Cookie", cookie.as_str())).collect();
        let answer = self.client.send("GET", "/", &fields).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let set = answer.headers.get_all("set-cookie").iter().find_map(|value| {
            let text = value.to_str().expect("text");
            let (pair, rest) = text.split_once("; ")?;
            pair.starts_with("SID=").then(|| (pair.to_owned(), rest.to_owned()))
        });
        if let Some((pair, rest)) = &set {
            assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax");
            self.cookie = Some(pair.clone());
        }
        (answer.text().trim_start_matches("hello from ").to_owned(), set.is_some())
    }
}

in_each_lane!(a_session_stays_and_follows_health, flavor = "multi_thread");
async fn a_session_stays_and_follows_health() {
    let origins = [Origin::plain("a").await, Origin::plain("b").await, Origin::plain("c").await];
    for origin in &origins {
        // Cookies of the application stay.
        let hello = format!("hello from {}", origin.name());
        origin.set("/", Reply::ok(hello).header("Set-Cookie", "app=1"));
    }
    let addresses: Vec<String> = origins.iter().map(Origin::text).collect();
    let list: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let text =
        pool("api", &list, QUICK).replace("[pools.api.health]", "sticky = { cookie = \"SID\" }\n[pools.api.health]");
    let program = Program::start_ready(&text).await;
    for address in &addresses {
        program.wait_for_state("api", address, "healthy", PATIENCE).await;
    }
    // Without a cookie each request goes where its turn is, and gets one.
    let mut browsers = Vec::new();
    let mut first: HashMap<String, usize> = HashMap::new();
    for number in 0..6 {
        let mut browser = Browser::new(&program).await;
        let (name, is_set) = browser.ask().await;
        assert!(is_set);
        first.entry(name.clone()).or_insert(number);
        browsers.push((browser, name));
    }
    assert_eq!(first.len(), 3, "round robin");
    for (browser, name) in &mut browsers {
        for _ in 0..5 {
            assert_eq!(browser.ask().await, (name.clone(), false));
        }
        assert!(!browser.cookie.as_ref().expect("it is set").contains("127.0.0.1"), "no address");
    }
    // One that drains keeps its sessions, and gets no other.
    let (at_a, index) = (&addresses[0], first["a"]);
    let order = program.command(&["drain", "api", at_a, "--timeout", "1h"]).await;
    assert_eq!(order.0, Some(0), "{order:?}");
    for _ in 0..5 {
        assert_eq!(browsers[index].0.ask().await, ("a".to_owned(), false));
        assert_ne!(Browser::new(&program).await.ask().await.0, "a");
    }
    // Its time is over at once.
    let order = program.command(&["drain", "api", at_a, "--timeout", "0s"]).await;
    assert_eq!(order.0, Some(0), "{order:?}");
    let (moved, is_set) = browsers[index].0.ask().await;
    assert!(moved != "a" && is_set, "{moved} {is_set}");
    assert_eq!(browsers[index].0.ask().await, (moved, false), "it stays where it has moved");
    // One that becomes unhealthy loses its sessions.
    let index = first["b"];
    origins[1].set("/healthz", Reply::status(503));
    program.wait_for_state("api", &addresses[1], "unhealthy", PATIENCE).await;
    let (moved, is_set) = browsers[index].0.ask().await;
    assert_eq!((moved.as_str(), is_set), ("c", true));
    // What is no cookie of ours is none.
    for cookie in ["SID=", "SID=0123", "SID=zzzzzzzzzzzzzzzz", "SID=0000000000000000", "sid=0123456789abcdef"] {
        let mut browser = Browser { cookie: Some(cookie.to_owned()), ..Browser::new(&program).await };
        assert_eq!(browser.ask().await, ("c".to_owned(), true), "{cookie}");
    }
    program.assert_no_panic();
}

in_each_lane!(a_session_stays_in_its_pool_where_several_share_a_route, flavor = "multi_thread");
async fn a_session_stays_in_its_pool_where_several_share_a_route() {
    let (stable, canary) = (Origin::plain("stable").await, Origin::plain("canary").await);
    let pools = [("stable", &stable), ("canary", &canary)].map(|(name, origin)| {
        let health = format!("[pools.{name}.health]");
        pool(name, &[&origin.text()], QUICK).replace(&health, &format!("sticky = {{ cookie = \"SID\" }}\n{health}"))
    });
    let route = "[[routes]]\npool = [{ name = \"stable\", weight = 1 }, { name = \"canary\", weight = 1 }]\n";
    let program = Program::spawn_whole(|web, admin, _| {
        let pools = pools.concat();
        format!("[listeners.web]\naddress = \"{web}\"\n[admin]\naddress = \"{admin}\"\n{pools}{route}")
    })
    .when_live()
    .await;
    for (name, origin) in [("stable", &stable), ("canary", &canary)] {
        program.wait_for_state(name, &origin.text(), "healthy", PATIENCE).await;
    }
    let mut met = HashMap::new();
    for _ in 0..16 {
        let mut browser = Browser::new(&program).await;
        let (name, _) = browser.ask().await;
        for _ in 0..8 {
            assert_eq!(browser.ask().await, (name.clone(), false));
        }
        *met.entry(name).or_insert(0) += 1;
    }
    // One chance in 32,768.
    assert_eq!(met.len(), 2, "both have sessions: {met:?}");
    program.assert_no_panic();
}

in_each_lane!(a_session_whose_upstream_dies_moves_without_a_failed_request, flavor = "multi_thread");
async fn a_session_whose_upstream_dies_moves_without_a_failed_request() {
    let origins = [Origin::plain("a").await, Origin::plain("b").await];
    let addresses: Vec<String> = origins.iter().map(Origin::text).collect();
    let slow = QUICK
        .replace("interval = \"100ms\"", "interval = \"60s\"")
        .replace("fast_interval = \"60s\"", "fast_interval = \"100ms\"");
    let text = pool("api", &[&addresses[0], &addresses[1]], &slow)
        .replace("[pools.api.health]", "sticky = { cookie = \"SID\" }\n[pools.api.health]");
    let program = Program::start_ready(&text).await;
    for address in &addresses {
        program.wait_for_state("api", address, "healthy", PATIENCE).await;
    }
    let mut browser = Browser::new(&program).await;
    let (at, _) = browser.ask().await;
    let (dead, other) = if at == "a" { (&origins[0], "b") } else { (&origins[1], "a") };
    dead.kill();
    // The retry goes to the other one, and the session with it.
    assert_eq!(browser.ask().await, (other.to_owned(), true));
    assert_eq!(browser.ask().await, (other.to_owned(), false));
    program.assert_no_panic();
}
