//! The events of reloads: what requested them, what changed, and which upstreams were added and removed.

use super::super::super::events::EVENTS_MAX;
use super::*;

fn reload(world: &World) -> (String, Changes) {
    let events = world.state.events_after(0).into_iter().rev();
    let mut reloads = events.filter_map(|event| match event.kind {
        EventKind::Reload { by, changes, .. } => Some((by, changes)),
        _ => None,
    });
    reloads.next().expect("a reload")
}

/// `+ADDRESS` and `-ADDRESS` of the events after `seq`, and `+N -M` of the summary.
fn upstreams(world: &World, seq: u64) -> Vec<String> {
    let events = world.state.events_after(seq).into_iter();
    let lines = events.filter_map(|event| match event.kind {
        EventKind::UpstreamAdded { upstream, .. } => Some(format!("+{upstream}")),
        EventKind::UpstreamRemoved { upstream, .. } => Some(format!("-{upstream}")),
        EventKind::UpstreamsChanged { added, removed } => Some(format!("+{added} -{removed}")),
        _ => None,
    });
    lines.collect()
}

fn last_seq(world: &World) -> u64 {
    world.state.events_after(0).last().map_or(0, |event| event.seq)
}

#[tokio::test(start_paused = true)]
async fn a_reload_shows_what_requested_it_and_what_was_added_and_removed() {
    let mut world = healthy(&[A, B]);
    let (by, changes) = reload(&world);
    assert_eq!((by.as_str(), changes.pools_added.count, changes.upstreams_added.count), ("test", 1, 2));
    assert_eq!(upstreams(&world, 0), [] as [String; 0], "at start all are new");
    let seq = last_seq(&world);
    world.configure(vec![pool("api", &[B, C]), pool("web", &[A])]);
    let (_, changes) = reload(&world);
    assert_eq!(changes.pools_added.to_string(), "web");
    assert_eq!(changes.pools_changed.to_string(), "api");
    assert_eq!(changes.pools_removed.to_string(), "");
    assert_eq!(changes.upstreams_added.to_string(), format!("api {C}, web {A}"));
    assert_eq!(changes.upstreams_removed.to_string(), format!("api {A}"));
    assert_eq!(upstreams(&world, seq), [format!("+{C}"), format!("-{A}"), format!("+{A}")]);
    assert!(matches!(world.state.events_after(seq)[0].kind, EventKind::Reload { .. }), "the cause comes first");
    let seq = last_seq(&world);
    world.configure(vec![pool("api", &[B, C])]);
    let (_, changes) = reload(&world);
    assert_eq!(
        (changes.pools_removed.to_string(), changes.upstreams_removed.to_string()),
        ("web".into(), format!("web {A}"))
    );
    assert_eq!(upstreams(&world, seq), [format!("-{A}")]);
    world.configure(vec![pool("api", &[B, C])]);
    assert!(reload(&world).1.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reload_of_ten_thousand_leaves_room_for_other_events() {
    let mut world = healthy(&[A, B]);
    let before = last_seq(&world);
    let many: Vec<String> = (0..10_000).map(|i| format!("127.1.{}.{}:80", i / 250, i % 250 + 1)).collect();
    let all: Vec<&str> = many.iter().map(String::as_str).chain([A]).collect();
    world.configure(vec![pool("api", &all)]);
    let (_, changes) = reload(&world);
    assert_eq!((changes.upstreams_added.count, changes.upstreams_added.names.len()), (10_000, 16));
    assert_eq!(changes.upstreams_added.to_string().matches("api 127.1.").count(), 16);
    assert!(changes.upstreams_added.to_string().ends_with(" and 9984 more"));
    let lines = upstreams(&world, before);
    assert_eq!(lines.len(), 51);
    assert_eq!(lines.last().map(String::as_str), Some("+9950 -1"));
    let events = world.state.events_after(0);
    assert!(events.len() < 100 && EVENTS_MAX > 100, "{}", events.len());
    let seq = last_seq(&world);
    world.configure(vec![pool("api", &[A])]);
    let lines = upstreams(&world, seq);
    assert_eq!((lines.len(), lines.last().map(String::as_str)), (51, Some("+0 -9950")));
}
