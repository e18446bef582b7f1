//! Type variables and what may stand where: the checker's unification, with cel-go's rules on `dyn`, on null, and on which of two
//! types is the more general. An attempt that fails leaves no trace.

use std::sync::Arc;

use crate::types::Type;

#[derive(Default)]
pub struct Unifier {
    bound: Vec<Option<Type>>,
    /// What each variable was before, newest last.
    trail: Vec<(u32, Option<Type>)>,
}

impl Unifier {
    pub fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Param((self.bound.len() - 1) as u32)
    }

    /// As many fresh variables as a signature has; they are numbered from the result.
    pub fn fresh_many(&mut self, count: u32) -> u32 {
        let base = self.bound.len() as u32;
        self.bound.resize(self.bound.len() + count as usize, None);
        base
    }

    fn find(&self, variable: &Type) -> Option<&Type> {
        match variable {
            Type::Param(number) => self.bound.get(*number as usize)?.as_ref(),
            _ => None,
        }
    }

    fn bind(&mut self, number: u32, ty: Type) {
        if let Some(slot) = self.bound.get_mut(number as usize) {
            self.trail.push((number, slot.replace(ty)));
        }
    }

    /// May a value of `from` stand where `to` is wanted (or the other way round: the relation is cel-go's)? Binds variables if so.
    pub fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        self.attempt(|unifier| unifier.try_assign(from, to))
    }

    pub fn assignable_all(&mut self, from: &[Type], to: &[Type]) -> bool {
        from.len() == to.len() && self.attempt(|unifier| from.iter().zip(to).all(|(from, to)| unifier.try_assign(from, to)))
    }

    fn attempt(&mut self, try_it: impl FnOnce(&mut Self) -> bool) -> bool {
        let mark = self.trail.len();
        if try_it(self) {
            return true;
        }
        while self.trail.len() > mark {
            if let Some((number, before)) = self.trail.pop()
                && let Some(slot) = self.bound.get_mut(number as usize)
            {
                *slot = before;
            }
        }
        false
    }

    fn try_assign(&mut self, from: &Type, to: &Type) -> bool {
        if let Type::Param(number) = to {
            let (valid, has_binding) = self.substitution(from, to, *number);
            if valid || has_binding {
                return valid;
            }
        }
        if let Type::Param(number) = from {
            return self.substitution(to, from, *number).0;
        }
        if from.is_dyn_or_error() || to.is_dyn_or_error() {
            return true;
        }
        match (from, to) {
            (Type::Null, other) | (other, Type::Null) => {
                matches!(other, Type::Null | Type::Opaque(_) | Type::Optional(_) | Type::Object(_) | Type::Timestamp | Type::Duration)
            }
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(from), Type::List(to)) | (Type::Optional(from), Type::Optional(to)) => self.try_assign(from, to),
            (Type::Map(key, value), Type::Map(to_key, to_value)) => self.try_assign(key, to_key) && self.try_assign(value, to_value),
            _ => from == to,
        }
    }

    /// May `variable` stand for `ty`? And: was it bound already?
    fn substitution(&mut self, ty: &Type, variable: &Type, number: u32) -> (bool, bool) {
        if ty == variable {
            return (true, true);
        }
        if let Some(bound) = self.find(variable).cloned() {
            if *ty == bound {
                return (true, true);
            }
            if self.try_assign(ty, &bound) {
                let general = most_general(ty, &bound).clone();
                if self.does_not_occur(variable, &general) {
                    self.bind(number, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.does_not_occur(variable, ty) {
            self.bind(number, ty.clone());
            return (true, false);
        }
        (false, false)
    }

    fn does_not_occur(&self, variable: &Type, within: &Type) -> bool {
        if variable == within {
            return false;
        }
        match within {
            Type::Param(_) => self.find(within).is_none_or(|bound| self.does_not_occur(variable, bound)),
            Type::List(inner) | Type::Optional(inner) | Type::Type(Some(inner)) => self.does_not_occur(variable, inner),
            Type::Map(key, value) => self.does_not_occur(variable, key) && self.does_not_occur(variable, value),
            _ => true,
        }
    }

    /// Bound variables replaced; the others become `dyn` if `finally`.
    pub fn resolve(&self, ty: &Type, finally: bool) -> Type {
        match ty {
            Type::Param(_) => match self.find(ty) {
                Some(bound) => self.resolve(bound, finally),
                None if finally => Type::Dyn,
                None => ty.clone(),
            },
            Type::List(inner) => Type::List(self.resolve_shared(inner, finally)),
            Type::Optional(inner) => Type::Optional(self.resolve_shared(inner, finally)),
            Type::Type(Some(inner)) => Type::Type(Some(self.resolve_shared(inner, finally))),
            Type::Map(key, value) => Type::Map(self.resolve_shared(key, finally), self.resolve_shared(value, finally)),
            _ => ty.clone(),
        }
    }

    fn resolve_shared(&self, ty: &Arc<Type>, finally: bool) -> Arc<Type> {
        if has_variables(ty) { Arc::new(self.resolve(ty, finally)) } else { ty.clone() }
    }
}

fn has_variables(ty: &Type) -> bool {
    match ty {
        Type::Param(_) => true,
        Type::List(inner) | Type::Optional(inner) | Type::Type(Some(inner)) => has_variables(inner),
        Type::Map(key, value) => has_variables(key) || has_variables(value),
        _ => false,
    }
}

/// A signature's own variables, counted from zero, to the checker's from `base` on.
pub fn instantiate(ty: &Type, base: u32) -> Type {
    match ty {
        Type::Param(number) => Type::Param(base + number),
        Type::List(inner) if has_variables(inner) => Type::list(instantiate(inner, base)),
        Type::Optional(inner) if has_variables(inner) => Type::optional(instantiate(inner, base)),
        Type::Type(Some(inner)) => Type::Type(Some(Arc::new(instantiate(inner, base)))),
        Type::Map(key, value) if has_variables(key) || has_variables(value) => Type::map(instantiate(key, base), instantiate(value, base)),
        _ => ty.clone(),
    }
}

/// Of two types that unify.
pub fn most_general<'t>(one: &'t Type, other: &'t Type) -> &'t Type {
    if equal_or_less_specific(one, other) { one } else { other }
}

fn equal_or_less_specific(one: &Type, other: &Type) -> bool {
    match (one, other) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(one), Type::List(other)) | (Type::Optional(one), Type::Optional(other)) => equal_or_less_specific(one, other),
        (Type::Map(key, value), Type::Map(other_key, other_value)) => {
            equal_or_less_specific(key, other_key) && equal_or_less_specific(value, other_value)
        }
        (Type::Type(_), Type::Type(_)) => true,
        _ => one == other,
    }
}
