//! What a call costs when it is made, from the sizes of what it was given and gave. Upstream: cel-go's `runtimecost.go`, the trackers of
//! its lists and sets, and Kubernetes' `CostEstimator.CallCost`.

use crate::cost::{AUTHORIZATION_CHECK, CostEstimate, LIST_CREATE, REGEX_LENGTH, STRING_TRAVERSAL, scale, selector};
use crate::value::Value;

/// The rule for a call; chosen once, when the program is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Charge {
    Fixed(u64),
    /// The first argument read, so many times.
    Traversal(f64),
    /// The result written.
    Result(f64),
    /// Everything in a list visited.
    Elements,
    Selector,
    /// A regular expression (second argument) on a string.
    Regex,
    Format,
    Contains,
    InList,
    Equality,
    AddStrings,
    ContainsIp {
        parsed: bool,
    },
    ContainsCidr {
        parsed: bool,
    },
    Sets(f64),
    ListOutput,
    Flatten,
    /// All of a list with all of it: this argument.
    SelfCompare(usize),
}

/// By function and overload; the overload is empty if several are possible.
pub fn rule(function: &str, overload: &str) -> Charge {
    match overload {
        "list_sets_contains_list" | "list_sets_intersects_list" => return Charge::Sets(1.0),
        "list_sets_equivalent_list" => return Charge::Sets(2.0),
        "list_slice" | "lists_range" | "list_reverse" => return Charge::ListOutput,
        "list_flatten" | "list_flatten_int" => return Charge::Flatten,
        "list_distinct" => return Charge::SelfCompare(0),
        _ if function == "sort" => return Charge::SelfCompare(0),
        _ if function == crate::macros::SORT_BY_KEYS => return Charge::SelfCompare(1),
        _ => {}
    }
    match function {
        "check" => Charge::Fixed(AUTHORIZATION_CHECK),
        "fieldSelector" | "labelSelector" => Charge::Selector,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Charge::Elements,
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" => Charge::Traversal(1.0),
        "replace" | "split" | "ip.isCanonical" => Charge::Traversal(2.0),
        "join" => Charge::Result(2.0),
        "find" | "findAll" => Charge::Regex,
        "ip" if overload == "cidr_ip" => Charge::Fixed(1),
        "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => Charge::Traversal(1.0),
        "containsIP" => Charge::ContainsIp { parsed: overload == "cidr_contains_ip_string" },
        "containsCIDR" => Charge::ContainsCidr { parsed: overload == "cidr_contains_cidr_string" },
        "validate" => Charge::Format,
        _ => by_overload(overload),
    }
}

fn by_overload(overload: &str) -> Charge {
    match overload {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote" | "string_format" => {
            Charge::Traversal(1.0)
        }
        "in_list" => Charge::InList,
        "equals" | "not_equals" => Charge::Equality,
        "less_string" | "greater_string" | "less_equals_string" | "greater_equals_string" => Charge::Equality,
        "less_bytes" | "greater_bytes" | "less_equals_bytes" | "greater_equals_bytes" => Charge::Equality,
        "add_string" | "add_bytes" => Charge::AddStrings,
        "matches_string" => Charge::Regex,
        "contains_string" => Charge::Contains,
        _ => Charge::Fixed(1),
    }
}

fn size(value: Option<&Value<'_>>) -> u64 {
    match value {
        Some(Value::Ip(address)) => address.size(),
        Some(Value::Cidr(cidr)) => cidr.size(),
        Some(value) => value.size().unwrap_or(1),
        None => 1,
    }
}

fn read(length: u64) -> u64 {
    scale(length, STRING_TRAVERSAL)
}

/// Beyond this nobody counts: the limit is far below.
const COUNTED_ELEMENTS: u64 = 10_000_000;

/// The whole of it, as a tree.
fn traversal(value: &Value<'_>, budget: &mut u64) -> u64 {
    if *budget == 0 {
        return 1;
    }
    *budget -= 1;
    match value {
        Value::String(text) => (text.len() as f64 * STRING_TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * STRING_TRAVERSAL) as u64,
        Value::List(list) => list.iter().map(|item| item.map_or(1, |item| traversal(&item, budget))).sum(),
        Value::Map(map) => {
            map.keys().iter().map(|key| traversal(key, budget) + map.get(key).and_then(Result::ok).map_or(0, |value| traversal(&value, budget))).sum()
        }
        Value::Object(object) => object
            .keys()
            .iter()
            .map(|key| {
                let field = object.field(key.as_str().unwrap_or_default()).and_then(Result::ok);
                traversal(key, budget) + field.map_or(0, |value| traversal(&value, budget))
            })
            .sum(),
        _ => 1,
    }
}

fn allocating(factor: f64, length: u64) -> u64 {
    ((length as f64 * factor) as u64).saturating_add(1 + LIST_CREATE)
}

impl Charge {
    /// `args` begin with the target, if there is one.
    pub fn of(self, args: &[Value<'_>], result: &Value<'_>) -> u64 {
        let first = || size(args.first());
        let second = || size(args.get(1));
        match self {
            Charge::Fixed(cost) => cost,
            Charge::Traversal(times) => scale(first(), times * STRING_TRAVERSAL),
            Charge::Result(times) => scale(size(Some(result)), times * STRING_TRAVERSAL),
            Charge::Elements => {
                let mut budget = COUNTED_ELEMENTS;
                args.first().map_or(0, |value| traversal(value, &mut budget))
            }
            Charge::Selector => selector(CostEstimate::fixed(second())).max,
            Charge::Regex => read(first().saturating_add(1)).saturating_mul(scale(second(), REGEX_LENGTH)),
            Charge::Format => match args.first() {
                Some(Value::Format(format)) => read(second().saturating_add(1)).saturating_mul(scale(format.regex_size, REGEX_LENGTH)),
                _ => 1,
            },
            Charge::Contains => read(first()).saturating_mul(read(second())),
            Charge::InList => second(),
            Charge::Equality => match args.first().and_then(Value::opaque) {
                // One, whatever it is.
                Some(_) => 1,
                None => read(first().min(second())),
            },
            Charge::AddStrings => read(first().saturating_add(second())),
            Charge::ContainsIp { parsed } => read(first() * 2) + if parsed { read(second()) } else { 0 },
            Charge::ContainsCidr { parsed } => read(first() * 2) + read(first()) + 1 + if parsed { read(second()) } else { 0 },
            Charge::Sets(factor) => ((first().saturating_mul(second()) as f64 * factor) as u64).saturating_add(1),
            Charge::ListOutput => allocating(1.0, size(Some(result))),
            Charge::Flatten => {
                let depth = args.get(1).and_then(Value::as_int).unwrap_or(1);
                allocating(depth as f64, first())
            }
            Charge::SelfCompare(which) => {
                let Some(Value::List(list)) = args.get(which) else { return 1 };
                let strings = matches!(list.get(0), Ok(Value::String(_) | Value::Bytes(_)));
                let length = list.len() as u64;
                allocating(if strings { 2.0 + STRING_TRAVERSAL } else { 2.0 }, length.saturating_mul(length))
            }
        }
    }
}
