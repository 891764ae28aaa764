//! The steps of a probe as text, for `explain` and `probe`: a mark, a word, and the details.

use super::text::{Colour, Paint, one_line};
use crate::model::trace::{Phase, Step};

/// One line per step, each indented by `indent`.
pub fn render(steps: &[Step], indent: &str, paint: Paint) -> String {
    steps.iter().map(|step| line(step, indent, paint)).collect()
}

fn line(step: &Step, indent: &str, paint: Paint) -> String {
    let has_no_result = matches!(step.step, Phase::Field | Phase::Body | Phase::Hint);
    let (mark, bad) = match step.ok {
        _ if has_no_result => (" ", None),
        true => ("✓", None),
        false => ("✗", Some(Colour::Red)),
    };
    let colour = match (step.step, step.ok) {
        (Phase::Verdict, true) => Some(Colour::Green),
        (Phase::Verdict, false) => Some(Colour::Red),
        (Phase::Hint, _) => Some(Colour::Yellow),
        (Phase::Target | Phase::Connect | Phase::Tls | Phase::Request, _) => None,
        (Phase::Answer | Phase::Field | Phase::Body, _) => None,
    };
    let word = paint.text(Some(Colour::Dim), &format!("{:<8}", step.step));
    format!("{indent}{} {word} {}\n", paint.text(bad, mark), paint.text(colour, &one_line(&step.text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_aligned_and_control_characters_escaped() {
        let step = |step, ok, text: &str| Step { step, ok, text: text.into() };
        let steps = [
            step(Phase::Target, true, "10.0.0.1:80"),
            step(Phase::Connect, true, "connected in 0.3 ms"),
            step(Phase::Answer, false, "HTTP/1.1 503 \u{1b}[2J\n"),
            step(Phase::Field, true, "Server: x"),
            step(Phase::Verdict, false, "fail, L7STS: status 503"),
            step(Phase::Hint, true, "try"),
        ];
        assert_eq!(
            render(&steps, "  ", Paint::off()),
            "  ✓ target   10.0.0.1:80\n  ✓ connect  connected in 0.3 ms\n  ✗ answer   HTTP/1.1 503 \\u{1b}[2J\\n\n    \
             field    Server: x\n  ✗ verdict  fail, L7STS: status 503\n    hint     try\n"
        );
    }
}
