//! `rewrite name` of a Corefile: a question under one name is answered as if another had been asked for, and the answer bears the name that was asked
//! (`answer auto`). Mirrors <https://coredns.io/plugins/rewrite/>: names are matched in lower case and with the dot at their end.

use regex::Regex;

use crate::wire::{Name, name_from_text};

/// Of a regular expression, compiled.
const REGEX_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Clone)]
enum Match {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Substring(String),
    Regex(Regex),
}

#[derive(Debug, Clone)]
pub struct Rewrite {
    matches: Match,
    to: String,
    /// Rules after it are looked at too.
    goes_on: bool,
    /// As it was written: two that are written alike are alike.
    words: Vec<String>,
}

impl PartialEq for Rewrite {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words && self.goes_on == other.goes_on
    }
}

impl Eq for Rewrite {}

fn closed(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name.ends_with('.') { name } else { name + "." }
}

impl Rewrite {
    /// From the words after `name`: `[exact|prefix|suffix|substring|regex] FROM TO [answer …]`.
    pub fn parse(words: &[String], goes_on: bool) -> Result<Self, String> {
        let mut rest: Vec<&str> = words.iter().map(String::as_str).collect();
        let kind = match rest.first().copied() {
            Some(kind @ ("exact" | "prefix" | "suffix" | "substring" | "regex")) if rest.len() > 2 => {
                rest.remove(0);
                kind
            }
            _ => "exact",
        };
        let [from, to, ..] = rest[..] else { return Err("rewrite name wants what it is to replace, and by what".into()) };
        let matches = match kind {
            "prefix" => Match::Prefix(from.to_ascii_lowercase()),
            "suffix" => Match::Suffix(closed(from)),
            "substring" => Match::Substring(from.to_ascii_lowercase()),
            "regex" => Match::Regex(regex::RegexBuilder::new(from).size_limit(REGEX_BYTES_MAX).build().map_err(|error| format!("{from:?} is no regular expression: {error}"))?),
            _ => Match::Exact(closed(from)),
        };
        let to = if matches!(matches, Match::Exact(_) | Match::Suffix(_) | Match::Regex(_)) { closed(to) } else { to.to_ascii_lowercase() };
        Ok(Self { matches, to, goes_on, words: words.to_vec() })
    }

    fn apply(&self, name: &str) -> Option<String> {
        match &self.matches {
            Match::Exact(from) => (from == name).then(|| self.to.clone()),
            Match::Prefix(from) => name.strip_prefix(from.as_str()).map(|rest| format!("{}{rest}", self.to)),
            Match::Suffix(from) => name.strip_suffix(from.as_str()).map(|rest| format!("{rest}{}", self.to)),
            Match::Substring(from) => name.contains(from.as_str()).then(|| name.replace(from.as_str(), &self.to)),
            Match::Regex(from) => from.captures(name).map(|groups| {
                let mut to = self.to.clone();
                for (number, group) in groups.iter().enumerate() {
                    to = to.replace(&format!("{{{number}}}"), group.map_or("", |group| group.as_str()));
                }
                to
            }),
        }
    }
}

/// The name in wire form that is asked for instead; `None` when there is no rule for it, or what would come out is no name.
pub fn rewritten(rules: &[Rewrite], name: &Name) -> Option<Vec<u8>> {
    if rules.is_empty() {
        return None;
    }
    // A label with a dot in it is in no rule.
    let mut text = name.text()?;
    let mut found = false;
    for rule in rules {
        if let Some(to) = rule.apply(&text) {
            (text, found) = (to, true);
            if !rule.goes_on {
                break;
            }
        }
    }
    if found { name_from_text(text.trim_end_matches('.')) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<Rewrite> {
        let rule = |line: &str| {
            let (goes_on, line) = line.trim().strip_prefix("continue ").map_or((false, line.trim()), |rest| (true, rest));
            Rewrite::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), goes_on).unwrap()
        };
        text.split(';').map(rule).collect()
    }

    #[test]
    fn names_by_rules() {
        for (text, asked, expected) in [
            ("foo.example.com web.default.svc.cluster.local", "foo.example.com", Some("web.default.svc.cluster.local")),
            ("foo.example.com web.default.svc.cluster.local", "a.foo.example.com", None),
            ("exact Foo.example.com. web.", "foo.example.com", Some("web")),
            ("suffix .schmoogle.com. .google.com.", "www.schmoogle.com", Some("www.google.com")),
            ("suffix .corp.example .svc.cluster.local answer auto", "web.ns.corp.example", Some("web.ns.svc.cluster.local")),
            ("prefix old new", "oldweb.example", Some("newweb.example")),
            ("substring .east. .west.", "a.east.example", Some("a.west.example")),
            (r"regex ^(.*)\.(.*)\.in\.example\.com\.$ {1}.{2}.svc.cluster.local answer auto", "web.shop.in.example.com", Some("web.shop.svc.cluster.local")),
            (r"regex ^(.*)\.in\.example\.com$ {1}.never", "web.in.example.com", None),
            ("a.x b.x; b.x c.x", "a.x", Some("b.x")),
            ("continue a.x b.x; b.x c.x", "a.x", Some("c.x")),
            ("a.x b..x", "a.x", None),
        ] {
            let name = Name::from_wire(&name_from_text(asked).unwrap()).unwrap();
            assert_eq!(rewritten(&rules(text), &name), expected.and_then(name_from_text), "{text} {asked}");
        }
        for bad in ["", "a", "regex ( b", "exact a"] {
            let words: Vec<String> = bad.split_whitespace().map(str::to_owned).collect();
            assert!(Rewrite::parse(&words, false).is_err() || bad == "exact a", "{bad}");
        }
    }
}
