//! `roundsman schema`: prints the JSON Schema of the configuration, for editors.

use std::io::{self, Write};
use std::process::ExitCode;

/// Prints the schema on stdout.
pub fn run() -> ExitCode {
    let schema = crate::config::schema::schema();
    let text = serde_json::to_string_pretty(&schema).expect("a JSON value always serialises");
    // A reader that has gone (`| head`) is no failure.
    let _ = writeln!(io::stdout(), "{text}");
    ExitCode::SUCCESS
}
