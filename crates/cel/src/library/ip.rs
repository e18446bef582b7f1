//! Kubernetes' addresses and networks, as Go's `net/netip` reads and prints them.

use std::net::IpAddr;

use super::{Row, mismatch};
use crate::error::EvalError;
use crate::value::{Evaluated, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub IpAddr);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub bits: u8,
}

pub const TABLE: &[Row] = &[
    ("ip", "string_to_ip", "(string) -> ip", |args| text(args, |text| parse_ip(text).map(Value::Ip))),
    ("isIP", "is_ip", "(string) -> bool", |args| text(args, |text| Ok(Value::Bool(parse_ip(text).is_ok())))),
    ("ip.isCanonical", "ip_is_canonical", "(string) -> bool", |args| text(args, |text| Ok(Value::Bool(parse_ip(text)?.0.to_string() == text)))),
    ("string", "ip_to_string", "(ip) -> string", |args| address(args, |ip| Value::string(ip.to_string()))),
    ("family", "ip_family", "ip.() -> int", |args| address(args, |ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 }))),
    ("isUnspecified", "ip_is_unspecified", "ip.() -> bool", |args| address(args, |ip| Value::Bool(ip.is_unspecified()))),
    ("isLoopback", "ip_is_loopback", "ip.() -> bool", |args| address(args, |ip| Value::Bool(ip.is_loopback()))),
    ("isLinkLocalMulticast", "ip_is_link_local_multicast", "ip.() -> bool", |args| address(args, |ip| Value::Bool(is_link_local_multicast(ip)))),
    ("isLinkLocalUnicast", "ip_is_link_local_unicast", "ip.() -> bool", |args| address(args, |ip| Value::Bool(is_link_local_unicast(ip)))),
    ("isGlobalUnicast", "ip_is_global_unicast", "ip.() -> bool", |args| address(args, |ip| Value::Bool(is_global_unicast(ip)))),
    ("cidr", "string_to_cidr", "(string) -> cidr", |args| text(args, |text| parse_cidr(text).map(Value::Cidr))),
    ("isCIDR", "is_cidr", "(string) -> bool", |args| text(args, |text| Ok(Value::Bool(parse_cidr(text).is_ok())))),
    ("string", "cidr_to_string", "(cidr) -> string", |args| network(args, |cidr| Value::string(format!("{}/{}", cidr.address, cidr.bits)))),
    ("ip", "cidr_ip", "cidr.() -> ip", |args| network(args, |cidr| Value::Ip(Address(cidr.address)))),
    ("prefixLength", "cidr_prefix_length", "cidr.() -> int", |args| network(args, |cidr| Value::Int(cidr.bits.into()))),
    ("masked", "cidr_masked", "cidr.() -> cidr", |args| network(args, |cidr| Value::Cidr(cidr.masked()))),
    ("containsIP", "cidr_contains_ip_string", "cidr.(string) -> bool", contains_ip),
    ("containsIP", "cidr_contains_ip_ip", "cidr.(ip) -> bool", contains_ip),
    ("containsCIDR", "cidr_contains_cidr_string", "cidr.(string) -> bool", contains_cidr),
    ("containsCIDR", "cidr_contains_cidr", "cidr.(cidr) -> bool", contains_cidr),
];

fn text<'a>(args: &[Value<'a>], read: fn(&str) -> Evaluated<'static>) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => read(text),
        _ => mismatch(),
    }
}

fn address<'a>(args: &[Value<'a>], read: fn(&IpAddr) -> Value<'static>) -> Evaluated<'a> {
    match args {
        [Value::Ip(address)] => Ok(read(&address.0)),
        _ => mismatch(),
    }
}

fn network<'a>(args: &[Value<'a>], read: fn(&Cidr) -> Value<'static>) -> Evaluated<'a> {
    match args {
        [Value::Cidr(cidr)] => Ok(read(cidr)),
        _ => mismatch(),
    }
}

fn is_mapped(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

fn parse_ip(text: &str) -> Result<Address, EvalError> {
    if text.contains('%') {
        return Err(EvalError::failed(format!("IP address {text:?} with zone value is not allowed")));
    }
    let address: IpAddr = text.parse().map_err(|_| {
        EvalError::failed(format!("IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"))
    })?;
    if is_mapped(&address) {
        return Err(EvalError::failed(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(Address(address))
}

fn parse_cidr(text: &str) -> Result<Cidr, EvalError> {
    let wrong =
        |why: &str| EvalError::failed(format!("network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}"));
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| wrong("no '/'"))?;
    let address: IpAddr = address.parse().map_err(|_| wrong("unable to parse IP"))?;
    let well_formed = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 =
        if well_formed { bits.parse().map_err(|_| wrong("prefix length out of range"))? } else { return Err(wrong("bad bits after slash")) };
    if bits > if address.is_ipv4() { 32 } else { 128 } {
        return Err(wrong("prefix length out of range"));
    }
    if is_mapped(&address) {
        return Err(EvalError::failed(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(Cidr { address, bits })
}

impl Cidr {
    pub fn masked(&self) -> Cidr {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4((u32::from(address) & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6((u128::from(address) & mask).into())
            }
        };
        Cidr { address, bits: self.bits }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Cidr { address, bits: self.bits }.masked().address == self.masked().address
    }

    /// What costs are computed from: bytes of the prefix.
    pub fn size(&self) -> u64 {
        u64::from(self.bits).div_ceil(8)
    }
}

impl Address {
    pub fn size(&self) -> u64 {
        if self.0.is_ipv4() { 4 } else { 16 }
    }
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Cidr(cidr), Value::Ip(address)] => Ok(Value::Bool(cidr.contains(address.0))),
        [Value::Cidr(cidr), Value::String(text)] => Ok(Value::Bool(cidr.contains(parse_ip(text)?.0))),
        _ => mismatch(),
    }
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (outer, inner) = match args {
        [Value::Cidr(outer), Value::Cidr(inner)] => (outer, *inner),
        [Value::Cidr(outer), Value::String(text)] => (outer, parse_cidr(text)?),
        _ => return mismatch(),
    };
    Ok(Value::Bool(outer.bits <= inner.bits && outer.contains(inner.address)))
}

fn is_link_local_multicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_link_local_unicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// Go's: private addresses count too.
fn is_global_unicast(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !broadcast && !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !is_link_local_unicast(address)
}
