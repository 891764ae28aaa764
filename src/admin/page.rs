//! The page at `/`: pools and upstreams as tables, and the index of endpoints, rendered here and without a script.
//! Everything that came from outside goes through [`Escaped`].

use std::fmt::{self, Write as _};

use super::json::{PoolInfo, StatusReply, UpstreamInfo};
use super::routes::ROUTES;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#222}\
table{border-collapse:collapse;width:100%;margin:.5rem 0 2rem}\
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}\
th{font-weight:600;color:#666}td.n{text-align:right;font-variant-numeric:tabular-nums}\
.healthy{color:#0a7a2f}.degraded,.unknown{color:#9a6700}.unhealthy{color:#c0262d}\
code{font-family:ui-monospace,monospace}h1 small,h2 small{font-weight:400;font-size:1rem;color:#666}\
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}th,td{border-color:#333}\
.healthy{color:#4cc26f}.degraded,.unknown{color:#e0b252}.unhealthy{color:#ff7b72}}";

/// The page for this status; `now` is its date.
pub fn index(status: &StatusReply, now: &str) -> String {
    let mut page = String::with_capacity(8 * 1024);
    write_index(&mut page, status, now).expect("a String takes everything");
    page
}

fn write_index(page: &mut String, status: &StatusReply, now: &str) -> fmt::Result {
    page.push_str("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>roundsman</title>");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    write!(page, "<meta http-equiv=\"refresh\" content=\"5\"><style>{STYLE}</style></head><body>")?;
    let ready = if status.ready { "ready" } else { "not ready" };
    let file = status.config.file.as_deref().unwrap_or("the command line");
    write!(page, "<h1>roundsman <small>{} · {} · {ready}</small></h1>", Escaped(&status.version), status.state)?;
    write!(page, "<p>Generation {} from <code>{}</code>", status.generation, Escaped(file))?;
    if let Some(last) = &status.config.last_reload {
        write!(page, "; last reload {} at {}", last.result, Escaped(&last.at))?;
        if let Some(error) = &last.error {
            write!(page, ": {}", Escaped(error))?;
        }
    }
    write!(page, ". As of {}.</p>", Escaped(now))?;
    if status.checker.stale {
        page.push_str("<p class=\"unhealthy\">The checker does not run now; verdicts may be out of date.</p>");
    }
    for (name, pool) in &status.pools.0 {
        write_pool(page, name, pool)?;
    }
    page.push_str("<h2>Endpoints</h2><table>");
    for route in &ROUTES {
        write!(page, "<tr><td>{}<td><code>", route.method)?;
        match route.path.contains('{') || route.method != http::Method::GET {
            true => write!(page, "{}", Escaped(route.path))?,
            false => write!(page, "<a href=\"{0}\">{0}</a>", Escaped(route.path))?,
        }
        write!(page, "</code><td>{}</tr>", Escaped(route.doc))?;
    }
    page.push_str("</table></body></html>\n");
    Ok(())
}

fn write_pool(page: &mut String, name: &str, pool: &PoolInfo) -> fmt::Result {
    let word = pool.status;
    write!(page, "<h2>{} <small><span class=\"{word}\">{word}</span> · ", Escaped(name))?;
    write!(page, "{} of {} healthy", pool.healthy, pool.total)?;
    for (on, text) in [(pool.fail_open, " · fail open"), (pool.warming, " · warming")] {
        if on {
            page.push_str(text);
        }
    }
    page.push_str(
        "</small></h2><table><tr><th>Upstream<th>State<th>Since<th>In flight<th>Requests<th>Last check<th>Why</tr>",
    );
    for upstream in &pool.upstreams {
        write_upstream(page, upstream)?;
    }
    page.push_str("</table>");
    Ok(())
}

fn write_upstream(page: &mut String, upstream: &UpstreamInfo) -> fmt::Result {
    let state = upstream.state;
    write!(page, "<tr><td><code>{}</code>", Escaped(&upstream.address))?;
    write!(page, "<td><span class=\"{state}\">{state}</span>")?;
    for mark in upstream.marks() {
        write!(page, " · {mark}")?;
    }
    write!(page, "<td>{}", Escaped(&upstream.since))?;
    write!(page, "<td class=\"n\">{}<td class=\"n\">{}<td>", upstream.in_flight, upstream.requests_total)?;
    if let Some(check) = &upstream.last_check {
        write!(page, "<code>{}</code> {}", Escaped(&check.code), Escaped(&check.reason))?;
    }
    write!(page, "<td>{}</tr>", Escaped(upstream.why.as_deref().unwrap_or("")))
}

/// A text as HTML shows it. Control characters are shown as their escapes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::admin::{Clock, render, testing};
    use crate::model::HealthState;

    #[tokio::test(start_paused = true)]
    async fn what_an_upstream_says_cannot_become_markup() {
        let host = testing::status(vec![testing::pool("api", &[HealthState::Unhealthy, HealthState::Healthy])]);
        let reply = render::status(&host, &testing::process(), true, &Clock::start(), Instant::now());
        let page = index(&reply, "now");
        assert!(page.contains("&lt;b&gt;") && !page.contains("<b>"), "{page}");
        assert!(page.contains("10.0.0.1:80") && page.contains("1 of 2 healthy"), "{page}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_index_lists_every_endpoint() {
        let host = testing::status(vec![]);
        let page = index(&render::status(&host, &testing::process(), false, &Clock::start(), Instant::now()), "now");
        for route in &ROUTES {
            assert!(page.contains(route.path) && page.contains(&Escaped(route.doc).to_string()), "{}", route.path);
        }
        assert!(!page.contains("<script"));
    }
}
