//! Reports values of the wrong type and unknown keys: what was meant, and where it belongs. The same reader reads a
//! suggestion first: one that would be refused is not shown.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{List, Node, Reader, Value, cut, key_path, nearest, quoted, shown_key, type_name};
use crate::config::foreign::Meant;
use crate::config::presets::Preset;
use crate::config::report::Report;
use crate::config::{foreign, syntax};

impl Reader<'_> {
    /// Like `wrong_type`, with a suggestion in the notation of the file.
    pub fn wrong_type_meaning(&mut self, node: &Node<'_>, what: &str, meant: Option<String>) {
        let message = format!("{} is {}", self.written(node), type_name(node.get_ref()));
        self.mistake(node.span(), message).expected(what).suggestion(meant).done();
    }

    /// A Windows path in double quotes, whose `\n` or `\t` are read as control characters, rewritten in single quotes.
    pub fn without_escapes(&self, node: &Node<'_>) -> Option<String> {
        let DeValue::String(value) = node.get_ref() else { return None };
        let written = self.text.get(node.span())?.strip_prefix('"')?.strip_suffix('"')?;
        let single = syntax::is_windows_path(written) && !written.contains(['\'', '\n']);
        (single && value.chars().any(char::is_control) && written.len() <= 200).then(|| format!("'{written}'"))
    }

    /// Reports that `node` is not the table that `raw` declares as `table`, and how to write it.
    pub fn not_a_table(&mut self, node: &Node<'_>, table: &str) {
        let written = self.text.get(node.span()).unwrap_or("");
        let key = key_path(&self.path);
        let expected = match node.get_ref() {
            DeValue::Array(_) if written.starts_with("[[") => format!("[{key}], in single brackets"),
            _ if matches!(table, "Pool" | "Listener") && self.path.len() == 2 => {
                let kind = if table == "Pool" { "pools" } else { "listeners" };
                format!("a header with a name above it: [{kind}.NAME]")
            }
            _ => foreign::example(table).map_or("a table".to_owned(), |example| format!("a table: {example}")),
        };
        let suggestion = foreign::table_for(table, written);
        // For a text protocol, the same text is not in a body.
        let text = (table == "Expect" && written.starts_with('"') && written.len() <= 80)
            .then(|| format!("{{ contains = {written} }}"));
        let message = format!("{} is {}", self.written(node), type_name(node.get_ref()));
        self.mistake(node.span(), message).expected(expected).suggestion(suggestion).suggestion(text).done();
    }

    /// Reports that `node` is not a table of tables, such as `[pools.NAME]`. In a list of tables each may have its name as
    /// a key.
    pub(super) fn not_tables_by_name(&mut self, node: &Node<'_>) {
        let path = key_path(&self.path);
        let name = match node.get_ref() {
            DeValue::Array(list) => {
                list.iter().find_map(|entry| entry.get_ref().as_table()?.get("name")?.get_ref().as_str())
            }
            _ => None,
        };
        let header = format!("[{path}.{}]", name.map_or("NAME".to_owned(), shown_key));
        let suggestion = (self.is_header(node) && name.is_some()).then(|| header.clone());
        let note = if name.is_some() { ", without `name`" } else { "" };
        let message = format!("{} is {}", self.written(node), type_name(node.get_ref()));
        let expected = format!("tables by name, such as {header}{note}");
        self.mistake(node.span(), message).expected(expected).suggestion(suggestion).done();
    }

    /// Reports a key that `unknown.table` does not have: what was meant, or where it belongs.
    pub(super) fn report_unknown_key(&mut self, key: &Spanned<Cow<'_, str>>, unknown: &mut Unknown<'_>) {
        let name = key.get_ref();
        if unknown.later.iter().any(|later| later.contains(&name.as_ref())) {
            let expected = match (unknown.table, name.as_ref()) {
                ("Pool", "tls") => {
                    "no `tls`: requests go to the upstreams in plain HTTP; `tls` of checks works".to_owned()
                }
                ("Listener", "tls") => "no `tls`: this version listens in plain HTTP".to_owned(),
                _ => format!("no `{name}`; leave it out"),
            };
            self.mistake(key.span(), format!("`{name}` is not supported yet")).expected(expected).done();
            return;
        }
        let message = format!("unknown key `{}`", cut(name, 64));
        // In a file full of unknown keys only the first ones get help.
        if self.report.is_full() {
            self.mistake(key.span(), message).done();
            return;
        }
        let written = unknown.written.get(name.as_ref()).map(|node| self.written(node));
        let written = written.filter(|written| written.len() <= VALUE_BYTES_MAX);
        let meant = self.step(unknown.table, name, written.as_deref());
        let meant = meant.or_else(|| foreign::key_with(unknown.table, name, written.as_deref()));
        let near = match &meant {
            Some(meant) => meant.key.filter(|known| unknown.names.contains(known)).map(str::to_owned),
            None => nearest(name, unknown.names.iter().copied()),
        };
        let mut expected = meant.map(|meant| meant.instead).filter(|instead| !instead.is_empty());
        let (near, twice) = match near {
            Some(near) if !unknown.may_be_written(&near) => {
                (None, Some(format!("no other key: `{near}` is written already")))
            }
            near => (near, None),
        };
        expected = expected.or(twice);
        // A long list helps once.
        if expected.is_none() && (unknown.names.len() <= SHORT_LIST || (near.is_none() && !unknown.listed)) {
            unknown.listed |= unknown.names.len() > SHORT_LIST;
            expected = Some(format!("one of {}", unknown.names.join(", ")));
        }
        let mut pending = self.mistake(key.span(), message).suggestion(near);
        if let Some(expected) = expected {
            pending = pending.expected(expected);
        }
        pending.done();
    }

    /// Reads a value, and drops a suggestion about it that would be refused in its place.
    pub fn read<T: Value>(&mut self, node: &Node<'_>) -> Option<T> {
        let before = self.report.len();
        let value = T::read(node, self);
        if value.is_none() && !self.trial {
            self.keep_suggestions(before, node, |text, reader| reader.accepts::<T>(&format!("x = {text}")));
        }
        value
    }

    /// The same for an entry of a list: a suggestion may be several entries.
    pub(super) fn read_entry<T: Value, const MAX: usize>(&mut self, node: &Node<'_>) -> Option<T> {
        let before = self.report.len();
        let value = T::read(node, self);
        if value.is_none() && !self.trial {
            self.keep_suggestions(before, node, |text, reader| {
                reader.accepts::<List<T, MAX>>(&format!("x = [{text}]"))
            });
        }
        value
    }

    fn keep_suggestions(&mut self, from: usize, node: &Node<'_>, good: impl Fn(&str, &Reader<'_>) -> bool) {
        // In place of a header there is no value to be read.
        if self.is_header(node) {
            return;
        }
        let all: Vec<_> = self.report.suggestions(from, &node.span()).collect();
        for (index, mut suggestions) in all {
            suggestions.retain(|text| good(text, self));
            self.report.set_suggestions(index, suggestions);
        }
    }

    /// Whether the place of `node` is the header of a table.
    fn is_header(&self, node: &Node<'_>) -> bool {
        let start = node.span().start;
        let Some((before, written)) = self.text.split_at_checked(start) else { return false };
        written.starts_with('[') && before.rsplit('\n').next().is_some_and(|line| line.trim().is_empty())
    }

    /// Whether `document`, one line with the key `x`, would be read as a `T` without a mistake.
    pub fn accepts<T: Value>(&self, document: &str) -> bool {
        let Ok(table) = DeTable::parse(document) else { return false };
        let mut report = Report::new("");
        let mut reader = Reader { trial: true, ..Reader::new(document, self.env, &mut report) };
        let good = table.get_ref().get("x").is_some_and(|node| T::read(node, &mut reader).is_some());
        good && !report.has_errors()
    }

    /// Reports that `node` is not a list, and how to make it one.
    pub(super) fn not_a_list<L: Value>(&mut self, node: &Node<'_>) {
        let written = self.text.get(node.span()).unwrap_or("");
        let key = key_path(&self.path);
        let is_header = self.text[..node.span().start].ends_with('[') || written.starts_with('[');
        let expected = match node.get_ref() {
            DeValue::Table(_) if is_header => format!("[[{key}]], in double brackets: one for each entry"),
            DeValue::Table(table) if key.ends_with("expect.json") => {
                let path = table.iter().next().map_or("$.status", |(key, _)| key.get_ref().as_ref());
                let path = if path.starts_with('$') { quoted(path) } else { "\"$.status\"".to_owned() };
                format!("a list of rules: [{{ path = {path}, equals = \"ok\" }}]")
            }
            _ => "a list in [ ]".to_owned(),
        };
        let parts = |text: &str, separators: &[char]| {
            let parts = text.split(separators).map(str::trim).filter(|part| !part.is_empty());
            format!("[{}]", parts.map(quoted).collect::<Vec<_>>().join(", "))
        };
        let lists = match node.get_ref() {
            DeValue::Table(_) if is_header => Vec::new(),
            DeValue::String(text) => vec![format!("[{written}]"), parts(text, &[',']), parts(text, &[',', ';', ' '])],
            _ => vec![format!("[{written}]")],
        };
        let is_good = |list: &String| list.len() <= 200 && self.accepts::<L>(&format!("x = {list}"));
        let list = lists.into_iter().filter(|_| !self.trial).find(is_good);
        let message = format!("{} is {}", self.written(node), type_name(node.get_ref()));
        self.mistake(node.span(), message).expected(expected).suggestion(list).done();
    }
}

impl Reader<'_> {
    /// A rule for a text protocol that is written elsewhere: in a step.
    fn step(&self, table: &str, name: &str, written: Option<&str>) -> Option<Meant> {
        let value = written.unwrap_or("\"…\"");
        match table {
            "Expect" if self.check.is_text => {
                let instead = foreign::text_rule(name, value, self.check.sends)?;
                Some(Meant { key: None, instead })
            }
            "Health" | "Check" if self.check.is_text => {
                let instead = foreign::text_rule(name, value, self.check.sends).or_else(|| foreign::step(name, value));
                instead.map(|instead| Meant { key: None, instead })
            }
            "Health" | "Check" | "Expect" => foreign::step(name, value).map(|instead| Meant { key: None, instead }),
            _ => None,
        }
    }
}

/// What a check of a text protocol exchanges, as far as its table shows it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dialogue {
    /// It is of the type "tcp".
    is_text: bool,
    /// It has `send`.
    sends: bool,
}

impl Dialogue {
    /// That of the check that `table` declares.
    pub(super) fn of(table: &DeTable<'_>) -> Dialogue {
        let word = |key: &str| table.get(key).and_then(|node| node.get_ref().as_str());
        let sends = table.contains_key("send");
        let is_text = match (word("type"), word("preset").and_then(Preset::named)) {
            (Some(kind), _) => kind == "tcp",
            (None, Some(preset)) => preset.first_check().kind == "tcp",
            (None, None) => sends || table.contains_key("steps"),
        };
        Dialogue { is_text, sends }
    }
}

/// The longest value that an example repeats, in bytes.
const VALUE_BYTES_MAX: usize = 60;
/// Up to this many known keys are listed with every unknown one.
const SHORT_LIST: usize = 10;

/// The table that an unknown key is in.
pub(super) struct Unknown<'t> {
    pub(super) table: &'t str,
    pub(super) names: Vec<&'t str>,
    pub(super) later: &'t [&'t [&'t str]],
    pub(super) written: &'t DeTable<'t>,
    /// Whether its keys have been listed.
    pub(super) listed: bool,
}

impl Unknown<'_> {
    /// Whether the key `name` exists and is not written yet, as itself or as its alias.
    fn may_be_written(&self, name: &str) -> bool {
        let other = match name {
            "healthy_threshold" => "rise",
            "unhealthy_threshold" => "fall",
            "rise" => "healthy_threshold",
            "fall" => "unhealthy_threshold",
            _ => name,
        };
        // Several headers add to one of these.
        let open = self.table == "File" && matches!(name, "pools" | "listeners" | "routes");
        let written = self.written.contains_key(name) || self.written.contains_key(other);
        self.names.contains(&name) && (open || !written)
    }
}
