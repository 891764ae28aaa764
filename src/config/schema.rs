//! The JSON Schema of the file, made from the same declarations that read it. It knows types, ranges, patterns and which
//! keys exist; only `roundsman check` knows the rules between keys.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::raw::File;

/// The schema, as `roundsman schema` prints it (draft 2020-12).
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "The configuration of roundsman".into());
    schema.to_value()
}

/// The schema of one key: that of its type, with the key's own description and default.
pub(super) fn property(mut schema: Schema, doc: &[&str], default: Option<Value>) -> Value {
    schema.insert("description".to_owned(), paragraph(doc).into());
    if let Some(default) = default {
        schema.insert("default".to_owned(), default);
    }
    schema.to_value()
}

/// The keys of a table that another one takes over.
pub(super) fn properties(schema: Schema) -> serde_json::Map<String, Value> {
    match schema.get("properties") {
        Some(Value::Object(properties)) => properties.clone(),
        _ => serde_json::Map::new(),
    }
}

/// The lines of a doc comment as one paragraph.
pub(super) fn paragraph(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
