//! Puts what is known about changed files of checks (secrets, certificates, keys) into reasons: a check that fails because
//! its file has changed since it was read gets that in place of the hint of its probe, which did not know it. Pure: whoever
//! calls it compares the files.

use std::sync::Arc;

use super::events::EventKind;
use super::status::{Explanation, LastCheck, PoolStatus, UpstreamStatus};
use crate::model::policy::{CheckFile, ProbeSpec, suspect_files};
use crate::model::{Code, ProbeReport};

/// What is known about the files of checks that fail alike.
struct Answer {
    spec: Arc<ProbeSpec>,
    code: Code,
    hint: Option<String>,
}

/// Asks about the files of failing checks, once for those that fail alike.
struct Asker<F> {
    ask: F,
    answers: Vec<Answer>,
    /// The hints of probes that gave way.
    replaced: Vec<&'static str>,
}

impl PoolStatus {
    /// Changes the reasons of the upstreams and of the outage. `ask` returns the sentence about the files that have changed
    /// since they were read. Its first error ends this; reasons after that stay as they are.
    pub fn add_file_hints<E>(&mut self, ask: impl FnMut(Vec<CheckFile>) -> Result<Option<String>, E>) -> Result<(), E> {
        let mut asker = Asker::new(ask);
        let result = asker.amend_all(&mut self.upstreams);
        if let (Some(out), Some(hint)) = (&mut self.out_of_order, asker.hint()) {
            for guess in &asker.replaced {
                out.reason = without(&out.reason, guess);
            }
            out.remedy = format!("{}; {hint}", out.remedy);
        }
        result
    }
}

impl Explanation {
    /// Changes the reasons of the upstream asked about, else those of the whole pool, and sets `hint`. `ask` as in
    /// [`PoolStatus::add_file_hints`].
    pub fn add_file_hints<E>(&mut self, ask: impl FnMut(Vec<CheckFile>) -> Result<Option<String>, E>) {
        let mut asker = Asker::new(ask);
        // After an error the answers so far still hold.
        let _ = match &mut self.upstream {
            Some(detail) => asker.amend_all(std::slice::from_mut(&mut detail.status)),
            None => asker.amend_all(&mut self.pool.upstreams),
        };
        self.hint = asker.hint();
    }
}

impl<F, E> Asker<F>
where
    F: FnMut(Vec<CheckFile>) -> Result<Option<String>, E>,
{
    fn new(ask: F) -> Asker<F> {
        Asker { ask, answers: vec![], replaced: vec![] }
    }

    /// What was found, each sentence once.
    fn hint(&self) -> Option<String> {
        let mut hints: Vec<&str> = vec![];
        for hint in self.answers.iter().filter_map(|answer| answer.hint.as_deref()) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        (!hints.is_empty()).then(|| hints.join("; "))
    }

    fn amend_all(&mut self, upstreams: &mut [UpstreamStatus]) -> Result<(), E> {
        for upstream in upstreams {
            for check in 0..upstream.checks.len() {
                self.amend(upstream, check)?;
            }
        }
        Ok(())
    }

    fn amend(&mut self, upstream: &mut UpstreamStatus, index: usize) -> Result<(), E> {
        let check = &upstream.checks[index];
        let fails = check.streak.is_some_and(|streak| !streak.pass);
        let Some(last) = check.last_check.clone().filter(|_| fails) else { return Ok(()) };
        // All upstreams of a pool share the specs of its checks.
        let (spec, code) = (&check.spec, last.report.code);
        let known = self.answers.iter().find(|answer| Arc::ptr_eq(&answer.spec, spec) && answer.code == code);
        let hint = match known {
            Some(answer) => answer.hint.clone(),
            None => {
                let files = suspect_files(spec, &check.tls_files, code);
                let hint = if files.is_empty() { None } else { (self.ask)(files)? };
                self.answers.push(Answer { spec: spec.clone(), code, hint: hint.clone() });
                hint
            }
        };
        let Some(hint) = hint else { return Ok(()) };
        if let Some(guess) = last.report.hint
            && !self.replaced.contains(&guess)
        {
            self.replaced.push(guess);
        }
        let before = last.report.sentence();
        let reason = format!("{} ({hint})", last.report.reason);
        let report = ProbeReport { reason: reason.into(), hint: None, ..(*last.report).clone() };
        if index == upstream.decides {
            upstream.why = upstream.why.take().map(|why| why.replacen(&before, &report.reason, 1));
        }
        let amended = LastCheck { at: last.at, report: Arc::new(report) };
        if index == upstream.decides {
            upstream.last_check = Some(amended.clone());
        }
        upstream.checks[index].last_check = Some(amended);
        Ok(())
    }
}

/// The event with the sentence about changed files. `guess` is the hint of the probe, if it had one.
pub(super) fn amended(kind: &EventKind, guess: Option<&str>, hint: &str) -> EventKind {
    let bare = |reason: &str| guess.map_or_else(|| reason.to_owned(), |guess| without(reason, guess));
    let mut kind = kind.clone();
    match &mut kind {
        EventKind::Transition(change) => change.reason = format!("{} ({hint})", bare(&change.reason)),
        EventKind::OutageBegan { reason, remedy, .. } => {
            *reason = bare(reason);
            *remedy = format!("{remedy}; {hint}");
        }
        _ => {}
    }
    kind
}

fn without(reason: &str, guess: &str) -> String {
    reason.replacen(&format!(" ({guess})"), "", 1)
}

#[cfg(test)]
mod tests;
