//! The rules of CEL.g4, each with what may come next at every place: `(set, whether the rule may end)`.

use super::{Decision, END, Fault, Next, Set, Step, Walk, of};

const NUMBERS: Set = of(&["NUM_FLOAT", "NUM_INT"]);
const LITERAL: Set = of(&["-", "true", "false", "null", "NUM_FLOAT", "NUM_INT", "NUM_UINT", "STRING", "BYTES"]);
const MEMBER: Set = LITERAL | of(&["[", "{", "(", ".", "IDENTIFIER"]);
const EXPR: Set = MEMBER | of(&["!"]);
const OPT_EXPR: Set = EXPR | of(&["?"]);
const NAME: Set = of(&["IDENTIFIER", "ESC_IDENTIFIER"]);
const OPT_FIELD: Set = NAME | of(&["?"]);
const RELATIONS: Set = of(&["<", "<=", ">=", ">", "==", "!=", "in"]);
const FACTORS: Set = of(&["*", "/", "%"]);
const TERMS: Set = of(&["+", "-"]);
const SELECTORS: Set = of(&[".", "["]);
const COMMA: Set = of(&[","]);

impl Walk<'_> {
    /// The outermost rule.
    pub(super) fn start(&mut self) -> Step {
        self.call(Next(END, false), Self::expr)?;
        self.take(END, Next(0, true))
    }

    fn expr(&mut self) -> Step {
        let question = of(&["?"]);
        self.call(Next(question, true), Self::or)?;
        self.decide(Decision::Block, Next(question, true))?;
        if self.ahead(0) == question {
            self.take(question, Next(EXPR, false))?;
            self.call(Next(of(&[":"]), false), Self::or)?;
            self.take(of(&[":"]), Next(EXPR, false))?;
            self.call(Next(0, true), Self::expr)?;
        }
        Ok(())
    }

    fn chain(&mut self, sign: Set, below: fn(&mut Self) -> Step) -> Step {
        self.call(Next(sign, true), below)?;
        while self.ahead(0) == sign {
            self.take(sign, Next(EXPR, false))?;
            self.call(Next(sign, true), below)?;
        }
        Ok(())
    }

    fn or(&mut self) -> Step {
        self.chain(of(&["||"]), Self::and)
    }

    fn and(&mut self) -> Step {
        self.chain(of(&["&&"]), Self::relation)
    }

    fn relation(&mut self) -> Step {
        self.call(Next(RELATIONS, true), Self::calc)?;
        while self.ahead(0) & RELATIONS != 0 {
            self.take(RELATIONS, Next(EXPR, false))?;
            // Left associative: what is on the right takes no further one.
            self.call(Next(RELATIONS, true), Self::compared)?;
        }
        Ok(())
    }

    fn compared(&mut self) -> Step {
        self.call(Next(RELATIONS, true), Self::calc)
    }

    fn calc(&mut self) -> Step {
        self.call(Next(FACTORS | TERMS, true), Self::unary)?;
        while self.ahead(0) & (FACTORS | TERMS) != 0 {
            let right = if self.ahead(0) & FACTORS != 0 { Self::factor } else { Self::term };
            self.take(FACTORS | TERMS, Next(EXPR, false))?;
            self.call(Next(FACTORS | TERMS, true), right)?;
        }
        Ok(())
    }

    fn factor(&mut self) -> Step {
        self.call(Next(FACTORS | TERMS, true), Self::unary)
    }

    fn term(&mut self) -> Step {
        self.call(Next(FACTORS | TERMS, true), Self::unary)?;
        while self.ahead(0) & FACTORS != 0 {
            self.take(FACTORS, Next(EXPR, false))?;
            self.call(Next(FACTORS | TERMS, true), Self::factor)?;
        }
        Ok(())
    }

    fn unary(&mut self) -> Step {
        self.decide(Decision::Block, Next(EXPR, false))?;
        let minus = of(&["-"]);
        if self.ahead(0) == of(&["!"]) {
            while self.ahead(0) == of(&["!"]) {
                self.take(of(&["!"]), Next(EXPR, false))?;
                self.decide(Decision::Again, Next(EXPR, false))?;
            }
        } else if self.ahead(0) == minus && self.ahead(1) & NUMBERS == 0 {
            while self.ahead(0) == minus {
                if self.ahead(1) & MEMBER == 0 {
                    return self.leave(Fault::NoAlternative(self.at, self.at + 1));
                }
                self.take(minus, Next(MEMBER, false))?;
                self.decide(Decision::Again, Next(MEMBER, false))?;
            }
        }
        self.call(Next(0, true), Self::member)
    }

    fn member(&mut self) -> Step {
        self.call(Next(SELECTORS, true), Self::primary)?;
        while self.ahead(0) & SELECTORS != 0 {
            let after = Next(SELECTORS, true);
            if self.ahead(0) == of(&["["]) {
                self.take(of(&["["]), Next(OPT_EXPR, false))?;
                self.maybe(of(&["?"]), OPT_EXPR)?;
                self.call(Next(of(&["]"]), false), Self::expr)?;
                self.take(of(&["]"]), after)?;
                continue;
            }
            if self.ahead(1) & OPT_FIELD == 0 {
                return self.leave(Fault::NoAlternative(self.at, self.at + 1));
            }
            if self.ahead(1) == of(&["IDENTIFIER"]) && self.ahead(2) == of(&["("]) {
                self.take(of(&["."]), Next(of(&["IDENTIFIER"]), false))?;
                self.take(of(&["IDENTIFIER"]), Next(of(&["("]), false))?;
                self.arguments(after)?;
                continue;
            }
            self.take(of(&["."]), Next(OPT_FIELD, false))?;
            self.maybe(of(&["?"]), OPT_FIELD)?;
            self.call(after, Self::name)?;
        }
        Ok(())
    }

    /// `sign`, or not; `first` is what may come if it is not decided yet.
    #[track_caller]
    fn maybe(&mut self, sign: Set, first: Set) -> Step {
        self.decide(Decision::Block, Next(first, false))?;
        if self.ahead(0) == sign {
            return self.take(sign, Next(first & !sign, false));
        }
        Ok(())
    }

    /// `( … )`
    fn arguments(&mut self, after: Next) -> Step {
        let close = of(&[")"]);
        self.take(of(&["("]), Next(EXPR | close, false))?;
        self.decide(Decision::Block, Next(EXPR | close, false))?;
        if self.ahead(0) & EXPR != 0 {
            self.call(Next(close, false), Self::expressions)?;
        }
        self.take(close, after)
    }

    fn expressions(&mut self) -> Step {
        self.chain(COMMA, Self::expr)
    }

    fn name(&mut self) -> Step {
        self.decide(Decision::Block, Next(NAME, false))?;
        self.take(NAME, Next(0, true))
    }

    fn primary(&mut self) -> Step {
        self.decide(Decision::Block, Next(MEMBER, false))?;
        let (dot, identifier) = (of(&["."]), of(&["IDENTIFIER"]));
        let first = self.ahead(0);
        if first == of(&["("]) {
            self.take(first, Next(EXPR, false))?;
            self.call(Next(of(&[")"]), false), Self::expr)?;
            return self.take(of(&[")"]), Next(0, true));
        }
        if first == of(&["["]) {
            return self.listing(OPT_EXPR, of(&["]"]), Self::elements);
        }
        if first == of(&["{"]) {
            return self.listing(OPT_EXPR, of(&["}"]), Self::entries);
        }
        if first & (dot | identifier) == 0 {
            return self.call(Next(0, true), Self::literal);
        }
        if first == dot && self.ahead(1) != identifier {
            return self.leave(Fault::NoAlternative(self.at, self.at + 1));
        }
        if first == dot {
            self.take(dot, Next(identifier, false))?;
        }
        let mut length = 1;
        while self.ahead(length) == dot && self.ahead(length + 1) == identifier {
            length += 2;
        }
        let message = self.ahead(length) == of(&["{"]);
        self.take(identifier, Next(of(&["(", "{", "."]), true))?;
        if message {
            for _ in 1..length {
                self.take(dot | identifier, Next(dot | identifier | of(&["{"]), false))?;
            }
            return self.listing(OPT_FIELD, of(&["}"]), Self::fields);
        }
        if self.ahead(0) == of(&["("]) { self.arguments(Next(0, true)) } else { Ok(()) }
    }

    /// A bracket, what is in it or nothing, perhaps a comma, and the other bracket.
    fn listing(&mut self, first: Set, close: Set, rule: fn(&mut Self) -> Step) -> Step {
        self.take(of(&["[", "{"]), Next(first | COMMA | close, false))?;
        self.decide(Decision::Block, Next(first | COMMA | close, false))?;
        if self.ahead(0) & first != 0 {
            self.call(Next(COMMA | close, false), rule)?;
        }
        self.decide(Decision::Block, Next(COMMA | close, false))?;
        if self.ahead(0) == COMMA {
            self.take(COMMA, Next(close, false))?;
        }
        self.take(close, Next(0, true))
    }

    /// A comma that more comes after, and not one before the closing bracket.
    fn more(&self, first: Set) -> bool {
        self.ahead(0) == COMMA && self.ahead(1) & first != 0
    }

    fn elements(&mut self) -> Step {
        self.call(Next(COMMA, true), Self::optional_expr)?;
        while self.more(OPT_EXPR) {
            self.take(COMMA, Next(OPT_EXPR, false))?;
            self.call(Next(COMMA, true), Self::optional_expr)?;
        }
        Ok(())
    }

    fn entries(&mut self) -> Step {
        self.pairs(OPT_EXPR, Self::optional_expr)
    }

    fn fields(&mut self) -> Step {
        self.pairs(OPT_FIELD, Self::optional_name)
    }

    fn pairs(&mut self, first: Set, key: fn(&mut Self) -> Step) -> Step {
        loop {
            self.call(Next(of(&[":"]), false), key)?;
            self.take(of(&[":"]), Next(EXPR, false))?;
            self.call(Next(COMMA, true), Self::expr)?;
            if !self.more(first) {
                return Ok(());
            }
            self.take(COMMA, Next(first, false))?;
        }
    }

    fn optional_expr(&mut self) -> Step {
        self.maybe(of(&["?"]), OPT_EXPR)?;
        self.call(Next(0, true), Self::expr)
    }

    fn optional_name(&mut self) -> Step {
        self.maybe(of(&["?"]), OPT_FIELD)?;
        self.call(Next(0, true), Self::name)
    }

    fn literal(&mut self) -> Step {
        self.decide(Decision::Block, Next(LITERAL, false))?;
        let minus = of(&["-"]);
        if self.ahead(0) == minus {
            if self.ahead(1) & NUMBERS == 0 {
                return self.leave(Fault::NoAlternative(self.at, self.at + 1));
            }
            self.take(minus, Next(NUMBERS, false))?;
        }
        self.take(LITERAL & !minus, Next(0, true))
    }
}
