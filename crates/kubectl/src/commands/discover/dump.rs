//! `kubectl cluster-info dump`: nodes, and of some namespaces events, workloads and logs; to stdout or into folders.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/clusterinfo/clusterinfo_dump.go.

use std::path::Path;

use serde_json::Value;

use crate::command::command;
use crate::commands::pods::{array, text as at};
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, list, switch, text};
use crate::printers::{self, hide_managed_fields};
use crate::session::{Query, Session};
use crate::{output, yaml};

const FLAGS: &[Flag] = &[
    switch("all-namespaces", "If true, dump all namespaces.  If true, --namespaces is ignored.").short('A'),
    crate::flags::on("allow-missing-template-keys", "If true, ignore any errors in templates when a field or map key is missing in the template."),
    list("namespaces", "A comma separated list of namespaces to dump."),
    text("output", "json", "Output format.").short('o'),
    text("output-directory", "", "Where to output the files.  If empty or '-' uses stdout, otherwise creates a directory hierarchy in that directory"),
    text("pod-running-timeout", "20s", "The length of time (like 5s, 2m, or 3h, higher than zero) to wait until at least one pod is running"),
    switch("show-managed-fields", "If true, keep the managedFields when printing objects in JSON or YAML format."),
    text("template", "", "Template string or path to template file to use when -o=go-template, -o=go-template-file."),
];
command!(DUMP, "dump", [], "[flags] [options]", "Dump relevant information for debugging and diagnosis", [FLAGS], run);

/// File name, group's path, plural.
const KINDS: &[(&str, &str, &str)] = &[
    ("events", "api/v1", "events"), ("replication-controllers", "api/v1", "replicationcontrollers"), ("services", "api/v1", "services"),
    ("daemonsets", "apis/apps/v1", "daemonsets"), ("deployments", "apis/apps/v1", "deployments"), ("replicasets", "apis/apps/v1", "replicasets"),
    ("pods", "api/v1", "pods"),
];

struct Sink<'a> {
    folder: Option<&'a Path>,
    yaml: bool,
}

impl Sink<'_> {
    fn put(&self, name: &str, text: &str) -> Result<()> {
        let Some(folder) = self.folder else {
            output::write(text.as_bytes());
            return Ok(());
        };
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(path, text)?)
    }

    fn list(&self, args: &Args, name: &str, mut list: Value) -> Result<()> {
        if !args.on("show-managed-fields") {
            list["items"].as_array_mut().into_iter().flatten().for_each(hide_managed_fields);
        }
        if self.yaml { self.put(&format!("{name}.yaml"), &yaml::emit(&list)) } else { self.put(&format!("{name}.json"), &format!("{}\n", printers::json(&list))) }
    }
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    let yaml = match args.text("output") {
        "json" | "" => false,
        "yaml" => true,
        other => return fail(format!("unable to match a printer suitable for the output format \"{other}\", allowed formats are: json,yaml")),
    };
    let folder = args.given("output-directory").filter(|folder| *folder != "-");
    let sink = Sink { folder: folder.map(Path::new), yaml };
    sink.list(args, "nodes", session.get("/api/v1/nodes").await?)?;
    let namespaces: Vec<String> = if args.on("all-namespaces") {
        array(&session.get("/api/v1/namespaces").await?, "/items").map(|one| at(one, "/metadata/name").to_owned()).collect()
    } else if args.changed("namespaces") {
        args.slice("namespaces")
    } else {
        vec!["kube-system".to_owned(), session.namespace()?]
    };
    for namespace in namespaces {
        for (file, root, plural) in KINDS {
            let list = session.get(&format!("/{root}/namespaces/{namespace}/{plural}")).await?;
            let pods = (*plural == "pods").then(|| list.clone());
            sink.list(args, &format!("{namespace}/{file}"), list)?;
            for pod in pods.iter().flat_map(|pods| array(pods, "/items")) {
                let name = at(pod, "/metadata/name");
                let mut text = String::new();
                for container in array(pod, "/spec/initContainers").chain(array(pod, "/spec/containers")) {
                    let container = at(container, "/name");
                    let path = Query::of(format!("/api/v1/namespaces/{namespace}/pods/{name}/log")).with("container", container).end();
                    let log = match session.text(&path).await {
                        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                        Err(error) => format!("Request log error: {error}\n"),
                    };
                    text.push_str(&format!("==== START logs for container {container} of pod {namespace}/{name} ====\n{log}==== END logs for container {container} of pod {namespace}/{name} ====\n"));
                }
                sink.put(&format!("{namespace}/{name}/logs.txt"), &text)?;
            }
        }
    }
    if let Some(folder) = folder {
        output::line(format!("Cluster info dumped to {folder}"));
    }
    Ok(())
}
