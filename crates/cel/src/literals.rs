//! Literals that can only fail are refused when they are written: durations, timestamps, lists and maps of mixed types (but for
//! the arguments of `format`). Regular expressions are refused where they are compiled, in `plan`. Upstream: the AST validators of cel-go
//! that Kubernetes has on since 1.29.

use crate::ast::{Expr, Kind, Literal};
use crate::parser::{Errors, Parsed};
use crate::time::{from_seconds, parse_duration, parse_timestamp};
use crate::types::Type;

/// Its arguments may be of any types.
const MIXED_LITERALS_IN: &str = "format";

pub fn validate(parsed: &Parsed, types: &[Type]) -> Result<(), Errors> {
    let mut validator = Validator { parsed, types, errors: Errors::new() };
    validator.walk(&parsed.expr, false);
    if validator.errors.is_empty() { Ok(()) } else { Err(validator.errors) }
}

struct Validator<'v> {
    parsed: &'v Parsed,
    types: &'v [Type],
    errors: Errors,
}

impl Validator<'_> {
    fn report(&mut self, id: u32, message: String) {
        self.errors.push((self.parsed.offsets.get(id as usize).copied(), message));
    }

    fn walk(&mut self, expr: &Expr, mixed: bool) {
        match &expr.kind {
            Kind::Wrong | Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => self.walk(operand, mixed),
            Kind::Call(call) => {
                self.literal(&call.function, &call.args);
                let mixed = mixed || call.function == MIXED_LITERALS_IN;
                call.target.iter().chain(&call.args).for_each(|child| self.walk(child, mixed));
            }
            Kind::List(elements) => {
                self.agree(elements.iter().map(|element| (&element.value, element.optional)), mixed);
                elements.iter().for_each(|element| self.walk(&element.value, mixed));
            }
            Kind::Map(entries) => {
                self.agree(entries.iter().map(|entry| (&entry.key, false)), mixed);
                self.agree(entries.iter().map(|entry| (&entry.value, entry.optional)), mixed);
                for entry in entries {
                    self.walk(&entry.key, mixed);
                    self.walk(&entry.value, mixed);
                }
            }
            Kind::Struct { fields, .. } => fields.iter().for_each(|field| self.walk(&field.value, mixed)),
            Kind::Fold(fold) => {
                let parts = [Some(&fold.range), fold.predicate.as_ref(), fold.value.as_ref()];
                parts.into_iter().flatten().for_each(|child| self.walk(child, mixed));
            }
            Kind::Bind { value: first, body, .. } | Kind::OptMap { target: first, body, .. } => {
                self.walk(first, mixed);
                self.walk(body, mixed);
            }
        }
    }

    fn literal(&mut self, function: &str, args: &[Expr]) {
        let [Expr { id, kind: Kind::Literal(literal), .. }, ..] = args else { return };
        let wrong = match (function, literal) {
            ("duration", Literal::String(text)) => parse_duration(text).is_none(),
            ("timestamp", Literal::String(text)) => parse_timestamp(text).is_err(),
            ("timestamp", Literal::Int(seconds)) => from_seconds(*seconds).is_err(),
            _ => false,
        };
        if wrong {
            self.report(*id, format!("invalid {function} argument"));
        }
    }

    fn agree<'x>(&mut self, parts: impl Iterator<Item = (&'x Expr, bool)>, mixed: bool) {
        let mut first: Option<&Type> = None;
        for (part, optional) in parts {
            if mixed {
                return;
            }
            let ty = match &self.types[part.id as usize] {
                Type::Optional(inner) if optional => inner,
                ty => ty,
            };
            match first {
                None => first = Some(ty),
                Some(first) if first == ty => {}
                Some(first) => {
                    let message = format!("expected type '{}' but found '{}'", first.describe(), ty.describe());
                    return self.report(part.id, message);
                }
            }
        }
    }
}
