//! Whether an answer is as expected: body rules. Pure, and fed piece by piece: the result never
//! depends on how an answer was cut into packets. What to say about a failure is `finding`'s business.

use crate::model::policy::BodyRule;

/// What is known of a body rule so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// More of the body can decide either way.
    Open,
    /// Met, whatever follows.
    Met,
    /// Not met, whatever follows.
    Missed,
}

/// Holds a body against a rule, piece by piece.
#[derive(Debug, Clone)]
pub(super) enum BodyMatcher<'a> {
    Contains(Search<'a>),
    /// The text, and how many bytes of it have come.
    Equals(&'a [u8], usize),
}

impl<'a> BodyMatcher<'a> {
    pub(super) fn new(rule: &'a BodyRule) -> BodyMatcher<'a> {
        match rule {
            BodyRule::Contains(text) => BodyMatcher::Contains(Search::new(text.as_bytes())),
            BodyRule::Equals(text) => BodyMatcher::Equals(text.as_bytes(), 0),
            BodyRule::Matches(_) => unreachable!("no file can ask for it yet"),
        }
    }

    /// Takes the next piece of the body. Once it is not `Open`, the answer stays.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Match {
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
        }
    }

    /// The body has ended whole: no more is `Open`.
    pub(super) fn end(&self) -> Match {
        let met = match self {
            BodyMatcher::Contains(search) => search.is_met(),
            BodyMatcher::Equals(text, at) => *at == text.len(),
        };
        if met { Match::Met } else { Match::Missed }
    }
}

/// Looks for a text in a stream, in linear time whatever both hold (Knuth, Morris, Pratt), and without keeping any of
/// the stream.
#[derive(Debug, Clone)]
pub(super) struct Search<'a> {
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
                decided.unwrap_or_else(|| matcher.end())
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

    proptest! {
        #[test]
        fn contains_agrees_with_the_standard_library(text in "[ab]{0,6}", body in "[ab]{0,40}") {
            let expected = if body.contains(&text) { Match::Met } else { Match::Missed };
            prop_assert_eq!(judge(&BodyRule::Contains(text.as_str().into()), &body), expected);
        }
    }
}
