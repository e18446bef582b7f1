//! One nftables rule as its expressions (`man 8 nft` names them; the numbers are those of `linux/netfilter/nf_tables.h`).

use std::net::IpAddr;

use crate::netlink::Request;
use crate::nft::{Family, write_verdict};
use crate::route::octets;

/// One expression of a rule: name and attributes.
pub struct Expression {
    name: &'static str,
    body: Box<dyn FnOnce(&mut Request)>,
}

/// A register: sixteen words of 32 bits, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(u32);

impl Register {
    const FIRST: u32 = 8;

    pub const fn word(index: u32) -> Self {
        assert!(index < 16);
        Self(Self::FIRST + index)
    }

    fn after(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u32 / 4)
    }
}

/// A rule: its expressions in order, each seeing what the ones before left in the registers. A comparison or lookup that fails ends the rule.
#[derive(Default)]
pub struct Rule(Vec<Expression>);

/// Where packet fields are, from the start of the network header.
const fn source_offset(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 12,
        Family::Ipv6 => 8,
    }
}

const fn destination_offset(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 16,
        Family::Ipv6 => 24,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    Source(Family),
    Destination(Family),
    Protocol,
    DestinationPort,
    /// One of so many numbers from the first on, by chance.
    Random { first: u32, many: u32 },
}

impl Load {
    const fn bytes(self) -> usize {
        match self {
            Self::Source(family) | Self::Destination(family) => family.address_bytes(),
            _ => 4,
        }
    }
}

impl Rule {
    /// The expressions as a list of attributes.
    pub(crate) fn write(self, m: &mut Request) {
        for expression in self.0 {
            m.nest(1, |m| {
                m.text(1, expression.name).nest(2, |m| (expression.body)(m));
            });
        }
    }

    pub fn new() -> Self {
        Self::default()
    }

    fn push(mut self, name: &'static str, body: impl FnOnce(&mut Request) + 'static) -> Self {
        self.0.push(Expression { name, body: Box::new(body) });
        self
    }

    fn payload(self, to: Register, base: u32, offset: u32, length: u32) -> Self {
        self.push("payload", move |m| {
            m.be32(1, to.0).be32(2, base).be32(3, offset).be32(4, length);
        })
    }

    fn meta(self, to: Register, key: i32) -> Self {
        self.push("meta", move |m| {
            m.be32(2, key as u32).be32(1, to.0);
        })
    }

    fn compare(self, register: Register, equal: bool, value: &[u8]) -> Self {
        let value = value.to_vec();
        self.push("cmp", move |m| {
            m.be32(1, register.0).be32(2, u32::from(!equal));
            m.nest(3, |m| {
                m.bytes(1, &value);
            });
        })
    }

    fn and_xor(self, register: Register, mask: &[u8], xor: &[u8]) -> Self {
        let (mask, xor) = (mask.to_vec(), xor.to_vec());
        self.push("bitwise", move |m| {
            m.be32(1, register.0).be32(2, register.0).be32(3, mask.len() as u32);
            m.nest(4, |m| {
                m.bytes(1, &mask);
            });
            m.nest(5, |m| {
                m.bytes(1, &xor);
            });
        })
    }

    /// Loads one field.
    pub fn load(self, to: Register, what: Load) -> Self {
        match what {
            Load::Source(family) => self.payload(to, 1, source_offset(family), family.address_bytes() as u32),
            Load::Destination(family) => self.payload(to, 1, destination_offset(family), family.address_bytes() as u32),
            Load::Protocol => self.meta(to, libc::NFT_META_L4PROTO),
            Load::DestinationPort => self.payload(to, 2, 2, 2),
            Load::Random { first, many } => self.push("numgen", move |m| {
                m.be32(1, to.0).be32(2, many).be32(3, 1).be32(4, first);
            }),
        }
    }

    /// Loads fields side by side, as a concatenated key wants them.
    pub fn key(mut self, mut to: Register, fields: &[Load]) -> Self {
        for field in fields {
            self = self.load(to, *field);
            to = to.after(field.bytes());
        }
        self
    }

    pub fn protocol(self, number: u8) -> Self {
        self.load(Register::word(0), Load::Protocol).compare(Register::word(0), true, &[number])
    }

    /// The network's bits of the source (or destination) address are (or are not) these.
    pub fn in_net(self, field: Load, net: crate::cidr::IpNet, inside: bool) -> Self {
        let address = crate::route::octets(net.address());
        let mask: Vec<u8> = (0..address.len()).map(|i| (!(0xff_u16 >> (usize::from(net.prefix()).saturating_sub(i * 8)).min(8)) & 0xff) as u8).collect();
        let register = Register::word(0);
        let zero = vec![0; mask.len()];
        self.load(register, field).and_xor(register, &mask, &zero).compare(register, inside, &address)
    }

    /// The destination is an address of this host.
    pub fn destination_is_local(self) -> Self {
        self.fib_type(2)
    }

    pub fn source_is_local(self) -> Self {
        self.fib_type(1)
    }

    fn fib_type(self, flag: u32) -> Self {
        const ADDRTYPE: u32 = 3;
        let register = Register::word(0);
        let rule = self.push("fib", move |m| {
            m.be32(3, flag).be32(2, ADDRTYPE).be32(1, register.0);
        });
        rule.compare(register, true, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    pub fn incoming_link_is_not_loopback(self) -> Self {
        self.link_is_not_loopback(libc::NFT_META_IIFNAME)
    }

    pub fn outgoing_link_is_not_loopback(self) -> Self {
        self.link_is_not_loopback(libc::NFT_META_OIFNAME)
    }

    fn link_is_not_loopback(self, key: i32) -> Self {
        let mut name = [0; libc::IFNAMSIZ];
        name[..2].copy_from_slice(b"lo");
        self.meta(Register::word(0), key).compare(Register::word(0), false, &name)
    }

    /// The first packet of a flow.
    pub fn new_flow(self) -> Self {
        const NEW: u32 = 8;
        let register = Register::word(0);
        let rule = self.push("ct", move |m| {
            m.be32(2, 0).be32(1, register.0);
        });
        rule.and_xor(register, &NEW.to_ne_bytes(), &[0; 4]).compare(register, false, &[0; 4])
    }

    /// Two rules: what a known flow sends back, and what the network says of a flow (ICMP errors).
    pub fn answers() -> [Self; 2] {
        const ESTABLISHED: u32 = 2;
        const RELATED: u32 = 4;
        const DIRECTION: u32 = 1;
        const REPLY: u8 = 1;
        let register = Register::word(0);
        let state = |rule: Self, bits: u32| {
            let rule = rule.push("ct", move |m| {
                m.be32(2, 0).be32(1, register.0);
            });
            rule.and_xor(register, &bits.to_ne_bytes(), &[0; 4]).compare(register, false, &[0; 4])
        };
        let back = state(Self::new(), ESTABLISHED).push("ct", move |m| {
            m.be32(2, DIRECTION).be32(1, register.0);
        });
        [back.compare(register, true, &[REPLY]), state(Self::new(), RELATED)]
    }

    /// The destination port is one of these.
    pub fn destination_port_in(self, first: u16, last: u16) -> Self {
        let register = Register::word(0);
        let rule = self.load(register, Load::DestinationPort);
        if first == last {
            return rule.compare(register, true, &first.to_be_bytes());
        }
        rule.push("range", move |m| {
            m.be32(1, register.0).be32(2, 0);
            for (bound, value) in [(3, first), (4, last)] {
                m.nest(bound, |m| {
                    m.bytes(1, &value.to_be_bytes());
                });
            }
        })
    }

    pub fn set_mark(self, bits: u32) -> Self {
        let register = Register::word(0);
        let rule = self.meta(register, libc::NFT_META_MARK).and_xor(register, &(!bits).to_ne_bytes(), &bits.to_ne_bytes());
        rule.write_mark(register)
    }

    /// Continues when the bits are set, and clears them.
    pub fn take_mark(self, bits: u32) -> Self {
        let register = Register::word(0);
        let rule = self.meta(register, libc::NFT_META_MARK).and_xor(register, &bits.to_ne_bytes(), &[0; 4]).compare(register, false, &[0; 4]);
        rule.meta(register, libc::NFT_META_MARK).and_xor(register, &(!bits).to_ne_bytes(), &[0; 4]).write_mark(register)
    }

    fn write_mark(self, register: Register) -> Self {
        self.push("meta", move |m| {
            m.be32(2, libc::NFT_META_MARK as u32).be32(3, register.0);
        })
    }

    /// Continues when the key is in the set.
    pub fn lookup(self, set: &str, key: Register) -> Self {
        let set = set.to_owned();
        self.push("lookup", move |m| {
            m.text(1, &set).be32(2, key.0);
        })
    }

    /// Continues when the key is not in the set.
    pub fn not_in(self, set: &str, key: Register) -> Self {
        const INVERTED: u32 = 1;
        let set = set.to_owned();
        self.push("lookup", move |m| {
            m.text(1, &set).be32(2, key.0).be32(5, INVERTED);
        })
    }

    /// Continues with the data of the key.
    pub fn map(self, set: &str, key: Register, to: Register) -> Self {
        let set = set.to_owned();
        self.push("lookup", move |m| {
            m.text(1, &set).be32(2, key.0).be32(3, to.0);
        })
    }

    /// Goes where the map says for the key.
    pub fn verdict_map(self, set: &str, key: Register) -> Self {
        self.map(set, key, Register(0))
    }

    /// Puts the key into a dynamic set, or renews its timeout.
    pub fn update(self, set: &str, key: Register, timeout_seconds: u32) -> Self {
        const UPDATE: u32 = 1;
        let set = set.to_owned();
        self.push("dynset", move |m| {
            m.text(1, &set).be32(3, UPDATE).be32(4, key.0).be64(6, u64::from(timeout_seconds) * 1000);
        })
    }

    /// Continues once in so many times.
    pub fn once_in(self, times: u32) -> Self {
        let register = Register::word(0);
        self.load(register, Load::Random { first: 0, many: times }).compare(register, true, &[0; 4])
    }

    /// Changes the destination to this address and port.
    pub fn dnat_to(self, address: IpAddr, port: u16) -> Self {
        let (family, register) = (Family::of(address), Register::word(0));
        let rule = self.immediate(register, octets(address)).immediate(register.after(family.address_bytes()), port.to_be_bytes().to_vec());
        rule.dnat(family, register)
    }

    fn immediate(self, to: Register, value: Vec<u8>) -> Self {
        self.push("immediate", move |m| {
            m.be32(1, to.0);
            m.nest(2, |m| {
                m.bytes(1, &value);
            });
        })
    }

    /// Changes the destination to the address at `address` and the port after it.
    pub fn dnat(self, family: Family, address: Register) -> Self {
        const DNAT: u32 = 1;
        let port = address.after(family.address_bytes());
        self.push("nat", move |m| {
            m.be32(1, DNAT).be32(2, u32::from(family.nfproto())).be32(3, address.0).be32(5, port.0);
        })
    }

    pub fn masquerade(self) -> Self {
        const RANDOM_FULLY: u32 = 16;
        self.push("masq", |m| {
            m.be32(1, RANDOM_FULLY);
        })
    }

    pub fn reset(self) -> Self {
        const TCP_RESET: u32 = 1;
        self.push("reject", |m| {
            m.be32(1, TCP_RESET).u8(2, 0);
        })
    }

    pub fn port_unreachable(self, family: Family) -> Self {
        let code = if family == Family::Ipv4 { 3 } else { 4 };
        self.push("reject", move |m| {
            m.be32(1, 0).u8(2, code);
        })
    }

    pub fn accept(self) -> Self {
        self.verdict(libc::NF_ACCEPT, None)
    }

    pub fn drop(self) -> Self {
        self.verdict(libc::NF_DROP, None)
    }

    pub fn go(self, chain: &str) -> Self {
        self.verdict(libc::NFT_GOTO, Some(chain.to_owned()))
    }

    fn verdict(self, code: i32, chain: Option<String>) -> Self {
        self.push("immediate", move |m| {
            m.be32(1, 0);
            m.nest(2, |m| write_verdict(m, code, chain.as_deref()));
        })
    }
}
