//! A compiled expression, what it is evaluated with, and what it may cost.

use std::cell::RefCell;
use std::sync::Arc;

use crate::cost::CostEstimate;
use crate::error::EvalError;
use crate::eval::Evaluation;
use crate::limits::PER_CALL_LIMIT;
use crate::plan::Node;
use crate::types::Type;
use crate::value::{Evaluated, Value};

pub use crate::arithmetic::plus;

/// Cheap to clone; compiled once, evaluated by any number of threads.
#[derive(Clone, Debug)]
pub struct Program(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    root: Node,
    output: Type,
    cost: CostEstimate,
    /// Name, and what reading it costs.
    variables: Vec<(Arc<str>, u64)>,
}

impl Program {
    pub(crate) fn new(root: Node, output: Type, cost: CostEstimate, variables: Vec<(Arc<str>, u64)>) -> Self {
        Self(Arc::new(Compiled { root, output, cost, variables }))
    }

    pub fn output_type(&self) -> &Type {
        &self.0.output
    }

    /// The least and the most it can cost, by the sizes of the declared variables.
    pub fn cost_estimate(&self) -> CostEstimate {
        self.0.cost
    }

    /// Does it use this variable?
    pub fn references(&self, variable: &str) -> bool {
        let number = self.0.variables.iter().position(|(name, _)| **name == *variable);
        number.is_some_and(|number| self.0.root.any(&mut |node| matches!(node, Node::Variable(found) if *found == number)))
    }

    pub(crate) fn variable(&self, number: usize) -> Option<(&str, u64)> {
        self.0.variables.get(number).map(|(name, cost)| (&**name, *cost))
    }

    /// What is used counts against the budget, also if the evaluation fails.
    pub fn evaluate<'a, 'x: 'a>(&'a self, activation: &Activation<'x>, budget: &mut Budget) -> Evaluated<'a> {
        let mut evaluation = Evaluation::new(self, activation, budget);
        let result = evaluation.node(&self.0.root);
        let cost = evaluation.cost();
        budget.spend(cost);
        result
    }
}

/// What may still be spent.
#[derive(Debug, Clone)]
pub struct Budget {
    remaining: u64,
    per_call: u64,
}

impl Budget {
    pub fn new(total: u64) -> Self {
        Self { remaining: total, per_call: PER_CALL_LIMIT }
    }

    /// For tests: nothing is limited.
    pub fn unlimited() -> Self {
        Self { remaining: u64::MAX, per_call: u64::MAX }
    }

    #[must_use]
    pub fn with_per_call_limit(mut self, limit: u64) -> Self {
        self.per_call = limit;
        self
    }

    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    pub fn exhausted(&self) -> bool {
        self.remaining == 0
    }

    pub(crate) fn per_call(&self) -> u64 {
        self.per_call
    }

    fn spend(&mut self, cost: u64) {
        self.remaining = self.remaining.saturating_sub(cost);
    }
}

/// The variables' values.
#[derive(Default)]
pub struct Activation<'a> {
    bindings: Vec<(&'a str, Binding<'a>)>,
}

enum Binding<'a> {
    Value(Value<'a>),
    Lazy { program: &'a Program, result: RefCell<Lazy<'a>> },
}

enum Lazy<'a> {
    NotYet,
    /// It asked for itself.
    Running,
    Done(Evaluated<'a>),
}

impl<'a> Activation<'a> {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn bind(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.set(name, value);
        self
    }

    /// A later value takes an earlier one's place.
    pub fn set(&mut self, name: &'a str, value: Value<'a>) {
        self.put(name, Binding::Value(value));
    }

    /// Evaluated when it is first used, with these same variables and on the same budget.
    #[must_use]
    pub fn lazy(mut self, name: &'a str, program: &'a Program) -> Self {
        self.set_lazy(name, program);
        self
    }

    pub fn set_lazy(&mut self, name: &'a str, program: &'a Program) {
        self.put(name, Binding::Lazy { program, result: RefCell::new(Lazy::NotYet) });
    }

    fn put(&mut self, name: &'a str, binding: Binding<'a>) {
        match self.bindings.iter_mut().find(|(bound, _)| *bound == name) {
            Some((_, place)) => *place = binding,
            None => self.bindings.push((name, binding)),
        }
    }

    pub(crate) fn get(&self, name: &str, budget: &mut Budget) -> Evaluated<'a> {
        let Some((_, binding)) = self.bindings.iter().find(|(bound, _)| *bound == name) else {
            return Err(EvalError::failed(format!("no such attribute(s): {name}")));
        };
        match binding {
            Binding::Value(value) => value.usable(),
            Binding::Lazy { program, result } => {
                match &*result.borrow() {
                    Lazy::Done(result) => return result.clone(),
                    Lazy::Running => return Err(EvalError::failed(format!("variable {name} depends on itself"))),
                    Lazy::NotYet => {}
                }
                *result.borrow_mut() = Lazy::Running;
                let value = program.evaluate(self, budget);
                *result.borrow_mut() = Lazy::Done(value.clone());
                value
            }
        }
    }
}

impl Node {
    /// Does any node fit?
    pub(crate) fn any(&self, test: &mut impl FnMut(&Node) -> bool) -> bool {
        if test(self) {
            return true;
        }
        match self {
            Node::Constant(_) | Node::Variable(_) | Node::Local(_) => false,
            Node::Select { operand, .. } | Node::Has { operand, .. } | Node::OptSelect { operand, .. } | Node::Unary { operand, .. } => {
                operand.any(test)
            }
            Node::Index { operand, index, .. } => operand.any(test) || index.any(test),
            Node::And(left, right) | Node::Or(left, right) | Node::Binary { left, right, .. } => left.any(test) || right.any(test),
            Node::Conditional(parts) => parts.iter().any(|part| part.any(test)),
            Node::OptOr { target, other, .. } => target.any(test) || other.any(test),
            Node::Call { args, .. } | Node::Regex { args, .. } => args.iter().any(|arg| arg.any(test)),
            Node::List(elements) => elements.iter().any(|(element, _)| element.any(test)),
            Node::Map(entries) => entries.iter().any(|(key, value, _)| key.any(test) || value.any(test)),
            Node::Message { fields, .. } => fields.iter().any(|(_, value, _)| value.any(test)),
            Node::Fold(fold) => [Some(&fold.range), fold.predicate.as_ref(), fold.value.as_ref()].into_iter().flatten().any(|part| part.any(test)),
            Node::Bind { value, body } => value.any(test) || body.any(test),
            Node::OptMap { target, body, .. } => target.any(test) || body.any(test),
        }
    }
}
