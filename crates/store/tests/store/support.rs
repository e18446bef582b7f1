//! What the tests share: objects, blocking calls, faults on order.

use std::future::Future;
use std::io;
use std::sync::Arc;

use api::Object;
use bytes::Bytes;
use parking_lot::Mutex;
use store::{CommitError, Config, Fault, Faults, Limits, Precondition, Store, Write};

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub fn object(name: &str, data: &str) -> Bytes {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"v":"{data}"}}}}"#).into()
}

/// The object as it must be served.
pub fn served(name: &str, data: &str, revision: u64) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"resourceVersion":"{revision}","name":"{name}"}},"data":{{"v":"{data}"}}}}"#)
}

pub fn put(store: &dyn Store, key: &str, data: &str) -> Result<Arc<Object>, CommitError> {
    wait(store.commit(Write { key: key.into(), precondition: Precondition::Any, object: Some(object(key, data)) }))
}

pub fn delete(store: &dyn Store, key: &str) -> Result<Arc<Object>, CommitError> {
    wait(store.commit(Write { key: key.into(), precondition: Precondition::Any, object: None }))
}

pub fn text(object: &Object) -> &str {
    std::str::from_utf8(object.bytes()).unwrap()
}

/// Small files and snapshots soon, so that a test crosses every border.
pub fn small(dir: &std::path::Path) -> Config {
    let limits = Limits { first_segment_bytes: 8 * 1024, segment_bytes: 16 * 1024, snapshot_log_bytes: 64 * 1024, ..Limits::default() };
    Config { limits, ..Config::new(dir) }
}

/// Faults that a test arms; each strikes once.
#[derive(Default)]
pub struct Armed {
    pub write: Mutex<Vec<Fault>>,
    pub sync: Mutex<u32>,
    pub new_segment: Mutex<u32>,
}

impl Faults for Armed {
    fn write(&self, _bytes: usize) -> Option<Fault> {
        self.write.lock().pop()
    }

    fn sync(&self) -> Option<io::Error> {
        strike(&self.sync)
    }

    fn new_segment(&self) -> Option<io::Error> {
        strike(&self.new_segment)
    }
}

fn strike(left: &Mutex<u32>) -> Option<io::Error> {
    let mut left = left.lock();
    (*left > 0).then(|| {
        *left -= 1;
        io::Error::from_raw_os_error(5)
    })
}
