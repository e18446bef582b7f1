//! From a checked tree to the one that is evaluated: names are numbers, constants are values, regular expressions compiled, operators
//! told from functions, and each call knows how it is charged.

use std::sync::Arc;

use ::regex::Regex;

use crate::ast::{Expr, FoldKind, Kind, Literal, operator};
use crate::charge::{Charge, rule};
use crate::check::{Checked, Meaning};
use crate::containers::Map;
use crate::error::INSTANTIATION_FAILED;
use crate::library::Overload;
use crate::library::regex::compile;
use crate::parser::{Errors, Parsed};
use crate::types::Type;
use crate::value::{Entries, Key, Text, Value};

#[derive(Debug)]
pub enum Node {
    Constant(Value<'static>),
    Variable(usize),
    Local(usize),
    /// `extra` is what cel-go charges for beginning a chain of selections with something computed.
    Select {
        operand: Box<Node>,
        field: Box<str>,
        key: Text<'static>,
        extra: u64,
    },
    Has {
        operand: Box<Node>,
        field: Box<str>,
    },
    OptSelect {
        operand: Box<Node>,
        field: Box<str>,
        extra: u64,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
        optional: bool,
        extra: u64,
    },
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Conditional(Box<[Node; 3]>),
    /// `or`, `orValue`: the second only if it is needed.
    OptOr {
        target: Box<Node>,
        other: Box<Node>,
        value: bool,
    },
    Unary {
        operator: Unary,
        operand: Box<Node>,
    },
    Binary {
        operator: Binary,
        left: Box<Node>,
        right: Box<Node>,
        charge: Charge,
    },
    Call {
        overloads: Vec<&'static Overload>,
        args: Vec<Node>,
        charge: Charge,
    },
    /// `matches`, `find`, `findAll` with a pattern that is known.
    Regex {
        function: RegexFunction,
        regex: Box<Regex>,
        args: Vec<Node>,
        charge: Charge,
    },
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Message {
        name: String,
        fields: Vec<(String, Node, bool)>,
    },
    Fold(Box<FoldNode>),
    Bind {
        value: Box<Node>,
        body: Box<Node>,
    },
    OptMap {
        target: Box<Node>,
        body: Box<Node>,
        flat: bool,
    },
}

#[derive(Debug)]
pub struct FoldNode {
    pub kind: FoldKind,
    pub range: Node,
    pub two: bool,
    pub predicate: Option<Node>,
    pub value: Option<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    Not,
    Negate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegexFunction {
    Matches,
    Find,
    FindAll,
}

pub fn plan(parsed: &Parsed, checked: &Checked) -> Result<Node, Errors> {
    let mut planner = Planner { parsed, checked, errors: Errors::new() };
    let node = planner.node(&parsed.expr);
    if planner.errors.is_empty() { Ok(node) } else { Err(planner.errors) }
}

struct Planner<'p> {
    parsed: &'p Parsed,
    checked: &'p Checked,
    errors: Errors,
}

fn binary(function: &str) -> Option<Binary> {
    Some(match function {
        operator::EQUALS => Binary::Equal,
        operator::NOT_EQUALS => Binary::NotEqual,
        operator::LESS => Binary::Less,
        operator::LESS_EQUALS => Binary::LessOrEqual,
        operator::GREATER => Binary::Greater,
        operator::GREATER_EQUALS => Binary::GreaterOrEqual,
        operator::IN => Binary::In,
        operator::ADD => Binary::Add,
        operator::SUBTRACT => Binary::Subtract,
        operator::MULTIPLY => Binary::Multiply,
        operator::DIVIDE => Binary::Divide,
        operator::MODULO => Binary::Modulo,
        _ => return None,
    })
}

impl Planner<'_> {
    fn boxed(&mut self, expr: &Expr) -> Box<Node> {
        Box::new(self.node(expr))
    }

    /// What cannot happen in a checked tree is an error all the same.
    fn impossible(&mut self) -> Node {
        self.errors.push((None, "unexpected expression".to_owned()));
        Node::Constant(Value::Null)
    }

    fn node(&mut self, expr: &Expr) -> Node {
        match &self.checked.meanings[expr.id as usize] {
            Meaning::Variable(number) => return Node::Variable(*number),
            Meaning::Local(number) => return Node::Local(*number),
            Meaning::Type(ty) if matches!(&expr.kind, Kind::Select { test: true, .. }) && *ty == Type::Bool => {
                return Node::Constant(Value::Bool(true));
            }
            Meaning::Type(ty) => return Node::Constant(Value::Type(Arc::new(ty.clone()))),
            _ => {}
        }
        match &expr.kind {
            Kind::Wrong | Kind::Ident(_) => self.impossible(),
            Kind::Literal(literal) => Node::Constant(constant(literal)),
            Kind::Select { operand, field, test } => {
                let operand = self.boxed(operand);
                let (field, key): (Box<str>, _) = (field.as_str().into(), Text::Shared(field.as_str().into()));
                let extra = extra(&operand);
                if *test { Node::Has { operand, field } } else { Node::Select { operand, field, key, extra } }
            }
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => folded_list(elements.iter().map(|element| (self.node(&element.value), element.optional)).collect()),
            Kind::Map(entries) => folded_map(entries.iter().map(|entry| (self.node(&entry.key), self.node(&entry.value), entry.optional)).collect()),
            Kind::Struct { fields, .. } => {
                let Meaning::Message(object) = &self.checked.meanings[expr.id as usize] else { return self.impossible() };
                let name = object.name.clone();
                Node::Message { name, fields: fields.iter().map(|field| (field.name.clone(), self.node(&field.value), field.optional)).collect() }
            }
            Kind::Fold(fold) => Node::Fold(Box::new(FoldNode {
                kind: fold.kind,
                range: self.node(&fold.range),
                two: fold.second.is_some(),
                predicate: fold.predicate.as_ref().map(|predicate| self.node(predicate)),
                value: fold.value.as_ref().map(|value| self.node(value)),
            })),
            Kind::Bind { value, body, .. } => Node::Bind { value: self.boxed(value), body: self.boxed(body) },
            Kind::OptMap { target, body, flat, .. } => Node::OptMap { target: self.boxed(target), body: self.boxed(body), flat: *flat },
        }
    }

    fn call(&mut self, expr: &Expr, call: &crate::ast::Call) -> Node {
        if call.function == operator::OPT_SELECT {
            let [operand, Expr { kind: Kind::Literal(Literal::String(field)), .. }] = &call.args[..] else { return self.impossible() };
            let operand = self.boxed(operand);
            let extra = extra(&operand);
            return Node::OptSelect { operand, field: field.as_str().into(), extra };
        }
        let Meaning::Call { overloads, function } = &self.checked.meanings[expr.id as usize] else { return self.impossible() };
        let function = *function;
        let member = overloads.first().is_some_and(|overload| overload.member);
        let overload = match &overloads[..] {
            [only] => only.id,
            _ => "",
        };
        let target = call.target.as_ref().filter(|_| member);
        let args: Vec<&Expr> = target.into_iter().chain(&call.args).collect();
        let charge = rule(function, overload);
        match (function, &args[..]) {
            (operator::AND, [left, right]) => return Node::And(self.boxed(left), self.boxed(right)),
            (operator::OR, [left, right]) => return Node::Or(self.boxed(left), self.boxed(right)),
            (operator::CONDITIONAL, [condition, truthy, falsy]) => {
                return Node::Conditional(Box::new([self.node(condition), self.node(truthy), self.node(falsy)]));
            }
            (operator::NOT, [operand]) => return Node::Unary { operator: Unary::Not, operand: self.boxed(operand) },
            (operator::NEGATE, [operand]) => return Node::Unary { operator: Unary::Negate, operand: self.boxed(operand) },
            (operator::INDEX | operator::OPT_INDEX, [operand, index]) => {
                let optional = function == operator::OPT_INDEX;
                let (operand, index) = (self.boxed(operand), self.boxed(index));
                let extra = extra(&operand);
                return Node::Index { operand, index, optional, extra };
            }
            ("or" | "orValue", [target, other]) if member => {
                return Node::OptOr { target: self.boxed(target), other: self.boxed(other), value: function == "orValue" };
            }
            ("matches" | "find" | "findAll", [_, Expr { kind: Kind::Literal(Literal::String(pattern)), .. }, ..]) => {
                return self.regex(function, pattern, &args, charge);
            }
            (_, [left, right]) if !member => {
                if let Some(operator) = binary(function) {
                    let (left, right) = (self.boxed(left), self.boxed(right));
                    // Upstream makes a set of a constant list, and does not charge for looking into it.
                    let free = operator == Binary::In && matches!(*right, Node::Constant(Value::List(_)));
                    return Node::Binary { operator, left, right, charge: if free { Charge::Fixed(0) } else { charge } };
                }
            }
            _ => {}
        }
        let overloads = overloads.clone();
        let args: Vec<Node> = args.into_iter().map(|arg| self.node(arg)).collect();
        // `duration('1h')` is worked out once.
        if CONVERSIONS.contains(&function)
            && let ([Node::Constant(arg)], [only]) = (&args[..], &overloads[..])
        {
            match (only.body)(std::slice::from_ref(arg)) {
                Ok(value) => return Node::Constant(value),
                // It could only ever fail: upstream does not make the program.
                Err(error) => self.errors.push((None, format!("{INSTANTIATION_FAILED}{error}"))),
            }
        }
        Node::Call { overloads, args, charge }
    }

    fn regex(&mut self, function: &str, pattern: &str, args: &[&Expr], charge: Charge) -> Node {
        let function = match function {
            "matches" => RegexFunction::Matches,
            "find" => RegexFunction::Find,
            _ => RegexFunction::FindAll,
        };
        match compile(pattern) {
            Ok(regex) => {
                let args = args.iter().map(|arg| self.node(arg)).collect();
                Node::Regex { function, regex: Box::new(regex), args, charge }
            }
            Err(error) => {
                // Upstream has a validator for literals of `matches`; the others fail when the program is made.
                let literal = args.get(1).filter(|_| function == RegexFunction::Matches);
                self.errors.push(match literal {
                    Some(literal) => (self.parsed.offsets.get(literal.id as usize).copied(), "invalid matches argument".to_owned()),
                    None => (None, format!("{INSTANTIATION_FAILED}{error}")),
                });
                Node::Constant(Value::Null)
            }
        }
    }
}

impl Node {
    /// What cel-go calls an attribute: a variable, or a way into something.
    pub fn is_attribute(&self) -> bool {
        matches!(self, Node::Variable(_) | Node::Local(_) | Node::Select { .. } | Node::OptSelect { .. } | Node::Index { .. })
    }
}

fn extra(operand: &Node) -> u64 {
    u64::from(!operand.is_attribute())
}

const CONVERSIONS: &[&str] = &["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];

/// A list of constants is one.
fn folded_list(elements: Vec<(Node, bool)>) -> Node {
    if !elements.iter().all(|(node, optional)| matches!(node, Node::Constant(_)) && !optional) {
        return Node::List(elements);
    }
    let values = elements.into_iter().filter_map(|(node, _)| if let Node::Constant(value) = node { Some(value) } else { None });
    Node::Constant(Value::list(values.collect()))
}

/// So is a map, unless a key is there twice.
fn folded_map(entries: Vec<(Node, Node, bool)>) -> Node {
    let mut made = Entries::new();
    for (key, value, optional) in &entries {
        let (Node::Constant(key), Node::Constant(value), false) = (key, value, optional) else { return Node::Map(entries) };
        let Some(key) = Key::new(key) else { return Node::Map(entries) };
        if made.insert(key, value.clone()).is_some() {
            return Node::Map(entries);
        }
    }
    Node::Constant(Value::Map(Map::Owned(Arc::new(made))))
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Shared(text.as_str().into())),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}
