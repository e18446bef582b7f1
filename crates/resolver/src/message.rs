//! Questions and answers on the wire (RFC 1035), as far as a client that only wants addresses needs them.

use std::net::IpAddr;

const MAX_NAME_BYTES: usize = 255;
const NO_ERROR: u8 = 0;
const NAME_ERROR: u8 = 3;
const CLASS_INTERNET: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    A = TYPE_A as isize,
    Aaaa = TYPE_AAAA as isize,
}

/// None: not a name that can be asked for.
pub fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut packet = id.to_be_bytes().to_vec();
    // Recursion desired, one question.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let header = packet.len();
    for label in name.trim_end_matches('.').split('.') {
        packet.push(u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?);
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    if packet.len() - header > MAX_NAME_BYTES {
        return None;
    }
    packet.extend((kind as u16).to_be_bytes());
    packet.extend(CLASS_INTERNET.to_be_bytes());
    Some(packet)
}

/// The id and the addresses, or the server's code of failure. A name that does not exist has no addresses. None: not an answer.
pub fn answer(packet: &[u8]) -> Option<(u16, Result<Vec<IpAddr>, u8>)> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let id = word(0)?;
    if packet.get(2)? & 0x80 == 0 {
        return None;
    }
    match packet.get(3)? & 0x0f {
        NO_ERROR => {}
        NAME_ERROR => return Some((id, Ok(Vec::new()))),
        code => return Some((id, Err(code))),
    }
    let mut at = 12;
    for _ in 0..word(4)? {
        at = skip_name(packet, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..word(6)? {
        at = skip_name(packet, at)?;
        let length = usize::from(word(at + 8)?);
        let data = packet.get(at + 10..at + 10 + length)?;
        match word(at)? {
            TYPE_A => found.push(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            TYPE_AAAA => found.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => {} // CNAMEs were followed by the server
        }
        at += 10 + length;
    }
    Some((id, Ok(found)))
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_any_length() {
        let mut packet = question(7, "a.b", Kind::A).unwrap();
        assert_eq!(answer(&packet), None, "a question");
        packet[2] |= 0x80;
        packet[7] = 1;
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 1, 2, 3]);
        assert_eq!(answer(&packet), Some((7, Ok(vec![[10, 1, 2, 3].into()]))));
        for length in 0..packet.len() {
            assert_eq!(answer(&packet[..length]), None, "{length}");
        }
        packet[3] = 2;
        assert_eq!(answer(&packet), Some((7, Err(2))));
    }

    #[test]
    fn names_that_cannot_be_asked_for() {
        for name in ["", "a..b", &"x".repeat(64), &vec!["y".repeat(63); 5].join(".")] {
            assert!(question(1, name, Kind::Aaaa).is_none(), "{name}");
        }
    }
}
