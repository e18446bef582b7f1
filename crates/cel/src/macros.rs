//! What the parser turns into something else: `has`, the folds over lists and maps (of one and of two variables), `optMap`, `sortBy`,
//! `cel.bind`. A name that does not fit a macro's form stays an ordinary call.

use crate::ast::{Expr, Fold, FoldKind, Kind};
use crate::parser::Parser;

/// What `sortBy` binds its list to; no expression can name it.
const SORT_INPUT: &str = "@__sortBy_input__";
pub const SORT_BY_KEYS: &str = "@sortByAssociatedKeys";
const ACCUMULATORS: [&str; 2] = ["__result__", "@result"];

pub fn global(parser: &mut Parser, offset: u32, name: String, mut args: Vec<Expr>) -> Expr {
    if name == "has" && args.len() == 1 {
        let argument = args.remove(0);
        let at = parser.offset_of(&argument);
        let Expr { kind: Kind::Select { operand, field, test: false }, .. } = argument else {
            return parser.wrong(at, "invalid argument to has() macro");
        };
        let id = parser.id(offset);
        let below = operand.height;
        return parser.make(id, below, Kind::Select { operand, field, test: true });
    }
    let id = parser.id(offset);
    parser.call(id, &name, None, args)
}

pub fn receiver(parser: &mut Parser, offset: u32, name: String, target: Expr, args: Vec<Expr>) -> Expr {
    use FoldKind::{All, Exists, ExistsOne, List, Map, MapEntry};
    let shape = match (name.as_str(), args.len()) {
        ("all", 2) => (All, 1),
        ("exists", 2) => (Exists, 1),
        ("exists_one" | "existsOne", 2) => (ExistsOne, 1),
        ("map" | "filter", 2) | ("map", 3) => (List, 1),
        ("all", 3) => (All, 2),
        ("exists", 3) => (Exists, 2),
        ("exists_one" | "existsOne", 3) => (ExistsOne, 2),
        ("transformList", 3 | 4) => (List, 2),
        ("transformMap", 3 | 4) => (Map, 2),
        ("transformMapEntry", 3 | 4) => (MapEntry, 2),
        ("optMap" | "optFlatMap", 2) => return opt_map(parser, offset, &name, target, args),
        ("sortBy", 2) => return sort_by(parser, offset, target, args),
        ("bind", 3) if parser.with_bind && matches!(&target.kind, Kind::Ident(cel) if cel == "cel") => return bind(parser, offset, args),
        _ => {
            let id = parser.id(offset);
            return parser.call(id, &name, Some(target), args);
        }
    };
    fold(parser, offset, &name, shape, target, args)
}

fn simple_name(parser: &mut Parser, expr: &Expr, complaint: &str) -> Result<String, Expr> {
    match &expr.kind {
        Kind::Ident(name) if !name.starts_with('.') => {
            if ACCUMULATORS.contains(&name.as_str()) {
                let at = parser.offset_of(expr);
                return Err(parser.wrong(at, "iteration variable overwrites accumulator variable"));
            }
            Ok(name.clone())
        }
        _ => {
            let at = parser.offset_of(expr);
            Err(parser.wrong(at, complaint))
        }
    }
}

fn fold(parser: &mut Parser, offset: u32, name: &str, (kind, variables): (FoldKind, usize), range: Expr, args: Vec<Expr>) -> Expr {
    let complaint = if variables == 1 && kind == FoldKind::List { "argument is not an identifier" } else { "argument must be a simple name" };
    let mut args = args.into_iter();
    let mut names = Vec::new();
    for argument in args.by_ref().take(variables) {
        match simple_name(parser, &argument, complaint) {
            Ok(name) if names.contains(&name) => {
                let at = parser.offset_of(&argument);
                return parser.wrong(at, format!("duplicate variable name: {name}"));
            }
            Ok(name) => names.push(name),
            Err(wrong) => return wrong,
        }
    }
    let mut names = names.into_iter();
    let Some(first) = names.next() else { return parser.wrong(offset, complaint) };
    let second = names.next();
    let (one, two) = (args.next(), args.next());
    let (predicate, value) = match kind {
        FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => (one, None),
        _ if name == "filter" => {
            let item = parser.leaf(offset, Kind::Ident(first.clone()));
            (one, Some(item))
        }
        _ if two.is_some() => (one, two),
        _ => (None, one),
    };
    let below = [Some(&range), predicate.as_ref(), value.as_ref()].into_iter().flatten().map(|child| child.height).max().unwrap_or(0);
    let id = parser.id(offset);
    parser.make(id, below, Kind::Fold(Box::new(Fold { kind, range, first, second, predicate, value })))
}

fn opt_map(parser: &mut Parser, offset: u32, name: &str, target: Expr, args: Vec<Expr>) -> Expr {
    let mut args = args.into_iter();
    let (Some(variable), Some(body)) = (args.next(), args.next()) else { return parser.wrong(offset, "invalid arguments") };
    let variable = match simple_name(parser, &variable, &format!("{name}() variable name must be a simple identifier")) {
        Ok(variable) => variable,
        Err(wrong) => return wrong,
    };
    let below = target.height.max(body.height);
    let id = parser.id(offset);
    parser.make(id, below, Kind::OptMap { target: Box::new(target), name: variable, body: Box::new(body), flat: name == "optFlatMap" })
}

fn bind(parser: &mut Parser, offset: u32, args: Vec<Expr>) -> Expr {
    let mut args = args.into_iter();
    let (Some(variable), Some(value), Some(body)) = (args.next(), args.next(), args.next()) else {
        return parser.wrong(offset, "invalid arguments");
    };
    match simple_name(parser, &variable, "cel.bind() variable names must be simple identifiers") {
        Ok(name) => bound(parser, offset, name, value, body),
        Err(wrong) => wrong,
    }
}

fn bound(parser: &mut Parser, offset: u32, name: String, value: Expr, body: Expr) -> Expr {
    let below = value.height.max(body.height);
    let id = parser.id(offset);
    parser.make(id, below, Kind::Bind { name, value: Box::new(value), body: Box::new(body) })
}

/// `list.sortBy(e, key)`: bind the list, map it to its keys, sort by these.
fn sort_by(parser: &mut Parser, offset: u32, target: Expr, args: Vec<Expr>) -> Expr {
    if !matches!(
        target.kind,
        Kind::List(_) | Kind::Select { .. } | Kind::Ident(_) | Kind::Fold(_) | Kind::Call(_) | Kind::OptMap { .. } | Kind::Bind { .. }
    ) {
        let at = parser.offset_of(&target);
        return parser.wrong(at, "sortBy can only be applied to a list, identifier, comprehension, call or select expression");
    }
    let input = parser.leaf(offset, Kind::Ident(SORT_INPUT.to_owned()));
    let keys = fold(parser, offset, "map", (FoldKind::List, 1), input, args);
    let input = parser.leaf(offset, Kind::Ident(SORT_INPUT.to_owned()));
    let id = parser.id(offset);
    let sorted = parser.call(id, SORT_BY_KEYS, Some(input), vec![keys]);
    bound(parser, offset, SORT_INPUT.to_owned(), target, sorted)
}
