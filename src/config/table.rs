//! The one place where a table of the file is declared: `table!` makes, from one list of keys, the struct that holds
//! them, the reader that refuses every other key, and the JSON Schema. What a key of later work is, it knows by name.

/// Declares a table: its keys with their names (aliases after the first), types, documentation and defaults, and the
/// keys that have to be written (for the schema; `validate` refuses their absence) and that are reserved for later work.
macro_rules! table {
    (
        $(#[doc = $table_doc:literal])+
        struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident [$first:literal $(, $alias:literal)*] : $ty:ty $(= $default:tt)?;
            )*
        }
        $(required [$($required:literal),*])?
        later [$($later:literal),* $(,)?]
    ) => {
        $(#[doc = $table_doc])+
        #[derive(Debug, Clone)]
        pub struct $name {
            /// Whether there were keys that are not known: what is missing may only be misspelt.
            #[allow(dead_code, reason = "not every table has something that must not be missing")]
            pub others: bool,
            $(
                $(#[doc = $doc])+
                pub $field: $crate::config::read::Field<$ty>,
            )*
        }

        impl $name {
            const NAMES: &'static [&'static str] = &[$($first, $($alias,)*)*];
            const LATER: &'static [&'static str] = &[$($later),*];

            /// Reads the table key by key.
            pub fn read_table(
                table: &toml::de::DeTable<'_>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> $name {
                let mut out = $name { others: false, $($field: $crate::config::read::Field::Absent),* };
                let others = reader.table(table, $name::NAMES, $name::LATER, |reader, key, node| {
                    match key.get_ref().as_ref() {
                        $($first $(| $alias)* => reader.field(&mut out.$field, &[$first $(, $alias)*], key, node),)*
                        _ => return false,
                    }
                    true
                });
                out.others = others;
                out
            }
        }

        impl $crate::config::read::Value for $name {
            fn read(
                node: &$crate::config::read::Node<'_>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<$name> {
                match node.get_ref() {
                    toml::de::DeValue::Table(table) => Some($name::read_table(table, reader)),
                    _ => {
                        reader.wrong_type(node, "a table");
                        None
                    }
                }
            }

            fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                generator.subschema_for::<$name>()
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut properties = serde_json::Map::new();
                $(
                    let default: Option<serde_json::Value> = None$(.or(Some(serde_json::json!($default))))?;
                    let schema = <$ty as $crate::config::read::Value>::schema(generator);
                    let schema = $crate::config::schema::property(schema, &[$($doc),+], default);
                    $(properties.insert($alias.to_owned(), schema.clone());)*
                    properties.insert($first.to_owned(), schema);
                )*
                let required: &[&str] = &[$($($required),*)?];
                schemars::json_schema!({
                    "type": "object",
                    "required": required,
                    "description": $crate::config::schema::paragraph(&[$($table_doc),+]),
                    "properties": properties,
                    "additionalProperties": false,
                })
            }
        }
    };
}

pub(super) use table;
