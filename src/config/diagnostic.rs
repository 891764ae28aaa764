//! One mistake or warning about a configuration file: its place, its message, what was expected. Renders itself for
//! people (with the source line and a caret) and, through `serde::Serialize`, for programs.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// Excerpts are already cut; the renderer would cut them again, to the width of a terminal that may not exist.
const TERM_WIDTH: usize = 1_000;
/// A longer phrase is shown below the source line instead of beside the caret, wrapped at this many characters.
const LABEL_CHARS_MAX: usize = 90;

/// Whether a diagnostic refuses the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One mistake or warning. Serialises to the object that `roundsman check --format json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file, as it was named.
    pub file: String,
    /// 1-based; `None` for the whole file.
    pub line: Option<usize>,
    /// 1-based, in characters; `None` for the whole file.
    pub column: Option<usize>,
    /// The path of the key, such as `pools.api.health.timeout`; empty if it is about no key.
    pub key: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What was expected.
    pub expected: Option<String>,
    /// The likely correction: a similar key or name, or the value in the right form.
    pub suggestion: Option<String>,
    /// Whether it refuses the file.
    pub severity: Severity,
    /// Its place in the file, in bytes.
    #[serde(skip)]
    pub span: Option<Range<usize>>,
    /// The line it is about.
    #[serde(skip)]
    pub excerpt: Option<Excerpt>,
}

/// The line a diagnostic is about; a long one is cut to a window around the mistake, and secrets in it are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, or a window of it.
    pub text: String,
    /// The bytes of `text` that the caret marks.
    pub marked: Range<usize>,
}

impl Diagnostic {
    /// An error about a whole file, such as one that cannot be read.
    pub fn whole_file(file: &str, message: String) -> Diagnostic {
        Diagnostic {
            file: file.to_owned(),
            line: None,
            column: None,
            key: String::new(),
            message,
            expected: None,
            suggestion: None,
            severity: Severity::Error,
            span: None,
            excerpt: None,
        }
    }

    /// The first line of its human form: `conf/x.toml:31:5: error: pools.api.health.timeout: …`.
    pub fn headline(&self) -> String {
        let mut line = self.file.clone();
        if let (Some(number), Some(column)) = (self.line, self.column) {
            let _ = write!(line, ":{number}:{column}");
        }
        let _ = write!(line, ": {}: ", self.severity.as_str());
        if !self.key.is_empty() {
            let _ = write!(line, "{}: ", self.key);
        }
        line.push_str(&self.message);
        line
    }

    /// For people: the headline, the source line with a caret, what was expected, and the suggestion.
    pub fn render(&self, colour: bool) -> String {
        let mut out = self.headline();
        out.push('\n');
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_level(level);
        let expected = self.expected.as_ref().map(|e| format!("expected {e}"));
        let suggestion = self.suggestion.as_ref().map(|s| format!("did you mean `{s}`?"));
        let mut note = None;
        match (&self.excerpt, self.line) {
            (Some(excerpt), Some(line)) => {
                let (label, long) = match expected {
                    Some(phrase) if phrase.chars().count() > LABEL_CHARS_MAX => (None, Some(wrapped(&phrase))),
                    short => (short, None),
                };
                note = long;
                let mark = AnnotationKind::Primary.span(excerpt.marked.clone()).label(label);
                group =
                    group.element(Snippet::source(excerpt.text.as_str()).line_start(line).fold(false).annotation(mark));
            }
            _ => {
                if let Some(expected) = expected {
                    let _ = writeln!(out, "  {expected}");
                }
            }
        }
        if let Some(note) = note {
            group = group.element(Level::NOTE.message(note));
        }
        if let Some(suggestion) = suggestion {
            group = group.element(Level::HELP.message(suggestion));
        }
        if !group.is_empty() {
            let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
            let rendered = renderer.term_width(TERM_WIDTH).decor_style(DecorStyle::Ascii).render(&[group]);
            for line in rendered.lines() {
                out.push_str(line.trim_end());
                out.push('\n');
            }
        }
        out
    }
}

/// `phrase` wrapped at spaces.
fn wrapped(phrase: &str) -> String {
    let (mut out, mut column) = (String::with_capacity(phrase.len() + 8), 0);
    for word in phrase.split(' ') {
        let width = word.chars().count();
        match column {
            0 => {}
            _ if column + 1 + width > LABEL_CHARS_MAX => {
                out.push('\n');
                column = 0;
            }
            _ => {
                out.push(' ');
                column += 1;
            }
        }
        out.push_str(word);
        column += width;
    }
    out
}

/// Renders all of them for people, with an empty line after each.
pub fn render_all(diagnostics: &[Diagnostic], colour: bool) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&diagnostic.render(colour));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Diagnostic {
        Diagnostic {
            line: Some(31),
            column: Some(11),
            key: "pools.api.health.timeout".to_owned(),
            expected: Some("at most the interval, 5s".to_owned()),
            suggestion: Some("timeout = \"5s\"".to_owned()),
            span: Some(100..104),
            excerpt: Some(Excerpt { text: "timeout = \"8s\"".to_owned(), marked: 10..14 }),
            ..Diagnostic::whole_file("conf/x.toml", "\"8s\" exceeds the interval".to_owned())
        }
    }

    #[test]
    fn the_human_form_begins_with_a_line_for_grep() {
        let text = sample().render(false);
        assert_eq!(
            text,
            "conf/x.toml:31:11: error: pools.api.health.timeout: \"8s\" exceeds the interval\n   \
             |\n31 | timeout = \"8s\"\n   |           ^^^^ expected at most the interval, 5s\n   \
             |\n   = help: did you mean `timeout = \"5s\"`?\n"
        );
    }

    #[test]
    fn a_long_list_is_shown_below_the_line() {
        let names = ["interval"; 30].join(", ");
        let text = Diagnostic { expected: Some(names.clone()), ..sample() }.render(false);
        assert!(text.contains("\n   = note: expected interval, "), "{text}");
        assert!(text.lines().all(|line| line.len() <= LABEL_CHARS_MAX + 20), "{text}");
        assert_eq!(text.matches("interval,").count(), 29, "{text}");
    }

    #[test]
    fn colour_is_used_only_on_request() {
        assert!(!sample().render(false).contains('\x1b'));
        assert!(sample().render(true).contains('\x1b'));
    }

    #[test]
    fn the_json_form_has_the_keys_of_the_contract() {
        let json = serde_json::to_value(sample()).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["file", "line", "column", "key", "message", "expected", "suggestion", "severity"]);
        assert_eq!(json["severity"], "error");
        let whole = serde_json::to_value(Diagnostic::whole_file("x", "unreadable".into())).unwrap();
        assert!(whole["line"].is_null() && whole["column"].is_null());
    }
}
