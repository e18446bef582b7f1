//! Events that are too large lose what was sent and answered, and are marked; those that are too large even so are lost. Mirrors apiserver/plugin/pkg/audit/truncate
//! (`--audit-log-truncate-…`, `--audit-webhook-truncate-…`).

use serde_json::{Value, json};

const MARK: &str = "audit.k8s.io/truncated";
/// What a lost event is counted as.
pub const PLUGIN: &str = "truncate";
pub const TOO_LARGE: &str = "event is too large even after truncating";

/// In bytes of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    pub max_event_size: usize,
    pub max_batch_size: usize,
}

impl Truncation {
    /// The event as it fits; None: it does not.
    pub fn fit(&self, mut event: Value) -> Option<Value> {
        if size(&event) <= self.max_event_size {
            return Some(event);
        }
        if !matches!(event.get("level").and_then(Value::as_str), Some("Request" | "RequestResponse")) {
            return None;
        }
        if let Some(map) = event.as_object_mut() {
            map.remove("requestObject");
            map.remove("responseObject");
            map.entry("annotations").or_insert_with(|| json!({}))[MARK] = "true".into();
        }
        (size(&event) <= self.max_event_size).then_some(event)
    }

    /// Those that fit, in batches of which each is small enough.
    pub fn batches(&self, events: Vec<Value>) -> Vec<Vec<Value>> {
        let mut batches: Vec<Vec<Value>> = Vec::new();
        let mut used = 0;
        for event in events {
            let size = size(&event);
            match batches.last_mut().filter(|_| used + size <= self.max_batch_size) {
                Some(batch) => {
                    batch.push(event);
                    used += size;
                }
                None => {
                    batches.push(vec![event]);
                    used = size;
                }
            }
        }
        batches
    }
}

fn size(event: &Value) -> usize {
    event.to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_events_lose_their_objects() {
        let truncation = Truncation { max_event_size: 200, max_batch_size: 250 };
        let event = |level: &str, size: usize| json!({"level": level, "auditID": "i", "requestObject": {"data": "x".repeat(size)}, "responseObject": {}});
        assert_eq!(truncation.fit(event("Request", 10)), Some(event("Request", 10)));
        assert_eq!(truncation.fit(event("Request", 500)), Some(json!({"level": "Request", "auditID": "i", "annotations": {"audit.k8s.io/truncated": "true"}})));
        // What has no objects by its level is not made smaller by taking them away.
        assert_eq!(truncation.fit(json!({"level": "Metadata", "requestURI": "/".repeat(500)})), None);
        assert_eq!(truncation.fit(json!({"level": "Request", "requestURI": "/".repeat(500)})), None);
        let batches = truncation.batches(vec![event("Request", 10), event("Request", 10), event("Request", 100)]);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(truncation.batches(Vec::new()), Vec::<Vec<Value>>::new());
    }
}
