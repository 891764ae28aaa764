//! Sentences of failed connections, as operators see them; those of answers are in the tests of `answer`.

use super::*;
use crate::model::policy::Wanted;
use crate::model::quote::Excerpt;

#[track_caller]
fn check(finding: Finding<'_>, elsewhere: Option<&str>, code: Code, sentence: &str) {
    let elsewhere: Option<Address> = elsewhere.map(|text| text.parse().unwrap());
    let report = finding.report(&Circumstances {
        took: Duration::from_micros(320),
        connected_in: None,
        handshake_in: None,
        timeout: Duration::from_secs(2),
        elsewhere: elsewhere.as_ref(),
    });
    assert_eq!((report.code, report.sentence().as_str()), (code, sentence));
    assert_eq!((report.status, report.duration), (None, Duration::from_micros(320)));
}

#[test]
fn a_failed_connection_has_its_reason() {
    let down = "the host is down, a firewall drops what is sent to it, or its queue of new connections is full: \
                overloaded or stopped";
    for (errno, code, sentence) in [
        (Errno::ECONNREFUSED, Code::L4Con, "connection refused (nothing listens there)".to_owned()),
        (Errno::EHOSTUNREACH, Code::L4Con, "host unreachable (no route from this machine)".to_owned()),
        (Errno::ENETUNREACH, Code::L4Con, "network unreachable (no route from this machine)".to_owned()),
        (Errno::ECONNRESET, Code::L4Con, "connection reset while connecting".to_owned()),
        (Errno::ENOENT, Code::L4Con, "no such socket (nothing listens there)".to_owned()),
        (
            Errno::EACCES,
            Code::L4Con,
            "connection not permitted (this process may not connect: permissions of the socket, or a local firewall)"
                .to_owned(),
        ),
        (Errno::ETIMEDOUT, Code::L4Tout, format!("no connection: the kernel's connect timed out ({down})")),
        (Errno::ENETDOWN, Code::L4Con, "Network is down".to_owned()),
    ] {
        check(Finding::NotConnected(Fault::Theirs(errno)), None, code, &sentence);
    }
    check(Finding::ConnectTimeout, None, Code::L4Tout, &format!("no connection within 2s ({down})"));
    check(Finding::Connected, None, Code::L4Ok, "connected in 0.3 ms");
}

#[test]
fn an_address_that_differs_from_the_upstreams_is_named() {
    let sentence = "connection refused at 10.9.0.2:9201 (nothing listens there)";
    let refused = Finding::NotConnected(Fault::Theirs(Errno::ECONNREFUSED));
    check(refused, Some("10.9.0.2:9201"), Code::L4Con, sentence);
}

#[test]
fn our_own_lack_of_resources_gives_no_verdict() {
    for (errno, sentence) in [
        (
            Errno::EMFILE,
            "not probed: this process has no file descriptors left (EMFILE) \
             (raise the limit of open files (ulimit -n, LimitNOFILE))",
        ),
        (Errno::ENFILE, "not probed: this machine has no file descriptors left (ENFILE)"),
        (Errno::ENOBUFS, "not probed: this machine has no buffers left (ENOBUFS)"),
        (Errno::ENOMEM, "not probed: this machine has no memory left (ENOMEM)"),
        (
            Errno::EADDRNOTAVAIL,
            "not probed: this machine has no free port or address (EADDRNOTAVAIL) \
             (widen net.ipv4.ip_local_port_range, or give this machine an address of that family)",
        ),
    ] {
        check(Finding::NotConnected(Fault::Ours(errno)), None, Code::NoRes, sentence);
        check(Finding::NoResources(errno), None, Code::NoRes, sentence);
    }
}

#[test]
fn an_incomplete_handshake_has_its_reason() {
    let may = "this port may not speak TLS, or its server is going down";
    for (cut, code, sentence) in [
        (
            Cutoff::Deadline,
            Code::L6Tout,
            "no TLS handshake within 2s at 10.9.0.2:9443 \
             (this port may not speak TLS, or its server is overloaded or stopped)"
                .to_owned(),
        ),
        (Cutoff::Closed, Code::L6Rsp, format!("connection closed in the TLS handshake at 10.9.0.2:9443 ({may})")),
        (
            Cutoff::Broke(Errno::ECONNRESET),
            Code::L6Rsp,
            format!("connection reset in the TLS handshake at 10.9.0.2:9443 ({may})"),
        ),
    ] {
        check(Finding::NoHandshake { cut, speaks_tls: false }, Some("10.9.0.2:9443"), code, &sentence);
    }
    for (cut, code, sentence) in [
        (
            Cutoff::Deadline,
            Code::L6Tout,
            "no TLS handshake within 2s (its server is overloaded or stopped, or the network loses packets)",
        ),
        (Cutoff::Closed, Code::L6Rsp, "connection closed in the TLS handshake (its server may be going down)"),
    ] {
        check(Finding::NoHandshake { cut, speaks_tls: true }, None, code, sentence);
    }
    let failure = Failure::NotTls(b"SSH-2.0-x\x1b".as_slice().into());
    let sentence = r#"the answer to the TLS handshake is not TLS: "SSH-2.0-x\u{1b}" at 10.9.0.2:22 (this port does not speak TLS)"#;
    check(Finding::Tls(Box::new(failure)), Some("10.9.0.2:22"), Code::L6Rsp, sentence);
    check(Finding::HandshakeDone, None, Code::L6Ok, "TLS handshake in 0.3 ms");
}

#[test]
fn a_text_that_could_not_be_sent_is_a_failure_too() {
    let unsent = |cut| {
        let received = Excerpt::default();
        let why = Why::NotSent;
        Finding::TextFailed(Box::new(TextFailure {
            step: None,
            sends: false,
            spoke: false,
            why,
            cut: Some(cut),
            bytes: 0,
            received,
        }))
    };
    let may = "this port may speak TLS or another protocol";
    for (cut, code, sentence) in [
        (Cutoff::Closed, Code::L7Rsp, format!("connection closed before the text was sent ({may})")),
        (Cutoff::Broke(Errno::EPIPE), Code::L7Rsp, format!("connection reset before the text was sent ({may})")),
        (
            Cutoff::Deadline,
            Code::L7Tout,
            "the text could not be sent within 2s (it accepts connections but does not read: overloaded or stopped)"
                .to_owned(),
        ),
    ] {
        check(unsent(cut), None, code, &sentence);
    }
    check(Finding::TextMatched, None, Code::L7Ok, "answered as expected in 0.3 ms");
}

#[test]
fn no_hint_contradicts_a_step_that_was_made() {
    let hint = |sends, spoke, sent: bool, cut| {
        let wanted = Wanted::Text("250".into());
        let why = if sent { Why::NotCome(&wanted) } else { Why::NotSent };
        let (step, received) = (Some((2, 3)), Excerpt::default());
        TextFailure { step, sends, spoke, why, cut: Some(cut), bytes: 0, received }.hint(false)
    };
    let silent = Some("it accepts connections but does not answer what was sent");
    for cut in [Cutoff::Deadline, Cutoff::Closed, Cutoff::Broke(Errno::ECONNRESET)] {
        assert!(hint(false, false, true, cut).is_some());
        assert_eq!(hint(false, true, true, cut), None, "{cut:?}");
        let expected = if cut == Cutoff::Deadline { silent } else { None };
        assert_eq!(hint(true, true, true, cut), expected, "{cut:?}");
        assert_eq!(hint(true, true, false, cut).is_some(), cut == Cutoff::Deadline, "{cut:?}");
    }
}
