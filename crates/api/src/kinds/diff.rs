//! The unified diff upstream appends to "may not change fields other than" errors: of the indented JSON, with three lines around each change.
//!
//! Mirrors go-difflib, which follows Python's difflib: the longest run of equal lines first, then what is left and right of it.

use std::collections::HashMap;

const CONTEXT: usize = 3;
/// Beyond this many line pairs a diff is not worth its cost.
const WORK_MAX: usize = 4_000_000;
/// In texts of at least this many lines, lines that come often start no run.
const POPULAR_FROM: usize = 200;

struct Matcher<'a> {
    a: &'a [String],
    b: &'a [String],
    places: HashMap<&'a str, Vec<usize>>,
    /// Start in a, start in b, length.
    blocks: Vec<(usize, usize, usize)>,
}

impl<'a> Matcher<'a> {
    fn of(a: &'a [String], b: &'a [String]) -> Self {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, line) in b.iter().enumerate() {
            places.entry(line).or_default().push(at);
        }
        if b.len() >= POPULAR_FROM {
            places.retain(|_, all| all.len() <= b.len() / 100 + 1);
        }
        let mut matcher = Self { a, b, places, blocks: Vec::new() };
        let mut rest = vec![(0, a.len(), 0, b.len())];
        while let Some((a_from, a_to, b_from, b_to)) = rest.pop() {
            let (i, j, length) = matcher.longest(a_from, a_to, b_from, b_to);
            if length > 0 {
                matcher.blocks.push((i, j, length));
                rest.push((a_from, i, b_from, j));
                rest.push((i + length, a_to, j + length, b_to));
            }
        }
        matcher.blocks.sort_unstable();
        matcher.blocks.push((a.len(), b.len(), 0));
        matcher
    }

    fn longest(&self, a_from: usize, a_to: usize, b_from: usize, b_to: usize) -> (usize, usize, usize) {
        let (mut i, mut j, mut length) = (a_from, b_from, 0);
        let mut runs: HashMap<usize, usize> = HashMap::new();
        for at in a_from..a_to {
            let mut next = HashMap::new();
            for place in self.places.get(self.a[at].as_str()).into_iter().flatten().copied().filter(|place| (b_from..b_to).contains(place)) {
                let run = place.checked_sub(1).and_then(|before| runs.get(&before)).copied().unwrap_or(0) + 1;
                next.insert(place, run);
                if run > length {
                    (i, j, length) = (at + 1 - run, place + 1 - run, run);
                }
            }
            runs = next;
        }
        while i > a_from && j > b_from && self.a[i - 1] == self.b[j - 1] {
            (i, j, length) = (i - 1, j - 1, length + 1);
        }
        while i + length < a_to && j + length < b_to && self.a[i + length] == self.b[j + length] {
            length += 1;
        }
        (i, j, length)
    }
}

/// Of the lines of two values (`Internal::lines`).
pub fn unified(a: &[String], b: &[String]) -> String {
    if a.len().saturating_mul(b.len()) > WORK_MAX {
        return String::new();
    }
    // (sign, line, position in a, position in b)
    let mut script: Vec<(char, &str, usize, usize)> = Vec::new();
    let (mut i, mut j) = (0, 0);
    for (at, to, length) in Matcher::of(a, b).blocks {
        script.extend((i..at).map(|place| ('-', &*a[place], place, j)));
        script.extend((j..to).map(|place| ('+', &*b[place], at, place)));
        script.extend((0..length).map(|step| (' ', &*a[at + step], at + step, to + step)));
        (i, j) = (at + length, to + length);
    }
    let changed: Vec<usize> = script.iter().enumerate().filter(|(_, step)| step.0 != ' ').map(|(at, _)| at).collect();
    let mut out = String::new();
    let mut at = 0;
    while at < changed.len() {
        let start = changed[at].saturating_sub(CONTEXT);
        let mut end = changed[at];
        while at < changed.len() && changed[at] <= end + 2 * CONTEXT + 1 {
            end = changed[at];
            at += 1;
        }
        let hunk = &script[start..(end + CONTEXT + 1).min(script.len())];
        let count = |sign: char| hunk.iter().filter(|step| step.0 != sign).count();
        let range = |from: usize, len: usize| match len {
            1 => format!("{}", from + 1),
            0 => format!("{from},0"),
            len => format!("{},{len}", from + 1),
        };
        out.push_str(&format!("@@ -{} +{} @@\n", range(hunk[0].2, count('+')), range(hunk[0].3, count('-'))));
        for (sign, line, _, _) in hunk {
            out.push_str(&format!("{sign}{line}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn hunks() {
        let before = lines("{\n \"a\": 1,\n \"b\": 2\n}");
        let after = lines("{\n \"a\": 1,\n \"b\": 3\n}");
        assert_eq!(unified(&before, &after), "@@ -1,4 +1,4 @@\n {\n  \"a\": 1,\n- \"b\": 2\n+ \"b\": 3\n }\n");
        assert_eq!(unified(&before, &before), "");
        let far = lines("1\n2\n3\n4\n5\n6\n7\n8\n9");
        let ends = lines("0\n2\n3\n4\n5\n6\n7\n8\n0");
        assert_eq!(unified(&far, &ends), "@@ -1,4 +1,4 @@\n-1\n+0\n 2\n 3\n 4\n@@ -6,4 +6,4 @@\n 6\n 7\n 8\n-9\n+0\n");
        // The longest run comes first, even where shorter ones would be more in sum.
        assert_eq!(unified(&lines("a\nb\nc\nx"), &lines("c\nx\na\ny\nb")), "@@ -1,4 +1,5 @@\n-a\n-b\n c\n x\n+a\n+y\n+b\n");
    }
}
