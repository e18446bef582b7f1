//! The type checker: what every expression is, which variable a name means, which overloads a call may come down to. cel-go's rules
//! (HM-like inference with `dyn`), its order of resolution, its error texts.

use std::sync::{Arc, LazyLock};

use crate::ast::{Call, Element, Entry, Expr, Fold, FoldKind, Id, Kind, Literal, operator, qualified_name};
use crate::env::Env;
use crate::library::{self, Function, Overload};
use crate::parser::{Errors, Parsed};
use crate::types::{Fields, JSON_PATCH, OBJECT, ObjectType, Type};
use crate::unify::{Unifier, instantiate, most_general};

/// What a name or a call was found to mean.
#[derive(Debug, Clone)]
pub enum Meaning {
    /// Nothing to be looked up.
    Plain,
    /// Of the environment, by its number.
    Variable(usize),
    /// Of a macro; zero is the outermost that is in scope.
    Local(usize),
    /// The type that a name stands for.
    Type(Type),
    Call {
        overloads: Vec<&'static Overload>,
        /// `sets.contains(…)`: what looks like a target is part of the name.
        function: &'static str,
    },
    Message(Arc<ObjectType>),
}

pub struct Checked {
    pub types: Vec<Type>,
    pub meanings: Vec<Meaning>,
}

static JSON_PATCH_TYPE: LazyLock<Arc<ObjectType>> = LazyLock::new(|| Arc::new(ObjectType::json_patch()));

pub fn check(env: &Env, parsed: &Parsed) -> Result<Checked, Errors> {
    let count = parsed.offsets.len();
    let mut checker = Checker {
        env,
        offsets: &parsed.offsets,
        unifier: Unifier::default(),
        types: vec![Type::Dyn; count],
        meanings: vec![Meaning::Plain; count],
        scope: Vec::new(),
        errors: Vec::new(),
    };
    checker.check(&parsed.expr);
    if !checker.errors.is_empty() {
        return Err(checker.errors);
    }
    let types = checker.types.iter().map(|ty| checker.unifier.resolve(ty, true)).collect();
    Ok(Checked { types, meanings: checker.meanings })
}

struct Checker<'c> {
    env: &'c Env,
    offsets: &'c [u32],
    unifier: Unifier,
    types: Vec<Type>,
    meanings: Vec<Meaning>,
    scope: Vec<(String, Type)>,
    errors: Errors,
}

impl Checker<'_> {
    fn report(&mut self, id: Id, message: String) {
        self.errors.push((self.offsets.get(id as usize).copied(), message));
    }

    fn set(&mut self, id: Id, ty: Type) -> Type {
        self.types[id as usize] = ty.clone();
        ty
    }

    fn mean(&mut self, id: Id, meaning: Meaning) {
        self.meanings[id as usize] = meaning;
    }

    fn mismatch(&mut self, id: Id, wanted: &Type, found: &Type) {
        let (wanted, found) = (self.unifier.resolve(wanted, false), self.unifier.resolve(found, false));
        self.report(id, format!("expected type '{}' but found '{}'", wanted.describe(), found.describe()));
    }

    fn undeclared(&mut self, id: Id, name: &str) -> Type {
        self.report(id, format!("undeclared reference to '{}' (in container '')", name.trim_start_matches('.')));
        self.set(id, Type::Error)
    }

    fn check(&mut self, expr: &Expr) -> Type {
        let ty = match &expr.kind {
            Kind::Wrong => Type::Error,
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => self.ident(expr.id, name),
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call(call) => self.call(expr.id, call),
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { .. } => self.message(expr),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { name, value, body } => self.bind(name, value, body),
            Kind::OptMap { target, name, body, flat } => self.opt_map(target, name, body, *flat),
        };
        self.set(expr.id, ty)
    }

    // One function an arm: what the deepest tree needs of the stack is bounded by the smallest frames.

    fn list(&mut self, elements: &[Element]) -> Type {
        let mut joined = None;
        for element in elements {
            let ty = self.check(&element.value);
            let ty = self.unwrapped(element.value.id, ty, element.optional);
            joined = Some(self.join(joined, ty));
        }
        Type::list(joined.unwrap_or_else(|| self.unifier.fresh()))
    }

    fn map(&mut self, entries: &[Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.check(&entry.key);
            keys = Some(self.join(keys, key));
            let value = self.check(&entry.value);
            let value = self.unwrapped(entry.value.id, value, entry.optional);
            values = Some(self.join(values, value));
        }
        let key = keys.unwrap_or_else(|| self.unifier.fresh());
        Type::map(key, values.unwrap_or_else(|| self.unifier.fresh()))
    }

    fn bind(&mut self, name: &str, value: &Expr, body: &Expr) -> Type {
        let ty = self.check(value);
        self.scoped(name, ty, body)
    }

    fn scoped(&mut self, name: &str, ty: Type, body: &Expr) -> Type {
        self.scope.push((name.to_owned(), ty));
        let ty = self.check(body);
        self.scope.pop();
        ty
    }

    fn unwrapped(&mut self, id: Id, ty: Type, optional: bool) -> Type {
        if !optional {
            return ty;
        }
        match self.unifier.resolve(&ty, false) {
            Type::Optional(inner) => (*inner).clone(),
            ty if ty.is_dyn_or_error() => ty,
            ty => {
                self.mismatch(id, &Type::optional(ty.clone()), &ty);
                ty
            }
        }
    }

    /// Elements of a literal that do not agree make it one of `dyn`; whether they may is for `literals` to say.
    fn join(&mut self, before: Option<Type>, now: Type) -> Type {
        let Some(before) = before else { return now };
        if self.unifier.assignable(&before, &now) { most_general(&before, &now).clone() } else { Type::Dyn }
    }

    // ---- names -------------------------------------------------------------------------------------------------

    fn lookup(&mut self, id: Id, name: &str) -> Option<Type> {
        let absolute = name.strip_prefix('.');
        if absolute.is_none()
            && let Some(at) = self.scope.iter().rposition(|(local, _)| local == name)
        {
            self.mean(id, Meaning::Local(at));
            return Some(self.scope[at].1.clone());
        }
        let name = absolute.unwrap_or(name);
        if let Some(number) = self.env.find(name) {
            self.mean(id, Meaning::Variable(number));
            return Some(self.env.variables()[number].1.ty().clone());
        }
        let ty = Type::named(name)?;
        self.mean(id, Meaning::Type(ty.clone()));
        Some(Type::Type(Some(Arc::new(ty))))
    }

    fn ident(&mut self, id: Id, name: &str) -> Type {
        if let Some(ty) = self.lookup(id, name) {
            return ty;
        }
        if self.env.is_set(name) {
            self.report(id, format!("'{name}' can only be used with a field, as in '{name}.x'"));
            return Type::Error;
        }
        self.undeclared(id, name)
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Type {
        let mut root = operand;
        while let Kind::Select { operand, test: false, .. } = &root.kind {
            root = operand;
        }
        if let Kind::Ident(first) = &root.kind
            && self.env.has_qualified(first)
            && !self.scope.iter().any(|(local, _)| local == first)
        {
            if !test
                && let Some(name) = qualified_name(expr)
                && let Some(ty) = self.lookup(expr.id, &name)
            {
                return ty;
            }
            // `has(variables.x)`: a member of a set that is declared is there.
            if std::ptr::eq(root, operand) && self.env.is_set(first) {
                if self.env.find(&format!("{first}.{field}")).is_some() {
                    self.mean(expr.id, Meaning::Type(Type::Bool));
                    return Type::Bool;
                }
                self.report(expr.id, format!("undefined field '{field}'"));
                return Type::Error;
            }
        }
        let found = self.field(expr.id, operand, field, false);
        if test { Type::Bool } else { found }
    }

    fn field(&mut self, id: Id, operand: &Expr, field: &str, optional: bool) -> Type {
        let operand_type = self.check(operand);
        let operand_type = self.unifier.resolve(&operand_type, false);
        let (target, was_optional) = match operand_type {
            Type::Optional(inner) => ((*inner).clone(), true),
            other => (other, false),
        };
        let found = match &target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(object) => match &object.fields {
                Fields::Open => Type::Dyn,
                Fields::Declared(_) => match object.field(field) {
                    Some(found) => found.decl.ty().clone(),
                    None => {
                        self.report(id, format!("undefined field '{field}'"));
                        Type::Error
                    }
                },
            },
            Type::Param(_) => {
                self.unifier.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.report(id, format!("type '{}' does not support field selection", other.describe()));
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(found) } else { found }
    }

    // ---- calls -------------------------------------------------------------------------------------------------

    fn function(&self, name: &str) -> Option<&'static Function> {
        library::find(name.trim_start_matches('.'), self.env.has_patches())
    }

    fn call(&mut self, id: Id, call: &Call) -> Type {
        if call.function == operator::OPT_SELECT {
            if let [operand, Expr { kind: Kind::Literal(Literal::String(field)), .. }] = &call.args[..] {
                return self.field(id, operand, field, true);
            }
            self.report(id, "unsupported optional field selection".to_owned());
            return Type::Error;
        }
        let mut args = Vec::with_capacity(call.args.len() + 1);
        let Some(target) = &call.target else {
            for arg in &call.args {
                args.push(self.check(arg));
            }
            return match self.function(&call.function) {
                Some(function) => self.resolve(id, function, false, args, call),
                None => self.undeclared(id, &call.function),
            };
        };
        // `sets.contains(…)` is a function, unless `sets` is a variable with one.
        if let Some(prefix) = qualified_name(target)
            && let Some(function) = self.function(&format!("{prefix}.{}", call.function))
        {
            for arg in &call.args {
                args.push(self.check(arg));
            }
            return self.resolve(id, function, false, args, call);
        }
        args.push(Type::Dyn);
        for arg in &call.args {
            args.push(self.check(arg));
        }
        args[0] = self.check(target);
        match self.function(&call.function) {
            Some(function) => self.resolve(id, function, true, args, call),
            None => self.undeclared(id, &call.function),
        }
    }

    fn resolve(&mut self, id: Id, function: &'static Function, member: bool, args: Vec<Type>, call: &Call) -> Type {
        if matches!(function.name, operator::AND | operator::OR) {
            let mut fine = true;
            for (arg, ty) in call.args.iter().zip(&args) {
                if !self.unifier.assignable(ty, &Type::Bool) {
                    self.mismatch(arg.id, &Type::Bool, ty);
                    fine = false;
                }
            }
            self.mean(id, Meaning::Call { overloads: function.overloads.iter().collect(), function: function.name });
            return if fine { Type::Bool } else { Type::Error };
        }
        let mut found: Vec<&'static Overload> = Vec::new();
        let mut result: Option<Type> = None;
        for overload in function.overloads.iter().filter(|overload| overload.member == member && overload.parameters.len() == args.len()) {
            let candidate = if overload.variables == 0 {
                self.unifier.assignable_all(&args, &overload.parameters).then(|| overload.result.clone())
            } else {
                let base = self.unifier.fresh_many(overload.variables);
                let parameters: Vec<Type> = overload.parameters.iter().map(|parameter| instantiate(parameter, base)).collect();
                self.unifier.assignable_all(&args, &parameters).then(|| self.unifier.resolve(&instantiate(&overload.result, base), false))
            };
            let Some(candidate) = candidate else { continue };
            found.push(overload);
            result = Some(match result {
                None => candidate,
                Some(before) if before == Type::Dyn || before == candidate => before,
                Some(_) => Type::Dyn,
            });
        }
        let Some(result) = result else {
            let names: Vec<String> = args.iter().map(|arg| self.unifier.resolve(arg, true).describe()).collect();
            let signature = match names.split_first() {
                Some((target, rest)) if member => format!("{target}.({})", rest.join(", ")),
                _ => format!("({})", names.join(", ")),
            };
            self.report(id, format!("found no matching overload for '{}' applied to '{signature}'", function.name));
            return Type::Error;
        };
        self.mean(id, Meaning::Call { overloads: found, function: function.name });
        result
    }

    // ---- messages and macros -----------------------------------------------------------------------------------

    fn message(&mut self, expr: &Expr) -> Type {
        let Kind::Struct { name, fields } = &expr.kind else { return Type::Error };
        let object = match name.trim_start_matches('.') {
            JSON_PATCH if self.env.has_patches() => JSON_PATCH_TYPE.clone(),
            name if self.env.has_patches() && (name == OBJECT || name.starts_with("Object.")) => Arc::new(ObjectType::open(name)),
            name => {
                if Type::named(name).is_some() {
                    self.report(expr.id, format!("'{name}' is not a message type"));
                    return Type::Error;
                }
                return self.undeclared(expr.id, name);
            }
        };
        for field in fields {
            let value = self.check(&field.value);
            let value = self.unwrapped(field.value.id, value, field.optional);
            let wanted = match &object.fields {
                Fields::Open => Type::Dyn,
                Fields::Declared(declared) => match declared.get(&field.name) {
                    Some(declared) => declared.decl.ty().clone(),
                    None => {
                        self.report(field.id, format!("undefined field '{}'", field.name));
                        continue;
                    }
                },
            };
            if !self.unifier.assignable(&wanted, &value) {
                let value = self.unifier.resolve(&value, false);
                let message =
                    format!("expected type of field '{}' is '{}' but provided type is '{}'", field.name, wanted.describe(), value.describe());
                self.report(field.id, message);
            }
        }
        self.mean(expr.id, Meaning::Message(object.clone()));
        Type::Object(object)
    }

    fn fold(&mut self, fold: &Fold) -> Type {
        let range = self.check(&fold.range);
        let range = self.unifier.resolve(&range, false);
        let two = fold.second.is_some();
        let (first, second) = match &range {
            Type::List(element) if two => (Type::Int, (**element).clone()),
            Type::List(element) => ((**element).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error => (Type::Dyn, Type::Dyn),
            Type::Param(_) => {
                self.unifier.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!("expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)", other.describe());
                self.report(fold.range.id, message);
                (Type::Error, Type::Error)
            }
        };
        let key = first.clone();
        self.scope.push((fold.first.clone(), first));
        if let Some(name) = &fold.second {
            self.scope.push((name.clone(), second));
        }
        if let Some(predicate) = &fold.predicate {
            let ty = self.check(predicate);
            if !self.unifier.assignable(&Type::Bool, &ty) {
                self.mismatch(predicate.id, &Type::Bool, &ty);
            }
        }
        let value = fold.value.as_ref().map(|value| self.check(value));
        self.scope.truncate(self.scope.len() - if two { 2 } else { 1 });
        match (fold.kind, value) {
            (FoldKind::List, Some(value)) => Type::list(self.unifier.resolve(&value, false)),
            (FoldKind::Map, Some(value)) => Type::map(key, self.unifier.resolve(&value, false)),
            (FoldKind::MapEntry, Some(value)) => match self.unifier.resolve(&value, false) {
                map @ (Type::Map(..) | Type::Error) => map,
                Type::Dyn => Type::map(Type::Dyn, Type::Dyn),
                other => {
                    let id = fold.value.as_ref().map_or(fold.range.id, |value| value.id);
                    let message = format!("found no matching overload for 'cel.@mapInsert' applied to '(map(_var0, _var1), {})'", other.describe());
                    self.report(id, message);
                    Type::Error
                }
            },
            _ => Type::Bool,
        }
    }

    fn opt_map(&mut self, target: &Expr, name: &str, body: &Expr, flat: bool) -> Type {
        let found = self.check(target);
        let inner = match self.unifier.resolve(&found, false) {
            Type::Optional(inner) => (*inner).clone(),
            ty if ty.is_dyn_or_error() => Type::Dyn,
            ty @ Type::Param(_) => {
                self.unifier.assignable(&Type::Dyn, &ty);
                Type::Dyn
            }
            other => {
                self.report(target.id, format!("found no matching overload for 'hasValue' applied to '{}.()'", other.describe()));
                return Type::Error;
            }
        };
        let result = self.scoped(name, inner, body);
        if !flat {
            return Type::optional(result);
        }
        match self.unifier.resolve(&result, false) {
            optional @ (Type::Optional(_) | Type::Error) => optional,
            Type::Dyn => Type::optional(Type::Dyn),
            ty @ Type::Param(_) => Type::optional(ty),
            other => {
                let message = format!("found no matching overload for '_?_:_' applied to '(bool, {}, optional_type(dyn))'", other.describe());
                self.report(body.id, message);
                Type::Error
            }
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
