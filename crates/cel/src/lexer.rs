//! Characters to tokens, after CEL.g4. Positions count characters, as cel-go's do, so that a caret stands under the right one.

/// A token. Text is kept only where the parser needs it.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Ident(String),
    /// `` `a-b` ``: Kubernetes does not switch this syntax on, so it is only recognised to be refused.
    EscapedIdent,
    Int(String),
    Uint(String),
    Double(String),
    String(String),
    Bytes(Vec<u8>),
    True,
    False,
    Null,
    In,
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

#[derive(Debug, Clone)]
pub struct Spanned {
    pub token: Token,
    pub offset: u32,
    /// One past its last character.
    pub end: u32,
}

/// Longest first.
const SIGNS: &[&str] =
    &["==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*", "/", "%"];

pub struct Lexed {
    pub tokens: Vec<Spanned>,
    /// (offset, message)
    pub errors: Vec<(u32, String)>,
}

pub fn lex(characters: &[char]) -> Lexed {
    let mut lexer = Lexer { characters, at: 0, tokens: Vec::with_capacity(characters.len() / 3 + 2), errors: Vec::new() };
    while lexer.at < characters.len() {
        lexer.next();
    }
    let end = characters.len() as u32;
    lexer.tokens.push(Spanned { token: Token::End, offset: end, end });
    Lexed { tokens: lexer.tokens, errors: lexer.errors }
}

struct Lexer<'s> {
    characters: &'s [char],
    at: usize,
    tokens: Vec<Spanned>,
    errors: Vec<(u32, String)>,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.characters.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn push(&mut self, token: Token, start: usize) {
        self.tokens.push(Spanned { token, offset: start as u32, end: self.at as u32 });
    }

    fn next(&mut self) {
        let start = self.at;
        let first = self.peek(0);
        match first {
            ' ' | '\t' | '\r' | '\n' | '\u{c}' => self.at += 1,
            '/' if self.peek(1) == '/' => {
                while self.at < self.characters.len() && self.peek(0) != '\n' {
                    self.at += 1;
                }
            }
            '"' | '\'' => self.string(start, false, false),
            '0'..='9' => self.number(start),
            '.' if self.peek(1).is_ascii_digit() => self.number(start),
            '_' | 'a'..='z' | 'A'..='Z' => self.word(start),
            '`' => self.escaped(start),
            _ => self.sign(start),
        }
    }

    fn sign(&mut self, start: usize) {
        for sign in SIGNS {
            if sign.chars().enumerate().all(|(ahead, character)| self.peek(ahead) == character) {
                self.at += sign.len();
                return self.push(Token::Sign(sign), start);
            }
        }
        // Half a sign is read on to the character that shows it is none.
        self.at += if matches!(self.peek(0), '=' | '&' | '|') { 2 } else { 1 };
        self.unrecognised(start);
    }

    /// All that was read, with the character that did not fit, is no token.
    fn unrecognised(&mut self, start: usize) {
        self.at = self.at.min(self.characters.len());
        let text: String = self.characters[start..self.at].iter().collect();
        let text = text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
        self.errors.push((start as u32, format!("Syntax error: token recognition error at: '{text}'")));
    }

    fn escaped(&mut self, start: usize) {
        self.at += 1;
        while self.peek(0).is_ascii_alphanumeric() || matches!(self.peek(0), '_' | '.' | '-' | '/' | ' ') {
            self.at += 1;
        }
        if self.peek(0) == '`' && self.at > start + 1 {
            self.at += 1;
            self.push(Token::EscapedIdent, start);
        } else {
            self.at += 1;
            self.unrecognised(start);
        }
    }

    fn word(&mut self, start: usize) {
        // r"…", b'…', rb"…" is not CEL, br"…" is.
        let (first, second, third) = (self.peek(0).to_ascii_lowercase(), self.peek(1), self.peek(2));
        let quote = |character: char| character == '"' || character == '\'';
        match first {
            'r' if quote(second) => {
                self.at += 1;
                return self.string(start, true, false);
            }
            'b' if quote(second) => {
                self.at += 1;
                return self.string(start, false, true);
            }
            'b' if second.eq_ignore_ascii_case(&'r') && quote(third) => {
                self.at += 2;
                return self.string(start, true, true);
            }
            _ => self.name(start),
        }
    }

    /// An identifier or a word of the language.
    fn name(&mut self, start: usize) {
        while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
            self.at += 1;
        }
        let text: String = self.characters[start..self.at].iter().collect();
        let token = match text.as_str() {
            "true" => Token::True,
            "false" => Token::False,
            "null" => Token::Null,
            "in" => Token::In,
            _ => Token::Ident(text),
        };
        self.push(token, start);
    }

    fn digits(&mut self) {
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }

    fn number(&mut self, start: usize) {
        if self.peek(0) == '0' && self.peek(1) == 'x' && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            return self.integer(start);
        }
        self.digits();
        let mut double = false;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            double = true;
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(0), 'e' | 'E') {
            let signed = usize::from(matches!(self.peek(1), '+' | '-'));
            if self.peek(1 + signed).is_ascii_digit() {
                double = true;
                self.at += 1 + signed;
                self.digits();
            }
        }
        if double {
            let text = self.characters[start..self.at].iter().collect();
            return self.push(Token::Double(text), start);
        }
        self.integer(start);
    }

    fn integer(&mut self, start: usize) {
        let text: String = self.characters[start..self.at].iter().collect();
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return self.push(Token::Uint(text), start);
        }
        self.push(Token::Int(text), start);
    }

    /// At the opening quote.
    fn string(&mut self, start: usize, raw: bool, bytes: bool) {
        let opening = self.at;
        let quote = self.peek(0);
        let long = self.peek(1) == quote && self.peek(2) == quote;
        self.at += if long { 3 } else { 1 };
        let mut out = Vec::new();
        let mut wrong = None;
        loop {
            if self.at >= self.characters.len() || (!long && matches!(self.peek(0), '\n' | '\r')) {
                return self.unfinished(start, opening, long);
            }
            let character = self.peek(0);
            if character == quote && (!long || (self.peek(1) == quote && self.peek(2) == quote)) {
                self.at += if long { 3 } else { 1 };
                break;
            }
            if character == '\\' && !raw {
                match self.escape(bytes) {
                    Ok(Escaped::Character(character)) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                    Ok(Escaped::Byte(byte)) => out.push(byte),
                    Err(None) => {
                        self.at += 1;
                        return self.unfinished(start, opening, long);
                    }
                    Err(Some(message)) => wrong = Some(message),
                }
                continue;
            }
            self.at += 1;
            // Raw and other strings alike: carriage returns are newlines.
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        if let Some(message) = wrong {
            self.errors.push((start as u32, String::from(message)));
        }
        if bytes {
            return self.push(Token::Bytes(out), start);
        }
        match String::from_utf8(out) {
            Ok(text) => self.push(Token::String(text), start),
            Err(_) => {
                self.errors.push((start as u32, "invalid unicode code point".to_owned()));
                self.push(Token::String(String::new()), start);
            }
        }
    }

    /// No string: what is before it may be tokens. `self.at` is where it does not fit.
    fn unfinished(&mut self, start: usize, opening: usize, long: bool) {
        let failed = self.at;
        if opening > start {
            // A prefix by itself is a name, or the end of one.
            self.at = start;
            return self.name(start);
        }
        if long {
            // The first two quotes are an empty string.
            self.at = opening + 2;
            return self.push(Token::String(String::new()), start);
        }
        self.at = failed + 1;
        self.unrecognised(start);
    }

    /// At a backslash. `Err(None)` is no token at all.
    fn escape(&mut self, bytes: bool) -> Result<Escaped, Option<&'static str>> {
        let kind = self.peek(1);
        let simple = match kind {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '"' | '\'' | '\\' | '?' | '`' => kind,
            'x' | 'X' => return self.coded(2, 2, 16, bytes),
            'u' if !bytes => return self.coded(2, 4, 16, bytes),
            'U' if !bytes => return self.coded(2, 8, 16, bytes),
            'u' | 'U' => {
                self.at += 2;
                return Err(Some("unable to unescape string"));
            }
            '0'..='3' => return self.coded(1, 3, 8, bytes),
            _ => return Err(None),
        };
        self.at += 2;
        Ok(Escaped::Character(simple))
    }

    fn coded(&mut self, from: usize, length: usize, radix: u32, bytes: bool) -> Result<Escaped, Option<&'static str>> {
        let mut value: u32 = 0;
        for ahead in from..from + length {
            let Some(digit) = self.peek(ahead).to_digit(radix) else {
                self.at += ahead - 1;
                return Err(None);
            };
            value = value.wrapping_mul(radix).wrapping_add(digit);
        }
        self.at += from + length;
        if bytes {
            return u8::try_from(value).map(Escaped::Byte).map_err(|_| Some("unable to unescape string"));
        }
        char::from_u32(value).map(Escaped::Character).ok_or(Some("invalid unicode code point"))
    }
}

enum Escaped {
    Character(char),
    Byte(u8),
}
