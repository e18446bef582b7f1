//! nftables transactions over nfnetlink (`Documentation/netlink/specs/nftables.yaml`).
//!
//! A transaction is one netlink request between two batch marks: the kernel does all of it or none. Elements are packed many to a
//! message, since a message costs the kernel more than an element.

use std::io;

use crate::netlink::{ATTRIBUTE_BYTES_MAX, NetlinkError, Request, Result, SEND_BUFFER_BYTES, Socket};
use crate::rule::Rule;

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
    pub const DEL_CHAIN: u16 = 5;
    pub const NEW_RULE: u16 = 6;
    pub const DEL_RULE: u16 = 8;
    pub const NEW_SET: u16 = 9;
    pub const DEL_SET: u16 = 11;
    pub const NEW_ELEMENT: u16 = 12;
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

    /// Its rules must be gone, and what leads to it.
    pub fn delete_chain(&mut self, name: &str) {
        self.add(msg::DEL_CHAIN, 0, |m, table| {
            m.text(1, table).text(3, name);
        });
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.add(msg::DEL_RULE, 0, |m, table| {
            m.text(1, table).text(2, name);
        });
    }

    pub fn delete_set(&mut self, name: &str) {
        self.add(msg::DEL_SET, 0, |m, table| {
            m.text(1, table).text(2, name);
        });
    }

    pub fn add_rule(&mut self, chain: &str, rule: Rule) {
        self.add(msg::NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, |m, table| {
            m.text(1, table).text(2, chain);
            m.nest(4, |m| rule.write(m));
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

    /// A set of ranges of addresses; [`Transaction::add_ranges`] fills it.
    pub fn add_range_set(&mut self, name: &str, field: Field) {
        const INTERVAL: u32 = 4;
        self.set_id += 1;
        let id = self.set_id;
        self.add(msg::NEW_SET, libc::NLM_F_CREATE, |m, table| {
            m.text(1, table).text(2, name).be32(3, INTERVAL);
            m.be32(4, type_number(&[field])).be32(5, width(&[field]) as u32);
            m.be32(10, id);
        });
    }

    /// Removes all elements of a set.
    pub fn flush_set(&mut self, name: &str) {
        self.add(msg::DEL_ELEMENT, 0, |m, table| {
            m.text(1, table).text(2, name);
        });
    }

    /// The first of each range, and what follows its last (nothing after the last address there is). They must not overlap.
    pub fn add_ranges(&mut self, set: &str, ranges: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>) {
        const END: u32 = 1;
        let mut bounds = ranges.into_iter().flat_map(|(first, end)| [Some((first, 0)), end.map(|end| (end, END))]).flatten().peekable();
        while bounds.peek().is_some() {
            self.add(msg::NEW_ELEMENT, libc::NLM_F_CREATE, |m, table| {
                m.text(1, table).text(2, set);
                m.nest(3, |m| {
                    let start = m.len();
                    while m.len() - start < LIST_BYTES_MAX {
                        let Some((key, flags)) = bounds.next() else { break };
                        m.nest(1, |m| {
                            m.nest(1, |m| {
                                m.bytes(1, &key);
                            });
                            if flags != 0 {
                                m.be32(3, flags);
                            }
                        });
                    }
                });
            });
        }
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

pub(crate) fn write_verdict(m: &mut Request, code: i32, chain: Option<&str>) {
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
