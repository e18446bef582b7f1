//! Values that must not lie open: sealed on their way to where they outlive the process, unsealed on their way back.
//!
//! Who knows keys and which values they are for is the server ([`Transform`]); an engine calls [`Sealing`] at its edge: before a value goes into a log, a snapshot or to another
//! machine, and after it comes back. In memory values are as clients see them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// What upstream's API server puts before every value it has sealed.
const SEALED: &[u8] = b"k8s:enc:";

/// Why a value can be neither sealed nor unsealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransformError(pub String);

/// A value as it was before it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsealed {
    /// `None`: the stored bytes are the value.
    pub plain: Option<Bytes>,
    /// It would be stored otherwise today.
    pub stale: bool,
}

impl Unsealed {
    pub fn as_it_is(stale: bool) -> Self {
        Self { plain: None, stale }
    }
}

pub trait Transform: Send + Sync {
    /// What is to be stored at `key`; `None`: the value as it is.
    fn seal(&self, key: &str, plain: &[u8]) -> Result<Option<Bytes>, TransformError>;
    fn unseal(&self, key: &str, stored: &[u8]) -> Result<Unsealed, TransformError>;
}

#[derive(Clone, Default)]
pub struct Sealing(Option<Arc<dyn Transform>>);

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealing").field(&self.0.is_some()).finish()
    }
}

impl Sealing {
    pub fn with(transform: Arc<dyn Transform>) -> Self {
        Self(Some(transform))
    }

    pub fn seal<'a>(&self, key: &str, plain: &'a [u8]) -> Result<Cow<'a, [u8]>, TransformError> {
        let Some(transform) = &self.0 else { return Ok(Cow::Borrowed(plain)) };
        Ok(transform.seal(key, plain)?.map_or(Cow::Borrowed(plain), |sealed| Cow::Owned(sealed.into())))
    }

    /// The value, and whether it would be stored otherwise today.
    pub fn unseal<'a>(&self, key: &str, stored: &'a [u8]) -> Result<(Cow<'a, [u8]>, bool), TransformError> {
        let Some(transform) = &self.0 else {
            return if stored.starts_with(SEALED) { Err(TransformError("identity transformer tried to read encrypted data".into())) } else { Ok((Cow::Borrowed(stored), false)) };
        };
        let Unsealed { plain, stale } = transform.unseal(key, stored)?;
        Ok((plain.map_or(Cow::Borrowed(stored), |plain| Cow::Owned(plain.into())), stale))
    }
}
