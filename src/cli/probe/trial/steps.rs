//! `--send`, `--expect` and the other steps of a check of a text protocol, in the order in which the command line has
//! them. `clap` keeps the values of each argument apart, so the order comes from their indices.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Id, value_parser};

use super::args::Hidden;
use super::string;

const HEADING: &str = "Its steps (tcp, in the given order)";

/// What an argument adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// A step with this key and a text, in which `\r`, `\n`, `\t` and `\\` are read.
    Text(&'static str),
    /// The same, with the text as it is: hexadecimal digits, a regular expression.
    Verbatim(&'static str),
    /// A step that sends what a file holds: `PATH`, `PREFIX@PATH` or `PREFIX@PATH@SUFFIX`.
    File(&'static str),
    StartTls,
    /// A text of `fail_on` of the step before it.
    FailOn,
}

/// Name, what it adds, name of its value, help.
const WORDS: [(&str, Word, &str, &str); 9] = [
    ("send", Word::Text("send"), "TEXT", "Send this text; \\r, \\n, \\t and \\\\ are read as in the file"),
    (
        "send-file",
        Word::File("send"),
        "[PREFIX@]FILE[@SUFFIX]",
        "Send what a file holds, such as a password: 'AUTH @/run/pw@\\r\\n'",
    ),
    ("send-hex", Word::Verbatim("send_hex"), "HEX", "Send these bytes"),
    ("send-hex-file", Word::File("send_hex"), "[HEX@]FILE[@HEX]", "Send the bytes whose digits a file holds"),
    ("expect", Word::Text("expect"), "TEXT", "Read until this text arrives; escapes as for --send"),
    ("expect-hex", Word::Verbatim("expect_hex"), "HEX", "Read until these bytes arrive"),
    ("matches", Word::Verbatim("matches"), "REGEX", "Read until this regular expression matches"),
    ("starttls", Word::StartTls, "", "Make the TLS handshake here"),
    ("fail-on", Word::FailOn, "TEXT", "Fail if this text arrives during the step before it; may be repeated"),
];

/// The arguments that make steps, in the order of the command line.
#[derive(Debug, Clone, Default)]
pub struct StepArgs(Vec<(Word, Hidden)>);

impl Args for StepArgs {
    fn group_id() -> Option<Id> {
        None
    }

    fn augment_args(command: Command) -> Command {
        WORDS.into_iter().fold(command, |command, (id, word, value, help)| {
            let arg = Arg::new(id).long(id).help(help).help_heading(HEADING).requires("url");
            // clap does not require an argument that conflicts with one of those given.
            let arg = arg.conflicts_with_all(["pool", "upstream", "config"]);
            command.arg(match word {
                Word::StartTls => arg.action(ArgAction::SetTrue),
                // Replies of servers begin with a hyphen: -ERR.
                Word::Text(_) | Word::Verbatim(_) | Word::File(_) | Word::FailOn => arg
                    .value_name(value)
                    .action(ArgAction::Append)
                    .allow_hyphen_values(true)
                    .value_parser(value_parser!(Hidden)),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        StepArgs::augment_args(command)
    }
}

impl FromArgMatches for StepArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<StepArgs, clap::Error> {
        let mut found: Vec<(usize, Word, Hidden)> = Vec::new();
        for (id, word, ..) in WORDS {
            if word == Word::StartTls {
                if matches.get_flag(id) {
                    found.extend(matches.index_of(id).map(|at| (at, word, Hidden(String::new()))));
                }
                continue;
            }
            let (indices, values) = (matches.indices_of(id), matches.get_many::<Hidden>(id));
            let each = indices.into_iter().flatten().zip(values.into_iter().flatten());
            found.extend(each.map(|(at, text)| (at, word, text.clone())));
        }
        found.sort_by_key(|(at, ..)| *at);
        Ok(StepArgs(found.into_iter().map(|(_, word, text)| (word, text)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = StepArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Steps, each as an inline table of the file.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    tables: Vec<String>,
    /// Whether TLS begins at one of them.
    pub starttls: bool,
}

impl Steps {
    /// Writes the arguments as steps.
    ///
    /// # Errors
    /// A sentence about the first argument that is not one.
    pub fn new(args: &StepArgs) -> Result<Steps, String> {
        let mut steps: Vec<(String, Vec<String>)> = Vec::new();
        for (word, Hidden(text)) in &args.0 {
            match word {
                Word::Text(key) => steps.push((format!("{key} = {}", string(&unescaped(key, text)?)), Vec::new())),
                Word::Verbatim(key) => steps.push((format!("{key} = {}", string(text)), Vec::new())),
                Word::File(key) => steps.push((format!("{key} = {}", file(key, text)?), Vec::new())),
                Word::StartTls => steps.push(("starttls = true".to_owned(), Vec::new())),
                Word::FailOn => {
                    let step =
                        steps.last_mut().ok_or("--fail-on belongs to a step: write it after --expect or --send")?;
                    step.1.push(string(&unescaped("fail-on", text)?));
                }
            }
        }
        let table = |(act, fail_on): (String, Vec<String>)| match fail_on.is_empty() {
            true => format!("{{ {act} }}"),
            false => format!("{{ {act}, fail_on = [{}] }}", fail_on.join(", ")),
        };
        let starttls = args.0.iter().any(|(word, _)| *word == Word::StartTls);
        Ok(Steps { tables: steps.into_iter().map(table).collect(), starttls })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The value of the key `steps`.
    pub fn write(&self) -> String {
        let lines: String = self.tables.iter().map(|table| format!("  {table},\n")).collect();
        format!("[\n{lines}]")
    }
}

/// `{ file = "…", prefix = "…", suffix = "…" }`
fn file(key: &str, text: &str) -> Result<String, String> {
    let (prefix, path, suffix) = match text.split_once('@') {
        None => ("", text, ""),
        Some((prefix, rest)) => match rest.rsplit_once('@') {
            None => (prefix, rest, ""),
            Some((path, suffix)) => (prefix, path, suffix),
        },
    };
    let mut out = format!("{{ file = {}", string(path));
    for (name, around) in [("prefix", prefix), ("suffix", suffix)] {
        if !around.is_empty() {
            out.push_str(&format!(
                ", {name} = {}",
                string(&unescaped(&format!("{}-file", key.replace('_', "-")), around)?)
            ));
        }
    }
    out.push_str(" }");
    Ok(out)
}

/// A text with its escapes replaced: shells pass `\r\n` on as four characters, and protocols need two.
fn unescaped(argument: &str, text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('r') => '\r',
            Some('n') => '\n',
            Some('t') => '\t',
            Some('\\') => '\\',
            Some(other) => return Err(format!("--{argument}: \\{other} is not an escape; write \\\\ for a backslash")),
            None => return Err(format!("--{argument} ends with a backslash; write \\\\ for a backslash")),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read() {
        for (text, want) in [
            ("PING\\r\\n", Ok("PING\r\n")),
            ("a\\tb\\\\n", Ok("a\tb\\n")),
            ("PING\r\n", Ok("PING\r\n")),
            ("", Ok("")),
            ("\\x00", Err("--send: \\x is not an escape; write \\\\ for a backslash")),
            ("a\\", Err("--send ends with a backslash; write \\\\ for a backslash")),
        ] {
            assert_eq!(unescaped("send", text).as_deref().map_err(String::as_str), want, "{text:?}");
        }
    }

    #[test]
    fn a_file_has_a_text_before_and_after_it() {
        for (text, want) in [
            ("/run/pw", "file = \"/run/pw\""),
            ("@/run/pw", "file = \"/run/pw\""),
            ("AUTH @/run/pw", "file = \"/run/pw\", prefix = \"AUTH \""),
            ("AUTH @/run/pw@\\r\\n", "file = \"/run/pw\", prefix = \"AUTH \", suffix = \"\\r\\n\""),
            ("@/run/a@b@", "file = \"/run/a@b\""),
        ] {
            assert_eq!(file("send", text), Ok(format!("{{ {want} }}")), "{text}");
        }
    }
}
