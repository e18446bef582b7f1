//! `template` of a Corefile: answers that are made from the question. Mirrors <https://coredns.io/plugins/template/>: which template is meant, what it answers when none matches, and the
//! texts' variables `.Name`, `.Zone`, `.Class`, `.Type`, `.Group.name` and `index .Match n`. Not: functions, and what is about the message. What cannot be understood is refused at once.

use std::net::{Ipv4Addr, Ipv6Addr};

use regex::Regex;

use crate::wire::{Answer, CLASS_IN, Code, Question, Section, kind, name_from_text};

/// Of a regular expression, compiled.
const REGEX_BYTES_MAX: usize = 256 << 10;
/// Records and regular expressions of one template, and templates of one server block.
const RECORDS_MAX: usize = 64;
const MATCHES_MAX: usize = 16;
pub const TEMPLATES_MAX: usize = 64;
const CLASSES: [(&str, u16); 3] = [("IN", CLASS_IN), ("CH", 3), ("ANY", kind::ANY)];
const MX: u16 = 15;
/// Of one string of a text.
const TXT_PART_BYTES: usize = 255;
const KINDS: [(&str, u16); 14] =
    [("A", kind::A), ("AAAA", kind::AAAA), ("NS", kind::NS), ("CNAME", kind::CNAME), ("SOA", kind::SOA), ("PTR", kind::PTR), ("TXT", kind::TXT), ("SRV", kind::SRV), ("MX", MX), ("ANY", kind::ANY), ("HTTPS", 65), ("SVCB", 64), ("CAA", 257), ("DS", 43)];
const CODES: [(&str, Code); 6] = [("NOERROR", Code::NoError), ("FORMERR", Code::FormErr), ("SERVFAIL", Code::ServFail), ("NXDOMAIN", Code::NxDomain), ("NOTIMP", Code::NotImp), ("REFUSED", Code::Refused)];

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Name,
    Zone,
    Class,
    Type,
    Group(String),
    Match(usize),
}

/// A record, with variables.
#[derive(Debug, Clone)]
struct Text(Vec<Part>);

#[derive(Debug, Clone)]
pub struct Template {
    class: u16,
    kind: u16,
    /// With a dot at the end, lower case; the root's is a dot.
    zones: Vec<String>,
    matches: Vec<Regex>,
    records: Vec<(Section, Text)>,
    code: Code,
    /// Names of these that nothing matches are somebody else's to answer.
    fallthrough: Vec<String>,
    /// As it was written: two that are written alike are alike.
    words: Vec<Vec<String>>,
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words && self.zones == other.zones
    }
}

impl Eq for Template {}

fn known<T: Copy>(names: &[(&str, T)], word: &str) -> Option<T> {
    names.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, value)| *value)
}

fn named<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
    names.iter().find(|(_, known)| known == value).map_or("", |(name, _)| name)
}

fn closed(zone: &str) -> String {
    zone.trim_end_matches('.').to_ascii_lowercase() + "."
}

fn within(name: &str, zone: &str) -> bool {
    zone == "." || name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
}

impl Text {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inner, after) = after.split_once("}}").ok_or_else(|| format!("could not compile template: {text:?}: a brace does not end"))?;
            parts.push(Part::Text(before.to_owned()));
            let words: Vec<&str> = inner.trim_matches(['-', ' ']).split_whitespace().collect();
            parts.push(match words[..] {
                [".Name"] => Part::Name,
                [".Zone"] => Part::Zone,
                [".Class"] => Part::Class,
                [".Type"] => Part::Type,
                ["index", ".Match", number] => Part::Match(number.parse().map_err(|_| format!("could not compile template: {number:?} is no number"))?),
                [word] if word.starts_with(".Group.") => Part::Group(word[".Group.".len()..].to_owned()),
                _ => return Err(format!("could not compile template: {:?} is not supported here", inner.trim())),
            });
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    fn render(&self, asked: &Asked<'_>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Name => out.push_str(asked.name),
                Part::Zone => out.push_str(asked.zone),
                Part::Class => out.push_str(named(&CLASSES, &asked.class)),
                Part::Type => out.push_str(named(&KINDS, &asked.kind)),
                Part::Group(name) => out.push_str(asked.groups.as_ref().and_then(|groups| groups.name(name)).map_or("", |group| group.as_str())),
                Part::Match(number) => out.push_str(asked.groups.as_ref().and_then(|groups| groups.get(*number)).map_or("", |group| group.as_str())),
            }
        }
        out
    }
}

struct Asked<'a> {
    name: &'a str,
    zone: &'a str,
    class: u16,
    kind: u16,
    groups: Option<regex::Captures<'a>>,
}

struct Rendered {
    owner: Vec<u8>,
    ttl: u32,
    kind: u16,
    data: Vec<u8>,
}

/// `name [ttl] [IN] TYPE data`; `None` if it is no record.
fn record(text: &str) -> Option<Rendered> {
    let text = text.replace(['(', ')'], " ");
    let mut words = text.split_whitespace().peekable();
    let owner = name_from_text(&words.next()?.to_ascii_lowercase())?;
    let mut ttl = 3600;
    while let Some(word) = words.next_if(|word| word.eq_ignore_ascii_case("IN") || word.chars().all(|digit| digit.is_ascii_digit())) {
        if let Ok(seconds) = word.parse() {
            ttl = seconds;
        }
    }
    let kind = known(&KINDS, words.next()?)?;
    let rest: Vec<&str> = words.collect();
    let name = |word: &str| name_from_text(&word.to_ascii_lowercase());
    let numbers = |words: &[&str]| words.iter().map(|word| word.parse::<u16>().ok().map(u16::to_be_bytes)).collect::<Option<Vec<_>>>().map(|all| all.concat());
    let data = match (kind, rest.as_slice()) {
        (kind::A, [address]) => address.parse::<Ipv4Addr>().ok()?.octets().to_vec(),
        (kind::AAAA, [address]) => address.parse::<Ipv6Addr>().ok()?.octets().to_vec(),
        (kind::CNAME | kind::PTR | kind::NS, [target]) => name(target)?,
        (MX, [preference, target]) => [numbers(&[preference])?, name(target)?].concat(),
        (kind::SRV, [priority, weight, port, target]) => [numbers(&[priority, weight, port])?, name(target)?].concat(),
        (kind::TXT, [_, ..]) => {
            // As it was written, with its spaces.
            let at = text.to_ascii_uppercase().find(" TXT")? + " TXT".len();
            text[at..].trim().trim_matches('"').as_bytes().chunks(TXT_PART_BYTES).flat_map(|part| std::iter::once(part.len() as u8).chain(part.iter().copied())).collect()
        }
        (kind::SOA, [server, mailbox, times @ ..]) if times.len() == 5 => {
            let times = times.iter().map(|word| word.parse::<u32>().ok().map(u32::to_be_bytes)).collect::<Option<Vec<_>>>()?;
            [name(server)?, name(mailbox)?, times.concat()].concat()
        }
        _ => return None,
    };
    Some(Rendered { owner, ttl, kind, data })
}

impl Template {
    /// `head`: the words after `template`; `lines`: those of its block. `zones`: the server block's. What is not understood is an error with the number of its line in the block.
    pub fn parse(head: &[String], lines: &[&[String]], zones: &[String]) -> Result<Self, (Option<usize>, String)> {
        let [class, kind, own @ ..] = head else { return Err((None, "template wants a class and a type".into())) };
        let wrong = |what: String| (None, what);
        let mut template = Self {
            class: known(&CLASSES, class).ok_or_else(|| wrong(format!("invalid query class {class}")))?,
            kind: known(&KINDS, kind).ok_or_else(|| wrong(format!("invalid RR class {kind}")))?,
            zones: if own.is_empty() { zones } else { own }.iter().map(|zone| closed(zone)).collect(),
            matches: Vec::new(),
            records: Vec::new(),
            code: Code::NoError,
            fallthrough: Vec::new(),
            words: std::iter::once(head.to_vec()).chain(lines.iter().map(|line| line.to_vec())).collect(),
        };
        for (place, line) in lines.iter().enumerate() {
            template.line(line).map_err(|what| (Some(place), what))?;
        }
        Ok(template)
    }

    fn line(&mut self, words: &[String]) -> Result<(), String> {
        let Some((word, rest)) = words.split_first() else { return Ok(()) };
        let section = match word.as_str() {
            "match" if !rest.is_empty() => {
                if self.matches.len() + rest.len() > MATCHES_MAX {
                    return Err(format!("a template has at most {MATCHES_MAX} regular expressions"));
                }
                for text in rest {
                    self.matches.push(regex::RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build().map_err(|error| format!("could not parse regex: {text}, {error}"))?);
                }
                return Ok(());
            }
            "rcode" => {
                let code = rest.first().map(String::as_str).unwrap_or_default();
                self.code = known(&CODES, code).ok_or_else(|| format!("unknown rcode {code}"))?;
                return Ok(());
            }
            "fallthrough" => {
                self.fallthrough = if rest.is_empty() { vec![".".to_owned()] } else { rest.iter().map(|zone| closed(zone)).collect() };
                return Ok(());
            }
            // A hint to people, of which nothing is answered.
            "ederror" => return Ok(()),
            "answer" => Section::Answer,
            "additional" => Section::Additional,
            "authority" => Section::Authority,
            other => return Err(format!("unknown property '{other}'")),
        };
        // One that is not in quotes is a record all the same.
        let text = rest.join(" ");
        let parsed = Text::parse(&text)?;
        // What has no variables can be judged now.
        if parsed.0.len() == 1 && record(&text).is_none() {
            return Err(format!("{text:?} is no record that is supported here"));
        }
        if self.records.len() == RECORDS_MAX {
            return Err(format!("a template has at most {RECORDS_MAX} records"));
        }
        self.records.push((section, parsed));
        Ok(())
    }
}

/// The first template that has something to say. Its code; `None`: whoever comes after it answers. `name` is the question's, with a dot at its end.
pub fn answered(templates: &[Template], name: &str, question: &Question, answer: &mut Answer<'_>) -> Option<Code> {
    for template in templates {
        let fits = |wanted: u16, asked: u16| wanted == kind::ANY || asked == kind::ANY || wanted == asked;
        let zone = template.zones.iter().filter(|zone| within(name, zone)).max_by_key(|zone| zone.len());
        let Some(zone) = zone.filter(|_| fits(template.class, question.class) && fits(template.kind, question.kind)) else { continue };
        let matched = template.matches.iter().find_map(|regex| regex.captures(name));
        if matched.is_none() && !template.matches.is_empty() {
            if template.fallthrough.iter().any(|zone| within(name, zone)) {
                continue;
            }
            return Some(Code::NxDomain);
        }
        let asked = Asked { name, zone, class: question.class, kind: question.kind, groups: matched };
        let rendered = template.records.iter().map(|(section, text)| Some((*section, record(&text.render(&asked))?))).collect::<Option<Vec<_>>>();
        // What came out is no record.
        let Some(rendered) = rendered else { return Some(Code::ServFail) };
        answer.authoritative();
        for (section, made) in rendered {
            let own = made.owner == question.name.wire();
            answer.record(section, (!own).then_some(made.owner.as_slice()), made.kind, made.ttl, |buffer| buffer.extend_from_slice(&made.data));
        }
        return Some(template.code);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Name;

    fn template(text: &str) -> Result<Template, String> {
        let lines: Vec<Vec<String>> = text
            .lines()
            .map(|line| match line.trim().split_once(' ') {
                Some((word, rest)) if rest.contains('"') => vec![word.to_owned(), rest.trim_matches('"').to_owned()],
                _ => line.split_whitespace().map(str::to_owned).collect(),
            })
            .collect();
        let body: Vec<&[String]> = lines[1..].iter().map(Vec::as_slice).collect();
        Template::parse(&lines[0], &body, &[String::new()]).map_err(|(_, what)| what)
    }

    /// Code, answers, authorities.
    fn says(texts: &[&str], name: &str, kind: u16) -> Option<(Code, u16, u16)> {
        let templates: Vec<Template> = texts.iter().map(|text| template(text).unwrap()).collect();
        let wire = name_from_text(name.trim_end_matches('.')).unwrap();
        let message = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &wire, &kind.to_be_bytes(), &CLASS_IN.to_be_bytes()].concat();
        let question = crate::wire::read_question(&message).ok().unwrap();
        assert_eq!(question.name.wire(), Name::from_wire(&wire).unwrap().wire());
        let mut buffer = Vec::new();
        let mut answer = Answer::new(&mut buffer, &message, &question, 1232, Code::NoError);
        let code = answered(&templates, name, &question, &mut answer)?;
        Some((code, u16::from_be_bytes([buffer[6], buffer[7]]), u16::from_be_bytes([buffer[8], buffer[9]])))
    }

    #[test]
    fn answers() {
        const IP: &str = "IN A example\nmatch \"^ip-(?P<a>[0-9]*)-(?P<b>[0-9]*)-(?P<c>[0-9]*)-(?P<d>[0-9]*)[.]example[.]$\"\nanswer \"{{ .Name }} 60 IN A {{ .Group.a }}.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}\"\nfallthrough";
        assert_eq!(says(&[IP], "ip-10-0-0-1.example.", kind::A), Some((Code::NoError, 1, 0)));
        assert_eq!(says(&[IP], "ip-10-0-0-999.example.", kind::A), Some((Code::ServFail, 0, 0)), "no address");
        assert_eq!((says(&[IP], "other.example.", kind::A), says(&[IP], "ip-1-1-1-1.elsewhere.", kind::A), says(&[IP], "ip-10-0-0-1.example.", kind::TXT)), (None, None, None));
        let strict = IP.replace("\nfallthrough", "");
        assert_eq!(says(&[&strict], "other.example.", kind::A), Some((Code::NxDomain, 0, 0)));
        const SOA: &str = "ANY ANY corp.example\nrcode NXDOMAIN\nauthority \"{{ .Zone }} 60 {{ .Class }} SOA ns.{{ .Zone }} hostmaster.{{ .Zone }} (1 60 60 60 60)\"";
        assert_eq!(says(&[IP, SOA], "x.corp.example.", kind::A), Some((Code::NxDomain, 0, 1)));
        assert_eq!(says(&["IN AAAA .\nrcode NOERROR"], "anything.", kind::AAAA), Some((Code::NoError, 0, 0)));
        let all = "IN ANY\nanswer \"{{ .Name }} IN MX 10 mail.example.\"\nanswer \"a.example. 5 SRV 0 1 80 b.example.\"\nanswer \"{{ .Name }} TXT \"{{ index .Match 0 }} two\"\nmatch x.*";
        assert_eq!(says(&[all], "xy.example.", kind::TXT), Some((Code::NoError, 3, 0)));
    }

    #[test]
    fn what_is_refused() {
        for (text, part) in [
            ("IN", "wants a class and a type"),
            ("IN B", "invalid RR class B"),
            ("X A", "invalid query class X"),
            ("IN A\nmatch (", "could not parse regex: ("),
            ("IN A\nrcode WHAT", "unknown rcode WHAT"),
            ("IN A\nanswer \"{{ .Meta \"x\" }} A 1.2.3.4\"", "is not supported here"),
            ("IN A\nanswer \"{{ .Name\"", "a brace does not end"),
            ("IN A\nanswer \"a.b A 1.2.3\"", "is no record"),
            ("IN A\nupstream", "unknown property 'upstream'"),
        ] {
            let error = template(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
