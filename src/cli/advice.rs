//! What clap cannot know about a command line that it refuses: the word of another program, a list without commas, a URL in the
//! place of an address. And help texts that fit any terminal: their source is broken at another width than clap breaks them.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use super::args::Cli;
use crate::config::presets::Preset;
use crate::model::Address;

/// Reads the command line; ends the process with a message where it is not good, or where help is asked for.
pub fn parse() -> Cli {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let read = command().try_get_matches().and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    read.unwrap_or_else(|mut error| {
        advise(&mut error, &words);
        error.exit()
    })
}

/// The command line with help texts whose paragraphs are one line each, so that clap alone breaks them.
fn command() -> clap::Command {
    let whole = Cli::command();
    let names: Vec<String> = whole.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    names.into_iter().fold(whole, |whole, name| {
        whole.mut_subcommand(name, |one| match one.get_after_help().map(|text| reflow(&text.to_string())) {
            Some(text) => one.after_help(text),
            None => one,
        })
    })
}

/// A line that ends within a sentence goes on with the next one. Examples are indented and stay as they are.
fn reflow(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let before = out.rsplit('\n').next().unwrap_or_default();
        let plain = |line: &str| !line.is_empty() && !line.starts_with(' ');
        let goes_on = plain(before) && plain(line) && !before.ends_with(['.', ':']);
        let first = out.is_empty();
        match (first, goes_on) {
            (true, _) => {}
            (false, true) => out.push(' '),
            (false, false) => out.push('\n'),
        }
        out.push_str(line);
    }
    out
}

/// Adds a tip where one is known, and takes clap's own away where ours is better.
fn advise(error: &mut clap::Error, words: &[String]) {
    drop_trailing_tip(error);
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let tip = match error.kind() {
        ErrorKind::InvalidSubcommand => subcommand(&said(ContextKind::InvalidSubcommand)),
        ErrorKind::ValueValidation if said(ContextKind::InvalidArg).starts_with("--admin") => {
            admin(&said(ContextKind::InvalidValue))
        }
        ErrorKind::ArgumentConflict if words.get(1).is_some_and(|word| word == "probe") => tried(words),
        ErrorKind::ArgumentConflict | ErrorKind::ValueValidation => spread_list(words),
        ErrorKind::MissingRequiredArgument if words.get(1).is_some_and(|word| word == "probe") => {
            let url = words.iter().skip(2).find(|word| word.contains("://"));
            url.map(|url| format!("a URL is tried with '--url {url}'"))
        }
        ErrorKind::UnknownArgument => unknown(words.get(1).map_or("", String::as_str), &said(ContextKind::InvalidArg)),
        _ => None,
    };
    // An option that overrides a refusal is not offered to somebody who wanted something else.
    if said(ContextKind::SuggestedArg) == "--force"
        && strsim::damerau_levenshtein(&said(ContextKind::InvalidArg), "--force") > 1
    {
        error.remove(ContextKind::SuggestedArg);
        // Clap's usage line has what it suggests.
        error.remove(ContextKind::Usage);
    }
    if error.kind() == ErrorKind::ArgumentConflict {
        // It shows the arguments that exclude each other beside each other.
        error.remove(ContextKind::Usage);
    }
    let Some(tip) = tip else { return };
    error.remove(ContextKind::SuggestedSubcommand);
    error.remove(ContextKind::SuggestedArg);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
}

/// Removes "to pass '-f' as a value, use '-- -f'": hardly anyone has a pool or a file of that name.
fn drop_trailing_tip(error: &mut clap::Error) {
    let Some(ContextValue::StyledStrs(tips)) = error.get(ContextKind::Suggested) else { return };
    let kept: Vec<_> = tips.iter().filter(|tip| !tip.to_string().starts_with("to pass '")).cloned().collect();
    error.remove(ContextKind::Suggested);
    if !kept.is_empty() {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(kept));
    }
}

/// The option that is meant by one that `command` does not have.
fn unknown(command: &str, option: &str) -> Option<String> {
    let asks_a_process = !matches!(command, "run" | "check" | "schema" | "demo" | "probe") && !command.starts_with('-');
    let known = match (command, option) {
        ("drain" | "disable" | "undrain" | "enable" | "weight", "--duration" | "--until" | "--expires" | "--ttl") => {
            "'--for 30m' ends the order by itself"
        }
        ("drain" | "disable", "--deadline") => "'--wait --timeout 2m' waits until nothing is in flight",
        ("undrain" | "enable", "--timeout" | "--wait" | "--deadline") => {
            "'roundsman drain POOL UPSTREAM --wait' waits until nothing is in flight"
        }
        ("drain" | "disable" | "undrain" | "enable", "--all" | "--pools" | "--pool") => {
            "'--all-pools UPSTREAM', without a pool, orders it in every pool"
        }
        ("run", word) if !word.starts_with('-') => {
            "one file is run; without a file: '--listen 127.0.0.1:8080 --to ADDRESS,ADDRESS'"
        }
        ("status", word) if !word.starts_with('-') => "'roundsman explain POOL UPSTREAM' shows one upstream",
        ("status" | "events", "-v" | "--verbose" | "--details") => "'roundsman explain' shows more",
        ("-v" | "-version", _) => "'roundsman --version' prints the version",
        ("status", "-f" | "--follow") => "'--watch' shows it every second",
        ("schema" | "demo", "-f" | "--file" | "--conf") => return None,
        (_, "-f" | "--file" | "--conf") => "'--config FILE' names the configuration file",
        ("run", "-v" | "-d" | "--verbose" | "--debug") => "'--log-level debug' logs more",
        ("run", "-p" | "-l" | "--port" | "--bind" | "--address" | "--host") => {
            "without a file: '--listen 127.0.0.1:8080 --to ADDRESS,ADDRESS'"
        }
        ("run", "--upstream" | "--upstreams" | "--backend" | "--backends" | "--target") => {
            "'--to ADDRESS,ADDRESS' names the upstreams"
        }
        (_, "-p" | "--port" | "--host" | "--address" | "--url") if asks_a_process => {
            "'--admin 127.0.0.1:9900' is the admin address of the running process"
        }
        _ => return None,
    };
    Some(known.to_owned())
}

fn subcommand(word: &str) -> Option<String> {
    let known = match word {
        "start" | "serve" | "up" => "'roundsman run' starts the proxy",
        "stop" | "quit" | "down" | "shutdown" => "a signal stops it: 'kill -TERM PID'",
        "restart" => "'roundsman reload' applies a changed file without a restart",
        "validate" | "test" | "configtest" | "lint" | "verify" => "'roundsman check FILE' looks for mistakes",
        "stats" | "top" | "ps" | "list" | "show" | "health" => "'roundsman status' shows pools and upstreams",
        "set-weight" | "setweight" => "'roundsman weight POOL UPSTREAM N' gives an upstream another weight",
        "log" | "logs" | "history" => "'roundsman events' shows what has happened",
        file if file.ends_with(".toml") || file.contains('/') => {
            return Some(format!("'roundsman run {file}' runs a configuration file"));
        }
        _ => return None,
    };
    Some(known.to_owned())
}

/// The address in a URL, or the one that a bare port means.
fn admin(value: &str) -> Option<String> {
    let bare = value.split_once("://").map_or(value, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or_default();
    let port = bare.trim_start_matches(':').parse::<u16>();
    let meant = port.map_or_else(|_| bare.to_owned(), |port| format!("127.0.0.1:{port}"));
    let good = meant != value && meant.parse::<Address>().is_ok();
    good.then(|| format!("did you mean '--admin {meant}'?"))
}

/// `--to A B`, where the second is read as a file, and `--to A,`.
fn spread_list(words: &[String]) -> Option<String> {
    let to = words.iter().position(|word| word == "--to")? + 1;
    let written: Vec<&str> = words[to..].iter().map(String::as_str).take_while(|word| !word.starts_with('-')).collect();
    let written = written.join(" ");
    let list: Vec<&str> = written.split([',', ' ']).filter(|one| !one.is_empty()).collect();
    let joined = list.join(",");
    let good = !list.is_empty() && list.iter().all(|one| one.parse::<Address>().is_ok());
    (good && joined != written).then(|| format!("several upstreams are one list: '--to {joined}'"))
}

/// `probe ADDRESS --preset NAME`: how a check that is not in the configuration is tried.
fn tried(words: &[String]) -> Option<String> {
    let preset = words.iter().position(|word| word == "--preset").and_then(|at| words.get(at + 1));
    let preset = preset.and_then(|name| Preset::named(name));
    let is_url = |word: &&String| word.contains("://");
    let given = words.iter().skip(2).find(|word| is_url(word) || word.parse::<Address>().is_ok())?;
    let url = match preset.map(|preset| preset.first_check()) {
        _ if is_url(&given) => given.clone(),
        Some(check) if check.https => format!("https://{given}"),
        Some(check) if check.kind == "websocket" => format!("ws://{given}"),
        Some(check) => format!("{}://{given}", check.kind),
        None => format!("http://{given}"),
    };
    let preset = preset.map_or(String::new(), |preset| format!(" --preset {}", preset.name));
    Some(format!("what is not in the configuration is tried with '--url {url}{preset}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message for a command line, with its tip.
    fn refused(line: &str) -> String {
        let words: Vec<String> = std::iter::once("roundsman").chain(line.split(' ')).map(str::to_owned).collect();
        let mut error = command().try_get_matches_from(&words).expect_err(line);
        advise(&mut error, &words);
        error.to_string()
    }

    #[test]
    fn a_mistake_that_is_known_has_a_tip() {
        for (line, tip) in [
            ("start a.toml", "tip: 'roundsman run' starts the proxy"),
            ("stop", "tip: a signal stops it: 'kill -TERM PID'"),
            ("restart", "tip: 'roundsman reload' applies"),
            ("validate a.toml", "tip: 'roundsman check FILE'"),
            ("./a.toml", "tip: 'roundsman run ./a.toml' runs"),
            ("statsu", "tip: a similar subcommand exists: 'status'"),
            ("run --listen 127.0.0.1:80 --to 10.0.0.1:80 10.0.0.2:80", "'--to 10.0.0.1:80,10.0.0.2:80'"),
            ("run --to 10.0.0.1:80, 10.0.0.2:80 --listen 127.0.0.1:80", "'--to 10.0.0.1:80,10.0.0.2:80'"),
            ("run --to 10.0.0.1:80, --listen 127.0.0.1:80", "'--to 10.0.0.1:80'"),
            ("probe http://127.0.0.1:80/up", "tip: a URL is tried with '--url http://127.0.0.1:80/up'"),
            ("status --admin http://127.0.0.1:9900/", "tip: did you mean '--admin 127.0.0.1:9900'?"),
            ("status --admin 9900", "tip: did you mean '--admin 127.0.0.1:9900'?"),
            ("run -f a.toml", "tip: '--config FILE' names the configuration file"),
            ("check --file=a.toml", "tip: '--config FILE' names the configuration file"),
            ("status -f", "tip: '--watch' shows it every second"),
            ("run a.toml -v", "tip: '--log-level debug' logs more"),
            ("-v", "tip: 'roundsman --version' prints the version"),
            ("run --port 8080", "tip: without a file: '--listen 127.0.0.1:8080 --to ADDRESS,ADDRESS'"),
            ("run --upstream 10.0.0.1:80", "tip: '--to ADDRESS,ADDRESS' names the upstreams"),
            ("status --port 9900", "tip: '--admin 127.0.0.1:9900' is the admin address"),
            ("drain api a:1 --until 3s", "tip: '--for 30m' ends the order by itself"),
            ("disable api a:1 --ttl=3s", "tip: '--for 30m' ends the order by itself"),
            ("drain api a:1 --deadline 1m", "tip: '--wait --timeout 2m' waits"),
            ("disable api a:1 --deadline 1m", "tip: '--wait --timeout 2m' waits"),
            ("enable api a:1 --wait", "tip: 'roundsman drain POOL UPSTREAM --wait' waits"),
            ("drain --all a:1", "tip: '--all-pools UPSTREAM', without a pool, orders it in every pool"),
            ("drain api a:1 --forc", "tip: a similar argument exists: '--force'"),
            ("probe --preset redis 127.0.0.1:6379", "'--url tcp://127.0.0.1:6379 --preset redis'"),
            ("probe 127.0.0.1:6443 --preset kubernetes", "'--url https://127.0.0.1:6443 --preset kubernetes'"),
            ("run a b", "tip: one file is run; without a file: '--listen"),
            ("run --port 80", "tip: without a file: '--listen"),
            ("status -v", "tip: 'roundsman explain' shows more"),
            ("status a b", "tip: 'roundsman explain POOL UPSTREAM'"),
            ("status --wach", "tip: a similar argument exists: '--watch'"),
        ] {
            let message = refused(line);
            assert!(message.contains(tip) && message.matches("tip:").count() == 1, "{line}: {message}");
            assert!(line.contains("--forc") || !message.contains("--force"), "{line}: {message}");
        }
        for line in [
            "nonsense-beyond-all",
            "run --listen 127.0.0.1:80 --to 10.0.0.1:80 a.toml",
            "status --admin nonsense",
            "explain -x",
            "check -v",
            "drain api a:1 -q",
            "drain api a:1 --json-lines",
            "undrain api a:1 --nonsense",
        ] {
            assert!(!refused(line).contains("tip:"), "{line}: {}", refused(line));
        }
        for line in ["probe --preset redis 127.0.0.1:1", "run a.toml --listen 127.0.0.1:80 --to 10.0.0.1:80"] {
            assert!(!refused(line).contains("Usage:"), "it shows what excludes each other: {}", refused(line));
        }
    }

    #[test]
    fn help_is_broken_once() {
        assert_eq!(
            reflow("Examples:\n  a\n  b\n\nOne two\nthree. Four.\nFive."),
            "Examples:\n  a\n  b\n\nOne two three. Four.\nFive."
        );
        for one in command().get_subcommands_mut() {
            let name = one.get_name().to_owned();
            let text = one.get_after_help().map(ToString::to_string).unwrap_or_default();
            let after = text.lines().filter(|line| !line.is_empty() && !line.starts_with(' '));
            for line in after {
                assert!(line.ends_with(['.', ':']), "{name}: a sentence ends where its line does: {line:?}");
            }
        }
    }
}
