//! The files of `conf/examples`, with the addresses of origins in place of theirs, on the real program: each does what its
//! comments say.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Answer, Client};
use crate::lanes::each::once;
use crate::origin::{Origin, Reply};
use crate::program::Program;

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An example that runs.
struct Example {
    program: Program,
    /// By the address in the file.
    origins: HashMap<String, Origin>,
}

impl Example {
    /// Every upstream of the file is healthy, and answers with its address in the file.
    async fn start(name: &str) -> Example {
        let text = std::fs::read_to_string(format!("conf/examples/{name}.toml")).expect("an example");
        let address = regex::Regex::new(r#"10\.0\.0\.\d+:\d+"#).expect("a good pattern");
        // Those of comments are not started.
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let addresses: BTreeSet<String> =
            lines.flat_map(|line| address.find_iter(line)).map(|found| found.as_str().to_owned()).collect();
        let mut origins = HashMap::new();
        for address in addresses {
            let origin = Origin::plain(&address).await;
            origin.set("/actuator/health/readiness", Reply::ok("{\"status\": \"UP\"}"));
            origins.insert(address, origin);
        }
        let text = address.replace_all(&text, |found: &regex::Captures<'_>| match origins.get(&found[0]) {
            Some(origin) => origin.text(),
            None => found[0].to_owned(),
        });
        let program = Program::spawn_whole(|web, admin, _| {
            format!("{}\n[admin]\naddress = \"{admin}\"\n", text.replace("0.0.0.0:8080", &web.to_string()))
        });
        let program = program.when_live().await;
        program.wait_until_ready().await;
        let example = Example { program, origins };
        for (pool, address) in example.upstreams().await {
            example.program.wait_for_state(&pool, &address, "healthy", PATIENCE).await;
        }
        example
    }

    /// Each pool and upstream.
    async fn upstreams(&self) -> Vec<(String, String)> {
        let status = self.program.status().await;
        let of = |(pool, info): &(String, roundsman::admin::json::PoolInfo)| {
            let addresses: Vec<_> = info.upstreams.iter().map(|upstream| upstream.address.clone()).collect();
            addresses.into_iter().map(|address| (pool.clone(), address)).collect::<Vec<_>>()
        };
        status.pools.0.iter().flat_map(of).collect()
    }

    /// The address in the file of whoever answers.
    async fn at(&self, client: &mut Client, path: &str, fields: &[(&str, &str)]) -> (String, Answer) {
        let answer = client.send("GET", path, fields).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer.text().trim_start_matches("hello from ").to_owned(), answer)
    }

    async fn client(&self) -> Client {
        Client::connect(self.program.web).await
    }
}

once!(a_canary_gets_its_share_and_its_testers_and_costs_nobody_a_request, flavor = "multi_thread");
async fn a_canary_gets_its_share_and_its_testers_and_costs_nobody_a_request() {
    let example = Example::start("canary").await;
    let mut client = example.client().await;
    let mut canary = 0u32;
    for _ in 0..1_000 {
        canary += u32::from(example.at(&mut client, "/", &[]).await.0.starts_with("10.0.0.2"));
    }
    // Five standard deviations.
    assert!((16..=85).contains(&canary), "{canary} of 1,000");
    for fields in [("Cookie", "a=b; version=canary"), ("X-Version", "canary")] {
        let (at, _) = example.at(&mut client, "/", &[fields]).await;
        assert!(at.starts_with("10.0.0.2"), "{at}");
    }
    let tester = [("X-Version", "canary")];
    example.origins["10.0.0.21:8080"].kill();
    for _ in 0..50 {
        assert_eq!(example.at(&mut client, "/", &tester).await.0, "10.0.0.22:8080");
    }
    for address in ["10.0.0.21:8080", "10.0.0.22:8080"] {
        example.origins[address].kill();
        example.program.wait_for_state("canary", &example.origins[address].text(), "unhealthy", PATIENCE).await;
    }
    for _ in 0..50 {
        let (at, _) = example.at(&mut client, "/", &tester).await;
        assert!(at.starts_with("10.0.0.1"), "{at}");
    }
    example.program.assert_no_panic();
}

once!(a_shop_keeps_its_visitors_and_sends_the_old_ones_on, flavor = "multi_thread");
async fn a_shop_keeps_its_visitors_and_sends_the_old_ones_on() {
    let example = Example::start("sticky-shop").await;
    let mut client = example.client().await;
    let (at, answer) = example.at(&mut client, "/cart", &[]).await;
    let cookie = answer.field("set-cookie").expect("a session").split(';').next().expect("a pair").to_owned();
    assert!(cookie.starts_with("shop_at="), "{cookie}");
    for _ in 0..20 {
        assert_eq!(example.at(&mut client, "/cart", &[("Cookie", &cookie)]).await.0, at);
    }
    let drained = example.origins[&at].text();
    let order = example.program.command(&["drain", "shop", &drained, "--timeout", "30m"]).await;
    assert_eq!(order.0, Some(0), "{order:?}");
    assert_eq!(example.at(&mut client, "/cart", &[("Cookie", &cookie)]).await.0, at);
    assert_ne!(example.at(&mut client, "/cart", &[]).await.0, at);
    let (at, answer) = example.at(&mut client, "/static/a.css", &[]).await;
    assert!(at.starts_with("10.0.0.3"), "{at}");
    assert_eq!(answer.field("cache-control"), Some("public, max-age=3600"));
    // Our client sends its own Host.
    let mut old = TcpStream::connect(example.program.web).await.expect("it listens");
    let request = "GET /x?y HTTP/1.1\r\nHost: www.old-shop.example\r\nConnection: close\r\n\r\n";
    old.write_all(request.as_bytes()).await.expect("sent");
    let mut raw = String::new();
    old.read_to_string(&mut raw).await.expect("an answer");
    assert!(raw.starts_with("HTTP/1.1 308 ") && raw.contains("Location: https://shop.example/x?y\r\n"), "{raw}");
    example.program.assert_no_panic();
}

once!(a_server_that_comes_back_gets_little_at_first, flavor = "multi_thread");
async fn a_server_that_comes_back_gets_little_at_first() {
    let example = Example::start("slow-start-jvm").await;
    let origin = &example.origins["10.0.0.11:8080"];
    let address = origin.text();
    origin.set("/actuator/health/readiness", Reply::ok("{\"status\": \"DOWN\"}"));
    example.program.wait_for_state("app", &address, "unhealthy", PATIENCE).await;
    origin.set("/actuator/health/readiness", Reply::ok("{\"status\": \"UP\"}"));
    example.program.wait_for_state("app", &address, "healthy", PATIENCE).await;
    let mut client = example.client().await;
    origin.forget();
    for _ in 0..200 {
        example.at(&mut client, "/", &[]).await;
    }
    let share = origin.count("/");
    assert!(share < 30, "{share} of 200 in the first moments, where 50 would be its share");
    let info = example.program.upstream("app", &address).await.expect("it is there");
    assert_eq!(info.state, roundsman::model::HealthState::Healthy);
    example.program.assert_no_panic();
}

once!(a_path_has_one_cache_and_only_what_a_lost_cache_had_moves, flavor = "multi_thread");
async fn a_path_has_one_cache_and_only_what_a_lost_cache_had_moves() {
    let example = Example::start("hash-cache").await;
    let mut client = example.client().await;
    let mut before = HashMap::new();
    for number in 0..200 {
        let path = format!("/object/{number}");
        let (at, _) = example.at(&mut client, &path, &[]).await;
        assert_eq!(example.at(&mut client, &format!("{path}?x"), &[]).await.0, at, "the query is no part of it");
        before.insert(path, at);
    }
    let caches: BTreeSet<&String> = before.values().collect();
    assert_eq!(caches.len(), 4, "every cache has objects");
    let lost = "10.0.0.12:6081";
    let address = example.origins[lost].text();
    example.origins[lost].kill();
    example.program.wait_for_state("caches", &address, "unhealthy", PATIENCE).await;
    for (path, at) in &before {
        let now = example.at(&mut client, path, &[]).await.0;
        assert_eq!(now == *at, at != lost, "{path} was at {at} and is at {now}");
    }
    example.program.assert_no_panic();
}
