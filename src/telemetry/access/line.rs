//! What a line of the access log looks like.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::exchange::{Noted, Record, Try};
use crate::http1::Version;
use crate::model::policy::AccessKey;

/// The longest value of a text, escaped, in bytes. With it a line has at most 16 KiB.
const TEXT_BYTES_MAX: usize = 1 << 10;
/// The same of the path.
const PATH_BYTES_MAX: usize = 6 << 10;
/// The same of the added fields together.
const FIELDS_BYTES_MAX: usize = 2 << 10;
/// Where the list of attempts is cut.
const ATTEMPTS_BYTES_MAX: usize = 3 << 10;

/// What time it is, by the clock of the exchanges.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    /// At this instant …
    pub at: Instant,
    /// … it was so long after the beginning of 1970.
    since_1970: Duration,
    /// The second of which there is a text, and the text.
    second: u64,
    rfc3339: String,
    apache: String,
}

impl Clock {
    pub fn new(at: Instant, since_1970: Duration) -> Clock {
        Clock { at, since_1970, second: u64::MAX, rfc3339: String::new(), apache: String::new() }
    }

    /// The time of an instant, since 1970.
    fn of(&self, instant: Instant) -> Duration {
        match instant.checked_duration_since(self.at) {
            Some(after) => self.since_1970 + after,
            None => self.since_1970.saturating_sub(self.at.saturating_duration_since(instant)),
        }
    }

    /// The texts of the second it was turned to.
    #[cfg(test)]
    pub fn texts(&self) -> (String, String) {
        (self.rfc3339.clone(), self.apache.clone())
    }

    /// Makes the texts of this second.
    pub fn turn_to(&mut self, second: u64) {
        if self.second == second {
            return;
        }
        self.second = second;
        let seconds = i64::try_from(second).unwrap_or(i64::MAX);
        let text = crate::model::date::with_seconds(seconds).unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned());
        // `2026-11-21T10:00:00Z` and `21/Nov/2026:10:00:00 +0000`.
        let (date, time) = text.trim_end_matches('Z').split_once('T').unwrap_or(("1970-01-01", "00:00:00"));
        let mut parts = date.split('-');
        let (year, month, day) = (parts.next(), parts.next(), parts.next());
        let month = month.and_then(|month| MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?));
        self.apache =
            format!("{}/{}/{}:{time} +0000", day.unwrap_or("01"), month.unwrap_or(&"Jan"), year.unwrap_or("1970"));
        self.rfc3339 = text.trim_end_matches('Z').to_owned();
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Writes the keys of an object.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    dropped: &'a [AccessKey],
    first: bool,
}

impl Object<'_> {
    /// Begins this key, unless it is left out.
    fn key(&mut self, key: AccessKey) -> Option<&mut Vec<u8>> {
        if self.dropped.contains(&key) {
            return None;
        }
        self.out.extend_from_slice(if self.first { b"{\"" } else { b",\"" });
        self.first = false;
        self.out.extend_from_slice(key.as_str().as_bytes());
        self.out.extend_from_slice(b"\":");
        Some(self.out)
    }

    fn text(&mut self, key: AccessKey, text: &[u8], most: usize) {
        if let Some(out) = self.key(key) {
            string(out, text, most);
        }
    }

    fn some_text(&mut self, key: AccessKey, text: Option<&[u8]>) {
        if let Some(out) = self.key(key) {
            match text {
                Some(text) => string(out, text, TEXT_BYTES_MAX),
                None => out.extend_from_slice(b"null"),
            }
        }
    }

    fn number(&mut self, key: AccessKey, number: u64) {
        if let Some(out) = self.key(key) {
            digits(out, number);
        }
    }

    fn millis(&mut self, key: AccessKey, time: Option<Duration>) {
        if let Some(out) = self.key(key) {
            millis(out, time);
        }
    }
}

/// Appends a line in JSON.
pub(super) fn json(out: &mut Vec<u8>, record: &Record<'_>, noted: &Noted<'_>, clock: &mut Clock) {
    let mut object = Object { out, dropped: &noted.policy.drop, first: true };
    let time = clock.of(record.began);
    clock.turn_to(time.as_secs());
    if let Some(out) = object.key(AccessKey::Time) {
        out.push(b'"');
        out.extend_from_slice(clock.rfc3339.as_bytes());
        let _ = write!(out, ".{:03}Z\"", time.subsec_millis());
    }
    object.some_text(AccessKey::Id, Some(record.id).filter(|id| !id.is_empty()));
    object.some_text(AccessKey::Listener, record.listener.map(|name| name.as_str().as_bytes()));
    if let Some(out) = object.key(AccessKey::Client) {
        address(out, record.client);
    }
    object.text(AccessKey::Method, noted.method, TEXT_BYTES_MAX);
    object.text(AccessKey::Host, noted.host, TEXT_BYTES_MAX);
    object.text(AccessKey::Path, noted.target, PATH_BYTES_MAX);
    object.some_text(AccessKey::Protocol, noted.version.map(|version| protocol(version).as_bytes()));
    if let Some(out) = object.key(AccessKey::Status) {
        match record.status {
            Some(status) => digits(out, u64::from(status)),
            None => out.extend_from_slice(b"-1"),
        }
    }
    object.some_text(AccessKey::Reason, record.reason.map(|reason| reason.as_str().as_bytes()));
    object.number(AccessKey::BytesIn, record.carried.received);
    object.number(AccessKey::BytesOut, record.carried.sent);
    object.millis(AccessKey::Duration, Some(record.took.unwrap_or_else(|| record.began.elapsed())));
    object.millis(AccessKey::Queue, record.queued);
    if let Some(out) = object.key(AccessKey::Attempts) {
        attempts(out, record.tries);
    }
    object.some_text(AccessKey::Pool, record.pool.map(|name| name.as_str().as_bytes()));
    if let Some(out) = object.key(AccessKey::Retried) {
        out.extend_from_slice(if record.attempts > 1 { b"true" } else { b"false" });
    }
    if let Some(out) = object.key(AccessKey::Tls) {
        out.extend_from_slice(b"null");
    }
    object.some_text(AccessKey::TraceId, noted.trace_id);
    object.some_text(AccessKey::UserAgent, noted.user_agent);
    object.some_text(AccessKey::Referer, noted.referer);
    if !noted.policy.headers.is_empty()
        && let Some(out) = object.key(AccessKey::Headers)
    {
        headers(out, noted);
    }
    object.text(AccessKey::End, record.end.as_str().as_bytes(), TEXT_BYTES_MAX);
    let empty = object.first;
    out.extend_from_slice(if empty { b"{}\n" } else { b"}\n" });
}

fn headers(out: &mut Vec<u8>, noted: &Noted<'_>) {
    let (start, mut first) = (out.len(), true);
    out.push(b'{');
    for (name, value) in noted.fields() {
        if out.len() - start + name.len() > FIELDS_BYTES_MAX {
            break;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        string(out, name.as_bytes(), TEXT_BYTES_MAX);
        out.push(b':');
        string(out, value, TEXT_BYTES_MAX);
    }
    out.push(b'}');
}

fn attempts(out: &mut Vec<u8>, tries: &[Try]) {
    let start = out.len();
    out.push(b'[');
    for (number, tried) in tries.iter().enumerate() {
        if out.len() - start > ATTEMPTS_BYTES_MAX {
            break;
        }
        out.extend_from_slice(if number == 0 { b"{\"upstream\":" } else { b",{\"upstream\":" });
        let _ = match &tried.upstream {
            // Nothing in it needs to be escaped.
            crate::model::Address::Inet(address) => write!(out, "\"{address}\""),
            other => {
                string(out, other.to_string().as_bytes(), TEXT_BYTES_MAX);
                Ok(())
            }
        };
        out.extend_from_slice(b",\"outcome\":\"");
        out.extend_from_slice(tried.outcome.as_str().as_bytes());
        out.extend_from_slice(b"\",\"connect_ms\":");
        millis(out, tried.connect);
        out.extend_from_slice(b",\"first_byte_ms\":");
        millis(out, tried.first_byte);
        out.extend_from_slice(b",\"status\":");
        match tried.status {
            Some(status) => digits(out, u64::from(status)),
            None => out.extend_from_slice(b"-1"),
        }
        out.push(b'}');
    }
    out.push(b']');
}

/// Appends a line in Apache's combined format (mod_log_config: `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-agent}i"`).
pub(super) fn combined(out: &mut Vec<u8>, record: &Record<'_>, noted: &Noted<'_>, clock: &mut Clock) {
    let time = clock.of(record.began);
    clock.turn_to(time.as_secs());
    let _ = match record.client {
        Some(client) => write!(out, "{}", client.to_canonical()),
        None => write!(out, "-"),
    };
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(clock.apache.as_bytes());
    out.extend_from_slice(b"] \"");
    match noted.version {
        Some(version) => {
            apache_text(out, noted.method, TEXT_BYTES_MAX);
            out.push(b' ');
            apache_text(out, noted.target, PATH_BYTES_MAX);
            out.push(b' ');
            out.extend_from_slice(protocol(version).as_bytes());
        }
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\" ");
    // What nginx writes of a client that has left before it got one.
    digits(out, u64::from(record.status.unwrap_or(499)));
    out.push(b' ');
    match record.carried.sent {
        0 => out.push(b'-'),
        bytes => digits(out, bytes),
    }
    for field in [noted.referer, noted.user_agent] {
        out.extend_from_slice(b" \"");
        match field {
            Some(text) => apache_text(out, text, TEXT_BYTES_MAX),
            None => out.push(b'-'),
        }
        out.push(b'"');
    }
    out.push(b'\n');
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    }
}

fn address(out: &mut Vec<u8>, client: Option<IpAddr>) {
    let _ = match client {
        Some(client) => write!(out, "\"{}\"", client.to_canonical()),
        None => write!(out, "\"unix\""),
    };
}

/// A number without the cost of formatting.
fn digits(out: &mut Vec<u8>, mut number: u64) {
    let mut text = [0u8; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// Milliseconds with three places; -1 for what was never reached.
fn millis(out: &mut Vec<u8>, time: Option<Duration>) {
    let Some(time) = time else { return out.extend_from_slice(b"-1") };
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    digits(out, micros / 1_000);
    let rest = micros % 1_000;
    out.extend_from_slice(&[b'.', b'0' + (rest / 100) as u8, b'0' + (rest / 10 % 10) as u8, b'0' + (rest % 10) as u8]);
}

/// Appends a JSON string of at most so many bytes. Bytes that are no UTF-8 become U+FFFD.
fn string(out: &mut Vec<u8>, text: &[u8], most: usize) {
    out.push(b'"');
    let plain = |b: &u8| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\';
    if text.len() <= most && text.iter().all(plain) {
        out.extend_from_slice(text);
    } else {
        let end = out.len() + most;
        for c in String::from_utf8_lossy(text).chars() {
            if out.len() + 12 > end {
                out.extend_from_slice("…".as_bytes());
                break;
            }
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\t' => out.extend_from_slice(b"\\t"),
                // Those that break lines, or turn the direction of text on a terminal, too.
                c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    out.push(b'"');
}

/// Appends a text as Apache escapes it: `\"`, `\\`, and `\xhh` for what cannot be printed.
fn apache_text(out: &mut Vec<u8>, text: &[u8], most: usize) {
    let end = out.len() + most;
    for b in text {
        if out.len() + 4 > end {
            break;
        }
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x20..=0x7e => out.push(*b),
            other => {
                let _ = write!(out, "\\x{other:02x}");
            }
        }
    }
}
