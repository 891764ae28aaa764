//! The page at `/`: one line with the pools that are not healthy, then pools and upstreams as tables, unhealthy ones
//! first, and the index of endpoints. Rendered on the server, without scripts and without links to other sites. All
//! text from outside goes through [`Escaped`].

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::json::glance::{ago, glance, short};
use super::json::{PoolInfo, PoolWord, ReloadResult, StatusReply, UpstreamInfo};
use super::routes::ROUTES;
use crate::model::{Address, HealthState};

/// On a narrow screen every cell is a line that begins with the column's name, so that nothing scrolls sideways.
const STYLE: &str = "\
:root{color-scheme:light dark;--text:#222;--back:#fff;--dim:#5f6368;--line:#ddd;--link:#0b57d0;--good:#0a7a2f;--fair:#8a5a00;--bad:#c0262d}\
@media(prefers-color-scheme:dark){:root{--text:#ddd;--back:#16181c;--dim:#9aa0a6;--line:#333;--link:#8ab4f8;--good:#4cc26f;--fair:#e0b252;--bad:#ff7b72}}\
body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:80rem;padding:0 1rem;color:var(--text);background:var(--back)}\
a{color:var(--link)}h1,h2{line-height:1.25}h1 small,h2 small{font-weight:400;font-size:1rem;color:var(--dim)}\
.summary{font-size:1.15rem;border-left:.3rem solid;padding:.3rem .8rem}\
table{border-collapse:collapse;width:100%;margin:.5rem 0 2rem}\
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}\
th{font-weight:600;color:var(--dim)}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}time{white-space:nowrap}\
.upstream{min-width:10rem}.state{min-width:6rem}.text{min-width:9rem}.upstream,.text,p,li{overflow-wrap:anywhere}\
.healthy{color:var(--good)}.degraded,.unknown{color:var(--fair)}.unhealthy{color:var(--bad)}\
code{font-family:ui-monospace,monospace}ul{margin:.3rem 0}\
@media(max-width:64rem){table,tbody,tr,td{display:block}.head{display:none}\
tr{border-bottom:1px solid var(--line);padding:.4rem 0}td,td.n{border:0;padding:.1rem 0;text-align:left;white-space:normal}\
td[data-name]:not(:empty)::before{content:attr(data-name)': ';color:var(--dim)}}";

/// The page for this status; `now` is the status's date.
pub fn index(status: &StatusReply, now: &str) -> String {
    let mut page = String::with_capacity(8 * 1024);
    write_index(&mut page, status, now).expect("a String takes everything");
    page
}

/// The page's URL for a browser on this machine; `None` for a unix socket. For a wildcard address it uses the loopback.
pub fn url(admin: &Address) -> Option<String> {
    match admin {
        Address::Inet(address) => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
                ip => ip,
            };
            Some(format!("http://{}/", SocketAddr::new(ip, address.port())))
        }
        Address::Unix(_) | Address::Name { .. } => None,
    }
}

fn write_index(page: &mut String, status: &StatusReply, now: &str) -> fmt::Result {
    let mut pools: Vec<&(String, PoolInfo)> = status.pools.0.iter().collect();
    pools.sort_by_key(|(_, pool)| pool.status.urgency());
    page.push_str("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    write!(page, "<title>{}roundsman</title>", title(&pools))?;
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    write!(page, "<meta http-equiv=\"refresh\" content=\"5\"><style>{STYLE}</style></head><body>")?;
    let ready = if status.ready { "ready" } else { "not ready" };
    write!(page, "<h1>roundsman <small>{} · {} · {ready}</small></h1>", Escaped(&status.version), status.state)?;
    write_summary(page, &pools)?;
    if status.checker.stale {
        page.push_str("<p class=\"unhealthy\">The checker is not running; verdicts may be out of date.</p>");
    }
    write_config(page, status, now)?;
    for (name, pool) in pools {
        write_pool(page, name, pool, now)?;
    }
    write_endpoints(page)?;
    page.push_str("</body></html>\n");
    Ok(())
}

fn not_healthy<'p>(pools: &[&'p (String, PoolInfo)]) -> Vec<&'p (String, PoolInfo)> {
    pools.iter().copied().filter(|(_, pool)| pool.status != PoolWord::Healthy).collect()
}

/// The prefix of the tab's title: the number of pools that are not healthy.
fn title(pools: &[&(String, PoolInfo)]) -> String {
    match not_healthy(pools).len() {
        0 => String::new(),
        count => format!("({count}) "),
    }
}

/// How many pools are not healthy, and which.
fn write_summary(page: &mut String, pools: &[&(String, PoolInfo)]) -> fmt::Result {
    let affected = not_healthy(pools);
    let Some((_, worst)) = affected.first() else {
        return match pools.len() {
            0 => page.write_str("<p class=\"summary\">There are no pools.</p>"),
            1 => page.write_str("<p class=\"summary healthy\">The only pool is healthy.</p>"),
            2 => page.write_str("<p class=\"summary healthy\">Both pools are healthy.</p>"),
            count => write!(page, "<p class=\"summary healthy\">All {count} pools are healthy.</p>"),
        };
    };
    let verb = if affected.len() == 1 { "is" } else { "are" };
    let pools_word = if pools.len() == 1 { "pool" } else { "pools" };
    let (count, total, class) = (affected.len(), pools.len(), worst.status);
    write!(page, "<p class=\"summary {class}\"><b>{count} of {total} {pools_word} {verb} not healthy</b>: ")?;
    for (index, (name, pool)) in affected.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        write!(page, "{comma}<a href=\"#pool-{0}\">{0}</a> is {1}", Escaped(name), pool.status)?;
    }
    page.write_str("</p>")
}

fn write_config(page: &mut String, status: &StatusReply, now: &str) -> fmt::Result {
    let file = status.config.file.as_deref().unwrap_or("the command line");
    write!(page, "<p>Generation {} from <code>{}</code>, process {}", status.generation, Escaped(file), status.pid)?;
    let Some(last) = &status.config.last_reload else {
        return write!(page, ". As of {}.</p>", Stamp(now));
    };
    let class = if last.result == ReloadResult::Refused { "unhealthy" } else { "" };
    write!(page, "; last reload <span class=\"{class}\">{}</span> {} ago", last.result, Age(&last.at, now))?;
    write!(page, ". As of {}.</p>", Stamp(now))?;
    let Some(error) = &last.error else { return Ok(()) };
    page.push_str("<ul class=\"unhealthy\">");
    for mistake in error.lines() {
        write!(page, "<li>{}", Escaped(mistake))?;
    }
    page.write_str("</ul>")
}

/// The names of the columns, and the CSS classes of their cells: `n` for numbers.
const COLUMNS: [(&str, &str); 9] = [
    ("Upstream", "upstream"),
    ("State", "state"),
    ("Since", "n"),
    ("In flight", "n"),
    ("Requests", "n"),
    ("Errors", "n"),
    ("Latency", "n"),
    ("Last check", "text"),
    ("Why", "text"),
];

fn write_pool(page: &mut String, name: &str, pool: &PoolInfo, now: &str) -> fmt::Result {
    let word = pool.status;
    write!(page, "<h2 id=\"pool-{0}\">{0} <small><span class=\"{word}\">{word}</span> · ", Escaped(name))?;
    write!(page, "{} of {} healthy", pool.healthy, pool.total)?;
    match pool.serving() {
        None => {}
        Some(0) => page.push_str(", none takes requests"),
        Some(1) => page.push_str(", 1 takes requests"),
        Some(some) => write!(page, ", {some} take requests")?,
    }
    if let Some((outage, since)) = pool.outage().zip(pool.down_since.as_ref()) {
        write!(page, " · {} (for {})", Escaped(&outage), Age(since, now))?;
    }
    if pool.warming {
        page.push_str(" · warming");
    }
    if pool.waiting > 0 {
        write!(page, " · {} requests waiting", pool.waiting)?;
    }
    page.push_str("</small></h2><table><tr class=\"head\">");
    for (name, class) in COLUMNS {
        write!(page, "<th class=\"{class}\">{name}")?;
    }
    page.push_str("</tr>");
    let mut upstreams: Vec<&UpstreamInfo> = pool.upstreams.iter().collect();
    upstreams.sort_by_key(|upstream| match (upstream.state, upstream.eligible) {
        (HealthState::Unhealthy, _) => 0,
        (HealthState::Unknown, _) => 1,
        (HealthState::Healthy, false) => 2,
        (HealthState::Healthy, true) => 3,
    });
    for upstream in upstreams {
        write_upstream(page, upstream, now)?;
    }
    page.push_str("</table>");
    Ok(())
}

fn write_upstream(page: &mut String, upstream: &UpstreamInfo, now: &str) -> fmt::Result {
    let mut columns = COLUMNS.iter();
    let mut cell = |page: &mut String| {
        let (name, class) = columns.next().expect("as many cells as columns");
        write!(page, "<td data-name=\"{name}\" class=\"{class}\">")
    };
    page.push_str("<tr>");
    cell(page)?;
    write!(page, "<code>{}</code>", Escaped(&upstream.address))?;
    if let Some(name) = upstream.name_beside() {
        write!(page, " {}", Escaped(name))?;
    }
    cell(page)?;
    let state = upstream.state;
    write!(page, "<span class=\"{state}\">{state}</span>")?;
    for mark in upstream.marks() {
        write!(page, " · {mark}")?;
    }
    cell(page)?;
    write!(page, "{}", Age(&upstream.since, now))?;
    for number in [u64::from(upstream.in_flight), upstream.requests_total] {
        cell(page)?;
        write!(page, "{number}")?;
    }
    cell(page)?;
    match upstream.errors_total() {
        0 => page.push('0'),
        errors => write!(page, "<span class=\"degraded\">{errors}</span>")?,
    }
    cell(page)?;
    page.push_str(&upstream.latency().map_or_else(|| "-".to_owned(), short));
    cell(page)?;
    let why = upstream.why.as_deref().unwrap_or("");
    if let Some(check) = &upstream.last_check {
        write!(page, "<code>{}</code> ", Escaped(&check.code))?;
        if !why.contains(&check.reason) {
            write!(page, "{}, ", Escaped(&check.reason))?;
        }
        write!(page, "{} ago", Age(&check.at, now))?;
    }
    cell(page)?;
    write!(page, "{}</tr>", Escaped(why))
}

fn write_endpoints(page: &mut String) -> fmt::Result {
    page.push_str("<h2>Endpoints</h2><table>");
    for route in &ROUTES {
        write!(page, "<tr><td>{}<td><code>", route.method)?;
        match route.path.contains('{') || route.method != http::Method::GET {
            true => write!(page, "{}", Escaped(route.path))?,
            false => write!(page, "<a href=\"{0}\">{0}</a>", Escaped(route.path))?,
        }
        write!(page, "</code><td>{}</tr>", Escaped(route.doc))?;
    }
    page.write_str("</table>")
}

/// The time from the first date to the second, with the first date as a tooltip. A text that is not a date is shown as
/// it is.
struct Age<'a>(&'a str, &'a str);

impl fmt::Display for Age<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(age) = humantime::parse_rfc3339(self.1).ok().and_then(|now| ago(self.0, now)) else {
            return Escaped(self.0).fmt(f);
        };
        let at = Escaped(self.0);
        write!(f, "<time datetime=\"{at}\" title=\"{at}\">{}</time>", glance(age))
    }
}

/// A date for people: `2026-11-21 10:00:00.123Z`.
struct Stamp<'a>(&'a str);

impl fmt::Display for Stamp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0.replacen('T', " ", 1);
        write!(f, "<time datetime=\"{}\">{}</time>", Escaped(self.0), Escaped(&at))
    }
}

/// A text escaped for HTML; control characters become visible escapes.
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
    use crate::admin::json::LastReloadInfo;
    use crate::admin::{Clock, render, testing};
    use crate::model::HealthState::{Healthy, Unhealthy};

    const NOW: &str = "2026-11-21T10:02:05.000Z";

    /// The status of pools with upstreams in these states.
    fn status(pools: &[(&str, &[HealthState])]) -> StatusReply {
        let pools = pools.iter().map(|(name, states)| testing::pool(name, states)).collect();
        render::status(&testing::status(pools), &testing::process(), true, &Clock::start(), Instant::now())
    }

    #[test]
    fn the_url_leads_a_browser_on_this_machine_to_the_page() {
        for (admin, want) in [
            ("127.0.0.1:9900", Some("http://127.0.0.1:9900/")),
            ("0.0.0.0:80", Some("http://127.0.0.1:80/")),
            ("[::]:9900", Some("http://[::1]:9900/")),
            ("[2001:db8::1]:9900", Some("http://[2001:db8::1]:9900/")),
            ("unix:/run/a.sock", None),
        ] {
            assert_eq!(url(&admin.parse().unwrap()).as_deref(), want, "{admin}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn text_from_an_upstream_cannot_become_markup() {
        let mut reply = status(&[("api", &[Unhealthy, Healthy])]);
        let evil = "\"><script>alert(1)</script>\n<i>";
        let upstream = &mut reply.pools.0[0].1.upstreams[0];
        (upstream.name, upstream.since, upstream.why) = (Some(evil.into()), evil.into(), Some(evil.into()));
        let error = Some(format!("{evil}\nsecond"));
        reply.config.file = Some(evil.into());
        reply.config.last_reload = Some(LastReloadInfo { result: ReloadResult::Refused, at: evil.into(), error });
        let page = index(&reply, NOW);
        assert!(page.contains("&lt;i&gt;") && page.contains("&quot;&gt;&lt;script&gt;"), "{page}");
        assert!(!page.contains("<script") && !page.contains("<i>"), "{page}");
        assert!(page.contains("10.0.0.1:80") && page.contains("1 of 2 healthy"), "{page}");
        assert!(page.contains("<li>second"), "each mistake has its own line: {page}");
    }

    #[tokio::test(start_paused = true)]
    async fn unhealthy_pools_come_first_and_are_counted_at_the_top() {
        let page = index(&status(&[("web", &[Healthy]), ("half", &[Healthy, Unhealthy]), ("api", &[Unhealthy])]), NOW);
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is missing in {page}"));
        assert!(at("<b>2 of 3 pools are not healthy</b>: <a href=\"#pool-api\">api</a> is unhealthy, ") < at("<h2"));
        assert!(at("id=\"pool-api\"") < at("id=\"pool-half\"") && at("id=\"pool-half\"") < at("id=\"pool-web\""));
        let half = &page[at("id=\"pool-half\"")..at("id=\"pool-web\"")];
        assert!(half.find("10.0.0.2:80") < half.find("10.0.0.1:80"), "{half}");
        assert!(page.contains("<title>(2) roundsman</title>"));
        for (pools, want) in [
            (&[("api", &[Healthy][..]), ("web", &[Healthy])][..], "summary healthy\">Both pools are healthy."),
            (&[("api", &[Healthy])], "summary healthy\">The only pool is healthy."),
            (&[("api", &[Unhealthy])], "<b>1 of 1 pool is not healthy</b>: "),
            (&[], "There are no pools."),
        ] {
            let page = index(&status(pools), NOW);
            assert!(page.contains(want), "{want} is missing in {page}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ages_are_shown_with_their_dates_as_tooltips() {
        let mut reply = status(&[("api", &[Unhealthy])]);
        reply.pools.0[0].1.upstreams[0].since = "2026-11-21T10:00:00.000Z".into();
        reply.pools.0[0].1.upstreams[0].broken_total = 7;
        let page = index(&reply, NOW);
        let age = "<time datetime=\"2026-11-21T10:00:00.000Z\" title=\"2026-11-21T10:00:00.000Z\">2m 5s</time>";
        assert!(page.contains(age), "{page}");
        assert!(page.contains("As of <time datetime=\"2026-11-21T10:02:05.000Z\">2026-11-21 10:02:05.000Z</time>"));
        assert!(page.contains("<td data-name=\"Errors\" class=\"n\"><span class=\"degraded\">7</span>"), "{page}");
        assert_eq!(page.matches("<td data-name=").count(), COLUMNS.len(), "{page}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_index_lists_every_endpoint_and_loads_nothing() {
        let page = index(&status(&[]), NOW);
        for route in &ROUTES {
            assert!(page.contains(route.path) && page.contains(&Escaped(route.doc).to_string()), "{}", route.path);
        }
        for foreign in ["<script", "src=", "@import", "url(", "http://", "https://", "<link"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("width=device-width") && page.contains("@media(max-width"), "it fits a phone");
        assert!(STYLE.contains("a{color:var(--link)}") && STYLE.matches("--link:").count() == 2, "in both schemes");
    }
}
