//! A warning about sessions that end each other: a cookie names one upstream of one pool, so pools of the same host need names
//! of their own for it. Pools that share a route may have the same.

use std::sync::Arc;

use crate::config::raw;
use crate::config::read::shown_key;
use crate::config::report::{Found, Report};
use crate::model::Name;
use crate::model::policy::{HostPattern, ListenerPolicy, PoolPolicy, RoutePolicy};

/// Warns about pools that set the same cookie for the same host. With mistakes in the file there is no such warning.
pub fn warn(
    file: &raw::File,
    listeners: &[Option<ListenerPolicy>],
    routes: &[RoutePolicy],
    pools: &[Arc<PoolPolicy>],
    report: &mut Report,
) {
    if report.has_errors() {
        return;
    }
    // Where requests of a host go: to pools that share them.
    let of_routes = routes.iter().map(|route| (&route.host, route.pools.iter().map(|share| &share.pool).collect()));
    let of_listeners =
        listeners.iter().flatten().filter_map(|listener| Some((&HostPattern::Any, vec![listener.pool.as_ref()?])));
    let leads: Vec<(&HostPattern, Vec<&Name>)> = of_routes.chain(of_listeners).collect();
    for (index, later) in pools.iter().enumerate() {
        let Some(cookie) = &later.traffic.sticky else { continue };
        let clashes = |earlier: &&Arc<PoolPolicy>| {
            let same = earlier.traffic.sticky.as_ref() == Some(cookie);
            same && !share(&leads, &earlier.name, &later.name) && meet(&leads, &earlier.name, &later.name)
        };
        let Some(earlier) = pools[..index].iter().find(clashes) else { continue };
        let place =
            file.pools.value().and_then(|by_name| by_name.0.iter().find(|(name, _)| name.value == later.name.as_str()));
        let Some((name, _)) = place else { continue };
        let message = format!(
            "the cookie {cookie} is that of pool {} too: on one host their sessions end each other",
            earlier.name
        );
        let key = format!("pools.{}.sticky.cookie", shown_key(&name.value));
        report.add(Found::warning(name.span.clone(), key, message).expected("another name for one of the two"));
    }
}

/// Whether some route shares its requests between both.
fn share(leads: &[(&HostPattern, Vec<&Name>)], one: &Name, other: &Name) -> bool {
    leads.iter().any(|(_, pools)| pools.contains(&one) && pools.contains(&other))
}

/// Whether a client can come to both on one host.
fn meet(leads: &[(&HostPattern, Vec<&Name>)], one: &Name, other: &Name) -> bool {
    let hosts = |pool: &Name| -> Vec<&HostPattern> {
        leads.iter().filter(|(_, pools)| pools.contains(&pool)).map(|(host, _)| *host).collect()
    };
    let others = hosts(other);
    hosts(one).into_iter().any(|host| others.iter().any(|other| coincide(host, other)))
}

/// Whether a host can match both.
fn coincide(one: &HostPattern, other: &HostPattern) -> bool {
    match (one, other) {
        (HostPattern::Any, _) | (_, HostPattern::Any) => true,
        (HostPattern::Exact(one), HostPattern::Exact(other)) => one == other,
        (HostPattern::Exact(host), HostPattern::Suffix(end)) | (HostPattern::Suffix(end), HostPattern::Exact(host)) => {
            host.ends_with(&**end)
        }
        (HostPattern::Suffix(one), HostPattern::Suffix(other)) => one.ends_with(&**other) || other.ends_with(&**one),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::presets::EmptyEnv;
    use crate::config::{Source, parse};

    #[test]
    fn pools_of_one_host_need_cookies_of_their_own() {
        let file = |routes: &str, second: &str| {
            format!(
                "listeners.web.address = \"127.0.0.1:80\"\n\
                 [pools.one]\nupstreams = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\nsticky = {{}}\n\
                 [pools.two]\nupstreams = [\"10.0.0.3:80\", \"10.0.0.4:80\"]\nsticky = {{ {second} }}\n{routes}"
            )
        };
        let two = |first: &str, second: &str| {
            format!(
                "[[routes]]\npath = \"/a\"\npool = \"one\"\n{first}\n[[routes]]\npath = \"/b\"\npool = \"two\"\n{second}\n"
            )
        };
        for (routes, second, clash) in [
            (two("", ""), "", true),
            (two("", ""), "cookie = \"other\"", false),
            (two("host = \"a.b\"", "host = \"a.b\""), "", true),
            (two("host = \"a.b\"", "host = \"c.b\""), "", false),
            (two("host = \"a.b\"", "host = \"*.b\""), "", true),
            (two("host = \"*.x.b\"", "host = \"*.b\""), "", true),
            (two("host = \"*.x.b\"", "host = \"*.y.b\""), "", false),
            (two("host = \"a.b\"", ""), "", true),
            (
                "[[routes]]\npool = [{ name = \"one\", weight = 1 }, { name = \"two\", weight = 1 }]\n".to_owned(),
                "",
                false,
            ),
        ] {
            let text = file(&routes, second);
            let parsed = parse(&Source { file: "x", text: text.as_bytes() }, &EmptyEnv).expect("a good file");
            let about = parsed.warnings.iter().filter(|warning| warning.key == "pools.two.sticky.cookie").count();
            assert_eq!(about, usize::from(clash), "{text}: {:?}", parsed.warnings);
        }
    }
}
