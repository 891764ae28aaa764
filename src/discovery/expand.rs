//! Replaces names by their addresses: each address is an upstream with the weight, rank and admin state of its entry.
//! Pure. A name without an address stays as it is, so that it is visible. One address is one upstream: an address in
//! the file wins over the same address from a name.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Table;
use crate::model::policy::{Config, PoolPolicy, UpstreamPolicy};
use crate::model::{Address, Name};

/// The most upstreams of one pool, including the addresses of its names; the same limit as for the file.
const UPSTREAMS_MAX: usize = 65_535;

/// An address of a name that did not become an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Remark {
    /// The pool.
    pub pool: Name,
    /// The name.
    pub host: Arc<str>,
    /// The address.
    pub address: Address,
    /// Why not, in one sentence.
    pub what: &'static str,
}

const OURSELVES: &str = "A name resolves to an address of roundsman itself; the address is ignored";
const TWICE: &str = "A name resolves to an address that is already in the pool; the address is ignored";
const TOO_MANY: &str = "A pool has too many addresses; the rest are ignored";

/// The pools with names replaced by addresses, and remarks about addresses that were ignored.
pub fn expand(config: &Config, table: &Table) -> (Vec<Arc<PoolPolicy>>, Vec<Remark>) {
    let own: Vec<&Address> = config.listeners.iter().map(|l| &l.address).chain([&config.admin.address]).collect();
    let mut remarks = Vec::new();
    let pools = config.pools.iter().map(|pool| {
        if pool.upstreams.iter().all(|upstream| upstream.address.host_name().is_none()) {
            return pool.clone();
        }
        let upstreams = upstreams(pool, &own, table, &mut remarks);
        Arc::new(PoolPolicy { upstreams, ..PoolPolicy::clone(pool) })
    });
    (pools.collect(), remarks)
}

fn upstreams(pool: &PoolPolicy, own: &[&Address], table: &Table, remarks: &mut Vec<Remark>) -> Vec<UpstreamPolicy> {
    let written = pool.upstreams.iter().map(|u| &u.address).filter(|address| address.host_name().is_none());
    let mut seen: HashSet<Address> = written.map(canonical).collect();
    let mut out = Vec::with_capacity(pool.upstreams.len());
    for upstream in &pool.upstreams {
        let Address::Name { host, port } = &upstream.address else {
            out.push(upstream.clone());
            continue;
        };
        let mut represented = false;
        for ip in table.addresses(host) {
            let address = Address::Inet(SocketAddr::new(*ip, *port));
            let what = match () {
                () if own.iter().any(|own| own.is_reached_by(&address)) => OURSELVES,
                () if seen.contains(&address) => {
                    represented = true;
                    TWICE
                }
                () if out.len() >= UPSTREAMS_MAX => TOO_MANY,
                () => {
                    represented = true;
                    seen.insert(address.clone());
                    out.push(UpstreamPolicy { address, name: Some(host.clone()), ..upstream.clone() });
                    continue;
                }
            };
            remarks.push(Remark { pool: pool.name.clone(), host: host.clone(), address, what });
        }
        if !represented {
            out.push(upstream.clone());
        }
    }
    out
}

/// `[::ffff:127.0.0.1]:80` is `127.0.0.1:80`.
fn canonical(address: &Address) -> Address {
    match address {
        Address::Inet(inet) => Address::Inet(SocketAddr::new(inet.ip().to_canonical(), inet.port())),
        Address::Unix(_) | Address::Name { .. } => address.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::tests::{config, pool, upstream};
    use super::*;
    use crate::model::policy::ListenerPolicy;
    use crate::model::{AdminState, Weight};

    fn table(answers: &[(&str, &[&str])]) -> Table {
        let mut table = Table::default();
        let now = Instant::now();
        for (host, addresses) in answers {
            let host: Arc<str> = Arc::from(*host);
            table.add([(&host, Duration::from_secs(1))].into_iter(), now);
            table.answer(&host, Ok(addresses.iter().map(|a| a.parse().unwrap()).collect()), now, 0.0);
        }
        table
    }

    fn texts(pool: &PoolPolicy) -> Vec<String> {
        pool.upstreams.iter().map(|u| u.address.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_of_a_name_is_an_upstream_with_what_its_entry_says() {
        let entry = UpstreamPolicy {
            weight: Weight::try_new(3).unwrap(),
            backup: true,
            admin: AdminState::Draining,
            ..upstream("api:7100")
        };
        let config = config(vec![PoolPolicy { upstreams: vec![upstream("10.0.0.9:1"), entry.clone()], ..pool(&[]) }]);
        let (pools, remarks) = expand(&config, &table(&[("api", &["10.0.0.2", "10.0.0.1", "::1"])]));
        assert_eq!(texts(&pools[0]), ["10.0.0.9:1", "10.0.0.1:7100", "10.0.0.2:7100", "[::1]:7100"]);
        assert_eq!(pools[0].upstreams[0], upstream("10.0.0.9:1"));
        for resolved in &pools[0].upstreams[1..] {
            assert_eq!(resolved.name.as_deref(), Some("api"));
            assert_eq!(*resolved, UpstreamPolicy { address: resolved.address.clone(), ..entry.clone() });
        }
        assert!(remarks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_without_names_is_the_same_one_and_a_name_without_addresses_stays() {
        let config = config(vec![pool(&["10.0.0.1:1"]), pool(&["api:1", "10.0.0.1:1", "db:1"])]);
        let (pools, _) = expand(&config, &table(&[("db", &["10.0.0.5"])]));
        assert!(Arc::ptr_eq(&pools[0], &config.pools[0]));
        assert_eq!(texts(&pools[1]), ["api:1", "10.0.0.1:1", "10.0.0.5:1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_is_one_upstream_and_the_written_one_wins() {
        let config = config(vec![pool(&["api:1", "db:1", "[::ffff:10.0.0.1]:1", "db:2"])]);
        let (pools, remarks) = expand(&config, &table(&[("api", &["10.0.0.1"]), ("db", &["10.0.0.1", "10.0.0.2"])]));
        assert_eq!(texts(&pools[0]), ["10.0.0.2:1", "[::ffff:10.0.0.1]:1", "10.0.0.1:2", "10.0.0.2:2"]);
        let got: Vec<_> = remarks.iter().map(|r| (&*r.host, r.address.to_string(), r.what)).collect();
        let address = || "10.0.0.1:1".to_owned();
        assert_eq!(got, [("api", address(), TWICE), ("db", address(), TWICE)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_ourselves_is_left_out() {
        let mut config = config(vec![pool(&["api:8080", "admin:9900"])]);
        let address = "0.0.0.0:8080".parse().unwrap();
        config.listeners = vec![ListenerPolicy {
            name: Name::try_new("web").unwrap(),
            address,
            pool: None,
            client: Default::default(),
            rate_limit: None,
            marks: Default::default(),
            ready_path: None,
        }];
        let table = table(&[("api", &["127.0.0.1", "10.0.0.1"]), ("admin", &["127.0.0.1"])]);
        let (pools, remarks) = expand(&config, &table);
        assert_eq!(texts(&pools[0]), ["10.0.0.1:8080", "admin:9900"], "a name with no address left stays visible");
        assert!(remarks.iter().all(|remark| remark.what == OURSELVES) && remarks.len() == 2);
        assert_eq!(table.problem("admin"), "admin resolves only to addresses of roundsman itself");
    }
}
