//! Merges a preset with the written keys: a written key wins, a written port replaces the preset's port or offset, and
//! of several checks the first gets the written keys of a probe. For messages, everything from a preset has the place
//! of the key `preset`.

use std::ops::Range;

use super::Written;
use crate::config::presets::Preset;
use crate::config::raw;
use crate::config::raw::ExpectBody;
use crate::config::read::{At, Field};
use crate::config::report::{Found, Report};
use crate::config::values::{Kind, OneOf};

/// The checks of `preset`, merged with the written keys.
pub fn checks(
    preset: &At<OneOf<Preset>>,
    timing: &raw::Timing,
    above: &raw::Timing,
    probe: &raw::Probe,
    key: &str,
    report: &mut Report,
) -> Vec<Written> {
    let table = preset.value.0.table();
    let entries: Vec<(raw::Timing, raw::Probe)> = match table.checks.value() {
        None => vec![(table.timing.clone(), table.probe.clone())],
        Some(list) => list.iter().map(|at| (at.value.timing.clone(), at.value.probe.clone())).collect(),
    };
    let empty = raw::Probe::empty();
    let written = std::iter::once(probe).chain(std::iter::repeat(&empty));
    entries
        .into_iter()
        .zip(written)
        .map(|((mut preset_timing, preset_probe), written)| {
            preset_timing.fill_from(&table.timing);
            Written {
                timing: timing.clone(),
                above: above.clone(),
                preset: preset_timing,
                probe: merge(preset, preset_probe, written, key, report),
                span: preset.span.clone(),
                from: Some(preset.value.0.name),
                key: key.to_owned(),
            }
        })
        .collect()
}

/// Refuses a preset with several checks as an entry of a list.
pub fn refuse_several(preset: &At<OneOf<Preset>>, number: usize, key: &str, report: &mut Report) {
    if number > 1 {
        let message =
            format!("the preset \"{}\" has {number} checks, and an entry of `checks` is one", preset.value.0.name);
        let found = Found::error(preset.span.clone(), format!("{key}.preset"), message);
        report.add(found.expected("its checks one by one, or the preset in place of `checks`"));
    }
}

fn merge(
    preset: &At<OneOf<Preset>>,
    mut under: raw::Probe,
    written: &raw::Probe,
    key: &str,
    report: &mut Report,
) -> raw::Probe {
    let kind_of = |probe: &raw::Probe| probe.kind.value().map_or(Kind::Tcp, |kind| kind.0);
    if let Some(kind) = written.kind.get()
        && kind.value.0 != kind_of(&under)
    {
        let message = format!("the preset \"{}\" is of type \"{}\"", preset.value.0.name, kind_of(&under).as_str());
        let found = Found::error(kind.span.clone(), format!("{key}.type"), message);
        report.add(found.expected("no `type` beside `preset`"));
        // Further messages would be about a mixture that is not in the file.
        return written.clone();
    }
    if !written.port.is_absent() || !written.port_offset.is_absent() {
        (under.port, under.port_offset) = (Field::Absent, Field::Absent);
    }
    place(&mut under, &preset.span);
    let mut out = written.clone();
    if let (Field::Good(written), Field::Good(under)) = (&mut out.expect, &under.expect) {
        // Rule by rule, so that one more rule keeps the others.
        written.value.fill_from(&under.value);
    }
    out.fill_from(&under);
    out
}

/// Sets the place of everything that a message may be about to the key `preset`: places in the preset's own text mean
/// nothing in the file.
fn place(probe: &mut raw::Probe, span: &Range<usize>) {
    probe.place_at(span);
    for step in probe.steps.get_mut().into_iter().flat_map(|at| at.value.0.iter_mut().flatten()) {
        step.span = span.clone();
        step.value.place_at(span);
    }
    let Field::Good(expect) = &mut probe.expect else { return };
    let expect = &mut expect.value;
    expect.place_at(span);
    if let Field::Good(body) = &mut expect.body {
        body.value.place_at(span, ExpectBody::place_at);
    }
    if let Field::Good(rules) = &mut expect.json {
        for rule in rules.value.0.iter_mut().flatten() {
            rule.span = span.clone();
            rule.value.place_at(span);
        }
    }
}
