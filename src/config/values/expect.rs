//! What an answer must look like, value by value: patterns, JSONPaths, values to compare with, and fields of the answer.
//! A mistake inside a pattern or a path is shown where it is in the string.

mod header;
mod json;
mod path_cost;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::problem::{self, Problem};
use crate::config::read::{Node, Reader, Value};
use crate::model::policy::{JsonPath, Pattern};

pub use header::ExpectHeaders;
pub use json::{JsonNumber, JsonValue, JsonValues};

/// The longest pattern or path, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// How deep parentheses and brackets of a JSONPath may be nested: its parser tries alternatives at every one.
const PATH_DEPTH_MAX: usize = 6;
/// Functions of RFC 9535 that are not supported: they would compile a pattern at every node, even one from the answer.
const UNSUPPORTED: [&str; 2] = ["match", "search"];

/// A regular expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternText(pub Pattern);

impl Value for PatternText {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<PatternText> {
        let text = reader.string(node, "a regular expression")?;
        match reader.store.patterns.get_or_make(&text, |_| 1, || pattern(&text), Problem::whole) {
            Ok(pattern) => Some(PatternText(pattern)),
            Err(problem) => {
                problem.report(node, reader, "a regular expression");
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

fn pattern(text: &str) -> Result<Pattern, Problem> {
    let useless = "the pattern matches every text, so the rule would always hold";
    problem::pattern(text, Pattern::try_new, Pattern::is_match, useless)
}

/// A JSONPath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPathText(pub JsonPath);

impl Value for JsonPathText {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<JsonPathText> {
        const WHAT: &str = "a JSONPath (RFC 9535), such as \"$.status\"";
        let text = reader.string(node, WHAT)?;
        let cost = |_: &JsonPath| text.len();
        match reader.store.paths.get_or_make(&text, cost, || json_path(&text), Problem::whole) {
            Ok(path) => Some(JsonPathText(path)),
            Err(problem) => {
                problem.report(node, reader, WHAT);
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "anyOf": [{ "pattern": r"^\$" }, { "pattern": r"\$\{" }] })
    }
}

fn json_path(text: &str) -> Result<JsonPath, Problem> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Problem::whole("the path is longer than 4 KiB"));
    }
    let suggestion = suggest_path(text).map(|path| format!("\"{path}\""));
    if !text.starts_with('$') {
        return Err(Problem { suggestion, ..Problem::inside("a JSONPath begins with $", 0..1) });
    }
    if let Some(at) = too_deep(text) {
        return Err(Problem::inside("the path is nested too deeply", at..at + 1));
    }
    let path = JsonPath::try_new(text).map_err(|error| {
        let at = error.position().min(text.len());
        if let Some(name) = UNSUPPORTED.iter().find(|name| error.message().contains(&format!("function name '{name}'")))
        {
            return Problem::inside(format!("{name}() is not supported in a filter"), at..text.len());
        }
        // The parser's generic message.
        let message = error.message().replace("parser error", "unexpected text");
        Problem { suggestion, ..Problem::inside(format!("not a JSONPath: {message}"), at..text.len()) }
    })?;
    path_cost::affordable(text)?;
    Ok(path)
}

/// A path of plain names, some with spaces or hyphens, as JSONPath writes it: `$.Faulty CAPPs` is `$['Faulty CAPPs']`,
/// and so are `.status` of jq and `/status` of a JSON pointer `$.status`.
fn suggest_path(text: &str) -> Option<String> {
    let rest = ["$.", "@.", "/", ".", "$"].into_iter().find_map(|begin| text.strip_prefix(begin)).unwrap_or(text);
    // Brackets of jq are those of JSONPath.
    let of_jq = format!("$.{rest}");
    if rest.contains('[') && rest.len() <= 64 && JsonPath::try_new(&of_jq).is_ok() {
        return Some(of_jq);
    }
    let names = if text.starts_with('/') { rest.replace('/', ".") } else { rest.to_owned() };
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ' | '.');
    if names.is_empty() || names.len() > 64 || !names.chars().all(plain) {
        return None;
    }
    let short =
        |name: &str| name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.starts_with(char::is_numeric);
    let mut out = "$".to_owned();
    for name in names.split('.') {
        out += &if short(name) { format!(".{name}") } else { format!("['{name}']") };
    }
    JsonPath::try_new(&out).is_ok().then_some(out)
}

/// Where a path is nested too deeply.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    text.bytes().position(|byte| {
        match byte {
            b'(' | b'[' | b'!' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > PATH_DEPTH_MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_compiled_and_mistakes_have_their_place() {
        for good in ["^up", "(?s)a.*b", r"\bok\b", "^$", "[^u][^n]healthy"] {
            assert!(pattern(good).is_ok(), "{good}");
        }
        for (bad, at) in [("a(b", Some(1..2)), ("[z-a]", Some(1..4)), ("a{2,1}", Some(1..6)), (r"\p{Nope}", Some(0..8))]
        {
            assert_eq!(pattern(bad).err().unwrap().at, at, "{bad}");
        }
        let large = r"\w{1000}".repeat(9);
        for bad in ["", ".*", "a*", "x?", &"(".repeat(5_000), &"(".repeat(1_000), &large] {
            let problem = pattern(bad).err();
            assert!(problem.is_some(), "{bad:.20}");
        }
    }

    #[test]
    fn paths_are_parsed_and_mistakes_have_their_place() {
        for good in
            ["$", "$.status", "$.components.*", "$['Faulty CAPPs']", "$..x[?@.a == 1 && (@.b || @.c)]", "$[0,1:2]"]
        {
            assert!(json_path(good).is_ok(), "{good}");
        }
        for (bad, at) in [("status", 0), ("", 0), ("$.", 2), ("$.a[", 3), ("$.Faulty CAPPs", 8)] {
            assert_eq!(json_path(bad).err().unwrap().at.map(|at| at.start), Some(at), "{bad}");
        }
    }

    #[test]
    fn a_mistaken_path_gets_a_suggestion() {
        for (text, path) in [
            ("status", Some("$.status")),
            ("$.Faulty CAPPs", Some("$['Faulty CAPPs']")),
            ("$.a.x-y.b", Some("$.a['x-y'].b")),
            (".status", Some("$.status")),
            (".components.db", Some("$.components.db")),
            (".Faulty CAPPs", Some("$['Faulty CAPPs']")),
            (".items[0].state", Some("$.items[0].state")),
            ("items[0]", Some("$.items[0]")),
            ("/components/db", Some("$.components.db")),
            ("@.status", Some("$.status")),
            ("$status", Some("$.status")),
            ("..status", Some("$..status")),
            (".", None),
            ("$.a[", None),
            ("a'b", None),
            ("", None),
        ] {
            assert_eq!(suggest_path(text).as_deref(), path, "{text}");
            assert!(path.is_none_or(|path| json_path(path).is_ok()), "{text}");
        }
    }

    #[test]
    fn a_path_of_any_shape_is_parsed_quickly() {
        for unit in ["(", "[", "!", "[?(", "[?!(", "[?(@.a==1||", "[?@[", "..", ".a", "[?count(@[", "[?!!"] {
            let begin = std::time::SystemTime::now();
            let text: String = format!("${}", unit.repeat(TEXT_BYTES_MAX / unit.len()));
            let _ = json_path(&text[..text.len().min(TEXT_BYTES_MAX)]);
            for depth in 1..=PATH_DEPTH_MAX {
                let _ = json_path(&format!("${}", unit.repeat(depth)));
                let _ = json_path(&format!("${}1=={}", unit.repeat(depth), ")]".repeat(depth)));
            }
            assert!(begin.elapsed().unwrap().as_secs() < 5, "{unit}: {:?}", begin.elapsed());
        }
    }
}
