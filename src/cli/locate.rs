//! Finds the running process: by `--admin` and `--token-file`, else by `[admin]` of its configuration file. Only that
//! table of the file is read, so that `reload` and `status` work even if the rest of the file has mistakes.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Failure;
use super::args::ProcessArgs;
use crate::app::load;
use crate::config::{self, Diagnostic, FILE_BYTES_MAX, Severity};
use crate::model::{Address, Secret};

/// The default configuration files, in order of preference.
const DEFAULT_FILES: [&str; 2] = ["roundsman.toml", "/etc/roundsman/roundsman.toml"];

/// The admin socket of a running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub address: Address,
    /// The bearer token to send.
    pub token: Option<Secret>,
    /// Where the address comes from: `--admin`, or a file.
    pub named_by: String,
}

/// The default configuration file: the first that exists, or else the first of the list.
pub fn default_file() -> PathBuf {
    let existing = DEFAULT_FILES.iter().find(|file| Path::new(file).exists());
    PathBuf::from(existing.unwrap_or(&DEFAULT_FILES[0]))
}

/// The file that `run`, `check` and `probe` read: the given one, else the first default that exists.
///
/// # Errors
/// It does not exist; the message lists the paths tried and the next step.
pub fn config_file(named: Option<&Path>) -> Result<PathBuf, Box<Diagnostic>> {
    let file = named.map_or_else(default_file, Path::to_path_buf);
    if !is_missing(&file) {
        return Ok(file);
    }
    let (shown, message, next) = match named {
        Some(named) => (named.display().to_string(), missing(named), "Without a file"),
        None => {
            let places = DEFAULT_FILES.map(|file| whole_path(Path::new(file))).join(" and ");
            let message = format!("there is no configuration file: looked for {places}.");
            (DEFAULT_FILES[0].to_owned(), message, "Give one with --config FILE, or run without one")
        }
    };
    let example = "roundsman run --listen 127.0.0.1:8080 --to 127.0.0.1:3001,127.0.0.1:3002";
    Err(Box::new(Diagnostic::whole_file(&shown, format!("{message} {next}: {example}"))))
}

/// That there is no file of this name, where it was looked for, and which one may be meant.
fn missing(named: &Path) -> String {
    let near = near_file(named).map_or(String::new(), |near| format!(" Did you mean {}?", near.display()));
    format!("there is no file {}: looked for {}.{near}", named.display(), whole_path(named))
}

fn whole_path(file: &Path) -> String {
    std::env::current_dir().unwrap_or_default().join(file).display().to_string()
}

/// Whether there is nothing of that name; what cannot be read for another reason is reported where it is read.
fn is_missing(file: &Path) -> bool {
    let missing = |error: &io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    std::fs::metadata(file).is_err_and(|error| missing(&error))
}

/// How many files of a directory are compared with a name.
const COMPARED_MAX: usize = 2_000;

/// The file that the name `missing` is most likely a misspelling of, in its directory: one with a similar name, else the
/// only one that ends in `.toml`.
fn near_file(missing: &Path) -> Option<PathBuf> {
    let name = missing.file_name()?.to_str()?;
    let parent = missing.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = std::fs::read_dir(parent).ok()?.take(COMPARED_MAX).flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let near = config::nearest(name, names.iter().map(String::as_str)).or_else(|| {
        let mut configurations = names.iter().filter(|name| name.ends_with(".toml"));
        configurations.next().filter(|_| configurations.next().is_none()).cloned()
    })?;
    Some(missing.with_file_name(near))
}

/// Finds the process that the arguments name.
pub fn find(args: &ProcessArgs) -> Result<Target, Failure> {
    let token_file = args.token_file.as_deref();
    let file = match (&args.admin, &args.config) {
        (Some(address), _) if token_file.is_none() => {
            return Ok(Target { address: address.clone(), token: None, named_by: "--admin".to_owned() });
        }
        (Some(address), _) => {
            // The rules of the file are for the address of a listener: a host name is allowed here.
            return Ok(Target { address: address.clone(), ..of_table(Table::new(), token_file, "--admin")? });
        }
        (None, Some(file)) => file.clone(),
        (None, None) => default_file(),
    };
    if args.config.is_none() && !file.exists() {
        let looked_at = DEFAULT_FILES.join(" or ");
        return of_table(Table::new(), token_file, &format!("the default: there is no {looked_at}"));
    }
    if is_missing(&file) {
        return Err(Failure::Config(format!("{} --admin ADDRESS finds the process without it", missing(&file))));
    }
    let name = file.display().to_string();
    let admin = admin_table(&file).map_err(|problem| Failure::Config(format!("{name}: {problem}")))?;
    of_table(admin, token_file, &name)
}

/// The `[admin]` table of a file; empty where it has none.
fn admin_table(file: &Path) -> Result<Table, String> {
    let bytes = load::read_bounded(file, FILE_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8")?;
    let table: Table = text.trim_start_matches('\u{feff}').parse().map_err(|error: toml::de::Error| {
        format!("cannot be parsed, so the admin address is not known (give it with --admin ADDRESS)\n{error}")
    })?;
    Ok(table.get("admin").and_then(Value::as_table).cloned().unwrap_or_default())
}

/// Parses `[admin]` with the rules of the configuration, in a file whose other parts are valid.
fn of_table(mut admin: Table, token_file: Option<&Path>, name: &str) -> Result<Target, Failure> {
    if let Some(file) = token_file {
        let path = file.display().to_string().replace("${", "$${");
        admin.insert("token".into(), Value::Table(Table::from_iter([("file".to_string(), Value::String(path))])));
    }
    let rest = config::inline("unix:/any-listener", &["unix:/any-upstream".to_string()]);
    let admin = Table::from_iter([("admin".to_string(), Value::Table(admin))]);
    let whole = format!("{rest}\n{admin}");
    match load::load_text(name, whole.as_bytes()) {
        Ok(loaded) => {
            let admin = loaded.config.admin;
            Ok(Target { address: admin.address, token: admin.token, named_by: name.to_owned() })
        }
        Err(error) => {
            let mistakes = error.diagnostics.iter().filter(|d| d.severity == Severity::Error);
            let mistakes = mistakes.map(|d| format!("{name}: {}: {}", d.key, d.message));
            Err(Failure::Config(mistakes.collect::<Vec<_>>().join("\n")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(admin: Option<&str>, config: Option<&Path>, token_file: Option<&Path>) -> ProcessArgs {
        let owned = |path: Option<&Path>| path.map(Path::to_path_buf);
        ProcessArgs { admin: admin.map(|a| a.parse().unwrap()), config: owned(config), token_file: owned(token_file) }
    }

    #[test]
    fn a_file_with_mistakes_still_names_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let (config, token) = (dir.path().join("r.toml"), dir.path().join("token"));
        std::fs::write(&token, "0123456789abcdef\n").unwrap();
        let admin = format!("intervall = 3\n[admin]\naddress = \"unix:/run/a.sock\"\ntoken = {{ file = {token:?} }}\n");
        std::fs::write(&config, admin).unwrap();
        let target = find(&args(None, Some(&config), None)).unwrap();
        assert_eq!(target.address.to_string(), "unix:/run/a.sock");
        assert_eq!(target.token.unwrap().expose(), "0123456789abcdef");
        std::fs::write(&config, "[pools.api]\nupstreams = []\n").unwrap();
        let target = find(&args(None, Some(&config), None)).unwrap();
        assert_eq!((target.address.to_string().as_str(), target.token), ("127.0.0.1:9900", None));
    }

    #[test]
    fn the_command_line_names_an_address_and_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "0123456789abcdef\r\n").unwrap();
        let target = find(&args(Some("[::1]:9900"), None, Some(&token))).unwrap();
        assert_eq!(
            (target.address.to_string().as_str(), target.token.unwrap().expose()),
            ("[::1]:9900", "0123456789abcdef")
        );
        let named = find(&args(Some("localhost:9900"), None, Some(&token))).expect("a host name is an address");
        assert_eq!((named.address.to_string().as_str(), named.token.is_some()), ("localhost:9900", true));
        let remote =
            find(&args(Some("10.0.0.1:9900"), None, None)).expect("the process decides whether it requires a token");
        assert_eq!(remote.token, None);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_bad_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let bad = dir.path().join("bad.toml");
        std::fs::write(&bad, "[admin\n").unwrap();
        for config in [bad.as_path(), dir.path(), Path::new("/nonexistent/r.toml"), Path::new("/dev/zero")] {
            let found = find(&args(None, Some(config), None));
            assert!(matches!(found, Err(Failure::Config(_))), "{config:?}");
        }
        std::fs::write(&bad, "a\nb\n").unwrap();
        assert!(find(&args(Some("127.0.0.1:1"), None, Some(&bad))).is_err(), "a token is one line");
    }
}
