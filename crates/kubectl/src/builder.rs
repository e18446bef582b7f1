//! Which objects a command line means: types and names, `type/name`, selectors, files, folders, URLs and stdin.
//!
//! Mirrors k8s.io/cli-runtime/pkg/resource's Builder, with its errors.

use std::io::Read;
use std::path::Path;

use http::Method;
use serde_json::Value;

use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, switch, text};
use crate::kustomize;
use crate::resources::Resource;
use crate::session::{Query, Session};
use crate::yaml;

pub const FILES: &[Flag] = &[
    list("filename", "Filename, directory, or URL to files identifying the resource.").short('f'),
    text("kustomize", "", "Process a kustomization directory.").short('k'),
    switch("recursive", "Process the directory used in -f, --filename recursively.").short('R'),
];
pub const SELECT: &[Flag] = &[
    text("selector", "", "Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.").short('l'),
    text("field-selector", "", "Selector (field query) to filter on, supports '=', '==', and '!='."),
    switch("all", "Select all resources in the namespace of the specified resource types."),
    switch("all-namespaces", "If present, list the requested object(s) across all namespaces.").short('A'),
];

/// What one argument asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub resource: Resource,
    /// None: all that the selectors leave.
    pub name: Option<String>,
    pub namespace: Option<String>,
    /// From a file: what it says, and where it was.
    pub document: Option<Value>,
    pub source: String,
}

impl Wanted {
    pub fn path(&self) -> String {
        match &self.name {
            Some(name) => self.resource.object(self.namespace.as_deref(), name),
            None => self.resource.collection(self.namespace.as_deref()),
        }
    }
}

/// An object as the server has it.
#[derive(Debug, Clone)]
pub struct Found {
    pub resource: Resource,
    pub namespace: Option<String>,
    pub name: String,
    pub object: Value,
    pub source: String,
}

impl Found {
    pub fn path(&self) -> String {
        self.resource.object(self.namespace.as_deref(), &self.name)
    }

    pub fn sub(&self, subresource: &str) -> String {
        format!("{}/{subresource}", self.path())
    }

    /// `deployment.apps/web`
    pub fn label(&self) -> String {
        format!("{}/{}", self.resource.label(), self.name)
    }

    pub fn of(resource: &Resource, object: Value, source: &str) -> Self {
        let field = |key: &str| object.pointer(&format!("/metadata/{key}")).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        Self { resource: resource.clone(), namespace: field("namespace"), name: field("name").unwrap_or_default(), object, source: source.to_owned() }
    }
}

/// A document of a file.
pub struct Document {
    pub value: Value,
    pub source: String,
}

pub fn has_files(args: &Args) -> bool {
    args.changed("filename") || args.changed("kustomize")
}

/// Every document of `-f`; what cannot be read is an error among them, so that the others go on.
pub async fn documents(session: &Session, args: &Args) -> Result<Vec<Result<Document>>> {
    let mut found = Vec::new();
    if let Some(folder) = args.given("kustomize") {
        if args.changed("filename") {
            return fail("only one of -f or -k can be specified");
        }
        for object in kustomize::build(folder, kustomize::Options::default())? {
            flatten(object, folder, &mut found);
        }
        return Ok(found);
    }
    for name in args.slice("filename") {
        if name == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            read_documents(&text, "STDIN", &mut found);
        } else if name.starts_with("http://") || name.starts_with("https://") {
            read_documents(&fetch(&name).await?, &name, &mut found);
        } else {
            let path = Path::new(&name);
            if !path.exists() {
                return fail(format!("the path {name:?} does not exist"));
            }
            let mut files = Vec::new();
            collect_files(path, args.on("recursive"), true, &mut files)?;
            for file in files {
                let bytes = std::fs::read(&file)?;
                read_documents(&String::from_utf8_lossy(&bytes), &file, &mut found);
            }
        }
    }
    let _ = session;
    Ok(found)
}

fn collect_files(path: &Path, recursive: bool, top: bool, files: &mut Vec<String>) -> Result<()> {
    if path.is_dir() && (top || recursive) {
        let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let wanted = path.extension().is_some_and(|extension| extension == "json" || extension == "yaml" || extension == "yml");
            if path.is_dir() || wanted {
                collect_files(&path, recursive, false, files)?;
            }
        }
    } else if !path.is_dir() {
        files.push(path.display().to_string());
    }
    Ok(())
}

async fn fetch(url: &str) -> Result<String> {
    let after = url.find("://").map_or(0, |at| at + 3);
    let slash = url[after..].find('/').map_or(url.len(), |at| after + at);
    let config = client::kubeconfig::Config { server: url[..slash].to_owned(), ..Default::default() };
    let bring = |cause: client::http::HttpError| Error::Reach { cause: Box::new(cause), server: url[after..slash].to_owned() };
    let http = client::HttpClient::new(&config, crate::session::USER_AGENT).map_err(bring)?;
    let response = http.request(Method::GET, if slash == url.len() { "/" } else { &url[slash..] }, &[], Vec::new()).await.map_err(bring)?;
    if response.status >= 300 {
        return fail(format!("unable to read URL {url:?}, server reported {}, status code={}", response.status, response.status));
    }
    Ok(String::from_utf8_lossy(&response.bytes().await.map_err(bring)?).into_owned())
}

fn read_documents(text: &str, source: &str, found: &mut Vec<Result<Document>>) {
    for document in yaml::documents(text) {
        match yaml::parse(document) {
            Err(error) => found.push(Err(Error::Message(format!("error parsing {source}: error converting YAML to JSON: yaml: {error}")))),
            Ok(Value::Null) => {}
            Ok(value) => flatten(value, source, found),
        }
    }
}

/// A `List` is its items.
fn flatten(value: Value, source: &str, found: &mut Vec<Result<Document>>) {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or("");
    let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or("");
    if kind.is_empty() || version.is_empty() {
        let what = if kind.is_empty() { "kind" } else { "apiVersion" };
        found.push(Err(Error::Message(format!(
            "error validating {source:?}: error validating data: {what} not set; if you choose to ignore these errors, turn validation off with --validate=false"
        ))));
    } else if let (true, Some(items)) = (kind.ends_with("List"), value.get("items").and_then(Value::as_array)) {
        items.iter().for_each(|item| flatten(item.clone(), source, found));
    } else {
        found.push(Ok(Document { value, source: source.to_owned() }));
    }
}

/// The resource, the namespace and the name of a document; the document gets its namespace written in.
pub async fn place(session: &Session, document: Document) -> Result<Wanted> {
    let Document { mut value, source } = document;
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let (version, kind, name, given) = (text("/apiVersion"), text("/kind"), text("/metadata/name"), text("/metadata/namespace"));
    let resource = session.mapper().await?.require_kind(&version, &kind, &name, &given, &source)?;
    let mut namespace = None;
    if resource.namespaced {
        let default = session.namespace()?;
        if !given.is_empty() && session.explicit_namespace().is_some_and(|asked| asked != given) {
            return fail(format!("the namespace from the provided object \"{given}\" does not match the namespace \"{default}\". You must pass '--namespace={given}' to perform this operation."));
        }
        let chosen = if given.is_empty() { default } else { given };
        if !value["metadata"].is_object() {
            value["metadata"] = Value::Object(Default::default());
        }
        value["metadata"]["namespace"] = chosen.clone().into();
        namespace = Some(chosen);
    }
    Ok(Wanted { resource, name: Some(name).filter(|name| !name.is_empty()), namespace, document: Some(value), source })
}

/// Types and names as arguments: `pods`, `pods a b`, `deploy,ds`, `pod/a svc/b`, `all`.
pub async fn arguments(session: &Session, words: &[String], all_namespaces: bool) -> Result<Vec<Wanted>> {
    let namespace = session.namespace()?;
    let wanted = |resource: Resource, name: Option<String>| {
        let namespace = (resource.namespaced && !all_namespaces).then(|| namespace.clone());
        Wanted { resource, name, namespace, document: None, source: String::new() }
    };
    let mut found = Vec::new();
    if words.iter().any(|word| word.contains('/')) {
        for word in words {
            let Some((kind, name)) = word.split_once('/') else {
                return fail(format!("there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'"));
            };
            if name.contains('/') {
                return fail("arguments in resource/name form may not have more than one slash");
            }
            if kind.is_empty() || name.is_empty() || kind.contains(',') || kind == "all" {
                return fail("arguments in resource/name form must have a single resource and name");
            }
            found.push(wanted(session.resource(kind).await?, Some(name.to_owned())));
        }
        return Ok(found);
    }
    let Some((kinds, names)) = words.split_first() else { return Ok(found) };
    for kind in kinds.split(',').filter(|kind| !kind.is_empty()) {
        let mapper = session.mapper().await?;
        let resources = match (kind, mapper.lookup(kind)) {
            // Upstream's own list: kubectl get all.
            ("all", None) => all(mapper),
            (kind, None) if !mapper.category(kind).is_empty() => mapper.category(kind),
            (kind, _) => vec![mapper.find(kind)?],
        };
        for resource in resources {
            if names.is_empty() {
                found.push(wanted(resource, None));
            } else {
                found.extend(names.iter().map(|name| wanted(resource.clone(), Some(name.clone()))));
            }
        }
    }
    if all_namespaces && found.iter().any(|wanted| wanted.name.is_some() && wanted.resource.namespaced) {
        return fail("a resource cannot be retrieved by name across all namespaces");
    }
    Ok(found)
}

fn all(mapper: &crate::resources::Mapper) -> Vec<Resource> {
    let listed = mapper.category("all");
    if !listed.is_empty() {
        return listed;
    }
    ["pods", "replicationcontrollers", "services", "daemonsets.apps", "deployments.apps", "replicasets.apps", "statefulsets.apps", "horizontalpodautoscalers.autoscaling", "cronjobs.batch", "jobs.batch"]
        .iter()
        .filter_map(|name| mapper.lookup(name).cloned())
        .collect()
}

/// The selectors as a list request takes them.
pub fn list_path(wanted: &Wanted, args: &Args) -> String {
    Query::of(wanted.path()).with("labelSelector", args.text("selector")).with("fieldSelector", args.text("field-selector")).end()
}

/// A list that is refused or not there says what was asked, as upstream's visitor of selectors.
pub fn list_error(error: Error, wanted: &Wanted, args: &Args) -> Error {
    let (Error::Server { status, context: None }, None) = (&error, &wanted.name) else { return error };
    if !matches!(status.code, 400 | 404) {
        return error;
    }
    let (labels, fields) = (args.text("selector"), args.text("field-selector"));
    let what = format!("{}/{}, Resource={}", wanted.resource.group, wanted.resource.version, wanted.resource.plural);
    let context = if labels.is_empty() && fields.is_empty() {
        format!("Unable to list {what:?}: ")
    } else {
        format!("Unable to find {what:?} that match label selector {labels:?}, field selector {fields:?}: ")
    };
    Error::Server { status: status.clone(), context: Some(context) }
}

pub const NOTHING_GIVEN: &str = "You must provide one or more resources by argument or filename.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'";

/// Everything the command line means, as the server has it. Objects that cannot be had are errors among the others.
pub async fn resolve(session: &Session, args: &Args, words: &[String]) -> Result<Vec<Result<Found>>> {
    let mut found = Vec::new();
    let mut asked = Vec::new();
    if has_files(args) {
        if !words.is_empty() {
            return fail("when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well");
        }
        for document in documents(session, args).await? {
            match document {
                Ok(document) => asked.push(place(session, document).await?),
                Err(error) => found.push(Err(error)),
            }
        }
    } else {
        if words.is_empty() {
            return fail(NOTHING_GIVEN);
        }
        asked = arguments(session, words, args.on("all-namespaces")).await?;
        let selected = args.given("selector").is_some() || args.given("field-selector").is_some() || args.on("all");
        if asked.iter().any(|wanted| wanted.name.is_none()) && !selected && !args.on("all-namespaces") {
            return fail("resource(s) were provided, but no name was specified");
        }
        if selected && asked.iter().any(|wanted| wanted.name.is_some()) {
            return fail(if args.on("all") { "setting 'all' parameter but found a non empty selector. " } else { "name cannot be provided when a selector is specified" });
        }
    }
    for wanted in asked {
        match &wanted.name {
            Some(_) => found.push(session.get(&wanted.path()).await.map(|object| Found { namespace: wanted.namespace.clone(), ..Found::of(&wanted.resource, object, &wanted.source) })),
            None => {
                let list = session.get(&list_path(&wanted, args)).await.map_err(|error| list_error(error, &wanted, args))?;
                found.extend(list.get("items").and_then(Value::as_array).into_iter().flatten().map(|item| {
                    let mut item = item.clone();
                    item["apiVersion"] = wanted.resource.api_version().into();
                    item["kind"] = wanted.resource.kind.clone().into();
                    Ok(Found::of(&wanted.resource, item, ""))
                }));
            }
        }
    }
    Ok(found)
}

/// Several outcomes as one.
pub fn gather(errors: Vec<Error>) -> Result<()> {
    let mut errors = errors;
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(Error::Many(errors)),
    }
}

/// The one object a command is about.
pub async fn one(session: &Session, word: &str, default_kind: &str) -> Result<Found> {
    let (kind, name) = word.split_once('/').unwrap_or((default_kind, word));
    let resource = session.resource(kind).await?;
    let namespace = resource.namespaced.then(|| session.namespace()).transpose()?;
    let object = session.get(&resource.object(namespace.as_deref(), name)).await?;
    Ok(Found { namespace, ..Found::of(&resource, object, "") })
}
