//! Sets of address ranges in nftables: one lookup a packet, however many ranges there are.
//!
//! The kernel holds such a set as marks on a line (`NFT_SET_INTERVAL`): each range is the element it begins with and the end mark
//! after its last address. Ranges that overlap would be refused, so they are merged first.

use std::net::IpAddr;

use crate::cidr::IpNet;
use crate::nft::{Family, Field, Transaction};
use crate::route::octets;

/// One mark on the line: an address, and whether a range ends before it.
type Mark = (Vec<u8>, bool);

/// The marks of a family's ranges, in order; of ranges inside others nothing is left.
pub fn marks(family: Family, nets: &[IpNet]) -> Vec<Mark> {
    let mut nets: Vec<IpNet> = nets.iter().copied().filter(|net| Family::of(net.address()) == family).collect();
    nets.sort();
    let mut marks: Vec<Mark> = Vec::new();
    let mut last: Option<IpNet> = None;
    for net in nets {
        if last.is_some_and(|last| last.contains(net.address())) {
            continue;
        }
        let first = octets(net.address());
        // A range that begins where the one before ends goes on with it.
        match marks.pop_if(|(end, _)| *end == first) {
            Some(_) => {}
            None => marks.push((first, false)),
        }
        // The range that reaches the last address there is has no end mark.
        marks.extend(after(net).map(|end| (end, true)));
        last = Some(net);
    }
    marks
}

/// The first address after a range.
fn after(net: IpNet) -> Option<Vec<u8>> {
    let mut bytes = octets(net.address());
    let prefix = usize::from(net.prefix());
    let mut i = prefix.checked_sub(1)? / 8;
    let step = 1u8 << (7 - (prefix - 1) % 8);
    let (sum, mut carry) = bytes[i].overflowing_add(step);
    bytes[i] = sum;
    while carry {
        i = i.checked_sub(1)?;
        (bytes[i], carry) = bytes[i].overflowing_add(1);
    }
    Some(bytes)
}

/// The range of one address.
pub fn host(address: IpAddr) -> IpNet {
    match IpNet::new(address, if address.is_ipv4() { 32 } else { 128 }) {
        Some(net) => net,
        None => unreachable!("a full prefix fits its address"),
    }
}

pub fn add_set(transaction: &mut Transaction, family: Family, name: &str) {
    transaction.add_range_set(name, Field::address(family));
}

/// Makes the set say exactly these ranges (those of the family).
pub fn fill(transaction: &mut Transaction, family: Family, name: &str, nets: &[IpNet]) {
    transaction.flush_set(name);
    let marks = marks(family, nets);
    let ranges = marks.chunks(2).filter_map(|pair| Some((pair.first()?.0.clone(), pair.get(1).map(|(end, _)| end.clone()))));
    transaction.add_ranges(name, ranges);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_marks() {
        let show = |family, nets: &[&str]| -> String {
            let nets: Vec<IpNet> = nets.iter().map(|text| text.parse().expect(text)).collect();
            let text = marks(family, &nets).into_iter().map(|(key, end)| {
                let address = crate::route::address_of(&key).expect("address");
                if end { format!("-{address}") } else { format!(" {address}") }
            });
            text.collect()
        };
        for (family, nets, expected) in [
            (Family::Ipv4, &["10.244.0.0/16"][..], " 10.244.0.0-10.245.0.0"),
            (Family::Ipv4, &["10.244.1.0/24", "10.244.0.0/16", "192.0.2.1/32"], " 10.244.0.0-10.245.0.0 192.0.2.1-192.0.2.2"),
            (Family::Ipv4, &["10.244.1.0/24", "10.244.0.0/24", "fd00::/64"], " 10.244.0.0-10.244.2.0"),
            (Family::Ipv4, &["255.255.255.0/24", "10.0.0.255/32"], " 10.0.0.255-10.0.1.0 255.255.255.0"),
            (Family::Ipv4, &["0.0.0.0/0", "10.0.0.0/8"], " 0.0.0.0"),
            (Family::Ipv6, &["fd00:10:244:ffff::/64"], " fd00:10:244:ffff::-fd00:10:245::"),
            (Family::Ipv6, &[], ""),
        ] {
            assert_eq!(show(family, nets), expected, "{nets:?}");
        }
    }
}
