//! How many watch a kind, by namespace: a write is the more work the more of them have to be told.
//!
//! Mirrors apiserver/pkg/util/flowcontrol/watch_tracker.go.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// By a kind's place in the store, then by namespace; the empty one stands for all.
type Counts = HashMap<Box<str>, HashMap<Box<str>, usize>>;

#[derive(Default)]
pub struct Watchers(Mutex<Counts>);

/// One who watches, while it does.
pub struct Watched {
    watchers: Arc<Watchers>,
    prefix: Box<str>,
    namespace: Box<str>,
}

impl Watchers {
    pub fn register(self: &Arc<Self>, prefix: &str, namespace: Option<&str>) -> Watched {
        let (prefix, namespace): (Box<str>, Box<str>) = (prefix.into(), namespace.unwrap_or_default().into());
        *self.0.lock().entry(prefix.clone()).or_default().entry(namespace.clone()).or_default() += 1;
        Watched { watchers: self.clone(), prefix, namespace }
    }

    /// Who is told of a write in `namespace`.
    pub fn count(&self, prefix: &str, namespace: &str) -> usize {
        let counts = self.0.lock();
        let Some(of_kind) = counts.get(prefix) else { return 0 };
        let all = of_kind.get("").copied().unwrap_or(0);
        if namespace.is_empty() { all } else { all + of_kind.get(namespace).copied().unwrap_or(0) }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut counts = self.watchers.0.lock();
        let Some(of_kind) = counts.get_mut(&self.prefix) else { return };
        if let Some(count) = of_kind.get_mut(&self.namespace) {
            *count -= 1;
            if *count == 0 {
                of_kind.remove(&self.namespace);
            }
        }
        if of_kind.is_empty() {
            counts.remove(&self.prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_all_namespaces_and_of_one() {
        let watchers = Arc::new(Watchers::default());
        let all = watchers.register("/registry/pods/", None);
        let one = watchers.register("/registry/pods/", Some("a"));
        assert_eq!((watchers.count("/registry/pods/", "a"), watchers.count("/registry/pods/", "b"), watchers.count("/registry/secrets/", "a")), (2, 1, 0));
        drop((all, one));
        assert!(watchers.0.lock().is_empty());
    }
}
