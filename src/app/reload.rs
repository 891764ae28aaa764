//! A reload: read once → parse and validate whole → bind new listeners → look up new host names, for a moment → apply →
//! publish once → answer. A failure at any step before publishing leaves everything as it was; a name that does not resolve
//! is none.
//!
//! One at a time: a single task does them. Orders that come while one is under way are answered together by the next,
//! so a storm coalesces and the last content wins.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

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
use crate::pool::{Controller, ListenerId};
use crate::proxy::{Bound, ListenerHandle, Plane};

/// Orders to reload kept before one is refused.
const ORDERS_MAX: usize = 256;
/// How long the socket of a removed listener may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where orders to reload go.
#[derive(Debug, Clone)]
pub struct Reloads(mpsc::Sender<oneshot::Sender<ReloadAnswer>>);

impl Reloads {
    /// The two ends.
    pub fn channel() -> (Reloads, mpsc::Receiver<oneshot::Sender<ReloadAnswer>>) {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        (Reloads(sender), receiver)
    }

    /// Orders a reload and waits for its answer; `None` when the process is about to end or too many wait. The reload goes
    /// on when this future is dropped.
    pub async fn order(&self) -> Option<ReloadAnswer> {
        let (sender, answer) = oneshot::channel();
        self.0.try_send(sender).ok()?;
        answer.await.ok()
    }
}

/// What runs, and how to change it.
pub struct Reloader {
    source: ConfigSource,
    controller: Arc<Controller>,
    plane: Arc<Plane>,
    discovery: Arc<Discovery>,
    /// Held while new sockets are bound: a trial binds them too, and must not take them from a reload.
    turn: Mutex<()>,
    running: Mutex<Running>,
}

struct Running {
    config: Arc<Config>,
    /// The same with addresses in the place of names, as the controller has it.
    effective: Config,
    loaded_at: Instant,
    generation: u64,
    last_reload: Option<LastReload>,
    listeners: HashMap<Address, (ListenerId, ListenerHandle)>,
    /// Numbers stay with their addresses, so that a listener that comes back is the same one.
    ids: HashMap<Address, ListenerId>,
    /// The process is about to end: nothing is reloaded any more.
    stopping: bool,
}

impl Reloader {
    /// Applies the first configuration: `bound` are its sockets, bound already. Returns when it is published; the sockets
    /// accept from then on.
    pub fn start(
        source: ConfigSource,
        config: Arc<Config>,
        bound: Vec<Bound>,
        controller: Arc<Controller>,
        plane: Arc<Plane>,
        discovery: Arc<Discovery>,
    ) -> io::Result<Reloader> {
        let now = Instant::now();
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
        let reloader =
            Reloader { source, controller, plane, discovery, turn: Mutex::new(()), running: Mutex::new(running) };
        reloader.apply(config, bound)?;
        Ok(reloader)
    }

    /// Does reloads until every sender is gone. Needs a runtime of several threads; one worker is enough.
    pub async fn run(&self, mut orders: mpsc::Receiver<oneshot::Sender<ReloadAnswer>>) {
        while let Some(first) = orders.recv().await {
            let mut waiting = vec![first];
            while let Ok(next) = orders.try_recv() {
                waiting.push(next);
            }
            // Reads files and compares thousands of upstreams: the worker's other tasks go to another thread meanwhile.
            let answer = tokio::task::block_in_place(|| self.reload());
            for sender in waiting {
                // Whoever ordered it may have left.
                let _ = sender.send(answer.clone());
            }
        }
    }

    /// What a reload would do.
    pub fn check(&self) -> CheckAnswer {
        let _turn = self.turn.lock();
        match self.prepare() {
            Ok(Prepared { change, diagnostics, .. }) => CheckAnswer {
                result: if change.is_some() { ReloadResult::Applied } else { ReloadResult::Unchanged },
                error: None,
                diagnostics,
            },
            Err(refused) => CheckAnswer {
                result: ReloadResult::Refused,
                error: Some(refused.sentence),
                diagnostics: refused.diagnostics,
            },
        }
    }

    /// Takes over what the host names of the running configuration stand for now. Between two reloads or after both, never
    /// within one.
    pub fn readdress(&self) {
        let mut running = self.running.lock();
        let effective = self.discovery.expand(&running.config);
        if effective.pools == running.effective.pools {
            return;
        }
        let id = |listener: &ListenerPolicy| Some((listener.name.clone(), *running.ids.get(&listener.address)?));
        let names: Vec<(Name, ListenerId)> = effective.listeners.iter().filter_map(id).collect();
        self.controller.readdress(&effective, &names, Instant::now());
        running.effective = effective;
    }

    /// The running configuration.
    pub fn config(&self) -> Arc<Config> {
        self.running.lock().config.clone()
    }

    /// The running configuration's file.
    pub fn config_file(&self) -> ConfigFile {
        let running = self.running.lock();
        ConfigFile {
            file: match &self.source {
                ConfigSource::File(path) => Some(path.display().to_string()),
                ConfigSource::Inline { .. } => None,
            },
            loaded_at: running.loaded_at,
            last_reload: running.last_reload.clone(),
        }
    }

    /// The admin policy of the running configuration.
    pub fn admin(&self) -> AdminPolicy {
        self.running.lock().config.admin.clone()
    }

    /// The process is about to end: every reload from now on is refused.
    pub fn refuse_reloads(&self) {
        self.running.lock().stopping = true;
    }

    /// Ends accepting on every listener; connections go on.
    pub fn stop_accepting(&self) {
        for (_, (_, handle)) in self.running.lock().listeners.drain() {
            handle.stop();
        }
    }

    fn reload(&self) -> ReloadAnswer {
        let _turn = self.turn.lock();
        let applied = self.prepare().and_then(|prepared| {
            let Some(change) = prepared.change else {
                self.discovery.add(&self.config());
                return Ok((ReloadResult::Unchanged, vec![], prepared.diagnostics));
            };
            self.look_up(&change.config);
            let warming = self.apply(change.config, change.bound).map_err(|error| Refused::new(error.to_string()))?;
            Ok((ReloadResult::Applied, warming, prepared.diagnostics))
        });
        let (result, error, warming, diagnostics) = match applied {
            Ok((result, warming, diagnostics)) => (result, None, warming, diagnostics),
            Err(refused) => (ReloadResult::Refused, Some(refused.sentence), vec![], refused.diagnostics),
        };
        // A refused configuration leaves no names behind.
        self.discovery.keep_only(&self.config());
        if result != ReloadResult::Applied {
            self.controller.note_reload(result.as_str(), error.clone(), Instant::now());
        }
        let last = LastReload { result, at: Instant::now(), error };
        let mut running = self.running.lock();
        running.last_reload = Some(last.clone());
        ReloadAnswer { last, generation: running.generation, warming, diagnostics }
    }

    /// Asks for the names, those that are known too, and waits a moment for those that are not.
    fn look_up(&self, config: &Config) {
        self.discovery.add(config);
        Handle::current().block_on(self.discovery.settled(config, FIRST_ANSWER_WAIT));
    }

    /// Everything that may fail.
    fn prepare(&self) -> Result<Prepared, Refused> {
        let Loaded { config, warnings } = load::load(&self.source)?;
        let diagnostics = warnings.iter().map(told).collect();
        let running = self.running.lock();
        if running.stopping {
            return Err(Refused::new("the process is stopping".to_owned()));
        }
        if *running.config == config {
            return Ok(Prepared { change: None, diagnostics });
        }
        let diff = diff::diff(&running.config, &config).map_err(|needs| {
            let sentences: Vec<String> = needs.iter().map(ToString::to_string).collect();
            Refused::new(sentences.join("; "))
        })?;
        let mut bound = vec![];
        for listener in &diff.listeners.added {
            let socket = Plane::bind(&listener.address);
            bound.push(socket.map_err(|error| Refused::new(format!("listeners.{}: {error}", listener.name)))?);
        }
        Ok(Prepared { change: Some(Change { config: Arc::new(config), bound }), diagnostics })
    }

    /// Carries the configuration out: what may still fail comes first, then it is published once, then old listeners stop.
    fn apply(&self, config: Arc<Config>, bound: Vec<Bound>) -> io::Result<Vec<Name>> {
        let mut running = self.running.lock();
        let mut names = vec![];
        for listener in &config.listeners {
            let next = ListenerId(u32::try_from(running.ids.len()).expect("addresses are bounded by memory"));
            let id = *running.ids.entry(listener.address.clone()).or_insert(next);
            names.push((listener.name.clone(), id));
        }
        let ready: Result<Vec<_>, io::Error> = bound.into_iter().map(|bound| self.plane.ready(bound)).collect();
        let ready = ready?;
        let now = Instant::now();
        let effective = self.discovery.expand(&config);
        let applied = self.controller.configure(&effective, &names, now);
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
        drop(running);
        close(gone.into_iter().map(|(_, handle)| handle).collect());
        Ok(applied.warming)
    }
}

/// Closes sockets and waits until they are: the next reload may want the same address back.
fn close(listeners: Vec<ListenerHandle>) {
    if listeners.is_empty() {
        return;
    }
    let closed = join_all(listeners.into_iter().map(ListenerHandle::close));
    let waited = Handle::current().block_on(async { tokio::time::timeout(CLOSE_TIMEOUT, closed).await });
    if waited.is_err() {
        tracing::warn!("A removed listener takes long to close");
    }
}

struct Prepared {
    change: Option<Change>,
    diagnostics: Vec<Diagnostic>,
}

struct Change {
    config: Arc<Config>,
    bound: Vec<Bound>,
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
        Refused { sentence: error.to_string(), diagnostics: error.diagnostics.iter().map(told).collect() }
    }
}

/// A mistake of the file, for the admin API.
fn told(diagnostic: &config::Diagnostic) -> Diagnostic {
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
