//! `balance`: the name of an algorithm, or a table with what it needs.

use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{OneOf, Text, number};
use crate::config::raw::BalanceTable;
use crate::config::read::{At, Field, Node, Reader, Value};
use crate::http1::fields::is_token;
use crate::model::policy::{Balance, HashKey, LoadBound};

/// An algorithm, and what it hashes by if it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancing {
    /// The algorithm.
    pub balance: Balance,
    /// What requests are hashed by.
    pub key: Option<HashKey>,
}

impl Balancing {
    fn new(balance: Balance, key: Option<HashKey>) -> Balancing {
        Balancing { balance, key: balance.hashes().then(|| key.unwrap_or_default()) }
    }
}

impl Value for Balancing {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Balancing> {
        if !matches!(node.get_ref(), DeValue::Table(_)) {
            return OneOf::<Balance>::read(node, reader).map(|word| Balancing::new(word.0, None));
        }
        let table = BalanceTable::read(node, reader)?;
        let balance = match &table.kind {
            Field::Good(At { value, .. }) => value.0,
            Field::Bad => return None,
            Field::Absent if table.others => return None,
            Field::Absent => {
                reader.mistake(node.span(), "`type` is missing").expected("{ type = \"hash\", … }").done();
                return None;
            }
        };
        let foreign = || table.written().into_iter().find(|(key, _)| *key != "type");
        if let (false, Some((key, span))) = (balance.hashes(), foreign()) {
            let message = format!("`{key}` is a key of \"hash\" and \"maglev\", which \"{}\" is not", balance.as_str());
            reader.mistake(span, message).expected("only `type`").done();
            return None;
        }
        let bound = table.bounded_load.value().map_or(LoadBound::DEFAULT, |bound| bound.0);
        let balance = match balance {
            Balance::Hash(_) => Balance::Hash(bound),
            Balance::Maglev(_) => Balance::Maglev(bound),
            other => other,
        };
        Some(Balancing::new(balance, table.key.value().map(|key| key.0.clone())))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let (word, table) = (OneOf::<Balance>::schema(generator), BalanceTable::schema(generator));
        json_schema!({ "anyOf": [word, table] })
    }
}

/// What requests are hashed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashBy(pub HashKey);

impl Text for HashBy {
    fn what() -> String {
        "\"client_ip\", \"path\", \"header:NAME\" or \"cookie:NAME\"".to_owned()
    }

    fn parse(text: &str) -> Result<HashBy, String> {
        let named = |name: &str| !name.is_empty() && name.len() <= 256 && name.bytes().all(is_token);
        let key = match text.split_once(':') {
            None if text == "client_ip" => HashKey::ClientIp,
            None if text == "path" => HashKey::Path,
            Some(("header", name)) if named(name) => HashKey::Header(Arc::from(name.to_ascii_lowercase())),
            Some(("cookie", name)) if named(name) => HashKey::Cookie(Arc::from(name)),
            Some(("header" | "cookie", _)) => return Err(" has no name that a field or cookie can have".to_owned()),
            _ => return Err(" is not known".to_owned()),
        };
        Ok(HashBy(key))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^(client_ip|path|(header|cookie):[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256})$")
    }
}

/// `bounded_load`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times(pub LoadBound);

impl Value for Times {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Times> {
        const WHAT: &str = "a number from 1 to 100, or 0 for no bound";
        let Some(times) = number(node) else {
            reader.wrong_type(node, WHAT);
            return None;
        };
        let bound = LoadBound::try_new(times);
        if bound.is_none() {
            let message = format!("{} is out of range", reader.written(node));
            reader.mistake(node.span(), message).expected(WHAT).done();
        }
        bound.map(Times)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 100 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_hashed_by_a_part_of_it_that_has_a_name() {
        let header = |name: &str| Ok(HashBy(HashKey::Header(name.into())));
        assert_eq!(HashBy::parse("client_ip"), Ok(HashBy(HashKey::ClientIp)));
        assert_eq!(HashBy::parse("path"), Ok(HashBy(HashKey::Path)));
        assert_eq!(HashBy::parse("header:X-User"), header("x-user"));
        assert_eq!(HashBy::parse("cookie:SID"), Ok(HashBy(HashKey::Cookie("SID".into()))), "their names have a case");
        for bad in ["", "ip", "header", "header:", "header:a b", "header:a:b", "cookie:a=b", "cookie:é", "uri"] {
            assert!(HashBy::parse(bad).is_err(), "{bad:?}");
        }
    }
}
