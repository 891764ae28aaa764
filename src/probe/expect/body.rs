//! Rules over a body, checked piece by piece: the result never depends on the packets. Texts are searched for as the pieces
//! arrive; patterns are matched against the complete body, because a match may depend on what follows (`ready$`, `\b`).

use crate::model::policy::{BodyRule, Pattern};

/// The undecided rules over one body: a rule is removed once it is met, whatever follows.
#[derive(Debug, Clone)]
pub(in crate::probe) struct BodyRules<'a> {
    open: Vec<(&'a BodyRule, Matcher<'a>)>,
}

impl<'a> BodyRules<'a> {
    pub(in crate::probe) fn new(rules: &'a [BodyRule]) -> BodyRules<'a> {
        BodyRules { open: rules.iter().map(|rule| (rule, Matcher::new(rule))).collect() }
    }

    /// Takes the next piece of the body.
    ///
    /// # Errors
    /// The rule that is violated first, by position in the body, then by order in the file. Feed no more pieces then.
    pub(in crate::probe) fn feed(&mut self, piece: &[u8]) -> Result<(), &'a BodyRule> {
        let mut first: Option<(usize, &'a BodyRule)> = None;
        self.open.retain_mut(|(rule, matcher)| match matcher.feed(piece) {
            Match::Open => true,
            Match::Met => false,
            Match::Missed(at) => {
                if first.is_none_or(|(before, _)| at < before) {
                    first = Some((at, rule));
                }
                true
            }
        });
        first.map_or(Ok(()), |(_, rule)| Err(rule))
    }

    /// Whether all rules are met, whatever follows.
    pub(in crate::probe) fn are_met(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether a rule needs the complete body.
    pub(in crate::probe) fn need_whole(&self) -> bool {
        self.open.iter().any(|(_, matcher)| matches!(matcher, Matcher::Matches(_) | Matcher::NotMatches(_)))
    }

    /// The first required text that was not found yet.
    pub(in crate::probe) fn wanted(&self) -> Option<&'a str> {
        self.open.iter().find_map(|(rule, _)| match rule {
            BodyRule::Contains(text) => Some(&**text),
            BodyRule::NotContains(_) | BodyRule::Equals(_) | BodyRule::Matches(_) | BodyRule::NotMatches(_) => None,
        })
    }

    /// The first rule that the complete `body` violates.
    pub(in crate::probe) fn miss(&self, body: &[u8]) -> Option<&'a BodyRule> {
        self.open.iter().find(|(_, matcher)| !matcher.holds(body)).map(|(rule, _)| *rule)
    }

    /// The body is longer than `cap` bytes, and `start` has its first `cap + 1`: the first rule that is not met, and whether
    /// that is because the rest was not read.
    pub(in crate::probe) fn miss_within(&self, start: &[u8], cap: usize) -> Option<(&'a BodyRule, bool)> {
        self.open.iter().find_map(|(rule, matcher)| match matcher.holds_within(start, cap) {
            Within::Holds => None,
            Within::Fails => Some((*rule, false)),
            Within::Unknown => Some((*rule, true)),
        })
    }
}

/// The state of a body rule so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    /// Undecided: it depends on what follows.
    Open,
    /// Met, whatever follows.
    Met,
    /// Violated, whatever follows: at this byte of the piece, so that the pieces do not matter.
    Missed(usize),
}

/// The state of a body rule when no more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Holds,
    Fails,
    /// It depends on the unread rest.
    Unknown,
}

/// Checks a body against a rule.
#[derive(Debug, Clone)]
enum Matcher<'a> {
    Contains(Search<'a>),
    NotContains(Search<'a>),
    /// The text, and the number of its bytes that matched.
    Equals(&'a [u8], usize),
    /// Need the complete body.
    Matches(&'a Pattern),
    NotMatches(&'a Pattern),
}

impl<'a> Matcher<'a> {
    fn new(rule: &'a BodyRule) -> Matcher<'a> {
        match rule {
            BodyRule::Contains(text) => Matcher::Contains(Search::new(text.as_bytes())),
            BodyRule::NotContains(text) => Matcher::NotContains(Search::new(text.as_bytes())),
            BodyRule::Equals(text) => Matcher::Equals(text.as_bytes(), 0),
            BodyRule::Matches(pattern) => Matcher::Matches(pattern),
            BodyRule::NotMatches(pattern) => Matcher::NotMatches(pattern),
        }
    }

    fn feed(&mut self, piece: &[u8]) -> Match {
        match self {
            Matcher::Contains(search) => search.feed(piece).map_or(Match::Open, |_| Match::Met),
            Matcher::NotContains(search) => search.feed(piece).map_or(Match::Open, Match::Missed),
            Matcher::Equals(text, at) => {
                let rest = &text[*at..];
                let same = piece.iter().zip(rest).take_while(|(a, b)| a == b).count();
                *at += same;
                if same < piece.len() { Match::Missed(same) } else { Match::Open }
            }
            Matcher::Matches(_) | Matcher::NotMatches(_) => Match::Open,
        }
    }

    fn holds(&self, body: &[u8]) -> bool {
        match self {
            Matcher::Contains(search) => search.is_met(),
            Matcher::NotContains(search) => !search.is_met(),
            Matcher::Equals(text, at) => *at == text.len(),
            Matcher::Matches(pattern) => pattern.is_match(body),
            Matcher::NotMatches(pattern) => !pattern.is_match(body),
        }
    }

    fn holds_within(&self, start: &[u8], cap: usize) -> Within {
        match self {
            Matcher::Contains(search) if search.is_met() => Within::Holds,
            Matcher::NotContains(search) if search.is_met() => Within::Fails,
            Matcher::Contains(_) | Matcher::NotContains(_) | Matcher::Equals(..) => Within::Unknown,
            Matcher::Matches(pattern) if pattern.is_match_within(start, cap) => Within::Holds,
            Matcher::NotMatches(pattern) if pattern.is_match_within(start, cap) => Within::Fails,
            Matcher::Matches(_) | Matcher::NotMatches(_) => Within::Unknown,
        }
    }
}

/// Searches a stream for a text, always in linear time (Knuth, Morris, Pratt), without buffering the stream.
#[derive(Debug, Clone)]
struct Search<'a> {
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

    /// Searches the next piece; returns where in it the text was complete.
    fn feed(&mut self, piece: &[u8]) -> Option<usize> {
        if self.is_met() {
            return Some(0);
        }
        piece.iter().position(|byte| {
            while self.matched > 0 && *byte != self.text[self.matched] {
                self.matched = self.borders[self.matched - 1] as usize;
            }
            self.matched += usize::from(*byte == self.text[self.matched]);
            self.is_met()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAP: usize = 64;

    /// The first violated rule, and whether because of the unread rest; the same for all pieces.
    fn first_broken<'a>(rules: &'a [BodyRule], body: &[u8]) -> Option<(&'a BodyRule, bool)> {
        let one = |size: usize| {
            let mut open = BodyRules::new(rules);
            let seen = &body[..body.len().min(CAP)];
            for piece in seen.chunks(size) {
                if let Err(rule) = open.feed(piece) {
                    return Some((rule, false));
                }
            }
            if open.are_met() {
                None
            } else if body.len() > CAP {
                open.miss_within(&body[..=CAP], CAP)
            } else {
                open.miss(body).map(|rule| (rule, false))
            }
        };
        let verdicts: Vec<_> = (1..=body.len().max(1)).map(one).collect();
        assert!(verdicts.windows(2).all(|w| w[0] == w[1]), "{rules:?} on {body:?}: {verdicts:?}");
        verdicts[0]
    }

    fn holds(rule: BodyRule, body: &str) -> bool {
        first_broken(&[rule], body.as_bytes()).is_none()
    }

    fn not_contains(text: &str) -> BodyRule {
        BodyRule::NotContains(text.into())
    }

    fn matches(text: &str) -> BodyRule {
        BodyRule::Matches(Pattern::try_new(text).unwrap())
    }

    fn not_matches(text: &str) -> BodyRule {
        BodyRule::NotMatches(Pattern::try_new(text).unwrap())
    }

    #[test]
    fn contains_finds_its_text_across_every_boundary() {
        for (text, body, verdict) in [
            ("ready", "is ready.", true),
            ("ready", "reaready", true),
            ("ready", "read", false),
            ("ready", "", false),
            ("", "", true),
            ("", "x", true),
            ("aab", "aaab", true),
            ("abab", "abaabab", true),
            ("aaaa", "aaabaaa", false),
            ("ü", "ü", true),
            ("healthy", "unhealthy", true),
        ] {
            assert_eq!(holds(BodyRule::Contains(text.into()), body), verdict, "{text:?} in {body:?}");
            assert_eq!(holds(not_contains(text), body), !verdict, "{text:?} not in {body:?}");
        }
    }

    #[test]
    fn equals_accepts_its_text_and_nothing_else() {
        for (text, body, verdict) in [
            ("ok", "ok", true),
            ("ok", "ok\n", false),
            ("ok", "o", false),
            ("ok", "", false),
            ("ok", "OK", false),
            ("", "", true),
            ("", "x", false),
            ("healthy", "unhealthy", false),
        ] {
            assert_eq!(holds(BodyRule::Equals(text.into()), body), verdict, "{text:?} is {body:?}");
        }
    }

    #[test]
    fn a_pattern_sees_the_whole_body() {
        for (pattern, body, verdict) in [
            ("^ok$", "ok", true),
            ("^ok$", "ok\n", false),
            (r"\bhealthy\b", "is healthy.", true),
            (r"\bhealthy\b", "unhealthy", false),
            ("ready$", "ready, not", false),
            ("", "", true),
            ("(?i)WSO2 api", "<return>WSO2 API Manager-4.4.0</return>", true),
        ] {
            assert_eq!(holds(matches(pattern), body), verdict, "{pattern:?} on {body:?}");
            assert_eq!(holds(not_matches(pattern), body), !verdict, "not {pattern:?} on {body:?}");
        }
    }

    #[test]
    fn a_pattern_over_the_cap_is_decided_by_the_bytes_within_it() {
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
            let expected = if within { Within::Holds } else { Within::Unknown };
            assert_eq!(Matcher::new(&rule).holds_within(start, 3), expected, "{pattern:?}");
            let (rule, expected) = (not_matches(pattern), if within { Within::Fails } else { Within::Unknown });
            assert_eq!(Matcher::new(&rule).holds_within(start, 3), expected, "not {pattern:?}");
        }
    }

    #[test]
    fn of_several_rules_the_first_violation_decides() {
        let contains = |text: &str| BodyRule::Contains(text.into());
        let rules = [contains("up"), not_contains("down"), not_matches("err(or)?"), BodyRule::Equals("up, ok".into())];
        for (body, broken) in
            [("up, ok", None), ("up, down", Some(3)), ("down", Some(3)), ("up", Some(3)), ("up, ok, error", Some(3))]
        {
            assert_eq!(first_broken(&rules, body.as_bytes()), broken.map(|i: usize| (&rules[i], false)), "{body:?}");
        }
        for (body, broken) in [
            ("up and running", None),
            ("up and down", Some(1)),
            ("down and up", Some(1)),
            ("up: error", Some(2)),
            ("starting", Some(0)),
            // At its end the first of the file.
            ("error", Some(0)),
        ] {
            assert_eq!(
                first_broken(&rules[..3], body.as_bytes()),
                broken.map(|i: usize| (&rules[i], false)),
                "{body:?}"
            );
        }
    }

    #[test]
    fn rules_that_depend_on_the_unread_rest_fail() {
        let long = |start: &str| format!("{start}{}", ".".repeat(CAP)).into_bytes();
        for (rule, start, want) in [
            (not_contains("down"), "up", Some(true)),
            (not_contains("down"), "down", Some(false)),
            (not_matches("^down"), "up", Some(true)),
            (not_matches("^down"), "down", Some(false)),
            (matches("^up"), "up", None),
            (matches("^up"), "down", Some(true)),
            (BodyRule::Contains("up".into()), "up", None),
            (BodyRule::Contains("up".into()), "down", Some(true)),
        ] {
            let rules = [rule];
            assert_eq!(first_broken(&rules, &long(start)).map(|(_, unread)| unread), want, "{rules:?} on {start}");
        }
        // A body of exactly the cap is decided.
        assert_eq!(first_broken(&[not_contains("down")], &[b'.'; CAP]), None);
    }

    proptest! {
        #[test]
        fn the_cut_never_matters_to_several_rules(
            texts in prop::collection::vec(("[ab]{1,3}", 0..5), 1..5), body in "[ab]{0,70}",
        ) {
            let rule = |(text, kind): &(String, i32)| match kind {
                0 => BodyRule::Contains(text.as_str().into()),
                1 => not_contains(text),
                2 => BodyRule::Equals(text.as_str().into()),
                3 => matches(text),
                _ => not_matches(text),
            };
            let rules: Vec<_> = texts.iter().map(rule).collect();
            let all = rules.iter().all(|rule| first_broken(std::slice::from_ref(rule), body.as_bytes()).is_none());
            prop_assert_eq!(first_broken(&rules, body.as_bytes()).is_none(), all);
        }

        #[test]
        fn matches_agrees_with_the_crate_on_the_whole_body(
            pattern in prop::sample::select(vec!["a+b", "^(ab)*$", r"b\b", "(?i)A.B", "[^a]{3}", "b$"]),
            body in "[ab \n]{0,40}",
        ) {
            let expected = regex::bytes::Regex::new(pattern).unwrap().is_match(body.as_bytes());
            prop_assert_eq!(holds(matches(pattern), &body), expected);
        }

        #[test]
        fn contains_agrees_with_the_standard_library(text in "[ab]{0,6}", body in "[ab]{0,40}") {
            prop_assert_eq!(holds(BodyRule::Contains(text.as_str().into()), &body), body.contains(&text));
        }
    }
}
