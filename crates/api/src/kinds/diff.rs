//! The unified diff upstream appends to "may not change fields other than" errors: of the indented JSON, with three lines around each change.

use serde_json::Value;

const CONTEXT: usize = 3;
/// Beyond this many line pairs a diff is not worth its cost.
const WORK_MAX: usize = 4_000_000;

fn lines(value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    if serde::Serialize::serialize(value, &mut serializer).is_err() {
        return Vec::new();
    }
    String::from_utf8_lossy(&out).lines().map(str::to_owned).collect()
}

pub fn unified(old: &Value, new: &Value) -> String {
    let (a, b) = (lines(old), lines(new));
    if a.len().saturating_mul(b.len()) > WORK_MAX {
        return String::new();
    }
    // Longest common subsequence, from the back.
    let width = b.len() + 1;
    let mut common = vec![0u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * width + j] = if a[i] == b[j] { common[(i + 1) * width + j + 1] + 1 } else { common[(i + 1) * width + j].max(common[i * width + j + 1]) };
        }
    }
    // (sign, line, position in a, position in b)
    let mut script: Vec<(char, &str, usize, usize)> = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            script.push((' ', &a[i], i, j));
            i += 1;
            j += 1;
        } else if i < a.len() && (j == b.len() || common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            script.push(('-', &a[i], i, j));
            i += 1;
        } else {
            script.push(('+', &b[j], i, j));
            j += 1;
        }
    }
    let changed: Vec<usize> = script.iter().enumerate().filter(|(_, step)| step.0 != ' ').map(|(at, _)| at).collect();
    let mut out = String::new();
    let mut at = 0;
    while at < changed.len() {
        let start = changed[at].saturating_sub(CONTEXT);
        let mut end = changed[at];
        while at < changed.len() && changed[at] <= end + 2 * CONTEXT {
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
    use serde_json::json;

    #[test]
    fn hunks() {
        assert_eq!(unified(&json!({"a": 1, "b": 2}), &json!({"a": 1, "b": 3})), "@@ -1,4 +1,4 @@\n {\n  \"a\": 1,\n- \"b\": 2\n+ \"b\": 3\n }\n");
        assert_eq!(unified(&json!(1), &json!(1)), "");
    }
}
