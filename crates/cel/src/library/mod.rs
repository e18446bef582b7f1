//! The functions: what each is called with, what it gives, and how. One file a library; signatures are written in a small notation and
//! read once. The names of overloads are cel-go's and Kubernetes': costs go by them.

pub mod authorizer;
pub mod conversions;
pub mod format;
pub mod ip;
pub mod lists;
pub mod operators;
pub mod optional;
pub mod patches;
pub mod printf;
pub mod quantity;
pub mod re2;
pub mod regex;
pub mod semver;
pub mod sets;
pub mod strings;
pub mod timestamps;
pub mod url;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::error::EvalError;
use crate::types::{Opaque, Type};
use crate::value::{Evaluated, Value};

/// The target, if there is one, is the first argument. Arguments fit the overload's parameters.
pub type Body = for<'a> fn(&[Value<'a>]) -> Evaluated<'a>;
/// Function, overload, signature (`string.(int) -> string` has a target), what it does.
pub type Row = (&'static str, &'static str, &'static str, Body);

#[derive(Debug)]
pub struct Overload {
    pub id: &'static str,
    pub member: bool,
    pub parameters: Vec<Type>,
    pub result: Type,
    /// How many type variables the signature has.
    pub variables: u32,
    pub body: Body,
}

#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    pub overloads: Vec<Overload>,
    /// Only for MutatingAdmissionPolicy.
    pub for_patches: bool,
}

static FUNCTIONS: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let mut functions: HashMap<&'static str, Function> = HashMap::new();
    let always = [
        operators::TABLE,
        conversions::TABLE,
        timestamps::TABLE,
        strings::TABLE,
        lists::TABLE,
        sets::TABLE,
        optional::TABLE,
        regex::TABLE,
        url::TABLE,
        quantity::TABLE,
        ip::TABLE,
        format::TABLE,
        semver::TABLE,
        authorizer::TABLE,
    ];
    for (table, for_patches) in always.into_iter().map(|table| (table, false)).chain([(patches::TABLE, true)]) {
        for &(name, id, signature, body) in table {
            let overload = read(id, signature, body);
            functions.entry(name).or_insert_with(|| Function { name, overloads: Vec::new(), for_patches }).overloads.push(overload);
        }
    }
    functions
});

pub fn find(name: &str, with_patches: bool) -> Option<&'static Function> {
    FUNCTIONS.get(name).filter(|function| with_patches || !function.for_patches)
}

/// For those that the evaluator does itself.
pub fn by_evaluator<'a>(_: &[Value<'a>]) -> Evaluated<'a> {
    Err(EvalError::no_such_overload())
}

fn read(id: &'static str, signature: &'static str, body: Body) -> Overload {
    let mut reader = Reader { rest: signature, variables: 0 };
    let mut parameters = Vec::new();
    let member = !reader.rest.starts_with('(');
    if member {
        parameters.push(reader.ty());
        reader.skip(".");
    }
    reader.skip("(");
    while !reader.rest.starts_with(')') && !reader.rest.is_empty() {
        parameters.push(reader.ty());
        reader.skip(", ");
    }
    reader.skip(") -> ");
    let result = reader.ty();
    debug_assert!(reader.rest.is_empty(), "{signature}: {}", reader.rest);
    Overload { id, member, parameters, result, variables: reader.variables, body }
}

struct Reader {
    rest: &'static str,
    variables: u32,
}

impl Reader {
    fn skip(&mut self, text: &str) {
        self.rest = self.rest.strip_prefix(text).unwrap_or(self.rest);
    }

    fn inner(&mut self) -> Type {
        self.skip("(");
        let ty = self.ty();
        self.skip(")");
        ty
    }

    fn ty(&mut self) -> Type {
        let end = self.rest.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "list" => Type::list(self.inner()),
            "optional" => Type::optional(self.inner()),
            "type" => Type::Type(Some(Arc::new(self.inner()))),
            "map" => {
                self.skip("(");
                let key = self.ty();
                self.skip(", ");
                let value = self.ty();
                self.skip(")");
                Type::map(key, value)
            }
            "A" => self.variable(0),
            "B" => self.variable(1),
            "timestamp" => Type::Timestamp,
            "duration" => Type::Duration,
            "quantity" => Type::Opaque(Opaque::Quantity),
            "url" => Type::Opaque(Opaque::Url),
            "ip" => Type::Opaque(Opaque::Ip),
            "cidr" => Type::Opaque(Opaque::Cidr),
            "semver" => Type::Opaque(Opaque::Semver),
            "format" => Type::Opaque(Opaque::Format),
            "authorizer" => Type::Opaque(Opaque::Authorizer),
            "path" => Type::Opaque(Opaque::PathCheck),
            "group" => Type::Opaque(Opaque::GroupCheck),
            "resource" => Type::Opaque(Opaque::ResourceCheck),
            "decision" => Type::Opaque(Opaque::Decision),
            _ => {
                debug_assert!(word == "dyn" || Type::named(word).is_some(), "{word}");
                Type::named(word).unwrap_or(Type::Dyn)
            }
        }
    }

    fn variable(&mut self, number: u32) -> Type {
        self.variables = self.variables.max(number + 1);
        Type::Param(number)
    }
}

/// The arguments do not have the shape that was promised.
pub(crate) fn mismatch<'a>() -> Evaluated<'a> {
    Err(EvalError::no_such_overload())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_reads() {
        assert!(FUNCTIONS.len() > 100);
        let mut ids = std::collections::HashSet::new();
        for function in FUNCTIONS.values() {
            for overload in &function.overloads {
                assert!(ids.insert(overload.id), "{} twice", overload.id);
            }
        }
        let function = find("charAt", false).unwrap();
        assert!(function.overloads[0].member && function.overloads[0].parameters == [Type::String, Type::Int]);
        assert!(find("jsonpatch.escapeKey", false).is_none() && find("jsonpatch.escapeKey", true).is_some());
    }
}
