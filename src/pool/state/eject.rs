//! Ejects upstreams that fail live traffic, and lets them back. What is decided per upstream is in [`super::super::passive`];
//! here is what depends on the rest of the pool.

use std::time::Duration;

use tokio::time::Instant;

use super::super::events::EventKind;
use super::super::orders::{Able, Rule};
use super::super::outcomes::Share;
use super::super::passive::{EjectionEnd, leaves_room};
use super::super::pools::{Member, PoolState};
use super::super::upstream::{Hint, UpstreamId};
use super::super::view::Service;
use super::{CheckId, Checks, Effects, State};

/// The shortest time from one look at upstreams that may be ejected to the next.
const JUDGED_EVERY: Duration = Duration::from_millis(20);

impl State {
    /// The data path reports failures of an upstream.
    pub fn on_hint(&mut self, hint: Hint, now: Instant) -> Effects {
        let mut effects = Effects::default();
        let (Hint::Failed(id) | Hint::FailedInARow(id)) = hint;
        let Some((pool, member)) = self.places.get(&id).copied() else { return effects };
        match hint {
            Hint::Failed(_) => {
                self.pools[pool].members[member].upstream.hint_taken(hint);
                for check in self.pools[pool].members[member].checks.clone() {
                    self.checks.get_mut(&check).expect("members have checks").track.on_hint(now);
                    self.set_check_timer(check);
                }
            }
            Hint::FailedInARow(id) => {
                self.suspects.push(id);
                if now >= self.next_judged {
                    self.judge_suspects(now, &mut effects);
                    self.settle(now, &mut effects);
                }
            }
        }
        effects
    }

    /// Looks at the upstreams that may be ejected, if it is time: a look costs a scan of their pools, and when everything
    /// fails, everything is reported.
    pub(super) fn judge_suspects(&mut self, now: Instant, effects: &mut Effects) {
        if self.suspects.is_empty() || now < self.next_judged {
            return;
        }
        self.next_judged = now + JUDGED_EVERY;
        let suspects = std::mem::take(&mut self.suspects);
        let mut places: Vec<(usize, usize)> = suspects.iter().filter_map(|id| self.places.get(id).copied()).collect();
        places.sort_unstable();
        let mut room: Option<(usize, Room)> = None;
        for (pool_index, member_index) in places {
            let pool = &self.pools[pool_index];
            let upstream = &pool.members[member_index].upstream;
            upstream.hint_taken(Hint::FailedInARow(upstream.id));
            let (_, room) = match &mut room {
                Some(known) if known.0 == pool_index => known,
                other => other.insert((pool_index, Room::of(pool, &self.checks, now))),
            };
            if room.try_take(pool, &pool.members[member_index], now) {
                self.eject(pool_index, member_index, now, effects);
            }
        }
    }

    fn eject(&mut self, pool_index: usize, member_index: usize, now: Instant, effects: &mut Effects) {
        let pool = &mut self.pools[pool_index];
        let passive = pool.policy.traffic.passive;
        let member = &mut pool.members[member_index];
        let ejected = member.ejections.begin(member.upstream.outcomes.row(), &passive, now).clone();
        member.upstream.outcomes.end_row();
        effects.lose(&member.upstream);
        let (name, upstream, checks) =
            (pool.policy.name.clone(), member.upstream.address.clone(), member.checks.clone());
        for check in checks {
            self.checks.get_mut(&check).expect("members have checks").track.on_ejection(now);
            self.set_check_timer(check);
        }
        self.dirty.insert(pool_index);
        self.log(EventKind::Ejected { pool: name, upstream, ejected }, now, effects);
    }

    /// Ends ejections of a pool that hold no longer.
    pub(super) fn end_ejections(&mut self, pool_index: usize, now: Instant, effects: &mut Effects) {
        while let Some((member_index, why)) = self.pools[pool_index].next_ejection_to_end(&self.checks, now) {
            self.end_ejection(pool_index, member_index, why, now, effects);
        }
    }

    pub(super) fn end_ejection(
        &mut self,
        pool_index: usize,
        member_index: usize,
        why: EjectionEnd,
        now: Instant,
        effects: &mut Effects,
    ) {
        let pool = &mut self.pools[pool_index];
        let member = &mut pool.members[member_index];
        let Some(ejected) = member.ejections.end(now) else { return };
        member.begin_ramp(now);
        // Requests that were under way meanwhile say nothing about what follows.
        member.upstream.outcomes.end_row();
        let (name, upstream) = (pool.policy.name.clone(), member.upstream.address.clone());
        let lasted = now.saturating_duration_since(ejected.since);
        self.dirty.insert(pool_index);
        self.log(EventKind::EjectionEnded { pool: name, upstream, why, lasted }, now, effects);
    }

    /// A probe has passed or failed: it may end the ejections of the upstreams that read its check.
    pub(super) fn probed_while_ejected(
        &mut self,
        id: CheckId,
        readers: &[UpstreamId],
        passed: bool,
        now: Instant,
        effects: &mut Effects,
    ) {
        let check = &self.checks[&id];
        let (target, needed, began) = (check.key.target.clone(), check.track.needed(true), check.track.last_start());
        for reader in readers {
            let (pool_index, member_index) = self.places[reader];
            let member = &mut self.pools[pool_index].members[member_index];
            if member.ejections.current().is_some()
                && member.upstream.address == target
                && member.ejections.on_probe(id, passed, began.unwrap_or(now), needed)
            {
                self.end_ejection(pool_index, member_index, EjectionEnd::Passes, now, effects);
            }
        }
    }
}

/// How many more upstreams of a pool may be ejected.
#[derive(Debug)]
struct Room {
    rule: Rule,
    able: Able,
    /// How many there are, and how many are ejected: of the primaries and of the backups.
    ranks: [(usize, usize); 2],
    /// What all eligible ones fail together, once that matters.
    share: Option<Share>,
}

impl Room {
    fn of(pool: &PoolState, checks: &Checks, now: Instant) -> Room {
        let mut ranks = [(0, 0); 2];
        for member in &pool.members {
            let (all, ejected) = &mut ranks[usize::from(member.policy().backup)];
            *all += 1;
            *ejected += usize::from(member.ejections.current().is_some());
        }
        Room { rule: pool.rule(), able: pool.able(None, false, checks, now), ranks, share: None }
    }

    /// Whether this member is ejected: its requests have failed often enough in a row, and enough others can serve. Those of
    /// which that has been said count as ejected.
    fn try_take(&mut self, pool: &PoolState, member: &Member, now: Instant) -> bool {
        let passive = &pool.policy.traffic.passive;
        let row = member.upstream.outcomes.row();
        if !passive.is_on() || row.count < passive.consecutive_failures {
            return false;
        }
        if !member.is_eligible() || pool.service != Service::Open {
            return false;
        }
        let backup = member.policy().backup;
        let (all, ejected) = self.ranks[usize::from(backup)];
        let after = self.able.without_one(backup);
        if !leaves_room(ejected, all, passive.max_share)
            || !after.any()
            || self.rule.left_too_few(self.able, after).is_some()
        {
            return false;
        }
        let own = member.upstream.share(pool.shared.second(now));
        if row.failures.has_status() {
            // What all answer alike is not this upstream's fault.
            let share = self.share.get_or_insert_with(|| pool.share(now));
            let others = share.minus(own);
            if !own.is_twice(others) {
                return false;
            }
            *share = others;
        }
        self.able = after;
        self.ranks[usize::from(backup)].1 += 1;
        true
    }
}

impl PoolState {
    /// What its eligible upstreams fail together.
    fn share(&self, now: Instant) -> Share {
        let second = self.shared.second(now);
        let eligible = self.members.iter().filter(|member| member.is_eligible());
        eligible.map(|member| member.upstream.share(second)).fold(Share::default(), Share::plus)
    }

    /// The next ejection that holds no longer, and why.
    fn next_ejection_to_end(&self, checks: &Checks, now: Instant) -> Option<(usize, EjectionEnd)> {
        let mut ejected = self
            .members
            .iter()
            .enumerate()
            .filter_map(|(index, member)| Some((member.ejections.current()?.until, index, member.is_able())));
        if !self.policy.traffic.passive.is_on() {
            return ejected.next().map(|(_, index, _)| (index, EjectionEnd::Off));
        }
        // The one that would end first. Those that could serve are let back before their time, if they must.
        let (until, first, _) = ejected.clone().min()?;
        if until <= now {
            return Some((first, EjectionEnd::Over));
        }
        let (_, first, _) = ejected.filter(|(.., able)| *able).min()?;
        self.lacks(checks, now).map(|why| (first, why))
    }
}
