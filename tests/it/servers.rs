//! Real servers from Debian's packages where they are installed: RabbitMQ behind a TCP check, the Docker registry, and
//! nginx in front of an application as Portus has it. They run on free ports out of temporary directories and end with
//! the test.
//!
//! A missing server is reported on the terminal, whatever the test runner hides; with `ROUNDSMAN_REQUIRE_SERVERS` set,
//! as `./dev test` sets it once it has installed them, it is a failure.

mod openssl;
mod presets;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use roundsman::model::policy::{
    BodyRule, Expect, HeaderMatch, HeaderRule, HttpProbe, PortRule, ProbeKind, ProbeSpec, StatusRule,
};
use roundsman::model::{Address, Code, ProbeReport};
use roundsman::probe::probe;
use tempfile::TempDir;

use crate::origin::{Origin, Reply};
use crate::program::{Program, QUICK, free_address, pool};
use crate::support::assert_eventually;

/// Erlang starts slowly.
const PATIENCE: Duration = Duration::from_secs(90);
const TIMEOUT: Duration = Duration::from_secs(10);

/// The path of the server's program; `None`, with a line on the terminal: the test cannot run.
pub fn installed(program: &str, package: &str) -> Option<PathBuf> {
    if Path::new(program).exists() {
        return Some(PathBuf::from(program));
    }
    let why = format!("{program} is not here: install the package {package}, or run ./dev test as root");
    assert!(std::env::var_os("ROUNDSMAN_REQUIRE_SERVERS").is_none(), "{why}");
    // Not by `eprintln!`: the test runner hides what a passing test prints.
    writeln!(std::io::stderr().lock(), "\n*** SKIPPED a test against a real server: {why} ***\n").expect("a terminal");
    None
}

/// A running server with its own directory; killed with all its children when dropped.
struct Server {
    child: Child,
    dir: TempDir,
}

impl Server {
    /// Starts it in `dir`, which has its files.
    fn start(command: &mut Command, dir: TempDir) -> Server {
        let log = File::create(dir.path().join("server.log")).expect("create the log");
        let also = log.try_clone().expect("another handle");
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(log).stderr(also).process_group(0);
        Server { child: command.spawn().expect("start the server"), dir }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    /// Waits until it listens.
    async fn listening(mut self, address: SocketAddr) -> Server {
        let listens = || {
            let ended = self.child.try_wait().expect("its status");
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.log());
            TcpStream::connect(address).is_ok()
        };
        assert_eventually(&format!("something listens on {address}"), PATIENCE, listens).await;
        self
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        // Fails only if all its processes have ended.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn http(path: &str, expect: Expect) -> ProbeKind {
    ProbeKind::Http(HttpProbe::get(path, expect))
}

async fn probed(address: SocketAddr, kind: ProbeKind) -> ProbeReport {
    let at = Address::Inet(address);
    probe(&at, &at, &Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind, max_duration: None }), TIMEOUT).await
}

/// Expects exactly this status.
fn status(code: u16) -> Expect {
    Expect { status: StatusRule::In(vec![(code, code)]), ..Expect::default() }
}

/// RabbitMQ on this port, and the port mapper that its runtime needs.
fn rabbitmq(program: &Path, address: SocketAddr) -> (Server, Server) {
    let (mapper, distribution) = (free_address().port().to_string(), free_address().port().to_string());
    let mapper_dir = directory();
    let epmd = Server::start(Command::new("epmd").args(["-address", "127.0.0.1", "-port", &mapper]), mapper_dir);
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    let mut command = Command::new(program);
    command
        .env("HOME", dir.path())
        .env("ERL_EPMD_PORT", &mapper)
        .env("RABBITMQ_NODENAME", format!("n{}@localhost", address.port()))
        .env("RABBITMQ_NODE_IP_ADDRESS", address.ip().to_string())
        .env("RABBITMQ_NODE_PORT", address.port().to_string())
        .env("RABBITMQ_DIST_PORT", &distribution)
        .env("RABBITMQ_MNESIA_BASE", at("data"))
        .env("RABBITMQ_LOG_BASE", at("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
        .env("RABBITMQ_CONF_ENV_FILE", at("none"))
        .env("RABBITMQ_CONFIG_FILE", at("none"))
        .env("RABBITMQ_PID_FILE", at("pid"))
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1");
    (epmd, Server::start(&mut command, dir))
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_is_checked_by_connecting_and_nothing_is_sent() {
    let Some(path) = installed("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server") else { return };
    let address = free_address();
    let program = Program::start(&pool("api", &[&address.to_string()], &format!("type = \"tcp\"\n{QUICK}"))).await;
    program.wait_for_state("api", &address.to_string(), "unhealthy", PATIENCE).await;
    let (mapper, broker) = rabbitmq(&path, address);
    let broker = broker.listening(address).await;
    program.wait_for_state("api", &address.to_string(), "healthy", PATIENCE).await;
    let last =
        program.upstream("api", &address.to_string()).await.expect("status lists it").last_check.expect("probed");
    assert_eq!(last.code.as_str(), "L4OK", "{last:?}");
    // It answers anything but AMQP with its version: an HTTP check of this port reports that.
    let report = probed(address, http("/", Expect::default())).await;
    assert_eq!(report.code, Code::L7Rsp);
    assert!(report.reason.contains("not an HTTP/1.1 answer: \"AMQP"), "{}", report.reason);
    let greeted = |log: &str| log.matches("bad_header").count();
    assert_eventually("its log has the HTTP request", PATIENCE, || greeted(&broker.log()) == 1).await;
    let checks = program.upstream("api", &address.to_string()).await.expect("status lists it").checks_total;
    let end = tokio::time::Instant::now() + PATIENCE;
    while program.upstream("api", &address.to_string()).await.expect("status lists it").checks_total < checks + 10 {
        assert!(tokio::time::Instant::now() < end, "checks continue");
    }
    assert_eq!(greeted(&broker.log()), 1, "a check has sent bytes:\n{}", broker.log());
    drop((broker, mapper));
    program.wait_for_state("api", &address.to_string(), "unhealthy", PATIENCE).await;
    let last =
        program.upstream("api", &address.to_string()).await.expect("status lists it").last_check.expect("probed");
    assert_eq!(last.code.as_str(), "L4CON", "{last:?}");
}

/// The registry answers 503 while one of its own health checks fails; here: one that fails while a file exists.
#[tokio::test(flavor = "multi_thread")]
async fn a_docker_registry_is_healthy_unhealthy_and_healthy_again() {
    let Some(path) = installed("/usr/bin/docker-registry", "docker-registry") else { return };
    let (address, dir) = (free_address(), directory());
    let down = dir.path().join("down");
    let config = format!(
        "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {data:?} }} }}\n\
         http: {{ addr: \"{address}\" }}\n\
         health: {{ file: [ {{ file: {down:?}, interval: 100ms }} ] }}\n",
        data = dir.path().join("data"),
    );
    std::fs::write(dir.path().join("config.yml"), config).expect("write the configuration");
    let server = Server::start(Command::new(path).args(["serve", "config.yml"]), dir).listening(address).await;
    let version = HeaderRule {
        name: "docker-distribution-api-version".into(),
        value: HeaderMatch::Equals("registry/2.0".into()),
    };
    let api = Expect { headers: vec![version], body: vec![BodyRule::Equals("{}".into())], ..status(200) };
    let report = probed(address, http("/v2/", api)).await;
    assert_eq!((report.code, report.status), (Code::L7Ok, Some(200)), "{}\n{}", report.sentence(), server.log());
    let report = probed(address, http("/", Expect { body: vec![BodyRule::Equals("".into())], ..status(200) })).await;
    assert_eq!((report.code, report.status), (Code::L7Ok, Some(200)), "{}", report.sentence());
    let report = probed(address, http("/v2/none/manifests/none", status(200))).await;
    assert_eq!((report.code, report.status), (Code::L7Sts, Some(404)), "{}", report.sentence());

    let text = address.to_string();
    let check = format!("type = \"http\"\npath = \"/v2/\"\nexpect = {{ status = [200] }}\n{QUICK}");
    let program = Program::start(&pool("api", &[&text], &check)).await;
    program.wait_for_state("api", &text, "healthy", PATIENCE).await;
    std::fs::write(&down, "").expect("a file");
    program.wait_for_state("api", &text, "unhealthy", PATIENCE).await;
    let last = program.upstream("api", &text).await.expect("status lists it").last_check.expect("probed");
    assert_eq!((last.code.as_str(), last.status), ("L7STS", Some(503)), "{last:?}");
    assert!(last.reason.contains("status 503, expected 200"), "{last:?}");
    std::fs::remove_file(&down).expect("the file exists");
    program.wait_for_state("api", &text, "healthy", PATIENCE).await;
}

/// nginx on `address` in front of `application`; it adds fields that the application has already sent.
fn nginx(program: &Path, address: SocketAddr, application: &Origin) -> Server {
    let dir = directory();
    let config = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{ worker_connections 64; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path b;\n  proxy_temp_path p;\n  fastcgi_temp_path f;\n  \
         uwsgi_temp_path u;\n  scgi_temp_path s;\n\
         server {{\n  listen {address};\n  location / {{\n    proxy_pass http://{origin};\n    proxy_http_version 1.1;\n    \
         add_header X-Frame-Options DENY;\n    add_header X-XSS-Protection \"1; mode=block\";\n    \
         add_header X-Content-Type-Options nosniff;\n  }}\n}} }}\n",
        origin = application.text(),
    );
    std::fs::write(dir.path().join("nginx.conf"), config).expect("write the configuration");
    let prefix = dir.path().to_owned();
    // Without `-e` it opens the log of the installation, which belongs to another user.
    Server::start(Command::new(program).arg("-p").arg(prefix).args(["-e", "stderr", "-c", "nginx.conf"]), dir)
}

/// The response to one GET, byte for byte.
fn answer(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: portus.example\r\nConnection: close\r\n\r\n").expect("send");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    String::from_utf8(bytes).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_sends_fields_twice_and_the_empty_body_in_chunks() {
    let Some(path) = installed("/usr/sbin/nginx", "nginx-light") else { return };
    let rails = |reply: Reply| {
        let reply = reply.header("X-Frame-Options", "SAMEORIGIN").header("X-XSS-Protection", "1; mode=block");
        reply.header("X-Content-Type-Options", "nosniff").header("X-Runtime", "0.003871")
    };
    let empty = Reply::ok("").chunked([""]).header("Content-Type", "text/plain; charset=utf-8");
    let application = Origin::new().named("portus").on("/_ping").reply(rails(empty)).start().await;
    let address = free_address();
    let server = nginx(&path, address, &application).listening(address).await;

    let seen = answer(address, "/_ping");
    for twice in ["X-Frame-Options: SAMEORIGIN", "X-Frame-Options: DENY", "Transfer-Encoding: chunked"] {
        assert_eq!(seen.matches(&format!("\r\n{twice}\r\n")).count(), 1, "{seen}");
    }
    assert_eq!(seen.matches("\r\nX-Content-Type-Options: nosniff\r\n").count(), 2, "{seen}");
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\nServer: nginx") && seen.ends_with("\r\n\r\n0\r\n\r\n"), "{seen}");

    let field = |name: &str, value: &str| HeaderRule { name: name.into(), value: HeaderMatch::Equals(value.into()) };
    let fields =
        |rules: Vec<HeaderRule>| Expect { headers: rules, body: vec![BodyRule::Equals("".into())], ..status(200) };
    for value in ["SAMEORIGIN", "DENY"] {
        let report = probed(address, http("/_ping", fields(vec![field("x-frame-options", value)]))).await;
        assert_eq!((report.code, report.status), (Code::L7Ok, Some(200)), "{value}: {}", report.sentence());
    }
    let report = probed(address, http("/_ping", fields(vec![field("x-frame-options", "ALLOW")]))).await;
    assert_eq!(report.code, Code::L7Rsp, "{}", report.sentence());
    assert!(report.reason.contains("SAMEORIGIN") && report.reason.contains("DENY"), "{}", report.reason);
    application.kill();
    let report = probed(address, http("/_ping", status(200))).await;
    assert_eq!((report.code, report.status), (Code::L7Sts, Some(502)), "{}\n{}", report.sentence(), server.log());
}
