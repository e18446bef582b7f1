//! `+ - * / %` and the signs, with an error wherever a result would not fit.

use crate::error::EvalError;
use crate::library::strings::{MADE_STRING_LIMIT, too_long};
use crate::plan::Binary;
use crate::time;
use crate::value::{Evaluated, Text, Value};

fn int<'a>(result: Option<i64>) -> Evaluated<'a> {
    result.map(Value::Int).ok_or_else(|| EvalError::failed("integer overflow"))
}

fn uint<'a>(result: Option<u64>) -> Evaluated<'a> {
    result.map(Value::Uint).ok_or_else(|| EvalError::failed("unsigned integer overflow"))
}

fn duration<'a>(result: Option<i64>) -> Evaluated<'a> {
    result.map(Value::Duration).ok_or_else(|| EvalError::failed("duration overflow"))
}

pub fn plus<'a>(left: &Value<'a>, right: &Value<'a>) -> Evaluated<'a> {
    use Value as V;
    match (left, right) {
        (V::Int(left), V::Int(right)) => int(left.checked_add(*right)),
        (V::Uint(left), V::Uint(right)) => uint(left.checked_add(*right)),
        (V::Double(left), V::Double(right)) => Ok(V::Double(left + right)),
        (V::String(left), V::String(right)) => {
            if left.len() + right.len() > MADE_STRING_LIMIT {
                return too_long();
            }
            let mut text = String::with_capacity(left.len() + right.len());
            text.push_str(left);
            text.push_str(right);
            Ok(V::String(Text::Shared(text.into())))
        }
        (V::Bytes(left), V::Bytes(right)) if left.len() + right.len() > MADE_STRING_LIMIT => too_long(),
        (V::Bytes(left), V::Bytes(right)) => Ok(V::Bytes([&**left, &**right].concat().into())),
        (V::List(left), V::List(right)) => left.plus(right),
        (V::Duration(left), V::Duration(right)) => duration(left.checked_add(*right)),
        (V::Timestamp(timestamp), V::Duration(duration)) | (V::Duration(duration), V::Timestamp(timestamp)) => {
            time::add(*timestamp, *duration).map(V::Timestamp)
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

pub fn minus<'a>(left: &Value<'a>, right: &Value<'a>) -> Evaluated<'a> {
    use Value as V;
    match (left, right) {
        (V::Int(left), V::Int(right)) => int(left.checked_sub(*right)),
        (V::Uint(left), V::Uint(right)) => uint(left.checked_sub(*right)),
        (V::Double(left), V::Double(right)) => Ok(V::Double(left - right)),
        (V::Duration(left), V::Duration(right)) => duration(left.checked_sub(*right)),
        (V::Timestamp(left), V::Duration(right)) => {
            let back = right.checked_neg().ok_or_else(|| EvalError::failed("timestamp overflow"))?;
            time::add(*left, back).map(V::Timestamp)
        }
        (V::Timestamp(left), V::Timestamp(right)) => time::difference(*left, *right).map(V::Duration),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub fn product<'a>(operator: Binary, left: &Value<'a>, right: &Value<'a>) -> Evaluated<'a> {
    use Value as V;
    let zero = matches!(right, V::Int(0) | V::Uint(0));
    match (operator, left, right) {
        (Binary::Divide, V::Int(_), V::Int(_)) | (Binary::Divide, V::Uint(_), V::Uint(_)) if zero => Err(EvalError::failed("division by zero")),
        (Binary::Modulo, V::Int(_), V::Int(_)) | (Binary::Modulo, V::Uint(_), V::Uint(_)) if zero => Err(EvalError::failed("modulus by zero")),
        (Binary::Multiply, V::Int(left), V::Int(right)) => int(left.checked_mul(*right)),
        (Binary::Multiply, V::Uint(left), V::Uint(right)) => uint(left.checked_mul(*right)),
        (Binary::Multiply, V::Double(left), V::Double(right)) => Ok(V::Double(left * right)),
        (Binary::Divide, V::Int(left), V::Int(right)) => int(left.checked_div(*right)),
        (Binary::Divide, V::Uint(left), V::Uint(right)) => uint(left.checked_div(*right)),
        (Binary::Divide, V::Double(left), V::Double(right)) => Ok(V::Double(left / right)),
        (Binary::Modulo, V::Int(left), V::Int(right)) => int(left.checked_rem(*right)),
        (Binary::Modulo, V::Uint(left), V::Uint(right)) => uint(left.checked_rem(*right)),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub fn negated<'a>(value: &Value<'a>) -> Evaluated<'a> {
    match value {
        Value::Int(value) => int(value.checked_neg()),
        Value::Double(value) => Ok(Value::Double(-value)),
        _ => Err(EvalError::no_such_overload()),
    }
}
