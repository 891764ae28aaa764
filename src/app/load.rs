//! Reads a configuration: the file, the environment, the files with secrets. Only regular files are opened, and never
//! more than their limit is read. `config` parses the text.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::ConfigSource;
use crate::config::diagnostic::render_all;
use crate::config::{self, Diagnostic, Env, FILE_BYTES_MAX, Severity, Source};
use crate::model::Secret;
use crate::model::policy::Config;

/// The exit status for a bad configuration or a file that cannot be read (`EX_CONFIG` of sysexits.h).
pub const EXIT_BAD_CONFIG: u8 = 78;
/// The size limit of files that the configuration refers to: a bundle of root certificates has about 250 KiB.
pub const REFERRED_BYTES_MAX: usize = 1 << 20;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed but looks like a mistake.
    pub warnings: Vec<Diagnostic>,
    /// The SHA-256 of its file in hexadecimal; empty without a file.
    pub hash: Arc<str>,
}

/// An invalid configuration: every mistake, and the warnings.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", errors(.diagnostics))]
pub struct LoadError {
    /// In the order of the file; never empty.
    pub diagnostics: Vec<Diagnostic>,
}

/// The headlines of the mistakes, one per line, for logs and the response to a reload.
fn errors(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error);
    errors.map(Diagnostic::headline).collect::<Vec<_>>().join("\n")
}

impl LoadError {
    /// As text: every diagnostic with its source line.
    pub fn render(&self, colour: bool) -> String {
        render_all(&self.diagnostics, colour)
    }
}

/// Reads and validates a configuration. Blocks while files are read.
///
/// # Errors
/// Every mistake; the exit status for it is [`EXIT_BAD_CONFIG`].
pub fn load(source: &ConfigSource) -> Result<Loaded, LoadError> {
    match source {
        ConfigSource::File(path) => load_file(path),
        ConfigSource::Inline { listen, to } => {
            match load_text("(command line)", config::inline(listen, to).as_bytes()) {
                Ok(loaded) => Ok(Loaded { warnings: of_arguments(loaded.warnings), ..loaded }),
                Err(error) => Err(LoadError { diagnostics: of_arguments(error.diagnostics) }),
            }
        }
    }
}

/// Names the argument in place of the lines that were made of it, which nobody can look at.
fn of_arguments(diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let argument = |key: String| match key.split('.').next() {
        Some("listeners") => "--listen".to_owned(),
        Some("pools") => "--to".to_owned(),
        _ => key,
    };
    let without_place = |diagnostic: Diagnostic| Diagnostic {
        line: None,
        column: None,
        span: None,
        excerpt: None,
        key: argument(diagnostic.key),
        ..diagnostic
    };
    diagnostics.into_iter().map(without_place).collect()
}

/// [`load`] from a file. Relative paths, of the file and in it, are relative to the working directory.
///
/// # Errors
/// As [`load`].
pub fn load_file(path: &Path) -> Result<Loaded, LoadError> {
    let name = path.display().to_string();
    match read_bounded(path, FILE_BYTES_MAX) {
        Ok(text) => load_text(&name, &text).map(|loaded| Loaded { hash: hash(&text), ..loaded }),
        Err(problem) => Err(LoadError { diagnostics: vec![Diagnostic::whole_file(&name, problem)] }),
    }
}

/// As `sha256sum` prints it.
fn hash(text: &[u8]) -> Arc<str> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// [`load`] from a text; messages call it `name`.
///
/// # Errors
/// As [`load`].
pub fn load_text(name: &str, text: &[u8]) -> Result<Loaded, LoadError> {
    match config::parse(&Source { file: name, text }, &World) {
        Ok(parsed) => Ok(Loaded { config: parsed.config, warnings: parsed.warnings, hash: Arc::from("") }),
        Err(diagnostics) => Err(LoadError { diagnostics }),
    }
}

/// [`load_text`] with additional environment variables, which override those of this process: for `probe --url`, which
/// runs before the variables are set.
///
/// # Errors
/// As [`load`].
pub fn load_trial(name: &str, text: &[u8], vars: &[(String, Secret)]) -> Result<Loaded, LoadError> {
    match config::parse(&Source { file: name, text }, &Trial { vars }) {
        Ok(parsed) => Ok(Loaded { config: parsed.config, warnings: parsed.warnings, hash: Arc::from("") }),
        Err(diagnostics) => Err(LoadError { diagnostics }),
    }
}

/// [`World`] with additional variables.
struct Trial<'a> {
    vars: &'a [(String, Secret)],
}

impl Env for Trial<'_> {
    fn var(&self, name: &str) -> Result<Option<String>, String> {
        match self.vars.iter().find(|(known, _)| known == name) {
            Some((_, value)) => Ok(Some(value.expose().to_owned())),
            None => World.var(name),
        }
    }

    fn read_file(&self, path: &Path) -> Result<String, String> {
        World.read_file(path)
    }
}

/// The environment of this process and the files of this machine.
#[derive(Debug)]
struct World;

impl Env for World {
    fn var(&self, name: &str) -> Result<Option<String>, String> {
        match std::env::var_os(name).map(std::ffi::OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(format!("the environment variable {name} is not UTF-8")),
        }
    }

    fn read_file(&self, path: &Path) -> Result<String, String> {
        let bytes = read_bounded(path, REFERRED_BYTES_MAX)?;
        String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
    }
}

/// The content of a regular file of at most `max` bytes.
///
/// # Errors
/// The rest of a sentence that begins with the path: `is a directory, not a file`.
pub fn read_bounded(path: &Path, max: usize) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("cannot be read: {}", reason(&error));
    // Checked before opening, because opening a device or a FIFO can have side effects; checked again after opening,
    // because the path may lead to another file by then.
    refuse_irregular(&std::fs::metadata(path).map_err(cannot)?)?;
    let file = open(path).map_err(cannot)?;
    refuse_irregular(&file.metadata().map_err(cannot)?)?;
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > max {
        return Err(format!("is larger than {} KiB", max >> 10));
    }
    Ok(bytes)
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

fn refuse_irregular(metadata: &Metadata) -> Result<(), String> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "is a directory",
        () if kind.is_fifo() => "is a FIFO",
        () if kind.is_socket() => "is a socket",
        () => "is a device",
    };
    Err(format!("{what}, not a file"))
}

/// The system's message without its number: `No such file or directory`.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(path: &Path) -> String {
        let error = load_file(path).unwrap_err();
        assert_eq!(error.diagnostics.len(), 1);
        assert_eq!((error.diagnostics[0].line, error.diagnostics[0].column), (None, None));
        error.diagnostics[0].message.clone()
    }

    #[test]
    fn a_path_that_is_not_a_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(problem(dir.path()), "is a directory, not a file");
        assert_eq!(problem(&fifo), "is a FIFO, not a file");
        assert_eq!(problem(&socket), "is a socket, not a file");
        assert_eq!(problem(Path::new("/dev/zero")), "is a device, not a file");
        assert_eq!(problem(&dir.path().join("none")), "cannot be read: No such file or directory");
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        // Sparse: uses no disk space.
        File::create(&path).unwrap().set_len(100 << 20).unwrap();
        assert_eq!(problem(&path), "is larger than 16384 KiB");
    }

    #[test]
    fn a_symbolic_link_to_a_file_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), config::inline("127.0.0.1:80", &["10.0.0.1:80".to_owned()])).unwrap();
        std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert_eq!(load_file(&dir.path().join("b")).unwrap().config.pools.len(), 1);
    }

    #[test]
    fn mistakes_on_the_command_line_name_its_arguments() {
        let source = |listen: &str, to: &str| ConfigSource::Inline { listen: listen.into(), to: vec![to.into()] };
        for (source, argument) in
            [(source("127.0.0.1:80", "localhost"), "--to"), (source("localhost", "10.0.0.1:80"), "--listen")]
        {
            let error = load(&source).unwrap_err();
            let headline = format!("(command line): error: {argument}: ");
            assert!(error.to_string().starts_with(&headline), "{error}");
            assert!(!error.render(false).contains("upstreams ="), "{}", error.render(false));
        }
        let warnings = load(&source("127.0.0.1:80", "10.0.0.1:80")).unwrap().warnings;
        let places: Vec<_> = warnings.iter().map(|w| (w.key.as_str(), w.line, w.column)).collect();
        assert_eq!(places, [("--to", None, None)], "a single upstream");
    }

    #[test]
    fn a_secret_is_read_from_its_file_and_a_missing_one_is_a_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("token");
        std::fs::write(&secret, "0123456789abcdef\n").unwrap();
        let path = dir.path().join("a.toml");
        let inline = config::inline("127.0.0.1:80", &["10.0.0.1:80".to_owned()]);
        let text = |file: &Path| format!("{inline}[admin]\ntoken = {{ file = \"{}\" }}\n", file.display());
        std::fs::write(&path, text(&secret)).unwrap();
        let loaded = load_file(&path).unwrap();
        assert_eq!(loaded.config.admin.token.unwrap().expose(), "0123456789abcdef");
        std::fs::write(&path, text(&dir.path().join("none"))).unwrap();
        assert!(load_file(&path).unwrap_err().to_string().ends_with("cannot be read: No such file or directory"));
    }
}
