//! The build cache: step key → what the step made. One small file per key; a record whose layer was swept is a miss.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::files::write_atomically;
use crate::oci::Descriptor;
use crate::store::{Store, StoreError, io_error};

#[derive(Serialize, Deserialize, Clone)]
pub struct Record {
    pub created: String,
    pub layer: Option<Descriptor>,
}

pub struct Cache<'a> {
    store: &'a Store,
}

impl<'a> Cache<'a> {
    pub fn new(store: &'a Store) -> Cache<'a> {
        Cache { store }
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.store.dir().join("build-cache").join(key.hex())
    }

    pub fn get(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let path = self.path(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error(&path)(e)),
        };
        let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { return Ok(None) };
        if let Some(layer) = &record.layer {
            if !self.store.has_blob(&layer.digest) {
                return Ok(None);
            }
            self.store.unpack_layer(&layer.digest, &layer.digest)?;
        }
        Ok(Some(record))
    }

    pub fn put(&self, key: &Digest, record: &Record) -> Result<(), StoreError> {
        let path = self.path(key);
        let bytes = serde_json::to_vec(record).map_err(|e| io_error(&path)(e.into()))?;
        write_atomically(&path, self.store.temporary(), &bytes).map_err(io_error(&path))
    }
}
