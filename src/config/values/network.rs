//! Networks whose word is believed.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Text;

/// An entry of `forwarded.trusted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// Those with an address of this network.
    Network(IpNet),
    /// Those on a unix socket.
    Unix,
}

impl Text for Peers {
    fn what() -> String {
        "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", an address, or \"unix\"".to_owned()
    }

    fn parse(text: &str) -> Result<Peers, String> {
        if text == "unix" {
            return Ok(Peers::Unix);
        }
        let network = match text.split_once('/') {
            Some(_) => text.parse::<IpNet>().map_err(|_| " is not a network".to_owned())?,
            None => IpNet::from(text.parse::<IpAddr>().map_err(|_| " is not an address".to_owned())?),
        };
        if network.trunc() != network {
            return Err(format!(" has bits after its prefix; the network is \"{}\"", network.trunc()));
        }
        match network {
            // Addresses of this kind are compared as IPv4.
            IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => Err(" is IPv4; write it so".to_owned()),
            network => Ok(Peers::Network(network)),
        }
    }

    fn suggest(text: &str) -> Option<String> {
        let network = text.parse::<IpNet>().ok()?.trunc().to_string();
        (network != text).then(|| format!("\"{network}\""))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^([0-9A-Fa-f:.]+(/[0-9]{1,3})?|unix)$")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_no_bits_after_its_prefix() {
        for (text, want) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            let Ok(Peers::Network(network)) = Peers::parse(text) else { panic!("{text}") };
            assert_eq!(network.to_string(), want);
        }
        assert_eq!(Peers::parse("unix"), Ok(Peers::Unix));
        for bad in
            ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "localhost", "all", "10.0.0.0/255.0.0.0", "::ffff:10.0.0.1"]
        {
            assert!(Peers::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Peers::suggest("10.1.2.3/8").as_deref(), Some("\"10.0.0.0/8\""));
    }
}
