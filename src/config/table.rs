//! The one place where a table of the file is declared: `table!` makes, from one list of keys, the struct that holds
//! them, the reader that refuses every other key, and the JSON Schema. It refuses keys of later versions by name. A
//! table may take over the keys of others with `flatten`, so that keys that two tables share are declared once.

/// Declares a table: its keys with their names (aliases after the first), types, documentation and defaults, and the
/// keys that are required (for the schema; `validate` refuses their absence) or reserved for later versions.
macro_rules! table {
    (
        $(#[doc = $table_doc:literal])+
        struct $name:ident {
            $(flatten $flat:ident : $flat_ty:ident;)*
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
            /// Whether there were unknown keys: a missing key may only be misspelt.
            #[allow(dead_code, reason = "not every table has something that must not be missing")]
            pub others: bool,
            $(
                #[doc = "The keys of another table that this one takes over."]
                pub $flat: $flat_ty,
            )*
            $(
                $(#[doc = $doc])+
                pub $field: $crate::config::read::Field<$ty>,
            )*
        }

        #[allow(dead_code, reason = "not every table is part of another or has defaults from one")]
        impl $name {
            /// The names of its own keys.
            pub const NAMES: &'static [&'static str] = &[$($first, $($alias,)*)*];
            /// Its own keys that are reserved for later versions.
            pub const LATER: &'static [&'static str] = &[$($later),*];

            /// A table without keys.
            pub fn empty() -> $name {
                $name {
                    others: false,
                    $($flat: $flat_ty::empty(),)*
                    $($field: $crate::config::read::Field::Absent,)*
                }
            }

            /// Reads the table key by key.
            pub fn read_table(
                table: &toml::de::DeTable<'_>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> $name {
                let mut out = $name::empty();
                let (names, later) = (&[$name::NAMES, $($flat_ty::NAMES),*], &[$name::LATER, $($flat_ty::LATER),*]);
                let others = reader.table(stringify!($name), table, names, later, |reader, key, node| out.read_key(reader, key, node));
                out.others = others;
                $(out.$flat.others = others;)*
                out
            }

            /// Reads one key; returns whether it is known.
            pub fn read_key(
                &mut self,
                reader: &mut $crate::config::read::Reader<'_>,
                key: &toml::Spanned<std::borrow::Cow<'_, str>>,
                node: &$crate::config::read::Node<'_>,
            ) -> bool {
                match key.get_ref().as_ref() {
                    $($first $(| $alias)* => reader.field(&mut self.$field, &[$first $(, $alias)*], key, node),)*
                    _ => return false $(|| self.$flat.read_key(reader, key, node))*,
                }
                true
            }

            /// Its own keys that have a value, with the place of the value.
            pub fn written(&self) -> Vec<(&'static str, std::ops::Range<usize>)> {
                [$(($first, self.$field.get().map(|at| at.span.clone()))),*]
                    .into_iter()
                    .filter_map(|(name, span)| Some((name, span?)))
                    .collect()
            }

            /// Whether it has no mistakes.
            pub fn is_whole(&self) -> bool {
                !self.others
                    $(&& self.$flat.is_whole())*
                    $(&& !matches!(self.$field, $crate::config::read::Field::Bad))*
            }

            /// Takes from `other` every key that is not written here.
            pub fn fill_from(&mut self, other: &$name) {
                $(self.$flat.fill_from(&other.$flat);)*
                $(
                    if self.$field.is_absent() {
                        self.$field = other.$field.clone();
                    }
                )*
            }

            /// Sets the place of every value to `span`.
            pub fn place_at(&mut self, span: &std::ops::Range<usize>) {
                $(self.$flat.place_at(span);)*
                $(self.$field.place_at(span);)*
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
                        reader.not_a_table(node, stringify!($name));
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
                $(properties.extend($crate::config::schema::properties($flat_ty::json_schema(generator)));)*
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
