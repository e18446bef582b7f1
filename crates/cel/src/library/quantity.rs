//! Kubernetes' quantities.

use std::cmp::Ordering;
use std::sync::Arc;

use api::quantity::{Format, Quantity};

use super::{Row, mismatch};
use crate::error::EvalError;
use crate::value::{Evaluated, Value};

pub const TABLE: &[Row] = &[
    ("quantity", "string_to_quantity", "(string) -> quantity", |args| match args {
        [Value::String(text)] => parse(text),
        _ => mismatch(),
    }),
    ("isQuantity", "is_quantity_string", "(string) -> bool", |args| match args {
        [Value::String(text)] => Ok(Value::Bool(Quantity::parse(text).is_ok())),
        _ => mismatch(),
    }),
    ("sign", "quantity_sign", "(quantity) -> int", |args| one(args, |quantity| Ok(Value::Int(quantity.sign().into())))),
    ("asApproximateFloat", "quantity_get_float", "quantity.() -> double", |args| one(args, |quantity| Ok(Value::Double(quantity.as_f64())))),
    ("asInteger", "quantity_get_int", "quantity.() -> int", |args| {
        one(args, |quantity| integer(quantity).map(Value::Int).ok_or_else(|| EvalError::failed("cannot convert value to integer")))
    }),
    ("isInteger", "quantity_is_integer", "quantity.() -> bool", |args| one(args, |quantity| Ok(Value::Bool(integer(quantity).is_some())))),
    ("isGreaterThan", "quantity_is_greater_than", "quantity.(quantity) -> bool", |args| two(args, |order| Value::Bool(order == Ordering::Greater))),
    ("isLessThan", "quantity_is_less_than", "quantity.(quantity) -> bool", |args| two(args, |order| Value::Bool(order == Ordering::Less))),
    ("compareTo", "quantity_compare_to", "quantity.(quantity) -> int", |args| two(args, |order| Value::Int(order as i64))),
    ("add", "quantity_add", "quantity.(quantity) -> quantity", |args| change(args, Quantity::plus)),
    ("add", "quantity_add_int", "quantity.(int) -> quantity", |args| change(args, Quantity::plus)),
    ("sub", "quantity_sub", "quantity.(quantity) -> quantity", |args| change(args, Quantity::minus)),
    ("sub", "quantity_sub_int", "quantity.(int) -> quantity", |args| change(args, Quantity::minus)),
];

fn parse<'a>(text: &str) -> Evaluated<'a> {
    Quantity::parse(text).map(|quantity| Value::Quantity(Arc::new(quantity))).map_err(|error| EvalError::failed(error.to_string()))
}

fn one<'a>(args: &[Value<'a>], read: fn(&Quantity) -> Evaluated<'static>) -> Evaluated<'a> {
    match args {
        [Value::Quantity(quantity)] => read(quantity),
        _ => mismatch(),
    }
}

/// A whole number of 64 bits.
fn integer(quantity: &Quantity) -> Option<i64> {
    if !quantity.is_integer() {
        return None;
    }
    // `value` saturates: at the ends it must be told from what lies beyond.
    let value = quantity.value();
    (Quantity::new(value, Format::DecimalSi).cmp(quantity) == Ordering::Equal).then_some(value)
}

fn two<'a>(args: &[Value<'a>], read: fn(Ordering) -> Value<'static>) -> Evaluated<'a> {
    match args {
        [Value::Quantity(one), Value::Quantity(other)] => Ok(read((**one).cmp(other))),
        _ => mismatch(),
    }
}

fn change<'a>(args: &[Value<'a>], change: fn(&Quantity, &Quantity) -> Quantity) -> Evaluated<'a> {
    let changed = match args {
        [Value::Quantity(one), Value::Quantity(other)] => change(one, other),
        [Value::Quantity(one), Value::Int(other)] => change(one, &Quantity::new(*other, Format::DecimalSi)),
        _ => return mismatch(),
    };
    Ok(Value::Quantity(Arc::new(changed)))
}
