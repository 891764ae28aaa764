//! How an upstream is chosen, on the real program: by a key of the request, by latency, in file order.

use std::collections::HashMap;
use std::time::Duration;

use roundsman::admin::json::EventWhat;
use roundsman::model::HealthState;
use tokio::time::Instant;

use crate::client::Client;
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::program::{Program, pool};

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One check a minute; one pass is enough, and so is one failure.
const RARE: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"60s\"\ntimeout = \"10s\"\nfast_interval = \"100ms\"\n\
                    healthy_threshold = 1\nunhealthy_threshold = 1\njitter = 0\n";

/// The pool of these origins, balanced in this way.
fn text(origins: &[&Origin], balance: &str) -> String {
    let upstreams: Vec<String> = origins.iter().map(|origin| origin.text()).collect();
    let pool = pool("api", &upstreams.iter().map(String::as_str).collect::<Vec<_>>(), RARE);
    pool.replace("[pools.api]\n", &format!("[pools.api]\nbalance = {balance}\n"))
}

async fn with(origins: &[&Origin], balance: &str) -> Program {
    let program = Program::start_ready(&text(origins, balance)).await;
    for origin in origins {
        program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    }
    program
}

/// The name of the origin that answers.
async fn origin_of(client: &mut Client, path: &str, fields: &[(&str, &str)]) -> String {
    let answer = client.send("GET", path, fields).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().trim_start_matches("hello from ").to_owned()
}

in_each_lane!(a_key_goes_to_one_upstream_and_when_that_is_lost_only_its_keys_move, flavor = "multi_thread");
async fn a_key_goes_to_one_upstream_and_when_that_is_lost_only_its_keys_move() {
    for algorithm in ["hash", "maglev"] {
        let (one, two, three) = (Origin::plain("one").await, Origin::plain("two").await, Origin::plain("three").await);
        let balance = format!("{{ type = \"{algorithm}\", key = \"header:X-User\" }}");
        let program = with(&[&one, &two, &three], &balance).await;
        let mut client = Client::connect(program.web).await;
        let users: Vec<String> = (0..60).map(|user| format!("user-{user}")).collect();
        let mut homes = HashMap::new();
        for _ in 0..3 {
            for user in &users {
                let origin = origin_of(&mut client, "/x", &[("x-user", user)]).await;
                assert_eq!(*homes.entry(user).or_insert_with(|| origin.clone()), origin, "{algorithm}: {user} stays");
            }
        }
        let of = |name: &str| homes.values().filter(|home| *home == name).count();
        assert!(of("one") > 5 && of("two") > 5 && of("three") > 5, "{algorithm}: {homes:?}");
        // Another process, and another order of the upstreams, decide the same.
        let other = with(&[&three, &one, &two], &balance).await;
        let mut elsewhere = Client::connect(other.web).await;
        for user in &users {
            assert_eq!(origin_of(&mut elsewhere, "/x", &[("X-User", user)]).await, homes[user], "{algorithm}: {user}");
        }
        // One is lost: requests that find that out go to where those that follow go.
        two.kill();
        // Maglev fills its table anew, which moves a few others; how many, its own tests measure.
        let may_move = if algorithm == "maglev" { 12 } else { 0 };
        for loss_is_known in [false, true] {
            if loss_is_known {
                program.wait_for_state("api", &two.text(), "unhealthy", PATIENCE).await;
            }
            let mut moved = 0;
            for user in &users {
                let origin = origin_of(&mut client, "/x", &[("x-user", user)]).await;
                assert_ne!(origin, "two", "{algorithm}: {user}");
                moved += usize::from(homes[user] != "two" && homes[user] != origin);
            }
            assert!(moved <= may_move, "{algorithm}: {moved} moved");
        }
        // Without the key each gets some.
        let mut seen = HashMap::new();
        for _ in 0..30 {
            *seen.entry(origin_of(&mut client, "/x", &[]).await).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 2, "{algorithm}: {seen:?}");
        program.assert_no_panic();
    }
}

in_each_lane!(every_kind_of_key_is_a_part_of_the_request, flavor = "multi_thread");
async fn every_kind_of_key_is_a_part_of_the_request() {
    let (one, two, three) = (Origin::plain("one").await, Origin::plain("two").await, Origin::plain("three").await);
    let origins = [&one, &two, &three];
    let program = with(&origins, "{ type = \"hash\", key = \"path\", bounded_load = 0 }").await;
    let mut client = Client::connect(program.web).await;
    let mut homes = std::collections::HashSet::new();
    for number in 0..30 {
        let home = origin_of(&mut client, &format!("/x/{number}"), &[]).await;
        assert_eq!(origin_of(&mut client, &format!("/x/{number}?q={number}"), &[]).await, home, "without the query");
        homes.insert(home);
    }
    assert_eq!(homes.len(), 3);
    let (status, reply) = program.reload(&text(&origins, "{ type = \"hash\", key = \"cookie:sid\" }")).await;
    assert_eq!(status, 200, "{reply:?}");
    let mut homes = std::collections::HashSet::new();
    for number in 0..30 {
        let cookie = format!("a=b; sid=s{number}; c=d");
        let home = origin_of(&mut client, "/x", &[("cookie", &cookie)]).await;
        assert_eq!(origin_of(&mut client, "/y", &[("cookie", &format!("sid=s{number}"))]).await, home);
        homes.insert(home);
    }
    assert_eq!(homes.len(), 3);
    // By client address, which is the same for all of them here.
    let (status, reply) = program.reload(&text(&origins, "\"hash\"")).await;
    assert_eq!(status, 200, "{reply:?}");
    let home = origin_of(&mut client, "/x", &[]).await;
    for number in 0..10 {
        let mut client = Client::connect(program.web).await;
        assert_eq!(origin_of(&mut client, &format!("/{number}"), &[]).await, home);
    }
    program.assert_no_panic();
}

in_each_lane!(peak_ewma_avoids_the_slow_one_and_first_takes_the_first, flavor = "multi_thread");
async fn peak_ewma_avoids_the_slow_one_and_first_takes_the_first() {
    let slow = Origin::new().named("slow").on("/x").reply(Reply::ok("slow").delay(Duration::from_millis(100))).start();
    let (slow, fast) = (slow.await, Origin::plain("fast").await);
    let program = with(&[&slow, &fast], "\"peak_ewma\"").await;
    let mut client = Client::connect(program.web).await;
    for _ in 0..200 {
        origin_of(&mut client, "/x", &[]).await;
    }
    assert!((1..=20).contains(&slow.count("/x")), "it was tried, and then avoided: {}", slow.count("/x"));
    let (status, reply) = program.reload(&text(&[&fast, &slow], "\"first\"")).await;
    assert_eq!(status, 200, "{reply:?}");
    let before = slow.count("/x");
    for _ in 0..20 {
        assert_eq!(origin_of(&mut client, "/x", &[]).await, "fast");
    }
    assert_eq!(slow.count("/x"), before);
    fast.kill();
    assert_eq!(origin_of(&mut client, "/x", &[]).await, "slow", "the next one, when the first cannot");
    program.assert_no_panic();
}

in_each_lane!(
    one_that_says_that_it_is_degraded_takes_a_share_of_its_weight_until_it_says_otherwise,
    flavor = "multi_thread"
);
async fn one_that_says_that_it_is_degraded_takes_a_share_of_its_weight_until_it_says_otherwise() {
    let (well, worse) = (Origin::plain("well").await, Origin::plain("worse").await);
    for origin in [&well, &worse] {
        origin.set("/healthz", Reply::ok(r#"{"status": "UP"}"#));
    }
    let check = "type = \"http\"\npath = \"/healthz\"\ninterval = \"300ms\"\ntimeout = \"300ms\"\n\
                 unhealthy_threshold = 100\nexpect = { json = [{ path = \"$.status\", in = [\"UP\", \"BUSY\"] }] }\n\
                 degraded = { weight = 0.25, expect = { json = [{ path = \"$.status\", equals = \"BUSY\" }] } }\n";
    let program = Program::start_ready(&pool("api", &[&well.text(), &worse.text()], check)).await;
    for origin in [&well, &worse] {
        program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    }
    let until = async |degraded| {
        let end = Instant::now() + PATIENCE;
        loop {
            let info = program.upstream("api", &worse.text()).await.expect("it is there");
            assert_eq!((info.state, info.eligible), (HealthState::Healthy, true));
            if info.degraded == degraded {
                return info.transitions_total;
            }
            assert!(Instant::now() < end, "{info:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut client = Client::connect(program.web).await;
    let share = async |client: &mut Client| {
        let mut taken = 0;
        for _ in 0..100 {
            taken += u32::from(origin_of(client, "/x", &[]).await == "worse");
        }
        taken
    };
    let transitions = until(None).await;
    let taken = share(&mut client).await;
    assert!((49..=51).contains(&taken), "{taken} of 100, where half is its share");
    worse.set("/healthz", Reply::ok(r#"{"status": "BUSY"}"#));
    until(Some(0.25)).await;
    let taken = share(&mut client).await;
    assert!((19..=21).contains(&taken), "{taken} of 100, where one in five is its share");
    let (_, table, _) = program.command(&["status"]).await;
    let row = table.lines().find(|line| line.contains(&worse.text())).expect("a row");
    assert!(row.contains("healthy, degraded") && row.trim_end().ends_with("0.25"), "{table}");
    let (_, said, _) = program.command(&["explain", "api", &worse.text()]).await;
    assert!(said.contains("and degraded: it takes 25 % of its weight"), "{said}");
    // A reload keeps it.
    let (status, _) = program.reload(&pool("api", &[&well.text(), &worse.text()], &format!("{check}# again\n"))).await;
    assert_eq!(status, 200);
    until(Some(0.25)).await;
    worse.set("/healthz", Reply::ok(r#"{"status": "UP"}"#));
    assert_eq!(until(None).await, transitions, "no transition");
    let taken = share(&mut client).await;
    assert!((49..=51).contains(&taken), "{taken} of 100, where half is its share");
    let events = program.events(0).await.events;
    let seen: Vec<bool> = events
        .iter()
        .filter_map(|event| match &event.what {
            EventWhat::Degraded { upstream, on, .. } if *upstream == worse.text() => Some(*on),
            _ => None,
        })
        .collect();
    assert_eq!(seen, [true, false]);
    program.assert_no_panic();
}
