//! Evaluation. Every step is charged, and the evaluation ends when it costs more than it may. `&&`, `||`, `all` and `exists` look past an
//! error if the other side decides; limits nothing looks past.

use std::sync::Arc;

use crate::arithmetic::{minus, negated, plus, product};
use crate::ast::FoldKind;
use crate::containers::{Built, List, Map, Object};
use crate::cost::{LIST_CREATE, MAP_CREATE, SELECT_AND_IDENT, STRUCT_CREATE};
use crate::equality::{compare, equal};
use crate::error::EvalError;
use crate::library::regex::{all_found, found};
use crate::plan::{Binary, FoldNode, Node, RegexFunction, Unary};
use crate::program::{Activation, Budget, Program};
use crate::value::{Entries, Evaluated, Key, Text, Value};

/// `'a` is the program's life and the result's, `'x` that of the variables.
pub struct Evaluation<'a, 'x, 'e> {
    program: &'a Program,
    activation: &'e Activation<'x>,
    budget: &'e mut Budget,
    locals: Vec<Value<'a>>,
    cost: u64,
}

impl<'a, 'x: 'a, 'e> Evaluation<'a, 'x, 'e> {
    pub fn new(program: &'a Program, activation: &'e Activation<'x>, budget: &'e mut Budget) -> Self {
        Self { program, activation, budget, locals: Vec::new(), cost: 0 }
    }

    pub fn cost(&self) -> u64 {
        self.cost
    }

    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.budget.per_call() {
            return Err(EvalError::CallLimit);
        }
        if self.cost > self.budget.remaining() {
            return Err(EvalError::OutOfBudget);
        }
        Ok(())
    }

    /// One function an arm: frames stay small, however deep the tree.
    pub fn node(&mut self, node: &'a Node) -> Evaluated<'a> {
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::Local(number) => self.local(*number),
            Node::Variable(number) => self.variable(*number),
            Node::Select { .. } | Node::Has { .. } | Node::OptSelect { .. } => self.selection(node),
            Node::Index { .. } => self.index(node),
            Node::And(left, right) => self.logic(left, right, false),
            Node::Or(left, right) => self.logic(left, right, true),
            Node::Conditional(parts) => self.conditional(parts),
            Node::OptOr { target, other, value } => self.opt_or(target, other, *value),
            Node::Unary { operator, operand } => self.unary(*operator, operand),
            Node::Binary { .. } => self.binary(node),
            Node::Call { .. } => self.call(node),
            Node::Regex { .. } => self.regex(node),
            Node::List(_) | Node::Map(_) | Node::Message { .. } => self.literal(node),
            Node::Fold(fold) => self.fold(fold),
            Node::Bind { value, body } => self.bind(value, body),
            Node::OptMap { .. } => self.opt_map(node),
        }
    }

    fn local(&mut self, number: usize) -> Evaluated<'a> {
        self.charge(SELECT_AND_IDENT)?;
        self.locals.get(number).cloned().ok_or_else(EvalError::no_such_overload)
    }

    fn selection(&mut self, node: &'a Node) -> Evaluated<'a> {
        match node {
            Node::Select { operand, field, key, extra } => {
                let operand = self.node(operand)?;
                self.charge(SELECT_AND_IDENT + extra)?;
                selected(&operand, field, key)
            }
            Node::Has { operand, field } => {
                let operand = self.node(operand)?;
                Ok(Value::Bool(match field_of(&operand, field) {
                    Some(found) => found.map(|_| true)?,
                    None => false,
                }))
            }
            Node::OptSelect { operand, field, extra } => {
                let operand = self.node(operand)?;
                let found = field_of(&operand, field).transpose()?;
                // What is not there is not charged.
                self.charge(extra + if found.is_some() { SELECT_AND_IDENT } else { 0 })?;
                Ok(Value::optional(found))
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn conditional(&mut self, parts: &'a [Node; 3]) -> Evaluated<'a> {
        let [condition, truthy, falsy] = parts;
        let condition = self.boolean(condition)?;
        self.attribute(if condition { truthy } else { falsy })
    }

    fn opt_or(&mut self, target: &'a Node, other: &'a Node, value: bool) -> Evaluated<'a> {
        match self.node(target)? {
            Value::Optional(None) => self.node(other),
            Value::Optional(Some(inner)) if value => Ok((*inner).clone()),
            found @ Value::Optional(_) => Ok(found),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn unary(&mut self, operator: Unary, operand: &'a Node) -> Evaluated<'a> {
        let operand = self.argument(operand)?;
        self.charge(1)?;
        match (operator, &operand) {
            (Unary::Not, Value::Bool(value)) => Ok(Value::Bool(!value)),
            (Unary::Not, _) => Err(EvalError::no_such_overload()),
            (Unary::Negate, _) => negated(&operand),
        }
    }

    fn bind(&mut self, value: &'a Node, body: &'a Node) -> Evaluated<'a> {
        let value = self.node(value)?;
        self.within(value, body)
    }

    /// As part of another: cel-go does not charge for where an attribute begins then.
    fn attribute(&mut self, node: &'a Node) -> Evaluated<'a> {
        let value = self.node(node)?;
        if node.is_attribute() {
            self.cost = self.cost.saturating_sub(SELECT_AND_IDENT);
        }
        Ok(value)
    }

    fn boolean(&mut self, node: &'a Node) -> Result<bool, EvalError> {
        self.node(node)?.as_bool().ok_or_else(EvalError::no_such_overload)
    }

    fn variable(&mut self, number: usize) -> Evaluated<'a> {
        let Some((name, cost)) = self.program.variable(number) else { return Err(EvalError::no_such_overload()) };
        self.charge(cost)?;
        // A lazy variable spends from the same budget: what this evaluation has used so far is not in it yet.
        self.activation.get(name, self.budget)
    }

    fn within(&mut self, value: Value<'a>, body: &'a Node) -> Evaluated<'a> {
        self.locals.push(value);
        let result = self.node(body);
        self.locals.pop();
        result
    }

    /// `decisive` is the value of one side that settles it.
    fn logic(&mut self, left: &'a Node, right: &'a Node, decisive: bool) -> Evaluated<'a> {
        let left = match self.boolean(left) {
            Ok(left) if left == decisive => return Ok(Value::Bool(decisive)),
            Err(error) if !error.is_absorbable() => return Err(error),
            left => left,
        };
        match self.boolean(right) {
            Ok(right) if right == decisive => Ok(Value::Bool(decisive)),
            Err(error) if !error.is_absorbable() => Err(error),
            right => left.and(right).map(Value::Bool),
        }
    }

    fn index(&mut self, node: &'a Node) -> Evaluated<'a> {
        let Node::Index { operand, index, optional, extra } = node else { return Err(EvalError::no_such_overload()) };
        let (operand, index) = (self.node(operand)?, self.attribute(index)?);
        self.charge(SELECT_AND_IDENT + extra)?;
        let (operand, optional) = match operand {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            operand => (operand, *optional),
        };
        let found = match &operand {
            Value::List(list) => list_index(list, &index)?,
            Value::Map(map) => map.get(&index),
            Value::Object(object) => index.as_str().and_then(|name| object.field(name)),
            _ => return Err(EvalError::no_such_overload()),
        };
        match found {
            Some(found) if optional => Ok(Value::optional(Some(found?))),
            Some(found) => found,
            None if optional => Ok(Value::Optional(None)),
            None => Err(missing(&operand, &index)),
        }
    }

    /// A call that fails for its argument is charged all the same.
    fn argument(&mut self, node: &'a Node) -> Evaluated<'a> {
        let result = self.node(node);
        if result.as_ref().is_err_and(EvalError::is_absorbable) {
            self.charge(1)?;
        }
        result
    }

    fn binary(&mut self, node: &'a Node) -> Evaluated<'a> {
        let Node::Binary { operator, left, right, charge } = node else { return Err(EvalError::no_such_overload()) };
        let args = [self.argument(left)?, self.argument(right)?];
        let [left, right] = &args;
        // Before a string or list is made, and before it is compared.
        self.charge(charge.of(&args, &Value::Null))?;
        match operator {
            Binary::Equal => Ok(Value::Bool(equal(left, right)?)),
            Binary::NotEqual => Ok(Value::Bool(!equal(left, right)?)),
            Binary::Less => Ok(Value::Bool(compare(left, right)?.is_lt())),
            Binary::LessOrEqual => Ok(Value::Bool(compare(left, right)?.is_le())),
            Binary::Greater => Ok(Value::Bool(compare(left, right)?.is_gt())),
            Binary::GreaterOrEqual => Ok(Value::Bool(compare(left, right)?.is_ge())),
            Binary::In => Ok(Value::Bool(match right {
                Value::List(list) => list.contains(left)?,
                Value::Map(map) => map.get(left).is_some(),
                Value::Object(object) => left.as_str().is_some_and(|name| object.field(name).is_some()),
                _ => return Err(EvalError::no_such_overload()),
            })),
            Binary::Add => plus(left, right),
            Binary::Subtract => minus(left, right),
            operator => product(*operator, left, right),
        }
    }

    fn values(&mut self, nodes: &'a [Node]) -> Result<Vec<Value<'a>>, EvalError> {
        nodes.iter().map(|node| self.argument(node)).collect()
    }

    fn call(&mut self, node: &'a Node) -> Evaluated<'a> {
        let Node::Call { overloads, args, charge } = node else { return Err(EvalError::no_such_overload()) };
        let args = self.values(args)?;
        let fits = |parameters: &[crate::types::Type]| parameters.iter().zip(&args).all(|(parameter, arg)| arg.fits(parameter));
        let Some(overload) = overloads.iter().find(|overload| fits(&overload.parameters)) else {
            return Err(EvalError::no_such_overload());
        };
        let result = (overload.body)(&args)?;
        self.charge(charge.of(&args, &result))?;
        Ok(result)
    }

    fn regex(&mut self, node: &'a Node) -> Evaluated<'a> {
        let Node::Regex { function, regex, args, charge } = node else { return Err(EvalError::no_such_overload()) };
        let args = self.values(args)?;
        self.charge(charge.of(&args, &Value::Null))?;
        let Some(Value::String(text)) = args.first() else { return Err(EvalError::no_such_overload()) };
        match function {
            RegexFunction::Matches => Ok(Value::Bool(regex.is_match(text))),
            RegexFunction::Find => found(text, regex),
            RegexFunction::FindAll => all_found(text, regex, args.get(2).and_then(Value::as_int)),
        }
    }

    fn literal(&mut self, node: &'a Node) -> Evaluated<'a> {
        match node {
            Node::List(elements) => {
                let mut values = Vec::with_capacity(elements.len());
                for (element, optional) in elements {
                    let value = self.node(element)?;
                    values.extend(present(value, *optional)?);
                }
                self.charge(LIST_CREATE)?;
                Ok(Value::list(values))
            }
            Node::Map(entries) => {
                let mut made = Entries::new();
                for (key, value, optional) in entries {
                    let (key, value) = (self.node(key)?, self.node(value)?);
                    let key = Key::new(&key).ok_or_else(|| EvalError::failed("unsupported key type"))?;
                    if let Some(value) = present(value, *optional)?
                        && made.insert(key.clone(), value).is_some()
                    {
                        return Err(EvalError::failed("repeated key in map"));
                    }
                }
                self.charge(MAP_CREATE)?;
                Ok(Value::Map(Map::Owned(Arc::new(made))))
            }
            Node::Message { name, fields } => {
                let mut made = std::collections::BTreeMap::new();
                for (field, value, optional) in fields {
                    let value = self.node(value)?;
                    if let Some(value) = present(value, *optional)? {
                        made.insert(field.clone(), value);
                    }
                }
                self.charge(STRUCT_CREATE)?;
                Ok(Value::Object(Object::Built(Arc::new(Built { name: name.clone(), fields: made }))))
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// Upstream evaluates the target twice (`hasValue`, `value`), and so is charged.
    fn opt_map(&mut self, node: &'a Node) -> Evaluated<'a> {
        let Node::OptMap { target, body, flat } = node else { return Err(EvalError::no_such_overload()) };
        let before = self.cost;
        let target = self.node(target)?;
        let again = self.cost - before;
        self.charge(1)?;
        match target {
            Value::Optional(None) => {
                self.charge(1)?;
                Ok(Value::Optional(None))
            }
            Value::Optional(Some(inner)) => {
                self.charge(again.saturating_add(1))?;
                let result = self.within((*inner).clone(), body)?;
                if *flat {
                    return Ok(result);
                }
                self.charge(1)?;
                Ok(Value::optional(Some(result)))
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }

    // ---- folds -------------------------------------------------------------------------------------------------

    fn fold(&mut self, fold: &'a FoldNode) -> Evaluated<'a> {
        let range = self.node(&fold.range)?;
        let depth = self.locals.len();
        let result = self.fold_over(fold, &range);
        self.locals.truncate(depth);
        result
    }

    fn fold_over(&mut self, fold: &'a FoldNode, range: &Value<'a>) -> Evaluated<'a> {
        let mut state = Folding { list: Vec::new(), map: Entries::new(), count: 0, decided: false, error: None };
        match range {
            Value::List(list) => {
                for index in 0..list.len() {
                    let item = list.get(index)?;
                    let (first, second) = if fold.two { (Value::Int(index as i64), Some(item)) } else { (item, None) };
                    if !self.step(fold, first, second, &mut state)? {
                        break;
                    }
                }
            }
            Value::Map(_) | Value::Object(_) => {
                let keys = match range {
                    Value::Map(map) => map.keys(),
                    Value::Object(object) => object.keys(),
                    _ => Vec::new(),
                };
                for key in keys {
                    let second = match range {
                        _ if !fold.two => None,
                        Value::Map(map) => map.get(&key).transpose()?,
                        Value::Object(object) => match object.field(key.as_str().unwrap_or_default()) {
                            Some(value) => Some(value?),
                            None => continue,
                        },
                        _ => None,
                    };
                    if !self.step(fold, key, second, &mut state)? {
                        break;
                    }
                }
            }
            _ => return Err(EvalError::failed(format!("got '{}', expected iterable type", range.type_of().runtime_name()))),
        }
        self.finish(fold, state)
    }

    fn finish(&mut self, fold: &FoldNode, state: Folding<'a>) -> Evaluated<'a> {
        self.charge(if fold.kind == FoldKind::ExistsOne { 2 } else { 1 })?;
        Ok(match fold.kind {
            FoldKind::All | FoldKind::Exists => {
                if let Some(error) = state.error.filter(|_| !state.decided) {
                    return Err(error);
                }
                Value::Bool(state.decided == (fold.kind == FoldKind::Exists))
            }
            FoldKind::ExistsOne => Value::Bool(state.count == 1),
            FoldKind::List => Value::list(state.list),
            FoldKind::Map | FoldKind::MapEntry => Value::Map(Map::Owned(Arc::new(state.map))),
        })
    }

    /// One element; false if the rest need not be seen. Prices are those of cel-go's expansion with an accumulator.
    fn step(&mut self, fold: &'a FoldNode, first: Value<'a>, second: Option<Value<'a>>, state: &mut Folding<'a>) -> Result<bool, EvalError> {
        let condition = match fold.kind {
            FoldKind::All => 2,
            FoldKind::Exists => 3,
            _ => 0,
        };
        self.charge(condition)?;
        if state.decided {
            return Ok(false);
        }
        let key = matches!(fold.kind, FoldKind::Map).then(|| first.clone());
        let depth = self.locals.len();
        self.locals.push(first);
        self.locals.extend(second);
        let result = self.body(fold, key, state);
        self.locals.truncate(depth);
        result
    }

    fn body(&mut self, fold: &'a FoldNode, key: Option<Value<'a>>, state: &mut Folding<'a>) -> Result<bool, EvalError> {
        if matches!(fold.kind, FoldKind::All | FoldKind::Exists) {
            self.charge(1)?;
            let Some(predicate) = &fold.predicate else { return Err(EvalError::no_such_overload()) };
            match self.boolean(predicate) {
                Ok(value) if value == (fold.kind == FoldKind::Exists) => state.decided = true,
                Ok(_) => {}
                Err(error) if !error.is_absorbable() => return Err(error),
                Err(error) => state.error = state.error.take().or(Some(error)),
            }
            return Ok(true);
        }
        if let Some(predicate) = &fold.predicate
            && !self.boolean(predicate)?
        {
            return Ok(true);
        }
        match (fold.kind, &fold.value) {
            (FoldKind::ExistsOne, _) => {
                self.charge(2)?;
                state.count += 1;
            }
            (FoldKind::List, Some(value)) => {
                let value = self.node(value)?;
                self.charge(LIST_CREATE + 2)?;
                state.list.push(value);
            }
            (FoldKind::Map, Some(value)) => {
                let value = self.node(value)?;
                self.charge(3)?;
                let key = key.as_ref().and_then(Key::new).ok_or_else(|| EvalError::failed("unsupported key type"))?;
                state.map.insert(key, value);
            }
            (FoldKind::MapEntry, Some(value)) => {
                let Value::Map(entry) = self.node(value)? else { return Err(EvalError::no_such_overload()) };
                self.charge(2)?;
                for key in entry.keys() {
                    let (Some(name), Some(value)) = (Key::new(&key), entry.get(&key)) else { continue };
                    if state.map.contains_key(&name) {
                        return Err(EvalError::failed(format!("insert failed: key {} already exists", describe(&key))));
                    }
                    state.map.insert(name, value?);
                }
            }
            _ => return Err(EvalError::no_such_overload()),
        }
        Ok(true)
    }
}

struct Folding<'a> {
    list: Vec<Value<'a>>,
    map: Entries<'a>,
    count: u64,
    decided: bool,
    error: Option<EvalError>,
}

fn selected<'a>(operand: &Value<'a>, field: &str, key: &'a Text<'static>) -> Evaluated<'a> {
    match operand {
        Value::Map(map) => map.get(&Value::String(key.clone())).unwrap_or_else(|| Err(EvalError::no_such_key(field))),
        Value::Object(object) => object.field(field).unwrap_or_else(|| Err(EvalError::no_such_key(field))),
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => Ok(Value::optional(field_of(inner, field).transpose()?)),
        Value::Invalid(message) => Err(EvalError::failed(message.to_string())),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// A field, if there is one; values without fields have none.
fn field_of<'a>(operand: &Value<'a>, field: &str) -> Option<Evaluated<'a>> {
    match operand {
        Value::Map(map) => map.field(field),
        Value::Object(object) => object.field(field),
        Value::Optional(Some(inner)) => field_of(inner, field),
        Value::Invalid(message) => Some(Err(EvalError::failed(message.to_string()))),
        _ => None,
    }
}

fn list_index<'a>(list: &List<'a>, index: &Value<'a>) -> Result<Option<Evaluated<'a>>, EvalError> {
    let number = match index {
        Value::Int(number) => usize::try_from(*number).ok(),
        Value::Uint(number) => usize::try_from(*number).ok(),
        Value::Double(number) if number.fract() == 0.0 && *number >= 0.0 => Some(*number as usize),
        Value::Double(_) => None,
        _ => return Err(EvalError::failed(format!("unsupported index type '{}' in list", index.type_of().runtime_name()))),
    };
    Ok(number.filter(|number| *number < list.len()).map(|number| list.get(number)))
}

fn missing(operand: &Value<'_>, index: &Value<'_>) -> EvalError {
    match operand {
        Value::List(_) => EvalError::failed(format!("index out of bounds: {}", describe(index))),
        _ => EvalError::no_such_key(describe(index)),
    }
}

fn describe(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => text.to_string(),
        other => other.to_json().map_or_else(|_| other.type_of().runtime_name().to_owned(), |json| json.to_string()),
    }
}

/// `?` before an element, an entry's value or a field's: left out if it is none.
fn present<'a>(value: Value<'a>, optional: bool) -> Result<Option<Value<'a>>, EvalError> {
    match value {
        value if !optional => Ok(Some(value)),
        Value::Optional(inner) => Ok(inner.map(|inner| (*inner).clone())),
        _ => Err(EvalError::failed("cannot initialize optional entry from non-optional value")),
    }
}
