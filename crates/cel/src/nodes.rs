//! How the parser makes nodes of the tree: each with its place in the text, none of them too high.

use crate::ast::{Call, Expr, Id, Kind};
use crate::parser::{Parser, RECURSION_LIMIT};

impl Parser<'_> {
    pub(crate) fn id(&mut self, offset: u32) -> Id {
        self.offsets.push(offset);
        (self.offsets.len() - 1) as Id
    }

    /// A node over children; a tree that grows too high becomes an error.
    pub(crate) fn make(&mut self, id: Id, below: u16, kind: Kind) -> Expr {
        if below >= RECURSION_LIMIT {
            // One remark is enough.
            if !self.errors.iter().any(|(offset, _)| offset.is_none()) {
                self.errors.push((None, "max recursion depth exceeded".to_owned()));
            }
            return Expr { id, height: 1, kind: Kind::Wrong };
        }
        Expr { id, height: below + 1, kind }
    }

    pub(crate) fn leaf(&mut self, offset: u32, kind: Kind) -> Expr {
        let id = self.id(offset);
        Expr { id, height: 1, kind }
    }

    pub(crate) fn wrong(&mut self, offset: u32, message: impl Into<String>) -> Expr {
        self.errors.push((Some(offset), message.into()));
        self.leaf(offset, Kind::Wrong)
    }

    pub(crate) fn offset_of(&self, expr: &Expr) -> u32 {
        self.offsets.get(expr.id as usize).copied().unwrap_or(0)
    }

    pub(crate) fn call(&mut self, id: Id, function: &str, target: Option<Expr>, args: Vec<Expr>) -> Expr {
        let below = args.iter().chain(target.iter()).map(|child| child.height).max().unwrap_or(0);
        self.make(id, below, Kind::Call(Box::new(Call { function: function.to_owned(), target, args })))
    }
}
