//! What the schema facts say of a field that a patch touches.

use api::schema::{Field, FieldType, TypeInfo};

use crate::PatchError;

/// Where in the schema a document stands.
#[derive(Clone, Copy)]
pub(super) enum Meta {
    Struct(&'static TypeInfo),
    /// Keys are data; all values are of one type.
    Map(&'static FieldType),
    /// No facts: objects merge, lists are replaced.
    Unknown,
}

/// How a field is patched.
#[derive(Default)]
pub(super) struct Strategy {
    pub merge: bool,
    pub retain_keys: bool,
    /// Not used by any built-in type, but part of the format.
    pub replace: bool,
    merge_key: Option<&'static str>,
}

impl Strategy {
    pub fn key(&self) -> Option<&'static str> {
        self.merge_key
    }

    fn of(field: &Field) -> Self {
        let strategy = field.patch_strategy;
        Self { merge: strategy.merge, retain_keys: strategy.retain_keys, replace: strategy.replace, merge_key: field.patch_merge_key }
    }
}

impl Meta {
    pub fn of(schema: Option<&'static TypeInfo>) -> Self {
        schema.map_or(Meta::Unknown, Meta::Struct)
    }

    fn at(ty: Option<&'static FieldType>) -> Self {
        match ty {
            Some(FieldType::Type(reference)) => Meta::Struct(reference.info()),
            Some(FieldType::Map(value)) => Meta::Map(value),
            _ => Meta::Unknown,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Meta::Struct(ty) => ty.short_name(),
            _ => "",
        }
    }

    fn field(self, key: &str) -> Result<Option<&'static Field>, PatchError> {
        match self {
            Meta::Struct(ty) => match ty.field(key) {
                Some(field) => Ok(Some(field)),
                None => Err(PatchError::UnknownField { kind: ty.short_name().to_owned(), field: key.to_owned() }),
            },
            _ => Ok(None),
        }
    }

    /// The facts of an object below `key`.
    pub fn object(self, key: &str) -> Result<(Meta, Strategy), PatchError> {
        if let Meta::Map(value) = self {
            return Ok((Meta::at(Some(value)), Strategy::default()));
        }
        Ok(self.field(key)?.map_or((Meta::Unknown, Strategy::default()), |field| (Meta::at(Some(&field.ty)), Strategy::of(field))))
    }

    /// The facts of the items of a list below `key`.
    pub fn list(self, key: &str) -> Result<(Meta, Strategy), PatchError> {
        Ok(self.field(key)?.map_or((Meta::Unknown, Strategy::default()), |field| (Meta::at(field.ty.item()), Strategy::of(field))))
    }
}
