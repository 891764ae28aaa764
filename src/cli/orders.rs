//! `roundsman drain | undrain | disable | enable | weight POOL UPSTREAM`: the operator's orders.

use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::args::{DisableArgs, DrainArgs, OrderArgs, OrderTerms, WeightArgs};
use super::client::{self, Ask};
use super::locate::Target;
use super::text::one_line;
use super::{Failure, identity, locate, text};
use crate::admin::json::{OrderReply, OrdersReply, StatusReply};
use crate::admin::target::encode_segment;
use crate::model::units::{counted, glance};
use crate::model::written::show_duration;

/// In the place of a pool's name: every pool that has the upstream.
const EVERY_POOL: &str = "*";
/// How often what is still in flight is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a number that does not change is printed again.
const PRINT_EVERY: Duration = Duration::from_secs(10);

/// `undrain`, `enable`.
pub fn run(action: &str, args: &OrderArgs) -> Result<ExitCode, Failure> {
    let target = locate::find(&args.terms.process)?;
    send(&target, action, args, json!({}))?;
    Ok(ExitCode::SUCCESS)
}

/// `drain`: with `--wait` until nothing is in flight there.
pub fn drain(args: &DrainArgs) -> Result<ExitCode, Failure> {
    let target = locate::find(&args.order.terms.process)?;
    let resume = json!({ "timeout": format!("{}ms", args.timeout.as_millis()) });
    let orders = send(&target, "drain", &args.order, resume)?;
    let timeout = args.wait.then_some(args.timeout);
    wait(&target, &orders, timeout, "the drain goes on: `roundsman undrain` ends it")
}

/// `disable`: with `--wait` until nothing is in flight there.
pub fn disable(args: &DisableArgs) -> Result<ExitCode, Failure> {
    let target = locate::find(&args.order.terms.process)?;
    let orders = send(&target, "disable", &args.order, json!({}))?;
    let timeout = args.wait.then_some(args.timeout);
    wait(&target, &orders, timeout, "it stays disabled: `roundsman enable` ends that")
}

/// `weight`.
pub fn weight(args: &WeightArgs) -> Result<ExitCode, Failure> {
    let target = locate::find(&args.terms.process)?;
    let WeightArgs { pool, upstream, weight, terms } = args;
    order(&target, "weight", (Some(pool), upstream), terms, json!({ "weight": weight }))?;
    Ok(ExitCode::SUCCESS)
}

fn send(target: &Target, action: &str, args: &OrderArgs, mut body: Value) -> Result<Vec<OrderReply>, Failure> {
    let place = args.place().map_err(Failure::Usage)?;
    body["force"] = args.force.into();
    order(target, action, place, &args.terms, body)
}

/// Sends the order and prints what held before and what holds now.
fn order(
    target: &Target,
    action: &str,
    (pool, upstream): (Option<&str>, &str),
    terms: &OrderTerms,
    mut body: Value,
) -> Result<Vec<OrderReply>, Failure> {
    let process = identity::line_now(target)?;
    let (pool, upstream) = (pool.map_or(EVERY_POOL.to_owned(), encode_segment), encode_segment(upstream));
    let path = format!("/api/v1/pools/{pool}/upstreams/{upstream}/{action}");
    body["reason"] = terms.reason.clone().into();
    if let Some(lasts) = terms.lasts {
        body["for"] = format!("{}ms", lasts.as_millis()).into();
    }
    let answer = client::ask_now(target, Ask { body: body.to_string().into(), ..Ask::post(&path) })?;
    let orders = match pool.as_str() {
        EVERY_POOL => answer.json::<OrdersReply>(&[StatusCode::OK])?.orders,
        _ => vec![answer.json(&[StatusCode::OK])?],
    };
    let lines: String = orders.iter().map(render).collect();
    text::print(&format!("{process}{lines}"))?;
    Ok(orders)
}

/// Waits, if it is asked to, until nothing is in flight at the upstreams of these orders.
fn wait(
    target: &Target,
    orders: &[OrderReply],
    timeout: Option<Duration>,
    otherwise: &str,
) -> Result<ExitCode, Failure> {
    match timeout {
        Some(timeout) => client::runtime()?.block_on(drained(target, orders, timeout, otherwise)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Waits until nothing is in flight at the upstreams of these orders: status 0. After `timeout`, 1, and `otherwise` says what to
/// do.
async fn drained(
    target: &Target,
    orders: &[OrderReply],
    timeout: Duration,
    otherwise: &str,
) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let mut printed: Option<(u64, Instant)> = None;
    loop {
        let answer = client::ask(target, Ask::get("/api/v1/status")).await;
        let answer = answer.map_err(|error| Failure::Runtime(error.to_string()))?;
        let left = in_flight(&answer.json(&[StatusCode::OK])?, orders)?;
        let now = Instant::now();
        if left == 0 {
            text::print(&format!("nothing is in flight, after {}\n", glance(now - began)))?;
            return Ok(ExitCode::SUCCESS);
        }
        if now - began >= timeout {
            let still = counted(left, "request", "requests");
            let after = show_duration(timeout);
            return Err(Failure::Runtime(format!("{still} still in flight after {after}; {otherwise}")));
        }
        if printed.is_none_or(|(count, at)| count != left || now - at >= PRINT_EVERY) {
            text::print(&format!("{} in flight\n", counted(left, "request", "requests")))?;
            printed = Some((left, now));
        }
        sleep(LOOK_EVERY.min(timeout - (now - began))).await;
    }
}

/// Requests in flight at the upstreams of these orders.
fn in_flight(status: &StatusReply, orders: &[OrderReply]) -> Result<u64, Failure> {
    let of = |order: &OrderReply| {
        let upstreams = status.pools.get(&order.pool).map_or(&[][..], |pool| &pool.upstreams);
        let upstream = upstreams.iter().find(|upstream| upstream.address == order.upstream);
        upstream.map(|upstream| u64::from(upstream.in_flight)).ok_or_else(|| {
            let (pool, upstream) = (one_line(&order.pool), one_line(&order.upstream));
            Failure::Runtime(format!("{upstream} has left pool {pool}: what it still has in flight cannot be counted"))
        })
    };
    orders.iter().map(of).sum()
}

fn render(reply: &OrderReply) -> String {
    let (pool, upstream) = (one_line(&reply.pool), one_line(&reply.upstream));
    let (now, was, changed) = match (reply.weight, reply.was_weight) {
        (Some(now), was) => {
            let was = was.unwrap_or(now);
            (format!("weight {now}"), was.to_string(), now != was)
        }
        (None, _) => (reply.admin.to_string(), reply.was.to_string(), reply.admin != reply.was),
    };
    let was = if changed { format!(", was {was}") } else { " (unchanged)".to_owned() };
    let mut line = format!("{pool} {upstream}: {now}{was}");
    if reply.in_flight > 0 && reply.weight.is_none() {
        line.push_str(&format!("; {} in flight", counted(reply.in_flight, "request", "requests")));
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
        let reply = OrderReply {
            pool: "api".into(),
            upstream: "10.0.0.1:80".into(),
            admin: Draining,
            was: Enabled,
            weight: None,
            was_weight: None,
            in_flight: 3,
            note: String::new(),
        };
        assert_eq!(render(&reply), "api 10.0.0.1:80: draining, was enabled; 3 requests in flight\n");
        let again = OrderReply { was: Draining, in_flight: 1, ..reply.clone() };
        assert_eq!(render(&again), "api 10.0.0.1:80: draining (unchanged); 1 request in flight\n");
        let noted = OrderReply { note: "it ends with the process".into(), in_flight: 0, ..again };
        assert_eq!(render(&noted), "api 10.0.0.1:80: draining (unchanged)\n(it ends with the process)\n");
        let weight = OrderReply { weight: Some(5), was_weight: Some(1), ..reply.clone() };
        assert_eq!(render(&weight), "api 10.0.0.1:80: weight 5, was 1\n");
        let same = OrderReply { was_weight: Some(5), ..weight };
        assert_eq!(render(&same), "api 10.0.0.1:80: weight 5 (unchanged)\n");
    }
}
