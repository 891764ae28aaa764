//! Why a pool does not serve normally, and what would change that, each in one sentence. Pure.

use std::sync::Arc;

use crate::model::{Address, AdminState, Name};

/// The longest part of a probe's reason that is quoted, in characters.
pub(in crate::pool) const REASON_CHARS_MAX: usize = 200;

/// The upstreams of a pool that does not serve normally, counted by what keeps them out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::pool) struct Causes {
    /// Upstreams of the configuration.
    pub(in crate::pool) total: usize,
    /// Those that are healthy and enabled.
    pub(in crate::pool) able: usize,
    /// How many of those the pool needs; at least 1.
    pub(in crate::pool) needed: usize,
    pub(in crate::pool) unhealthy: usize,
    /// Without a verdict.
    pub(in crate::pool) unknown: usize,
    pub(in crate::pool) draining: usize,
    pub(in crate::pool) disabled: usize,
    /// Host names without an address.
    pub(in crate::pool) unresolved: usize,
    /// The first of those names.
    pub(in crate::pool) host: Option<Arc<str>>,
    /// What the last probe of the first unhealthy upstream found.
    pub(in crate::pool) found: Option<String>,
    /// The only upstream, if there is just one.
    pub(in crate::pool) only: Option<Address>,
    /// A healthy upstream that an operator's order keeps out, and the order.
    pub(in crate::pool) ordered: Option<(Address, AdminState)>,
    /// An upstream that only its agent keeps out.
    pub(in crate::pool) asked: Option<Address>,
    /// The configured fallback pool, if it cannot serve either.
    pub(in crate::pool) other: Option<Name>,
}

impl Causes {
    /// `none of its 3 upstreams can serve: 2 are unhealthy (L4CON: connection refused), 1 is disabled`.
    pub(in crate::pool) fn reason(&self) -> String {
        let mut text = match (&self.only, self.groups().as_slice()) {
            (Some(address), [one]) => format!("its only upstream, {address}, {}", one.alone),
            (_, groups) => {
                let mut text = match self.able {
                    0 if self.total == 2 => "neither of its 2 upstreams can serve".to_owned(),
                    0 => format!("none of its {} upstreams can serve", self.total),
                    able => format!("only {able} of its {} upstreams can serve", self.total),
                };
                if self.needed > 1 {
                    text.push_str(&format!(", and min_healthy requires {}", self.needed));
                }
                let each: Vec<String> = groups.iter().map(Group::counted).collect();
                if !each.is_empty() {
                    text.push_str(&format!(": {}", each.join(", ")));
                }
                text
            }
        };
        if let Some(other) = &self.other {
            text.push_str(&format!("; its fallback pool {other} cannot serve either"));
        }
        text
    }

    /// What would make the pool serve normally: `this ends when 1 more upstream passes its checks`.
    pub(in crate::pool) fn remedy(&self, pool: &Name) -> String {
        let checked = self.unhealthy + self.unknown;
        let mut ways = vec![];
        let missing = self.needed.max(1).saturating_sub(self.able).max(1);
        // By its address: the sentence also comes after others, where "it" could be the pool.
        let only = self.only.as_ref().map_or_else(|| "it".to_owned(), Address::to_string);
        if checked > 0 {
            ways.push(match (self.total, missing) {
                (1, _) => format!("when {only} passes its checks"),
                (_, 1) if self.able == 0 => "when an upstream passes its checks".to_owned(),
                (_, 1) => "when 1 more upstream passes its checks".to_owned(),
                (_, missing) => format!("when {missing} more upstreams pass their checks"),
            });
        }
        if let (0, Some(host)) = (checked, &self.host) {
            ways.push(format!("when the host name {host} has an address that passes its checks"));
        }
        if let Some((address, order)) = &self.ordered {
            let command = match order {
                AdminState::Draining => "undrain",
                AdminState::Disabled | AdminState::Enabled => "enable",
            };
            ways.push(format!("after `roundsman {command} {pool} {address}`"));
        }
        if let Some(address) = &self.asked {
            ways.push(format!("when the agent of {address} takes it back"));
        }
        if ways.is_empty() && self.draining + self.disabled > 0 {
            let ordered = match (self.draining, self.disabled) {
                (_, 0) => "is undrained",
                (0, _) => "is enabled",
                (_, _) => "is undrained or enabled,",
            };
            ways.push(match self.total {
                1 => format!("when {only} {ordered} and passes its checks"),
                _ => format!("when an upstream {ordered} and passes its checks"),
            });
        }
        if ways.is_empty() {
            ways.push("when an upstream is added".to_owned());
        }
        if let Some(other) = &self.other {
            let when = if ways.iter().all(|way| way.starts_with("when ")) { "" } else { "when " };
            ways.push(format!("{when}pool {other} serves again"));
        }
        format!("this ends {}", ways.join(", or "))
    }

    fn groups(&self) -> Vec<Group> {
        let found = self.found.as_deref().map(cut).unwrap_or_default();
        let quoted = |open: &str| if found.is_empty() { String::new() } else { format!(" ({open}{found})") };
        let host = self.host.as_deref().unwrap_or_default();
        let such = if self.unhealthy > 1 { "such as " } else { "" };
        let all = [
            (self.unhealthy, format!("unhealthy{}", quoted(such))),
            (self.unknown, "not judged yet".to_owned()),
            (self.draining, "draining".to_owned()),
            (self.disabled, "disabled".to_owned()),
        ];
        let mut groups: Vec<Group> = all.into_iter().filter(|(count, _)| *count > 0).map(Group::of).collect();
        match self.unresolved {
            0 => {}
            1 => groups.push(Group {
                alone: "has no address, because its host name does not resolve".to_owned(),
                counted: format!("the host name {host} does not resolve"),
            }),
            more => groups.push(Group {
                alone: String::new(),
                counted: format!("{more} host names do not resolve (such as {host})"),
            }),
        }
        groups
    }
}

/// Upstreams that are kept out for the same reason.
struct Group {
    /// To follow the address of the only upstream.
    alone: String,
    /// To follow their number, or with it.
    counted: String,
}

impl Group {
    fn of((count, state): (usize, String)) -> Group {
        let verb = if count == 1 { "is" } else { "are" };
        Group { alone: format!("is {state}"), counted: format!("{count} {verb} {state}") }
    }

    fn counted(&self) -> String {
        self.counted.clone()
    }
}

fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(REASON_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(total: usize, able: usize, needed: usize) -> Causes {
        Causes { total, able, needed, ..Causes::default() }
    }

    fn address() -> Address {
        "10.0.0.1:80".parse().unwrap()
    }

    #[test]
    fn each_outage_has_a_reason_and_says_what_would_end_it() {
        let refused = || Some("L4CON: connection refused".to_owned());
        let table = [
            (
                Causes { unhealthy: 2, disabled: 1, found: refused(), ..of(3, 0, 1) },
                "none of its 3 upstreams can serve: 2 are unhealthy (such as L4CON: connection refused), 1 is disabled",
                "this ends when an upstream passes its checks",
            ),
            (
                Causes { unhealthy: 1, found: refused(), only: Some(address()), ..of(1, 0, 1) },
                "its only upstream, 10.0.0.1:80, is unhealthy (L4CON: connection refused)",
                "this ends when 10.0.0.1:80 passes its checks",
            ),
            (
                Causes { unhealthy: 1, unknown: 1, found: refused(), ..of(3, 1, 2) },
                "only 1 of its 3 upstreams can serve, and min_healthy requires 2: 1 is unhealthy (L4CON: connection \
                 refused), 1 is not judged yet",
                "this ends when 1 more upstream passes its checks",
            ),
            (
                Causes { unhealthy: 4, ..of(5, 1, 3) },
                "only 1 of its 5 upstreams can serve, and min_healthy requires 3: 4 are unhealthy",
                "this ends when 2 more upstreams pass their checks",
            ),
            (
                Causes { draining: 2, ordered: Some((address(), AdminState::Draining)), ..of(2, 0, 1) },
                "neither of its 2 upstreams can serve: 2 are draining",
                "this ends after `roundsman undrain api 10.0.0.1:80`",
            ),
            (
                Causes {
                    unhealthy: 1,
                    disabled: 1,
                    ordered: Some((address(), AdminState::Disabled)),
                    other: Some(Name::try_new("spare").unwrap()),
                    ..of(2, 0, 1)
                },
                "neither of its 2 upstreams can serve: 1 is unhealthy, 1 is disabled; its fallback pool spare \
                 cannot serve either",
                "this ends when an upstream passes its checks, or after `roundsman enable api 10.0.0.1:80`, or when \
                 pool spare serves again",
            ),
            (
                Causes {
                    unhealthy: 1,
                    found: refused(),
                    only: Some(address()),
                    other: Some(Name::try_new("spare").unwrap()),
                    ..of(1, 0, 1)
                },
                "its only upstream, 10.0.0.1:80, is unhealthy (L4CON: connection refused); its fallback pool spare \
                 cannot serve either",
                "this ends when 10.0.0.1:80 passes its checks, or pool spare serves again",
            ),
            (
                Causes {
                    disabled: 1,
                    only: Some(address()),
                    other: Some(Name::try_new("spare").unwrap()),
                    ..of(1, 0, 1)
                },
                "its only upstream, 10.0.0.1:80, is disabled; its fallback pool spare cannot serve either",
                "this ends when 10.0.0.1:80 is enabled and passes its checks, or pool spare serves again",
            ),
            (
                Causes { disabled: 1, only: Some(address()), ..of(1, 0, 1) },
                "its only upstream, 10.0.0.1:80, is disabled",
                "this ends when 10.0.0.1:80 is enabled and passes its checks",
            ),
            (
                Causes { draining: 2, ..of(2, 0, 1) },
                "neither of its 2 upstreams can serve: 2 are draining",
                "this ends when an upstream is undrained and passes its checks",
            ),
            (
                Causes { draining: 1, disabled: 2, ..of(3, 0, 1) },
                "none of its 3 upstreams can serve: 1 is draining, 2 are disabled",
                "this ends when an upstream is undrained or enabled, and passes its checks",
            ),
            (
                Causes { unresolved: 1, host: Some("api.internal".into()), only: Some(address()), ..of(1, 0, 1) },
                "its only upstream, 10.0.0.1:80, has no address, because its host name does not resolve",
                "this ends when the host name api.internal has an address that passes its checks",
            ),
            (
                Causes { unresolved: 2, host: Some("api.internal".into()), ..of(2, 0, 1) },
                "neither of its 2 upstreams can serve: 2 host names do not resolve (such as api.internal)",
                "this ends when the host name api.internal has an address that passes its checks",
            ),
        ];
        let pool = Name::try_new("api").unwrap();
        for (causes, reason, remedy) in table {
            assert_eq!((causes.reason().as_str(), causes.remedy(&pool).as_str()), (reason, remedy));
        }
    }

    #[test]
    fn the_finding_of_a_probe_is_quoted_in_part() {
        let causes = Causes { unhealthy: 1, found: Some("ä".repeat(5_000)), ..of(2, 0, 1) };
        assert!(causes.reason().chars().count() < REASON_CHARS_MAX + 100, "{}", causes.reason());
        assert!(causes.reason().ends_with("…)"), "{}", causes.reason());
    }
}
