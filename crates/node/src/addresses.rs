//! The machine's own addresses as they change: another network, a lease that ran out, a laptop that woke up elsewhere.
//!
//! The node keeps the address it is known by as long as the machine has it, whatever other links come up; then it takes the new primary one.
//! Upstream's kubelet asks every ten seconds; here the kernel tells.

use std::net::IpAddr;
use std::sync::Arc;

use network::HostAddresses;
use tokio::sync::watch;

use crate::node::Node;

/// What the node is to be known by from now on; `None` to leave it as it is. Who is known by an address of each family, is so afterwards.
pub fn choose(known: &[IpAddr], seen: &HostAddresses) -> Option<Vec<IpAddr>> {
    let has = |address: &IpAddr| seen.ipv4.map(IpAddr::from) == Some(*address) || seen.ipv6.map(IpAddr::from) == Some(*address) || seen.others.contains(address);
    if !known.is_empty() && known.iter().all(has) {
        return None;
    }
    let of_family = |ipv4: bool| if ipv4 { seen.ipv4.map(IpAddr::from) } else { seen.ipv6.map(IpAddr::from) };
    let chosen: Vec<IpAddr> = match known {
        [first, second, ..] => [first, second].into_iter().filter_map(|address| if has(address) { Some(*address) } else { of_family(address.is_ipv4()) }).collect(),
        // Better another family than none.
        [one] => of_family(one.is_ipv4()).or(seen.primary()).into_iter().collect(),
        [] => seen.primary().into_iter().collect(),
    };
    (!chosen.is_empty() && chosen != known).then_some(chosen)
}

impl Node {
    /// Follows the machine's addresses until the node is shut down. Returns at once. `changed` hears of the new address afterwards.
    pub fn follow_addresses(self: &Arc<Self>, mut seen: watch::Receiver<HostAddresses>, changed: impl Fn(IpAddr) + Send + 'static) {
        let node = self.clone();
        self.own(tokio::spawn(async move {
            while seen.changed().await.is_ok() {
                let now = choose(&node.addresses(), &seen.borrow_and_update());
                if let Some(addresses) = now {
                    tracing::info!(?addresses, "the machine has another address");
                    let primary = addresses.first().copied();
                    node.set_addresses(addresses);
                    primary.into_iter().for_each(&changed);
                }
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_with_what_it_has() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let seen = HostAddresses { ipv4: Some([10, 0, 0, 2].into()), others: vec![ip("192.168.1.5")], ..HostAddresses::default() };
        let cases: [(&[&str], &HostAddresses, Option<&str>); 5] = [
            (&["10.0.0.2"], &seen, None),
            (&["192.168.1.5"], &seen, None),
            (&["10.9.9.9"], &seen, Some("10.0.0.2")),
            (&["127.0.0.1"], &seen, Some("10.0.0.2")),
            // Without any network there is nothing better to say.
            (&["10.0.0.2"], &HostAddresses::default(), None),
        ];
        for (known, seen, expected) in cases {
            let known: Vec<IpAddr> = known.iter().map(|text| ip(text)).collect();
            assert_eq!(choose(&known, seen), expected.map(|text| vec![ip(text)]), "{known:?}");
        }
        let both = HostAddresses { ipv6: Some("fd00::2".parse().unwrap()), ..seen };
        assert_eq!(choose(&[ip("10.0.0.2"), ip("fd00::2")], &both), None);
        assert_eq!(choose(&[ip("fd00::9"), ip("10.0.0.2")], &both), Some(vec![ip("fd00::2"), ip("10.0.0.2")]));
        assert_eq!(choose(&[ip("fd00::9")], &both), Some(vec![ip("fd00::2")]));
    }
}
