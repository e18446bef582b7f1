//! Takes the API's descriptions out of the `k8s-openapi` dependency's sources, compressed, for `src/openapi/descriptions.rs`.
//!
//! They are upstream's sentences and stay there: nothing of them is in this repository. Should the sources not be found (or not look as expected), OpenAPI is served
//! without descriptions; the build never fails for it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION_FOLDER: &str = "src/v1_36";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut text = String::new();
    match source() {
        Some(source) => {
            println!("cargo::rerun-if-changed={}", source.join("Cargo.toml").display());
            collect(&source.join(VERSION_FOLDER), &mut text);
        }
        None => println!("cargo::warning=the sources of k8s-openapi were not found: OpenAPI is served without descriptions"),
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("descriptions.gz");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let packed = packed.write_all(text.as_bytes()).and_then(|()| packed.finish()).unwrap_or_default();
    if let Err(error) = std::fs::write(&out, packed) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}

/// The dependency's folder, wherever this cargo keeps it (registry, vendored, patched).
fn source() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO")?;
    let output = Command::new(cargo).args(["metadata", "--offline", "--format-version", "1"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split("\"manifest_path\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter_map(|path| Path::new(path).parent())
        .find(|folder| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("k8s-openapi")) && folder.join(VERSION_FOLDER).is_dir())
        .map(Path::to_path_buf)
}

fn collect(folder: &Path, text: &mut String) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, text);
        } else if let Ok(source) = std::fs::read_to_string(&path) {
            one(&source, text);
        }
    }
}

/// `T<type>` and `F<field>` lines, each with a tab and the description as a string literal spells it (so line breaks are `\n` still).
fn one(source: &str, text: &mut String) {
    let Some(name) = source.strip_prefix("// Generated from definition ").and_then(|rest| rest.lines().next()) else { return };
    let Some(at) = source.find("json_schema!({") else { return };
    let mut field: Option<&str> = None;
    let mut opened = false;
    for line in source[at..].lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        if indent == 16 && line.ends_with('{') {
            field = line.strip_prefix('"').and_then(|line| line.split('"').next());
        }
        let described = line
            .strip_prefix("\"description\": \"")
            .and_then(|line| line.strip_suffix("\","))
            .or_else(|| line.split_once("insert(\"description\".into(), \"").and_then(|(_, line)| line.strip_suffix("\".into());")));
        let Some(described) = described else { continue };
        match field.take() {
            None if !opened => {
                opened = true;
                let _ = writeln!(text, "T{name}\t{described}");
            }
            Some(field) => {
                if !opened {
                    opened = true;
                    let _ = writeln!(text, "T{name}\t");
                }
                let _ = writeln!(text, "F{field}\t{described}");
            }
            None => {}
        }
    }
}
