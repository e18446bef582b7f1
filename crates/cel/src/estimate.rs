//! The least and the most an expression can cost, from the sizes that variables are declared with. Upstream: cel-go's `checker/cost.go`
//! and Kubernetes' `CostEstimator`; accepting or refusing a rule of a CRD depends on it, so it follows them closely, also where they
//! are odd (what was computed and not read from a variable is taken for as large as the root variable, `self`).

use std::collections::HashMap;

use crate::ast::{Call, Element, Entry, Expr, Fold, FoldKind, Id, Kind, Literal, operator};
use crate::check::{Checked, Meaning};
use crate::cost::{CostEstimate, LIST_CREATE, MAP_CREATE, SELECT_AND_IDENT, STRUCT_CREATE};
use crate::decl::{DeclType, Shape};
use crate::env::Env;
use crate::price::{Node, Priced, price};
use crate::types::Type;
use crate::value::characters;

/// The variable whose type stands for what has no place in a schema.
const ROOT: &str = "self";

pub fn estimate(env: &Env, expr: &Expr, checked: &Checked) -> CostEstimate {
    let root = env.find(ROOT).map(|number| inner(&env.variables()[number].1));
    let mut estimator = Estimator { env, checked, root, places: HashMap::new(), sizes: HashMap::new(), entries: HashMap::new(), locals: Vec::new() };
    estimator.cost(expr)
}

/// An optional variable is as large as what it may hold.
fn inner(decl: &DeclType) -> DeclType {
    match decl.shape() {
        Shape::Optional(inner) => inner.clone(),
        _ => decl.clone(),
    }
}

/// Where in the declared variables a value stands.
#[derive(Debug, Clone)]
enum Place {
    /// It was computed.
    None,
    /// Reached from a variable; `None` if the declaration does not go that far.
    At(Option<DeclType>),
}

/// How large the keys (or indices) and values of a container are.
#[derive(Debug, Clone, Copy)]
struct EntrySize {
    list: bool,
    key: CostEstimate,
    value: CostEstimate,
}

impl EntrySize {
    fn union(self, other: Self) -> Self {
        Self { list: self.list, key: self.key.union(other.key), value: self.value.union(other.value) }
    }
}

#[derive(Debug, Clone)]
struct Local {
    name: String,
    place: Place,
    size: Option<CostEstimate>,
    entry: Option<EntrySize>,
}

struct Estimator<'e> {
    env: &'e Env,
    checked: &'e Checked,
    root: Option<DeclType>,
    places: HashMap<Id, Place>,
    sizes: HashMap<Id, CostEstimate>,
    entries: HashMap<Id, EntrySize>,
    locals: Vec<Local>,
}

const ONE: CostEstimate = CostEstimate::fixed(1);
const IDENT: CostEstimate = CostEstimate::fixed(SELECT_AND_IDENT);

impl Estimator<'_> {
    fn ty(&self, expr: &Expr) -> &Type {
        &self.checked.types[expr.id as usize]
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    // ---- places ------------------------------------------------------------------------------------------------

    fn place(&self, expr: &Expr) -> Place {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.place.clone();
        }
        self.places.get(&expr.id).cloned().unwrap_or(Place::None)
    }

    fn step(&self, place: &Place, name: &str) -> Place {
        match place {
            Place::None => Place::At(self.root.clone()),
            // DRA's estimator knows the values of maps by selections too.
            Place::At(decl) => Place::At(decl.as_ref().and_then(|decl| decl.step(name).or_else(|| self.env.has_bind().then(|| decl.step("@values")).flatten())).cloned()),
        }
    }

    fn size_at(place: &Place) -> Option<CostEstimate> {
        match place {
            Place::At(Some(decl)) => Some(CostEstimate { min: 0, max: decl.size_limit() }),
            _ => None,
        }
    }

    // ---- sizes -------------------------------------------------------------------------------------------------

    fn size(&mut self, expr: &Expr) -> Option<CostEstimate> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        if let Some(length) = literal_size(&expr.kind) {
            return Some(CostEstimate::fixed(length));
        }
        if let Some(size) = Self::size_at(&self.place(expr)) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if self.ty(expr).is_scalar() {
            return Some(ONE);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> CostEstimate {
        self.size(expr).unwrap_or(CostEstimate::UNKNOWN)
    }

    fn entry(&self, expr: &Expr) -> Option<EntrySize> {
        if let Some(entry) = self.entries.get(&expr.id) {
            return Some(*entry);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.entry),
            _ => None,
        }
    }

    fn set_size(&mut self, expr: &Expr, size: Option<CostEstimate>) {
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
    }

    fn set_entry(&mut self, expr: &Expr, entry: Option<EntrySize>) {
        if let Some(entry) = entry {
            self.entries.insert(expr.id, entry);
        }
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        let size = self.size(from);
        self.set_size(to, size);
        self.set_entry(to, self.entry(from));
    }

    // ---- costs -------------------------------------------------------------------------------------------------

    fn cost(&mut self, expr: &Expr) -> CostEstimate {
        match &expr.kind {
            Kind::Wrong | Kind::Literal(_) => CostEstimate::ZERO,
            Kind::Ident(name) => {
                let place = match self.local(name) {
                    Some(local) => local.place.clone(),
                    None => self.variable_place(expr),
                };
                self.places.insert(expr.id, place);
                IDENT
            }
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => self.list(expr.id, elements),
            Kind::Map(entries) => self.map(expr.id, entries),
            Kind::Struct { fields, .. } => fields.iter().fold(CostEstimate::fixed(STRUCT_CREATE), |sum, field| sum.plus(self.cost(&field.value))),
            Kind::Fold(fold) => self.fold(expr, fold),
            Kind::Bind { name, value, body } => self.bind(expr, name, value, body),
            Kind::OptMap { target, name, body, flat } => self.opt_map(target, name, body, *flat),
        }
    }

    fn list(&mut self, id: Id, elements: &[Element]) -> CostEstimate {
        let mut sum = CostEstimate::fixed(LIST_CREATE);
        let mut value: Option<CostEstimate> = None;
        for element in elements {
            sum = sum.plus(self.cost(&element.value));
            value = Some(union(value, self.size_or_unknown(&element.value)));
        }
        self.entries.insert(id, EntrySize { list: true, key: ONE, value: value.unwrap_or(CostEstimate::ZERO) });
        sum
    }

    fn map(&mut self, id: Id, entries: &[Entry]) -> CostEstimate {
        let mut sum = CostEstimate::fixed(MAP_CREATE);
        let (mut key, mut value) = (None, None);
        for entry in entries {
            sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
            key = Some(union(key, self.size_or_unknown(&entry.key)));
            value = Some(union(value, self.size_or_unknown(&entry.value)));
        }
        let (key, value) = (key.unwrap_or(CostEstimate::ZERO), value.unwrap_or(CostEstimate::ZERO));
        self.entries.insert(id, EntrySize { list: false, key, value });
        sum
    }

    fn bind(&mut self, expr: &Expr, name: &str, value: &Expr, body: &Expr) -> CostEstimate {
        // An empty list is what the binding iterates over, upstream.
        let sum = CostEstimate::fixed(LIST_CREATE).plus(self.cost(value));
        let local = self.bound(name, value);
        let body_cost = self.with(local, |estimator| estimator.cost(body));
        self.copy_sizes(expr, body);
        sum.plus(body_cost)
    }

    /// As `target.hasValue() ? optional.of(bind(target.value(), body)) : optional.none()`.
    fn opt_map(&mut self, target: &Expr, name: &str, body: &Expr, flat: bool) -> CostEstimate {
        let has_value = self.cost(target).plus(ONE);
        let local = Local { name: name.to_owned(), place: Place::None, size: None, entry: None };
        let body_cost = self.with(local, |estimator| estimator.cost(body));
        let bound = CostEstimate::fixed(LIST_CREATE).plus(has_value).plus(body_cost);
        let present = if flat { bound } else { bound.plus(ONE) };
        has_value.plus(present.union(ONE))
    }

    fn variable_place(&self, expr: &Expr) -> Place {
        match &self.checked.meanings[expr.id as usize] {
            Meaning::Variable(number) => Place::At(self.env.variables().get(*number).map(|(_, decl)| inner(decl))),
            _ => Place::At(self.root.clone()),
        }
    }

    fn bound(&mut self, name: &str, value: &Expr) -> Local {
        Local { name: name.to_owned(), place: self.place(value), size: self.size(value), entry: self.entry(value) }
    }

    fn with<T>(&mut self, local: Local, run: impl FnOnce(&mut Self) -> T) -> T {
        self.locals.push(local);
        let result = run(self);
        self.locals.pop();
        result
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> CostEstimate {
        if let Meaning::Variable(number) = &self.checked.meanings[expr.id as usize] {
            let (name, decl) = &self.env.variables()[*number];
            self.places.insert(expr.id, Place::At(Some(inner(decl))));
            return CostEstimate::fixed(self.env.read_cost(name));
        }
        if let Meaning::Type(_) = &self.checked.meanings[expr.id as usize] {
            self.places.insert(expr.id, Place::At(self.root.clone()));
            return IDENT;
        }
        let mut sum = self.cost(operand);
        if test {
            return sum;
        }
        if matches!(self.ty(operand), Type::Map(..) | Type::Object(_)) {
            sum = sum.plus(IDENT);
        }
        let place = self.step(&self.place(operand), field);
        self.places.insert(expr.id, place);
        sum
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> CostEstimate {
        if call.function == operator::OPT_SELECT {
            return call.args.iter().fold(ONE, |sum, arg| sum.plus(self.cost(arg)));
        }
        let checked = self.checked;
        let Meaning::Call { overloads, function } = &checked.meanings[expr.id as usize] else { return CostEstimate::ZERO };
        if *function == "dyn"
            && let [arg] = &call.args[..]
        {
            let cost = self.cost(arg).plus(ONE);
            self.copy_sizes(expr, arg);
            return cost;
        }
        let mut costs = Vec::with_capacity(call.args.len());
        let mut nodes = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            costs.push(self.cost(arg));
            nodes.push(self.described(arg));
        }
        let target = call.target.as_ref().filter(|_| overloads.first().is_some_and(|overload| overload.member));
        let mut sum = CostEstimate::ZERO;
        let mut target_node = None;
        if let Some(target) = target {
            sum = self.cost(target);
            target_node = Some(self.described(target));
        }
        let args_sum = costs.iter().fold(CostEstimate::ZERO, |sum, cost| sum.plus(*cost));
        let mut whole: Option<CostEstimate> = None;
        let mut result_size: Option<CostEstimate> = None;
        for overload in overloads {
            let (cost, size) = match (*function, &costs[..], &call.args[..]) {
                // The other side may not be needed.
                (operator::AND | operator::OR, [left, right], _) => (CostEstimate { min: left.min, max: left.plus(*right).max }, None),
                (operator::CONDITIONAL, [condition, truthy, falsy], [_, yes, no]) => {
                    let size = self.size_or_unknown(yes).union(self.size_or_unknown(no));
                    let entry = self.entry(yes).zip(self.entry(no)).map(|(yes, no)| yes.union(no));
                    self.set_entry(expr, entry);
                    (condition.plus(truthy.union(*falsy)), Some(size))
                }
                (_, _, args) => {
                    if matches!(overload.id, "add_string" | "add_bytes" | "add_list")
                        && let [left, right] = args
                    {
                        let entry = self.entry(left).zip(self.entry(right)).map(|(left, right)| left.union(right));
                        self.set_entry(expr, entry);
                    }
                    let Priced { cost, size } = price(function, overload.id, target_node.as_ref(), &nodes);
                    (cost.plus(args_sum), size)
                }
            };
            whole = Some(union(whole, cost));
            if let Some(size) = size {
                result_size = Some(union(result_size, size));
            }
            if let ("index_list" | "index_map", Some(container)) = (overload.id, call.args.first()) {
                result_size = self.entry(container).map(|entry| entry.value);
                let name = if overload.id == "index_list" { "@items" } else { "@values" };
                let place = self.step(&self.place(container), name);
                self.places.insert(expr.id, place);
            }
            if result_size.is_none() {
                result_size = self.size(expr);
            }
        }
        self.set_size(expr, result_size);
        sum.plus(whole.unwrap_or(CostEstimate::ZERO))
    }

    /// What prices are made from.
    fn described<'x>(&mut self, expr: &'x Expr) -> Node<'x> {
        let place = self.place(expr);
        // Elements of what was computed have no place at all here.
        let element_size = match &place {
            Place::None => None,
            Place::At(_) => Self::size_at(&self.step(&place, "@items")),
        };
        let literal = match &expr.kind {
            Kind::Literal(literal) => Some(literal),
            _ => None,
        };
        Node { ty: self.ty(expr).clone(), size: self.size(expr), element_size, literal }
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> CostEstimate {
        let init = match fold.kind {
            FoldKind::List => LIST_CREATE,
            FoldKind::Map | FoldKind::MapEntry => MAP_CREATE,
            _ => 0,
        };
        let mut sum = self.cost(&fold.range).plus(CostEstimate::fixed(init));
        let count = self.locals.len();
        self.push_variables(fold);
        let (condition, step, value_size) = self.step_cost(fold);
        self.locals.truncate(count);
        sum = sum.plus(CostEstimate::fixed(if fold.kind == FoldKind::ExistsOne { 2 } else { 1 }));
        let times = self.size_or_unknown(&fold.range);
        sum = sum.plus(times.times(step.plus(CostEstimate::fixed(condition))));
        match fold.kind {
            FoldKind::List => {
                self.set_size(expr, Some(times));
                let value = value_size.unwrap_or(CostEstimate::UNKNOWN).union(CostEstimate::ZERO);
                self.set_entry(expr, Some(EntrySize { list: true, key: ONE, value }));
            }
            FoldKind::Map | FoldKind::MapEntry => self.set_size(expr, Some(times)),
            _ => self.set_size(expr, Some(ONE)),
        }
        sum
    }

    fn push_variables(&mut self, fold: &Fold) {
        let entry = self.entry(&fold.range);
        let place = self.place(&fold.range);
        let list = entry.map_or(matches!(self.ty(&fold.range), Type::List(_)), |entry| entry.list);
        let mut push = |name: &str, step: &str, size: Option<CostEstimate>| {
            let place = self.step(&place, step);
            self.locals.push(Local { name: name.to_owned(), place, size, entry: None });
        };
        let key = entry.map(|entry| entry.key);
        let value = entry.map(|entry| entry.value);
        match &fold.second {
            Some(second) => {
                push(&fold.first, if list { "@indices" } else { "@keys" }, key);
                push(second, if list { "@items" } else { "@values" }, value);
            }
            None if list => push(&fold.first, "@items", value),
            None => push(&fold.first, "@keys", key),
        }
    }

    /// Of one element: the loop's condition, the step (as cel-go spells it out, with an accumulator), and how large what it gives is.
    fn step_cost(&mut self, fold: &Fold) -> (u64, CostEstimate, Option<CostEstimate>) {
        let predicate = fold.predicate.as_ref().map(|predicate| self.cost(predicate));
        let value = fold.value.as_ref().map(|value| self.cost(value));
        let value_size = fold.value.as_ref().map(|value| self.size_or_unknown(value));
        let or_not = |predicate: Option<CostEstimate>, step: CostEstimate| match predicate {
            Some(predicate) => predicate.plus(step.union(IDENT)),
            None => step,
        };
        let one_of = |predicate: Option<CostEstimate>| CostEstimate { min: 1, max: predicate.unwrap_or(CostEstimate::ZERO).max.saturating_add(1) };
        let value = value.unwrap_or(CostEstimate::ZERO);
        match fold.kind {
            FoldKind::All => (2, one_of(predicate), None),
            FoldKind::Exists => (3, one_of(predicate), None),
            FoldKind::ExistsOne => (0, or_not(predicate, CostEstimate::fixed(2)), None),
            FoldKind::List => (0, or_not(predicate, value.plus(CostEstimate::fixed(LIST_CREATE + 2))), value_size),
            FoldKind::Map => (0, or_not(predicate, value.plus(CostEstimate::fixed(3))), value_size),
            FoldKind::MapEntry => (0, or_not(predicate, value.plus(CostEstimate::fixed(2))), value_size),
        }
    }
}

fn union(before: Option<CostEstimate>, now: CostEstimate) -> CostEstimate {
    before.map_or(now, |before| before.union(now))
}

fn literal_size(kind: &Kind) -> Option<u64> {
    Some(match kind {
        Kind::Literal(Literal::String(text)) => characters(text),
        Kind::Literal(Literal::Bytes(bytes)) => bytes.len() as u64,
        Kind::Literal(_) => 1,
        Kind::List(elements) => elements.len() as u64,
        Kind::Map(entries) => entries.len() as u64,
        _ => return None,
    })
}
