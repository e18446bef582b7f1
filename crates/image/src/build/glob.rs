//! File name patterns as in Go's `filepath.Match`: `*`, `?`, `[a-z]`, `[^x]`, `\c`, none of which crosses a `/`.

/// Does `name` (one path component) match?
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // The usual two-pointer walk with one point to come back to: linear for any number of stars.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, n));
            p += 1;
            continue;
        }
        if let Some(length) = one(&pattern[p..], name[n]) {
            p += length;
            n += 1;
            continue;
        }
        match &mut star {
            Some((star_p, star_n)) => {
                *star_n += 1;
                (p, n) = (*star_p + 1, *star_n);
            }
            None => return false,
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Length of the pattern's first element if it matches `c`.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match *pattern.first()? {
        '?' => Some(1),
        '\\' => (pattern.get(1) == Some(&c)).then_some(2),
        '[' => {
            let negated = matches!(pattern.get(1), Some('^' | '!'));
            let mut at = if negated { 2 } else { 1 };
            let first = at;
            let mut hit = false;
            while *pattern.get(at)? != ']' || at == first {
                let low = if pattern[at] == '\\' { at += 1; *pattern.get(at)? } else { pattern[at] };
                at += 1;
                let high = if pattern.get(at) == Some(&'-') && pattern.get(at + 1).is_some_and(|&c| c != ']') {
                    at += 2;
                    pattern[at - 1]
                } else {
                    low
                };
                hit |= (low..=high).contains(&c);
            }
            (hit != negated).then_some(at + 1)
        }
        literal => (literal == c).then_some(1),
    }
}

pub fn is_pattern(component: &str) -> bool {
    component.contains(['*', '?', '[', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (pattern, name, want) in [
            ("*", "anything", true),
            ("*.rs", "main.rs", true),
            ("*.rs", "main.rsx", false),
            ("a*b*c", "aXbYbZc", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("[", "[", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} ~ {name}");
        }
    }
}
