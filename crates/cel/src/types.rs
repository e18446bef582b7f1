//! What the checker knows of an expression. Printing follows cel-go: `Display` as its `Type.String()`, `describe` as in error texts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::decl::DeclType;
use crate::escape::is_keyword;

#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// Of an expression that is already reported as wrong.
    Error,
    /// Known at run time only.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    Object(Arc<ObjectType>),
    Opaque(Opaque),
    /// The type of a type; of which, if known.
    Type(Option<Arc<Type>>),
    /// A variable: of an overload's signature, or of the checker.
    Param(u32),
}

/// Types with functions and no fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opaque {
    Quantity,
    Url,
    Ip,
    Cidr,
    Semver,
    Format,
    Authorizer,
    PathCheck,
    GroupCheck,
    ResourceCheck,
    Decision,
}

impl Opaque {
    pub const ALL: [Opaque; 11] = [
        Opaque::Quantity,
        Opaque::Url,
        Opaque::Ip,
        Opaque::Cidr,
        Opaque::Semver,
        Opaque::Format,
        Opaque::Authorizer,
        Opaque::PathCheck,
        Opaque::GroupCheck,
        Opaque::ResourceCheck,
        Opaque::Decision,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Opaque::Quantity => "kubernetes.Quantity",
            Opaque::Url => "kubernetes.URL",
            Opaque::Ip => "net.IP",
            Opaque::Cidr => "net.CIDR",
            Opaque::Semver => "kubernetes.Semver",
            Opaque::Format => "kubernetes.NamedFormat",
            Opaque::Authorizer => "kubernetes.authorization.Authorizer",
            Opaque::PathCheck => "kubernetes.authorization.PathCheck",
            Opaque::GroupCheck => "kubernetes.authorization.GroupCheck",
            Opaque::ResourceCheck => "kubernetes.authorization.ResourceCheck",
            Opaque::Decision => "kubernetes.authorization.Decision",
        }
    }
}

/// A type with named fields.
#[derive(Debug)]
pub struct ObjectType {
    pub name: String,
    pub fields: Fields,
}

#[derive(Debug)]
pub enum Fields {
    /// By the name CEL sees (escaped).
    Declared(BTreeMap<String, ObjectField>),
    /// `Object`, `Object.spec` …: any field, of any type.
    Open,
}

#[derive(Debug, Clone)]
pub struct ObjectField {
    /// The name in JSON.
    pub json_name: String,
    pub decl: DeclType,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        if std::ptr::eq(self, other) {
            return true;
        }
        self.name == other.name
            && match (&self.fields, &other.fields) {
                (Fields::Open, Fields::Open) => true,
                (Fields::Declared(ours), Fields::Declared(theirs)) => {
                    ours.len() == theirs.len()
                        && ours.iter().zip(theirs).all(|((name, ours), (other, theirs))| name == other && ours.decl.ty() == theirs.decl.ty())
                }
                _ => false,
            }
    }
}

/// `JSONPatch{op: …, path: …}`.
pub const JSON_PATCH: &str = "JSONPatch";
/// `Object{spec: Object.spec{…}}`.
pub const OBJECT: &str = "Object";

impl ObjectType {
    /// By the name an expression uses: `namespace` finds `__namespace__` too.
    pub fn field(&self, name: &str) -> Option<&ObjectField> {
        let Fields::Declared(fields) = &self.fields else { return None };
        fields.get(name).or_else(|| if is_keyword(name) { fields.get(&format!("__{name}__")) } else { None })
    }

    pub fn open(name: &str) -> Self {
        Self { name: name.to_owned(), fields: Fields::Open }
    }

    pub fn json_patch() -> Self {
        let string = ["op", "path", "from"].into_iter().map(|name| (name, DeclType::string()));
        let fields = string.chain([("value", DeclType::dyn_())]);
        let fields = fields.map(|(name, decl)| (name.to_owned(), ObjectField { json_name: name.to_owned(), decl })).collect();
        Self { name: JSON_PATCH.to_owned(), fields: Fields::Declared(fields) }
    }
}

impl Type {
    pub const QUANTITY: Type = Type::Opaque(Opaque::Quantity);
    pub const URL: Type = Type::Opaque(Opaque::Url);
    pub const IP: Type = Type::Opaque(Opaque::Ip);
    pub const CIDR: Type = Type::Opaque(Opaque::Cidr);
    pub const SEMVER: Type = Type::Opaque(Opaque::Semver);
    pub const FORMAT: Type = Type::Opaque(Opaque::Format);
    pub const AUTHORIZER: Type = Type::Opaque(Opaque::Authorizer);
    pub const PATH_CHECK: Type = Type::Opaque(Opaque::PathCheck);
    pub const GROUP_CHECK: Type = Type::Opaque(Opaque::GroupCheck);
    pub const RESOURCE_CHECK: Type = Type::Opaque(Opaque::ResourceCheck);
    pub const DECISION: Type = Type::Opaque(Opaque::Decision);

    pub fn list(element: Type) -> Type {
        Type::List(Arc::new(element))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    pub fn optional(inner: Type) -> Type {
        Type::Optional(Arc::new(inner))
    }

    pub fn json_patch() -> Type {
        Type::Object(Arc::new(ObjectType::json_patch()))
    }

    pub fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// Same size whatever the value: what a comparison of it costs is one.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
            Type::Optional(inner) => inner.is_scalar(),
            _ => false,
        }
    }

    /// The name without parameters: what `type(x)` compares.
    pub fn runtime_name(&self) -> &str {
        match self {
            Type::Error => "error",
            Type::Dyn => "dyn",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Duration => "google.protobuf.Duration",
            Type::List(_) => "list",
            Type::Map(..) => "map",
            Type::Optional(_) => "optional_type",
            Type::Object(object) => &object.name,
            Type::Opaque(opaque) => opaque.name(),
            Type::Type(_) => "type",
            Type::Param(_) => "dyn",
        }
    }

    fn parameters(&self) -> Vec<&Type> {
        match self {
            Type::List(inner) | Type::Optional(inner) | Type::Type(Some(inner)) => vec![inner],
            Type::Map(key, value) => vec![key, value],
            _ => Vec::new(),
        }
    }

    /// As in error texts.
    pub fn describe(&self) -> String {
        match self {
            Type::Error => "!error!".to_owned(),
            Type::Null => "null".to_owned(),
            Type::Timestamp => "timestamp".to_owned(),
            Type::Duration => "duration".to_owned(),
            Type::Param(number) => format!("_var{number}"),
            _ => {
                let parameters: Vec<String> = self.parameters().into_iter().map(Type::describe).collect();
                if parameters.is_empty() { self.runtime_name().to_owned() } else { format!("{}({})", self.runtime_name(), parameters.join(", ")) }
            }
        }
    }

    /// The type that a bare type name stands for, e.g. `int` in `type(x) == int`.
    pub(crate) fn named(name: &str) -> Option<Type> {
        Some(match name {
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "null_type" => Type::Null,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "type" => Type::Type(None),
            "optional_type" => Type::optional(Type::Dyn),
            "google.protobuf.Timestamp" => Type::Timestamp,
            "google.protobuf.Duration" => Type::Duration,
            // Of the libraries' types only those of addresses have names that can be written.
            _ if !name.starts_with("net.") => return None,
            _ => return Opaque::ALL.into_iter().find(|opaque| opaque.name() == name).map(Type::Opaque),
        })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.runtime_name())?;
        let parameters = self.parameters();
        for (index, parameter) in parameters.iter().enumerate() {
            write!(f, "{}{parameter}", if index == 0 { "(" } else { ", " })?;
        }
        f.write_str(if parameters.is_empty() { "" } else { ")" })
    }
}
