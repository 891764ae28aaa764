//! The presets against their servers, as Debian packages them: each server is healthy, and unhealthy when its process
//! is stopped although its kernel still accepts connections. What the documentation of a preset says about the server's
//! log is tested too. All servers run at once, as upstreams of one roundsman.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{PATIENCE, Server, directory, installed};
use crate::program::{Program, free_address};

/// Short enough for a test, and long enough for a busy machine.
const TIMING: &str = "interval = \"1s\"\ntimeout = \"1s\"\nfast_interval = \"300ms\"\nhealthy_threshold = 2\n\
                      unhealthy_threshold = 3\nstart_period = \"0s\"\n";

/// One real server and its preset.
struct Case {
    preset: &'static str,
    /// Further keys of the check.
    keys: String,
    address: SocketAddr,
    server: Server,
    /// How often these texts are in the server's log, however often it is checked.
    quiet: &'static [(&'static str, usize)],
}

impl Case {
    fn pool(&self) -> String {
        format!(
            "[pools.{preset}]\nupstreams = [\"{}\"]\n[pools.{preset}.health]\npreset = \"{preset}\"\n{}{TIMING}",
            self.address,
            self.keys,
            preset = self.preset,
        )
    }

    fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(i32::try_from(self.server.child.id()).expect("a pid"));
        killpg(group, signal).expect("its process group");
    }
}

/// Makes `user` the owner of the directory: some servers refuse to run as root.
fn give(directory: &std::path::Path, user: &str) {
    let done = Command::new("chown").args(["-R", user]).arg(directory).status().expect("run chown");
    assert!(done.success(), "chown {user}");
}

/// Runs a command that prepares a server.
fn prepare(command: &mut Command) {
    let output = command.output().expect("run it");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn redis() -> Option<Case> {
    let program = installed("/usr/bin/redis-server", "redis-server")?;
    let (address, dir) = (free_address(), directory());
    let port = address.port().to_string();
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--daemonize", "no"]);
    Some(Case { preset: "redis", keys: String::new(), address, server: Server::start(&mut command, dir), quiet: &[] })
}

fn memcached() -> Option<Case> {
    let program = installed("/usr/bin/memcached", "memcached")?;
    let (address, dir) = (free_address(), directory());
    let mut command = Command::new(program);
    command.args(["-u", "nobody", "-l", "127.0.0.1", "-p", &address.port().to_string()]);
    Some(Case {
        preset: "memcached",
        keys: String::new(),
        address,
        server: Server::start(&mut command, dir),
        quiet: &[],
    })
}

fn mosquitto() -> Option<Case> {
    let program = installed("/usr/sbin/mosquitto", "mosquitto")?;
    let (address, dir) = (free_address(), directory());
    // It requires a user name: code 5, which passes.
    let config = format!("listener {} 127.0.0.1\nallow_anonymous false\n", address.port());
    std::fs::write(dir.path().join("mosquitto.conf"), config).expect("write the configuration");
    let server = Server::start(Command::new(program).args(["-c", "mosquitto.conf"]), dir);
    Some(Case { preset: "mqtt", keys: String::new(), address, server, quiet: &[] })
}

fn postgresql() -> Option<Case> {
    let found = std::fs::read_dir("/usr/lib/postgresql").ok().and_then(|mut versions| versions.next());
    let bin =
        found.map_or("/usr/lib/postgresql/15/bin".into(), |version| version.expect("an entry").path().join("bin"));
    let program = installed(&bin.join("postgres").display().to_string(), "postgresql")?;
    let (address, dir) = (free_address(), directory());
    std::fs::write(dir.path().join("password"), "of the test\n").expect("write the password");
    give(dir.path(), "postgres");
    let as_postgres = |program: &std::path::Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
        command.current_dir(dir.path());
        command
    };
    prepare(as_postgres(&bin.join("initdb")).args(["-D", "data", "-A", "scram-sha-256", "-N", "--pwfile=password"]));
    let mut command = as_postgres(&program);
    command.args(["-D", "data", "-k", ".", "-c", "listen_addresses=127.0.0.1", "-p", &address.port().to_string()]);
    let server = Server::start(&mut command, dir);
    Some(Case {
        preset: "postgresql",
        keys: String::new(),
        address,
        server,
        quiet: &[("FATAL", 0), ("ERROR", 0), ("incomplete", 0)],
    })
}

fn mariadb() -> Option<Case> {
    let program = installed("/usr/sbin/mariadbd", "mariadb-server-core")?;
    let (address, dir) = (free_address(), directory());
    let data = dir.path().join("data");
    let mut install = Command::new("/usr/bin/mariadb-install-db");
    install.args(["--no-defaults", "--user=root", "--skip-test-db", "--auth-root-authentication-method=normal"]);
    prepare(install.arg(format!("--datadir={}", data.display())));
    let mut command = Command::new(program);
    command.args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--log-warnings=2"]);
    command.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}", dir.path().join("s").display()));
    command.arg(format!("--port={}", address.port()));
    let server = Server::start(&mut command, dir);
    // A refused login is another warning. This one is about the connection that waited for the server.
    Some(Case { preset: "mysql", keys: String::new(), address, server, quiet: &[("Aborted connection", 1)] })
}

fn slapd() -> Option<Case> {
    let program = installed("/usr/sbin/slapd", "slapd")?;
    let (address, dir) = (free_address(), directory());
    std::fs::create_dir(dir.path().join("data")).expect("a directory");
    let config = format!(
        "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\ndisallow bind_anon\n\
         database mdb\nsuffix \"dc=example,dc=org\"\ndirectory {}\n",
        dir.path().join("data").display()
    );
    std::fs::write(dir.path().join("slapd.conf"), config).expect("write the configuration");
    let mut command = Command::new(program);
    command.args(["-f", "slapd.conf", "-h", &format!("ldap://{address}"), "-d", "0"]);
    Some(Case { preset: "ldap", keys: String::new(), address, server: Server::start(&mut command, dir), quiet: &[] })
}

fn exim() -> Option<Case> {
    let program = installed("/usr/sbin/exim4", "exim4-daemon-light")?;
    let (address, dir) = (free_address(), directory());
    let config = format!(
        "primary_hostname = mx.example.org\nlocal_interfaces = 127.0.0.1\nspool_directory = {path}/spool\n\
         log_file_path = {path}/%slog\npid_file_path = {path}/pid\ntls_advertise_hosts =\nacl_smtp_rcpt = deny\n\
         begin acl\ndeny:\n  deny\nbegin routers\nbegin transports\n",
        path = dir.path().display()
    );
    std::fs::write(dir.path().join("exim.conf"), config).expect("write the configuration");
    std::fs::create_dir(dir.path().join("spool")).expect("a directory");
    give(dir.path(), "Debian-exim");
    give(&dir.path().join("exim.conf"), "root");
    let mut command = Command::new(program);
    let config = dir.path().join("exim.conf");
    command.arg("-C").arg(config).args(["-bdf", "-oX", &format!("127.0.0.1.{}", address.port())]);
    Some(Case { preset: "smtp", keys: String::new(), address, server: Server::start(&mut command, dir), quiet: &[] })
}

fn etcd() -> Option<Case> {
    let program = installed("/usr/bin/etcd", "etcd-server")?;
    let (address, peer, dir) = (free_address(), free_address(), directory());
    let (own, peer) = (format!("http://{address}"), format!("http://{peer}"));
    let mut command = Command::new(program);
    command.args(["--data-dir", "data", "--listen-client-urls", &own, "--advertise-client-urls", &own]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    Some(Case { preset: "etcd", keys: String::new(), address, server: Server::start(&mut command, dir), quiet: &[] })
}

fn prometheus() -> Option<Case> {
    let program = installed("/usr/bin/prometheus", "prometheus")?;
    let (address, dir) = (free_address(), directory());
    std::fs::write(dir.path().join("p.yml"), "global: { scrape_interval: 1m }\n").expect("write the configuration");
    let mut command = Command::new(program);
    command.args(["--config.file=p.yml", "--storage.tsdb.path=data", &format!("--web.listen-address={address}")]);
    Some(Case {
        preset: "prometheus",
        keys: String::new(),
        address,
        server: Server::start(&mut command, dir),
        quiet: &[],
    })
}

fn nats() -> Option<Case> {
    let program = installed("/usr/sbin/nats-server", "nats-server")?;
    let (address, monitor, dir) = (free_address(), free_address(), directory());
    let mut command = Command::new(program);
    command.args(["-a", "127.0.0.1", "-p", &address.port().to_string(), "-m", &monitor.port().to_string()]);
    let keys = format!("port = {}\n", monitor.port());
    Some(Case {
        preset: "nats",
        keys,
        address,
        server: Server::start(&mut command, dir),
        quiet: &[("[ERR]", 0), ("[WRN]", 0)],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn presets_work_on_real_servers() {
    let made =
        [redis(), memcached(), mosquitto(), postgresql(), mariadb(), slapd(), exim(), etcd(), prometheus(), nats()];
    let mut cases = Vec::new();
    for case in made.into_iter().flatten() {
        let server = case.server.listening(case.address).await;
        cases.push(Case { server, ..case });
    }
    if cases.is_empty() {
        return;
    }
    let pools: String = cases.iter().map(Case::pool).collect();
    // A plain TCP check beside the others, which the server must not notice.
    let pools = format!(
        "{pools}[pools.connect]\nupstreams = [{}]\n[pools.connect.health]\n{TIMING}",
        cases.iter().map(|case| format!("\"{}\"", case.address)).collect::<Vec<_>>().join(", ")
    );
    let program = Program::start(&format!("{pools}\n[pools.api]\nupstreams = [\"{}\"]\n", cases[0].address)).await;
    for case in &cases {
        program.wait_for_state(case.preset, &case.address.to_string(), "healthy", PATIENCE).await;
    }
    let checks =
        program.upstream(cases[0].preset, &cases[0].address.to_string()).await.expect("status lists it").checks_total;
    let mut seen = checks;
    let end = tokio::time::Instant::now() + PATIENCE;
    while seen < checks + 5 {
        assert!(tokio::time::Instant::now() < end, "checks continue");
        tokio::time::sleep(Duration::from_millis(20)).await;
        seen = program
            .upstream(cases[0].preset, &cases[0].address.to_string())
            .await
            .expect("status lists it")
            .checks_total;
    }
    for case in &cases {
        let upstream = program.upstream(case.preset, &case.address.to_string()).await.expect("status lists it");
        assert_eq!(upstream.state.as_str(), "healthy", "{}: {:?}", case.preset, upstream.last_check);
        let log = case.server.log();
        for (line, times) in case.quiet {
            assert_eq!(log.matches(line).count(), *times, "{}: {line:?} in its log:\n{log}", case.preset);
        }
        case.signal(Signal::SIGSTOP);
    }
    for case in &cases {
        program.wait_for_state(case.preset, &case.address.to_string(), "unhealthy", PATIENCE).await;
        // The kernel of a stopped process still accepts, so a check that only connects passes.
        let plain = program.upstream("connect", &case.address.to_string()).await.expect("status lists it");
        assert_eq!(plain.state.as_str(), "healthy", "{}: {:?}", case.preset, plain.last_check);
        case.signal(Signal::SIGCONT);
    }
    for case in &cases {
        program.wait_for_state(case.preset, &case.address.to_string(), "healthy", PATIENCE).await;
    }
}
