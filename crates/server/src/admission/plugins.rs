//! Which built-in plugins are asked: upstream's defaults, and what `--enable-admission-plugins` and `--disable-admission-plugins` say.

use std::collections::BTreeSet;

/// In upstream's order; true: asked unless told otherwise.
const KNOWN: [(&str, bool); 28] = [
    ("NamespaceLifecycle", true),
    ("LimitRanger", true),
    ("ServiceAccount", true),
    ("NodeRestriction", true),
    ("TaintNodesByCondition", true),
    ("AlwaysPullImages", false),
    ("PodSecurity", true),
    ("Priority", true),
    ("DefaultTolerationSeconds", true),
    ("DefaultStorageClass", true),
    ("StorageObjectInUseProtection", true),
    ("OwnerReferencesPermissionEnforcement", false),
    ("PersistentVolumeClaimResize", true),
    ("RuntimeClass", true),
    ("CertificateApproval", true),
    ("CertificateSigning", true),
    ("ClusterTrustBundleAttest", true),
    ("CertificateSubjectRestriction", true),
    ("DefaultIngressClass", true),
    ("DenyServiceExternalIPs", false),
    ("PodTopologyLabels", true),
    ("NodeDeclaredFeatureValidator", true),
    ("MutatingAdmissionPolicy", true),
    ("MutatingAdmissionWebhook", true),
    ("ValidatingAdmissionPolicy", true),
    ("ValidatingAdmissionWebhook", true),
    ("ResourceQuota", true),
    ("AlwaysAdmit", false),
];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PluginsError {
    #[error("{0} plugin {1:?} is unknown")]
    Unknown(&'static str, String),
    #[error("{0:?} in enable-admission-plugins and disable-admission-plugins overlapped")]
    Both(Vec<String>),
}

/// The plugins that are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugins(BTreeSet<&'static str>);

impl Default for Plugins {
    fn default() -> Self {
        Self(KNOWN.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect())
    }
}

impl Plugins {
    pub fn new(enabled: &[String], disabled: &[String]) -> Result<Self, PluginsError> {
        let both: Vec<String> = enabled.iter().filter(|name| disabled.contains(name)).cloned().collect();
        if !both.is_empty() {
            return Err(PluginsError::Both(both));
        }
        let find = |name: &String, flag| KNOWN.iter().map(|(known, _)| *known).find(|known| known == name).ok_or_else(|| PluginsError::Unknown(flag, name.clone()));
        let mut plugins = Self::default();
        for name in enabled {
            plugins.0.insert(find(name, "enable-admission-plugins")?);
        }
        for name in disabled {
            plugins.0.remove(find(name, "disable-admission-plugins")?);
        }
        Ok(plugins)
    }

    pub fn on(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let plugins = Plugins::new(&names(&["AlwaysPullImages"]), &names(&["LimitRanger"])).unwrap();
        assert!(plugins.on("AlwaysPullImages") && plugins.on("ServiceAccount") && !plugins.on("LimitRanger") && !plugins.on("DenyServiceExternalIPs"));
        assert_eq!(Plugins::new(&names(&["Nothing"]), &[]).unwrap_err().to_string(), "enable-admission-plugins plugin \"Nothing\" is unknown");
        assert!(Plugins::new(&names(&["LimitRanger"]), &names(&["LimitRanger"])).is_err());
    }
}
