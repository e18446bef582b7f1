//! Word when the ways to other machines may have changed: links, addresses and routes that are not the pod network's own. Nothing polls.

use tokio::sync::watch;

use crate::changes;
use crate::netlink::{Attributes, Result, Socket};
use crate::route::{PEER_PROTOCOL, PROTOCOL};

/// Whether a message is about anything but our own doing.
fn is_foreign(kind: u16, payload: &[u8], own_links: &[String]) -> bool {
    match kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            let name = payload.get(16..).and_then(|attributes| Attributes(attributes).text(libc::IFLA_IFNAME));
            !name.is_some_and(|name| own_links.iter().any(|own| name.starts_with(own.as_str())))
        }
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            // The kernel's own routes (2) follow addresses, of which there is word anyway.
            !payload.get(5).is_some_and(|protocol| matches!(*protocol, PROTOCOL | PEER_PROTOCOL | 2))
        }
        _ => true,
    }
}

/// Counts changes. `own_links` are beginnings of names of links to be ignored. The watching task ends when the last receiver is dropped.
pub fn watch_underlay(own_links: Vec<String>) -> Result<watch::Receiver<u64>> {
    let (sender, receiver) = watch::channel(0);
    let foreign = move |kind: u16, payload: &[u8]| is_foreign(kind, payload, &own_links);
    changes::follow(Socket::of_changes("watch links")?, sender, "links", foreign, |sender| sender.send_modify(|count| *count += 1));
    Ok(receiver)
}
