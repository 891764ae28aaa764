//! Finds the running process: by `--admin` and `--token-file`, else by `[admin]` of its configuration file. Only that table
//! of the file is looked at, because a file that is not good yet must not keep `reload` and `status` from their process.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Failure;
use super::args::ProcessArgs;
use crate::model::{Address, Secret};

/// The configuration files looked for, in this order.
const DEFAULT_FILES: [&str; 2] = ["roundsman.toml", "/etc/roundsman/roundsman.toml"];
/// Where the admin listens when nothing else is said.
const DEFAULT_ADMIN: &str = "127.0.0.1:9900";
/// The largest configuration file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The largest token file that is read.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// The admin socket of a running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it listens.
    pub address: Address,
    /// The token it wants.
    pub token: Option<Secret>,
}

/// The file that `run` and the other commands use when none is named: the first that exists, or the first of all.
pub fn default_file() -> PathBuf {
    let existing = DEFAULT_FILES.iter().find(|file| Path::new(file).exists());
    PathBuf::from(existing.unwrap_or(&DEFAULT_FILES[0]))
}

/// Finds the process that the command line means.
pub fn find(args: &ProcessArgs) -> Result<Target, Failure> {
    let mut target = match (&args.admin, &args.config) {
        (Some(address), _) => Target { address: address.clone(), token: None },
        (None, Some(file)) => of_file(file)?,
        (None, None) => match default_file() {
            file if file.exists() => of_file(&file)?,
            _ => Target { address: parse_address(DEFAULT_ADMIN, "the default")?, token: None },
        },
    };
    if let Some(file) = &args.token_file {
        target.token = Some(read_secret(file, "")?);
    }
    Ok(target)
}

fn of_file(file: &Path) -> Result<Target, Failure> {
    let shown = file.display();
    let text = read_bounded(file, FILE_BYTES_MAX)?;
    let table: Table = text.trim_start_matches('\u{feff}').parse().map_err(|error: toml::de::Error| {
        Failure::Config(format!("{shown}: cannot be parsed, so its admin address is not known: {error}"))
    })?;
    let admin = table.get("admin").and_then(Value::as_table);
    let address = match admin.and_then(|admin| admin.get("address")) {
        None => DEFAULT_ADMIN.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(_) => return Err(Failure::Config(format!("{shown}: admin.address is not a string"))),
    };
    let address = parse_address(&address, &format!("{shown}: admin.address"))?;
    let token = admin.and_then(|admin| admin.get("token")).map(|token| read_token(token, file)).transpose()?;
    Ok(Target { address, token })
}

fn read_token(token: &Value, config: &Path) -> Result<Secret, Failure> {
    let text = |key: &str| token.get(key).and_then(Value::as_str);
    let prefix = text("prefix").unwrap_or("");
    match (text("file"), text("env")) {
        (Some(file), None) => read_secret(Path::new(file), prefix),
        (None, Some(name)) => match std::env::var(name) {
            Ok(value) => Ok(Secret::new(&format!("{prefix}{value}"))),
            Err(_) => Err(Failure::Config(format!(
                "{}: admin.token: the environment variable {name} is not set here; --token-file FILE names a file",
                config.display()
            ))),
        },
        _ => {
            Err(Failure::Config(format!("{}: admin.token: expected {{ file = … }} or {{ env = … }}", config.display())))
        }
    }
}

/// A secret in a file, without one trailing line end.
fn read_secret(file: &Path, prefix: &str) -> Result<Secret, Failure> {
    let text = read_bounded(file, TOKEN_BYTES_MAX)?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Failure::Config(format!("{}: a token is one line that is not empty", file.display())));
    }
    Ok(Secret::new(&format!("{prefix}{text}")))
}

fn read_bounded(file: &Path, bytes_max: u64) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::Config(format!("{}: {error}", file.display()));
    let meta = std::fs::metadata(file).map_err(unreadable)?;
    if !meta.is_file() || meta.len() > bytes_max {
        return Err(Failure::Config(format!("{}: expected a file of at most {bytes_max} bytes", file.display())));
    }
    let mut text = String::new();
    File::open(file).and_then(|f| f.take(bytes_max).read_to_string(&mut text)).map_err(unreadable)?;
    Ok(text)
}

fn parse_address(text: &str, place: &str) -> Result<Address, Failure> {
    text.parse().map_err(|error| Failure::Config(format!("{place}: {text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(admin: Option<&str>, config: Option<&Path>, token_file: Option<&Path>) -> ProcessArgs {
        let owned = |path: Option<&Path>| path.map(Path::to_path_buf);
        ProcessArgs { admin: admin.map(|a| a.parse().unwrap()), config: owned(config), token_file: owned(token_file) }
    }

    #[test]
    fn a_file_that_is_not_good_still_names_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let (config, token) = (dir.path().join("r.toml"), dir.path().join("token"));
        std::fs::write(&token, "s3cret\n").unwrap();
        let admin = format!("intervall = 3\n[admin]\naddress = \"unix:/run/a.sock\"\ntoken = {{ file = {token:?} }}\n");
        std::fs::write(&config, admin).unwrap();
        let target = find(&args(None, Some(&config), None)).unwrap();
        assert_eq!(target.address.to_string(), "unix:/run/a.sock");
        assert_eq!(target.token.unwrap().expose(), "s3cret");
        std::fs::write(&config, "[pools.api]\nupstreams = []\n").unwrap();
        let target = find(&args(None, Some(&config), None)).unwrap();
        assert_eq!((target.address.to_string().as_str(), target.token), (DEFAULT_ADMIN, None));
    }

    #[test]
    fn the_command_line_names_it_with_a_token_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "s3cret\r\n").unwrap();
        let target = find(&args(Some("[::1]:9900"), None, Some(&token))).unwrap();
        assert_eq!((target.address.to_string().as_str(), target.token.unwrap().expose()), ("[::1]:9900", "s3cret"));
    }

    #[test]
    fn what_cannot_be_read_is_a_bad_configuration() {
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
