//! Rules over a body, held piece by piece: the result never depends on how an answer was cut into packets. A text is
//! looked for as the pieces come; a pattern is held against the body once it is whole, because what it finds may depend
//! on what follows (`ready$`, `\b`).

use crate::model::policy::{BodyRule, Pattern};

/// What is known of a body rule so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe) enum Match {
    /// More of the body can decide either way.
    Open,
    /// Met, whatever follows.
    Met,
    /// Not met, whatever follows.
    Missed,
}

/// Holds a body against a rule.
#[derive(Debug, Clone)]
pub(in crate::probe) enum BodyMatcher<'a> {
    Contains(Search<'a>),
    /// The text, and how many bytes of it have come.
    Equals(&'a [u8], usize),
    /// Needs the body itself at its end.
    Matches(&'a Pattern),
}

impl<'a> BodyMatcher<'a> {
    pub(in crate::probe) fn new(rule: &'a BodyRule) -> BodyMatcher<'a> {
        match rule {
            BodyRule::Contains(text) => BodyMatcher::Contains(Search::new(text.as_bytes())),
            BodyRule::Equals(text) => BodyMatcher::Equals(text.as_bytes(), 0),
            BodyRule::Matches(pattern) => BodyMatcher::Matches(pattern),
        }
    }

    /// Takes the next piece of the body. Once it is not `Open`, the answer stays.
    pub(in crate::probe) fn feed(&mut self, piece: &[u8]) -> Match {
        match self {
            BodyMatcher::Contains(search) => search.feed(piece),
            BodyMatcher::Equals(text, at) => {
                let rest = &text[*at..];
                if piece.len() > rest.len() || piece != &rest[..piece.len()] {
                    return Match::Missed;
                }
                *at += piece.len();
                Match::Open
            }
            BodyMatcher::Matches(_) => Match::Open,
        }
    }

    /// The whole `body` has come: whether the rule holds.
    pub(in crate::probe) fn holds(&self, body: &[u8]) -> bool {
        match self {
            BodyMatcher::Contains(search) => search.is_met(),
            BodyMatcher::Equals(text, at) => *at == text.len(),
            BodyMatcher::Matches(pattern) => pattern.is_match(body),
        }
    }

    /// More than `cap` bytes have come, of which `start` holds one more than `cap`: whether the rule was met within them.
    pub(in crate::probe) fn holds_within(&self, start: &[u8], cap: usize) -> bool {
        match self {
            BodyMatcher::Contains(search) => search.is_met(),
            BodyMatcher::Equals(..) => false,
            BodyMatcher::Matches(pattern) => pattern.is_match_within(start, cap),
        }
    }
}

/// Looks for a text in a stream, in linear time whatever both hold (Knuth, Morris, Pratt), and without keeping any of
/// the stream.
#[derive(Debug, Clone)]
pub(in crate::probe) struct Search<'a> {
    text: &'a [u8],
    /// `borders[i]`: the longest proper prefix of the text that ends its first `i + 1` bytes.
    borders: Vec<u32>,
    matched: usize,
}

impl<'a> Search<'a> {
    fn new(text: &'a [u8]) -> Search<'a> {
        let mut borders = vec![0; text.len()];
        let mut length = 0;
        for i in 1..text.len() {
            while length > 0 && text[i] != text[length] {
                length = borders[length - 1] as usize;
            }
            length += usize::from(text[i] == text[length]);
            // The text of a rule comes from a file of at most 16 MiB.
            borders[i] = length as u32;
        }
        Search { text, borders, matched: 0 }
    }

    fn is_met(&self) -> bool {
        self.matched == self.text.len()
    }

    fn feed(&mut self, piece: &[u8]) -> Match {
        for byte in piece {
            if self.is_met() {
                break;
            }
            while self.matched > 0 && *byte != self.text[self.matched] {
                self.matched = self.borders[self.matched - 1] as usize;
            }
            self.matched += usize::from(*byte == self.text[self.matched]);
        }
        if self.is_met() { Match::Met } else { Match::Open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `body` in pieces of every size; the end of the body is announced unless the rule was decided before.
    fn judge(rule: &BodyRule, body: &str) -> Match {
        let verdicts: Vec<Match> = (1..=body.len().max(1))
            .map(|size| {
                let mut matcher = BodyMatcher::new(rule);
                let decided = body.as_bytes().chunks(size).map(|p| matcher.feed(p)).find(|m| *m != Match::Open);
                decided.unwrap_or_else(|| if matcher.holds(body.as_bytes()) { Match::Met } else { Match::Missed })
            })
            .collect();
        assert!(verdicts.windows(2).all(|w| w[0] == w[1]), "{rule:?} on {body:?}: {verdicts:?}");
        verdicts[0]
    }

    #[test]
    fn contains_finds_its_text_across_every_boundary() {
        for (text, body, verdict) in [
            ("ready", "is ready.", Match::Met),
            ("ready", "reaready", Match::Met),
            ("ready", "read", Match::Missed),
            ("ready", "", Match::Missed),
            ("", "", Match::Met),
            ("", "x", Match::Met),
            ("aab", "aaab", Match::Met),
            ("abab", "abaabab", Match::Met),
            ("aaaa", "aaabaaa", Match::Missed),
            ("ü", "ü", Match::Met),
            ("healthy", "unhealthy", Match::Met),
        ] {
            assert_eq!(judge(&BodyRule::Contains(text.into()), body), verdict, "{text:?} in {body:?}");
        }
    }

    #[test]
    fn equals_takes_its_text_and_nothing_else() {
        for (text, body, verdict) in [
            ("ok", "ok", Match::Met),
            ("ok", "ok\n", Match::Missed),
            ("ok", "o", Match::Missed),
            ("ok", "", Match::Missed),
            ("ok", "OK", Match::Missed),
            ("", "", Match::Met),
            ("", "x", Match::Missed),
            ("healthy", "unhealthy", Match::Missed),
        ] {
            assert_eq!(judge(&BodyRule::Equals(text.into()), body), verdict, "{text:?} is {body:?}");
        }
    }

    fn matches(text: &str) -> BodyRule {
        BodyRule::Matches(Pattern::try_new(text).unwrap())
    }

    #[test]
    fn a_pattern_sees_the_whole_body() {
        for (pattern, body, verdict) in [
            ("^ok$", "ok", Match::Met),
            ("^ok$", "ok\n", Match::Missed),
            (r"\bhealthy\b", "is healthy.", Match::Met),
            (r"\bhealthy\b", "unhealthy", Match::Missed),
            ("ready$", "ready, not", Match::Missed),
            ("", "", Match::Met),
            ("(?i)WSO2 api", "<return>WSO2 API Manager-4.4.0</return>", Match::Met),
        ] {
            assert_eq!(judge(&matches(pattern), body), verdict, "{pattern:?} on {body:?}");
        }
    }

    #[test]
    fn a_pattern_over_the_cap_holds_by_what_stands_within_it() {
        for (pattern, start, within) in [
            ("abc", "abcx", true),
            ("x", "abcx", false),
            ("c$", "abcx", false),
            (r"c\b", "abcx", false),
            (r"c\b", "abc ", true),
            ("[a-z]+", "abcx", true),
            ("", "abcx", true),
        ] {
            let (rule, start) = (matches(pattern), start.as_bytes());
            assert_eq!(BodyMatcher::new(&rule).holds_within(start, 3), within, "{pattern:?}");
        }
    }

    proptest! {
        #[test]
        fn matches_agrees_with_the_crate_on_the_whole_body(
            pattern in prop::sample::select(vec!["a+b", "^(ab)*$", r"b\b", "(?i)A.B", "[^a]{3}", "b$"]),
            body in "[ab \n]{0,40}",
        ) {
            let expected = regex::bytes::Regex::new(pattern).unwrap().is_match(body.as_bytes());
            prop_assert_eq!(judge(&matches(pattern), &body) == Match::Met, expected);
        }

        #[test]
        fn contains_agrees_with_the_standard_library(text in "[ab]{0,6}", body in "[ab]{0,40}") {
            let expected = if body.contains(&text) { Match::Met } else { Match::Missed };
            prop_assert_eq!(judge(&BodyRule::Contains(text.as_str().into()), &body), expected);
        }
    }
}
