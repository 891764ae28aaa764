//! Start and end of the process: the order of the steps, the threads, and the action of each signal.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::files::DiskFiles;
use super::host::{Front, Life, Process};
use super::load::{self, EXIT_BAD_CONFIG, LoadError, Loaded};
use super::reload::{Order as ReloadOrder, Reloader, Reloads};
use super::signals::{Order, Signals, stops_at_once};
use super::{ConfigSource, RunOptions};
use crate::admin::readiness::{self, Readiness};
use crate::admin::{Host, server, socket};
use crate::config::{Diagnostic, Severity};
use crate::discovery::{Discovery, FIRST_ANSWER_WAIT, NamingProber, SystemResolver};
use crate::model::Address;
use crate::model::policy::Config;
use crate::model::units::counted;
use crate::pool::{Controller, Prober};
use crate::probe;
use crate::proxy::{Bound, Plane, Workers};
use crate::telemetry::{self, AccessLog};

/// Exit status of a run-time failure, such as a failed bind.
pub const EXIT_FAILURE: u8 = 1;
/// Exit status if a second signal ended the drain (128 + SIGINT).
pub const EXIT_INTERRUPTED: u8 = 130;

/// Descriptors reserved for the checker, the admin plane and the process itself.
const DESCRIPTOR_RESERVE: u64 = 256;
/// Descriptors one client connection may need: its own and one to an upstream.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// How long changed addresses are collected before they are applied together.
const CHANGES_GATHERED: Duration = Duration::from_millis(20);

/// Runs until a signal ends it.
pub fn run(options: &RunOptions) -> ExitCode {
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let control = match control {
        Ok(control) => control,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    control.block_on(run_here(options))
}

async fn run_here(options: &RunOptions) -> ExitCode {
    let started = Instant::now();
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot install signal handlers: {error}")),
    };
    let Loaded { config, warnings, hash } = match load::load(&options.config) {
        Ok(loaded) => loaded,
        Err(refused) => return refuse(&refused),
    };
    for warning in &warnings {
        let Diagnostic { file, line, column, key, message, expected, .. } = warning;
        tracing::warn!(file, line, column, key, reason = message, expected, "Configuration warning");
    }
    let sockets = match bind_all(&config, &options.config) {
        Ok(sockets) => sockets,
        Err(message) => return fail(&message),
    };
    match Server::start(options.config.clone(), config, sockets, started).await {
        Ok(server) => {
            server.process.reloader.set_hash(hash);
            server.process.reloader.set_warned(&warnings);
            server.serve(signals, options.hup.swap(false, Ordering::Relaxed)).await
        }
        Err(message) => fail(&message),
    }
}

/// The sockets, bound before anything else starts.
struct Sockets {
    listeners: Vec<Bound>,
    admin: Option<socket::Bound>,
}

fn bind_all(config: &Config, source: &ConfigSource) -> Result<Sockets, String> {
    let mut listeners = vec![];
    for listener in &config.listeners {
        let bound = Plane::bind(&listener.address);
        listeners.push(bound.map_err(|error| format!("listener {}: {error}", listener.name))?);
    }
    let admin = match (socket::bind(&config.admin), source) {
        (Ok(bound), _) => Some(bound),
        (Err(error), _) if config.admin.written => return Err(format!("admin: {error}")),
        (Err(error), ConfigSource::Inline { .. }) => bind_free_port(config, &error),
        (Err(error), ConfigSource::File(_)) => {
            tracing::warn!(
                %error,
                "Admin address is not available: running without the admin API. If another roundsman has the address, \
                 `roundsman status` and its like show that one. To use another address, set [admin]"
            );
            None
        }
    };
    Ok(Sockets { listeners, admin })
}

/// Without a file there is no place to write another admin address, so any free port will do.
fn bind_free_port(config: &Config, busy: &socket::BindError) -> Option<socket::Bound> {
    match socket::bind_free_port(&config.admin) {
        Ok(bound) => {
            let instead = bound.address();
            tracing::warn!(error = %busy, %instead, "Admin address is not available: using a free port");
            Some(bound)
        }
        Err(error) => {
            tracing::warn!(%error, "Admin address is not available: running without the admin API");
            None
        }
    }
}

/// The command that shows this process, where `roundsman status` alone would not find it.
fn status_command(configured: &Address, bound: &Address) -> Option<String> {
    (configured != bound).then(|| format!("roundsman status --admin {bound}"))
}

/// Everything that runs.
struct Server {
    process: Arc<Process>,
    reload_orders: mpsc::Receiver<ReloadOrder>,
    stop_checker: watch::Sender<bool>,
    checker: std::thread::JoinHandle<()>,
    admin: Option<server::Handle>,
}

impl Server {
    async fn start(source: ConfigSource, config: Config, sockets: Sockets, started: Instant) -> Result<Server, String> {
        let threads = config.runtime.threads.map_or_else(cores, |threads| threads.get());
        let workers = Workers::start(threads).map_err(|error| format!("cannot start the data plane: {error}"))?;
        let check_files = Arc::new(DiskFiles::default());
        let controller = Controller::new(Instant::now(), fastrand::u64(..)).with_check_files(check_files.clone());
        let controller = Arc::new(controller);
        let (life, readiness) = (Arc::new(Life::default()), Arc::new(Readiness::default()));
        let access = AccessLog::start().map_err(|error| format!("cannot start the access log: {error}"))?;
        let target = config.access_log.as_ref().map(|policy| &policy.to);
        if let Some(output) = telemetry::open_access_log(target).map_err(|error| error.to_string())? {
            access.write_to(Some(output));
            access.flush();
        }
        let desk = Front { life: life.clone(), readiness: readiness.clone(), access: access.clone() };
        let published = controller.published().clone();
        let plane = Plane::new(published, connections_max(), config.runtime.lane, workers, Arc::new(desk));
        let addresses: Vec<String> = config.listeners.iter().map(|l| format!("{}={}", l.name, l.address)).collect();
        let configured = config.admin.address.clone();
        let (stop_checker, stopped) = watch::channel(false);
        let config = Arc::new(config);
        let discovery = discover(&config).await;
        let names = discovery.changes();
        let (pools, proxy, resolver) = (controller.clone(), plane.clone(), discovery.clone());
        let reloader = Reloader::start(source, config, sockets.listeners, pools, proxy, resolver, access.clone());
        let reloader = Arc::new(reloader.map_err(|error| format!("cannot accept: {error}"))?);
        tokio::spawn(follow_names(reloader.clone(), names));
        let prober = NamingProber { inner: Arc::new(probe::SocketProber), discovery };
        let checker = spawn_checker(controller.clone(), Arc::new(prober), stopped)?;
        let (reloads, reload_orders) = Reloads::channel();
        life.running();
        let started_at = SystemTime::now();
        let process = Arc::new(Process {
            controller,
            plane,
            reloader,
            reloads,
            started,
            started_at,
            life,
            readiness,
            access,
            check_files,
        });
        let host: Arc<dyn Host> = process.clone();
        let admin_address = sockets.admin.as_ref().map(|bound| bound.address().clone());
        let admin = match sockets.admin {
            Some(bound) => Some(bound.spawn(host).map_err(|error| format!("admin: {error}"))?),
            None => {
                // `ready_path` of a listener needs no admin.
                tokio::spawn(readiness::watch(process.clone()));
                None
            }
        };
        let page = admin_address.as_ref().and_then(crate::admin::page::url);
        let status = admin_address.as_ref().and_then(|bound| status_command(&configured, bound));
        let admin_address = admin_address.as_ref().map(ToString::to_string);
        tracing::info!(
            version = crate::VERSION,
            pid = std::process::id(),
            threads,
            listeners = addresses.join(" "),
            admin = admin_address,
            page,
            status,
            "Started"
        );
        Ok(Server { process, reload_orders, stop_checker, checker, admin })
    }

    async fn serve(self, mut signals: Signals, early_hup: bool) -> ExitCode {
        let Server { process, reload_orders, stop_checker, checker, admin } = self;
        let reloader = process.reloader.clone();
        if let Err(error) = spawn_reloading(reloader, reload_orders) {
            return fail(&format!("cannot start reloading: {error}"));
        }
        if early_hup {
            order_reload(&process);
        }
        loop {
            match signals.next().await {
                Order::Reload => order_reload(&process),
                Order::ReopenLogs => process.access.reopen(),
                Order::Ignore => ignore_usr2(),
                Order::Stop => break,
            }
        }
        let stopping_since = Instant::now();
        let in_time = tokio::select! {
            in_time = drain(&process) => in_time,
            () = second_stop(&mut signals, stopping_since) => {
                tracing::warn!("Second signal: stopping at once");
                process.access.flush();
                telemetry::flush();
                std::process::exit(i32::from(EXIT_INTERRUPTED));
            }
        };
        let left = process.plane.connections();
        if in_time {
            tracing::info!("Stopped");
        } else {
            tracing::warn!(connections = left, "Stopped at the end of drain_timeout with connections open");
        }
        process.access.flush();
        let _ = stop_checker.send(true);
        if let Some(admin) = admin {
            admin.stop();
        }
        // The checker ends because of `stop_checker`; a panic was reported already.
        let _ = checker.join();
        ExitCode::SUCCESS
    }
}

/// Starts resolving host names, and waits briefly for the first answers.
async fn discover(config: &Config) -> Arc<Discovery> {
    let discovery = Arc::new(Discovery::new(Arc::new(SystemResolver::default())));
    discovery.add(config);
    let runner = discovery.clone();
    tokio::spawn(async move { runner.run().await });
    discovery.settled(config, FIRST_ANSWER_WAIT).await;
    discovery
}

/// Applies the addresses of host names whenever they change.
async fn follow_names(reloader: Arc<Reloader>, mut changes: watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        // Many names change together when a name server comes back.
        tokio::time::sleep(CHANGES_GATHERED).await;
        changes.mark_unchanged();
        reloader.readdress();
    }
}

fn ignore_usr2() {
    tracing::info!("SIGUSR2 is ignored: SIGHUP reloads the configuration");
}

fn order_reload(process: &Arc<Process>) {
    let reloads = process.reloads.clone();
    tokio::spawn(async move { reloads.order("signal HUP".to_owned()).await });
}

/// `/readyz` fails from now on. Listeners accept for `drain_delay` more, then stop, and requests in flight finish. True
/// if all finished within `drain_timeout`.
async fn drain(process: &Process) -> bool {
    let runtime = process.reloader.config().runtime.clone();
    process.life.draining();
    process.reloader.refuse_reloads();
    tracing::info!(
        delay = %humantime::format_duration(runtime.drain_delay),
        timeout = %humantime::format_duration(runtime.drain_timeout),
        connections = process.plane.connections(),
        "Stopping"
    );
    tokio::time::sleep(runtime.drain_delay).await;
    process.reloader.stop_accepting();
    tokio::time::timeout(runtime.drain_timeout, process.plane.drained()).await.is_ok()
}

async fn second_stop(signals: &mut Signals, first: Instant) {
    loop {
        match signals.next().await {
            Order::Stop if stops_at_once(first, Instant::now()) => return,
            Order::Stop => {
                tracing::debug!("Already stopping; a signal more than a second after the first one stops at once")
            }
            Order::Ignore => ignore_usr2(),
            Order::Reload => tracing::warn!("Stopping: the reload is ignored"),
            Order::ReopenLogs => {}
        }
    }
}

/// The checker has its own thread and runtime, so that load cannot delay probes.
fn spawn_checker(
    controller: Arc<Controller>,
    prober: Arc<dyn Prober>,
    stopped: watch::Receiver<bool>,
) -> Result<std::thread::JoinHandle<()>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the checker: {error}"))?;
    std::thread::Builder::new()
        .name("checker".into())
        .spawn(move || {
            let run = async move { controller.run(prober, stopped).await };
            // As a separate task: waking the future of `block_on` itself costs a write to the reactor.
            let _ = runtime.block_on(async { tokio::spawn(run).await });
        })
        .map_err(|error| format!("cannot start the checker: {error}"))
}

/// Reloads read files and take a while with 10,000 upstreams, so they have a thread of their own. What they wait for is
/// driven by this one.
fn spawn_reloading(reloader: Arc<Reloader>, orders: mpsc::Receiver<ReloadOrder>) -> io::Result<()> {
    let here = tokio::runtime::Handle::current();
    let run = move || {
        let _context = here.enter();
        reloader.run(orders);
    };
    std::thread::Builder::new().name("reload".into()).spawn(run).map(drop)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Raises the limit of descriptors to the hard limit, and returns how many client connections fit into it.
fn connections_max() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1_024 };
    let now = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let reserve = DESCRIPTOR_RESERVE.min(now / 4);
    usize::try_from((now - reserve) / DESCRIPTORS_PER_CONNECTION).unwrap_or(usize::MAX).max(1)
}

fn fail(message: &str) -> ExitCode {
    telemetry::not_started("Cannot start", vec![("reason", message.into())]);
    ExitCode::from(EXIT_FAILURE)
}

/// With a JSON log, one line for each mistake; otherwise a line with their number, and then each with its line of the file.
fn refuse(error: &LoadError) -> ExitCode {
    if !telemetry::is_json() {
        let mistakes = error.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
        let reason = counted(mistakes, "mistake", "mistakes");
        telemetry::not_started("Configuration refused", vec![("reason", reason.into())]);
        let _ = io::stderr().write_all(error.render(telemetry::colour_on_stderr()).as_bytes());
        return ExitCode::from(EXIT_BAD_CONFIG);
    }
    for mistake in error.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error) {
        let Diagnostic { file, line, column, key, message, expected, suggestion, .. } = mistake.clone();
        let key = (!key.is_empty()).then_some(key);
        let fields = vec![
            ("file", file.into()),
            ("line", line.into()),
            ("column", column.into()),
            ("key", key.into()),
            ("reason", message.into()),
            ("expected", expected.into()),
            ("suggestion", suggestion.into()),
        ];
        telemetry::not_started("Configuration refused", fields);
    }
    ExitCode::from(EXIT_BAD_CONFIG)
}
