//! Rules for what a text protocol sends, in words of ours or of another program that belong elsewhere: as steps.

use super::plain;

/// A rule for a body, or a word of another program, as a rule for what a text protocol sends. `sends`: the check has
/// `send`, which moves into the steps.
pub fn text_rule(name: &str, value: &str, sends: bool) -> Option<String> {
    let (first, beside) = if sends { ("{ send = \"…\" }, ", "`send` and `expect`") } else { ("", "`expect`") };
    let steps = |step: String| format!("`steps = [{first}{step}]` in the table of the check, in place of {beside}");
    Some(match plain(name).as_str() {
        "matches" | "match" | "regex" | "regexp" | "pattern" | "rstring" => steps(format!("{{ matches = {value} }}")),
        "equals" | "exact" | "string" | "text" | "response" | "includes" => {
            format!("`expect = {{ contains = {value} }}`, or {}", steps("{ matches = \"^…$\" }".to_owned()))
        }
        "notcontains" => steps(format!("{{ expect = \"…\", fail_on = [{value}] }}")),
        "notmatches" => steps("{ expect = \"…\", fail_on = [\"…\"] }".to_owned()),
        _ => return None,
    })
}

/// A key of a step in the table of the check.
pub fn step(name: &str, value: &str) -> Option<String> {
    let step = match name {
        "send_hex" | "expect_hex" | "starttls" => format!("{{ {name} = {value} }}"),
        "fail_on" => format!("{{ expect = \"…\", fail_on = {value} }}"),
        _ => return None,
    };
    Some(format!("`steps = [{step}]` in the table of the check"))
}
