//! An environment: the variables there are, and the extensions that are on. Kubernetes 1.36's base: optionals, cross-type comparison,
//! homogeneous literals, every library; `cel.bind` and the patch types only where upstream has them.

use std::sync::Arc;

use crate::check::check;
use crate::cost::SELECT_AND_IDENT;
use crate::decl::DeclType;
use crate::error::CompileErrors;
use crate::estimate::estimate;
use crate::literals;
use crate::parser::parse;
use crate::plan::plan;
use crate::program::Program;

#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: Vec<(Arc<str>, DeclType)>,
    /// Names of which only members are declared.
    sets: Vec<String>,
    patches: bool,
    bind: bool,
}

/// Type names with dots; variables add theirs.
const QUALIFIED_ROOTS: [&str; 2] = ["google", "net"];

impl Env {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn variable(mut self, name: &str, decl: DeclType) -> Self {
        self.add_variable(name, decl);
        self
    }

    /// Replaces what was declared by this name.
    pub fn add_variable(&mut self, name: &str, decl: DeclType) {
        match self.find(name) {
            Some(number) => self.variables[number].1 = decl,
            None => self.variables.push((name.into(), decl)),
        }
    }

    /// `variables`: of `variables.x` each is a variable of its own, and one that is not declared is an undefined field.
    pub fn declare_set(&mut self, name: &str) {
        self.sets.push(name.to_owned());
    }

    /// MutatingAdmissionPolicy's: `Object{…}`, `JSONPatch{…}`, `jsonpatch.escapeKey`.
    #[must_use]
    pub fn with_patch_types(mut self) -> Self {
        self.patches = true;
        self
    }

    /// `cel.bind`: upstream has it for DRA only.
    #[must_use]
    pub fn with_bind(mut self) -> Self {
        self.bind = true;
        self
    }

    pub fn compile(&self, expression: &str) -> Result<Program, CompileErrors> {
        let wrong = |errors| CompileErrors::new(expression, errors);
        let parsed = parse(expression, self.bind).map_err(wrong)?;
        let checked = check(self, &parsed).map_err(wrong)?;
        literals::validate(&parsed, &checked.types).map_err(wrong)?;
        let cost = estimate(self, &parsed.expr, &checked);
        let root = plan(&parsed, &checked).map_err(wrong)?;
        let variables = self.variables.iter().map(|(name, _)| (name.clone(), self.read_cost(name))).collect();
        Ok(Program::new(root, checked.types[parsed.expr.id as usize].clone(), cost, variables))
    }

    pub(crate) fn variables(&self) -> &[(Arc<str>, DeclType)] {
        &self.variables
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.variables.iter().position(|(variable, _)| **variable == *name)
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.sets.iter().any(|set| set == name)
    }

    /// Could a name with dots begin with this?
    pub(crate) fn has_qualified(&self, root: &str) -> bool {
        QUALIFIED_ROOTS.contains(&root)
            || self.is_set(root)
            || self.variables.iter().any(|(variable, _)| variable.strip_prefix(root).is_some_and(|rest| rest.starts_with('.')))
    }

    /// What reading a variable costs: a member of a set is a selection from it.
    pub(crate) fn read_cost(&self, name: &str) -> u64 {
        let member = name.split_once('.').is_some_and(|(set, _)| self.is_set(set));
        if member { 2 * SELECT_AND_IDENT } else { SELECT_AND_IDENT }
    }

    /// Is this DRA's?
    pub(crate) fn has_bind(&self) -> bool {
        self.bind
    }

    pub(crate) fn has_patches(&self) -> bool {
        self.patches
    }
}
