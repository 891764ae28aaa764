//! Host names as upstreams on the real program, with the system's resolver. Where the system allows it, the program
//! gets an `/etc/hosts` of its own (a private mount), so that names can change; `src/discovery/tests.rs` tests the same
//! rules with a scripted resolver.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use roundsman::admin::json::{EventWhat, ReloadResult};
use roundsman::model::HealthState;
use tokio::time::Instant;

use crate::client::get;
use crate::lanes::each::in_each_lane;
use crate::load::{Load, Plan, failures};
use crate::origin::{Origin, Reply};
use crate::program::{BINARY, Program, fetch, free_address, http_check, pool, try_fetch};
use crate::support::{assert_eventually, skipped};

/// Ten times what a slow machine needs; nothing that goes well waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Names under `.invalid` never resolve (RFC 6761, section 6.4).
const NOWHERE: &str = "does-not-exist.invalid:80";

/// Pool `api` with these upstreams, resolved every second.
fn named(upstreams: &[&str]) -> String {
    pool("api", upstreams, &http_check()).replace("[pools.api]\n", "[pools.api]\nresolve = \"1s\"\n")
}

in_each_lane!(localhost_is_resolved_and_is_the_host_of_its_probes, flavor = "multi_thread");
async fn localhost_is_resolved_and_is_the_host_of_its_probes() {
    let origin = Origin::new().at(free_address()).start().await;
    let name = format!("localhost:{}", origin.socket_addr().port());
    let program = Program::start_ready(&named(&[&name])).await;
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    assert_eq!(get(program.web, "/").await.status, 200);
    assert!(program.upstream("api", &name).await.is_none(), "its addresses are listed instead");
    let probes = origin.requests("/healthz");
    assert!(!probes.is_empty());
    assert!(probes.iter().all(|probe| probe.field("host") == Some(name.as_str())), "{:?}", probes[0].fields);
    program.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread")]
async fn host_names_work_without_a_configuration_file() {
    struct Killed(std::process::Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    let (a, b) = (Origin::new().at(free_address()).start().await, Origin::new().at(free_address()).start().await);
    let web: SocketAddr = free_address();
    let to = format!("localhost:{},LOCALHOST.:{}", a.socket_addr().port(), b.socket_addr().port());
    let mut command = Command::new(BINARY);
    command.args(["run", "--listen", &web.to_string(), "--to", &to]).stdin(Stdio::null());
    let program = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start the program");
    let _program = Killed(program);
    let end = Instant::now() + PATIENCE;
    while a.count("/") == 0 || b.count("/") == 0 {
        assert!(Instant::now() < end, "{} and {} requests", a.count("/"), b.count("/"));
        // No response before it listens, and 503 before its first verdict.
        if let Ok((status, body)) = try_fetch(web, "GET", "/").await {
            let answers = [a.name(), b.name()].map(|name| format!("hello from {name}\n"));
            let good = status == 200 && answers.iter().any(|answer| answer.as_bytes() == body);
            assert!(good || status == 503, "{status} {body:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(get(web, "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unresolvable_name_is_shown_and_refuses_no_reload() {
    let good = Origin::plain("good").await;
    let mut program = Program::start(&named(&[&good.text(), NOWHERE])).await;
    program.wait_for_state("api", &good.text(), "healthy", PATIENCE).await;
    let end = Instant::now() + PATIENCE;
    let unresolved = loop {
        let upstream = program.upstream("api", NOWHERE).await.expect("status lists it");
        if upstream.why.as_ref().is_some_and(|why| why.contains("does-not-exist.invalid does not resolve: ")) {
            break upstream;
        }
        assert!(Instant::now() < end, "{upstream:?}\n{}", program.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(unresolved.state, HealthState::Unknown);
    let logged = |line: &str| line.contains("Name does not resolve") && line.contains("\"pools\":\"api\"");
    assert!(program.log().lines().any(logged), "{}", program.log());
    assert_eq!(get(program.web, "/").await.status, 200);
    program.wait_until_ready().await;

    let more = format!("{}{}", named(&[&good.text(), NOWHERE]), pool("more", &["no-such-name.invalid:1"], ""));
    let begin = Instant::now();
    let (status, reply) = program.reload(&more).await;
    assert_eq!((status, reply.result), (200, ReloadResult::Applied), "{reply:?}");
    assert!(begin.elapsed() < Duration::from_secs(5), "a reload waits at most a second for names");
    assert!(program.upstream("more", "no-such-name.invalid:1").await.is_some());
    assert_eq!(get(program.web, "/").await.status, 200);

    // Lookups that hang delay nothing else.
    program.signal(nix::sys::signal::Signal::SIGTERM);
    let status = program.wait_for_exit(Duration::from_secs(5)).await;
    assert!(status.success(), "{status:?}");
    program.assert_no_panic();
}

/// A program whose resolver knows only the names in `hosts`; `None` where the system permits no private mount.
async fn with_hosts(pools: &str, hosts: &str) -> Option<Program> {
    with_hosts_and(hosts, |web, admin| crate::program::config(web, admin, pools)).await
}

/// As [`with_hosts`], with a whole configuration file made from its addresses.
pub async fn with_hosts_and(hosts: &str, text: impl FnOnce(SocketAddr, SocketAddr) -> String) -> Option<Program> {
    with_hosts_made(|path| std::fs::write(path, hosts).expect("write hosts"), text).await
}

/// As [`with_hosts_and`]; `make` creates what is mounted as the file of hosts.
async fn with_hosts_made(
    make: impl FnOnce(&Path),
    text: impl FnOnce(SocketAddr, SocketAddr) -> String,
) -> Option<Program> {
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let works = |way: &&&[&str]| {
        let tried = Command::new("unshare").args(**way).args(["mount", "--bind", "/etc/hosts", "/etc/hosts"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        skipped("this machine allows no private mount (unshare --mount), so /etc/hosts cannot be replaced");
        return None;
    };
    let mut command = Command::new("unshare");
    command.args(*way);
    // Without name servers, which could hang. The shell execs the program.
    let script = "mount --bind hosts /etc/hosts && { [ ! -e /etc/nsswitch.conf ] || \
                  mount --bind nsswitch.conf /etc/nsswitch.conf; } && exec \"$0\" \"$@\"";
    command.args(["sh", "-c", script, BINARY]);
    let program = Program::spawn_by(command, |web, admin, dir| {
        make(&dir.join("hosts"));
        std::fs::write(dir.join("nsswitch.conf"), "hosts: files\n").expect("write nsswitch.conf");
        text(web, admin)
    });
    Some(program.when_live().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_a_name_lookup_refuses_the_reload_and_closes_its_new_listener() {
    let origin = Origin::plain("a").await;
    let pools = pool("api", &[&origin.text()], &http_check()) + "[runtime]\ndrain_delay = \"3s\"\n";
    // A lookup waits until something is written into the pipe.
    let pipe = |path: &Path| {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).expect("make a pipe");
    };
    let text = |web, admin| crate::program::config(web, admin, &pools);
    let Some(mut program) = with_hosts_made(pipe, text).await else { return };
    program.wait_until_ready().await;
    let new = free_address();
    let more = format!(
        "{pools}[listeners.more]\naddress = \"{new}\"\npool = \"api\"\n{}",
        pool("more", &["never-answered.test:1"], "")
    );
    let stop = async {
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(new).is_err() {
            assert!(Instant::now() < end, "the new socket is bound before names are looked up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        program.signal(nix::sys::signal::Signal::SIGTERM);
    };
    let ((status, reply), ()) = tokio::join!(program.reload(&more), stop);
    assert_eq!((status, reply.result), (422, ReloadResult::Refused), "{reply:?}");
    assert!(reply.error.as_deref().is_some_and(|error| error.contains("stopping")), "{reply:?}");
    assert!(try_fetch(new, "GET", "/").await.is_err(), "the listener of the refused reload is closed");
    assert_eq!(get(program.web, "/").await.status, 200, "the old listener serves until the delay is over");
    let status = program.wait_for_exit(PATIENCE).await;
    assert!(status.success(), "{status:?}");
    program.assert_no_panic();
}

/// Writes the file in place, because the mount refers to this file.
pub fn set_hosts(program: &Program, hosts: &str) {
    std::fs::write(program.dir().join("hosts"), hosts).expect("write hosts");
}

/// A second origin on the port of `first`.
async fn beside(first: &Origin, ip: &str) -> Origin {
    let address = SocketAddr::new(ip.parse().expect("an address"), first.socket_addr().port());
    Origin::new().at(address).start().await
}

/// Waits until pool `api` has exactly these upstreams.
async fn wait_for_upstreams(program: &Program, wanted: &[&str]) {
    let end = Instant::now() + PATIENCE;
    loop {
        let pool = program.pool("api").await;
        let mut seen: Vec<&str> = pool.upstreams.iter().map(|upstream| upstream.address.as_str()).collect();
        let mut wanted = wanted.to_vec();
        seen.sort_unstable();
        wanted.sort_unstable();
        if seen == wanted {
            return;
        }
        assert!(Instant::now() < end, "{seen:?} instead of {wanted:?}\n{}", program.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

in_each_lane!(each_address_family_of_a_name_has_its_own_verdict, flavor = "multi_thread");
async fn each_address_family_of_a_name_has_its_own_verdict() {
    let four = Origin::new().at(free_address()).start().await;
    let six = beside(&four, "::1").await;
    six.set("/healthz", Reply::status(503));
    let name = format!("api:{}", four.socket_addr().port());
    let Some(program) = with_hosts(&named(&[&name]), "127.0.0.1 api\n::1 api\n").await else { return };
    program.wait_for_state("api", &four.text(), "healthy", PATIENCE).await;
    program.wait_for_state("api", &six.text(), "unhealthy", PATIENCE).await;
    for _ in 0..10 {
        assert_eq!(get(program.web, "/").await.status, 200);
    }
    assert_eq!((four.count("/"), six.count("/")), (10, 0));
}

in_each_lane!(addresses_of_a_name_change_without_a_reload_and_fail_no_request, flavor = "multi_thread");
async fn addresses_of_a_name_change_without_a_reload_and_fail_no_request() {
    let a = Origin::plain("a").await;
    let b = beside(&a, "127.0.0.77").await;
    let (ip, port) = (a.socket_addr().ip(), a.socket_addr().port());
    let name = format!("api:{port}");
    let Some(program) = with_hosts(&named(&[&name]), "127.0.0.1 localhost\n").await else { return };
    wait_for_upstreams(&program, &[&name]).await;
    let generation = program.status().await.generation;

    // The name resolves later.
    set_hosts(&program, &format!("{ip} api\n"));
    wait_for_upstreams(&program, &[&a.text()]).await;
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
    assert_eq!(get(program.web, "/").await.status, 200);

    // A second address is added under load; the first keeps its health and its orders.
    let load = Load::start(program.web, &Plan::post(8, 200));
    let before = program.upstream("api", &a.text()).await.expect("status lists it");
    set_hosts(&program, &format!("{ip} api\n127.0.0.77 api\n"));
    wait_for_upstreams(&program, &[&a.text(), &b.text()]).await;
    program.wait_for_state("api", &b.text(), "healthy", PATIENCE).await;
    assert_eventually("both serve", PATIENCE, || b.count("/") > 20).await;
    let after = program.upstream("api", &a.text()).await.expect("status lists it");
    assert_eq!((&after.since, after.transitions_total), (&before.since, before.transitions_total));
    let drain = format!("/api/v1/pools/api/upstreams/{}/drain", a.text());
    assert_eq!(fetch(program.admin, "POST", &drain).await.0, 200);
    let enable = drain.replace("/drain", "/enable");
    assert_eq!(fetch(program.admin, "POST", &enable).await.0, 200);

    // The first address is removed, and the second one alone serves.
    set_hosts(&program, "127.0.0.77 api\n");
    wait_for_upstreams(&program, &[&b.text()]).await;
    let (served, at_a) = (b.count("/"), a.count("/"));
    assert_eventually("the other upstream continues to serve", PATIENCE, || b.count("/") > served + 50).await;
    assert!(a.count("/") <= at_a + 8, "it gets only requests that were already sent");

    // The name no longer resolves: the last good answer is kept.
    set_hosts(&program, "127.0.0.1 localhost\n");
    let end = Instant::now() + PATIENCE;
    while !program.log().contains("its last addresses stay in use") {
        assert!(Instant::now() < end, "{}", program.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    wait_for_upstreams(&program, &[&b.text()]).await;
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new());

    assert_eq!(program.status().await.generation, generation, "a change of addresses is not a new configuration");
    let events = program.events(0).await.events.into_iter();
    let changes: Vec<(Vec<String>, Vec<String>)> = events
        .filter_map(|event| {
            let EventWhat::Addresses { added, removed, .. } = event.what else { return None };
            Some((added, removed))
        })
        .collect();
    assert_eq!(changes, [(vec![a.text()], vec![]), (vec![b.text()], vec![]), (vec![], vec![a.text()])]);
    assert_eq!(program.log().matches("\"Addresses changed\"").count(), 3, "{}", program.log());
    program.assert_no_panic();
}
