//! The Common Expression Language as Kubernetes 1.36 uses it. What it cannot judge it refuses: an expression does not compile, or its
//! evaluation is an error; nothing passes by default.
//!
//! An expression goes `lexer` → `parser` (with `macros`) → `check` → `literals` → `estimate` → `plan`, and is a `Program`; then `eval`.

mod arithmetic;
mod ast;
mod charge;
mod check;
mod containers;
mod cost;
mod decl;
mod diagnosis;
mod env;
mod equality;
mod error;
mod estimate;
mod eval;
mod lexer;
mod library;
mod literals;
mod macros;
mod nodes;
mod parser;
mod plan;
mod price;
mod program;
mod time;
mod types;
mod unify;
mod value;

/// Field names that are no identifiers.
pub mod escape;
/// The declared types of what admission has at hand.
pub mod kubernetes;
/// What expressions may cost, and how large things are taken to be.
pub mod limits;

pub use containers::{Built, List, Map, Object};
pub use cost::CostEstimate;
pub use decl::DeclType;
pub use env::Env;
pub use error::{CompileErrors, EvalError, INSTANTIATION_FAILED, Issue};
pub use library::authorizer::{AuthorizationRequest, AuthorizationResult, Authorizer, ResourceAttributes, UserInfo};
pub use program::{Activation, Budget, Program};
pub use types::{Fields, ObjectField, ObjectType, Opaque, Type};
pub use value::{Key, Text, Value};
