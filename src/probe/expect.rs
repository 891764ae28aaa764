//! The rules of `expect`: fields, body, and the body as JSON. Pure. `finding` has the sentences for failures.

mod body;
mod header;
mod json;

pub(super) use body::BodyRules;
pub(super) use header::{HeaderMiss, header_miss};
pub(super) use json::{JsonMiss, NotJson, enclosing, json_miss, parse, path_to};
