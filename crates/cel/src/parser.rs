//! Tokens to a tree: recursive descent over CEL's grammar, with cel-go's words for what is wrong. After a syntax error it stops, and leaves it to
//! `diagnosis` what is said of it; wrong macros, reserved names and bad literals are collected. Nesting is bounded, in the text and in the tree: nothing later can overflow.

use crate::ast::{Element, Entry, Expr, Field, Id, Kind, Literal, operator};
use crate::diagnosis;
use crate::lexer::{Spanned, Token, lex};
use crate::macros;

/// As cel-go: nesting of an expression, and levels of a tree.
pub const RECURSION_LIMIT: u16 = 250;
/// The longest expression, in characters (cel-go's default).
pub const EXPRESSION_CHARACTERS_LIMIT: usize = 100_000;

const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];
const EXPECTED_EXPRESSION: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

pub struct Parsed {
    pub expr: Expr,
    /// Character offset of every expression, by id.
    pub offsets: Vec<u32>,
}

pub type Errors = Vec<(Option<u32>, String)>;

pub fn parse(source: &str, with_bind: bool) -> Result<Parsed, Errors> {
    let characters: Vec<char> = source.chars().collect();
    if characters.len() > EXPRESSION_CHARACTERS_LIMIT {
        let message = format!("expression code point size exceeds limit: size: {}, limit {EXPRESSION_CHARACTERS_LIMIT}", characters.len());
        return Err(vec![(None, message)]);
    }
    let lexed = lex(&characters);
    let mut parser = Parser { characters: &characters, tokens: lexed.tokens, at: 0, depth: 0, offsets: vec![0], errors: Vec::new(), stopped: None, with_bind };
    parser.errors.extend(lexed.errors.into_iter().map(|(offset, message)| (Some(offset), message)));
    let parsed = parser.whole();
    match parsed {
        Ok(expr) if parser.errors.is_empty() => Ok(Parsed { expr, offsets: parser.offsets }),
        _ => Err(parser.told()),
    }
}

/// The error is recorded already; parsing is over.
pub struct Stop;
type Step<T> = Result<T, Stop>;

pub struct Parser<'s> {
    characters: &'s [char],
    tokens: Vec<Spanned>,
    at: usize,
    depth: u16,
    pub(crate) offsets: Vec<u32>,
    pub(crate) errors: Errors,
    /// The remark after which it could not go on, among the errors.
    stopped: Option<usize>,
    pub(crate) with_bind: bool,
}

/// (operator text, function name), weakest first. All are left associative.
const LEVELS: &[&[(&str, &str)]] = &[
    &[("||", operator::OR)],
    &[("&&", operator::AND)],
    &[
        ("<", operator::LESS),
        ("<=", operator::LESS_EQUALS),
        (">=", operator::GREATER_EQUALS),
        (">", operator::GREATER),
        ("==", operator::EQUALS),
        ("!=", operator::NOT_EQUALS),
    ],
    &[("+", operator::ADD), ("-", operator::SUBTRACT)],
    &[("*", operator::MULTIPLY), ("/", operator::DIVIDE), ("%", operator::MODULO)],
];
const LEVEL_AND: usize = 1;
const LEVEL_RELATION: usize = 2;

impl Parser<'_> {
    // ---- tokens ------------------------------------------------------------------------------------------------

    fn token(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn ahead(&self, count: usize) -> &Token {
        &self.tokens[(self.at + count).min(self.tokens.len() - 1)].token
    }

    fn offset(&self) -> u32 {
        self.tokens[self.at].offset
    }

    fn advance(&mut self) -> Spanned {
        let token = self.tokens[self.at].clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.token(), Token::Sign(found) if *found == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        if found {
            self.advance();
        }
        found
    }

    fn text(&self, from: usize, to: usize) -> String {
        let (first, last) = (&self.tokens[from], &self.tokens[to.min(self.tokens.len() - 1)]);
        if first.token == Token::End {
            return "<EOF>".to_owned();
        }
        let text: String = self.characters[first.offset as usize..last.end as usize].iter().collect();
        text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
    }

    fn syntax<T>(&mut self, message: String) -> Step<T> {
        self.stopped = Some(self.errors.len());
        self.errors.push((Some(self.offset()), format!("Syntax error: {message}")));
        Err(Stop)
    }

    fn unexpected<T>(&mut self, expected: &str) -> Step<T> {
        let text = self.text(self.at, self.at);
        self.syntax(format!("mismatched input '{text}' expecting {expected}"))
    }

    /// The errors; where it stopped, what a parser that goes on has to say.
    fn told(mut self) -> Errors {
        if let Some(stopped) = self.stopped {
            let remarks = diagnosis::remarks(self.characters, &self.tokens);
            if !remarks.is_empty() {
                self.errors.remove(stopped);
                self.errors.extend(remarks.into_iter().map(|(offset, message)| (Some(offset), message)));
            }
        }
        self.errors
    }

    /// A comma in brackets with nothing else in them.
    fn lone_comma(&mut self, close: &str) {
        if self.is(",") && matches!(self.ahead(1), Token::Sign(sign) if *sign == close) {
            self.advance();
        }
    }

    fn expect(&mut self, sign: &str, expected: &str) -> Step<()> {
        if self.take(sign) { Ok(()) } else { self.unexpected(expected) }
    }

    // ---- the grammar -------------------------------------------------------------------------------------------

    fn whole(&mut self) -> Step<Expr> {
        let expr = self.expr()?;
        if *self.token() != Token::End {
            return self.unexpected("<EOF>");
        }
        Ok(expr)
    }

    fn deeper(&mut self) -> Step<()> {
        self.depth += 1;
        if self.depth > RECURSION_LIMIT {
            self.errors.push((None, format!("expression recursion limit exceeded: {RECURSION_LIMIT}")));
            return Err(Stop);
        }
        Ok(())
    }

    fn expr(&mut self) -> Step<Expr> {
        self.deeper()?;
        let condition = self.binary(0)?;
        let result = if self.is("?") {
            let id = self.id(self.offset());
            self.advance();
            let truthy = self.binary(0)?;
            self.expect(":", "':'")?;
            let falsy = self.expr()?;
            self.call(id, operator::CONDITIONAL, None, vec![condition, truthy, falsy])
        } else {
            condition
        };
        self.depth -= 1;
        Ok(result)
    }

    /// The operator here, and how strongly it binds.
    fn operator(&self) -> Option<(usize, &'static str)> {
        match self.token() {
            Token::In => Some((LEVEL_RELATION, operator::IN)),
            Token::Sign(sign) => LEVELS.iter().enumerate().find_map(|(level, operators)| {
                let (_, function) = operators.iter().find(|(text, _)| text == sign)?;
                Some((level, *function))
            }),
            _ => None,
        }
    }

    /// Operators that bind at least so strongly.
    fn binary(&mut self, least: usize) -> Step<Expr> {
        let mut left = self.unary()?;
        while let Some((level, function)) = self.operator().filter(|(level, _)| *level >= least) {
            if level <= LEVEL_AND {
                left = self.logic(level, function, left)?;
                continue;
            }
            let id = self.id(self.offset());
            self.advance();
            let right = self.binary(level + 1)?;
            left = self.call(id, function, None, vec![left, right]);
        }
        Ok(left)
    }

    /// `a && b && c …` becomes a balanced tree, as in cel-go, so that long chains stay flat.
    fn logic(&mut self, level: usize, function: &str, first: Expr) -> Step<Expr> {
        let (mut terms, mut offsets) = (vec![Some(first)], Vec::new());
        while self.operator().is_some_and(|(found, _)| found == level) {
            offsets.push(self.offset());
            self.advance();
            terms.push(Some(self.binary(level + 1)?));
        }
        let ids: Vec<Id> = offsets.into_iter().map(|offset| self.id(offset)).collect();
        Ok(self.balanced(function, &mut terms, &ids))
    }

    fn balanced(&mut self, function: &str, terms: &mut [Option<Expr>], ids: &[Id]) -> Expr {
        if let [only] = terms
            && let Some(expr) = only.take()
        {
            return expr;
        }
        let middle = ids.len().div_ceil(2).max(1) - 1;
        let (left, right) = terms.split_at_mut(middle + 1);
        let left = self.balanced(function, left, &ids[..middle]);
        let right = self.balanced(function, right, &ids[middle + 1..]);
        self.call(ids[middle], function, None, vec![left, right])
    }

    fn unary(&mut self) -> Step<Expr> {
        for (sign, function) in [("!", operator::NOT), ("-", operator::NEGATE)] {
            if !self.is(sign) {
                continue;
            }
            // `-1` is a literal.
            if sign == "-" && matches!(self.ahead(1), Token::Int(_) | Token::Double(_)) {
                break;
            }
            let offset = self.offset();
            let mut count = 0;
            while self.take(sign) {
                count += 1;
            }
            let operand = self.member()?;
            if count % 2 == 0 {
                return Ok(operand);
            }
            let id = self.id(offset);
            return Ok(self.call(id, function, None, vec![operand]));
        }
        self.member()
    }

    fn member(&mut self) -> Step<Expr> {
        let mut expr = self.primary()?;
        loop {
            if self.is(".") {
                expr = self.selection(expr)?;
            } else if self.is("[") {
                let id = self.id(self.offset());
                self.advance();
                let optional = self.take("?");
                let index = self.expr()?;
                self.expect("]", "']'")?;
                let function = if optional { operator::OPT_INDEX } else { operator::INDEX };
                expr = self.call(id, function, None, vec![expr, index]);
            } else {
                return Ok(expr);
            }
        }
    }

    /// At the dot.
    fn selection(&mut self, operand: Expr) -> Step<Expr> {
        let (dot, dot_offset) = (self.at, self.offset());
        self.advance();
        let optional = self.take("?");
        let name = match self.token() {
            Token::Ident(name) => name.clone(),
            Token::EscapedIdent => {
                let offset = self.offset();
                self.advance();
                return Ok(self.wrong(offset, "unsupported syntax: '`'"));
            }
            _ => {
                let text = if *self.token() == Token::End { ".".to_owned() } else { self.text(dot, self.at) };
                return self.syntax(format!("no viable alternative at input '{text}'"));
            }
        };
        let name_offset = self.offset();
        self.advance();
        if optional {
            let field = self.leaf(name_offset, Kind::Literal(Literal::String(name)));
            let id = self.id(dot_offset);
            return Ok(self.call(id, operator::OPT_SELECT, None, vec![operand, field]));
        }
        if self.is("(") {
            let offset = self.offset();
            self.advance();
            let args = self.arguments()?;
            return Ok(macros::receiver(self, offset, name, operand, args));
        }
        let id = self.id(dot_offset);
        let below = operand.height;
        Ok(self.make(id, below, Kind::Select { operand: Box::new(operand), field: name, test: false }))
    }

    /// After the opening parenthesis, through the closing one.
    fn arguments(&mut self) -> Step<Vec<Expr>> {
        let mut args = Vec::new();
        if self.take(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.take(")") {
                return Ok(args);
            }
            self.expect(",", "{')', ','}")?;
        }
    }

    fn primary(&mut self) -> Step<Expr> {
        let offset = self.offset();
        match self.token() {
            Token::Sign("(") => {
                self.advance();
                let expr = self.expr()?;
                self.expect(")", "')'")?;
                Ok(expr)
            }
            Token::Sign("[") => self.list(),
            Token::Sign("{") => self.map(),
            Token::Sign(".") if matches!(self.ahead(1), Token::Ident(_)) => {
                self.advance();
                self.named(offset, ".")
            }
            Token::Ident(_) => self.named(offset, ""),
            _ => self.literal(),
        }
    }

    fn literal(&mut self) -> Step<Expr> {
        let offset = self.offset();
        let negative = self.is("-") && matches!(self.ahead(1), Token::Int(_) | Token::Double(_));
        if negative {
            self.advance();
        }
        let literal = match self.token().clone() {
            Token::True => Literal::Bool(true),
            Token::False => Literal::Bool(false),
            Token::Null => Literal::Null,
            Token::String(text) => Literal::String(text),
            Token::Bytes(bytes) => Literal::Bytes(bytes),
            Token::Int(text) => match integer(&text).and_then(|value| i64::try_from(if negative { -value } else { value }).ok()) {
                Some(value) => Literal::Int(value),
                None => return Ok(self.bad_literal(offset, "invalid int literal")),
            },
            Token::Uint(text) => match integer(&text).and_then(|value| u64::try_from(value).ok()) {
                Some(value) => Literal::Uint(value),
                None => return Ok(self.bad_literal(offset, "invalid uint literal")),
            },
            Token::Double(text) => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Literal::Double(if negative { -value } else { value }),
                _ => return Ok(self.bad_literal(offset, "invalid double literal")),
            },
            _ => return self.unexpected(EXPECTED_EXPRESSION),
        };
        self.advance();
        Ok(self.leaf(offset, Kind::Literal(literal)))
    }

    fn bad_literal(&mut self, offset: u32, message: &str) -> Expr {
        self.advance();
        self.wrong(offset, message)
    }

    /// At an identifier, which may begin a name, a call or a message.
    fn named(&mut self, offset: u32, dot: &str) -> Step<Expr> {
        if let Some(signs) = self.message_ahead() {
            return self.message(dot, signs);
        }
        let Token::Ident(name) = self.advance().token else { return self.unexpected("IDENTIFIER") };
        let call = self.is("(");
        if RESERVED.contains(&name.as_str()) {
            let wrong = self.wrong(offset, format!("reserved identifier: {name}"));
            if call {
                self.advance();
                self.arguments()?;
            }
            return Ok(wrong);
        }
        let name = format!("{dot}{name}");
        if call {
            let offset = self.offset();
            self.advance();
            let args = self.arguments()?;
            return Ok(macros::global(self, offset, name, args));
        }
        Ok(self.leaf(offset, Kind::Ident(name)))
    }

    /// `a.b.c {`: how many tokens before the brace.
    fn message_ahead(&self) -> Option<usize> {
        let mut count = 1;
        while matches!(self.ahead(count), Token::Sign(".")) && matches!(self.ahead(count + 1), Token::Ident(_)) {
            count += 2;
        }
        matches!(self.ahead(count), Token::Sign("{")).then_some(count)
    }

    fn message(&mut self, dot: &str, tokens: usize) -> Step<Expr> {
        let mut name = dot.to_owned();
        for _ in 0..tokens {
            match self.advance().token {
                Token::Ident(part) => name.push_str(&part),
                _ => name.push('.'),
            }
        }
        let id = self.id(self.offset());
        self.advance();
        let (mut fields, mut below) = (Vec::new(), 0);
        self.lone_comma("}");
        while !self.take("}") {
            if !fields.is_empty() {
                self.expect(",", "{'}', ','}")?;
                if self.take("}") {
                    break;
                }
            }
            let optional = self.take("?");
            let Token::Ident(field) = self.token().clone() else {
                return self.unexpected("{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}");
            };
            self.advance();
            let field_id = self.id(self.offset());
            self.expect(":", "':'")?;
            let value = self.expr()?;
            below = below.max(value.height);
            fields.push(Field { id: field_id, name: field, value, optional });
        }
        Ok(self.make(id, below, Kind::Struct { name, fields }))
    }

    fn list(&mut self) -> Step<Expr> {
        let id = self.id(self.offset());
        self.advance();
        let (mut elements, mut below) = (Vec::new(), 0);
        self.lone_comma("]");
        while !self.take("]") {
            if !elements.is_empty() {
                self.expect(",", "{']', ','}")?;
                if self.take("]") {
                    break;
                }
            }
            let optional = self.take("?");
            let value = self.expr()?;
            below = below.max(value.height);
            elements.push(Element { value, optional });
        }
        Ok(self.make(id, below, Kind::List(elements)))
    }

    fn map(&mut self) -> Step<Expr> {
        let id = self.id(self.offset());
        self.advance();
        let (mut entries, mut below) = (Vec::new(), 0);
        self.lone_comma("}");
        while !self.take("}") {
            if !entries.is_empty() {
                self.expect(",", "{'}', ','}")?;
                if self.take("}") {
                    break;
                }
            }
            let optional = self.take("?");
            let key = self.expr()?;
            self.expect(":", "':'")?;
            let value = self.expr()?;
            below = below.max(key.height).max(value.height);
            entries.push(Entry { key, value, optional });
        }
        Ok(self.make(id, below, Kind::Map(entries)))
    }
}

fn integer(text: &str) -> Option<i128> {
    match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
