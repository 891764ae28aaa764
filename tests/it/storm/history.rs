//! The state at every moment of a storm, computed from the evidence: which upstream was in which pool, its state by the
//! event ring, and its state by what its origin did.
//!
//! `passing` and `failing` are the second source: since when an origin has only passed, or only failed, the checks of
//! this pool. They restart wherever a verdict may be uncertain, so that they hold whatever the ring says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use roundsman::model::{AdminState, HealthState};

use super::evidence::{Evidence, Order, Transition};
use super::model::{At, Config, Kind, Member, Mode, ORIGINS, Pool, Timing};

/// Added to the detection times: ten times what a slow machine needs.
pub const DETECTION_SLACK: Duration = Duration::from_secs(1);
/// How long removed upstreams may serve.
pub const RETIRING_MAX: Duration = Duration::from_secs(30);

/// One upstream of one pool.
#[derive(Debug, Clone)]
pub struct Hold {
    pub member: Member,
    /// The pool in the file; of a retiring upstream, as the file had it.
    pub rules: Arc<Pool>,
    /// Since when it has been in this pool, or in one with equal checks before it.
    pub joined: At,
    /// Its state by the event ring.
    pub state: HealthState,
    pub order: Option<AdminState>,
    /// Since when it has served as a removed one.
    pub retiring: Option<At>,
    pub passing: Option<At>,
    pub failing: Option<At>,
    up: Duration,
    down: Duration,
}

impl Hold {
    fn joining(member: Member, rules: &Arc<Pool>, at: At, judged: bool) -> Hold {
        Hold {
            member,
            rules: rules.clone(),
            joined: at,
            state: HealthState::Unknown,
            order: None,
            retiring: None,
            passing: judged.then_some(at),
            failing: (!judged).then_some(at),
            up: rules.timing.up(),
            down: rules.timing.down(),
        }
    }

    pub fn admin(&self) -> AdminState {
        self.order.unwrap_or(self.member.admin)
    }

    /// Whether it may be picked, by the ring.
    pub fn is_eligible(&self) -> bool {
        self.state == HealthState::Healthy && self.admin() == AdminState::Enabled
    }

    /// Whether it must be healthy at `at`, whatever the ring says.
    pub fn must_serve(&self, at: At) -> bool {
        let since = self.passing.filter(|_| self.admin() == AdminState::Enabled);
        since.is_some_and(|since| since + self.up + DETECTION_SLACK <= at)
    }

    /// Whether it must not be healthy at `at`, whatever the ring says.
    pub fn must_not_serve(&self, at: At) -> bool {
        self.failing.is_some_and(|since| since + self.down + DETECTION_SLACK <= at)
    }

    fn on_mode(&mut self, before: &Mode, mode: &Mode, at: At) {
        let kinds = &self.rules.kinds;
        let lost = kinds.iter().any(|kind| before.passes(*kind) && !mode.passes(*kind));
        let won = kinds.iter().any(|kind| !before.passes(*kind) && mode.passes(*kind));
        let judged = self.rules.judges(mode);
        // A different check may be decisive now.
        self.passing = judged.then(|| self.passing.filter(|_| !lost).unwrap_or(at));
        self.failing = (!judged).then(|| self.failing.filter(|_| !won).unwrap_or(at));
    }

    /// Whether it has this check.
    fn checks(&self, origin: usize, kind: Kind, timing: Timing) -> bool {
        self.member.origin == origin && self.rules.timing == timing && self.rules.kinds.contains(&kind)
    }

    /// Under the next configuration of its pool.
    fn goes_on(&self, member: Member, rules: &Arc<Pool>, mode: &Mode, steady: At, at: At) -> Hold {
        let same = self.rules.checks_as(rules) && self.rules.require_all == rules.require_all;
        let (up, down) = (self.up.max(rules.timing.up()), self.down.max(rules.timing.down()));
        // Under other checks a verdict is kept if the origin has not changed for long enough before.
        let is_settled = |bound: Duration| same || steady + bound + DETECTION_SLACK <= at;
        // A check that is redefined before it has a result restarts.
        let answers = same || !rules.kinds.iter().chain(&self.rules.kinds).any(|kind| mode.hangs(*kind));
        let judged = rules.judges(mode);
        Hold {
            member,
            rules: rules.clone(),
            passing: judged.then(|| self.passing.filter(|_| is_settled(up)).unwrap_or(at)),
            failing: (!judged).then(|| self.failing.filter(|_| is_settled(down) && answers).unwrap_or(at)),
            retiring: None,
            up: if same { self.up } else { up },
            down: if same { self.down } else { down },
            ..self.clone()
        }
    }
}

type Key = (String, usize);

/// The state from one moment to the next.
#[derive(Debug, Clone)]
pub struct Moment {
    pub at: At,
    pub config: Arc<Config>,
    holds: BTreeMap<Key, Hold>,
}

impl Moment {
    /// One upstream of a pool.
    pub fn hold(&self, pool: &str, origin: usize) -> Option<&Hold> {
        self.holds.get(&(pool.to_owned(), origin))
    }

    /// All upstreams of a pool, retiring ones too.
    pub fn holds_of<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Hold> {
        self.holds.range((pool.to_owned(), 0)..=(pool.to_owned(), usize::MAX)).map(|(_, hold)| hold)
    }

    /// Whether a pool has what it needs to serve, where `counts` says which upstreams count.
    pub fn can_serve(&self, pool: &str, counts: impl Fn(&Hold) -> bool) -> bool {
        let Some(policy) = self.config.pools.get(pool) else { return false };
        let count = |backup| self.holds_of(pool).filter(|h| h.member.backup == backup).filter(|h| counts(h)).count();
        let alone = policy.members.iter().all(|member| member.backup);
        let (primaries, backups) = (count(false), count(true));
        primaries >= policy.min_healthy.max(1) || backups >= if alone { policy.min_healthy.max(1) } else { 1 }
    }

    /// Whether the upstreams of the configuration can serve without the removed ones: a backup does not replace removed
    /// primaries.
    fn serves_alone(&self, pool: &str, for_primaries: bool) -> bool {
        let alone = self.config.pools.get(pool).is_some_and(|p| p.members.iter().all(|member| member.backup));
        let ranks = |hold: &Hold| !for_primaries || alone || !hold.member.backup;
        self.can_serve(pool, |hold| hold.retiring.is_none() && hold.is_eligible() && ranks(hold))
    }
}

/// Every moment, from the start.
#[derive(Debug)]
pub struct History {
    moments: Vec<Moment>,
}

enum Item<'e> {
    Config(usize),
    Mode(usize, &'e Mode),
    Order(&'e Order),
    Transition(&'e Transition),
    Still,
    Moving,
}

impl History {
    pub fn of(evidence: &Evidence) -> History {
        let mut items: Vec<(At, Item<'_>)> = Vec::new();
        // At one instant the configuration comes first, and the verdicts that it changed follow.
        items.extend(evidence.configs.iter().enumerate().map(|(index, (at, _))| (*at, Item::Config(index))));
        items.extend(evidence.modes.iter().map(|(at, origin, mode)| (*at, Item::Mode(*origin, mode))));
        items.extend(evidence.orders.iter().map(|order| (order.at, Item::Order(order))));
        items.extend(evidence.transitions.iter().map(|transition| (transition.at, Item::Transition(transition))));
        items.extend(evidence.standstills.iter().flat_map(|(from, to)| [(*from, Item::Still), (*to, Item::Moving)]));
        items.sort_by_key(|(at, _)| *at);
        let mut walk = Walk::new(evidence);
        let mut moments = Vec::new();
        for group in items.chunk_by(|a, b| a.0 == b.0) {
            let at = group[0].0;
            for (_, item) in group {
                walk.apply(item, at);
            }
            walk.settle(at);
            moments.push(walk.now.clone());
        }
        History { moments }
    }

    /// The moments that overlap the time from `from` to `to`.
    pub fn during(&self, from: At, to: At) -> &[Moment] {
        let first = self.moments.partition_point(|moment| moment.at <= from).saturating_sub(1);
        let last = self.moments.partition_point(|moment| moment.at <= to).max(first);
        &self.moments[first..last.max((first + 1).min(self.moments.len()))]
    }
}

/// The state of the walk.
struct Walk<'e> {
    evidence: &'e Evidence,
    now: Moment,
    modes: [Mode; ORIGINS],
    /// Since when each origin has given the same answers to checks.
    steady: [At; ORIGINS],
    still: u32,
    /// Removed by the configuration of this instant, while they might serve.
    removed: Vec<(Key, Hold)>,
    /// Orders for addresses that a name no longer resolves to.
    absent: BTreeMap<Key, AdminState>,
}

impl<'e> Walk<'e> {
    fn new(evidence: &'e Evidence) -> Walk<'e> {
        let (_, config) = evidence.configs.first().expect("a storm begins with a configuration");
        let empty = Config { pools: BTreeMap::new(), ..config.clone() };
        Walk {
            evidence,
            now: Moment { at: At::ZERO, config: Arc::new(empty), holds: BTreeMap::new() },
            modes: [Mode::GOOD; ORIGINS],
            steady: [At::ZERO; ORIGINS],
            still: 0,
            removed: Vec::new(),
            absent: BTreeMap::new(),
        }
    }

    fn apply(&mut self, item: &Item<'_>, at: At) {
        self.now.at = at;
        match item {
            Item::Config(index) => self.on_config(*index, at),
            Item::Mode(origin, mode) => self.on_mode(*origin, mode, at),
            Item::Order(order) => {
                if let Some(hold) = self.now.holds.get_mut(&(order.pool.clone(), order.origin)) {
                    hold.order = Some(order.to);
                }
            }
            Item::Transition(transition) => {
                if let Some(hold) = self.now.holds.get_mut(&(transition.pool.clone(), transition.origin)) {
                    hold.state = transition.to;
                }
            }
            Item::Still => self.still += 1,
            Item::Moving => self.still = self.still.saturating_sub(1),
        }
        if matches!(item, Item::Still | Item::Moving) {
            self.steady = [at; ORIGINS];
            // A probe may have timed out during that time.
            for hold in self.now.holds.values_mut() {
                let judged = hold.rules.judges(&self.modes[hold.member.origin]);
                hold.passing = judged.then_some(at);
                hold.failing = (!judged).then_some(at);
            }
        }
    }

    fn on_mode(&mut self, origin: usize, mode: &Mode, at: At) {
        let before = std::mem::replace(&mut self.modes[origin], *mode);
        if (before.reach, before.paths) != (mode.reach, mode.paths) {
            self.steady[origin] = at;
        }
        for hold in self.now.holds.values_mut().filter(|hold| hold.member.origin == origin) {
            hold.on_mode(&before, mode, at);
        }
    }

    fn on_config(&mut self, index: usize, at: At) {
        let config = Arc::new(self.evidence.configs[index].1.clone());
        // Only a pool that served keeps its removed upstreams.
        let served = |pool: &&String| self.now.can_serve(pool, Hold::is_eligible);
        let served: BTreeSet<String> = self.now.config.pools.keys().filter(served).cloned().collect();
        let before = std::mem::take(&mut self.now.holds);
        self.now.config = config.clone();
        for (name, pool) in &config.pools {
            let rules = Arc::new(pool.clone());
            for member in &pool.members {
                let key = (name.clone(), member.origin);
                let (mode, steady) = (&self.modes[member.origin], self.steady[member.origin]);
                let hold = match before.get(&key) {
                    Some(earlier) => {
                        let kept = earlier.goes_on(*member, &rules, mode, steady, at);
                        // An order ended when the upstream left the file.
                        Hold { order: earlier.order.filter(|_| earlier.retiring.is_none()), ..kept }
                    }
                    None => {
                        // Each of its checks may be shared with another pool, with its verdict; any other starts now.
                        let known = pool.kinds.iter().map(|kind| {
                            let same = before.values().filter(|h| h.checks(member.origin, *kind, pool.timing));
                            same.map(|hold| hold.joined).min()
                        });
                        let joined = known.map(|joined| joined.unwrap_or(at)).max().unwrap_or(at);
                        let state = self.first_known(&key, index).unwrap_or(HealthState::Unknown);
                        let verdicts = Hold::joining(*member, &rules, steady.max(joined), rules.judges(mode));
                        Hold { state, joined, ..verdicts }
                    }
                };
                let order = hold.order.or(self.absent.remove(&key).filter(|_| member.by_name));
                self.now.holds.insert(key, Hold { order, ..hold });
            }
        }
        for (key, hold) in before.into_iter().filter(|(key, _)| !self.now.holds.contains_key(key)) {
            let named = config.pools.get(&key.0).is_some_and(Pool::is_named);
            if let Some(order) = hold.order.filter(|_| hold.member.by_name && named) {
                self.absent.insert(key.clone(), order);
            }
            if served.contains(&key.0) && config.pools.contains_key(&key.0) && hold.is_eligible() {
                self.removed.push((key, hold));
            }
        }
        self.absent.retain(|(pool, _), _| config.pools.get(pool).is_some_and(Pool::is_named));
    }

    /// After all changes of an instant: which removed upstreams stay, and which retiring ones end.
    fn settle(&mut self, at: At) {
        for (key, hold) in std::mem::take(&mut self.removed) {
            let pool = &key.0;
            let since = self.now.holds_of(pool).filter_map(|hold| hold.retiring).min();
            if !self.now.serves_alone(pool, !hold.member.backup) {
                let since = hold.retiring.or(since).unwrap_or(at);
                self.now.holds.insert(key, Hold { retiring: Some(since), ..hold });
            }
        }
        let retiring = self.now.holds.iter().filter(|(_, hold)| hold.retiring.is_some());
        let gone = retiring.filter(|((pool, _), hold)| {
            let over = hold.retiring.is_some_and(|since| since + RETIRING_MAX <= at);
            over || self.now.serves_alone(pool, !hold.member.backup)
        });
        let gone: Vec<Key> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.now.holds.remove(&key);
        }
    }

    /// The state of an upstream when it joined with configuration `index`: from its first change, or else from a
    /// status.
    fn first_known(&self, key: &Key, index: usize) -> Option<HealthState> {
        let joined = self.evidence.configs[index].0;
        let without = |(_, config): &&(At, Config)| !config.pools.get(&key.0).is_some_and(|pool| pool.has(key.1));
        let left = self.evidence.configs[index..].iter().find(without).map_or(At::MAX, |(at, _)| *at);
        let of = |t: &&Transition| t.at >= joined && t.at <= left && t.pool == key.0 && t.origin == key.1;
        if let Some(first) = self.evidence.transitions.iter().find(of) {
            return Some(first.from);
        }
        let within = self.evidence.samples.iter().filter(|s| s.asked >= joined && s.answered <= left);
        within.filter_map(|sample| sample.upstreams.get(key)).map(|known| known.state).next()
    }
}
