//! `--expect-…` and `--max-duration`: rules for the response, written as operators on the command line and as the table
//! `expect` in the file. The configuration parser validates them.

use toml::Value;

use super::{KindArg, TrialArgs, quoted_key, string};
use crate::model::policy::JsonPath;

/// The rules of the command line.
#[derive(Debug, Clone)]
pub struct Rules {
    status: Option<String>,
    /// The operator's key in the file, and its text.
    body: Vec<(&'static str, String)>,
    fields: Vec<String>,
    json: Vec<String>,
    max_duration: Option<String>,
}

impl Rules {
    /// Parses the arguments.
    ///
    /// # Errors
    /// A sentence about the first argument that cannot be expressed in TOML.
    pub fn new(args: &TrialArgs) -> Result<Rules, String> {
        let body = [
            ("contains", &args.expect_body_contains),
            ("equals", &args.expect_body_equals),
            ("matches", &args.expect_body_matches),
            ("not_contains", &args.expect_body_not_contains),
            ("not_matches", &args.expect_body_not_matches),
        ];
        let body = body.into_iter().flat_map(|(key, texts)| texts.iter().map(move |text| (key, text.clone())));
        Ok(Rules {
            status: args.expect_status.as_deref().map(|list| list.trim().to_owned()),
            body: body.collect(),
            fields: args.expect_header.iter().map(|text| field_rule(text)).collect(),
            json: args.expect_json.iter().map(|text| json_rule(text)).collect::<Result<_, _>>()?,
            max_duration: args.max_duration.clone(),
        })
    }

    /// The lines of the table; empty without rules.
    pub fn write(&self, kind: KindArg) -> String {
        let mut out = String::new();
        let mut key = |name: &str, value: String| out.push_str(&format!("{name} = {value}\n"));
        match self.status.as_deref() {
            None => {}
            Some("any") => key("status", string("any")),
            Some(list) => {
                let codes: Vec<String> = list.split(',').map(|code| string(code.trim())).collect();
                key("status", format!("[{}]", codes.join(", ")));
            }
        }
        let body: Vec<String> = self.body.iter().map(|(key, text)| format!("{{ {key} = {} }}", string(text))).collect();
        match (kind, &body[..]) {
            (_, []) => {}
            (KindArg::Tcp, _) => self.body.iter().for_each(|(name, text)| key(name, string(text))),
            (_, [rule]) => key("body", rule.clone()),
            (_, rules) => key("body", format!("[{}]", rules.join(", "))),
        }
        if !self.fields.is_empty() {
            key("header", format!("{{ {} }}", self.fields.join(", ")));
        }
        if !self.json.is_empty() {
            key("json", format!("[{}]", self.json.join(", ")));
        }
        if let Some(max) = &self.max_duration {
            key("max_duration", string(max));
        }
        out
    }
}

/// `NAME: VALUE`, `NAME!=VALUE`, `NAME~REGEX`, `NAME` or `!NAME`; the first of `:`, `!=` and `~` separates.
fn field_rule(text: &str) -> String {
    let text = text.trim();
    if let Some(name) = text.strip_prefix('!') {
        return format!("{} = {{ absent = true }}", quoted_key(name.trim()));
    }
    let separators = [(":", None), ("!=", Some("not_equals")), ("~", Some("matches"))];
    let places = separators.iter().filter_map(|(mark, key)| Some((text.find(mark)?, *mark, *key)));
    let Some((at, mark, key)) = places.min_by_key(|(at, ..)| *at) else {
        return format!("{} = {{ present = true }}", quoted_key(text));
    };
    let (name, value) = (quoted_key(text[..at].trim()), string(text[at + mark.len()..].trim()));
    match key {
        None => format!("{name} = {value}"),
        Some(key) => format!("{name} = {{ {key} = {value} }}"),
    }
}

/// The operators of `--expect-json`; of two with the same beginning, the longer comes first.
const OPERATORS: [&str; 7] = ["!=", ">=", "<=", "=", "~", " is ", " in "];

/// One rule in TOML. The operator is the first one preceded by a complete JSONPath, because a path itself may contain
/// `==` and `>=`.
fn json_rule(text: &str) -> Result<String, String> {
    let text = text.trim();
    let (text, missing) = text.strip_prefix('?').map_or((text, ""), |text| (text.trim(), ", missing = \"pass\""));
    if let Some(path) = text.strip_prefix('!') {
        return Ok(format!("{{ path = {}, exists = false{missing} }}", string(path.trim())));
    }
    let starts = text.char_indices().map(|(at, _)| at);
    let mut found = starts.filter_map(|at| Some((at, *OPERATORS.iter().find(|mark| text[at..].starts_with(**mark))?)));
    let is_path = |at: &usize| JsonPath::try_new(text[..*at].trim()).is_ok();
    let Some((at, operator)) = found.find(|(at, _)| is_path(at)) else {
        // If the text is not a path, the configuration parser reports it.
        return Ok(format!("{{ path = {}, exists = true{missing} }}", string(text)));
    };
    let (path, right) = (string(text[..at].trim()), text[at + operator.len()..].trim());
    let rule = match operator {
        "=" if right == "null" => "is = \"null\"".to_owned(),
        "=" => format!("equals = {}", value(right)?),
        "!=" => format!("not_equals = {}", value(right)?),
        "~" => format!("matches = {}", string(right)),
        " is " => format!("is = {}", string(right)),
        " in " => format!("in = {}", value(right)?),
        ">=" => format!("min = {}", value(right)?),
        "<=" => format!("max = {}", value(right)?),
        other => unreachable!("there is no operator {other:?}"),
    };
    Ok(format!("{{ path = {path}, {rule}{missing} }}"))
}

/// A JSON literal has its own type; everything else is a string.
fn value(text: &str) -> Result<Value, String> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) => to_toml(&value).ok_or_else(|| "--expect-json: TOML has no null; use 'PATH is null'".to_owned()),
        Err(_) => Ok(Value::String(text.replace("${", "$${"))),
    }
}

fn to_toml(value: &serde_json::Value) -> Option<Value> {
    Some(match value {
        serde_json::Value::Null => return None,
        serde_json::Value::Bool(value) => Value::Boolean(*value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => Value::Integer(whole),
            None => Value::Float(number.as_f64()?),
        },
        serde_json::Value::String(text) => Value::String(text.replace("${", "$${")),
        serde_json::Value::Array(list) => Value::Array(list.iter().map(to_toml).collect::<Option<_>>()?),
        serde_json::Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| Some((key.clone(), to_toml(value)?)));
            Value::Table(entries.collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_operators() {
        for (text, rule) in [
            ("X-App: portus", "X-App = \"portus\""),
            ("X-App:", "X-App = \"\""),
            ("Location: http://a/?b~c!=d", "Location = \"http://a/?b~c!=d\""),
            ("X-Role!=replica", "X-Role = { not_equals = \"replica\" }"),
            ("X-Role != a:b", "X-Role = { not_equals = \"a:b\" }"),
            ("Server~^nginx/1\\.", "Server = { matches = '^nginx/1\\.' }"),
            ("Server ~ a!=b", "Server = { matches = \"a!=b\" }"),
            ("ETag", "ETag = { present = true }"),
            ("!X-Debug", "X-Debug = { absent = true }"),
            ("! X.Debug ", "\"X.Debug\" = { absent = true }"),
        ] {
            assert_eq!(field_rule(text), rule, "{text}");
        }
    }

    #[test]
    fn paths_have_their_operators() {
        for (text, rule) in [
            ("$.status=healthy", "path = \"$.status\", equals = \"healthy\""),
            ("$.status = healthy", "path = \"$.status\", equals = \"healthy\""),
            ("$.up=true", "path = \"$.up\", equals = true"),
            ("$.up=\"true\"", "path = \"$.up\", equals = \"true\""),
            ("$.state!=down", "path = \"$.state\", not_equals = \"down\""),
            ("$.role~^(primary|leader)=?$", "path = \"$.role\", matches = \"^(primary|leader)=?$\""),
            ("$.peers>=2", "path = \"$.peers\", min = 2"),
            ("$.lag<=10.5", "path = \"$.lag\", max = 10.5"),
            ("$.mode in [\"a\", 2]", "path = \"$.mode\", in = [\"a\", 2]"),
            ("$.error is null", "path = \"$.error\", is = \"null\""),
            ("$.error=null", "path = \"$.error\", is = \"null\""),
            ("$.parts is array", "path = \"$.parts\", is = \"array\""),
            ("$['a is b'] is string", "path = \"$['a is b']\", is = \"string\""),
            ("$.a[?@.b >= 1].c<=3", "path = \"$.a[?@.b >= 1].c\", max = 3"),
            ("$.a[?(@.b==\"x\")]=true", "path = '$.a[?(@.b==\"x\")]', equals = true"),
            ("$['a b']", "path = \"$['a b']\", exists = true"),
            ("!$['Faulty CAPPs']", "path = \"$['Faulty CAPPs']\", exists = false"),
            ("?$.ldap.success=true", "path = \"$.ldap.success\", equals = true, missing = \"pass\""),
        ] {
            assert_eq!(json_rule(text).as_deref(), Ok(&*format!("{{ {rule} }}")), "{text}");
        }
        for text in ["$.a!=null", "$.a=[1, null]", "$.a in [null]"] {
            assert!(json_rule(text).is_err_and(|error| error.contains("'PATH is null'")), "{text}");
        }
    }
}
