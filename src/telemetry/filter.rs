//! Which lines are logged: a level, or the directives of `RUST_LOG`, parsed strictly. The parser of `tracing` takes an
//! unknown word for the name of a target, so `warning` would select a module of that name, and nothing would be logged.
//! Here such a word is an error. Pure.

use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Libraries whose log clients and upstreams can flood: a line for every failed handshake, every client that
/// disconnects, every unexpected byte of an upstream. They are off; our own lines and counters report the important
/// part at a bounded rate. Other libraries log warnings.
const LIBRARIES: &str =
    "pingora_core=off,pingora_proxy=off,pingora_pool=off,pingora_http=off,h2=off,hyper=off,hyper_util=off,rustls=off";

/// Names of other programs for our levels.
const SYNONYMS: [(&str, &str); 20] = [
    ("warning", "warn"),
    ("warnings", "warn"),
    ("notice", "info"),
    ("information", "info"),
    ("informational", "info"),
    ("default", "info"),
    ("err", "error"),
    ("errors", "error"),
    ("crit", "error"),
    ("critical", "error"),
    ("fatal", "error"),
    ("alert", "error"),
    ("emerg", "error"),
    ("emergency", "error"),
    ("verbose", "debug"),
    ("all", "trace"),
    ("none", "off"),
    ("quiet", "off"),
    ("silent", "off"),
    ("disabled", "off"),
];

/// The levels, most important first.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Why a filter is refused: one sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_name} {text:?}: {problem}")]
pub struct BadFilter {
    /// Where it comes from: `--log-level` or `RUST_LOG`.
    pub source_name: &'static str,
    /// The complete filter.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The filter of the flag, else of the environment, else `info`. An empty variable counts as not set.
///
/// # Errors
/// The filter names a level that does not exist, or none.
pub(super) fn filter(flag: Option<&str>, environment: Option<&str>) -> Result<EnvFilter, BadFilter> {
    let (source_name, wanted) = match (flag, environment.filter(|text| !text.trim().is_empty())) {
        (Some(flag), _) => ("--log-level", flag),
        (None, Some(environment)) => ("RUST_LOG", environment),
        (None, None) => ("RUST_LOG", "info"),
    };
    let bad = |problem: String| BadFilter { source_name, text: wanted.to_owned(), problem };
    let directives = directives(wanted).map_err(bad)?;
    EnvFilter::try_new(&directives).map_err(|error| bad(error.to_string()))
}

/// The directives for `EnvFilter`. A bare level is for our own lines; libraries stay at warnings. Targets that are not
/// named keep their default.
fn directives(wanted: &str) -> Result<String, String> {
    let (mut ours, mut others) = (LevelFilter::INFO, Vec::new());
    let mut some = false;
    for directive in split(wanted).map(str::trim).filter(|directive| !directive.is_empty()) {
        some = true;
        match split_level(directive) {
            (None, word) if level(word).is_some() => ours = level(word).unwrap_or(ours),
            (None, target) if is_own_target(target) || target.contains('[') => others.push(directive),
            (None, word) => return Err(no_level(word)),
            (Some(_), word) if level(word).is_some() => others.push(directive),
            (Some(_), word) => return Err(format!("{word:?} is not a level{}", expected(word))),
        }
    }
    if !some {
        return Err(format!("it names no level{}", expected("")));
    }
    let libraries = ours.min(LevelFilter::WARN);
    let own = [format!("{libraries},roundsman={ours},{LIBRARIES}")];
    Ok(own.iter().map(String::as_str).chain(others).collect::<Vec<_>>().join(","))
}

/// Splits directives at commas, except within brackets (`target[span{a,b}]=level`).
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |c| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

/// Splits a directive into its target and its level; without a target if there is no `=` after the brackets.
fn split_level(directive: &str) -> (Option<&str>, &str) {
    let after = directive.rfind([']', '}']).map_or(0, |at| at + 1);
    match directive[after..].rfind('=') {
        Some(at) => (Some(directive[..after + at].trim()), directive[after + at + 1..].trim()),
        None => (None, directive),
    }
}

/// Whether a word without a level is a target of ours (which selects all of its lines) and not a misspelt level.
fn is_own_target(word: &str) -> bool {
    word == "roundsman" || word.contains("::")
}

fn level(word: &str) -> Option<LevelFilter> {
    if word.is_empty() { None } else { LevelFilter::from_str(word).ok() }
}

fn no_level(word: &str) -> String {
    format!("{word:?} is not a level, so it was read as a target; for a target write {word}=LEVEL{}", expected(word))
}

/// The suggestion and the list of valid levels, to append to a message.
fn expected(word: &str) -> String {
    let word = word.to_ascii_lowercase();
    let synonym = SYNONYMS.iter().find(|(known, _)| *known == word).map(|(_, level)| *level);
    let reach = if word.len() < 4 { 1 } else { 2 };
    let near = || {
        LEVELS.into_iter().filter(|level| strsim::osa_distance(&word, level) <= reach).min_by_key(|level| {
            // With equal distances, the level with the same first letter wins.
            (strsim::osa_distance(&word, level), !word.starts_with(&level[..1]))
        })
    };
    let suggestion = match synonym.or_else(|| if word.len() < 3 { None } else { near() }) {
        Some(level) => format!("; did you mean {level:?}?"),
        None => String::new(),
    };
    format!("{suggestion} (levels are {})", LEVELS.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_environment_and_a_bare_level_is_ours_alone() {
        let text = |flag, environment| filter(flag, environment).map(|f| f.to_string()).unwrap_or_default();
        assert!(text(None, None).contains("roundsman=info"));
        assert!(text(None, Some("debug")).contains("roundsman=debug"));
        assert!(text(Some("trace"), Some("debug")).contains("roundsman=trace"));
        assert!(text(Some("trace"), None).contains("warn"), "{}", text(Some("trace"), None));
        assert!(text(Some("roundsman::probe=trace"), None).contains("roundsman::probe=trace"));
        assert!(text(None, Some(" ")).contains("roundsman=info"));
        assert!(text(Some("info"), Some("nonsense")).contains("roundsman=info"), "the variable is not used");
    }

    #[test]
    fn an_accepted_filter_never_silences_what_it_does_not_name() {
        for (wanted, ours) in [
            ("warn", "roundsman=warn"),
            ("WARN", "roundsman=warn"),
            ("Debug", "roundsman=debug"),
            ("off", "roundsman=off"),
            ("0", "roundsman=off"),
            (" error ", "roundsman=error"),
            ("hyper=debug", "roundsman=info"),
            ("roundsman::probe=trace", "roundsman=info"),
            ("roundsman::probe", "roundsman=info"),
            ("debug,hyper=trace", "roundsman=debug"),
            ("hyper=trace,,debug,", "roundsman=debug"),
            ("roundsman=warn", "roundsman=warn"),
            ("roundsman", "roundsman=trace"),
            ("roundsman[probe{pool=api}]=trace", "roundsman=info"),
        ] {
            let text = filter(Some(wanted), None).unwrap_or_else(|e| panic!("{e}")).to_string();
            assert!(text.split(',').any(|directive| directive == ours), "{wanted:?}: {text}");
        }
        assert!(filter(Some("hyper=trace"), None).unwrap().to_string().contains("hyper=trace"));
    }

    #[test]
    fn a_level_that_does_not_exist_is_an_error_with_a_suggestion() {
        for (wanted, meant) in [
            ("warning", "\"warn\""),
            ("WARNING", "\"warn\""),
            ("notice", "\"info\""),
            ("debg", "\"debug\""),
            ("inof", "\"info\""),
            ("eror", "\"error\""),
            ("tracee", "\"trace\""),
            ("crit", "\"error\""),
            ("none", "\"off\""),
            ("roundsman=warning", "\"warn\""),
            ("roundsman=", "levels are error"),
            ("info,roundsman::probe=debg", "\"debug\""),
            ("info,debg", "\"debug\""),
            ("foo", "\"foo\" is not a level, so it was read as a target; for a target write foo=LEVEL (levels"),
            ("hyper", "hyper=LEVEL"),
            ("roundsman::probe=6", "levels are error"),
            ("a=b=c", "levels are error"),
            ("", "names no level"),
            (",", "names no level"),
            ("ü", "levels are error"),
        ] {
            let error = filter(Some(wanted), None).expect_err(wanted).to_string();
            assert!(error.starts_with(&format!("--log-level {wanted:?}: ")), "{error}");
            assert!(error.contains(meant) && error.contains("error, warn, info, debug, trace, off"), "{error}");
        }
        let error = filter(None, Some("foo")).expect_err("it is not a level").to_string();
        assert!(error.starts_with("RUST_LOG \"foo\": \"foo\" is not a level"), "{error}");
    }
}
