//! `roundsman schema`: prints the JSON Schema of the configuration, for editors.

use std::process::ExitCode;

use super::{Failure, text};

/// Prints the schema on stdout.
///
/// # Errors
/// It could not be written.
pub fn run() -> Result<ExitCode, Failure> {
    let schema = crate::config::schema::schema();
    let schema = serde_json::to_string_pretty(&schema).expect("a JSON value always serialises");
    text::print(&format!("{schema}\n"))?;
    Ok(ExitCode::SUCCESS)
}
