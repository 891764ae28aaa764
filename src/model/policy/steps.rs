//! `type = "tcp"`: a check of a text protocol, step by step: what each step sends, waits for or fails on. `probe` runs
//! it. A check without steps is the plain one, which only connects.

use std::fmt;
use std::sync::Arc;

use super::Pattern;
use crate::model::Secret;
use crate::model::quote::Excerpt;

/// `type = "tcp"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct TcpProbe {
    /// Run in this order; at most 16. At most one starts TLS.
    pub steps: Vec<TextStep>,
    /// Written as `steps`, so that messages name steps by number; otherwise written as `send` and `expect`.
    pub numbered: bool,
}

impl TcpProbe {
    /// The steps for `send` and `expect = { contains }`: a text that is sent, and one that must be received.
    pub fn of(send: Option<Payload>, expect: Option<Arc<str>>) -> TcpProbe {
        TcpProbe::ask(send, expect.map(Wanted::Text))
    }

    /// The steps of an agent check: a text that is sent, perhaps, and a line that must be received.
    pub fn agent(send: Option<Payload>) -> TcpProbe {
        TcpProbe::ask(send, Some(Wanted::Line))
    }

    fn ask(send: Option<Payload>, wanted: Option<Wanted>) -> TcpProbe {
        let acts = send.map(Act::Send).into_iter().chain(wanted.map(Act::Wait));
        TcpProbe { steps: acts.map(TextStep::new).collect(), numbered: false }
    }

    /// Whether it only connects: nothing is sent and nothing is expected.
    pub fn is_plain(&self) -> bool {
        self.steps.is_empty()
    }

    /// The secrets in what is sent.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.steps.iter().filter_map(TextStep::payload).flat_map(|payload| &payload.secrets)
    }

    /// Whether one of the steps starts TLS.
    pub fn starts_tls(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.act, Act::StartTls))
    }

    /// `bytes` from the peer, bounded, with our own credentials masked.
    pub fn masked(&self, bytes: &[u8]) -> Excerpt {
        let mut bytes = bytes.to_vec();
        self.steps.iter().filter_map(TextStep::payload).for_each(|payload| payload.mask_octets(&mut bytes));
        Excerpt::of(&bytes).without(self.secrets().flat_map(Secret::to_mask))
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TextStep {
    /// What it does.
    pub act: Act,
    /// Texts that fail the check as soon as one is received. If the step reads nothing, they apply to the next one that
    /// does.
    pub fail_on: Vec<Arc<str>>,
}

impl TextStep {
    /// A step without `fail_on`.
    pub fn new(act: Act) -> TextStep {
        TextStep { act, fail_on: Vec::new() }
    }

    fn payload(&self) -> Option<&Payload> {
        match &self.act {
            Act::Send(payload) => Some(payload),
            Act::Wait(_) | Act::StartTls => None,
        }
    }
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Act {
    /// Sends this.
    Send(Payload),
    /// Reads until this has been received.
    Wait(Wanted),
    /// Makes the TLS handshake; what follows goes over TLS.
    StartTls,
}

/// What a step waits for; the next step reads on after it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// This text; not empty.
    Text(Arc<str>),
    /// These bytes; not empty. Shown as hexadecimal digits.
    Bytes(Arc<[u8]>),
    /// Data in which this pattern matches.
    Match(LinePattern),
    /// A line; it ends with CR, LF or the close of the peer.
    Line,
}

/// What a step sends: 1 byte to 64 KiB, with or without a secret in it. `Debug` shows only its length.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Payload {
    bytes: Arc<[u8]>,
    /// To be masked wherever the peer sends them back.
    secrets: Vec<Secret>,
    /// A secret that is not text; empty if there is none.
    octets: Arc<[u8]>,
}

impl Payload {
    /// Bytes written in the file.
    pub fn plain(bytes: &[u8]) -> Payload {
        Payload { bytes: bytes.into(), secrets: Vec::new(), octets: Arc::from([]) }
    }

    /// A text read from a file or the environment.
    pub fn secret(text: &Secret) -> Payload {
        Payload { bytes: text.expose().as_bytes().into(), secrets: vec![text.clone()], octets: Arc::from([]) }
    }

    /// `bytes`, of which `secret` was read as hexadecimal `digits` from a file or the environment.
    pub fn secret_octets(bytes: &[u8], secret: &[u8], digits: &Secret) -> Payload {
        let text = std::str::from_utf8(secret).ok().map(Secret::new);
        let octets = if text.is_none() { secret.into() } else { Arc::from([]) };
        Payload { bytes: bytes.into(), secrets: text.into_iter().chain([digits.clone()]).collect(), octets }
    }

    /// The bytes for the wire.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Masks a secret that is not text, also when it is cut at the end: the masks for texts cannot express it.
    fn mask_octets(&self, received: &mut Vec<u8>) {
        const BYTES_MIN: usize = 4;
        if self.octets.len() < BYTES_MIN {
            return;
        }
        let mut out = Vec::new();
        let mut rest = received.as_slice();
        while let Some(at) = memchr::memmem::find(rest, &self.octets) {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(b"***");
            rest = &rest[at + self.octets.len()..];
        }
        let cut = (BYTES_MIN..self.octets.len()).rev().find(|length| rest.ends_with(&self.octets[..*length]));
        out.extend_from_slice(&rest[..rest.len() - cut.unwrap_or(0)]);
        out.extend_from_slice(if cut.is_some() { b"***" } else { b"" });
        *received = out;
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.bytes.len())
    }
}

/// A regular expression for the lines of a protocol, linear in the length of the text: `^` and `$` match at the
/// beginning and the end of every line, which may end with CRLF or LF, and `.` does not match a line end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LinePattern(Pattern);

impl LinePattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// `text` is not a regular expression, or is too large.
    pub fn try_new(text: &str) -> Result<LinePattern, regex::Error> {
        let mut builder = regex::bytes::RegexBuilder::new(text);
        Pattern::build(builder.multi_line(true).crlf(true)).map(LinePattern)
    }

    /// The text it was compiled from.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The end of the first match from `from` on, as early as possible. `^` and `\b` see what is before `from`. A match
    /// that more data could undo (`ready$`, `\b`) counts only if the text is `whole`, so that the result does not
    /// depend on how the text was cut into packets.
    pub fn end_of_match(&self, text: &[u8], from: usize, whole: bool) -> Option<usize> {
        let end = self.0.0.shortest_match_at(text, from)?;
        let certain =
            whole || end < text.len() || [b'a', b'\n'].iter().all(|next| self.holds_before(text, from, *next));
        certain.then_some(end)
    }

    /// Whether there is a match in `text` from `from` on, if `next` follows.
    fn holds_before(&self, text: &[u8], from: usize, next: u8) -> bool {
        let longer = [text, &[next]].concat();
        self.0.0.shortest_match_at(&longer, from).is_some_and(|end| end <= text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_sees_lines_and_ends_as_early_as_it_can() {
        for (pattern, text, from, whole, end) in [
            ("^\\+PONG", "+PONG\r\n", 0, false, Some(5)),
            ("^\\+PONG", "+PONG", 0, false, Some(5)),
            ("^\\+PONG", "-ERR\r\n+PONG", 0, false, Some(11)),
            ("^\\+PONG", "x+PONG", 0, false, None),
            // Not at the beginning of a line, although the search begins there.
            ("^50", "250 ok\r\n", 1, false, None),
            ("^250", "220 a\r\n250 b\r\n", 3, false, Some(10)),
            ("ready$", "ready", 0, false, None),
            ("ready$", "ready", 0, true, Some(5)),
            ("ready$", "ready\r\n", 0, false, Some(5)),
            ("ready$", "ready\n", 0, false, Some(5)),
            ("ready$", "ready, not", 0, true, None),
            ("\\bok\\b", "ok", 0, false, None),
            ("\\bok\\b", "ok ", 0, false, Some(2)),
            ("^250 .*$", "250 a\r\n", 0, false, Some(5)),
            ("^250 .*\\r\\n", "250 a", 0, false, None),
            ("[0-9]+", "2200", 0, false, Some(1)),
            ("(?-u:\\xff)", "x", 0, true, None),
        ] {
            let compiled = LinePattern::try_new(pattern).unwrap();
            assert_eq!(compiled.end_of_match(text.as_bytes(), from, whole), end, "{pattern:?} in {text:?}");
        }
    }

    #[test]
    fn secrets_are_masked_as_text_and_as_octets() {
        let step = |payload| TextStep::new(Act::Send(payload));
        let text = Payload::secret(&Secret::new("hunter2hunter2"));
        let secret = [0xff, 0x00, 0x80, 0x81, 0x82];
        let octets = Payload::secret_octets(&[&[1], &secret[..]].concat(), &secret, &Secret::new("ff 00 80 81 82"));
        let probe = TcpProbe { steps: vec![step(text), step(octets)], numbered: true };
        for (received, shown) in [
            (&b"your hunter2hunter2!"[..], &b"your ***!"[..]),
            (b"a\xff\x00\x80\x81\x82b\xff\x00\x80\x81\x82", b"a***b***"),
            (b"cut \xff\x00\x80\x81", b"cut ***"),
            (b"digits ff 00 80 81 82.", b"digits ***."),
            (b"nothing \xff\x00 of it", b"nothing \xff\x00 of it"),
        ] {
            assert_eq!(probe.masked(received).bytes(), shown, "{}", String::from_utf8_lossy(received));
        }
        assert!(!format!("{probe:?}").contains("hunter2"), "{probe:?}");
    }

    #[test]
    fn a_text_to_send_and_one_to_expect_are_two_steps() {
        let probe = TcpProbe::of(Some(Payload::plain(b"PING\r\n")), Some("+PONG".into()));
        assert_eq!((probe.steps.len(), probe.numbered, probe.is_plain()), (2, false, false));
        assert!(TcpProbe::of(None, None).is_plain() && TcpProbe::of(None, None) == TcpProbe::default());
    }
}
