//! Implements the interface of the admin plane for this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::time::Instant;

use super::files::DiskFiles;
use super::reload::{Reloader, Reloads};
use crate::admin::json::{ProcessState, ReloadResult};
use crate::admin::readiness::{self, Readiness};
use crate::admin::{Access, CheckAnswer, Condition, Host, LastReload, MetricsFormat};
use crate::admin::{ProcessInfo, ReloadAnswer};
use crate::exchange::{Desk, ReadyAnswer, Record};
use crate::metrics::{self, Format, Scrape};
use crate::model::Address;
use crate::pool::{Changes, Controller, Done, Event, ExplainError, Explanation, Order, OrderError, RouteStats, Status};
use crate::proxy::Plane;
use crate::telemetry::{self, AccessLog};

/// The process, as the admin plane sees it.
pub struct Process {
    /// Its pools.
    pub controller: Arc<Controller>,
    /// Its data plane.
    pub plane: Arc<Plane>,
    /// Its configuration.
    pub reloader: Arc<Reloader>,
    /// Takes orders to reload.
    pub reloads: Reloads,
    /// When it started.
    pub started: Instant,
    /// When it started, as a date.
    pub started_at: SystemTime,
    /// Its phase.
    pub life: Arc<Life>,
    /// Whether it is ready.
    pub readiness: Arc<Readiness>,
    /// Its access log.
    pub access: Arc<AccessLog>,
    /// Compares the files of checks with those on disk.
    pub check_files: Arc<DiskFiles>,
}

/// What the data plane asks of the process.
#[derive(Debug)]
pub struct Front {
    /// Its phase.
    pub life: Arc<Life>,
    /// Whether it is ready.
    pub readiness: Arc<Readiness>,
    /// Its access log.
    pub access: Arc<AccessLog>,
}

impl Desk for Front {
    fn ready(&self) -> ReadyAnswer {
        let ready = self.readiness.now(self.life.state());
        ReadyAnswer { ready: ready.is_ok(), body: readiness::to_json(&ready) }
    }

    fn record(&self, record: &Record<'_>) {
        self.access.record(record);
    }
}

/// The phase of the process. Only goes forward.
#[derive(Debug, Default)]
pub struct Life(AtomicU8);

impl Life {
    /// The listeners accept.
    pub fn running(&self) {
        self.0.store(1, Ordering::Release);
    }

    /// The process is stopping.
    pub fn draining(&self) {
        self.0.store(2, Ordering::Release);
    }

    /// The current phase.
    pub fn state(&self) -> ProcessState {
        match self.0.load(Ordering::Acquire) {
            0 => ProcessState::Starting,
            1 => ProcessState::Running,
            _ => ProcessState::Draining,
        }
    }
}

impl Process {
    /// The routes and their counters.
    fn routes(&self) -> Vec<(String, Arc<RouteStats>)> {
        let snapshot = self.controller.published().load();
        snapshot.routes.all().iter().map(|route| (route.matching.to_string(), route.stats.clone())).collect()
    }
}

#[async_trait]
impl Host for Process {
    fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    fn status(&self, _now: Instant) -> Status {
        self.controller.status()
    }

    fn add_hints(&self, status: &mut Status) {
        self.check_files.add_hints(status);
    }

    fn events_after(&self, seq: u64) -> Vec<Event> {
        self.controller.events_after(seq)
    }

    fn explain(&self, pool: &str, upstream: Option<&Address>) -> Result<Explanation, ExplainError> {
        let mut explanation = self.controller.explain(pool, upstream)?;
        self.check_files.explain(&mut explanation);
        Ok(explanation)
    }

    fn process(&self) -> ProcessInfo {
        let state = self.life.state();
        let listening = match state {
            ProcessState::Starting => false,
            ProcessState::Running | ProcessState::Draining => true,
        };
        let conditions =
            vec![Condition { name: "configuration", met: true }, Condition { name: "listeners", met: listening }];
        let config = self.reloader.config();
        ProcessInfo {
            pid: std::process::id(),
            state,
            listeners: config.listeners.iter().map(|l| (l.name.clone(), l.address.clone())).collect(),
            started: self.started,
            by_lane: self.plane.stats().by_lane().into(),
            config: self.reloader.config_file(),
            conditions,
        }
    }

    fn state(&self) -> ProcessState {
        self.life.state()
    }

    fn revision(&self) -> u64 {
        self.reloader.revision()
    }

    fn access(&self) -> Access {
        let policy = self.reloader.admin();
        Access { token: policy.token, address: policy.address }
    }

    fn metrics(&self, MetricsFormat { open_metrics, upstreams }: MetricsFormat) -> String {
        let file = self.reloader.config_file();
        let now = Instant::now();
        let last_reload = match &file.last_reload {
            Some(last) => SystemTime::now() - now.saturating_duration_since(last.at),
            None => self.started_at,
        };
        let scrape = Scrape {
            status: self.controller.status(),
            routes: self.routes(),
            config_hash: file.hash,
            front: self.plane.stats().clone(),
            started: self.started_at,
            last_reload_success: file.last_reload.is_none_or(|last| last.result != ReloadResult::Refused),
            last_reload,
            panics: telemetry::panics_total(),
            log_lines_dropped: telemetry::dropped_total(),
            access_lines_dropped: self.access.dropped_total(),
        };
        metrics::render(scrape, Format { open_metrics, upstreams })
    }

    fn order(&self, pool: Option<&str>, upstream: &Address, order: &Order<'_>) -> Result<Vec<Done>, OrderError> {
        let done = self.controller.order(pool, upstream, order, Instant::now());
        self.reloader.note_change();
        done
    }

    async fn reload(&self, by: String) -> ReloadAnswer {
        match self.reloads.order(by).await {
            Some(answer) => answer,
            None => {
                let error = Some("the process is stopping, or too many reloads are waiting".to_owned());
                let last = LastReload { result: ReloadResult::Refused, at: Instant::now(), error };
                let generation = self.controller.status().generation;
                ReloadAnswer { last, generation, warming: vec![], changes: Changes::default(), diagnostics: vec![] }
            }
        }
    }

    async fn check(&self) -> CheckAnswer {
        let reloader = self.reloader.clone();
        let checked = tokio::task::spawn_blocking(move || reloader.check()).await;
        checked.unwrap_or_else(|_| CheckAnswer {
            result: ReloadResult::Refused,
            error: Some("the check was aborted".to_owned()),
            changes: Changes::default(),
            diagnostics: vec![],
        })
    }
}
