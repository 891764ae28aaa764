//! `roundsman schema`: prints the JSON Schema of the configuration, for editors.
//!
//! A stdout that the caller has closed cannot be distinguished from /dev/null: the standard library opens /dev/null in
//! its place before `main`, so that no other file gets its number. Output to it counts as written.

use std::process::ExitCode;

use super::{Failure, text};

/// Prints the schema on stdout.
///
/// # Errors
/// Writing to stdout failed.
pub fn run() -> Result<ExitCode, Failure> {
    let schema = crate::config::schema::schema();
    let schema = serde_json::to_string_pretty(&schema).expect("a JSON value always serialises");
    text::print(&format!("{schema}\n"))?;
    Ok(ExitCode::SUCCESS)
}
