//! A check of a text protocol: `send` and `expect`, or `steps`; and what an agent check sends. Refuses steps that do nothing,
//! contradict each other or can never succeed.

use std::sync::Arc;

use super::expect;
use crate::config::raw;
use crate::config::read::{At, Field, quoted};
use crate::config::report::{Found, Report};
use crate::model::policy::{Act, Payload, TcpProbe, TextStep, Wanted};

/// The keys of a step; it has one of them.
const ACTS: &str =
    "one of `expect`, `matches`, `send`, `send_hex`, `expect_hex` and `starttls`, optionally with `fail_on`";

/// What a check of type tcp sends and expects.
pub fn tcp(raw: &raw::Probe, key: &str, report: &mut Report) -> TcpProbe {
    let expected = expect::text(&raw.expect, raw.kind.is_absent(), &format!("{key}.expect"), report);
    let sent = sent(raw, key, report);
    let probe = match &raw.steps {
        Field::Absent => TcpProbe::of(sent, expected),
        Field::Bad => TcpProbe::default(),
        Field::Good(list) => {
            refuse_beside_steps(raw, expected.is_some(), key, report);
            TcpProbe { steps: steps(list, raw, &format!("{key}.steps"), report), numbered: true }
        }
    };
    if let (true, Some(at), Field::Absent) = (probe.is_plain(), raw.tls.get(), &raw.steps)
        && raw.is_whole()
    {
        let message = "nothing is sent or expected over TLS";
        let found = Found::error(at.span.clone(), format!("{key}.tls"), message);
        report.add(found.expected("type = \"tls\" for a handshake alone; or `steps`, or `expect`, beside it"));
    }
    probe
}

/// What an agent check sends.
pub fn agent(raw: &raw::Probe, key: &str, report: &mut Report) -> TcpProbe {
    TcpProbe::agent(sent(raw, key, report))
}

/// The text of `send`.
fn sent(raw: &raw::Probe, key: &str, report: &mut Report) -> Option<Payload> {
    let at = raw.send.get()?;
    warn_about_escapes(at.value.plain.as_deref(), at, &format!("{key}.send"), report);
    Some(at.value.payload.clone())
}

fn refuse_beside_steps(raw: &raw::Probe, expects: bool, key: &str, report: &mut Report) {
    let expect = raw.expect.get().filter(|_| expects).and_then(|at| at.value.contains.get());
    let send = raw.send.get().map(|at| ("send", "{ send = \"…\" }", at.span.clone()));
    let expect = expect.map(|at| ("expect.contains", "{ expect = \"…\" }", at.span.clone()));
    for (name, step, span) in send.into_iter().chain(expect) {
        let found = Found::error(span, format!("{key}.{name}"), "cannot be combined with `steps`");
        report.add(found.expected(format!("a step {step}")));
    }
}

fn steps(list: &At<raw::TextSteps>, probe: &raw::Probe, key: &str, report: &mut Report) -> Vec<TextStep> {
    if list.value.0.is_empty() {
        let found = Found::error(list.span.clone(), key, "no step");
        report.add(found.expected("such as [{ send = \"PING\\r\\n\" }, { expect = \"+PONG\" }]"));
    }
    let entries = list.value.0.iter().enumerate();
    let entries = entries.filter_map(|(index, entry)| Some((format!("{key}[{index}]"), entry.as_ref()?)));
    let made: Vec<_> = entries.filter_map(|(key, at)| Some((step(at, &key, report)?, at, key))).collect();
    refuse_handshakes(&made, probe, report);
    refuse_useless_fail_on(&made, made.len() == list.value.0.len(), report);
    made.into_iter().map(|(step, ..)| step).collect()
}

type Made<'r> = (TextStep, &'r At<raw::TextStep>, String);

fn step(at: &At<raw::TextStep>, key: &str, report: &mut Report) -> Option<TextStep> {
    let raw = &at.value;
    for (name, text) in [
        ("expect", raw.expect.get().map(|at| (&*at.value.0, &at.span))),
        ("send", raw.send.get().and_then(|at| Some((at.value.plain.as_deref()?, &at.span)))),
    ] {
        if let Some((text, span)) = text {
            let place = At { value: (), span: span.clone() };
            warn_about_escapes(Some(text), &place, &format!("{key}.{name}"), report);
        }
    }
    let fail_on = fail_on(raw, key, report);
    let written: Vec<_> = raw.written().into_iter().filter(|(name, _)| *name != "fail_on").collect();
    match written.as_slice() {
        [] if !raw.is_whole() => return None,
        [] if raw.fail_on.is_absent() => {
            report.add(Found::error(at.span.clone(), key, "an empty step").expected(ACTS));
            return None;
        }
        [] => {
            let found = Found::error(at.span.clone(), key, "`fail_on` alone waits for nothing");
            report.add(found.expected("`expect`, `matches` or `expect_hex` beside it"));
            return None;
        }
        [_] => {}
        [(first, _), (second, span), ..] => {
            let message = format!("`{first}` and `{second}` in one step");
            let found = Found::error(span.clone(), format!("{key}.{second}"), message);
            report.add(found.expected(format!("a step for each: {{ {first} = … }}, {{ {second} = … }}")));
            return None;
        }
    }
    let wait = |wanted| Some(Act::Wait(wanted));
    let act = None
        .or_else(|| wait(Wanted::Text(raw.expect.value()?.0.clone())))
        .or_else(|| wait(Wanted::Match(raw.matches.value()?.0.clone())))
        .or_else(|| wait(Wanted::Bytes(raw.expect_hex.value()?.0.clone())))
        .or_else(|| Some(Act::Send(raw.send.value()?.payload.clone())))
        .or_else(|| Some(Act::Send(raw.send_hex.value()?.0.clone())))
        .or_else(|| raw.starttls.value().map(|_| Act::StartTls))?;
    if let Some(at) = raw.starttls.get().filter(|at| !at.value) {
        let found = Found::error(at.span.clone(), format!("{key}.starttls"), "starttls = false does nothing");
        report.add(found.expected("starttls = true, or no such step"));
        return None;
    }
    Some(TextStep { act, fail_on })
}

fn fail_on(raw: &raw::TextStep, key: &str, report: &mut Report) -> Vec<Arc<str>> {
    let Some(list) = raw.fail_on.get() else { return Vec::new() };
    if list.value.0.is_empty() {
        let found = Found::error(list.span.clone(), format!("{key}.fail_on"), "no text");
        report.add(found.expected("such as [\"-ERR\"]"));
    }
    list.value.iter().map(|at| at.value.0.clone()).collect()
}

/// TLS can start once, and needs its settings.
fn refuse_handshakes(made: &[Made<'_>], probe: &raw::Probe, report: &mut Report) {
    let mut handshakes = made.iter().filter(|(step, ..)| matches!(step.act, Act::StartTls));
    let Some((_, first, key)) = handshakes.next() else { return };
    if probe.tls.is_absent() && !probe.others {
        let found = Found::error(first.span.clone(), format!("{key}.starttls"), "needs `tls` beside `steps`");
        report.add(found.expected("such as tls = { server_name = \"mail.example.com\" }; {} verifies the address"));
    }
    for (_, at, key) in handshakes {
        let found = Found::error(at.span.clone(), format!("{key}.starttls"), "an earlier step starts TLS");
        report.add(found.expected("at most one step with starttls = true"));
    }
}

/// Refuses a text of `fail_on` that is never searched for, or that is part of what the step waits for. `whole`: no step
/// has a mistake.
fn refuse_useless_fail_on(made: &[Made<'_>], whole: bool, report: &mut Report) {
    for (index, (step, at, key)) in made.iter().enumerate() {
        let Some(list) = at.value.fail_on.get() else { continue };
        let next = made[index..].iter().find_map(|(step, ..)| match &step.act {
            Act::Wait(wanted) => Some(wanted),
            Act::Send(_) | Act::StartTls => None,
        });
        let key = format!("{key}.fail_on");
        let Some(wanted) = next else {
            if !whole {
                continue;
            }
            let found = Found::error(list.span.clone(), key, "no step reads from here on, so this is never found");
            report.add(found.expected("a step { expect = \"…\" } after it"));
            continue;
        };
        let Wanted::Text(wanted) = wanted else { continue };
        for text in step.fail_on.iter().filter(|text| wanted.contains(&***text)) {
            let message = format!("{} is part of {}, so the check could never pass", quoted(text), quoted(wanted));
            report
                .add(Found::error(list.span.clone(), &key, message).expected("more of the text that means a failure"));
        }
    }
}

/// In '…' TOML has no escapes: a backslash and an `n` are sent.
fn warn_about_escapes<T>(text: Option<&str>, at: &At<T>, key: &str, report: &mut Report) {
    if text.is_some_and(|text| text.ends_with("\\n") || text.ends_with("\\r")) {
        let message = "ends with a backslash and a letter, and not with a line end";
        report.add(Found::warning(at.span.clone(), key, message).expected("double quotes: \"…\\r\\n\""));
    }
}
