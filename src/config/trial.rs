//! Tries suggestions: each is written into the file in its place, and the file is read again by all rules. A suggestion
//! that would be a mistake there is not made; of several, the first that holds is. Pure; called by `parse` when all
//! mistakes are known.

use std::ops::Range;

use super::report::Report;
use super::store::Store;
use super::{Env, read_and_validate};

/// How many bytes of text the trials for one file may read in all. A file of usual size has every suggestion tried; in a
/// very large one the last suggestions fit the type of their key, and nothing more is known.
const TRIED_BYTES_MAX: usize = 4 << 20;

/// Keeps for each place the first suggestion that is no mistake there. `store` saves making expensive values again.
pub fn choose_suggestions(text: &str, env: &dyn Env, store: Store, report: &mut Report) {
    let mut left = TRIED_BYTES_MAX;
    let mut store = Some(store);
    report.choose_suggestions(|place, suggestion| {
        let Some(followed) = follow(text, place, suggestion) else { return false };
        match left.checked_sub(followed.len()) {
            Some(rest) => left = rest,
            None => return true,
        }
        let mut trial = Report::new("");
        let values = store.take().unwrap_or_default();
        store = Some(read_and_validate(&followed, env, &mut trial, values, true).1);
        !trial.has_error_in(&(place.start..place.start + suggestion.len()))
    });
}

/// The text with `suggestion` in its place.
fn follow(text: &str, place: &Range<usize>, suggestion: &str) -> Option<String> {
    Some([text.get(..place.start)?, suggestion, text.get(place.end..)?].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::presets::EmptyEnv;
    use crate::config::report::Found;

    const TEXT: &str = "[listeners.web]\naddress = \"127.0.0.1:80\"\npool = \"a\"\n[pools.a]\n\
        upstreams = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\nhealth = { timeout = 800 }\n";

    #[test]
    fn the_first_suggestion_that_holds_in_its_place_is_kept() {
        let at = TEXT.find("800").unwrap();
        for (suggestions, kept) in [
            (&["\"800s\"", "\"800ms\""][..], Some("\"800ms\"")),
            (&["\"800ms\"", "\"800s\""], Some("\"800ms\"")),
            (&["\"800s\"", "800"], None),
            (&["8s"], None),
            (&[], None),
        ] {
            let mut report = Report::new("x");
            let found = Found::error(at..at + 3, "", "m");
            report.add(suggestions.iter().fold(found, |found, text| found.suggestion(Some(*text))));
            choose_suggestions(TEXT, &EmptyEnv, Store::default(), &mut report);
            assert_eq!(report.finish(TEXT)[0].suggestion.as_deref(), kept, "{suggestions:?}");
        }
    }

    struct OneVariable;

    impl Env for OneVariable {
        fn var(&self, name: &str) -> Result<Option<String>, String> {
            Ok((name == "BACKEND").then(|| "10.0.0.3".to_owned()))
        }

        fn read_file(&self, _: &std::path::Path) -> Result<String, String> {
            Err("cannot be read".to_owned())
        }
    }

    #[test]
    fn a_variable_is_suggested_only_if_it_is_set() {
        for (written, suggestion) in [("$BACKEND:80", Some("\"${BACKEND}:80\"")), ("$OTHER:80", None)] {
            let text = TEXT.replace("10.0.0.1:80", written).replace("800", "\"8s\"");
            let found = crate::config::parse(&crate::config::Source { file: "x", text: text.as_bytes() }, &OneVariable);
            let [found] = &found.unwrap_err()[..] else { panic!("one mistake") };
            let name = written.trim_start_matches('$').trim_end_matches(":80");
            assert_eq!(found.suggestion.as_deref(), suggestion);
            assert!(found.expected.as_ref().unwrap().ends_with(&format!("a variable is written `${{{name}}}`")));
        }
    }

    #[test]
    fn what_trials_may_read_is_bounded() {
        let text = format!("{TEXT}{}", "# comment\n".repeat(TRIED_BYTES_MAX / 10));
        let at = text.find("800").unwrap();
        let mut report = Report::new("x");
        report.add(Found::error(at..at + 3, "", "m").suggestion(Some("\"800s\"")));
        choose_suggestions(&text, &EmptyEnv, Store::default(), &mut report);
        assert_eq!(report.finish(&text)[0].suggestion.as_deref(), Some("\"800s\""), "it was not tried");
    }
}
