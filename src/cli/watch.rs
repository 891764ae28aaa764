//! Shows a response of the running process every second until interrupted: on a terminal in place, cut to its height;
//! elsewhere as blocks with their dates.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

use super::client::{self, Answer, Ask};
use super::locate::Target;
use super::{Failure, text};
use crate::model::date;

/// The interval between two requests.
const EVERY: Duration = Duration::from_secs(1);
/// How long to wait for a process that does not respond; on a terminal there is no limit.
const LOST_MAX: Duration = Duration::from_secs(60);

/// Moves the cursor home. The old text is overwritten line by line, so that nothing flickers.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Requests `path` and prints what `show` makes of the response, repeatedly. `bare`: without dates, for programs.
///
/// # Errors
/// The first request fails (later ones are retried), or the output is closed.
pub fn run(
    target: &Target,
    path: &str,
    bare: bool,
    show: impl Fn(&Answer) -> Result<String, Failure>,
) -> Result<ExitCode, Failure> {
    client::runtime()?.block_on(async {
        let mut last = Instant::now();
        let mut first = true;
        loop {
            let next = Instant::now() + EVERY;
            let answer = client::ask(target, Ask::get(path)).await.map_err(|error| Failure::Runtime(error.to_string()));
            let shown = match answer.and_then(|answer| show(&answer)) {
                Ok(shown) => {
                    last = Instant::now();
                    shown
                }
                Err(failure) if first => return Err(failure),
                Err(failure) if text::screen().is_none() && last.elapsed() > LOST_MAX => return Err(failure),
                Err(failure) => format!("{failure}\n(retrying)\n"),
            };
            if first && let Some((_, rows)) = text::screen().filter(|_| !bare) {
                // Scrolls the current screen into the scrollback, so that it is not overwritten.
                text::print(&"\n".repeat(rows))?;
            }
            first = false;
            text::print(&frame(&shown, bare, text::screen(), SystemTime::now()))?;
            sleep(next.saturating_duration_since(Instant::now())).await;
        }
    })
}

/// The output for one response. `screen`: columns and rows of the terminal.
fn frame(shown: &str, bare: bool, screen: Option<(usize, usize)>, now: SystemTime) -> String {
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let date = i64::try_from(since_1970).ok().and_then(date::with_seconds).unwrap_or_default().replacen('T', " ", 1);
    let Some((_, rows)) = screen.filter(|_| !bare) else {
        return if bare { shown.to_owned() } else { format!("{date}\n{shown}\n") };
    };
    let lines: Vec<&str> = shown.lines().collect();
    let room = rows.saturating_sub(2).max(1);
    let mut frame = format!("{HOME}{date}  every second; Ctrl-C quits{CLEAR_LINE}\n");
    let cut = lines.len() > room;
    for line in &lines[..if cut { room - 1 } else { lines.len() }] {
        frame.push_str(&format!("{line}{CLEAR_LINE}\n"));
    }
    if cut {
        let more = lines.len() - (room - 1);
        frame.push_str(&format!("… {more} more lines; give a POOL or --unhealthy to show fewer{CLEAR_LINE}\n"));
    }
    frame + CLEAR_BELOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_overwritten_and_never_scrolls() {
        let now = humantime::parse_rfc3339("2026-11-21T10:00:00Z").unwrap();
        let shown: String = (0..9).map(|number| format!("line {number}\n")).collect();
        assert_eq!(frame("a\nb\n", false, None, now), "2026-11-21 10:00:00Z\na\nb\n\n");
        assert_eq!(frame("{}\n", true, Some((80, 24)), now), "{}\n");
        let whole = frame(&shown, false, Some((80, 24)), now);
        assert!(
            whole.starts_with("\x1b[H2026-11-21 10:00:00Z") && whole.ends_with("line 8\x1b[K\n\x1b[J"),
            "{whole:?}"
        );
        for rows in 3..12 {
            let cut = frame(&shown, false, Some((80, rows)), now);
            assert!(cut.matches('\n').count() < rows, "{rows}: {cut:?}");
        }
        let cut = frame(&shown, false, Some((80, 6)), now);
        assert!(cut.contains("line 2\x1b[K\n… 6 more lines"), "{cut:?}");
    }
}
