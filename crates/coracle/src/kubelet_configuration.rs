//! What the agent takes from a KubeletConfiguration (`kubelet.config.k8s.io/v1beta1`), by the file that kubeadm writes. What it does not know it passes over.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeletConfiguration {
    pub cluster_dns: Option<IpAddr>,
    /// The folder of static pods; none: there are none.
    pub static_pod_path: Option<PathBuf>,
    pub max_pods: Option<u32>,
}

impl KubeletConfiguration {
    /// A file that is not there says nothing.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::from("{}"),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let value: Value = serde_saphyr::from_str(&text).with_context(|| format!("{} is no KubeletConfiguration", path.display()))?;
        Ok(Self::of(&value))
    }

    fn of(value: &Value) -> Self {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
        Self {
            cluster_dns: text("/clusterDNS/0").and_then(|text| text.parse().ok()),
            static_pod_path: text("/staticPodPath").map(Into::into),
            max_pods: value["maxPods"].as_u64().and_then(|pods| u32::try_from(pods).ok()).filter(|pods| *pods > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_taken() {
        let all = KubeletConfiguration::of(&json!({"clusterDNS": ["10.96.0.10"], "staticPodPath": "/etc/kubernetes/manifests", "maxPods": 30, "other": 1}));
        assert_eq!(all, KubeletConfiguration { cluster_dns: Some(IpAddr::from([10, 96, 0, 10])), static_pod_path: Some("/etc/kubernetes/manifests".into()), max_pods: Some(30) });
        assert_eq!(KubeletConfiguration::of(&json!({"clusterDNS": ["x"], "staticPodPath": "", "maxPods": -1})), KubeletConfiguration::default());
        assert_eq!(KubeletConfiguration::load(Path::new("/nonexistent/x")).unwrap(), KubeletConfiguration::default());
    }
}
