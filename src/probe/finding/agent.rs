//! Sentences for the lines of agents.

use std::fmt::{self, Write};

use super::Code;
use super::hints::text_hint;
use crate::model::quote::{Excerpt, Quoted};
use crate::model::{AdminState, Ratio};
use crate::probe::agent::{Said, Unreadable};

/// An agent's line, and what it says.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) struct AgentAnswer {
    said: Result<Said, Unreadable>,
    /// The line without its end, with our credentials masked.
    line: Excerpt,
}

impl AgentAnswer {
    pub(in crate::probe) fn new(said: Result<Said, Unreadable>, line: Excerpt) -> AgentAnswer {
        AgentAnswer { said, line }
    }

    pub(super) fn code(&self) -> Code {
        match self.said {
            Ok(Said { up: true, .. }) => Code::L7Ok,
            Ok(Said { up: false, .. }) => Code::L7Sts,
            Err(_) => Code::L7Rsp,
        }
    }

    /// The share of its weight, and whether it wants requests, if it is up.
    pub(super) fn asks(&self) -> (Option<Ratio>, Option<AdminState>) {
        match self.said {
            Ok(Said { up: true, asks, share }) => (share, Some(asks)),
            Ok(Said { up: false, .. }) | Err(_) => (None, None),
        }
    }

    pub(super) fn write_sentence(&self, out: &mut String) -> fmt::Result {
        match self.said {
            Err(Unreadable::Empty) => out.write_str("the line of the agent is empty"),
            Ok(_) => write!(out, "the agent says {}", Quoted(self.line.bytes())),
            Err(Unreadable::Word { at, length }) => {
                write!(out, "the agent says {}", Quoted(self.line.bytes()))?;
                // What is masked or cut is not where it was.
                match self.line.bytes().get(at..at + length) {
                    Some(word) if word.len() < self.line.bytes().len() => {
                        write!(out, ", and {} means nothing there", Quoted(word))
                    }
                    Some(_) | None => out.write_str(", which means nothing"),
                }
            }
        }
    }

    pub(super) fn hint(&self, is_tls: bool) -> Option<&'static str> {
        self.said.err()?;
        let words = "an agent sends words such as up, 50%, drain, maint and down, and a reason after #";
        text_hint(None, true, false, self.line.bytes(), is_tls).or(Some(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::agent::read;

    #[test]
    fn sentences_quote_the_line_and_what_is_wrong_with_it() {
        for (line, code, sentence) in [
            ("up 50%", Code::L7Ok, "the agent says \"up 50%\""),
            ("down # disk full", Code::L7Sts, "the agent says \"down # disk full\""),
            ("", Code::L7Rsp, "the line of the agent is empty"),
            ("hello", Code::L7Rsp, "the agent says \"hello\", which means nothing"),
            ("up 5", Code::L7Rsp, "the agent says \"up 5\", and \"5\" means nothing there"),
            ("up \u{1b}[2J", Code::L7Rsp, "the agent says \"up \\u{1b}[2J\", and \"\\u{1b}[2J\" means nothing there"),
        ] {
            let answer = AgentAnswer::new(read(line.as_bytes()), Excerpt::of(line.as_bytes()));
            let mut out = String::new();
            answer.write_sentence(&mut out).unwrap();
            assert_eq!((answer.code(), out.as_str()), (code, sentence));
            assert_eq!(answer.hint(false).is_some(), code == Code::L7Rsp);
        }
        let tls = AgentAnswer::new(read(&[0x15, 0x03, 0x03]), Excerpt::of(&[0x15, 0x03, 0x03]));
        assert_eq!(tls.hint(false), Some("this port speaks TLS"));
    }
}
