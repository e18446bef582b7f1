//! The thin shell: which lists a kind wants beside the object, and the text of all.

use api::Status;
use api::kinds::json::{child, entry, list, text};
use futures_util::future::BoxFuture;
use jiff::Zoned;
use serde_json::Value;

use super::{Related, text as describe};

/// All items of a list, however many pages it takes.
pub trait Fetch {
    fn list<'a>(&'a self, path: &'a str, query: &'a [(String, String)]) -> BoxFuture<'a, Result<Vec<Value>, Status>>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Pods,
    Events,
    ReplicaSets,
    EndpointSlices,
    Services,
    Leases,
    ResourceQuotas,
    LimitRanges,
}

/// What happens to the description if the list cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Must,
    /// Must, unless the user is forbidden to see it.
    MayBeForbidden,
    May,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    pub slot: Slot,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub need: Need,
}

impl Query {
    fn new(slot: Slot, need: Need, path: String) -> Self {
        Self { slot, path, query: Vec::new(), need }
    }

    fn with(mut self, name: &str, value: String) -> Self {
        self.query.push((name.to_owned(), value));
        self
    }
}

const LABELS: &str = "labelSelector";
const FIELDS: &str = "fieldSelector";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The lists that belong to an object.
pub fn wanted(group: &str, kind: &str, object: &Value, show_events: bool) -> Vec<Query> {
    let (namespace, name) = (text(object, "metadata.namespace"), text(object, "metadata.name"));
    let core = |resource: &str| format!("/api/v1/namespaces/{namespace}/{resource}");
    let slices = |need| Query::new(Slot::EndpointSlices, need, format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"));
    let selector = || super::writer::selector(object, "spec.selector");
    let mut queries = match (group, kind) {
        ("", "ReplicationController") => {
            let labels = super::writer::format_labels(object, "spec.selector");
            vec![Query::new(Slot::Pods, Need::Must, core("pods")).with(LABELS, labels)]
        }
        ("apps", "ReplicaSet" | "DaemonSet" | "StatefulSet") => vec![Query::new(Slot::Pods, Need::Must, core("pods")).with(LABELS, selector())],
        ("apps", "Deployment") => vec![Query::new(Slot::ReplicaSets, Need::May, format!("/apis/apps/v1/namespaces/{namespace}/replicasets")).with(LABELS, selector())],
        ("", "PersistentVolumeClaim") => vec![Query::new(Slot::Pods, Need::Must, core("pods"))],
        ("", "Service") => vec![slices(Need::May).with(LABELS, format!("kubernetes.io/service-name={name}"))],
        ("networking.k8s.io", "Ingress") if !backends(object).is_empty() => {
            vec![Query::new(Slot::Services, Need::May, core("services")), slices(Need::May).with(LABELS, format!("kubernetes.io/service-name in ({})", backends(object).join(",")))]
        }
        ("", "Namespace") => [(Slot::ResourceQuotas, "resourcequotas"), (Slot::LimitRanges, "limitranges")]
            .map(|(slot, resource)| Query::new(slot, Need::Must, format!("/api/v1/namespaces/{name}/{resource}")))
            .into(),
        ("", "Node") => vec![
            Query::new(Slot::Pods, Need::MayBeForbidden, "/api/v1/pods".to_owned()).with(FIELDS, format!("spec.nodeName={name},status.phase!=Succeeded,status.phase!=Failed")),
            Query::new(Slot::Leases, Need::May, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases".to_owned()).with(FIELDS, format!("metadata.name={name}")),
        ],
        _ => Vec::new(),
    };
    if show_events && has_events(group, kind) {
        let path = if namespace.is_empty() { "/api/v1/events".to_owned() } else { core("events") };
        let mut identities = vec![entry(object, "metadata.annotations", MIRROR).filter(|_| kind == "Pod" && group.is_empty()).unwrap_or_else(|| text(object, "metadata.uid"))];
        // A node's agent names it by its name.
        if (group, kind) == ("", "Node") {
            identities.push(name);
        }
        for identity in identities {
            let mut fields = vec![format!("involvedObject.name={name}"), format!("involvedObject.namespace={namespace}")];
            if (group, kind) != ("", "Pod") {
                fields.push(format!("involvedObject.kind={}", child(object, "kind").and_then(Value::as_str).unwrap_or(kind)));
            }
            if !identity.is_empty() {
                fields.push(format!("involvedObject.uid={identity}"));
            }
            queries.push(Query::new(Slot::Events, Need::May, path.clone()).with(FIELDS, fields.join(",")));
        }
    }
    queries
}

fn has_events(group: &str, kind: &str) -> bool {
    !matches!(
        (group, kind),
        ("", "Secret" | "LimitRange" | "ResourceQuota" | "Namespace") | ("networking.k8s.io", "NetworkPolicy") | ("rbac.authorization.k8s.io", "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding")
    )
}

fn backends(ingress: &Value) -> Vec<&str> {
    let paths = list(ingress, "spec.rules").iter().flat_map(|rule| list(rule, "http.paths")).map(|path| text(path, "backend.service.name"));
    let mut names: Vec<&str> = std::iter::once(text(ingress, "spec.defaultBackend.service.name")).chain(paths).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The description of an object, with all that belongs to it.
pub async fn command(fetch: &dyn Fetch, group: &str, kind: &str, object: &Value, show_events: bool, now: &Zoned) -> Result<String, Status> {
    let mut related = Related { pods: Some(Vec::new()), ..Related::default() };
    for query in wanted(group, kind, object, show_events) {
        let items = match (fetch.list(&query.path, &query.query).await, query.need) {
            (Ok(items), _) => items,
            (Err(status), Need::MayBeForbidden) if status.reason == api::Reason::Forbidden => {
                related.pods = None;
                continue;
            }
            (Err(status), Need::Must | Need::MayBeForbidden) => return Err(status),
            (Err(_), Need::May) => Vec::new(),
        };
        match query.slot {
            Slot::Pods => related.pods = Some(items),
            Slot::Events => related.events.get_or_insert_default().extend(items),
            Slot::ReplicaSets => related.replica_sets = items,
            Slot::EndpointSlices => related.endpoint_slices = items,
            Slot::Services => related.services = items,
            Slot::Leases => related.leases = items,
            Slot::ResourceQuotas => related.resource_quotas = items,
            Slot::LimitRanges => related.limit_ranges = items,
        }
    }
    Ok(describe(group, kind, object, &related, now))
}
