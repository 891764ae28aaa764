//! A strict small parser of both text formats, for the tests: every line follows the grammar, every sample belongs to
//! the family announced just before it, no series is repeated, histogram buckets are cumulative.

use std::collections::{HashMap, HashSet};

/// Which grammar.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// Panics with the line that breaks the grammar.
pub fn check(text: &str, format: Format) {
    assert!(text.ends_with('\n'), "the last line ends with a newline");
    let mut family: Option<(String, String)> = None;
    let mut announced = HashSet::new();
    let mut series = HashSet::new();
    let mut buckets: HashMap<String, u64> = HashMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(format == Format::OpenMetrics && lines.peek().is_none(), "EOF is the last line");
            return;
        }
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect(line);
            assert!(!help.is_empty() && announced.insert(name.to_string()), "a family is repeated: {line}");
            let kind = lines.next().and_then(|l| l.strip_prefix(&format!("# TYPE {name} "))).expect(line);
            check_name(name, kind, format);
            family = Some((name.to_string(), kind.to_string()));
            continue;
        }
        let (name, labels, value) = sample(line);
        let (family, kind) = family.as_ref().expect(line);
        let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("outside its family: {line}"));
        check_suffix(suffix, kind, format, line);
        assert!(series.insert(format!("{name}{labels:?}")), "a series is repeated: {line}");
        assert!(value.is_finite() && value >= 0.0, "{line}");
        if suffix == "_bucket" {
            let rest: Vec<_> = labels.iter().filter(|(name, _)| name != "le").collect();
            let last = buckets.insert(format!("{family}{rest:?}"), value as u64).unwrap_or(0);
            assert!(value as u64 >= last, "buckets are cumulated: {line}");
        }
    }
    assert!(format == Format::Prometheus, "OpenMetrics ends with EOF");
}

fn check_name(name: &str, kind: &str, format: Format) {
    // Our own metrics, and the standard process metrics.
    let ours = name.starts_with("roundsman_") || name.starts_with("process_");
    assert!(ours && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
    let kinds: &[&str] = match format {
        Format::Prometheus => &["counter", "gauge", "histogram"],
        Format::OpenMetrics => &["counter", "gauge", "histogram", "info"],
    };
    assert!(kinds.contains(&kind), "{name} {kind}");
    let total = format == Format::Prometheus && kind == "counter";
    assert_eq!(name.ends_with("_total"), total, "{name} {kind}");
}

fn check_suffix(suffix: &str, kind: &str, format: Format, line: &str) {
    let good: &[&str] = match (kind, format) {
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        ("counter", Format::OpenMetrics) => &["_total"],
        ("info", _) => &["_info"],
        _ => &[""],
    };
    assert!(good.contains(&suffix), "{line}");
}

/// Name, labels and value of a sample line.
fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"").expect(line);
            assert!(key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
            let (value, after) = quoted(after).unwrap_or_else(|| panic!("an unclosed label: {line}"));
            labels.push((key.to_string(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no value: {line}"));
    (name.to_string(), labels, value)
}

/// The text up to its closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[i + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                _ => return None,
            },
            c => value.push(c),
        }
    }
    None
}
