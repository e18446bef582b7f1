//! The agent's KubeletConfiguration from its file (the one that kubeadm writes): read, checked, and what has no effect said.

use std::path::Path;

use anyhow::{Context, Result, bail};
use node::configuration::Settings;
use serde_json::Value;

/// A file that is not there says nothing.
pub fn load_if_there(path: &Path) -> Result<Settings> {
    if path.try_exists().with_context(|| format!("cannot read {}", path.display()))? { load(path) } else { Ok(Settings::default()) }
}

/// One that is wrong is an error in upstream's words.
pub fn load(path: &Path) -> Result<Settings> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let given = serde_saphyr::from_str::<Value>(&text).with_context(|| format!("{} is no KubeletConfiguration", path.display()))?;
    let (settings, warnings) = Settings::read(&given).map_err(|error| anyhow::anyhow!("{error}, path: {}", path.display()))?;
    for warning in warnings {
        tracing::warn!(file = %path.display(), "{warning}");
    }
    if settings.fail_swap_on && swap_is_on(&std::fs::read_to_string("/proc/swaps").unwrap_or_default()) {
        bail!("failed to run Kubelet: running with swap on is not supported, please disable swap or set failSwapOn to false (/proc/swaps lists it)");
    }
    Ok(settings)
}

/// What stands below the head of `/proc/swaps`.
fn swap_is_on(table: &str) -> bool {
    table.lines().skip(1).any(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap() {
        let head = "Filename\t\t\t\tType\t\tSize\n";
        assert!(!swap_is_on(head) && !swap_is_on("") && swap_is_on(&format!("{head}/dev/sda2 partition 1\n")));
    }

    #[test]
    fn files() {
        assert_eq!(load_if_there(Path::new("/nonexistent/x")).unwrap(), Settings::default());
        assert!(load(Path::new("/nonexistent/x")).is_err(), "who names a file means one that is there");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nmaxPods: 30\n").unwrap();
        assert_eq!(load(&file).unwrap().max_pods, 30);
        std::fs::write(&file, "maxPods: -1\n").unwrap();
        let wrong = load(&file).unwrap_err().to_string();
        assert_eq!(wrong, format!("failed to validate kubelet configuration, error: invalid configuration: maxPods (--max-pods) -1 must not be a negative number, path: {}", file.display()));
    }
}
