//! What a network configuration says, and which one of a folder counts. Pure but for reading the files.
//!
//! Mirrors section 1 of the specification and libcni's `conf.go`: lists (`.conflist`), and single plugins (`.conf`, `.json`) as lists of one; the first
//! that can be read, by name, is the one that is used.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];
/// A configuration is a page of text; what is larger is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Versions of the specification that are spoken, oldest first.
const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Of the specification; ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(usize);

impl Version {
    /// From here on the plugin is told what an earlier ADD answered, and there is CHECK.
    pub const CHECK: Version = Version(4);
    /// From here on there are GC and STATUS.
    pub const GC: Version = Version(6);
    /// Until here results have one address for each family, in fields of their own.
    pub(crate) const LAST_WITH_IP4: Version = Version(1);

    pub fn parse(text: &str) -> Option<Self> {
        // Configurations older than the field.
        let text = if text.is_empty() { VERSIONS[0] } else { text };
        VERSIONS.iter().position(|known| *known == text).map(Self)
    }

    pub fn as_str(self) -> &'static str {
        VERSIONS[self.0]
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("unsupported CNI version {text:?}"))
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.as_str().to_owned()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    #[error("{0} is no JSON object: {1}")]
    Json(String, serde_json::Error),
    #[error("{0}: {1}")]
    Invalid(String, String),
}

/// One plugin of a list: its configuration as it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plugin(pub Map<String, Value>);

impl Plugin {
    /// The name of the program.
    pub fn kind(&self) -> &str {
        self.0.get("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// What the plugin wants to be told of each attachment.
    pub fn capabilities(&self) -> BTreeSet<&str> {
        let declared = self.0.get("capabilities").and_then(Value::as_object);
        declared.into_iter().flatten().filter(|(_, wanted)| **wanted == Value::Bool(true)).map(|(name, _)| name.as_str()).collect()
    }
}

/// A network: plugins that are run one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkList {
    pub name: String,
    pub version: Version,
    pub disable_check: bool,
    pub disable_gc: bool,
    pub plugins: Vec<Plugin>,
}

impl NetworkList {
    /// `file` is for what is said when it is wrong, and where further plugins of the network are looked for.
    pub fn parse(file: &Path, bytes: &[u8]) -> Result<Self, ConfigError> {
        let shown = file.display().to_string();
        let invalid = |why: String| ConfigError::Invalid(shown.clone(), why);
        let whole: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| ConfigError::Json(shown.clone(), error))?;
        let name = whole.get("name").and_then(Value::as_str).filter(|name| is_name(name)).ok_or_else(|| invalid("the network has no valid name".into()))?.to_owned();
        let version = version(&whole).map_err(invalid)?;
        let flag = |key: &str| matches!(whole.get(key), Some(Value::Bool(true))) || whole.get(key).and_then(Value::as_str) == Some("true");
        let (disable_check, disable_gc) = (flag("disableCheck"), flag("disableGC"));
        let plugins = match whole.get("plugins") {
            Some(Value::Array(plugins)) => {
                let objects = plugins.iter().map(|plugin| plugin.as_object().cloned().map(Plugin));
                objects.collect::<Option<Vec<_>>>().ok_or_else(|| invalid("a plugin is no object".into()))?
            }
            Some(_) => return Err(invalid("plugins is no list".into())),
            None if file.extension().is_some_and(|extension| extension == "conflist") => Vec::new(),
            None => vec![Plugin(whole.clone())],
        };
        let mut list = Self { name, version, disable_check, disable_gc, plugins };
        if !flag("loadOnlyInlinedPlugins")
            && let Some(folder) = file.parent()
        {
            list.plugins.extend(further(&folder.join(&list.name))?);
        }
        if list.plugins.is_empty() {
            return Err(invalid("the network has no plugins".into()));
        }
        match list.plugins.iter().find(|plugin| plugin.kind().is_empty() || plugin.kind().contains('/')) {
            Some(_) => Err(invalid("a plugin has no valid type".into())),
            None => Ok(list),
        }
    }
}

/// The highest that both sides speak.
fn version(whole: &Map<String, Value>) -> Result<Version, String> {
    let one = whole.get("cniVersion").and_then(Value::as_str);
    let many = whole.get("cniVersions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let all: Vec<&str> = one.into_iter().chain(many).collect();
    if all.is_empty() {
        return Ok(Version(0));
    }
    all.iter().filter_map(|text| Version::parse(text)).max().ok_or_else(|| format!("unsupported CNI version {}", all.join(", ")))
}

/// As the specification has it: letters and digits, and between them dots, dashes and underscores.
fn is_name(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_alphanumeric()) && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
}

/// Plugins that others put beside the list, in a folder of its name (1.1: unless `loadOnlyInlinedPlugins`).
fn further(folder: &Path) -> Result<Vec<Plugin>, ConfigError> {
    let mut plugins = Vec::new();
    for path in files(folder, &["conf"])? {
        let object = serde_json::from_slice(&read(&path)?).map_err(|error| ConfigError::Json(path.display().to_string(), error))?;
        plugins.push(Plugin(object));
    }
    Ok(plugins)
}

fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<std::path::PathBuf>, ConfigError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| ConfigError::Io(format!("read {}", folder.display()), error))?,
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e))).collect();
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |error| ConfigError::Io(format!("read {}", path.display()), error);
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(ConfigError::Invalid(path.display().to_string(), format!("{length} bytes are too many")));
    }
    std::fs::read(path).map_err(failed)
}

/// The network that a folder's files ask for: of the first, by name, that can be used; and why earlier ones cannot.
pub fn load(folder: &Path) -> (Option<NetworkList>, Vec<ConfigError>) {
    let mut errors = Vec::new();
    let paths = files(folder, &EXTENSIONS).unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    for path in paths {
        match read(&path).and_then(|bytes| NetworkList::parse(&path, &bytes)) {
            Ok(list) => return (Some(list), errors),
            Err(error) => errors.push(error),
        }
    }
    (None, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says() {
        let shown = |name: &str, text: &str| match NetworkList::parse(Path::new(name), text.as_bytes()) {
            Ok(list) => {
                let plugins: Vec<String> = list.plugins.iter().map(|p| format!("{}{:?}", p.kind(), p.capabilities())).collect();
                format!("{} {} {}{}{}", list.name, list.version.as_str(), plugins.join(" "), if list.disable_check { " no-check" } else { "" }, if list.disable_gc { " no-gc" } else { "" })
            }
            Err(error) => error.to_string(),
        };
        for (name, text, expected) in [
            ("/n/a.conflist", r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge"},{"type":"portmap","capabilities":{"portMappings":true,"x":false}}]}"#, r#"a 1.0.0 bridge{} portmap{"portMappings"}"#),
            ("/n/a.conf", r#"{"cniVersion":"0.3.1","name":"a","type":"ptp"}"#, "a 0.3.1 ptp{}"),
            ("/n/a.conf", r#"{"name":"a","type":"ptp"}"#, "a 0.1.0 ptp{}"),
            ("/n/a.conflist", r#"{"cniVersion":"1.0.0","cniVersions":["0.4.0","1.1.0","9.0.0"],"name":"a","disableCheck":true,"disableGC":true,"plugins":[{"type":"x"}]}"#, "a 1.1.0 x{} no-check no-gc"),
            ("/n/a.conflist", r#"{"cniVersion":"9.0.0","name":"a","plugins":[{"type":"x"}]}"#, "/n/a.conflist: unsupported CNI version 9.0.0"),
            ("/n/a.conflist", r#"{"cniVersion":"1.0.0","plugins":[{"type":"x"}]}"#, "/n/a.conflist: the network has no valid name"),
            ("/n/a.conflist", r#"{"cniVersion":"1.0.0","name":"../a","plugins":[{"type":"x"}]}"#, "/n/a.conflist: the network has no valid name"),
            ("/n/a.conflist", r#"{"cniVersion":"1.0.0","name":"a"}"#, "/n/a.conflist: the network has no plugins"),
            ("/n/a.conflist", r#"{"cniVersion":"1.0.0","name":"a","plugins":[]}"#, "/n/a.conflist: the network has no plugins"),
            ("/n/a.conflist", r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"../x"}]}"#, "/n/a.conflist: a plugin has no valid type"),
            ("/n/a.conflist", r#"{"cniVersion":"1.0.0","name":"a","plugins":[1]}"#, "/n/a.conflist: a plugin is no object"),
        ] {
            assert_eq!(shown(name, text), expected);
        }
        assert!(shown("/n/a.conf", "[").starts_with("/n/a.conf is no JSON object"));
    }

    #[test]
    fn the_first_that_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let name = || load(folder.path()).0.map(|list| list.name);
        assert_eq!(name(), None);
        assert_eq!(load(&folder.path().join("absent")).1.len(), 0, "no folder is no error");
        write("99-loopback.conf", r#"{"cniVersion":"1.0.0","name":"z","type":"loopback"}"#);
        write("10-broken.conflist", "{");
        write("05-note.txt", r#"{"cniVersion":"1.0.0","name":"note","type":"x"}"#);
        assert_eq!(name().as_deref(), Some("z"));
        assert_eq!(load(folder.path()).1.len(), 1, "the broken one is told of");
        write("20-real.conflist", r#"{"cniVersion":"1.1.0","name":"real","plugins":[{"type":"x"}]}"#);
        assert_eq!(name().as_deref(), Some("real"));
        std::fs::create_dir(folder.path().join("real")).unwrap();
        write("real/10-more.conf", r#"{"type":"more"}"#);
        let kinds = |list: NetworkList| list.plugins.iter().map(|p| p.kind().to_owned()).collect::<Vec<_>>();
        assert_eq!(load(folder.path()).0.map(kinds).unwrap(), ["x", "more"]);
        write("20-real.conflist", r#"{"cniVersion":"1.1.0","name":"real","loadOnlyInlinedPlugins":true,"plugins":[{"type":"x"}]}"#);
        assert_eq!(load(folder.path()).0.map(kinds).unwrap(), ["x"]);
    }
}
