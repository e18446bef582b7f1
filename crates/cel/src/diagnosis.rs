//! What is wrong with tokens that are no expression, in the words of the parser that cel-go is built with.
//!
//! The parser proper stops where it cannot go on. ANTLR's generated parsers do not: they drop a token, make one up, or leave a rule for where it may
//! be followed, and go on, with a remark each time. This walks CEL.g4's rules over the tokens in that way, for its remarks only; it runs when an expression is refused anyway. Mirrors ANTLR's
//! DefaultErrorStrategy (a remark of its own only after a token has matched again) and cel-go's limit of attempts.

mod rules;

use std::panic::Location;

use crate::lexer::{Spanned, Token};
use crate::parser::RECURSION_LIMIT;

/// cel-go gives up after so many attempts to go on.
const ATTEMPTS_LIMIT: u32 = 30;
/// And has heard enough after so many remarks.
const REMARKS_LIMIT: usize = 100;

/// Token types in the order of the grammar, which is that of lists of what is expected.
const NAMES: [&str; 36] = [
    "<EOF>", "'=='", "'!='", "'in'", "'<'", "'<='", "'>='", "'>'", "'&&'", "'||'", "'['", "']'", "'{'", "'}'", "'('", "')'", "'.'", "','", "'-'", "'!'", "'?'", "':'", "'+'", "'*'", "'/'", "'%'", "'true'", "'false'",
    "'null'", "NUM_FLOAT", "NUM_INT", "NUM_UINT", "STRING", "BYTES", "IDENTIFIER", "ESC_IDENTIFIER",
];

/// Token types, a bit each.
type Set = u64;

const fn of(names: &[&str]) -> Set {
    let (mut set, mut at) = (0, 0);
    while at < names.len() {
        let (mut number, wanted) = (0, names[at].as_bytes());
        while number < NAMES.len() {
            let known = NAMES[number].as_bytes();
            // Signs are quoted in the table.
            let inner = if known[0] == b'\'' { 1 } else { 0 };
            let mut same = known.len() == wanted.len() + 2 * inner;
            let mut place = 0;
            while same && place < wanted.len() {
                same = known[place + inner] == wanted[place];
                place += 1;
            }
            if same {
                set |= 1 << number;
            }
            number += 1;
        }
        at += 1;
    }
    set
}

const END: Set = of(&["<EOF>"]);

fn kind(token: &Token) -> Set {
    match token {
        Token::End => END,
        Token::Ident(_) => of(&["IDENTIFIER"]),
        Token::EscapedIdent => of(&["ESC_IDENTIFIER"]),
        Token::Int(_) => of(&["NUM_INT"]),
        Token::Uint(_) => of(&["NUM_UINT"]),
        Token::Double(_) => of(&["NUM_FLOAT"]),
        Token::String(_) => of(&["STRING"]),
        Token::Bytes(_) => of(&["BYTES"]),
        Token::True => of(&["true"]),
        Token::False => of(&["false"]),
        Token::Null => of(&["null"]),
        Token::In => of(&["in"]),
        Token::Sign(sign) => of(&[sign]),
    }
}

fn listed(set: Set) -> String {
    let names: Vec<&str> = NAMES.iter().enumerate().filter(|(number, _)| set & (1 << number) != 0).map(|(_, name)| *name).collect();
    match &names[..] {
        [only] => (*only).to_owned(),
        many => format!("{{{}}}", many.join(", ")),
    }
}

/// What may come next in a rule, and whether the rule may end there.
#[derive(Clone, Copy)]
struct Next(Set, bool);

/// A rule cannot go on.
enum Fault {
    Mismatch(Set),
    /// No alternative of a rule fits the tokens from the first to the second.
    NoAlternative(usize, usize),
    /// All is over.
    Limit,
}
type Step = Result<(), Fault>;
/// Where in the rules something is: the line of this file that says it.
type Place = u32;

/// The grammar's places where a token may be dropped before something is decided.
#[derive(Clone, Copy, PartialEq)]
enum Decision {
    Block,
    /// After one of what must be there at least once.
    Again,
}

/// (character offset, message)
pub fn remarks(characters: &[char], tokens: &[Spanned]) -> Vec<(u32, String)> {
    let mut walk = Walk { characters, tokens, kinds: tokens.iter().map(|token| kind(&token.token)).collect(), at: 0, depth: 0, follow: Vec::new(), recovering: false, lost: (usize::MAX, Vec::new()), attempts: 0, found: Vec::new() };
    // The outermost rule ends with the text; nothing is left to be told of a limit.
    let _ = walk.rule(Walk::start);
    walk.found
}

struct Walk<'t> {
    characters: &'t [char],
    tokens: &'t [Spanned],
    kinds: Vec<Set>,
    at: usize,
    depth: u16,
    /// What follows each rule that is open, outermost first.
    follow: Vec<Next>,
    /// Nothing is told until a token has matched again.
    recovering: bool,
    /// The token where rules were left, and where in them.
    lost: (usize, Vec<Place>),
    attempts: u32,
    found: Vec<(u32, String)>,
}

impl Walk<'_> {
    fn ahead(&self, count: usize) -> Set {
        self.kinds.get(self.at + count).copied().unwrap_or(END)
    }

    fn consume(&mut self) {
        if self.at + 1 < self.kinds.len() {
            self.at += 1;
        }
    }

    fn matched(&mut self) {
        self.recovering = false;
        self.lost = (usize::MAX, Vec::new());
    }

    /// What may come here, through the rules that are open.
    fn expected(&self, next: Next) -> Set {
        let Next(mut set, mut ends) = next;
        for Next(more, on) in self.follow.iter().rev() {
            if !ends {
                return set;
            }
            set |= more;
            ends = *on;
        }
        if ends { set | END } else { set }
    }

    // ---- remarks -----------------------------------------------------------------------------------------------

    fn text(&self, from: usize, to: usize) -> String {
        let (Some(first), Some(mut last)) = (self.tokens.get(from), self.tokens.get(to)) else { return String::new() };
        if first.token == Token::End {
            return "<EOF>".to_owned();
        }
        if last.token == Token::End {
            last = &self.tokens[to.saturating_sub(1)];
        }
        let text: String = self.characters[first.offset as usize..last.end as usize].iter().collect();
        text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
    }

    fn remark(&mut self, at: usize, message: String) {
        if std::mem::replace(&mut self.recovering, true) {
            return;
        }
        let offset = self.tokens.get(at).map_or(0, |token| token.offset);
        let message = match self.found.len() {
            0..REMARKS_LIMIT => message,
            REMARKS_LIMIT => format!("More than {REMARKS_LIMIT} syntax errors"),
            _ => return,
        };
        self.found.push((offset, format!("Syntax error: {message}")));
    }

    fn here(&self) -> String {
        self.text(self.at, self.at)
    }

    /// One more time it is tried to go on.
    fn attempt(&mut self) -> Step {
        self.attempts += 1;
        if self.attempts <= ATTEMPTS_LIMIT {
            return Ok(());
        }
        self.recovering = false;
        self.remark(self.at, format!("error recovery attempt limit exceeded: {ATTEMPTS_LIMIT}"));
        Err(Fault::Limit)
    }

    // ---- the ways to go on -------------------------------------------------------------------------------------

    /// Drops this token if what comes after it is wanted.
    fn dropped(&mut self, next: Next) -> bool {
        let expected = self.expected(next);
        let fits = self.ahead(1) & expected != 0;
        if fits {
            let message = format!("extraneous input '{}' expecting {}", self.here(), listed(expected));
            self.remark(self.at, message);
            self.consume();
            self.matched();
        }
        fits
    }

    /// Before a decision.
    #[track_caller]
    fn decide(&mut self, decision: Decision, next: Next) -> Step {
        if self.recovering || next.1 || self.ahead(0) & next.0 != 0 {
            return Ok(());
        }
        if decision == Decision::Again {
            let expected = self.expected(next);
            let message = format!("extraneous input '{}' expecting {}", self.here(), listed(expected));
            self.remark(self.at, message);
            self.skip_to(expected | self.anywhere());
            return Ok(());
        }
        if self.dropped(next) { Ok(()) } else { self.leave(Fault::Mismatch(self.expected(next))) }
    }

    /// One of these tokens; `next` is what may come after it.
    #[track_caller]
    fn take(&mut self, wanted: Set, next: Next) -> Step {
        if self.ahead(0) & wanted != 0 {
            self.matched();
            self.consume();
            return Ok(());
        }
        self.attempt()?;
        if self.dropped(Next(wanted, false)) {
            self.consume();
            return Ok(());
        }
        if self.expected(next) & self.ahead(0) != 0 {
            let message = format!("missing {} at '{}'", listed(wanted), self.here());
            self.remark(self.at, message);
            return Ok(());
        }
        self.leave(Fault::Mismatch(wanted))
    }

    /// Notes where a rule is left.
    #[track_caller]
    fn leave(&mut self, fault: Fault) -> Step {
        let place = Location::caller().line();
        match &fault {
            Fault::Mismatch(expected) => {
                let message = format!("mismatched input '{}' expecting {}", self.here(), listed(*expected));
                self.remark(self.at, message);
            }
            Fault::NoAlternative(from, to) => {
                let message = self.no_alternative(*from, *to);
                self.remark(*to, message);
            }
            Fault::Limit => {}
        }
        self.attempt()?;
        if self.lost.0 == self.at && self.lost.1.contains(&place) {
            // Here it was already: at least one token must go.
            self.consume();
        }
        self.lost.0 = self.at;
        self.lost.1.push(place);
        self.skip_to(self.anywhere());
        Err(fault)
    }

    fn no_alternative(&self, from: usize, to: usize) -> String {
        let text = self.text(from, to);
        // cel-go keeps the words of an older grammar for these.
        let mut word = text.chars();
        match word.next().map(|_| word.as_str()) {
            Some(word @ ("true" | "false" | "null")) => format!("mismatched input '{word}' expecting IDENTIFIER"),
            _ => format!("no viable alternative at input '{text}'"),
        }
    }

    /// What follows any of the rules that are open.
    fn anywhere(&self) -> Set {
        self.follow.iter().fold(0, |set, next| set | next.0)
    }

    fn skip_to(&mut self, set: Set) {
        while self.ahead(0) & (set | END) == 0 {
            self.consume();
        }
    }

    /// A rule that was left early is over for whoever called it.
    fn rule(&mut self, body: fn(&mut Self) -> Step) -> Step {
        match body(self) {
            Err(Fault::Limit) => Err(Fault::Limit),
            _ => Ok(()),
        }
    }

    /// A rule, after which `next` may come here.
    fn call(&mut self, next: Next, rule: fn(&mut Self) -> Step) -> Step {
        self.depth += 1;
        if self.depth > RECURSION_LIMIT * 8 || self.found.len() > REMARKS_LIMIT {
            return Err(Fault::Limit);
        }
        self.follow.push(next);
        let done = self.rule(rule);
        self.follow.pop();
        self.depth -= 1;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::lex;

    fn told(source: &str) -> Vec<String> {
        let characters: Vec<char> = source.chars().collect();
        remarks(&characters, &lex(&characters).tokens).into_iter().map(|(offset, message)| format!("{offset} {}", message.trim_start_matches("Syntax error: "))).collect()
    }

    const ANY: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

    /// Verdicts of kube-apiserver 1.36.
    #[test]
    fn goes_on_as_antlr_does() {
        let any = |head: &str| format!("{head} expecting {ANY}");
        for (source, wanted) in [
            ("(i == 1", vec!["7 missing ')' at '<EOF>'".to_owned()]),
            ("i == 1)", vec!["6 extraneous input ')' expecting <EOF>".to_owned()]),
            ("l[0", vec!["3 missing ']' at '<EOF>'".to_owned()]),
            ("[1,2,", vec!["5 missing ']' at '<EOF>'".to_owned()]),
            ("[1,2", vec!["4 mismatched input '<EOF>' expecting {']', ','}".to_owned()]),
            ("[1,,2]", vec!["3 mismatched input ',' expecting ']'".to_owned()]),
            ("{1:2,,}", vec!["5 extraneous input ',' expecting '}'".to_owned()]),
            ("f('a' 'b')", vec!["6 extraneous input ''b'' expecting ')'".to_owned()]),
            ("a && || true", vec![any("5 extraneous input '||'")]),
            ("b ? : false", vec![any("4 extraneous input ':'"), "11 mismatched input '<EOF>' expecting ':'".to_owned()]),
            ("? true : false", vec![any("0 extraneous input '?'"), "7 mismatched input ':' expecting <EOF>".to_owned()]),
            ("%", vec![any("0 mismatched input '%'"), any("1 mismatched input '<EOF>'")]),
            ("a.in", vec!["2 no viable alternative at input '.in'".to_owned(), any("4 mismatched input '<EOF>'")]),
            ("a.true", vec!["2 mismatched input 'true' expecting IDENTIFIER".to_owned()]),
            ("!-true", vec!["2 mismatched input 'true' expecting IDENTIFIER".to_owned()]),
            ("a.?", vec!["3 mismatched input '<EOF>' expecting {IDENTIFIER, ESC_IDENTIFIER}".to_owned()]),
            ("i == 1 /* c */", vec![any("8 extraneous input '*'"), any("13 mismatched input '/'"), any("14 mismatched input '<EOF>'")]),
            ("1 + 2", vec![]),
        ] {
            assert_eq!(told(source), wanted, "{source}");
        }
    }

    #[test]
    fn is_bounded() {
        assert!(told(&"a b ".repeat(5000)).len() <= 32);
        assert!(told(&format!(") {}", "(".repeat(100_000))).len() < 100);
        assert!(told(&"( ] ".repeat(1000)).len() <= REMARKS_LIMIT + 1);
    }
}
