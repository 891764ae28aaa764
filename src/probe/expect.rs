//! Whether an answer is as expected: its fields, its body, and what the body says as JSON. Pure. What to say about a
//! failure is `finding`'s business.

mod body;
mod header;
mod json;

pub(super) use body::BodyRules;
pub(super) use header::{HeaderMiss, header_miss};
pub(super) use json::{JsonMiss, NotJson, enclosing, json_miss, parse, path_to};
