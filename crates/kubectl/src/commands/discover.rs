//! What the server is and serves: `api-resources`, `api-versions`, `version`, `cluster-info`.

mod dump;

use serde_json::{Value, json};

use crate::classic;
use crate::command::{Command, command};
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, on, switch, text};
use crate::printers;
use crate::resources::Resource;
use crate::session::Session;
use crate::tabwriter::TABLE;
use crate::{output, yaml};

/// The kubectl whose ways these are.
const CLIENT_VERSION: &str = "v1.36.0";
const KUSTOMIZE_VERSION: &str = "v5.8.0";

command!(API_RESOURCES, "api-resources", [], "[flags] [options]", "Print the supported API resources on the server", [RESOURCES_FLAGS], api_resources);
const RESOURCES_FLAGS: &[Flag] = &[
    text("api-group", "", "Limit to resources in the specified API group."),
    switch("cached", "Use the cached list of resources if available."),
    list("categories", "Limit to resources that belong to the specified categories."),
    on("namespaced", "If false, non-namespaced resources will be returned, otherwise returning namespaced resources by default."),
    switch("no-headers", "When using the default or custom-column output format, don't print headers (default print headers)."),
    text("output", "", "Output format. One of: (json, yaml, name, wide).").short('o'),
    switch("show-managed-fields", "If true, keep the managedFields when printing objects in JSON or YAML format."),
    text("sort-by", "", "If non-empty, sort list of resources using specified field. The field can be either 'name' or 'kind'."),
    list("verbs", "Limit to resources that support the specified verbs."),
];
command!(API_VERSIONS, "api-versions", [], "", "Print the supported API versions on the server, in the form of \"group/version\"", [], api_versions);
command!(VERSION, "version", [], "[flags] [options]", "Print the client and server version information", [&[switch("client", "If true, shows client version only (no server required)."), text("output", "", "One of 'yaml' or 'json'.").short('o')]], version);
pub static CLUSTER_INFO: Command = Command {
    name: "cluster-info",
    aliases: &["clusterinfo"],
    usage: "[flags] [options]",
    short: "Display cluster information",
    flags: &[],
    subcommands: &[&dump::DUMP],
    run: Some(|session, args| Box::pin(cluster_info(session, args))),
};

async fn api_resources(session: &Session, args: &Args) -> Result<()> {
    args.none().map_err(|_| args.wrong(format!("unexpected arguments: {:?}", args.positional)))?;
    let format = args.text("output");
    let verbs = args.slice("verbs");
    let categories = args.slice("categories");
    let mut resources: Vec<&Resource> = session
        .mapper()
        .await?
        .resources
        .iter()
        .filter(|resource| resource.preferred && !resource.verbs.is_empty())
        .filter(|resource| !args.changed("api-group") || resource.group == args.text("api-group"))
        .filter(|resource| !args.changed("namespaced") || resource.namespaced == args.on("namespaced"))
        .filter(|resource| verbs.iter().all(|verb| resource.verbs.contains(verb)) && categories.iter().all(|category| resource.categories.contains(category)))
        .collect();
    match args.text("sort-by") {
        "" => resources.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural))),
        "name" => resources.sort_by(|a, b| a.plural.cmp(&b.plural)),
        "kind" => resources.sort_by(|a, b| a.kind.cmp(&b.kind)),
        _ => return fail("--sort-by accepts only name or kind"),
    }
    let mut out = String::new();
    match format {
        "name" => resources.iter().for_each(|resource| out.push_str(&format!("{}\n", resource.qualified()))),
        "json" | "yaml" | "kyaml" => {
            let items: Vec<Value> = resources
                .iter()
                .map(|resource| json!({"name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced, "group": resource.group, "version": resource.version, "kind": resource.kind, "verbs": resource.verbs, "shortNames": resource.short_names, "categories": resource.categories}))
                .collect();
            let document = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "", "resources": items});
            out = printers::document(format, &document)?;
        }
        "" | "wide" => {
            let mut rows = String::new();
            if !args.on("no-headers") {
                rows.push_str("NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND");
                rows.push_str(if format == "wide" { "\tVERBS\tCATEGORIES\n" } else { "\n" });
            }
            for resource in resources {
                rows.push_str(&format!("{}\t{}\t{}\t{}\t{}", resource.plural, resource.short_names.join(","), resource.api_version(), resource.namespaced, resource.kind));
                if format == "wide" {
                    rows.push_str(&format!("\t{}\t{}", resource.verbs.join(","), resource.categories.join(",")));
                }
                rows.push('\n');
            }
            out = TABLE.format(&rows);
        }
        other => return fail(format!("--output {other} is not available")),
    }
    output::write(out.as_bytes());
    Ok(())
}

async fn api_versions(session: &Session, _: &Args) -> Result<()> {
    let mut versions: Vec<String> = session.mapper().await?.resources.iter().map(Resource::api_version).collect();
    versions.sort();
    versions.dedup();
    versions.iter().for_each(output::line);
    Ok(())
}

/// `--match-server-version`: the two programs must be of one build.
pub async fn match_server_version(session: &Session) -> Result<()> {
    let info = session.get("/version").await.map_err(|error| Error::Message(format!("couldn't read version from server: {error}")))?;
    if info["gitVersion"] == CLIENT_VERSION {
        return Ok(());
    }
    let shown = |info: &Value| {
        let field = |name: &str| format!("{:?}", info[name].as_str().unwrap_or(""));
        let fields = ["Major", "Minor", "GitVersion", "GitCommit", "GitTreeState", "BuildDate", "GoVersion", "Compiler", "Platform"];
        let fields = fields.map(|name| format!("{name}:{}", field(&format!("{}{}", name[..1].to_lowercase(), &name[1..]))));
        format!("version.Info{{{}}}", fields.join(", "))
    };
    let ours = json!({"major": "1", "minor": "36", "gitVersion": CLIENT_VERSION, "platform": format!("linux/{}", go_arch())});
    fail(format!("server version (&{}) differs from client version ({})", shown(&info), shown(&ours)))
}

async fn version(session: &Session, args: &Args) -> Result<()> {
    args.none().map_err(|_| Error::Message(format!("extra arguments: {:?}", args.positional)))?;
    if args.on("short") {
        classic::deprecated_flag("short");
    }
    let server = if args.on("client") { None } else { Some(session.get("/version").await) };
    let git = |info: &Value| info["gitVersion"].as_str().unwrap_or("").to_owned();
    match args.text("output") {
        "" => {
            output::line(format!("Client Version: {CLIENT_VERSION}"));
            if !args.on("short") {
                output::line(format!("Kustomize Version: {KUSTOMIZE_VERSION}"));
            }
            if let Some(Ok(info)) = &server {
                output::line(format!("Server Version: {}", git(info)));
            }
        }
        format @ ("json" | "yaml") => {
            let mut document = json!({"clientVersion": {"major": "1", "minor": "36", "gitVersion": CLIENT_VERSION, "platform": format!("linux/{}", go_arch())}, "kustomizeVersion": KUSTOMIZE_VERSION});
            if let Some(Ok(info)) = &server {
                document["serverVersion"] = info.clone();
            }
            let text = if format == "json" { serde_json::to_string_pretty(&document).unwrap_or_default() } else { yaml::emit(&document) };
            output::line(text);
        }
        _ => return fail("--output must be 'yaml' or 'json'"),
    }
    server.map_or(Ok(()), |outcome| outcome.map(drop))
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn cluster_info(session: &Session, args: &Args) -> Result<()> {
    if args.positional.first().is_some_and(|word| word == "dump") {
        return fail("cluster-info dump is not part of Coracle's kubectl; try: kubectl get all -A -o yaml");
    }
    let host = session.config()?.server.clone();
    let list = session.get("/api/v1/namespaces/kube-system/services?labelSelector=kubernetes.io%2Fcluster-service%3Dtrue").await?;
    output::line(format!("Kubernetes control plane is running at {host}"));
    for service in list["items"].as_array().into_iter().flatten() {
        let name = service["metadata"]["name"].as_str().unwrap_or("");
        let port = service.pointer("/spec/ports/0");
        let target = match port {
            None => name.to_owned(),
            Some(port) => {
                let port_name = port["name"].as_str().unwrap_or("");
                let secure = port_name == "https" || port["port"] == 443;
                match (secure, port_name) {
                    (true, _) => format!("https:{name}:{port_name}"),
                    (false, "") => name.to_owned(),
                    (false, _) => format!("{name}:{port_name}"),
                }
            }
        };
        let shown = service["metadata"]["labels"]["kubernetes.io/name"].as_str().unwrap_or(name);
        output::line(format!("{shown} is running at {host}/api/v1/namespaces/{}/services/{target}/proxy", service["metadata"]["namespace"].as_str().unwrap_or("")));
    }
    output::line("\nTo further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.");
    Ok(())
}
