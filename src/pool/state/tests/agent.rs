//! Agents: what they say about an upstream holds beside what its operator orders, and whichever is stricter counts.

use super::*;
use crate::model::{Eligibility, Ineligible};
use crate::pool::orders::Setting;

impl World {
    /// The changes of admin states, with their origins.
    fn admin_changes(&self) -> Vec<(String, AdminState, String)> {
        let of = |event: Event| match event.kind {
            EventKind::Ordered { upstream, to: Setting::Admin(to), by, .. } => Some((upstream.to_string(), to, by)),
            _ => None,
        };
        self.state.events_after(0).into_iter().filter_map(of).collect()
    }
}

fn by_agent(address: &str, to: AdminState) -> (String, AdminState, String) {
    (address.to_owned(), to, "its agent".to_owned())
}

/// A pool that agents judge, which may take `most` to answer; `interval` is that of their checks.
fn judged_by_agents(upstreams: &[&str], most: Option<Duration>, interval: Duration) -> PoolPolicy {
    let mut policy = pool("api", upstreams);
    for check in &mut policy.checks {
        let kind = ProbeKind::Agent(TcpProbe::agent(None));
        check.spec = Arc::new(ProbeSpec { kind, max_duration: most, ..ProbeSpec::connect() });
        check.timing.interval = interval;
    }
    policy
}

/// A world whose two upstreams have agents that say `up`.
fn world() -> World {
    let mut world = World::new();
    world.set(A, 'u');
    world.set(B, 'u');
    world.configure(vec![judged_by_agents(&[A, B], None, 5 * SECOND)]);
    world.run(11 * SECOND);
    assert_eq!(world.eligible("api"), [A, B]);
    world
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_takes_it_out_and_the_first_other_takes_it_back() {
    for (answer, to, why) in
        [('r', AdminState::Draining, Ineligible::Draining), ('m', AdminState::Disabled, Ineligible::Disabled)]
    {
        let mut world = world();
        let (epoch, transitions) = {
            let status = world.upstream("api", A);
            (status.upstream.connections.epoch(), status.transitions_total)
        };
        world.set(A, answer);
        world.run(20 * SECOND);
        let status = world.upstream("api", A);
        assert_eq!((status.state, status.admin), (HealthState::Healthy, to));
        assert_eq!(status.eligibility, Eligibility::Not(why));
        assert_eq!(status.why, Some(format!("{}: scripted", why.as_str())), "the agent's words");
        assert!(status.upstream.connections.epoch() > epoch, "idle connections to it are closed");
        assert_eq!(world.eligible("api"), [B]);
        assert_eq!(world.admin_changes(), [by_agent(A, to)], "once, however often it says so");
        world.set(A, 'u');
        world.run(6 * SECOND);
        assert_eq!(world.eligible("api"), [A, B]);
        assert_eq!(world.admin_changes(), [by_agent(A, to), by_agent(A, AdminState::Enabled)]);
        assert_eq!(world.upstream("api", A).transitions_total, transitions, "its health has not changed");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_fails_keeps_what_was_said_and_counts_as_a_failure() {
    let mut world = world();
    world.set(A, 'r');
    world.run(6 * SECOND);
    world.set(A, 'F');
    world.run(20 * SECOND);
    let status = world.upstream("api", A);
    assert_eq!((status.state, status.admin), (HealthState::Unhealthy, AdminState::Draining));
    // It comes back as it says.
    world.set(A, 'u');
    world.run(20 * SECOND);
    assert_eq!(world.eligible("api"), [A, B]);
}

#[tokio::test(start_paused = true)]
async fn the_stricter_of_operator_and_agent_holds() {
    let mut world = world();
    let drain = ordered(AdminState::Draining, true);
    // The agent drains it; an order disables it, and its end leaves what the agent says.
    world.set(A, 'r');
    world.run(6 * SECOND);
    world.give(Some("api"), A, &ordered(AdminState::Disabled, true)).unwrap();
    assert_eq!(world.upstream("api", A).admin, AdminState::Disabled);
    assert!(world.upstream("api", A).asked.is_none(), "the order is what keeps it out");
    world.give(Some("api"), A, &ordered(AdminState::Enabled, false)).unwrap();
    assert_eq!(world.upstream("api", A).admin, AdminState::Draining);
    assert!(world.upstream("api", A).asked.is_some());
    // An order cannot undo what the agent says, and says that.
    let refused = world.give(Some("api"), A, &ordered(AdminState::Enabled, false)).unwrap_err();
    assert!(matches!(&refused, OrderError::Conflict(why) if why.contains("agent")), "{refused}");
    // An operator drains another whose agent says `up`.
    world.give(Some("api"), B, &drain).unwrap();
    world.run(20 * SECOND);
    assert_eq!((world.upstream("api", B).admin, world.eligible("api")), (AdminState::Draining, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_reload_forgets_nothing_that_an_agent_has_said() {
    for (most, interval) in [(None, 5 * SECOND), (None, 7 * SECOND), (Some(100 * MS), 5 * SECOND)] {
        let mut world = world();
        world.set(A, 'r');
        world.run(6 * SECOND);
        let changes = world.admin_changes();
        world.configure(vec![judged_by_agents(&[A, B, C], most, interval)]);
        assert_eq!(world.upstream("api", A).admin, AdminState::Draining, "{most:?}, {interval:?}");
        assert_eq!(world.eligible("api"), [B]);
        world.run(8 * SECOND);
        assert_eq!(world.eligible("api"), [B], "{most:?}, {interval:?}");
        assert_eq!(world.admin_changes(), changes, "nothing has changed");
        world.set(A, 'u');
        world.run(8 * SECOND);
        assert_eq!(world.eligible("api"), [A, B], "{most:?}, {interval:?}");
    }
    // Without an agent there is nobody who could take it back.
    let mut world = world();
    world.set(A, 'r');
    world.run(6 * SECOND);
    world.set(A, 'P');
    world.configure(vec![pool("api", &[A, B])]);
    assert_eq!(world.upstream("api", A).admin, AdminState::Enabled);
}

#[tokio::test(start_paused = true)]
async fn pools_that_share_an_agent_hear_it_together_and_a_new_one_at_once() {
    let mut world = world();
    world.set(A, 'm');
    world.run(6 * SECOND);
    let both = || {
        let web = PoolPolicy { name: name("web"), ..judged_by_agents(&[A], None, 5 * SECOND) };
        vec![judged_by_agents(&[A, B], None, 5 * SECOND), web]
    };
    world.configure(both());
    assert_eq!(world.upstream("web", A).admin, AdminState::Disabled);
    world.set(A, 'u');
    world.run(6 * SECOND);
    assert_eq!((world.eligible("api"), world.eligible("web")), (vec![A.to_owned(), B.to_owned()], vec![A.to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn what_keeps_a_pool_out_is_the_agent_and_no_order_is_advised() {
    let mut world = world();
    world.set(A, 'r');
    world.set(B, 'm');
    world.run(6 * SECOND);
    let pool = world.state.status(false, world.now).pools.into_iter().find(|pool| pool.name == name("api")).unwrap();
    let out = pool.out_of_order.expect("it cannot serve");
    assert_eq!(out.reason, "neither of its 2 upstreams can serve: 1 is draining, 1 is disabled");
    assert_eq!(out.remedy, format!("this ends when the agent of {A} takes it back"));
}
