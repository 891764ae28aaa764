//! A key that holds one value, or a list of them.

use std::ops::Range;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use crate::config::read::{At, List, Node, Reader, Value};

/// One `T`, or a list of up to `MAX`. An entry of a list that is wrong is reported and becomes `None`.
#[derive(Debug, Clone)]
pub enum OneOrSeveral<T, const MAX: usize> {
    /// One, without a list around it.
    One(Box<At<T>>),
    /// A list, which may be empty.
    Several(List<T, MAX>),
}

impl<T, const MAX: usize> OneOrSeveral<T, MAX> {
    /// The valid entries, each with its index in the list.
    pub fn iter(&self) -> impl Iterator<Item = (Option<usize>, &At<T>)> {
        let (one, list) = match self {
            OneOrSeveral::One(one) => (Some((None, &**one)), None),
            OneOrSeveral::Several(list) => (None, Some(list)),
        };
        let entries = list.into_iter().flat_map(|list| list.0.iter().enumerate());
        one.into_iter().chain(entries.filter_map(|(index, entry)| Some((Some(index), entry.as_ref()?))))
    }

    /// Whether it is a list without entries.
    pub fn is_empty(&self) -> bool {
        matches!(self, OneOrSeveral::Several(list) if list.0.is_empty())
    }

    /// Sets the place of every entry to `span`, and calls `inner` for each.
    pub fn place_at(&mut self, span: &Range<usize>, mut inner: impl FnMut(&mut T, &Range<usize>)) {
        let entries: Vec<&mut At<T>> = match self {
            OneOrSeveral::One(one) => vec![one],
            OneOrSeveral::Several(list) => list.0.iter_mut().flatten().collect(),
        };
        for entry in entries {
            entry.span = span.clone();
            inner(&mut entry.value, span);
        }
    }
}

impl<T: Value, const MAX: usize> Value for OneOrSeveral<T, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<OneOrSeveral<T, MAX>> {
        match node.get_ref() {
            DeValue::Array(_) => List::read(node, reader).map(OneOrSeveral::Several),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => {
                T::read(node, reader).map(|value| OneOrSeveral::One(Box::new(At { value, span: node.span() })))
            }
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let one = T::schema(generator);
        json_schema!({ "anyOf": [one, { "type": "array", "minItems": 1, "maxItems": MAX, "items": one }] })
    }
}
