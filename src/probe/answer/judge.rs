//! Checks an answer against its rules as it arrives: the status, then the fields, then the body, then the body as JSON. All
//! must hold, and the first that fails is the finding.
//!
//! Reads no further than needed: without a rule over the body none of it; after a failure only what is quoted.

use serde_json::Value;

use crate::http1::{Fault, Field};
use crate::model::Ratio;
use crate::model::Trace;
use crate::model::policy::secrets;
use crate::model::policy::{BodyRule, Degraded, HttpProbe, JsonRule};
use crate::model::quote::{BYTES_MAX, Excerpt, mask_all};
use crate::probe::expect::{
    BodyRules, HeaderMiss, JsonMiss, NotJson, enclosing, header_miss, json_miss, parse, path_to,
};
use crate::probe::finding::{
    Answered, Details, Interruption, Miss, Node, Outcome, body_hint, header_hint, json_hint, not_json_hint,
};
use crate::probe::response::{Flow, Sink};
use crate::probe::self_report::{self, SelfReport};

/// Bytes of a body that rules see.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a report (JSON, or lines of `[+]` and `[-]`) of a failed answer that is searched for a reason; longer ones are
/// only quoted.
const REPORT_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
pub(super) enum Verdict<'p> {
    Open,
    Passed,
    Failed(Failure<'p>),
    Malformed(Fault),
}

#[derive(Debug)]
pub(super) enum Failure<'p> {
    Status,
    Header(HeaderMiss<'p>),
    /// A rule over the body; `true`: undecided when the cap was reached.
    Body(&'p BodyRule, bool),
    NotJson(NotJson),
    JsonOverCap,
    /// With the hint for the document.
    Json(Miss<'p>, Option<&'static str>),
}

#[derive(Debug)]
pub(super) struct Judge<'p> {
    probe: &'p HttpProbe,
    /// The rules over the body that are not met yet.
    rules: BodyRules<'p>,
    /// The answer may still say that the upstream is worse than others.
    degraded: Option<&'p Degraded>,
    /// Whether its rules over JSON hold, if the document has been parsed.
    json_is_worse: Option<bool>,
    verdict: Verdict<'p>,
    status: Option<u16>,
    /// Where an unexpected redirect points.
    location: Option<Excerpt>,
    /// The first bytes of the head, for the trace.
    head: Box<[u8]>,
    /// Bytes of body that the rules have seen.
    judged_bytes: usize,
    /// The body as far as it is needed, or the bytes that are not an answer.
    kept: Vec<u8>,
    /// Bytes of body received.
    received_bytes: u64,
    /// The body has ended, and all of it was kept.
    whole: bool,
    /// The reason that the system reports.
    report: Option<SelfReport>,
}

impl<'p> Judge<'p> {
    pub(super) fn new(probe: &'p HttpProbe) -> Judge<'p> {
        Judge {
            probe,
            rules: BodyRules::new(&probe.expect.body),
            degraded: None,
            json_is_worse: None,
            verdict: Verdict::Open,
            status: None,
            location: None,
            head: Box::default(),
            judged_bytes: 0,
            kept: Vec::new(),
            received_bytes: 0,
            whole: false,
            report: None,
        }
    }

    pub(super) fn verdict(&self) -> &Verdict<'p> {
        &self.verdict
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.verdict, Verdict::Open)
    }

    /// It has passed, and more of it is read to know whether the upstream is worse than others.
    pub(super) fn reads_on(&self) -> bool {
        matches!(self.verdict, Verdict::Passed)
            && self.compares_body()
            && !self.whole
            && self.kept.len() <= BODY_BYTES_MAX
    }

    /// Whether that depends on the body.
    fn compares_body(&self) -> bool {
        self.degraded.is_some_and(|worse| !worse.expect.body.is_empty() || !worse.expect.json.is_empty())
    }

    /// The share of its weight that the upstream takes, if what was read says that it is worse than others.
    fn degraded(&self) -> Option<Ratio> {
        let Degraded { expect, weight } = self.degraded?;
        let mut rules = BodyRules::new(&expect.body);
        let fed = rules.feed(&self.kept[..self.kept.len().min(BODY_BYTES_MAX)]).is_ok();
        let holds = match (self.whole, self.kept.len() > BODY_BYTES_MAX) {
            _ if !self.compares_body() => true,
            (true, _) => rules.miss(&self.kept).is_none() && self.is_worse_by_json(&expect.json),
            (false, true) => rules.miss_within(&self.kept, BODY_BYTES_MAX).is_none() && expect.json.is_empty(),
            // It broke off.
            (false, false) => false,
        };
        (fed && holds).then_some(*weight)
    }

    fn is_worse_by_json(&self, rules: &[JsonRule]) -> bool {
        let parsed = || parse(&self.kept).is_ok_and(|document| json_miss(rules, &document).is_none());
        rules.is_empty() || self.json_is_worse.unwrap_or_else(parsed)
    }

    pub(super) fn on_malformed(&mut self, error: Fault) {
        self.verdict = Verdict::Malformed(error);
        self.kept.truncate(BYTES_MAX);
    }

    /// Keeps bytes that are not an answer, and returns whether they are enough.
    pub(super) fn keep_unparsed(&mut self, bytes: &[u8]) -> bool {
        let room = BYTES_MAX.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.kept.len() >= BYTES_MAX
    }

    /// The result; `end` is how the answer ended if the rules are undecided, `pending` the received part of an incomplete
    /// head.
    pub(super) fn finish(mut self, end: Interruption, pending: &[u8]) -> Answered<'p> {
        let head = match self.verdict {
            Verdict::Open if self.head.is_empty() => kept_for_trace(self.probe, pending, Trace::HEAD_BYTES_MAX),
            Verdict::Open | Verdict::Passed | Verdict::Failed(_) | Verdict::Malformed(_) => {
                std::mem::take(&mut self.head)
            }
        };
        let degraded = if matches!(self.verdict, Verdict::Passed) { self.degraded() } else { None };
        // More may have been kept, depending on the pieces.
        if !self.whole {
            self.kept.truncate(self.quote_bytes());
        }
        let start = &self.kept[..self.kept.len().min(BYTES_MAX)];
        let body = kept_for_trace(self.probe, start, Trace::BODY_BYTES_MAX);
        Answered { outcome: self.outcome(end, degraded), head, body }
    }

    fn outcome(self, end: Interruption, degraded: Option<Ratio>) -> Outcome<'p> {
        let Judge { probe, status, location, kept, .. } = self;
        let excerpt = || Excerpt::of(&kept).without(secrets(&probe.headers));
        let wanted = self.rules.wanted();
        let status = match (self.verdict, status) {
            (Verdict::Malformed(error), status) => return Outcome::Malformed { error, status, seen: excerpt() },
            (Verdict::Open, status) => {
                return Outcome::CutShort { probe, wanted, end, status, body: excerpt() };
            }
            (Verdict::Passed | Verdict::Failed(_), None) => unreachable!("these verdicts are reached after the head"),
            (Verdict::Passed, Some(status)) => return Outcome::AsExpected { status, degraded },
            (Verdict::Failed(failure), Some(status)) => (failure, status),
        };
        let (failure, status) = status;
        let document = match &failure {
            Failure::Json(..) | Failure::NotJson(_) => None,
            Failure::Status | Failure::Header(_) | Failure::Body(..) | Failure::JsonOverCap => {
                (self.whole && opens_json(&kept)).then(|| parse(&kept).ok()).flatten()
            }
        };
        let mut part = None;
        let report = match (&failure, &document) {
            (Failure::Json(..) | Failure::NotJson(_), _) => self.report,
            (Failure::Status, Some(document)) => {
                let missed = first_miss(probe, document);
                let around = missed.as_ref().and_then(|missed| missed.around);
                part = missed.map(|missed| missed.miss);
                SelfReport::find(document, around, || secrets(&probe.headers))
            }
            (_, Some(document)) => SelfReport::find(document, None, || secrets(&probe.headers)),
            (_, None) => SelfReport::find_lines(&kept, || secrets(&probe.headers)),
        };
        let details = report.map_or_else(|| Details::Body(excerpt()), Details::Reported);
        let (miss, hint) = match failure {
            Failure::Status => {
                let location = location.map(|location| location.without(secrets(&probe.headers)));
                // A report that cannot be read completely may be a verdict too.
                let is_verdict = document.as_ref().map_or_else(|| opens_report(&kept), self_report::is_verdict);
                return Outcome::Status { probe, status, location, miss: part, details, is_verdict };
            }
            Failure::Header(HeaderMiss { rule, seen, more }) => {
                let hint = header_hint(&rule.value, &seen);
                let seen = seen.into_iter().map(|value| value.without(secrets(&probe.headers))).collect();
                (Miss::Header(HeaderMiss { rule, seen, more }), hint)
            }
            Failure::Body(rule, over_cap) => {
                let hint = body_hint(rule, &kept, &probe.method);
                (Miss::Body { rule, over_cap, empty: kept.is_empty() }, hint)
            }
            Failure::NotJson(error) => {
                let hint = not_json_hint(&error, &probe.method);
                (Miss::NotJson(error), hint)
            }
            Failure::JsonOverCap => (Miss::JsonOverCap, None),
            Failure::Json(miss, hint) => (miss, hint),
        };
        Outcome::Missed { status, miss, details, hint }
    }

    fn keep(&mut self, piece: &[u8]) {
        self.received_bytes += piece.len() as u64;
        let limit = match self.verdict {
            Verdict::Open if self.needs_whole() => BODY_BYTES_MAX + 1,
            Verdict::Open | Verdict::Passed if self.compares_body() => BODY_BYTES_MAX + 1,
            Verdict::Failed(Failure::Status) if !self.probe.expect.json.is_empty() => BODY_BYTES_MAX + 1,
            Verdict::Open | Verdict::Passed | Verdict::Failed(_) | Verdict::Malformed(_) => REPORT_BYTES_MAX,
        };
        let room = limit.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// Whether a rule needs the complete body.
    fn needs_whole(&self) -> bool {
        self.rules.need_whole() || !self.probe.expect.json.is_empty()
    }

    /// How much of a failed answer is kept.
    fn quote_bytes(&self) -> usize {
        match self.verdict {
            // A rule over JSON may name the component that fails.
            Verdict::Failed(Failure::Status) if !self.probe.expect.json.is_empty() => BODY_BYTES_MAX + 1,
            _ if opens_report(&self.kept) => REPORT_BYTES_MAX,
            _ => BYTES_MAX,
        }
    }

    fn check_piece(&mut self, piece: &[u8]) {
        let room = BODY_BYTES_MAX - self.judged_bytes;
        let seen = &piece[..piece.len().min(room)];
        self.judged_bytes += seen.len();
        if let Err(rule) = self.rules.feed(seen) {
            self.verdict = Verdict::Failed(Failure::Body(rule, false));
        } else if piece.len() > room {
            self.check_start();
        } else if self.rules.are_met() && self.probe.expect.json.is_empty() {
            self.verdict = Verdict::Passed;
        }
    }

    /// The body is longer than the rules see.
    fn check_start(&mut self) {
        self.verdict = match self.rules.miss_within(&self.kept, BODY_BYTES_MAX) {
            Some((rule, unread)) => Verdict::Failed(Failure::Body(rule, unread)),
            None if self.probe.expect.json.is_empty() => Verdict::Passed,
            None => Verdict::Failed(Failure::JsonOverCap),
        };
    }

    fn check_whole(&mut self) {
        self.verdict = match self.rules.miss(&self.kept) {
            Some(rule) => Verdict::Failed(Failure::Body(rule, false)),
            None if self.probe.expect.json.is_empty() => Verdict::Passed,
            None => self.check_json(),
        };
    }

    fn check_json(&mut self) -> Verdict<'p> {
        let probe = self.probe;
        let document = match parse(&self.kept) {
            Ok(document) => document,
            Err(error) => return Verdict::Failed(Failure::NotJson(error.without(secrets(&probe.headers)))),
        };
        let Some(Missed { miss, around, hint }) = first_miss(probe, &document) else {
            let worse = self.degraded.map(|worse| json_miss(&worse.expect.json, &document).is_none());
            self.json_is_worse = worse;
            return Verdict::Passed;
        };
        self.report = SelfReport::find(&document, around, || secrets(&probe.headers));
        Verdict::Failed(Failure::Json(miss, hint))
    }
}

impl Sink for Judge<'_> {
    fn on_raw_head(&mut self, head: &[u8]) {
        self.head = kept_for_trace(self.probe, head, Trace::HEAD_BYTES_MAX);
    }

    fn on_head(&mut self, status: u16, fields: &[Field<'_>]) -> Flow {
        let expect = &self.probe.expect;
        self.status = Some(status);
        let says = |worse: &&Degraded| {
            worse.expect.status.takes(status) && header_miss(&worse.expect.headers, fields).is_none()
        };
        self.degraded = self.probe.degraded.as_deref().filter(says);
        if !expect.status.takes(status) {
            self.verdict = Verdict::Failed(Failure::Status);
            let location =
                fields.iter().find(|f| (300..400).contains(&status) && f.name.eq_ignore_ascii_case(b"location"));
            self.location = location.map(|field| Excerpt::of(field.value));
            return Flow::Continue;
        }
        if let Some(miss) = header_miss(&expect.headers, fields) {
            self.verdict = Verdict::Failed(Failure::Header(miss));
            return Flow::Continue;
        }
        // The empty text is in every body: none of it is read.
        if let Err(rule) = self.rules.feed(&[]) {
            self.verdict = Verdict::Failed(Failure::Body(rule, false));
            return Flow::Continue;
        }
        if !self.rules.are_met() || !expect.json.is_empty() {
            return Flow::Continue;
        }
        self.verdict = Verdict::Passed;
        if self.compares_body() { Flow::Continue } else { Flow::Stop }
    }

    fn on_body(&mut self, piece: &[u8]) -> Flow {
        self.keep(piece);
        if matches!(self.verdict, Verdict::Open) {
            self.check_piece(piece);
        }
        match self.verdict {
            Verdict::Open => Flow::Continue,
            Verdict::Passed if self.reads_on() => Flow::Continue,
            Verdict::Passed => Flow::Stop,
            Verdict::Failed(_) | Verdict::Malformed(_) if self.kept.len() >= self.quote_bytes() => Flow::Stop,
            Verdict::Failed(_) | Verdict::Malformed(_) => Flow::Continue,
        }
    }

    fn on_end(&mut self) {
        self.whole = self.received_bytes == self.kept.len() as u64;
        if matches!(self.verdict, Verdict::Open) {
            self.check_whole();
        }
    }
}

/// The first `limit` of `bytes`, with our credentials masked.
fn kept_for_trace(probe: &HttpProbe, bytes: &[u8], limit: usize) -> Box<[u8]> {
    if secrets(&probe.headers).next().is_none() {
        return bytes[..bytes.len().min(limit)].into();
    }
    // Masks shorten the text: mask more than is kept, but only a bounded part.
    let mut masked = bytes[..bytes.len().min(4 * limit)].to_vec();
    mask_all(&mut masked, secrets(&probe.headers));
    masked.truncate(limit);
    masked.into_boxed_slice()
}

/// A violated rule over JSON, the object around the node at fault, and the hint.
struct Missed<'p, 'd> {
    miss: Miss<'p>,
    around: Option<&'d Value>,
    hint: Option<&'static str>,
}

/// The first violated rule over JSON.
fn first_miss<'p, 'd>(probe: &'p HttpProbe, document: &'d Value) -> Option<Missed<'p, 'd>> {
    let JsonMiss { rule, node, more } = json_miss(&probe.expect.json, document)?;
    let around = node.and_then(|node| enclosing(document, node));
    let hint = json_hint(rule, document, node);
    let node = node.map(|node| Node::new(&path_to(document, node), node).without(|| secrets(&probe.headers)));
    Some(Missed { miss: Miss::Json { rule, node, more }, around, hint })
}

/// Whether a body may be a health report.
fn opens_report(body: &[u8]) -> bool {
    opens_json(body) || opens_lines(body)
}

/// Whether a body may be a JSON object, or a list of them.
fn opens_json(body: &[u8]) -> bool {
    match first_bytes(body) {
        [b'{', ..] => true,
        [b'[', rest @ ..] => rest.trim_ascii_start().first() == Some(&b'{'),
        _ => false,
    }
}

/// Whether a body may be the lines of a verbose `readyz`.
fn opens_lines(body: &[u8]) -> bool {
    first_bytes(body).starts_with(b"[+]") || first_bytes(body).starts_with(b"[-]")
}

fn first_bytes(body: &[u8]) -> &[u8] {
    body[..body.len().min(BYTES_MAX)].trim_ascii_start()
}
