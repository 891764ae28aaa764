//! Finds the upstream or pool that an operator's text names, or the names closest to it. Never acts on a close name: it
//! is only suggested.

use super::Address;

/// The most names suggested when none matches.
const NEAR_MAX: usize = 5;
/// The most names listed when none is close.
const LISTED_MAX: usize = 20;
/// The most names compared.
const LOOKED_AT_MAX: usize = 10_000;

/// Why a text names nothing, or more than one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Whether it names several; otherwise it names none.
    pub several: bool,
    /// The names that match or are close; at most five.
    pub near: Vec<String>,
}

impl Missing {
    /// The suggestion, to follow a sentence that says what is missing.
    pub fn suggestion(&self) -> String {
        match (self.several, self.near.as_slice()) {
            (_, []) => String::new(),
            (true, near) => format!(": it may be {}", near.join(" or ")),
            (false, near) => format!("; did you mean {}?", near.join(" or ")),
        }
    }
}

/// An error for a pool name that does not exist, with close names, and with the existing ones: 20 at most.
pub fn no_pool(name: &str, all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    let missing = Missing { several: false, near: near(name, all.iter().cloned()) };
    let there_are = match all.as_slice() {
        _ if missing.near.len() == all.len() && !all.is_empty() => String::new(),
        [] => "; there are no pools".to_owned(),
        [only] => format!("; the only pool is {only}"),
        several => {
            let more = several.len().saturating_sub(LISTED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("; the pools are {}{more}", several[..several.len().min(LISTED_MAX)].join(", "))
        }
    };
    format!("there is no pool {name:?}{}{there_are}", missing.suggestion())
}

/// The index of the upstream (address, and the host name that resolved to it) that a text names: by its address, or by
/// its host name with or without the port if that names just one.
///
/// # Errors
/// It names none, or several.
pub fn upstream<'n>(
    text: &str,
    all: impl Iterator<Item = (&'n Address, Option<&'n str>)> + Clone,
) -> Result<usize, Missing> {
    match upstreams(text, all.clone())?.as_slice() {
        [index] => Ok(*index),
        several => {
            let address = |index: &usize| all.clone().nth(*index).map(|(address, _)| address.to_string());
            Err(Missing { several: true, near: several.iter().take(NEAR_MAX).filter_map(address).collect() })
        }
    }
}

/// The indices of the upstreams that a text names: one by its address, all of a host name with or without the port. At
/// least one.
///
/// # Errors
/// It names none.
pub fn upstreams<'n>(
    text: &str,
    all: impl Iterator<Item = (&'n Address, Option<&'n str>)> + Clone,
) -> Result<Vec<usize>, Missing> {
    if let Ok(address) = text.parse::<Address>()
        && let Some(index) = all.clone().position(|(known, _)| *known == address)
    {
        return Ok(vec![index]);
    }
    let named = all.clone().enumerate().filter(|(_, (address, name))| name.is_some_and(|n| names(text, n, address)));
    let named: Vec<usize> = named.map(|(index, _)| index).collect();
    if named.is_empty() {
        let same_port = same_port(text, all.clone());
        if same_port.sure {
            return Err(Missing { several: false, near: same_port.near });
        }
        let texts = all.flat_map(|(address, name)| [Some(address.to_string()), name.map(str::to_owned)]).flatten();
        let near = Some(near(text, texts)).filter(|near| !near.is_empty()).unwrap_or(same_port.near);
        return Err(Missing { several: false, near });
    }
    Ok(named)
}

/// Upstreams with the port that a text names with another host.
#[derive(Default)]
struct SamePort {
    /// Both hosts are this machine, such as `localhost` and `127.0.0.1`.
    sure: bool,
    /// Their addresses; unless `sure`, at most one.
    near: Vec<String>,
}

fn same_port<'n>(text: &str, all: impl Iterator<Item = (&'n Address, Option<&'n str>)>) -> SamePort {
    let Ok(wanted) = text.parse::<Address>() else { return SamePort::default() };
    let Some(port) = wanted.port() else { return SamePort::default() };
    let with_port: Vec<_> = all.take(LOOKED_AT_MAX).filter(|(address, _)| address.port() == Some(port)).collect();
    if is_this_machine(&wanted, None) {
        let here = with_port.iter().filter(|(address, name)| is_this_machine(address, *name));
        let near: Vec<String> = here.take(NEAR_MAX).map(|(address, _)| address.to_string()).collect();
        if !near.is_empty() {
            return SamePort { sure: true, near };
        }
    }
    match with_port.as_slice() {
        [(only, _)] => SamePort { sure: false, near: vec![only.to_string()] },
        _ => SamePort::default(),
    }
}

/// Whether an address, or the host name that resolved to it, is that of this machine.
fn is_this_machine(address: &Address, name: Option<&str>) -> bool {
    let is_localhost = |host: &str| host.eq_ignore_ascii_case("localhost");
    match address {
        Address::Inet(address) => address.ip().is_loopback() || name.is_some_and(is_localhost),
        Address::Name { host, .. } => is_localhost(host),
        Address::Unix(_) => false,
    }
}

fn names(text: &str, name: &str, address: &Address) -> bool {
    let with_port = |port| text.strip_suffix(&format!(":{port}")).is_some_and(|host| host.eq_ignore_ascii_case(name));
    text.eq_ignore_ascii_case(name) || address.port().is_some_and(with_port)
}

/// The names closest to `text`, the closest first, each once.
pub fn near(text: &str, all: impl Iterator<Item = String>) -> Vec<String> {
    if text.is_empty() || text.len() > 128 {
        return Vec::new();
    }
    let lower = text.to_ascii_lowercase();
    let far = (text.chars().count() / 3).clamp(1, 3);
    let score = |name: String| {
        let known = name.to_ascii_lowercase();
        let distance = strsim::damerau_levenshtein(&lower, &known);
        let part = known.contains(&lower) || lower.contains(&known);
        (part || distance <= far).then_some((distance, name))
    };
    let mut scored: Vec<_> = all.take(LOOKED_AT_MAX).filter_map(score).collect();
    scored.sort();
    scored.dedup();
    scored.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str) -> Result<usize, Missing> {
        let all: Vec<(Address, Option<&str>)> = [
            ("10.0.0.1:8080", None),
            ("10.0.0.2:8080", None),
            ("10.1.0.1:7100", Some("api")),
            ("10.1.0.1:7101", Some("api")),
            ("[::1]:7100", Some("other")),
            ("unix:/run/a.sock", None),
        ]
        .into_iter()
        .map(|(address, name)| (address.parse().unwrap(), name))
        .collect();
        upstream(text, all.iter().map(|(address, name)| (address, *name)))
    }

    #[test]
    fn an_upstream_is_named_by_its_address_or_its_host_name() {
        for (text, index) in [
            ("10.0.0.2:8080", 1),
            ("[0:0:0:0:0:0:0:1]:7100", 4),
            ("other", 4),
            ("OTHER:7100", 4),
            ("api:7101", 3),
            ("unix:/run/a.sock", 5),
        ] {
            assert_eq!(find(text), Ok(index), "{text}");
        }
    }

    #[test]
    fn a_pool_that_is_missing_is_answered_with_those_that_there_are() {
        let say = |name: &str, all: &[&str]| no_pool(name, all.iter().map(|name| (*name).to_owned()));
        for (name, all, want) in [
            ("apy", &["api"][..], "there is no pool \"apy\"; did you mean api?"),
            ("apy", &["api", "web"], "there is no pool \"apy\"; did you mean api?; the pools are api, web"),
            ("db", &["api"], "there is no pool \"db\"; the only pool is api"),
            ("x\n", &["api", "web"], "there is no pool \"x\\n\"; the pools are api, web"),
            ("db", &[], "there is no pool \"db\"; there are no pools"),
        ] {
            assert_eq!(say(name, all), want);
        }
        let many: Vec<String> = (0..30).map(|number| format!("pool-{number}")).collect();
        assert!(no_pool("db", many.into_iter()).ends_with("pool-18, pool-19 and 10 more"));
    }

    #[test]
    fn a_name_that_matches_none_or_several_gets_suggestions() {
        let several = find("api").unwrap_err();
        assert_eq!(several.suggestion(), ": it may be 10.1.0.1:7100 or 10.1.0.1:7101");
        let near = find("10.0.0.3:8080").unwrap_err();
        assert_eq!(near.suggestion(), "; did you mean 10.0.0.1:8080 or 10.0.0.2:8080?");
        assert_eq!(find("10.0.0.2").unwrap_err().near[0], "10.0.0.2:8080");
        assert_eq!(find("a.sock").unwrap_err().near, ["unix:/run/a.sock"]);
        // The same port on this machine, or of one upstream only.
        assert_eq!(find("localhost:7100").unwrap_err().near, ["[::1]:7100"]);
        assert_eq!(find("127.0.0.1:7100").unwrap_err().near, ["[::1]:7100"]);
        assert_eq!(find("LOCALHOST:7101").unwrap_err().suggestion(), "; did you mean 10.1.0.1:7101?");
        assert_eq!(find("somewhere.example:7101").unwrap_err().near, ["10.1.0.1:7101"]);
        for nothing in
            ["localhost:8080", "localhost:1", "somewhere.example:7100", "completely-else", "", &"x".repeat(1_000)]
        {
            assert_eq!(find(nothing).unwrap_err().suggestion(), "", "{nothing}");
        }
    }
}
