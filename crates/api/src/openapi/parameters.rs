//! What may stand in a request's query, and in its path.

use serde_json::{Map, Value, json};

use super::Style;

/// Parameters of writes.
pub(super) const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
pub(super) const FORCE: &str = "force";
/// Of lists, and of what is done with all that a list shows.
const SELECT: &[&str] = &["continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "resourceVersionMatch", "sendInitialEvents", "shardSelector", "timeoutSeconds"];
const WATCH: &[&str] = &["allowWatchBookmarks", "watch"];
pub(super) const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "ignoreStoreReadErrorWithClusterBreakingPotential", "orphanDependents", "propagationPolicy"];
/// Of everything that answers with an object.
const PRETTY: &str = "pretty";

pub(super) fn list() -> Vec<&'static str> {
    [SELECT, WATCH].concat()
}

pub(super) fn delete_collection() -> Vec<&'static str> {
    [SELECT, DELETE].concat()
}

/// Of a subresource whose options are in the query.
pub(super) fn options(kind: &str) -> &'static [&'static str] {
    match kind {
        "PodExecOptions" => &["command", "container", "stderr", "stdin", "stdout", "tty"],
        "PodAttachOptions" => &["container", "stderr", "stdin", "stdout", "tty"],
        "PodPortForwardOptions" => &["ports"],
        "PodProxyOptions" | "ServiceProxyOptions" | "NodeProxyOptions" => &["path"],
        _ => &[],
    }
}

pub(super) const LOG: &[&str] = &["container", "follow", "insecureSkipTLSVerifyBackend", "limitBytes", "previous", "sinceSeconds", "stream", "tailLines", "timestamps"];

/// Type and meaning of a parameter of the query.
fn known(name: &str) -> (&'static str, &'static str) {
    match name {
        "allowWatchBookmarks" => ("boolean", "Whether the server may send events of type BOOKMARK, which say how far a watch is."),
        "command" => ("string", "The program to run and its arguments, one each time this is given. No shell is involved."),
        "container" => ("string", "The pod's container that is meant; a pod's only one when left out."),
        "continue" => ("string", "Where the next part of a list begins: the token that came with the part before."),
        "dryRun" => ("string", "All: the request is judged as a whole and changes nothing."),
        "fieldManager" => ("string", "Who makes these changes: printable, at most 128 characters. Must be given for server-side apply."),
        "fieldSelector" => ("string", "Only objects with these values of fields; everything when left out."),
        "fieldValidation" => ("string", "What becomes of unknown and duplicate fields: Ignore, Warn (the default) or Strict."),
        "follow" => ("boolean", "Whether to go on with what is logged from now on."),
        "force" => ("boolean", "Whether an apply takes over the fields that others own. Only for apply."),
        "gracePeriodSeconds" => ("integer", "The seconds that the object has left; 0 is at once, left out is what its kind gives it."),
        "ignoreStoreReadErrorWithClusterBreakingPotential" => ("boolean", "Whether to delete an object that cannot be read from the store any more. Unsafe: finalizers and preconditions are not looked at."),
        "insecureSkipTLSVerifyBackend" => ("boolean", "Whether the certificate of the node's agent goes unverified."),
        "labelSelector" => ("string", "Only objects with these labels; everything when left out."),
        "limit" => ("integer", "How many objects a part of the list has at most. If there are more, the list's metadata has a token for the next part."),
        "limitBytes" => ("integer", "After how many bytes the log ends."),
        "orphanDependents" => ("boolean", "Deprecated: propagationPolicy says it. Whether dependents outlive their owner."),
        "path" => ("string", "The path of the request that is passed on."),
        "ports" => ("integer", "The ports to forward; needed over WebSockets."),
        "pretty" => ("string", "If 'true', the answer is indented; so it is for browsers, curl and wget when left out."),
        "previous" => ("boolean", "Whether the logs of the container's last run are meant."),
        "propagationPolicy" => ("string", "What becomes of dependents: Orphan, Background or Foreground."),
        "resourceVersion" => ("string", "Of which resource version the answer may be. See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions"),
        "resourceVersionMatch" => ("string", "How resourceVersion is meant, for lists. See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions"),
        "sendInitialEvents" => ("boolean", "Whether a watch begins with the objects that are there, and tells their end by a bookmark with annotation k8s.io/initial-events-end. Needs resourceVersionMatch."),
        "shardSelector" => ("string", "Only a part of the objects, by hash. Alpha: needs the feature gate ShardedListAndWatch."),
        "sinceSeconds" => ("integer", "Only what was logged in the last so many seconds."),
        "stderr" => ("boolean", "Whether standard error is wanted."),
        "stdin" => ("boolean", "Whether there is a standard input."),
        "stdout" => ("boolean", "Whether standard output is wanted."),
        "stream" => ("string", "Which stream is meant: All, Stdout or Stderr."),
        "tailLines" => ("integer", "How many lines before the end to begin at."),
        "timeoutSeconds" => ("integer", "After how many seconds a list or watch ends, whatever happens."),
        "timestamps" => ("boolean", "Whether each line begins with its time."),
        "tty" => ("boolean", "Whether there is a terminal."),
        "watch" => ("boolean", "Whether changes are wanted, as a stream of events, from resourceVersion on."),
        _ => ("string", ""),
    }
}

fn parameter(name: &str, place: &str, ty: &str, description: &str, style: Style) -> Value {
    let mut value = json!({"name": name, "in": place});
    if !description.is_empty() {
        value["description"] = description.into();
    }
    if place == "path" {
        value["required"] = true.into();
    }
    match style {
        Style::V2 => {
            value["type"] = ty.into();
            value["uniqueItems"] = true.into();
        }
        Style::V3 => value["schema"] = json!({"type": ty, "uniqueItems": true}),
    }
    value
}

pub(super) fn of_query(name: &str, style: Style) -> Value {
    let (ty, description) = known(name);
    parameter(name, "query", ty, description, style)
}

/// What all operations of a path take: its places, whether answers are indented, and what each of them would say by itself. `kind` is whose name is in the path.
pub(super) fn shared(item: &mut Map<String, Value>, path: &str, kind: &str, plain: bool, style: Style) {
    let mut all: Vec<Value> = Vec::new();
    let named = format!("name of the {kind}");
    for (name, description) in [("namespace", "object name and auth scope, such as for teams and projects"), ("name", &*named), ("path", "path to the resource")] {
        if path.contains(&format!("{{{name}}}")) {
            all.push(parameter(name, "path", "string", description, style));
        }
    }
    if plain {
        all.push(of_query(PRETTY, style));
    }
    let of = |operation: &Value| operation["parameters"].as_array().cloned().unwrap_or_default();
    let common: Vec<Value> = item.values().next().map(of).unwrap_or_default().into_iter().filter(|one| one["in"] != "body" && item.values().all(|operation| of(operation).contains(one))).collect();
    for operation in item.values_mut().filter_map(Value::as_object_mut) {
        if let Some(own) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
            own.retain(|one| !common.contains(one));
        }
        if operation.get("parameters").and_then(Value::as_array).is_some_and(Vec::is_empty) {
            operation.remove("parameters");
        }
    }
    all.extend(common);
    if !all.is_empty() {
        all.sort_by(|a, b| (a["name"].as_str(), a["in"].as_str()).cmp(&(b["name"].as_str(), b["in"].as_str())));
        item.insert("parameters".to_owned(), all.into());
    }
}
