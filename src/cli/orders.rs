//! `roundsman drain | undrain | disable | enable POOL UPSTREAM`: the operator's orders.

use std::process::ExitCode;

use http::StatusCode;
use serde_json::json;

use super::args::OrderArgs;
use super::client::{self, Ask};
use super::text::one_line;
use super::{Failure, identity, locate, text};
use crate::admin::json::SetAdminReply;
use crate::admin::target::encode_segment;

/// Sends the order and prints the old and the new admin state.
pub fn run(action: &str, args: &OrderArgs) -> Result<ExitCode, Failure> {
    let target = locate::find(&args.process)?;
    let process = identity::line_now(&target)?;
    let (pool, upstream) = (encode_segment(&args.pool), encode_segment(&args.upstream));
    let path = format!("/api/v1/pools/{pool}/upstreams/{upstream}/{action}");
    let body = json!({ "reason": args.reason, "force": args.force }).to_string().into();
    let answer = client::ask_now(&target, Ask { body, ..Ask::post(&path) })?;
    let reply: SetAdminReply = answer.json(&[StatusCode::OK])?;
    text::print(&format!("{process}{}", render(&reply)))?;
    Ok(ExitCode::SUCCESS)
}

fn render(reply: &SetAdminReply) -> String {
    let mut line = format!("{} {}: {}", one_line(&reply.pool), one_line(&reply.upstream), reply.admin);
    if reply.was == reply.admin {
        line.push_str(" (unchanged)");
    } else {
        line.push_str(&format!(", was {}", reply.was));
    }
    if reply.in_flight > 0 {
        line.push_str(&format!("; {} requests in flight", reply.in_flight));
    }
    line.push('\n');
    if !reply.note.is_empty() {
        line.push_str(&format!("({})\n", one_line(&reply.note)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AdminState::{Draining, Enabled};

    #[test]
    fn an_order_shows_the_old_and_the_new_state() {
        let reply = SetAdminReply {
            pool: "api".into(),
            upstream: "10.0.0.1:80".into(),
            admin: Draining,
            was: Enabled,
            in_flight: 3,
            note: String::new(),
        };
        assert_eq!(render(&reply), "api 10.0.0.1:80: draining, was enabled; 3 requests in flight\n");
        let again = SetAdminReply { was: Draining, in_flight: 0, ..reply };
        assert_eq!(render(&again), "api 10.0.0.1:80: draining (unchanged)\n");
        let noted = SetAdminReply { note: "it ends with the process".into(), ..again };
        assert_eq!(render(&noted), "api 10.0.0.1:80: draining (unchanged)\n(it ends with the process)\n");
    }
}
