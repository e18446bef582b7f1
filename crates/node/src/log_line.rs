//! Container log lines in the CRI format (`<RFC 3339> <stream> <F|P> <text>`), and what a reader wants of them: pure.

use jiff::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub time: &'a [u8],
    pub stream: &'a [u8],
    /// The text goes on in the next line.
    pub partial: bool,
    pub text: &'a [u8],
}

/// Without its newline.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let text = parts.next().unwrap_or_default();
    // Tags are separated by colons; the first says whether the line is whole.
    Some(Line { time, stream, partial: tag.split(|b| *b == b':').next() == Some(b"P"), text })
}

#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    /// `stdout` or `stderr` only.
    pub stream: Option<String>,
    pub limit_bytes: Option<u64>,
}

/// Turns lines into what the reader gets, until the limit.
#[derive(Debug, Default)]
pub struct Printer {
    wanted: Wanted,
    written: u64,
    /// Nothing before `since` comes after something that was not.
    past: bool,
    /// In the middle of a line that was split.
    inside: bool,
}

impl Printer {
    pub fn new(wanted: Wanted) -> Self {
        Self { past: wanted.since.is_none(), wanted, ..Self::default() }
    }

    /// Returns false when the limit is reached.
    pub fn print(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = parse(line) else { return true };
        if self.wanted.stream.as_deref().is_some_and(|stream| stream.as_bytes() != line.stream) {
            return true;
        }
        if !self.past {
            let time = std::str::from_utf8(line.time).ok().and_then(|t| t.parse::<Timestamp>().ok());
            self.past = time.zip(self.wanted.since).is_none_or(|(time, since)| time >= since);
            if !self.past {
                return true;
            }
        }
        let from = out.len();
        if self.wanted.timestamps && !self.inside {
            out.extend_from_slice(line.time);
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.inside = line.partial;
        if let Some(limit) = self.wanted.limit_bytes {
            let room = limit.saturating_sub(self.written);
            let length = (out.len() - from) as u64;
            if length >= room {
                out.truncate(from + usize::try_from(room).unwrap_or(usize::MAX).min(out.len() - from));
                return false;
            }
            self.written += length;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(lines: &[&str], wanted: Wanted) -> String {
        let mut printer = Printer::new(wanted);
        let mut out = Vec::new();
        for line in lines {
            if !printer.print(line.as_bytes(), &mut out) {
                break;
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn options() {
        let lines = ["2026-01-01T00:00:01.000000000Z stdout F one", "2026-01-01T00:00:02.000000000Z stderr P tw", "2026-01-01T00:00:02.000000000Z stderr F o", "junk", "2026-01-01T00:00:03.000000000Z stdout F "];
        assert_eq!(printed(&lines, Wanted::default()), "one\ntwo\n\n");
        assert_eq!(printed(&lines, Wanted { since: "2026-01-01T00:00:02Z".parse().ok(), ..Wanted::default() }), "two\n\n");
        assert_eq!(printed(&lines, Wanted { timestamps: true, ..Wanted::default() }).lines().nth(1), Some("2026-01-01T00:00:02.000000000Z two"));
        assert_eq!(printed(&lines, Wanted { limit_bytes: Some(6), ..Wanted::default() }), "one\ntw");
        assert_eq!(printed(&lines, Wanted { stream: Some("stderr".into()), ..Wanted::default() }), "two\n");
    }
}
