//! Text for people: colour only where it is seen and wanted, nothing that moves the cursor, durations at a glance, and
//! columns that line up.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::Failure;
use crate::telemetry;

/// Prints to stdout; a reader that has gone ends the command.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Runtime(format!("write to stdout: {error}")),
    })
}

/// Prints a complaint to stderr.
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
    /// As stdout and the user want it.
    pub fn for_stdout() -> Paint {
        Paint { on: io::stdout().is_terminal() && telemetry::colour_wanted() }
    }

    /// Without colours.
    #[cfg(test)]
    pub fn off() -> Paint {
        Paint { on: false }
    }

    /// The text in this colour. The text must be visible already.
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

/// A text in which control characters are shown as their escapes.
pub struct Visible<'a>(pub &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            // Line ends of our own messages stay.
            if c.is_control() && c != '\n' { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// The same on one line.
pub fn one_line(text: &str) -> String {
    Visible(text).to_string().replace('\n', "\\n")
}

/// A duration at a glance, in its two largest units: `3d 4h`, `2m 5s`, `12s`.
pub fn glance(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, length)| seconds >= *length).unwrap_or(units.len() - 1);
    let (unit, length) = units[first];
    let mut text = format!("{}{unit}", seconds / length);
    if let Some((unit, length)) = units.get(first + 1)
        && seconds % units[first].1 >= *length
    {
        text.push_str(&format!(" {}{unit}", seconds % units[first].1 / length));
    }
    text
}

/// How long ago an RFC 3339 date was; 0 when it is in the future, because clocks differ.
pub fn ago(date: &str, now: jiff::Timestamp) -> Option<Duration> {
    let then: jiff::Timestamp = date.parse().ok()?;
    Some(Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO))
}

/// One cell: its text, its colour, and to which side it leans.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    colour: Option<Colour>,
    right: bool,
}

impl Cell {
    /// Leans to the left.
    pub fn left(text: impl Into<String>) -> Cell {
        Cell { text: one_line(&text.into()), ..Cell::default() }
    }

    /// Leans to the right, as numbers do.
    pub fn right(text: impl Into<String>) -> Cell {
        Cell { right: true, ..Cell::left(text) }
    }

    /// In this colour.
    pub fn colour(mut self, colour: Option<Colour>) -> Cell {
        self.colour = colour;
        self
    }
}

/// Rows with their columns lined up, each behind `indent`.
pub fn table(rows: &[Vec<Cell>], indent: &str, paint: Paint) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.text.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = indent.to_string();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.text.chars().count());
            let text = paint.text(cell.colour, &cell.text);
            let last = i + 1 == row.len();
            match (cell.right, last) {
                (true, _) => line.push_str(&format!("{pad}{text}")),
                (false, true) => line.push_str(&text),
                (false, false) => line.push_str(&format!("{text}{pad}")),
            }
            line.push_str(if last { "" } else { "  " });
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_shows_its_two_largest_units() {
        for (seconds, want) in [
            (0, "0s"),
            (12, "12s"),
            (60, "1m"),
            (125, "2m 5s"),
            (3_600, "1h"),
            (3_659, "1h"),
            (7_384, "2h 3m"),
            (277_200, "3d 5h"),
        ] {
            assert_eq!(glance(Duration::from_secs(seconds)), want);
        }
    }

    #[test]
    fn columns_line_up_and_nothing_moves_the_cursor() {
        let rows = vec![
            vec![Cell::left("UPSTREAM"), Cell::right("N"), Cell::left("WHY")],
            vec![Cell::left("ä"), Cell::right("100"), Cell::left("a\n\x1b[2Jb")],
            vec![Cell::left("bb"), Cell::right("7"), Cell::left("")],
        ];
        let want = "> UPSTREAM    N  WHY\n> ä         100  a\\n\\u{1b}[2Jb\n> bb          7\n";
        assert_eq!(table(&rows, "> ", Paint::off()), want);
        let coloured = table(&[vec![Cell::left("x").colour(Some(Colour::Red))]], "", Paint { on: true });
        assert_eq!(coloured, "\x1b[31mx\x1b[0m\n");
    }

    #[test]
    fn a_date_in_the_future_is_no_time_ago() {
        let now: jiff::Timestamp = "2026-11-21T10:00:00.000Z".parse().unwrap();
        assert_eq!(ago("2026-11-21T09:59:00.000Z", now), Some(Duration::from_secs(60)));
        assert_eq!(ago("2026-11-21T10:01:00.000Z", now), Some(Duration::ZERO));
        assert_eq!(ago("yesterday", now), None);
    }
}
