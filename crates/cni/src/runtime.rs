//! What is run for a container, and what is remembered of it: a file for each attachment, written before the first plugin runs, so that whatever was begun
//! can be taken back after a `kill -9`, by the configuration it was made with, however the folder of configurations has changed since.
//!
//! Mirrors sections 3 and 4 of the specification and libcni's `api.go`: ADD in order, each plugin with the result of the one before; DEL in
//! reverse order with the last result; capabilities only to who declared them; CHECK from 0.4.0, GC and STATUS from 1.1.0 on.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use basics::files;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{NetworkList, Plugin, Version};
use crate::plugin::{self, Environment, PluginError};
use crate::result::{self, ResultError};

#[derive(Debug, thiserror::Error)]
pub enum CniError {
    #[error("plugin type={kind:?} name={network:?} failed ({command}): {source}")]
    Plugin { kind: String, network: String, command: &'static str, source: PluginError },
    #[error(transparent)]
    Result(#[from] ResultError),
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// A container's end of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    pub container_id: String,
    pub netns: PathBuf,
    pub if_name: String,
    /// `CNI_ARGS`.
    pub args: Vec<(String, String)>,
    /// What can be told to a plugin that declares the capability.
    pub capabilities: Map<String, Value>,
}

impl Attachment {
    fn environment(&self) -> Environment {
        let args: Vec<String> = self.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        // Of a namespace that is gone nothing can be said but that.
        let netns = if self.netns.exists() { self.netns.clone().into_os_string() } else { Default::default() };
        Environment { container_id: self.container_id.clone(), netns, if_name: self.if_name.clone(), args: args.join(";") }
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    list: NetworkList,
    attachment: Attachment,
    /// `None` while ADD has not ended well.
    result: Option<Value>,
}

/// Operations for one container take turns: that is the caller's business.
pub struct Cni {
    /// Where plugins are looked for, in order.
    programs: Vec<PathBuf>,
    records: PathBuf,
}

impl Cni {
    pub fn open(programs: Vec<PathBuf>, records: PathBuf) -> Result<Self, CniError> {
        std::fs::create_dir_all(&records).map_err(|error| CniError::Io(format!("make {}", records.display()), error))?;
        Ok(Self { programs, records })
    }

    /// Attaches the container and returns its addresses. After an error, [`Cni::del`] takes back what was done.
    pub async fn add(&self, list: &NetworkList, attachment: Attachment) -> Result<Vec<IpAddr>, CniError> {
        let mut record = Record { list: list.clone(), attachment, result: None };
        self.write(&record)?;
        let environment = record.attachment.environment();
        let mut result = None;
        for plugin in &list.plugins {
            let config = configuration(list, plugin, &record.attachment.capabilities, result.as_ref());
            result = Some(self.run(list, plugin, "ADD", &environment, &config).await?);
        }
        let result = result.unwrap_or_default();
        let addresses = result::addresses(&result, list.version, &record.attachment.if_name)?;
        record.result = Some(result);
        self.write(&record)?;
        Ok(addresses)
    }

    /// Takes the attachment back; of what is not known nothing is said. May be repeated, and must be after an error.
    pub async fn del(&self, container_id: &str) -> Result<(), CniError> {
        let Some(record) = self.read(container_id)? else { return Ok(()) };
        let Record { list, attachment, result } = &record;
        let environment = attachment.environment();
        let known = result.as_ref().filter(|_| list.version >= Version::CHECK);
        for plugin in list.plugins.iter().rev() {
            self.run(list, plugin, "DEL", &environment, &configuration(list, plugin, &attachment.capabilities, known)).await?;
        }
        match std::fs::remove_file(self.path(container_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CniError::Io("forget an attachment".into(), error)),
            _ => Ok(()),
        }
    }

    /// Whether the attachment is as it was made. Says nothing where the configuration does not want to be asked.
    pub async fn check(&self, container_id: &str) -> Result<(), CniError> {
        let Some(Record { list, attachment, result: Some(result) }) = self.read(container_id)? else { return Ok(()) };
        if list.disable_check || list.version < Version::CHECK {
            return Ok(());
        }
        let environment = attachment.environment();
        for plugin in &list.plugins {
            self.run(&list, plugin, "CHECK", &environment, &configuration(&list, plugin, &attachment.capabilities, Some(&result))).await?;
        }
        Ok(())
    }

    /// Whether the network can take containers.
    pub async fn status(&self, list: &NetworkList) -> Result<(), CniError> {
        if list.version >= Version::GC {
            for plugin in &list.plugins {
                self.run(list, plugin, "STATUS", &Environment::default(), &configuration(list, plugin, &Map::new(), None)).await?;
            }
        }
        Ok(())
    }

    /// Takes back what is held for containers that `keep` does not want, and has the plugins forget whatever else they hold. Goes on after an error and
    /// returns the first.
    pub async fn retain(&self, list: Option<&NetworkList>, keep: impl Fn(&str) -> bool) -> Result<(), CniError> {
        let mut first = None;
        let mut note = |done: Result<(), CniError>| {
            if let Err(error) = done {
                tracing::warn!(%error, "give back what a network plugin holds");
                first.get_or_insert(error);
            }
        };
        for id in self.known()?.iter().filter(|id| !keep(id)) {
            note(self.del(id).await);
        }
        if let Some(list) = list.filter(|list| list.version >= Version::GC && !list.disable_gc) {
            let mut valid = Vec::new();
            for id in self.known()? {
                valid.extend(self.read(&id)?.map(|record| json!({"containerID": id, "ifname": record.attachment.if_name})));
            }
            for plugin in &list.plugins {
                let mut config = configuration(list, plugin, &Map::new(), None);
                // The specification and its library do not agree on the name.
                for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                    config.insert(key.to_owned(), Value::Array(valid.clone()));
                }
                note(self.run(list, plugin, "GC", &Environment::default(), &config).await.map(drop));
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Containers that were attached, well or not, and not yet taken back.
    pub fn known(&self) -> Result<BTreeSet<String>, CniError> {
        let entries = std::fs::read_dir(&self.records).map_err(|error| CniError::Io(format!("read {}", self.records.display()), error))?;
        Ok(entries.flatten().filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned())).collect())
    }

    pub fn knows(&self, container_id: &str) -> bool {
        self.path(container_id).exists()
    }

    async fn run(&self, list: &NetworkList, plugin: &Plugin, command: &'static str, environment: &Environment, config: &Map<String, Value>) -> Result<Value, CniError> {
        let done = plugin::run(&self.programs, plugin.kind(), command, environment, config).await;
        let lower = match command {
            "ADD" => "add",
            "DEL" => "delete",
            "CHECK" => "check",
            "GC" => "gc",
            _ => "status",
        };
        done.map_err(|source| CniError::Plugin { kind: plugin.kind().to_owned(), network: list.name.clone(), command: lower, source })
    }

    fn path(&self, container_id: &str) -> PathBuf {
        self.records.join(format!("{container_id}.json"))
    }

    fn read(&self, container_id: &str) -> Result<Option<Record>, CniError> {
        let path = self.path(container_id);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|error| CniError::Io(format!("read {}", path.display()), error))?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| CniError::Io(format!("read {}", path.display()), error.into()))
    }

    fn write(&self, record: &Record) -> Result<(), CniError> {
        let path = self.path(&record.attachment.container_id);
        write_whole(&path, record).map_err(|error| CniError::Io(format!("write {}", path.display()), error))
    }
}

fn write_whole(path: &Path, record: &Record) -> io::Result<()> {
    files::replace(path, &serde_json::to_vec(record)?, files::OWNER_ONLY)
}

/// What the plugin reads: its own configuration, whose network it is of, what the plugins before it made, and what it asked to be told.
fn configuration(list: &NetworkList, plugin: &Plugin, capabilities: &Map<String, Value>, previous: Option<&Value>) -> Map<String, Value> {
    let mut config = plugin.0.clone();
    config.insert("name".into(), list.name.clone().into());
    config.insert("cniVersion".into(), list.version.as_str().into());
    config.remove("cniVersions");
    if let Some(previous) = previous {
        config.insert("prevResult".into(), previous.clone());
    }
    let wanted = plugin.capabilities();
    let told: Map<String, Value> = capabilities.iter().filter(|(name, _)| wanted.contains(name.as_str())).map(|(name, value)| (name.clone(), value.clone())).collect();
    if !told.is_empty() {
        config.insert("runtimeConfig".into(), Value::Object(told));
    }
    config.remove("capabilities");
    config
}
