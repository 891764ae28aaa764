//! Which requests may switch protocols: the pool that they are routed to decides.

use super::*;
use crate::model::policy::Upgrades;

fn allowing(protocols: &[&str]) -> TrafficPolicy {
    let upgrades = Upgrades::new(protocols.iter().map(|name| Arc::from(*name)));
    TrafficPolicy { upgrades, ..TrafficPolicy::default() }
}

/// Whether it goes upstream as an upgrade.
fn asks(exchange: &Exchange) -> bool {
    let asked = exchange.request_edits().sets().any(|(name, value)| (name, value) == ("Upgrade", &b"websocket"[..]));
    assert_eq!(asked, exchange.is_upgrade(), "the lane and the head agree");
    asked
}

#[tokio::test(start_paused = true)]
async fn the_pool_decides_and_one_that_takes_its_place_may_only_refuse() {
    for (first, second, want) in [
        (&["websocket"][..], &["websocket"][..], [true, true]),
        (&["foo", "websocket"], &[], [true, false]),
        // The lane was chosen by then.
        (&[], &["websocket"], [false, false]),
        (&["foo"], &["foo"], [false, false]),
    ] {
        let mut world = World::with(&[Given(Service::Open, 1, 0)], allowing(first));
        let (mut exchange, _) = world.begin(SOCKET);
        let before = asks(&exchange);
        world.traffic = Arc::new(allowing(second));
        // One more, because the first one counts as tried.
        world.publish(vec![Some(world.pool(0, &Given(Service::Open, 2, 0)))]);
        let lost = exchange.on_connect_failed(ConnectError::Outdated, world.now);
        assert!(matches!(lost, Next::Reroute), "{lost:?}");
        assert!(matches!(reroute(&mut exchange, SOCKET, world.now), Next::Attempt(_)));
        assert_eq!([before, asks(&exchange)], want, "{first:?} {second:?}");
    }
}
