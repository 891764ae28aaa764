//! Carries out what operators order and agents ask for, and ends orders whose time is over.

use tokio::time::Instant;

use super::super::events::EventKind;
use super::super::orders::{Done, Order, OrderError, Setting};
use super::super::pools::Member;
use super::super::upstream::UpstreamId;
use super::{CheckId, Effects, State};
use crate::model::{Address, AdminState};

/// The origin of a change that nobody ordered now.
const TIME_OVER: &str = "the time of the order is over";
/// The origin of a change that an upstream's agent has asked for.
const AGENT: &str = "its agent";

impl State {
    /// Carries out an order in the pool of this name, or in every pool that has the upstream: in all of them or in none. It
    /// holds until its time is over, the upstream leaves the file, or the process ends. It also applies to an upstream that
    /// has left the file and still serves for others.
    ///
    /// # Errors
    /// Why nothing was done.
    pub fn order(
        &mut self,
        pool: Option<&str>,
        address: &Address,
        order: &Order<'_>,
        now: Instant,
    ) -> Result<(Vec<Done>, Effects), OrderError> {
        let places = self.ordered(pool, address)?;
        for (pool_index, member_index) in &places {
            let pool = &self.pools[*pool_index];
            let needs_force = || pool.needs_force(address, &self.checks, now);
            let member = &pool.members[*member_index];
            if let Some(why) = order.refused(member.ordered(), member.is_asked_out(), needs_force) {
                return Err(why);
            }
        }
        let mut effects = Effects::default();
        let mut done = vec![];
        for (pool_index, member_index) in places {
            let pool = &mut self.pools[pool_index];
            let name = pool.policy.name.clone();
            let member = &mut pool.members[member_index];
            let setting = order.command.setting();
            let ((was, in_file), before) = (member.settings_like(setting), member.admin());
            let had_end = member.overrides.until_of(setting).is_some();
            member.overrides.set(order, now);
            member.on_admin_change(before, now);
            done.push(Done { pool: name.clone(), was, in_file });
            self.dirty.insert(pool_index);
            if was == setting && order.lasts.is_none() && !had_end {
                continue;
            }
            if was != setting && matches!(setting, Setting::Admin(AdminState::Draining | AdminState::Disabled)) {
                effects.lose(&member.upstream);
            }
            let (reason, by) = (order.reason.to_owned(), order.by.to_owned());
            let upstream = address.clone();
            let ordered = EventKind::Ordered { pool: name, upstream, to: setting, lasts: order.lasts, reason, by };
            self.log(ordered, now, &mut effects);
        }
        self.settle(now, &mut effects);
        Ok((done, effects))
    }

    /// Where the upstream of an order is.
    fn ordered(&self, pool: Option<&str>, address: &Address) -> Result<Vec<(usize, usize)>, OrderError> {
        let named = |name: &str| pool.is_none_or(|wanted| wanted == name);
        let pools = self.pools.iter().enumerate().filter(|(_, pool)| named(pool.policy.name.as_str()));
        let places = pools.clone().filter_map(|(index, pool)| {
            Some((index, pool.members.iter().position(|member| member.upstream.address == *address)?))
        });
        let places: Vec<_> = places.collect();
        if !places.is_empty() {
            return Ok(places);
        }
        let upstream = address.clone();
        Err(match (pool, pools.map(|(_, pool)| pool).next()) {
            (Some(name), None) => OrderError::NoPool(name.to_owned()),
            (Some(_), Some(pool)) => OrderError::NoUpstream { pool: Some(pool.policy.name.clone()), upstream },
            (None, _) => OrderError::NoUpstream { pool: None, upstream },
        })
    }

    /// Ends the orders of a pool whose time is over.
    pub(super) fn end_orders(&mut self, pool_index: usize, now: Instant, effects: &mut Effects) {
        for member_index in 0..self.pools[pool_index].members.len() {
            let pool = &mut self.pools[pool_index];
            let member = &mut pool.members[member_index];
            if member.overrides.until().is_none_or(|until| until > now) {
                continue;
            }
            let before = (member.admin(), member.weight());
            member.overrides.end(now);
            member.on_admin_change(before.0, now);
            let after = (member.admin(), member.weight());
            // Sessions may have been at one that drained.
            if before.0 != after.0 && after.0 != AdminState::Enabled {
                effects.lose(&member.upstream);
            }
            let changed = [
                (before.0 != after.0).then_some(Setting::Admin(after.0)),
                (before.1 != after.1).then_some(Setting::Weight(after.1)),
            ];
            let (name, address) = (pool.policy.name.clone(), member.upstream.address.clone());
            self.dirty.insert(pool_index);
            for to in changed.into_iter().flatten() {
                let (pool, upstream, reason) = (name.clone(), address.clone(), String::new());
                let ended = EventKind::Ordered { pool, upstream, to, lasts: None, reason, by: TIME_OVER.to_owned() };
                self.log(ended, now, effects);
            }
        }
    }
}

impl State {
    /// An agent may have answered: its upstreams take requests as it says from now on.
    pub(super) fn heed(&mut self, check: CheckId, readers: &[UpstreamId], now: Instant, effects: &mut Effects) {
        for reader in readers {
            let (pool_index, member_index) = self.places[reader];
            let pool = &mut self.pools[pool_index];
            let member = &mut pool.members[member_index];
            let before = member.admin();
            member.heed(&self.checks);
            let after = member.admin();
            if before == after {
                continue;
            }
            member.on_admin_change(before, now);
            if after != AdminState::Enabled {
                effects.lose(&member.upstream);
            }
            let (pool, upstream) = (pool.policy.name.clone(), member.upstream.address.clone());
            self.dirty.insert(pool_index);
            let last = self.checks[&check].last.as_ref();
            let reason = last.map_or_else(String::new, |(_, report)| report.reason.to_string());
            let (to, by) = (Setting::Admin(after), AGENT.to_owned());
            self.log(EventKind::Ordered { pool, upstream, to, lasts: None, reason, by }, now, effects);
        }
    }
}

impl Member {
    /// The setting of the kind of this one, as it holds and as the file has it.
    fn settings_like(&self, setting: Setting) -> (Setting, Setting) {
        match setting {
            Setting::Admin(_) => (Setting::Admin(self.ordered()), Setting::Admin(self.policy().admin)),
            Setting::Weight(_) => (Setting::Weight(self.weight()), Setting::Weight(self.policy().weight)),
        }
    }
}
