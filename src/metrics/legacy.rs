//! Turns OpenMetrics text into the Prometheus text format 0.0.4, which differs only in its comment lines: the names of
//! counters and infos include `_total` and `_info`, as their samples do, and there is no `# EOF`. Scrapers that do not
//! ask for OpenMetrics get this.

/// The same series in the older format.
pub fn from_open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            // The type, which decides the name, is in the next line.
            let kind = lines.peek().and_then(|next| next.strip_prefix("# TYPE ")?.split_once(' '));
            let (name, text) = help.split_once(' ').unwrap_or((help, ""));
            let (suffix, _) = legacy_kind(kind.map_or("", |(_, kind)| kind));
            out.push_str(&format!("# HELP {name}{suffix} {text}\n"));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = legacy_kind(kind);
            out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// The suffix of the name, and the name of the type.
fn legacy_kind(kind: &str) -> (&'static str, &str) {
    match kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        "unknown" => ("", "untyped"),
        other => ("", other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_infos_have_the_names_of_their_samples() {
        let open = "# HELP a Help.\n# TYPE a counter\na_total 1\n# HELP b B\n# TYPE b info\nb_info{x=\"#\"} 1\n\
                    # HELP c C\n# TYPE c gauge\nc 2\n# EOF\n";
        let want = "# HELP a_total Help.\n# TYPE a_total counter\na_total 1\n# HELP b_info B\n# TYPE b_info gauge\n\
                    b_info{x=\"#\"} 1\n# HELP c C\n# TYPE c gauge\nc 2\n";
        assert_eq!(from_open_metrics(open), want);
    }
}
