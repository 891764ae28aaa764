//! What is wrong inside a text of the file, and the parsing of regular expressions, whose mistakes have a place in the text.

use std::ops::Range;

use crate::config::read::{Node, Reader};

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4 << 10;

/// What is wrong with a text, and which bytes of it.
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) at: Option<Range<usize>>,
    pub(super) suggestion: Option<String>,
}

impl Problem {
    pub(super) fn whole(message: impl Into<String>) -> Problem {
        Problem { message: message.into(), at: None, suggestion: None }
    }

    pub(super) fn inside(message: impl Into<String>, at: Range<usize>) -> Problem {
        Problem { at: Some(at), ..Problem::whole(message) }
    }

    pub(super) fn report(self, node: &Node<'_>, reader: &mut Reader<'_>, expected: &str) {
        let suggestion = self.suggestion.filter(|_| !reader.is_expanded(node));
        // A suggestion replaces what is marked, and it is a whole text.
        let at = self.at.filter(|_| suggestion.is_none());
        let span = at.map_or_else(|| node.span(), |at| reader.inside(node, at.start, at.end));
        reader.mistake(span, self.message).expected(expected).suggestion(suggestion).done();
    }
}

/// Compiles a regular expression with `compile`. One that is found in every text, as `is_found` has it, fails with `useless`.
pub(super) fn pattern<P>(
    text: &str,
    compile: impl Fn(&str) -> Result<P, regex::Error>,
    is_found: impl Fn(&P, &[u8]) -> bool,
    useless: &str,
) -> Result<P, Problem> {
    if text.len() > PATTERN_BYTES_MAX {
        return Err(Problem::whole("the pattern is longer than 4 KiB"));
    }
    // The syntax is parsed first, because only this error has a position.
    let parsed = regex_syntax::ParserBuilder::new().nest_limit(64).utf8(false).build().parse(text);
    if let Err(error) = parsed {
        let (kind, span) = match &error {
            regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span()),
            regex_syntax::Error::Translate(error) => (error.kind().to_string(), error.span()),
            _ => return Err(Problem::whole("not a regular expression")),
        };
        return Err(Problem::inside(format!("not a regular expression: {kind}"), span.start.offset..span.end.offset));
    }
    let pattern = compile(text).map_err(|error| {
        Problem::whole(match error {
            regex::Error::CompiledTooBig(_) => "the pattern takes more memory than a check may",
            _ => "not a regular expression",
        })
    })?;
    if is_found(&pattern, b"") && is_found(&pattern, b"\x01~") {
        return Err(Problem::whole(useless));
    }
    Ok(pattern)
}
