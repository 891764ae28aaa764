//! The start: configuration, sockets, first probes; and what makes it fail.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::time::Instant;

use super::{PATIENCE, WITHIN_A_SECOND, http_check};
use crate::client::{Client, get};
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::program::{BINARY, Program, config, fetch, free_address, pool};
use crate::pty::Terminal;
use crate::support::assert_eventually;

fn refused(address: SocketAddr) -> bool {
    std::net::TcpStream::connect(address).is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_bind_exits_with_1_names_address_and_reason_and_leaves_no_listener() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listener = |name: &str, address: SocketAddr| format!("[listeners.{name}]\naddress = \"{address}\"\n");
    let pools = pool("api", &["127.0.0.1:1"], "");
    let began = Instant::now();
    let mut program = Program::spawn_whole(|web, admin, _| config(web, admin, &pools) + &listener("second", address));
    let status = program.wait_for_exit(WITHIN_A_SECOND).await;
    assert_eq!(status.code(), Some(1), "after {:?}:\n{}", began.elapsed(), program.log());
    let said = program.log();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON, as the log is")).collect();
    let line = lines.last().expect("a reason");
    let command = format!("ss -ltnp 'sport = :{}'", address.port());
    let reason = format!(
        "listener second: cannot listen on {address}: the address is in use (find the process with: {command})"
    );
    assert_eq!(
        (&line["level"], &line["message"], &line["reason"]),
        (&"error".into(), &"Cannot start".into(), &reason.into())
    );
    assert!(refused(program.web) && refused(program.admin));

    let nowhere: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let mut program = Program::spawn_whole(|web, admin, _| config(web, admin, &pools) + &listener("second", nowhere));
    assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(1));
    assert!(program.log().contains("192.0.2.1:1: this machine has no such address"), "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_admin_address_must_bind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let pools = pool("api", &["127.0.0.1:1"], "");
    let mut program = Program::spawn_whole(|web, _, _| config(web, address, &pools));
    assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(1));
    let said = program.log();
    assert!(said.contains("admin") && said.contains(&address.to_string()) && said.contains("in use"), "{said}");
    assert!(said.contains(&format!("ss -ltnp 'sport = :{}'", address.port())), "{said}");
    assert!(refused(program.web));

    let mut program =
        Program::spawn_whole(|web, _, _| config(web, SocketAddr::from(([0, 0, 0, 0], free_address().port())), &pools));
    let status = program.wait_for_exit(WITHIN_A_SECOND).await;
    assert!(!status.success(), "off the loopback without a token: {status:?}\n{}", program.log());
    assert!(program.log().contains("token"), "{}", program.log());
    assert!(refused(program.web));
}

/// Makes the default admin address busy, by this test or by another process.
async fn hold_default_admin() -> Option<TcpListener> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpListener::bind("127.0.0.1:9900") {
            Ok(held) => return Some(held),
            // If another test holds it, it may be free soon.
            Err(_) if Instant::now() < end => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(_) => return None,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_default_admin_address_is_a_warning() {
    let origin = Origin::plain("a").await;
    let _held = hold_default_admin().await;
    let mut program = Program::spawn_whole(|web, _, _| {
        format!(
            "[listeners.web]\naddress = \"{web}\"\npool = \"api\"\n{}",
            pool("api", &[&origin.text()], &http_check())
        )
    });
    assert_eventually("it accepts", PATIENCE, || !refused(program.web)).await;
    assert_eq!(get(program.web, "/").await.status, 200);
    let warned = |log: String| {
        let says =
            ["Admin address is not available", "127.0.0.1:9900", "`roundsman status` and its like show that one"];
        log.lines().any(|line| says.iter().all(|part| line.contains(part)))
    };
    assert_eventually("the warning", PATIENCE, || warned(program.log())).await;
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_another_admin_port_is_chosen_and_commands_name_the_process() {
    let origin = Origin::plain("a").await;
    let _held = hold_default_admin().await;
    let program = Program::spawn_without_file(&origin.text());
    let web = program.web;
    let started = || {
        let lines = program.log();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["message"] == "Started")
    };
    assert_eventually("it starts", PATIENCE, || started().is_some()).await;
    let started = started().expect("just seen");
    let admin = started["admin"].as_str().expect("an admin address").to_owned();
    assert!(admin.starts_with("127.0.0.1:") && admin != "127.0.0.1:9900", "{started}");
    assert_eq!(started["status"], format!("roundsman status --admin {admin}"));
    assert_eq!(started["page"], format!("http://{admin}/"));

    // On a terminal, commands name the process: another one may hold the default address. A script that counts or cuts the
    // lines gets only the answer.
    let (pid, upstream) = (started["pid"].to_string(), origin.text());
    let line = format!("process {pid} run without a file, listens on {web}");
    let terminal = Terminal::open(200, 50);
    for (number, command) in [
        &["events"][..],
        &["explain"],
        &["explain", "default", &upstream],
        &["drain", "default", &upstream, "--force"],
        &["undrain", "default", &upstream],
        &["reload"],
    ]
    .into_iter()
    .enumerate()
    {
        let command = [command, &["--admin", &admin]].concat();
        let (code, out, err) = program.command(&command).await;
        assert_eq!((code, out.contains(&line), &*err), (Some(0), false, ""), "{command:?}: {out}");
        assert!(!out.is_empty(), "{command:?}");
        let mut child = terminal.run(Command::new(BINARY).args(&command).env("NO_COLOR", "1"));
        terminal.shows(&line, number + 1);
        assert!(child.wait().expect("it ends").success(), "{command:?}");
    }
    let (_, out, _) = program.command(&["status", "--admin", &admin]).await;
    let head = out.lines().next().expect("a headline");
    assert!(head.ends_with(&format!("process {pid}, listens on {web}")), "{out}");
    // Programs get only what the API returns.
    for command in ["status", "explain"] {
        let (_, out, _) = program.command(&[command, "--json", "--admin", &admin]).await;
        assert!(serde_json::from_str::<Value>(&out).is_ok_and(|value| value.is_object()), "{command}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_configuration_exits_with_78_and_opens_no_socket() {
    let texts: [&dyn Fn(SocketAddr, SocketAddr, &Path) -> String; 3] = [
        &|web, admin, _| config(web, admin, &(pool("api", &["127.0.0.1:1"], "") + "nonsense = 1\n")),
        &|_, _, _| String::new(),
        &|web, admin, _| config(web, admin, ""),
    ];
    for text in texts {
        let mut program = Program::spawn_whole(text);
        assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(78), "{}", program.log());
        let log = program.log();
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let mistake = |line: &Value| line["message"] == "Configuration refused" && line["file"] == "roundsman.toml";
        assert!(!lines.is_empty() && lines.iter().all(mistake), "{log}");
        assert!(lines.iter().all(|line| line["level"] == "error" && line["reason"].is_string()), "{log}");
        assert!(refused(program.web) && refused(program.admin));
    }
    let mut gone = Program::spawn_whole(|web, admin, dir| {
        let secret = dir.join("none");
        let headers = format!("type = \"http\"\nheaders = {{ Authorization = {{ file = {secret:?} }} }}\n");
        config(web, admin, &pool("api", &["127.0.0.1:1"], &headers))
    });
    assert_eq!(gone.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(78), "{}", gone.log());
    // In the format for terminals, and with logging off: with the line of the file.
    std::fs::write(gone.file(), "nonsense = 1\n").unwrap();
    for format in ["human", "json"] {
        let arguments = ["run", "--config", "roundsman.toml", "--log-format", format, "--log-level", "off"];
        let (code, _, said) = gone.command(&arguments).await;
        let human = format == "human";
        assert_eq!((code, said.contains("unknown key"), said.contains("^^^")), (Some(78), true, human), "{said}");
        assert_eq!(said.contains("Z ERROR Configuration refused: "), human, "{said}");
        let missing = ["run", "--config", "none.toml", "--log-format", format, "--log-level", "off"];
        let (code, _, said) = gone.command(&missing).await;
        let line = said.contains("Z ERROR Configuration refused: there is no file none.toml: ");
        assert_eq!((code, line, said.lines().count()), (Some(78), human, 1), "{said}");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap().to_string();
        let taken = ["run", "--listen", &listen, "--to", "127.0.0.1:1", "--log-format", format, "--log-level", "off"];
        let (code, _, said) = gone.command(&taken).await;
        let reason = format!("cannot listen on {listen}: the address is in use");
        assert!(code == Some(1) && said.contains(&reason) && said.lines().count() == 1, "{said}");
        assert_eq!(said.contains("Z ERROR Cannot start: listener "), human, "{said}");
    }
}

/// A file with the admin at `admin.sock` in the directory of the program.
fn with_admin_socket(web: SocketAddr, dir: &Path) -> String {
    let pools = pool("api", &["127.0.0.1:1"], "");
    format!("[listeners.web]\naddress = \"{web}\"\npool = \"api\"\n{pools}\n")
        + &format!("[admin]\naddress = \"unix:{}/admin.sock\"\n", dir.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_socket_waits_for_no_process_and_removes_nothing_of_another() {
    // A process that does not accept, with a full backlog: a connection that waits would wait for ever.
    let mut busy = None;
    let mut program = Program::spawn_whole(|web, _, dir| {
        let address = SockAddr::unix(dir.join("admin.sock")).unwrap();
        let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let listening = socket();
        listening.bind(&address).unwrap();
        listening.listen(0).unwrap();
        let connect = || {
            let client = socket();
            client.set_nonblocking(true).unwrap();
            client.connect(&address).ok().map(|()| client)
        };
        busy = Some((std::iter::from_fn(connect).take(64).collect::<Vec<_>>(), listening));
        with_admin_socket(web, dir)
    });
    let (waiting, listening) = busy.expect("it was bound");
    assert!(waiting.len() < 64, "the backlog is full");
    assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(1), "{}", program.log());
    let said = program.log();
    assert!(said.contains("admin.sock: the address is in use (find the process with: ss -lxp"), "{said}");
    assert!(program.dir().join("admin.sock").exists());
    drop((waiting, listening));

    // Another process takes the path over while ours runs.
    let mut program = Program::spawn_whole(|web, _, dir| with_admin_socket(web, dir));
    let path = program.dir().join("admin.sock");
    assert_eventually("it listens", PATIENCE, || UnixStream::connect(&path).is_ok()).await;
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(0), "{}", program.log());
    assert!(path.exists(), "it belongs to the other process");
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighups_during_the_start_do_not_end_the_process() {
    let origin = Origin::plain("a").await;
    let pools = pool("api", &[&origin.text()], &http_check());
    // Eight megabytes to read, so that some time passes between the first instruction and the first socket.
    let mut program = Program::spawn(&(pools.clone() + &"# nothing\n".repeat(800_000)));
    let status_file = format!("/proc/{}/status", program.pid());
    let caught = || {
        let status = std::fs::read_to_string(&status_file).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
        u64::from_str_radix(mask, 16).unwrap_or(0) & 1 == 1
    };
    let end = Instant::now() + PATIENCE;
    while !caught() {
        assert!(Instant::now() < end && program.is_alive(), "SIGHUP is not handled");
    }
    let mut early = 0;
    while !program.log().contains("Started") {
        program.signal(Signal::SIGHUP);
        early += 1;
        assert!(program.is_alive() && Instant::now() < end, "{}", program.log());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(early > 0, "no signal was sent before the start was complete");
    program.write(&pools);
    program.wait_until_ready().await;
    let end = Instant::now() + PATIENCE;
    while program.status().await.config.last_reload.is_none() {
        assert!(Instant::now() < end, "the hangups before the start count as one reload");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(get(program.web, "/").await.status, 200);
}

in_each_lane!(the_first_request_waits_for_the_first_verdict, flavor = "multi_thread");
async fn the_first_request_waits_for_the_first_verdict() {
    let late = Duration::from_millis(300);
    let origin = Origin::new().on("/healthz").reply(Reply::status(200).delay(late)).start().await;
    let check = "type = \"http\"\npath = \"/healthz\"\ninterval = \"10s\"\nhealthy_threshold = 1\n";
    let program = Program::spawn(&pool("api", &[&origin.text()], check));
    let end = Instant::now() + PATIENCE;
    let mut client = loop {
        match Client::try_connect(program.web).await {
            Ok(client) => break client,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let answer = client.get("/first").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (probe, request) = (origin.requests("/healthz")[0].at, origin.requests("/first")[0].at);
    assert!(request >= probe + late, "it was sent {:?} after the probe began", request - probe);
}

in_each_lane!(no_request_waits_longer_than_three_seconds_for_a_first_verdict, flavor = "multi_thread");
async fn no_request_waits_longer_than_three_seconds_for_a_first_verdict() {
    let origin = Origin::new().on("/healthz").reply(Reply::hang()).start().await;
    let check = "type = \"http\"\npath = \"/healthz\"\ninterval = \"60s\"\ntimeout = \"60s\"\n";
    let program = Program::start(&pool("api", &[&origin.text()], check)).await;
    assert_eventually("the first probe", PATIENCE, || origin.count("/healthz") == 1).await;
    let (mut client, began) = (Client::connect(program.web).await, Instant::now());
    let answer = client.get("/").await;
    let waited = began.elapsed();
    assert_eq!(answer.status, 503);
    assert!((Duration::from_millis(500)..Duration::from_secs(15)).contains(&waited), "it waited {waited:?}");
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    let (began, accepted) = (Instant::now(), origin.accepted());
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 503, "on the same connection");
    }
    assert!(began.elapsed() < Duration::from_millis(50 * 20 * 10), "{:?}", began.elapsed());
    assert_eq!(origin.accepted(), accepted, "without a connection attempt");
    assert_eq!(origin.count("/"), 0);
    let ready = get(program.admin, "/readyz").await;
    assert_eq!(ready.status, 503, "no upstream has a verdict");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_waits_for_every_pool_and_then_stays_green() {
    let quick = Origin::plain("quick").await;
    let late = Origin::new().on("/healthz").reply(Reply::hang()).start().await;
    let patient =
        "type = \"http\"\npath = \"/healthz\"\ninterval = \"60s\"\ntimeout = \"60s\"\nunhealthy_threshold = 1\n";
    let pools = pool("api", &[&quick.text()], &http_check()) + &pool("late", &[&late.text()], patient);
    let program = Program::start(&pools).await;
    program.wait_for_state("api", &quick.text(), "healthy", PATIENCE).await;
    let red = get(program.admin, "/readyz").await;
    assert_eq!(red.status, 503, "{red:?}");
    assert!(red.text().contains("1 of 2 pools wait"), "{red:?}");
    assert!(red.field("retry-after").is_some(), "{red:?}");
    assert_eq!(fetch(program.admin, "GET", "/livez").await.0, 200);
    assert!(!program.status().await.ready);

    // An unhealthy verdict is a verdict too.
    late.kill();
    program.wait_until_ready().await;

    quick.set("/healthz", 503);
    program.wait_for_state("api", &quick.text(), "unhealthy", PATIENCE).await;
    assert_eq!(fetch(program.admin, "GET", "/readyz").await.0, 200, "it latches");
    let health = get(program.admin, "/health").await;
    assert_eq!(health.status, 503);
    assert!(health.text().contains("\"unhealthy\""), "{health:?}");
    assert_eq!(get(program.admin, "/health/api").await.status, 503);
    quick.set("/healthz", 200);
    program.wait_for_state("api", &quick.text(), "healthy", PATIENCE).await;
    let health = get(program.admin, "/health?detailed=true").await;
    assert_eq!(health.status, 200);
    assert!(health.text().contains("\"degraded\"") && health.text().contains("\"components\""), "{health:?}");
}
