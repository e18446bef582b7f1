//! One row of the resource table: everything the machinery knows of a kind (decision 1 of the design).
//!
//! Built-in kinds are rows of a static table; a CustomResourceDefinition adds a row at run time. Routes, discovery, OpenAPI, RBAC verbs and
//! `kubectl` columns are derived from rows and from nothing else.

use std::borrow::Cow;
use std::sync::Arc;

use crate::custom::Custom;

type Text = Cow<'static, str>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    Cluster,
    Namespaced,
}

/// A verb as discovery and RBAC spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

/// `pods/log`: a second resource below an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    pub name: Text,
    /// Group, version and kind of what goes in and out, when not the parent's (`autoscaling/v1 Scale`, `policy/v1 Eviction`).
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    pub verbs: Cow<'static, [Verb]>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: Text,
    pub version: Text,
    /// `pods`.
    pub plural: Text,
    /// `pod`.
    pub singular: Text,
    /// `Pod`.
    pub kind: Text,
    pub list_kind: Text,
    pub short_names: Cow<'static, [Text]>,
    pub categories: Cow<'static, [Text]>,
    pub scope: Scope,
    pub verbs: Cow<'static, [Verb]>,
    pub subresources: Cow<'static, [Subresource]>,
    /// The name of its type in the schema facts: `io.k8s.api.core.v1.Pod`. Empty for a CRD.
    pub schema: Text,
    /// Where its objects lie in the store, as in Kubernetes' etcd layout: `/registry/pods/`. Several versions of a kind share it.
    pub prefix: Text,
    /// The version objects of this kind are stored in; differs from `version` for older or newer forms of the same kind.
    pub storage_version: Text,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Cow<'static, [Text]>,
    /// What the definition says of a custom kind; None for a built-in one.
    pub custom: Option<Arc<Custom>>,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// `deployments.apps`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether a deletion is answered with the object that is gone, as upstream's registries of some kinds have it (`ReturnDeletedObject`); others are with a bare success.
    pub fn shows_deleted(&self) -> bool {
        match &*self.group {
            "" => matches!(&*self.plural, "pods" | "services" | "serviceaccounts" | "persistentvolumeclaims" | "persistentvolumes" | "podtemplates" | "resourcequotas"),
            "resource.k8s.io" => matches!(&*self.plural, "deviceclasses" | "resourceclaims" | "resourceclaimtemplates" | "resourceslices"),
            "storage.k8s.io" => matches!(&*self.plural, "csidrivers" | "csinodes" | "storageclasses" | "volumeattachments" | "volumeattributesclasses"),
            _ => false,
        }
    }

    /// `/registry/pods/default/web`.
    pub fn key(&self, namespace: Option<&str>, name: &str) -> String {
        let mut key = String::with_capacity(self.prefix.len() + name.len() + 24);
        key.push_str(&self.prefix);
        if let (Scope::Namespaced, Some(namespace)) = (self.scope, namespace) {
            key.push_str(namespace);
            key.push('/');
        }
        key.push_str(name);
        key
    }

    /// The prefix of one namespace's objects, or of all.
    pub fn key_prefix(&self, namespace: Option<&str>) -> String {
        match (self.scope, namespace) {
            (Scope::Namespaced, Some(namespace)) => format!("{}{namespace}/", self.prefix),
            _ => self.prefix.to_string(),
        }
    }
}
