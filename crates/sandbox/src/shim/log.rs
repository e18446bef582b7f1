//! Container logs in the CRI format: `2016-10-06T00:17:09.669794202Z stdout F line`.
//!
//! As containerd writes them: a line longer than 16 KiB is split into `P` entries, and so is a last line without its end; `\r\n` counts as an
//! end of line. Pure but for `Log`, which owns the file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longest piece of a line in one entry.
pub const MAX_LINE: usize = 16 * 1024;

pub struct Log {
    path: PathBuf,
    file: Option<File>,
}

impl Log {
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { path, file: Some(file) })
    }

    /// Goes on in a new file at the same path.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = Some(open(&self.path)?);
        Ok(())
    }

    /// Nothing more will come.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Errors (a full disk) lose lines but never stop the container.
    pub fn write(&mut self, entries: &[u8]) {
        if let Some(file) = &mut self.file {
            let _ = file.write_all(entries);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// One stream of a container, cut into lines.
pub struct Lines {
    name: &'static str,
    pending: Vec<u8>,
}

impl Lines {
    pub fn new(name: &'static str) -> Self {
        Self { name, pending: Vec::new() }
    }

    /// Appends the entries which `data` completes.
    pub fn feed(&mut self, mut data: &[u8], timestamp: &str, entries: &mut Vec<u8>) {
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = data.split_at(end);
            data = &rest[1..];
            if self.pending.is_empty() && line.len() <= MAX_LINE {
                entry(self.name, b'F', line.strip_suffix(b"\r").unwrap_or(line), timestamp, entries);
                continue;
            }
            self.pending.extend_from_slice(line);
            self.split(timestamp, entries);
            let line = std::mem::take(&mut self.pending);
            entry(self.name, b'F', line.strip_suffix(b"\r").unwrap_or(&line), timestamp, entries);
        }
        self.pending.extend_from_slice(data);
        self.split(timestamp, entries);
    }

    /// The stream has ended.
    pub fn finish(&mut self, timestamp: &str, entries: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            let line = std::mem::take(&mut self.pending);
            entry(self.name, b'P', &line, timestamp, entries);
        }
    }

    fn split(&mut self, timestamp: &str, entries: &mut Vec<u8>) {
        while self.pending.len() > MAX_LINE {
            let rest = self.pending.split_off(MAX_LINE);
            entry(self.name, b'P', &self.pending, timestamp, entries);
            self.pending = rest;
        }
    }
}

fn entry(stream: &str, tag: u8, line: &[u8], timestamp: &str, entries: &mut Vec<u8>) {
    entries.extend_from_slice(timestamp.as_bytes());
    entries.push(b' ');
    entries.extend_from_slice(stream.as_bytes());
    entries.extend_from_slice(&[b' ', tag, b' ']);
    entries.extend_from_slice(line);
    entries.push(b'\n');
}

/// RFC 3339 with nanoseconds, in UTC.
pub fn timestamp(nanoseconds: i64) -> String {
    let (seconds, nanoseconds) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years (Hinnant's civil_from_days).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanoseconds:09}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pieces: &[&[u8]]) -> String {
        let mut lines = Lines::new("stdout");
        let mut entries = Vec::new();
        for piece in pieces {
            lines.feed(piece, "T", &mut entries);
        }
        lines.finish("T", &mut entries);
        String::from_utf8(entries).unwrap()
    }

    #[test]
    fn lines() {
        assert_eq!(run(&[b"one\ntwo\n"]), "T stdout F one\nT stdout F two\n");
        assert_eq!(run(&[b"on", b"e\r\n", b"\n"]), "T stdout F one\nT stdout F \n");
        assert_eq!(run(&[b"no end"]), "T stdout P no end\n");
        let long = vec![b'x'; MAX_LINE + 3];
        let x = |count| "x".repeat(count);
        assert_eq!(run(&[&long, b"\n"]), format!("T stdout P {}\nT stdout F xxx\n", x(MAX_LINE)));
        assert_eq!(run(&[&long[..MAX_LINE], b"\n"]), format!("T stdout F {}\n", x(MAX_LINE)));
        assert_eq!(run(&[&long, &long, b"\n"]), format!("T stdout P {0}\nT stdout P {0}\nT stdout F xxxxxx\n", x(MAX_LINE)));
    }

    #[test]
    fn timestamps() {
        for (nanoseconds, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1_475_713_029_669_794_202, "2016-10-06T00:17:09.669794202Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (4_102_444_799_999_999_999, "2099-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(timestamp(nanoseconds), expected);
        }
    }
}
