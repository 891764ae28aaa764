//! A check of a text protocol in words. Of what it sends, only the length is shown.

use std::fmt;

use super::{Shown, bytes};
use crate::model::policy::{Act, TcpProbe, TextStep, Wanted};

/// `connect, send 14 bytes`; for a check written in steps, every step.
impl fmt::Display for TcpProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.numbered {
            f.write_str("connect")?;
            return self.steps.iter().try_for_each(|step| write!(f, ", {step}"));
        }
        match self.steps.as_slice() {
            [] => f.write_str("connect and close"),
            [TextStep { act: Act::Send(payload), .. }, ..] => {
                write!(f, "connect, send {}", bytes(payload.expose().len()))
            }
            [..] => f.write_str("connect and read"),
        }
    }
}

impl TcpProbe {
    /// What must be received, unless the steps show it.
    pub(super) fn expected(&self) -> Option<String> {
        match self.steps.last() {
            Some(TextStep { act: Act::Wait(Wanted::Text(text)), .. }) if !self.numbered => {
                Some(format!("a text that contains {}", Shown(text)))
            }
            Some(TextStep { act: Act::Wait(Wanted::Line), .. }) => {
                Some("an agent's line that does not say down".into())
            }
            Some(_) | None => None,
        }
    }
}

/// `wait for "+PONG" (fails on "-LOADING")`.
impl fmt::Display for TextStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.act {
            Act::Send(payload) => write!(f, "send {}", bytes(payload.expose().len()))?,
            Act::Wait(wanted) => write!(f, "wait for {wanted}")?,
            Act::StartTls => f.write_str("start TLS")?,
        }
        if !self.fail_on.is_empty() {
            let texts: Vec<_> = self.fail_on.iter().map(|text| Shown(text).to_string()).collect();
            write!(f, " (fails on {})", texts.join(", "))?;
        }
        Ok(())
    }
}

/// `"+PONG"`, `hex 53`, `a match of "^250 "`.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Text(text) => write!(f, "{}", Shown(text)),
            Wanted::Bytes(bytes) => write!(f, "{}", Hex(bytes)),
            Wanted::Match(pattern) => write!(f, "a match of {}", Shown(pattern.as_str())),
            Wanted::Line => f.write_str("line of an agent"),
        }
    }
}

/// Bytes as `expect_hex` has them: `hex 4e 00`. At most 32 are shown.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BYTES_MAX: usize = 32;
        f.write_str("hex")?;
        self.0.iter().take(BYTES_MAX).try_for_each(|byte| write!(f, " {byte:02x}"))?;
        f.write_str(if self.0.len() > BYTES_MAX { " …" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use crate::model::policy::{LinePattern, Payload, PortRule, ProbeKind, ProbeSpec, TlsPolicy};

    #[test]
    fn steps_are_described_without_the_bytes_they_send() {
        let step =
            |act, fail_on: &[&str]| TextStep { act, fail_on: fail_on.iter().map(|text| (*text).into()).collect() };
        let probe = TcpProbe {
            steps: vec![
                step(Act::Wait(Wanted::Text("220".into())), &[]),
                step(Act::Send(Payload::secret(&Secret::new("AUTH hunter2"))), &["-NOAUTH", "-LOADING"]),
                step(Act::Wait(Wanted::Match(LinePattern::try_new("^250 ").unwrap())), &[]),
                step(Act::Wait(Wanted::Bytes([0x53, 0].as_slice().into())), &[]),
                step(Act::StartTls, &[]),
            ],
            numbered: true,
        };
        let tls = TlsPolicy { verify: true, server_name: None, roots: None, client: None };
        let spec =
            ProbeSpec { port: PortRule::Port(25), tls: Some(tls), kind: ProbeKind::Tcp(probe), max_duration: None };
        assert_eq!(
            spec.to_string(),
            "tcp: connect, wait for \"220\", send 12 bytes (fails on \"-NOAUTH\", \"-LOADING\"), wait for a match of \
             \"^250 \", wait for hex 53 00, start TLS on port 25, with TLS (certificate verified)"
        );
    }
}
