//! The headers and keys of a text, line by line: where a key that is written twice was written first. The parser knows
//! both places, but reports only the second.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use toml_parser::lexer::TokenKind;

/// The statements of one text.
#[derive(Debug, Default)]
pub struct Statements {
    /// Each with the place of its key or header, in the order of the text.
    all: Vec<(Range<usize>, Scope, String)>,
    /// The first with this name: its line, and its place in `all`.
    first: HashMap<(Scope, String), (usize, usize)>,
    /// The numbers of headers that were there before.
    repeated: HashSet<usize>,
}

/// In what a name must be unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    /// A header, in the file.
    Headers,
    /// A key, below the header of this number.
    Section(usize),
}

impl Statements {
    /// Those of `text`. Statements within a list or a table in braces are not among them.
    pub fn of(text: &str) -> Statements {
        let mut out = Statements::default();
        let (mut section, mut depth, mut line) = (0, 0_usize, 1);
        // The key or header that is being read.
        let mut open: Option<(usize, bool, String)> = None;
        let mut fresh = true;
        for token in toml_parser::Source::new(text).lex() {
            let span = token.span().start()..token.span().end();
            let written = text.get(span.clone()).unwrap_or("");
            match token.kind() {
                TokenKind::Whitespace | TokenKind::Comment => continue,
                TokenKind::Newline | TokenKind::Eof => {
                    if let Some((start, true, name)) = open.take() {
                        section += 1;
                        // Headers in double brackets may repeat.
                        if !name.starts_with("[[") {
                            let known = out.first.len();
                            out.add(start..span.start, Scope::Headers, name, line);
                            out.repeated.extend((out.first.len() == known).then_some(section));
                        }
                    }
                    fresh = depth == 0;
                    line += 1;
                    continue;
                }
                _ => {}
            }
            if fresh {
                fresh = false;
                open = Some((span.start, token.kind() == TokenKind::LeftSquareBracket, String::new()));
            }
            match (&mut open, token.kind()) {
                (Some((start, false, name)), TokenKind::Equals) => {
                    let (start, name) = (*start, std::mem::take(name));
                    out.add(start..span.start, Scope::Section(section), name, line);
                    open = None;
                }
                (Some((_, _, name)), _) => name.push_str(written.trim_matches(['"', '\''])),
                (None, TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket) => depth += 1,
                (None, TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket) => depth = depth.saturating_sub(1),
                (None, _) => {}
            }
            line += written.bytes().filter(|byte| *byte == b'\n').count();
        }
        out
    }

    fn add(&mut self, place: Range<usize>, scope: Scope, name: String, line: usize) {
        self.first.entry((scope, name.clone())).or_insert((line, self.all.len()));
        self.all.push((place, scope, name));
    }

    /// Whether `at` is below a header that is written twice: what follows is a mistake with it.
    pub fn is_below_repeated_header(&self, at: usize) -> bool {
        match self.holding(at) {
            Some((_, Scope::Section(number))) => self.repeated.contains(number),
            Some((_, Scope::Headers)) | None => false,
        }
    }

    /// The line of the first statement with the same name as the one whose key or header holds `at`.
    pub fn first_line(&self, at: usize) -> Option<usize> {
        let (index, scope) = self.holding(at)?;
        let (line, first) = *self.first.get(&(*scope, self.all[index].2.clone()))?;
        (first < index).then_some(line)
    }

    /// The statement whose key or header holds `at`.
    fn holding(&self, at: usize) -> Option<(usize, &Scope)> {
        let index = self.all.partition_point(|(place, ..)| place.start <= at).checked_sub(1)?;
        let (place, scope, _) = &self.all[index];
        place.contains(&at).then_some((index, scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_written_twice_was_first_written_in_its_own_scope() {
        for (text, first) in [
            ("a = 1\nb = 2\n\"a\" = |3\n", None),
            ("a = 1\nb = 2\n|a = 3\n", Some(1)),
            ("# a = 1\na = \"\"\"\nb = 1\n\"\"\"\nb = [\n1,\n]\n|b = 3\n", Some(5)),
            ("[t]\na = 1\n[u]\n|a = 1\n", None),
            ("[t]\nx.a = 1\n[u]\nb = 1\nx . \"a\" = { \na = 1\n}\n|x.a = 1\n", Some(5)),
            ("[[r]]\na = 1\n[[r]]\n|a = 1\n", None),
            ("a = { c = 1, |c = 2 }\n", None),
            ("[p.x]\nb = 1\n[q]\n[ p . \"x\" ]\n[p.|x]\n", Some(1)),
            ("[p.|x]\nb = 1\n", None),
            ("\n\n[p\n[q]\na\n=1\na = 2\n|a = 3\n", Some(7)),
        ] {
            let at = text.find('|').unwrap();
            assert_eq!(Statements::of(&text.replace('|', "")).first_line(at), first, "{text:?}");
        }
    }

    #[test]
    fn keys_below_a_header_that_is_written_twice_belong_to_its_mistake() {
        for (text, below) in [
            ("[a]\nx = 1\n[b]\n[a]\n|x = 2\n", true),
            ("[a]\nx = 1\n[b]\n[|a]\nx = 2\n", false),
            ("[a]\nx = 1\n[a]\n[b]\n|x = 2\n", false),
            ("[a]\nx = 1\n|x = 2\n", false),
            ("|x = 1\n", false),
        ] {
            let at = text.find('|').unwrap();
            assert_eq!(Statements::of(&text.replace('|', "")).is_below_repeated_header(at), below, "{text:?}");
        }
    }
}
