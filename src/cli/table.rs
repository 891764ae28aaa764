//! Tables with aligned columns that fit the terminal. If the terminal is too narrow, notes go below their rows, then
//! columns are left out, the least important first. Output to anything but a terminal is not limited. Pure.

use super::text::{Colour, Paint, one_line, visible_width};

/// The narrowest column of notes; with less room, notes go below their rows.
const NOTE_COLUMNS_MIN: usize = 30;
/// The least width of a column, and of a line of notes.
const CUT_COLUMNS_MIN: usize = 12;
/// Between columns.
const GAP: &str = "  ";

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name.
    pub head: &'static str,
    /// Whether its cells are right-aligned, as numbers are.
    pub right: bool,
    /// Columns with a greater number are left out first; 0: never.
    pub spare: u8,
}

/// One cell: its text and its colour.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    /// A cell with this text.
    pub fn new(text: impl AsRef<str>) -> Cell {
        Cell { text: one_line(text.as_ref()), colour: None }
    }

    /// In this colour.
    pub fn colour(self, colour: Option<Colour>) -> Cell {
        Cell { colour, ..self }
    }
}

/// A row: a cell per column, and a note of any length.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// One for each column.
    pub cells: Vec<Cell>,
    /// Shown in the last column, or below the row.
    pub note: String,
}

/// Where notes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notes {
    /// No row has one.
    Absent,
    /// In a column of this width.
    Beside(usize),
    /// Below their rows, on lines of this width.
    Below(usize),
}

/// The table with its header, every line indented by `indent` and at most `room` columns wide; `None`: no limit.
pub fn table(
    columns: &[Column],
    note_head: &str,
    rows: &[Row],
    indent: &str,
    room: Option<usize>,
    paint: Paint,
) -> String {
    let (shown, widths) = fit(columns, rows, room.map(|room| room.saturating_sub(indent.len())));
    let used = indent.len() + total(&shown.iter().map(|column| widths[*column]).collect::<Vec<_>>());
    let notes = place(rows, note_head, used, indent.len(), room);
    let heads = columns.iter().map(|column| Cell::new(column.head).colour(Some(Colour::Dim))).collect();
    let beside = matches!(notes, Notes::Beside(_));
    let head = Row { cells: heads, note: String::new() };
    let mut out = cells(&head, columns, &shown, &widths, indent, paint);
    if beside {
        out.push_str(&format!("{GAP}{}", paint.text(Some(Colour::Dim), note_head)));
    }
    out = out.trim_end().to_owned() + "\n";
    for row in rows {
        let mut line = cells(row, columns, &shown, &widths, indent, paint);
        let (pad, room) = match notes {
            Notes::Absent => (0, 0),
            Notes::Beside(room) => (used + GAP.len(), room),
            Notes::Below(room) => (indent.len() + 2 * GAP.len(), room),
        };
        let note = if row.note.is_empty() { vec![] } else { wrap(&one_line(&row.note), room) };
        let mut note = note.into_iter();
        if beside && let Some(first) = note.next() {
            line.push_str(&format!("{GAP}{first}"));
        }
        out.push_str(line.trim_end());
        out.push('\n');
        note.for_each(|rest| out.push_str(&format!("{}{rest}\n", " ".repeat(pad))));
    }
    out
}

/// The cells of one row, without its note and with the spaces at its end.
fn cells(row: &Row, columns: &[Column], shown: &[usize], widths: &[usize], indent: &str, paint: Paint) -> String {
    let cell = |column: &usize| {
        let (cell, width) = (&row.cells[*column], widths[*column]);
        let text = shorten(&cell.text, width, *column == 0);
        let pad = " ".repeat(width - text.chars().count());
        let text = paint.text(cell.colour, &text);
        if columns[*column].right { format!("{pad}{text}") } else { format!("{text}{pad}") }
    };
    format!("{indent}{}", shown.iter().map(cell).collect::<Vec<_>>().join(GAP))
}

/// The indices of the columns to show, and the widths of all columns.
fn fit(columns: &[Column], rows: &[Row], room: Option<usize>) -> (Vec<usize>, Vec<usize>) {
    let length = |column: usize| rows.iter().map(|row| row.cells[column].text.chars().count()).max().unwrap_or(0);
    let mut widths: Vec<usize> =
        columns.iter().enumerate().map(|(index, column)| length(index).max(column.head.chars().count())).collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(room) = room else { return (shown, widths) };
    let used = |shown: &[usize], widths: &[usize]| total(&shown.iter().map(|c| widths[*c]).collect::<Vec<_>>());
    while used(&shown, &widths) > room {
        let Some(least) = shown.iter().copied().max_by_key(|column| columns[*column].spare) else { break };
        if columns[least].spare == 0 {
            break;
        }
        shown.retain(|column| *column != least);
    }
    // The remaining columns are cut, the first one first: the end of an address is enough to recognise it.
    for column in &shown {
        let over = used(&shown, &widths).saturating_sub(room);
        widths[*column] = widths[*column].saturating_sub(over).max(CUT_COLUMNS_MIN.min(widths[*column]));
    }
    (shown, widths)
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
}

fn place(rows: &[Row], head: &str, used: usize, indent: usize, room: Option<usize>) -> Notes {
    let longest = rows.iter().map(|row| one_line(&row.note).chars().count()).max().unwrap_or(0);
    let Some(room) = room else { return if longest == 0 { Notes::Absent } else { Notes::Beside(usize::MAX) } };
    let beside = room.saturating_sub(used + GAP.len());
    match longest {
        0 => Notes::Absent,
        longest if longest.max(head.chars().count()) <= beside => Notes::Beside(beside),
        _ if beside >= NOTE_COLUMNS_MIN => Notes::Beside(beside),
        _ => Notes::Below(room.saturating_sub(indent + 2 * GAP.len()).max(CUT_COLUMNS_MIN)),
    }
}

/// Cuts a text that is too long, keeping its end or its beginning.
fn shorten(text: &str, width: usize, end: bool) -> String {
    let length = text.chars().count();
    let kept = width.saturating_sub(1);
    match () {
        () if length <= width => text.to_owned(),
        () if end => std::iter::once('…').chain(text.chars().skip(length - kept)).collect(),
        () => text.chars().take(kept).chain(['…']).collect(),
    }
}

/// Wraps a text at `width` columns. Longer words are split, except coloured ones. Returns at least one line.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![];
    let (mut line, mut used) = (String::new(), 0_usize);
    for word in text.split_whitespace() {
        let mut word = word.to_owned();
        let mut length = visible_width(&word);
        if used > 0 && used.saturating_add(1 + length) > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        while length > width && !word.contains('\x1b') {
            let rest = word.chars().skip(width).collect();
            lines.push(word.chars().take(width).collect());
            (word, length) = (rest, length - width);
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        line.push_str(&word);
        used += length;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column { head: "UPSTREAM", right: false, spare: 0 },
        Column { head: "STATE", right: false, spare: 0 },
        Column { head: "N", right: true, spare: 1 },
        Column { head: "LATENCY", right: true, spare: 2 },
    ];

    fn rows() -> Vec<Row> {
        let row = |cells: [&str; 4], note: &str| Row { cells: cells.map(Cell::new).into(), note: note.to_owned() };
        vec![
            row(["unix:/run/ä.sock", "healthy", "100", "1.5 ms"], ""),
            row(
                ["10.0.0.2:80", "unhealthy", "7", "-"],
                "L7STS: status 503, expected 200-299; body: \"No workers\n\x1b[2J\"",
            ),
        ]
    }

    fn shown(room: Option<usize>) -> String {
        table(&COLUMNS, "WHY", &rows(), "  ", room, Paint::off())
    }

    #[test]
    fn without_a_limit_everything_is_on_the_line_of_its_row() {
        let want = concat!(
            "  UPSTREAM          STATE        N  LATENCY  WHY\n",
            "  unix:/run/ä.sock  healthy    100   1.5 ms\n",
            "  10.0.0.2:80       unhealthy    7        -  L7STS: status 503, expected 200-299; ",
            "body: \"No workers\\n\\u{1b}[2J\"\n",
        );
        assert_eq!(shown(None), want);
        assert_eq!(shown(Some(200)), want);
    }

    #[test]
    fn notes_are_wrapped_beside_then_below_then_columns_are_left_out() {
        let beside = concat!(
            "  UPSTREAM          STATE        N  LATENCY  WHY\n",
            "  unix:/run/ä.sock  healthy    100   1.5 ms\n",
            "  10.0.0.2:80       unhealthy    7        -  L7STS: status 503, expected\n",
            "                                             200-299; body: \"No\n",
            "                                             workers\\n\\u{1b}[2J\"\n",
        );
        assert_eq!(shown(Some(76)), beside);
        let below = concat!(
            "  UPSTREAM          STATE        N  LATENCY\n",
            "  unix:/run/ä.sock  healthy    100   1.5 ms\n",
            "  10.0.0.2:80       unhealthy    7        -\n",
            "      L7STS: status 503, expected 200-299;\n",
            "      body: \"No workers\\n\\u{1b}[2J\"\n",
        );
        assert_eq!(shown(Some(46)), below);
        let narrow = concat!(
            "  UPSTREAM      STATE\n",
            "  …/run/ä.sock  healthy\n",
            "  10.0.0.2:80   unhealthy\n",
            "      L7STS: status 503,\n",
            "      expected 200-299;\n",
            "      body: \"No\n",
            "      workers\\n\\u{1b}[2J\"\n",
        );
        assert_eq!(shown(Some(25)), narrow);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for room in 25..130 {
            let shown = shown(Some(room));
            assert!(shown.lines().all(|line| line.chars().count() <= room), "{room}:\n{shown}");
            let words: String = shown.split_whitespace().collect();
            assert!(words.contains("unhealthy") && words.contains("expected200-299"), "{room}:\n{shown}");
        }
    }

    #[test]
    fn lines_wrap_at_words_and_only_long_plain_words_are_cut() {
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a abcdefghijk l", 5), ["a", "abcde", "fghij", "k l"]);
        assert_eq!(wrap("\x1b[1mabcdefg\x1b[0m b", 5), ["\x1b[1mabcdefg\x1b[0m", "b"]);
        assert_eq!(wrap("\x1b[1mabc\x1b[0m b", 5), ["\x1b[1mabc\x1b[0m b"]);
    }

    #[test]
    fn a_colour_takes_no_room() {
        let red = Row { cells: vec![Cell::new("x").colour(Some(Colour::Red))], note: String::new() };
        let columns = [Column { head: "NAME", right: true, spare: 0 }];
        assert_eq!(
            table(&columns, "WHY", &[red], "", Some(80), Paint::on()),
            "\x1b[2mNAME\x1b[0m\n   \x1b[31mx\x1b[0m\n"
        );
    }
}
