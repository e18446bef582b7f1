//! The machine's own addresses as they change: another network, a lease that ran out, a laptop that woke up elsewhere.
//!
//! The node keeps the address it is known by as long as the machine has it, whatever other links come up; then it takes the new primary one.
//! Upstream's kubelet asks every ten seconds; here the kernel tells.

use std::net::IpAddr;
use std::sync::Arc;

use network::HostAddresses;
use tokio::sync::watch;

use crate::node::Node;

/// What the node is to be known by from now on; `None` to leave it as it is.
pub fn choose(known: &[IpAddr], seen: &HostAddresses) -> Option<IpAddr> {
    let has = |address: &IpAddr| seen.ipv4.map(IpAddr::from) == Some(*address) || seen.ipv6.map(IpAddr::from) == Some(*address) || seen.others.contains(address);
    if known.first().is_some_and(has) { None } else { seen.primary() }
}

impl Node {
    /// Follows the machine's addresses until the node is shut down. Returns at once. `changed` hears of the new address afterwards.
    pub fn follow_addresses(self: &Arc<Self>, mut seen: watch::Receiver<HostAddresses>, changed: impl Fn(IpAddr) + Send + 'static) {
        let node = self.clone();
        self.own(tokio::spawn(async move {
            while seen.changed().await.is_ok() {
                let now = choose(&node.addresses(), &seen.borrow_and_update());
                if let Some(address) = now {
                    tracing::info!(%address, "the machine has another address");
                    node.set_addresses(vec![address]);
                    changed(address);
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
            assert_eq!(choose(&known, seen), expected.map(ip), "{known:?}");
        }
    }
}
