//! The steps of a check of a text protocol: what was sent (only its length), what it waited for, and what was received.

use super::{Phase, Steps, handshake};
use crate::model::policy::{Act, ProbeSpec, TcpProbe};
use crate::model::probe::{ProbeReport, Trace};
use crate::model::quote::Quoted;
use crate::model::units::Measured;

/// Adds a line for every step that began, and one for the data received in it.
pub(super) fn add_steps(tcp: &TcpProbe, spec: &ProbeSpec, report: &ProbeReport, steps: &mut Steps) {
    let total = tcp.steps.len();
    for (index, (step, trace)) in tcp.steps.iter().zip(&report.trace.dialogue).enumerate() {
        let (number, done) = (index + 1, trace.done_in.is_some());
        let at = trace.done_in.map_or(String::new(), |at| format!(", {} after the start", Measured(at)));
        match &step.act {
            Act::Send(payload) => {
                let sent = if done { "sent" } else { "not sent" };
                let length = payload.expose().len();
                steps.add(
                    Phase::Request,
                    done,
                    format!("step {number} of {total}: {length} bytes {sent} (not shown){at}"),
                );
            }
            Act::Wait(wanted) => {
                let received = if done { "received" } else { "not received" };
                steps.add(Phase::Answer, done, format!("step {number} of {total}: {wanted} {received}{at}"));
            }
            Act::StartTls => {
                let tls = spec.tls.as_ref().filter(|_| report.trace.tls.is_some());
                match tls {
                    Some(tls) => drop(handshake(tls.verify, report, steps)),
                    None => {
                        steps.add(Phase::Tls, done, format!("step {number} of {total}: the handshake did not finish"))
                    }
                }
            }
        }
        if !trace.received.is_empty() {
            let note = if trace.received.len() >= Trace::BODY_BYTES_MAX { " (its first 256 bytes)" } else { "" };
            steps.good(Phase::Body, format!("{}{note}", Quoted(tcp.masked(&trace.received).bytes())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::policy::{Payload, PortRule, ProbeKind, TextStep, TlsPolicy, Wanted};
    use crate::model::probe::{Code, StepTrace, TlsTrace};
    use crate::model::trace::{Probed, steps};
    use crate::model::{Address, Secret};

    #[test]
    fn every_step_has_its_line_and_what_is_sent_is_never_shown() {
        let wait = |text: &str| TextStep::new(Act::Wait(Wanted::Text(text.into())));
        let probe = TcpProbe {
            steps: vec![
                wait("220"),
                TextStep::new(Act::StartTls),
                TextStep::new(Act::Send(Payload::secret(&Secret::new("hunter2hunter2")))),
                wait("250"),
                wait("never begun"),
            ],
            numbered: true,
        };
        let tls = TlsPolicy { verify: false, server_name: None, roots: None, client: None };
        let spec = ProbeSpec { port: PortRule::Same, tls: Some(tls), kind: ProbeKind::Tcp(probe), max_duration: None };
        let received = |done: Option<u64>, received: &[u8]| StepTrace {
            done_in: done.map(Duration::from_millis),
            received: received.into(),
        };
        let shaken = TlsTrace {
            done_in: Some(Duration::from_millis(3)),
            version: "TLSv1.3".into(),
            alpn: None,
            verified: false,
            certificate: None,
            expires: None,
        };
        let trace = Trace {
            connected_in: Some(Duration::from_micros(310)),
            tls: Some(Box::new(shaken)),
            body: b"220 ready\r\n".as_slice().into(),
            dialogue: [
                received(Some(2), b"220 ready\r\n"),
                received(Some(3), b""),
                received(Some(4), b""),
                received(None, b"500 hunter2hunter2\x1b\r\n"),
            ]
            .into(),
            ..Trace::default()
        };
        let duration = Duration::from_millis(12);
        let report = ProbeReport { trace, ..ProbeReport::new(Code::L7Rsp, duration, "why") };
        let target: Address = "10.0.0.1:25".parse().unwrap();
        let probed = Probed { upstream: &target, name: None, target: &target, spec: &spec, report: &report };
        let line =
            |step: &super::super::Step| format!("{} {} {}\n", if step.ok { "ok" } else { "!!" }, step.step, step.text);
        assert_eq!(
            steps(&probed).iter().map(line).collect::<String>(),
            "ok target 10.0.0.1:25\n\
             ok connect connected in 0.3 ms\n\
             ok answer step 1 of 5: \"220\" received, 2.0 ms after the start\n\
             ok body \"220 ready\\r\\n\"\n\
             ok tls TLSv1.3, done 3.0 ms after the start; no certificate seen\n\
             ok request step 3 of 5: 14 bytes sent (not shown), 4.0 ms after the start\n\
             !! answer step 4 of 5: \"250\" not received\n\
             ok body \"500 ***\\u{1b}\\r\\n\"\n\
             !! verdict fail, L7RSP: why\n"
        );
    }
}
