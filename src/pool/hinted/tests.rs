//! Which reasons change, and to what, by tables.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::model::policy::{FileMark, ReadFile};
use crate::model::{HealthState, Name};
use crate::pool::outage::Way;
use crate::pool::status::{CheckStatus, OutOfOrder, PoolSummary, Streak};
use crate::pool::testing;

const GUESS: &str = "tls.ca_file does not hold this certificate: add it";
const HINT: &str = "tls.ca_file is read from ca.pem, which has changed since; reload to read it";

fn ca_file() -> CheckFile {
    CheckFile { what: "tls.ca_file".into(), read: ReadFile::Content(FileMark::new("ca.pem", b"")) }
}

/// An unhealthy upstream whose checks ended with these codes; all share a spec and a file.
fn upstream(spec: &Arc<ProbeSpec>, number: u64, codes: &[Code], decides: usize) -> UpstreamStatus {
    let now = Instant::now();
    let address: crate::model::Address = format!("10.0.0.{number}:80").parse().unwrap();
    let mut made = testing::upstream(number, "api", address.clone(), HealthState::Unhealthy, now);
    made.checks = codes
        .iter()
        .map(|code| {
            let report = ProbeReport { hint: Some(GUESS), ..ProbeReport::new(*code, Duration::ZERO, "self-signed") };
            let passes = code.judgement() == crate::model::Judgement::Pass;
            CheckStatus {
                spec: spec.clone(),
                tls_files: Arc::from([ca_file()]),
                streak: Some(Streak { pass: passes, count: 3, needed: 2 }),
                last_check: Some(LastCheck { at: now, report: Arc::new(report) }),
                ..testing::check("http", address.clone(), HealthState::Unhealthy, now)
            }
        })
        .collect();
    made.decides = decides;
    made.last_check = made.checks[decides].last_check.clone();
    let last = made.last_check.clone().unwrap().report;
    made.why = Some(format!("{}: {}", last.code, last.sentence()));
    made
}

fn pool(upstreams: Vec<UpstreamStatus>) -> PoolStatus {
    let mut made = testing::pool("api", PoolSummary::Unhealthy, upstreams, Instant::now());
    let reason = format!("its only upstream, a, is unhealthy (L6RSP: self-signed ({GUESS}))");
    let remedy = "this ends when it passes its checks".to_owned();
    made.out_of_order = Some(OutOfOrder { way: Some(Way::Refuse), since: None, way_since: None, reason, remedy });
    made
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_takes_the_place_of_what_the_probe_guessed() {
    let spec = Arc::new(ProbeSpec::connect());
    let both = [Code::L6Rsp, Code::L4Con];
    for (codes, decides, hint, why, asked) in [
        (&both[..1], 0, Some(HINT), format!("L6RSP: self-signed ({HINT})"), 1),
        (&both[..], 0, Some(HINT), format!("L6RSP: self-signed ({HINT})"), 1),
        // The check that decides did not use the file.
        (&both[..], 1, Some(HINT), format!("L4CON: self-signed ({GUESS})"), 1),
        (&both[..1], 0, None, format!("L6RSP: self-signed ({GUESS})"), 1),
        (&[Code::L4Con], 0, Some(HINT), format!("L4CON: self-signed ({GUESS})"), 0),
        (&[Code::L6Ok], 0, Some(HINT), format!("L6OK: self-signed ({GUESS})"), 0),
    ] {
        let mut status = pool((1..4).map(|number| upstream(&spec, number, codes, decides)).collect());
        let mut count = 0;
        let answered = status.add_file_hints(|files| {
            assert_eq!(files, [ca_file()]);
            count += 1;
            Ok::<_, ()>(hint.map(str::to_owned))
        });
        assert_eq!((answered, count), (Ok(()), asked), "{codes:?}: once for all that fail alike");
        assert!(status.upstreams.iter().all(|u| u.why.as_deref() == Some(&*why)), "{codes:?}");
        let out = status.out_of_order.expect("as before");
        let changed = asked > 0 && hint.is_some();
        assert_eq!(out.reason.contains(GUESS), !changed, "{}", out.reason);
        assert_eq!(out.remedy.ends_with(&format!("; {HINT}")), changed, "{}", out.remedy);
        for upstream in &status.upstreams {
            let of = |last: &Option<LastCheck>| last.as_ref().unwrap().report.sentence();
            assert_eq!(of(&upstream.last_check), of(&upstream.checks[decides].last_check), "they are the same");
            assert!(why.ends_with(&of(&upstream.last_check)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_reasons_stay_as_they_are() {
    let spec = Arc::new(ProbeSpec::connect());
    let mut status = pool(vec![upstream(&spec, 1, &[Code::L6Rsp], 0)]);
    assert_eq!(status.add_file_hints(|_| Err("late")), Err("late"));
    assert_eq!(status.upstreams[0].why, upstream(&spec, 1, &[Code::L6Rsp], 0).why);
    assert_eq!(status.out_of_order, pool(vec![]).out_of_order);
}

#[test]
fn an_event_says_what_it_did_not_know_when_it_happened() {
    let name = Name::try_new("api").unwrap();
    let (way, reason, remedy) = (Way::Refuse, format!("a (L6RSP: b ({GUESS}))"), "this ends".to_owned());
    let began = EventKind::OutageBegan { pool: name, way, reason, remedy };
    for (guess, reason) in [(Some(GUESS), "a (L6RSP: b)".to_owned()), (None, format!("a (L6RSP: b ({GUESS}))"))] {
        let EventKind::OutageBegan { reason: now, remedy, .. } = amended(&began, guess, HINT) else {
            panic!("changed")
        };
        assert_eq!((now, remedy), (reason, format!("this ends; {HINT}")));
    }
    assert_eq!(amended(&EventKind::CheckerRestart, Some(GUESS), HINT), EventKind::CheckerRestart);
}
