//! nftables transactions over nfnetlink (`Documentation/netlink/specs/nftables.yaml`).
//!
//! A transaction is one netlink request between two batch marks: the kernel does all of it or none. Elements are packed many to a
//! message, since a message costs the kernel more than an element.

use std::io;

use crate::netlink::{ATTRIBUTE_BYTES_MAX, NetlinkError, Reply, Request, Result, SEND_BUFFER_BYTES, Socket};

/// What one transaction may hold; the rest of the send buffer is the kernel's own overhead.
pub const TRANSACTION_BYTES_MAX: usize = SEND_BUFFER_BYTES - (1 << 20);
/// Leaves room in an element list for the largest element.
const LIST_BYTES_MAX: usize = ATTRIBUTE_BYTES_MAX - 1024;

const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

mod msg {
    pub const NEW_TABLE: u16 = 0;
    pub const DEL_TABLE: u16 = 2;
    pub const GET_TABLE: u16 = 1;
    pub const NEW_CHAIN: u16 = 3;
    pub const NEW_RULE: u16 = 6;
    pub const NEW_SET: u16 = 9;
    pub const NEW_ELEMENT: u16 = 12;
    pub const GET_ELEMENT: u16 = 13;
    pub const DEL_ELEMENT: u16 = 14;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub const fn nfproto(self) -> u8 {
        match self {
            Self::Ipv4 => libc::NFPROTO_IPV4 as u8,
            Self::Ipv6 => libc::NFPROTO_IPV6 as u8,
        }
    }

    pub const fn address_bytes(self) -> usize {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 16,
        }
    }

    pub fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// One field of a set's key or data. The discriminants are nft's own type numbers, which only its listings read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Field {
    Ipv4 = 7,
    Ipv6 = 8,
    Protocol = 12,
    Port = 13,
    Mark = 19,
}

impl Field {
    /// In registers and keys a field takes whole 32-bit words.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Ipv6 => 16,
            _ => 4,
        }
    }

    pub fn address(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::Ipv4,
            Family::Ipv6 => Self::Ipv6,
        }
    }
}

fn type_number(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |number, field| number << 6 | *field as u32)
}

fn width(fields: &[Field]) -> usize {
    fields.iter().map(|f| f.bytes()).sum()
}

/// What a set holds for a key.
#[derive(Debug, Clone, Copy)]
pub enum Holds<'a> {
    Nothing,
    Verdict,
    Data(&'a [Field]),
}

#[derive(Debug, Clone, Copy)]
pub struct SetSpec<'a> {
    pub name: &'a str,
    pub key: &'a [Field],
    pub holds: Holds<'a>,
    /// Filled by the packet path, at most so many elements, each with its own timeout.
    pub dynamic: Option<u32>,
}

/// Where a base chain is hooked in.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    pub kind: &'static str,
    pub number: i32,
    pub priority: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    None,
    Value(Vec<u8>),
    Goto(String),
}

#[derive(Debug, Clone)]
pub struct Element<'a> {
    pub key: &'a [u8],
    pub data: &'a Data,
    /// Shown by `nft list`; cut at nft's own limit.
    pub comment: Option<&'a str>,
}

const COMMENT_BYTES_MAX: usize = 127;

/// A transaction being written.
pub struct Transaction {
    request: Request,
    family: Family,
    table: String,
    set_id: u32,
}

impl Transaction {
    pub fn new(family: Family, table: &str) -> Self {
        let mut request = Request::new();
        request.message(BATCH_BEGIN, 0, &generic(0, SUBSYSTEM), |_| {});
        Self { request, family, table: table.to_owned(), set_id: 0 }
    }

    pub fn len(&self) -> usize {
        self.request.len()
    }

    fn add(&mut self, kind: u16, flags: i32, body: impl FnOnce(&mut Request, &str)) {
        let table = &self.table;
        self.request.message(SUBSYSTEM << 8 | kind, flags, &generic(self.family.nfproto(), 0), |m| body(m, table));
    }

    pub fn add_table(&mut self) {
        self.add(msg::NEW_TABLE, libc::NLM_F_CREATE, |m, table| {
            m.text(1, table).be32(2, 0);
        });
    }

    pub fn delete_table(&mut self) {
        self.add(msg::DEL_TABLE, 0, |m, table| {
            m.text(1, table);
        });
    }

    pub fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        self.add(msg::NEW_CHAIN, libc::NLM_F_CREATE, |m, table| {
            m.text(1, table).text(3, name);
            if let Some(hook) = hook {
                m.nest(4, |m| {
                    m.be32(1, hook.number as u32).be32(2, hook.priority as u32);
                });
                m.be32(5, libc::NF_ACCEPT as u32).text(7, hook.kind);
            }
        });
    }

    pub fn add_rule(&mut self, chain: &str, rule: Rule) {
        self.add(msg::NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, |m, table| {
            m.text(1, table).text(2, chain);
            m.nest(4, |m| {
                for expression in rule.0 {
                    m.nest(1, |m| {
                        m.text(1, expression.name).nest(2, |m| (expression.body)(m));
                    });
                }
            });
        });
    }

    pub fn add_set(&mut self, spec: SetSpec<'_>) {
        const MAP: u32 = 8;
        const TIMEOUT: u32 = 0x10;
        const EVAL: u32 = 0x20;
        const VERDICT: u32 = 0xffff_ff00;
        self.set_id += 1;
        let id = self.set_id;
        let mut flags = if matches!(spec.holds, Holds::Nothing) { 0 } else { MAP };
        if spec.dynamic.is_some() {
            flags |= TIMEOUT | EVAL;
        }
        self.add(msg::NEW_SET, libc::NLM_F_CREATE, |m, table| {
            m.text(1, table).text(2, spec.name).be32(3, flags);
            m.be32(4, type_number(spec.key)).be32(5, width(spec.key) as u32);
            match spec.holds {
                Holds::Nothing => {}
                Holds::Verdict => {
                    m.be32(6, VERDICT).be32(7, 0);
                }
                Holds::Data(fields) => {
                    m.be32(6, type_number(fields)).be32(7, width(fields) as u32);
                }
            }
            m.be32(10, id);
            if let Some(size) = spec.dynamic {
                m.nest(9, |m| {
                    m.be32(1, size);
                });
            }
        });
    }

    pub fn add_elements<'a>(&mut self, set: &str, elements: impl IntoIterator<Item = Element<'a>>) {
        self.elements(msg::NEW_ELEMENT, libc::NLM_F_CREATE, set, elements);
    }

    pub fn delete_elements<'a>(&mut self, set: &str, keys: impl IntoIterator<Item = &'a [u8]>) {
        self.elements(msg::DEL_ELEMENT, 0, set, keys.into_iter().map(|key| Element { key, data: &Data::None, comment: None }));
    }

    fn elements<'a>(&mut self, kind: u16, flags: i32, set: &str, elements: impl IntoIterator<Item = Element<'a>>) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.add(kind, flags, |m, table| {
                m.text(1, table).text(2, set);
                m.nest(3, |m| {
                    let start = m.len();
                    while m.len() - start < LIST_BYTES_MAX {
                        let Some(element) = elements.next() else { break };
                        m.nest(1, |m| write_element(m, &element));
                    }
                });
            });
        }
    }

    /// Sends it. All or nothing has happened when this returns.
    pub fn commit(mut self, socket: &mut Socket, operation: &str) -> Result<()> {
        self.request.acknowledge_last();
        self.request.message(BATCH_END, 0, &generic(0, SUBSYSTEM), |_| {});
        if self.request.len() > TRANSACTION_BYTES_MAX {
            return Err(NetlinkError::io(operation, io::Error::from_raw_os_error(libc::EMSGSIZE)));
        }
        socket.request(operation, &self.request).map(drop)
    }
}

/// `struct nfgenmsg`.
fn generic(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn write_element(m: &mut Request, element: &Element<'_>) {
    m.nest(1, |m| {
        m.bytes(1, element.key);
    });
    match element.data {
        Data::None => {}
        Data::Value(value) => {
            m.nest(2, |m| {
                m.bytes(1, value);
            });
        }
        Data::Goto(chain) => {
            m.nest(2, |m| write_goto(m, chain));
        }
    }
    if let Some(comment) = element.comment {
        let mut end = comment.len().min(COMMENT_BYTES_MAX);
        while !comment.is_char_boundary(end) {
            end -= 1;
        }
        // Type 0 (comment), length, text and NUL: libnftnl's user data.
        let mut bytes = vec![0, end as u8 + 1];
        bytes.extend_from_slice(&comment.as_bytes()[..end]);
        bytes.push(0);
        m.bytes(6, &bytes);
    }
}

fn write_goto(m: &mut Request, chain: &str) {
    write_verdict(m, libc::NFT_GOTO, Some(chain));
}

fn write_verdict(m: &mut Request, code: i32, chain: Option<&str>) {
    m.nest(2, |m| {
        m.be32(1, code as u32);
        if let Some(chain) = chain {
            m.text(2, chain);
        }
    });
}

/// Whether the table is there.
pub fn table_exists(socket: &mut Socket, family: Family, table: &str) -> Result<bool> {
    let mut request = Request::new();
    request.message(SUBSYSTEM << 8 | msg::GET_TABLE, 0, &generic(family.nfproto(), 0), |m| {
        m.text(1, table);
    });
    match socket.request("find nftables table", &request) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.errno(), libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Key and value of every element.
pub fn list_elements(socket: &mut Socket, family: Family, table: &str, set: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut request = Request::new();
    request.message(SUBSYSTEM << 8 | msg::GET_ELEMENT, libc::NLM_F_DUMP, &generic(family.nfproto(), 0), |m| {
        m.text(1, table).text(2, set);
    });
    let replies = socket.request("list nftables elements", &request)?;
    let lists = replies.iter().map(|reply: &Reply| reply.attributes(4).nested(3));
    Ok(lists
        .flatten()
        .filter_map(|(_, element)| {
            let element = crate::netlink::Attributes(element);
            Some((element.nested(1).get(1)?.to_vec(), element.nested(2).get(1).unwrap_or(&[]).to_vec()))
        })
        .collect())
}

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
    /// A random number below the modulus.
    Random(u32),
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
            Load::Random(modulus) => self.push("numgen", move |m| {
                m.be32(1, to.0).be32(2, modulus).be32(3, 1).be32(4, 0);
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

    /// Puts key and data into a dynamic map, or renews its timeout.
    pub fn update(self, set: &str, key: Register, data: Register, timeout_seconds: u32) -> Self {
        const UPDATE: u32 = 1;
        let set = set.to_owned();
        self.push("dynset", move |m| {
            m.text(1, &set).be32(3, UPDATE).be32(4, key.0).be32(5, data.0).be64(6, u64::from(timeout_seconds) * 1000);
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
