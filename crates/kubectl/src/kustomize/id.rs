//! What a resource is called while it is built: its kind, its name, its namespace.
//!
//! Mirrors kyaml/resid. An empty namespace means `default`; kinds known to have none never have one.

use serde::Deserialize;

/// In the place of a namespace, for kinds that have none.
pub const NO_NAMESPACE: &str = "_non_namespaceable_";

/// A kind, or what a selector wants of one: empty fields match anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Gvk {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// `or` where the text is empty.
fn filled<'a>(text: &'a str, or: &'a str) -> &'a str {
    if text.is_empty() { or } else { text }
}

impl Gvk {
    pub fn of(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    pub fn selected(&self, by: &Gvk) -> bool {
        let fits = |mine: &str, wanted: &str| wanted.is_empty() || mine == wanted;
        fits(&self.group, &by.group) && fits(&self.version, &by.version) && fits(&self.kind, &by.kind)
    }

    pub fn cluster_scoped(&self) -> bool {
        api::table::table().find_kind(&self.group, &self.version, &self.kind).is_some_and(|row| !row.namespaced())
    }

    /// By which resources are ordered: `~G_v1_Pod`.
    pub fn order(&self) -> String {
        format!("{}_{}_{}", filled(&self.group, "~G"), filled(&self.version, "~V"), filled(&self.kind, "~K"))
    }
}

impl std::fmt::Display for Gvk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", filled(&self.kind, "[noKind]"), filled(&self.version, "[noVer]"), filled(&self.group, "[noGrp]"))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Id {
    pub gvk: Gvk,
    pub name: String,
    pub namespace: String,
}

impl Id {
    pub fn cluster_scoped(&self) -> bool {
        self.namespace == NO_NAMESPACE || self.gvk.cluster_scoped()
    }

    pub fn effective_namespace(&self) -> &str {
        if self.cluster_scoped() { NO_NAMESPACE } else { filled(&self.namespace, "default") }
    }

    pub fn same_namespace(&self, other: &Id) -> bool {
        self.effective_namespace() == other.effective_namespace()
    }

    /// Are they the same resource?
    pub fn same(&self, other: &Id) -> bool {
        self.name == other.name && self.gvk == other.gvk && self.same_namespace(other)
    }

    /// Within one kind: `Pod.v1.[noGrp]|default|web`.
    pub fn order(&self) -> String {
        format!("{}|{}|{}", self.gvk, filled(&self.namespace, "~X"), filled(&self.name, "~N"))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}.{}", self.gvk, filled(&self.name, "[noName]"), filled(&self.namespace, "[noNs]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces() {
        let id = |api_version: &str, kind: &str, namespace: &str| Id { gvk: Gvk::of(api_version, kind), name: "x".into(), namespace: namespace.into() };
        for (a, b, same) in [
            (id("v1", "Pod", ""), id("v1", "Pod", "default"), true),
            (id("v1", "Pod", "a"), id("v1", "Pod", "default"), false),
            (id("v1", "Node", "a"), id("v1", "Node", "b"), true),
            (id("apps/v1", "Deployment", ""), id("apps/v1", "StatefulSet", ""), false),
            (id("example.com/v1", "Unknown", "a"), id("example.com/v1", "Unknown", "b"), false),
        ] {
            assert_eq!(a.same(&b), same, "{a} {b}");
        }
        assert_eq!(id("apps/v1", "Deployment", "").to_string(), "Deployment.v1.apps/x.[noNs]");
    }
}
