//! Text output: colours only on a terminal and if the user wants them, control characters escaped, dates with their
//! zone.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use super::Failure;
pub use crate::admin::json::glance::{ago, glance, short};
use crate::telemetry;

/// Prints to stdout.
///
/// # Errors
/// [`Failure::OutputClosed`] if the reader has gone, which ends the command quietly.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Runtime(format!("write to stdout: {error}")),
    })
}

/// Prints an error message to stderr; a failure to do so is ignored.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "roundsman: {}", Visible(text));
}

/// Colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Good.
    Green,
    /// Look here.
    Yellow,
    /// Bad.
    Red,
    /// Less important.
    Dim,
    /// More important.
    Bold,
}

/// Whether and how to colour.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// Colours if stdout is a terminal and the user has not turned them off.
    pub fn for_stdout() -> Paint {
        Paint { on: io::stdout().is_terminal() && telemetry::colour_wanted() }
    }

    /// Without colours.
    #[cfg(test)]
    pub fn off() -> Paint {
        Paint { on: false }
    }

    /// With colours.
    #[cfg(test)]
    pub fn on() -> Paint {
        Paint { on: true }
    }

    /// The text in this colour. Control characters must be escaped already.
    pub fn text(self, colour: Option<Colour>, text: &str) -> String {
        let code = match colour {
            None => return text.to_string(),
            Some(_) if !self.on => return text.to_string(),
            Some(Colour::Green) => "32",
            Some(Colour::Yellow) => "33",
            Some(Colour::Red) => "31",
            Some(Colour::Dim) => "2",
            Some(Colour::Bold) => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The colour of a state or status word.
pub fn colour_of(word: &str) -> Option<Colour> {
    match word {
        "healthy" | "applied" | "running" => Some(Colour::Green),
        "degraded" | "unknown" | "draining" | "starting" => Some(Colour::Yellow),
        "unhealthy" | "refused" => Some(Colour::Red),
        _ => None,
    }
}

/// A text with its control characters escaped, except newlines.
pub struct Visible<'a>(pub &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            // Newlines come from our own messages.
            if c.is_control() && c != '\n' { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// A text on one line: newlines are escaped too.
pub fn one_line(text: &str) -> String {
    Visible(text).to_string().replace('\n', "\\n")
}

/// Formats mistakes, one per line of `text`: a single one as it is, several as their number and then one indented line
/// each.
pub fn several(text: &str, indent: &str) -> String {
    let lines: Vec<String> = text.lines().map(one_line).collect();
    match lines.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        several => {
            let shown = several.iter().map(|line| format!("\n{indent}{line}"));
            format!("{} mistakes{}", several.len(), shown.collect::<String>())
        }
    }
}

/// A date of the API in the form of the log, in UTC: `2026-11-21 10:00:00.123Z`.
pub fn date(at: &str) -> String {
    one_line(at).replacen('T', " ", 1)
}

/// Columns and rows of the terminal on stdout; `None` if stdout is not a terminal.
pub fn screen() -> Option<(usize, usize)> {
    let (columns, rows) = terminal_size::terminal_size_of(io::stdout())?;
    // A terminal that does not know its size reports 0.
    (columns.0 > 0 && rows.0 > 0).then(|| (usize::from(columns.0), usize::from(rows.0)))
}

/// The width of a text on a terminal, without the escape sequences of colours.
pub fn visible_width(text: &str) -> usize {
    let parts = text.split('\x1b').enumerate();
    let visible = |(index, part): (usize, &str)| match (index, part.split_once('m')) {
        (0, _) | (_, None) => part.chars().count(),
        (_, Some((_, rest))) => rest.chars().count(),
    };
    parts.map(visible).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_columns() {
        assert_eq!(visible_width(&format!("a {} ä", Paint::on().text(Some(Colour::Red), "bad"))), 7);
    }

    #[test]
    fn several_mistakes_are_one_escaped_line_each() {
        assert_eq!(several("a.toml:3: unknown key", "  "), "a.toml:3: unknown key");
        let two = several("a.toml:3: unknown key\na.toml:9: bad \x1b[2J", "  ");
        assert_eq!(two, "2 mistakes\n  a.toml:3: unknown key\n  a.toml:9: bad \\u{1b}[2J");
        assert_eq!(several("", "  "), "");
    }

    #[test]
    fn a_date_for_people_carries_its_zone() {
        assert_eq!(date("2026-11-21T10:00:00.123Z"), "2026-11-21 10:00:00.123Z");
        assert_eq!(date("yes\nterday"), "yes\\nterday", "a text that is not a date is shown escaped");
    }
}
