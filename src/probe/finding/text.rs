//! The words for a check of a text protocol whose answer is not as expected.

use std::fmt::{self, Write};

use super::answer::{Cut, cut_words};
use super::hints::unheard_hint;
use super::words::Bytes;
use super::{Circumstances, Code};
use crate::model::policy::{Hex, Wanted};
use crate::model::quote::{Excerpt, Quoted};
use crate::model::units::Measured;

/// A step that went wrong.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) struct Unheard<'p> {
    /// Its number, from 1, and how many there are; `None` where the check was not written in steps.
    pub step: Option<(usize, usize)>,
    /// Something was sent before.
    pub sends: bool,
    pub why: Why<'p>,
    /// What ended it; `None`: as much was heard as is listened to, or the finding was certain before.
    pub cut: Option<Cut>,
    /// What came for it.
    pub bytes: usize,
    /// Its beginning, without our credentials.
    pub heard: Excerpt,
}

/// Why.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) enum Why<'p> {
    /// What it waits for did not come.
    NotCome(&'p Wanted),
    /// A text of `fail_on` came.
    Refused(&'p str),
    /// It could not be sent.
    NotSent,
    /// More came than the answer, before TLS.
    TooMuchBeforeTls,
    /// The line of the answer before TLS did not end.
    NoLineEnd,
}

impl Unheard<'_> {
    pub(super) fn code(&self) -> Code {
        match (&self.why, self.cut) {
            (Why::Refused(_) | Why::TooMuchBeforeTls, _) => Code::L7Rsp,
            (_, Some(Cut::Deadline)) => Code::L7Tout,
            (_, Some(Cut::Closed | Cut::Broke(_)) | None) => Code::L7Rsp,
        }
    }

    pub(super) fn write_sentence(&self, out: &mut String, c: &Circumstances<'_>) -> fmt::Result {
        if let Some((number, total)) = self.step {
            write!(out, "step {number} of {total}: ")?;
        }
        match (&self.why, self.step) {
            (Why::NotCome(wanted), None) => self.write_not_come(out, c, wanted),
            (Why::NotCome(wanted), Some(_)) => self.write_got(out, c, &format!("expected {}", wanted)),
            (Why::Refused(text), _) => {
                write!(out, "it said {}, which fails the check", Quoted(text.as_bytes()))?;
                match self.heard.bytes() == text.as_bytes() {
                    true => Ok(()),
                    false => write!(out, ": {}", Quoted(first_line(self.heard.bytes()))),
                }
            }
            (Why::NotSent, _) => match self.cut {
                Some(Cut::Deadline) => write!(out, "the text could not be sent within {:?}", c.timeout),
                Some(cut) => write!(out, "{} before the text was sent", cut_words(cut)),
                None => Ok(()),
            },
            (Why::TooMuchBeforeTls, _) => {
                write!(out, "more came before TLS than the answer that was expected: {}", Quoted(self.heard.bytes()))
            }
            (Why::NoLineEnd, _) => self.write_got(out, c, "expected the end of the line before TLS"),
        }
    }

    /// The words for `send` and `expect`.
    fn write_not_come(&self, out: &mut String, c: &Circumstances<'_>, wanted: &Wanted) -> fmt::Result {
        match self.cut {
            Some(Cut::Deadline) => {
                write!(out, "no {wanted} within {:?}", c.timeout)?;
                self.write_connected(out, c)?;
            }
            Some(cut) => write!(out, "{} before {wanted} came: {} had come", cut_words(cut), Bytes(self.bytes as u64))?,
            None => write!(out, "no {wanted} in the first 64 KiB, of which no more are read")?,
        }
        match self.bytes {
            0 => Ok(()),
            _ => write!(out, "; it said {}", Quoted(self.heard.bytes())),
        }
    }

    /// The words for a step: what was wanted, what came, and what ended it.
    fn write_got(&self, out: &mut String, c: &Circumstances<'_>, wanted: &str) -> fmt::Result {
        write!(out, "{wanted}, got ")?;
        match (self.bytes, &self.why) {
            (0, _) => out.push_str("nothing"),
            (_, Why::NotCome(Wanted::Bytes(_))) => write!(out, "{}", Hex(self.heard.bytes()))?,
            (..) => write!(out, "{}", Quoted(self.heard.bytes()))?,
        }
        match self.cut {
            Some(Cut::Deadline) => {
                write!(out, " within {:?}", c.timeout)?;
                self.write_connected(out, c)
            }
            Some(cut) => write!(out, ", then {}", cut_words(cut)),
            None => {
                out.push_str(" (64 KiB are read, and no more)");
                Ok(())
            }
        }
    }

    /// Where nothing came at all, it matters that there was a connection.
    fn write_connected(&self, out: &mut String, c: &Circumstances<'_>) -> fmt::Result {
        let connected_in = c.connected_in.filter(|_| self.step.is_none_or(|(number, _)| number == 1));
        connected_in.map_or(Ok(()), |connected_in| write!(out, " (connected in {})", Measured(connected_in)))
    }

    pub(super) fn hint(&self, is_tls: bool) -> Option<&'static str> {
        match self.why {
            Why::NotCome(_) => unheard_hint(self.cut, true, self.sends, self.heard.bytes(), is_tls),
            Why::NotSent => unheard_hint(self.cut, false, self.sends, self.heard.bytes(), is_tls),
            Why::Refused(_) => None,
            Why::TooMuchBeforeTls => Some("let the step before TLS expect its answer to the end"),
            Why::NoLineEnd => Some("let the step before TLS expect its answer to the end, as `expect_hex` does"),
        }
    }
}

fn first_line(bytes: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::errno::Errno;

    use super::*;
    use crate::model::policy::LinePattern;

    #[test]
    fn the_reason_names_the_step_and_what_came_instead() {
        let text = Wanted::Text("+PONG".into());
        let bytes = Wanted::Bytes([0x53].as_slice().into());
        let pattern = Wanted::Match(LinePattern::try_new("^250 ").unwrap());
        for (step, why, cut, heard, code, sentence) in [
            (
                Some((3, 5)),
                Why::NotCome(&text),
                Some(Cut::Deadline),
                &b"-ERR x\r\n"[..],
                Code::L7Tout,
                r#"step 3 of 5: expected "+PONG", got "-ERR x\r\n" within 2s"#,
            ),
            (
                Some((1, 2)),
                Why::NotCome(&text),
                Some(Cut::Deadline),
                b"",
                Code::L7Tout,
                r#"step 1 of 2: expected "+PONG", got nothing within 2s (connected in 0.4 ms)"#,
            ),
            (
                Some((2, 2)),
                Why::NotCome(&pattern),
                Some(Cut::Closed),
                b"500 no\r\n",
                Code::L7Rsp,
                r#"step 2 of 2: expected a match of "^250 ", got "500 no\r\n", then connection closed"#,
            ),
            (
                Some((2, 3)),
                Why::NotCome(&bytes),
                Some(Cut::Broke(Errno::ECONNRESET)),
                b"N\0",
                Code::L7Rsp,
                "step 2 of 3: expected hex 53, got hex 4e 00, then connection reset",
            ),
            (
                Some((2, 3)),
                Why::NotCome(&text),
                None,
                b"xxx",
                Code::L7Rsp,
                r#"step 2 of 3: expected "+PONG", got "xxx" (64 KiB are read, and no more)"#,
            ),
            (
                Some((2, 2)),
                Why::Refused("-LOADING"),
                None,
                b"-LOADING Redis is loading the dataset in memory\r\n",
                Code::L7Rsp,
                r#"step 2 of 2: it said "-LOADING", which fails the check: "-LOADING Redis is loading the dataset in memory""#,
            ),
            (
                Some((2, 2)),
                Why::Refused("N"),
                None,
                b"N",
                Code::L7Rsp,
                r#"step 2 of 2: it said "N", which fails the check"#,
            ),
            (
                Some((5, 6)),
                Why::TooMuchBeforeTls,
                None,
                b"250 injected\r\n",
                Code::L7Rsp,
                r#"step 5 of 6: more came before TLS than the answer that was expected: "250 injected\r\n""#,
            ),
            (
                Some((1, 1)),
                Why::NotSent,
                Some(Cut::Broke(Errno::EPIPE)),
                b"",
                Code::L7Rsp,
                "step 1 of 1: connection reset before the text was sent",
            ),
            (
                None,
                Why::NotCome(&text),
                Some(Cut::Closed),
                b"-ERR",
                Code::L7Rsp,
                r#"connection closed before "+PONG" came: 4 bytes had come; it said "-ERR""#,
            ),
        ] {
            let unheard = Unheard { step, sends: true, why, cut, bytes: heard.len(), heard: Excerpt::of(heard) };
            let mut out = String::new();
            let circumstances = Circumstances {
                took: Duration::from_secs(2),
                connected_in: Some(Duration::from_micros(400)),
                shaken_in: None,
                timeout: Duration::from_secs(2),
                elsewhere: None,
            };
            unheard.write_sentence(&mut out, &circumstances).unwrap();
            assert_eq!((unheard.code(), out.as_str()), (code, sentence));
        }
    }
}
