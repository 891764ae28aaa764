//! The configuration file: text in, a [`Config`] that cannot be wrong out, or every mistake at once with its place.
//!
//! Pure. The caller has read the bytes; what a file refers to (environment variables, secret files) comes through
//! [`Env`]. The stages: `document` (bytes to TOML, bounded), `raw` (what each key may hold; unknown and later keys),
//! `validate` (rules between keys), [`diff`] (which listeners a reload binds, and what needs a restart). `syntax` explains
//! text that is not TOML, `foreign` maps the words of other programs to ours. Imported by `app` and `cli` only.

pub mod diagnostic;
pub mod diff;
mod document;
mod expand;
mod foreign;
mod hidden;
pub mod presets;
mod raw;
mod read;
mod report;
pub mod schema;
mod store;
mod syntax;
mod table;
mod trial;
mod validate;
mod values;

use std::path::Path;

pub use diagnostic::{Diagnostic, Severity};

use crate::model::policy::Config;
pub use read::nearest;
use report::Report;
use store::Store;
pub use values::address::{listen_argument, upstream_argument};

/// The most bytes of a file that are read.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// A file that has been read.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name, as diagnostics show it.
    pub file: &'a str,
    /// Its content.
    pub text: &'a [u8],
}

/// What a configuration may refer to outside its file.
pub trait Env {
    /// The value of an environment variable; `None` where it is not set.
    ///
    /// # Errors
    /// A sentence, if its value is not UTF-8.
    fn var(&self, name: &str) -> Result<Option<String>, String>;

    /// The text of a file that is referred to: a secret, certificates. A relative path is taken from the working directory.
    ///
    /// # Errors
    /// A sentence, if it cannot be read, is too large, or is not UTF-8.
    fn read_file(&self, path: &Path) -> Result<String, String>;
}

/// A configuration without mistakes.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The configuration.
    pub config: Config,
    /// What is allowed but looks like a mistake.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a configuration.
///
/// # Errors
/// Every mistake and warning, in the order of the file, 100 at most and one that counts the rest. The file is refused as
/// a whole.
pub fn parse(source: &Source<'_>, env: &dyn Env) -> Result<Parsed, Vec<Diagnostic>> {
    let mut report = Report::new(source.file);
    let text = match document::text(source.text) {
        Ok(text) => text,
        Err(problem) => {
            report.add(problem.found);
            return Err(report.finish(&problem.text));
        }
    };
    let (config, store) = read_and_validate(text, env, &mut report, Store::default(), false);
    report.settle(text);
    trial::choose_suggestions(text, env, store, &mut report);
    let failed = report.has_errors();
    let diagnostics = report.finish(text);
    match config {
        Some(config) if !failed => Ok(Parsed { config, warnings: diagnostics }),
        _ => Err(diagnostics),
    }
}

/// The configuration of `roundsman run --listen ADDR --to ADDR,ADDR`, as the text of a file.
pub fn inline(listen: &str, to: &[String]) -> String {
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let upstreams: Vec<String> = to.iter().map(|address| quote(address)).collect();
    format!(
        "[listeners.default]\naddress = {}\npool = \"default\"\n\n[pools.default]\nupstreams = [{}]\n",
        quote(listen),
        upstreams.join(", "),
    )
}

/// Reads a text by all rules. Returns its expensive values too. In a `trial` the report gets no suggestions worth
/// showing.
fn read_and_validate(
    text: &str,
    env: &dyn Env,
    report: &mut Report,
    store: Store,
    trial: bool,
) -> (Option<Config>, Store) {
    let Some(readable) = document::readable(text, report) else { return (None, store) };
    let Some(table) = readable.parse(report) else { return (None, store) };
    let mut reader = read::Reader::new(&readable.text, env, report).with(store, trial);
    let raw = raw::File::read_document(table.get_ref(), &mut reader);
    let store = reader.store;
    // Rules between keys cannot be checked on half a file; mistakes in a single key are already reported.
    let config = match readable.state {
        document::State::Whole | document::State::Holes => validate::validate(&raw, report),
        document::State::Broken => None,
    };
    if readable.state != document::State::Whole {
        report.drop_where_syntax_is_broken(text);
    }
    (config, store)
}
