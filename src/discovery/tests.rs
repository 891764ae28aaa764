//! The loop with a paused clock and a scripted resolver.

use std::collections::HashMap;
use std::net::IpAddr;

use async_trait::async_trait;

use super::*;
use crate::model::policy::*;
use crate::model::{Address, AdminState, Name, Ratio, Weight};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn upstream(text: &str) -> UpstreamPolicy {
    let address: Address = text.parse().unwrap();
    UpstreamPolicy {
        name: address.host_name().cloned(),
        address,
        weight: Weight::ONE,
        backup: false,
        health_address: None,
        admin: AdminState::Enabled,
    }
}

pub(super) fn pool(upstreams: &[&str]) -> PoolPolicy {
    let timing = Timing {
        interval: SECOND,
        unhealthy_interval: None,
        timeout: SECOND,
        healthy_threshold: 1,
        unhealthy_threshold: 1,
        fast_interval: SECOND,
        start_period: Duration::ZERO,
        jitter: Ratio::ZERO,
    };
    PoolPolicy {
        name: Name::try_new("api").unwrap(),
        upstreams: upstreams.iter().map(|text| upstream(text)).collect(),
        balance: Balance::RoundRobin,
        when_no_healthy: WhenNoHealthy::Reject,
        min_healthy: MinHealthy::Count(1),
        checks: vec![CheckPolicy {
            name: "tcp".into(),
            spec: Arc::new(ProbeSpec::connect()),
            timing,
            preset: None,
            tls_files: Arc::default(),
        }],
        require: Require::All,
        resolve: 10 * SECOND,
        traffic: Arc::default(),
    }
}

pub(super) fn config(pools: Vec<PoolPolicy>) -> Config {
    Config {
        runtime: RuntimePolicy {
            threads: None,
            lane: Lane::Auto,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::ZERO,
        },
        listeners: vec![],
        routes: vec![],
        pools: pools.into_iter().map(Arc::new).collect(),
        admin: AdminPolicy { address: "127.0.0.1:9900".parse().unwrap(), written: false, token: None },
        forwarded: Arc::default(),
        access_log: None,
    }
}

/// Answers as scripted; names without an answer hang.
#[derive(Default)]
struct Script {
    answers: Mutex<HashMap<String, Result<Vec<IpAddr>, ResolveError>>>,
    asked: Mutex<Vec<(String, Instant)>>,
    /// Lookups in flight, and the most at once.
    at_once: Mutex<(usize, usize)>,
}

/// A lookup in flight.
struct Place<'s>(&'s Script);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.at_once.lock().0 -= 1;
    }
}

impl Script {
    fn set(&self, host: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.answers.lock().insert(host.to_owned(), Ok(addresses));
    }

    fn fail(&self, host: &str) {
        self.answers.lock().insert(host.to_owned(), Err(ResolveError::System("no such name".into())));
    }

    fn asked(&self, host: &str) -> usize {
        self.asked.lock().iter().filter(|(asked, _)| asked == host).count()
    }
}

#[async_trait]
impl Resolver for Script {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.asked.lock().push((host.to_owned(), Instant::now()));
        {
            let mut at_once = self.at_once.lock();
            at_once.0 += 1;
            at_once.1 = at_once.1.max(at_once.0);
        }
        let _place = Place(self);
        tokio::time::sleep(Duration::from_millis(10)).await;
        let answer = self.answers.lock().get(host).cloned();
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

struct World {
    script: Arc<Script>,
    discovery: Arc<Discovery>,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    fn start() -> World {
        let script = Arc::new(Script::default());
        let discovery = Arc::new(Discovery::new(script.clone()));
        let runner = discovery.clone();
        let task = tokio::spawn(async move { runner.run().await });
        World { script, discovery, task }
    }

    fn addresses(&self, config: &Config) -> Vec<String> {
        let expanded = self.discovery.expand(config);
        expanded.pools.iter().flat_map(|pool| pool.upstreams.iter().map(|u| u.address.to_string())).collect()
    }

    async fn settle(&self, config: &Config) -> Duration {
        let begin = Instant::now();
        self.discovery.add(config);
        self.discovery.settled(config, FIRST_ANSWER_WAIT).await;
        begin.elapsed()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_for_answers_and_not_longer_than_its_moment() {
    let world = World::start();
    world.script.set("api", &["10.0.0.2", "10.0.0.1"]);
    world.script.fail("none");
    let config = config(vec![pool(&["api:1", "none:1", "10.0.0.9:1"])]);
    assert_eq!(world.settle(&config).await, Duration::from_millis(10));
    assert_eq!(world.addresses(&config), ["10.0.0.1:1", "10.0.0.2:1", "none:1", "10.0.0.9:1"]);
    assert_eq!(world.discovery.problem("none"), "none does not resolve: no such name");

    let slow = super::tests::config(vec![pool(&["api:1", "hangs:1"])]);
    assert_eq!(world.settle(&slow).await, FIRST_ANSWER_WAIT);
    assert_eq!(world.addresses(&slow), ["10.0.0.1:1", "10.0.0.2:1", "hangs:1"]);
    assert_eq!(world.discovery.problem("hangs"), "hangs is being resolved");
    tokio::time::sleep(LOOKUP_TIMEOUT).await;
    assert_eq!(world.discovery.problem("hangs"), "hangs does not resolve: no answer within 5s");

    let without = super::tests::config(vec![pool(&["10.0.0.9:1"])]);
    assert_eq!(world.settle(&without).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_changed_answer_wakes_and_another_order_does_not() {
    let world = World::start();
    world.script.set("api", &["10.0.0.1", "10.0.0.2"]);
    let config = config(vec![pool(&["api:1"])]);
    world.settle(&config).await;
    let mut changes = world.discovery.changes();
    world.script.set("api", &["10.0.0.2", "10.0.0.1"]);
    tokio::time::sleep(25 * SECOND).await;
    assert!(world.script.asked("api") >= 3);
    assert!(!changes.has_changed().unwrap());
    world.script.fail("api");
    tokio::time::sleep(25 * SECOND).await;
    assert!(!changes.has_changed().unwrap(), "an error keeps the last good set");
    assert_eq!(world.addresses(&config), ["10.0.0.1:1", "10.0.0.2:1"]);
    world.script.set("api", &["10.0.0.3"]);
    tokio::time::timeout(15 * SECOND, changes.changed()).await.expect("within its interval").unwrap();
    assert_eq!(world.addresses(&config), ["10.0.0.3:1"]);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_lookup_delays_no_other() {
    let world = World::start();
    world.script.set("api", &["10.0.0.1"]);
    let config = config(vec![pool(&["hangs:1", "api:1"])]);
    world.settle(&config).await;
    tokio::time::sleep(100 * SECOND).await;
    let api = world.script.asked("api");
    assert!((9..=13).contains(&api), "{api} lookups in ten intervals");
    let times: Vec<Instant> = {
        let asked = world.script.asked.lock();
        asked.iter().filter(|(host, _)| host == "hangs").map(|(_, at)| *at).collect()
    };
    let closest = times.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    assert!(closest >= LOOKUP_TIMEOUT, "one at a time: {closest:?}");
}

#[tokio::test(start_paused = true)]
async fn lookups_of_many_names_are_limited_and_all_are_done() {
    let world = World::start();
    let names: Vec<String> = (0..500).map(|n| format!("host{n}")).collect();
    names.iter().for_each(|name| world.script.set(name, &["10.0.0.1"]));
    let upstreams: Vec<String> = names.iter().enumerate().map(|(n, name)| format!("{name}:{}", n + 1)).collect();
    let config = config(vec![pool(&upstreams.iter().map(String::as_str).collect::<Vec<_>>())]);
    let took = world.settle(&config).await;
    assert_eq!(world.script.at_once.lock().1, LOOKUPS_MAX);
    assert_eq!(took, Duration::from_millis(10 * 500u64.div_ceil(LOOKUPS_MAX as u64)));
    assert!(names.iter().all(|name| world.script.asked(name) == 1));
}

#[tokio::test(start_paused = true)]
async fn a_removed_name_is_not_looked_up_and_its_late_answer_is_ignored() {
    let world = World::start();
    let config = config(vec![pool(&["api:1"])]);
    world.discovery.add(&config);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let changes = world.discovery.changes();
    world.script.set("api", &["10.0.0.1"]);
    world.discovery.keep_only(&super::tests::config(vec![]));
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(world.script.asked("api"), 1);
    assert!(!changes.has_changed().unwrap());
    assert_eq!(world.addresses(&config), ["api:1"]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_asks_again_at_once_and_keeps_what_is_known() {
    let world = World::start();
    world.script.set("api", &["10.0.0.1"]);
    let config = config(vec![pool(&["api:1"])]);
    world.settle(&config).await;
    world.script.set("api", &["10.0.0.2"]);
    assert_eq!(world.settle(&config).await, Duration::ZERO, "a known name is not waited for");
    assert_eq!(world.addresses(&config), ["10.0.0.1:1"]);
    let mut changes = world.discovery.changes();
    tokio::time::timeout(SECOND, changes.changed()).await.expect("at once").unwrap();
    assert_eq!(world.addresses(&config), ["10.0.0.2:1"]);
}

#[tokio::test(start_paused = true)]
async fn a_command_gets_the_addresses_without_a_process() {
    let script = Script::default();
    script.set("api", &["10.0.0.1"]);
    let expanded = resolved(&config(vec![pool(&["api:1", "hangs:1"])]), Arc::new(script)).await;
    let addresses: Vec<String> = expanded.pools[0].upstreams.iter().map(|u| u.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:1", "hangs:1"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_without_addresses_reports_why_and_is_not_probed() {
    use crate::model::{Code, ProbeReport};
    use crate::pool::{Controller, ProbeFuture, ProbeJob, Prober};

    struct Passes;

    impl Prober for Passes {
        fn probe(&self, job: ProbeJob) -> ProbeFuture {
            assert!(job.check.upstream.host_name().is_none(), "{} has no address", job.check.upstream);
            Box::pin(async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Arc::new(ProbeReport::new(Code::L4Ok, Duration::ZERO, "ok"))
            })
        }
    }

    let world = World::start();
    world.script.fail("api");
    let config = config(vec![pool(&["api:1"])]);
    world.settle(&config).await;
    let controller = Arc::new(Controller::new(Instant::now(), 1));
    controller.configure(&world.discovery.expand(&config), &[], "test", Instant::now());
    let (stop, stopped) = watch::channel(false);
    let prober = NamingProber { inner: Arc::new(Passes), discovery: world.discovery.clone() };
    let runner = controller.clone();
    let task = tokio::spawn(async move { runner.run(Arc::new(prober), stopped).await });
    let mut changes = world.discovery.changes();
    tokio::time::sleep(SECOND).await;
    let status = controller.status();
    let upstream = &status.pools[0].upstreams[0];
    assert_eq!(upstream.upstream.address.to_string(), "api:1");
    assert!(
        upstream.why.as_ref().unwrap().ends_with("NORES: api does not resolve: no such name"),
        "{:?}",
        upstream.why
    );
    assert!(!status.pools[0].judged);

    world.script.set("api", &["10.0.0.1", "::1"]);
    tokio::time::timeout(15 * SECOND, changes.changed()).await.expect("an address appears later").unwrap();
    controller.readdress(&world.discovery.expand(&config), &[], Instant::now());
    tokio::time::sleep(SECOND).await;
    let status = controller.status();
    let got: Vec<_> =
        status.pools[0].upstreams.iter().map(|u| (u.upstream.address.to_string(), u.why.clone())).collect();
    assert_eq!(got, [("10.0.0.1:1".to_owned(), None), ("[::1]:1".to_owned(), None)]);
    assert_eq!((status.generation, status.pools[0].healthy), (1, 2));
    stop.send(true).unwrap();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_line_about_a_name_says_which_pools_have_it() {
    let world = World::start();
    let named = |name: &str, upstreams: &[&str]| PoolPolicy { name: Name::try_new(name).unwrap(), ..pool(upstreams) };
    world.discovery.add(&config(vec![
        named("api", &["a.test:80", "a.test:81", "b.test:80"]),
        named("web", &["10.0.0.1:80", "a.test:80"]),
        named("one", &["c.test:80"]),
        named("two", &["c.test:80"]),
        named("three", &["c.test:80"]),
        named("four", &["c.test:80"]),
        named("five", &["c.test:80"]),
    ]));
    for (host, want) in [
        ("a.test", "api, web"),
        ("b.test", "api"),
        ("c.test", "one, two, three and 2 more"),
        ("gone.test", ""),
        ("10.0.0.1", ""),
    ] {
        assert_eq!(world.discovery.pools_of(host), want, "{host}");
    }
    world.discovery.keep_only(&config(vec![named("web", &["a.test:80"])]));
    assert_eq!((world.discovery.pools_of("a.test"), world.discovery.pools_of("b.test")), ("web".into(), String::new()));
}
