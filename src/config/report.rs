//! Collects the mistakes in one file while it is read, and turns it into diagnostics at the end: in the order of the
//! file, with lines and columns, with the secrets of the source lines masked. Bounded, whatever the file holds.

use std::ops::Range;

use super::diagnostic::{Diagnostic, Excerpt, Severity};
use super::hidden::Hidden;
use crate::model::secret::may_name_a_secret;

/// How many diagnostics are returned; one more counts the rest.
const SHOWN_MAX: usize = 100;
/// How many are kept while reading. Later ones are only counted.
const KEPT_MAX: usize = 2_000;
/// How much of a long line an excerpt shows, in bytes before and after the start of the mistake.
const WINDOW_BEFORE: usize = 60;
const WINDOW_AFTER: usize = 100;

/// A mistake or warning before it has its line and column.
#[derive(Debug)]
pub struct Found {
    severity: Severity,
    span: Option<Range<usize>>,
    key: String,
    message: String,
    expected: Option<String>,
    /// The best first; the first that holds in its place is shown.
    suggestions: Vec<String>,
    syntax: bool,
}

impl Found {
    /// A mistake at `span`.
    pub fn error(span: Range<usize>, key: impl Into<String>, message: impl Into<String>) -> Found {
        Found {
            severity: Severity::Error,
            span: Some(span),
            key: key.into(),
            message: message.into(),
            expected: None,
            suggestions: Vec::new(),
            syntax: false,
        }
    }

    /// Something allowed that looks like a mistake.
    pub fn warning(span: Range<usize>, key: impl Into<String>, message: impl Into<String>) -> Found {
        Found { severity: Severity::Warning, ..Found::error(span, key, message) }
    }

    /// A syntax mistake.
    pub fn syntax(span: Option<Range<usize>>, message: impl Into<String>) -> Found {
        Found { span, syntax: true, ..Found::error(0..0, "", message) }
    }

    /// A mistake that has no place, because something is missing from the file.
    pub fn missing(message: impl Into<String>) -> Found {
        Found { span: None, ..Found::error(0..0, "", message) }
    }

    /// What was expected; a phrase that follows "expected".
    pub fn expected(mut self, expected: impl Into<String>) -> Found {
        self.expected = Some(expected.into());
        self
    }

    /// The likely correction; a further one replaces it if it would be a mistake in its place.
    pub fn suggestion(mut self, suggestion: Option<impl Into<String>>) -> Found {
        self.suggestions.extend(suggestion.map(Into::into));
        self
    }
}

/// All that was found in one file.
#[derive(Debug)]
pub struct Report {
    file: String,
    found: Vec<Found>,
    /// How many were not kept.
    dropped: usize,
    errors: bool,
    masked: Vec<Range<usize>>,
    /// Places that the parser misread.
    mistrusted: Vec<Range<usize>>,
}

impl Report {
    /// An empty report about `file`.
    pub fn new(file: &str) -> Report {
        let (found, masked, mistrusted) = (Vec::new(), Vec::new(), Vec::new());
        Report { file: file.to_owned(), found, dropped: 0, errors: false, masked, mistrusted }
    }

    /// Adds a mistake or warning.
    pub fn add(&mut self, found: Found) {
        self.errors |= found.severity == Severity::Error;
        if self.found.len() < KEPT_MAX {
            self.found.push(found);
        } else {
            self.dropped += 1;
        }
    }

    /// Masks these bytes of the file in every diagnostic.
    pub fn mask(&mut self, span: Range<usize>) {
        if self.masked.len() < KEPT_MAX {
            self.masked.push(span);
        }
    }

    /// How many are kept so far.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// The suggestions about exactly `span` among the kept ones from index `from` on, with their indices.
    pub fn suggestions<'r>(
        &'r self,
        from: usize,
        span: &'r Range<usize>,
    ) -> impl Iterator<Item = (usize, Vec<String>)> + 'r {
        let found = self.found.iter().enumerate().skip(from).filter(|(_, found)| found.span.as_ref() == Some(span));
        found.map(|(index, found)| (index, found.suggestions.clone())).filter(|(_, all)| !all.is_empty())
    }

    /// Replaces the suggestions at `index`.
    pub fn set_suggestions(&mut self, index: usize, suggestions: Vec<String>) {
        if let Some(found) = self.found.get_mut(index) {
            found.suggestions = suggestions;
        }
    }

    /// Keeps of the suggestions for each place the first that `holds` there.
    pub fn choose_suggestions(&mut self, mut holds: impl FnMut(&Range<usize>, &str) -> bool) {
        for found in &mut self.found {
            if let Some(span) = &found.span {
                let chosen = found.suggestions.iter().position(|text| holds(span, text));
                found.suggestions = chosen.map(|index| found.suggestions.swap_remove(index)).into_iter().collect();
            }
        }
    }

    /// Whether a mistake begins within `place`.
    pub fn has_error_in(&self, place: &Range<usize>) -> bool {
        let begins = |span: &Range<usize>| place.contains(&span.start);
        self.found.iter().any(|found| found.severity == Severity::Error && found.span.as_ref().is_some_and(begins))
    }

    /// Suppresses mistakes in the line of `span`, whose syntax mistake is reported elsewhere.
    pub fn mistrust(&mut self, span: Range<usize>) {
        if self.mistrusted.len() < KEPT_MAX {
            self.mistrusted.push(span);
        }
    }

    /// Whether further findings are only counted.
    pub fn is_full(&self) -> bool {
        self.found.len() >= KEPT_MAX
    }

    /// Whether the file is refused.
    pub fn has_errors(&self) -> bool {
        self.errors
    }

    /// Drops mistakes in lines that are not TOML, and in what follows a broken table header: they are about the
    /// parser's guess.
    pub fn drop_where_syntax_is_broken(&mut self, text: &str) {
        let spans = self.found.iter().filter_map(|f| f.span.as_ref()).chain(&self.mistrusted);
        let places = Places::of(text, spans);
        let line = |found: &Found| found.span.as_ref().map_or(0, |span| places.line(span.start));
        let lines: Vec<_> = text.lines().map(|line| line.trim_start().starts_with('[')).collect();
        let is_header = |number: usize| number.checked_sub(1).and_then(|at| lines.get(at).copied()).unwrap_or(false);
        let mut broken: Vec<_> = self.found.iter().filter(|f| f.syntax).map(line).collect();
        broken.extend(self.mistrusted.iter().map(|span| places.line(span.start)));
        for header in broken.clone().into_iter().filter(|number| is_header(*number)) {
            broken.extend((header + 1..=lines.len()).take_while(|number| !is_header(*number)));
        }
        broken.sort_unstable();
        let keep: Vec<bool> = self.found.iter().map(|f| f.syntax || broken.binary_search(&line(f)).is_err()).collect();
        let mut keep = keep.into_iter();
        self.found.retain(|_| keep.next().unwrap_or(true));
    }

    /// Puts what was found into the order of the file, and drops what will not be shown.
    pub fn settle(&mut self, text: &str) {
        self.found.sort_by_key(|f| f.span.as_ref().map(|span| span.start));
        let places = Places::of(text, self.found.iter().filter_map(|f| f.span.as_ref()));
        let mut syntax_line = None;
        // A broken line often causes a chain of errors; the first is enough.
        self.found.retain(|f| {
            let line = f.span.as_ref().map(|span| places.line(span.start));
            !f.syntax || syntax_line.replace(line) != Some(line)
        });
        self.dropped += self.found.len().saturating_sub(SHOWN_MAX);
        self.found.truncate(SHOWN_MAX);
    }

    /// The diagnostics, in the order of the file.
    pub fn finish(mut self, text: &str) -> Vec<Diagnostic> {
        self.settle(text);
        let places = Places::of(text, self.found.iter().filter_map(|f| f.span.as_ref()));
        let known = std::mem::take(&mut self.masked);
        let hidden = if self.found.is_empty() { Hidden::default() } else { Hidden::of(text, known) };
        let mut out: Vec<_> = self.found.iter().map(|f| self.diagnostic(f, text, &places, &hidden)).collect();
        if self.dropped > 0 {
            out.push(Diagnostic::whole_file(&self.file, format!("{} more are not shown", self.dropped)));
        }
        out
    }

    fn diagnostic(&self, found: &Found, text: &str, places: &Places, hidden: &Hidden) -> Diagnostic {
        let about = found.span.as_ref().map(|span| floor_char(text, span.start)..floor_char(text, span.end));
        let shown = |phrase: &str| hidden.without(text, phrase, about.as_ref());
        let message = match &about {
            Some(about) => hidden.without_any(text, &found.message, about),
            None => shown(&found.message),
        };
        let mut out = Diagnostic::whole_file(&self.file, message);
        out.key = hidden.without(text, &found.key, None);
        out.expected = found.expected.as_deref().map(shown);
        // A word similar to a hidden one reveals it.
        out.suggestion = found
            .suggestions
            .first()
            .map(String::as_str)
            .filter(|_| !about.as_ref().is_some_and(|about| hidden.touches(about)))
            .map(shown);
        out.severity = found.severity;
        if let Some(span) = &found.span {
            let start = floor_char(text, span.start);
            let end = floor_char(text, span.end).max(start);
            let line = places.line(start);
            let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
            out.line = Some(line);
            out.column = Some(text[line_start..start].chars().count() + 1);
            out.excerpt = Some(excerpt(text, line_start, start..end, found.syntax, hidden));
            out.span = Some(start..end);
        }
        out
    }
}

/// The line that begins at `line_start`, or a window of it, with hidden parts masked.
fn excerpt(text: &str, line_start: usize, span: Range<usize>, syntax: bool, hidden: &Hidden) -> Excerpt {
    let line_end = text[line_start..].find('\n').map_or(text.len(), |at| line_start + at);
    let line_end = line_start + text[line_start..line_end].trim_end_matches('\r').len();
    let start = span.start.min(line_end);
    let from = floor_char(text, line_start.max(start.saturating_sub(WINDOW_BEFORE)));
    let to = floor_char(text, line_end.min(start + WINDOW_AFTER));
    let mut shown = text.as_bytes()[from..to].to_vec();
    let mut cover = |range: Range<usize>| {
        let (start, end) = (range.start.clamp(from, to), range.end.clamp(from, to));
        shown[start - from..end - from].fill(b'*');
    };
    hidden.within(from..to).cloned().for_each(&mut cover);
    if syntax && may_name_a_secret(&text[line_start..line_end]) {
        // In a broken line the secret cannot be located: anything after the first `=` may be it.
        let equals = text[line_start..line_end].find('=').map_or(line_start, |at| line_start + at + 1);
        cover(equals..line_end);
    }
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let end = span.end.clamp(start, to.max(start)).min(to);
    let (before, after) = (if from > line_start { "…" } else { "" }, if to < line_end { "…" } else { "" });
    let marked = before.len() + floor_char(&shown, start - from)..before.len() + floor_char(&shown, end - from);
    Excerpt { text: format!("{before}{shown}{after}"), marked }
}

/// Line numbers of given byte offsets, found in one pass.
struct Places {
    /// (offset, 1-based line), ascending.
    lines: Vec<(usize, usize)>,
}

impl Places {
    fn of<'a>(text: &str, spans: impl Iterator<Item = &'a Range<usize>>) -> Places {
        let mut offsets: Vec<usize> = spans.map(|span| floor_char(text, span.start)).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let (mut line, mut seen) = (1, 0);
        let lines = offsets.into_iter().map(|offset| {
            line += text.as_bytes()[seen..offset].iter().filter(|b| **b == b'\n').count();
            seen = offset;
            (offset, line)
        });
        Places { lines: lines.collect() }
    }

    /// The line of an offset that `of` got; for any other, that of the nearest one before it.
    fn line(&self, offset: usize) -> usize {
        let at = self.lines.partition_point(|(known, _)| *known <= offset);
        at.checked_sub(1).map_or(1, |at| self.lines[at].1)
    }
}

/// The nearest character boundary at or before `at`.
fn floor_char(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, span: Range<usize>) -> Diagnostic {
        let mut report = Report::new("x.toml");
        report.add(Found::error(span, "", "m"));
        report.finish(text).remove(0)
    }

    #[test]
    fn columns_count_characters_from_one() {
        let text = "a\nä = 1\n";
        let diagnostic = one(text, text.find('1').unwrap()..text.find('1').unwrap() + 1);
        assert_eq!((diagnostic.line, diagnostic.column), (Some(2), Some(5)));
        let diagnostic = one("", 0..0);
        assert_eq!((diagnostic.line, diagnostic.column), (Some(1), Some(1)));
    }

    #[test]
    fn a_long_line_is_cut_to_a_window() {
        let text = format!("{}X{}", "ä".repeat(100_000), "ö".repeat(100_000));
        let at = text.find('X').unwrap();
        let diagnostic = one(&text, at..at + 1);
        let excerpt = diagnostic.excerpt.unwrap();
        assert!(excerpt.text.len() < 200, "{}", excerpt.text.len());
        assert_eq!(&excerpt.text[excerpt.marked], "X");
    }

    #[test]
    fn masked_bytes_are_not_shown() {
        let text = "headers = { Authorization = \"hunter2\", x = 1 }";
        let mut report = Report::new("x");
        let at = text.find("hunter2").unwrap();
        report.mask(at..at + 7);
        report.add(Found::error(0..7, "", "m"));
        let shown = report.finish(text).remove(0).excerpt.unwrap().text;
        assert!(!shown.contains("hunter2") && shown.contains("*******"), "{shown}");
    }

    #[test]
    fn a_broken_line_with_the_name_of_a_secret_is_not_shown() {
        let text = "token = \"hunter2";
        let mut report = Report::new("x");
        report.add(Found::syntax(Some(16..16), "unclosed"));
        let diagnostic = report.finish(text).remove(0);
        assert!(!diagnostic.render(false).contains("hunter2"));
    }

    #[test]
    fn a_file_full_of_mistakes_is_cut_and_counted() {
        let mut report = Report::new("x");
        for _ in 0..5_000 {
            report.add(Found::error(0..0, "", "m"));
        }
        let all = report.finish("a");
        assert_eq!(all.len(), SHOWN_MAX + 1);
        assert_eq!(all.last().unwrap().message, "4900 more are not shown");
    }
}
