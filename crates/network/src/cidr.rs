//! An address range in CIDR notation, as pod and service ranges are configured.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is no CIDR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct ParseError(pub String);

/// `address` is the first of the range: the host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpNet {
    address: IpAddr,
    prefix: u8,
}

impl IpNet {
    /// Whether they share addresses.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address()) || other.contains(self.address())
    }

    /// Host bits are cleared. `None` when the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return None;
        }
        let host_bits = u32::from(bits - prefix);
        let value = to_u128(address);
        let value = if host_bits == 128 { 0 } else { value >> host_bits << host_bits };
        Some(Self { address: from_u128(value, address.is_ipv4()), prefix })
    }

    pub fn address(self) -> IpAddr {
        self.address
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && Self::new(address, self.prefix) == Some(self)
    }

    /// Addresses in the range, at most `u64::MAX`.
    pub fn size(self) -> u64 {
        let bits = if self.is_ipv4() { 32 } else { 128 };
        1u64.checked_shl(u32::from(bits - self.prefix)).unwrap_or(u64::MAX)
    }

    /// The address `offset` after the first, if still in the range.
    pub fn nth(self, offset: u64) -> Option<IpAddr> {
        (offset < self.size()).then(|| from_u128(to_u128(self.address) + u128::from(offset), self.is_ipv4()))
    }

    /// How far `address` is from the first; `None` outside the range.
    pub fn offset(self, address: IpAddr) -> Option<u64> {
        self.contains(address).then(|| u64::try_from(to_u128(address) - to_u128(self.address)).ok()).flatten()
    }

    /// The first usable address: the node's own in a pod range, the `kubernetes` Service's in a service range.
    pub fn gateway(self) -> IpAddr {
        self.nth(1).unwrap_or(self.address)
    }
}

fn to_u128(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn from_u128(value: u128, ipv4: bool) -> IpAddr {
    if ipv4 { Ipv4Addr::from_bits(value as u32).into() } else { Ipv6Addr::from_bits(value).into() }
}

impl FromStr for IpNet {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            Self::new(address.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| ParseError(text.to_owned()))
    }
}

impl TryFrom<String> for IpNet {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<IpNet> for String {
    fn from(net: IpNet) -> Self {
        net.to_string()
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, inside, outside, gateway, size) in [
            ("10.244.0.0/24", "10.244.0.255", "10.244.1.0", "10.244.0.1", 256),
            ("10.244.0.9/24", "10.244.0.0", "::1", "10.244.0.1", 256),
            ("0.0.0.0/0", "255.255.255.255", "::", "0.0.0.1", 1 << 32),
            ("fd00:10:244::/64", "fd00:10:244::ffff", "fd00:10:245::", "fd00:10:244::1", u64::MAX),
            ("::/0", "::1", "1.2.3.4", "::1", u64::MAX),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.8", "192.0.2.7", 1),
        ] {
            let net: IpNet = text.parse().expect(text);
            assert!(net.contains(inside.parse().expect(inside)), "{text}");
            assert!(!net.contains(outside.parse().expect(outside)), "{text}");
            assert_eq!(net.gateway(), gateway.parse::<IpAddr>().expect(gateway), "{text}");
            assert_eq!(net.size(), size, "{text}");
        }
        for text in ["", "10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "a/8", "10.0.0.0/-1"] {
            assert!(text.parse::<IpNet>().is_err(), "{text}");
        }
        let net: IpNet = "10.244.0.0/24".parse().expect("cidr");
        assert_eq!(net.offset("10.244.0.7".parse().expect("ip")), Some(7));
        assert_eq!(net.nth(256), None);
    }
}
