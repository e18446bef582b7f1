//! The price list of the estimate: what a call costs at least and at most, and how large its result may be. The counterpart of
//! `charge.rs`, with sizes that are only known as ranges. Upstream: Kubernetes' `CostEstimator.EstimateCallCost`, the estimators of
//! cel-go's lists and sets, and cel-go's `functionCost`. A change here changes which CRDs are accepted.

use crate::ast::Literal;
use crate::cost::{AUTHORIZATION_CHECK, CostEstimate, LIST_CREATE, MAX_FORMAT_REGEX_SIZE, MAX_FORMAT_SIZE, REGEX_LENGTH, STRING_TRAVERSAL, selector};
use crate::macros::SORT_BY_KEYS;
use crate::types::{Opaque, Type};

/// What is known of a target or an argument.
pub struct Node<'x> {
    pub ty: Type,
    pub size: Option<CostEstimate>,
    /// Of an element, if it is a list whose place in a schema is known.
    pub element_size: Option<CostEstimate>,
    pub literal: Option<&'x Literal>,
}

impl Node<'_> {
    fn size(&self) -> CostEstimate {
        self.size.unwrap_or(CostEstimate::UNKNOWN)
    }

    fn element(&self) -> Option<(&Type, CostEstimate)> {
        match &self.ty {
            Type::List(element) => Some((element, self.element_size.unwrap_or(CostEstimate::UNKNOWN))),
            // The first parameter, whatever it is of.
            Type::Map(key, _) => Some((key, self.element_size.unwrap_or(CostEstimate::UNKNOWN))),
            _ => None,
        }
    }
}

pub struct Priced {
    pub cost: CostEstimate,
    pub size: Option<CostEstimate>,
}

const ONE: CostEstimate = CostEstimate::fixed(1);

fn priced(cost: CostEstimate) -> Option<Priced> {
    Some(Priced { cost, size: None })
}

fn with_size(cost: CostEstimate, size: CostEstimate) -> Option<Priced> {
    Some(Priced { cost, size: Some(size) })
}

fn read(size: CostEstimate) -> CostEstimate {
    size.factor(STRING_TRAVERSAL)
}

pub fn price(function: &str, overload: &str, target: Option<&Node>, args: &[Node]) -> Priced {
    extended(overload, target, args)
        .or_else(|| kubernetes(function, overload, target, args))
        .or_else(|| standard(overload, target, args))
        .unwrap_or(Priced { cost: ONE, size: None })
}

/// cel-go's lists (version 3) and sets.
fn extended(overload: &str, target: Option<&Node>, args: &[Node]) -> Option<Priced> {
    let allocating = |factor: f64, size: CostEstimate| with_size(size.factor(factor).plus(CostEstimate::fixed(1 + LIST_CREATE)), size);
    let literal = |node: &Node, otherwise: u64| match node.literal {
        Some(Literal::Int(value)) => u64::try_from(*value).unwrap_or(0),
        _ => otherwise,
    };
    let sort = |sorted: &Node, overload: &str| {
        let strings = overload.starts_with("list_string_") || overload.starts_with("list_bytes_");
        let factor = if strings { 2.0 + STRING_TRAVERSAL } else { 2.0 };
        allocating(factor, sorted.size().times(sorted.size()))
    };
    match (overload, target, args) {
        ("list_sets_contains_list" | "list_sets_intersects_list", _, [one, other]) => priced(one.size().times(other.size()).plus(ONE)),
        ("list_sets_equivalent_list", _, [one, other]) => priced(one.size().times(other.size()).factor(2.0).plus(ONE)),
        ("list_slice", Some(list), [start, end]) => {
            let (start, end) = (literal(start, 0), literal(end, list.size().max));
            // Upstream subtracts without looking; a range that is no range is at least not cheap.
            allocating(1.0, CostEstimate::fixed(end.checked_sub(start).unwrap_or(u64::MAX)))
        }
        ("lists_range", None, [count]) => allocating(1.0, CostEstimate::fixed(literal(count, u64::MAX))),
        ("list_reverse", Some(list), []) => allocating(1.0, list.size()),
        ("list_flatten", Some(list), []) => allocating(1.0, list.size()),
        ("list_flatten_int", Some(list), [depth]) => allocating(literal(depth, u64::MAX) as f64, list.size()),
        ("list_distinct", Some(list), []) => allocating(2.0, list.size().times(list.size())),
        (sorting, Some(list), []) if sorting.ends_with("_sort") => sort(list, sorting),
        (sorting, Some(_), [keys]) if sorting.ends_with(&SORT_BY_KEYS[1..]) => sort(keys, sorting),
        _ => None,
    }
}

fn kubernetes(function: &str, overload: &str, target: Option<&Node>, args: &[Node]) -> Option<Priced> {
    match (function, target, args) {
        ("check", ..) => priced(CostEstimate::fixed(AUTHORIZATION_CHECK)),
        ("fieldSelector" | "labelSelector", _, [text]) => priced(selector(text.size())),
        ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => match target.element() {
            Some((ty, size)) => {
                let strings = matches!(ty, Type::String | Type::Bytes);
                let each = if strings { ONE.plus(read(size)) } else { ONE };
                priced(target.size().times(each))
            }
            None => priced(read(target.size())),
        },
        ("url" | "jsonpatch.escapeKey", _, [text]) => with_size(read(text.size()), text.size()),
        ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(target), _) => with_size(read(target.size()), target.size()),
        ("replace", Some(target), [old, new, ..]) => {
            with_size(target.size().factor(2.0 * STRING_TRAVERSAL), replaced(target.size(), old.size(), new.size()))
        }
        ("split", Some(target), _) => {
            let max = match args.get(1).and_then(|limit| limit.literal) {
                Some(Literal::Int(limit)) => *limit as u64,
                _ => target.size().max,
            };
            with_size(target.size().factor(2.0 * STRING_TRAVERSAL), CostEstimate { min: 0, max })
        }
        ("join", Some(target), _) => {
            let list = target.size();
            let mut size = target.element().map_or(CostEstimate::ZERO, |(_, element)| list.times(element));
            if let Some(separator) = args.first() {
                let separators = CostEstimate { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
                size = size.plus(separator.size().times(separators));
            }
            with_size(read(size), size)
        }
        ("find" | "findAll", Some(target), [pattern, ..]) => {
            let cost = read(target.size().plus(ONE)).times(pattern.size().factor(REGEX_LENGTH));
            with_size(cost, CostEstimate { min: 0, max: target.size().max })
        }
        ("ip", ..) if overload == "cidr_ip" => priced(ONE),
        ("cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver", _, [text, ..]) => priced(read(text.size())),
        ("ip.isCanonical", _, [text]) => priced(text.size().factor(2.0 * STRING_TRAVERSAL)),
        ("containsIP", _, [other]) => {
            let cost = read(ADDRESS_SIZE.plus(ADDRESS_SIZE));
            let parsing = if overload == "cidr_contains_ip_string" { read(other.size()) } else { CostEstimate::ZERO };
            priced(cost.plus(parsing))
        }
        ("containsCIDR", _, [other]) => {
            let cost = read(ADDRESS_SIZE.plus(ADDRESS_SIZE)).plus(read(ADDRESS_SIZE)).plus(ONE);
            let parsing = if overload == "cidr_contains_cidr_string" { read(other.size()) } else { CostEstimate::ZERO };
            priced(cost.plus(parsing))
        }
        ("validate", _, [text]) => priced(read(text.size()).factor(MAX_FORMAT_REGEX_SIZE * REGEX_LENGTH)),
        ("_==_", _, [one, other]) if one.ty == other.ty => match &one.ty {
            Type::Opaque(Opaque::Format) => priced(read(CostEstimate { min: 1, max: MAX_FORMAT_SIZE })),
            Type::Opaque(Opaque::Url) => priced(read(CostEstimate { min: 1, max: other.size.map_or(1, |size| size.max) })),
            Type::Opaque(_) => priced(ONE),
            _ => None,
        },
        _ => None,
    }
}

/// An address has four bytes or sixteen.
const ADDRESS_SIZE: CostEstimate = CostEstimate { min: 4, max: 16 };

/// How long a string can be after `replace`.
fn replaced(text: CostEstimate, old: CostEstimate, new: CostEstimate) -> CostEstimate {
    let (mut count, mut kept) = (CostEstimate::ZERO, CostEstimate::ZERO);
    if old.min == 0 {
        // Nothing is replaced between all characters.
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if new.max <= old.min {
        kept.max = text.max;
    } else {
        count.max = text.max.div_ceil(old.min);
    }
    if old.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if old.max <= new.min {
        kept.min = text.min;
    } else {
        count.min = text.min.div_ceil(old.max);
    }
    count.times(new).plus(kept)
}

fn standard(overload: &str, target: Option<&Node>, args: &[Node]) -> Option<Priced> {
    match (overload, target, args) {
        ("string_format", Some(target), _) => priced(read(target.size())),
        ("string_to_bytes", _, [text]) => {
            let size = text.size();
            with_size(read(size), CostEstimate { min: size.min, max: size.max.saturating_mul(4) })
        }
        ("bytes_to_string", _, [bytes]) => with_size(read(bytes.size()), CostEstimate { min: bytes.size().min / 4, max: bytes.size().max }),
        ("strings_quote", _, [text]) => {
            let size = text.size();
            let quoted = CostEstimate { min: size.min.saturating_add(2), max: size.max.saturating_mul(2).saturating_add(2) };
            with_size(read(size), quoted)
        }
        ("starts_with_string" | "ends_with_string", _, [part]) => priced(read(part.size())),
        ("in_list", _, [_, list]) => priced(list.size()),
        ("matches_string", Some(target), [pattern]) => priced(read(target.size().plus(ONE)).times(pattern.size().factor(REGEX_LENGTH))),
        ("contains_string", Some(target), [part]) => priced(read(target.size()).times(read(part.size()))),
        ("add_list", _, [left, right]) => with_size(ONE, left.size().plus(right.size())),
        ("add_string" | "add_bytes", _, [left, right]) => {
            let size = left.size().plus(right.size());
            with_size(read(size), size)
        }
        (
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes"
            | "equals"
            | "not_equals",
            _,
            [left, right],
        ) => {
            let max = left.size().max.min(right.size().max);
            priced(read(CostEstimate { min: max.min(1), max }))
        }
        _ => None,
    }
}
