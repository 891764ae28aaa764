//! Tables of what the peer sends, in every size of pieces, and the finding.

use proptest::prelude::*;

use super::*;
use crate::model::policy::{LinePattern, Payload, TextStep};
use crate::probe::finding::Circumstances;

fn send() -> TextStep {
    TextStep::new(Act::Send(Payload::plain(b"question\r\n")))
}

fn wait(text: &str) -> TextStep {
    TextStep::new(Act::Wait(Wanted::Text(text.into())))
}

fn matches(pattern: &str) -> TextStep {
    TextStep::new(Act::Wait(Wanted::Match(LinePattern::try_new(pattern).unwrap())))
}

fn bytes(bytes: &[u8]) -> TextStep {
    TextStep::new(Act::Wait(Wanted::Bytes(bytes.into())))
}

fn tls() -> TextStep {
    TextStep::new(Act::StartTls)
}

fn failing(step: TextStep, fail_on: &[&str]) -> TextStep {
    TextStep { fail_on: fail_on.iter().map(|text| (*text).into()).collect(), ..step }
}

/// The sentence when the peer sends `said`, in pieces of `size`, the second text over TLS, and then `stop`.
fn sentence(probe: &TcpProbe, said: &[&[u8]], stop: Stop, size: usize) -> String {
    let mut dialogue = Dialogue::new(probe);
    let mut layers = said.iter().copied();
    let mut rest = layers.next().unwrap();
    let ended = loop {
        match dialogue.next(Duration::ZERO) {
            Next::Send(_) => dialogue.on_sent(Duration::ZERO),
            Next::StartTls => {
                rest = layers.next().expect("the peer knows of TLS");
                dialogue.on_tls(Duration::ZERO);
            }
            Next::Read if rest.is_empty() && stop == Stop::Closed => dialogue.on_closed(),
            Next::Read if rest.is_empty() => break stop,
            Next::Read => {
                let (piece, after) = rest.split_at(size.min(rest.len()).min(dialogue.room()));
                assert!(!piece.is_empty(), "there is room for what is asked for");
                dialogue.on_received(piece);
                rest = after;
            }
            Next::Over => break Stop::Enough,
        }
    };
    let mut trace = Trace::default();
    let report = dialogue.finish(ended, said.len() > 1, &mut trace).report(&Circumstances {
        took: Duration::from_millis(1),
        connected_in: None,
        handshake_in: None,
        timeout: Duration::from_secs(2),
        elsewhere: None,
    });
    assert!(trace.dialogue.len() <= probe.steps.len());
    format!("{}: {}", report.code, report.reason)
}

/// The same sentence for every size of pieces.
#[track_caller]
fn check(steps: &[TextStep], said: &[&[u8]], stop: Stop, expected: &str) {
    let probe = TcpProbe { steps: steps.to_vec(), numbered: true };
    let longest = said.iter().map(|text| text.len()).max().unwrap_or(0);
    for size in (1..=longest.clamp(1, 64)).chain([4 << 10]) {
        assert_eq!(sentence(&probe, said, stop, size), expected, "in pieces of {size}");
    }
}

const PASS: &str = "L7OK: answered as expected in 1.0 ms";

#[test]
fn a_step_consumes_its_match_and_the_next_reads_on() {
    let late = Stop::Deadline;
    check(&[wait("a"), wait("b")], &[b"xaxxbx"], late, PASS);
    check(&[wait("a"), wait("b")], &[b"ba"], late, "L7TOUT: step 2 of 2: expected \"b\", got nothing within 2s");
    check(&[wait("aa"), wait("a")], &[b"aaa"], late, PASS);
    check(
        &[wait("aa"), wait("a")],
        &[b"aa"],
        Stop::Closed,
        "L7RSP: step 2 of 2: expected \"a\", got nothing, then connection closed",
    );
    check(&[bytes(&[0, 0x0a]), wait("8.0")], &[b"J\0\0\0\x0a8.0.36\0"], late, PASS);
    check(&[bytes(&[0x53])], &[b"N"], late, "L7TOUT: step 1 of 1: expected hex 53, got hex 4e within 2s");
    let smtp = [wait("220 "), send(), matches("^250 "), send(), matches("^221")];
    check(&smtp, &[b"220-a\r\n220 b\r\n250-c\r\n250 d\r\n221 e\r\n"], late, PASS);
    check(
        &smtp,
        &[b"220 a\r\n550 no, and never\r\n"],
        Stop::Closed,
        "L7RSP: step 3 of 5: expected a match of \"^250 \", got \"a\\r\\n550 no, and never\\r\\n\", then connection closed",
    );
}

#[test]
fn a_pattern_waits_for_data_that_it_depends_on() {
    let missed = "step 1 of 1: expected a match of \"ready$\", got";
    check(&[matches("ready$")], &[b"ready\r\n"], Stop::Deadline, PASS);
    check(&[matches("ready$")], &[b"ready"], Stop::Closed, PASS);
    check(&[matches("ready$")], &[b"ready"], Stop::Deadline, &format!("L7TOUT: {missed} \"ready\" within 2s"));
    let not = format!("L7RSP: {missed} \"ready, not\\r\\n\", then connection closed");
    check(&[matches("ready$")], &[b"ready, not\r\n"], Stop::Closed, &not);
    check(&[matches("^\\+PONG")], &[b"+PONG"], Stop::Deadline, PASS);
    check(&[matches("^\\+PONG")], &[b"-ERR\r\n+PONG"], Stop::Deadline, PASS);
}

#[test]
fn a_text_that_fails_the_check_does_so_at_once() {
    let redis = [send(), failing(wait("+PONG"), &["-LOADING", "-NOAUTH"])];
    check(&redis, &[b"+PONG\r\n"], Stop::Deadline, PASS);
    // The data after it is quoted too, so only the beginning is the same for every size.
    for (said, text) in [("-LOADING Redis is loading\r\n", "-LOADING"), ("-NOAUTH\r\n", "-NOAUTH")] {
        let probe = TcpProbe { steps: redis.to_vec(), numbered: true };
        for size in 1..=said.len() {
            let sentence = sentence(&probe, &[said.as_bytes()], Stop::Deadline, size);
            let expected = format!("L7RSP: step 2 of 2: got \"{text}\", which fails the check");
            assert!(sentence.starts_with(&expected), "{sentence}");
        }
    }
    // The first to end counts; of two that end together, the failure.
    check(&[failing(wait("ready"), &["not ready"])], &[b"it is ready"], Stop::Deadline, PASS);
    check(&[failing(wait("ready"), &["already gone"])], &[b"already gone"], Stop::Deadline, PASS);
    let not = "L7RSP: step 1 of 1: got \"not ready\", which fails the check";
    check(&[failing(wait("ready"), &["not ready"])], &[b"not ready"], Stop::Deadline, not);
    // A step does not match data of a later one: the answer comes in a later step.
    let later = "L7RSP: step 2 of 3: got \"-X\", which fails the check";
    check(&[failing(send(), &["-X"]), wait("+"), wait("-X")], &[b"-X"], Stop::Deadline, later);
    check(&[failing(send(), &["-X"]), wait("+"), wait("-X")], &[b"+-X"], Stop::Deadline, PASS);
}

#[test]
fn at_most_64_kib_are_read() {
    let said = [b'x'; (64 << 10) + 1];
    let probe = TcpProbe { steps: vec![wait("x"), wait("ready")], numbered: true };
    let found = sentence(&probe, &[&said], Stop::Deadline, 4 << 10);
    assert!(found.starts_with("L7RSP: step 2 of 2: expected \"ready\", got \"xxx"), "{found}");
    assert!(found.ends_with("…\" (only 64 KiB are read)"), "{found}");
    let mut at_the_end = [&said[..(64 << 10) - 5], b"ready"].concat();
    assert_eq!(sentence(&probe, &[&at_the_end], Stop::Deadline, 4 << 10), PASS);
    at_the_end.insert(0, b'x');
    assert_ne!(sentence(&probe, &[&at_the_end], Stop::Deadline, 4 << 10), PASS);
}

#[test]
fn single_bytes_do_not_make_a_pattern_search_without_limit() {
    let probe = TcpProbe { steps: vec![matches("ready[0-9]")], numbered: true };
    let mut dialogue = Dialogue::new(&probe);
    while dialogue.next(Duration::ZERO) == Next::Read {
        assert!(dialogue.searched_bytes <= SEARCHED_BYTES_MAX + RECEIVED_BYTES_MAX, "{}", dialogue.searched_bytes);
        dialogue.on_received(if dialogue.room() > 6 { b"x" } else { b"ready1" });
    }
    assert!(dialogue.is_done(), "the last bytes are found too");
}

#[test]
fn tls_starts_after_the_answer_and_earlier_data_is_ignored() {
    let late = Stop::Deadline;
    let smtp = [wait("220"), send(), wait("250 "), send(), wait("220"), tls(), send(), wait("250 ")];
    check(&smtp, &[b"220 a\r\n250-b\r\n250 c\r\n220 go ahead\r\n", b"250 d\r\n"], late, PASS);
    let postgres = [send(), failing(bytes(b"S"), &["N"]), tls()];
    check(&postgres, &[b"S", b""], late, PASS);
    check(&postgres, &[b"N"], late, "L7RSP: step 2 of 3: got \"N\", which fails the check");
    check(&[send(), wait("S"), tls()], &[b"S", b""], late, PASS);
    // The rest of a greeting, and no answer to the request for TLS.
    check(&[bytes(&[0x0a]), send(), tls()], &[b"J\0\0\0\x0a8.0.36\0salt", b""], late, PASS);
    let injected = [wait("220"), tls(), wait("250")];
    let nothing = "L7RSP: step 3 of 3: expected \"250\", got nothing, then connection closed";
    let whole = |steps: &[TextStep], said: &[&[u8]], stop| {
        sentence(&TcpProbe { steps: steps.to_vec(), numbered: true }, said, stop, 4 << 10)
    };
    assert_eq!(whole(&injected, &[b"220 250 x\r\n", b""], Stop::Closed), nothing);
    for (steps, said, rest) in [
        (&injected[..], &b"220 go\r\n250 injected\r\n"[..], "go\\r\\n250 injected\\r\\n"),
        (&postgres, b"Sinjected", "injected"),
    ] {
        let sentence = whole(steps, &[said], late);
        assert!(sentence.contains("unexpected data before TLS: "), "{sentence}");
        assert!(sentence.starts_with("L7RSP: step ") && sentence.contains(rest), "{sentence}");
    }
    let cut = "L7RSP: step 2 of 3: expected the end of the line before TLS, got \" go\", then connection closed";
    assert_eq!(whole(&injected, &[b"220 go"], Stop::Closed), cut);
}

#[test]
fn an_unsent_text_is_a_failure_unless_the_peer_has_answered() {
    let run = |steps: &[TextStep], said: &[u8]| {
        let probe = TcpProbe { steps: steps.to_vec(), numbered: true };
        let mut dialogue = Dialogue::new(&probe);
        let broke = Stop::Broke(Fault::Theirs(nix::errno::Errno::EPIPE));
        let mut said = Some(said);
        loop {
            match dialogue.next(Duration::ZERO) {
                Next::Send(_) => dialogue.on_not_sent(),
                Next::Read => match said.take() {
                    Some(said) if !said.is_empty() => dialogue.on_received(said),
                    _ => break,
                },
                Next::Over | Next::StartTls => break,
            }
        }
        assert!(!dialogue.is_done());
        let code = dialogue.finish(broke, false, &mut Trace::default());
        match code {
            Finding::TextFailed(failure) => (failure.step, failure.why == Why::NotSent),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(run(&[send()], b""), (Some((1, 1)), true));
    assert_eq!(run(&[send(), wait("+")], b""), (Some((2, 2)), false));
    assert_eq!(run(&[wait("+"), send()], b"+"), (Some((2, 2)), true));
}

#[test]
fn a_line_of_an_agent_ends_with_its_end_or_the_connection() {
    for (said, stop, expected) in [
        ("up\n", Stop::Deadline, "L7OK: the agent says \"up\""),
        ("up 50%\r\n", Stop::Deadline, "L7OK: the agent says \"up 50%\""),
        ("up\rdown\n", Stop::Deadline, "L7OK: the agent says \"up\""),
        ("up\ndown\n", Stop::Closed, "L7OK: the agent says \"up\""),
        ("drain", Stop::Closed, "L7OK: the agent says \"drain\""),
        ("down # disk\n", Stop::Deadline, "L7STS: the agent says \"down # disk\""),
        ("\nup\n", Stop::Deadline, "L7RSP: the line of the agent is empty"),
        ("up", Stop::Deadline, "L7TOUT: no line of an agent within 2s; got \"up\""),
        ("", Stop::Deadline, "L7TOUT: no line of an agent within 2s"),
        ("", Stop::Closed, "L7RSP: connection closed before the line of an agent arrived: 0 bytes received"),
    ] {
        for size in 1..8 {
            let probe = TcpProbe::agent(Some(Payload::plain(b"web1\n")));
            assert_eq!(sentence(&probe, &[said.as_bytes()], stop, size), expected, "{said:?} in pieces of {size}");
        }
    }
    let endless = "u".repeat(80 << 10);
    let (probe, stop) = (TcpProbe::agent(None), Stop::Deadline);
    let sentence = sentence(&probe, &[endless.as_bytes()], stop, 4 << 10);
    assert!(sentence.starts_with("L7RSP: no line of an agent in the first 64 KiB"), "{sentence}");
}

proptest! {
    /// Whatever the peer sends, the pieces change nothing, and nothing panics.
    #[test]
    fn pieces_change_nothing(
        said in "[ab\r\n]{0,40}",
        texts in prop::collection::vec("[ab]{1,3}", 1..4),
        fail in "[ab]{2,4}",
        closed in any::<bool>(),
    ) {
        let mut steps: Vec<_> = texts.iter().map(|text| wait(text)).collect();
        steps.insert(0, send());
        if !texts[0].contains(&*fail) {
            steps[1] = failing(steps[1].clone(), &[&fail]);
        }
        steps.push(matches("^b"));
        let probe = TcpProbe { steps, numbered: true };
        let stop = if closed { Stop::Closed } else { Stop::Deadline };
        let first_words = |size| {
            let sentence = sentence(&probe, &[said.as_bytes()], stop, size);
            // The rest of the quotation depends on the data received with the failing text.
            sentence.split("which fails the check").next().unwrap_or_default().to_owned()
        };
        let whole = first_words(4 << 10);
        for size in 1..8 {
            prop_assert_eq!(first_words(size), whole.clone(), "in pieces of {}", size);
        }
    }
}
