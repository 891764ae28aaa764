//! `${NAME}` and `${NAME:-fallback}` inside string values. Decides their values; the reader decides where they are
//! allowed (in string values and nowhere else). `$${` is a plain `${`.

use super::Env;

/// The longest text an expansion may produce, in bytes.
const EXPANDED_BYTES_MAX: usize = 64 << 10;

/// Replaces every `${NAME}` in `text`.
///
/// # Errors
/// A sentence about a variable that is not set, or a `${` that is malformed.
pub fn expand(text: &str, env: &dyn Env) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or("`${` without its `}`; a plain `${` is written `$${`")?;
        out.push_str(&value(&inner[..end], env)?);
        if out.len() > EXPANDED_BYTES_MAX {
            return Err("becomes longer than 64 KiB".to_owned());
        }
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn value(inner: &str, env: &dyn Env) -> Result<String, String> {
    let (name, fallback) = match inner.split_once(":-") {
        Some((name, fallback)) => (name, Some(fallback)),
        None => (inner, None),
    };
    if !is_variable_name(name) {
        return Err(format!("{name:?} is not the name of an environment variable"));
    }
    let set = env.var(name)?;
    match (set, fallback) {
        // As in the shell, `:-` also replaces a variable that is empty.
        (Some(value), Some(fallback)) if value.is_empty() => Ok(fallback.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(fallback)) => Ok(fallback.to_owned()),
        (None, None) => Err(format!("the environment variable {name} is not set")),
    }
}

/// A text in which a variable is written as in a shell, `$NAME` or `$(NAME)`: its name, and the text as it should be.
pub fn shell_variable(text: &str) -> Option<(&str, String)> {
    let (before, rest) = text.split_once('$')?;
    let bare = |rest: &str| rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let (name, after) = match rest.strip_prefix('(') {
        Some(inner) => inner.split_once(')')?,
        None => rest.split_at(bare(rest)),
    };
    is_variable_name(name).then(|| (name, format!("{before}${{{name}}}{after}")))
}

/// Whether `name` can be the name of an environment variable: `[A-Za-z_][A-Za-z0-9_]*`.
pub fn is_variable_name(name: &str) -> bool {
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    starts_well && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    struct Vars;

    impl Env for Vars {
        fn var(&self, name: &str) -> Result<Option<String>, String> {
            Ok(match name {
                "HOST" => Some("10.0.0.1".to_owned()),
                "EMPTY" => Some(String::new()),
                _ => None,
            })
        }

        fn read_file(&self, _: &Path) -> Result<String, String> {
            Err("no files here".to_owned())
        }
    }

    #[test]
    fn variables_are_replaced_and_missing_ones_are_mistakes() {
        for (text, expected) in [
            ("plain $ {x}", Ok("plain $ {x}")),
            ("${HOST}:80", Ok("10.0.0.1:80")),
            ("${HOST}${HOST}", Ok("10.0.0.110.0.0.1")),
            ("${NONE:-a:-b}", Ok("a:-b")),
            ("${EMPTY:-a}", Ok("a")),
            ("x${EMPTY}y", Ok("xy")),
            ("${NONE:-}", Ok("")),
            ("a$${HOST}", Ok("a${HOST}")),
            ("${NONE}", Err("the environment variable NONE is not set")),
            ("${HOST", Err("`${` without its `}`; a plain `${` is written `$${`")),
            ("${}", Err("\"\" is not the name of an environment variable")),
            ("${A B}", Err("\"A B\" is not the name of an environment variable")),
        ] {
            assert_eq!(expand(text, &Vars).as_deref().map_err(String::as_str), expected, "{text}");
        }
    }
}
