//! `--patches`: a folder of files that change what is written for this machine, `kubeletconfiguration0+merge.yaml` say. Mirrors `util/patches`: names, order and texts.
//!
//! Of upstream's targets there is one here, the agent's configuration: the control plane and the DNS are no pods of manifests. A patch of one of these is told, and passed over.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::documents;
use crate::error::Error;

/// The only one that has a meaning here.
const KUBELET_CONFIGURATION: &str = "kubeletconfiguration";
const TARGETS: [&str; 6] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", KUBELET_CONFIGURATION, "corednsdeployment"];
const EXTENSIONS: [&str; 2] = ["json", "yaml"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PatchType {
    Json,
    Merge,
    Strategic,
}

const TYPES: [(&str, PatchType); 3] = [("json", PatchType::Json), ("merge", PatchType::Merge), ("strategic", PatchType::Strategic)];

impl PatchType {
    /// As the API has it.
    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// One file.
#[derive(Debug)]
struct PatchSet {
    target: &'static str,
    kind: PatchType,
    patches: Vec<Value>,
}

/// Those of a folder, in the order of their names.
#[derive(Debug, Default)]
pub struct Patches(Vec<PatchSet>);

/// `target[suffix][+patchtype].extension`; the inner error is why a file is passed over.
fn parse(file: &str) -> Result<Result<(&'static str, PatchType), String>, Error> {
    let Some((stem, _)) = file.rsplit_once('.').filter(|(stem, extension)| !stem.is_empty() && EXTENSIONS.contains(extension)) else {
        return Ok(Err(format!("the file extension must be one of [{}]", EXTENSIONS.join(" "))));
    };
    let Some(target) = TARGETS.into_iter().find(|target| stem.starts_with(target)) else {
        return Ok(Err(format!("unknown target, must be one of [{}]", TARGETS.join(" "))));
    };
    // A suffix ends at a dot or a plus, and only right after it is there a type.
    let rest = &stem[target.len()..];
    let Some((_, named)) = rest.find(['.', '+']).filter(|at| rest[*at..].starts_with('+')).map(|at| rest.split_at(at + 1)) else { return Ok(Ok((target, PatchType::Strategic))) };
    let kind = TYPES.iter().find(|(name, _)| named.starts_with(name)).ok_or_else(|| Error::Invalid("unknown or missing patch type after '+', must be one of [json merge strategic]".into()))?;
    Ok(Ok((target, kind.1)))
}

/// The documents of a file.
fn documents_in(text: &str) -> Result<Vec<Value>, Error> {
    let mut parts = vec![String::new()];
    for line in text.lines() {
        match line.trim_end() {
            "---" => parts.push(String::new()),
            _ => {
                if let Some(part) = parts.last_mut() {
                    part.push_str(line);
                    part.push('\n');
                }
            }
        }
    }
    let filled = parts.iter().filter(|part| !part.trim().is_empty());
    filled.map(|part| serde_saphyr::from_str(part).map_err(|error| Error::Invalid(format!("could not convert patch to JSON:\n{part}\n: {error}")))).collect()
}

impl Patches {
    /// None asked for: none.
    pub fn of(folder: Option<&Path>) -> Result<Self, Error> {
        let Some(folder) = folder else { return Ok(Self::default()) };
        let failed = |source| Error::File { what: "could not list patch files for path", path: format!("{:?}", folder.display().to_string()), source };
        println!("[patches] Reading patches from path {:?}", folder.display().to_string());
        let mut paths: Vec<PathBuf> = Vec::new();
        below(folder, &mut paths).map_err(failed)?;
        let (mut sets, mut found, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
        for path in paths {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let (target, kind) = match parse(&name)? {
                Ok(parsed) => parsed,
                Err(why) => {
                    println!("[patches] Ignoring file {name:?}: {why}");
                    ignored.push(name);
                    continue;
                }
            };
            let text = std::fs::read_to_string(&path).map_err(Error::file("could not read the file", &path))?;
            if text.is_empty() {
                println!("[patches] Ignoring empty file: {name:?}");
                ignored.push(name);
                continue;
            }
            if target != KUBELET_CONFIGURATION {
                eprintln!("hint: the patch {name} has no meaning here: there is no manifest of {target}, the control plane is one process; `extraArgs` of --config change its flags.");
            }
            sets.push(PatchSet { target, kind, patches: documents_in(&text)? });
            found.push(name);
        }
        if !found.is_empty() {
            println!("[patches] Found the following patch files: [{}]", found.join(" "));
        }
        if !ignored.is_empty() {
            println!("[patches] Ignored the following files: [{}]", ignored.join(" "));
        }
        Ok(Self(sets))
    }

    /// A KubeletConfiguration, in YAML, as this machine is to have it.
    pub fn kubelet_configuration(&self, text: &str) -> Result<String, Error> {
        let sets: Vec<&PatchSet> = self.0.iter().filter(|set| set.target == KUBELET_CONFIGURATION).collect();
        if sets.is_empty() {
            return Ok(text.to_owned());
        }
        let mut whole: Value = serde_saphyr::from_str(text).map_err(|error| Error::Invalid(format!("could not apply patches to the KubeletConfiguration: {error}")))?;
        for set in sets {
            for patch in &set.patches {
                let done = match set.kind {
                    PatchType::Json => patch::json(&mut whole, patch),
                    PatchType::Merge => {
                        patch::merge(&mut whole, patch);
                        Ok(())
                    }
                    PatchType::Strategic => patch::strategic(&mut whole, patch, None),
                };
                let kind = set.kind.media_type();
                done.map_err(|error| {
                    Error::Invalid(format!("could not apply patches to the KubeletConfiguration: could not apply the following patch of type {kind:?} to target {:?}:\n{patch}\n: {}", set.target, error.status().message))
                })?;
                println!("[patches] Applied patch of type {kind:?} to target {:?}", set.target);
            }
        }
        Ok(documents::yaml(&whole))
    }
}

/// Files, as Go walks: by name, folders where they stand.
fn below(folder: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_dir() { below(&entry.path(), out)? } else { out.push(entry.path()) }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        let ok = |file: &str| parse(file).unwrap().unwrap();
        for (file, target, kind) in [
            ("kubeletconfiguration.yaml", KUBELET_CONFIGURATION, PatchType::Strategic),
            ("kubeletconfiguration0+merge.yaml", KUBELET_CONFIGURATION, PatchType::Merge),
            ("kubeletconfiguration-a+json.json", KUBELET_CONFIGURATION, PatchType::Json),
            ("kubeletconfiguration.a+json.json", KUBELET_CONFIGURATION, PatchType::Strategic),
            ("kube-apiserver1+strategic.yaml", "kube-apiserver", PatchType::Strategic),
            ("etcd+merge.json", "etcd", PatchType::Merge),
        ] {
            assert_eq!(ok(file), (target, kind), "{file}");
        }
        assert_eq!(parse("notes.txt").unwrap().unwrap_err(), "the file extension must be one of [json yaml]");
        assert!(parse("other.yaml").unwrap().unwrap_err().starts_with("unknown target, must be one of [etcd kube-apiserver "));
        for bad in ["kubeletconfiguration+.yaml", "kubeletconfiguration+jso.yaml"] {
            assert_eq!(parse(bad).unwrap_err().to_string(), "unknown or missing patch type after '+', must be one of [json merge strategic]");
        }
    }

    #[test]
    fn a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let base = "kind: KubeletConfiguration\nmaxPods: 110\nclusterDNS: [10.96.0.10]\nevictionHard: {a: b}\n";
        let patched = || Patches::of(Some(folder.path())).and_then(|patches| patches.kubelet_configuration(base)).map(|text| serde_saphyr::from_str::<Value>(&text).unwrap());
        assert_eq!(Patches::default().kubelet_configuration(base).unwrap(), base);
        write("kubeletconfiguration0.yaml", "maxPods: 20\nclusterDNS: [10.96.0.11]\n---\nmaxPods: 21\nevictionHard: {$patch: replace, c: d}\n");
        write("kubeletconfiguration1+json.json", "[{\"op\": \"add\", \"path\": \"/podPidsLimit\", \"value\": 7}]");
        write("kubeletconfiguration2+merge.yaml", "kind: null\n");
        write("etcd.yaml", "a: b\n");
        write("readme", "");
        write("kubeletconfiguration3.yaml", "");
        std::fs::create_dir(folder.path().join("more")).unwrap();
        write("more/kubeletconfiguration.yaml", "port: 1\n");
        assert_eq!(patched().unwrap(), serde_json::json!({"maxPods": 21, "clusterDNS": ["10.96.0.11"], "evictionHard": {"c": "d"}, "podPidsLimit": 7, "port": 1}));
        write("kubeletconfiguration4+json.json", "[{\"op\": \"remove\", \"path\": \"/nothing\"}]");
        assert!(patched().unwrap_err().to_string().contains("could not apply the following patch of type \"application/json-patch+json\" to target \"kubeletconfiguration\":"));
        assert!(Patches::of(Some(&folder.path().join("none"))).unwrap_err().to_string().starts_with("could not list patch files for path"));
    }
}
