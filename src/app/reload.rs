//! A reload: read once → parse and validate all of it → bind new listeners → briefly look up new host names → apply →
//! publish once → answer. A failure at any step before publishing changes nothing; a name that does not resolve is not
//! a failure.
//!
//! A single task does one reload at a time. Orders that come during a reload share the next one, so a burst of orders
//! is merged and the last content wins.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::ConfigSource;
use super::load::{self, LoadError, Loaded};
use crate::admin::json::{Diagnostic, ReloadResult};
use crate::admin::{CheckAnswer, ConfigFile, LastReload, ReloadAnswer};
use crate::config::diff;
use crate::config::{self};
use crate::discovery::{Discovery, FIRST_ANSWER_WAIT};
use crate::model::policy::{AdminPolicy, Config, ListenerPolicy};
use crate::model::{Address, Name};
use crate::pool::{Applied, Changes, Controller, ListenerId};
use crate::proxy::{Bound, ListenerHandle, Plane};
use crate::telemetry::{self, AccessLog, Output};

/// Orders to reload that may wait; more are refused.
const ORDERS_MAX: usize = 256;
/// Origins named of the orders that one reload answers.
const ASKERS_MAX: usize = 3;
/// The origin of the first configuration.
const START: &str = "start";
/// Why a reload is refused while the process stops.
const STOPPING: &str = "the process is stopping";
/// How long the socket of a removed listener may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// An order to reload.
#[derive(Debug)]
pub struct Order {
    /// Its origin, as text.
    by: String,
    answer: oneshot::Sender<ReloadAnswer>,
}

/// The sender of orders to reload.
#[derive(Debug, Clone)]
pub struct Reloads(mpsc::Sender<Order>);

impl Reloads {
    /// A sender and the receiver for [`Reloader::run`].
    pub fn channel() -> (Reloads, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        (Reloads(sender), receiver)
    }

    /// Orders a reload on behalf of `by` and waits for its result; `None` if the process is stopping or too many orders
    /// wait. The reload continues if this future is dropped.
    pub async fn order(&self, by: String) -> Option<ReloadAnswer> {
        let (sender, answer) = oneshot::channel();
        self.0.try_send(Order { by, answer: sender }).ok()?;
        answer.await.ok()
    }
}

/// The origins of the orders that one reload answers, the first few by name.
fn askers(orders: &[Order]) -> String {
    let mut names: Vec<&str> = vec![];
    for order in orders {
        if !names.contains(&order.by.as_str()) {
            names.push(&order.by);
        }
    }
    let mut text = names.iter().take(ASKERS_MAX).copied().collect::<Vec<_>>().join("; ");
    if names.len() > ASKERS_MAX {
        text.push_str(&format!(" and {} more", names.len() - ASKERS_MAX));
    }
    text
}

/// The running configuration, and how to change it.
pub struct Reloader {
    source: ConfigSource,
    controller: Arc<Controller>,
    plane: Arc<Plane>,
    discovery: Arc<Discovery>,
    access: Arc<AccessLog>,
    /// Held while new sockets are bound: a dry run binds them too, and must not take them from a reload.
    turn: Mutex<()>,
    running: Mutex<Running>,
    /// Readable without waiting for a reload that is being applied.
    published: ArcSwap<Published>,
    /// The SHA-256 of the file as last read and accepted.
    hash: Mutex<Arc<str>>,
    /// The warnings of the file that runs, which are in the log already.
    warned: Mutex<Vec<Diagnostic>>,
    changes: AtomicU64,
}

/// The readable part of [`Running`].
struct Published {
    config: Arc<Config>,
    loaded_at: Instant,
    last_reload: Option<LastReload>,
}

struct Running {
    config: Arc<Config>,
    /// The same with addresses in place of host names, as the controller has it.
    effective: Config,
    loaded_at: Instant,
    generation: u64,
    last_reload: Option<LastReload>,
    listeners: HashMap<Address, (ListenerId, ListenerHandle)>,
    /// An address keeps its number, so that a listener that is removed and added again is the same one.
    ids: HashMap<Address, ListenerId>,
    /// The process is stopping: every reload is refused.
    stopping: bool,
}

impl Reloader {
    /// Applies the first configuration, with its sockets already bound. Returns when it is published; the sockets
    /// accept from then on.
    pub fn start(
        source: ConfigSource,
        config: Arc<Config>,
        bound: Vec<Bound>,
        controller: Arc<Controller>,
        plane: Arc<Plane>,
        discovery: Arc<Discovery>,
        access: Arc<AccessLog>,
    ) -> io::Result<Reloader> {
        let now = Instant::now();
        let published = ArcSwap::from_pointee(Published { config: config.clone(), loaded_at: now, last_reload: None });
        let running = Running {
            config: config.clone(),
            effective: Config::clone(&config),
            loaded_at: now,
            generation: 0,
            last_reload: None,
            listeners: HashMap::new(),
            ids: HashMap::new(),
            stopping: false,
        };
        let (turn, running, changes) = (Mutex::new(()), Mutex::new(running), AtomicU64::new(0));
        let hash = Mutex::new(Arc::from(""));
        let warned = Mutex::default();
        let reloader =
            Reloader { source, controller, plane, discovery, access, turn, running, published, hash, warned, changes };
        reloader.apply(Change { config, bound, output: None }, START)?;
        Ok(reloader)
    }

    /// Does reloads until every sender is dropped. Needs a multi-thread runtime; one worker is enough.
    pub fn run(&self, mut orders: mpsc::Receiver<Order>) {
        while let Some(first) = orders.blocking_recv() {
            let mut waiting = vec![first];
            while let Ok(next) = orders.try_recv() {
                waiting.push(next);
            }
            let answer = self.reload(&askers(&waiting));
            for order in waiting {
                // The client may have disconnected.
                let _ = order.answer.send(answer.clone());
            }
        }
    }

    /// The result that a reload would have.
    pub fn check(&self) -> CheckAnswer {
        let _turn = self.turn.lock();
        match self.prepare() {
            Ok(Prepared { change, diagnostics, .. }) => CheckAnswer {
                result: if change.is_some() { ReloadResult::Applied } else { ReloadResult::Unchanged },
                error: None,
                changes: change.map(|change| self.would_change(&change.config)).unwrap_or_default(),
                diagnostics,
            },
            Err(refused) => CheckAnswer {
                result: ReloadResult::Refused,
                error: Some(refused.sentence),
                changes: Changes::default(),
                diagnostics: refused.diagnostics,
            },
        }
    }

    /// What a reload would change in pools and upstreams. Host names have the addresses that are known now.
    fn would_change(&self, config: &Config) -> Changes {
        let after = self.discovery.expand(config);
        Changes::between(&self.running.lock().effective.pools, &after.pools)
    }

    /// Applies the current addresses of the host names of the running configuration. Waits for a reload that is being
    /// applied.
    pub fn readdress(&self) {
        let mut running = self.running.lock();
        if running.stopping {
            return;
        }
        let effective = self.discovery.expand(&running.config);
        if effective.pools == running.effective.pools {
            return;
        }
        let id = |listener: &ListenerPolicy| Some((listener.name.clone(), *running.ids.get(&listener.address)?));
        let names: Vec<(Name, ListenerId)> = effective.listeners.iter().filter_map(id).collect();
        self.controller.readdress(&effective, &names, Instant::now());
        running.effective = effective;
        drop(running);
        self.note_change();
    }

    /// The running configuration.
    pub fn config(&self) -> Arc<Config> {
        self.published.load().config.clone()
    }

    /// Counts changes by reloads, by host names and by [`Reloader::note_change`].
    pub fn revision(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Sets the SHA-256 of the file of the running configuration.
    pub fn set_hash(&self, hash: Arc<str>) {
        *self.hash.lock() = hash;
    }

    /// Notes a change that later responses must show.
    pub fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Makes the running configuration readable.
    fn publish(&self, running: &Running) {
        let Running { config, loaded_at, last_reload, .. } = running;
        let (config, last_reload) = (config.clone(), last_reload.clone());
        self.published.store(Arc::new(Published { config, loaded_at: *loaded_at, last_reload }));
        self.note_change();
    }

    /// The running configuration's file.
    pub fn config_file(&self) -> ConfigFile {
        let published = self.published.load();
        ConfigFile {
            file: match &self.source {
                ConfigSource::File(path) => Some(path.display().to_string()),
                ConfigSource::Inline { .. } => None,
            },
            loaded_at: published.loaded_at,
            hash: self.hash.lock().clone(),
            last_reload: published.last_reload.clone(),
        }
    }

    /// The admin policy of the running configuration.
    pub fn admin(&self) -> AdminPolicy {
        self.published.load().config.admin.clone()
    }

    /// Refuses every reload from now on, including one that is prepared but not applied, because the process is
    /// stopping.
    pub fn refuse_reloads(&self) {
        self.running.lock().stopping = true;
    }

    /// Stops accepting on every listener; open connections continue.
    pub fn stop_accepting(&self) {
        for (_, (_, handle)) in self.running.lock().listeners.drain() {
            handle.stop();
        }
    }

    fn reload(&self, by: &str) -> ReloadAnswer {
        let _turn = self.turn.lock();
        let applied = self.prepare().and_then(|prepared| {
            let Some(change) = prepared.change else {
                self.set_hash(prepared.hash);
                self.discovery.add(&self.config());
                return Ok((ReloadResult::Unchanged, None, prepared.diagnostics));
            };
            self.look_up(&change.config);
            let applied = self.apply(change, by).map_err(|error| Refused::new(error.to_string()))?;
            self.set_hash(prepared.hash);
            self.log_new_warnings(&prepared.diagnostics);
            Ok((ReloadResult::Applied, Some(applied), prepared.diagnostics))
        });
        let (result, error, applied, diagnostics) = match applied {
            Ok((result, applied, diagnostics)) => (result, None, applied, diagnostics),
            Err(refused) => (ReloadResult::Refused, Some(refused.sentence), None, refused.diagnostics),
        };
        // The names of a refused configuration are not resolved any more.
        self.discovery.keep_only(&self.config());
        if result != ReloadResult::Applied {
            self.controller.note_reload(result.as_str(), error.clone(), by, Instant::now());
        }
        let last = LastReload { result, at: Instant::now(), error };
        let mut running = self.running.lock();
        running.last_reload = Some(last.clone());
        self.publish(&running);
        let (warming, changes) = applied.map(|applied| (applied.warming, applied.changes)).unwrap_or_default();
        ReloadAnswer { last, generation: running.generation, warming, changes, diagnostics }
    }

    /// The warnings that were logged at the start.
    pub fn set_warned(&self, warnings: &[config::Diagnostic]) {
        *self.warned.lock() = warnings.iter().map(to_json).collect();
    }

    /// Logs those warnings of a file that now runs which the previous file did not have.
    fn log_new_warnings(&self, warnings: &[Diagnostic]) {
        let mut warned = self.warned.lock();
        log_warnings(new_warnings(&warned, warnings).into_iter());
        *warned = warnings.to_vec();
    }

    /// Looks up all host names, and waits briefly for those without an address.
    fn look_up(&self, config: &Config) {
        self.discovery.add(config);
        Handle::current().block_on(self.discovery.settled(config, FIRST_ANSWER_WAIT));
    }

    /// The steps that may fail.
    fn prepare(&self) -> Result<Prepared, Refused> {
        let Loaded { config, warnings, hash } = load::load(&self.source)?;
        let diagnostics = warnings.iter().map(to_json).collect();
        let running = self.running.lock();
        if running.stopping {
            return Err(Refused::new(STOPPING.to_owned()));
        }
        if *running.config == config {
            return Ok(Prepared { change: None, diagnostics, hash });
        }
        let added = diff::new_listeners(&running.config, &config).map_err(|needs| {
            let sentences: Vec<String> = needs.iter().map(ToString::to_string).collect();
            Refused::new(sentences.join("; "))
        })?;
        let mut bound = vec![];
        for listener in added {
            let socket = Plane::bind(&listener.address);
            bound.push(socket.map_err(|error| Refused::new(format!("listeners.{}: {error}", listener.name)))?);
        }
        let target = |config: &Config| config.access_log.as_ref().map(|policy| policy.to.clone());
        let (before, after) = (target(&running.config), target(&config));
        let output = match before == after {
            true => None,
            false => Some(telemetry::open_access_log(after.as_ref()).map_err(|error| Refused::new(error.to_string()))?),
        };
        Ok(Prepared { change: Some(Change { config: Arc::new(config), bound, output }), diagnostics, hash })
    }

    /// Applies the configuration: the steps that may still fail come first, then it is published once, then old
    /// listeners stop. If the process has begun to stop since `prepare`, the reload is refused and the new sockets
    /// close unused.
    fn apply(&self, change: Change, by: &str) -> io::Result<Applied> {
        let Change { config, bound, output } = change;
        let mut running = self.running.lock();
        if running.stopping {
            return Err(io::Error::other(STOPPING));
        }
        let mut names = vec![];
        for listener in &config.listeners {
            let next = ListenerId(u32::try_from(running.ids.len()).expect("addresses are bounded by memory"));
            let id = *running.ids.entry(listener.address.clone()).or_insert(next);
            names.push((listener.name.clone(), id));
        }
        let ready = bound.into_iter().map(|bound| {
            let id = running.ids[bound.address()];
            self.plane.ready(bound, id)
        });
        let ready: Result<Vec<_>, io::Error> = ready.collect();
        let ready = ready?;
        let now = Instant::now();
        let effective = self.discovery.expand(&config);
        // Lines of requests under the new configuration go to the new place, those before it to the old one.
        let (output, is_off) = match output {
            Some(None) => (None, true),
            Some(output) => (output, false),
            None => (None, false),
        };
        if let Some(output) = output {
            self.access.write_to(Some(output));
            self.access.flush();
        }
        let applied = self.controller.configure(&effective, &names, by, now);
        if is_off {
            self.access.write_to(None);
        }
        for listener in ready {
            let address = listener.address().clone();
            let id = running.ids[&address];
            let handle = self.plane.serve(listener, id);
            running.listeners.insert(address, (id, handle));
        }
        let wanted = |address: &Address| config.listeners.iter().any(|listener| listener.address == *address);
        let gone: Vec<Address> = running.listeners.keys().filter(|address| !wanted(address)).cloned().collect();
        let gone: Vec<_> = gone.iter().filter_map(|address| running.listeners.remove(address)).collect();
        running.config = config;
        running.effective = effective;
        running.loaded_at = now;
        running.generation = applied.generation;
        self.publish(&running);
        drop(running);
        close(gone.into_iter().map(|(_, handle)| handle).collect());
        Ok(applied)
    }
}

/// Closes sockets and waits until they are closed, because the next reload may use the same address again.
fn close(listeners: Vec<ListenerHandle>) {
    if listeners.is_empty() {
        return;
    }
    let closed = join_all(listeners.into_iter().map(ListenerHandle::close));
    let waited = Handle::current().block_on(async { tokio::time::timeout(CLOSE_TIMEOUT, closed).await });
    if waited.is_err() {
        tracing::warn!("A removed listener is slow to close");
    }
}

struct Prepared {
    change: Option<Change>,
    diagnostics: Vec<Diagnostic>,
    hash: Arc<str>,
}

struct Change {
    config: Arc<Config>,
    bound: Vec<Bound>,
    /// Another place for the access log, or none.
    output: Option<Option<Output>>,
}

/// Why a reload was refused.
struct Refused {
    sentence: String,
    diagnostics: Vec<Diagnostic>,
}

impl Refused {
    fn new(sentence: String) -> Refused {
        let diagnostic = Diagnostic {
            file: None,
            line: None,
            column: None,
            key: None,
            message: sentence.clone(),
            expected: None,
            suggestion: None,
            severity: config::Severity::Error.as_str().to_owned(),
        };
        Refused { sentence, diagnostics: vec![diagnostic] }
    }
}

impl From<LoadError> for Refused {
    fn from(error: LoadError) -> Refused {
        let diagnostics: Vec<Diagnostic> = error.diagnostics.iter().map(to_json).collect();
        // The same texts as `roundsman reload` prints, one per line.
        let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == config::Severity::Error.as_str());
        let errors: Vec<String> = errors.map(|error| error.sentence().replace('\n', " ")).collect();
        Refused { sentence: errors.join("\n"), diagnostics }
    }
}

/// Logs warnings, one line each, as at the start.
fn log_warnings<'d>(diagnostics: impl Iterator<Item = &'d Diagnostic>) {
    for Diagnostic { file, line, column, key, message, expected, .. } in diagnostics {
        let (file, key, expected) = (file.as_deref(), key.as_deref(), expected.as_deref());
        tracing::warn!(file, line, column, key, reason = message, expected, "Configuration warning");
    }
}

/// Those of `now` that are not among `before`, wherever in the file they are.
fn new_warnings<'d>(before: &[Diagnostic], now: &'d [Diagnostic]) -> Vec<&'d Diagnostic> {
    let same = |a: &Diagnostic, b: &Diagnostic| (&a.key, &a.message) == (&b.key, &b.message);
    now.iter().filter(|new| !before.iter().any(|old| same(old, new))).collect()
}

/// A diagnostic as JSON of the admin API.
fn to_json(diagnostic: &config::Diagnostic) -> Diagnostic {
    let config::Diagnostic { file, line, column, key, message, expected, suggestion, severity, .. } =
        diagnostic.clone();
    Diagnostic {
        file: Some(file),
        line,
        column,
        key: (!key.is_empty()).then_some(key),
        message,
        expected,
        suggestion,
        severity: severity.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;
    use crate::discovery::SystemResolver;
    use crate::model::policy::Lane;
    use crate::proxy::Workers;

    #[test]
    fn a_warning_is_new_once_wherever_its_line_moves() {
        let warning = |key: &str, message: &str, line| Diagnostic {
            file: Some("a.toml".into()),
            line,
            column: Some(1),
            key: Some(key.into()),
            message: message.into(),
            expected: None,
            suggestion: None,
            severity: "warning".into(),
        };
        let before = [warning("pools.a.upstreams", "one", Some(3))];
        let now = [warning("pools.a.upstreams", "one", Some(9)), warning("pools.b.upstreams", "one", Some(3))];
        assert_eq!(new_warnings(&before, &now), [&now[1]]);
        assert_eq!(new_warnings(&now, &now), [] as [&Diagnostic; 0]);
        assert_eq!(new_warnings(&[], &now).len(), 2);
    }

    #[test]
    fn a_refusal_says_what_is_expected_and_what_may_be_meant() {
        let text = "[listeners.web]\naddress = \"127.0.0.1:1\"\npool = \"api\"\n\
                    [pools.api]\nupstreams = [\"127.0.0.1:2\", \"127.0.0.1:3\"]\n\
                    health = { interval = 1, timeoutt = \"1s\" }\n";
        let refused = Refused::from(load::load_text("a.toml", text.as_bytes()).expect_err("it has mistakes"));
        let lines: Vec<&str> = refused.sentence.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("; expected "), "{lines:?}");
        for (line, said) in lines.iter().zip(["; did you mean `\"1s\"`?", "; did you mean `timeout`?"]) {
            assert!(line.starts_with("a.toml:6:") && line.ends_with(said), "{line}");
        }
        let printed: Vec<String> = refused.diagnostics.iter().map(Diagnostic::sentence).collect();
        assert_eq!(lines, printed, "as `roundsman reload` prints them");
    }

    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("the loopback has a free port")
    }

    fn text(listeners: &[SocketAddr]) -> String {
        let listeners = listeners.iter().enumerate();
        let listeners =
            listeners.map(|(n, address)| format!("[listeners.l{n}]\naddress = \"{address}\"\npool = \"api\"\n"));
        format!("{}[pools.api]\nupstreams = [\"127.0.0.1:1\"]\n", listeners.collect::<String>())
    }

    fn started(file: &std::path::Path) -> Arc<Reloader> {
        let source = ConfigSource::File(file.to_owned());
        let Loaded { config, .. } = load::load(&source).unwrap_or_else(|error| panic!("{}", error.render(false)));
        let bound =
            config.listeners.iter().map(|listener| Plane::bind(&listener.address).expect("it is free")).collect();
        let controller = Arc::new(Controller::new(Instant::now(), 1));
        let workers = Workers::on(Handle::current());
        let plane =
            Plane::new(controller.published().clone(), 100, Lane::Auto, workers, Arc::new(crate::exchange::NoDesk));
        let access = Arc::new(AccessLog::default());
        let discovery = Arc::new(Discovery::new(Arc::new(SystemResolver::default())));
        let reloader = Reloader::start(source, Arc::new(config), bound, controller, plane, discovery, access);
        Arc::new(reloader.expect("it accepts"))
    }

    #[test]
    fn the_origins_of_a_reload_are_named_once_and_only_the_first_few() {
        let order = |by: &str| Order { by: by.to_owned(), answer: oneshot::channel().0 };
        let of = |names: &[&str]| askers(&names.iter().map(|by| order(by)).collect::<Vec<_>>());
        assert_eq!(of(&["signal HUP"]), "signal HUP");
        assert_eq!(of(&["signal HUP", "a", "signal HUP"]), "signal HUP; a");
        assert_eq!(of(&["a", "b", "c", "d", "e"]), "a; b; c and 2 more");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stop_between_preparing_and_applying_refuses_the_whole_reload() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("roundsman.toml");
        let (old, new) = (free_address(), free_address());
        std::fs::write(&file, text(&[old])).expect("write");
        let reloader = started(&file);
        std::fs::write(&file, text(&[old, new])).expect("write");
        let prepared = reloader.prepare().unwrap_or_else(|refused| panic!("{}", refused.sentence));
        let change = prepared.change.expect("it differs");
        reloader.refuse_reloads();
        let generation = reloader.controller.status().generation;
        let refused = reloader.apply(change, "test").expect_err("it is stopping");
        assert_eq!(refused.to_string(), STOPPING);
        assert_eq!(reloader.controller.status().generation, generation, "nothing was published");
        assert_eq!(reloader.config().listeners.len(), 1);
        assert!(TcpStream::connect(new).is_err(), "the new socket is closed");
        assert!(TcpStream::connect(old).is_ok(), "the old one accepts until it is stopped");
        reloader.readdress();
        let worker = reloader.clone();
        let answer = tokio::task::spawn_blocking(move || worker.reload("test")).await.expect("it does not panic");
        assert_eq!((answer.last.result, answer.last.error.as_deref()), (ReloadResult::Refused, Some(STOPPING)));
        reloader.stop_accepting();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_running_configuration_is_readable_while_a_reload_is_applied() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("roundsman.toml");
        std::fs::write(&file, text(&[free_address()])).expect("write");
        let reloader = started(&file);
        let before = reloader.revision();
        let _applying = reloader.running.lock();
        let worker = reloader.clone();
        let reader = std::thread::spawn(move || {
            worker.note_change();
            (
                worker.admin().written,
                worker.config_file().last_reload.is_none(),
                worker.config().pools.len(),
                worker.revision(),
            )
        });
        assert_eq!(reader.join().expect("it does not wait"), (false, true, 1, before + 1));
    }
}
