//! Validation of a value by its schema, with kube-openapi's words and paths.
//!
//! Mirrors kube-openapi/pkg/validation/validate and apiextensions' `ValidateCustomResource`: which checks run, what they say, and that on update whatever is invalid
//! but unchanged is let pass (ratcheting, KEP-4008). Properties are gone through by name, where Go's order is random.

use serde_json::Value;

use super::{Additional, Checks, Schema, Type, formats};
use crate::schema::ListType;
use crate::validation::{Errors, Path, Shown};

/// What is wrong with `value`. `path` is where it stands: empty for a whole object, `status` for a status alone.
/// With `old`, the value it replaces: what is as it was is not held against it.
pub fn check(errors: &mut Errors, path: &str, value: &Value, old: Option<&Value>, schema: &Schema) {
    let mut faults = Vec::new();
    walk(&mut faults, "", value, old.map(|old| (old, true)), schema);
    let base = Path::Root(path);
    for fault in faults {
        fault.tell(errors, &base, path);
    }
}

enum Kind {
    Required,
    /// What it is, and what is allowed.
    Choice(Vec<String>),
    TooLong(i64),
    TooMany { actual: usize, most: i64 },
    /// The type it has, or the text that has not its format.
    Type { wanted: String, shown: Value },
    /// A message after `<name> in body `.
    Other { value: Value, text: String },
    /// One of the `anyOf` family, whose words stand alone.
    Composite(String),
}

struct Fault {
    name: String,
    kind: Kind,
    value: Value,
}

impl Fault {
    fn tell(self, errors: &mut Errors, base: &Path, root: &str) {
        let name = self.name.strip_prefix('.').unwrap_or(&self.name);
        let child = base.child(name);
        let path = match (name.is_empty(), root.is_empty()) {
            (true, false) => *base,
            _ => child,
        };
        // A field path without any element prints so.
        let nil = Path::Root("<nil>");
        let path = if name.is_empty() && root.is_empty() { nil } else { path };
        match self.kind {
            Kind::Required => errors.required(&path, ""),
            Kind::Choice(choices) => {
                let choices: Vec<&str> = choices.iter().map(String::as_str).collect();
                errors.not_supported(&path, &self.value, &choices);
            }
            Kind::TooLong(most) => errors.too_long(&path, usize::try_from(most).unwrap_or(0)),
            Kind::TooMany { actual, most } => errors.too_many(&path, actual, usize::try_from(most).unwrap_or(0)),
            Kind::Type { wanted, shown } => {
                let text = format!("{} in body must be of type {wanted}: {}", self.name, shown.shown());
                errors.type_invalid(&path, &shown, &text);
            }
            Kind::Other { value, text } => errors.invalid(&path, &value, &format!("{} in body {text}", self.name)),
            Kind::Composite(text) => {
                let path = if root.is_empty() { nil } else { *base };
                errors.invalid(&path, "", &format!("{:?} {text}", self.name));
            }
        }
    }
}

/// The old value, and whether what is equal to it passes (an object's own type is never let pass).
type Old<'a> = Option<(&'a Value, bool)>;

fn walk(faults: &mut Vec<Fault>, name: &str, value: &Value, old: Old<'_>, schema: &Schema) -> usize {
    let before = faults.len();
    let passed = node(faults, name, value, old, schema);
    if faults.len() > before && old.is_some_and(|(old, ratchets)| ratchets && old == value) {
        faults.truncate(before);
    }
    passed
}

/// How a value is called where types are told.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn whole(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn fits(value: &Value, schema: &Schema) -> bool {
    if schema.int_or_string {
        return value.is_string() || (value.is_number() && whole(value));
    }
    match schema.kind {
        None => true,
        Some(Type::Array) => value.is_array(),
        Some(Type::Boolean) => value.is_boolean(),
        Some(Type::Integer) => value.is_number() && whole(value),
        Some(Type::Number) => value.is_number(),
        Some(Type::Object) => value.is_object(),
        Some(Type::String) => value.is_string(),
    }
}

fn wanted(schema: &Schema) -> Option<&'static str> {
    if schema.int_or_string { Some("integer,string") } else { schema.kind.map(Type::as_str) }
}

/// The format, where it is one that is held against values of such a type.
fn format_of(schema: &Schema) -> &str {
    let format = schema.checks.as_ref().map_or("", |checks| &*checks.format);
    let known = match schema.kind {
        _ if schema.int_or_string => false,
        None | Some(Type::String) => formats::known(format),
        Some(Type::Integer) => matches!(format, "int32" | "int64"),
        Some(Type::Number) => matches!(format, "float" | "double"),
        Some(_) => false,
    };
    if known { format } else { "" }
}

/// How many checks went well: `anyOf` reports the alternative that came nearest.
fn node(faults: &mut Vec<Fault>, name: &str, value: &Value, old: Old<'_>, schema: &Schema) -> usize {
    let before = faults.len();
    let mut passed = 0;
    let mut step = |faults: &mut Vec<Fault>, at: usize| passed += usize::from(faults.len() == at);
    let push = |faults: &mut Vec<Fault>, kind: Kind| faults.push(Fault { name: name.to_owned(), kind, value: value.clone() });
    let format = format_of(schema);
    if let Some(wanted) = wanted(schema) {
        let at = faults.len();
        let nothing = value.is_null();
        let text_by_format = !format.is_empty() && value.is_string() && !matches!(schema.kind, Some(Type::Integer | Type::Number));
        if nothing && !schema.nullable {
            push(faults, Kind::Type { wanted: wanted.to_owned(), shown: "null".into() });
        } else if !nothing && !text_by_format && !fits(value, schema) {
            push(faults, Kind::Type { wanted: wanted.to_owned(), shown: type_of(value).into() });
        }
        step(faults, at);
    }
    if value.is_null() {
        if let Some(checks) = &schema.checks {
            choices(faults, name, value, checks);
        }
        return passed;
    }
    if let Some(checks) = &schema.checks {
        let at = faults.len();
        passed += composites(faults, name, value, old, checks);
        let mut step = |faults: &mut Vec<Fault>, at: usize| passed += usize::from(faults.len() == at);
        step(faults, at);
        let at = faults.len();
        match value {
            Value::String(text) => strings(faults, name, text, checks),
            Value::Number(_) => numbers(faults, name, value, schema, checks, format),
            _ => {}
        }
        step(faults, at);
        if let Value::String(text) = value
            && !format.is_empty()
            && !formats::holds(format, text)
        {
            push(faults, Kind::Type { wanted: format.to_owned(), shown: value.clone() });
        }
    }
    if let Value::Array(items) = value {
        list(faults, name, items, old, schema);
    }
    if let Some(checks) = &schema.checks {
        let at = faults.len();
        choices(faults, name, value, checks);
        passed += usize::from(faults.len() == at);
    }
    if let Value::Object(map) = value {
        passed += object(faults, name, map, old, schema);
    }
    passed + usize::from(faults.len() == before)
}

fn other(faults: &mut Vec<Fault>, name: &str, value: Value, text: String) {
    faults.push(Fault { name: name.to_owned(), kind: Kind::Other { value, text }, value: Value::Null });
}

fn choices(faults: &mut Vec<Fault>, name: &str, value: &Value, checks: &Checks) {
    let equal = |choice: &Value| choice == value || (choice.is_number() && value.is_number() && choice.as_f64() == value.as_f64());
    if !checks.choices.is_empty() && !checks.choices.iter().any(equal) {
        let shown = checks.choices.iter().map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned)).collect();
        faults.push(Fault { name: name.to_owned(), kind: Kind::Choice(shown), value: value.clone() });
    }
}

fn strings(faults: &mut Vec<Fault>, name: &str, text: &str, checks: &Checks) {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(most) = checks.max_length.filter(|most| length > *most) {
        faults.push(Fault { name: name.to_owned(), kind: Kind::TooLong(most), value: Value::Null });
    } else if let Some(least) = checks.min_length.filter(|least| length < *least) {
        other(faults, name, text.into(), format!("should be at least {least} chars long"));
    } else if let Some(pattern) = &checks.pattern {
        match pattern.matches(text) {
            Ok(true) => {}
            Ok(false) => other(faults, name, text.into(), format!("should match '{}'", pattern.text())),
            // What cannot be judged does not pass.
            Err(error) => other(faults, name, text.into(), format!("should match '{}, but pattern is invalid: {error}'", pattern.text())),
        }
    }
}

/// Go's `%v` of a float64, or of the integer it was compared as.
fn number_shown(bound: f64, value: &Value) -> String {
    if !value.is_f64() && bound.fract() == 0.0 && bound.abs() < 9e15 {
        return format!("{}", bound as i64);
    }
    if bound != 0.0 && (bound.abs() >= 1e21 || bound.abs() < 1e-4) {
        let text = format!("{bound:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    format!("{bound}")
}

fn numbers(faults: &mut Vec<Fault>, name: &str, value: &Value, schema: &Schema, checks: &Checks, format: &str) {
    let Some(number) = value.as_f64() else { return };
    let range = match format {
        // A number that is whole is one, however it is written.
        "int32" => number.fract() != 0.0 || !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number),
        "int64" => value.as_i64().is_none() && !(value.is_f64() && number.abs() < 9.3e18),
        "float" => number.abs() > f64::from(f32::MAX),
        _ => false,
    };
    if range {
        let kind = schema.kind.map_or("", Type::as_str);
        other(faults, name, value.clone(), format!("must be of type {kind} with format {format}"));
    }
    if let Some(factor) = checks.multiple_of.filter(|factor| *factor > 0.0) {
        let quotient = number / factor;
        if quotient.fract() != 0.0 && (quotient - quotient.round()).abs() > 1e-9 * quotient.abs().max(1.0) {
            other(faults, name, value.clone(), format!("should be a multiple of {}", number_shown(factor, value)));
        }
    }
    if let Some(least) = checks.minimum
        && (number < least || (checks.exclusive_minimum && number == least))
    {
        let words = if checks.exclusive_minimum { "should be greater than" } else { "should be greater than or equal to" };
        other(faults, name, value.clone(), format!("{words} {}", number_shown(least, value)));
    }
    if let Some(most) = checks.maximum
        && (number > most || (checks.exclusive_maximum && number == most))
    {
        let words = if checks.exclusive_maximum { "should be less than" } else { "should be less than or equal to" };
        other(faults, name, value.clone(), format!("{words} {}", number_shown(most, value)));
    }
}

/// The old item that an item of a keyed list stands for; items of other lists stand for nothing in particular.
fn old_item<'a>(item: &Value, old: Old<'a>, schema: &Schema) -> Old<'a> {
    if schema.list_type != Some(ListType::Map) {
        return None;
    }
    let (old, _) = old?;
    let found = old.as_array()?.iter().find(|other| schema.map_keys.iter().all(|key| other.get(&**key) == item.get(&**key)))?;
    Some((found, true))
}

fn list(faults: &mut Vec<Fault>, name: &str, items: &[Value], old: Old<'_>, schema: &Schema) {
    if let Some(inner) = &schema.items {
        for (at, item) in items.iter().enumerate() {
            walk(faults, &format!("{name}[{at}]"), item, old_item(item, old, schema), inner);
        }
    }
    let Some(checks) = &schema.checks else { return };
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if let Some(least) = checks.min_items.filter(|least| count < *least) {
        other(faults, name, count.into(), format!("should have at least {least} items"));
    }
    if let Some(most) = checks.max_items.filter(|most| count > *most) {
        faults.push(Fault { name: name.to_owned(), kind: Kind::TooMany { actual: items.len(), most }, value: Value::Null });
    }
    if checks.unique_items && items.iter().enumerate().any(|(at, item)| items[..at].contains(item)) {
        other(faults, name, Value::from(""), "shouldn't contain duplicates".to_owned());
    }
}

fn object(faults: &mut Vec<Fault>, name: &str, map: &serde_json::Map<String, Value>, old: Old<'_>, schema: &Schema) -> usize {
    let mut passed = 0;
    let count = i64::try_from(map.len()).unwrap_or(i64::MAX);
    if let Some(checks) = &schema.checks {
        if let Some(least) = checks.min_properties.filter(|least| count < *least) {
            other(faults, name, count.into(), format!("should have at least {least} properties"));
        }
        if let Some(most) = checks.max_properties.filter(|most| count > *most) {
            faults.push(Fault { name: name.to_owned(), kind: Kind::TooMany { actual: map.len(), most }, value: Value::Null });
        }
    }
    for (key, inner) in map {
        let typed = name.is_empty() && matches!(key.as_str(), "apiVersion" | "kind");
        let before = old.filter(|_| !typed && !schema.atomic).and_then(|(old, _)| old.get(key)).map(|old| (old, true));
        if let Some(property) = schema.property(key) {
            let path = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            passed += walk(faults, &path, inner, before, property);
        } else {
            match &schema.additional {
                Some(Additional::Schema(additional)) => passed += walk(faults, &format!("{name}.{key}"), inner, before, additional),
                Some(Additional::Allowed(false)) => {
                    other(faults, &format!("{name}.{key}"), key.as_str().into(), "is a forbidden property".to_owned());
                }
                _ => {}
            }
        }
    }
    for required in schema.checks.iter().flat_map(|checks| checks.required.iter()).filter(|required| !map.contains_key(&***required)) {
        faults.push(Fault { name: format!("{name}.{required}"), kind: Kind::Required, value: Value::Null });
    }
    passed
}

fn composites(faults: &mut Vec<Fault>, name: &str, value: &Value, old: Old<'_>, checks: &Checks) -> usize {
    let mut passed = 0;
    let composite = |text: String| Fault { name: name.to_owned(), kind: Kind::Composite(text), value: Value::Null };
    // What an alternative finds, and how well it went.
    let judge = |schema: &Schema| {
        let mut found = Vec::new();
        let passed = walk(&mut found, name, value, old.map(|(old, _)| (old, false)), schema);
        (found, passed)
    };
    let mut best: Option<(Vec<Fault>, usize)> = None;
    if !checks.any_of.is_empty() {
        let mut good = false;
        for schema in &checks.any_of {
            let (found, count) = judge(schema);
            if found.is_empty() {
                good = true;
                passed += count;
                break;
            }
            if best.as_ref().is_none_or(|(_, most)| count > *most) {
                best = Some((found, count));
            }
        }
        if !good {
            faults.push(composite("must validate at least one schema (anyOf)".to_owned()));
            faults.extend(best.take().into_iter().flat_map(|(found, _)| found));
        }
    }
    if !checks.one_of.is_empty() {
        let (mut good, mut best) = (0, None::<(Vec<Fault>, usize)>);
        for schema in &checks.one_of {
            let (found, count) = judge(schema);
            if found.is_empty() {
                good += 1;
                best = None;
            } else if good == 0 && best.as_ref().is_none_or(|(_, most)| count > *most) {
                best = Some((found, count));
            }
        }
        if good != 1 {
            let detail = if good == 0 { "Found none valid".to_owned() } else { format!("Found {good} valid alternatives") };
            faults.push(composite(format!("must validate one and only one schema (oneOf). {detail}")));
            faults.extend(best.into_iter().flat_map(|(found, _)| found));
        }
    }
    if !checks.all_of.is_empty() {
        let mut good = 0;
        for schema in &checks.all_of {
            let (found, count) = judge(schema);
            good += usize::from(found.is_empty());
            passed += count;
            faults.extend(found);
        }
        if good != checks.all_of.len() {
            let detail = if good == 0 { ". None validated" } else { "" };
            faults.push(composite(format!("must validate all the schemas (allOf){detail}")));
        }
    }
    if let Some(not) = &checks.not
        && judge(not).0.is_empty()
    {
        faults.push(composite("must not validate the schema (not)".to_owned()));
    }
    passed
}
