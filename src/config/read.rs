//! Reads values out of a TOML document and keeps their places. Knows types, lists and named tables; `raw`
//! declares which keys exist, `values` what a single value may be. After a mistake reading continues.

mod help;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use schemars::{Schema, SchemaGenerator};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Found, Report};
use super::store::Store;
use super::{Env, expand};
pub use crate::model::quote::{cut, quoted};
use help::{Dialogue, Unknown};

/// A value of the document with its place.
pub type Node<'a> = Spanned<DeValue<'a>>;

/// A type that a key may hold.
pub trait Value: Sized {
    /// Reads it, or reports why not.
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// Its JSON Schema.
    fn schema(generator: &mut SchemaGenerator) -> Schema;
}

/// A value that was read, and where.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its place in the file, in bytes.
    pub span: Range<usize>,
}

/// The value of a key of a table.
#[derive(Debug, Clone, Default)]
pub enum Field<T> {
    /// The key is not written.
    #[default]
    Absent,
    /// A value with a mistake that is already reported.
    Bad,
    /// A valid value.
    Good(At<T>),
}

impl<T> Field<T> {
    /// The value with its place, if there is a valid one.
    pub fn get(&self) -> Option<&At<T>> {
        match self {
            Field::Good(at) => Some(at),
            Field::Absent | Field::Bad => None,
        }
    }

    /// As [`Field::get`], mutable.
    pub fn get_mut(&mut self) -> Option<&mut At<T>> {
        match self {
            Field::Good(at) => Some(at),
            Field::Absent | Field::Bad => None,
        }
    }

    /// Sets the place of the value.
    pub fn place_at(&mut self, to: &Range<usize>) {
        if let Field::Good(at) = self {
            at.span = to.clone();
        }
    }

    /// Whether the key was not written.
    pub fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    /// The value without its place.
    pub fn value(&self) -> Option<&T> {
        self.get().map(|at| &at.value)
    }
}

/// The state of reading one document.
pub struct Reader<'a> {
    text: &'a str,
    env: &'a dyn Env,
    report: &'a mut Report,
    path: Vec<Segment>,
    /// The check whose table is being read.
    check: Dialogue,
    /// A suggestion is being tried: suggestions about it are not used.
    trial: bool,
    /// Values that are expensive to make, so that each is made once however often the file has it.
    pub store: Store,
}

#[derive(Debug)]
enum Segment {
    Key(String),
    Index(usize),
}

impl<'a> Reader<'a> {
    /// A reader of the document made from `text`.
    pub fn new(text: &'a str, env: &'a dyn Env, report: &'a mut Report) -> Reader<'a> {
        Reader {
            text,
            env,
            report,
            path: Vec::new(),
            check: Dialogue::default(),
            trial: false,
            store: Store::default(),
        }
    }

    /// The same reader with values that were made before; in a `trial` suggestions are not used.
    pub fn with(self, store: Store, trial: bool) -> Reader<'a> {
        Reader { store, trial, ..self }
    }

    /// Environment variables and secret files.
    pub fn env(&self) -> &'a dyn Env {
        self.env
    }

    /// Runs `body` one key further down.
    pub fn within<R>(&mut self, key: &str, body: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(Segment::Key(key.to_owned()));
        let out = body(self);
        self.path.pop();
        out
    }

    /// Reports a mistake about the key that is being read.
    pub fn mistake(&mut self, span: Range<usize>, message: impl Into<String>) -> Pending<'_, 'a> {
        let found = Found::error(span, key_path(&self.path), message);
        Pending { reader: self, found: Some(found) }
    }

    /// Masks a value of the file in every diagnostic.
    pub fn mask(&mut self, span: Range<usize>) {
        self.report.mask(span);
    }

    /// A string with its `${NAME}` replaced.
    pub fn string(&mut self, node: &Node<'_>, what: &str) -> Option<String> {
        let DeValue::String(text) = node.get_ref() else {
            self.wrong_type(node, what);
            return None;
        };
        if !text.contains("${") {
            return Some(text.clone().into_owned());
        }
        match expand::expand(text, self.env) {
            Ok(text) => Some(text),
            Err(problem) => {
                self.mistake(node.span(), problem).done();
                None
            }
        }
    }

    /// Reports that `node` is of another type than `what` says.
    pub fn wrong_type(&mut self, node: &Node<'_>, what: &str) {
        let message = format!("{} is {}", self.written(node), type_name(node.get_ref()));
        self.mistake(node.span(), message).expected(what).done();
    }

    /// Reports that there are more than `max` of something, before it costs memory to read them.
    fn refuse_more_than(&mut self, max: usize, number: usize, node: &Node<'_>) -> bool {
        if number > max {
            self.mistake(node.span(), format!("{number} are too many")).expected(format!("at most {max}")).done();
        }
        number > max
    }

    /// The value as the file has it, cut to a length for messages. The value of a variable is not shown.
    pub fn written(&self, node: &Node<'_>) -> String {
        let span = node.span();
        quote_cut(self.text.get(span).unwrap_or("the value"))
    }

    /// The place in the file of bytes `from` to `to` of a string's value; the whole value if it is
    /// written with escapes or variables.
    pub fn inside(&self, node: &Node<'_>, from: usize, to: usize) -> Range<usize> {
        let span = node.span();
        let (DeValue::String(value), Some(written)) = (node.get_ref(), self.text.get(span.clone())) else {
            return span;
        };
        let quotes = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quotes| written.starts_with(quotes));
        let Some(inner) = quotes.and_then(|quotes| written.strip_prefix(quotes)?.strip_suffix(quotes)) else {
            return span;
        };
        let inner = if value.starts_with('\n') { inner } else { inner.trim_start_matches(['\r', '\n']) };
        if inner != value.as_ref() || value.contains("${") || !value.is_char_boundary(from.min(value.len())) {
            return span;
        }
        let start = span.start + written.len() - quotes.map_or(0, str::len) - inner.len();
        let from = from.min(value.len());
        start + from..start + to.clamp(from, value.len())
    }

    /// Whether the value as written holds a variable, whose value must not be shown.
    pub fn is_expanded(&self, node: &Node<'_>) -> bool {
        matches!(node.get_ref(), DeValue::String(text) if text.contains("${"))
    }

    /// Reads one key of a table into `field`.
    pub fn field<T: Value>(
        &mut self,
        field: &mut Field<T>,
        names: &[&str],
        key: &Spanned<Cow<'_, str>>,
        node: &Node<'_>,
    ) {
        if !field.is_absent() {
            let message = format!("{} are one key and may be written once", names.join(" and "));
            self.mistake(key.span(), message).done();
            return;
        }
        *field = match self.read::<T>(node) {
            Some(value) => Field::Good(At { value, span: node.span() }),
            None => Field::Bad,
        };
    }

    /// Reads the table that `raw` declares as `name`, key by key. `read` gets each key and returns whether it knows
    /// it. Returns whether there were unknown keys.
    pub fn table(
        &mut self,
        name: &str,
        table: &DeTable<'_>,
        names: &[&[&str]],
        later: &[&[&str]],
        mut read: impl FnMut(&mut Self, &Spanned<Cow<'_, str>>, &Node<'_>) -> bool,
    ) -> bool {
        let mut others = false;
        let around = self.check;
        if matches!(name, "Health" | "Check") {
            self.check = Dialogue::of(table);
        }
        let mut unknown = Unknown { table: name, names: names.concat(), later, written: table, listed: false };
        for (key, node) in table.iter() {
            self.path.push(Segment::Key(key.get_ref().to_string()));
            if !read(self, key, node) {
                self.report_unknown_key(key, &mut unknown);
                others = true;
            }
            self.path.pop();
        }
        self.check = around;
        others
    }
}

/// A mistake that is being described.
pub struct Pending<'r, 'a> {
    reader: &'r mut Reader<'a>,
    found: Option<Found>,
}

impl Pending<'_, '_> {
    /// What was expected, as a phrase.
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.found = self.found.take().map(|f| f.expected(expected));
        self
    }

    /// The likely correction; a further one replaces it if it would be a mistake in its place.
    pub fn suggestion(mut self, suggestion: Option<impl Into<String>>) -> Self {
        self.found = self.found.take().map(|f| f.suggestion(suggestion));
        self
    }

    /// Adds it to the report.
    pub fn done(mut self) {
        if let Some(found) = self.found.take() {
            self.reader.report.add(found);
        }
    }
}

/// `[…]` of at most `MAX` `T`. An entry that is not a `T` is reported and becomes `None`, so that the length is kept.
#[derive(Debug, Clone)]
pub struct List<T, const MAX: usize>(pub Vec<Option<At<T>>>);

impl<T, const MAX: usize> List<T, MAX> {
    /// The good entries.
    pub fn iter(&self) -> impl Iterator<Item = &At<T>> {
        self.0.iter().flatten()
    }
}

impl<T: Value, const MAX: usize> Value for List<T, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<List<T, MAX>> {
        let DeValue::Array(array) = node.get_ref() else {
            reader.not_a_list::<Self>(node);
            return None;
        };
        if reader.refuse_more_than(MAX, array.len(), node) {
            return None;
        }
        let mut out = Vec::with_capacity(array.len());
        for (index, node) in array.iter().enumerate() {
            reader.path.push(Segment::Index(index));
            out.push(reader.read_entry::<T, MAX>(node).map(|value| At { value, span: node.span() }));
            reader.path.pop();
        }
        Some(List(out))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let items = T::schema(generator);
        schemars::json_schema!({ "type": "array", "maxItems": MAX, "items": items })
    }
}

/// At most `MAX` tables by name, such as `[pools.NAME]`, in file order. One that is
/// not a `T` is reported and becomes `None`: its name is known.
#[derive(Debug, Clone)]
pub struct ByName<T, const MAX: usize>(pub Vec<(At<String>, Option<At<T>>)>);

impl<T: Value, const MAX: usize> Value for ByName<T, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<ByName<T, MAX>> {
        let DeValue::Table(table) = node.get_ref() else {
            reader.not_tables_by_name(node);
            return None;
        };
        if reader.refuse_more_than(MAX, table.len(), node) {
            return None;
        }
        let mut out = Vec::with_capacity(table.len());
        for (key, node) in table.iter() {
            let name = At { value: key.get_ref().to_string(), span: key.span() };
            let value = reader.within(key.get_ref(), |reader| T::read(node, reader));
            out.push((name, value.map(|value| At { value, span: node.span() })));
        }
        Some(ByName(out))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let values = T::schema(generator);
        schemars::json_schema!({
            "type": "object", "maxProperties": MAX, "propertyNames": { "pattern": "^[A-Za-z0-9_.-]{1,64}$" }, "additionalProperties": values
        })
    }
}

/// The name among `names` that `text` is most likely a misspelling of.
pub fn nearest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    if text.len() > 64 {
        return None;
    }
    let lower = text.to_ascii_lowercase().replace('-', "_");
    let distance = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_ascii_lowercase().replace('-', "_"));
    let (near, name) = names.take(2_000).map(|name| (distance(name), name)).min_by_key(|(d, _)| *d)?;
    let close = near <= (text.chars().count() / 3).clamp(1, 3);
    (close && name != text).then(|| name.to_owned())
}

fn quote_cut(written: &str) -> String {
    cut(written, 80).replace(|c: char| c.is_control(), " ")
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn key_path(path: &[Segment]) -> String {
    let mut out = String::new();
    for segment in path {
        match segment {
            Segment::Index(index) => {
                let _ = write!(out, "[{index}]");
            }
            Segment::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(&shown_key(key));
            }
        }
    }
    out
}

/// A key as TOML writes it: quoted where it is not bare.
pub fn shown_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if bare && key.len() <= 64 { key.to_owned() } else { quoted(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        let names = ["interval", "timeout", "healthy_threshold", "path"];
        for (text, near) in [
            ("intervall", Some("interval")),
            ("Interval", Some("interval")),
            ("timout", Some("timeout")),
            ("healthy-threshold", Some("healthy_threshold")),
            ("paht", Some("path")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(text, names.into_iter()).as_deref(), near, "{text}");
        }
    }

    #[test]
    fn a_key_path_is_written_as_toml_writes_it() {
        let path = [
            Segment::Key("pools".into()),
            Segment::Key("my pool".into()),
            Segment::Key("upstreams".into()),
            Segment::Index(2),
        ];
        assert_eq!(key_path(&path), "pools.\"my pool\".upstreams[2]");
    }
}
