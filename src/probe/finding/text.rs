//! Sentences for checks of text protocols that fail.

use std::fmt::{self, Write};

use super::answer::{Cutoff, cutoff_words};
use super::hints::text_hint;
use super::words::Bytes;
use super::{Circumstances, Code};
use crate::model::policy::{Hex, Wanted};
use crate::model::quote::{Excerpt, Quoted};
use crate::model::units::Measured;

/// A failed step.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) struct TextFailure<'p> {
    /// Its number, from 1, and the number of steps; `None` if the check is not written in steps.
    pub step: Option<(usize, usize)>,
    /// Something was sent since the last step that reads.
    pub sends: bool,
    /// A step before it has read what it waited for.
    pub spoke: bool,
    pub why: Why<'p>,
    /// What ended it; `None`: the limit was reached, or the finding was certain before.
    pub cut: Option<Cutoff>,
    /// The number of bytes received for it.
    pub bytes: usize,
    /// The first of these bytes, with our credentials masked.
    pub received: Excerpt,
}

/// Why.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) enum Why<'p> {
    /// The expected text was not received.
    NotCome(&'p Wanted),
    /// A text of `fail_on` was received.
    Refused(&'p str),
    /// The text could not be sent.
    NotSent,
    /// Data before TLS that is not part of the answer.
    TooMuchBeforeTls,
    /// The line of the answer before TLS did not end.
    NoLineEnd,
}

impl TextFailure<'_> {
    pub(super) fn code(&self) -> Code {
        match (&self.why, self.cut) {
            (Why::Refused(_) | Why::TooMuchBeforeTls, _) => Code::L7Rsp,
            (_, Some(Cutoff::Deadline)) => Code::L7Tout,
            (_, Some(Cutoff::Closed | Cutoff::Broke(_)) | None) => Code::L7Rsp,
        }
    }

    pub(super) fn write_sentence(&self, out: &mut String, context: &Circumstances<'_>) -> fmt::Result {
        if let Some((number, total)) = self.step {
            write!(out, "step {number} of {total}: ")?;
        }
        match (&self.why, self.step) {
            (Why::NotCome(wanted), None) => self.write_not_come(out, context, wanted),
            (Why::NotCome(wanted), Some(_)) => self.write_got(out, context, &format!("expected {}", wanted)),
            (Why::Refused(text), _) => {
                write!(out, "got {}, which fails the check", Quoted(text.as_bytes()))?;
                match self.received.bytes() == text.as_bytes() {
                    true => Ok(()),
                    false => write!(out, ": {}", Quoted(first_line(self.received.bytes()))),
                }
            }
            (Why::NotSent, _) => match self.cut {
                Some(Cutoff::Deadline) => write!(out, "the text could not be sent within {:?}", context.timeout),
                Some(cut) => write!(out, "{} before the text was sent", cutoff_words(cut)),
                None => Ok(()),
            },
            (Why::TooMuchBeforeTls, _) => {
                write!(out, "unexpected data before TLS: {}", Quoted(self.received.bytes()))
            }
            (Why::NoLineEnd, _) => self.write_got(out, context, "expected the end of the line before TLS"),
        }
    }

    /// The sentence for `send` and `expect`.
    fn write_not_come(&self, out: &mut String, context: &Circumstances<'_>, wanted: &Wanted) -> fmt::Result {
        match self.cut {
            Some(Cutoff::Deadline) => {
                write!(out, "no {wanted} within {:?}", context.timeout)?;
                self.write_connected(out, context)?;
            }
            Some(cut) => {
                let article = if matches!(wanted, Wanted::Line) { "the " } else { "" };
                let (end, received) = (cutoff_words(cut), Bytes(self.bytes as u64));
                write!(out, "{end} before {article}{wanted} arrived: {received} received")?
            }
            None => write!(out, "no {wanted} in the first 64 KiB (the rest is not read)")?,
        }
        match self.bytes {
            0 => Ok(()),
            _ => write!(out, "; got {}", Quoted(self.received.bytes())),
        }
    }

    /// The sentence for a step: what was expected, what was received, and what ended it.
    fn write_got(&self, out: &mut String, context: &Circumstances<'_>, wanted: &str) -> fmt::Result {
        write!(out, "{wanted}, got ")?;
        match (self.bytes, &self.why) {
            (0, _) => out.push_str("nothing"),
            (_, Why::NotCome(Wanted::Bytes(_))) => write!(out, "{}", Hex(self.received.bytes()))?,
            (..) => write!(out, "{}", Quoted(self.received.bytes()))?,
        }
        match self.cut {
            Some(Cutoff::Deadline) => {
                write!(out, " within {:?}", context.timeout)?;
                self.write_connected(out, context)
            }
            Some(cut) => write!(out, ", then {}", cutoff_words(cut)),
            None => {
                out.push_str(" (only 64 KiB are read)");
                Ok(())
            }
        }
    }

    /// Adds the connect time for the first step, where it shows that there was a connection.
    fn write_connected(&self, out: &mut String, context: &Circumstances<'_>) -> fmt::Result {
        let connected_in = context.connected_in.filter(|_| self.step.is_none_or(|(number, _)| number == 1));
        connected_in.map_or(Ok(()), |connected_in| write!(out, " (connected in {})", Measured(connected_in)))
    }

    pub(super) fn hint(&self, is_tls: bool) -> Option<&'static str> {
        match self.why {
            // It has answered as expected until now, so it speaks this protocol, and first if it has to.
            Why::NotCome(_) if self.spoke && !(self.sends && self.cut == Some(Cutoff::Deadline)) => None,
            Why::NotSent if self.spoke && self.cut != Some(Cutoff::Deadline) => None,
            Why::NotCome(_) => text_hint(self.cut, true, self.sends, self.received.bytes(), is_tls),
            Why::NotSent => text_hint(self.cut, false, self.sends, self.received.bytes(), is_tls),
            Why::Refused(_) => None,
            Why::TooMuchBeforeTls => Some("make the step before TLS expect the whole answer"),
            Why::NoLineEnd => Some("make the step before TLS expect the whole answer, as `expect_hex` does"),
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
        for (step, why, cut, received, code, sentence) in [
            (
                Some((3, 5)),
                Why::NotCome(&text),
                Some(Cutoff::Deadline),
                &b"-ERR x\r\n"[..],
                Code::L7Tout,
                r#"step 3 of 5: expected "+PONG", got "-ERR x\r\n" within 2s"#,
            ),
            (
                Some((1, 2)),
                Why::NotCome(&text),
                Some(Cutoff::Deadline),
                b"",
                Code::L7Tout,
                r#"step 1 of 2: expected "+PONG", got nothing within 2s (connected in 0.4 ms)"#,
            ),
            (
                Some((2, 2)),
                Why::NotCome(&pattern),
                Some(Cutoff::Closed),
                b"500 no\r\n",
                Code::L7Rsp,
                r#"step 2 of 2: expected a match of "^250 ", got "500 no\r\n", then connection closed"#,
            ),
            (
                Some((2, 3)),
                Why::NotCome(&bytes),
                Some(Cutoff::Broke(Errno::ECONNRESET)),
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
                r#"step 2 of 3: expected "+PONG", got "xxx" (only 64 KiB are read)"#,
            ),
            (
                Some((2, 2)),
                Why::Refused("-LOADING"),
                None,
                b"-LOADING Redis is loading the dataset in memory\r\n",
                Code::L7Rsp,
                r#"step 2 of 2: got "-LOADING", which fails the check: "-LOADING Redis is loading the dataset in memory""#,
            ),
            (
                Some((2, 2)),
                Why::Refused("N"),
                None,
                b"N",
                Code::L7Rsp,
                r#"step 2 of 2: got "N", which fails the check"#,
            ),
            (
                Some((5, 6)),
                Why::TooMuchBeforeTls,
                None,
                b"250 injected\r\n",
                Code::L7Rsp,
                r#"step 5 of 6: unexpected data before TLS: "250 injected\r\n""#,
            ),
            (
                Some((1, 1)),
                Why::NotSent,
                Some(Cutoff::Broke(Errno::EPIPE)),
                b"",
                Code::L7Rsp,
                "step 1 of 1: connection reset before the text was sent",
            ),
            (
                None,
                Why::NotCome(&text),
                Some(Cutoff::Closed),
                b"-ERR",
                Code::L7Rsp,
                r#"connection closed before "+PONG" arrived: 4 bytes received; got "-ERR""#,
            ),
        ] {
            let failure = TextFailure {
                step,
                sends: true,
                spoke: false,
                why,
                cut,
                bytes: received.len(),
                received: Excerpt::of(received),
            };
            let mut out = String::new();
            let circumstances = Circumstances {
                took: Duration::from_secs(2),
                connected_in: Some(Duration::from_micros(400)),
                handshake_in: None,
                timeout: Duration::from_secs(2),
                elsewhere: None,
            };
            failure.write_sentence(&mut out, &circumstances).unwrap();
            assert_eq!((failure.code(), out.as_str()), (code, sentence));
        }
    }
}
