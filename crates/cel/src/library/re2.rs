//! RE2's dialect in the words of the `regex` crate. Where the two would match differently the pattern is translated; what cannot be is
//! refused, so that no rule passes by a misreading: ASCII classes `\d \w \s \b`, `[` and `&&` inside a class, `\Q…\E`, and the things
//! that only one of the two knows.

/// Nested repetition (`a**`) and more than this many repeats are errors in Go.
const REPEAT_LIMIT: u32 = 1000;

pub fn translate(pattern: &str) -> Result<String, String> {
    let characters: Vec<char> = pattern.chars().collect();
    let mut translator = Translator { characters: &characters, at: 0, out: String::with_capacity(pattern.len() + 16), can_repeat: true };
    translator.run()?;
    Ok(translator.out)
}

struct Translator<'p> {
    characters: &'p [char],
    at: usize,
    out: String,
    /// The last item was no repetition.
    can_repeat: bool,
}

impl Translator<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.characters.get(self.at + ahead).copied()
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(character) = self.peek(0) {
            match character {
                '\\' => self.escape(false)?,
                '[' => self.class()?,
                '(' => self.group()?,
                '*' | '+' | '?' => self.repeat(1)?,
                '{' => match self.counted()? {
                    Some(length) => self.repeat(length)?,
                    // Not a repetition: a brace like any other.
                    None => {
                        self.out.push_str("\\{");
                        self.at += 1;
                        self.can_repeat = true;
                    }
                },
                '}' => {
                    self.out.push_str("\\}");
                    self.at += 1;
                    self.can_repeat = true;
                }
                _ => {
                    self.out.push(character);
                    self.at += 1;
                    self.can_repeat = true;
                }
            }
        }
        Ok(())
    }

    fn repeat(&mut self, length: usize) -> Result<(), String> {
        if !self.can_repeat {
            return Err("invalid nested repetition operator".to_owned());
        }
        self.out.extend(&self.characters[self.at..self.at + length]);
        self.at += length;
        if self.peek(0) == Some('?') {
            self.out.push('?');
            self.at += 1;
        }
        self.can_repeat = false;
        Ok(())
    }

    /// `{2}`, `{2,}`, `{2,5}`: how long it is.
    fn counted(&self) -> Result<Option<usize>, String> {
        let Some(end) = self.characters[self.at..].iter().position(|character| *character == '}') else { return Ok(None) };
        let text: String = self.characters[self.at + 1..self.at + end].iter().collect();
        let (low, high) = match text.split_once(',') {
            Some((low, high)) => (low, high),
            None => (text.as_str(), text.as_str()),
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(low) || !(high.is_empty() || is_number(high)) {
            return Ok(None);
        }
        let within = |text: &str| text.parse::<u32>().is_ok_and(|count| count <= REPEAT_LIMIT);
        if !within(low) || !(high.is_empty() || within(high)) {
            return Err("invalid repeat count".to_owned());
        }
        Ok(Some(end + 1))
    }

    fn group(&mut self) -> Result<(), String> {
        self.can_repeat = true;
        self.out.push('(');
        self.at += 1;
        if self.peek(0) != Some('?') {
            return Ok(());
        }
        // Flags, a name, or nothing special; what Go does not know is refused.
        let mut ahead = 1;
        if self.peek(1) == Some('P') && self.peek(2) == Some('<') || self.peek(1) == Some('<') {
            if matches!((self.peek(1), self.peek(2)), (Some('<'), Some('=' | '!'))) {
                return Err("invalid or unsupported Perl syntax".to_owned());
            }
            return Ok(());
        }
        while let Some(flag) = self.peek(ahead) {
            match flag {
                'i' | 'm' | 's' | 'U' | '-' => ahead += 1,
                ':' | ')' => return Ok(()),
                _ => break,
            }
        }
        Err("invalid or unsupported Perl syntax".to_owned())
    }

    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(kind) = self.peek(1) else { return Err("trailing backslash at end of expression".to_owned()) };
        self.can_repeat = true;
        let replacement = match kind {
            'd' => Some(if in_class { "0-9" } else { "[0-9]" }),
            'w' => Some(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
            's' => Some(if in_class { "\\t\\n\\x0C\\r " } else { "[\\t\\n\\x0C\\r ]" }),
            'D' => Some("[^0-9]"),
            'W' => Some("[^0-9A-Za-z_]"),
            'S' => Some("[^\\t\\n\\x0C\\r ]"),
            'b' if !in_class => Some("(?-u:\\b)"),
            'A' | 'z' if !in_class => None,
            'Q' if !in_class => return self.quoted(),
            'a' | 'f' | 'n' | 'r' | 't' | 'v' | 'x' => None,
            'p' | 'P' => None,
            'B' | 'C' => return Err(format!("invalid escape sequence: `\\{kind}`")),
            _ if kind.is_ascii_punctuation() => {
                // The crate knows `\<` and the like as word boundaries: written as code points they mean themselves.
                self.out.push_str(&format!("\\x{:02X}", kind as u32));
                self.at += 2;
                return Ok(());
            }
            _ => return Err(format!("invalid escape sequence: `\\{kind}`")),
        };
        match replacement {
            Some(text) => self.out.push_str(text),
            None => {
                self.out.push('\\');
                self.out.push(kind);
            }
        }
        self.at += 2;
        // `\x{10FFFF}`, `\p{Greek}`: copied with their braces.
        if matches!(kind, 'x' | 'p' | 'P') && self.peek(0) == Some('{') {
            while let Some(character) = self.peek(0) {
                self.out.push(character);
                self.at += 1;
                if character == '}' {
                    break;
                }
            }
        }
        Ok(())
    }

    fn quoted(&mut self) -> Result<(), String> {
        self.at += 2;
        while let Some(character) = self.peek(0) {
            if character == '\\' && self.peek(1) == Some('E') {
                self.at += 2;
                return Ok(());
            }
            self.out.push_str(&::regex::escape(character.encode_utf8(&mut [0; 4])));
            self.at += 1;
        }
        Ok(())
    }

    /// As Go reads it: a hyphen is a range wherever something follows it, nothing nests, nothing is subtracted.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        self.at += 1;
        if self.peek(0) == Some('^') {
            self.out.push('^');
            self.at += 1;
        }
        let mut first = true;
        loop {
            match self.peek(0) {
                None => return Err("missing closing ]".to_owned()),
                Some(']') if !first => {
                    self.out.push(']');
                    self.at += 1;
                    self.can_repeat = true;
                    return Ok(());
                }
                Some('\\') if matches!(self.peek(1), Some('d' | 'D' | 'w' | 'W' | 's' | 'S' | 'p' | 'P')) => self.escape(true)?,
                Some('[') if self.peek(1) == Some(':') && self.named_class() => {}
                Some(_) => {
                    let low = self.class_character()?;
                    let mut high = low;
                    if self.peek(0) == Some('-') && !matches!(self.peek(1), None | Some(']')) {
                        self.at += 1;
                        high = self.class_character()?;
                    }
                    if high < low {
                        return Err("invalid character class range".to_owned());
                    }
                    self.out.push_str(&format!("\\x{{{:X}}}-\\x{{{:X}}}", low as u32, high as u32));
                }
            }
            first = false;
        }
    }

    /// `[:alpha:]`
    fn named_class(&mut self) -> bool {
        let rest: String = self.characters[self.at..].iter().collect();
        let Some(end) = rest.find(":]") else { return false };
        let name = &rest[..end + 2];
        self.out.push_str(name);
        self.at += name.chars().count();
        true
    }

    /// One character of a class, escaped or not.
    fn class_character(&mut self) -> Result<char, String> {
        let Some(character) = self.peek(0) else { return Err("missing closing ]".to_owned()) };
        self.at += 1;
        if character != '\\' {
            return Ok(character);
        }
        let Some(kind) = self.peek(0) else { return Err("trailing backslash at end of expression".to_owned()) };
        self.at += 1;
        Ok(match kind {
            'a' => '\u{7}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => return self.hexadecimal(),
            _ if kind.is_ascii_punctuation() => kind,
            _ => return Err(format!("invalid escape sequence: `\\{kind}`")),
        })
    }

    /// After `\x`: two digits, or any number in braces.
    fn hexadecimal(&mut self) -> Result<char, String> {
        let mut digits = String::new();
        if self.peek(0) == Some('{') {
            self.at += 1;
            while let Some(character) = self.peek(0).filter(|character| *character != '}') {
                digits.push(character);
                self.at += 1;
            }
            self.at += 1;
        } else {
            digits.extend(self.characters.iter().skip(self.at).take(2));
            self.at = (self.at + 2).min(self.characters.len());
        }
        u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).ok_or_else(|| "invalid escape sequence: `\\x`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::library::regex::compile;

    #[test]
    fn matches_as_re2() {
        for (pattern, text, wanted) in [
            (r"^\d+$", "123", true),
            (r"^\d+$", "१२३", false),
            (r"^\w$", "é", false),
            (r"[[a]", "[", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^[\w.-]+$", "a.b-c_1", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "ab-c", true),
            (r"^[^/]+$", "a/b", false),
            (r"^a{2,3}$", "aaa", true),
            (r"^{a}$", "{a}", true),
            (r"\Qa.b\E", "axb", false),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"(?i)ABC", "abc", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^\x{41}$", "A", true),
            (r"a\.b", "a.b", true),
            (r"^[]a]$", "]", true),
            (r"(?P<x>a)", "a", true),
            (r"^a/b\-c$", "a/b-c", true),
            (r"^[\w-a]+$", "-", true),
            (r"^[\w-a]+$", "`", false),
            (r"^[+--]$", ",", true),
            (r"^[a-z-9]+$", "-9", true),
            (r"^[\x41-\x{43}]$", "B", true),
            (r"^[\]\[]$", "[", true),
            (r"^[^[:space:]]$", "a", true),
            (r"^[a~b&c]$", "&", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), wanted, "{pattern} {text}");
        }
        for wrong in ["a**", "(", "a{1001}", r"\1", "(?=a)", "(?<=a)", "(?x)a", "[z-a]", r"[\d-\q]", r"[\", "*a", r"\C", "["] {
            assert!(compile(wrong).is_err(), "{wrong}");
        }
    }
}
