//! What an agent's line says: HAProxy's agent protocol (its configuration manual, `agent-check`) with each line complete in
//! itself. A line without `drain` or `maint` takes an upstream back, and one without a percentage gives it all of its weight;
//! in HAProxy both stay until a `ready` or another percentage comes, which a balancer that starts later would not know.
//!
//! Words are separated by spaces, tabs and commas, in any order and case; a `#` begins a text for people. Of words that
//! contradict each other the strictest holds.

use crate::model::{AdminState, Ratio};

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// Whether the upstream is up: it has not said `down`, `fail` or `stopped`.
    pub up: bool,
    /// Whether it wants requests.
    pub asks: AdminState,
    /// The share of its weight that it wants; `None`: all of it.
    pub share: Option<Ratio>,
}

/// Why a line says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It has no word.
    Empty,
    /// This word is not one of an agent's: where it is in the line.
    Word {
        /// Its first byte.
        at: usize,
        /// Its length in bytes.
        length: usize,
    },
}

/// Reads a line without its end.
///
/// # Errors
/// Why it says nothing. A word that is not known may be one that takes the upstream out.
pub(super) fn read(line: &[u8]) -> Result<Said, Unreadable> {
    let words = line.split(|byte| *byte == b'#').next().unwrap_or_default();
    let mut said = Said { up: true, asks: AdminState::Enabled, share: None };
    let (mut at, mut any) = (0, false);
    for word in words.split(|byte| b" \t,".contains(byte)) {
        let begins = at;
        at += word.len() + 1;
        match &*word.to_ascii_lowercase() {
            b"" => continue,
            b"up" | b"ready" => {}
            b"down" | b"fail" | b"stopped" => said.up = false,
            b"drain" => said.asks = said.asks.max(AdminState::Draining),
            b"maint" => said.asks = AdminState::Disabled,
            [b'm', b'a', b'x', b'c', b'o', b'n', b'n', b':', digits @ ..] if number(digits).is_some() => {}
            [digits @ .., b'%'] => match number(digits) {
                None => return Err(Unreadable::Word { at: begins, length: word.len() }),
                Some(0) => said.asks = said.asks.max(AdminState::Draining),
                Some(percent @ 1..100) => {
                    let share = Ratio::percent(percent);
                    said.share = Some(said.share.map_or(share, |least| least.min(share)));
                }
                Some(_) => {}
            },
            _ => return Err(Unreadable::Word { at: begins, length: word.len() }),
        }
        any = true;
    }
    if any { Ok(said) } else { Err(Unreadable::Empty) }
}

/// At most nine digits.
fn number(digits: &[u8]) -> Option<u32> {
    let is_number = (1..10).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::AdminState::{Disabled, Draining, Enabled};
    use super::*;

    #[test]
    fn a_line_says_whether_how_much_and_nothing_that_it_does_not_say() {
        for (line, up, asks, percent) in [
            ("up", true, Enabled, None),
            ("UP", true, Enabled, None),
            ("ready", true, Enabled, None),
            ("up 50%", true, Enabled, Some(50)),
            ("50%", true, Enabled, Some(50)),
            ("\t75%,ready , up", true, Enabled, Some(75)),
            ("1%", true, Enabled, Some(1)),
            ("99%", true, Enabled, Some(99)),
            ("100%", true, Enabled, None),
            ("250%", true, Enabled, None),
            ("0%", true, Draining, None),
            ("up 0%", true, Draining, None),
            ("50% 30%", true, Enabled, Some(30)),
            ("drain", true, Draining, None),
            ("drain up ready", true, Draining, None),
            ("maint", true, Disabled, None),
            ("drain,maint", true, Disabled, None),
            ("maint drain", true, Disabled, None),
            ("down", false, Enabled, None),
            ("fail", false, Enabled, None),
            ("stopped # by systemd", false, Enabled, None),
            ("up down", false, Enabled, None),
            ("down drain 10%", false, Draining, Some(10)),
            ("up maxconn:30", true, Enabled, None),
            ("maxconn:30", true, Enabled, None),
            ("up#down drain 3x", true, Enabled, None),
            ("up # \u{1b}[31m", true, Enabled, None),
        ] {
            let share = percent.map(Ratio::percent);
            assert_eq!(read(line.as_bytes()), Ok(Said { up, asks, share }), "{line:?}");
        }
    }

    #[test]
    fn a_line_without_words_or_with_others_says_nothing() {
        for line in ["", " ", ",\t", "# up"] {
            assert_eq!(read(line.as_bytes()), Err(Unreadable::Empty), "{line:?}");
        }
        for (line, word) in [
            ("upp", "upp"),
            ("HTTP/1.1 400 Bad Request", "HTTP/1.1"),
            ("up 50", "50"),
            ("up, -5%", "-5%"),
            ("up %", "%"),
            ("up 5.5%", "5.5%"),
            ("up 9999999999%", "9999999999%"),
            ("maxconn:", "maxconn:"),
            ("maxconn:x", "maxconn:x"),
            ("up\0", "up\0"),
            ("  drained", "drained"),
        ] {
            let Err(Unreadable::Word { at, length }) = read(line.as_bytes()) else { panic!("{line:?} is read") };
            assert_eq!(&line[at..at + length], word, "{line:?}");
        }
        assert!(matches!(read(b"\xff\xfe"), Err(Unreadable::Word { at: 0, length: 2 })));
    }
}
