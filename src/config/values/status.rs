//! `expect.status`: a list of codes and ranges, or `"any"`.

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use crate::config::read::{List, Node, Reader, Value};
use crate::model::policy::StatusRule;

const WHAT: &str = "a code from 100 to 599, or a range such as \"200-299\"";

/// An inclusive range of status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range(pub u16, pub u16);

/// A list of codes and ranges that is not empty, or `"any"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(pub StatusRule);

impl Value for Statuses {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Statuses> {
        match node.get_ref() {
            DeValue::String(text) if text == "any" => return Some(Statuses(StatusRule::Any)),
            DeValue::String(_) | DeValue::Integer(_) => {
                let suggestion = suggest_list(&reader.written(node));
                let message = format!("{} is not a list", reader.written(node));
                reader
                    .mistake(node.span(), message)
                    .expected("a list in [ ], or \"any\"")
                    .suggestion(suggestion)
                    .done();
                return None;
            }
            _ => {}
        }
        let list = List::<Range, 512>::read(node, reader)?;
        if list.0.is_empty() {
            reader.mistake(node.span(), "an empty list accepts no answer").expected(WHAT).done();
            return None;
        }
        let ranges: Vec<_> = list.iter().map(|at| (at.value.0, at.value.1)).collect();
        (ranges.len() == list.0.len()).then_some(Statuses(StatusRule::In(ranges)))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let items = Range::schema(generator);
        json_schema!({ "anyOf": [{ "const": "any" }, { "type": "array", "minItems": 1, "items": items }] })
    }
}

impl Value for Range {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Range> {
        let text = match node.get_ref() {
            DeValue::Integer(code) => Some(code.as_str().to_owned()).filter(|_| code.radix() == 10),
            _ => reader.string(node, WHAT),
        };
        let text = text?;
        match parse(&text) {
            Ok(range) => Some(range),
            Err(problem) => {
                let message = format!("{}{problem}", reader.written(node));
                reader.mistake(node.span(), message).expected(WHAT).suggestion(suggest(&text)).done();
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": r"^([1-5][0-9]{2}(-[1-5][0-9]{2})?|.*\$\{.*)$" },
        ] })
    }
}

fn parse(text: &str) -> Result<Range, &'static str> {
    let code = |text: &str| match text.parse::<u16>() {
        Ok(code) if (100..=599).contains(&code) && text.len() == 3 => Ok(code),
        Ok(_) => Err(" is not a status from 100 to 599"),
        Err(_) => Err(" is neither a status nor a range"),
    };
    match text.split_once('-') {
        None => code(text).map(|c| Range(c, c)),
        Some((from, to)) => match (code(from)?, code(to)?) {
            (from, to) if from > to => Err(" ends before it begins"),
            (from, to) => Ok(Range(from, to)),
        },
    }
}

/// A class such as `2xx`, or a range in another notation, as ours.
fn suggest(text: &str) -> Option<String> {
    let lower = text.trim().to_ascii_lowercase();
    let class = lower.strip_suffix("xx").or(lower.strip_suffix("**")).or(lower.strip_suffix('x'));
    let good = |range: String| parse(&range).is_ok().then(|| format!("\"{range}\""));
    match class {
        Some(class) => good(format!("{class}00-{class}99")),
        None => {
            let ends =
                ["..=", "..", "\u{2013}", " to ", ":", " - "].iter().find_map(|between| lower.split_once(between));
            let (from, to) = ends?;
            good(format!("{}-{}", from.trim(), to.trim()))
        }
    }
}

/// The list that one text or number probably means.
fn suggest_list(written: &str) -> Option<String> {
    let text = written.trim_matches(['"', '\'']);
    let one = |part: &str| match part.parse::<u16>() {
        Ok(code) => parse(part).is_ok().then(|| code.to_string()),
        Err(_) => parse(part).is_ok().then(|| format!("\"{part}\"")).or_else(|| suggest(part)),
    };
    let parts = text.split([',', ';', '|', ' ']).map(str::trim).filter(|part| !part.is_empty());
    let codes: Option<Vec<String>> = one(text).map(|code| vec![code]).or_else(|| parts.map(one).collect());
    codes.filter(|codes| !codes.is_empty()).map(|codes| format!("[{}]", codes.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_codes_and_ranges_are_read_and_others_refused() {
        assert_eq!(parse("204"), Ok(Range(204, 204)));
        assert_eq!(parse("200-299"), Ok(Range(200, 299)));
        for bad in ["99", "600", "200-100", "", "-", "200-", "2xx", "+200", "0200", "200-299-300", "99999999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_suggested_is_accepted_and_one_number_is_a_number() {
        for (written, list) in [
            ("\"2xx\"", Some("[\"200-299\"]")),
            ("\"500\"", Some("[500]")),
            ("500", Some("[500]")),
            ("\"200,204\"", Some("[200, 204]")),
            ("\"2xx 301-302\"", Some("[\"200-299\", \"301-302\"]")),
            ("\"200..299\"", Some("[\"200-299\"]")),
            ("700", None),
            ("\"7xx\"", None),
            ("\"ok\"", None),
            ("\"\"", None),
        ] {
            assert_eq!(suggest_list(written).as_deref(), list, "{written}");
        }
        assert_eq!(suggest("2xx").as_deref(), Some("\"200-299\""));
    }
}
