//! Tests the rules of the architecture: reads `src/` as tokens and fails where an import goes against the arrows of
//! `ARCHITECTURE.md`, where a pure module reads a clock, draws random numbers, spawns, logs or opens a socket or file,
//! where a file has no head, and where code is unfinished. [`EXCEPTIONS`] are listed with their reason; one that is no
//! longer needed fails too.

mod rules;
mod tokens;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rules::{Finding, SHELL, SIDEWAYS, check_file, imported_modules, needs_the_shell};

/// An allowed finding.
struct Exception {
    /// The file, or a directory that ends in `/`.
    place: &'static str,
    /// A part of the finding's text.
    finding: &'static str,
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[Exception {
    place: "benches/load/",
    finding: "`std::time::Instant` does not stop with a paused clock",
    reason: "the load generator is built without tokio",
}];

/// `ARCHITECTURE.md` must be short enough to be read.
const ARCHITECTURE_LINES_MAX: usize = 160;

#[test]
fn the_sources_follow_the_rules_of_the_architecture() {
    let mut used = BTreeSet::new();
    let mut findings = Vec::new();
    for (path, text) in sources(&["src", "tests", "benches"]) {
        for finding in check_file(&path, &text) {
            match EXCEPTIONS.iter().position(|e| excuses(e, &finding)) {
                Some(index) => drop(used.insert(index)),
                None => findings.push(finding.to_string()),
            }
        }
    }
    for (index, exception) in EXCEPTIONS.iter().enumerate() {
        if !used.contains(&index) {
            findings.push(format!("{}: the exception for `{}` is not needed", exception.place, exception.finding));
        }
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn excuses(exception: &Exception, finding: &Finding) -> bool {
    let here = match exception.place.strip_suffix('/') {
        Some(directory) => finding.file.starts_with(&format!("{directory}/")),
        None => finding.file == exception.place,
    };
    here && finding.what.contains(exception.finding)
}

#[test]
fn every_exception_has_a_reason_and_is_needed() {
    let of_shell = SHELL.iter().map(|(_, reason)| *reason);
    let of_arrows = SIDEWAYS.iter().map(|(_, _, reason)| *reason);
    for reason in EXCEPTIONS.iter().map(|e| e.reason).chain(of_shell).chain(of_arrows) {
        assert!(reason.split(' ').count() >= 4, "not a reason: {reason}");
    }
    for (file, _) in SHELL {
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(needs_the_shell(file, &text), "{file} is pure and needs no exception");
    }
    let sources = sources(&["src"]);
    for (from, to, _) in SIDEWAYS {
        let mut files = sources.iter().filter(|(path, _)| rules::top_module(path) == Some(from));
        assert!(files.any(|(path, text)| imported_modules(path, text).contains(*to)), "{from} does not import {to}");
    }
}

#[test]
fn the_architecture_is_short_and_names_every_directory() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let problems = architecture_problems(&text, &directories());
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// What is wrong with `ARCHITECTURE.md`: too long, or a directory that it does not name as `` `name/` ``.
fn architecture_problems(text: &str, directories: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > ARCHITECTURE_LINES_MAX {
        problems.push(format!("ARCHITECTURE.md has {lines} lines; at most {ARCHITECTURE_LINES_MAX} are allowed"));
    }
    for directory in directories {
        if !text.contains(&format!("`{directory}/")) && !text.contains(&format!("`src/{directory}/")) {
            problems.push(format!("ARCHITECTURE.md does not name `{directory}/`"));
        }
    }
    problems
}

#[test]
fn a_long_or_incomplete_architecture_is_reported() {
    let directories = ["model".to_owned(), "pool".to_owned()];
    assert!(architecture_problems("`model/` and `pool/`\n", &directories).is_empty());
    assert_eq!(architecture_problems("`model/`\n", &directories), ["ARCHITECTURE.md does not name `pool/`"]);
    let long = format!("`src/model/`, `pool/state.rs`{}", "\n".repeat(ARCHITECTURE_LINES_MAX + 1));
    assert_eq!(architecture_problems(&long, &directories).len(), 1);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every module at the root of the crate, with or without a directory.
fn directories() -> Vec<String> {
    let modules = sources(&["src"]).into_iter().filter_map(|(path, _)| rules::top_module(&path).map(str::to_owned));
    let modules: BTreeSet<String> = modules.filter(|module| module != "main").collect();
    assert!(modules.len() >= 10, "the sources were found: {modules:?}");
    modules.into_iter().collect()
}

/// Every Rust file below these directories, with its path from the root of the repository.
fn sources(directories: &[&str]) -> Vec<(String, String)> {
    let mut pending: Vec<PathBuf> = directories.iter().map(|d| root().join(d)).collect();
    let mut found = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).expect("it is below the root").to_str().expect("UTF-8").to_owned();
                found.push((name, fs::read_to_string(&path).expect("a readable file")));
            }
        }
    }
    found.sort();
    found
}
