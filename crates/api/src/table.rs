//! Every built-in kind that Kubernetes 1.36 serves by default, one row each (decision 1 of the design).
//!
//! Mirrors upstream's `api/discovery/*.json` and `pkg/controlplane/instance.go`: stable versions only, beta and alpha ones are off by default.
//! Groups stand in the order of upstream's `apiVersionPriorities`, which is what discovery shows and what clients resolve short names by;
//! the first version of a group is its preferred one. Storage prefixes are those of upstream's etcd layout.
//!
//! Rows are written in short form (`Kind`) in `table/*.rs` and unfolded into [`Resource`] on first use.

mod core;
mod groups;
mod kind;

use std::sync::LazyLock;

use crate::resource::Resource;
use kind::Group;

/// The static rows with their look-ups.
pub struct Table {
    rows: Vec<Resource>,
}

impl Table {
    fn build() -> Self {
        let groups: [&[Group]; 2] = [core::GROUPS, groups::GROUPS];
        let rows = groups.into_iter().flatten().flat_map(|group| group.kinds.iter().map(|kind| kind.unfold(group))).collect();
        Self { rows }
    }

    /// All rows: groups in priority order, versions of a group preferred first, kinds by plural name.
    pub fn rows(&self) -> &[Resource] {
        &self.rows
    }

    /// `group` is empty for the core group.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.rows.iter().find(|row| row.plural == plural && row.version == version && row.group == group)
    }

    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Resource> {
        self.rows.iter().find(|row| row.kind == kind && row.version == version && row.group == group)
    }

    /// Group names in priority order, the core group (empty) first.
    pub fn groups(&self) -> Vec<&str> {
        let mut seen: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !seen.contains(&&*row.group) {
                seen.push(&row.group);
            }
        }
        seen
    }

    /// The version of a group that clients are told to use.
    pub fn preferred_version(&self, group: &str) -> Option<&str> {
        self.rows.iter().find(|row| row.group == group).map(|row| &*row.version)
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::build);

/// The one table of built-in kinds.
pub fn table() -> &'static Table {
    &TABLE
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::resource::{Scope, Verb};

    #[test]
    fn finds_by_plural_and_kind() {
        let pods = table().find("", "v1", "pods").unwrap();
        assert_eq!(pods.kind, "Pod");
        assert_eq!(pods.list_kind, "PodList");
        assert_eq!(pods.scope, Scope::Namespaced);
        assert_eq!(pods.key(Some("default"), "web"), "/registry/pods/default/web");
        assert_eq!(table().find_kind("apps", "v1", "Deployment").unwrap().plural, "deployments");
        assert!(table().find("apps", "v1beta1", "deployments").is_none());
    }

    #[test]
    fn storage_follows_the_etcd_layout() {
        for (group, plural, prefix) in [
            ("", "services", "/registry/services/specs/"),
            ("", "endpoints", "/registry/services/endpoints/"),
            ("", "nodes", "/registry/minions/"),
            ("", "replicationcontrollers", "/registry/controllers/"),
            ("", "events", "/registry/events/"),
            ("events.k8s.io", "events", "/registry/events/"),
            ("networking.k8s.io", "ingresses", "/registry/ingress/"),
            ("apps", "deployments", "/registry/deployments/"),
            ("coordination.k8s.io", "leases", "/registry/leases/"),
            ("rbac.authorization.k8s.io", "clusterroles", "/registry/clusterroles/"),
            ("apiextensions.k8s.io", "customresourcedefinitions", "/registry/apiextensions.k8s.io/customresourcedefinitions/"),
            ("apiregistration.k8s.io", "apiservices", "/registry/apiregistration.k8s.io/apiservices/"),
        ] {
            assert_eq!(table().find(group, "v1", plural).unwrap().prefix, prefix);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut plurals = HashSet::new();
        let mut short = HashSet::new();
        for row in table().rows() {
            assert!(plurals.insert((&row.group, &row.version, &row.plural)), "{}", row.plural);
            if table().preferred_version(&row.group) == Some(&row.version) && !(row.group == "events.k8s.io") {
                for name in row.short_names.iter() {
                    assert!(short.insert(name), "{name}");
                }
            }
        }
    }

    #[test]
    fn every_kind_of_the_library_is_a_row() {
        // Types which `k8s-openapi` knows as stable top-level resources, counted by group: guards against a forgotten kind.
        let count = |group: &str| table().rows().iter().filter(|row| row.group == group).count();
        for (group, wanted) in [("", 17), ("apps", 5), ("batch", 2), ("autoscaling", 2), ("resource.k8s.io", 4), ("storage.k8s.io", 6), ("networking.k8s.io", 5)] {
            assert_eq!(count(group), wanted, "{group}");
        }
        assert_eq!(table().groups().len(), 21);
        assert_eq!(table().preferred_version("autoscaling"), Some("v2"));
    }

    #[test]
    fn subresources_name_their_own_kind() {
        let scale = table().find("apps", "v1", "deployments").unwrap().subresource("scale").unwrap();
        assert_eq!((&*scale.group, &*scale.version, &*scale.kind), ("autoscaling", "v1", "Scale"));
        let status = table().find("apps", "v1", "deployments").unwrap().subresource("status").unwrap();
        assert_eq!((&*status.group, &*status.version, &*status.kind), ("apps", "v1", "Deployment"));
        let binding = table().find("", "v1", "pods").unwrap().subresource("binding").unwrap();
        assert_eq!((&*binding.kind, &*binding.verbs), ("Binding", &[Verb::Create][..]));
        assert!(!table().find("", "v1", "namespaces").unwrap().allows(Verb::DeleteCollection));
    }
}
