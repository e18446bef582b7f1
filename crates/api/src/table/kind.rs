//! The short form of a row, with everything that nearly all kinds share left out.

use std::borrow::Cow;

use crate::resource::{Resource, Scope, Subresource, Verb};

use Verb::{Create, Delete, DeleteCollection, Get, List, Patch, Update, Watch};

/// What a stored kind can do, in the order discovery lists verbs.
const ALL: &[Verb] = &[Create, Delete, DeleteCollection, Get, List, Patch, Update, Watch];
const NO_COLLECTION_DELETE: &[Verb] = &[Create, Delete, Get, List, Patch, Update, Watch];
const READ: &[Verb] = &[Get, List];
const CREATE: &[Verb] = &[Create];
const CONNECT: &[Verb] = &[Create, Get];
const PROXY: &[Verb] = &[Create, Delete, Get, Patch, Update];
const CHANGE: &[Verb] = &[Get, Patch, Update];
const GET: &[Verb] = &[Get];
const UPDATE: &[Verb] = &[Update];

/// One group version.
pub(super) struct Group {
    /// Empty for the core group.
    pub name: &'static str,
    pub version: &'static str,
    /// The version objects lie in the store in.
    pub storage: &'static str,
    /// What its types' names begin with: `io.k8s.api.apps.v1`.
    pub package: &'static str,
    /// In front of the plural in the store's keys; only kinds of the two extension servers have one.
    pub folder: &'static str,
    pub kinds: &'static [Kind],
}

impl Group {
    pub const fn new(name: &'static str, version: &'static str, package: &'static str, kinds: &'static [Kind]) -> Self {
        Self { name, version, storage: version, package, folder: "", kinds }
    }

    pub const fn folder(mut self, folder: &'static str) -> Self {
        self.folder = folder;
        self
    }

    pub const fn stored_as(mut self, version: &'static str) -> Self {
        self.storage = version;
        self
    }
}

/// One kind of a group version.
pub(super) struct Kind {
    kind: &'static str,
    plural: &'static str,
    scope: Scope,
    short: &'static [&'static str],
    category: &'static str,
    verbs: &'static [Verb],
    subresources: &'static [&'static str],
    prefix: &'static str,
    selectable: &'static [&'static str],
}

pub(super) const fn namespaced(kind: &'static str, plural: &'static str) -> Kind {
    Kind { kind, plural, scope: Scope::Namespaced, short: &[], category: "", verbs: ALL, subresources: &[], prefix: "", selectable: &[] }
}

pub(super) const fn cluster(kind: &'static str, plural: &'static str) -> Kind {
    let mut row = namespaced(kind, plural);
    row.scope = Scope::Cluster;
    row
}

impl Kind {
    pub const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short = names;
        self
    }

    /// Part of `kubectl get all`.
    pub const fn in_all(mut self) -> Self {
        self.category = "all";
        self
    }

    /// Part of `kubectl get api-extensions`.
    pub const fn in_extensions(mut self) -> Self {
        self.category = "api-extensions";
        self
    }

    /// Sorted by name, as discovery lists them.
    pub const fn subresources(mut self, names: &'static [&'static str]) -> Self {
        self.subresources = names;
        self
    }

    pub const fn status(self) -> Self {
        self.subresources(&["status"])
    }

    /// Where it lies in the store when that is not its plural.
    pub const fn at(mut self, prefix: &'static str) -> Self {
        self.prefix = prefix;
        self
    }

    pub const fn selectable(mut self, fields: &'static [&'static str]) -> Self {
        self.selectable = fields;
        self
    }

    /// A question that is answered and not stored: reviews, bindings.
    pub const fn create_only(mut self) -> Self {
        self.verbs = CREATE;
        self
    }

    pub const fn read_only(mut self) -> Self {
        self.verbs = READ;
        self
    }

    pub const fn no_collection_delete(mut self) -> Self {
        self.verbs = NO_COLLECTION_DELETE;
        self
    }

    pub fn unfold(&self, group: &Group) -> Resource {
        let place = if self.prefix.is_empty() { self.plural } else { self.prefix };
        Resource {
            group: group.name.into(),
            version: group.version.into(),
            plural: self.plural.into(),
            singular: self.kind.to_ascii_lowercase().into(),
            kind: self.kind.into(),
            list_kind: format!("{}List", self.kind).into(),
            short_names: texts(self.short),
            categories: if self.category.is_empty() { Cow::Borrowed(&[]) } else { vec![self.category.into()].into() },
            scope: self.scope,
            verbs: self.verbs.into(),
            subresources: self.subresources.iter().map(|name| self.subresource(group, name)).collect(),
            schema: format!("{}.{}", group.package, self.kind).into(),
            prefix: format!("/registry/{}{place}/", group.folder).into(),
            storage_version: group.storage.into(),
            selectable_fields: texts(self.selectable),
            custom: None,
        }
    }

    fn subresource(&self, group: &Group, name: &'static str) -> Subresource {
        let own = (group.name, group.version, self.kind);
        let ((group, version, kind), verbs) = match (name, self.kind) {
            ("scale", _) => (("autoscaling", "v1", "Scale"), CHANGE),
            ("eviction", _) => (("policy", "v1", "Eviction"), CREATE),
            ("token", _) => (("authentication.k8s.io", "v1", "TokenRequest"), CREATE),
            ("binding", _) => (("", "v1", "Binding"), CREATE),
            ("attach", _) => (("", "v1", "PodAttachOptions"), CONNECT),
            ("exec", _) => (("", "v1", "PodExecOptions"), CONNECT),
            ("portforward", _) => (("", "v1", "PodPortForwardOptions"), CONNECT),
            ("proxy", "Node") => (("", "v1", "NodeProxyOptions"), PROXY),
            ("proxy", "Service") => (("", "v1", "ServiceProxyOptions"), PROXY),
            ("proxy", _) => (("", "v1", "PodProxyOptions"), PROXY),
            ("log", _) => (own, GET),
            ("finalize", _) => (own, UPDATE),
            _ => (own, CHANGE),
        };
        Subresource { name: name.into(), group: group.into(), version: version.into(), kind: kind.into(), verbs: verbs.into() }
    }
}

fn texts(names: &'static [&'static str]) -> Cow<'static, [Cow<'static, str>]> {
    names.iter().map(|name| Cow::Borrowed(*name)).collect()
}
