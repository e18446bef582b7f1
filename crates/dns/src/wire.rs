//! DNS messages on the wire (RFC 1035, EDNS of RFC 6891): reading one question, writing one answer.
//!
//! Written by hand because it is the hot path: a question is read in place, an answer is written once into a buffer that is used
//! again, and the asker's own spelling of the name is what the answer points back to. Promises: any bytes may come in; what goes out
//! fits the size the asker can take, or says that it was cut.

use std::net::IpAddr;

pub const HEADER: usize = 12;
pub const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;
/// What an asker without EDNS can take over UDP.
pub const UDP_BYTES_MIN: usize = 512;
/// What we offer and send at most over UDP: fits every link without fragments (DNS Flag Day 2020).
pub const UDP_BYTES_MAX: usize = 1232;
pub const TCP_BYTES_MAX: usize = 65_535;

pub mod kind {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const ANY: u16 = 255;
}

pub const CLASS_IN: u16 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    BadVers = 16,
}

/// A name in lower case, as labels.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    /// Where each label's length byte is.
    starts: [u8; NAME_BYTES_MAX / 2 + 1],
    count: usize,
}

impl Name {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn label(&self, i: usize) -> &[u8] {
        let start = usize::from(self.starts[i]);
        let length = usize::from(self.bytes[start]);
        &self.bytes[start + 1..start + 1 + length]
    }

    /// The label `i` from the right.
    pub fn label_from_end(&self, i: usize) -> Option<&[u8]> {
        (i < self.count).then(|| self.label(self.count - 1 - i))
    }

    pub fn ends_with(&self, labels: &[Vec<u8>]) -> bool {
        labels.len() <= self.count && labels.iter().rev().enumerate().all(|(i, l)| self.label_from_end(i) == Some(l.as_slice()))
    }

    /// Lower case wire form, root included.
    pub fn wire(&self) -> &[u8] {
        let end = (0..self.count).map(|i| usize::from(self.starts[i]) + 1 + self.label(i).len()).max().unwrap_or(0);
        &self.bytes[..end + 1]
    }

    /// In dotted text, with a dot at its end; `None` for a name that has a dot in a label, or is no text.
    pub fn text(&self) -> Option<String> {
        let mut text = String::new();
        for place in 0..self.len() {
            text.push_str(std::str::from_utf8(self.label(place)).ok().filter(|label| !label.contains('.'))?);
            text.push('.');
        }
        if text.is_empty() {
            text.push('.');
        }
        Some(text)
    }

    /// The name in wire form; `None` if it is none.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        Some(Self::read(bytes)?.0)
    }

    /// Reads an uncompressed name. Returns it with the number of bytes read.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut name = Self { bytes: [0; NAME_BYTES_MAX], starts: [0; NAME_BYTES_MAX / 2 + 1], count: 0 };
        let mut at = 0;
        loop {
            let length = usize::from(*bytes.get(at)?);
            if length == 0 {
                return Some((name, at + 1));
            }
            let end = at + 1 + length;
            if length > LABEL_BYTES_MAX || end >= NAME_BYTES_MAX {
                return None;
            }
            name.starts[name.count] = at as u8;
            name.count += 1;
            name.bytes[at] = length as u8;
            for (to, from) in name.bytes[at + 1..end].iter_mut().zip(bytes.get(at + 1..end)?) {
                *to = from.to_ascii_lowercase();
            }
            at = end;
        }
    }
}

/// The wire form of a name in dotted text; `None` if it is none.
pub fn name_from_text(text: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.trim_end_matches('.').split('.').filter(|_| !text.is_empty()) {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return None;
        }
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    (wire.len() <= NAME_BYTES_MAX).then_some(wire)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    pub udp_bytes: usize,
    pub version: u8,
    pub dnssec_ok: bool,
}

/// What is asked.
pub struct Question {
    pub id: u16,
    pub recursion_desired: bool,
    pub name: Name,
    pub kind: u16,
    pub class: u16,
    pub edns: Option<Edns>,
    /// Bytes of the question section, from [`HEADER`] on.
    pub length: usize,
}

/// Why a message is not answered with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Not a query at all: silence is the answer.
    Ignore,
    /// Answered with the header alone.
    Refuse(Code),
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

pub fn read_question(message: &[u8]) -> Result<Question, Unreadable> {
    let field = |i: usize| u16_at(message, i * 2);
    let (Some(id), Some(flags), Some(questions), Some(_)) = (field(0), field(1), field(2), field(5)) else {
        return Err(Unreadable::Ignore);
    };
    if flags & 0x8000 != 0 {
        return Err(Unreadable::Ignore);
    }
    if flags & 0x7800 != 0 {
        return Err(Unreadable::Refuse(Code::NotImp));
    }
    if questions != 1 {
        return Err(Unreadable::Refuse(Code::FormErr));
    }
    let read = || {
        let (name, length) = Name::read(&message[HEADER..])?;
        let at = HEADER + length;
        let (kind, class) = (u16_at(message, at)?, u16_at(message, at + 2)?);
        let edns = read_edns(message, at + 4)?;
        Some(Question { id, recursion_desired: flags & 0x100 != 0, name, kind, class, edns, length: length + 4 })
    };
    read().ok_or(Unreadable::Refuse(Code::FormErr))
}

/// `None` when the rest of the message is malformed.
fn read_edns(message: &[u8], mut at: usize) -> Option<Option<Edns>> {
    let records = u16_at(message, 6)? as usize + u16_at(message, 8)? as usize + u16_at(message, 10)? as usize;
    let mut edns = None;
    for _ in 0..records {
        let record = Record::read(message, at)?;
        if record.kind == kind::OPT {
            let [_, version, flags, _] = record.ttl.to_be_bytes();
            edns = Some(Edns { udp_bytes: usize::from(record.class), version, dnssec_ok: flags & 0x80 != 0 });
        }
        at = record.end;
    }
    Some(edns)
}

/// The fixed part of a record and where it is.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    pub kind: u16,
    pub class: u16,
    pub ttl: u32,
    pub ttl_at: usize,
    pub data_at: usize,
    pub end: usize,
}

impl Record {
    pub fn read(message: &[u8], at: usize) -> Option<Self> {
        let at = skip_name(message, at)?;
        let ttl = u32::from_be_bytes(message.get(at + 4..at + 8)?.try_into().ok()?);
        let end = at + 10 + usize::from(u16_at(message, at + 8)?);
        (end <= message.len()).then_some(())?;
        Some(Self { kind: u16_at(message, at)?, class: u16_at(message, at + 2)?, ttl, ttl_at: at + 4, data_at: at + 10, end })
    }
}

/// Where the name at `at` ends; a pointer ends it.
pub fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length if length & 0xc0 == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// The name at `at`, written out in full; `None` when it does not end.
pub fn expand_name(message: &[u8], mut at: usize) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    loop {
        let length = *message.get(at)?;
        match length & 0xc0 {
            // A pointer goes back, so this ends.
            0xc0 => {
                let to = usize::from(u16_at(message, at)? & !POINTER);
                if to >= at {
                    return None;
                }
                at = to;
            }
            0 => {
                let end = at + 1 + usize::from(length);
                name.extend_from_slice(message.get(at..end)?);
                if length == 0 {
                    return Some(name);
                }
                if name.len() >= NAME_BYTES_MAX {
                    return None;
                }
                at = end;
            }
            _ => return None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Answer,
    Authority,
    Additional,
}

/// An answer being written. Records that do not fit set the TC bit and are left out, so are all after them.
pub struct Answer<'a> {
    buffer: &'a mut Vec<u8>,
    limit: usize,
    full: bool,
    edns: bool,
    /// Points to the name that records without a name of their own have.
    owner: [u8; 2],
}

const POINTER: u16 = 0xc000;
const POINTER_MAX: usize = 0x3fff;
const OPT_BYTES: usize = 11;

impl<'a> Answer<'a> {
    /// Starts with header and question as asked. `limit` is what the transport takes.
    pub fn new(buffer: &'a mut Vec<u8>, message: &[u8], question: &Question, limit: usize, code: Code) -> Self {
        buffer.clear();
        buffer.extend_from_slice(&message[..HEADER + question.length]);
        // QR, recursion available; recursion desired as asked.
        buffer[2] = 0x80 | (message[2] & 0x01);
        buffer[3] = 0x80 | (code as u8 & 0x0f);
        buffer[6..HEADER].fill(0);
        let mut answer = Self { buffer, limit, full: false, edns: false, owner: (POINTER | HEADER as u16).to_be_bytes() };
        if question.edns.is_some() {
            // Its room is kept: whatever is cut, this is there.
            answer.limit = limit.saturating_sub(OPT_BYTES);
            answer.edns = true;
        }
        answer
    }

    pub fn authoritative(&mut self) {
        self.buffer[2] |= 0x04;
    }

    pub fn set_code(&mut self, code: Code) {
        self.buffer[3] = (self.buffer[3] & 0xf0) | (code as u8 & 0x0f);
    }

    fn count(&mut self, section: Section) {
        let at = match section {
            Section::Answer => 6,
            Section::Authority => 8,
            Section::Additional => 10,
        };
        let count = u16::from_be_bytes([self.buffer[at], self.buffer[at + 1]]) + 1;
        self.buffer[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }

    /// `owner` `None` is the name of the question. Additional records that do not fit are left out silently: they are a courtesy.
    pub fn record(&mut self, section: Section, owner: Option<&[u8]>, kind: u16, ttl: u32, data: impl FnOnce(&mut Vec<u8>)) {
        if self.full {
            return;
        }
        let start = self.buffer.len();
        self.buffer.extend_from_slice(owner.unwrap_or(&self.owner));
        self.buffer.extend_from_slice(&kind.to_be_bytes());
        self.buffer.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.buffer.extend_from_slice(&ttl.to_be_bytes());
        let length_at = self.buffer.len();
        self.buffer.extend_from_slice(&[0, 0]);
        data(self.buffer);
        let length = self.buffer.len() - length_at - 2;
        self.buffer[length_at..length_at + 2].copy_from_slice(&(length as u16).to_be_bytes());
        if self.buffer.len() > self.limit {
            self.buffer.truncate(start);
            self.full = true;
            if section != Section::Additional {
                self.buffer[2] |= 0x02;
            }
            return;
        }
        self.count(section);
    }

    /// The question's name is another name for `target`; records that follow are the target's.
    pub fn alias(&mut self, target: &[u8], ttl: u32) {
        let at = self.buffer.len() + 12;
        self.record(Section::Answer, None, kind::CNAME, ttl, |b| b.extend_from_slice(target));
        if at <= POINTER_MAX {
            self.owner = (POINTER | at as u16).to_be_bytes();
        }
    }

    pub fn address(&mut self, section: Section, owner: Option<&[u8]>, address: IpAddr, ttl: u32) {
        match address {
            IpAddr::V4(a) => self.record(section, owner, kind::A, ttl, |b| b.extend_from_slice(&a.octets())),
            IpAddr::V6(a) => self.record(section, owner, kind::AAAA, ttl, |b| b.extend_from_slice(&a.octets())),
        }
    }

    pub fn finish(self, code: Code) {
        if !self.edns {
            return;
        }
        let extended = (code as u16 >> 4) as u8;
        self.buffer.push(0);
        self.buffer.extend_from_slice(&kind::OPT.to_be_bytes());
        self.buffer.extend_from_slice(&(UDP_BYTES_MAX as u16).to_be_bytes());
        self.buffer.extend_from_slice(&[extended, 0, 0, 0, 0, 0]);
        let mut answer = self;
        answer.count(Section::Additional);
    }
}

/// The whole answer to a message that cannot be answered: its header back with a code.
pub fn refuse(buffer: &mut Vec<u8>, message: &[u8], code: Code) {
    buffer.clear();
    buffer.extend_from_slice(&message[..HEADER.min(message.len())]);
    buffer.resize(HEADER, 0);
    buffer[2] = 0x80 | (buffer[2] & 0x79);
    buffer[3] = 0x80 | (code as u8 & 0x0f);
    buffer[4..HEADER].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &[u8]) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(name);
        message.extend_from_slice(&[0, 1, 0, 1]);
        message
    }

    #[test]
    fn a_question_is_read_in_lower_case_and_kept_as_asked() {
        let message = query(b"\x03WwW\x07eXample\0");
        let question = read_question(&message).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!((question.name.len(), question.name.label(0), question.name.label_from_end(0)), (2, &b"www"[..], Some(&b"example"[..])));
        assert_eq!(question.name.wire(), b"\x03www\x07example\0");
        let mut buffer = Vec::new();
        Answer::new(&mut buffer, &message, &question, 512, Code::NxDomain).finish(Code::NxDomain);
        assert_eq!(&buffer[HEADER..HEADER + question.length], &message[HEADER..]);
        assert_eq!(buffer[..4], [0x12, 0x34, 0x81, 0x83]);
    }

    #[test]
    fn any_bytes_may_come() {
        let whole = query(b"\x03www\x07example\0");
        for cut in 0..whole.len() {
            assert!(read_question(&whole[..cut]).is_err());
        }
        let refused = |message: &[u8]| read_question(message).err();
        assert_eq!(refused(&[0x12, 0x34, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]), Some(Unreadable::Ignore), "an answer");
        assert_eq!(refused(&[0x12, 0x34, 0x28, 0, 0, 1, 0, 0, 0, 0, 0, 0]), Some(Unreadable::Refuse(Code::NotImp)), "an update");
        assert_eq!(refused(&query(b"\xc0\x0c")), Some(Unreadable::Refuse(Code::FormErr)), "a name that points to itself");
        assert_eq!(refused(&query(&[b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(5))), Some(Unreadable::Refuse(Code::FormErr)), "too long");
    }

    #[test]
    fn names_from_text() {
        assert_eq!(name_from_text("a.bc.").as_deref(), Some(&b"\x01a\x02bc\0"[..]));
        assert_eq!(name_from_text("").as_deref(), Some(&b"\0"[..]));
        assert_eq!(name_from_text("a..b"), None);
        assert_eq!(name_from_text(&"a".repeat(64)), None);
    }
}
