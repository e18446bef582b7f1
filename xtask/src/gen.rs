//! `cargo xtask gen`: writes the schema facts, `crates/api/src/schema/schema.txt`.
//!
//! The facts come out of sources in the cargo registry: `k8s-openapi` (1.36: field names, types, what is required, how lists merge) and `k8s-pb`
//! (1.35: Go's markers, protobuf tags). What neither knows (1.36's new fields, which Go fields are pointers, Go's names of string types)
//! is in `gen/facts.txt`, kept by hand. Descriptions never come along.

mod facts;
mod openapi;
mod proto;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const OPENAPI: &str = "k8s-openapi-0.29.";
const PROTO: &str = "k8s-pb-0.9.";
const PROTO_REQUIREMENT: &str = "0.9";

/// One field of one type, as far as the table keeps it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Field {
    /// As Rust spells it in `k8s-openapi`.
    pub rust: String,
    pub json: String,
    pub ty: String,
    pub required: bool,
    pub list: Option<String>,
    pub map_atomic: bool,
    pub merge_key: Option<String>,
    pub strategy: Option<String>,
    /// One number, or several for fields of embedded messages: `2.5`.
    pub tag: Option<String>,
    pub default: Option<String>,
    /// A pointer in Go: kept when zero.
    pub pointer: bool,
    /// Encoded even when zero.
    pub always: bool,
    /// Go's name of its type, where it is not the plain one.
    pub go: Option<String>,
    /// The values it can have, by commas; an empty one is `""`, a blank `~`.
    pub choices: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Type {
    pub fields: Vec<Field>,
    pub atomic: bool,
    /// Has `apiVersion` and `kind`.
    pub kind: bool,
}

pub type Types = BTreeMap<String, Type>;

/// Writes the table anew.
pub fn run() -> Result<()> {
    let text = text()?;
    let path = root().join("crates/api/src/schema/schema.txt");
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {} lines to {}", text.lines().count(), path.display());
    Ok(())
}

fn text() -> Result<String> {
    let registry = registry()?;
    let mut types = openapi::read(&source(&registry, OPENAPI)?.join("src/v1_36"))?;
    let proto = match source(&registry, PROTO) {
        Ok(path) => path,
        Err(_) => {
            fetch_proto()?;
            source(&registry, PROTO)?
        }
    };
    proto::join(&mut types, &proto.join("src"))?;
    facts::join(&mut types, include_str!("gen/facts.txt"))?;
    Ok(write::text(&types))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The folder of unpacked registry sources, found by where cargo says `k8s-openapi` lies.
fn registry() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO")).args(["metadata", "--format-version", "1"]).current_dir(root()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let at = text.find(OPENAPI).context("cargo metadata does not mention k8s-openapi")?;
    let start = text[..at].rfind('"').context("cargo metadata is cut off")? + 1;
    Ok(PathBuf::from(&text[start..at]))
}

fn source(registry: &Path, prefix: &str) -> Result<PathBuf> {
    for entry in std::fs::read_dir(registry)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("{prefix}* is not in {}", registry.display())
}

/// `k8s-pb` is read, not linked: a throw-away project makes cargo download it.
fn fetch_proto() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("coracle-gen-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("src"))?;
    std::fs::write(dir.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"gen\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\nk8s-pb = \"{PROTO_REQUIREMENT}\"\n[workspace]\n"
    );
    std::fs::write(dir.join("Cargo.toml"), manifest)?;
    let status = Command::new(env!("CARGO")).arg("fetch").current_dir(&dir).status();
    std::fs::remove_dir_all(&dir)?;
    if status?.success() { Ok(()) } else { bail!("cargo could not fetch k8s-pb") }
}

/// `clusterIPs` and `cluster_ips` are the same field, and `x-kubernetes-list-type` and `x_kubernetes_list_type`.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | '$')).flat_map(char::to_lowercase).collect()
}

/// Every `.rs` file below.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `k8s-openapi` says must be what is checked in; `k8s-pb` is not a dependency, so its part is compared only where it has been fetched.
    #[test]
    fn the_checked_in_table_is_current() {
        let checked_in = std::fs::read_to_string(root().join("crates/api/src/schema/schema.txt")).unwrap();
        let registry = registry().unwrap();
        if source(&registry, PROTO).is_ok() {
            assert!(text().unwrap() == checked_in, "run `cargo xtask gen`");
        }
        let types = openapi::read(&source(&registry, OPENAPI).unwrap().join("src/v1_36")).unwrap();
        // Names and types; whether a type is owned as a whole is `k8s-pb`'s to say.
        let columns = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split(' ').filter(|word| *word != "atomic").take(3).collect::<Vec<_>>().join(" ")).collect()
        };
        assert!(columns(&write::text(&types)) == columns(&checked_in), "run `cargo xtask gen`");
    }
}
